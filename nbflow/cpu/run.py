"""The one parallel loop: replicas are packed, shards run their phases, replicas are summed.

The loop is serial over time inside a shard and parallel over shards; no shard waits for another, and sums are taken
in the order of the shards, so a result has the same bits for any number of threads. The loop itself knows addresses
only and is compiled once for all networks. (A loop of this kind over four nearly empty kernels, called from Python,
took 1.3 us on two cores of an AMD EPYC, Zen 5.)
"""

from __future__ import annotations

import functools
import os

from numba import prange

from nbflow._compile import kernel, loop
from nbflow.cpu.memory import call
from nbflow.cpu.subnormals import flush, restore
from nbflow.cpu.views import shards

# A thread of GNU OpenMP that waits for work spins, by default almost for ever: beside four busy processes on two cores
# an update at (50,20,6,50) takes 11.9 ms, where 0.6 will do. Waking it takes longer than what Python does between two
# updates, so it spins for about as long as that, then sleeps. Medians on two cores of an EPYC (Zen 5), in ms:
#
#     GOMP_SPINCOUNT                               1000    2000    3000    5000
#     nf.gradient, nf.clip and a step             0.121   0.097   0.096   0.095
#     the same with a batch sampled each time     0.161   0.161   0.137   0.136
#     two of the first at once                     0.21    0.26    0.30       -
#     beside four busy processes                   0.49    0.60    0.60    0.94
#
# On an EPYC (Zen 4), where Python takes 41 us between two updates, 3000 is too short and 4000 is not: 0.225 and 0.192
# in the first row, 0.50 and 0.54 for two at once; 6000 gives 0.192 in the first.
#
# Read when the threads start; the user's own choice comes first.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "4000")


@functools.cache
def build_run(parallel):
    """Build `run`, which takes addresses and counts, for a team of threads or for the thread that calls it.

    `pack` and `combine` are called for each of the `pieces` of each replica, `phases` for each shard. The records of
    replicas lie `replica_stride` bytes apart from `first_replica` on, those of shards likewise.
    """

    @loop("run", parallel=parallel)
    def run(
        pack, phases, combine, first_replica, replica_count, replica_stride, pieces,
        first_shard, shard_count, shard_stride,
    ):  # fmt: skip
        if replica_count * pieces == 1:  # no team of threads for one piece of work
            call(pack, first_replica, 0)
        else:
            for i in prange(replica_count * pieces):
                call(pack, first_replica + i // pieces * replica_stride, i % pieces)
        if shard_count == 1:
            call(phases, first_shard, 0)
        else:
            for k in prange(shard_count):
                call(phases, first_shard + k * shard_stride, 0)
        if replica_count * pieces == 1:
            call(combine, first_replica, 0)
        else:
            for i in prange(replica_count * pieces):
                call(combine, first_replica + i // pieces * replica_stride, i % pieces)

    return run


@functools.cache
def build_late(dtype, subnormals=False):
    """Build the kernel that runs what a shard can only do once all shards have run their phases."""
    shard_at = shards(dtype)

    @kernel(dtype, subnormals)
    def late(address, _):
        shard = shard_at(address)
        before = 0 if subnormals else flush()
        call(shard.late, address, 0)
        if shard.later:
            call(shard.later, address, 0)
        if not subnormals:
            restore(before)

    return late


@functools.cache
def build_phases(dtype, subnormals=False):
    """Build the kernel that runs the phases of one shard, with subnormal numbers or with 0 in their place."""
    shard_at = shards(dtype)

    @kernel(dtype, subnormals)
    def phases(address, _):
        shard = shard_at(address)
        before = 0 if subnormals else flush()
        call(shard.phase_0, address, 0)
        if shard.phase_1:
            call(shard.phase_1, address, 0)
        if shard.phase_2:
            call(shard.phase_2, address, 0)
        if shard.phase_3:
            call(shard.phase_3, address, 0)
        if shard.phase_4:
            call(shard.phase_4, address, 0)
        if not subnormals:
            restore(before)

    return phases
