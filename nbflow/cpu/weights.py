"""Weight gradients: sums of outer products over the tape, each one matrix product.

A sum runs over steps and over some of a shard's sequences: over all of them, whose rows lie one behind the other, or
over one of them, whose rows lie `rows` apart. `Span` says which.
"""

from __future__ import annotations

from typing import NamedTuple

from nbflow._compile import part
from nbflow.cpu.memory import address_of, call_product, clear
from nbflow.cpu.product import CHUNK, outer
from nbflow.cpu.views import at, flat_at, place, row, row_of, rows_at, whole

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


@part
def copy_panel(shard, panel, source, source_row, count, wide):
    """Copy `wide` numbers from each of `count` rows, `source_row` numbers apart, to the front of a panel's rows."""
    for k in range(count):
        numbers, place = row_of(shard, source + k * source_row * shard.number, wide), panel[k]
        for j in range(wide):
            place[j] = numbers[j]


@part
def tape_outer(shard, c, a, a_k, b, b_k, rows, depth, columns, add):
    """`nbflow.cpu.product.outer` for b on a tape of gates: where its rows collide, panels of it are copied."""
    if rows < COPIED_FOR or not shard.colliding:
        outer(shard, c, a, a_k, b, b_k, rows, depth, columns, add)
        return
    panel, width, size = whole(shard, "panel"), shard.panel_width, shard.number
    for start in range(0, max(depth, 1), CHUNK):
        count, adding = min(CHUNK, depth - start), 1 if start > 0 else add
        for first in range(0, columns, width):
            wide = min(width, columns - first)
            copy_panel(shard, panel, b + (start * b_k + first) * size, b_k, count, wide)
            call_product(
                shard.product, c + first * size, columns, a + start * a_k * size, 1, a_k,
                address_of(panel), 0, width, rows, count, wide, adding,
            )  # fmt: skip


@part
def scatter_tokens(shard, span, copy):
    """d_in[token] += pre[t, b], and all of them to the bias row."""
    d_in, bias = rows_at(shard, "d_in", copy), shard.n_in
    for t in range(span.start, span.stop):
        tokens, pre = at(shard, "tokens", t), rows_at(shard, "pre", t)
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
def add_outputs(shard, span, copy):
    """Add the sums over a run of steps with weight."""
    outer(
        shard, place(shard, "d_out", copy, 0), place(shard, "states", span.start + 1, span.first),
        span.apart * shard.line, place(shard, "y", span.start, span.first), span.apart * shard.out_width,
        shard.hidden, (span.stop - span.start) * span.rows, shard.out_width, 1,
    )  # fmt: skip
    for t in range(span.start, span.stop):
        for b in range(span.first, span.first + span.rows):
            add_row(at(shard, "d_b_out", copy), row(shard, "y", t, b))


@part
def output_weights(shard, span, copy, add):
    """Sum over runs of steps with weight; steps without cost nothing."""
    active = whole(shard, "active")
    if not add:
        clear(flat_at(shard, "d_out", copy))
        clear(at(shard, "d_b_out", copy))
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


@part
def input_weights(shard, span, copy, add):
    """The gradients of w_in and bias."""
    if shard.takes_tokens:
        if not add:
            clear(flat_at(shard, "d_in", copy))
        scatter_tokens(shard, span, copy)
    else:
        inputs = shard.n_in + 1
        tape_outer(
            shard, place(shard, "d_in", copy, 0), place(shard, "x", span.start, span.first), span.apart * inputs,
            place(shard, "pre", span.start, span.first), span.apart * shard.columns,
            inputs, (span.stop - span.start) * span.rows, shard.columns, add,
        )  # fmt: skip


@part
def recurrent_weights(shard, span, copy, add):
    """The gradients of w_rec and bias_rec."""
    tape_outer(
        shard, place(shard, "d_rec", copy, 0), place(shard, "states", span.start, span.first),
        span.apart * shard.line, place(shard, "rec", span.start, span.first), span.apart * shard.columns,
        shard.hidden, (span.stop - span.start) * span.rows, shard.columns, add,
    )  # fmt: skip
    if shard.bias_rec:
        total = flat_at(shard, "d_bias_rec", copy)
        if not add:
            clear(total)
        for t in range(span.start, span.stop):
            for b in range(span.first, span.first + span.rows):
                add_row(total, row(shard, "rec", t, b))


@part
def weights(shard, span, copy, add):
    """The gradients in one copy of their block (+)= those of a span."""
    input_weights(shard, span, copy, add)
    recurrent_weights(shard, span, copy, add)
    if not shard.below:
        output_weights(shard, span, copy, add)
