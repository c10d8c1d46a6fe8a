"""Back-propagation through time: delta_t = dL/ds_t from the last step to the first; all steps in one grid.

    delta_t = v_{t+1} + (dL/ds_t at step t),      v_t = J_t^T delta_t

(Goodfellow et al. 2016, eq. 10.18-10.19.) Blocks and threads stand for the same sequences and units as in
`nbflow.cuda.forward`; a thread alone touches delta at its units, and the gradients at a_rec are shared by the block.
"""

from __future__ import annotations

import functools

from nbflow._compile import unit
from nbflow.cpu.hidden_clip import PREACTIVATION, STATE
from nbflow.cuda.device import MOST_THREADS, cuda, device_part, grid, real_of
from nbflow.cuda.forward import longest_of
from nbflow.cuda.hidden_clip import build_clip_row
from nbflow.cuda.job import (
    BATCH,
    CELL_SETTINGS,
    DELTA,
    DETACHED,
    HEARD,
    HIDDEN,
    HIDDEN_THRESHOLD,
    INSIDE,
    KEEPS_DELTA,
    LAST,
    N_IN,
    N_OUT,
    PARAMETERS,
    PRE,
    REC,
    SAVED,
    STATES,
    THETA,
    W_BACK,
    WEIGHTS,
    V,
    Y,
    at,
)
from nbflow.cuda.memory import build_constants, build_load, build_store, fetch
from nbflow.cuda.norm import build_block_sum
from nbflow.cuda.state_penalty import pulled


@unit
def from_loss(job, numbers, r, place, j, d_y):
    """Return what the loss of a step adds at unit j of h: dL/dy @ w_out^T, 0 where there is no weight.

    `d_y` is Y, which holds dL/dy, or Y_DOT for the tangent of all that.
    """
    weight = numbers[at(job, WEIGHTS, r) + place]
    total = weight - weight
    if weight != 0:
        n_out = job[N_OUT]
        w_out = at(job, THETA, r) + job[PARAMETERS] - (job[HIDDEN] + 1) * n_out + j * n_out
        y = at(job, d_y, r) + place * n_out
        for m in range(n_out):
            total += fetch(numbers, y + m) * fetch(numbers, w_out + m)
    return total


@unit
def slot_of(job, t):
    """Return where delta_t stands: at its own place, or always at the same; a flag is 0 or 1."""
    return t * job[KEEPS_DELTA]


