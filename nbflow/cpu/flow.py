"""Omega of a shard and its immediate derivative (Pascanu, Mikolov, Bengio 2013, eq. 9-10).

With e_t the gradient at a_rec and v_t = J_t^T delta_t, all constant but the explicit w_rec in J_t:

    dOmega/dw_rec = sum_{t,b} 2 penalty'(q) / ||delta||^2 * outer(v, e),      q = ||v||^2 / ||delta||^2
"""

from __future__ import annotations

import functools

from nbflow._compile import TWO, kernel, part
from nbflow.cpu.job import job_dtype
from nbflow.cpu.memory import call, call_product, view
from nbflow.cpu.product import lanes, panel_vectors


@functools.cache
def build_penalty(penalty, dtype):
    """Build the kernel that sums the penalties of `reach` steps and finds the factor of each outer product."""
    value, slope = penalty.value, penalty.slope
    record = job_dtype(dtype)

    @kernel(value, slope, dtype)
    def penalties(address, reach):
        job = view(address, (1,), record)[0]
        rows = job.rows
        delta_square = view(job.delta_square, (job.steps + 1, rows), dtype)
        v_square = view(job.v_square, (job.steps, rows), dtype)
        flow_slope = view(job.flow_slope, (job.steps, rows), dtype)
        sums = view(job.sums, (3,), dtype)
        for t in range(reach):
            for b in range(rows):
                square = delta_square[t + 1, b]
                # Written so that a NaN counts: a gradient that is not finite must be seen.
                if square < job.bound:
                    flow_slope[t, b] = 0
                    continue
                q = v_square[t, b] / square
                sums[1] += value(q)
                sums[2] += 1
                flow_slope[t, b] = TWO * slope(q) / square

    return penalties


@functools.cache
def build_flow(dtype):
    """Build the phase of the penalties and of d_flow."""
    width_of_panel = panel_vectors() * lanes(dtype)

    @part
    def scale_v(job, reach):
        """v *= flow_slope, and 0 where nothing is counted: v itself may have overflowed there."""
        v = view(job.v, (reach, job.rows, job.width), dtype)
        factors = view(job.flow_slope, (job.steps, job.rows), dtype)
        for t in range(reach):
            for b in range(job.rows):
                factor = factors[t, b]
                if factor == 0:
                    v[t, b, :] = 0
                else:
                    for j in range(job.width):
                        v[t, b, j] *= factor

    record = job_dtype(dtype)

    @kernel(dtype)
    def flow(address, _):
        job = view(address, (1,), record)[0]
        reach = job.reach
        columns = job.gates * job.width
        call(job.penalty, address, reach)
        scale_v(job, reach)
        call_product(
            job.product, job.d_flow, columns, job.v, 1, job.width, job.rec, width_of_panel, columns,
            job.hidden, reach * job.rows, columns, 0,
        )  # fmt: skip

    return flow
