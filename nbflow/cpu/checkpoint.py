"""A gradient whose memory grows as the square root of T: states are kept at checkpoints, segments computed twice.

Chen et al. 2016; Gruslys et al. 2016. The tape holds one segment and slides: the addresses of its arrays are moved so
that step t is found where every phase looks for it. The segments between checkpoints are made of those of
`nbflow.cpu.gradient`, so the bits of a gradient are those of one without checkpoints.
"""

from __future__ import annotations

import functools

import numpy as np

from nbflow._compile import kernel, part
from nbflow.cpu.forward import build_advance, build_lengths
from nbflow.cpu.gradient import build_return
from nbflow.cpu.job import job_dtype
from nbflow.cpu.loss import build_listen
from nbflow.cpu.memory import clear, view


@functools.cache
def build_checkpointed(dtype):
    """Build the phase that is a whole gradient: forward to every checkpoint, then back over the segments between."""
    find_lengths, advance = build_lengths(dtype), build_advance(dtype)
    listen, go_back = build_listen(dtype), build_return(dtype)
    record = job_dtype(dtype)
    size = np.dtype(dtype).itemsize

    @part
    def slide(job, steps):
        """Move the tape by a number of steps, forward in time if positive."""
        row = -steps * job.rows * size
        job.pre += row * job.gates * job.width
        job.rec += row * job.gates * job.width
        job.x += row * (job.n_in + 1)
        job.states += row * job.lines * job.width
        job.saved += row * job.kept * job.width
        job.y += row * job.out_width
        job.v += row * job.width
        job.delta_norm += row
        job.v_norm += row
        job.flow_slope += row

    @part
    def copy_state(job, t, k, restore):
        """Copy s_t to checkpoint k, or back."""
        count = job.rows * job.lines * job.width
        state = view(job.states + t * count * size, (count,), dtype)
        kept = view(job.checkpoints + k * count * size, (count,), dtype)
        for i in range(count):
            if restore:
                state[i] = kept[i]
            else:
                kept[i] = state[i]

    @part
    def run_forward(job, address):
        """Return the first step of the last segment, whose tape is left in place."""
        start = 0
        copy_state(job, 0, 0, False)
        while True:
            stop = min(start + job.every, job.reach)
            advance(job, address, start, stop)
            listen(job, address, start, stop)
            if stop == job.reach:
                return start
            copy_state(job, stop, stop // job.every, False)
            slide(job, job.every)
            start = stop
            copy_state(job, start, start // job.every, True)

    @kernel(dtype)
    def checkpointed(address, _):
        job = view(address, (1,), record)[0]
        find_lengths(job)
        clear(job.sums, 3, dtype)
        start = run_forward(job, address)
        sums = view(job.sums, (3,), dtype)
        loss = sums[0]
        stop = job.reach
        while True:
            go_back(job, address, start, stop)
            if start == 0:
                break
            stop, start = start, start - job.every
            slide(job, -job.every)
            copy_state(job, start, start // job.every, True)
            advance(job, address, start, stop)
            listen(job, address, start, stop)
        sums[0] = loss

    return checkpointed
