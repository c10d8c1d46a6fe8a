"""Noise of the units: a_in + deviation * xi at every step, xi standard normals that are drawn by counter.

Of gate g and unit j of sequence b, at step t = 0, 1, ..., xi is number j % 4 of block

    t * (blocks of a step) + (blocks of the layers below) + g * ceil(H / 4) + j // 4

of (seed, purpose, replica, index, b): a function of nothing else, so shards, threads, replicas beside it and a second
pass over the same steps change none of it. It is the same in both dtypes, to the rounding of the smaller one.
"""

from __future__ import annotations

import functools

from nbflow._compile import kernel, part, unit
from nbflow.counter import draw, exact_normal_pair
from nbflow.cpu.views import at, flat, shards, whole
from nbflow.model.stack import Model, layers_of

# Normals that come of one block of words.
BLOCK = 4


def blocks_of(net: Model) -> list[int]:
    """Return how many blocks a step of a sequence takes in each layer."""
    return [len(layer.cell_object.gates) * -(-layer.n_hidden // BLOCK) for layer, _ in layers_of(net)]


def check_draws(blocks: int, steps: int) -> None:
    """Refuse more steps than the counter has blocks for: draws would come again."""
    if blocks * steps > 2**32:
        raise ValueError(
            f"noise is given for {steps} steps of {blocks * BLOCK} numbers; expected at most {2**32 // blocks} steps, "
            f"for which there are draws. Cut the sequences, and give each window an index of its own."
        )


@unit
def four(stream, n):
    """Return the four normals of block n of a stream, (seed, purpose, replica, index, sequence)."""
    w0, w1, w2, w3 = draw(*stream, n)
    x0, x1 = exact_normal_pair(w0, w1)
    x2, x3 = exact_normal_pair(w2, w3)
    return x0, x1, x2, x3


@part
def fill(drawn, stream, first):
    """Write the normals of the blocks from `first` on: (blocks, 4)."""
    for q in range(drawn.shape[0]):
        x0, x1, x2, x3 = four(stream, first + q)
        drawn[q, 0] = x0
        drawn[q, 1] = x1
        drawn[q, 2] = x2
        drawn[q, 3] = x3


@functools.cache
def build_noise(dtype):
    """Build the kernel that adds the noise of one step: sequences that have ended get none, nor does the padding."""
    shard_at = shards(dtype)

    @kernel(dtype)
    def noise(address, t):
        shard = shard_at(address)
        deviation, hidden, gates = shard.deviation, shard.hidden, shard.gates
        if deviation == 0:
            return
        pre, length = at(shard, "pre", t), whole(shard, "length")
        drawn, numbers = whole(shard, "drawn"), flat(shard, "drawn")
        each = BLOCK * shard.blocks // gates
        for b in range(shard.rows):
            if length[b] <= t:
                continue
            stream = (
                shard.noise_seed, shard.noise_purpose, shard.replica, shard.noise_index, shard.sequence + b,
            )  # fmt: skip
            fill(drawn, stream, t * shard.noise_blocks + shard.noise_first)
            for g in range(gates):
                for j in range(hidden):
                    pre[b, g, j] += deviation * dtype(numbers[each * g + j])

    return noise
