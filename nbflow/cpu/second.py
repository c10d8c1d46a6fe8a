"""The tangent of a back-propagation: what second derivatives are made of.

    delta_dot_t = J_t+1^T delta_dot_{t+1} + (the tangent of J_t+1^T) delta_{t+1} + (the tangent of dL/ds_t at step t)

`step_vjp_jvp` holds the last but one of these, w_rec_dot what a direction of the parameters adds. A weight gradient
sum h e becomes sum h e_dot + w e (`nbflow.cpu.tangent` tells u, w and what is pushed). For Omega both are added to the
gradient of the loss, weighted by alpha from the start, so that h (e + e_dot) is one product; for a Hessian-vector
product they stand alone.
"""

from __future__ import annotations

import functools

import numpy as np

from nbflow._compile import kernel, part
from nbflow.cpu.backward import build_products_back
from nbflow.cpu.job import DETACHED, job_dtype
from nbflow.cpu.lines import build_lines
from nbflow.cpu.memory import call, call_product, clear, view
from nbflow.cpu.product import lanes, panel_vectors
from nbflow.cpu.rules import divisor
from nbflow.cpu.tangent import build_listen_dot, build_move
from nbflow.cpu.weights import Span, build_weights, place_of


@functools.cache
def build_step_vjp_jvp(cell, dtype):
    """Build the kernel of one pointwise pass back: e_dot takes the place of a_dot and is added to e."""
    step_vjp_jvp, additive, carries, kept = cell.step_vjp_jvp, cell.additive, cell.carries, len(cell.saved)
    gates, states = len(cell.gates), len(cell.states)
    lines = build_lines({"saved": kept, "old": states, "new": states, "delta": states, "entering": states,
                         "delta_dot": states, "pre_dot": gates, "rec_dot": 0 if additive else gates,
                         "before": states if carries else 0})  # fmt: skip
    load_saved, load_old, load_new, load_delta, load_entering, load_dot, *_ = (load for load, _ in lines.values())
    (load_pre, store_pre), (load_rec, store_rec) = lines["pre_dot"], lines["rec_dot"]
    _, store_before = lines["before"]
    zeros = (np.zeros((), dtype)[()],) * len(cell.gates)
    record = job_dtype(dtype)
    size = np.dtype(dtype).itemsize

    @kernel(step_vjp_jvp, additive, carries, kept, dtype)
    def step_vjp_jvp_rows(address, t):
        job = view(address, (1,), record)[0]
        rows, width = job.rows, job.width
        block, columns = rows * job.lines * width * size, rows * job.gates * width * size
        pre_dot = view(job.pre_dot + t * columns, (rows, job.gates, width), dtype)
        rec_dot = view(job.rec_dot + t * columns, (rows, job.gates, width), dtype)
        old = view(job.states + t * block, (rows, job.lines, width), dtype)
        new = view(job.states + (t + 1) * block, (rows, job.lines, width), dtype)
        saved = view(job.saved + t * rows * kept * width * size, (rows, kept, width), dtype)
        entering = view(job.entering + t * block, (rows, job.lines, width), dtype)
        delta = view(job.delta + (t + 1) % job.slots * block, (rows, job.lines, width), dtype)
        delta_dot = view(job.delta_dot + (t + 1) % 2 * block, (rows, job.lines, width), dtype)
        before = view(job.delta_dot + t % 2 * block, (rows, job.lines, width), dtype)
        for b in range(rows):
            for j in range(width):
                a_rec_dot = zeros if additive else load_rec(rec_dot, b, j)
                e_dot, e_rec_dot, d_s = step_vjp_jvp(
                    load_saved(saved, b, j), load_old(old, b, j), load_new(new, b, j), load_delta(delta, b, j),
                    load_pre(pre_dot, b, j), a_rec_dot, load_entering(entering, b, j), load_dot(delta_dot, b, j),
                )  # fmt: skip
                store_pre(pre_dot, b, j, e_dot)
                if not additive:
                    store_rec(rec_dot, b, j, e_rec_dot)
                if carries:
                    store_before(before, b, j, d_s)

    return step_vjp_jvp_rows


@functools.cache
def build_sweep_dot(dtype):
    """Build `sweep_dot(job, address, start, stop)`: from delta_dot_stop to delta_dot_start, e to e + e_dot."""
    add_loss, recur_back = build_products_back(dtype)
    size = np.dtype(dtype).itemsize

    @part
    def slot(job, t):
        """The address of delta_dot_t."""
        return job.delta_dot + t % 2 * job.rows * job.lines * job.width * size

    @part
    def silence_dot(job, t):
        """Set the tangents at step t-1 to 0 for sequences that nobody listens to from there on."""
        row, columns = job.lines * job.width, job.gates * job.width
        heard = view(job.heard, (job.rows,), np.int64)
        for b in range(job.rows):
            if heard[b] < t:
                place = (t - 1) * job.rows + b
                clear(job.pre_dot + place * columns * size, columns, dtype)
                clear(job.rec_dot + place * columns * size, columns, dtype)
                clear(slot(job, t - 1) + b * row * size, row, dtype)

    @part
    def merge(to, source, count, alone):
        """Add numbers to those at `to`, or put them there."""
        place, numbers = view(to, (count,), dtype), view(source, (count,), dtype)
        if alone:
            for i in range(count):
                place[i] = numbers[i]
        else:
            for i in range(count):
                place[i] += numbers[i]

    @part
    def sweep_dot(job, address, start, stop):
        row, columns = job.lines * job.width, job.rows * job.gates * job.width
        active = view(job.active, (job.steps,), np.int64)
        if stop == job.reach:
            clear(slot(job, stop), job.rows * row, dtype)
        for t in range(stop, start, -1):
            place = (t - 1) * columns * size
            if active[t - 1] and job.derivative != DETACHED:
                add_loss(job, t, slot(job, t), job.y_dot, job.p_out_back)
                if job.directed:
                    add_loss(job, t, slot(job, t), job.y, job.q_out_back)
            call(job.step_vjp_jvp, address, t - 1)
            if t > job.quiet:
                silence_dot(job, t)
            if t > 1:
                recur_back(job, t, slot(job, t - 1), job.rec_dot, job.p_rec_back, job.carries)
                if job.directed:
                    recur_back(job, t, slot(job, t - 1), job.rec, job.q_rec_back, 1)
            merge(job.pre + place, job.pre_dot + place, columns, job.directed)
            if not job.additive:
                merge(job.rec + place, job.rec_dot + place, columns, job.directed)

    @part
    def merge_outputs(job, start, stop):
        """Let the tangent of dL/dy join it at the active steps: last of all, for dL/dy itself is needed before."""
        active = view(job.active, (job.steps,), np.int64)
        count = job.rows * job.out_width
        for t in range(start, stop):
            if active[t]:
                merge(job.y + t * count * size, job.y_dot + t * count * size, count, job.directed)

    return sweep_dot, merge_outputs


