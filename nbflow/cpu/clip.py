"""Clipping of whole gradients: what each rule does to the entries, and what that did to the gradient."""

from __future__ import annotations

import functools

import numpy as np

from nbflow._compile import loop, part
from nbflow.cpu.norm import build_largest, build_product_sum, build_scale

# The least norm of a unit's weights that a relative threshold is measured against (Brock et al. 2021).
LEAST_WEIGHT_NORM = np.float32(1e-3)


@functools.cache
def build_look(dtype):
    """Build `look(raw, report)`: whether a gradient is finite, and its norm; returns the scale of its entries."""
    find_largest, choose_scale = build_largest(dtype), build_scale(dtype)
    sum_products = build_product_sum(dtype)

    @part
    def look(raw, report):
        largest, finite = find_largest(raw)
        scale = choose_scale(largest)
        report[4], report[5] = dtype(finite), scale
        report[0] = np.sqrt(sum_products(raw, raw, scale)) if finite else dtype(0)
        return scale

    return look


@functools.cache
def build_clip(rule_clip, dtype):
    """Build `clip(d, out, thresholds, report)` for a rule over all entries jointly, or over each alone.

    d and out (R, P), thresholds (R,), report (R, 6). A row of the report: the norms of `scale * d` and `scale * out`,
    their inner product, how many entries were clipped, 1 if all entries of d are finite, and `scale`. A row of d that
    is not finite is left to the policy. `out` may be `d`; then the inner product is that of `out` with itself.
    """
    look, sum_products = build_look(dtype), build_product_sum(dtype)

    @loop(rule_clip, dtype)
    def clip(d, out, thresholds, report):
        for r in range(d.shape[0]):
            raw, applied, row = d[r], out[r], report[r]
            scale = look(raw, row)
            if row[4] == 0:
                continue
            back, norm, threshold = dtype(1) / scale, row[0], thresholds[r] * scale
            changed = 0
            for p in range(raw.size):
                g = raw[p]
                applied[p] = back * rule_clip(scale * g, norm, threshold)
                changed += applied[p] != g
            row[1] = np.sqrt(sum_products(applied, applied, scale))
            row[2] = sum_products(raw, applied, scale)
            row[3] = dtype(changed)

    return clip


@functools.cache
def build_group_clip(rule_clip, relative, dtype):
    """Build `clip(d, out, thresholds, report, theta, groups)` for a rule over groups of entries.

    As above; a group is (first, count, stride) in theta. A `relative` threshold is multiplied by the norm of the
    group's weights. The count in the report is of all entries of the groups that were clipped.
    """
    look, choose_scale, find_largest = build_look(dtype), build_scale(dtype), build_largest(dtype)
    sum_products = build_product_sum(dtype)

    @part
    def norm_of(row, first, count, stride):
        """Return the norm of a group by way of a scale of its own: one block may vanish beside another."""
        entries = row[first : first + (count - 1) * stride + 1 : stride]
        largest, _ = find_largest(entries)
        scale = choose_scale(largest)
        return np.sqrt(sum_products(entries, entries, scale)), scale

    @loop(rule_clip, relative, dtype)
    def clip(d, out, thresholds, report, theta, groups):
        for r in range(d.shape[0]):
            raw, applied, row = d[r], out[r], report[r]
            whole = look(raw, row)
            if row[4] == 0:
                continue
            changed = 0
            for k in range(groups.shape[0]):
                first, count, stride = groups[k]
                norm, scale = norm_of(raw, first, count, stride)
                threshold = thresholds[r]
                if relative:
                    weight, weight_scale = norm_of(theta[r], first, count, stride)
                    threshold = threshold * max(weight / weight_scale, LEAST_WEIGHT_NORM)
                touched = 0
                for i in range(count):
                    p = first + i * stride
                    g = raw[p]
                    applied[p] = (dtype(1) / scale) * rule_clip(scale * g, norm, threshold * scale)
                    touched += applied[p] != g
                if touched > 0:
                    changed += count
            row[1] = np.sqrt(sum_products(applied, applied, whole))
            row[2] = sum_products(raw, applied, whole)
            row[3] = dtype(changed)

    return clip
