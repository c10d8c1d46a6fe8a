"""The output layer and the loss of a shard: y = h w_out + b_out, and dL/dy, at the steps that have weight."""

from __future__ import annotations

import functools

import numpy as np

from nbflow._compile import kernel, part
from nbflow.cpu.derive import STEP
from nbflow.cpu.job import job_dtype
from nbflow.cpu.memory import call, call_product, clear, view
from nbflow.cpu.product import lanes, panel_vectors


@functools.cache
def _build_target(classes, dtype):
    """Build `target(classes_of, values_of, b, m)`."""

    @part
    def target(classes_of, values_of, b, m):
        """Return output m's target: its own number, or 1 for the class and 0 for every other."""
        if classes:
            return dtype(classes_of[b] == m)
        return values_of[b, m]

    return target


@functools.cache
def build_loss_rows(loss, dtype):
    """Build the kernel of one step: adds the loss of its sequences to `sums[0]` and turns y into dL/dy."""
    fold, value, slope, classes = loss.fold, loss.value, loss.slope, loss.classes
    target = _build_target(classes, dtype)
    start = tuple(np.asarray(number, dtype)[()] for number in loss.start)
    record = job_dtype(dtype)
    size = np.dtype(dtype).itemsize

    @kernel(fold, value, slope, start, classes, dtype)
    def loss_rows(address, t):
        job = view(address, (1,), record)[0]
        rows, n = job.rows, job.n_out
        y = view(job.y + t * rows * job.out_width * size, (rows, job.out_width), dtype)
        weights = view(job.weights + t * job.batch * size, (rows,), dtype)
        classes_of = view(job.targets + (t * job.batch * 4 if classes else 0), (rows,), np.int32)
        values_of = view(job.targets + (0 if classes else t * job.batch * n * size), (rows, n), dtype)
        sums = view(job.sums, (3,), dtype)
        for b in range(rows):
            weight = weights[b]
            if weight == 0:  # what a sequence says where nobody listens may be NaN: not times 0, but 0
                for m in range(n):
                    y[b, m] = 0
                continue
            accumulator = start
            for m in range(n):
                accumulator = fold(accumulator, y[b, m], target(classes_of, values_of, b, m))
            sums[0] += weight * value(accumulator)
            for m in range(n):
                y[b, m] = weight * slope(accumulator, y[b, m], target(classes_of, values_of, b, m))

    return loss_rows


def _build_bend(loss, dtype):
    """Build `bend(y, y_dot, classes_of, values_of, b, n)`: row b of y_dot to the tangent of dl/dy."""
    fold, slope_jvp, share = loss.fold, loss.slope_jvp, loss.share
    target = _build_target(loss.classes, dtype)
    start = tuple(np.asarray(number, dtype)[()] for number in loss.start)

    @part
    def bend(y, y_dot, classes_of, values_of, b, n):
        accumulator, shared = start, dtype(0)
        for m in range(n):
            accumulator = fold(accumulator, y[b, m], target(classes_of, values_of, b, m))
        for m in range(n):
            shared += share(accumulator, y[b, m], target(classes_of, values_of, b, m)) * y_dot[b, m]
        for m in range(n):
            t = target(classes_of, values_of, b, m)
            y_dot[b, m] = slope_jvp(accumulator, y[b, m], t, y_dot[b, m], shared)

    return bend


def _build_complex_bend(loss, dtype):
    """Build the same for a loss without `slope_jvp`, by one complex step through `fold` and `slope`."""
    fold, slope, step = loss.fold, loss.slope, STEP
    target = _build_target(loss.classes, dtype)
    start = tuple(np.complex128(number) for number in loss.start)

    @part
    def bend(y, y_dot, classes_of, values_of, b, n):
        accumulator = start
        for m in range(n):
            moved = np.complex128(complex(y[b, m], step * y_dot[b, m]))
            accumulator = fold(accumulator, moved, target(classes_of, values_of, b, m))
        for m in range(n):
            moved = np.complex128(complex(y[b, m], step * y_dot[b, m]))
            y_dot[b, m] = slope(accumulator, moved, target(classes_of, values_of, b, m)).imag / step

    return bend


