"""g * v / ||g|| if ||g|| > v, over all parameters jointly.

Pascanu, Mikolov, Bengio 2013, algorithm 1; Goodfellow et al. 2016, eq. 10.48-10.49.
"""

from nbflow._compile import unit
from nbflow.records import Rule


@unit
def clip(g, norm, threshold):
    return g * (threshold / norm) if norm > threshold else g


RULE = Rule(over="all", clip=clip)
