"""Parameters that are held: their gradient is 0 whatever it was, and an optimizer leaves them and their slots alone."""

from __future__ import annotations

import functools

from nbflow._compile import exact_loop, exactly, loop, unit
from nbflow.cpu.rows import build_load, build_store


@functools.cache
def build_hold(dtype):
    """Build `hold(d, held)`: 0 in d (R, P) wherever held (R, P) is true, in the place of NaN and Inf too."""
    zero = dtype(0)

    @loop("hold", dtype)
    def hold(d, held):
        for r in range(d.shape[0]):
            row, still = d[r], held[r]
            for p in range(row.size):
                row[p] = zero if still[p] else row[p]

    return hold


@unit
def _choose_none(still, before, after):
    return ()


@functools.cache
def build_choice(count):
    """Build `choice(still, before, after)`: one of two tuples of `count` numbers, number by number."""
    if count == 0:
        return _choose_none
    last = count - 1
    others = build_choice(last)

    @unit
    def choice(still, before, after):
        number = before[last] if still else after[last]
        return (*others(still, before, after), number)

    return choice


@functools.cache
def build_update_but_held(optimizer_update, slot_count, setting_count):
    """Build `update(theta, d, slots, lr, settings, counts, stands, held, room)`: as `nbflow.cpu.update`, less the held.

    An update may move a parameter whose gradient is 0, by its weight decay or by a velocity of before. `room` (R, P) is
    overwritten.
    """
    optimizer_update = exactly(optimizer_update)
    load_slots, store_slots = build_load(slot_count), build_store(slot_count)
    load_settings = build_load(setting_count)

    chosen = build_choice(slot_count)

    @exact_loop("but held", optimizer_update, slot_count, setting_count)
    def update(theta, d, slots, lr, settings, counts, stands, held, room):
        constants = load_settings(settings, 0, 0)
        for r in range(theta.shape[0]):
            if stands[r]:
                continue
            counts[r] += 1
            n = theta.dtype.type(counts[r])
            # What stays is read from a copy: written back from where it lies it becomes a store under a mask, which is
            # slow on AMD's processors (plain descent, P = 3,054, Zen 3: a call takes 2.8 us, by a copy 1.7).
            before, now = room[r], theta[r]
            for p in range(now.size):
                before[p] = now[p]
            for p in range(now.size):
                slots_before, still = load_slots(slots, r, p), held[r, p]
                moved, kept = optimizer_update(now[p], d[r, p], slots_before, lr[r], constants, n)
                now[p] = before[p] if still else moved
                store_slots(slots, r, p, chosen(still, slots_before, kept))

    return update
