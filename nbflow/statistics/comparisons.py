"""Whether two methods are alike, by a margin, or differ; and many such tests at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from nbflow import _check
from nbflow._legible import legible
from nbflow.records import Floats, Interval
from nbflow.statistics._given import as_numbers, of_runs
from nbflow.statistics.intervals import rate_difference


@legible
class Equivalence(NamedTuple):
    """A difference, and whether it is within a margin.

    Attributes
    ----------
    difference : Interval
        With confidence 1 - 2 alpha, as two one-sided tests at alpha ask, in units of the values.
    margin : float
        What was named beforehand, in the same units.
    p : float
        Of the two one-sided tests, 0 to 1; NaN for rates, which are judged by their interval.
    equivalent : bool
        Whether the difference is smaller than the margin.
    """

    difference: Interval
    margin: float
    p: float
    equivalent: bool


def equivalence(one: Any, two: Any, margin: float, *, alpha: float = 0.05) -> Equivalence:
    """Test whether two means, of losses for example, differ by less than a margin.

    By two one-sided Welch tests (Schuirmann 1987).

    Parameters
    ----------
    one, two : sequences of numbers
        One for each run; at least 2.
    margin : float
        Named before looking, in units of the values.
    alpha : float

    Returns
    -------
    Equivalence
        `equivalent` is p < alpha; not being so is no evidence of a difference.

    Examples
    --------
    >>> found = equivalence([1.0, 1.1, 0.9, 1.0], [1.0, 1.05, 0.95, 1.0], margin=0.5)
    >>> found.equivalent, round(found.p, 4)
    (True, 0.0001)
    """
    from scipy.stats import ttest_ind

    a, b = of_runs("one", one), of_runs("two", two)
    margin, alpha = _margin(margin), _check.part("alpha", alpha)
    if np.ptp(a) == np.ptp(b) == 0:  # no test without a variance, and no need of one
        return _without_variance(float(a[0] - b[0]), margin)
    above = ttest_ind(a + margin, b, equal_var=False, alternative="greater").pvalue
    below = ttest_ind(a - margin, b, equal_var=False, alternative="less").pvalue
    ends = ttest_ind(a, b, equal_var=False).confidence_interval(1 - 2 * alpha)
    p = float(max(above, below))
    difference = Interval(float(a.mean() - b.mean()), float(ends.low), float(ends.high))
    return Equivalence(difference, margin, p, p < alpha)


def paired_equivalence(one: Any, two: Any, margin: float, *, alpha: float = 0.05) -> Equivalence:
    """Test the same for pairs, runs of the same seeds for example, by two one-sided t tests of their differences.

    What both runs of a pair have in common, first weights and sequences, is in no difference.

    Parameters
    ----------
    one, two : sequences of n numbers
        The pairs; at least 2.
    margin : float
        Named before looking, in units of the values.
    alpha : float

    Returns
    -------
    Equivalence
        As from `equivalence`.

    Examples
    --------
    >>> found = paired_equivalence([1.0, 2.0, 3.1, 4.0], [1.1, 2.0, 3.0, 4.1], margin=0.5)
    >>> found.equivalent, found.p < 0.01
    (True, True)
    """
    from scipy.stats import ttest_1samp

    d = _differences(one, two)
    margin, alpha = _margin(margin), _check.part("alpha", alpha)
    if np.ptp(d) == 0:
        return _without_variance(float(d[0]), margin)
    above = ttest_1samp(d, -margin, alternative="greater").pvalue
    below = ttest_1samp(d, margin, alternative="less").pvalue
    ends = ttest_1samp(d, 0.0).confidence_interval(1 - 2 * alpha)
    p = float(max(above, below))
    return Equivalence(Interval(float(d.mean()), float(ends.low), float(ends.high)), margin, p, p < alpha)


def equivalence_of_rates(
    solved: tuple[int, int], runs: tuple[int, int], margin: float, *, alpha: float = 0.05
) -> Equivalence:
    """Tell whether two success rates differ by less than a margin: Newcombe's interval (Newcombe 1998) lies within it.

    Parameters
    ----------
    solved, runs : pairs of int
    margin : float
        Named before looking, as a part: 0.1 for ten points.
    alpha : float

    Returns
    -------
    Equivalence

    Examples
    --------
    >>> equivalence_of_rates((29, 30), (30, 30), 0.1).equivalent
    False
    >>> equivalence_of_rates((290, 300), (300, 300), 0.1).equivalent
    True
    """
    margin = _margin(margin)
    found = rate_difference(solved, runs, confidence=1 - 2 * _check.part("alpha", alpha))
    return Equivalence(found, margin, math.nan, -margin < found.low and found.high < margin)


def paired_difference(one: Any, two: Any) -> float:
    """Return the p-value of a t test: that pairs differ by 0 on average.

    Parameters
    ----------
    one, two : sequences of n numbers
        The pairs; at least 2.

    Returns
    -------
    float
        Two-sided; 1 where all pairs are equal, 0 where all differ by the same.

    Examples
    --------
    >>> round(paired_difference([1.0, 2.0, 3.0, 4.0], [2.0, 3.5, 4.0, 5.5]), 4)
    0.0032
    """
    from scipy.stats import ttest_1samp

    d = _differences(one, two)
    return float(d[0] == 0) if np.ptp(d) == 0 else float(ttest_1samp(d, 0.0).pvalue)


def _without_variance(value: float, margin: float) -> Equivalence:
    return Equivalence(Interval(value, value, value), margin, float(abs(value) >= margin), abs(value) < margin)


def _differences(one: Any, two: Any) -> Floats:
    a, b = of_runs("one", one), of_runs("two", two)
    if len(a) != len(b):
        raise ValueError(f"one has {len(a)} numbers and two {len(b)}; expected pairs. Leave out what has no partner.")
    found: Floats = a - b
    return found


def _margin(value: Any) -> float:
    return float(_check.per_replica("margin", value, 1, least=0.0, above=True, finite=True)[0])


def holm(p: Sequence[float]) -> Floats:
    """Return p-values adjusted for being many, by Holm's method (Holm 1979).

    Parameters
    ----------
    p : sequence of n numbers
        From 0 to 1.

    Returns
    -------
    array of shape (n,)
        In the same order; rejecting those below alpha errs in any with probability alpha at most.

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03, 0.005]).round(3).tolist()
    [0.03, 0.06, 0.06, 0.02]
    """
    values = as_numbers("p", p)
    if values.ndim != 1 or not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"p is {_check.said(p)}; expected numbers from 0 to 1. Look where they were computed.")
    order = np.argsort(values, kind="stable")
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)), 1.0)
    return adjusted
