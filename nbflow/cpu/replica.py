"""What is done once for a replica: its weights are packed before its shards run, its gradient is summed after.

Both are cut into the replica's `pieces`, which cores share. A piece takes its part of the rows of every parameter
array; what has no rows, as a bias, is the first piece's.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

from nbflow._compile import kernel, part
from nbflow.cpu.memory import address_of
from nbflow.cpu.product import lanes, panel_vectors
from nbflow.cpu.record import DIRECTION, IMMEDIATE, PARAMETERS, TOTAL
from nbflow.cpu.report import CLIPPED_GROUPS, CLIPPED_INSIDE, COUNT, LEFT_OUT, LOSS, OMEGA
from nbflow.cpu.rules import divisor
from nbflow.cpu.views import at, flat, place, replicas, row_of, whole


class Share(NamedTuple):
    """One of the equal pieces that a replica's packing and summing are cut into."""

    piece: int
    pieces: int


class Blocks(NamedTuple):
    """Where each parameter array begins in a flat vector: addresses."""

    w_in: int
    w_rec: int
    bias: int
    bias_rec: int
    w_out: int
    b_out: int


@part
def portion(share, count):
    """Return where the rows of a piece begin and end, among `count` rows."""
    return count * share.piece // share.pieces, count * (share.piece + 1) // share.pieces


@part
def blocks_of(replica, theta):
    """Return the parameter arrays of the flat vector (P,) at an address."""
    h, row = replica.hidden, replica.gates * replica.hidden * replica.number
    w_rec = theta + replica.n_in * row
    bias = w_rec + h * row
    bias_rec = bias + row
    w_out = bias_rec + replica.bias_rec * row
    return Blocks(theta, w_rec, bias, bias_rec, w_out, w_out + h * replica.n_out * replica.number)


@part
def copy(replica, to, source, count):
    """Copy a row of numbers from one address to another."""
    place, numbers = row_of(replica, to, count), row_of(replica, source, count)
    for i in range(count):
        place[i] = numbers[i]


