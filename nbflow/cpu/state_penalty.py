"""Penalties of ||h_t|| and ||h_{t-1}|| inside the sweep: what each adds to delta_t."""

from __future__ import annotations

import functools

import numpy as np

from nbflow._compile import exact_part, kernel, part
from nbflow.cpu.job import job_dtype
from nbflow.cpu.memory import view
from nbflow.cpu.norm import build_measure


@functools.cache
def build_state_penalty(penalty, dtype):
    """Build the kernel of one step t: adds its penalties to `sums` and alpha dOmega/dh_t to delta_t.

    Called for t from the last to 1. The penalty of step t+1 depends on h_t too: its slope there waits in `carry`,
    beside ||h_t||, so that no state after t has to be on the tape.
    """
    value, slope = penalty.value, penalty.slope
    measure = build_measure(dtype)
    record = job_dtype(dtype)
    size = np.dtype(dtype).itemsize

    @part
    def h_of(job, t, b):
        return view(job.states + (t * job.rows + b) * job.lines * job.width * size, (job.hidden,), dtype)

    @part
    def norm_of(job, t, b):
        root, scale = measure(h_of(job, t, b))
        return root / scale

    @exact_part
    def pull(d, h, norm, factor):
        """d += factor h / ||h||, the quotient first: the other one may overflow."""
        for j in range(h.size):
            d[j] += factor * (h[j] / norm)

    @kernel(value, slope, dtype)
    def penalties(address, t):
        job = view(address, (1,), record)[0]
        row = job.lines * job.width
        heard = view(job.heard, (job.rows,), np.int64)
        carry = view(job.carry, (job.rows, 2), dtype)
        sums = view(job.sums, (3,), dtype)
        for b in range(job.rows):
            steps = heard[b]
            if t > steps:
                continue
            if t == steps:
                carry[b, 0], carry[b, 1] = 0, norm_of(job, t, b)
            norm, before = carry[b, 1], norm_of(job, t - 1, b)
            at_norm, at_before = slope(norm, before)
            sums[1] += value(norm, before) / dtype(steps)
            sums[2] += 1
            if job.alpha != 0 and norm != 0:  # the norm has no slope at 0
                factor = job.alpha * (at_norm + carry[b, 0]) / dtype(steps * job.batch)
                d = view(job.delta + (t % job.slots * job.rows + b) * row * size, (job.hidden,), dtype)
                pull(d, h_of(job, t, b), norm, factor)
            carry[b, 0], carry[b, 1] = at_before, before

    return penalties
