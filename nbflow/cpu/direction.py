"""A random direction, from the counter stream: the same for the same seed, replica and update."""

from __future__ import annotations

import functools

from nbflow import counter
from nbflow._compile import loop


@functools.cache
def build_normals():
    """Build `normals(out, seed, replica, index)`, which fills out (P,) with independent standard normals."""

    @loop("normals")
    def normals(out, seed, replica, index):
        for n in range((out.size + 3) // 4):
            w0, w1, w2, w3 = counter.draw(seed, counter.DIRECTION, replica, index, 0, n)
            first, second = counter.normal_pair(w0, w1), counter.normal_pair(w2, w3)
            four = (first[0], first[1], second[0], second[1])
            for k in range(min(4, out.size - 4 * n)):
                out[4 * n + k] = four[k]

    return normals
