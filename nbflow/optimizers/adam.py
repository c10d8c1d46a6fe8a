"""Adam, with bias correction: Kingma and Ba 2015, algorithm 1; Goodfellow et al. 2016, algorithm 8.7."""

from nbflow import scalars, unit
from nbflow.records import Optimizer
from nbflow.scalars import ONE


@unit
def update(theta, d, slots, lr, settings, n):
    beta_1, beta_2, epsilon = settings
    mean = beta_1 * slots[0] + (ONE - beta_1) * d
    square = beta_2 * slots[1] + (ONE - beta_2) * d * d
    rate = lr / (ONE - beta_1**n)
    return theta - rate * mean / (scalars.sqrt(square / (ONE - beta_2**n)) + epsilon), (mean, square)


OPTIMIZER = Optimizer(
    slots=("mean", "mean square"), update=update, settings={"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-8}
)
