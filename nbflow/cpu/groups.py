"""Weight gradients clipped for each example, or for each group of examples, before they are averaged.

The gradient of each group is formed in a buffer of its own, measured, scaled and added: one way back for all, exact
norms, no more arithmetic than a plain gradient has (Goodfellow et al. 2016, section 10.11.1; Abadi et al. 2016, for
example by example).
"""

from __future__ import annotations

import functools

from nbflow._compile import kernel, part
from nbflow.cpu.job import job_dtype
from nbflow.cpu.memory import clear, view
from nbflow.cpu.norm import build_measure
from nbflow.cpu.rules import shrinking
from nbflow.cpu.weights import Place, Span, build_weights


@functools.cache
def build_groups(dtype):
    """Build the phase: the sum over groups of min(1, threshold / norm) times each one's gradient."""
    weights, measure = build_weights(dtype), build_measure(dtype)
    record = job_dtype(dtype)

    @part
    def collect(job, first, place):
        """Write the gradient of the sequences first .. first + group_rows - 1 to the buffer."""
        for b in range(first, first + job.group_rows):
            weights(job, Span(0, job.reach, b, 1, job.rows), place, int(b > first))

    @kernel(dtype)
    def groups(address, _):
        job = view(address, (1,), record)[0]
        shift = job.group - job.d_in
        place = Place(job.group, job.d_rec + shift, job.d_bias_rec + shift, job.d_out + shift, job.d_b_out + shift)
        group = view(job.group, (job.group_size,), dtype)
        total = view(job.d_in, (job.group_size,), dtype)
        norms = view(job.group_norms, (job.rows,), dtype)
        clear(job.d_in, job.group_size, dtype)
        for k in range(job.rows // job.group_rows):
            collect(job, k * job.group_rows, place)
            root, scale = measure(group)
            norm = job.group_scale * (root / scale)
            factor = shrinking(norm, job.group_threshold)
            norms[k] = norm
            for i in range(job.group_size):
                total[i] += factor * group[i]

    return groups
