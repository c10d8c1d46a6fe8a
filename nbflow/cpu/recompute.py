"""A gradient whose memory grows as the square root of T: a few states are kept, and the steps between computed twice.

Chen et al. 2016; Gruslys et al. 2016. The tape holds the steps between two states that are kept, and slides: the
addresses of its arrays are moved so that step t is found where every phase looks for it (`nbflow.cpu.views.slide`).
Those steps are whole segments of `nbflow.cpu.gradient`, so the bits of a gradient are those of one that keeps all.
"""

from __future__ import annotations

import functools

from nbflow._compile import kernel, part
from nbflow.cpu.forward import advance, find_lengths
from nbflow.cpu.gradient import build_return
from nbflow.cpu.loss import add_losses
from nbflow.cpu.memory import clear
from nbflow.cpu.views import flat_at, shards, slide, whole


@part
def keep(shard, t):
    """Copy s_t to where it is kept."""
    state, kept = flat_at(shard, "states", t), flat_at(shard, "kept_states", t // shard.every)
    for i in range(kept.size):
        kept[i] = state[i]


@part
def restore(shard, t):
    """Copy s_t from where it is kept."""
    state, kept = flat_at(shard, "states", t), flat_at(shard, "kept_states", t // shard.every)
    for i in range(kept.size):
        state[i] = kept[i]


@part
def run_forward(shard, address):
    """Return the first step of the last segment, whose tape is left in place."""
    start = 0
    keep(shard, 0)
    while True:
        stop = min(start + shard.every, shard.reach)
        advance(shard, address, start, stop)
        add_losses(shard, address, start, stop)
        if stop == shard.reach:
            return start
        keep(shard, stop)
        slide(shard, shard.every)
        start = stop
        restore(shard, start)


@functools.cache
def build_recomputing(dtype):
    """Build the phase that is a whole gradient: forward, keeping a few states, then back over the steps between."""
    go_back, shard_at = build_return(dtype), shards(dtype)

    @kernel(dtype)
    def recomputing(address, _):
        shard = shard_at(address)
        find_lengths(shard)
        sums = whole(shard, "sums")
        clear(sums)
        start, stop = run_forward(shard, address), shard.reach
        loss = sums[0]  # the segments that are computed twice add theirs again
        while True:
            go_back(shard, address, start, stop)
            if start == 0:
                break
            stop, start = start, start - shard.every
            slide(shard, -shard.every)
            restore(shard, start)
            advance(shard, address, start, stop)
            add_losses(shard, address, start, stop)
        sums[0] = loss

    return recomputing
