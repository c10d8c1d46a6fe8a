"""How the states move when they are pushed by the slopes of Omega: the tangent forward, all steps in one grid.

    a_rec_dot_t = w_t w_rec,      u_{t+1} = step_jvp(a_rec_dot_t, w_t) + c_{t+1},      w_t = u_t + g_{t+1}

with c_t = dOmega/ddelta_t and g_t = dOmega/dv_t, both times alpha and over what Omega is divided by: "exact". With
w_t = g_{t+1} alone and nothing handed on: "detached". `nbflow.cpu.tangent` says why. Blocks, threads and shared memory
are those of `nbflow.cuda.forward`, with w for h; w_t takes the place of v_{t+1}.
"""

from __future__ import annotations

import functools

import numpy as np

from nbflow._compile import exact_unit, unit
from nbflow.cpu.report import COUNT
from nbflow.cpu.rules import divisor, weighed
from nbflow.cpu.tuples import STEP
from nbflow.cuda.device import cuda, device_part, grid, real_of
from nbflow.cuda.forward import longest_of
from nbflow.cuda.job import (
    ALPHA,
    BATCH,
    CELL_SETTINGS,
    CLASSES,
    DELTA,
    DELTA_NORM,
    FLOW_SLOPE,
    HEARD,
    HIDDEN,
    LINES,
    N_IN,
    N_OUT,
    PARAMETERS,
    REC_DOT,
    REPORT,
    SAVED,
    STATES,
    STATES_DOT,
    TARGETS,
    THETA,
    V_NORM,
    WEIGHTS,
    Y_BOTH,
    Y_DOT,
    V,
    Y,
    at,
)
from nbflow.cuda.loss import build_target, output, start_of
from nbflow.cuda.memory import build_constants, build_load, build_store, fetch


@exact_unit
def push_of_v(v, norm, slope, weight):
    """Return an entry of g_t. The factors one after the other: their product may overflow where v is small."""
    return v / norm * slope * weight


@exact_unit
def push_of_delta(delta, norm, v_norm, slope, weight):
    """Return an entry of -c_t = q flow_slope delta / ||delta||."""
    gain = v_norm / norm
    return delta / norm * (gain * slope * gain * weight)


