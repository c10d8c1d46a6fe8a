"""A cell's own derivatives over plain arrays, in double precision, for drivers that are written in NumPy.

A tangent moves a_rec and s, not a_in; k of them are taken along each row. Arrays are (rows, G or S, H), those of
tangents (rows, k, G or S, H), and `settings`, those of the cell, (K, H). What is written must be 0 before where the
cell carries nothing.
"""

from __future__ import annotations

import functools

from nbflow._compile import loop
from nbflow.cpu.derive import first_order, second_order
from nbflow.cpu.rows import build_constants, build_load, build_store


@functools.cache
def build_pull(cell):
    """Build `pull(settings, a_in, a_rec, s, d, d_in, d_rec, d_s)`: d (rows, S, H) back to a_in, a_rec and to s."""
    whole, carries = first_order(cell), cell.carries
    step, step_vjp = whole.step, whole.step_vjp
    load_gates, load_states = build_load(len(cell.gates)), build_load(len(cell.states))
    store_gates, store_states = build_store(len(cell.gates)), build_store(len(cell.states))
    constants = build_constants(len(cell.settings))

    @loop(len(cell.settings), step, step_vjp, len(cell.gates), len(cell.states), carries)
    def pull(settings, a_in, a_rec, s, d, d_in, d_rec, d_s):
        for b in range(s.shape[0]):
            for j in range(s.shape[2]):
                old = load_states(s, b, j)
                more = constants(settings, j)
                new, saved = step(load_gates(a_in, b, j), load_gates(a_rec, b, j), old, *more)
                at_in, at_rec, at_s = step_vjp(saved, old, new, load_states(d, b, j), *more)
                store_gates(d_in, b, j, at_in)
                store_gates(d_rec, b, j, at_rec)
                if carries:
                    store_states(d_s, b, j, at_s)

    return pull


@functools.cache
def build_push(cell):
    """Build `push(settings, a_in, a_rec, s, a_rec_dot, s_dot, s_next, s_next_dot)`: a step, and its tangents."""
    whole = second_order(cell)
    step, step_jvp = whole.step, whole.step_jvp
    load_gates, load_states = build_load(len(cell.gates)), build_load(len(cell.states))
    store_states = build_store(len(cell.states))
    still = (0.0,) * len(cell.gates)
    constants = build_constants(len(cell.settings))

    @loop(len(cell.settings), step, step_jvp, len(cell.gates), len(cell.states))
    def push(settings, a_in, a_rec, s, a_rec_dot, s_dot, s_next, s_next_dot):
        for b in range(s.shape[0]):
            for j in range(s.shape[2]):
                old = load_states(s, b, j)
                more = constants(settings, j)
                new, saved = step(load_gates(a_in, b, j), load_gates(a_rec, b, j), old, *more)
                store_states(s_next, b, j, new)
                for c in range(s_dot.shape[1]):
                    moved = step_jvp(
                        saved, old, new, still, load_gates(a_rec_dot[b], c, j), load_states(s_dot[b], c, j), *more
                    )
                    store_states(s_next_dot[b], c, j, moved)

    return push


@functools.cache
def build_bend(cell):
    """Build `bend(settings, a_in, a_rec, s, a_rec_dot, s_dot, m, to_rec, to_s, d_in, d_rec, d_s)`.

    Each of the vectors m (rows, k, S, H) is multiplied by the transposed derivative of the step: `to_rec` and `to_s`
    (rows, k, G or S, H) are the parts at a_rec and s. `d_in`, `d_rec` and `d_s` are the derivatives of these products
    along the tangents, at a_in, a_rec and s.
    """
    whole, carries = second_order(cell), cell.carries
    step, step_vjp, step_vjp_jvp = whole.step, whole.step_vjp, whole.step_vjp_jvp
    load_gates, load_states = build_load(len(cell.gates)), build_load(len(cell.states))
    store_gates, store_states = build_store(len(cell.gates)), build_store(len(cell.states))
    still, constant = (0.0,) * len(cell.gates), (0.0,) * len(cell.states)
    constants = build_constants(len(cell.settings))

    @loop(len(cell.settings), step, step_vjp, step_vjp_jvp, len(cell.gates), len(cell.states), carries)
    def bend(settings, a_in, a_rec, s, a_rec_dot, s_dot, m, to_rec, to_s, d_in, d_rec, d_s):
        for b in range(s.shape[0]):
            for j in range(s.shape[2]):
                old = load_states(s, b, j)
                more = constants(settings, j)
                new, saved = step(load_gates(a_in, b, j), load_gates(a_rec, b, j), old, *more)
                for c in range(s_dot.shape[1]):
                    taken, along = load_states(m[b], c, j), load_states(s_dot[b], c, j)
                    _, at_rec, at_s = step_vjp(saved, old, new, taken, *more)
                    store_gates(to_rec[b], c, j, at_rec)
                    b_in, b_rec, b_s = step_vjp_jvp(
                        saved, old, new, taken, still, load_gates(a_rec_dot[b], c, j), along, constant, *more
                    )
                    store_gates(d_in[b], c, j, b_in)
                    store_gates(d_rec[b], c, j, b_rec)
                    if carries:
                        store_states(to_s[b], c, j, at_s)
                        store_states(d_s[b], c, j, b_s)

    return bend
