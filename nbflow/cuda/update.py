"""One step of an optimizer, over all parameters of all replicas that move."""

from __future__ import annotations

import functools

from nbflow._compile import exactly, unit
from nbflow.cpu.report import FINITE, GRADIENT
from nbflow.cuda.clip import MENDED_NORM, WIDTH
from nbflow.cuda.device import cuda, grid
from nbflow.cuda.held import is_held
from nbflow.cuda.job import (
    CLIP_REPORT,
    D_THETA,
    HISTORY,
    LR,
    PARAMETERS,
    REPLICAS,
    REPORT,
    SETTINGS,
    SLOTS,
    STEPS_TAKEN,
    THETA,
    THRESHOLD,
    at,
)
from nbflow.cuda.memory import build_load, build_store
from nbflow.cuda.replica import none_left


@unit
def stands(job, numbers, r):
    """Return whether a replica stays as it is: 0 took the place of its gradient, or of those of all its groups."""
    report = at(job, CLIP_REPORT, r)
    return none_left(job, numbers, r) or (numbers[report + FINITE] == 0 and numbers[report + MENDED_NORM] == 0)


@functools.cache
def build_count():
    """Build the grid `count(job, numbers, integers)`, a thread a replica, that counts a step in STEPS_TAKEN."""

    @grid
    def count(job, numbers, integers):
        r = cuda.grid(1)
        if r < job[REPLICAS] and not stands(job, numbers, r):
            integers[at(job, STEPS_TAKEN, r)] += 1

    return count


@functools.cache
def build_update(optimizer_update, slot_count, setting_count, holding, dtype):
    """Build the grid `update(job, numbers, integers)`, a thread a parameter of a replica; it comes after `count`.

    With `holding`, what HELD says stays as it is.
    """
    optimizer_update = exactly(optimizer_update)
    load_slots, store_slots = build_load(slot_count), build_store(slot_count)
    load_settings = build_load(setting_count)

    @grid
    def update(job, numbers, integers):
        size = job[PARAMETERS]
        i = cuda.grid(1)
        if i < job[REPLICAS] * size and not stands(job, numbers, i // size):
            r, p = i // size, i % size
            if holding and is_held(job, numbers, r, p):
                return
            theta, slots = at(job, THETA, r) + p, at(job, SLOTS, r) + p
            numbers[theta], kept = optimizer_update(
                numbers[theta],
                numbers[at(job, D_THETA, r) + p],
                load_slots(numbers, slots, size),
                numbers[at(job, LR, r)],
                load_settings(numbers, job[SETTINGS], 1),
                dtype(integers[at(job, STEPS_TAKEN, r)]),
            )
            store_slots(numbers, slots, size, kept)

    return update


@functools.cache
def build_keep():
    """Build the grid `keep(job, numbers, row)`, a thread a replica: its reports and threshold to a row of HISTORY."""
    first = len(GRADIENT)

    @grid
    def keep(job, numbers, row):
        r = cuda.grid(1)
        if r < job[REPLICAS]:
            place = at(job, HISTORY, r) + row * (first + WIDTH + 1)
            for column in range(first):
                numbers[place + column] = numbers[at(job, REPORT, r) + column]
            for column in range(WIDTH):
                numbers[place + first + column] = numbers[at(job, CLIP_REPORT, r) + column]
            numbers[place + first + WIDTH] = numbers[at(job, THRESHOLD, r)]

    return keep
