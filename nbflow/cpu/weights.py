"""Weight gradients: sums of outer products over the tape, each one matrix product.

A sum runs over steps and over some of a shard's sequences: over all of them, whose rows lie one behind the other, or
over one of them, whose rows lie `rows` apart. `Span` says which.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from nbflow._compile import part
from nbflow.cpu.memory import call_product, clear, view
from nbflow.cpu.product import CHUNK, lanes, panel_vectors

# Rows of a multiple of COLLIDING bytes fall into the same few places of a cache: where at least COPIED_FOR rows of a
# result are computed, a panel of such rows is copied first. (704 rows of the tape, float32, H = 1024, one core of an
# EPYC, Zen 5: 222 GFLOP/s where they lie, 242 in a panel; H = 512, rows 2048 bytes apart: 255 where they lie.)
COLLIDING = 4096
COPIED_FOR = 64


class Span(NamedTuple):
    """Steps start .. stop-1 of `rows` sequences from `first` on; `apart` is 1 for all of a shard, `rows` for one."""

    start: int
    stop: int
    first: int
    rows: int
    apart: int


class Place(NamedTuple):
    """Addresses of a set of weight gradients."""

    d_in: int
    d_rec: int
    d_bias_rec: int
    d_out: int
    d_b_out: int


@part
def place_of(job):
    """Return where the partial gradients of a shard stand."""
    return Place(job.d_in, job.d_rec, job.d_bias_rec, job.d_out, job.d_b_out)


@functools.cache
def build_weights(dtype):
    """Build `weights(job, span, place, add)`: the gradients at `place` (+)= those of a span."""
    width_of_panel = panel_vectors() * lanes(dtype)
    size = np.dtype(dtype).itemsize

    @part
    def outer(job, c, a, a_k, b, b_k, rows, depth, columns, add):
        """c (+)= sum_k outer(a[k], b[k]), c of rows of `columns`, a and b of rows `a_k` and `b_k` apart."""
        if rows < COPIED_FOR or columns * size % COLLIDING != 0:
            call_product(job.product, c, columns, a, 1, a_k, b, width_of_panel, b_k, rows, depth, columns, add)
            return
        for start in range(0, max(depth, 1), CHUNK):
            count = min(CHUNK, depth - start)
            for first in range(0, columns, width_of_panel):
                wide = min(width_of_panel, columns - first)
                for k in range(count):
                    numbers = view(b + ((start + k) * b_k + first) * size, (wide,), dtype)
                    place = view(job.panel + k * width_of_panel * size, (wide,), dtype)
                    for j in range(wide):
                        place[j] = numbers[j]
                call_product(
                    job.product, c + first * size, columns, a + start * a_k * size, 1, a_k,
                    job.panel, 0, width_of_panel, rows, count, wide, 1 if start > 0 else add,
                )  # fmt: skip

    @part
    def sum_rows(source, count, apart, to, width):
        """Add `count` rows of `width` numbers, `apart` rows apart, to the row at `to`."""
        total = view(to, (width,), dtype)
        for i in range(count):
            row = view(source + i * apart * width * size, (width,), dtype)
            for j in range(width):
                total[j] += row[j]

    @part
    def scatter_tokens(job, span, d_in):
        """d_in[token] += pre[t, b], and all of them to the bias row."""
        columns = job.gates * job.width
        for t in range(span.start, span.stop):
            tokens = view(job.inputs + t * job.batch * 4, (job.rows,), np.int32)
            pre = view(job.pre + t * job.rows * columns * size, (job.rows, columns), dtype)
            for b in range(span.first, span.first + span.rows):
                token = tokens[b]
                for j in range(columns):
                    d_in[token, j] += pre[b, j]
                # A loop of its own: in one loop the two rows might be the same, and nothing would vectorise.
                for j in range(columns):
                    d_in[job.n_in, j] += pre[b, j]

    @part
    def input_weights(job, span, place, add):
        columns, row = job.gates * job.width, span.start * job.rows + span.first
        if job.tokens:
            if not add:
                clear(place.d_in, (job.n_in + 1) * columns, dtype)
            scatter_tokens(job, span, view(place.d_in, (job.n_in + 1, columns), dtype))
        else:
            outer(
                job, place.d_in, job.x + row * (job.n_in + 1) * size, span.apart * (job.n_in + 1),
                job.pre + row * columns * size, span.apart * columns,
                job.n_in + 1, (span.stop - span.start) * span.rows, columns, add,
            )  # fmt: skip

    @part
    def recurrent_weights(job, span, place, add):
        columns, line, row = job.gates * job.width, job.lines * job.width, span.start * job.rows + span.first
        outer(
            job, place.d_rec, job.states + row * line * size, span.apart * line,
            job.rec + row * columns * size, span.apart * columns,
            job.hidden, (span.stop - span.start) * span.rows, columns, add,
        )  # fmt: skip
        if job.bias_rec:
            if not add:
                clear(place.d_bias_rec, columns, dtype)
            sum_rows(
                job.rec + row * columns * size,
                (span.stop - span.start) * span.rows,
                span.apart,
                place.d_bias_rec,
                columns,
            )

    @part
    def output_weights(job, span, place, add):
        """Sum over runs of steps with weight; steps without cost nothing."""
        active = view(job.active, (job.steps,), np.int64)
        line = job.lines * job.width
        if not add:
            clear(place.d_out, job.hidden * job.out_width, dtype)
            clear(place.d_b_out, job.out_width, dtype)
        end = span.start
        while end < span.stop:
            begin = end
            while begin < span.stop and not active[begin]:
                begin += 1
            end = begin
            while end < span.stop and active[end]:
                end += 1
            if begin == end:
                continue
            row = begin * job.rows + span.first
            at = job.y + row * job.out_width * size
            call_product(
                job.product, place.d_out, job.out_width, job.states + (row + job.rows) * line * size, 1,
                span.apart * line, at, width_of_panel, span.apart * job.out_width,
                job.hidden, (end - begin) * span.rows, job.out_width, 1,
            )  # fmt: skip
            sum_rows(at, (end - begin) * span.rows, span.apart, place.d_b_out, job.out_width)

    @part
    def weights(job, span, place, add):
        input_weights(job, span, place, add)
        recurrent_weights(job, span, place, add)
        output_weights(job, span, place, add)

    return weights
