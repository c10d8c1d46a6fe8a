"""(q - 1)^2, q = r^2: Pascanu, Mikolov, Bengio 2013, eq. 10, and the authors' code; near r = 1 four times `norm`."""

from nbflow import unit
from nbflow.records import Penalty
from nbflow.scalars import ONE, TWO


@unit
def value(q):
    return (q - ONE) * (q - ONE)


@unit
def slope(q):
    return TWO * (q - ONE)


PENALTY = Penalty(value, slope)
