"""Derivatives of a cell that has not written them itself, by complex steps inside the kernels.

`Im f(x + i h v) / h` is the derivative of f along v to rounding, for h as small as 1e-30: nothing is subtracted (Squire
and Trapp 1998). A cell with `step` and `step_vjp` gets its second derivatives so; one with `step` alone gets
`step_vjp` so, and the derivative of that by central differences with four points, right to about 1e-11 and wrong
within 1e-3 of a kink. All of it in double precision, whatever the network's, and slower than what is written by hand.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np

from nbflow._compile import loop, part, unit
from nbflow.cpu.tuples import (
    build_inner,
    build_largest,
    build_moved,
    build_nudge,
    build_pick,
    build_slopes,
    build_toward,
    nothing,
)
from nbflow.records import Cell

# For four points the error of the formula falls as the fourth power of this, that of rounding grows as its inverse.
DIFFERENCE = 1e-3

A_IN, A_REC, STATE = range(3)


@functools.cache
def first_order(cell: Cell) -> Cell:
    """Return the cell with `step_vjp`."""
    if cell.step_vjp is not None:
        return cell
    kept = _keep_arguments(cell)
    return _checked(dataclasses.replace(kept, step_vjp=_build_vjp(cell)), cell)


@functools.cache
def second_order(cell: Cell) -> Cell:
    """Return the cell with all four units."""
    if cell.step_vjp is not None and cell.step_jvp is not None and cell.step_vjp_jvp is not None:
        return cell
    kept = _keep_arguments(cell)
    if cell.step_vjp is None:
        step_vjp, step_vjp_jvp = _build_vjp(cell), _build_vjp_jvp_by_differences(cell)
    else:
        step_vjp, step_vjp_jvp = _build_inner_vjp(cell), _build_vjp_jvp(cell)
    whole = dataclasses.replace(kept, step_vjp=step_vjp, step_jvp=_build_jvp(cell), step_vjp_jvp=step_vjp_jvp)
    return _checked(whole, cell)


def _keep_arguments(cell: Cell) -> Cell:
    """Return the cell with a_in and a_rec behind what it saves."""
    step = cell.step

    @unit
    def keeping(a_in, a_rec, s, *settings):
        s_next, saved = step(a_in, a_rec, s, *settings)
        return s_next, saved + a_in + a_rec

    names = [f"{kind} {gate}" for kind in ("a_in", "a_rec") for gate in cell.gates]
    return dataclasses.replace(cell, step=keeping, saved=(*cell.saved, *names))


@functools.cache
def _build_complex_step(cell: Cell) -> Any:
    """Build `step` for complex numbers, called and not inlined: a column of the derivative each would take its time."""
    step = cell.step

    @part
    def complex_step(a_in, a_rec, s, *settings):
        return step(a_in, a_rec, s, *settings)[0]

    return complex_step


def _build_columns(cell: Cell, argument: int, count: int) -> Any:
    """Build `columns(a_in, a_rec, s, d, *settings)`: d times the derivative of `step` in each part of an argument."""
    if count == 0:
        return nothing
    step, gates, states, last = _build_complex_step(cell), len(cell.gates), len(cell.states), count - 1
    before = _build_columns(cell, argument, last)
    nudge_in = build_nudge(gates, last if argument == A_IN else -1)
    nudge_rec = build_nudge(gates, last if argument == A_REC else -1)
    nudge_state = build_nudge(states, last if argument == STATE else -1)
    inner = build_inner(states)

    @unit
    def columns(a_in, a_rec, s, d, *settings):
        new = step(nudge_in(a_in), nudge_rec(a_rec), nudge_state(s), *settings)
        return (*before(a_in, a_rec, s, d, *settings), inner(new, d))

    return columns


def _build_pull(cell: Cell) -> Any:
    """Build `pull(a_in, a_rec, s, d, *settings)`: what `step_vjp` returns."""
    gates, additive = len(cell.gates), cell.additive
    columns_in = _build_columns(cell, A_IN, gates)
    columns_rec = _build_columns(cell, A_REC, 0 if additive else gates)
    columns_state = _build_columns(cell, STATE, len(cell.states) if cell.carries else 0)

    @unit
    def pull(a_in, a_rec, s, d, *settings):
        e, d_s = columns_in(a_in, a_rec, s, d, *settings), columns_state(a_in, a_rec, s, d, *settings)
        if additive:
            return e, e, d_s
        return e, columns_rec(a_in, a_rec, s, d, *settings), d_s

    return pull


def _arguments(cell: Cell) -> tuple[Any, Any]:
    """Return two units that take a_in and a_rec out of what `_keep_arguments` saves."""
    kept, gates = len(cell.saved), len(cell.gates)
    return build_pick(kept, gates), build_pick(kept + gates, gates)


def _build_vjp(cell: Cell) -> Any:
    pull = _build_pull(cell)
    take_in, take_rec = _arguments(cell)

    @unit
    def step_vjp(saved, s, s_next, d, *settings):
        return pull(take_in(saved), take_rec(saved), s, d, *settings)

    return step_vjp


def _build_inner_vjp(cell: Cell) -> Any:
    """Return the cell's own `step_vjp`, for a longer tuple of what was saved."""
    own, take = cell.step_vjp, build_pick(0, len(cell.saved))

    @unit
    def step_vjp(saved, s, s_next, d, *settings):
        return own(take(saved), s, s_next, d, *settings)

    return step_vjp


