"""Each array's norm against `relative` times a moving mean of its own: AdaGC (Wang et al. 2025, algorithm 1).

In the first `warmup` updates the norm rule over all parameters jointly, at the threshold v (their lambda_abs), and
gamma is the smallest norm that an array had after it. Then an array g is multiplied by min(1, relative gamma / ||g||),
with their lambda_rel as `relative`, and gamma <- decay gamma + (1 - decay) ||g||, the norm after the clip.

Differs from the source where gamma is 0, of which no clip would ever let anything through again: such an array is not
clipped, and begins with its norm. Every entry of an array holds the same gamma.
"""

from nbflow import exact_unit
from nbflow.records import StatefulRule


@exact_unit
def warm_up(g, norm, joint, threshold, gamma, n):
    if joint > threshold:
        g, norm = (g / joint) * threshold, (norm / joint) * threshold
    return g, (norm if n == 1.0 else min(gamma, norm),)


@exact_unit
def clip(g, norm, joint, threshold, slots, settings, n):
    relative, decay, warmup = settings
    gamma = slots[0]
    if n <= warmup:
        return warm_up(g, norm, joint, threshold, gamma, n)
    if gamma == 0.0:
        return g, (norm,)
    limit = relative * gamma
    kept = (decay * gamma + (1.0 - decay) * min(norm, limit),)
    return (g / norm) * limit if norm > limit else g, kept


RULE = StatefulRule(
    over="block",
    clip=clip,
    slots=("gamma",),
    settings={"relative": 1.05, "decay": 0.98, "warmup": 100.0},
    # At 1 nothing is learnt.
    limits={"relative": (None, float("inf")), "decay": (0.0, 1.0), "warmup": (0.0, float("inf"))},
)
