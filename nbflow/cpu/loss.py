"""The output layer and the loss of a shard: y = h w_out + b_out, and dL/dy, at the steps that have weight."""

from __future__ import annotations

import functools

import numpy as np

from nbflow._compile import kernel, part
from nbflow.cpu.memory import call, clear
from nbflow.cpu.product import times
from nbflow.cpu.record import PARAMETERS
from nbflow.cpu.rules import weighed
from nbflow.cpu.tuples import STEP
from nbflow.cpu.views import at, place, shards, whole


@functools.cache
def _build_target(classes, dtype):
    """Build `target(given, b, m)`: its own number for output m, or 1 for the class and 0 for every other."""

    @part
    def of_class(given, b, m):
        return dtype(given[b] == m)

    @part
    def of_value(given, b, m):
        return given[b, m]

    return of_class if classes else of_value


@functools.cache
def build_loss_rows(loss, dtype):
    """Build the kernel of one step: adds the loss of its sequences to `sums[0]` and turns y into dL/dy."""
    fold, value, slope, classes = loss.fold, loss.value, loss.slope, loss.classes
    target, name = _build_target(classes, dtype), "classes" if classes else "targets"
    start = tuple(np.asarray(number, dtype)[()] for number in loss.start)
    shard_at = shards(dtype)

    @kernel(fold, value, slope, start, classes, dtype)
    def loss_rows(address, t):
        shard = shard_at(address)
        n, y, sums = shard.n_out, at(shard, "y", t), whole(shard, "sums")
        weights, given = at(shard, "weights", t), at(shard, name, t)
        for b in range(shard.rows):
            weight = weights[b]
            if weight == 0:  # not weight * slope: an output that does not count may be NaN, and 0 * NaN is NaN
                for m in range(n):
                    y[b, m] = 0
                continue
            accumulator = start
            for m in range(n):
                accumulator = fold(accumulator, y[b, m], target(given, b, m))
            sums[0] += weighed(weight, value(accumulator))
            for m in range(n):
                y[b, m] = weighed(weight, slope(accumulator, y[b, m], target(given, b, m)))

    return loss_rows


def _build_bend(loss, dtype):
    """Build `bend(y, y_dot, given, b, n)`: row b of y_dot to the tangent of dl/dy."""
    fold, slope_jvp, share = loss.fold, loss.slope_jvp, loss.share
    target = _build_target(loss.classes, dtype)
    start = tuple(np.asarray(number, dtype)[()] for number in loss.start)

    @part
    def bend(y, y_dot, given, b, n):
        accumulator, shared = start, dtype(0)
        for m in range(n):
            accumulator = fold(accumulator, y[b, m], target(given, b, m))
        for m in range(n):
            shared += share(accumulator, y[b, m], target(given, b, m)) * y_dot[b, m]
        for m in range(n):
            t = target(given, b, m)
            y_dot[b, m] = slope_jvp(accumulator, y[b, m], t, y_dot[b, m], shared)

    return bend


def _build_complex_bend(loss, dtype):
    """Build the same for a loss without `slope_jvp`, by one complex step through `fold` and `slope`."""
    fold, slope, step = loss.fold, loss.slope, STEP
    target = _build_target(loss.classes, dtype)
    start = tuple(np.complex128(number) for number in loss.start)

    @part
    def bend(y, y_dot, given, b, n):
        accumulator = start
        for m in range(n):
            moved = np.complex128(complex(y[b, m], step * y_dot[b, m]))
            accumulator = fold(accumulator, moved, target(given, b, m))
        for m in range(n):
            moved = np.complex128(complex(y[b, m], step * y_dot[b, m]))
            y_dot[b, m] = slope(accumulator, moved, target(given, b, m)).imag / step

    return bend


@functools.cache
def build_loss_jvp_rows(loss, dtype):
    """Build the kernel of one step that turns y_dot into the tangent of dL/dy, for the outputs in `y_again`."""
    classes = loss.classes
    bend = (_build_complex_bend if loss.slope_jvp is None else _build_bend)(loss, dtype)
    name, shard_at = "classes" if classes else "targets", shards(dtype)

    @kernel(loss.fold, loss.slope if loss.slope_jvp is None else loss.slope_jvp, loss.start, classes, dtype)
    def loss_jvp_rows(address, t):
        shard = shard_at(address)
        n, y, y_dot = shard.n_out, whole(shard, "y_again"), at(shard, "y_dot", t)
        weights, given = at(shard, "weights", t), at(shard, name, t)
        for b in range(shard.rows):
            weight = weights[b]
            if weight != 0:
                bend(y, y_dot, given, b, n)
            for m in range(n):
                y_dot[b, m] = weighed(weight, y_dot[b, m]) if weight != 0 else dtype(0)

    return loss_jvp_rows


@part
def outputs(shard, t, y):
    """Write y for the state after step t."""
    bias = at(shard, "p_b_out", PARAMETERS)
    for b in range(shard.rows):
        for m in range(shard.out_width):
            y[b, m] = bias[m]
    h, w_out = place(shard, "states", t + 1, 0), place(shard, "p_out", PARAMETERS, 0)
    times(shard, y, h, shard.line, w_out, shard.hidden, shard.out_width, 1)


@part
def add_losses(shard, address, start, stop):
    """Outputs, loss and dL/dy at the active steps of start .. stop-1."""
    active = whole(shard, "active")
    for t in range(start, stop):
        if active[t]:
            outputs(shard, t, at(shard, "y", t))
            call(shard.loss, address, t)


@functools.cache
def build_losses(dtype):
    """Build the phase of outputs, loss and dL/dy at every active step."""
    shard_at = shards(dtype)

    @kernel(dtype)
    def losses(address, _):
        shard = shard_at(address)
        clear(whole(shard, "sums"))
        add_losses(shard, address, 0, shard.reach)

    return losses


@functools.cache
def build_predictions(dtype):
    """Build the phase of outputs at every active step, or at all of them if the shard is taken as a whole."""
    shard_at = shards(dtype)

    @kernel(dtype)
    def predictions(address, _):
        shard = shard_at(address)
        active = whole(shard, "active")
        for t in range(shard.reach):
            if shard.whole or active[t]:
                outputs(shard, t, at(shard, "y", t))

    return predictions
