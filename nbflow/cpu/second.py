"""The tangent of a back-propagation: what second derivatives are made of.

    delta_dot_t = J_t+1^T delta_dot_{t+1} + (the tangent of J_t+1^T) delta_{t+1} + (the tangent of dL/ds_t at step t)

`step_vjp_jvp` computes the first two terms, but for what goes through w_rec: that is a product. A direction of the
parameters adds products with w_rec_dot and w_out_dot. A weight gradient sum h e becomes sum h e_dot + w e
(`nbflow.cpu.tangent` tells u, w and what is pushed). For Omega both are added to the gradient of the loss, weighted by
alpha from the start, so that h (e + e_dot) is one product; for a Hessian-vector product they stand alone.
"""

from __future__ import annotations

import functools

import numpy as np

from nbflow._compile import kernel, part
from nbflow.cpu.backward import add_loss, recur_back
from nbflow.cpu.gradient import segment_start
from nbflow.cpu.lines import build_lines
from nbflow.cpu.memory import address_of, call, clear
from nbflow.cpu.product import outer
from nbflow.cpu.record import DETACHED, DIRECTION, PARAMETERS, TOTAL
from nbflow.cpu.replica import build_add_up, build_omega_scale, build_shard_of
from nbflow.cpu.tangent import find_slopes_dot, move
from nbflow.cpu.views import at, of, place, replicas, row, shards
from nbflow.cpu.weights import build_weights, every_sequence

state_at, saved_at, entering_at, delta_at = at("states"), at("saved"), at("entering"), at("delta")
pre_dot_at, rec_dot_at, delta_dot_at, delta_dot_rows = at("pre_dot"), at("rec_dot"), at("delta_dot"), at("delta_dot", 2)
pre_dot_row, rec_dot_row, delta_dot_row = row("pre_dot"), row("rec_dot"), row("delta_dot")
pre_numbers, rec_numbers, y_numbers = at("pre", 1), at("rec", 1), at("y", 1)
pre_dot_numbers, rec_dot_numbers, y_dot_numbers = at("pre_dot", 1), at("rec_dot", 1), at("y_dot", 1)
delta_dot_numbers, u_numbers = at("delta_dot", 1), at("states_dot", 1)
y_place, y_dot_place, rec_place, rec_dot_place = place("y"), place("y_dot"), place("rec", 3), place("rec_dot", 3)
entering_place, u_place, partial_at = place("entering"), place("states_dot"), at("partial")
d_rec_of, d_out_of = at("d_rec", 1), at("d_out", 1)
active_of, last_weight_of, sums_of = of("active"), of("last_weight"), of("sums")


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
    shard_at = shards(dtype)

    @kernel(step_vjp_jvp, additive, carries, kept, dtype)
    def step_vjp_jvp_rows(address, t):
        shard = shard_at(address)
        rows, width = shard.rows, shard.width
        pre_dot, rec_dot, saved = pre_dot_at(shard, t), rec_dot_at(shard, t), saved_at(shard, t)
        old, new, entering = state_at(shard, t), state_at(shard, t + 1), entering_at(shard, t)
        delta, delta_dot, before = delta_at(shard, t + 1), delta_dot_at(shard, t + 1), delta_dot_at(shard, t)
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


@part
def silence_dot(shard, t):
    """Set the tangents at step t-1 to 0 for sequences that have no weight from step t on."""
    last_weight = last_weight_of(shard)
    for b in range(shard.rows):
        if last_weight[b] < t:
            clear(pre_dot_row(shard, t - 1, b))
            clear(rec_dot_row(shard, t - 1, b))
            clear(delta_dot_row(shard, t - 1, b))


@part
def merge(place, numbers, alone):
    """Add numbers to those in place, or put them there."""
    if alone:
        for i in range(place.size):
            place[i] = numbers[i]
    else:
        for i in range(place.size):
            place[i] += numbers[i]


@part
def add_loss_dot(shard, t):
    """Add to delta_dot_t what comes from the loss of its own step."""
    add_loss(shard, delta_dot_rows(shard, t), y_dot_place(shard, t - 1, 0), PARAMETERS)
    if shard.directed:
        add_loss(shard, delta_dot_rows(shard, t), y_place(shard, t - 1, 0), DIRECTION)


@part
def recur_back_dot(shard, t):
    """Add to delta_dot_{t-1} what comes through w_rec."""
    before = delta_dot_rows(shard, t - 1)
    recur_back(shard, before, rec_dot_place, t - 1, PARAMETERS, shard.carries)
    if shard.directed:
        recur_back(shard, before, rec_place, t - 1, DIRECTION, 1)