@functools.cache
def build_loss_jvp_rows(loss, dtype):
    """Build the kernel of one step that turns y_dot into the tangent of dL/dy, for the outputs in `y_again`."""
    classes = loss.classes
    bend = (_build_complex_bend if loss.slope_jvp is None else _build_bend)(loss, dtype)
    record = job_dtype(dtype)
    size = np.dtype(dtype).itemsize

    @kernel(loss.fold, loss.slope if loss.slope_jvp is None else loss.slope_jvp, loss.start, classes, dtype)
    def loss_jvp_rows(address, t):
        job = view(address, (1,), record)[0]
        rows, n = job.rows, job.n_out
        y = view(job.y_again, (rows, job.out_width), dtype)
        y_dot = view(job.y_dot + t * rows * job.out_width * size, (rows, job.out_width), dtype)
        weights = view(job.weights + t * job.batch * size, (rows,), dtype)
        classes_of = view(job.targets + (t * job.batch * 4 if classes else 0), (rows,), np.int32)
        values_of = view(job.targets + (0 if classes else t * job.batch * n * size), (rows, n), dtype)
        for b in range(rows):
            weight = weights[b]
            if weight != 0:
                bend(y, y_dot, classes_of, values_of, b, n)
            for m in range(n):
                y_dot[b, m] = weight * y_dot[b, m] if weight != 0 else dtype(0)

    return loss_jvp_rows


@functools.cache
def build_outputs(dtype):
    """Build `outputs(job, t, to)`, which writes y for the state after step t."""
    width_of_panel = panel_vectors() * lanes(dtype)
    size = np.dtype(dtype).itemsize

    @part
    def outputs(job, t, to):
        y = view(to, (job.rows, job.out_width), dtype)
        bias = view(job.p_b_out, (job.out_width,), dtype)
        for b in range(job.rows):
            for m in range(job.out_width):
                y[b, m] = bias[m]
        row = job.lines * job.width
        call_product(
            job.product, to, job.out_width, job.states + (t + 1) * job.rows * row * size, row, 1,
            job.p_out, job.hidden * width_of_panel, width_of_panel, job.rows, job.hidden, job.out_width, 1,
        )  # fmt: skip

    return outputs


@functools.cache
def build_listen(dtype):
    """Build `listen(job, address, start, stop)`: outputs, loss and dL/dy at the active steps of start .. stop-1."""
    outputs = build_outputs(dtype)
    size = np.dtype(dtype).itemsize

    @part
    def listen(job, address, start, stop):
        active = view(job.active, (job.steps,), np.int64)
        for t in range(start, stop):
            if active[t]:
                outputs(job, t, job.y + t * job.rows * job.out_width * size)
                call(job.loss, address, t)

    return listen


@functools.cache
def build_losses(dtype):
    """Build the phase of outputs, loss and dL/dy at every active step."""
    listen = build_listen(dtype)
    record = job_dtype(dtype)

    @kernel(dtype)
    def losses(address, _):
        job = view(address, (1,), record)[0]
        clear(job.sums, 3, dtype)
        listen(job, address, 0, job.reach)

    return losses


@functools.cache
def build_predictions(dtype):
    """Build the phase of outputs at every active step, or at all of them if the job is `whole`."""
    outputs = build_outputs(dtype)
    record = job_dtype(dtype)
    size = np.dtype(dtype).itemsize

    @kernel(dtype)
    def predictions(address, _):
        job = view(address, (1,), record)[0]
        active = view(job.active, (job.steps,), np.int64)
        for t in range(job.reach):
            if job.whole or active[t]:
                outputs(job, t, job.y + t * job.rows * job.out_width * size)

    return predictions
