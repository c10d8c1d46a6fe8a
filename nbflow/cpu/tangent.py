"""The tangent of a forward pass: how states and outputs move when something is pushed.

    a_dot_t = w_t w_rec (+ h_t w_rec_dot + x_t w_in_dot + bias_dot),      u_{t+1} = step_jvp(a_dot_t, w_t) + push_{t+1}

u_t is the tangent of s_t as the output layer sees it, w_t as the next step sees it. What is pushed:

- the parameters along a direction, the first state along u_0: w = u, no other push (`nbflow.jvp`, `nbflow.hvp`);
- the states, by the slopes of Omega. Since delta_t = dL/ds_t and v_t is the same without the loss of its own step,

      dOmega/dtheta = sum_t c_t . d(delta_t)/dtheta + g_t . d(v_t)/dtheta,   c_t = dOmega/ddelta_t, g_t = dOmega/dv_t

  is the derivative of dL/dtheta along a push of s_t by c_t, and by g_{t+1} for the next step alone: "exact". With
  w_t = g_{t+1} alone and nothing handed on, delta stays constant: "detached".

So one tangent forward and one tangent back (`nbflow.cpu.second`) make every second derivative: Pearlmutter 1994.
"""

from __future__ import annotations

import functools

import numpy as np

from nbflow._compile import exact_part, kernel, part
from nbflow.cpu.job import DETACHED, EXACT, job_dtype
from nbflow.cpu.lines import build_lines
from nbflow.cpu.loss import build_outputs
from nbflow.cpu.memory import call, call_product, clear, view
from nbflow.cpu.product import lanes, panel_vectors


@functools.cache
def build_step_jvp(cell, dtype):
    """Build the kernel of one pointwise pass: the tangents at a_in, a_rec and s_t to that of s_{t+1}."""
    step_jvp, additive, kept = cell.step_jvp, cell.additive, len(cell.saved)
    gates, states = len(cell.gates), len(cell.states)
    lines = build_lines({"saved": kept, "old": states, "new": states, "pre_dot": gates,
                         "rec_dot": 0 if additive else gates, "entering": states, "moved": states})  # fmt: skip
    load_saved, load_old, load_new, load_pre, load_rec, load_entering, _ = (load for load, _ in lines.values())
    _, store_moved = lines["moved"]
    zeros = (np.zeros((), dtype)[()],) * len(cell.gates)
    record = job_dtype(dtype)
    size = np.dtype(dtype).itemsize

    @kernel(step_jvp, additive, kept, dtype)
    def step_jvp_rows(address, t):
        job = view(address, (1,), record)[0]
        rows, width = job.rows, job.width
        block = rows * job.lines * width * size
        pre_dot = view(job.pre_dot + t * rows * job.gates * width * size, (rows, job.gates, width), dtype)
        rec_dot = view(job.rec_dot + t * rows * job.gates * width * size, (rows, job.gates, width), dtype)
        old = view(job.states + t * block, (rows, job.lines, width), dtype)
        new = view(job.states + (t + 1) * block, (rows, job.lines, width), dtype)
        saved = view(job.saved + t * rows * kept * width * size, (rows, kept, width), dtype)
        entering = view(job.entering + t * block, (rows, job.lines, width), dtype)
        moved = view(job.states_dot + (t + 1) * block, (rows, job.lines, width), dtype)
        for b in range(rows):
            for j in range(width):
                a_rec_dot = zeros if additive else load_rec(rec_dot, b, j)
                u = step_jvp(
                    load_saved(saved, b, j), load_old(old, b, j), load_new(new, b, j),
                    load_pre(pre_dot, b, j), a_rec_dot, load_entering(entering, b, j),
                )  # fmt: skip
                store_moved(moved, b, j, u)

    return step_jvp_rows


