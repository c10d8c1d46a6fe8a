"""Thresholds that follow the norms: measure, ask, learn, for every replica."""

from __future__ import annotations

import functools

import numpy as np

from nbflow import _check
from nbflow._compile import bounded, exact_unit, loop, part
from nbflow.cpu.norm import build_examine
from nbflow.cpu.rows import build_load


@exact_unit
def forget(norm, memory, settings):
    """Learn nothing."""


@functools.cache
def build_follow(value, learn, learns_first, setting_count, dtype):
    """Build `follow(d, memory, settings, update, thresholds)`, which returns whether every threshold is one.

    d (R, P); memory (R, K), settings (R, number of settings, 1) in float64; thresholds (R,); update an integer. A norm
    that is not finite, or that no float64 holds, is not learnt, and counts as Inf where the threshold is asked.
    """
    examine, load_settings = build_examine(dtype), build_load(setting_count)
    value, enter = bounded(value), forget if learn is None else bounded(learn)
    greatest, dust = np.finfo(np.float64).max, -_check.DUST
    least, most = np.float64(np.finfo(dtype).tiny), np.float64(np.finfo(dtype).max)

    @part
    def joint_norm(row):
        root, scale, finite = examine(row)
        return np.float64(root) / np.float64(scale) if finite else np.inf

    @loop(value, enter, learns_first, setting_count, dtype)
    def follow(d, memory, settings, update, thresholds):
        good = True
        for r in range(d.shape[0]):
            norm, constants = joint_norm(d[r]), load_settings(settings, r, 0)
            known = norm <= greatest
            if learns_first and known:
                enter(norm, memory[r], constants)
            threshold = value(norm, memory[r], constants, update)
            if dust <= threshold <= 0.0:
                threshold = 0.0
            if not learns_first and known:
                enter(norm, memory[r], constants)
            good &= threshold >= 0
            # What the network's dtype holds; 0 leaves nothing and Inf is no threshold at all, and they stay so.
            kept = threshold == 0.0 or threshold > greatest
            thresholds[r] = dtype(threshold if kept else min(max(threshold, least), most))
        return good

    return follow
