"""h-detach (Arpit et al. 2018): at a step that chance has chosen, no gradient goes back through h and w_rec."""

from __future__ import annotations

import functools

from nbflow._compile import part
from nbflow.counter import DETACH, draw, uniform


@functools.cache
def build_detached():
    """Build `detached(job, t)`: whether h_{t-1} is a constant to step t, for all sequences of the replica."""

    @part
    def detached(job, t):
        if job.detach == 0:
            return False
        return uniform(draw(job.detach_seed, DETACH, job.replica, job.detach_index, 0, t)[0]) < job.detach

    return detached
