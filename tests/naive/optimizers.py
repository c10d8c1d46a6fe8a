"""Optimizers: from theta and a gradient to the next theta."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from naive.arrays import Array

State = tuple[Array, ...]
Optimizer = Callable[[Array, Array, "State | None", float, int], tuple[Array, State]]


def saturated(x: Array, d: Array) -> Array:
    """Return a moment: at most the largest finite number where the gradient is finite."""
    most = np.finfo(x.dtype).max
    return np.where(np.isinf(x) & np.isfinite(d), np.copysign(most, x), x).astype(x.dtype)


def sgd(theta: Array, d: Array, state: State | None, lr: float, n: int) -> tuple[Array, State]:
    """Take a plain gradient step (book alg. 8.1)."""
    return theta - lr * d, ()


def momentum(theta: Array, d: Array, state: State | None, lr: float, n: int) -> tuple[Array, State]:
    """Take a step of heavy-ball momentum, .9 (book alg. 8.2; Differs from it: lr scales the velocity)."""
    velocity = state[0] if state else np.zeros_like(theta)
    velocity = saturated(0.9 * velocity + d, d)
    return theta - lr * velocity, (velocity,)


def rmsprop(theta: Array, d: Array, state: State | None, lr: float, n: int) -> tuple[Array, State]:
    """Take a step of RMSProp, decay .99 (Hinton 2012; book alg. 8.5; Differs from it: epsilon is outside the root)."""
    mean_square = state[0] if state else np.zeros_like(theta)
    mean_square = saturated(0.99 * mean_square + 0.01 * d * d, d)
    return theta - lr * (d / (np.sqrt(mean_square) + 1e-8)), (mean_square,)


def adam(theta: Array, d: Array, state: State | None, lr: float, n: int) -> tuple[Array, State]:
    """Take step n = 1, 2, ... of Adam (Kingma & Ba 2015 alg. 1)."""
    mean, mean_square = state if state else (np.zeros_like(theta), np.zeros_like(theta))
    mean = saturated(0.9 * mean + 0.1 * d, d)
    mean_square = saturated(0.999 * mean_square + 0.001 * d * d, d)
    root = np.sqrt(mean_square) / (1 - 0.999**n) ** 0.5 + 1e-8  # a mean square at its largest has no room to be divided
    return theta - lr * (mean / root / (1 - 0.9**n)), (mean, mean_square)


OPTIMIZERS: dict[str, Optimizer] = {"sgd": sgd, "momentum": momentum, "rmsprop": rmsprop, "adam": adam}
