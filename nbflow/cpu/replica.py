"""What is done once for a replica: its weights are packed before its shards run, its gradient is summed after.

Both are cut into the replica's `pieces`, which cores share. A piece takes its part of the rows of every parameter
array; what has no rows, as a bias, is the first piece's.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from nbflow._compile import kernel, part
from nbflow.cpu.memory import address_of, view
from nbflow.cpu.product import lanes, panel_vectors
from nbflow.cpu.record import DIRECTION, IMMEDIATE, PARAMETERS, TOTAL, shard_dtype
from nbflow.cpu.views import at, of, place, replicas, shards

report_of, sums_of, d_flow_of = of("report"), of("sums"), of("d_flow", 1)
in_place, row_place, rec_place, rec_back = place("p_in"), place("p_rows", 3), place("p_rec"), place("p_rec_back")
bias_rec_place, out_place, out_back, b_out_of = place("p_bias_rec"), place("p_out"), place("p_out_back"), at("p_b_out")
d_in_of, d_in_place, d_rec_of, d_bias_rec_of = at("d_in", 1), place("d_in"), at("d_rec", 1), at("d_bias_rec", 1)
d_out_of, d_b_out_of = at("d_out", 1), at("d_b_out")


class Share(NamedTuple):
    """One of the equal pieces that a replica's packing and summing are cut into."""

    piece: int
    pieces: int


@part
def portion(share, count):
    """Return where the rows of a piece begin and end, among `count` rows."""
    return count * share.piece // share.pieces, count * (share.piece + 1) // share.pieces


class Blocks(NamedTuple):
    """Where each parameter array begins in a flat vector: addresses."""

    w_in: int
    w_rec: int
    bias: int
    bias_rec: int
    w_out: int
    b_out: int


@functools.cache
def build_blocks_of(dtype):
    """Build `blocks_of(replica, theta)` for the address of a flat vector (P,)."""
    size = np.dtype(dtype).itemsize

    @part
    def blocks_of(replica, theta):
        h, row = replica.hidden, replica.gates * replica.hidden * size
        w_rec = theta + replica.n_in * row
        bias = w_rec + h * row
        bias_rec = bias + row
        w_out = bias_rec + replica.bias_rec * row
        return Blocks(theta, w_rec, bias, bias_rec, w_out, w_out + h * replica.n_out * size)

    return blocks_of


