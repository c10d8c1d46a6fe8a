"""What a user's units are held to before a kernel trusts them: what they return, and whether it is what they say.

Two looks. A unit is compiled for the numbers that it will meet, and what numba infers is held against what its record
promises: so many numbers, no exceptions, no memory. Then it is called a few times as plain Python, and its flags and
derivatives are held against differences. nbflow's own files are trusted; their tests do more.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numba
import numpy as np
from numba import carray
from numba.core import types

from nbflow import _check
from nbflow._compile import JIT, bounded, exactly
from nbflow._fields import name_of, wanted_unit
from nbflow.records import Cell, Loss, Optimizer, Penalty, Rule, StatefulRule, StatePenalty, Threshold

# Steps of differences, and what they are right to: right to 1e-9 where a function is smooth, so that a wrong derivative
# is far outside.
STEP, RIGHT = 1e-4, 1e-3
TRIALS = 6
# Pre-activations that drive a gate to the ends of its range, and how near is near, in parts of the range.
DRIVES, NEAR = (5.0, 10.0, 20.0, 40.0), 0.1


# --------------------------------------------------------------------------------------------------- as numba infers it


def numbers(count: int, number: Any) -> Any:
    """Return the type of a tuple of so many numbers."""
    return types.UniTuple(number, count) if count else types.Tuple(())


def inferred(record: Any, field: str, arguments: Sequence[Any], *, unit: Any = None, raises: bool = False) -> Any:
    """Return the type that a unit returns for arguments of these types; refuse what does not compile or may raise."""
    unit, name = getattr(record, field) if unit is None else unit, name_of(record, field)
    kinds = tuple(arguments)
    try:
        unit.compile(kinds)
        (code,) = (one for signature, one in unit.overloads.items() if tuple(signature) == kinds)
    except Exception as error:
        raise TypeError(
            f"{name} does not compile ({_said(error)}); expected {wanted_unit(record, field)}, of numbers alone. Write "
            f"what numba compiles: numbers, tuples, nbflow.scalars."
        ) from error
    if not raises:
        _refuse_effects(record, field, code.library.get_llvm_str())
    return code.signature.return_type


def _said(error: Exception) -> str:
    """Return the line of a compiler's message that says what is wrong."""
    lines = [line.strip() for line in str(error).splitlines()]
    telling = [line for line in lines if line and not line.startswith(("Failed in", "-", "There are", "During:"))]
    found = telling[0] if telling else type(error).__name__
    return found if len(found) <= 160 else f"{found[:157]}..."


def may_raise(llvm: str) -> bool:
    """Tell whether code may end otherwise than by returning: a status of -2 says None, and all but 0 that it raised."""
    return not set(re.findall(r"ret i32 (\S+)", llvm)) <= {"0", "-2"}


def _refuse_effects(record: Any, field: str, llvm: str) -> None:
    """Refuse what a kernel could not pass on: exceptions, memory, words."""
    for sign, what in (("PySys_FormatStdout", "prints"), ("NRT_MemInfo_alloc", "allocates memory")):
        if sign in llvm:
            raise TypeError(
                f"{name_of(record, field)} {what}; expected {wanted_unit(record, field)}, a function of numbers and "
                f"nothing else. Leave it out."
            )
    if may_raise(llvm):
        raise TypeError(
            f"{name_of(record, field)} may raise an exception, which nobody would see (a raise, an assert, or an index "
            f"that is not constant); expected {wanted_unit(record, field)}, which returns NaN then. Return NaN there."
        )


def shown(found: Any) -> str:
    """Return a type as a message shows it."""
    if isinstance(found, types.BaseTuple):
        inner = [shown(one) for one in found]
        return f"({', '.join(inner)}{',' if len(inner) == 1 else ''})"
    return "None" if found is types.none else str(found)


def are_numbers(found: Any, count: int, kinds: Any = types.Float) -> bool:
    """Tell whether a type is a tuple of so many numbers."""
    return isinstance(found, types.BaseTuple) and len(found) == count and all(isinstance(one, kinds) for one in found)


