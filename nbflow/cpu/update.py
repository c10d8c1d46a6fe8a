"""One step of an optimizer, over all parameters of all replicas that move."""

from __future__ import annotations

import functools

from nbflow._compile import exact_loop, exactly
from nbflow.cpu.rows import build_load, build_store


@functools.cache
def build_update(optimizer_update, slot_count, setting_count):
    """Build `update(theta, d, slots, lr, settings, counts, stands)`.

    theta, d (R, P); slots (R, K, P); lr (R,); settings (1, number of settings, 1); counts (R,) the int64 numbers of
    steps taken; stands (R,) booleans, of the replicas that keep theta, slots and count. An update stays as its author
    wrote it: regrouped, (1 - b) d d + b s is d d + b (s - d d), NaN where d d overflows.
    """
    optimizer_update = exactly(optimizer_update)
    load_slots, store_slots = build_load(slot_count), build_store(slot_count)
    load_settings = build_load(setting_count)

    @exact_loop(optimizer_update, slot_count, setting_count)
    def update(theta, d, slots, lr, settings, counts, stands):
        constants = load_settings(settings, 0, 0)
        for r in range(theta.shape[0]):
            if stands[r]:
                continue
            counts[r] += 1
            n = theta.dtype.type(counts[r])
            for p in range(theta.shape[1]):
                theta[r, p], kept = optimizer_update(theta[r, p], d[r, p], load_slots(slots, r, p), lr[r], constants, n)
                store_slots(slots, r, p, kept)

    return update
