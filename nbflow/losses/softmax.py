"""-log softmax(y)[target], in nats: the negative log-likelihood of a class."""

from nbflow import scalars, unit
from nbflow.records import Loss
from nbflow.scalars import ONE


@unit
def fold(accumulator, y, t):
    """Keep the largest output, the sum of exponentials relative to it, and the target's output."""
    largest, total, chosen = accumulator
    now = scalars.larger(largest, y)
    return now, total * scalars.exp(largest - now) + scalars.exp(y - now), chosen + t * y


@unit
def value(accumulator):
    largest, total, chosen = accumulator
    return scalars.log(total) + (largest - chosen)


@unit
def slope(accumulator, y, t):
    largest, total, _ = accumulator
    return scalars.exp(y - largest) * (ONE / total) - t


@unit
def share(accumulator, y, t):
    """Return the probability p of this output."""
    largest, total, _ = accumulator
    return scalars.exp(y - largest) * (ONE / total)


@unit
def slope_jvp(accumulator, y, t, y_dot, shared):
    """p (y_dot - sum p y_dot)."""
    return share(accumulator, y, t) * (y_dot - shared)


LOSS = Loss(
    classes=True,
    start=(float("-inf"), 0.0, 0.0),
    fold=fold,
    value=value,
    slope=slope,
    units="nats",
    share=share,
    slope_jvp=slope_jvp,
)