@functools.cache
def build_layouts(dtype):
    """Build the three ways to lay numbers out: `copy`, `pack` a row in panels, and `pack_transposed`."""
    size = np.dtype(dtype).itemsize
    vector, panel = lanes(dtype), panel_vectors() * lanes(dtype)

    @part
    def copy(to, source, count):
        numbers, place = view(source, (count,), dtype), view(to, (count,), dtype)
        for i in range(count):
            place[i] = numbers[i]

    @part
    def pack(to, depth, k, first, count, source):
        """Write `count` numbers to row k of panels of `depth` rows, from column `first` on."""
        numbers = view(source, (count,), dtype)
        for start in range(0, count, vector):
            column = first + start
            place = view(to + ((column // panel * depth + k) * panel + column % panel) * size, (vector,), dtype)
            for j in range(min(vector, count - start)):
                place[j] = numbers[start + j]

    @part
    def pack_transposed(share, to, depth, count, source, stride):
        """Write `depth` numbers from each of `count` rows, `stride` apart, as columns of panels of `depth` rows.

        In squares of a vector's length, which read each cache line once.
        """
        numbers = view(source, ((count - 1) * stride + depth,), dtype)
        begin, end = portion(share, (count + vector - 1) // vector)
        for start in range(begin * vector, end * vector, vector):
            square = to + (start // panel * depth * panel + start % panel) * size
            for first in range(0, depth, vector):
                high = min(vector, depth - first)
                place = view(square + first * panel * size, ((high - 1) * panel + vector,), dtype)
                for j in range(min(vector, count - start)):
                    for k in range(high):
                        place[k * panel + j] = numbers[(start + j) * stride + first + k]

    return copy, pack, pack_transposed


@functools.cache
def build_pack_all(dtype):
    """Build `pack_all(replica, share, theta, to)`: parameters or a direction, to that copy of the packed block."""
    size = np.dtype(dtype).itemsize
    blocks_of, (copy, pack, pack_transposed) = build_blocks_of(dtype), build_layouts(dtype)

    @part
    def pack_inputs(replica, share, blocks, to):
        n, h, gates, depth = replica.n_in, replica.hidden, replica.gates, replica.n_in + 1
        begin, end = portion(share, depth)
        for k in range(begin, end):
            row = blocks.w_in + k * gates * h * size if k < n else blocks.bias
            for g in range(gates):
                if replica.takes_tokens:
                    copy(row_place(replica, to, k, g), row + g * h * size, h)
                else:
                    pack(in_place(replica, to, 0), depth, k, g * replica.width, h, row + g * h * size)

    @part
    def pack_recurrent(replica, share, w_rec, to):
        h, gates = replica.hidden, replica.gates
        begin, end = portion(share, h)
        for g in range(gates):
            for k in range(begin, end):
                pack(rec_place(replica, to, 0), h, k, g * replica.width, h, w_rec + (k * gates + g) * h * size)
            pack_transposed(share, rec_back(replica, to, g), h, h, w_rec + g * h * size, gates * h)

    @part
    def pack_outputs(replica, share, w_out, to):
        h, m = replica.hidden, replica.n_out
        begin, end = portion(share, h)
        for k in range(begin, end):
            pack(out_place(replica, to, 0), h, k, 0, m, w_out + k * m * size)
        pack_transposed(share, out_back(replica, to, 0), m, h, w_out, m)

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
                copy(bias_rec_place(replica, to, g), blocks.bias_rec + g * h * size, h)
        copy(address_of(b_out_of(replica, to)), blocks.b_out, replica.n_out)

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
def build_shard_of(dtype):
    """Build `shard_of(replica, k)`, the record of its shard k."""
    shard_at, size = shards(dtype), shard_dtype(dtype).itemsize

    @part
    def shard_of(replica, k):
        return shard_at(replica.shards + k * size)

    return shard_of


@functools.cache
def build_add_up(dtype):
    """Build `add_up(replica)`: loss, sum and count of penalties, over its shards."""
    shard_of = build_shard_of(dtype)

    @part
    def add_up(replica):
        loss, omega, count = dtype(0), dtype(0), dtype(0)
        for k in range(replica.shard_count):
            sums = sums_of(shard_of(replica, k))
            loss, omega, count = loss + sums[0], omega + sums[1], count + sums[2]
        return loss, omega, count

    return add_up


@functools.cache
def build_omega_scale(dtype):
    """Build `omega_scale(replica, count)`: one over what Omega is divided by."""

    @part
    def omega_scale(replica, count):
        if replica.mean_flow:
            return dtype(1) / max(count, dtype(1))
        return dtype(1) / dtype(replica.batch)

    return omega_scale


@functools.cache
def build_add_shard(dtype):
    """Build `add_shard(shard, share, d, first)` and `add_flow(shard, share, d_w_rec, factor)`: a shard's gradients.

    They are written to the arrays of a flat gradient if the shard is the `first`, and added otherwise.
    """
    size = np.dtype(dtype).itemsize

    @part
    def add_block(share, source, count, stride, to, length, factor, first):
        """Write factor times `count` rows of `length` numbers, `stride` apart, or add them."""
        begin, end = portion(share, count)
        for k in range(begin, end):
            numbers = view(source + k * stride * size, (length,), dtype)
            place = view(to + k * length * size, (length,), dtype)
            for j in range(length):
                place[j] = factor * numbers[j] + (dtype(0) if first else place[j])

    @part
    def add_shard(shard, share, d, first):
        one, h, g, m, width = dtype(1), shard.hidden, shard.gates, shard.n_out, shard.width
        add_block(share, address_of(d_in_of(shard, TOTAL)), shard.n_in * g, width, d.w_in, h, one, first)
        add_block(share, address_of(d_rec_of(shard, TOTAL)), h * g, width, d.w_rec, h, one, first)
        add_block(share, d_in_place(shard, TOTAL, shard.n_in), g, width, d.bias, h, one, first)
        if shard.bias_rec:
            add_block(share, address_of(d_bias_rec_of(shard, TOTAL)), g, width, d.bias_rec, h, one, first)
        add_block(share, address_of(d_out_of(shard, TOTAL)), h, shard.out_width, d.w_out, m, one, first)
        add_block(share, address_of(d_b_out_of(shard, TOTAL)), 1, shard.out_width, d.b_out, m, one, first)

    @part
    def add_flow(shard, share, d_w_rec, factor):
        rows = shard.hidden * shard.gates
        add_block(share, address_of(d_flow_of(shard)), rows, shard.width, d_w_rec, shard.hidden, factor, False)

    return add_shard, add_flow


@functools.cache
def build_combine(dtype):
    """Build the kernel that sums the partial gradients of a replica's shards, in their order, into `d_theta`."""
    replica_at, shard_of, blocks_of = replicas(dtype), build_shard_of(dtype), build_blocks_of(dtype)
    add_up, omega_scale, (add_shard, add_flow) = build_add_up(dtype), build_omega_scale(dtype), build_add_shard(dtype)

    @kernel(dtype)
    def combine(address, piece):
        replica = replica_at(address)
        loss, omega, count = add_up(replica)
        scale = omega_scale(replica, count)
        if piece == 0:
            report = report_of(replica)
            report[0], report[1], report[2] = loss, omega * scale, count
        if replica.d_theta == 0:
            return
        share, d = Share(piece, replica.pieces), blocks_of(replica, replica.d_theta)
        for k in range(replica.shard_count):
            add_shard(shard_of(replica, k), share, d, k == 0)
        if replica.derivative == IMMEDIATE and replica.alpha != 0:  # 0 * Inf would be NaN, and -0.0 + 0.0 other bits
            for k in range(replica.shard_count):
                add_flow(shard_of(replica, k), share, d.w_rec, replica.alpha * scale)

    return combine
