"""first / (1 + update / half): half of `first` after `half` updates, a third after twice as many.

The decay of the steps of stochastic approximation (Robbins and Monro 1951, section 4). Differs from the source in that
the threshold moves so: it is the longest step that plain descent can take, up to the learning rate.
"""

from nbflow import exact_unit
from nbflow.records import Threshold


@exact_unit
def value(norm, memory, settings, update):
    first, half = settings
    return first / (1.0 + update / half)


THRESHOLD = Threshold(value=value, settings={"first": None, "half": None})
