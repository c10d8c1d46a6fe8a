"""Clipping the back-propagated vector itself, at every step, so that all that flows further back is changed.

Site "preactivation": the gradients at a_in and a_rec of every gate (Graves 2013, section 2.1). Site "state": delta_t
(Mikolov's RNNLM). By value, each entry; by norm, the vector of each sequence.
"""

from __future__ import annotations

import functools

import numpy as np

from nbflow._compile import part
from nbflow.cpu.memory import view
from nbflow.cpu.norm import build_measure
from nbflow.cpu.rules import limited, shrinking

# Values of the job's `hidden_site`.
SITES = {"preactivation": 1, "state": 2}


@functools.cache
def build_hidden_clip(dtype):
    """Build `clip_preactivations(job, t)` and `clip_state(job, t)`."""
    measure = build_measure(dtype)
    size = np.dtype(dtype).itemsize

    @part
    def clip_row(row, threshold, by_norm):
        if not by_norm:
            for j in range(row.size):
                row[j] = limited(row[j], threshold)
            return
        root, scale = measure(row)
        norm = root / scale
        if norm > threshold:
            factor = shrinking(norm, threshold)
            for j in range(row.size):
                row[j] *= factor

    @part
    def clip_rows(job, address, width):
        for b in range(job.rows):
            clip_row(view(address + b * width * size, (width,), dtype), job.hidden_threshold, job.hidden_norm)

    @part
    def clip_preactivations(job, t):
        """Clip what stands in pre[t], and in rec[t] where that is another array."""
        columns = job.gates * job.width
        clip_rows(job, job.pre + t * job.rows * columns * size, columns)
        if not job.additive:
            clip_rows(job, job.rec + t * job.rows * columns * size, columns)

    @part
    def clip_state(job, t):
        """Clip delta_t."""
        row = job.lines * job.width
        clip_rows(job, job.delta + t % job.slots * job.rows * row * size, row)

    return clip_preactivations, clip_state
