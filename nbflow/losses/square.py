"""sum_m (y - t)^2, in squared units of the target."""

from nbflow import unit
from nbflow.records import Loss
from nbflow.scalars import TWO, ZERO


@unit
def fold(accumulator, y, t):
    return (accumulator[0] + (y - t) * (y - t),)


@unit
def value(accumulator):
    return accumulator[0]


@unit
def slope(accumulator, y, t):
    return TWO * (y - t)


@unit
def share(accumulator, y, t):
    return ZERO


@unit
def slope_jvp(accumulator, y, t, y_dot, shared):
    return TWO * y_dot


LOSS = Loss(
    classes=False,
    start=(0.0,),
    fold=fold,
    value=value,
    slope=slope,
    units="squared units",
    share=share,
    slope_jvp=slope_jvp,
)
