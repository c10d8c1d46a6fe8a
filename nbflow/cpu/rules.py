"""Rules of single numbers that kernels and the grids of `nbflow.cuda` share."""

from nbflow._compile import ONE, unit


@unit
def counts(delta, bound):
    """Return whether Omega counts a step whose ||delta|| this is: not if its square is below the bound, or it is 0.

    Written so that a NaN counts: a gradient that is not finite must be seen.
    """
    return not (delta * delta < bound or delta == 0)


@unit
def squared_gain(v, delta):
    """Return q = (||v|| / ||delta||)^2."""
    return (v / delta) * (v / delta)


@unit
def divisor(counted, batch, by_mean):
    """Return what the sum of penalties is divided by."""
    return max(counted, ONE) if by_mean else batch


@unit
def shrinking(norm, threshold):
    """Return what a vector is multiplied by so that its norm is at most the threshold; 1 where its norm is NaN."""
    return threshold / norm if norm > threshold else ONE


@unit
def limited(x, threshold):
    """Return x between -threshold and threshold; NaN stays, which the card's min and max would drop."""
    return threshold if x > threshold else -threshold if x < -threshold else x
