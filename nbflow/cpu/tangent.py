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
from nbflow.cpu.lines import build_lines
from nbflow.cpu.loss import outputs
from nbflow.cpu.memory import address_of, call, clear
from nbflow.cpu.product import times
from nbflow.cpu.record import DETACHED, DIRECTION, EXACT, PARAMETERS
from nbflow.cpu.views import at, of, place, row, shards

state_at, saved_at, entering_at, moved_at = at("states"), at("saved"), at("entering"), at("states_dot")
pre_dot_at, rec_dot_at, pre_dot_rows, rec_dot_rows = at("pre_dot"), at("rec_dot"), at("pre_dot", 2), at("rec_dot", 2)
pre_dot_numbers, pre_dot_row, y_dot_at = at("pre_dot", 1), row("pre_dot"), at("y_dot")
v_rows, u_rows, u_row, delta_rows = at("v", 2), at("states_dot", 2), row("states_dot"), at("delta", 2)
delta_norm_at, v_norm_at, flow_slope_at = at("delta_norm"), at("v_norm"), at("flow_slope")
tokens_at, x_at, active_of, length_of, y_again = at("tokens"), at("x"), of("active"), of("length"), of("y_again")
in_place, in_rows, rec_place, out_place = place("p_in"), at("p_rows", 2), place("p_rec"), place("p_out")
bias_rec_row, bias_row = at("p_bias_rec", 1), at("p_b_out")
state_place, entering_place, u_place = place("states"), place("entering"), place("states_dot")


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
    shard_at = shards(dtype)

    @kernel(step_jvp, additive, kept, dtype)
    def step_jvp_rows(address, t):
        shard = shard_at(address)
        rows, width = shard.rows, shard.width
        pre_dot, rec_dot, saved = pre_dot_at(shard, t), rec_dot_at(shard, t), saved_at(shard, t)
        old, new, entering, moved = (
            state_at(shard, t),
            state_at(shard, t + 1),
            entering_at(shard, t),
            moved_at(shard, t + 1),
        )
        for b in range(rows):
            for j in range(width):
                a_rec_dot = zeros if additive else load_rec(rec_dot, b, j)
                u = step_jvp(
                    load_saved(saved, b, j), load_old(old, b, j), load_new(new, b, j),
                    load_pre(pre_dot, b, j), a_rec_dot, load_entering(entering, b, j),
                )  # fmt: skip
                store_moved(moved, b, j, u)

    return step_jvp_rows


@part
def add_rows(rows, added):
    """Add the same row to each of an array's."""
    for b in range(rows.shape[0]):
        for j in range(added.size):
            rows[b, j] += added[j]


@part
def push_tokens(shard, t):
    """pre_dot[t] = w_in_dot[token] + bias_dot."""
    tokens, table, pre_dot = tokens_at(shard, t), in_rows(shard, DIRECTION), pre_dot_rows(shard, t)
    for b in range(shard.rows):
        token = tokens[b]
        for j in range(shard.columns):
            pre_dot[b, j] += table[token, j]
    add_rows(pre_dot, table[shard.n_in])


@part
def push_inputs(shard, t):
    """pre_dot[t] = x_t w_in_dot + bias_dot; 0 without a direction."""
    if shard.directed and not shard.takes_tokens:
        inputs = shard.n_in + 1
        times(
            shard, pre_dot_rows(shard, t), address_of(x_at(shard, t)), inputs,
            in_place(shard, DIRECTION, 0), inputs, shard.columns, 0,
        )  # fmt: skip
        return
    clear(pre_dot_numbers(shard, t))
    if shard.directed:
        push_tokens(shard, t)


@part
def push_recurrence(shard, t):
    """rec_dot[t] (+)= w_t w_rec + h_t w_rec_dot + bias_rec_dot."""
    rec_dot, h, columns = rec_dot_rows(shard, t), shard.hidden, shard.columns
    w_rec, w_rec_dot = rec_place(shard, PARAMETERS, 0), rec_place(shard, DIRECTION, 0)
    add = shard.additive * shard.directed
    times(shard, rec_dot, entering_place(shard, t, 0), shard.line, w_rec, h, columns, add)
    if shard.directed:
        times(shard, rec_dot, state_place(shard, t, 0), shard.line, w_rec_dot, h, columns, 1)
        if shard.bias_rec:
            add_rows(rec_dot, bias_rec_row(shard, DIRECTION))


