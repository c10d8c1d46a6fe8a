"""What is done once for a replica: its weights are packed before its shards run, its gradient is summed after."""

from __future__ import annotations

import functools

import numpy as np

from nbflow._compile import kernel, part
from nbflow.cpu.job import job_dtype
from nbflow.cpu.memory import view
from nbflow.cpu.product import lanes, panel_vectors


@functools.cache
def build_pack(dtype):
    """Build the kernel that lays the parameters of a replica out as `nbflow.cpu.product` reads them."""
    record = job_dtype(dtype)
    size = np.dtype(dtype).itemsize
    vector, panel = lanes(dtype), panel_vectors() * lanes(dtype)

    @part
    def pack(to, depth, k, first, count, source, stride):
        """Write `source[0], source[stride], ...` to row k of panels of `depth` rows, from column `first` on."""
        for start in range(0, count, vector):
            column = first + start
            at = (column // panel * depth + k) * panel + column % panel
            for j in range(min(vector, count - start)):
                to[at + j] = source[(start + j) * stride]

    @part
    def pack_inputs(job, w_in, bias):
        n, h, depth = job.n_in, job.hidden, job.n_in + 1
        to = view(job.p_in, (depth * ((job.gates * job.width + panel - 1) // panel) * panel,), dtype)
        for k in range(depth):
            row = w_in[k * job.gates * h :] if k < n else bias
            for g in range(job.gates):
                if job.tokens:
                    at = (k * job.gates + g) * job.width
                    to[at : at + h] = row[g * h : (g + 1) * h]
                else:
                    pack(to, depth, k, g * job.width, h, row[g * h :], 1)

    @part
    def pack_recurrent(job, w_rec):
        h, gates = job.hidden, job.gates
        to = view(job.p_rec, (h * ((gates * job.width + panel - 1) // panel) * panel,), dtype)
        size_back = h * ((job.width + panel - 1) // panel) * panel
        back = view(job.p_rec_back, (gates * size_back,), dtype)
        for g in range(gates):
            for k in range(h):
                pack(to, h, k, g * job.width, h, w_rec[(k * gates + g) * h :], 1)
                pack(back[g * size_back :], h, k, 0, h, w_rec[g * h + k :], gates * h)

    @part
    def pack_outputs(job, w_out, b_out):
        h, m = job.hidden, job.n_out
        to = view(job.p_out, (h * ((job.out_width + panel - 1) // panel) * panel,), dtype)
        back = view(job.p_out_back, (m * ((job.width + panel - 1) // panel) * panel,), dtype)
        for k in range(h):
            pack(to, h, k, 0, m, w_out[k * m :], 1)
        for k in range(m):
            pack(back, m, k, 0, h, w_out[k:], m)
        view(job.p_b_out, (m,), dtype)[:] = b_out

    @kernel(dtype)
    def pack_replica(address, _):
        job = view(address, (1,), record)[0]
        n, h, m, row = job.n_in, job.hidden, job.n_out, job.gates * job.hidden
        at = job.theta
        w_in = view(at, (n * row,), dtype)
        at += n * row * size
        w_rec = view(at, (h * row,), dtype)
        at += h * row * size
        pack_inputs(job, w_in, view(at, (row,), dtype))
        pack_recurrent(job, w_rec)
        at += row * size
        if job.bias_rec:
            bias = view(at, (job.gates, h), dtype)
            view(job.p_bias_rec, (job.gates, job.width), dtype)[:, :h] = bias
            at += row * size
        pack_outputs(job, view(at, (h * m,), dtype), view(at + h * m * size, (m,), dtype))

    return pack_replica


@functools.cache
def build_combine(dtype):
    """Build the kernel that sums the partial gradients of a replica's shards, in their order, into `d_theta`."""
    record = job_dtype(dtype)
    size = np.dtype(dtype).itemsize

    @part
    def add_block(address, count, stride, d, at, length, factor, first):
        """d[at:] (+)= factor * `count` rows of `length` numbers that lie `stride` apart."""
        source = view(address, (count, stride), dtype)
        for k in range(count):
            row = d[at + k * length :]
            if first:
                for j in range(length):
                    row[j] = source[k, j]
            else:
                for j in range(length):
                    row[j] += factor * source[k, j]
        return at + count * length

    @part
    def add_shard(job, d, first):
        one, h, g = dtype(1), job.hidden, job.gates
        at = add_block(job.d_in, job.n_in * g, job.width, d, 0, h, one, first)
        at = add_block(job.d_rec, h * g, job.width, d, at, h, one, first)
        bias = job.d_in + job.n_in * g * job.width * size
        at = add_block(bias, g, job.width, d, at, h, one, first)
        if job.bias_rec:
            at = add_block(job.d_bias_rec, g, job.width, d, at, h, one, first)
        at = add_block(job.d_out, h, job.out_width, d, at, job.n_out, one, first)
        add_block(job.d_b_out, 1, job.out_width, d, at, job.n_out, one, first)

    @kernel(dtype)
    def combine(address, _):
        job = view(address, (1,), record)[0]
        shards = view(job.shards, (job.shard_count,), record)
        report = view(job.report, (3,), dtype)
        report[:] = 0
        for k in range(job.shard_count):
            report += view(shards[k].sums, (3,), dtype)
        scale = dtype(1) / dtype(job.batch)
        if job.mean_flow:
            scale = dtype(1) / max(report[2], dtype(1))
        report[1] *= scale
        if job.d_theta == 0:
            return
        row = job.gates * job.hidden
        total = (job.n_in + job.hidden + 1 + job.bias_rec) * row + (job.hidden + 1) * job.n_out
        d = view(job.d_theta, (total,), dtype)
        for k in range(job.shard_count):
            add_shard(shards[k], d, k == 0)
        if job.flowing and job.alpha != 0:  # 0 * Inf would be NaN, and -0.0 + 0.0 another bit pattern
            for k in range(job.shard_count):
                add_block(shards[k].d_flow, job.hidden * job.gates, job.width, d, job.n_in * row, job.hidden,
                          job.alpha * scale, False)  # fmt: skip

    return combine
