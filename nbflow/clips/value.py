"""min(max(g, -v), v), each entry alone.

Goodfellow et al. 2016, section 10.11.1, after Mikolov 2012. Differs from Mikolov's own program, which clips the
back-propagated errors of neurons, not the gradient of the parameters.
"""

from nbflow import unit
from nbflow.records import Rule


@unit
def clip(g, norm, threshold):
    return min(max(g, -threshold), threshold)


RULE = Rule(over="entry", clip=clip)
