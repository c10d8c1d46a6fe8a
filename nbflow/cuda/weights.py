"""Weight gradients: every parameter is a sum of products over steps and sequences, and a thread adds one parameter up.

The steps are cut into parts, each with sums of its own, that are added in their order: with one network there would be
too few threads otherwise. The cuts are a function of the number of steps alone.
"""

from __future__ import annotations

import functools

from nbflow._compile import unit
from nbflow.cuda.device import MOST_THREADS, cuda, grid, real_of
from nbflow.cuda.job import (
    ALPHA,
    BATCH,
    BIAS_REC,
    COUNTED,
    D_THETA,
    FIRST,
    GATES,
    HEARD,
    HIDDEN,
    INPUTS,
    IS_ADDITIVE,
    IS_TOKENS,
    LINES,
    LOSSES,
    N_IN,
    N_OUT,
    PARAMETERS,
    PARTIAL,
    PARTIAL_FLOW,
    PENALTIES,
    PRE,
    REC,
    REPLICAS,
    REPORT,
    STATES,
    TOKENS,
    V,
    Y,
    at,
)
from nbflow.cuda.memory import fetch
from nbflow.cuda.norm import build_block_sum

# Steps of a part.
PART = 64


def parts_of(steps):
    """Return the number of parts that so many steps are cut into."""
    return -(-steps // PART)


@unit
def add_products(numbers, total, left, left_row, right, right_row, start, stop):
    """Return total + sum over start <= t < stop of left times right, whose rows lie so far apart."""
    for t in range(start, stop):
        total += fetch(numbers, left + t * left_row) * fetch(numbers, right + t * right_row)
    return total


@unit
def add_numbers(numbers, total, right, right_row, start, stop):
    """Return total + sum over start <= t < stop of right."""
    for t in range(start, stop):
        total += fetch(numbers, right + t * right_row)
    return total


@unit
def add_where_token(numbers, integers, total, tokens, batch, token, right, right_row, start, stop):
    """Return total + sum of right over the steps start <= t < stop that have this token."""
    for t in range(start, stop):
        if integers[tokens + t * batch] == token:
            total += fetch(numbers, right + t * right_row)
    return total


@functools.cache
def build_weights(dtype):
    """Build the grid (parameters of all replicas, parts) that fills PARTIAL."""
    zero = dtype(0)

    @unit
    def of_sequence(job, numbers, integers, total, r, p, b, start, stop):
        """Return total + what sequence b adds to parameter p in the steps start .. stop-1."""
        batch, n_in, hidden, n_out = job[BATCH], job[N_IN], job[HIDDEN], job[N_OUT]
        columns, line = job[GATES] * hidden, job[LINES] * hidden
        e_row, h_row, y_row = batch * columns, batch * line, batch * n_out
        pre = at(job, REC if job[IS_ADDITIVE] else PRE, r) + b * columns
        rec, states = at(job, REC, r) + b * columns, at(job, STATES, r) + b * line
        y = at(job, Y, r) + b * n_out
        k, c = p // columns, p % columns
        if k < n_in:
            if job[IS_TOKENS]:
                tokens = at(job, TOKENS, r) + b
                return add_where_token(numbers, integers, total, tokens, batch, k, pre + c, e_row, start, stop)
            x = at(job, INPUTS, r) + b * n_in + k
            return add_products(numbers, total, x, batch * n_in, pre + c, e_row, start, stop)
        k -= n_in
        if k < hidden:
            return add_products(numbers, total, states + k, h_row, rec + c, e_row, start, stop)
        k -= hidden
        if k == 0:
            return add_numbers(numbers, total, pre + c, e_row, start, stop)
        if k <= job[BIAS_REC] and job[BIAS_REC]:
            return add_numbers(numbers, total, rec + c, e_row, start, stop)
        # Before its first weight a sequence has no dL/dy.
        start = max(start, integers[at(job, FIRST, r) + b])
        p -= (n_in + hidden + 1 + job[BIAS_REC]) * columns
        k, m = p // n_out, p % n_out
        if k < hidden:
            return add_products(numbers, total, states + h_row + k, h_row, y + m, y_row, start, stop)
        return add_numbers(numbers, total, y + m, y_row, start, stop)

    @grid
    def weights(job, numbers, integers):
        size = job[PARAMETERS]
        i, part = cuda.grid(1), cuda.blockIdx.y
        if i < job[REPLICAS] * size:
            r, p = i // size, i % size
            total = zero
            for b in range(job[BATCH]):
                stop = min((part + 1) * PART, integers[at(job, HEARD, r) + b])
                total = of_sequence(job, numbers, integers, total, r, p, b, part * PART, stop)
            numbers[at(job, PARTIAL, r) + part * size + p] = total

    return weights


@functools.cache
def build_flow_weights(dtype):
    """Build the grid (entries of w_rec of all replicas, parts) that fills PARTIAL_FLOW: sums of outer(scaled v, e)."""
    zero = dtype(0)

    @grid
    def flow_weights(job, numbers, integers):
        hidden, batch = job[HIDDEN], job[BATCH]
        columns, line = job[GATES] * hidden, job[LINES] * hidden
        size = hidden * columns
        i, part = cuda.grid(1), cuda.blockIdx.y
        if i < job[REPLICAS] * size:
            r, p = i // size, i % size
            total = zero
            for b in range(batch):
                v, rec = at(job, V, r) + b * line + p // columns, at(job, REC, r) + b * columns + p % columns
                stop = min((part + 1) * PART, integers[at(job, HEARD, r) + b])
                total = add_products(numbers, total, v, batch * line, rec, batch * columns, part * PART, stop)
            numbers[at(job, PARTIAL_FLOW, r) + part * size + p] = total

    return flow_weights


@functools.cache
def build_report(dtype):
    """Build the grid, a block a replica, that fills REPORT with loss, Omega and count."""
    block_sum, real, zero, one = build_block_sum(), real_of(dtype), dtype(0), dtype(1)

    @grid
    def report(job, numbers, steps, flowing, by_mean):
        room = cuda.shared.array(MOST_THREADS, real)
        r, batch = cuda.blockIdx.x, job[BATCH]
        loss, omega, counted = zero, zero, zero
        for i in range(cuda.threadIdx.x, steps * batch, cuda.blockDim.x):
            loss += numbers[at(job, LOSSES, r) + i]
            if flowing:
                omega += numbers[at(job, PENALTIES, r) + i]
                counted += numbers[at(job, COUNTED, r) + i]
        loss = block_sum(loss, room)
        omega, counted = block_sum(omega, room), block_sum(counted, room)
        if cuda.threadIdx.x == 0:
            place = at(job, REPORT, r)
            numbers[place] = loss
            numbers[place + 1] = omega / (max(counted, one) if by_mean else dtype(batch))
            numbers[place + 2] = counted

    return report


@functools.cache
def build_combine(dtype):
    """Build the grid, a thread a parameter of a replica, that adds the parts up to D_THETA, and alpha times Omega's."""
    zero, one = dtype(0), dtype(1)

    @grid
    def combine(job, numbers, parts, flowing, by_mean):
        size, columns = job[PARAMETERS], job[GATES] * job[HIDDEN]
        i = cuda.grid(1)
        if i < job[REPLICAS] * size:
            r, p = i // size, i % size
            total = zero
            for part in range(parts):
                total += numbers[at(job, PARTIAL, r) + part * size + p]
            alpha, entry = numbers[at(job, ALPHA, r)], p - job[N_IN] * columns
            if flowing and alpha != 0 and 0 <= entry < job[HIDDEN] * columns:  # 0 * Inf would be NaN
                of_flow = zero
                for part in range(parts):
                    of_flow += numbers[at(job, PARTIAL_FLOW, r) + part * job[HIDDEN] * columns + entry]
                counted = max(numbers[at(job, REPORT, r) + 2], one)
                total += alpha * (one / (counted if by_mean else dtype(job[BATCH]))) * of_flow
            numbers[at(job, D_THETA, r) + p] = total

    return combine
