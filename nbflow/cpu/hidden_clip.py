"""Clipping the back-propagated vector itself, at every step, so that all that flows further back is changed.

Site "preactivation": the gradients at a_in and a_rec of every gate (Graves 2013, section 2.1). Site "state": delta_t
(Mikolov's RNNLM). By value, each entry; by norm, the vector of each sequence.
"""

from __future__ import annotations

import functools

from nbflow._compile import part
from nbflow.cpu.norm import build_measure, build_shrink
from nbflow.cpu.rules import exceeds, limited
from nbflow.cpu.views import row, whole
from nbflow.model.network import Network

# Values of a shard's `hidden_site`.
SITES = {"preactivation": 1, "state": 2}
PREACTIVATION, STATE = SITES.values()


def seen_of_a_step(net: Network, site: int, by_norm: bool) -> int:
    """Return how many entries, or vectors, of a step of a sequence a clip sees."""
    cell = net.cell_object
    arrays = 1 if site == STATE or cell.additive else 2
    return arrays * (1 if by_norm else net.n_hidden * len(cell.states if site == STATE else cell.gates))


@part
def begin_count(shard):
    """Note how many entries, or vectors, the clip will see: of each sequence those up to its last weight."""
    inside, last_weight, steps = whole(shard, "inside"), whole(shard, "last_weight"), 0
    for b in range(shard.rows):
        steps += last_weight[b]
    inside[0], inside[1] = 0, steps * shard.hidden_seen


@functools.cache
def build_hidden_clip(dtype):
    """Build `clip_preactivations(shard, t)` and `clip_state(shard, t)`.

    Both return how many entries they clipped, or vectors.
    """
    measure, shrink = build_measure(dtype), build_shrink(dtype)

    @part
    def clip_row(row, threshold, by_norm):
        if not by_norm:
            clipped = 0
            for j in range(row.size):
                clipped += (row[j] > threshold) | (row[j] < -threshold)
                row[j] = limited(row[j], threshold)
            return clipped
        root, scale = measure(row)
        clipped = int(exceeds(root, scale, threshold))
        factor = shrink(row, root, scale, threshold)
        if factor != 1:
            for j in range(row.size):
                row[j] *= factor
        return clipped

    @part
    def clip_preactivations(shard, t):
        """Clip what stands in pre[t], and in rec[t] where that is another array."""
        clipped = 0
        for b in range(shard.rows):
            clipped += clip_row(row(shard, "pre", t, b), shard.hidden_threshold, shard.hidden_norm)
            if not shard.additive:
                clipped += clip_row(row(shard, "rec", t, b), shard.hidden_threshold, shard.hidden_norm)
        return clipped

    @part
    def clip_state(shard, t):
        """Clip delta_t."""
        clipped = 0
        for b in range(shard.rows):
            clipped += clip_row(row(shard, "delta", t, b), shard.hidden_threshold, shard.hidden_norm)
        return clipped

    return clip_preactivations, clip_state
