"""Weight gradients: products of the tape with itself, a sum over steps and sequences, in tiles of shared memory.

    d w_in = sum x_t e_t,   d w_rec = sum h_{t-1} e_t,   d w_out = sum h_t dL/dy_t,   a bias: the same with 1 for x

(Goodfellow et al. 2016, eq. 10.22-10.28), and Omega's with v_t for h_{t-1}. Its other derivatives have w_t for h_{t-1},
u_t for h_t, and, beside x and h, e_t and dL/dy_t together with their tangents (`nbflow.cuda.second`).

A block computes a tile of one of these matrices over one part of the steps: it copies some rows of both factors to
shared memory, a thread reads 4 + 4 of these numbers for 16 products. Each part has sums of its own, which are added in
their order: with one network there would be too few blocks otherwise. The cuts are a function of B alone, or one for
each group of sequences that is clipped alone.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

from nbflow._compile import unit
from nbflow.cpu.record import EXACT, IMMEDIATE
from nbflow.cuda.device import SIMULATED, cuda, device_part, grid, real_of
from nbflow.cuda.job import (
    ALPHA,
    BATCH,
    BIAS_REC,
    DERIVATIVE,
    FIRST,
    GATES,
    GROUP_ROWS,
    HEARD,
    HIDDEN,
    INPUTS,
    IS_ADDITIVE,
    IS_TOKENS,
    LINES,
    N_IN,
    N_OUT,
    PARAMETERS,
    PART_STEPS,
    PARTIAL,
    PARTIAL_FLOW,
    PARTIAL_OUT,
    PRE,
    PRE_DOT,
    REC,
    REC_DOT,
    STATES,
    STATES_DOT,
    TOKENS,
    Y_BOTH,
    V,
    Y,
    at,
)
from nbflow.cuda.memory import build_load, fetch

# Sequences times steps of a part, about.
PART = 256
# A tile has SIDE * SIDE threads, each with 4 x 4 sums that are SIDE apart, and takes DEPTH rows at a time.
SIDE, DEPTH = (2, 4) if SIMULATED else (8, 16)
THREADS, TILE = SIDE * SIDE, 4 * SIDE
HELD = DEPTH * TILE
# Which matrix.
INPUT, RECURRENT, OUTPUT, FLOW, OUTPUT_FLOW = range(5)


class Product(NamedTuple):
    """sum over rows of outer(left, right): places of rows of `width` numbers, `left_row` apart, and of `columns`.

    Where `has_ones`, the left has a 1 at its end. The result stands at `to`, row by row, that of the 1 at `to_ones`.
    """

    left: int
    left_row: int
    width: int
    has_ones: int
    right: int
    columns: int
    to: int
    to_ones: int


class Span(NamedTuple):
    """Steps start .. stop-1 of `rows` sequences from `first` on."""

    start: int
    stop: int
    first: int
    rows: int


def part_steps_of(steps, batch, group_rows):
    """Return the steps of a part; groups are not cut."""
    return steps if group_rows else max(1, PART // batch)


def parts_of(steps, batch, group_rows):
    """Return the number of parts of a batch."""
    return batch // group_rows if group_rows else -(-steps // part_steps_of(steps, batch, group_rows))


@unit
def moves(job, numbers, r):
    """Return whether there are tangents (`nbflow.cuda.second`)."""
    return job[DERIVATIVE] > IMMEDIATE and numbers[at(job, ALPHA, r)] != 0


@unit
def gradients_at(job, r, which, moving):
    """Return where the gradients at a_in or a_rec stand, with their tangents where there are any."""
    if which == RECURRENT or job[IS_ADDITIVE]:
        return at(job, REC_DOT if moving else REC, r)
    return at(job, PRE_DOT if moving else PRE, r)


@unit
def product_of(job, r, part, which, moving):
    """Return the product that fills a block of the parameters; `moving` as `moves` says it."""
    n_in, hidden, n_out, size = job[N_IN], job[HIDDEN], job[N_OUT], job[PARAMETERS]
    columns, line = job[GATES] * hidden, job[LINES] * hidden
    partial = at(job, PARTIAL, r) + part * size
    left, left_row, width, has_ones = at(job, STATES, r), line, hidden, job[BIAS_REC]
    right, right_columns = gradients_at(job, r, which, moving), columns
    to, to_ones = partial + n_in * columns, partial + (n_in + hidden + 1) * columns
    if which == INPUT:
        left, left_row, width, has_ones = at(job, INPUTS, r), n_in, n_in, 1
        to, to_ones = partial, partial + (n_in + hidden) * columns
    elif which == OUTPUT:
        left, has_ones = left + job[BATCH] * line, 1
        right, right_columns = at(job, Y_BOTH if moving and job[DERIVATIVE] == EXACT else Y, r), n_out
        to, to_ones = partial + size - (hidden + 1) * n_out, partial + size - n_out
    elif which == FLOW:
        left, has_ones, right = at(job, V, r), 0, at(job, REC, r)
        to = at(job, PARTIAL_FLOW, r) + part * hidden * columns
    elif which == OUTPUT_FLOW:
        left, has_ones = at(job, STATES_DOT, r) + job[BATCH] * line, 0
        right, right_columns = at(job, Y, r), n_out
        to = at(job, PARTIAL_OUT, r) + part * hidden * n_out
    return Product(left, left_row, width, has_ones, right, right_columns, to, to_ones)


def count_blocks(job, which):
    """Return how many blocks a product takes: tiles, or for tokens a thread for each entry."""
    columns = job[N_OUT] if which in (OUTPUT, OUTPUT_FLOW) else job[GATES] * job[HIDDEN]
    if which == INPUT and job[IS_TOKENS]:
        return ((job[N_IN] + 1) * columns + THREADS - 1) // THREADS
    width = job[HIDDEN]
    if which == INPUT:
        width = job[N_IN] + 1
    elif which == OUTPUT:
        width += 1
    elif which == RECURRENT:
        width += job[BIAS_REC]
    return (width + TILE - 1) // TILE * ((columns + TILE - 1) // TILE)


# The host counts as the grid does.
blocks_of = unit(count_blocks)


@unit
def span_of(job, integers, r, part, parts, which):
    """Return the steps of a part in which a sequence of its group is heard, and for the outputs has weight."""
    batch, rows = job[BATCH], job[GROUP_ROWS]
    cuts = parts // (batch // rows)
    first, start = part // cuts * rows, part % cuts * job[PART_STEPS]
    heard, begun = at(job, HEARD, r), at(job, FIRST, r)
    last, earliest = 0, start + job[PART_STEPS]
    for b in range(first, first + rows):
        last = max(last, integers[heard + b])
        earliest = min(earliest, integers[begun + b])
    stop = min(start + job[PART_STEPS], last)
    if which in (OUTPUT, OUTPUT_FLOW):
        start = max(start, earliest)
    return Span(start, stop, first, rows)


@unit
def add_row(sums, a, b):
    """Return sums + a b, of four numbers."""
    return sums[0] + a * b[0], sums[1] + a * b[1], sums[2] + a * b[2], sums[3] + a * b[3]


@unit
def add_products(sums, a, b):
    """Return sums + outer(a, b), four by four."""
    return add_row(sums[0], a[0], b), add_row(sums[1], a[1], b), add_row(sums[2], a[2], b), add_row(sums[3], a[3], b)


@unit
def write_row(numbers, product, k, c, sums):
    """Write four sums of row k, SIDE columns apart from column c on."""
    if k < product.width + product.has_ones:
        to = product.to_ones if k == product.width else product.to + k * product.columns
        if c < product.columns:
            numbers[to + c] = sums[0]
        if c + SIDE < product.columns:
            numbers[to + c + SIDE] = sums[1]
        if c + 2 * SIDE < product.columns:
            numbers[to + c + 2 * SIDE] = sums[2]
        if c + 3 * SIDE < product.columns:
            numbers[to + c + 3 * SIDE] = sums[3]


@functools.cache
def build_weights(dtype):
    """Build the grid `weights(job, numbers, integers, parts, blocks)` that fills PARTIAL, PARTIAL_FLOW and PARTIAL_OUT.

    A block for each replica, part and one of `blocks` pieces of the products.
    """
    real, zero, one = real_of(dtype), dtype(0), dtype(1)
    zeros = (((zero,) * 4),) * 4
    load = build_load(4)

    @unit
    def left_of(numbers, product, place, k):
        """Return entry k of a row of the left factor."""
        if k < product.width:
            return fetch(numbers, product.left + place * product.left_row + k)
        return one if k == product.width and product.has_ones else zero

    @unit
    def right_of(numbers, product, place, c):
        """Return entry c of a row of the right factor."""
        return fetch(numbers, product.right + place * product.columns + c) if c < product.columns else zero

    @device_part
    def multiply(job, numbers, integers, r, product, span, row, column, left, right):
        """Return this thread's 16 sums of the tile from (row, column) on; what is not heard counts as 0."""
        me, batch, heard = cuda.threadIdx.x, job[BATCH], at(job, HEARD, r)
        mine, yours = me // SIDE, me % SIDE
        sums, count = zeros, (span.stop - span.start) * span.rows
        for done in range(0, count, DEPTH):
            for i in range(me, HELD, THREADS):
                k, n = i % TILE, done + i // TILE
                a, b = zero, zero
                if n < count:
                    t, sequence = span.start + n // span.rows, span.first + n % span.rows
                    if t < integers[heard + sequence]:
                        place = t * batch + sequence
                        a = left_of(numbers, product, place, row + k)
                        b = right_of(numbers, product, place, column + k)
                left[i] = a
                right[i] = b
            cuda.syncthreads()
            for d in range(DEPTH):
                sums = add_products(sums, load(left, d * TILE + mine, SIDE), load(right, d * TILE + yours, SIDE))
            cuda.syncthreads()
        return sums

    @device_part
    def add_by_token(job, numbers, integers, r, span, entry, partial, moving):
        """Write one entry of w_in, or of the bias: the sum of the rows that have its token."""
        batch, n_in, columns, heard = job[BATCH], job[N_IN], job[GATES] * job[HIDDEN], at(job, HEARD, r)
        token, c = entry // columns, entry % columns
        tokens, pre = at(job, TOKENS, r), gradients_at(job, r, INPUT, moving)
        total = zero
        for t in range(span.start, span.stop):
            for b in range(span.first, span.first + span.rows):
                place = t * batch + b
                if t < integers[heard + b] and (token == n_in or integers[tokens + place] == token):
                    total += fetch(numbers, pre + place * columns + c)
        # The bias comes after w_rec.
        numbers[partial + entry + (job[HIDDEN] * columns if token == n_in else 0)] = total

    @grid
    def weights(job, numbers, integers, parts, blocks):
        left = cuda.shared.array(HELD, real)
        right = cuda.shared.array(HELD, real)
        me, block = cuda.threadIdx.x, cuda.blockIdx.x % blocks
        part, r = cuda.blockIdx.x // blocks % parts, cuda.blockIdx.x // blocks // parts
        which = INPUT
        while block >= blocks_of(job, which):
            block -= blocks_of(job, which)
            which += 1
        span = span_of(job, integers, r, part, parts, which)
        moving = moves(job, numbers, r)
        if which == INPUT and job[IS_TOKENS]:
            entry = block * THREADS + me
            if entry < (job[N_IN] + 1) * job[GATES] * job[HIDDEN]:
                partial = at(job, PARTIAL, r) + part * job[PARAMETERS]
                add_by_token(job, numbers, integers, r, span, entry, partial, moving)
            return
        product = product_of(job, r, part, which, moving)
        across = (product.columns + TILE - 1) // TILE
        row, column = block // across * TILE, block % across * TILE
        sums = multiply(job, numbers, integers, r, product, span, row, column, left, right)
        k, c = row + me // SIDE, column + me % SIDE
        write_row(numbers, product, k, c, sums[0])
        write_row(numbers, product, k + SIDE, c, sums[1])
        write_row(numbers, product, k + 2 * SIDE, c, sums[2])
        write_row(numbers, product, k + 3 * SIDE, c, sums[3])

    return weights
