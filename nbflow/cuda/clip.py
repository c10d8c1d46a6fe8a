"""Clipping of whole gradients on the card: look, apply the rule, look again; then what stands in for a bad gradient.

Reports have the columns of `nbflow.cpu.report`, and two more for a gradient that was not finite: the norm of what took
its place, and the part of its entries that count as clipped (until `mend`, how many were bad).
"""

from __future__ import annotations

import functools

import numpy as np

from nbflow import counter, scalars
from nbflow.cpu.clip import LEAST_WEIGHT_NORM, build_apply
from nbflow.cpu.report import CLIPPED_NORM, CLIPPED_SCALE, COLUMNS, ENTRIES, FINITE, INNER, NORM, SCALE, SHRUNK
from nbflow.cuda.device import MOST_THREADS, cuda, device_part, grid, real_of
from nbflow.cuda.held import is_held
from nbflow.cuda.job import (
    CLIP_REPORT,
    CLIPPED,
    D_THETA,
    GATES,
    HIDDEN,
    IDS,
    N_IN,
    PARAMETERS,
    RAW,
    SPANS,
    STEP_LENGTH,
    THETA,
    THRESHOLD,
    at,
)
from nbflow.cuda.norm import build_block_finite, build_block_inner, build_block_measure, build_block_sum

MENDED_NORM, MENDED_FRACTION = len(COLUMNS), len(COLUMNS) + 1
WIDTH = len(COLUMNS) + 2
# Values of `policy`. "raise" does nothing on the card: the host looks at the report, and raises.
POLICIES = {"keep": 0, "raise": 0, "random": 1, "skip": 2, "zero": 3, "shrink": 4}
KEEP, RANDOM, SKIP, ZERO, SHRINK = range(5)
# Entries of a chunk, where a rule looks at each entry alone.
CHUNK = 16 if MOST_THREADS < 32 else 4096


@functools.cache
def build_look(dtype):
    """Build the grids `look_before(job, numbers, policy)` and `look_after(job, numbers, spans, policy)`.

    A block a replica. With policy "zero" the first sets bad entries to 0, and the rest is clipped like any gradient.
    """
    finite_of, inner, measure = build_block_finite(dtype), build_block_inner(dtype), build_block_measure(dtype)
    block_sum, real, zero, one = build_block_sum(), real_of(dtype), dtype(0), dtype(1)
    greatest = np.finfo(dtype).max

    @device_part
    def clean(numbers, d, size, room):
        """Set bad entries to 0; return how many there were."""
        bad = zero
        for p in range(cuda.threadIdx.x, size, cuda.blockDim.x):
            if not abs(numbers[d + p]) <= greatest:
                numbers[d + p] = zero
                bad += one
        return block_sum(bad, room)

    @grid
    def look_before(job, numbers, policy):
        """Fill FINITE, NORM and SCALE, and keep the raw gradient."""
        room = cuda.shared.array(MOST_THREADS, real)
        r, size = cuda.blockIdx.x, job[PARAMETERS]
        d, raw, report = at(job, D_THETA, r), at(job, RAW, r), at(job, CLIP_REPORT, r)
        for p in range(cuda.threadIdx.x, size, cuda.blockDim.x):
            numbers[raw + p] = numbers[d + p]
        finite = finite_of(numbers, d, size, 1, room)
        root, scale, bad = one, one, zero
        if not finite and policy == ZERO:
            bad = clean(numbers, d, size, room)
        if finite or policy == ZERO:
            root, scale = measure(numbers, d, size, 1, room)
        if cuda.threadIdx.x == 0:
            for column in range(WIDTH):
                numbers[report + column] = one
            numbers[report + FINITE] = one if finite else zero
            numbers[report + NORM] = root
            numbers[report + SCALE] = scale
            numbers[report + ENTRIES] = zero
            numbers[report + MENDED_FRACTION] = bad

    @grid
    def look_after(job, numbers, spans, policy):
        """Fill the rest of the report of what was clipped."""
        room = cuda.shared.array(MOST_THREADS, real)
        r, size = cuda.blockIdx.x, job[PARAMETERS]
        d, raw, report = at(job, D_THETA, r), at(job, RAW, r), at(job, CLIP_REPORT, r)
        finite = numbers[report + FINITE] != 0
        if finite or policy == ZERO:
            root, scale = measure(numbers, d, size, 1, room)
            product = zero
            if finite:
                product = inner(numbers, raw, numbers[report + SCALE], d, scale, size, 1, room)
            entries = zero
            for k in range(cuda.threadIdx.x, spans, cuda.blockDim.x):
                entries += numbers[at(job, CLIPPED, r) + k]
            entries = block_sum(entries, room)
            if cuda.threadIdx.x == 0:
                numbers[report + CLIPPED_NORM] = root
                numbers[report + CLIPPED_SCALE] = scale
                numbers[report + INNER] = product
                numbers[report + ENTRIES] = entries

    return look_before, look_after