@exact_part
def enter(shard, t):
    """Make g_{t+1}, and with "exact" u_t + g_{t+1}, of v_{t+1}; 0 where Omega does not count.

    The factors one after the other, as written: their product may overflow where v is small.
    """
    norms, slopes, v, weight = delta_norm_at(shard, t + 1), flow_slope_at(shard, t), v_rows(shard, t), shard.flow_weight
    for b in range(shard.rows):
        for j in range(shard.line):
            v[b, j] = v[b, j] / norms[b] * slopes[b] * weight if slopes[b] != 0 else norms.dtype.type(0)
    if shard.derivative == EXACT:
        u = u_rows(shard, t)
        for b in range(shard.rows):
            for j in range(shard.line):
                v[b, j] += u[b, j]


@exact_part
def push_state(shard, t):
    """u_t += c_t = -q flow_slope delta / ||delta||."""
    norms, v_norms, slopes = delta_norm_at(shard, t), v_norm_at(shard, t - 1), flow_slope_at(shard, t - 1)
    delta, u = delta_rows(shard, t), u_rows(shard, t)
    for b in range(shard.rows):
        if slopes[b] != 0:
            gain = v_norms[b] / norms[b]
            factor = gain * slopes[b] * gain * shard.flow_weight
            for j in range(shard.line):
                u[b, j] -= delta[b, j] / norms[b] * factor


@part
def clear_ended_dot(shard, t):
    """Set u_t of sequences that have ended to 0."""
    length = length_of(shard)
    for b in range(shard.rows):
        if length[b] < t:
            clear(u_row(shard, t, b))


@part
def move(shard, address, t):
    """The tangents of step t, from s_t to s_{t+1}."""
    if shard.derivative:
        enter(shard, t)
    if shard.directed or not shard.additive:
        push_inputs(shard, t)
    push_recurrence(shard, t)
    if shard.derivative == DETACHED:
        return
    call(shard.step_jvp, address, t)
    if shard.derivative:
        push_state(shard, t + 1)
    if t >= shard.shortest:
        clear_ended_dot(shard, t + 1)


@part
def outputs_dot(shard, t):
    """y_dot = u w_out + h w_out_dot + b_out_dot for the state after step t."""
    y_dot, h, columns = y_dot_at(shard, t), shard.hidden, shard.out_width
    w_out, w_out_dot = out_place(shard, PARAMETERS, 0), out_place(shard, DIRECTION, 0)
    times(shard, y_dot, u_place(shard, t + 1, 0), shard.line, w_out, h, columns, 0)
    if shard.directed:
        times(shard, y_dot, state_place(shard, t + 1, 0), shard.line, w_out_dot, h, columns, 1)
        add_rows(y_dot, bias_row(shard, DIRECTION))


@functools.cache
def build_tangent(dtype):
    """Build the phase that moves the states of a shard, from u_0 on."""
    shard_at = shards(dtype)

    @kernel(dtype)
    def tangent(address, _):
        shard = shard_at(address)
        for t in range(shard.reach):
            move(shard, address, t)

    return tangent


@functools.cache
def build_predictions_dot(dtype):
    """Build the phase of y_dot at every step."""
    shard_at = shards(dtype)

    @kernel(dtype)
    def predictions_dot(address, _):
        shard = shard_at(address)
        for t in range(shard.reach):
            outputs_dot(shard, t)

    return predictions_dot


@part
def find_slopes_dot(shard, address):
    """At every active step, from y_dot to the tangent of dL/dy.

    dL/dy has taken the place of y, so y is computed once more, into `y_again`.
    """
    active = active_of(shard)
    for t in range(shard.reach):
        if active[t]:
            outputs(shard, t, y_again(shard))
            outputs_dot(shard, t)
            call(shard.loss_jvp, address, t)
