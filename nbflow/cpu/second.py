"""The tangent of a back-propagation: what second derivatives are made of.

    delta_dot_t = J_t+1^T delta_dot_{t+1} + (the tangent of J_t+1^T) delta_{t+1} + (the tangent of dL/ds_t at step t)

`step_vjp_jvp` computes the first two terms, without what goes through w_rec, which is a matrix product. A direction
of the parameters adds products with w_rec_dot and w_out_dot. A weight gradient sum h e becomes sum h e_dot + w e
(`nbflow.cpu.tangent` says what the tangents w and u are). For Omega both are added to the gradient of the loss,
weighted by alpha from the start, so that h (e + e_dot) is one product; for a Hessian-vector product they stand alone.
"""

from __future__ import annotations

import functools

import numpy as np

from nbflow._compile import kernel, part
from nbflow.cpu.backward import add_loss, add_returned, recur_back
from nbflow.cpu.ends import write_inputs
from nbflow.cpu.gradient import segment_start
from nbflow.cpu.lines import build_constants, build_lines
from nbflow.cpu.memory import call, clear
from nbflow.cpu.product import outer
from nbflow.cpu.record import DETACHED, DIRECTION, EXACT, PARAMETERS, TOTAL
from nbflow.cpu.replica import build_add_up
from nbflow.cpu.subnormals import flush, restore
from nbflow.cpu.tangent import find_slopes_dot, move
from nbflow.cpu.views import at, flat_at, place, replicas, row, rows_at, shards, whole
from nbflow.cpu.weights import every_sequence, weights


