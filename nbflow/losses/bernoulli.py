"""sum_m softplus(y) - t y, in nats: binary cross-entropy of independent outputs, from logits."""

from nbflow import scalars, unit
from nbflow.records import Loss
from nbflow.scalars import TWO, ZERO


@unit
def fold(accumulator, y, t):
    # softplus(y) = max(y, 0) + softplus(-|y|): nothing cancels where y is large and t is 0 or 1.
    positive = scalars.relu(y)
    return (accumulator[0] + (positive - t * y) + scalars.softplus(y - TWO * positive),)


@unit
def value(accumulator):
    return accumulator[0]


@unit
def slope(accumulator, y, t):
    return scalars.sigmoid(y) - t


@unit
def share(accumulator, y, t):
    return ZERO


@unit
def slope_jvp(accumulator, y, t, y_dot, shared):
    return scalars.sigmoid_slope(scalars.sigmoid(y)) * y_dot


LOSS = Loss(
    classes=False,
    start=(0.0,),
    fold=fold,
    value=value,
    slope=slope,
    units="nats",
    targets=(0.0, 1.0),
    share=share,
    slope_jvp=slope_jvp,
)
