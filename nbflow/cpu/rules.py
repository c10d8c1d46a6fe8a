"""Rules of single numbers that kernels and the grids of `nbflow.cuda` share."""

import numpy as np

from nbflow._compile import ONE, exact_unit, unit


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


@exact_unit
def exceeds(root, scale, threshold):
    """Return whether the norm root / scale is above the threshold, whatever a number can hold; not if it is NaN."""
    return root > threshold * scale


@exact_unit
def joined(root, scale, other, other_scale):
    """Return the norm, as root and scale, of a vector of two parts whose norms are these, with the larger one's scale.

    In float64. Beside the larger one, what falls out of range is nothing.
    """
    least = min(scale, other_scale)
    one = np.float64(root) * (np.float64(least) / np.float64(scale))
    two = np.float64(other) * (np.float64(least) / np.float64(other_scale))
    return np.sqrt(one * one + two * two), least


@unit
def shrinking(norm, threshold):
    """Return what a vector whose norm is above the threshold is multiplied by to bring it there."""
    return threshold / norm


@exact_unit
def shrunk(g, root, scale, threshold):
    """Return g * threshold / (root / scale), where the factor of g would leave the range.

    In float64, which holds every quotient of float32; those of float64 are in range in this order.
    """
    return ((np.float64(g) * np.float64(scale)) / np.float64(root)) * np.float64(threshold)


@exact_unit
def weighed(weight, x):
    """Return weight * x, x as it was computed: 2 (y - t) of a large weight is not (2 weight) (y - t), 0 times Inf."""
    return weight * x


@unit
def limited(x, threshold):
    """Return x between -threshold and threshold; NaN stays, which the card's min and max would drop."""
    return threshold if x > threshold else -threshold if x < -threshold else x
