"""Where a gradient ends beside the parameters: dL/dx_t = da_in_t w_in^T, at the inputs of every step.

And where one begins beside the loss: at the states of all steps, as a vector-Jacobian product is told from outside.
"""

from __future__ import annotations

import functools

from nbflow._compile import kernel, part
from nbflow.cpu.memory import call_product
from nbflow.cpu.record import PARAMETERS
from nbflow.cpu.views import at, flat, flat_at, place, shards


@part
def turn_inputs(shard):
    """Write panels of w_in, transposed: once a shard, which is little beside all its steps."""
    packed, turned, panel = flat_at(shard, "p_in", PARAMETERS), flat(shard, "w_in_back"), shard.panel_width
    depth, columns = shard.n_in + 1, shard.columns
    for j in range(columns):
        source = j // panel * depth * panel + j % panel
        for i in range(shard.n_in):
            turned[(i // panel * columns + j) * panel + i % panel] = packed[source + i * panel]


@part
def write_inputs(shard, first, count, d_a):
    """Write dL/dx_t of `count` steps from `first` on, at most a stretch, of the gradients at a_in at an address.

    They are computed together in `d_x`, with rows rounded up.
    """
    taken = min(max(shard.reach - first, 0), count)
    if taken > 0:
        depth, panel = shard.columns, shard.panel_width
        d_x, w_in = place(shard, "d_x", 0, 0), place(shard, "w_in_back", 0, 0)
        call_product(shard.product, d_x, shard.in_width, d_a, depth, 1, w_in, depth * panel, panel, taken * shard.rows,
                     depth, shard.in_width, 0)  # fmt: skip
    for k in range(count):
        found, rows = at(shard, "d_inputs", first + k), at(shard, "d_x", k)
        for b in range(shard.rows):
            for i in range(shard.n_in):
                found[b, i] = rows[b, i] if k < taken else 0


@functools.cache
def build_input_gradients(dtype):
    """Build the phase after the way back that fills `d_inputs`; 0 at steps that were not taken."""
    shard_at = shards(dtype)

    @kernel(dtype)
    def input_gradients(address, _):
        shard = shard_at(address)
        turn_inputs(shard)
        for first in range(0, shard.steps, shard.stretch):
            count = min(shard.stretch, shard.steps - first)
            write_inputs(shard, first, count, place(shard, "pre", first, 0))

    return input_gradients


@functools.cache
def build_listening(dtype):
    """Build the kernel of one step t that adds what counts of s_t to delta_t, in the place of a state penalty's."""
    shard_at = shards(dtype)

    @kernel(dtype)
    def listening(address, t):
        shard = shard_at(address)
        delta, given = flat_at(shard, "delta", t), flat_at(shard, "cotangents", t - 1)
        for i in range(delta.size):
            delta[i] += given[i]

    return listening
