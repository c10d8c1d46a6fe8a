"""How far the mean of clipped gradients is from that of the unclipped ones, with bootstrap intervals.

Minibatches are resampled, n out of n with replacement (Efron & Tibshirani 1993, chapter 13). Inner products are taken
once; a resample then is a vector of n weights w, and `<mean, mean> = w' G w` with the Gram matrix G. The distance of
two means has a Gram matrix of its own, that of the differences: |a|^2 - 2 <a, b> + |b|^2 would cancel, and leave
sqrt(eps) where there is no bias, or 0, as the BLAS at hand rounds.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from nbflow.records import Distances, Floats, Interval

# Entries of the resampled means that are formed at once, to compare their signs: the only work that grows with P.
PIECE = 4096
# Resamples that are evaluated at once.
RESAMPLES = 256
# A sign is known where the mean is so many standard errors from 0.
KNOWN = 2.0


def distances(a: Floats, b: Floats) -> Distances:
    """Return how far a vector a (P,) is from b (P,)."""
    top = np.abs(b).max(initial=0.0) or 1.0
    a, b = a.astype(np.float64) / top, b.astype(np.float64) / top
    own, there = np.abs(a).max(initial=0.0) or 1.0, b != 0
    size, part = np.linalg.norm(b), a / own
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine = np.clip(part @ b / (np.linalg.norm(part) * size), -1.0, 1.0)
        agreement = np.divide((np.sign(a) == np.sign(b))[there].sum(), there.sum())
        found = cosine, np.linalg.norm(a) / size, agreement, np.linalg.norm(a - b) / size
    return Distances(*map(float, found))


def noise(rows: Floats, mean: Floats) -> float:
    """Return the standard error of the mean of rows (n, P), as a part of the norm of another mean."""
    top = np.abs(mean).max(initial=0.0) or 1.0
    variance = (rows.astype(np.float64) / top).var(axis=0, ddof=1).sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.sqrt(variance / len(rows)) / np.linalg.norm(mean / top))


def known_signs(rows: Floats) -> Any:
    """Tell in which entries the sign of the mean of rows (n, P) is beyond doubt."""
    rows = rows.astype(np.float64)
    return np.abs(rows.mean(axis=0)) > KNOWN * rows.std(axis=0, ddof=1) / np.sqrt(len(rows))


class Rows:
    """Unclipped gradients (n, P), and those of one way of clipping, ready to be resampled."""

    def __init__(self, clipped: Floats, plain: Floats) -> None:
        # Scaled by a power of two, so that no square overflows.
        scale = 2.0 ** -np.frexp(np.abs(plain).max(initial=0.0) or 1.0)[1]
        a, b = clipped.astype(np.float64) * scale, plain.astype(np.float64) * scale
        self.grams = a @ a.T, a @ b.T, b @ b.T, (a - b) @ (a - b).T
        known = known_signs(b)
        self.clipped, self.plain = (rows[:, known].astype(plain.dtype) for rows in (a, b))

    def __call__(self, index: Any, axis: int = -1) -> Any:
        """Return the distances (4, ...) of resamples, rows (..., n) of indices, as `scipy.stats.bootstrap` asks."""
        lead, n = index.shape[:-1], len(self.plain)
        rows = index.reshape(-1, index.shape[-1]).astype(np.int64)
        places = (rows + n * np.arange(len(rows))[:, None]).ravel()
        weights = np.bincount(places, minlength=len(rows) * n).reshape(-1, n) / rows.shape[1]
        own, inner, other, apart = (_pairs(weights, gram) for gram in self.grams)
        other = np.where(other > 0, other, np.nan)
        with np.errstate(invalid="ignore", divide="ignore"):
            cosine = inner / (np.sqrt(own) * np.sqrt(other))
            relative_norm = np.sqrt(np.maximum(own, 0.0) / other)
            bias = np.sqrt(np.maximum(apart, 0.0) / other)
        return np.stack([cosine, relative_norm, self._agreement(weights), bias]).reshape(4, *lead)

    def _agreement(self, weights: Floats) -> Floats:
        some, found = weights.astype(self.plain.dtype), np.zeros(len(weights))
        for k in range(0, self.plain.shape[1], PIECE):
            a, b = (some @ rows[:, k : k + PIECE] for rows in (self.clipped, self.plain))
            found += (np.sign(a) == np.sign(b)).sum(axis=1)
        with np.errstate(invalid="ignore"):
            return found / np.float64(self.plain.shape[1])


def _pairs(weights: Floats, gram: Floats) -> Floats:
    """Return the mean inner product of pairs of different minibatches, so that no noise meets itself."""
    squares = weights**2
    found = ((weights @ gram) * weights).sum(axis=1) - squares @ np.diag(gram)
    with np.errstate(invalid="ignore"):
        return np.asarray(found / (1 - squares.sum(axis=1)))


def intervals(clipped: Floats, plain: Floats, resamples: int, confidence: float, rng: np.random.Generator) -> Distances:
    """Return how far the mean of `clipped` (n, P) is from that of `plain` (n, P) in the long run, with intervals.

    Percentiles of the resamples, reflected at the estimate for the cosine, whose estimate is not in the middle of its
    resamples.
    """
    from scipy.stats import DegenerateDataWarning, bootstrap

    rows = Rows(clipped, plain)
    index = np.arange(len(plain))
    values = rows(index)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateDataWarning)  # of resamples without a value: `_percentiles` sees them
        found = bootstrap((index,), rows, vectorized=True, n_resamples=resamples, batch=RESAMPLES, method="percentile",
                          rng=rng)  # fmt: skip
    tail = (1 - confidence) / 2
    ends = [_percentiles(row, tail) for row in found.bootstrap_distribution]
    ends[0] = 2 * values[0] - ends[0][1], 2 * values[0] - ends[0][0]
    cosine, *others = (_interval(value, *end) for value, end in zip(values, ends, strict=True))
    return Distances(Interval(*(float(np.clip(x, -1.0, 1.0)) for x in cosine)), *others)


def _percentiles(resampled: Floats, tail: float) -> tuple[float, float]:
    """Return both ends, NaN if more resamples than lie beyond them have no value."""
    if np.isnan(resampled).mean() > tail:
        return np.nan, np.nan
    low, high = np.nanpercentile(resampled, [100 * tail, 100 * (1 - tail)])
    return float(low), float(high)


def _interval(value: float, low: float, high: float) -> Interval:
    return Interval(float(value), float(np.minimum(low, value)), float(np.maximum(high, value)))
