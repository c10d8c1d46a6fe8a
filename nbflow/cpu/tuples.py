"""Units of tuples of numbers, one number at a time: for derivatives by complex steps and by differences.

np.complex128, and not complex: without the JIT a complex of Python's and a constant in float32 make a complex64.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from nbflow._compile import unit

STEP = 1e-30


@unit
def nothing(*arguments):
    """Return the tuple of no numbers."""
    return ()


@functools.cache
def build_pick(first: int, count: int) -> Any:
    """Build `pick(numbers)`: the tuple of `count` numbers from `first` on."""
    if count == 0:
        return nothing
    before, last = build_pick(first, count - 1), first + count - 1

    @unit
    def pick(numbers):
        return (*before(numbers), numbers[last])

    return pick


@functools.cache
def build_nudge(count: int, k: int) -> Any:
    """Build `nudge(numbers)`: the numbers as complex ones, number k with an imaginary step (none for k = -1)."""
    if count == 0:
        return nothing
    before, last, step = build_nudge(count - 1, k), count - 1, STEP if count - 1 == k else 0.0

    @unit
    def nudge(numbers):
        return (*before(numbers), np.complex128(complex(numbers[last], step)))

    return nudge


@functools.cache
def build_toward(count: int) -> Any:
    """Build `toward(numbers, dots)`: numbers + i STEP dots."""
    if count == 0:
        return nothing
    before, last, step = build_toward(count - 1), count - 1, STEP

    @unit
    def toward(numbers, dots):
        return (*before(numbers, dots), np.complex128(complex(numbers[last], step * dots[last])))

    return toward


@functools.cache
def build_moved(count: int) -> Any:
    """Build `moved(numbers, dots, far)`: numbers + far * dots."""
    if count == 0:
        return nothing
    before, last = build_moved(count - 1), count - 1

    @unit
    def moved(numbers, dots, far):
        return (*before(numbers, dots, far), numbers[last] + far * dots[last])

    return moved


@functools.cache
def build_slopes(count: int) -> Any:
    """Build `slopes(numbers)`: imaginary parts over STEP."""
    if count == 0:
        return nothing
    before, last, step = build_slopes(count - 1), count - 1, STEP

    @unit
    def slopes(numbers):
        return (*before(numbers), numbers[last].imag / step)

    return slopes


@unit
def _zero_inner(new, d):
    return 0.0


@functools.cache
def build_inner(count: int) -> Any:
    """Build `inner(new, d)`: the sum of d times the slopes of `new`."""
    if count == 0:
        return _zero_inner
    before, last, step = build_inner(count - 1), count - 1, STEP

    @unit
    def inner(new, d):
        return before(new, d) + new[last].imag / step * d[last]

    return inner


@unit
def _zero_largest(numbers):
    return 0.0


@functools.cache
def build_largest(count: int) -> Any:
    """Build `largest(numbers)`: the largest absolute value."""
    if count == 0:
        return _zero_largest
    before, last = build_largest(count - 1), count - 1

    @unit
    def largest(numbers):
        return max(before(numbers), abs(numbers[last]))

    return largest