@functools.cache
def build_backward(cell, dtype, rows, resident, site=0, by_norm=False, detaching=False, at_states=False):
    """Build the grid, a block for `rows` sequences of a replica; with `resident`, w_rec lies in shared memory.

    `site` is what is clipped at every step, by value or by norm (`nbflow.cpu.hidden_clip`), 0 for nothing. With
    `detaching`, nothing goes back through w_rec at the steps that are drawn (`nbflow.cuda.h_detach`); with
    `at_states`, a penalty of the states adds to delta (`nbflow.cuda.state_penalty`).

    Shared memory: the gradients at a_rec (rows, G, H), then w_rec in rows of G*H numbers, or one more to make it odd.
    """
    step_vjp, additive, carries = cell.step_vjp, cell.additive, cell.carries
    gates, lines, kept = len(cell.gates), len(cell.states), len(cell.saved)
    load_saved, load_states = build_load(kept), build_load(lines)
    store_gates, store_states = build_store(gates), build_store(lines)
    constants = build_constants(len(cell.settings))
    real, zero = real_of(dtype), dtype(0)
    zeros = (zero,) * lines
    clip_row, block_sum = build_clip_row(by_norm, dtype), build_block_sum()

    @unit
    def begin(job, numbers, integers, r, t, b, j):
        """delta_t of unit j: 0 after the last weight, and the loss of step t-1 added."""
        hidden, batch = job[HIDDEN], job[BATCH]
        here = at(job, DELTA, r) + (slot_of(job, t) * batch + b) * lines * hidden + j
        heard = integers[at(job, HEARD, r) + b]
        if t >= heard:
            for line in range(lines):
                numbers[here + line * hidden] = zero
        if t <= heard:
            numbers[here] += from_loss(job, numbers, r, (t - 1) * batch + b, j, Y)
            if at_states:
                h = numbers[at(job, STATES, r) + (t * batch + b) * lines * hidden + j]
                numbers[here] += pulled(job, numbers, r, (t - 1) * batch + b, h)

    @unit
    def through_cell(job, numbers, shared, r, t, b, j, row):
        """From delta_t to e_t, the gradients at the pre-activations, and what J_t carries past a_rec."""
        hidden, batch = job[HIDDEN], job[BATCH]
        line = lines * hidden
        old = at(job, STATES, r) + ((t - 1) * batch + b) * line + j
        tape = (t - 1) * batch + b
        d_in, d_rec, d_s = step_vjp(
            load_saved(numbers, at(job, SAVED, r) + tape * kept * hidden + j, hidden),
            load_states(numbers, old, hidden),
            load_states(numbers, old + batch * line, hidden),
            load_states(numbers, at(job, DELTA, r) + (slot_of(job, t) * batch + b) * line + j, hidden),
            *constants(numbers, job[CELL_SETTINGS] + j, hidden),
        )
        store_gates(numbers, at(job, REC, r) + tape * gates * hidden + j, hidden, d_rec)
        if not additive:
            store_gates(numbers, at(job, PRE, r) + tape * gates * hidden + j, hidden, d_in)
        before = at(job, DELTA, r) + (slot_of(job, t - 1) * batch + b) * line + j
        if carries:
            store_states(numbers, before, hidden, d_s)
        else:
            store_states(numbers, before, hidden, zeros)
        store_gates(shared, row * gates * hidden + j, hidden, d_rec)

    @unit
    def finish_v(job, numbers, r, t, b, k, total):
        """v_t of unit k, to the slot of delta_{t-1} and to V."""
        hidden, batch = job[HIDDEN], job[BATCH]
        before = at(job, DELTA, r) + (slot_of(job, t - 1) * batch + b) * lines * hidden + k
        numbers[before] += total
        if job[KEEPS_DELTA]:
            v = at(job, V, r) + ((t - 1) * batch + b) * lines * hidden + k
            for line in range(lines):
                numbers[v + line * hidden] = numbers[before + line * hidden]

    @device_part
    def clip_states(job, numbers, integers, r, t, first, room):
        """Clip delta_t of every sequence of a block; return what this thread counts as clipped."""
        hidden, batch, clipped = job[HIDDEN], job[BATCH], 0
        threshold, line = numbers[at(job, HIDDEN_THRESHOLD, r)], lines * hidden
        for b in range(first, min(first + rows, batch)):
            if t <= integers[at(job, HEARD, r) + b]:
                place = at(job, DELTA, r) + (slot_of(job, t) * batch + b) * line
                clipped += clip_row(numbers, place, line, threshold, room)
        return clipped

    @device_part
    def clip_preactivations(job, numbers, integers, shared, r, t, first, room):
        """Clip the gradients at a_in and a_rec of every sequence of a block; return as above."""
        hidden, batch, clipped = job[HIDDEN], job[BATCH], 0
        threshold, columns = numbers[at(job, HIDDEN_THRESHOLD, r)], gates * hidden
        for b in range(first, min(first + rows, batch)):
            if t <= integers[at(job, HEARD, r) + b]:
                tape = ((t - 1) * batch + b) * columns
                clipped += clip_row(numbers, at(job, REC, r) + tape, columns, threshold, room)
                if not additive:
                    clipped += clip_row(numbers, at(job, PRE, r) + tape, columns, threshold, room)
                for c in range(cuda.threadIdx.x, columns, cuda.blockDim.x):
                    shared[(b - first) * columns + c] = numbers[at(job, REC, r) + tape + c]
        cuda.syncthreads()
        return clipped

    @grid
    def backward(job, numbers, integers):
        shared = cuda.shared.array(0, real)
        if site:
            room = cuda.shared.array(MOST_THREADS, real)
        clipped = 0
        total = cuda.local.array(rows, real)
        hidden, batch = job[HIDDEN], job[BATCH]
        columns = gates * hidden
        blocks = (batch + rows - 1) // rows
        r, first = cuda.blockIdx.x // blocks, cuda.blockIdx.x % blocks * rows
        me, threads = cuda.threadIdx.x, cuda.blockDim.x
        heard = at(job, HEARD, r)
        w_rec, w_back = at(job, THETA, r) + job[N_IN] * columns, at(job, W_BACK, r)
        place = rows * columns
        stride = columns | 1
        for c in range(me, place, threads):
            shared[c] = zero
        for j in range(me, hidden, threads):
            for b in range(first, min(first + rows, batch)):
                store_states(numbers, at(job, DELTA, r) + b * lines * hidden + j, hidden, zeros)
        if resident:
            for k in range(hidden):
                for c in range(me, columns, threads):
                    shared[place + k * stride + c] = numbers[w_rec + k * columns + c]
        cuda.syncthreads()
        for t in range(longest_of(integers, at(job, LAST, r), first, rows, batch), 0, -1):
            for j in range(me, hidden, threads):
                for b in range(rows):
                    if first + b < batch:
                        begin(job, numbers, integers, r, t, first + b, j)
            if site == STATE:
                cuda.syncthreads()
                clipped += clip_states(job, numbers, integers, r, t, first, room)
            for j in range(me, hidden, threads):
                for b in range(rows):
                    if first + b < batch and t <= integers[heard + first + b]:
                        through_cell(job, numbers, shared, r, t, first + b, j, b)
            cuda.syncthreads()
            if site == PREACTIVATION:
                clipped += clip_preactivations(job, numbers, integers, shared, r, t, first, room)
            goes_back = t > 1 or job[KEEPS_DELTA]
            if detaching:
                goes_back = goes_back and integers[at(job, DETACHED, r) + t - 1] == 0
            if goes_back:
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
                            finish_v(job, numbers, r, t, first + b, k, total[b])
            cuda.syncthreads()
        if site:
            # A thread's count is whole, and so is their sum where the dtype holds it.
            counted = block_sum(dtype(clipped), room)
            if me == 0:
                numbers[at(job, INSIDE, r) + cuda.blockIdx.x % blocks] = counted

    return backward
