"""What is done once for a replica: its reports, the norms of its groups, and the sum of its partial gradients."""

from __future__ import annotations

import functools

from nbflow._compile import unit
from nbflow.cpu.rules import divisor, shrinking
from nbflow.cuda.device import MOST_THREADS, cuda, grid, real_of
from nbflow.cuda.job import (
    ALPHA,
    BATCH,
    COUNTED,
    D_THETA,
    GATES,
    GROUP_NORMS,
    GROUP_ROWS,
    GROUP_THRESHOLD,
    HIDDEN,
    LOSSES,
    N_IN,
    PARAMETERS,
    PARTIAL,
    PARTIAL_FLOW,
    PENALTIES,
    REPLICAS,
    REPORT,
    at,
)
from nbflow.cuda.norm import build_block_measure, build_block_sum


@functools.cache
def build_report(dtype):
    """Build the grid, a block a replica, that fills REPORT with loss, Omega and count."""
    block_sum, real, zero = build_block_sum(), real_of(dtype), dtype(0)

    @grid
    def report(job, numbers, steps, flowing, by_mean):
        room = cuda.shared.array(MOST_THREADS, real)
        r, batch = cuda.blockIdx.x, job[BATCH]
        loss, omega, counted = zero, zero, zero
        for i in range(cuda.threadIdx.x, steps * batch, cuda.blockDim.x):
            loss += numbers[at(job, LOSSES, r) + i]
            if flowing:
                omega += numbers[at(job, PENALTIES, r) + i]
                counted += numbers[at(job, COUNTED, r) + i]
        loss = block_sum(loss, room)
        omega, counted = block_sum(omega, room), block_sum(counted, room)
        if cuda.threadIdx.x == 0:
            place = at(job, REPORT, r)
            numbers[place] = loss
            numbers[place + 1] = omega / divisor(counted, dtype(batch), by_mean)
            numbers[place + 2] = counted

    return report


@functools.cache
def build_group_norms(dtype):
    """Build the grid, a block for each group of each replica, that fills GROUP_NORMS from PARTIAL.

    Of the gradient of its mean loss: B / rows times its share.
    """
    measure, real = build_block_measure(dtype), real_of(dtype)

    @grid
    def group_norms(job, numbers, groups):
        room = cuda.shared.array(MOST_THREADS, real)
        r, k, size = cuda.blockIdx.x // groups, cuda.blockIdx.x % groups, job[PARAMETERS]
        root, scale = measure(numbers, at(job, PARTIAL, r) + k * size, size, 1, room)
        if cuda.threadIdx.x == 0:
            numbers[at(job, GROUP_NORMS, r) + k] = dtype(job[BATCH] // job[GROUP_ROWS]) * (root / scale)

    return group_norms


@functools.cache
def build_combine(dtype):
    """Build the grid, a thread a parameter of a replica, that adds the parts up to D_THETA, and alpha times Omega's.

    With `grouped`, a part is a group of sequences, which is scaled where its norm is above the threshold.
    """
    zero, one = dtype(0), dtype(1)

    @unit
    def factor_of(job, numbers, r, group):
        """Return what the gradient of a group is multiplied by (Goodfellow et al. 2016, section 10.11.1)."""
        return shrinking(numbers[at(job, GROUP_NORMS, r) + group], numbers[at(job, GROUP_THRESHOLD, r)])

    @grid
    def combine(job, numbers, parts, grouped, flowing, by_mean):
        size, columns = job[PARAMETERS], job[GATES] * job[HIDDEN]
        i = cuda.grid(1)
        if i < job[REPLICAS] * size:
            r, p = i // size, i % size
            total = zero
            for part in range(parts):
                partial = numbers[at(job, PARTIAL, r) + part * size + p]
                total += factor_of(job, numbers, r, part) * partial if grouped else partial
            alpha, entry = numbers[at(job, ALPHA, r)], p - job[N_IN] * columns
            if flowing and alpha != 0 and 0 <= entry < job[HIDDEN] * columns:  # 0 * Inf would be NaN
                of_flow = zero
                for part in range(parts):
                    of_flow += numbers[at(job, PARTIAL_FLOW, r) + part * job[HIDDEN] * columns + entry]
                scale = one / divisor(numbers[at(job, REPORT, r) + 2], dtype(job[BATCH]), by_mean)
                total += alpha * scale * of_flow
            numbers[at(job, D_THETA, r) + p] = total

    return combine
