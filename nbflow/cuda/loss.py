"""The output layer and the loss: y = h w_out + b_out, and dL/dy, at the steps that have weight."""

from __future__ import annotations

import functools

import numpy as np

from nbflow._compile import unit
from nbflow.cuda.device import cuda, grid
from nbflow.cuda.job import (
    BATCH,
    CLASSES,
    HIDDEN,
    LINES,
    LOSSES,
    N_OUT,
    PARAMETERS,
    REPLICAS,
    STATES,
    TARGETS,
    THETA,
    WEIGHTS,
    WRONG,
    Y,
    at,
)
from nbflow.cuda.memory import fetch


@unit
def output(job, numbers, r, t, b, m):
    """Return output m for the state after step t."""
    hidden, n_out = job[HIDDEN], job[N_OUT]
    bias = at(job, THETA, r) + job[PARAMETERS] - n_out
    w_out = bias - hidden * n_out
    h = at(job, STATES, r) + ((t + 1) * job[BATCH] + b) * job[LINES] * hidden
    y = numbers[bias + m]
    for k in range(hidden):
        y += fetch(numbers, h + k) * fetch(numbers, w_out + k * n_out + m)
    return y


@functools.cache
def build_predictions():
    """Build the grid, a block a step of a replica, of outputs at every step, with weight or without."""

    @grid
    def predictions(job, numbers, steps):
        batch, n_out = job[BATCH], job[N_OUT]
        r, t = cuda.blockIdx.x // steps, cuda.blockIdx.x % steps
        y = at(job, Y, r) + t * batch * n_out
        for i in range(cuda.threadIdx.x, batch * n_out, cuda.blockDim.x):
            numbers[y + i] = output(job, numbers, r, t, i // n_out, i % n_out)

    return predictions


@functools.cache
def build_target(classes, dtype):
    """Build `target(numbers, integers, at_class, at_value, m)`: output m's own number, or 1 for the class, else 0."""

    @unit
    def target(numbers, integers, at_class, at_value, m):
        if classes:
            return dtype(integers[at_class] == m)
        return numbers[at_value + m]

    return target


def start_of(loss, dtype):
    """Return what a fold begins with."""
    return tuple(np.asarray(number, dtype)[()] for number in loss.start)


@functools.cache
def build_losses(loss, dtype):
    """Build the grid, a block a step of a replica: LOSSES, and Y = dL/dy where there is weight."""
    fold, value, slope, classes = loss.fold, loss.value, loss.slope, loss.classes
    begin, target, zero = start_of(loss, dtype), build_target(classes, dtype), dtype(0)

    @grid
    def losses(job, numbers, integers, steps):
        batch, n_out = job[BATCH], job[N_OUT]
        r, t = cuda.blockIdx.x // steps, cuda.blockIdx.x % steps
        me, threads = cuda.threadIdx.x, cuda.blockDim.x
        weights, y = at(job, WEIGHTS, r) + t * batch, at(job, Y, r) + t * batch * n_out
        for i in range(me, batch * n_out, threads):
            heard = numbers[weights + i // n_out] != 0
            numbers[y + i] = output(job, numbers, r, t, i // n_out, i % n_out) if heard else zero
        cuda.syncthreads()
        for b in range(me, batch, threads):
            weight, total = numbers[weights + b], zero
            if weight != 0:
                at_class, at_value = at(job, CLASSES, r) + t * batch + b, at(job, TARGETS, r) + (t * batch + b) * n_out
                accumulator = begin
                for m in range(n_out):
                    t_m = target(numbers, integers, at_class, at_value, m)
                    accumulator = fold(accumulator, numbers[y + b * n_out + m], t_m)
                total = weight * value(accumulator)
                for m in range(n_out):
                    t_m, at_y = target(numbers, integers, at_class, at_value, m), y + b * n_out + m
                    numbers[at_y] = weight * slope(accumulator, numbers[at_y], t_m)
            numbers[at(job, LOSSES, r) + t * batch + b] = total

    return losses


@functools.cache
def build_wrong(classes):
    """Build the grid, a thread a sequence, that fills WRONG by `nbflow.Task.wrong`'s rule."""

    @unit
    def is_wrong(job, numbers, integers, r, place, tolerance):
        n_out = job[N_OUT]
        y, error, best = at(job, Y, r) + place * n_out, 0.0, 0
        bad = False
        for m in range(n_out):
            bad |= not abs(numbers[y + m]) < np.inf
            best = m if numbers[y + m] > numbers[y + best] else best
            if not classes:
                difference = numbers[y + m] - numbers[at(job, TARGETS, r) + place * n_out + m]
                error += difference * difference
        if classes:
            return bad or best != integers[at(job, CLASSES, r) + place]
        return bad or not error <= tolerance

    @grid
    def wrong(job, numbers, integers, steps, tolerance):
        batch = job[BATCH]
        i = cuda.grid(1)
        if i < job[REPLICAS] * batch:
            r, b = i // batch, i % batch
            found = 0
            for t in range(steps):
                place = t * batch + b
                heard = numbers[at(job, WEIGHTS, r) + place] != 0
                if heard and is_wrong(job, numbers, integers, r, place, tolerance):
                    found = 1
            integers[at(job, WRONG, r) + b] = found

    return wrong
