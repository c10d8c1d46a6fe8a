"""Units applied to complex numbers: the slow and simple loops behind `nbflow.check_gradient`."""

from __future__ import annotations

import functools

import numpy as np

from nbflow._compile import loop
from nbflow.cpu.rows import build_constants, build_load, build_store


@functools.cache
def build_complex_step(cell):
    """Build `step(settings, a_in, a_rec, s, s_next)` for settings (K, H), complex (rows, G, H) and (rows, S, H)."""
    step = cell.step
    load_gates, load_states = build_load(len(cell.gates)), build_load(len(cell.states))
    store_states = build_store(len(cell.states))
    constants = build_constants(len(cell.settings))

    @loop(step, len(cell.gates), len(cell.states), len(cell.settings))
    def complex_step(settings, a_in, a_rec, s, s_next):
        for b in range(s.shape[0]):
            for j in range(s.shape[2]):
                rows = load_gates(a_in, b, j), load_gates(a_rec, b, j), load_states(s, b, j)
                new, _ = step(*rows, *constants(settings, j))
                store_states(s_next, b, j, new)

    return complex_step


@functools.cache
def build_complex_loss(loss):
    """Build `losses(y, targets, out)`: complex y (rows, M), float64 targets (rows, M), complex out (rows,)."""
    fold, value, start = loss.fold, loss.value, tuple(np.complex128(number) for number in loss.start)

    @loop(fold, value, start)
    def complex_loss(y, targets, out):
        for b in range(y.shape[0]):
            accumulator = start
            for m in range(y.shape[1]):
                accumulator = fold(accumulator, y[b, m], targets[b, m])
            out[b] = value(accumulator)

    return complex_loss


@functools.cache
def build_complex_penalty(penalty):
    """Build `penalties(q, out)` for complex arrays (n,)."""
    value = penalty.value

    @loop(value)
    def complex_penalty(q, out):
        for i in range(q.size):
            out[i] = value(q[i])

    return complex_penalty


@functools.cache
def build_complex_state_penalty(penalty):
    """Build `penalties(n, before, out)` for complex arrays (n,)."""
    value = penalty.value

    @loop(value)
    def complex_state_penalty(n, before, out):
        for i in range(n.size):
            out[i] = value(n[i], before[i])

    return complex_state_penalty
