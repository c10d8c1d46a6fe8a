"""Updates until a task is solved: censored data, survival curves, and a test."""

from __future__ import annotations

import math
import numbers
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from nbflow import _check
from nbflow._legible import legible
from nbflow.records import Floats


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
