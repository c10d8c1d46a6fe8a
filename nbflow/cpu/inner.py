"""sum y t, a loss whose gradient is a vector-Jacobian product with t."""

from nbflow._compile import ZERO, unit
from nbflow.records import Loss


@unit
def fold(accumulator, y, t):
    return (accumulator[0] + y * t,)


@unit
def value(accumulator):
    return accumulator[0]


@unit
def slope(accumulator, y, t):
    return t


@unit
def share(accumulator, y, t):
    return ZERO


@unit
def slope_jvp(accumulator, y, t, y_dot, shared):
    return y_dot - y_dot


INNER_PRODUCT = Loss(False, (0.0,), fold, value, slope, "units of y times those of t", None, share, slope_jvp)