@functools.cache
def build_pack_row(dtype):
    """Build `pack_row(replica, to, depth, k, first, count, source)`.

    It writes `count` numbers to row k of panels of `depth` rows, from column `first` on.
    """
    vector, panel = lanes(dtype), panel_vectors() * lanes(dtype)

    @part
    def pack_row(replica, to, depth, k, first, count, source):
        numbers, size = row_of(replica, source, count), replica.number
        for start in range(0, count, vector):
            column = first + start
            at = to + ((column // panel * depth + k) * panel + column % panel) * size
            place = row_of(replica, at, vector)
            for j in range(min(vector, count - start)):
                place[j] = numbers[start + j]

    return pack_row


@functools.cache
def build_pack_transposed(dtype):
    """Build `pack_transposed(replica, share, to, depth, count, source, stride)`.

    It writes `depth` numbers from each of `count` rows, `stride` apart, as columns of panels of `depth` rows. In
    squares of a vector's length, which read each cache line once.
    """
    vector, panel = lanes(dtype), panel_vectors() * lanes(dtype)

    @part
    def pack_transposed(replica, share, to, depth, count, source, stride):
        numbers, size = row_of(replica, source, (count - 1) * stride + depth), replica.number
        begin, end = portion(share, (count + vector - 1) // vector)
        for start in range(begin * vector, end * vector, vector):
            square = to + (start // panel * depth * panel + start % panel) * size
            for first in range(0, depth, vector):
                high = min(vector, depth - first)
                place = row_of(replica, square + first * panel * size, (high - 1) * panel + vector)
                for j in range(min(vector, count - start)):
                    for k in range(high):
                        place[k * panel + j] = numbers[(start + j) * stride + first + k]

    return pack_transposed


@functools.cache
def build_pack_all(dtype):
    """Build `pack_all(replica, share, theta, to)`: parameters or a direction, to that copy of the packed block."""
    pack_row, pack_transposed = build_pack_row(dtype), build_pack_transposed(dtype)

    @part
    def pack_inputs(replica, share, blocks, to):
        n, h, gates, depth = replica.n_in, replica.hidden, replica.gates, replica.n_in + 1
        begin, end = portion(share, depth)
        for k in range(begin, end):
            source = blocks.w_in + k * gates * h * replica.number if k < n else blocks.bias
            for g in range(gates):
                if replica.takes_tokens:
                    copy(replica, place(replica, "p_rows", to, k) + g * replica.width * replica.number, source, h)
                else:
                    pack_row(replica, place(replica, "p_in", to, 0), depth, k, g * replica.width, h, source)
                source += h * replica.number

    @part
    def pack_recurrent(replica, share, w_rec, to):
        h, gates, gate = replica.hidden, replica.gates, replica.hidden * replica.number
        begin, end = portion(share, h)
        for g in range(gates):
            for k in range(begin, end):
                source = w_rec + (k * gates + g) * gate
                pack_row(replica, place(replica, "p_rec", to, 0), h, k, g * replica.width, h, source)
            pack_transposed(replica, share, place(replica, "p_rec_back", to, g), h, h, w_rec + g * gate, gates * h)

    @part
    def pack_outputs(replica, share, w_out, to):
        h, m = replica.hidden, replica.n_out
        begin, end = portion(share, h)
        for k in range(begin, end):
            pack_row(replica, place(replica, "p_out", to, 0), h, k, 0, m, w_out + k * m * replica.number)
        pack_transposed(replica, share, place(replica, "p_out_back", to, 0), m, h, w_out, m)

    @part
    def pack_all(replica, share, theta, to):
        h, blocks = replica.hidden, blocks_of(replica, theta)
        pack_inputs(replica, share, blocks, to)
        pack_recurrent(replica, share, blocks.w_rec, to)
        pack_outputs(replica, share, blocks.w_out, to)
        if share.piece > 0:
            return
        if replica.bias_rec:
            for g in range(replica.gates):
                copy(replica, place(replica, "p_bias_rec", to, g), blocks.bias_rec + g * h * replica.number, h)
        copy(replica, address_of(at(replica, "p_b_out", to)), blocks.b_out, replica.n_out)

    return pack_all


@functools.cache
def build_pack(dtype):
    """Build the kernel that lays the parameters of a replica out as `nbflow.cpu.product` reads them."""
    pack_all, replica_at = build_pack_all(dtype), replicas(dtype)

    @kernel(dtype)
    def pack_replica(address, piece):
        replica = replica_at(address)
        share = Share(piece, replica.pieces)
        pack_all(replica, share, replica.theta, PARAMETERS)
        if replica.directed:
            pack_all(replica, share, replica.direction, DIRECTION)

    return pack_replica


@functools.cache
def build_add_up(dtype):
    """Build `add_up(replica)`: loss, sum and count of penalties over its shards, and what Omega is multiplied by."""

    @part
    def add_up(replica):
        loss, omega, count = dtype(0), dtype(0), dtype(0)
        shards = whole(replica, "shards")
        for k in range(shards.size):
            sums = whole(shards[k], "sums")
            loss, omega, count = loss + sums[0], omega + sums[1], count + sums[2]
        return loss, omega, count, dtype(1) / divisor(count, dtype(replica.batch), replica.mean_flow)

    return add_up


@part
def counted(replica, what):
    """Return how many groups its shards have left out, or clipped."""
    shards, count = whole(replica, "shards"), 0
    for k in range(shards.size):
        count += int(whole(shards[k], "sums")[what])
    return count


@part
def count_inside(replica):
    """Return how much a clip inside BPTT clipped, and of how much; 0 and 0 where there is none."""
    shards, clipped, seen = whole(replica, "shards"), 0, 0
    for k in range(shards.size):
        inside = whole(shards[k], "inside")
        clipped, seen = clipped + inside[0], seen + inside[1]
    return clipped, seen


@part
def add_block(share, shard, source, count, stride, to, length, factor, first):
    """Write factor times `count` rows of `length` numbers, `stride` apart, or add them."""
    begin, end = portion(share, count)
    for k in range(begin, end):
        numbers = row_of(shard, source + k * stride * shard.number, length)
        place = row_of(shard, to + k * length * shard.number, length)
        for j in range(length):
            place[j] = factor * numbers[j] + (numbers.dtype.type(0) if first else place[j])


@part
def add_shard(share, shard, d, one, first):
    """Write a shard's gradients to the arrays of a flat one if it is the first, or add them; `one` is 1."""
    h, g, m, width, wide = shard.hidden, shard.gates, shard.n_out, shard.width, shard.out_width
    add_block(share, shard, place(shard, "d_in", TOTAL, 0), shard.n_in * g, width, d.w_in, h, one, first)
    add_block(share, shard, place(shard, "d_rec", TOTAL, 0), h * g, width, d.w_rec, h, one, first)
    add_block(share, shard, place(shard, "d_in", TOTAL, shard.n_in), g, width, d.bias, h, one, first)
    if shard.bias_rec:
        add_block(share, shard, place(shard, "d_bias_rec", TOTAL, 0), g, width, d.bias_rec, h, one, first)
    add_block(share, shard, place(shard, "d_out", TOTAL, 0), h, wide, d.w_out, m, one, first)
    add_block(share, shard, address_of(at(shard, "d_b_out", TOTAL)), 1, wide, d.b_out, m, one, first)


@functools.cache
def build_combine(dtype):
    """Build the kernel that sums the gradients of a replica's shards, in their order, into `d_theta`."""
    add_up, replica_at, one = build_add_up(dtype), replicas(dtype), dtype(1)

    @kernel(dtype)
    def combine(address, piece):
        replica = replica_at(address)
        loss, omega, count, scale = add_up(replica)
        if piece == 0:
            report = whole(replica, "report")
            report[LOSS], report[OMEGA], report[COUNT] = loss, omega * scale, count
            report[LEFT_OUT], report[CLIPPED_GROUPS] = counted(replica, LEFT_OUT), counted(replica, CLIPPED_GROUPS)
            clipped, seen = count_inside(replica)
            report[CLIPPED_INSIDE] = dtype(clipped) / dtype(max(seen, 1))
        if replica.d_theta == 0:
            return
        share, d = Share(piece, replica.pieces), blocks_of(replica, replica.d_theta)
        shards = whole(replica, "shards")
        for k in range(shards.size):
            add_shard(share, shards[k], d, one, k == 0)
        if replica.derivative == IMMEDIATE and replica.alpha != 0:  # 0 * Inf would be NaN, and -0.0 + 0.0 other bits
            rows, h, factor = replica.hidden * replica.gates, replica.hidden, replica.alpha * scale
            for k in range(shards.size):
                source = address_of(flat(shards[k], "d_flow"))
                add_block(share, shards[k], source, rows, replica.width, d.w_rec, h, factor, False)

    return combine
