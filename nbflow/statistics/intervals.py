"""Intervals of a number from runs: rates, means, their differences, any statistic."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from nbflow import _check
from nbflow.records import Interval, SequenceMean
from nbflow.statistics._given import as_numbers, of_runs


def success_rate(solved: int, runs: int, *, confidence: float = 0.95) -> Interval:
    """Return the part of runs that solved a task, with its Wilson interval (Wilson 1927).

    Parameters
    ----------
    solved, runs : int
    confidence : float

    Returns
    -------
    Interval
        Never empty, even where none or all solved it.

    Raises
    ------
    TypeError, ValueError
        If there are more solved than runs, or no runs.

    Examples
    --------
    >>> [round(end, 3) for end in success_rate(0, 10)]
    [0.0, 0.0, 0.278]
    """
    from scipy.stats import binomtest

    solved, runs = _check.count("solved", solved, 0), _check.count("runs", runs)
    if solved > runs:
        raise ValueError(f"solved is {solved}; expected at most {runs}, the runs. Swap them.")
    found = binomtest(solved, runs).proportion_ci(_check.part("confidence", confidence), method="wilson")
    return Interval(solved / runs, float(found.low), float(found.high))


def rate_difference(solved: tuple[int, int], runs: tuple[int, int], *, confidence: float = 0.95) -> Interval:
    """Return the difference of two success rates, the first less the second, with its interval (Newcombe 1998).

    Parameters
    ----------
    solved, runs : pairs of int
    confidence : float

    Returns
    -------
    Interval

    Examples
    --------
    >>> [round(end, 4) for end in rate_difference((56, 48), (70, 80))]
    [0.2, 0.0524, 0.3339]
    """
    one, two = (success_rate(k, n, confidence=confidence) for k, n in zip(solved, runs, strict=True))
    value = one.value - two.value
    return Interval(
        value,
        value - math.hypot(one.value - one.low, two.high - two.value),
        value + math.hypot(one.high - one.value, two.value - two.low),
    )


def mean_interval(samples: Any, *, confidence: float = 0.95) -> SequenceMean:
    """Return the mean over the last axis, with Student's t interval.

    Parameters
    ----------
    samples : array of shape (..., n)
        NaN stands for a sample that is not there.
    confidence : float

    Returns
    -------
    SequenceMean
        Of arrays (...). With one sample the interval is NaN, with none the mean too.

    Examples
    --------
    >>> found = mean_interval([1.0, 2.0, 3.0])
    >>> float(found.mean), round(float(found.low), 3), int(found.count)
    (2.0, -0.484, 3)
    """
    from scipy import stats

    samples, confidence = as_numbers("samples", samples), _check.part("confidence", confidence)
    there = ~np.isnan(samples)
    count = there.sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        mean = np.where(there, samples, 0).sum(axis=-1) / count
        squares = np.where(there, samples - mean[..., None], 0) ** 2
        spread = np.sqrt(squares.sum(axis=-1) / (count - 1.0) / count)
        half = np.where(count > 1, stats.t.ppf((1 + confidence) / 2, np.maximum(count - 1, 1)) * spread, np.nan)
        return SequenceMean(mean, mean - half, mean + half, count)


def bootstrap(
    values: Any, *, statistic: Callable[..., Any] = np.mean, confidence: float = 0.95, resamples: int = 9999,
    rng: Any = 0,
) -> Interval:  # fmt: skip
    """Return a statistic of the runs, losses for example, with its bootstrap interval (BCa).

    Parameters
    ----------
    values : sequence of n numbers
        One for each run; at least 2.
    statistic : function of an array and an axis
        As `numpy.mean` and `numpy.median`.
    confidence : float
    resamples : int
    rng : None, int or numpy.random.Generator

    Returns
    -------
    Interval
        Percentiles where BCa has none, that is where all values are alike.

    Examples
    --------
    >>> found = bootstrap([1.0, 2.0, 3.0, 4.0, 5.0])
    >>> found.value, bool(1 < found.low < 3 < found.high < 5)
    (3.0, True)
    """
    from scipy import stats

    sample = of_runs("values", values)
    value = float(statistic(sample))
    if np.ptp(sample) == 0:
        return Interval(value, value, value)
    found = stats.bootstrap(
        (sample,), statistic, n_resamples=_check.count("resamples", resamples), method="BCa",
        confidence_level=_check.part("confidence", confidence), rng=_check.generator("rng", rng),
    ).confidence_interval  # fmt: skip
    return Interval(value, float(found.low), float(found.high))
