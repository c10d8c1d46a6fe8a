"""Weight gradients clipped for each example, or for each group of examples, before they are averaged.

The gradient of each group is formed in a buffer of its own, measured, scaled and added: one way back for all, exact
norms, no more arithmetic than a plain gradient has (Goodfellow et al. 2016, section 10.11.1; Abadi et al. 2016, for
example by example).
"""

from __future__ import annotations

import functools

import numpy as np

from nbflow._compile import kernel, part
from nbflow.cpu.memory import clear
from nbflow.cpu.norm import build_examine, build_shrink
from nbflow.cpu.record import GROUP, TOTAL
from nbflow.cpu.report import CLIPPED_GROUPS, LEFT_OUT
from nbflow.cpu.rules import exceeds
from nbflow.cpu.views import at, shards, whole
from nbflow.cpu.weights import Span, weights


@part
def collect(shard, first):
    """Write the gradient of the sequences first .. first + group_rows - 1."""
    for b in range(first, first + shard.group_rows):
        weights(shard, Span(0, shard.reach, b, 1, shard.rows), GROUP, int(b > first))


@functools.cache
def build_groups(dtype):
    """Build the phase: the sum over groups of min(1, threshold / norm) times each one's gradient.

    One that is not finite is added as it is, or left out and counted in `sums`, where those that are clipped are too.
    """
    examine, shrink, shard_at = build_examine(dtype), build_shrink(dtype), shards(dtype)

    @kernel(dtype)
    def groups(address, _):
        shard = shard_at(address)
        group, total, norms = at(shard, "partial", GROUP), at(shard, "partial", TOTAL), whole(shard, "group_norms")
        sums = whole(shard, "sums")
        clear(total)
        for k in range(shard.rows // shard.group_rows):
            collect(shard, k * shard.group_rows)
            root, scale, finite = examine(group)
            root *= shard.group_scale
            norms[k] = np.float64(root) / np.float64(scale) if finite else np.nan
            factor = dtype(1)
            if finite:
                sums[CLIPPED_GROUPS] += exceeds(root, scale, shard.group_threshold)
                factor = shrink(group, root, scale, shard.group_threshold)
            elif shard.group_skips:
                sums[LEFT_OUT] += 1
                continue
            for i in range(total.size):
                total[i] += factor * group[i]

    return groups
