"""Adam, with bias correction: Kingma and Ba 2015, algorithm 1; Goodfellow et al. 2016, algorithm 8.7.

Differs from the source where a moment leaves the range of its numbers: it stays at the largest one, so that a gradient
that is finite, however large, leaves theta finite. The corrections multiply roots and steps, which they keep in range.
"""

from nbflow import exact_unit, scalars
from nbflow.records import Optimizer
from nbflow.scalars import ONE


@exact_unit
def update(theta, d, slots, lr, settings, n):
    beta_1, beta_2, epsilon = settings
    mean = scalars.saturated(beta_1 * slots[0] + (ONE - beta_1) * d, d)
    square = scalars.saturated(beta_2 * slots[1] + (ONE - beta_2) * d * d, d)
    of_mean, of_root = ONE / (ONE - beta_1**n), ONE / scalars.sqrt(ONE - beta_2**n)
    root = of_root * scalars.sqrt(square) + epsilon
    return theta - lr * (of_mean * (mean / root)), (mean, square)


OPTIMIZER = Optimizer(
    slots=("mean", "mean square"),
    update=update,
    settings={"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-8},
    # At 1 nothing is learnt and the corrections are 1 / 0; an epsilon of 0 makes 0 / 0 of a gradient of 0.
    limits={"beta_1": (0.0, 1.0), "beta_2": (0.0, 1.0), "epsilon": (None, float("inf"))},
)
