"""Parameters that are held: their gradient is 0 whatever it was, and an optimizer leaves them and their slots alone.

Two loops do each: over spans, where these are few, as of blocks; and over all parameters, by a mask. (Blocks of 3,054
parameters add nothing to adam by spans, 1 us by a mask; a scattered half 46 us by spans, 1 us by a mask. Zen 3.)
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from nbflow._compile import exact_loop, exactly, loop, unit
from nbflow.cpu.rows import build_load, build_store

# Parameters for each span from which on spans are taken. Both loops take of 3,054 parameters (adam, every other stretch
# held, Zen 3) 5.3 us by spans and 4.5 by a mask where it is 64, 3.8 and 4.5 where it is 127.
PER_SPAN = 100


def holder(held: Any, dtype: Any) -> Callable[[Any], None]:
    """Return what writes 0 into a gradient (R, P) wherever `held` (R, P) is true, in the place of NaN and Inf too."""
    spans = spans_of(held)
    if _are_few(spans, held):
        return functools.partial(build_hold_spans(dtype), spans)
    return functools.partial(build_hold(dtype), held)


def updater(held: Any, dtype: Any, *sizes: Any) -> Callable[..., None]:
    """Return an optimizer's step as `nbflow.cpu.update` builds it, less what is held (R, P): some of each replica move.

    An update may move a parameter whose gradient is 0, by its weight decay or by a velocity of before.
    """
    spans = spans_of(~held)
    if _are_few(spans, held):
        return functools.partial(build_update_spans(*sizes), spans)
    return functools.partial(build_update_but_held(*sizes), held, np.empty(held.shape, dtype))


def spans_of(mask: Any) -> Any:
    """Return where a mask (R, P) is true: rows of (replica, first, behind the last), in order.

    Unsigned: an index that may be negative is looked at for each number, and the loop is no vector code then.
    """
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    replicas, first = np.nonzero(edges == 1)
    return np.stack([replicas, first, np.nonzero(edges == -1)[1]], axis=1).astype(np.uint64)


def _are_few(spans: Any, held: Any) -> bool:
    return bool(held.size >= PER_SPAN * len(spans))


@functools.cache
def build_hold(dtype):
    """Build `hold(held, d)`: 0 in d (R, P) wherever held (R, P) is true."""
    zero = dtype(0)

    @loop("hold", dtype)
    def hold(held, d):
        for r in range(d.shape[0]):
            row, still = d[r], held[r]
            for p in range(row.size):
                row[p] = zero if still[p] else row[p]

    return hold


@functools.cache
def build_hold_spans(dtype):
    """Build `hold(held, d)`: as above, of spans."""
    zero = dtype(0)

    @loop("hold spans", dtype)
    def hold(held, d):
        for k in range(held.shape[0]):
            for p in range(held[k, 1], held[k, 2]):
                d[held[k, 0], p] = zero

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
    """Build `update(held, room, theta, d, slots, lr, settings, counts, stands)`; `room` (R, P) is overwritten."""
    optimizer_update = exactly(optimizer_update)
    load_slots, store_slots = build_load(slot_count), build_store(slot_count)
    load_settings = build_load(setting_count)

    chosen = build_choice(slot_count)

    @exact_loop("but held", optimizer_update, slot_count, setting_count)
    def update(held, room, theta, d, slots, lr, settings, counts, stands):
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


@functools.cache
def build_update_spans(optimizer_update, slot_count, setting_count):
    """Build `update(moving, theta, d, slots, lr, settings, counts, stands)`: over spans; each replica has one."""
    optimizer_update = exactly(optimizer_update)
    load_slots, store_slots = build_load(slot_count), build_store(slot_count)
    load_settings = build_load(setting_count)

    @exact_loop("spans", optimizer_update, slot_count, setting_count)
    def update(moving, theta, d, slots, lr, settings, counts, stands):
        constants = load_settings(settings, 0, 0)
        for k in range(moving.shape[0]):
            r = moving[k, 0]
            if stands[r]:
                continue
            if k == 0 or r != moving[k - 1, 0]:
                counts[r] += 1
            n = theta.dtype.type(counts[r])
            for p in range(moving[k, 1], moving[k, 2]):
                theta[r, p], kept = optimizer_update(theta[r, p], d[r, p], load_slots(slots, r, p), lr[r], constants, n)
                store_slots(slots, r, p, kept)

    return update
