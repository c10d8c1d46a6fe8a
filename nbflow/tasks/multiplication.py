"""Multiplication: the product of two marked numbers in a long row of them (Hochreiter and Schmidhuber 1997, task 5).

Lengths, channels and marks are those of addition. The target is x0 x1; a squared error above .04 is wrong, so that the
best constant is wrong 23.3 % of the time.
"""

import math

import numpy as np

from nbflow import exact_unit
from nbflow.data.sampler import Trivial
from nbflow.data.synthetic import Task
from nbflow.tasks.addition import TOLERANCE, counts, inputs, places, steps, target, value_at


@exact_unit
def plan(stream, length):
    """Draw the length and both positions, and multiply."""
    own, first, second = places(stream, length)
    # In float64, where the product of two 24-bit numbers is exact.
    return own, first, second, np.float64(value_at(stream, first)) * np.float64(value_at(stream, second))


def trivial(length):
    """Return what the best constants reach: 0.2, in the middle of [0, 0.4], for the error, and 1/4 for the loss.

    The density of x0 x1 is -log, which falls, so the interval of a given width that holds most of it begins at 0; it
    holds w (1 - log w). The variance is 1/9 - 1/16.
    """
    width = 2 * math.sqrt(TOLERANCE)
    return Trivial(1 - width * (1 - math.log(width)), 7 / 144)


TASK = Task(
    n_in=2, n_out=1, loss="square", tokens=False, plan=plan, inputs=inputs, target=target, counts=counts, steps=steps,
    tolerance=TOLERANCE, trivial=trivial,
)  # fmt: skip
