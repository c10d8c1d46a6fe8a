"""v exp(-rate (b - quantile)) after every update, b = 1 if the norm was at most v, else 0.

So v goes to where a part `quantile` of the norms lies below it: Andrew, Thakkar, McMahan, Ramaswamy 2021, section 2.1,
with their `quantile`, `rate` and `first`. Differs from the source in that b is of one gradient, not a mean over many
users to which noise was added.
"""

import math

from nbflow import exact_unit
from nbflow.records import Threshold

# Where v stops: a product that became 0 or Inf could never come back.
LEAST, MOST = 1e-300, 1e300


@exact_unit
def value(norm, memory, settings, update):
    return memory[0] if memory[0] > 0.0 else settings[2]


@exact_unit
def learn(norm, memory, settings):
    quantile, rate, first = settings
    now = memory[0] if memory[0] > 0.0 else first
    below = 1.0 if norm <= now else 0.0
    memory[0] = min(max(now * math.exp(-rate * (below - quantile)), LEAST), MOST)


THRESHOLD = Threshold(
    value=value,
    learn=learn,
    memory=1,
    settings={"quantile": 0.5, "rate": 0.2, "first": 0.1},
    limits={"quantile": (0.0, 1.0), "first": (LEAST, MOST)},
)
