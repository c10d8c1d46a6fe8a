"""Back-propagation through time of a shard: delta_t = dL/ds_t from the last step to the first.

    delta_t = v_{t+1} + (dL/ds_t at step t),      v_t = J_t^T delta_t

(Goodfellow et al. 2016, eq. 10.18-10.19.) The gradients at the pre-activations take the place of the
pre-activations, so that a weight gradient is one matrix product over the whole tape (`nbflow.cpu.weights`).
"""

from __future__ import annotations

import functools

from nbflow._compile import kernel, part
from nbflow.cpu.h_detach import detached
from nbflow.cpu.hidden_clip import PREACTIVATION, STATE, build_hidden_clip
from nbflow.cpu.lines import build_constants, build_lines
from nbflow.cpu.memory import call, clear
from nbflow.cpu.norm import build_row_norms
from nbflow.cpu.product import times
from nbflow.cpu.record import PARAMETERS
from nbflow.cpu.views import at, flat, flat_at, place, row, rows_at, shards, whole


@functools.cache
def build_step_vjp(cell, dtype):
    """Build the kernel of one pointwise pass back: delta_{t+1} to e_t, and to what J carries past a_rec."""
    step_vjp, additive, carries, kept = cell.step_vjp, cell.additive, cell.carries, len(cell.saved)
    gates, states, knobs = len(cell.gates), len(cell.states), len(cell.settings)
    lines = build_lines({"pre": gates, "rec": 0 if additive else gates, "old": states, "new": states, "saved": kept,
                         "delta": states, "before": states if carries else 0, "settings": knobs})  # fmt: skip
    (_, store_pre), (_, store_rec), (_, store_before) = lines["pre"], lines["rec"], lines["before"]
    load_old, load_new, load_saved, load_delta = (lines[name][0] for name in ("old", "new", "saved", "delta"))
    constants = build_constants(knobs, lines["settings"][0])
    shard_at = shards(dtype)

    @kernel(step_vjp, additive, carries, kept, knobs, dtype)
    def step_vjp_rows(address, t):
        shard = shard_at(address)
        rows, width = shard.rows, shard.width
        pre, rec, saved = at(shard, "pre", t), at(shard, "rec", t), at(shard, "saved", t)
        old, new = at(shard, "states", t), at(shard, "states", t + 1)
        delta, before, settings = at(shard, "delta", t + 1), at(shard, "delta", t), whole(shard, "settings")
        for b in range(rows):
            for j in range(width):
                d_in, d_rec, d_s = step_vjp(
                    load_saved(saved, b, j), load_old(old, b, j), load_new(new, b, j), load_delta(delta, b, j),
                    *constants(settings, j),
                )  # fmt: skip
                store_pre(pre, b, j, d_in)
                if not additive:
                    store_rec(rec, b, j, d_rec)
                if carries:
                    store_before(before, b, j, d_s)

    return step_vjp_rows


@part
def add_loss(shard, delta, d_y, copy):
    """Add dL/dy @ w_out^T to the h-lines of `delta`; d_y is an address, `copy` the parameters or a direction."""
    times(shard, delta, d_y, shard.out_width, place(shard, "p_out_back", copy, 0), shard.n_out, shard.width, 1)


@part
def add_returned(shard, delta, t):
    """Add what comes back from the layer above to the h-line of delta_t: what a loss does without one."""
    returned = at(shard, "returned", t - 1)
    for b in range(shard.rows):
        for j in range(shard.hidden):
            delta[b, j] += returned[b, j]


@part
def recur_back(shard, v, rec, copy, add):
    """Write sum_g rec[g] @ w_rec[g]^T to the h-lines of v, or add it; `rec` is an address."""
    for g in range(shard.gates):  # the first gate may write, the others add
        gate = rec + g * shard.width * shard.number
        times(shard, v, gate, shard.columns, place(shard, "p_rec_back", copy, g), shard.hidden, shard.width, add + g)


@part
def silence(shard, t):
    """Set all gradients at step t-1 to 0 for sequences that have no weight from step t on.

    They are 0 already, but for an overflow after the end of a sequence: 0 * Inf is NaN.
    """
    last_weight = whole(shard, "last_weight")
    for b in range(shard.rows):
        if last_weight[b] < t:
            clear(row(shard, "pre", t - 1, b))
            clear(row(shard, "rec", t - 1, b))
            clear(row(shard, "delta", t - 1, b))
            if not shard.tracing:
                clear(row(shard, "states", t, b))
                if last_weight[b] < t - 1:
                    clear(row(shard, "states", t - 1, b))


@part
def keep_v(shard, t):
    """Copy v_t, or its h-line, before the loss of step t-1 is added to it."""
    now, v = rows_at(shard, "delta", t - 1), rows_at(shard, "v", t - 1)
    for b in range(v.shape[0]):
        for j in range(v.shape[1]):
            v[b, j] = now[b, j]


@part
def begin(shard, stop):
    """delta_stop before the loss of its own step: 0, or what a vector-Jacobian product begins with."""
    delta, given = flat_at(shard, "delta", stop), flat(shard, "end_cotangent")
    if not shard.ends_given:
        clear(delta)
        return
    for i in range(delta.size):
        delta[i] = given[i]


@functools.cache
def build_sweep(dtype):
    """Build `sweep(shard, address, start, stop)`: delta_stop to delta_start, `pre` and `rec` to their gradients."""
    clip_preactivations, clip_state = build_hidden_clip(dtype)
    row_norms = build_row_norms(dtype)

    @part
    def step_back(shard, address, t):
        """From delta_t, which has the loss of its own step, to v_t, which stands where delta_{t-1} begins."""
        if shard.measured:
            row_norms(rows_at(shard, "delta", t), at(shard, "delta_norm", t))
        call(shard.step_vjp, address, t - 1)
        if t > shard.silent_after:
            silence(shard, t)
        if shard.hidden_site == PREACTIVATION:
            whole(shard, "inside")[0] += clip_preactivations(shard, t - 1)
        # What reaches the first state is computed for those who ask.
        if (t > 1 or shard.measured or shard.ends_given) and not detached(shard, t):
            recur_back(shard, rows_at(shard, "delta", t - 1), place(shard, "rec", t - 1, 0), PARAMETERS, shard.carries)
        if shard.measured:
            row_norms(rows_at(shard, "delta", t - 1), at(shard, "v_norm", t - 1))

    @part
    def sweep(shard, address, start, stop):
        active = whole(shard, "active")
        if stop == shard.reach:
            begin(shard, stop)
        for t in range(stop, start, -1):
            if shard.below:
                add_returned(shard, rows_at(shard, "delta", t), t)
            elif active[t - 1]:
                add_loss(shard, rows_at(shard, "delta", t), place(shard, "y", t - 1, 0), PARAMETERS)
            if shard.state_penalty:
                call(shard.state_penalty, address, t)
            if shard.hidden_site == STATE:
                whole(shard, "inside")[0] += clip_state(shard, t)
            step_back(shard, address, t)
            if shard.derivative:
                keep_v(shard, t)
                call(shard.penalty, address, t - 1)
        if shard.measured and start == 0:
            row_norms(rows_at(shard, "delta", 0), at(shard, "delta_norm", 0))

    return sweep


@functools.cache
def build_backward(dtype):
    """Build the phase that sweeps back over all steps of a shard."""
    sweep, shard_at = build_sweep(dtype), shards(dtype)

    @kernel(dtype)
    def backward(address, _):
        shard = shard_at(address)
        sweep(shard, address, 0, shard.reach)

    return backward
