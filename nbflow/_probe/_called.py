"""A unit called as plain Python: what it returns, and whether a derivative is that of differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from nbflow import _check
from nbflow._fields import name_of, wanted_unit
from nbflow._probe._inferred import refuse_result

# Steps of differences, and what they are right to: right to 1e-9 where a function is smooth, so that a wrong derivative
# is far outside.
STEP, RIGHT = 1e-4, 1e-3
TRIALS = 6


def called(record: Any, field: str, *arguments: Any) -> Any:
    """Return what a unit makes of numbers, called as plain Python, or compiled where only that can be called."""
    unit = getattr(record, field)
    error: Exception | None = None
    for way in dict.fromkeys((getattr(unit, "py_func", unit), unit)):
        try:
            with np.errstate(all="ignore"):
                return way(*arguments)
        except Exception as raised:
            error = raised
    raise ValueError(
        f"{name_of(record, field)} raises {type(error).__name__} ({error}); expected {wanted_unit(record, field)}, "
        f"which takes any numbers. Return NaN instead."
    ) from error


def answer(record: Any, field: str, *arguments: Any) -> Any:
    """Return the one number that a unit returns."""
    found = called(record, field, *arguments)
    if not is_real(found):
        refuse_result(record, field, _check.said(found), "one number")
    return np.float64(found)


def is_real(value: Any) -> bool:
    return np.ndim(value) == 0 and not isinstance(value, np.ndarray) and np.result_type(type(value)).kind in "fiu"


def answers(record: Any, field: str, counts: Sequence[int], *arguments: Any) -> list[Any]:
    """Return the tuples that a unit returns, so many numbers each, as arrays."""
    found = called(record, field, *arguments)
    fits = isinstance(found, tuple) and len(found) == len(counts)
    if not fits or not all(
        isinstance(part, tuple) and len(part) == count and all(map(is_real, part))
        for part, count in zip(found, counts, strict=True)
    ):
        refuse_result(record, field, _check.said(found), f"tuples of {', '.join(map(str, counts))} numbers")
    return [np.array(part, np.float64) for part in found]


def refuse_other_slots(record: Any, field: str, trials: Sequence[Any], slots: int, wanted: str) -> None:
    """Refuse a unit that draws, or gives anything but a number and so many slots, or nothing finite."""
    values = []
    for trial in trials:
        refuse_chance(record, field, *trial)
        found = called(record, field, *trial)
        fits = isinstance(found, tuple) and len(found) == 2 and is_real(found[0]) and isinstance(found[1], tuple)
        if not fits or len(found[1]) != slots or not all(map(is_real, found[1])):
            refuse_result(record, field, _check.said(found), wanted)
        values.append(np.array([found[0], *found[1]], np.float64))
    refuse_nan(record, field, values)


def floats(values: Any) -> tuple[Any, ...]:
    return tuple(np.float64(value) for value in values)


class Slope(NamedTuple):
    """A derivative by differences, and where it can be believed."""

    value: Any
    smooth: Any


def slope_of(function: Callable[[float], Any]) -> Slope:
    """Return the derivative of a function of one number at 0; no smooth one has two that differ with the step."""
    with np.errstate(all="ignore"):
        near, far = ((np.asarray(function(h)) - np.asarray(function(-h))) / (2 * h) for h in (STEP, 2 * STEP))
        smooth = np.abs(near - far) <= RIGHT * (np.abs(near) + np.abs(far)) + 1e-6
        return Slope((4 * near - far) / 3, smooth)


def compare(record: Any, field: str, of: str, got: Any, wanted: Slope, remedy: str) -> None:
    """Refuse a derivative that is not that of differences."""
    got = np.asarray(got, np.float64)
    with np.errstate(all="ignore"):
        off = ~(np.abs(got - wanted.value) <= 10 * RIGHT * np.maximum(np.abs(got), np.abs(wanted.value)) + 1e-5)
    wrong = np.atleast_1d(off & wanted.smooth)
    if wrong.any():
        k = int(np.argmax(wrong))
        raise ValueError(
            f"{name_of(record, field)} gives {np.atleast_1d(got)[k]:.6g} where differences of {of} give "
            f"{np.atleast_1d(wanted.value)[k]:.6g}; expected its derivative. {remedy}"
        )


def refuse_nan(record: Any, field: str, values: list[Any]) -> None:
    if not any(np.isfinite(value).all() for value in values):
        raise ValueError(
            f"{name_of(record, field)} gives NaN or Inf in all of {len(values)} trials with ordinary numbers; "
            f"expected {wanted_unit(record, field)}. Look at its formula."
        )


def refuse_chance(record: Any, field: str, *arguments: Any) -> None:
    """Refuse a unit that gives two answers to one question."""
    one, two = (called(record, field, *arguments) for _ in range(2))
    if not alike(one, two):
        raise ValueError(
            f"{name_of(record, field)} gives {_check.said(one)} and then {_check.said(two)} for the same numbers; "
            f"expected {wanted_unit(record, field)}, a function of its arguments. Leave out what it draws or remembers."
        )


def alike(one: Any, two: Any) -> bool:
    if isinstance(one, tuple):
        return len(one) == len(two) and all(map(alike, one, two))
    return bool(one == two) or (one != one and two != two)
