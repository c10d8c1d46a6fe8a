"""What can be said from a few dozen runs: intervals, survival curves and tests, all of scipy.stats.

Success rates have Wilson intervals. The updates until a task is solved are censored: a run that ended unsolved says
only that it would have taken longer, and a mean over those that were solved is one over the lucky ones. That two
methods are alike is shown by an interval that lies within a margin named beforehand; a large p-value of a test of
equality shows nothing.

References
----------
- E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
- R. G. Newcombe, "Interval estimation for the difference between independent proportions", Statistics in Medicine 17
  (1998), method 10.
- D. J. Schuirmann, "A comparison of the two one-sided tests procedure and the power approach for assessing the
  equivalence of average bioavailability", J. Pharmacokinetics and Biopharmaceutics 15 (1987).
- S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian J. of Statistics 6 (1979).
"""

from __future__ import annotations

import math
import numbers
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from nbflow import _check
from nbflow._legible import legible
from nbflow.records import Floats, Interval, SequenceMean


@legible
class Survival(NamedTuple):
    """The part of runs that are not yet solved, by the Kaplan-Meier estimate, with a pointwise interval.

    A step function, as `step(updates, unsolved, where="post")` of matplotlib draws it: 1 from update 0 on.

    Attributes
    ----------
    updates : float64 array of shape (n,)
        Ascending, the first one 0: a part of the runs stays the same from one of these to the next.
    unsolved : float64 array of shape (n,)
        The part from that update on; the first one 1.
    low, high : float64 array of shape (n,)
        The ends of its interval; NaN where it has none.
    median : float
        The first update by which half are solved, infinite if that was not seen.
    """

    updates: Floats
    unsolved: Floats
    low: Floats
    high: Floats
    median: float


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

    samples, confidence = _numbers("samples", samples), _check.part("confidence", confidence)
    there = ~np.isnan(samples)
    count = there.sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        mean = np.where(there, samples, 0).sum(axis=-1) / count
        squares = np.where(there, samples - mean[..., None], 0) ** 2
        spread = np.sqrt(squares.sum(axis=-1) / (count - 1.0) / count)
        half = np.where(count > 1, stats.t.ppf((1 + confidence) / 2, np.maximum(count - 1, 1)) * spread, np.nan)
        return SequenceMean(mean, mean - half, mean + half, count)


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


def passages(first_passage: Sequence[Any], updates: Sequence[int] | int) -> Any:
    """Return updates until a task was solved as scipy's censored data.

    Parameters
    ----------
    first_passage : sequence of n numbers or None
        As in `nbflow.Run`: the first evaluated update at which it was solved, None for never, or what stands for None
        in a column of pandas or in a masked array (NaN, NA, masked). It may have been solved up to `evaluate_every`
        updates earlier.
    updates : int, or sequence of n int
        How many updates each run had.

    Returns
    -------
    scipy.stats.CensoredData
        For `survival`, `logrank`, `scipy.stats.ecdf` and fits of distributions.

    Raises
    ------
    TypeError, ValueError
        If a run was solved at what is no update, or after its last one.

    Examples
    --------
    >>> times = passages([2000, None, 3000], 5000)
    >>> len(times), times.num_censored()
    (3, 1)
    >>> passages([2000.0, float("nan")], 5000).num_censored()
    1
    """
    from scipy.stats import CensoredData

    found = [_passage(at, run) for run, at in enumerate(first_passage)]
    if not found:
        raise ValueError("first_passage is empty; expected one for each run. Look where the runs went.")
    ends = _ends(updates, len(found))
    for run, (at, end) in enumerate(zip(found, ends, strict=True)):
        if at is not None and at > end:
            raise ValueError(
                f"first_passage is {at:g} for run {run}, which had {end:g} updates; expected at most as many. "
                f"Give the updates that it had."
            )
    solved = [at for at in found if at is not None]
    return CensoredData(solved, right=[end for at, end in zip(found, ends, strict=True) if at is None])


def _passage(at: Any, run: int) -> float | None:
    """Return the update at which a run was solved, None where there is none."""
    pandas = sys.modules.get("pandas")  # whoever has a column of it has loaded it
    if at is None or at is np.ma.masked or (pandas is not None and at is pandas.NA):
        return None
    if isinstance(at, bool | np.bool_) or not isinstance(at, numbers.Real):
        raise TypeError(
            f"first_passage is a {type(at).__name__} for run {run}; expected an update, or None for never. "
            f"Write int(...)."
        )
    found = float(at)
    if math.isnan(found):
        return None
    if not 0 <= found < math.inf:
        raise ValueError(
            f"first_passage is {found:g} for run {run}; expected an update of at least 0, or None for never. "
            f"Write None."
        )
    return found


