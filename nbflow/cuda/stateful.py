"""Rules of clipping that remember, on the card: the same units as on the CPU, with numbers of every parameter.

What is learnt stands in RULE_FRESH until the step is taken, as in `nbflow.cpu.stateful`.
"""

from __future__ import annotations

import functools

import numpy as np

from nbflow._compile import exactly
from nbflow.cpu.report import FINITE
from nbflow.cpu.stateful import itself
from nbflow.cuda.clip import ZERO, build_bounds
from nbflow.cuda.device import MOST_THREADS, cuda, device_part, grid, real_of
from nbflow.cuda.job import (
    CLIP_REPORT,
    CLIPPED,
    D_THETA,
    LEARNT,
    MEASURED,
    MEASURED_NORM,
    PARAMETERS,
    REPLICAS,
    RULE_FRESH,
    RULE_SETTINGS,
    RULE_SLOTS,
    THRESHOLD,
    at,
)
from nbflow.cuda.memory import build_load, build_store
from nbflow.cuda.norm import build_block_measure, build_block_sum
from nbflow.cuda.update import stands


@functools.cache
def build_measured(measured, slot_count, dtype):
    """Build the grid `measured(job, numbers)`, a thread a parameter of a replica, that fills MEASURED."""
    measured, load_slots = exactly(measured or itself), build_load(slot_count)

    @grid
    def fill(job, numbers):
        size, i = job[PARAMETERS], cuda.grid(1)
        if i < job[REPLICAS] * size:
            r, p = i // size, i % size
            slots = load_slots(numbers, at(job, RULE_SLOTS, r) + p, size)
            g = np.float64(numbers[at(job, D_THETA, r) + p])
            numbers[at(job, MEASURED, r) + p] = dtype(measured(g, slots))

    return fill


@functools.cache
def build_joint(dtype):
    """Build the grid `joint(job, numbers)`, a block a replica: the norm of MEASURED as root and scale."""
    measure, real = build_block_measure(dtype), real_of(dtype)

    @grid
    def joint(job, numbers):
        room = cuda.shared.array(MOST_THREADS, real)
        r = cuda.blockIdx.x
        root, scale = measure(numbers, at(job, MEASURED, r), job[PARAMETERS], 1, room)
        if cuda.threadIdx.x == 0:
            place = at(job, MEASURED_NORM, r)
            numbers[place], numbers[place + 1] = root, scale

    return joint


@functools.cache
def build_stateful_rule(rule_clip, over, slot_count, setting_count, dtype):
    """Build the grid `rule(job, numbers, integers, blocks, policy)`, as in `nbflow.cuda.clip`; it fills RULE_FRESH."""
    rule_clip, bounds = exactly(rule_clip), build_bounds(over)
    measure, block_sum = build_block_measure(dtype), build_block_sum()
    load_slots, store_slots, load_settings = build_load(slot_count), build_store(slot_count), build_load(setting_count)
    real, zero, one, grouped = real_of(dtype), dtype(0), dtype(1), over not in ("all", "entry")
    greatest, most = np.finfo(np.float64).max, dtype(np.finfo(dtype).max)

    @device_part
    def hold(numbers, place, size):
        """Keep the slots of an entry in the range of numbers."""
        for k in range(slot_count):
            kept = numbers[place + k * size]
            if kept > most:
                numbers[place + k * size] = most
            elif kept < -most:
                numbers[place + k * size] = -most

    @grid
    def rule(job, numbers, integers, blocks, policy):
        room = cuda.shared.array(MOST_THREADS, real)
        r, k = cuda.blockIdx.x // blocks, cuda.blockIdx.x % blocks
        size = job[PARAMETERS]
        if numbers[at(job, CLIP_REPORT, r) + FINITE] == 0 and policy != ZERO:
            return
        first, count, stride = bounds(job, integers, k)
        place = at(job, MEASURED_NORM, r)
        joint = min(np.float64(numbers[place]) / np.float64(numbers[place + 1]), greatest)
        norm = joint
        if grouped:
            root, scale = measure(numbers, at(job, MEASURED, r) + first, count, stride, room)
            norm = min(np.float64(root) / np.float64(scale), greatest)
        threshold, n = np.float64(numbers[at(job, THRESHOLD, r)]), np.float64(integers[at(job, LEARNT, r)] + 1)
        settings, touched = load_settings(numbers, job[RULE_SETTINGS], 1), zero
        for i in range(cuda.threadIdx.x, count, cuda.blockDim.x):
            p = first + i * stride
            g = numbers[at(job, D_THETA, r) + p]
            slots = load_slots(numbers, at(job, RULE_SLOTS, r) + p, size)
            found, kept = rule_clip(np.float64(g), norm, joint, threshold, slots, settings, n)
            numbers[at(job, D_THETA, r) + p] = dtype(found)
            store_slots(numbers, at(job, RULE_FRESH, r) + p, size, kept)
            hold(numbers, at(job, RULE_FRESH, r) + p, size)
            if dtype(found) != g:
                touched += one
        touched = block_sum(touched, room)
        if cuda.threadIdx.x == 0:
            whole = dtype(count) if touched > 0 else zero
            numbers[at(job, CLIPPED, r) + k] = whole if grouped else touched

    return rule


@functools.cache
def build_settle(slot_count):
    """Build the grid `settle(job, numbers, integers)`, a thread a parameter, that keeps what was learnt."""

    @grid
    def settle(job, numbers, integers):
        size, i = job[PARAMETERS], cuda.grid(1)
        if i >= job[REPLICAS] * size:
            return
        r, p = i // size, i % size
        if numbers[at(job, CLIP_REPORT, r) + FINITE] == 0 or stands(job, numbers, r):
            return
        slots, fresh = at(job, RULE_SLOTS, r) + p, at(job, RULE_FRESH, r) + p
        for k in range(slot_count):
            numbers[slots + k * size] = numbers[fresh + k * size]
        if p == 0:
            integers[at(job, LEARNT, r)] += 1

    return settle
