"""Weight gradients: sums of outer products over the tape, each one matrix product.

A sum runs over steps and over some of a shard's sequences: over all of them, whose rows lie one behind the other, or
over one of them, whose rows lie `rows` apart. `Span` says which.
"""

from __future__ import annotations

from typing import NamedTuple

from nbflow._compile import part
from nbflow.cpu.memory import address_of, call_product, clear
from nbflow.cpu.product import CHUNK, outer, panel_vectors
from nbflow.cpu.views import at, flat_at, place, row, row_of, rows_at, whole

# Rows of the tape a multiple of 512 bytes apart fall into the same few places of a first-level cache, and rows
# of more than a half of a page ask for a page each: of such rows a panel is copied first, where COPIED_FOR or more rows
# of a result are computed of it. From LEFT_FOR rows on the left factor is copied too, LEFT_ROWS of its columns at a
# time, each to a row. (A weight gradient of H x H over 704 to 1024 rows, float32, one core of an EPYC, Zen 3, AVX,
# GFLOP/s where it lies, with a panel, with both: H = 256 64 79 81, 512 68 75 83, 600 76 82 85, 768 62 77 87,
# 1024 50 65 82; and H = 200 90 83 77, 400 88 85 84. One tile: 92.)
# A panel for AVX-512 has four times as many bytes a row, and waits less: only multiples of a page count. (704 rows, one
# core of an EPYC, Zen 5: H = 1024 222 where they lie, 242 in a panel; H = 512, rows 2048 bytes apart, 255 as they lie.)
COPIED_FOR = 96
LEFT_FOR = 256
LEFT_ROWS = 384
LEFT_BLOCK = 16  # numbers of a row that are copied while its line is near


def colliding(row_bytes: int) -> bool:
    """Return whether rows of so many bytes are better copied before they are multiplied."""
    if panel_vectors() > 2:
        return row_bytes % 4096 == 0
    return row_bytes % 512 == 0 or row_bytes > 2304


def left_rows(hidden: int, row_bytes: int) -> int:
    """Return how many columns of the left factor are copied at a time; 0 where it is read as it lies."""
    return LEFT_ROWS if panel_vectors() <= 2 and hidden >= LEFT_FOR and colliding(row_bytes) else 0


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
        whole_eights = wide // 8 * 8
        # All loads before all stores: the compiler makes vectors of them without a question whether the rows are one.
        for j in range(0, whole_eights, 8):
            n_0, n_1, n_2, n_3 = numbers[j], numbers[j + 1], numbers[j + 2], numbers[j + 3]
            n_4, n_5, n_6, n_7 = numbers[j + 4], numbers[j + 5], numbers[j + 6], numbers[j + 7]
            place[j], place[j + 1], place[j + 2], place[j + 3] = n_0, n_1, n_2, n_3
            place[j + 4], place[j + 5], place[j + 6], place[j + 7] = n_4, n_5, n_6, n_7
        for j in range(whole_eights, wide):
            place[j] = numbers[j]


@part
def copy_left(shard, left, source, source_row, count, high):
    """Copy `high` numbers from each of `count` rows, `source_row` numbers apart, to the columns of `left`."""
    for first in range(0, high, LEFT_BLOCK):
        many = min(LEFT_BLOCK, high - first)
        for k in range(count):
            numbers = row_of(shard, source + (k * source_row + first) * shard.number, many)
            if many == LEFT_BLOCK:
                for i in range(LEFT_BLOCK):
                    left[first + i, k] = numbers[i]
            else:
                for i in range(many):
                    left[first + i, k] = numbers[i]


@part
def copied_outer(shard, c, a, a_k, b, b_k, rows, count, columns, add):
    """`nbflow.cpu.product.outer` over `count` rows, no more than a panel has, which are copied before."""
    panel, width, size = whole(shard, "panel"), shard.panel_width, shard.number
    copies_left = shard.left_rows > 0 and rows >= LEFT_FOR
    block = shard.left_rows if copies_left else rows
    for top in range(0, rows, block):
        high, left, left_row, left_k = min(block, rows - top), a + top * size, 1, a_k
        if copies_left:
            copy_left(shard, whole(shard, "left"), left, a_k, count, high)
            left, left_row, left_k = address_of(whole(shard, "left")), shard.chunk, 1
        for first in range(0, columns, width):
            wide = min(width, columns - first)
            copy_panel(shard, panel, b + first * size, b_k, count, wide)
            call_product(
                shard.product, c + (top * columns + first) * size, columns, left, left_row, left_k,
                address_of(panel), 0, width, high, count, wide, add,
            )  # fmt: skip


@part
def tape_outer(shard, c, a, a_k, b, b_k, rows, depth, columns, add):
    """`nbflow.cpu.product.outer` for b on a tape of gates: where its rows collide, they are copied."""
    if rows < COPIED_FOR or not shard.colliding:
        outer(shard, c, a, a_k, b, b_k, rows, depth, columns, add)
        return
    for start in range(0, max(depth, 1), CHUNK):
        count, adding = min(CHUNK, depth - start), 1 if start > 0 else add
        to_a, to_b = a + start * a_k * shard.number, b + start * b_k * shard.number
        copied_outer(shard, c, to_a, a_k, to_b, b_k, rows, count, columns, adding)


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
    if shard.gates > 0:  # not of an output layer alone
        input_weights(shard, span, copy, add)
        recurrent_weights(shard, span, copy, add)
    if not shard.below:
        output_weights(shard, span, copy, add)
