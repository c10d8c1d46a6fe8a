"""v at every update: what a number in its place does (Pascanu, Mikolov, Bengio 2013, algorithm 1)."""

from nbflow import exact_unit
from nbflow.records import Threshold


@exact_unit
def value(norm, memory, settings, update):
    return settings[0]


THRESHOLD = Threshold(value=value, settings={"value": None})
