"""The tangent of back-propagation: how delta_t and e_t move with the states, from the last step to the first.

    delta_dot_t = J_{t+1}^T delta_dot_{t+1} + (tangent of J_{t+1}^T) delta_{t+1} + (tangent of dL/ds_t at step t)

As in `nbflow.cpu.second`: with the tangents of `nbflow.cuda.tangent`, which have alpha in them, a weight gradient with
Omega's is sum h (e + e_dot) + w e. Blocks, threads and shared memory are those of `nbflow.cuda.backward`.
"""

from __future__ import annotations

import functools

from nbflow._compile import unit
from nbflow.cuda.backward import from_loss
from nbflow.cuda.device import cuda, grid, real_of
from nbflow.cuda.forward import longest_of
from nbflow.cuda.job import (
    ALPHA,
    BATCH,
    CELL_SETTINGS,
    DELTA,
    DELTA_DOT,
    HEARD,
    HIDDEN,
    N_IN,
    PRE,
    PRE_DOT,
    REC,
    REC_DOT,
    SAVED,
    STATES,
    THETA,
    W_BACK,
    Y_DOT,
    V,
    at,
)
from nbflow.cuda.memory import build_constants, build_load, build_store, fetch


@functools.cache
def build_second(cell, dtype, rows, resident, exact):
    """Build the grid, a block for `rows` sequences of a replica: from a_rec_dot to e + e_dot, at a_rec and at a_in.

    They stand in REC_DOT and PRE_DOT. A replica whose alpha is 0 it leaves as it is.
    """
    step_vjp_jvp, additive, carries = cell.step_vjp_jvp, cell.additive, cell.carries
    gates, lines, kept = len(cell.gates), len(cell.states), len(cell.saved)
    load_gates, load_states, load_saved = build_load(gates), build_load(lines), build_load(kept)
    store_gates, store_states = build_store(gates), build_store(lines)
    constants = build_constants(len(cell.settings))
    real, zero = real_of(dtype), dtype(0)
    zeros, still = (zero,) * lines, (zero,) * gates

    @unit
    def begin(job, numbers, integers, r, t, b, j):
        """delta_dot_t of unit j: 0 after the last weight, and the tangent of the loss of step t-1 added."""
        hidden = job[HIDDEN]
        here = at(job, DELTA_DOT, r) + b * lines * hidden + j
        if t == integers[at(job, HEARD, r) + b]:
            store_states(numbers, here, hidden, zeros)
        if exact:
            numbers[here] += from_loss(job, numbers, r, (t - 1) * job[BATCH] + b, j, Y_DOT)

    @unit
    def add(numbers, place, other, hidden):
        """Add what stands at another place, gate by gate."""
        for g in range(gates):
            numbers[place + g * hidden] += numbers[other + g * hidden]

    @unit
    def through_cell(job, numbers, shared, r, t, b, j, row):
        """From delta_dot_t to e_dot_t, which joins e_t, and to what J_t carries past a_rec."""
        hidden, batch = job[HIDDEN], job[BATCH]
        line, tape = lines * hidden, (t - 1) * batch + b
        old, here = at(job, STATES, r) + tape * line + j, at(job, DELTA_DOT, r) + b * line + j
        e = tape * gates * hidden + j
        rec_dot, pre_dot = at(job, REC_DOT, r) + e, at(job, PRE_DOT, r) + e
        d_in, d_rec, d_s = step_vjp_jvp(
            load_saved(numbers, at(job, SAVED, r) + tape * kept * hidden + j, hidden),
            load_states(numbers, old, hidden),
            load_states(numbers, old + batch * line, hidden),
            load_states(numbers, at(job, DELTA, r) + (tape + batch) * line + j, hidden),
            still,
            load_gates(numbers, rec_dot, hidden),
            load_states(numbers, at(job, V, r) + tape * line + j, hidden),
            load_states(numbers, here, hidden),
            *constants(numbers, job[CELL_SETTINGS] + j, hidden),
        )
        store_gates(shared, row * gates * hidden + j, hidden, d_rec)
        store_gates(numbers, rec_dot, hidden, d_rec)
        add(numbers, rec_dot, at(job, REC, r) + e, hidden)
        if not additive:
            store_gates(numbers, pre_dot, hidden, d_in)
            add(numbers, pre_dot, at(job, PRE, r) + e, hidden)
        if carries:
            store_states(numbers, here, hidden, d_s)
        else:
            store_states(numbers, here, hidden, zeros)

    @grid
    def second(job, numbers, integers):
        shared = cuda.shared.array(0, real)
        total = cuda.local.array(rows, real)
        hidden, batch = job[HIDDEN], job[BATCH]
        columns = gates * hidden
        blocks = (batch + rows - 1) // rows
        r, first = cuda.blockIdx.x // blocks, cuda.blockIdx.x % blocks * rows
        me, threads = cuda.threadIdx.x, cuda.blockDim.x
        heard = at(job, HEARD, r)
        if numbers[at(job, ALPHA, r)] == 0:
            return
        w_rec, w_back = at(job, THETA, r) + job[N_IN] * columns, at(job, W_BACK, r)
        place = rows * columns
        stride = columns | 1
        for c in range(me, place, threads):
            shared[c] = zero
        if resident:
            for k in range(hidden):
                for c in range(me, columns, threads):
                    shared[place + k * stride + c] = numbers[w_rec + k * columns + c]
        cuda.syncthreads()
        for t in range(longest_of(integers, heard, first, rows, batch), 0, -1):
            for j in range(me, hidden, threads):
                for b in range(rows):
                    if first + b < batch and t <= integers[heard + first + b]:
                        begin(job, numbers, integers, r, t, first + b, j)
                        through_cell(job, numbers, shared, r, t, first + b, j, b)
            cuda.syncthreads()
            if t > 1:
                for k in range(me, hidden, threads):
                    for b in range(rows):
                        total[b] = zero
                    for c in range(columns):
                        if resident:
                            w = fetch(shared, place + k * stride + c)
                        else:
                            w = fetch(numbers, w_back + c * hidden + k)
                        for b in range(rows):
                            total[b] += w * fetch(shared, b * columns + c)
                    for b in range(rows):
                        if first + b < batch and t <= integers[heard + first + b]:
                            numbers[at(job, DELTA_DOT, r) + (first + b) * lines * hidden + k] += total[b]
            cuda.syncthreads()

    return second
