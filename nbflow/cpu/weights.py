"""Weight gradients: sums of outer products over the tape, each one matrix product.

A sum runs over steps and over some of a shard's sequences: over all of them, whose rows lie one behind the other, or
over one of them, whose rows lie `rows` apart. `Span` says which.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from nbflow._compile import part
from nbflow.cpu.memory import address_of, call_product, clear, view
from nbflow.cpu.product import CHUNK, outer
from nbflow.cpu.views import at, of, place, row

# Rows of a multiple of COLLIDING bytes fall into the same few places of a cache: where at least COPIED_FOR rows of a
# result are computed, a panel of such rows is copied first. (704 rows of the tape, float32, H = 1024, one core of an
# EPYC, Zen 5: 222 GFLOP/s where they lie, 242 in a panel; H = 512, rows 2048 bytes apart: 255 where they lie.)
COLLIDING = 4096
COPIED_FOR = 64


class Span(NamedTuple):
    """Steps start .. stop-1 of `rows` sequences from `first` on.

    `apart` is how far one row lies from the next: 1 for all sequences of a shard, the shard's `rows` for one of them.
    """

    start: int
    stop: int
    first: int
    rows: int
    apart: int


@part
def every_sequence(shard, start, stop):
    """Return the span of some steps of all sequences."""
    return Span(start, stop, 0, shard.rows, 1)


x_place, pre_place, rec_place = place("x"), place("pre"), place("rec")
state_place, y_place, panel_of, active_of = place("states"), place("y"), of("panel"), of("active")
tokens_at, pre_rows, rec_row, y_row = at("tokens"), at("pre", 2), row("rec"), row("y")
d_in_rows, d_in_of, d_rec_of, d_out_of = at("d_in", 2), at("d_in", 1), at("d_rec", 1), at("d_out", 1)
d_bias_rec_of, d_b_out_of = at("d_bias_rec", 1), at("d_b_out")


@functools.cache
def build_tape_outer(dtype):
    """Build `outer` (`nbflow.cpu.product`) for b on a tape of gates: where rows collide, panels of it are copied."""
    size = np.dtype(dtype).itemsize

    @part
    def copy_panel(to, source, source_row, count, wide):
        for k in range(count):
            numbers, place = view(source + k * source_row * size, (wide,), dtype), to[k]
            for j in range(wide):
                place[j] = numbers[j]

    @part
    def tape_outer(shard, c, a, a_k, b, b_k, rows, depth, columns, add):
        if rows < COPIED_FOR or columns * size % COLLIDING != 0:
            outer(shard, c, a, a_k, b, b_k, rows, depth, columns, add)
            return
        panel, width = panel_of(shard), shard.panel_width
        for start in range(0, max(depth, 1), CHUNK):
            count, adding = min(CHUNK, depth - start), 1 if start > 0 else add
            for first in range(0, columns, width):
                wide = min(width, columns - first)
                copy_panel(panel, b + (start * b_k + first) * size, b_k, count, wide)
                call_product(
                    shard.product, c + first * size, columns, a + start * a_k * size, 1, a_k,
                    address_of(panel), 0, width, rows, count, wide, adding,
                )  # fmt: skip

    return tape_outer


@part
def scatter_tokens(shard, span, copy):
    """d_in[token] += pre[t, b], and all of them to the bias row."""
    d_in, bias = d_in_rows(shard, copy), shard.n_in
    for t in range(span.start, span.stop):
        tokens, pre = tokens_at(shard, t), pre_rows(shard, t)
        for b in range(span.first, span.first + span.rows):
            token = tokens[b]
            for j in range(shard.columns):
                d_in[token, j] += pre[b, j]
            # A loop of its own: in one loop the two rows might be the same, and nothing would vectorise.
            for j in range(shard.columns):
                d_in[bias, j] += pre[b, j]


@part
def add_row(total, row):
    """total += row."""
    for j in range(total.size):
        total[j] += row[j]


@part
def add_bias_rec(shard, span, total):
    """Add the gradients at a_rec of a span."""
    for t in range(span.start, span.stop):
        for b in range(span.first, span.first + span.rows):
            add_row(total, rec_row(shard, t, b))


@part
def add_outputs(shard, span, copy):
    """Add the sums over a run of steps with weight."""
    outer(
        shard, address_of(d_out_of(shard, copy)), state_place(shard, span.start + 1, span.first),
        span.apart * shard.line, y_place(shard, span.start, span.first), span.apart * shard.out_width,
        shard.hidden, (span.stop - span.start) * span.rows, shard.out_width, 1,
    )  # fmt: skip
    for t in range(span.start, span.stop):
        for b in range(span.first, span.first + span.rows):
            add_row(d_b_out_of(shard, copy), y_row(shard, t, b))


@part
def output_weights(shard, span, copy, add):
    """Sum over runs of steps with weight; steps without cost nothing."""
    active = active_of(shard)
    if not add:
        clear(d_out_of(shard, copy))
        clear(d_b_out_of(shard, copy))
    end = span.start
    while end < span.stop:
        begin = end
        while begin < span.stop and not active[begin]:
            begin += 1
        end = begin
        while end < span.stop and active[end]:
            end += 1
        if begin < end:
            add_outputs(shard, Span(begin, end, span.first, span.rows, span.apart), copy)


@functools.cache
def build_weights(dtype):
    """Build `weights(shard, span, copy, add)`: the gradients in one copy of their block (+)= those of a span."""
    tape_outer = build_tape_outer(dtype)

    @part
    def input_weights(shard, span, copy, add):
        if shard.takes_tokens:
            if not add:
                clear(d_in_of(shard, copy))
            scatter_tokens(shard, span, copy)
        else:
            inputs = shard.n_in + 1
            tape_outer(
                shard, address_of(d_in_of(shard, copy)), x_place(shard, span.start, span.first), span.apart * inputs,
                pre_place(shard, span.start, span.first), span.apart * shard.columns,
                inputs, (span.stop - span.start) * span.rows, shard.columns, add,
            )  # fmt: skip

    @part
    def recurrent_weights(shard, span, copy, add):
        tape_outer(
            shard, address_of(d_rec_of(shard, copy)), state_place(shard, span.start, span.first),
            span.apart * shard.line, rec_place(shard, span.start, span.first), span.apart * shard.columns,
            shard.hidden, (span.stop - span.start) * span.rows, shard.columns, add,
        )  # fmt: skip
        if shard.bias_rec:
            if not add:
                clear(d_bias_rec_of(shard, copy))
            add_bias_rec(shard, span, d_bias_rec_of(shard, copy))

    @part
    def weights(shard, span, copy, add):
        input_weights(shard, span, copy, add)
        recurrent_weights(shard, span, copy, add)
        output_weights(shard, span, copy, add)

    return weights
