"""Weight gradients clipped for each example, or for each group of examples, before they are averaged.

The gradient of each group is formed in a buffer of its own, measured, scaled and added: one way back for all, exact
norms, no more arithmetic than a plain gradient has (Goodfellow et al. 2016, section 10.11.1; Abadi et al. 2016, for
example by example). Where parameters are held, it is 0 there before it is measured.

The norm of a group over several layers is known only when all are measured. Each forms its part twice then, once for
the norm and once to be scaled: what it takes to keep all parts is as many gradients as there are groups.
"""

from __future__ import annotations

import functools

import numpy as np

from nbflow._compile import kernel, part
from nbflow.cpu.memory import clear
from nbflow.cpu.norm import build_examine, build_shrink
from nbflow.cpu.record import GROUP, TOTAL
from nbflow.cpu.report import CLIPPED_GROUPS, LEFT_OUT
from nbflow.cpu.rules import exceeds, joined
from nbflow.cpu.subnormals import flush, restore
from nbflow.cpu.views import at, shards, whole
from nbflow.cpu.weights import Span, weights


@part
def hold(shard, group):
    """Write 0 where a parameter is held, in the place of NaN and Inf too."""
    still = whole(shard, "still")
    for i in range(group.size):
        if still[i] != 0:
            group[i] = 0


@part
def collect(shard, first, group):
    """Write the gradient of the sequences first .. first + group_rows - 1 to the buffer of a group."""
    for b in range(first, first + shard.group_rows):
        weights(shard, Span(0, shard.reach, b, 1, shard.rows), GROUP, int(b > first))
    if shard.masked:
        hold(shard, group)


def _build_add(dtype):
    """Build `add(shard, k, group, root, scale, finite)`: min(1, threshold / norm) times group k to the total.

    One that is not finite is added as it is, or left out and counted in `sums`, where those that are clipped are too.
    """
    shrink = build_shrink(dtype)

    @part
    def add(shard, k, group, root, scale, finite):
        total, norms, sums = at(shard, "partial", TOTAL), whole(shard, "group_norms"), whole(shard, "sums")
        norms[k] = np.float64(root) / np.float64(scale) if finite else np.nan
        factor = dtype(1)
        if finite:
            sums[CLIPPED_GROUPS] += exceeds(root, scale, shard.group_threshold)
            factor = shrink(group, root, scale, shard.group_threshold)
        elif shard.group_skips:
            sums[LEFT_OUT] += 1
            return
        for i in range(total.size):
            total[i] += factor * group[i]

    return add


@functools.cache
def build_groups(dtype):
    """Build the phase: the sum over groups of min(1, threshold / norm) times each one's gradient."""
    examine, add, shard_at = build_examine(dtype), _build_add(dtype), shards(dtype)

    @kernel(dtype)
    def groups(address, _):
        shard = shard_at(address)
        group = at(shard, "partial", GROUP)
        clear(at(shard, "partial", TOTAL))
        for k in range(shard.rows // shard.group_rows):
            collect(shard, k * shard.group_rows, group)
            root, scale, finite = examine(group)
            root *= shard.group_scale
            add(shard, k, group, root, scale, finite)

    return groups


@functools.cache
def build_measure_groups(dtype, subnormals=False):
    """Build the kernel that joins the norms of a layer's part of each group to those of the layers before it.

    The one on top is the first.
    """
    examine, shard_at = build_examine(dtype), shards(dtype)

    @kernel(dtype, subnormals)
    def measure_groups(address, _):
        shard = shard_at(address)
        before = 0 if subnormals else flush()
        group, joint = at(shard, "partial", GROUP), whole(shard, "joint")
        for first in range(0, shard.rows, shard.group_rows):
            collect(shard, first, group)
            root, scale, finite = examine(group)
            root *= shard.group_scale
            if shard.below:
                wide, least = joined(root, scale, joint[first, 0], joint[first, 1])
                root, scale, finite = dtype(wide), dtype(least), finite and joint[first, 2] != 0
            joint[first, 0], joint[first, 1], joint[first, 2] = root, scale, dtype(finite)
        if not subnormals:
            restore(before)

    return measure_groups


@functools.cache
def build_joint_groups(dtype, subnormals=False):
    """Build the kernel that adds up a layer's part of each group, scaled by the norm over all layers."""
    add, shard_at = _build_add(dtype), shards(dtype)

    @kernel(dtype, subnormals)
    def joint_groups(address, _):
        shard = shard_at(address)
        before = 0 if subnormals else flush()
        group, joint = at(shard, "partial", GROUP), whole(shard, "joint")
        clear(at(shard, "partial", TOTAL))
        for k in range(shard.rows // shard.group_rows):
            first = k * shard.group_rows
            collect(shard, first, group)
            add(shard, k, group, joint[first, 0], joint[first, 1], joint[first, 2] != 0)
        if not subnormals:
            restore(before)

    return joint_groups
