"""Penalties of ||h_t|| and ||h_{t-1}|| inside the sweep: what each adds to delta_t."""

from __future__ import annotations

import functools

from nbflow._compile import exact_part, kernel, part
from nbflow.cpu.norm import build_measure
from nbflow.cpu.views import place, row, row_of, shards, whole


@part
def h_of(shard, t, b):
    """h_t of one sequence, without its padding."""
    return row_of(shard, place(shard, "states", t, b), shard.hidden)


@exact_part
def pull(d, h, norm, factor):
    """d += factor h / ||h||, the quotient first: the other one may overflow."""
    for j in range(h.size):
        d[j] += factor * (h[j] / norm)


@functools.cache
def build_state_penalty(penalty, dtype):
    """Build the kernel of one step t: adds its penalties to `sums` and alpha dOmega/dh_t to delta_t.

    Called for t from the last to 1. The penalty of step t+1 depends on h_t too: its slope there waits in `carry`,
    beside ||h_t||, so that no state after t has to be on the tape.
    """
    value, slope = penalty.value, penalty.slope
    measure, shard_at = build_measure(dtype), shards(dtype)

    @part
    def norm_of(shard, t, b):
        root, scale = measure(h_of(shard, t, b))
        return root / scale

    @kernel(value, slope, dtype)
    def penalties(address, t):
        shard = shard_at(address)
        last_weight, carry, sums = whole(shard, "last_weight"), whole(shard, "carry"), whole(shard, "sums")
        for b in range(shard.rows):
            steps = last_weight[b]
            if t > steps:
                continue
            if t == steps:
                carry[b, 0], carry[b, 1] = 0, norm_of(shard, t, b)
            norm, before = carry[b, 1], norm_of(shard, t - 1, b)
            at_norm, at_before = slope(norm, before)
            sums[1] += value(norm, before) / dtype(steps)
            sums[2] += 1
            if shard.alpha != 0 and norm != 0:  # the norm has no slope at 0
                factor = shard.alpha * (at_norm + carry[b, 0]) / dtype(steps * shard.batch)
                pull(row(shard, "delta", t, b), h_of(shard, t, b), norm, factor)
            carry[b, 0], carry[b, 1] = at_before, before

    return penalties
