"""velocity = momentum * velocity + d; theta - lr * velocity (Goodfellow et al. 2016, algorithm 8.2).

Differs from the source in that lr multiplies the velocity, not the gradient that enters it: the same for a constant
lr, and what PyTorch does. A velocity that leaves the range of its numbers stays at the largest one.
"""

from nbflow import exact_unit, scalars
from nbflow.records import Optimizer


@exact_unit
def update(theta, d, slots, lr, settings, n):
    velocity = scalars.saturated(settings[0] * slots[0] + d, d)
    return theta - lr * velocity, (velocity,)


OPTIMIZER = Optimizer(
    slots=("velocity",),
    update=update,
    settings={"momentum": 0.9},
    # From 1 on a velocity never ends, and grows where the gradient is 0.
    limits={"momentum": (0.0, 1.0)},
)
