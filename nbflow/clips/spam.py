"""sign(g) sqrt(v V) where g^2 > v V, each entry alone: the spike-aware clip of SPAM (Huang et al. 2025, section 3).

V is a moving mean of squares as Adam keeps it, without its correction: V <- decay V + (1 - decay) g^2 after every
update, with what g was clipped to. v is their theta, 5,000 with them; it has no unit. Every `interval` updates V begins
anew at 0, and nothing is clipped in the first `wait` updates from there: 500 and 20 in the authors' program. Under Adam
with beta_2 = decay, V is Adam's own mean square until the first reset.

Differs from the source: a clip cannot reach what the optimizer keeps, so of the reset of momentum, and of the cosine by
which the rate comes back after it, only V's own is here; an entry whose V is 0 is not clipped, or a token that comes
late could never be learnt. What is kept is the root of V, which stays in the range of numbers.
"""

import math

from nbflow import exact_unit
from nbflow.records import StatefulRule


@exact_unit
def clip(g, norm, joint, threshold, slots, settings, n):
    decay, interval, wait = settings
    since = (n - 1.0) % interval
    root = slots[0] if since > 0.0 else 0.0 * slots[0]
    limit = math.sqrt(threshold) * root
    if since >= wait and root > 0.0 and abs(g) > limit:
        g = limit if g > 0.0 else -limit
    return g, (math.hypot(math.sqrt(decay) * root, math.sqrt(1.0 - decay) * g),)


RULE = StatefulRule(
    over="entry",
    clip=clip,
    slots=("root mean square",),
    relative=True,
    settings={"decay": 0.999, "interval": 500.0, "wait": 20.0},
    # At 1 nothing is learnt.
    limits={"decay": (0.0, 1.0), "interval": (1.0, float("inf")), "wait": (0.0, float("inf"))},
)
