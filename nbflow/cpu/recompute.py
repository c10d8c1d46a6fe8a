"""A gradient whose memory grows as the square root of T: a few states are kept, and the steps between computed twice.

Chen et al. 2016; Gruslys et al. 2016. The tape holds the steps between two states that are kept, and slides: the
addresses of its arrays are moved so that step t is found where every phase looks for it (`nbflow.cpu.views.slide`).
Those steps are whole segments of `nbflow.cpu.gradient`, so the bits of a gradient are those of one that keeps all.

A layer of a stack does the same in two phases, forward and back, with the other layers between: h of all steps, and
what comes back to it, lie between layers anyway.
"""

from __future__ import annotations

import functools

from nbflow._compile import kernel, part
from nbflow.cpu.ends import turn_inputs, write_inputs
from nbflow.cpu.forward import advance, find_lengths, hand_nothing
from nbflow.cpu.gradient import build_return
from nbflow.cpu.loss import add_losses
from nbflow.cpu.memory import clear
from nbflow.cpu.views import flat_at, place, shards, slide, whole


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
def take_steps(shard, address, start, stop):
    """Take some steps, with their losses where there are any."""
    advance(shard, address, start, stop)
    if not shard.below:
        add_losses(shard, address, start, stop)


@part
def run_forward(shard, address):
    """Take all steps; the tape of the last ones is left in place."""
    start = 0
    keep(shard, 0)
    while True:
        stop = min(start + shard.every, shard.reach)
        take_steps(shard, address, start, stop)
        if stop == shard.reach:
            return
        keep(shard, stop)
        slide(shard, shard.every)
        start = stop
        restore(shard, start)


@part
def write_all_inputs(shard, start, stop, steps):
    """Write the gradients at the inputs of start .. stop-1, and 0 at the steps from there to `steps`."""
    for first in range(start, stop, shard.stretch):
        write_inputs(shard, first, min(shard.stretch, stop - first), place(shard, "pre", first, 0))
    for first in range(stop, steps, shard.stretch):
        write_inputs(shard, first, min(shard.stretch, steps - first), place(shard, "d_x", 0, 0))


@functools.cache
def _build_run_back(dtype, to_inputs):
    """Build `run_back(shard, address)`: back over the last steps, then over those before, which are computed anew."""
    go_back = build_return(dtype)

    @part
    def run_back(shard, address):
        sums, stop = whole(shard, "sums"), shard.reach
        start = max(0, (stop - 1) // shard.every * shard.every)
        loss, steps = sums[0], shard.steps  # steps that are computed twice add their losses again
        if to_inputs:
            turn_inputs(shard)
        while True:
            go_back(shard, address, start, stop)
            if to_inputs:
                write_all_inputs(shard, start, stop, steps)
                steps = start
            if start == 0:
                break
            stop, start = start, start - shard.every
            slide(shard, -shard.every)
            restore(shard, start)
            take_steps(shard, address, start, stop)
        sums[0] = loss

    return run_back


@functools.cache
def build_recomputing(dtype, to_inputs=False):
    """Build the phase that is a whole gradient: forward, keeping a few states, then back over the steps between."""
    run_back, shard_at = _build_run_back(dtype, to_inputs), shards(dtype)

    @kernel(dtype, to_inputs)
    def recomputing(address, _):
        shard = shard_at(address)
        find_lengths(shard)
        clear(whole(shard, "sums"))
        run_forward(shard, address)
        run_back(shard, address)

    return recomputing


@functools.cache
def build_recomputing_ends(dtype):
    """Build the same, which goes on to the inputs."""
    return build_recomputing(dtype, True)


@functools.cache
def build_keeping(dtype):
    """Build the phase forward of a layer below another, which keeps a few states."""
    shard_at = shards(dtype)

    @kernel(dtype)
    def keeping(address, _):
        shard = shard_at(address)
        find_lengths(shard)
        clear(whole(shard, "sums"))
        run_forward(shard, address)
        hand_nothing(shard, shard.reach)

    return keeping


@functools.cache
def build_recomputing_back(dtype, to_inputs):
    """Build the phase back of such a layer, over steps that are computed anew."""
    run_back, shard_at = _build_run_back(dtype, to_inputs), shards(dtype)

    @kernel(dtype, to_inputs)
    def recomputing_back(address, _):
        shard = shard_at(address)
        run_back(shard, address)

    return recomputing_back
