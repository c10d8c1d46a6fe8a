"""(||h_t|| - ||h_{t-1}||)^2, the norm stabilizer: Krueger and Memisevic 2015.

A mean over steps, and over sequences. The first step counts from the first state, whose norm is 0 as a rule.
"""

from nbflow import unit
from nbflow.records import StatePenalty
from nbflow.scalars import TWO


@unit
def value(n, before):
    return (n - before) * (n - before)


@unit
def slope(n, before):
    d = TWO * (n - before)
    return d, -d


PENALTY = StatePenalty(value, slope)
