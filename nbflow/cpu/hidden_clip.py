"""Clipping the back-propagated vector itself, at every step, so that all that flows further back is changed.

Site "preactivation": the gradients at a_in and a_rec of every gate (Graves 2013, section 2.1). Site "state": delta_t
(Mikolov's RNNLM). By value, each entry; by norm, the vector of each sequence.
"""

from __future__ import annotations

import functools

from nbflow._compile import part
from nbflow.cpu.norm import build_measure, build_shrink
from nbflow.cpu.rules import limited
from nbflow.cpu.views import row

# Values of a shard's `hidden_site`.
SITES = {"preactivation": 1, "state": 2}


@functools.cache
def build_hidden_clip(dtype):
    """Build `clip_preactivations(shard, t)` and `clip_state(shard, t)`."""
    measure, shrink = build_measure(dtype), build_shrink(dtype)

    @part
    def clip_row(row, threshold, by_norm):
        if not by_norm:
            for j in range(row.size):
                row[j] = limited(row[j], threshold)
            return
        root, scale = measure(row)
        factor = shrink(row, root, scale, threshold)
        if factor != 1:
            for j in range(row.size):
                row[j] *= factor

    @part
    def clip_preactivations(shard, t):
        """Clip what stands in pre[t], and in rec[t] where that is another array."""
        for b in range(shard.rows):
            clip_row(row(shard, "pre", t, b), shard.hidden_threshold, shard.hidden_norm)
            if not shard.additive:
                clip_row(row(shard, "rec", t, b), shard.hidden_threshold, shard.hidden_norm)

    @part
    def clip_state(shard, t):
        """Clip delta_t."""
        for b in range(shard.rows):
            clip_row(row(shard, "delta", t, b), shard.hidden_threshold, shard.hidden_norm)

    return clip_preactivations, clip_state