REAL = (types.Float, types.Integer)


def refuse_result(record: Any, field: str, found: str, wanted: str) -> None:
    """Refuse what a unit returns."""
    raise TypeError(
        f"{name_of(record, field)} returns {found}; expected {wanted}: it is {wanted_unit(record, field)}. Return that."
    )


def _hold(record: Any, field: str, arguments: Sequence[Any], wanted: str, fits: Callable[[Any], bool]) -> Any:
    found = inferred(record, field, arguments)
    if not fits(found):
        refuse_result(record, field, shown(found), wanted)
    return found


def hold_number(record: Any, field: str, arguments: Sequence[Any]) -> None:
    """Refuse a unit that does not return one number."""
    _hold(record, field, arguments, "one number", lambda found: isinstance(found, types.Float))


def _hold_tuples(record: Any, field: str, arguments: Sequence[Any], *wanted: tuple[str, int, Any]) -> None:
    """Refuse a unit that does not return tuples of so many numbers each."""

    def fits(found: Any) -> bool:
        if not isinstance(found, types.BaseTuple) or len(found) != len(wanted):
            return False
        return all(are_numbers(part, count, kinds) for part, (_, count, kinds) in zip(found, wanted, strict=True))

    said = ", ".join(f"{name} of {count}" for name, count, _ in wanted)
    _hold(record, field, arguments, f"tuples of numbers, {said}", fits)


# ------------------------------------------------------------------------------------------------------ as it is called


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


def _one(record: Any, field: str, *arguments: Any) -> Any:
    """Return the one number that a unit returns."""
    found = called(record, field, *arguments)
    if not is_real(found):
        refuse_result(record, field, _check.said(found), "one number")
    return np.float64(found)


def is_real(value: Any) -> bool:
    return np.ndim(value) == 0 and not isinstance(value, np.ndarray) and np.result_type(type(value)).kind in "fiu"


def _parts(record: Any, field: str, counts: Sequence[int], *arguments: Any) -> list[Any]:
    """Return the tuples that a unit returns, so many numbers each, as arrays."""
    found = called(record, field, *arguments)
    fits = isinstance(found, tuple) and len(found) == len(counts)
    if not fits or not all(
        isinstance(part, tuple) and len(part) == count and all(map(is_real, part))
        for part, count in zip(found, counts, strict=True)
    ):
        refuse_result(record, field, _check.said(found), f"tuples of {', '.join(map(str, counts))} numbers")
    return [np.array(part, np.float64) for part in found]


def _row(values: Any) -> tuple[Any, ...]:
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


def _compare(record: Any, field: str, of: str, got: Any, wanted: Slope, remedy: str) -> None:
    """Refuse a derivative that is none."""
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


def _refuse_nan(record: Any, field: str, values: list[Any]) -> None:
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


# ---------------------------------------------------------------------------------------------------------------- cells


@functools.lru_cache(maxsize=256)
def check_cell(cell: Cell, dtype: str) -> None:
    """Refuse a cell whose units are not what it says of them."""
    if JIT:
        _infer_cell(cell, np.dtype(dtype))
    trials = _trials(cell)
    _try_step(cell, trials)
    if not cell.surrogate:
        for trial in trials:
            _try_derivatives(cell, trial)


