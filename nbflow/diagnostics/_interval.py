"""Means over sequences and how well they are known."""

from __future__ import annotations

from typing import Any

import numpy as np

from nbflow import _check
from nbflow.records import Floats, SequenceMean


def check_confidence(value: Any) -> float:
    """Return a confidence, a number between 0 and 1."""
    found = float(_check.per_replica("confidence", value, 1, least=0.0, above=True)[0])
    if found >= 1:
        raise ValueError(f"confidence is {found:g}; expected a number between 0 and 1. The usual one is 0.95.")
    return found


def interval(samples: Floats, confidence: float = 0.95) -> SequenceMean:
    """Return the mean over the last axis with Student's t interval; NaN stands for a sample that is not there.

    With one sample the interval is NaN, with none the mean too.
    """
    from scipy import stats

    there = ~np.isnan(samples)
    count = there.sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        mean = np.where(there, samples, 0).sum(axis=-1) / count
        squares = np.where(there, samples - mean[..., None], 0) ** 2
        spread = np.sqrt(squares.sum(axis=-1) / (count - 1.0) / count)
        half = np.where(count > 1, stats.t.ppf((1 + confidence) / 2, np.maximum(count - 1, 1)) * spread, np.nan)
        return SequenceMean(mean, mean - half, mean + half, count)
