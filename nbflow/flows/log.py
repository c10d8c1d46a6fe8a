"""(log r)^2: symmetric in vanishing and exploding.

Differs from the definition where r < 1e-10: there the penalty is held at its value at 1e-10, with slope 0.
"""

import numpy as np

from nbflow import scalars, unit
from nbflow.records import Penalty
from nbflow.scalars import HALF, ZERO

FLOOR = np.float32(1e-20)


@unit
def value(q):
    log_r = HALF * scalars.log(scalars.larger(q, FLOOR))
    return log_r * log_r


@unit
def slope(q):
    held = scalars.larger(q, FLOOR)
    return HALF * scalars.log(held) / held if held > FLOOR else ZERO * held


PENALTY = Penalty(value, slope)
