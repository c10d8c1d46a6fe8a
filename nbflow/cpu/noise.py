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
from nbflow.cpu.views import at, shards, whole
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


@functools.cache
def build_noise(dtype):
    """Build the kernel that adds the noise of one step: sequences that have ended get none, nor does the padding."""
    shard_at = shards(dtype)

    @part
    def add(numbers, deviation, stream, first):
        """Add to a row of numbers the noise of the blocks from `first` on."""
        whole_blocks = numbers.size // BLOCK
        for q in range(whole_blocks):
            x0, x1, x2, x3 = four(stream, first + q)
            j = BLOCK * q
            numbers[j] += deviation * dtype(x0)
            numbers[j + 1] += deviation * dtype(x1)
            numbers[j + 2] += deviation * dtype(x2)
            numbers[j + 3] += deviation * dtype(x3)
        rest = numbers.size - BLOCK * whole_blocks
        if rest:
            last = four(stream, first + whole_blocks)
            for k in range(rest):
                numbers[BLOCK * whole_blocks + k] += deviation * dtype(last[k])

    @kernel(dtype)
    def noise(address, t):
        shard = shard_at(address)
        deviation, hidden, length = shard.deviation, shard.hidden, whole(shard, "length")
        if deviation == 0:
            return
        blocks, pre = -(-hidden // BLOCK), at(shard, "pre", t)
        start = t * shard.noise_blocks + shard.noise_first
        for b in range(shard.rows):
            stream = (
                shard.noise_seed, shard.noise_purpose, shard.replica, shard.noise_index, shard.sequence + b,
            )  # fmt: skip
            if length[b] > t:
                for g in range(shard.gates):
                    add(pre[b, g, :hidden], deviation, stream, start + g * blocks)

    return noise
