"""A user's cell: whether its units return what they should, and its flags and derivatives are true."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
from numba.core import types

from nbflow import _check
from nbflow._compile import JIT
from nbflow._probe._called import (
    TRIALS,
    Slope,
    answers,
    called,
    compare,
    floats,
    refuse_chance,
    refuse_nan,
    slope_of,
)
from nbflow._probe._inferred import REAL, are_numbers, hold, hold_tuples, inferred, number_of, numbers, refuse_result
from nbflow.records import Cell

# Pre-activations that drive a gate to the ends of its range, and how near is near, in parts of the range.
DRIVES, NEAR = (5.0, 10.0, 20.0, 40.0), 0.1


@functools.lru_cache(maxsize=256)
def check_cell(cell: Cell, dtype: str) -> None:
    """Refuse a cell whose units are not what it says of them."""
    if JIT:
        _infer_cell(cell, dtype)
    trials = _trials(cell)
    _try_step(cell, trials)
    if not cell.surrogate:
        for trial in trials:
            _try_derivatives(cell, trial)


def _infer_cell(cell: Cell, dtype: str) -> None:
    number = number_of(dtype)
    g, s, k = (numbers(len(names), number) for names in (cell.gates, cell.states, cell.saved))
    more = (numbers(len(cell.settings), number),) if cell.settings else ()
    gates, states, carried = len(cell.gates), len(cell.states), len(cell.states) if cell.carries else 0
    back = (("d_a_in", gates, REAL), ("d_a_rec", gates, REAL), ("d_s", carried, REAL))
    hold_tuples(cell, "step", (g, g, s, *more), ("s_next", states, types.Float), ("saved", len(cell.saved), REAL))
    if cell.step_vjp is None:
        _hold_complex(cell)
    else:
        hold_tuples(cell, "step_vjp", (k, s, s, s, *more), *back)
    if cell.step_jvp is not None:
        wanted = f"a tuple of {states} numbers"
        hold(cell, "step_jvp", (k, s, s, g, g, s, *more), wanted, lambda found: are_numbers(found, states, REAL))
    if cell.step_vjp_jvp is not None:
        hold_tuples(cell, "step_vjp_jvp", (k, s, s, s, g, g, s, s, *more), *back)


def _hold_complex(cell: Cell) -> None:
    """Refuse a step of which complex steps cannot find the derivative."""
    g, s = (numbers(len(names), types.complex128) for names in (cell.gates, cell.states))
    more = (numbers(len(cell.settings), types.float64),) if cell.settings else ()
    try:
        # numba's quotient of complex numbers raises where it divides by 0.
        inferred(cell, "step", (g, g, s, *more), raises=True)
    except TypeError as error:
        raise TypeError(f"{error} Or write step_vjp: without it step has to take complex numbers.") from error


class Trial(NamedTuple):
    """Numbers to try a cell with: arguments, a direction in which they move, and gradients that come back."""

    a_in: Any
    a_rec: Any
    s: Any
    d: Any
    a_in_dot: Any
    a_rec_dot: Any
    s_dot: Any
    d_dot: Any

    def at(self, h: float) -> tuple[tuple[Any, ...], ...]:
        """Return (a_in, a_rec, s), moved so far."""
        moved = ((self.a_in, self.a_in_dot), (self.a_rec, self.a_rec_dot), (self.s, self.s_dot))
        return tuple(floats(there + h * dot) for there, dot in moved)


def _trials(cell: Cell) -> list[Trial]:
    rng = np.random.default_rng(0)
    g, s = len(cell.gates), len(cell.states)
    found = []
    for k in range(TRIALS):
        size = (0.3, 1.0, 2.0)[k % 3]
        arguments = (size * rng.normal(size=n) for n in (g, g, s))
        found.append(Trial(*arguments, *(rng.normal(size=n) for n in (s, g, g, s, s))))
    return found


def _settings(cell: Cell) -> tuple[Any, ...]:
    """Return what its units are given more: of settings that differ from unit to unit, those of the first one."""
    first = floats(np.ravel(value)[0] for value in cell.settings.values())
    return (first,) if cell.settings else ()


def _step(cell: Cell, *arguments: Any) -> tuple[Any, Any]:
    new, saved = answers(cell, "step", (len(cell.states), len(cell.saved)), *arguments, *_settings(cell))
    return new, saved


def _try_step(cell: Cell, trials: list[Trial]) -> None:
    """Refuse a step that gives nothing, or is not what the flags say."""
    refuse_chance(cell, "step", *trials[0].at(0.0), *_settings(cell))
    refuse_nan(cell, "step", [_step(cell, *trial.at(0.0))[0] for trial in trials])
    for trial, other in zip(trials, trials[1:] + trials[:1], strict=True):
        a_in, a_rec, s = trial.at(0.0)
        new, _ = _step(cell, a_in, a_rec, s)
        elsewhere, _ = _step(cell, a_in, a_rec, floats(other.s))
        if not cell.carries and not np.array_equal(new, elsewhere, equal_nan=True):
            raise ValueError(
                f"Cell.carries is False, and step looks at s: {', '.join(cell.states)} goes from {new} to {elsewhere} "
                f"as s alone moves; expected a step of a_in and a_rec. Write carries=True."
            )
        shifted, _ = _step(cell, floats(trial.a_in + other.a_in), floats(trial.a_rec - other.a_in), s)
        if cell.additive and not np.allclose(new, shifted, rtol=1e-5, atol=1e-6, equal_nan=True):
            raise ValueError(
                f"Cell.additive is True, and step looks at more than a_in + a_rec: {new} becomes {shifted} where the "
                f"sum stays; expected a step of the sum. Write additive=False."
            )
    if cell.ranges:
        _try_ranges(cell, trials)


def _try_ranges(cell: Cell, trials: list[Trial]) -> None:
    """Refuse ranges that are not those of what `nbflow.saturation` reads."""
    places = [cell.saved.index(gate) if gate in cell.saved else None for gate in cell.gates]
    if None in places and (len(cell.gates) > 1 or cell.carries):
        missing = ", ".join(gate for gate, place in zip(cell.gates, places, strict=True) if place is None)
        what = "what its nonlinearity gives" if len(cell.gates) > 1 else f"it: {cell.states[0]} holds more than that"
        raise ValueError(
            f"Cell.ranges is given, and saved has no {missing}; expected a number in saved for {what}. Let step save "
            f"{missing}, and name it there."
        )
    ways = [trial.at(0.0) for trial in trials]
    for drive in (*DRIVES, *(-drive for drive in DRIVES)):
        row = (np.float64(drive),) * len(cell.gates)
        ways += [(row, row, trial.at(0.0)[2]) for trial in trials[:2]]
    taken = [_step(cell, *way) for way in ways]
    for k, (gate, place, (low, high)) in enumerate(zip(cell.gates, places, cell.ranges, strict=True)):
        seen = np.array([new[0] if place is None else saved[place] for new, saved in taken])
        seen = seen[np.isfinite(seen)]
        room = high - low if np.isfinite(high - low) else 0.0
        slack = 1e-6 * max(1.0, room)
        if seen.size and (seen.min() < low - slack or seen.max() > high + slack):
            raise ValueError(
                f"Cell.ranges[{k}] is {(low, high)}, and gate {gate} gives {seen.min():.4g} to {seen.max():.4g}; "
                f"expected the ends of what it gives. Give these."
            )
        ends = np.isfinite([low, high])
        near = (seen.size and seen.min() <= low + NEAR * room, seen.size and seen.max() >= high - NEAR * room)
        if ends.any() and not any(near[end] for end in range(2) if ends[end]):
            raise ValueError(
                f"Cell.ranges[{k}] is {(low, high)}, and gate {gate} stays within {seen.min():.4g} to {seen.max():.4g} "
                f"however far it is driven; expected the ends of what it gives. Give these."
            )


def _try_derivatives(cell: Cell, trial: Trial) -> None:
    """Refuse derivatives of `step` that are not those of differences."""
    g, s, carried = len(cell.gates), len(cell.states), len(cell.states) if cell.carries else 0
    remedy = "See nbflow.check_gradient, or say surrogate=True if it is meant to be another function."
    new, saved = _step(cell, *trial.at(0.0))
    moving = slope_of(lambda h: _step(cell, *trial.at(h))[0])
    here = (floats(saved), trial.at(0.0)[2], floats(new))
    dots, more = (floats(trial.a_in_dot), floats(trial.a_rec_dot), floats(trial.s_dot)), _settings(cell)
    if cell.step_vjp is not None:
        e_in, e_rec, d_s = answers(cell, "step_vjp", (g, g, carried), *here, floats(trial.d), *more)
        got = e_in @ trial.a_in_dot + e_rec @ trial.a_rec_dot + (d_s @ trial.s_dot if carried else 0.0)
        wanted = Slope(np.sum(moving.value * trial.d), np.all(moving.smooth))
        compare(cell, "step_vjp", "step", got, wanted, remedy)
        if cell.additive:
            compare(cell, "step_vjp", "step at a_rec, which enters as a_in does,", e_rec, Slope(e_in, True), remedy)
    if cell.step_jvp is not None:
        found = called(cell, "step_jvp", *here, *dots, *more)
        if not isinstance(found, tuple) or len(found) != s:
            refuse_result(cell, "step_jvp", _check.said(found), f"a tuple of {s} numbers")
        compare(cell, "step_jvp", "step", np.array(found, np.float64), moving, remedy)
    if cell.step_vjp is not None and cell.step_vjp_jvp is not None:

        def pulled(h: float) -> Any:
            arguments = trial.at(h)
            then, kept = _step(cell, *arguments)
            pull = (floats(kept), arguments[2], floats(then), floats(trial.d + h * trial.d_dot), *more)
            return np.concatenate(answers(cell, "step_vjp", (g, g, carried), *pull))

        both = answers(cell, "step_vjp_jvp", (g, g, carried), *here, floats(trial.d), *dots, floats(trial.d_dot), *more)
        compare(cell, "step_vjp_jvp", "step_vjp", np.concatenate(both), slope_of(pulled), remedy)
