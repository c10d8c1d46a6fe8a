"""(q - 1)^2, q = r^2: Pascanu, Mikolov, Bengio 2013, eq. 10, and the authors' code; near r = 1 four times `norm`."""

from nbflow._compile import ONE, TWO, unit
from nbflow.records import Penalty


@unit
def value(q):
    return (q - ONE) * (q - ONE)


@unit
def slope(q):
    return TWO * (q - ONE)


PENALTY = Penalty(value, slope)