@functools.cache
def build_step_vjp_jvp(cell, dtype):
    """Build the kernel of one pointwise pass back: e_dot takes the place of a_dot and is added to e."""
    step_vjp_jvp, additive, carries, kept = cell.step_vjp_jvp, cell.additive, cell.carries, len(cell.saved)
    gates, states, knobs = len(cell.gates), len(cell.states), len(cell.settings)
    lines = build_lines({"saved": kept, "old": states, "new": states, "delta": states, "entering": states,
                         "delta_dot": states, "pre_dot": gates, "rec_dot": 0 if additive else gates,
                         "before": states if carries else 0, "settings": knobs})  # fmt: skip
    load_saved, load_old, load_new, load_delta, load_entering, load_dot, *_ = (load for load, _ in lines.values())
    (load_pre, store_pre), (load_rec, store_rec) = lines["pre_dot"], lines["rec_dot"]
    _, store_before = lines["before"]
    constants = build_constants(knobs, lines["settings"][0])
    zeros = (np.zeros((), dtype)[()],) * len(cell.gates)
    shard_at = shards(dtype)

    @kernel(step_vjp_jvp, additive, carries, kept, knobs, dtype)
    def step_vjp_jvp_rows(address, t):
        shard = shard_at(address)
        rows, width = shard.rows, shard.width
        pre_dot, rec_dot, saved = at(shard, "pre_dot", t), at(shard, "rec_dot", t), at(shard, "saved", t)
        old, new, entering = at(shard, "states", t), at(shard, "states", t + 1), at(shard, "entering", t)
        delta, delta_dot, before = at(shard, "delta", t + 1), at(shard, "delta_dot", t + 1), at(shard, "delta_dot", t)
        settings = whole(shard, "settings")
        for b in range(rows):
            for j in range(width):
                a_rec_dot = zeros if additive else load_rec(rec_dot, b, j)
                e_dot, e_rec_dot, d_s = step_vjp_jvp(
                    load_saved(saved, b, j), load_old(old, b, j), load_new(new, b, j), load_delta(delta, b, j),
                    load_pre(pre_dot, b, j), a_rec_dot, load_entering(entering, b, j), load_dot(delta_dot, b, j),
                    *constants(settings, j),
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
    last_weight = whole(shard, "last_weight")
    for b in range(shard.rows):
        if last_weight[b] < t:
            clear(row(shard, "pre_dot", t - 1, b))
            clear(row(shard, "rec_dot", t - 1, b))
            clear(row(shard, "delta_dot", t - 1, b))


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
    add_loss(shard, rows_at(shard, "delta_dot", t), place(shard, "y_dot", t - 1, 0), PARAMETERS)
    if shard.directed:
        add_loss(shard, rows_at(shard, "delta_dot", t), place(shard, "y", t - 1, 0), DIRECTION)


@part
def recur_back_dot(shard, t):
    """Add to delta_dot_{t-1} what comes through w_rec."""
    before = rows_at(shard, "delta_dot", t - 1)
    recur_back(shard, before, place(shard, "rec_dot", t - 1, 0), PARAMETERS, shard.carries)
    if shard.directed:
        recur_back(shard, before, place(shard, "rec", t - 1, 0), DIRECTION, 1)


@part
def sweep_dot(shard, address, start, stop):
    """From delta_dot_stop to delta_dot_start, e to e + e_dot."""
    active = whole(shard, "active")
    if stop == shard.reach:
        clear(flat_at(shard, "delta_dot", stop))
    for t in range(stop, start, -1):
        if shard.below:
            add_returned(shard, rows_at(shard, "delta_dot", t), t)
        elif active[t - 1] and shard.derivative != DETACHED:
            add_loss_dot(shard, t)
        call(shard.step_vjp_jvp, address, t - 1)
        if t > shard.silent_after:
            silence_dot(shard, t)
        if t > 1:
            recur_back_dot(shard, t)
        merge(flat_at(shard, "pre", t - 1), flat_at(shard, "pre_dot", t - 1), shard.directed)
        if not shard.additive:
            merge(flat_at(shard, "rec", t - 1), flat_at(shard, "rec_dot", t - 1), shard.directed)


@part
def merge_outputs(shard, start, stop):
    """Let the tangent of dL/dy join it at the active steps: last of all, for dL/dy itself is needed before."""
    active = whole(shard, "active")
    for t in range(start, stop):
        if active[t]:
            merge(flat_at(shard, "y", t), flat_at(shard, "y_dot", t), shard.directed)


@part
def cross(shard, start, stop):
    """d_rec += sum w e, d_in += sum x_dot e, and d_out += sum u dL/dy, of the steps start .. stop-1."""
    outer(
        shard, place(shard, "d_rec", TOTAL, 0), place(shard, "entering", start, 0), shard.line,
        place(shard, "rec", start, 0), shard.columns, shard.hidden, (stop - start) * shard.rows, shard.columns, 1,
    )  # fmt: skip
    if shard.inputs_move:
        inputs = shard.n_in + 1
        outer(
            shard, place(shard, "d_in", TOTAL, 0), place(shard, "x_dot", start, 0), inputs,
            place(shard, "pre", start, 0), shard.columns, inputs, (stop - start) * shard.rows, shard.columns, 1,
        )  # fmt: skip
    if shard.derivative == DETACHED or shard.below:
        return
    active = whole(shard, "active")
    for t in range(start, stop):
        if active[t]:
            outer(
                shard, place(shard, "d_out", TOTAL, 0), place(shard, "states_dot", t + 1, 0), shard.line,
                place(shard, "y", t, 0), shard.out_width, shard.hidden, shard.rows, shard.out_width, 1,
            )  # fmt: skip


@part
def forward_dot(shard, address):
    """The tangents of all steps, and those of dL/dy."""
    if shard.derivative and shard.derivative != DETACHED:
        clear(flat_at(shard, "states_dot", 0))
    for t in range(shard.reach):
        move(shard, address, t)
    if shard.derivative != DETACHED and not shard.below:
        find_slopes_dot(shard, address)


@part
def loss_weights(shard):
    """The weight gradients of the loss alone, added in the order of `nbflow.cpu.gradient`."""
    stop = shard.reach
    while True:
        begin = segment_start(shard, 0, stop)
        weights(shard, every_sequence(shard, begin, stop), TOTAL, 0 if stop == shard.reach else 1)
        if begin == 0:
            return
        stop = begin


@part
def back_dot(shard, address):
    """The tangents of all steps back, and weight gradients by segments."""
    clear(at(shard, "partial", TOTAL))
    stop = shard.reach
    while True:
        begin = segment_start(shard, 0, stop)
        cross(shard, begin, stop)
        sweep_dot(shard, address, begin, stop)
        if shard.derivative != DETACHED and not shard.below:
            merge_outputs(shard, begin, stop)
        weights(shard, every_sequence(shard, begin, stop), TOTAL, 1)
        if begin == 0:
            return
        stop = begin


@functools.cache
def build_second(dtype):
    """Build the phase that follows a swept tape: tangents forward, tangents back, weight gradients by segments."""
    shard_at = shards(dtype)

    @kernel(dtype)
    def second(address, _):
        shard = shard_at(address)
        if shard.derivative and shard.flow_weight == 0:  # alpha = 0: the bits of a gradient without a flow
            loss_weights(shard)
            return
        forward_dot(shard, address)
        back_dot(shard, address)

    return second


# ------------------------------------------------------------------------- the same in a stack, layer by layer


@part
def take_inputs_dot(shard):
    """Take the tangents of the inputs from where the inputs were, which are on the tape."""
    for t in range(shard.reach):
        inputs, x_dot = at(shard, "inputs", t), at(shard, "x_dot", t)
        for b in range(shard.rows):
            for i in range(shard.n_in):
                x_dot[b, i] = inputs[b, i]


@part
def hand_on_dot(shard):
    """Hand the tangent of h on, in the place of h; 0 after the end."""
    for t in range(shard.steps):
        handed = at(shard, "handed", t)
        for b in range(shard.rows):
            for j in range(shard.hidden):
                handed[b, j] = 0
        if t < shard.reach:
            u = rows_at(shard, "states_dot", t + 1)
            for b in range(shard.rows):
                for j in range(shard.hidden):
                    handed[b, j] = u[b, j]


@functools.cache
def build_second_up(dtype):
    """Build the kernel of a layer's tangents forward, once all layers are swept."""
    shard_at = shards(dtype)

    @kernel(dtype)
    def second_up(address, _):
        shard = shard_at(address)
        if shard.alpha == 0:
            return
        before = flush()
        if shard.inputs_move:
            take_inputs_dot(shard)
        forward_dot(shard, address)
        if shard.below and shard.derivative == EXACT:
            hand_on_dot(shard)
        restore(before)

    return second_up


@functools.cache
def build_second_back(dtype, to_inputs):
    """Build the kernel of a layer's tangents back, and to its inputs: what the layer below adds to its own."""
    shard_at = shards(dtype)

    @kernel(dtype, to_inputs)
    def second_back(address, _):
        shard = shard_at(address)
        before = flush()
        if shard.alpha == 0:
            loss_weights(shard)
        else:
            back_dot(shard, address)
            if to_inputs:
                for t in range(shard.steps):
                    write_inputs(shard, t, 1, place(shard, "pre_dot", t, 0))
        restore(before)

    return second_back


@functools.cache
def build_weigh(dtype):
    """Build the kernel that gives the shards of a replica alpha over the count of Omega, or over B."""
    replica_at, add_up = replicas(dtype), build_add_up(dtype)

    @kernel(dtype)
    def weigh(address, piece):
        if piece > 0:
            return
        replica = replica_at(address)
        _, _, _, scale = add_up(replica)
        shards = whole(replica, "shards")
        for k in range(shards.size):
            shards[k].flow_weight = replica.alpha * scale

    return weigh


@functools.cache
def build_nothing(dtype):
    """Build the kernel that does nothing: what is packed already is not packed again."""

    @kernel(dtype)
    def nothing(address, _):
        return

    return nothing
