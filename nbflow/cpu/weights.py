"""Weight gradients of a shard: sums of outer products over the tape, each one matrix product."""

from __future__ import annotations

import functools

import numpy as np

from nbflow._compile import kernel, part
from nbflow.cpu.job import job_dtype
from nbflow.cpu.memory import call_product, view
from nbflow.cpu.product import lanes, panel_vectors


@functools.cache
def build_weights(dtype):
    """Build the phase that fills the partial gradients of a shard."""
    width_of_panel = panel_vectors() * lanes(dtype)
    size = np.dtype(dtype).itemsize

    @part
    def sum_rows(rows_of, total):
        total[:] = 0
        for i in range(rows_of.shape[0]):
            for j in range(total.size):
                total[j] += rows_of[i, j]

    @part
    def scatter_tokens(job, reach):
        """d_in[token] += pre[t, b], and all of them to the bias row."""
        columns = job.gates * job.width
        d_in = view(job.d_in, (job.n_in + 1, columns), dtype)
        pre = view(job.pre, (reach, job.rows, columns), dtype)
        tokens = view(job.inputs, (reach * job.batch,), np.int32)
        d_in[:] = 0
        for t in range(reach):
            for b in range(job.rows):
                token = tokens[t * job.batch + b]
                for j in range(columns):
                    d_in[token, j] += pre[t, b, j]
        sum_rows(d_in[: job.n_in], d_in[job.n_in])

    @part
    def input_weights(job, reach):
        columns = job.gates * job.width
        if job.tokens:
            scatter_tokens(job, reach)
        else:
            call_product(
                job.product, job.d_in, columns, job.x, 1, job.n_in + 1, job.pre, width_of_panel, columns,
                job.n_in + 1, reach * job.rows, columns, 0,
            )  # fmt: skip

    @part
    def recurrent_weights(job, reach):
        columns, row = job.gates * job.width, job.lines * job.width
        call_product(
            job.product, job.d_rec, columns, job.states, 1, row, job.rec, width_of_panel, columns,
            job.hidden, reach * job.rows, columns, 0,
        )  # fmt: skip
        if job.bias_rec:
            sum_rows(view(job.rec, (reach * job.rows, columns), dtype), view(job.d_bias_rec, (columns,), dtype))

    @part
    def output_weights(job, reach):
        """Sum over runs of steps with weight; steps without cost nothing."""
        active = view(job.active, (job.steps,), np.int64)
        d_b_out = view(job.d_b_out, (job.out_width,), dtype)
        row = job.lines * job.width
        view(job.d_out, (job.hidden * job.out_width,), dtype)[:] = 0
        d_b_out[:] = 0
        end = 0
        while end < reach:
            start = end
            while start < reach and not active[start]:
                start += 1
            end = start
            while end < reach and active[end]:
                end += 1
            if start == end:
                continue
            at = job.y + start * job.rows * job.out_width * size
            call_product(
                job.product, job.d_out, job.out_width, job.states + (start + 1) * job.rows * row * size, 1, row,
                at, width_of_panel, job.out_width, job.hidden, (end - start) * job.rows, job.out_width, 1,
            )  # fmt: skip
            d_y = view(at, ((end - start) * job.rows, job.out_width), dtype)
            for i in range(d_y.shape[0]):
                for m in range(job.out_width):
                    d_b_out[m] += d_y[i, m]

    record = job_dtype(dtype)

    @kernel(dtype)
    def weights(address, _):
        job = view(address, (1,), record)[0]
        input_weights(job, job.reach)
        recurrent_weights(job, job.reach)
        output_weights(job, job.reach)

    return weights