@part
def sweep_dot(shard, address, start, stop):
    """From delta_dot_stop to delta_dot_start, e to e + e_dot."""
    active = active_of(shard)
    if stop == shard.reach:
        clear(delta_dot_numbers(shard, stop))
    for t in range(stop, start, -1):
        if active[t - 1] and shard.derivative != DETACHED:
            add_loss_dot(shard, t)
        call(shard.step_vjp_jvp, address, t - 1)
        if t > shard.silent_after:
            silence_dot(shard, t)
        if t > 1:
            recur_back_dot(shard, t)
        merge(pre_numbers(shard, t - 1), pre_dot_numbers(shard, t - 1), shard.directed)
        if not shard.additive:
            merge(rec_numbers(shard, t - 1), rec_dot_numbers(shard, t - 1), shard.directed)


@part
def merge_outputs(shard, start, stop):
    """Let the tangent of dL/dy join it at the active steps: last of all, for dL/dy itself is needed before."""
    active = active_of(shard)
    for t in range(start, stop):
        if active[t]:
            merge(y_numbers(shard, t), y_dot_numbers(shard, t), shard.directed)


@part
def cross(shard, start, stop):
    """d_rec += sum w e, and d_out += sum u dL/dy, of the steps start .. stop-1."""
    outer(
        shard, address_of(d_rec_of(shard, TOTAL)), entering_place(shard, start, 0), shard.line,
        rec_place(shard, start, 0, 0), shard.columns, shard.hidden, (stop - start) * shard.rows, shard.columns, 1,
    )  # fmt: skip
    if shard.derivative == DETACHED:
        return
    active = active_of(shard)
    for t in range(start, stop):
        if active[t]:
            outer(
                shard, address_of(d_out_of(shard, TOTAL)), u_place(shard, t + 1, 0), shard.line,
                y_place(shard, t, 0), shard.out_width, shard.hidden, shard.rows, shard.out_width, 1,
            )  # fmt: skip


@part
def forward_dot(shard, address):
    """The tangents of all steps, and those of dL/dy."""
    if shard.derivative and shard.derivative != DETACHED:
        clear(u_numbers(shard, 0))
    for t in range(shard.reach):
        move(shard, address, t)
    if shard.derivative != DETACHED:
        find_slopes_dot(shard, address)


@functools.cache
def build_second(dtype):
    """Build the phase that follows a swept tape: tangents forward, tangents back, weight gradients by segments."""
    weights, shard_at = build_weights(dtype), shards(dtype)

    @part
    def plain(shard):
        """The weight gradients of the loss alone, added in the order of `nbflow.cpu.gradient`."""
        stop = shard.reach
        while True:
            begin = segment_start(shard, 0, stop)
            weights(shard, every_sequence(shard, begin, stop), TOTAL, 0 if stop == shard.reach else 1)
            if begin == 0:
                return
            stop = begin

    @kernel(dtype)
    def second(address, _):
        shard = shard_at(address)
        if shard.derivative and shard.flow_weight == 0:  # alpha = 0: the bits of a gradient without a flow
            plain(shard)
            return
        forward_dot(shard, address)
        clear(partial_at(shard, TOTAL))
        stop = shard.reach
        while True:
            begin = segment_start(shard, 0, stop)
            cross(shard, begin, stop)
            sweep_dot(shard, address, begin, stop)
            if shard.derivative != DETACHED:
                merge_outputs(shard, begin, stop)
            weights(shard, every_sequence(shard, begin, stop), TOTAL, 1)
            if begin == 0:
                return
            stop = begin

    return second


@functools.cache
def build_weigh(dtype):
    """Build the kernel that gives the shards of a replica alpha over the count of Omega, or over B."""
    replica_at, shard_of = replicas(dtype), build_shard_of(dtype)
    add_up, omega_scale = build_add_up(dtype), build_omega_scale(dtype)

    @kernel(dtype)
    def weigh(address, piece):
        if piece > 0:
            return
        replica = replica_at(address)
        _, _, count = add_up(replica)
        weight = replica.alpha * omega_scale(replica, count)
        for k in range(replica.shard_count):
            shard_of(replica, k).flow_weight = weight

    return weigh


@functools.cache
def build_nothing(dtype):
    """Build the kernel that does nothing: what is packed already is not packed again."""

    @kernel(dtype)
    def nothing(address, _):
        return

    return nothing
