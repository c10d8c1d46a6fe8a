"""What is done once for a replica: its reports, the norms of its groups, and the sum of its partial gradients."""

from __future__ import annotations

import functools

import numpy as np

from nbflow._compile import unit
from nbflow.cpu.record import EXACT
from nbflow.cpu.report import CLIPPED_GROUPS, CLIPPED_INSIDE, COUNT, LEFT_OUT, LOSS, OMEGA
from nbflow.cpu.rules import divisor, exceeds, shrinking, shrunk
from nbflow.cuda.device import MOST_THREADS, cuda, grid, real_of
from nbflow.cuda.job import (
    ALPHA,
    BATCH,
    COUNTED,
    D_THETA,
    DERIVATIVE,
    GATES,
    GROUP_NORMS,
    GROUP_ROWS,
    GROUP_SKIPS,
    GROUP_THRESHOLD,
    HEARD,
    HIDDEN,
    INSIDE,
    LOSSES,
    N_IN,
    N_OUT,
    PARAMETERS,
    PARTIAL,
    PARTIAL_FLOW,
    PARTIAL_OUT,
    PENALTIES,
    REPLICAS,
    REPORT,
    at,
)
from nbflow.cuda.norm import build_block_finite, build_block_measure, build_block_sum


@unit
def none_left(job, numbers, r):
    """Return whether all groups of a replica were left out."""
    # In their own dtype: float32 beside int64 would be compared in float64. Where nothing was counted is NaN: no count.
    return numbers[at(job, REPORT, r) + LEFT_OUT] == numbers.dtype.type(job[BATCH] // job[GROUP_ROWS])


@functools.cache
def build_report(dtype):
    """Build the grid, a block a replica, that fills REPORT, as if no group were left out or clipped.

    `seen` is what a clip inside back-propagation sees of a step of a sequence, 0 where there is none, and `blocks` how
    many parts its count has.
    """
    block_sum, real, zero = build_block_sum(), real_of(dtype), dtype(0)

    @unit
    def part_inside(job, numbers, integers, r, seen, blocks):
        """Return which part of what the clip inside back-propagation saw it clipped."""
        if seen == 0:
            return zero
        clipped, steps = zero, 0
        for k in range(blocks):
            clipped += numbers[at(job, INSIDE, r) + k]
        for b in range(job[BATCH]):
            steps += integers[at(job, HEARD, r) + b]
        return clipped / dtype(max(steps * seen, 1))

    @grid
    def report(job, numbers, integers, steps, flowing, by_mean, seen, blocks):
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
            numbers[place + LOSS] = loss
            numbers[place + OMEGA] = omega / divisor(counted, dtype(batch), by_mean)
            numbers[place + COUNT] = counted
            numbers[place + LEFT_OUT] = numbers[place + CLIPPED_GROUPS] = zero
            numbers[place + CLIPPED_INSIDE] = part_inside(job, numbers, integers, r, seen, blocks)

    return report


@functools.cache
def build_group_norms(dtype):
    """Build the grid, a block for each group of each replica, that fills GROUP_NORMS from PARTIAL.

    Of the gradient of its mean loss: B / rows times its share.
    """
    measure, finite_of, real = build_block_measure(dtype), build_block_finite(dtype), real_of(dtype)
    zero, one = dtype(0), dtype(1)

    @grid
    def group_norms(job, numbers, groups):
        room = cuda.shared.array(MOST_THREADS, real)
        r, k, size = cuda.blockIdx.x // groups, cuda.blockIdx.x % groups, job[PARAMETERS]
        partial, place = at(job, PARTIAL, r) + k * size, at(job, GROUP_NORMS, r) + 3 * k
        root, scale = measure(numbers, partial, size, 1, room)
        finite = finite_of(numbers, partial, size, 1, room)
        if cuda.threadIdx.x == 0:
            numbers[place] = dtype(job[BATCH] // job[GROUP_ROWS]) * root
            numbers[place + 1] = scale
            numbers[place + 2] = one if finite else zero

    return group_norms


@functools.cache
def build_combine(dtype):
    """Build the grid, a thread a parameter of a replica, that adds the parts up to D_THETA, and alpha times Omega's.

    With `grouped`, a part is a group of sequences, which is scaled where its norm is above the threshold, and left out
    where it is not finite and GROUP_SKIPS says so.
    """
    zero, one, least = dtype(0), dtype(1), np.finfo(dtype).tiny

    @unit
    def left_of(job, numbers, r, group, partial):
        """Return what is left of an entry of a group's gradient (Goodfellow et al. 2016, section 10.11.1)."""
        place, threshold = at(job, GROUP_NORMS, r) + 3 * group, numbers[at(job, GROUP_THRESHOLD, r)]
        root, scale = numbers[place], numbers[place + 1]
        if numbers[place + 2] == 0:
            return zero if job[GROUP_SKIPS] else partial
        if not exceeds(root, scale, threshold):
            return partial
        factor = shrinking(root, threshold)
        return factor * partial if scale == 1 and factor >= least else dtype(shrunk(partial, root, scale, threshold))

    @unit
    def count_groups(job, numbers, r, groups):
        """Fill in how many groups are left out, and how many are clipped."""
        left_out, clipped, threshold = zero, zero, numbers[at(job, GROUP_THRESHOLD, r)]
        for group in range(groups):
            place = at(job, GROUP_NORMS, r) + 3 * group
            if numbers[place + 2] == 0:
                left_out += one if job[GROUP_SKIPS] else zero
            elif exceeds(numbers[place], numbers[place + 1], threshold):
                clipped += one
        numbers[at(job, REPORT, r) + LEFT_OUT] = left_out
        numbers[at(job, REPORT, r) + CLIPPED_GROUPS] = clipped

    @grid
    def combine(job, numbers, parts, grouped, flowing, by_mean):
        size, columns = job[PARAMETERS], job[GATES] * job[HIDDEN]
        i = cuda.grid(1)
        if i < job[REPLICAS] * size:
            r, p = i // size, i % size
            total = zero
            for part in range(parts):
                partial = numbers[at(job, PARTIAL, r) + part * size + p]
                total += left_of(job, numbers, r, part, partial) if grouped else partial
            if grouped and p == 0:
                count_groups(job, numbers, r, parts)
            alpha, entry = numbers[at(job, ALPHA, r)], p - job[N_IN] * columns
            if flowing and alpha != 0 and 0 <= entry < job[HIDDEN] * columns:  # 0 * Inf would be NaN
                of_flow = zero
                for part in range(parts):
                    of_flow += numbers[at(job, PARTIAL_FLOW, r) + part * job[HIDDEN] * columns + entry]
                scale = one / divisor(numbers[at(job, REPORT, r) + 2], dtype(job[BATCH]), by_mean)
                total += alpha * scale * of_flow
            numbers[at(job, D_THETA, r) + p] = total

    return combine


@functools.cache
def build_combine_moving(dtype):
    """Build the grid, a thread a parameter of a replica, that adds up D_THETA where tangents have Omega's part in them.

    What they are beside PARTIAL, of w at w_rec and of u at w_out, has alpha in it too; there is none where alpha is 0.
    """
    zero = dtype(0)

    @unit
    def sum_of(numbers, first, parts, size):
        total = zero
        for part in range(parts):
            total += numbers[first + part * size]
        return total

    @grid
    def combine(job, numbers, parts):
        size, recurrent = job[PARAMETERS], job[HIDDEN] * job[GATES] * job[HIDDEN]
        i = cuda.grid(1)
        if i < job[REPLICAS] * size:
            r, p = i // size, i % size
            total = sum_of(numbers, at(job, PARTIAL, r) + p, parts, size)
            if numbers[at(job, ALPHA, r)] != 0:
                at_w_rec, outputs = p - job[N_IN] * job[GATES] * job[HIDDEN], job[HIDDEN] * job[N_OUT]
                at_w_out = p - (size - outputs - job[N_OUT])
                if 0 <= at_w_rec < recurrent:
                    total += sum_of(numbers, at(job, PARTIAL_FLOW, r) + at_w_rec, parts, recurrent)
                elif job[DERIVATIVE] == EXACT and 0 <= at_w_out < outputs:
                    total += sum_of(numbers, at(job, PARTIAL_OUT, r) + at_w_out, parts, outputs)
            numbers[at(job, D_THETA, r) + p] = total

    return combine