@functools.cache
def build_bounds(over):
    """Build `bounds(job, integers, k)`: first, count and stride of a span, or of a chunk of what has no spans."""
    grouped = over not in ("all", "entry")

    @device_part
    def bounds(job, integers, k):
        if grouped:
            span = job[SPANS] + 3 * k
            return integers[span], integers[span + 1], integers[span + 2]
        return k * CHUNK, min(CHUNK, job[PARAMETERS] - k * CHUNK), 1

    return bounds


@functools.cache
def build_rule(rule_clip, over, relative, dtype):
    """Build the grid `rule(job, numbers, integers, blocks, policy)`, which clips D_THETA and fills CLIPPED.

    A block a replica and span, or chunk. A row that is not finite is left alone. For "all" and "entry" the gradient is
    cut into chunks; for "block" and "unit" each span is measured, and counted whole if one of its entries changed.
    """
    apply, measure, block_sum = build_apply(rule_clip, dtype), build_block_measure(dtype), build_block_sum()
    real, zero, one = real_of(dtype), dtype(0), dtype(1)
    least, most = np.float64(np.finfo(dtype).tiny), np.float64(np.finfo(dtype).max)
    least_weight_norm = np.float64(LEAST_WEIGHT_NORM)
    grouped, jointly, bounds = over not in ("all", "entry"), over == "all", build_bounds(over)

    @grid
    def rule(job, numbers, integers, blocks, policy):
        room = cuda.shared.array(MOST_THREADS, real)
        r, k = cuda.blockIdx.x // blocks, cuda.blockIdx.x % blocks
        report, threshold = at(job, CLIP_REPORT, r), numbers[at(job, THRESHOLD, r)]
        wide = np.float64(threshold)
        if numbers[report + FINITE] == 0 and policy != ZERO:
            return
        first, count, stride = bounds(job, integers, k)
        d = at(job, D_THETA, r) + first
        root, scale = numbers[report + NORM], numbers[report + SCALE] if jointly else one
        if grouped:
            root, scale = measure(numbers, d, count, stride, room)
            if relative:
                weight, weight_scale = measure(numbers, at(job, THETA, r) + first, count, stride, room)
                wide *= max(np.float64(weight) / np.float64(weight_scale), least_weight_norm)
                threshold = dtype(wide)
        # A product of two numbers may be none of the dtype.
        held = not relative or least <= wide <= most or wide == np.inf
        touched = zero
        for i in range(cuda.threadIdx.x, count, cuda.blockDim.x):
            g = numbers[d + i * stride]
            if held:
                clipped = apply(g, root, scale, threshold)
            else:
                clipped = dtype(apply(np.float64(g), np.float64(root), np.float64(scale), wide))
            numbers[d + i * stride] = clipped
            if clipped != g:
                touched += one
        touched = block_sum(touched, room)
        if cuda.threadIdx.x == 0:
            whole = dtype(count) if touched > 0 else zero
            numbers[at(job, CLIPPED, r) + k] = whole if grouped else touched

    return rule


