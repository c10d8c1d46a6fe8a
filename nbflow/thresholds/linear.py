"""From `first` to `last` in a straight line over so many `updates`, and `last` from then on.

Goodfellow et al. 2016, eq. 8.14. Differs from the source in that the threshold moves so, not the learning rate.
"""

from nbflow import exact_unit
from nbflow.records import Threshold


@exact_unit
def value(norm, memory, settings, update):
    first, last, updates = settings
    part = min(update / updates, 1.0)
    return (1.0 - part) * first + part * last


THRESHOLD = Threshold(value=value, settings={"first": None, "last": None, "updates": None})
