"""Euclidean norms that neither overflow nor vanish: 1e30 and 1e-30 in float32 are as good as 1."""

from __future__ import annotations

import functools

import numpy as np

from nbflow._compile import exact_part, part

# (above, scale by; below, scale by): powers of two, exact, by which numbers are scaled before they are squared.
SCALES = {
    np.float32: (np.float32(2.0**50), np.float32(2.0**-80), np.float32(2.0**-50), np.float32(2.0**100)),
    np.float64: (2.0**400, 2.0**-600, 2.0**-400, 2.0**600),
}
# Sums are taken block by block: in float32 the error grows with the length of a block and the number of blocks.
BLOCK = 512


@functools.cache
def build_largest(dtype):
    """Build `find_largest(row)`: the largest magnitude, and whether all entries are finite."""
    greatest = np.finfo(dtype).max

    @exact_part
    def find_largest(row):
        largest, finite = dtype(0), True
        for g in row:
            size = abs(g)
            finite &= size <= greatest
            largest = max(largest, size)
        return largest, finite

    return find_largest


@functools.cache
def build_product_sum(dtype):
    """Build `sum_products(a, b, scale)`: the inner product of scale * a and scale * b."""

    @part
    def sum_products(a, b, scale):
        total = dtype(0)
        for start in range(0, a.size, BLOCK):
            block = dtype(0)
            for i in range(start, min(start + BLOCK, a.size)):
                block += (scale * a[i]) * (scale * b[i])
            total += block
        return total

    return sum_products


@functools.cache
def build_scale(dtype):
    """Build `choose_scale(largest)`: the power of two that makes numbers up to `largest` safe to square."""
    large, down, small, up = SCALES[dtype]

    @part
    def choose_scale(largest):
        if largest > large:
            return down
        if largest < small:
            return up
        return dtype(1)

    return choose_scale
