"""Thresholds: from the norms of a run, so far and now, to the threshold of now. Only finite norms count as seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np


def _seen(norms: Sequence[float]) -> list[float]:
    return [float(norm) for norm in norms if np.isfinite(norm)]


def constant(norms: Sequence[float], value: float) -> float:
    """Return the threshold that was given (Pascanu 2013 alg. 1)."""
    return value


def linear(norms: Sequence[float], first: float, last: float, updates: float) -> float:
    """Return a point of the line from first to last (book eq. 8.14)."""
    k = len(norms) - 1
    return float(np.interp(k, [0, updates], [first, last]))


def inverse_time(norms: Sequence[float], first: float, half: float) -> float:
    """Return first / (1 + k / half) (Robbins and Monro 1951)."""
    return first * half / (half + len(norms) - 1)


def percentile(norms: Sequence[float], percent: float = 10, window: int = 1000, first: float = 1) -> float:
    """Return numpy's percentile of the last norms, this one included (Seetharaman 2020 alg. 1, with a window)."""
    seen = _seen(norms)[-int(window) :]
    return float(np.percentile(seen, percent)) if seen else first


def quantile(norms: Sequence[float], quantile: float = 0.5, rate: float = 0.2, first: float = 0.1) -> float:
    """Return the threshold after the geometric updates of all norms before this one (Andrew 2021, section 2.1)."""
    threshold = first
    for norm in _seen(norms[:-1]):
        threshold *= np.exp(-rate * (float(norm <= threshold) - quantile))
    return threshold


def zscore(
    norms: Sequence[float], z: float = 2.5, decay: float = 0.97, warmup: int = 25, most: float = np.inf
) -> float:
    """Return what ZClip clips to (Kumar 2025, reciprocal rule), or the limit of its z-score; no epsilon."""
    seen = _seen(norms[:-1])
    if len(seen) < warmup:
        return most if np.isfinite(norms[-1]) or not seen else min(float(np.mean(seen)), most)
    m, variance = float(np.mean(seen[: int(warmup)])), float(np.var(seen[: int(warmup)]))

    def limit(norm: float) -> float:
        score = (norm - m) / variance**0.5
        return m + variance**0.5 * (z**2 / score if score > z else z)

    for norm in seen[int(warmup) :]:
        entering = min(norm, limit(norm))
        m = decay * m + (1 - decay) * entering
        variance = decay * variance + (1 - decay) * (entering - m) ** 2
    return min(limit(norms[-1]) if np.isfinite(norms[-1]) else m, most)


THRESHOLDS: dict[str, Callable[..., float]] = {
    "constant": constant,
    "inverse_time": inverse_time,
    "linear": linear,
    "percentile": percentile,
    "quantile": quantile,
    "zscore": zscore,
}
