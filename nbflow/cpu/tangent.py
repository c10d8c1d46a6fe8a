"""The tangent of a forward pass: how states and outputs move when parameters, inputs or states do.

    a_dot_t = w_t w_rec (+ h_t w_rec_dot + x_t w_in_dot + bias_dot),      u_{t+1} = step_jvp(a_dot_t, w_t) + push_{t+1}

u_t is the tangent of s_t as the output layer sees it, w_t as the next step sees it. They differ where
a push, a movement of s_t from outside, counts for one of the two alone. What moves:

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
from nbflow.cpu.lines import build_constants, build_lines
from nbflow.cpu.loss import outputs
from nbflow.cpu.memory import address_of, call, clear
from nbflow.cpu.product import times
from nbflow.cpu.record import DETACHED, DIRECTION, EXACT, PARAMETERS
from nbflow.cpu.views import at, flat_at, place, row, rows_at, shards, whole


@functools.cache
def build_step_jvp(cell, dtype):
    """Build the kernel of one pointwise pass: the tangents at a_in, a_rec and s_t to that of s_{t+1}."""
    step_jvp, additive, kept = cell.step_jvp, cell.additive, len(cell.saved)
    gates, states, knobs = len(cell.gates), len(cell.states), len(cell.settings)
    lines = build_lines({"saved": kept, "old": states, "new": states, "pre_dot": gates, "settings": knobs,
                         "rec_dot": 0 if additive else gates, "entering": states, "moved": states})  # fmt: skip
    load_saved, load_old, load_new, load_pre, load_settings, load_rec, load_entering, _ = (
        load for load, _ in lines.values()
    )
    _, store_moved = lines["moved"]
    constants = build_constants(knobs, load_settings)
    zeros = (np.zeros((), dtype)[()],) * len(cell.gates)
    shard_at = shards(dtype)

    @kernel(step_jvp, additive, kept, knobs, dtype)
    def step_jvp_rows(address, t):
        shard = shard_at(address)
        rows, width = shard.rows, shard.width
        pre_dot, rec_dot, saved = at(shard, "pre_dot", t), at(shard, "rec_dot", t), at(shard, "saved", t)
        old, new, entering, moved = (
            at(shard, "states", t),
            at(shard, "states", t + 1),
            at(shard, "entering", t),
            at(shard, "states_dot", t + 1),
        )
        settings = whole(shard, "settings")
        for b in range(rows):
            for j in range(width):
                a_rec_dot = zeros if additive else load_rec(rec_dot, b, j)
                u = step_jvp(
                    load_saved(saved, b, j), load_old(old, b, j), load_new(new, b, j),
                    load_pre(pre_dot, b, j), a_rec_dot, load_entering(entering, b, j),
                    *constants(settings, j),
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
    tokens, table, pre_dot = at(shard, "tokens", t), rows_at(shard, "p_rows", DIRECTION), rows_at(shard, "pre_dot", t)
    for b in range(shard.rows):
        token = tokens[b]
        for j in range(shard.columns):
            pre_dot[b, j] += table[token, j]
    add_rows(pre_dot, table[shard.n_in])


@part
def push_inputs(shard, t):
    """pre_dot[t] = x_t w_in_dot + bias_dot + x_dot_t w_in; 0 without a direction."""
    if shard.takes_tokens or not shard.directed:
        clear(flat_at(shard, "pre_dot", t))
    if shard.directed and shard.takes_tokens:
        push_tokens(shard, t)
    elif shard.directed:
        add_inputs(shard, t, address_of(at(shard, "x", t)), DIRECTION, 0)
    if shard.inputs_move:
        add_inputs(shard, t, place(shard, "x_dot", t, 0), PARAMETERS, 1)


@part
def add_inputs(shard, t, x, copy, add):
    """pre_dot[t] (+)= (x, 1) (w_in, bias), of the parameters or of their direction; `x` is an address."""
    inputs = shard.n_in + 1
    pre_dot, w_in = rows_at(shard, "pre_dot", t), place(shard, "p_in", copy, 0)
    times(shard, pre_dot, x, inputs, w_in, inputs, shard.columns, add)


@part
def push_recurrence(shard, t):
    """rec_dot[t] (+)= w_t w_rec + h_t w_rec_dot + bias_rec_dot."""
    rec_dot, h, columns = rows_at(shard, "rec_dot", t), shard.hidden, shard.columns
    w_rec, w_rec_dot = place(shard, "p_rec", PARAMETERS, 0), place(shard, "p_rec", DIRECTION, 0)
    add = shard.additive * max(shard.directed, shard.inputs_move)
    times(shard, rec_dot, place(shard, "entering", t, 0), shard.line, w_rec, h, columns, add)
    if shard.directed:
        times(shard, rec_dot, place(shard, "states", t, 0), shard.line, w_rec_dot, h, columns, 1)
        if shard.bias_rec:
            add_rows(rec_dot, flat_at(shard, "p_bias_rec", DIRECTION))


@exact_part
def enter(shard, t):
    """Make g_{t+1}, and with "exact" u_t + g_{t+1}, of v_{t+1}; 0 where Omega does not count.

    The factors one after the other, as written: their product may overflow where v is small.
    """
    norms, slopes = at(shard, "delta_norm", t + 1), at(shard, "flow_slope", t)
    v, weight = rows_at(shard, "v", t), shard.flow_weight
    for b in range(shard.rows):
        for j in range(shard.line):
            v[b, j] = v[b, j] / norms[b] * slopes[b] * weight if slopes[b] != 0 else norms.dtype.type(0)
    if shard.derivative == EXACT:
        u = rows_at(shard, "states_dot", t)
        for b in range(shard.rows):
            for j in range(shard.line):
                v[b, j] += u[b, j]


@exact_part
def push_state(shard, t):
    """u_t += c_t = -q flow_slope delta / ||delta||."""
    norms, v_norms, slopes = at(shard, "delta_norm", t), at(shard, "v_norm", t - 1), at(shard, "flow_slope", t - 1)
    delta, u = rows_at(shard, "delta", t), rows_at(shard, "states_dot", t)
    for b in range(shard.rows):
        if slopes[b] != 0:
            gain = v_norms[b] / norms[b]
            factor = gain * slopes[b] * gain * shard.flow_weight
            for j in range(shard.line):
                u[b, j] -= delta[b, j] / norms[b] * factor


@part
def clear_ended_dot(shard, t):
    """Set u_t of sequences that have ended to 0."""
    length = whole(shard, "length")
    for b in range(shard.rows):
        if length[b] < t:
            clear(row(shard, "states_dot", t, b))


@part
def move(shard, address, t):
    """The tangents of step t, from s_t to s_{t+1}."""
    if shard.derivative:
        enter(shard, t)
    if shard.directed or shard.inputs_move or not shard.additive:
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
    y_dot, h, columns = at(shard, "y_dot", t), shard.hidden, shard.out_width
    w_out, w_out_dot = place(shard, "p_out", PARAMETERS, 0), place(shard, "p_out", DIRECTION, 0)
    times(shard, y_dot, place(shard, "states_dot", t + 1, 0), shard.line, w_out, h, columns, 0)
    if shard.directed:
        times(shard, y_dot, place(shard, "states", t + 1, 0), shard.line, w_out_dot, h, columns, 1)
        add_rows(y_dot, at(shard, "p_b_out", DIRECTION))


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
    active = whole(shard, "active")
    for t in range(shard.reach):
        if active[t]:
            outputs(shard, t, whole(shard, "y_again"))
            outputs_dot(shard, t)
            call(shard.loss_jvp, address, t)
