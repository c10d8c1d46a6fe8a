"""(r - 1)^2: Goodfellow et al. 2016, eq. 10.52; Pascanu, Mikolov, Bengio 2013, eq. 9."""

from nbflow import exact_unit, scalars
from nbflow.records import Penalty
from nbflow.scalars import ONE, ZERO


@exact_unit
def value(q):
    return (scalars.sqrt(q) - ONE) * (scalars.sqrt(q) - ONE)


@exact_unit
def slope(q):
    """1 - 1/r; at r = 0, where the penalty has a kink, 0.

    Left so: fast arithmetic has 1/r as one instruction and two corrections, which make NaN of it where q is Inf.
    """
    return ONE - ONE / scalars.sqrt(q) if q > ZERO else q


PENALTY = Penalty(value, slope)
