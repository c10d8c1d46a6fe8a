"""Omega of a shard and its immediate derivative (Pascanu, Mikolov, Bengio 2013, eq. 9-10).

With e_t the gradient at a_rec and v_t = J_t^T delta_t, all constant but the explicit w_rec in J_t:

    dOmega/dw_rec = sum_{t,b} 2 penalty'(q) / ||delta||^2 * outer(v, e),      q = ||v||^2 / ||delta||^2
"""

from __future__ import annotations

import functools

import numpy as np

from nbflow._compile import TWO, exact_part, kernel, part
from nbflow.cpu.job import job_dtype
from nbflow.cpu.memory import call_product, view
from nbflow.cpu.product import lanes, panel_vectors
from nbflow.cpu.rules import counts, squared_gain


@functools.cache
def build_penalty(penalty, dtype):
    """Build the kernel that adds the penalties of one step and finds the factor of each outer product."""
    value, slope = penalty.value, penalty.slope
    record = job_dtype(dtype)
    size = np.dtype(dtype).itemsize

    @kernel(value, slope, dtype)
    def penalties(address, t):
        job = view(address, (1,), record)[0]
        rows = job.rows
        delta_norm = view(job.delta_norm + (t + 1) * rows * size, (rows,), dtype)
        v_norm = view(job.v_norm + t * rows * size, (rows,), dtype)
        flow_slope = view(job.flow_slope + t * rows * size, (rows,), dtype)
        sums = view(job.sums, (3,), dtype)
        for b in range(rows):
            delta = delta_norm[b]
            if not counts(delta, job.bound):
                flow_slope[b] = 0
                continue
            q = squared_gain(v_norm[b], delta)
            sums[1] += value(q)
            sums[2] += 1
            flow_slope[b] = TWO * slope(q) / delta

    return penalties


@functools.cache
def build_flow(dtype):
    """Build `flow_weights(job, start, stop, add)`: d_flow (+)= the outer products of steps start .. stop-1."""
    width_of_panel = panel_vectors() * lanes(dtype)
    size = np.dtype(dtype).itemsize

    @exact_part
    def scale_v(job, start, stop):
        """v *= flow_slope / ||delta||, and 0 where nothing is counted: v itself may have overflowed there.

        The two factors one after the other, as written: their product may overflow where v is small.
        """
        count = (stop - start) * job.rows
        norms = view(job.delta_norm + (start + 1) * job.rows * size, (count,), dtype)
        v = view(job.v + start * job.rows * job.width * size, (count, job.width), dtype)
        factors = view(job.flow_slope + start * job.rows * size, (count,), dtype)
        for i in range(count):
            factor = factors[i]
            if factor == 0:
                for j in range(job.width):
                    v[i, j] = 0
            else:
                for j in range(job.width):
                    v[i, j] = (v[i, j] / norms[i]) * factor

    @part
    def flow_weights(job, start, stop, add):
        columns = job.gates * job.width
        scale_v(job, start, stop)
        call_product(
            job.product, job.d_flow, columns, job.v + start * job.rows * job.width * size, 1, job.width,
            job.rec + start * job.rows * columns * size, width_of_panel, columns,
            job.hidden, (stop - start) * job.rows, columns, add,
        )  # fmt: skip

    return flow_weights
