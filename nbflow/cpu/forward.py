"""The forward pass of a shard: s_t = step(x_t w_in + bias, h_{t-1} w_rec, s_{t-1}), serial over t."""

from __future__ import annotations

import functools

import numpy as np

from nbflow._compile import kernel, part
from nbflow.cpu.hidden_clip import begin_count
from nbflow.cpu.lines import build_constants, build_lines
from nbflow.cpu.memory import address_of, call, clear
from nbflow.cpu.product import times
from nbflow.cpu.record import PARAMETERS
from nbflow.cpu.views import at, flat, flat_at, place, row, rows_at, shards, whole


@functools.cache
def build_step(cell, dtype):
    """Build the kernel of one pointwise pass: `states[t]` to `states[t+1]` for the rows of a shard."""
    step, additive, kept, knobs = cell.step, cell.additive, len(cell.saved), len(cell.settings)
    gates, states = len(cell.gates), len(cell.states)
    lines = build_lines({"pre": gates, "rec": 0 if additive else gates, "old": states, "new": states, "saved": kept,
                         "settings": knobs})  # fmt: skip
    (load_pre, _), (load_rec, _), (load_old, _) = lines["pre"], lines["rec"], lines["old"]
    (_, store_new), (_, store_saved) = lines["new"], lines["saved"]
    constants = build_constants(knobs, lines["settings"][0])
    zeros = (np.zeros((), dtype)[()],) * len(cell.gates)
    shard_at = shards(dtype)

    @kernel(step, additive, kept, knobs, dtype)
    def step_rows(address, t):
        shard = shard_at(address)
        rows, width = shard.rows, shard.width
        pre, rec, saved = at(shard, "pre", t), at(shard, "rec", t), at(shard, "saved", t)
        old, new, settings = at(shard, "states", t), at(shard, "states", t + 1), whole(shard, "settings")
        for b in range(rows):
            for j in range(width):
                a_rec = zeros if additive else load_rec(rec, b, j)
                s, keep = step(load_pre(pre, b, j), a_rec, load_old(old, b, j), *constants(settings, j))
                store_new(new, b, j, s)
                store_saved(saved, b, j, keep)

    return step_rows


@part
def embed_tokens(shard, t):
    """pre[t] = w_in[token] + bias, a look-up of rows."""
    tokens, table, pre = at(shard, "tokens", t), rows_at(shard, "p_rows", PARAMETERS), rows_at(shard, "pre", t)
    bias = shard.n_in
    for b in range(shard.rows):
        token = tokens[b]
        for j in range(shard.columns):
            pre[b, j] = table[token, j] + table[bias, j]


@part
def embed_inputs(shard, t):
    """pre[t] = (x_t, 1) @ (w_in, bias)."""
    n, inputs, x = shard.n_in, at(shard, "inputs", t), at(shard, "x", t)
    for b in range(shard.rows):
        for i in range(n):
            x[b, i] = inputs[b, i]
        x[b, n] = 1
    pre, w_in = rows_at(shard, "pre", t), place(shard, "p_in", PARAMETERS, 0)
    times(shard, pre, address_of(x), n + 1, w_in, n + 1, shard.columns, 0)


@part
def recur(shard, t):
    """rec[t] = h_t @ w_rec + bias_rec, or pre[t] += h_t @ w_rec where the cell only looks at the sum."""
    rec = rows_at(shard, "rec", t)
    if shard.bias_rec:
        bias = flat_at(shard, "p_bias_rec", PARAMETERS)
        for b in range(shard.rows):
            for j in range(shard.columns):
                rec[b, j] = bias[j]
    times(
        shard, rec, place(shard, "states", t, 0), shard.line, place(shard, "p_rec", PARAMETERS, 0),
        shard.hidden, shard.columns, shard.additive + shard.bias_rec,
    )  # fmt: skip


@part
def clear_ended(shard, t):
    """Set s_{t+1} of sequences that have ended to 0, so that an overflow after the end reaches no gradient."""
    length = whole(shard, "length")
    for b in range(shard.rows):
        if length[b] <= t:
            clear(row(shard, "states", t + 1, b))


@part
def advance(shard, address, start, stop):
    """Take the steps start .. stop-1."""
    for t in range(start, stop):
        if shard.takes_tokens:
            embed_tokens(shard, t)
        else:
            embed_inputs(shard, t)
        recur(shard, t)
        if shard.noise:
            call(shard.noise, address, t)
        call(shard.step, address, t)
        if t >= shard.shortest:
            clear_ended(shard, t)
        if shard.below:
            hand_on(shard, t)


@part
def hand_on(shard, t):
    """Copy h after step t to where the layer above has its inputs: 0 of sequences that have ended."""
    h, handed = rows_at(shard, "states", t + 1), at(shard, "handed", t)
    for b in range(shard.rows):
        for j in range(shard.hidden):
            handed[b, j] = h[b, j]


@part
def hand_nothing(shard, start):
    """Hand 0 on from step `start` to the last: shards of the layer above may be cut otherwise, and run longer."""
    for t in range(start, shard.steps):
        handed = at(shard, "handed", t)
        for b in range(shard.rows):
            for j in range(shard.hidden):
                handed[b, j] = 0


@part
def find_lengths(shard):
    """Fill `active`, `last_weight` and `length` from the weights, and what follows from them."""
    active, length, last_weight = whole(shard, "active"), whole(shard, "length"), whole(shard, "last_weight")
    for b in range(shard.rows):
        last_weight[b] = 0
    for t in range(shard.steps):
        weights = at(shard, "weights", t)
        active[t] = 0
        for b in range(shard.rows):
            if weights[b] != 0:
                active[t] = 1
                last_weight[b] = t + 1
    shard.reach, shard.shortest, shard.silent_after = 0, shard.steps, shard.steps
    for b in range(shard.rows):
        length[b] = shard.steps if shard.whole else last_weight[b]
        shard.reach = max(shard.reach, length[b])
        shard.shortest = min(shard.shortest, length[b])
        shard.silent_after = min(shard.silent_after, last_weight[b])
    begin_count(shard)


@part
def keep_end(shard):
    """Copy the last state: the way back may clear states after the last weight."""
    state, end = flat_at(shard, "states", shard.steps), flat(shard, "end")
    for i in range(end.size):
        end[i] = state[i]


@functools.cache
def build_forward(dtype):
    """Build the phase that runs a shard forward over all its steps."""
    shard_at = shards(dtype)

    @kernel(dtype)
    def forward(address, _):
        shard = shard_at(address)
        find_lengths(shard)
        advance(shard, address, 0, shard.reach)
        if shard.whole:
            keep_end(shard)
        if shard.below:  # without a loss, which would begin with its sums
            hand_nothing(shard, shard.reach)
            clear(whole(shard, "sums"))

    return forward
