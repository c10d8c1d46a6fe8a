"""Derivatives of any function, by nudging what it is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from naive.arrays import Array

TINY = 1e-20  # the complex step


def complex_step(f: Callable[[Array], Any], x: Array) -> Array:
    """Return the gradient of a complex-safe f at x, one complex step per entry."""
    slope = np.zeros(x.shape)
    for j in range(x.size):
        nudged = x.astype(complex)
        nudged.flat[j] += 1j * TINY
        slope.flat[j] = np.imag(f(nudged)) / TINY
    return slope


def central_difference(f: Callable[[Array], Any], x: Array, h: float = 1e-4) -> Array:
    """Return the gradient of f at x by the four-point central difference; its error is h^4/30 times f's fifth slope."""
    slope = np.zeros(x.shape)
    for j in range(x.size):
        at = []
        for shift in (-2, -1, 1, 2):
            nudged = np.array(x, dtype=np.float64)
            nudged.flat[j] += shift * h
            at.append(f(nudged))
        slope.flat[j] = (at[0] - 8 * at[1] + 8 * at[2] - at[3]) / (12 * h)
    return slope
