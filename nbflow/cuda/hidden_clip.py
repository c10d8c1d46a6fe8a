"""Clipping the back-propagated vector itself, at every step; sites and sources as in `nbflow.cpu.hidden_clip`."""

from __future__ import annotations

import functools

import numpy as np

from nbflow.cpu.rules import exceeds, limited, shrinking, shrunk
from nbflow.cuda.device import cuda, device_part
from nbflow.cuda.norm import build_block_measure


@functools.cache
def build_clip_row(by_norm, dtype):
    """Build `clip_row(numbers, first, count, threshold, room)`, which a whole block calls and leaves together.

    It returns how many entries a thread clipped, or 1 on the first thread for a vector that was.
    """
    measure, least = build_block_measure(dtype), np.finfo(dtype).tiny

    @device_part
    def by_its_norm(numbers, first, count, threshold, room):
        root, scale = measure(numbers, first, count, 1, room)
        clipped = 0
        if exceeds(root, scale, threshold):
            clipped = int(cuda.threadIdx.x == 0)
            factor = shrinking(root, threshold)
            in_range = scale == 1 and factor >= least
            for i in range(cuda.threadIdx.x, count, cuda.blockDim.x):
                x = numbers[first + i]
                numbers[first + i] = factor * x if in_range else dtype(shrunk(x, root, scale, threshold))
        cuda.syncthreads()
        return clipped

    @device_part
    def by_value(numbers, first, count, threshold, room):
        clipped = 0
        for i in range(cuda.threadIdx.x, count, cuda.blockDim.x):
            x = numbers[first + i]
            clipped += int((x > threshold) | (x < -threshold))
            numbers[first + i] = limited(x, threshold)
        cuda.syncthreads()
        return clipped

    return by_its_norm if by_norm else by_value
