"""Thresholds that follow the norms: measure, ask, learn, for every replica."""

from __future__ import annotations

import functools

import numpy as np

from nbflow import _check
from nbflow._compile import bounded, exact_part, exact_unit, loop, part
from nbflow.cpu.norm import build_examine
from nbflow.cpu.rows import build_load


@exact_unit
def forget(norm, memory, settings):
    """Learn nothing."""


@functools.cache
def build_held(dtype):
    """Build `held(threshold)`: what is asked for as the network's dtype holds it, and whether it is a threshold.

    0 leaves nothing and Inf is no threshold at all, and they stay so; a hair below 0 is 0.
    """
    greatest, dust = np.finfo(np.float64).max, -_check.DUST
    least, most = np.float64(np.finfo(dtype).tiny), np.float64(np.finfo(dtype).max)

    @exact_part
    def held(threshold):
        if dust <= threshold <= 0.0:
            threshold = 0.0
        kept = threshold == 0.0 or threshold > greatest
        return dtype(threshold if kept else min(max(threshold, least), most)), threshold >= 0

    return held


@functools.cache
def build_ask(value, setting_count, dtype):
    """Build `ask(memory, settings, update, thresholds)`: thresholds (R,) before there are norms; whether all are some.

    `value` is told a norm of 0. memory, settings and update as below.
    """
    held, load_settings, value = build_held(dtype), build_load(setting_count), bounded(value)

    @loop(value, setting_count, dtype)
    def ask(memory, settings, update, thresholds):
        good = True
        for r in range(memory.shape[0]):
            thresholds[r], is_one = held(value(0.0, memory[r], load_settings(settings, r, 0), update))
            good &= is_one
        return good

    return ask


@functools.cache
def build_learn_each(learn, setting_count):
    """Build `learn_each(norms, stands, memory, settings)`: every finite norm (R, n), in order, but of what stands."""
    load_settings, enter = build_load(setting_count), forget if learn is None else bounded(learn)
    greatest = np.finfo(np.float64).max

    @loop(enter, setting_count)
    def learn_each(norms, stands, memory, settings):
        for r in range(norms.shape[0]):
            constants = load_settings(settings, r, 0)
            for k in range(norms.shape[1]):
                if not stands[r] and norms[r, k] <= greatest:
                    enter(norms[r, k], memory[r], constants)

    return learn_each


@functools.cache
def build_follow(value, learn, learns_first, setting_count, dtype):
    """Build `follow(d, memory, settings, update, thresholds)`, which returns whether every threshold is one.

    d (R, P); memory (R, K), settings (R, number of settings, 1) in float64; thresholds (R,); update an integer. A norm
    that is not finite, or that no float64 holds, is not learnt, and counts as Inf where the threshold is asked.
    """
    examine, load_settings = build_examine(dtype), build_load(setting_count)
    value, enter = bounded(value), forget if learn is None else bounded(learn)
    greatest, held = np.finfo(np.float64).max, build_held(dtype)

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
            thresholds[r], is_one = held(value(norm, memory[r], constants, update))
            if not learns_first and known:
                enter(norm, memory[r], constants)
            good &= is_one
        return good

    return follow
