"""What every file here speaks of: kinds of arrays, lengths and angles of vectors."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Params = dict[str, Array]
Batch = tuple[Array, Array, Array]


@np.errstate(over="ignore")
def length(a: Array) -> float:
    """Return the Euclidean norm of all entries, in float64 and scaled by the largest, so that no square is lost."""
    a = np.abs(np.asarray(a, dtype=np.float64)).ravel()
    top = float(a.max(initial=0.0))
    if top == 0 or not np.isfinite(top):
        return top
    return top * float(np.sqrt(np.sum((a / top) ** 2)))


def cosine(a: Array, b: Array) -> float:
    """Return the cosine between two vectors, NaN if either is zero or not finite."""
    lengths = length(a), length(b)
    if not all(np.isfinite(lengths)) or not all(lengths):
        return float("nan")
    return float(np.sum((np.float64(a) / lengths[0]) * (np.float64(b) / lengths[1])))


def rescale(g: Array, size: float) -> Array:
    """Return g with norm size; g must be finite and not zero."""
    g = g / np.abs(g).max()
    return g * (size / length(g))


def gram_schmidt(A: Array) -> tuple[Array, Array]:
    """Return an orthonormal Q and what is left of each column of A beside those before it, A = Q R with these R_ii."""
    Q, stretch = np.array(A), np.zeros(A.shape[1])
    for j in range(A.shape[1]):
        for _ in range(2):  # twice is enough
            for i in range(j):
                Q[:, j] -= (Q[:, i] @ Q[:, j]) * Q[:, i]
        stretch[j] = length(Q[:, j])
        Q[:, j] /= stretch[j]
    return Q, stretch
