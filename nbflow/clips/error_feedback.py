"""h + clip(g - h), which is the next h: error feedback for clipping by norm, over all parameters jointly.

Clip21: Khirirat, Gorbunov, Horvath, Islamov, Karray, Richtarik 2023, algorithm 1, for one node, from h = 0. What is
clipped is how far the gradient is from what was last made of it, so that where gradients change slowly nothing is cut
off in the end; a step is at most v longer than the one before.
"""

from nbflow import exact_unit
from nbflow.records import StatefulRule

MOST = 1.7976931348623157e308


@exact_unit
def measured(g, slots):
    return min(max(g - slots[0], -MOST), MOST)


@exact_unit
def clip(g, norm, joint, threshold, slots, settings, n):
    if norm <= threshold:
        return g, (g,)
    estimate = slots[0] + (measured(g, slots) / norm) * threshold
    return estimate, (estimate,)


RULE = StatefulRule(over="all", clip=clip, measured=measured, slots=("estimate",))
