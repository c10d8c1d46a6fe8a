"""Clipping the back-propagated vector itself, at every step; sites and sources as in `nbflow.cpu.hidden_clip`."""

from __future__ import annotations

import functools

from nbflow.cpu.rules import limited, shrinking
from nbflow.cuda.device import cuda, device_part
from nbflow.cuda.norm import build_block_measure


@functools.cache
def build_clip_row(by_norm, dtype):
    """Build `clip_row(numbers, first, count, threshold, room)`, which a whole block calls and leaves together."""
    measure = build_block_measure(dtype)

    @device_part
    def by_its_norm(numbers, first, count, threshold, room):
        root, scale = measure(numbers, first, count, 1, room)
        norm = root / scale
        if norm > threshold:
            factor = shrinking(norm, threshold)
            for i in range(cuda.threadIdx.x, count, cuda.blockDim.x):
                numbers[first + i] *= factor
        cuda.syncthreads()

    @device_part
    def by_value(numbers, first, count, threshold, room):
        for i in range(cuda.threadIdx.x, count, cuda.blockDim.x):
            numbers[first + i] = limited(numbers[first + i], threshold)
        cuda.syncthreads()

    return by_its_norm if by_norm else by_value