@functools.cache
def build_tangent(cell, dtype, rows, resident, exact):
    """Build the grid `tangent(job, numbers, integers, by_mean)`, a block for `rows` sequences of a replica.

    It fills REC_DOT and makes w_t of V, and if `exact` it fills STATES_DOT. A replica whose alpha is 0 stays as it is.
    """
    step_jvp = cell.step_jvp
    gates, lines, kept = len(cell.gates), len(cell.states), len(cell.saved)
    load_gates, load_states, load_saved = build_load(gates), build_load(lines), build_load(kept)
    store_states = build_store(lines)
    constants = build_constants(len(cell.settings))
    real, zero, one, sums = real_of(dtype), dtype(0), dtype(1), gates * rows
    still = (zero,) * gates

    @unit
    def enter(job, numbers, r, t, b, j, weight):
        """Make w_t of v_{t+1} at unit j, 0 where Omega does not count; return that of h."""
        hidden, batch = job[HIDDEN], job[BATCH]
        place = t * batch + b
        slope, norm = numbers[at(job, FLOW_SLOPE, r) + place], numbers[at(job, DELTA_NORM, r) + place + batch]
        v, u = at(job, V, r) + place * lines * hidden + j, at(job, STATES_DOT, r) + place * lines * hidden + j
        for line in range(lines):
            w = push_of_v(numbers[v + line * hidden], norm, slope, weight) if slope != 0 else zero
            if exact:
                w += numbers[u + line * hidden]
            numbers[v + line * hidden] = w
        return numbers[v]

    @unit
    def move(job, numbers, r, t, b, j, a_rec_dot, weight):
        """u_{t+1} of unit j."""
        hidden, batch = job[HIDDEN], job[BATCH]
        place, line = t * batch + b, lines * hidden
        old, new = at(job, STATES, r) + place * line + j, (place + batch) * line + j
        u = step_jvp(
            load_saved(numbers, at(job, SAVED, r) + place * kept * hidden + j, hidden),
            load_states(numbers, old, hidden),
            load_states(numbers, at(job, STATES, r) + new, hidden),
            still,
            a_rec_dot,
            load_states(numbers, at(job, V, r) + place * line + j, hidden),
            *constants(numbers, job[CELL_SETTINGS] + j, hidden),
        )
        moved, delta = at(job, STATES_DOT, r) + new, at(job, DELTA, r) + new
        store_states(numbers, moved, hidden, u)
        slope = numbers[at(job, FLOW_SLOPE, r) + place]
        if slope != 0:
            norm, v_norm = numbers[at(job, DELTA_NORM, r) + place + batch], numbers[at(job, V_NORM, r) + place]
            for k in range(lines):
                d = numbers[delta + k * hidden]
                numbers[moved + k * hidden] -= push_of_delta(d, norm, v_norm, slope, weight)

    @grid
    def tangent(job, numbers, integers, by_mean):
        shared = cuda.shared.array(0, real)
        a_rec = cuda.local.array(sums, real)
        hidden, batch = job[HIDDEN], job[BATCH]
        columns = gates * hidden
        blocks = (batch + rows - 1) // rows
        r, first = cuda.blockIdx.x // blocks, cuda.blockIdx.x % blocks * rows
        me, threads = cuda.threadIdx.x, cuda.blockDim.x
        alpha, heard = numbers[at(job, ALPHA, r)], at(job, HEARD, r)
        if alpha == 0:  # the gradient is that without Omega, bit by bit; a slope of Omega may be Inf
            return
        weight = alpha * (one / divisor(numbers[at(job, REPORT, r) + COUNT], dtype(batch), by_mean))
        w_rec = at(job, THETA, r) + job[N_IN] * columns
        place = 2 * rows * hidden
        stride = columns | 1
        if resident:
            for k in range(hidden):
                for c in range(me, columns, threads):
                    shared[place + k * stride + c] = numbers[w_rec + k * columns + c]
        for b in range(rows):
            for j in range(me, hidden, threads):
                shared[b * hidden + j] = zero
                shared[(rows + b) * hidden + j] = zero
                if first + b < batch and integers[heard + first + b] > 0:
                    if exact:
                        for line in range(lines):
                            numbers[at(job, STATES_DOT, r) + ((first + b) * lines + line) * hidden + j] = zero
                    shared[b * hidden + j] = enter(job, numbers, r, 0, first + b, j, weight)
        cuda.syncthreads()
        for t in range(longest_of(integers, heard, first, rows, batch)):
            now, then = t % 2 * rows * hidden, (t + 1) % 2 * rows * hidden
            for j in range(me, hidden, threads):
                for i in range(sums):
                    a_rec[i] = zero
                for k in range(hidden):
                    for g in range(gates):
                        if resident:
                            w = fetch(shared, place + k * stride + g * hidden + j)
                        else:
                            w = fetch(numbers, w_rec + k * columns + g * hidden + j)
                        for b in range(rows):
                            a_rec[b * gates + g] += w * fetch(shared, now + b * hidden + k)
                for b in range(rows):
                    if first + b < batch and t < integers[heard + first + b]:
                        tape = at(job, REC_DOT, r) + (t * batch + first + b) * columns + j
                        for g in range(gates):
                            numbers[tape + g * hidden] = a_rec[b * gates + g]
                        if exact:
                            move(job, numbers, r, t, first + b, j, load_gates(a_rec, b * gates, 1), weight)
                        if t + 1 < integers[heard + first + b]:
                            shared[then + b * hidden + j] = enter(job, numbers, r, t + 1, first + b, j, weight)
            cuda.syncthreads()

    return tangent


# ------------------------------------------------------------------------------------ what that does to dL/dy


