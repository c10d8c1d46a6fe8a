"""Clipping of whole gradients: norms that neither overflow nor vanish, and what the clip did."""

from __future__ import annotations

import functools

import numpy as np

from nbflow._compile import loop
from nbflow.cpu.norm import build_largest, build_product_sum, build_scale


@functools.cache
def build_clip(rule_clip, dtype):
    """Build `clip(d, out, thresholds, report)`: d and out (R, P), thresholds (R,), report (R, 6).

    A row of the report: the norms of `scale * d` and of `scale * out`, their product with each other, how many entries
    changed, 1 if all entries of d are finite, and `scale`. A row of d that is not finite is left to the policy.
    """
    find_largest, choose_scale = build_largest(dtype), build_scale(dtype)
    sum_products = build_product_sum(dtype)

    @loop(rule_clip, dtype)
    def clip(d, out, thresholds, report):
        for r in range(d.shape[0]):
            raw, applied = d[r], out[r]
            largest, finite = find_largest(raw)
            report[r, 4] = dtype(finite)
            if not finite:
                continue
            scale = choose_scale(largest)
            back = dtype(1) / scale
            norm, threshold = np.sqrt(sum_products(raw, raw, scale)), thresholds[r] * scale
            changed = 0
            for p in range(raw.size):
                g = raw[p]
                applied[p] = back * rule_clip(scale * g, norm, threshold)
                changed += applied[p] != g
            report[r, 0] = norm
            report[r, 1] = np.sqrt(sum_products(applied, applied, scale))
            report[r, 2] = sum_products(raw, applied, scale)
            report[r, 3] = dtype(changed)
            report[r, 5] = scale

    return clip
