"""Clipping the back-propagated vector itself, at every step; sites and sources as in `nbflow.cpu.hidden_clip`."""

from __future__ import annotations

import functools

import numpy as np

from nbflow.cpu.rules import exceeds, limited, shrinking, shrunk
from nbflow.cuda.device import cuda, device_part
from nbflow.cuda.norm import build_block_measure


@functools.cache
def build_clip_row(by_norm, dtype):
    """Build `clip_row(numbers, first, count, threshold, room)`, which a whole block calls and leaves together."""
    measure, least = build_block_measure(dtype), np.finfo(dtype).tiny

    @device_part
    def by_its_norm(numbers, first, count, threshold, room):
        root, scale = measure(numbers, first, count, 1, room)
        if exceeds(root, scale, threshold):
            factor = shrinking(root, threshold)
            in_range = scale == 1 and factor >= least
            for i in range(cuda.threadIdx.x, count, cuda.blockDim.x):
                x = numbers[first + i]
                numbers[first + i] = factor * x if in_range else dtype(shrunk(x, root, scale, threshold))
        cuda.syncthreads()

    @device_part
    def by_value(numbers, first, count, threshold, room):
        for i in range(cuda.threadIdx.x, count, cuda.blockDim.x):
            numbers[first + i] = limited(numbers[first + i], threshold)
        cuda.syncthreads()

    return by_its_norm if by_norm else by_value
