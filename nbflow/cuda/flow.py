"""Norms of delta_t and v_t, Omega, and what its immediate derivative needs (Pascanu et al. 2013, eq. 9-10).

With e_t the gradient at a_rec and v_t = J_t^T delta_t, all constant but the explicit w_rec in J_t:

    dOmega/dw_rec = sum_{t,b} 2 penalty'(q) / ||delta||^2 * outer(v, e),      q = ||v||^2 / ||delta||^2
"""

from __future__ import annotations

import functools

from nbflow._compile import TWO
from nbflow.cpu.rules import counts, squared_gain
from nbflow.cuda.device import MOST_THREADS, cuda, device_part, grid, real_of
from nbflow.cuda.job import (
    BATCH,
    COUNTED,
    DELTA,
    DELTA_NORM,
    FLOW_SLOPE,
    HEARD,
    HIDDEN,
    LINES,
    PENALTIES,
    V_NORM,
    V,
    at,
)
from nbflow.cuda.norm import build_block_measure


@functools.cache
def build_norms(dtype):
    """Build the grid, a block for each (r, t, b) with t = 0..T, that fills DELTA_NORM and V_NORM; 0 after the end."""
    measure, real, zero = build_block_measure(dtype), real_of(dtype), dtype(0)

    @grid
    def norms(job, numbers, integers, steps):
        room = cuda.shared.array(MOST_THREADS, real)
        batch, line = job[BATCH], job[LINES] * job[HIDDEN]
        b, t = cuda.blockIdx.x % batch, cuda.blockIdx.x // batch % (steps + 1)
        r = cuda.blockIdx.x // (batch * (steps + 1))
        before, here = (t - 1) * batch + b, t * batch + b
        delta_norm, v_norm = zero, zero
        if t <= integers[at(job, HEARD, r) + b]:
            root, scale = measure(numbers, at(job, DELTA, r) + here * line, line, 1, room)
            delta_norm = root / scale
            if t > 0:
                root, scale = measure(numbers, at(job, V, r) + before * line, line, 1, room)
                v_norm = root / scale
        if cuda.threadIdx.x == 0:
            numbers[at(job, DELTA_NORM, r) + here] = delta_norm
            if t > 0:
                numbers[at(job, V_NORM, r) + before] = v_norm

    return norms


@functools.cache
def build_penalties(penalty, dtype, immediate=True):
    """Build the grid, a block for each (r, t, b) with t = 1..T: the penalty, and v times the factor of its product.

    For another derivative than the immediate one the factor alone, as FLOW_SLOPE. `bound` is the least ||delta||^2
    that counts.
    """
    value, slope, zero, one = penalty.value, penalty.slope, dtype(0), dtype(1)

    @device_part
    def scale_line(numbers, v, hidden, delta, factor):
        """v *= factor / ||delta||, and 0 where nothing is counted: v itself may have overflowed there.

        The two factors one after the other: their product may overflow where v is small.
        """
        for j in range(cuda.threadIdx.x, hidden, cuda.blockDim.x):
            numbers[v + j] = zero if factor == 0 else (numbers[v + j] / delta) * factor

    @grid
    def penalties(job, numbers, steps, bound):
        batch, hidden, lines = job[BATCH], job[HIDDEN], job[LINES]
        b, t = cuda.blockIdx.x % batch, cuda.blockIdx.x // batch % steps
        r = cuda.blockIdx.x // (batch * steps)
        place = t * batch + b
        delta = numbers[at(job, DELTA_NORM, r) + place + batch]
        cost, counted, factor = zero, zero, zero
        if counts(delta, bound):
            q = squared_gain(numbers[at(job, V_NORM, r) + place], delta)
            cost, counted, factor = value(q), one, TWO * slope(q) / delta
        if immediate:
            scale_line(numbers, at(job, V, r) + place * lines * hidden, hidden, delta, factor)
        elif cuda.threadIdx.x == 0:
            numbers[at(job, FLOW_SLOPE, r) + place] = factor
        if cuda.threadIdx.x == 0:
            numbers[at(job, PENALTIES, r) + place] = cost
            numbers[at(job, COUNTED, r) + place] = counted

    return penalties
