"""sum_m (y - t)^2, in squared units of the target."""

from nbflow._compile import TWO, unit
from nbflow.records import Loss


@unit
def fold(accumulator, y, t):
    return (accumulator[0] + (y - t) * (y - t),)


@unit
def value(accumulator):
    return accumulator[0]


@unit
def slope(accumulator, y, t):
    return TWO * (y - t)


LOSS = Loss(classes=False, start=(0.0,), fold=fold, value=value, slope=slope, units="squared units")
