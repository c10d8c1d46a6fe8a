"""Parameters that are held, on the card: as `nbflow.cpu.held`."""

from __future__ import annotations

import functools

from nbflow._compile import unit
from nbflow.cuda.device import cuda, grid
from nbflow.cuda.job import D_THETA, HELD, PARAMETERS, REPLICAS, at


@unit
def is_held(job, numbers, r, p):
    """Return whether a parameter stays as it is, in a workspace where some do."""
    return numbers[at(job, HELD, r) + p] != 0


@functools.cache
def build_hold(dtype):
    """Build the grid `hold(job, numbers)`, a thread a parameter of a replica: 0 in D_THETA where it is held."""
    zero = dtype(0)

    @grid
    def hold(job, numbers):
        size = job[PARAMETERS]
        i = cuda.grid(1)
        if i < job[REPLICAS] * size and is_held(job, numbers, i // size, i % size):
            numbers[at(job, D_THETA, i // size) + i % size] = zero

    return hold
