"""h-detach: the steps that chance has chosen, drawn before the way back; the same as on the CPU (Arpit et al. 2018)."""

from __future__ import annotations

import functools

from nbflow.counter import DETACH as DRAWS, draw, uniform
from nbflow.cuda.device import cuda, grid
from nbflow.cuda.job import DETACH, DETACHED, IDS, REPLICAS, at


@functools.cache
def build_detach():
    """Build the grid `detach(job, numbers, integers, seed, index, steps)`, a thread a step of a replica: 1 or 0."""

    @grid
    def detach(job, numbers, integers, seed, index, steps):
        i = cuda.grid(1)
        if i < job[REPLICAS] * steps:
            r, t = i // steps, i % steps + 1
            chance = uniform(draw(seed, DRAWS, integers[at(job, IDS, r)], index, 0, t)[0])
            integers[at(job, DETACHED, r) + t - 1] = 1 if chance < numbers[at(job, DETACH, r)] else 0

    return detach
