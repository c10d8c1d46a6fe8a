"""The way back of a plain gradient: sweep and weight gradients, segment by segment.

A segment's tape is still in the second-level cache when its outer products are summed. The cuts depend on the number of
sequences of the shard alone, so a gradient with checkpoints, which sweeps over the same segments, has the same bits.
"""

from __future__ import annotations

import functools

from nbflow._compile import kernel, part
from nbflow.cpu.backward import build_sweep
from nbflow.cpu.flow import build_flow
from nbflow.cpu.job import job_dtype
from nbflow.cpu.memory import view
from nbflow.cpu.weights import Span, build_weights, place_of

# Rows (steps times sequences) that a segment has at least.
SEGMENT_ROWS = 640


def segment_steps(rows: int) -> int:
    """Return the steps of a segment: a multiple of 64, about SEGMENT_ROWS rows."""
    return max(64, SEGMENT_ROWS // rows // 64 * 64)


@functools.cache
def build_return(dtype):
    """Build `go_back(job, address, start, stop)`: sweep over the segments of start .. stop-1, the last one first."""
    sweep, weights, flow_weights = build_sweep(dtype), build_weights(dtype), build_flow(dtype)

    @part
    def go_back(job, address, start, stop):
        place = place_of(job)
        while True:  # once at least: without any weight every gradient is 0, and has to be written
            begin = max(start, (stop - 1) // job.segment * job.segment)
            add = 0 if stop == job.reach else 1
            sweep(job, address, begin, stop)
            weights(job, Span(begin, stop, 0, job.rows, 1), place, add)
            if job.derivative:
                flow_weights(job, begin, stop, add)
            if begin == start:
                break
            stop = begin

    return go_back


@functools.cache
def build_gradient(dtype):
    """Build the phase of the way back."""
    go_back = build_return(dtype)
    record = job_dtype(dtype)

    @kernel(dtype)
    def gradient(address, _):
        job = view(address, (1,), record)[0]
        go_back(job, address, 0, job.reach)

    return gradient