@functools.cache
def build_random_step(holding):
    """Build `random_step(job, numbers, r, length, stream, room)`: D_THETA of a replica, in a random direction.

    With `holding`, in one of those that leave out what HELD says.

    `stream` is (seed, purpose, number of the replica, index). In float64, as `nbflow.clipping.random_step`; `room` is
    shared memory for float64.
    """
    block_sum = build_block_sum()

    @device_part
    def four_normals(stream, n):
        w0, w1, w2, w3 = counter.draw(*stream, 0, n)
        first, second = counter.normal_pair(w0, w1), counter.normal_pair(w2, w3)
        return first[0], first[1], second[0], second[1]

    @device_part
    def random_step(job, numbers, r, length, stream, room):
        size, d = job[PARAMETERS], at(job, D_THETA, r)
        total = 0.0
        for n in range(cuda.threadIdx.x, (size + 3) // 4, cuda.blockDim.x):
            four = four_normals(stream, n)
            for k in range(min(4, size - 4 * n)):
                if not (holding and is_held(job, numbers, r, 4 * n + k)):
                    total += four[k] * four[k]
        factor = length / scalars.sqrt(block_sum(total, room))
        for n in range(cuda.threadIdx.x, (size + 3) // 4, cuda.blockDim.x):
            four = four_normals(stream, n)
            for k in range(min(4, size - 4 * n)):
                still = holding and is_held(job, numbers, r, 4 * n + k)
                numbers[d + 4 * n + k] = 0.0 if still else four[k] * factor
        cuda.syncthreads()

    return random_step


@functools.cache
def build_mend(jointly, random, holding, sized, dtype):
    """Build the grid `mend(job, numbers, integers, policy, seed, index)`, a block a replica; it comes after the rule.

    A random step where the rule asks for one, and the policy's replacement of a gradient that is not finite. With
    `holding`, neither moves what HELD says; if `sized`, STEP_LENGTH says how long a step is, and not the threshold.
    """
    random_step, measure, inner = build_random_step(holding), build_block_measure(dtype), build_block_inner(dtype)
    real, zero, one, double = real_of(dtype), dtype(0), dtype(1), real_of(np.float64)

    @device_part
    def replace(job, numbers, r, policy):
        """Write what policies "skip" and "shrink" put in the place of a gradient."""
        size, columns = job[PARAMETERS], job[GATES] * job[HIDDEN]
        d, theta, w_rec = at(job, D_THETA, r), at(job, THETA, r), job[N_IN] * columns
        for p in range(cuda.threadIdx.x, size, cuda.blockDim.x):
            kept = policy == SHRINK and w_rec <= p < w_rec + job[HIDDEN] * columns
            if holding and is_held(job, numbers, r, p):
                kept = False
            numbers[d + p] = dtype(SHRUNK) * numbers[theta + p] if kept else zero
        cuda.syncthreads()

    @grid
    def mend(job, numbers, integers, policy, seed, index):
        room = cuda.shared.array(MOST_THREADS, real)
        wide = cuda.shared.array(MOST_THREADS, double)
        r, size = cuda.blockIdx.x, job[PARAMETERS]
        d, raw, report = at(job, D_THETA, r), at(job, RAW, r), at(job, CLIP_REPORT, r)
        finite, entries = numbers[report + FINITE] != 0, numbers[report + ENTRIES]
        bad, length = numbers[report + MENDED_FRACTION], numbers[at(job, STEP_LENGTH if sized else THRESHOLD, r)]
        at_random = random and entries > 0 and (finite or policy == ZERO)
        if finite and not at_random:
            return
        if at_random or policy == RANDOM:
            stream = seed, counter.DIRECTION, integers[at(job, IDS, r)], index
            random_step(job, numbers, r, np.float64(length), stream, wide)
        elif policy in (SKIP, SHRINK):
            replace(job, numbers, r, policy)
        root, scale = measure(numbers, d, size, 1, room)
        product = zero
        if finite:
            product = inner(numbers, raw, numbers[report + SCALE], d, scale, size, 1, room)
        if cuda.threadIdx.x == 0:
            numbers[report + CLIPPED_NORM] = root
            numbers[report + CLIPPED_SCALE] = scale
            numbers[report + INNER] = product
            numbers[report + MENDED_NORM] = root / scale
            if finite:
                numbers[report + ENTRIES] = dtype(size)
            elif policy == KEEP:
                numbers[report + MENDED_FRACTION] = zero
            elif policy == ZERO and not jointly:
                numbers[report + MENDED_FRACTION] = min(one, (bad + entries) / dtype(size))
            else:
                numbers[report + MENDED_FRACTION] = one

    return mend