def _infer_cell(cell: Cell, dtype: Any) -> None:
    number = types.float32 if dtype == np.float32 else types.float64
    g, s, k = (numbers(len(names), number) for names in (cell.gates, cell.states, cell.saved))
    more = (numbers(len(cell.settings), number),) if cell.settings else ()
    gates, states, carried = len(cell.gates), len(cell.states), len(cell.states) if cell.carries else 0
    back = (("d_a_in", gates, REAL), ("d_a_rec", gates, REAL), ("d_s", carried, REAL))
    _hold_tuples(cell, "step", (g, g, s, *more), ("s_next", states, types.Float), ("saved", len(cell.saved), REAL))
    if cell.step_vjp is None:
        _hold_complex(cell)
    else:
        _hold_tuples(cell, "step_vjp", (k, s, s, s, *more), *back)
    if cell.step_jvp is not None:
        wanted = f"a tuple of {states} numbers"
        _hold(cell, "step_jvp", (k, s, s, g, g, s, *more), wanted, lambda found: are_numbers(found, states, REAL))
    if cell.step_vjp_jvp is not None:
        _hold_tuples(cell, "step_vjp_jvp", (k, s, s, s, g, g, s, s, *more), *back)


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
        return (
            _row(self.a_in + h * self.a_in_dot), _row(self.a_rec + h * self.a_rec_dot), _row(self.s + h * self.s_dot)
        )  # fmt: skip


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
    first = _row(np.ravel(value)[0] for value in cell.settings.values())
    return (first,) if cell.settings else ()


def _step(cell: Cell, *arguments: Any) -> tuple[Any, Any]:
    new, saved = _parts(cell, "step", (len(cell.states), len(cell.saved)), *arguments, *_settings(cell))
    return new, saved


def _try_step(cell: Cell, trials: list[Trial]) -> None:
    """Refuse a step that gives nothing, or is not what the flags say."""
    refuse_chance(cell, "step", *trials[0].at(0.0), *_settings(cell))
    _refuse_nan(cell, "step", [_step(cell, *trial.at(0.0))[0] for trial in trials])
    for trial, other in zip(trials, trials[1:] + trials[:1], strict=True):
        a_in, a_rec, s = trial.at(0.0)
        new, _ = _step(cell, a_in, a_rec, s)
        elsewhere, _ = _step(cell, a_in, a_rec, _row(other.s))
        if not cell.carries and not np.array_equal(new, elsewhere, equal_nan=True):
            raise ValueError(
                f"Cell.carries is False, and step looks at s: {', '.join(cell.states)} goes from {new} to {elsewhere} "
                f"as s alone moves; expected a step of a_in and a_rec. Write carries=True."
            )
        shifted, _ = _step(cell, _row(trial.a_in + other.a_in), _row(trial.a_rec - other.a_in), s)
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
    """Refuse derivatives of `step` that are none."""
    g, s, carried = len(cell.gates), len(cell.states), len(cell.states) if cell.carries else 0
    remedy = "See nbflow.check_gradient, or say surrogate=True if it is meant to be another function."
    new, saved = _step(cell, *trial.at(0.0))
    moving = slope_of(lambda h: _step(cell, *trial.at(h))[0])
    here = (_row(saved), trial.at(0.0)[2], _row(new))
    dots, more = (_row(trial.a_in_dot), _row(trial.a_rec_dot), _row(trial.s_dot)), _settings(cell)
    if cell.step_vjp is not None:
        e_in, e_rec, d_s = _parts(cell, "step_vjp", (g, g, carried), *here, _row(trial.d), *more)
        got = e_in @ trial.a_in_dot + e_rec @ trial.a_rec_dot + (d_s @ trial.s_dot if carried else 0.0)
        wanted = Slope(np.sum(moving.value * trial.d), np.all(moving.smooth))
        _compare(cell, "step_vjp", "step", got, wanted, remedy)
        if cell.additive:
            _compare(cell, "step_vjp", "step at a_rec, which enters as a_in does,", e_rec, Slope(e_in, True), remedy)
    if cell.step_jvp is not None:
        found = called(cell, "step_jvp", *here, *dots, *more)
        if not isinstance(found, tuple) or len(found) != s:
            refuse_result(cell, "step_jvp", _check.said(found), f"a tuple of {s} numbers")
        _compare(cell, "step_jvp", "step", np.array(found, np.float64), moving, remedy)
    if cell.step_vjp is not None and cell.step_vjp_jvp is not None:

        def pulled(h: float) -> Any:
            arguments = trial.at(h)
            then, kept = _step(cell, *arguments)
            pull = (_row(kept), arguments[2], _row(then), _row(trial.d + h * trial.d_dot), *more)
            return np.concatenate(_parts(cell, "step_vjp", (g, g, carried), *pull))

        parts = _parts(cell, "step_vjp_jvp", (g, g, carried), *here, _row(trial.d), *dots, _row(trial.d_dot), *more)
        _compare(cell, "step_vjp_jvp", "step_vjp", np.concatenate(parts), slope_of(pulled), remedy)


