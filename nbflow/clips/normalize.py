"""g * v / ||g||, always: the normalized gradient. A gradient of 0 stays 0."""

from nbflow import exact_unit
from nbflow.records import Rule
from nbflow.scalars import ZERO


@exact_unit
def clip(g, norm, threshold):
    return (g / norm) * threshold if norm > ZERO else g


RULE = Rule(over="all", clip=clip)
