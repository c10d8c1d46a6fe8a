"""Regularizers other than the penalty of the gain, and their slopes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from naive.arrays import Array, Batch
from naive.calculus import central_difference, complex_step
from naive.parameters import unpack
from naive.states import forward
from naive.trace import last_step, lyapunov


def norm_stabilizer(
    theta: Array, cell: str, N: int, H: int, M: int, batch: Batch, s0: Array | None = None, *, ends: bool = False
) -> Any:
    """Return the mean over sequences of 1/T sum_t (||h_t|| - ||h_{t-1}||)^2, T being the last step with weight.

    Krueger & Memisevic 2015. Complex-safe; with `ends`, the values of the sequences.
    """
    states = forward(unpack(theta, cell, N, H, M), cell, batch[0], s0)
    shares = []
    for b, end in enumerate(last_step(batch[2])):
        size = [np.sqrt(np.sum(states[t, b, 0] ** 2)) for t in range(end + 1)]
        shares.append(sum((size[t] - size[t - 1]) ** 2 for t in range(1, end + 1)) / max(end, 1))
    return np.array(shares) if ends else sum(shares) / len(shares)


def orthogonality(theta: Array, cell: str, N: int, H: int, M: int, batch: Batch, s0: Array | None = None) -> Any:
    """Return the sum over gates of ||W^T W - I||_F^2 (Vorontsov et al. 2017); complex-safe."""
    w_rec = unpack(theta, cell, N, H, M)["w_rec"]
    return sum(np.sum((w_rec[:, g].T @ w_rec[:, g] - np.eye(H)) ** 2) for g in range(w_rec.shape[1]))


def spectral_cap(theta: Array, cell: str, N: int, H: int, M: int, batch: Batch, s0: Array | None = None) -> float:
    """Return the sum over gates of the squares by which singular values of W, roots of eig(W^T W), are above 1."""
    w_rec, total = unpack(theta, cell, N, H, M)["w_rec"], 0.0
    for g in range(w_rec.shape[1]):
        for square in np.linalg.eigvalsh(w_rec[:, g].T @ w_rec[:, g]):
            total += max(np.sqrt(max(square, 0.0)) - 1, 0.0) ** 2
    return total


def flossing(theta: Array, cell: str, N: int, H: int, M: int, batch: Batch, s0: Array | None = None) -> float:
    """Return the mean over sequences and the 5 leading exponents of lambda^2 (Engelken 2023)."""
    return float(np.mean(lyapunov(unpack(theta, cell, N, H, M), cell, batch[0], batch[2], 5) ** 2))


REGULARIZERS: dict[str, Callable[..., Any]] = {
    "norm_stabilizer": norm_stabilizer,
    "orthogonality": orthogonality,
    "spectral_cap": spectral_cap,
    "flossing": flossing,
}
COMPLEX_SAFE = ("norm_stabilizer", "orthogonality")


def regularizer_slope(name: str, theta: Array, *given: Any) -> Array:
    """Return the gradient of a regularizer at theta: by complex step, or by central differences."""
    point = np.asarray(theta, np.float64)
    if name in COMPLEX_SAFE:
        return complex_step(lambda at: REGULARIZERS[name](at, *given), point)
    return central_difference(lambda at: REGULARIZERS[name](at, *given), point, h=2e-5)
