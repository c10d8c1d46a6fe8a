"""The forward pass: s_t = step(x_t w_in + bias, h_{t-1} w_rec, s_{t-1}); all steps in one grid.

A block takes a few sequences of one replica through time. Its threads stand for units, a thread for several of them
where H is larger than the block; h is double-buffered in shared memory, and w_rec lies there too if it fits.
"""

from __future__ import annotations

import functools

from nbflow._compile import unit
from nbflow.cuda.device import cuda, grid, real_of
from nbflow.cuda.job import (
    BATCH,
    CELL_SETTINGS,
    FIRST,
    GATES,
    HEARD,
    HIDDEN,
    INPUTS,
    IS_CARRIED,
    IS_TOKENS,
    IS_WHOLE,
    LAST,
    N_IN,
    REPLICAS,
    SAVED,
    START,
    STATES,
    THETA,
    TOKENS,
    W_BACK,
    WEIGHTS,
    at,
)
from nbflow.cuda.memory import build_constants, build_load, build_store, fetch


@functools.cache
def build_lengths():
    """Build the grid, a thread a sequence, that fills FIRST, HEARD and LAST from the weights."""

    @grid
    def lengths(job, numbers, integers, steps):
        replicas, batch = job[REPLICAS], job[BATCH]
        i = cuda.grid(1)
        if i < replicas * batch:
            r, b = i // batch, i % batch
            weights = at(job, WEIGHTS, r) + b
            first, heard = steps, 0
            for t in range(steps):
                if numbers[weights + t * batch] != 0:
                    first = min(first, t)
                    heard = t + 1
            integers[at(job, FIRST, r) + b] = first
            integers[at(job, HEARD, r) + b] = heard
            integers[at(job, LAST, r) + b] = steps if job[IS_WHOLE] else heard

    return lengths


@functools.cache
def build_transpose():
    """Build the grid, a thread an entry of w_rec, that writes W_BACK, so that the way back reads neighbours."""

    @grid
    def transpose(job, numbers):
        hidden, gates = job[HIDDEN], job[GATES]
        size = hidden * gates * hidden
        i = cuda.grid(1)
        if i < job[REPLICAS] * size:
            r, entry = i // size, i % size
            k, column = entry // (gates * hidden), entry % (gates * hidden)
            w_rec = at(job, THETA, r) + job[N_IN] * gates * hidden
            numbers[at(job, W_BACK, r) + column * hidden + k] = numbers[w_rec + entry]

    return transpose


@unit
def longest_of(integers, lengths, first, rows, batch):
    """Return the largest length of the sequences that a block has."""
    longest = 0
    for b in range(first, min(first + rows, batch)):
        longest = max(longest, integers[lengths + b])
    return longest


@functools.cache
def build_forward(cell, dtype, rows, resident):
    """Build the grid, a block for `rows` sequences of a replica; with `resident`, w_rec lies in shared memory.

    Shared memory: h (2, rows, H), then w_rec in rows of G*H numbers, or one more to make it odd.
    """
    step, gates, lines, kept, has_bias = cell.step, len(cell.gates), len(cell.states), len(cell.saved), cell.bias_rec
    load_gates, load_states = build_load(gates), build_load(lines)
    store_states, store_saved = build_store(lines), build_store(kept)
    constants = build_constants(len(cell.settings))
    real, zero, sums = real_of(dtype), dtype(0), gates * rows

    @unit
    def embed(job, numbers, integers, r, t, b, j, a_in):
        """a_in = x_t w_in + bias, for unit j."""
        hidden, n_in, batch = job[HIDDEN], job[N_IN], job[BATCH]
        columns = gates * hidden
        w_in = at(job, THETA, r)
        bias = w_in + (n_in + hidden) * columns
        for g in range(gates):
            a_in[g] = numbers[bias + g * hidden + j]
        if job[IS_TOKENS]:
            token = integers[at(job, TOKENS, r) + t * batch + b]
            for g in range(gates):
                a_in[g] += numbers[w_in + token * columns + g * hidden + j]
        else:
            x = at(job, INPUTS, r) + (t * batch + b) * n_in
            for n in range(n_in):
                for g in range(gates):
                    a_in[g] += fetch(numbers, x + n) * fetch(numbers, w_in + n * columns + g * hidden + j)

    @grid
    def forward(job, numbers, integers):
        shared = cuda.shared.array(0, real)
        a_in = cuda.local.array(gates, real)
        a_rec = cuda.local.array(sums, real)
        hidden, batch = job[HIDDEN], job[BATCH]
        columns = gates * hidden
        blocks = (batch + rows - 1) // rows
        r, first = cuda.blockIdx.x // blocks, cuda.blockIdx.x % blocks * rows
        me, threads = cuda.threadIdx.x, cuda.blockDim.x
        last = at(job, LAST, r)
        start, states, saved = at(job, START, r), at(job, STATES, r), at(job, SAVED, r)
        w_rec = at(job, THETA, r) + job[N_IN] * columns
        bias_rec = w_rec + (hidden + 1) * columns if has_bias else w_rec
        place = 2 * rows * hidden
        stride = columns | 1
        if resident:
            for k in range(hidden):
                for c in range(me, columns, threads):
                    shared[place + k * stride + c] = numbers[w_rec + k * columns + c]
        for b in range(rows):
            for j in range(me, hidden, threads):
                shared[b * hidden + j] = zero
                shared[(rows + b) * hidden + j] = zero
                if first + b < batch:
                    for line in range(lines):
                        entry = ((first + b) * lines + line) * hidden + j
                        numbers[states + entry] = numbers[start + entry] if job[IS_CARRIED] else zero
                    shared[b * hidden + j] = numbers[states + (first + b) * lines * hidden + j]
        cuda.syncthreads()
        for t in range(longest_of(integers, last, first, rows, batch)):
            now, then = t % 2 * rows * hidden, (t + 1) % 2 * rows * hidden
            for j in range(me, hidden, threads):
                for g in range(gates):
                    for b in range(rows):
                        a_rec[b * gates + g] = numbers[bias_rec + g * hidden + j] if has_bias else zero
                for k in range(hidden):
                    for g in range(gates):
                        if resident:
                            w = fetch(shared, place + k * stride + g * hidden + j)
                        else:
                            w = fetch(numbers, w_rec + k * columns + g * hidden + j)
                        for b in range(rows):
                            a_rec[b * gates + g] += w * fetch(shared, now + b * hidden + k)
                for b in range(rows):
                    if first + b < batch and t < integers[last + first + b]:
                        embed(job, numbers, integers, r, t, first + b, j, a_in)
                        old = states + (t * batch + first + b) * lines * hidden + j
                        s, keep = step(
                            load_gates(a_in, 0, 1), load_gates(a_rec, b * gates, 1), load_states(numbers, old, hidden),
                            *constants(numbers, job[CELL_SETTINGS] + j, hidden),
                        )  # fmt: skip
                        store_states(numbers, old + batch * lines * hidden, hidden, s)
                        store_saved(numbers, saved + (t * batch + first + b) * kept * hidden + j, hidden, keep)
                        shared[then + b * hidden + j] = s[0]
            cuda.syncthreads()

    return forward
