"""The forward pass of a shard: s_t = step(x_t w_in + bias, h_{t-1} w_rec, s_{t-1}), serial over t."""

from __future__ import annotations

import functools

import numpy as np

from nbflow._compile import kernel, part
from nbflow.cpu.job import job_dtype
from nbflow.cpu.lines import build_lines
from nbflow.cpu.memory import call, call_product, view
from nbflow.cpu.product import lanes, panel_vectors


@functools.cache
def build_step(cell, dtype):
    """Build the kernel of one pointwise pass: `states[t]` to `states[t+1]` for the rows of a shard."""
    step, additive, kept = cell.step, cell.additive, len(cell.saved)
    gates, states = len(cell.gates), len(cell.states)
    lines = build_lines({"pre": gates, "rec": 0 if additive else gates, "old": states, "new": states, "saved": kept})
    (load_pre, _), (load_rec, _), (load_old, _) = lines["pre"], lines["rec"], lines["old"]
    (_, store_new), (_, store_saved) = lines["new"], lines["saved"]
    zeros = (np.zeros((), dtype)[()],) * len(cell.gates)
    record = job_dtype(dtype)
    size = np.dtype(dtype).itemsize

    @kernel(step, additive, kept, dtype)
    def step_rows(address, t):
        job = view(address, (1,), record)[0]
        rows, width = job.rows, job.width
        pre = view(job.pre + t * rows * job.gates * width * size, (rows, job.gates, width), dtype)
        rec = view(job.rec + t * rows * job.gates * width * size, (rows, job.gates, width), dtype)
        old = view(job.states + t * rows * job.lines * width * size, (rows, job.lines, width), dtype)
        new = view(job.states + (t + 1) * rows * job.lines * width * size, (rows, job.lines, width), dtype)
        saved = view(job.saved + t * rows * kept * width * size, (rows, kept, width), dtype)
        for b in range(rows):
            for j in range(width):
                a_rec = zeros if additive else load_rec(rec, b, j)
                s, keep = step(load_pre(pre, b, j), a_rec, load_old(old, b, j))
                store_new(new, b, j, s)
                store_saved(saved, b, j, keep)

    return step_rows


@functools.cache
def build_advance(dtype):
    """Build `advance(job, address, start, stop)`, which takes the steps start .. stop-1."""
    width_of_panel = panel_vectors() * lanes(dtype)
    size = np.dtype(dtype).itemsize

    @part
    def embed_tokens(job, t):
        """pre[t] = w_in[token] + bias, a look-up of rows."""
        columns = job.gates * job.width
        tokens = view(job.inputs + t * job.batch * 4, (job.rows,), np.int32)
        table = view(job.p_in, (job.n_in + 1, columns), dtype)
        pre = view(job.pre + t * job.rows * columns * size, (job.rows, columns), dtype)
        for b in range(job.rows):
            token = tokens[b]
            for j in range(columns):
                pre[b, j] = table[token, j] + table[job.n_in, j]

    @part
    def embed_dense(job, t):
        """pre[t] = (x_t, 1) @ (w_in, bias)."""
        n, columns = job.n_in, job.gates * job.width
        inputs = view(job.inputs + t * job.batch * n * size, (job.rows, n), dtype)
        at = job.x + t * job.rows * (n + 1) * size
        x = view(at, (job.rows, n + 1), dtype)
        for b in range(job.rows):
            for i in range(n):
                x[b, i] = inputs[b, i]
            x[b, n] = 1
        call_product(
            job.product, job.pre + t * job.rows * columns * size, columns, at, n + 1, 1,
            job.p_in, (n + 1) * width_of_panel, width_of_panel, job.rows, n + 1, columns, 0,
        )  # fmt: skip

    @part
    def recur(job, t):
        """rec[t] = h_t @ w_rec + bias_rec, or pre[t] += h_t @ w_rec where the cell only looks at the sum."""
        columns = job.gates * job.width
        at = job.rec + t * job.rows * columns * size
        if job.bias_rec:
            rec = view(at, (job.rows, columns), dtype)
            bias = view(job.p_bias_rec, (columns,), dtype)
            for b in range(job.rows):
                for j in range(columns):
                    rec[b, j] = bias[j]
        row = job.lines * job.width
        call_product(
            job.product, at, columns, job.states + t * job.rows * row * size, row, 1,
            job.p_rec, job.hidden * width_of_panel, width_of_panel, job.rows, job.hidden, columns,
            job.additive + job.bias_rec,
        )  # fmt: skip

    @part
    def rest(job, t):
        """Set the state of sequences that have ended to 0, so that an overflow after the end harms nobody."""
        row = job.lines * job.width
        states = view(job.states + (t + 1) * job.rows * row * size, (job.rows, row), dtype)
        last = view(job.last, (job.rows,), np.int64)
        for b in range(job.rows):
            if last[b] <= t:
                for j in range(row):
                    states[b, j] = 0

    @part
    def advance(job, address, start, stop):
        for t in range(start, stop):
            if job.tokens:
                embed_tokens(job, t)
            else:
                embed_dense(job, t)
            recur(job, t)
            call(job.step, address, t)
            if t >= job.shortest:
                rest(job, t)

    return advance


@functools.cache
def build_lengths(dtype):
    """Build `find_lengths(job)`, which fills `active`, `last` and `heard` from the weights."""

    @part
    def find_lengths(job):
        weights = view(job.weights, (job.steps * job.batch,), dtype)
        active = view(job.active, (job.steps,), np.int64)
        last, heard = view(job.last, (job.rows,), np.int64), view(job.heard, (job.rows,), np.int64)
        for b in range(job.rows):
            heard[b] = 0
        for t in range(job.steps):
            active[t] = 0
            for b in range(job.rows):
                if weights[t * job.batch + b] != 0:
                    active[t] = 1
                    heard[b] = t + 1
        job.reach, job.shortest, job.quiet = 0, job.steps, job.steps
        for b in range(job.rows):
            last[b] = job.steps if job.whole else heard[b]
            job.reach = max(job.reach, last[b])
            job.shortest = min(job.shortest, last[b])
            job.quiet = min(job.quiet, heard[b])

    return find_lengths


@functools.cache
def build_forward(dtype):
    """Build the phase that runs a shard forward over all its steps."""
    find_lengths, advance = build_lengths(dtype), build_advance(dtype)
    record = job_dtype(dtype)
    size = np.dtype(dtype).itemsize

    @part
    def keep_end(job):
        """Copy the last state: the way back may clear states that nobody listened to."""
        count = job.rows * job.lines * job.width
        state = view(job.states + job.steps * count * size, (count,), dtype)
        end = view(job.end, (count,), dtype)
        for i in range(count):
            end[i] = state[i]

    @kernel(dtype)
    def forward(address, _):
        job = view(address, (1,), record)[0]
        find_lengths(job)
        advance(job, address, 0, job.reach)
        if job.whole:
            keep_end(job)

    return forward
