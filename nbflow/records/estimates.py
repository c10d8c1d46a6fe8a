"""Numbers estimated from a sample, with the ends of an interval."""

from __future__ import annotations

from typing import Any, NamedTuple

from nbflow._legible import legible
from nbflow.records._types import Floats


@legible
class Interval(NamedTuple):
    """A number estimated from a sample, and a confidence interval of it, in the same unit.

    Attributes
    ----------
    value : float
        The estimate.
    low, high : float
        The ends of the interval.
    """

    value: float
    low: float
    high: float


@legible
class SequenceMean(NamedTuple):
    """A mean over sequences, and Student's t interval of it.

    All four have one shape, that of what is averaged, which whoever returns it says; unit and range are those of what
    is averaged too.

    Attributes
    ----------
    mean : float64 array
        NaN where there is no sequence.
    low, high : float64 array
        The ends of the interval; NaN where there are fewer than two sequences.
    count : int64 array
        How many sequences it is the mean of.
    """

    mean: Any
    low: Any
    high: Any
    count: Any


@legible
class Spectrum(NamedTuple):
    """The k largest singular values (dimensionless) or Lyapunov exponents (nats a step), the largest first.

    Attributes
    ----------
    values : float64 array of shape (B, k)
        For every sequence.
    mean : float64 array of shape (k,)
        Over sequences: the geometric mean of singular values, the arithmetic mean of exponents.
    low, high : float64 array of shape (k,)
        The ends of an interval that holds the mean with 95 % confidence (Student's t); NaN for one sequence.
    """

    values: Floats
    mean: Floats
    low: Floats
    high: Floats
