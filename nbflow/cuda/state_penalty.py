"""Penalties of ||h_t|| and ||h_{t-1}||, and what each adds to delta_t; the norms of all states are known before."""

from __future__ import annotations

import functools

from nbflow._compile import exact_unit
from nbflow.cuda.device import MOST_THREADS, cuda, grid, real_of
from nbflow.cuda.job import (
    ALPHA,
    BATCH,
    COUNTED,
    H_NORM,
    HEARD,
    HIDDEN,
    LINES,
    PENALTIES,
    PULL,
    REPLICAS,
    STATES,
    at,
)
from nbflow.cuda.norm import build_block_measure


@functools.cache
def build_state_norms(dtype):
    """Build the grid, a block for each (r, t, b) with t = 0..T, that fills H_NORM with ||h_t||; 0 after the end."""
    measure, real, zero = build_block_measure(dtype), real_of(dtype), dtype(0)

    @grid
    def state_norms(job, numbers, integers, steps):
        room = cuda.shared.array(MOST_THREADS, real)
        batch, hidden = job[BATCH], job[HIDDEN]
        b, t = cuda.blockIdx.x % batch, cuda.blockIdx.x // batch % (steps + 1)
        r = cuda.blockIdx.x // (batch * (steps + 1))
        norm = zero
        if t <= integers[at(job, HEARD, r) + b]:
            h = at(job, STATES, r) + (t * batch + b) * job[LINES] * hidden
            root, scale = measure(numbers, h, hidden, 1, room)
            norm = root / scale
        if cuda.threadIdx.x == 0:
            numbers[at(job, H_NORM, r) + t * batch + b] = norm

    return state_norms


@functools.cache
def build_state_penalties(penalty, dtype):
    """Build the grid, a thread for each (r, t, b) with t = 1..T: the penalty, and alpha dOmega/d||h_t|| as PULL."""
    value, slope, zero, one = penalty.value, penalty.slope, dtype(0), dtype(1)

    @grid
    def penalties(job, numbers, integers, steps):
        i, batch = cuda.grid(1), job[BATCH]
        if i < job[REPLICAS] * steps * batch:
            r, place = i // (steps * batch), i % (steps * batch)
            t, last = place // batch + 1, integers[at(job, HEARD, r) + place % batch]
            norms, alpha = at(job, H_NORM, r) + place, numbers[at(job, ALPHA, r)]
            cost, counted, pull = zero, zero, zero
            if t <= last:
                before, norm = numbers[norms], numbers[norms + batch]
                cost, counted = value(norm, before) / dtype(last), one
                if alpha != 0 and norm != 0:  # the norm has no slope at 0
                    pull = slope(norm, before)[0]
                    if t < last:  # the penalty of the next step depends on this state too
                        pull += slope(numbers[norms + 2 * batch], norm)[1]
                    pull = alpha * pull / dtype(last * batch)
            numbers[at(job, PENALTIES, r) + place] = cost
            numbers[at(job, COUNTED, r) + place] = counted
            numbers[at(job, PULL, r) + place] = pull

    return penalties


@exact_unit
def pulled(job, numbers, r, place, h):
    """Return what the penalty adds to delta_t at a unit with state h; `place` is that of step t.

    The quotient first: the other one may overflow.
    """
    pull = numbers[at(job, PULL, r) + place]
    norm = numbers[at(job, H_NORM, r) + place + job[BATCH]]
    return pull * (h / norm) if pull != 0 else pull