# --------------------------------------------------------------------------------------------------------------- losses


@functools.lru_cache(maxsize=256)
def check_loss(loss: Loss, dtype: str) -> None:
    """Refuse a loss whose units are not what it says of them."""
    if JIT:
        _infer_loss(loss, np.dtype(dtype))
    rng = np.random.default_rng(0)
    values = [_try_loss(loss, rng, k) for k in range(TRIALS)]
    _refuse_nan(loss, "value", values)


def _infer_loss(loss: Loss, dtype: Any) -> None:
    number = types.float32 if dtype == np.float32 else types.float64
    count = len(loss.start)
    wanted = f"an accumulator of {count} numbers, as start is"
    kept = numbers(count, number)
    for _ in range(2):  # what it returns is given to it again
        kept = _hold(loss, "fold", (kept, number, number), wanted, lambda found: are_numbers(found, count))
    hold_number(loss, "value", (kept,))
    hold_number(loss, "slope", (kept, number, number))
    if loss.share is not None:
        hold_number(loss, "share", (kept, number, number))
        hold_number(loss, "slope_jvp", (kept, number, number, number, number))


def _try_loss(loss: Loss, rng: Any, k: int) -> Any:
    """Return the loss of three outputs; refuse slopes that are none."""
    outputs = 3
    y, moved = rng.normal(size=outputs), rng.normal(size=outputs)
    t = np.eye(outputs)[k % outputs] if loss.classes else rng.normal(size=outputs)
    if loss.targets is not None and not loss.classes:
        low, high = np.clip(loss.targets, -3.0, 3.0)
        t = rng.uniform(low, high, size=outputs)

    def folded(h: float) -> Any:
        accumulator: Any = _row(loss.start)
        for one, target in zip(y + h * moved, t, strict=True):
            accumulator = called(loss, "fold", accumulator, np.float64(one), np.float64(target))
            if not isinstance(accumulator, tuple) or len(accumulator) != len(loss.start):
                wanted = f"an accumulator of {len(loss.start)} numbers, as start is"
                refuse_result(loss, "fold", _check.said(accumulator), wanted)
        return accumulator

    def slopes(h: float) -> Any:
        kept = folded(h)
        rows = zip(y + h * moved, t, strict=True)
        return np.array([_one(loss, "slope", kept, np.float64(one), np.float64(target)) for one, target in rows])

    remedy = "See nbflow.check_gradient."
    refuse_chance(loss, "value", folded(0.0))
    refuse_chance(loss, "fold", _row(loss.start), np.float64(y[0]), np.float64(t[0]))
    _compare(loss, "slope", "value", slopes(0.0) @ moved, slope_of(lambda h: _one(loss, "value", folded(h))), remedy)
    if loss.share is not None:
        kept, rows = folded(0.0), list(zip(_row(y), _row(t), _row(moved), strict=True))
        shared = np.float64(sum(_one(loss, "share", kept, one, target) * dot for one, target, dot in rows))
        got = [_one(loss, "slope_jvp", kept, one, target, dot, shared) for one, target, dot in rows]
        _compare(loss, "slope_jvp", "slope", got, slope_of(slopes), remedy)
    return _one(loss, "value", folded(0.0))


# ------------------------------------------------------------------------------------------------------------ penalties


