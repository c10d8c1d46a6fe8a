"""(r - 1)^2: Goodfellow et al. 2016, eq. 10.52; Pascanu, Mikolov, Bengio 2013, eq. 9."""

from nbflow import scalars, unit
from nbflow.records import Penalty
from nbflow.scalars import ONE, ZERO


@unit
def value(q):
    return (scalars.sqrt(q) - ONE) * (scalars.sqrt(q) - ONE)


@unit
def slope(q):
    """1 - 1/r; at r = 0, where the penalty has a kink, 0."""
    return ONE - ONE / scalars.sqrt(q) if q > ZERO else q


PENALTY = Penalty(value, slope)
