"""What is done once for a replica: its weights are packed before its shards run, its gradient is summed after.

Both are cut into the replica's `pieces`, which cores share: each takes its portion of the rows of every block, and the
first what has no rows.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from nbflow._compile import kernel, part
from nbflow.cpu.job import IMMEDIATE, job_dtype
from nbflow.cpu.memory import view
from nbflow.cpu.product import lanes, panel_vectors
from nbflow.cpu.rules import divisor


class Packed(NamedTuple):
    """Addresses of packed parameters."""

    p_in: int
    p_rec: int
    p_rec_back: int
    p_bias_rec: int
    p_out: int
    p_out_back: int
    p_b_out: int


class Share(NamedTuple):
    """One of the equal pieces that a replica's packing and summing are cut into."""

    piece: int
    pieces: int


@part
def portion(share, count):
    """Return where the rows of a piece begin and end, among `count` rows."""
    return count * share.piece // share.pieces, count * (share.piece + 1) // share.pieces


@functools.cache
def build_pack(dtype):
    """Build the kernel that lays the parameters of a replica out as `nbflow.cpu.product` reads them."""
    record = job_dtype(dtype)
    size = np.dtype(dtype).itemsize
    vector, panel = lanes(dtype), panel_vectors() * lanes(dtype)

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
                place = view(square + first * panel * size, (high, panel), dtype)
                for j in range(min(vector, count - start)):
                    for k in range(high):
                        place[k, j] = numbers[(start + j) * stride + first + k]

    @part
    def copy(to, source, count):
        numbers, place = view(source, (count,), dtype), view(to, (count,), dtype)
        for i in range(count):
            place[i] = numbers[i]

    @part
    def pack_inputs(job, share, to, w_in, bias):
        n, h, depth = job.n_in, job.hidden, job.n_in + 1
        begin, end = portion(share, depth)
        for k in range(begin, end):
            row = w_in + k * job.gates * h * size if k < n else bias
            for g in range(job.gates):
                if job.tokens:
                    copy(to + (k * job.gates + g) * job.width * size, row + g * h * size, h)
                else:
                    pack(to, depth, k, g * job.width, h, row + g * h * size)

    @part
    def pack_recurrent(job, share, to, to_back, w_rec):
        h, gates = job.hidden, job.gates
        begin, end = portion(share, h)
        back = h * ((job.width + panel - 1) // panel) * panel * size
        for g in range(gates):
            for k in range(begin, end):
                pack(to, h, k, g * job.width, h, w_rec + (k * gates + g) * h * size)
            pack_transposed(share, to_back + g * back, h, h, w_rec + g * h * size, gates * h)

    @part
    def pack_outputs(job, share, to, to_back, w_out):
        h, m = job.hidden, job.n_out
        begin, end = portion(share, h)
        for k in range(begin, end):
            pack(to, h, k, 0, m, w_out + k * m * size)
        pack_transposed(share, to_back, m, h, w_out, m)

    @part
    def pack_all(job, share, theta, to):
        h, row = job.hidden, job.gates * job.hidden * size
        w_rec = theta + job.n_in * row
        bias = w_rec + h * row
        w_out = bias + row + job.bias_rec * row
        pack_inputs(job, share, to.p_in, theta, bias)
        pack_recurrent(job, share, to.p_rec, to.p_rec_back, w_rec)
        pack_outputs(job, share, to.p_out, to.p_out_back, w_out)
        if share.piece > 0:
            return
        if job.bias_rec:
            for g in range(job.gates):
                copy(to.p_bias_rec + g * job.width * size, bias + row + g * h * size, h)
        copy(to.p_b_out, w_out + h * job.n_out * size, job.n_out)

    @kernel(dtype)
    def pack_replica(address, piece):
        job = view(address, (1,), record)[0]
        share = Share(piece, job.pieces)
        pack_all(
            job, share, job.theta,
            Packed(job.p_in, job.p_rec, job.p_rec_back, job.p_bias_rec, job.p_out, job.p_out_back, job.p_b_out),
        )  # fmt: skip
        if job.directed:
            pack_all(
                job, share, job.direction,
                Packed(job.q_in, job.q_rec, job.q_rec_back, job.q_bias_rec, job.q_out, job.q_out_back, job.q_b_out),
            )  # fmt: skip

    return pack_replica


@functools.cache
def build_combine(dtype):
    """Build the kernel that sums the partial gradients of a replica's shards, in their order, into `d_theta`."""
    record = job_dtype(dtype)
    size = np.dtype(dtype).itemsize

    @part
    def add_block(share, source, count, stride, to, length, factor, first):
        """Write factor times `count` rows of `length` numbers, `stride` apart, or add them; return what comes next."""
        begin, end = portion(share, count)
        for k in range(begin, end):
            numbers = view(source + k * stride * size, (length,), dtype)
            place = view(to + k * length * size, (length,), dtype)
            for j in range(length):
                place[j] = factor * numbers[j] + (dtype(0) if first else place[j])
        return to + count * length * size

    @part
    def add_shard(job, share, to, first):
        one, h, g = dtype(1), job.hidden, job.gates
        bias = job.d_in + job.n_in * g * job.width * size
        to = add_block(share, job.d_in, job.n_in * g, job.width, to, h, one, first)
        to = add_block(share, job.d_rec, h * g, job.width, to, h, one, first)
        to = add_block(share, bias, g, job.width, to, h, one, first)
        if job.bias_rec:
            to = add_block(share, job.d_bias_rec, g, job.width, to, h, one, first)
        to = add_block(share, job.d_out, h, job.out_width, to, job.n_out, one, first)
        add_block(share, job.d_b_out, 1, job.out_width, to, job.n_out, one, first)

    @kernel(dtype)
    def combine(address, piece):
        job = view(address, (1,), record)[0]
        shards = view(job.shards, (job.shard_count,), record)
        loss, omega, count = dtype(0), dtype(0), dtype(0)
        for k in range(job.shard_count):
            sums = view(shards[k].sums, (3,), dtype)
            loss, omega, count = loss + sums[0], omega + sums[1], count + sums[2]
        scale = dtype(1) / divisor(count, dtype(job.batch), job.mean_flow)
        if piece == 0:
            report = view(job.report, (3,), dtype)
            report[0], report[1], report[2] = loss, omega * scale, count
        if job.d_theta == 0:
            return
        share = Share(piece, job.pieces)
        for k in range(job.shard_count):
            add_shard(shards[k], share, job.d_theta, k == 0)
        if job.derivative == IMMEDIATE and job.alpha != 0:  # 0 * Inf would be NaN, and -0.0 + 0.0 another bit pattern
            w_rec = job.d_theta + job.n_in * job.gates * job.hidden * size
            for k in range(job.shard_count):
                rows = job.hidden * job.gates
                add_block(share, shards[k].d_flow, rows, job.width, w_rec, job.hidden, job.alpha * scale, False)

    return combine
