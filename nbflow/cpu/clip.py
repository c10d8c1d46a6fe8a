"""Clipping of whole gradients: what each rule does to the entries, and what that did to the gradient."""

from __future__ import annotations

import functools

import numpy as np

from nbflow._compile import loop, part
from nbflow.cpu.norm import build_examine, build_inner, build_measure
from nbflow.cpu.report import CLIPPED_NORM, CLIPPED_SCALE, ENTRIES, FINITE, INNER, NORM, SCALE

# The least norm of a unit's weights that a relative threshold is measured against (Brock et al. 2021).
LEAST_WEIGHT_NORM = np.float32(1e-3)


@functools.cache
def build_look(dtype):
    """Build `look_before(raw, report)` and `look_after(raw, applied, entries, report)`: a row of a report."""
    examine, inner, measure = build_examine(dtype), build_inner(dtype), build_measure(dtype)

    @part
    def look_before(raw, report):
        """Return whether a gradient is finite."""
        root, scale, finite = examine(raw)
        report[FINITE] = dtype(finite)
        if finite:
            report[NORM], report[SCALE] = root, scale
        return finite

    @part
    def look_after(raw, applied, entries, report):
        report[CLIPPED_NORM], report[CLIPPED_SCALE] = measure(applied)
        report[INNER] = inner(raw, report[SCALE], applied, report[CLIPPED_SCALE])
        report[ENTRIES] = dtype(entries)

    return look_before, look_after


@functools.cache
def build_apply(rule_clip, dtype):
    """Build `apply(g, root, scale, threshold)`: a rule applied to one entry, for any size of the norm root / scale."""
    greatest = np.finfo(np.float64).max
    # By how much everything is divided where even a float64 cannot hold the norm.
    shrink = np.float64(2.0**-64)

    @part
    def apply(g, root, scale, threshold):
        if scale == 1:
            return rule_clip(g, root, threshold)
        norm = np.float64(root) / np.float64(scale)
        if norm <= greatest:
            return dtype(rule_clip(np.float64(g), norm, np.float64(threshold)))
        norm = (shrink * np.float64(root)) / np.float64(scale)
        return dtype(rule_clip(shrink * np.float64(g), norm, shrink * np.float64(threshold)) / shrink)

    return apply


@functools.cache
def build_clip(rule_clip, over, dtype):
    """Build `clip(d, out, thresholds, report)` for a rule over all entries jointly, or over each alone.

    d and out (R, P), thresholds (R,), report (R, columns of `nbflow.cpu.report`). A row of d that is not finite is
    left to the policy. `out` must not be `d`: the report compares the two.
    """
    look_before, look_after = build_look(dtype)
    apply, one = build_apply(rule_clip, dtype), dtype(1)
    jointly = over == "all"

    @loop(rule_clip, jointly, dtype)
    def clip(d, out, thresholds, report):
        for r in range(d.shape[0]):
            raw, applied, row = d[r], out[r], report[r]
            if not look_before(raw, row):
                continue
            root, scale, entries = row[NORM], row[SCALE] if jointly else one, 0
            for p in range(raw.size):
                g = raw[p]
                applied[p] = apply(g, root, scale, thresholds[r])
                entries += applied[p] != g
            look_after(raw, applied, entries, row)

    return clip


@functools.cache
def build_clip_one(rule_clip, relative, dtype):
    """Build `clip_one(raw, applied, theta, first, count, stride, threshold)`: a rule over a span of a gradient.

    It returns how many entries were clipped: all of the span, or none.
    """
    measure, apply = build_measure(dtype), build_apply(rule_clip, dtype)
    least, most = np.float64(np.finfo(dtype).tiny), np.float64(np.finfo(dtype).max)

    @part
    def measure_span(row, first, count, stride):
        return measure(row[first : first + (count - 1) * stride + 1 : stride])

    @part
    def clip_one(raw, applied, theta, first, count, stride, threshold):
        root, scale = measure_span(raw, first, count, stride)
        wide = np.float64(threshold)
        if relative:
            weight, weight_scale = measure_span(theta, first, count, stride)
            wide *= max(np.float64(weight) / np.float64(weight_scale), np.float64(LEAST_WEIGHT_NORM))
            threshold = dtype(wide)
        # A product of two numbers may be none of the dtype.
        held = not relative or least <= wide <= most or wide == np.inf
        touched = 0
        for p in range(first, first + count * stride, stride):
            g = raw[p]
            if held:
                applied[p] = apply(g, root, scale, threshold)
            else:
                applied[p] = dtype(apply(np.float64(g), np.float64(root), np.float64(scale), wide))
            touched += applied[p] != g
        return count if touched > 0 else 0

    return clip_one


@functools.cache
def build_span_clip(rule_clip, relative, dtype):
    """Build `clip(d, out, thresholds, report, theta, spans)` for a rule that measures spans of entries.

    As above; a span is (first, count, stride) in theta. A `relative` threshold is multiplied by the norm of the
    span's weights. The entries in the report are all those of the spans that were clipped.
    """
    look_before, look_after = build_look(dtype)
    clip_one = build_clip_one(rule_clip, relative, dtype)

    @loop(rule_clip, relative, dtype)
    def clip(d, out, thresholds, report, theta, spans):
        for r in range(d.shape[0]):
            raw, applied, row = d[r], out[r], report[r]
            if not look_before(raw, row):
                continue
            entries = 0
            for k in range(spans.shape[0]):
                first, count, stride = spans[k]
                entries += clip_one(raw, applied, theta[r], first, count, stride, thresholds[r])
            look_after(raw, applied, entries, row)

    return clip