@functools.cache
def build_slopes_dot(loss, dtype):
    """Build the grid, a block a step of a replica: Y_DOT, the tangent of dL/dy, and Y_BOTH = dL/dy + that.

    Both are 0 without weight. dL/dy has taken the place of y, so y is computed once more, into Y_BOTH.
    """
    bend, zero = (_build_complex_bend if loss.slope_jvp is None else _build_bend)(loss, dtype), dtype(0)

    @unit
    def output_dot(job, numbers, r, t, b, m):
        """Return how output m moves with the state after step t."""
        hidden, n_out = job[HIDDEN], job[N_OUT]
        w_out = at(job, THETA, r) + job[PARAMETERS] - (hidden + 1) * n_out
        u = at(job, STATES_DOT, r) + ((t + 1) * job[BATCH] + b) * job[LINES] * hidden
        y_dot = zero
        for k in range(hidden):
            y_dot += fetch(numbers, u + k) * fetch(numbers, w_out + k * n_out + m)
        return y_dot

    @grid
    def slopes_dot(job, numbers, integers, steps):
        batch, n_out = job[BATCH], job[N_OUT]
        r, t = cuda.blockIdx.x // steps, cuda.blockIdx.x % steps
        me, threads = cuda.threadIdx.x, cuda.blockDim.x
        if numbers[at(job, ALPHA, r)] == 0:
            return
        weights, place = at(job, WEIGHTS, r) + t * batch, t * batch * n_out
        y, y_dot, both = at(job, Y, r) + place, at(job, Y_DOT, r) + place, at(job, Y_BOTH, r) + place
        for i in range(me, batch * n_out, threads):
            heard = numbers[weights + i // n_out] != 0
            numbers[both + i] = output(job, numbers, r, t, i // n_out, i % n_out) if heard else zero
            numbers[y_dot + i] = output_dot(job, numbers, r, t, i // n_out, i % n_out) if heard else zero
        cuda.syncthreads()
        for b in range(me, batch, threads):
            weight = numbers[weights + b]
            if weight != 0:
                at_class, at_value = at(job, CLASSES, r) + t * batch + b, at(job, TARGETS, r) + place + b * n_out
                bend(numbers, integers, n_out, at_class, at_value, both + b * n_out, y_dot + b * n_out)
                for i in range(b * n_out, (b + 1) * n_out):
                    numbers[y_dot + i] = weighed(weight, numbers[y_dot + i])
                    numbers[both + i] = numbers[y + i] + numbers[y_dot + i]

    return slopes_dot


def _build_bend(loss, dtype):
    """Build `bend(numbers, integers, n_out, at_class, at_value, y, y_dot)`: y_dot of a step to the tangent of dl/dy."""
    fold, slope_jvp, share = loss.fold, loss.slope_jvp, loss.share
    target, begin, zero = build_target(loss.classes, dtype), start_of(loss, dtype), dtype(0)

    @device_part
    def bend(numbers, integers, n_out, at_class, at_value, y, y_dot):
        accumulator, shared = begin, zero
        for m in range(n_out):
            accumulator = fold(accumulator, numbers[y + m], target(numbers, integers, at_class, at_value, m))
        for m in range(n_out):
            t_m = target(numbers, integers, at_class, at_value, m)
            shared += share(accumulator, numbers[y + m], t_m) * numbers[y_dot + m]
        for m in range(n_out):
            t_m = target(numbers, integers, at_class, at_value, m)
            numbers[y_dot + m] = slope_jvp(accumulator, numbers[y + m], t_m, numbers[y_dot + m], shared)

    return bend


def _build_complex_bend(loss, dtype):
    """Build the same for a loss without `slope_jvp`, by one complex step through `fold` and `slope`."""
    fold, slope, step = loss.fold, loss.slope, STEP
    target, begin = build_target(loss.classes, dtype), start_of(loss, np.complex128)

    @unit
    def moved(numbers, y, y_dot):
        return np.complex128(complex(numbers[y], step * numbers[y_dot]))

    @device_part
    def bend(numbers, integers, n_out, at_class, at_value, y, y_dot):
        accumulator = begin
        for m in range(n_out):
            t_m = target(numbers, integers, at_class, at_value, m)
            accumulator = fold(accumulator, moved(numbers, y + m, y_dot + m), t_m)
        for m in range(n_out):
            t_m = target(numbers, integers, at_class, at_value, m)
            numbers[y_dot + m] = dtype(slope(accumulator, moved(numbers, y + m, y_dot + m), t_m).imag / step)

    return bend