@functools.cache
def build_cross(dtype):
    """Build `cross(job, start, stop)`: d_rec += sum w e, and d_out += sum u dL/dy, of the steps start .. stop-1."""
    width_of_panel = panel_vectors() * lanes(dtype)
    size = np.dtype(dtype).itemsize

    @part
    def cross(job, start, stop):
        columns, line, row = job.gates * job.width, job.lines * job.width, start * job.rows
        call_product(
            job.product, job.d_rec, columns, job.entering + row * line * size, 1, line,
            job.rec + row * columns * size, width_of_panel, columns,
            job.hidden, (stop - start) * job.rows, columns, 1,
        )  # fmt: skip
        if job.derivative == DETACHED:
            return
        active = view(job.active, (job.steps,), np.int64)
        for t in range(start, stop):
            if active[t]:
                call_product(
                    job.product, job.d_out, job.out_width, job.states_dot + (t + 1) * job.rows * line * size, 1, line,
                    job.y + t * job.rows * job.out_width * size, width_of_panel, job.out_width,
                    job.hidden, job.rows, job.out_width, 1,
                )  # fmt: skip

    return cross


@functools.cache
def build_second(dtype):
    """Build the phase that follows a swept tape: tangents forward, tangents back, weight gradients by segments."""
    move, listen_dot = build_move(dtype), build_listen_dot(dtype)
    (sweep_dot, merge_outputs), cross, weights = build_sweep_dot(dtype), build_cross(dtype), build_weights(dtype)
    record = job_dtype(dtype)

    @part
    def forward_dot(job, address):
        if job.derivative:
            clear(job.states_dot, job.rows * job.lines * job.width * int(job.derivative != DETACHED), dtype)
        for t in range(job.reach):
            move(job, address, t)
        if job.derivative != DETACHED:
            listen_dot(job, address)

    @part
    def clear_sums(job):
        columns = job.gates * job.width
        clear(job.d_in, (job.n_in + 1) * columns, dtype)
        clear(job.d_rec, job.hidden * columns, dtype)
        if job.bias_rec:
            clear(job.d_bias_rec, columns, dtype)
        clear(job.d_out, job.hidden * job.out_width, dtype)
        clear(job.d_b_out, job.out_width, dtype)

    @part
    def plain(job):
        """The weight gradients of the loss alone, added in the order of `nbflow.cpu.gradient`."""
        stop = job.reach
        while True:
            begin = max(0, (stop - 1) // job.segment * job.segment)
            weights(job, Span(begin, stop, 0, job.rows, 1), place_of(job), 0 if stop == job.reach else 1)
            if begin == 0:
                return
            stop = begin

    @kernel(dtype)
    def second(address, _):
        job = view(address, (1,), record)[0]
        if job.derivative and job.flow_weight == 0:  # alpha = 0: the bits of a gradient without a flow
            plain(job)
            return
        forward_dot(job, address)
        clear_sums(job)
        stop = job.reach
        while True:
            begin = max(0, (stop - 1) // job.segment * job.segment)
            cross(job, begin, stop)
            sweep_dot(job, address, begin, stop)
            if job.derivative != DETACHED:
                merge_outputs(job, begin, stop)
            weights(job, Span(begin, stop, 0, job.rows, 1), place_of(job), 1)
            if begin == 0:
                return
            stop = begin

    return second


@functools.cache
def build_weigh(dtype):
    """Build the kernel that gives the shards of a replica alpha over the count of Omega, or over B."""
    record = job_dtype(dtype)

    @kernel(dtype)
    def weigh(address, piece):
        if piece > 0:
            return
        job = view(address, (1,), record)[0]
        shards = view(job.shards, (job.shard_count,), record)
        count = dtype(0)
        for k in range(job.shard_count):
            count += view(shards[k].sums, (3,), dtype)[2]
        scale = dtype(1) / divisor(count, dtype(job.batch), job.mean_flow)
        for k in range(job.shard_count):
            shards[k].flow_weight = job.alpha * scale

    return weigh


@functools.cache
def build_nothing(dtype):
    """Build the kernel that does nothing: what is packed already is not packed again."""

    @kernel(dtype)
    def nothing(address, _):
        return

    return nothing
