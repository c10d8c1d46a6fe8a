"""theta - lr * d: gradient descent (Goodfellow et al. 2016, algorithm 8.1)."""

from nbflow import exact_unit
from nbflow.records import Optimizer


@exact_unit
def update(theta, d, slots, lr, settings, n):
    return theta - lr * d, ()


OPTIMIZER = Optimizer(slots=(), update=update)
