"""The way back of a plain gradient: sweep and weight gradients, segment by segment.

A segment's tape is still in the second-level cache when its outer products are summed. The cuts depend on the number of
sequences of the shard alone, so a gradient that computes its tape twice, segment by segment, has the same bits.
"""

from __future__ import annotations

import functools

from nbflow._compile import kernel, part
from nbflow.cpu.backward import build_sweep
from nbflow.cpu.flow import flow_weights
from nbflow.cpu.record import TOTAL
from nbflow.cpu.views import shards
from nbflow.cpu.weights import every_sequence, weights

# Rows (steps times sequences) that a segment has at least.
SEGMENT_ROWS = 640


def segment_steps(rows: int) -> int:
    """Return the steps of a segment: a multiple of 64, about SEGMENT_ROWS rows."""
    return max(64, SEGMENT_ROWS // rows // 64 * 64)


@part
def segment_start(shard, start, stop):
    """Return where the last segment of start .. stop-1 begins."""
    return max(start, (stop - 1) // shard.segment * shard.segment)


@functools.cache
def build_return(dtype):
    """Build `go_back(shard, address, start, stop)`: sweep over the segments of start .. stop-1, the last one first."""
    sweep = build_sweep(dtype)

    @part
    def go_back(shard, address, start, stop):
        while True:  # once at least: without any weight every gradient is 0, and has to be written
            begin = segment_start(shard, start, stop)
            add = 0 if stop == shard.reach else 1
            sweep(shard, address, begin, stop)
            weights(shard, every_sequence(shard, begin, stop), TOTAL, add)
            if shard.derivative:
                flow_weights(shard, begin, stop, add)
            if begin == start:
                break
            stop = begin

    return go_back


@functools.cache
def build_gradient(dtype):
    """Build the phase of the way back."""
    go_back, shard_at = build_return(dtype), shards(dtype)

    @kernel(dtype)
    def gradient(address, _):
        shard = shard_at(address)
        go_back(shard, address, 0, shard.reach)

    return gradient
