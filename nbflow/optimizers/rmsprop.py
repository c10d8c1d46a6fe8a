"""theta - lr * d / (sqrt(mean square) + epsilon): Tieleman and Hinton 2012, lecture 6.5.

Differs from Goodfellow et al. 2016, algorithm 8.5, which has epsilon inside the root; outside is what PyTorch does. A
mean square that leaves the range of its numbers stays at the largest one.
"""

from nbflow import exact_unit, scalars
from nbflow.records import Optimizer
from nbflow.scalars import ONE


@exact_unit
def update(theta, d, slots, lr, settings, n):
    decay, epsilon = settings
    square = scalars.saturated(decay * slots[0] + (ONE - decay) * d * d, d)
    return theta - lr * (d / (scalars.sqrt(square) + epsilon)), (square,)


OPTIMIZER = Optimizer(
    slots=("mean square",),
    update=update,
    settings={"decay": 0.99, "epsilon": 1e-8},
    # At 1 nothing is learnt; an epsilon of 0 makes 0 / 0 of a gradient of 0.
    limits={"decay": (0.0, 1.0), "epsilon": (None, float("inf"))},
)
