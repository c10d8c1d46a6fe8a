"""g * v / ||g||, always: the normalized gradient. A gradient of 0 stays 0."""

from nbflow._compile import ZERO, unit
from nbflow.records import Rule


@unit
def clip(g, norm, threshold):
    return g * (threshold / norm) if norm > ZERO else g


RULE = Rule(over="all", clip=clip)
