"""h-detach (Arpit et al. 2018): at a step that chance has chosen, no gradient goes back through h and w_rec."""

from __future__ import annotations

from nbflow._compile import part
from nbflow.counter import DETACH, draw, uniform


@part
def detached(shard, t):
    """Return whether h_{t-1} is a constant to step t, for all sequences of the replica."""
    if shard.detach == 0:
        return False
    return uniform(draw(shard.detach_seed, DETACH, shard.replica, shard.detach_index, 0, t)[0]) < shard.detach