def _ends(updates: Any, runs: int) -> Floats:
    """Return how many updates each run had."""
    try:
        found = np.asarray(updates, np.float64)
    except Exception:
        found = np.full((), np.nan)
    if found.shape not in ((), (1,), (runs,)):
        raise ValueError(
            f"updates has shape {found.shape}; expected a number, or one for each of {runs} runs. Give as many."
        )
    if not (np.isfinite(found) & (found >= 0)).all():
        raise ValueError("updates are not all finite numbers of at least 0; expected those of each run. Look for them.")
    return np.broadcast_to(found, (runs,))


def survival(times: Any, *, confidence: float = 0.95) -> Survival:
    """Return the part of runs that are not yet solved, update by update.

    Parameters
    ----------
    times : scipy.stats.CensoredData
        From `passages`.
    confidence : float

    Returns
    -------
    Survival
        With the log-log interval of Greenwood's variance, which stays within 0 and 1.

    Examples
    --------
    >>> curve = survival(passages([1000, 2000, 2000, None], [5000, 5000, 5000, 1500]))
    >>> curve.updates.tolist(), curve.unsolved.tolist(), curve.median
    ([0.0, 1000.0, 1500.0, 2000.0], [1.0, 0.75, 0.75, 0.0], 2000.0)
    """
    import warnings

    from scipy.stats import ecdf

    found = ecdf(times).sf
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # where all or none are solved it has no width to give
        ends = found.confidence_interval(_check.part("confidence", confidence), method="log-log")
    half = np.flatnonzero(found.probabilities <= 0.5)
    median = float(found.quantiles[half[0]]) if half.size else math.inf
    low, high = ends.low.probabilities, ends.high.probabilities
    return Survival(
        _begun(0.0, found.quantiles), _begun(1.0, found.probabilities), _begun(1.0, low), _begun(1.0, high), median
    )


def _begun(first: float, rest: Floats) -> Floats:
    return np.concatenate(([first], rest))


def logrank(one: Any, two: Any) -> float:
    """Return the p-value of a logrank test: that both have the same chance to be solved, at every update.

    Parameters
    ----------
    one, two : scipy.stats.CensoredData
        From `passages`.

    Returns
    -------
    float
        Two-sided; 1 where no run was solved.

    Examples
    --------
    >>> round(logrank(passages([1, 2, 3, 4], 9), passages([5, 6, None, None], 9)), 4)
    0.0067
    """
    from scipy import stats

    if one.num_censored() + two.num_censored() == len(one) + len(two):  # nothing tells them apart
        return 1.0
    return float(stats.logrank(one, two).pvalue)


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

    sample = _finite("values", values)
    value = float(statistic(sample))
    if np.ptp(sample) == 0:
        return Interval(value, value, value)
    found = stats.bootstrap(
        (sample,), statistic, n_resamples=_check.count("resamples", resamples), method="BCa",
        confidence_level=_check.part("confidence", confidence), rng=_check.generator("rng", rng),
    ).confidence_interval  # fmt: skip
    return Interval(value, float(found.low), float(found.high))


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

    a, b = _finite("one", one), _finite("two", two)
    margin, alpha = _margin(margin), _check.part("alpha", alpha)
    if np.ptp(a) == np.ptp(b) == 0:  # no test without a variance, and no need of one
        value = float(a[0] - b[0])
        return Equivalence(Interval(value, value, value), margin, float(abs(value) >= margin), abs(value) < margin)
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
        value = float(d[0])
        return Equivalence(Interval(value, value, value), margin, float(abs(value) >= margin), abs(value) < margin)
    above = ttest_1samp(d, -margin, alternative="greater").pvalue
    below = ttest_1samp(d, margin, alternative="less").pvalue
    ends = ttest_1samp(d, 0.0).confidence_interval(1 - 2 * alpha)
    p = float(max(above, below))
    return Equivalence(Interval(float(d.mean()), float(ends.low), float(ends.high)), margin, p, p < alpha)


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
    values = _numbers("p", p)
    if values.ndim != 1 or not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"p is {_check.said(p)}; expected numbers from 0 to 1. Look where they were computed.")
    order = np.argsort(values, kind="stable")
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)), 1.0)
    return adjusted


def _numbers(name: str, values: Any) -> Floats:
    """Return numbers as float64, whatever holds them."""
    try:
        return np.asarray(values, np.float64)
    except Exception:
        raise TypeError(f"{name} is {_check.said(values)}; expected numbers. Write a list of floats.") from None


def _finite(name: str, values: Any) -> Floats:
    found = _numbers(name, values)
    if found.ndim != 1 or len(found) < 2:
        raise ValueError(f"{name} has shape {found.shape}; expected one number for each of at least 2 runs. Run more.")
    _check.finite(name, found, "A run that diverged has no loss to average: count it, or compare medians of ranks.")
    return found


def _differences(one: Any, two: Any) -> Floats:
    a, b = _finite("one", one), _finite("two", two)
    if len(a) != len(b):
        raise ValueError(f"one has {len(a)} numbers and two {len(b)}; expected pairs. Leave out what has no partner.")
    found: Floats = a - b
    return found


def _margin(value: Any) -> float:
    return float(_check.per_replica("margin", value, 1, least=0.0, above=True, finite=True)[0])
