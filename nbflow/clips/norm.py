"""g * v / ||g|| if ||g|| > v, over all parameters jointly.

Pascanu, Mikolov, Bengio 2013, algorithm 1; Goodfellow et al. 2016, eq. 10.48-10.49.
"""

from nbflow import exact_unit
from nbflow.records import Rule


@exact_unit
def clip(g, norm, threshold):
    # The quotient first, and left so: threshold / norm may be too small a number where g / norm is not.
    return (g / norm) * threshold if norm > threshold else g


RULE = Rule(over="all", clip=clip)
