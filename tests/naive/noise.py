"""Noise of the units, number by number."""

from __future__ import annotations

import math

import numpy as np

from naive.arrays import Array
from naive.counter import draw


def normal(words: tuple[int, int, int, int], k: int) -> float:
    """Return the k-th of four standard normals that four words make (Box & Muller 1958)."""
    first, second = words[:2] if k < 2 else words[2:]
    radius = math.sqrt(-2.0 * math.log((first + 1) / 2**32))
    angle = 2.0 * math.pi * second / 2**32
    return radius * (math.cos(angle) if k % 2 == 0 else math.sin(angle))


def noise(
    seed: int, purpose: int, replica: int, index: int, shape: tuple[int, ...], below: int = 0, above: int = 0
) -> Array:
    """Return standard normals of shape (T,B,G,H), of which each depends on where it stands alone.

    A step has G * ceil(H / 4) blocks of four; `below` and `above` are those of the other layers of a stack.
    """
    T, B, G, H = shape
    each = math.ceil(H / 4)
    found = np.zeros(shape)
    for t, b, g, j in np.ndindex(*shape):
        block = t * (below + G * each + above) + below + g * each + j // 4
        found[t, b, g, j] = normal(draw(seed, purpose, replica, index, b, block), j % 4)
    return found
