"""Losses, and their slopes at the outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from naive.arrays import Array
from naive.calculus import TINY


def _softmax(y: Array, target: Array) -> Any:
    """Return -log softmax(y)[target] in nats (book eq. 6.30)."""
    top = np.max(np.real(y))
    return (top - y[target]) + np.log(np.sum(np.exp(y - top)))


def _square(y: Array, target: Array) -> Any:
    """Return the squared error, summed over the outputs."""
    return np.sum((y - target) ** 2)


def _bernoulli(y: Array, target: Array) -> Any:
    """Return the binary cross-entropy softplus(y) - target y, in nats, summed over the outputs (book eq. 6.24-6.26)."""
    positive = np.real(y) > 0
    size = np.where(positive, y, -y)
    return np.sum(np.where(positive, y * (1 - target), -target * y) + np.log1p(np.exp(-size)))


LOSSES: dict[str, Callable[[Array, Array], Any]] = {"softmax": _softmax, "square": _square, "bernoulli": _bernoulli}


@np.errstate(over="ignore", invalid="ignore")
def loss(name: str, y: Array, targets: Array, weights: Array) -> Any:
    """Return L = sum over t, b of weights[t,b] * l(y[t,b], targets[t,b]); a zero weight silences even a NaN."""
    total = 0.0
    T, B = np.shape(weights)
    for t in range(T):
        for b in range(B):
            if weights[t, b] != 0:
                total = total + weights[t, b] * LOSSES[name](y[t, b], targets[t, b])
    return total


@np.errstate(over="ignore", invalid="ignore")
def loss_slope(name: str, y: Array, targets: Array, weights: Array) -> Array:
    """Return dL/dy (T,B,M) by complex step, exactly zero where the weight is zero."""
    slope = np.zeros(y.shape)
    T, B, M = y.shape
    for t in range(T):
        for b in range(B):
            if weights[t, b] == 0:
                continue
            for m in range(M):
                nudged = y[t, b].astype(complex)
                nudged[m] += 1j * TINY
                slope[t, b, m] = weights[t, b] * (LOSSES[name](nudged, targets[t, b]).imag / TINY)
    return slope
