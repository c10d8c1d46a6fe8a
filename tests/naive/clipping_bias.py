"""What clipping does to the gradient on average."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from naive.arrays import Array, Batch, cosine, length
from naive.clips import clip
from naive.gradients import gradient


def shares(theta: Array, cell: str, N: int, H: int, M: int, loss_name: str, batch: Batch) -> Array:
    """Return the gradient (B,P) of each example's share of the loss: all weights but its own are 0."""
    inputs, targets, weights = batch
    found = []
    for b in range(weights.shape[1]):
        own = np.zeros_like(weights)
        own[:, b] = weights[:, b]
        found.append(gradient(theta, cell, N, H, M, loss_name, (inputs, targets, own))[1])
    return np.array(found)


class Distances(NamedTuple):
    """How far one mean is from another."""

    cosine: float
    relative_norm: float
    sign_agreement: float
    bias: float


def distances(a: Array, b: Array) -> Distances:
    """Return how far a vector a (P,) is from b: signs where b is not 0."""
    signs = [np.sign(x) == np.sign(y) for x, y in zip(a, b, strict=True) if y != 0]
    return Distances(cosine(a, b), length(a) / length(b), float(np.mean(signs)), length(a - b) / length(b))


def long_run_distances(clipped: Array, plain: Array) -> Distances:
    """Return how far the mean of the clipped is from that of the plain, were there ever more rows (n,P) like these.

    <E a, E b> is the mean of <a_i, b_j> over i != j, which has no bias for independent rows; signs are those of entries
    whose mean is more than two standard errors from 0.
    """
    n = len(plain)

    def inner(a: Array, b: Array) -> float:
        return sum(float(a[i] @ b[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))

    own, both, other = inner(clipped, clipped), inner(clipped, plain), inner(plain, plain)
    apart = inner(clipped - plain, clipped - plain)
    signs = []
    for a, b in zip(clipped.T, plain.T, strict=True):
        error = np.sqrt(sum((b - b.mean()) ** 2) / (n - 1) / n)
        if abs(b.mean()) > 2 * error:
            signs.append(np.sign(a.mean()) == np.sign(b.mean()))
    return Distances(
        both / np.sqrt(own * other),
        np.sqrt(own / other),
        float(np.mean(signs)),
        np.sqrt(max(apart, 0) / other),
    )


def kept(left: Array, share: Array) -> float:
    """Return what is left of a share, along itself: 1 is all of it."""
    return float(left @ share / (share @ share))


def average_of_clipped(gradients: Array, size: int, threshold: float) -> tuple[float, float, float]:
    """Return cosine, norm ratio and part clipped, of groups of neighbouring gradients (N,P), of the two of the book.

    The average of norm-clipped minibatch gradients against the norm-clipped average (book section 10.11.1).
    """
    groups_of = [gradients[k : k + size].mean(axis=0) for k in range(0, len(gradients), size)]
    average = np.mean([clip("norm", g, threshold).d_theta for g in groups_of], axis=0)
    clipped = clip("norm", gradients.mean(axis=0), threshold).d_theta
    part = np.mean([length(g) > threshold for g in groups_of])
    return cosine(average, clipped), length(average) / length(clipped), float(part)
