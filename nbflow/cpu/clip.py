"""Clipping of whole gradients: norms that neither overflow nor vanish, and what the clip did."""

from __future__ import annotations

import functools

import numpy as np

from nbflow._compile import loop, part

# Powers of two by which a gradient with very large or very small entries is scaled before it is squared: exact, so
# that nothing but the norm depends on them.
SCALES = {
    np.float32: (np.float32(2.0**50), np.float32(2.0**-80), np.float32(2.0**-50), np.float32(2.0**100)),
    np.float64: (2.0**400, 2.0**-600, 2.0**-400, 2.0**600),
}
# Sums are taken block by block: in float32 the error grows with the length of a block and the number of blocks.
BLOCK = 512


@functools.cache
def build_clip(rule_clip, dtype):
    """Build `clip(d, out, thresholds, report)`: d and out (R, P), thresholds (R,), report (R, 6).

    A row of the report: the norms of `scale * d` and of `scale * out`, their product with each other, how many entries
    changed, 1 if all entries of d are finite, and `scale`. A row of d that is not finite is left to the policy.
    """
    large, down, small, up = SCALES[dtype]
    greatest = np.finfo(dtype).max

    @loop(dtype, exact=True)
    def find_largest(row):
        """Return the largest magnitude and whether all entries are finite."""
        largest, finite = dtype(0), True
        for g in row:
            size = abs(g)
            finite &= size <= greatest
            largest = max(largest, size)
        return largest, finite

    @part
    def sum_products(a, b, scale):
        total = dtype(0)
        for start in range(0, a.size, BLOCK):
            block = dtype(0)
            for i in range(start, min(start + BLOCK, a.size)):
                block += (scale * a[i]) * (scale * b[i])
            total += block
        return total

    @loop(rule_clip, dtype)
    def clip(d, out, thresholds, report):
        for r in range(d.shape[0]):
            raw, applied = d[r], out[r]
            largest, finite = find_largest(raw)
            report[r, 4] = dtype(finite)
            if not finite:
                continue
            scale, back = dtype(1), dtype(1)
            if largest > large:
                scale, back = down, dtype(1) / down
            elif largest < small:
                scale, back = up, dtype(1) / up
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