@functools.lru_cache(maxsize=256)
def check_penalty(penalty: Penalty | StatePenalty, dtype: str) -> None:
    """Refuse a penalty whose units are not what it says of them."""
    gain = isinstance(penalty, Penalty)
    count = 1 if gain else 2
    if JIT:
        number = types.float32 if np.dtype(dtype) == np.float32 else types.float64
        hold_number(penalty, "value", (number,) * count)
        if gain:
            hold_number(penalty, "slope", (number,))
        else:
            _hold(penalty, "slope", (number, number), "two numbers", lambda found: are_numbers(found, 2))
    rng = np.random.default_rng(0)
    points = [rng.uniform(0.2, 3.0, size=count) for _ in range(TRIALS)]
    refuse_chance(penalty, "value", *_row(points[0]))
    _refuse_nan(penalty, "value", [_one(penalty, "value", *_row(point)) for point in points])
    for point in points:
        found = called(penalty, "slope", *_row(point))
        slopes = (found,) if gain else found
        if not isinstance(slopes, tuple) or len(slopes) != count or not all(map(is_real, slopes)):
            refuse_result(penalty, "slope", _check.said(found), f"{count} number{'s' if count > 1 else ''}")
        for k, moved in enumerate(np.eye(count)):

            def value(h: float, point: Any = point, moved: Any = moved) -> Any:
                return _one(penalty, "value", *_row(point + h * moved))

            _compare(penalty, "slope", "value", slopes[k], slope_of(value), "Write d value / d q.")


# ---------------------------------------------------------------------------------------------------------------- rules

# Entry, norm and threshold: on either side of it.
CLIPPED = ((0.3, 1.0, 0.5), (-0.3, 1.0, 0.5), (0.3, 0.4, 0.5), (2.0, 2.5, 0.7), (-2.0, 2.5, 7.0), (0.01, 0.02, 0.5))


@functools.lru_cache(maxsize=256)
def check_rule(rule: Rule, dtype: str) -> None:
    """Refuse a rule of clipping that its norms could not be scaled for, or that looks at one that there is not."""
    if JIT:
        for number in {types.float32 if np.dtype(dtype) == np.float32 else types.float64, types.float64}:
            hold_number(rule, "clip", (number, number, number))
    refuse_chance(rule, "clip", *_row(CLIPPED[0]))
    values = [_one(rule, "clip", *_row(point)) for point in CLIPPED]
    _refuse_nan(rule, "clip", values)
    for point, value in zip(CLIPPED, values, strict=True):
        g, norm, threshold = _row(point)
        scaled = _one(rule, "clip", *(np.float64(4.0) * one for one in (g, norm, threshold)))
        if not np.isclose(scaled, 4.0 * value, rtol=1e-5, atol=1e-9, equal_nan=True):
            raise ValueError(
                f"Rule.clip gives {value:.6g} for {point} and {scaled:.6g} for four times that; expected 4 x "
                f"{value:.6g}: all three may come multiplied by a power of two. Write quotients, and no numbers of "
                f"their own."
            )
        if rule.over == "entry" and not np.isclose(_one(rule, "clip", g, 4.0 * norm, threshold), value, equal_nan=True):
            raise ValueError(
                f"Rule.over is 'entry' and clip looks at the norm; expected one that does not, for none is measured. "
                f"Write over='all', say: {value:.6g} for {point} is another number where the norm is."
            )


def check_stateful_rule(rule: StatefulRule, dtype: str) -> None:
    """Refuse a rule that remembers whose units are not what it says of them."""
    slots, settings, wide = len(rule.slots), tuple(rule.settings.values()), types.float64
    kept = numbers(slots, types.float32 if np.dtype(dtype) == np.float32 else wide)
    what = f"g and a tuple of {slots} slots"
    if JIT:
        arguments = (wide, wide, wide, wide, kept, numbers(len(settings), wide), wide)
        found = inferred(rule, "clip", arguments, unit=exactly(rule.clip))
        fits = isinstance(found, types.BaseTuple) and len(found) == 2 and isinstance(found[0], types.Float)
        if not fits or not are_numbers(found[1], slots, REAL):
            refuse_result(rule, "clip", shown(found), what)
        if rule.measured is not None:
            found = inferred(rule, "measured", (wide, kept), unit=exactly(rule.measured))
            if not isinstance(found, types.Float):
                refuse_result(rule, "measured", shown(found), "one number")
    values = []
    for point in CLIPPED:
        g, norm, threshold = _row(point)
        trial = (g, norm, norm, threshold, _row((0,) * slots), _row(settings), np.float64(1.0))
        refuse_chance(rule, "clip", *trial)
        found = called(rule, "clip", *trial)
        fits = isinstance(found, tuple) and len(found) == 2 and is_real(found[0]) and isinstance(found[1], tuple)
        if not fits or len(found[1]) != slots or not all(map(is_real, found[1])):
            refuse_result(rule, "clip", _check.said(found), what)
        values.append(np.array([found[0], *found[1]], np.float64))
    _refuse_nan(rule, "clip", values)
    if rule.measured is not None:
        rows = [(_row(point)[0], _row((0,) * slots)) for point in CLIPPED]
        for row in rows:
            refuse_chance(rule, "measured", *row)
        _refuse_nan(rule, "measured", [_one(rule, "measured", *row) for row in rows])


