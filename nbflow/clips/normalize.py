"""g * v / ||g||, always: the normalized gradient. A gradient of 0 stays 0."""

from nbflow._compile import ZERO, exact_unit
from nbflow.records import Rule


@exact_unit
def clip(g, norm, threshold):
    return (g / norm) * threshold if norm > ZERO else g


RULE = Rule(over="all", clip=clip)
