"""Sums, largest numbers and Euclidean norms over what a block holds, in an order that depends on nothing but its size.

A norm comes as (root, scale), as in `nbflow.cpu.norm`. Every function is called by all threads of a block, with `room`,
shared memory for one number a thread, and returns the same to all of them.
"""

from __future__ import annotations

import functools

import numpy as np

from nbflow import scalars
from nbflow._compile import unit
from nbflow.cpu.norm import SCALES, TRUSTED
from nbflow.cuda.device import cuda, device_part
from nbflow.cuda.memory import fetch


@unit
def add(a, b):
    """Return a + b."""
    return a + b


@unit
def larger(a, b):
    """Return the larger of two numbers, neither of which is NaN."""
    return max(a, b)


@functools.cache
def _build_reduce(join):
    """Build `reduce(x, room)`: each thread's x, joined in pairs, then in pairs of pairs."""

    @device_part
    def reduce(x, room):
        me, threads = cuda.threadIdx.x, cuda.blockDim.x
        room[me] = x
        cuda.syncthreads()
        apart = 1
        while apart < threads:
            if me % (2 * apart) == 0 and me + apart < threads:
                room[me] = join(room[me], room[me + apart])
            apart *= 2
            cuda.syncthreads()
        found = room[0]
        cuda.syncthreads()
        return found

    return reduce


def build_block_sum():
    """Build `block_sum(x, room)`: the sum of each thread's x."""
    return _build_reduce(add)


def build_block_largest():
    """Build `block_largest(x, room)`: the largest of each thread's x."""
    return _build_reduce(larger)


@functools.cache
def build_block_finite(dtype):
    """Build `block_finite(numbers, first, count, stride, room)`: whether all of an array's entries are finite."""
    greatest, zero, one = np.finfo(dtype).max, dtype(0), dtype(1)
    block_sum = build_block_sum()

    @device_part
    def block_finite(numbers, first, count, stride, room):
        bad = zero
        for i in range(cuda.threadIdx.x, count, cuda.blockDim.x):
            if not abs(numbers[first + i * stride]) <= greatest:
                bad = one
        return block_sum(bad, room) == 0

    return block_finite


@functools.cache
def build_block_inner(dtype):
    """Build `block_inner(numbers, a, a_scale, b, b_scale, count, stride, room)`: an inner product of scaled arrays."""
    zero = dtype(0)
    block_sum = build_block_sum()

    @device_part
    def block_inner(numbers, a, a_scale, b, b_scale, count, stride, room):
        total = zero
        for i in range(cuda.threadIdx.x, count, cuda.blockDim.x):
            total += (a_scale * fetch(numbers, a + i * stride)) * (b_scale * fetch(numbers, b + i * stride))
        return block_sum(total, room)

    return block_inner


@functools.cache
def build_block_measure(dtype):
    """Build `block_measure(numbers, first, count, stride, room)`: the norm of an array as (root, scale)."""
    least, most = TRUSTED[dtype]
    large, down, small, up = SCALES[dtype]
    zero, one = dtype(0), dtype(1)
    block_largest, block_inner = build_block_largest(), build_block_inner(dtype)

    @device_part
    def block_measure(numbers, first, count, stride, room):
        total, scale = block_inner(numbers, first, one, first, one, count, stride, room), one
        if not least <= total <= most:
            own = zero
            for i in range(cuda.threadIdx.x, count, cuda.blockDim.x):
                size = abs(numbers[first + i * stride])
                if size > own:
                    own = size
            largest = block_largest(own, room)
            if largest > large:
                scale = down
            elif largest < small:
                scale = up
            total = block_inner(numbers, first, scale, first, scale, count, stride, room)
        return scalars.sqrt(total), scale

    return block_measure