@functools.cache
def build_move(dtype):
    """Build `move(job, address, t)`: the tangents of step t, from s_t to s_{t+1}."""
    width_of_panel = panel_vectors() * lanes(dtype)
    size = np.dtype(dtype).itemsize

    @part
    def add_row(to, row, rows, columns):
        added = view(row, (columns,), dtype)
        for b in range(rows):
            place = view(to + b * columns * size, (columns,), dtype)
            for j in range(columns):
                place[j] += added[j]

    @part
    def push_inputs(job, t):
        """pre_dot[t] = x_t w_in_dot + bias_dot; 0 without a direction."""
        columns, n = job.gates * job.width, job.n_in
        to = job.pre_dot + t * job.rows * columns * size
        if not job.directed:
            clear(to, job.rows * columns, dtype)
        elif job.tokens:
            clear(to, job.rows * columns, dtype)
            tokens = view(job.inputs + t * job.batch * 4, (job.rows,), np.int32)
            for b in range(job.rows):
                add_row(to + b * columns * size, job.q_in + tokens[b] * columns * size, 1, columns)
            add_row(to, job.q_in + n * columns * size, job.rows, columns)
        else:
            call_product(
                job.product, to, columns, job.x + t * job.rows * (n + 1) * size, n + 1, 1,
                job.q_in, (n + 1) * width_of_panel, width_of_panel, job.rows, n + 1, columns, 0,
            )  # fmt: skip

    @part
    def push_recurrence(job, t):
        """rec_dot[t] (+)= w_t w_rec + h_t w_rec_dot + bias_rec_dot."""
        columns, row = job.gates * job.width, job.lines * job.width
        to = job.rec_dot + t * job.rows * columns * size
        panel = job.hidden * width_of_panel
        call_product(
            job.product, to, columns, job.entering + t * job.rows * row * size, row, 1,
            job.p_rec, panel, width_of_panel, job.rows, job.hidden, columns, job.additive * job.directed,
        )  # fmt: skip
        if job.directed:
            call_product(
                job.product, to, columns, job.states + t * job.rows * row * size, row, 1,
                job.q_rec, panel, width_of_panel, job.rows, job.hidden, columns, 1,
            )  # fmt: skip
            if job.bias_rec:
                add_row(to, job.q_bias_rec, job.rows, columns)

    @exact_part
    def enter(job, t):
        """Make g_{t+1}, and with "exact" u_t + g_{t+1}, of v_{t+1}; 0 where Omega does not count.

        The factors one after the other, as written: their product may overflow where v is small.
        """
        row = job.lines * job.width
        norms = view(job.delta_norm + (t + 1) * job.rows * size, (job.rows,), dtype)
        slopes = view(job.flow_slope + t * job.rows * size, (job.rows,), dtype)
        v = view(job.v + t * job.rows * row * size, (job.rows, row), dtype)
        u = view(job.states_dot + t * job.rows * row * size, (job.rows, row), dtype)
        for b in range(job.rows):
            for j in range(row):
                pushed = v[b, j] / norms[b] * slopes[b] * job.flow_weight if slopes[b] != 0 else dtype(0)
                v[b, j] = pushed + u[b, j] if job.derivative == EXACT else pushed

    @exact_part
    def push_state(job, t):
        """u_t += c_t = -q flow_slope delta / ||delta||."""
        row = job.lines * job.width
        norms = view(job.delta_norm + t * job.rows * size, (job.rows,), dtype)
        v_norms = view(job.v_norm + (t - 1) * job.rows * size, (job.rows,), dtype)
        slopes = view(job.flow_slope + (t - 1) * job.rows * size, (job.rows,), dtype)
        delta = view(job.delta + t * job.rows * row * size, (job.rows, row), dtype)
        u = view(job.states_dot + t * job.rows * row * size, (job.rows, row), dtype)
        for b in range(job.rows):
            if slopes[b] != 0:
                gain = v_norms[b] / norms[b]
                factor = gain * slopes[b] * gain * job.flow_weight
                for j in range(row):
                    u[b, j] -= delta[b, j] / norms[b] * factor

    @part
    def rest(job, t):
        """Set the tangent of sequences that have ended to 0."""
        row = job.lines * job.width
        u = view(job.states_dot + t * job.rows * row * size, (job.rows, row), dtype)
        last = view(job.last, (job.rows,), np.int64)
        for b in range(job.rows):
            if last[b] < t:
                for j in range(row):
                    u[b, j] = 0

    @part
    def move(job, address, t):
        if job.derivative:
            enter(job, t)
        if job.directed or not job.additive:
            push_inputs(job, t)
        push_recurrence(job, t)
        if job.derivative == DETACHED:
            return
        call(job.step_jvp, address, t)
        if job.derivative:
            push_state(job, t + 1)
        if t >= job.shortest:
            rest(job, t + 1)

    return move


@functools.cache
def build_outputs_dot(dtype):
    """Build `outputs_dot(job, t)`: y_dot = u w_out + h w_out_dot + b_out_dot for the state after step t."""
    width_of_panel = panel_vectors() * lanes(dtype)
    size = np.dtype(dtype).itemsize

    @part
    def outputs_dot(job, t):
        row, place = job.lines * job.width, (t + 1) * job.rows * job.lines * job.width * size
        to = job.y_dot + t * job.rows * job.out_width * size
        panel = job.hidden * width_of_panel
        call_product(
            job.product, to, job.out_width, job.states_dot + place, row, 1,
            job.p_out, panel, width_of_panel, job.rows, job.hidden, job.out_width, 0,
        )  # fmt: skip
        if job.directed:
            call_product(
                job.product, to, job.out_width, job.states + place, row, 1,
                job.q_out, panel, width_of_panel, job.rows, job.hidden, job.out_width, 1,
            )  # fmt: skip
            y_dot = view(to, (job.rows, job.out_width), dtype)
            bias = view(job.q_b_out, (job.out_width,), dtype)
            for b in range(job.rows):
                for m in range(job.out_width):
                    y_dot[b, m] += bias[m]

    return outputs_dot


@functools.cache
def build_tangent(dtype):
    """Build the phase that moves the states of a shard, from u_0 on."""
    move = build_move(dtype)
    record = job_dtype(dtype)

    @kernel(dtype)
    def tangent(address, _):
        job = view(address, (1,), record)[0]
        for t in range(job.reach):
            move(job, address, t)

    return tangent


@functools.cache
def build_predictions_dot(dtype):
    """Build the phase of y_dot at every step."""
    outputs_dot = build_outputs_dot(dtype)
    record = job_dtype(dtype)

    @kernel(dtype)
    def predictions_dot(address, _):
        job = view(address, (1,), record)[0]
        for t in range(job.reach):
            outputs_dot(job, t)

    return predictions_dot


@functools.cache
def build_listen_dot(dtype):
    """Build `listen_dot(job, address)`: at every active step, from y_dot to the tangent of dL/dy.

    dL/dy has taken the place of y, so y is computed once more, into `y_again`.
    """
    outputs, outputs_dot = build_outputs(dtype), build_outputs_dot(dtype)

    @part
    def listen_dot(job, address):
        active = view(job.active, (job.steps,), np.int64)
        for t in range(job.reach):
            if active[t]:
                outputs(job, t, job.y_again)
                outputs_dot(job, t)
                call(job.loss_jvp, address, t)

    return listen_dot
