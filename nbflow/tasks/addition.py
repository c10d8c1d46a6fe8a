"""Addition: half the sum of two marked numbers in a long row of them (Hochreiter and Schmidhuber 1997, task 4).

Two channels, a value in [0, 1) and a marker. A sequence has length L' = L + U{0 .. L/10 - 1}; marked are a position in
[0, .1L') and one in [.1L', .5L'). The target (x0 + x1)/2 is asked for at step L' - 1; a squared error above .04 is
wrong, so that the best constant is wrong 36.0 % of the time.
"""

import math

import numpy as np

from nbflow import counter, exact_unit
from nbflow.data.sampler import Trivial
from nbflow.data.synthetic import Task

TOLERANCE = 0.04


@exact_unit
def one_if(condition):
    return np.float32(int(condition))


@exact_unit
def value_at(stream, t):
    """Return the value of step t: from the same word as `inputs` gets."""
    return counter.uniform(counter.draw(*stream, 1 + t // 4)[t % 4])


@exact_unit
def places(stream, length):
    """Draw the length of the sequence, and both positions."""
    words = counter.draw(*stream, 0)
    own = length + counter.below(words[0], length // 10)
    return own, counter.below(words[1], own // 10), own // 10 + counter.below(words[2], own // 2 - own // 10)


@exact_unit
def plan(stream, length):
    """Draw the length and both positions, and add up."""
    own, first, second = places(stream, length)
    # In float64: the mean of two 24-bit numbers has 25 bits, and is rounded once, where it is stored.
    return own, first, second, 0.5 * (np.float64(value_at(stream, first)) + np.float64(value_at(stream, second)))


@exact_unit
def inputs(word, plan, t):
    own, first, second, _ = plan
    inside = one_if(t < own)
    return counter.uniform(word) * inside, one_if(t in (first, second))


@exact_unit
def target(plan, t):
    return (plan[3] * one_if(t == plan[0] - 1),)


@exact_unit
def counts(plan, t):
    return t == plan[0] - 1


def steps(length):
    """T: the longest L' there can be."""
    return int(length) + int(length) // 10 - 1


def trivial(length):
    """Return what the best constant reaches, 1/2: both triangles beyond the tolerance, and the variance of the mean."""
    return Trivial((1 - 2 * math.sqrt(TOLERANCE)) ** 2, 1 / 24)


TASK = Task(
    n_in=2, n_out=1, loss="square", tokens=False, plan=plan, inputs=inputs, target=target, counts=counts, steps=steps,
    tolerance=TOLERANCE, trivial=trivial,
)  # fmt: skip