def _build_jvp(cell: Cell) -> Any:
    step = cell.step
    take_in, take_rec = _arguments(cell)
    gates_toward, states_toward = build_toward(len(cell.gates)), build_toward(len(cell.states))
    slopes = build_slopes(len(cell.states))

    @unit
    def step_jvp(saved, s, s_next, a_in_dot, a_rec_dot, s_dot, *settings):
        a_in, a_rec = gates_toward(take_in(saved), a_in_dot), gates_toward(take_rec(saved), a_rec_dot)
        new, _ = step(a_in, a_rec, states_toward(s, s_dot), *settings)
        return slopes(new)

    return step_jvp


def _build_vjp_jvp(cell: Cell) -> Any:
    """Build the derivative of a cell's own `step_vjp` by one complex step through `step` and it."""
    step, own = cell.step, cell.step_vjp
    take_in, take_rec = _arguments(cell)
    gates_toward, states_toward = build_toward(len(cell.gates)), build_toward(len(cell.states))
    gate_slopes = build_slopes(len(cell.gates))
    state_slopes = build_slopes(len(cell.states) if cell.carries else 0)

    @unit
    def step_vjp_jvp(saved, s, s_next, d, a_in_dot, a_rec_dot, s_dot, d_dot, *settings):
        here = states_toward(s, s_dot)
        a_in, a_rec = gates_toward(take_in(saved), a_in_dot), gates_toward(take_rec(saved), a_rec_dot)
        new, kept = step(a_in, a_rec, here, *settings)
        e_in, e_rec, d_s = own(kept, here, new, states_toward(d, d_dot), *settings)
        return gate_slopes(e_in), gate_slopes(e_rec), state_slopes(d_s)

    return step_vjp_jvp


def _build_vjp_jvp_by_differences(cell: Cell) -> Any:
    """Build the derivative of the complex-step `step_vjp`: exact in d, by central differences in all else."""
    pull, far = _build_pull(cell), DIFFERENCE
    take_in, take_rec = _arguments(cell)
    gates, states = len(cell.gates), len(cell.states)
    gates_moved, states_moved = build_moved(gates), build_moved(states)
    largest_gate, largest_state = build_largest(gates), build_largest(states)
    add_gates, add_states = build_moved(gates), build_moved(states if cell.carries else 0)

    @unit
    def step_vjp_jvp(saved, s, s_next, d, a_in_dot, a_rec_dot, s_dot, d_dot, *settings):
        a_in, a_rec = take_in(saved), take_rec(saved)
        e_in, e_rec, d_s = pull(a_in, a_rec, s, d_dot, *settings)
        size = max(largest_gate(a_in_dot), largest_gate(a_rec_dot), largest_state(s_dot))
        if size > 0:
            for place, factor in ((-2.0, 1.0), (-1.0, -8.0), (1.0, 8.0), (2.0, -1.0)):
                shift, weight = place * far / size, factor * size / (12.0 * far)
                more_in, more_rec, more_s = pull(
                    gates_moved(a_in, a_in_dot, shift),
                    gates_moved(a_rec, a_rec_dot, shift),
                    states_moved(s, s_dot, shift),
                    d,
                    *settings,
                )
                e_in = add_gates(e_in, more_in, weight)
                e_rec = add_gates(e_rec, more_rec, weight)
                d_s = add_states(d_s, more_s, weight)
        return e_in, e_rec, d_s

    return step_vjp_jvp


def _build_calls(step: Any, jvp: Any) -> tuple[Any, Any]:
    """Build `call_step` and `call_jvp`, which Python may call: loops are kept on the disk, and units are not."""

    @loop(step)
    def call_step(a_in, a_rec, s, *settings):
        return step(a_in, a_rec, s, *settings)

    @loop(jvp)
    def call_jvp(saved, s, a_in_dot, a_rec_dot, s_dot, *settings):
        return jvp(saved, s, None, a_in_dot, a_rec_dot, s_dot, *settings)

    return call_step, call_jvp


def _checked(derived: Cell, cell: Cell) -> Cell:
    """Refuse a `step` of which complex steps are no derivatives: abs, comparisons and the like are not analytic."""
    rng, gates, states = np.random.default_rng(0), len(cell.gates), len(cell.states)
    step, jvp = _build_calls(derived.step, _build_jvp(cell))
    # Kernels are the same for all settings, so these are some, within their limits.
    settings = (tuple(0.5 * sum(cell.limits.get(name, (0.0, 1.0))) for name in cell.settings),) if cell.settings else ()
    for _ in range(3):
        a_in, a_rec, s, b_in, b_rec, u = (tuple(rng.normal(size=n)) for n in (gates, gates, states) * 2)
        if cell.additive:
            a_rec = b_rec = (0.0,) * gates
        near = [
            step(*(tuple(np.add(x, h * np.array(v))) for x, v in ((a_in, b_in), (a_rec, b_rec), (s, u))), *settings)[0]
            for h in (-1e-6, 1e-6)
        ]
        saved = step(a_in, a_rec, s, *settings)[1]
        wanted = np.subtract(near[1], near[0]) / 2e-6
        found = jvp(saved, s, b_in, b_rec, u, *settings)
        if not np.allclose(found, wanted, rtol=1e-3, atol=1e-6):
            raise ValueError(
                f"the step of cell {cell.gates} has a complex step of {found} where differences give {wanted}; "
                f"expected a function that takes complex numbers, without abs or comparisons. Write step_vjp, step_jvp "
                f"and step_vjp_jvp by hand."
            )
    return derived