# ----------------------------------------------------------------------------------------------------------- optimizers


def check_optimizer(optimizer: Optimizer, dtype: str) -> None:
    """Refuse an optimizer whose unit is not what it says of it."""
    slots, settings = len(optimizer.slots), tuple(optimizer.settings.values())
    if JIT:
        number = types.float32 if np.dtype(dtype) == np.float32 else types.float64
        arguments = (number, number, numbers(slots, number), number, numbers(len(settings), number), number)
        found = inferred(optimizer, "update", arguments, unit=exactly(optimizer.update))
        fits = isinstance(found, types.BaseTuple) and len(found) == 2 and isinstance(found[0], types.Float)
        if not fits or not are_numbers(found[1], slots, REAL):
            refuse_result(optimizer, "update", shown(found), f"theta and a tuple of {slots} slots")
    values = []
    for d in (0.1, -2.0, 0.0):
        trial = (np.float64(0.5), np.float64(d), _row((0,) * slots), np.float64(0.01), _row(settings), np.float64(1.0))
        refuse_chance(optimizer, "update", *trial)
        found = called(optimizer, "update", *trial)
        fits = isinstance(found, tuple) and len(found) == 2 and is_real(found[0]) and isinstance(found[1], tuple)
        if not fits or len(found[1]) != slots or not all(map(is_real, found[1])):
            refuse_result(optimizer, "update", _check.said(found), f"theta and a tuple of {slots} slots")
        values.append(np.array([found[0], *found[1]], np.float64))
    _refuse_nan(optimizer, "update", values)


# ----------------------------------------------------------------------------------------------------------- thresholds


def check_threshold(how: Threshold) -> None:
    """Refuse a threshold whose units are not what it says of them; where they look beyond the memory, they raise."""
    if not JIT:
        return
    number, memory = types.float64, types.Array(types.float64, 1, "C")
    settings = numbers(len(how.settings), number)
    found = inferred(how, "value", (number, memory, settings, types.int64), unit=bounded(how.value), raises=True)
    if not isinstance(found, REAL):
        refuse_result(how, "value", shown(found), "one number")
    if how.learn is not None:
        found = inferred(how, "learn", (number, memory, settings), unit=bounded(how.learn), raises=True)
        if found is not types.none:
            refuse_result(how, "learn", shown(found), "nothing, for it writes into the memory")


def stays_inside(how: Threshold, room: int) -> bool:
    """Tell whether a compiler can prove that the units never look beyond a memory of so many numbers, nor raise.

    So it is where all places are constants. On the card nobody looks at where they look.
    """
    value, learn = bounded(how.value), None if how.learn is None else bounded(how.learn)

    def ask(address, norm, settings, update):  # type: ignore[no-untyped-def]
        memory = carray(address, (room,))
        if learn is not None:
            learn(norm, memory, settings)
        return value(norm, memory, settings, update)

    number = types.float64
    compiled = numba.njit(error_model="numpy", fastmath=False)(ask)
    compiled.compile((types.CPointer(number), number, numbers(len(how.settings), number), types.int64))
    (code,) = compiled.overloads.values()
    return not may_raise(code.library.get_llvm_str())
