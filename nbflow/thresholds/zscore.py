"""m + z s, or m + z s (z s / (norm - m)) for a norm above it: a moving mean m and deviation s of the norms.

ZClip: Kumar, Owen, Chowdhury, Guera 2025, the reciprocal rule, with their `z` and `decay`; z s / (norm - m) is their
z_thres / z_t. The further a spike stands out the nearer to m it is clipped. After every update
m <- decay m + (1 - decay) n and s^2 <- decay s^2 + (1 - decay) (n - m)^2 with the new m, where n is the norm, or what a
spike was clipped to. The first `warmup` norms are not clipped; m and s are their mean and (population) deviation. The
threshold is never above `most`, their max_grad_norm, warm-up included; it does not change what enters m and s.

Differs from the source: no epsilon is added to s (a scale of its own), so that a norm above m is clipped to m where s
is 0; `most` is not 1 by default; and a gradient that is not finite has threshold m.
"""

import math

from nbflow import exact_unit
from nbflow.records import Threshold

# What stands where in the memory.
COUNT, MEAN, DEVIATION = 0, 1, 2


@exact_unit
def limit(norm, memory, z):
    """Return what a norm is clipped to, whether it is a spike or not."""
    reach = z * memory[DEVIATION]
    if norm > memory[MEAN] + reach:
        return memory[MEAN] + reach * (reach / (norm - memory[MEAN]))
    return memory[MEAN] + reach


@exact_unit
def value(norm, memory, settings, update):
    z, _, warmup, most = settings
    if memory[COUNT] >= warmup:
        return min(limit(norm, memory, z), most)
    # A step that takes the place of a gradient that is not finite has the mean length of those so far.
    return min(memory[MEAN], most) if math.isinf(norm) and memory[COUNT] > 0.0 else most


@exact_unit
def learn(norm, memory, settings):
    # Deviations, not their squares, which overflow.
    z, decay, warmup, _ = settings
    memory[COUNT] += 1.0
    if memory[COUNT] <= warmup:
        kept = (memory[COUNT] - 1.0) / memory[COUNT]
        away = norm - memory[MEAN]
        memory[MEAN] += away / memory[COUNT]
        memory[DEVIATION] = math.hypot(math.sqrt(kept) * memory[DEVIATION], math.sqrt(kept / memory[COUNT]) * away)
        return
    entering = min(norm, limit(norm, memory, z))
    memory[MEAN] = decay * memory[MEAN] + (1.0 - decay) * entering
    away = entering - memory[MEAN]
    memory[DEVIATION] = math.hypot(math.sqrt(decay) * memory[DEVIATION], math.sqrt(1.0 - decay) * away)


THRESHOLD = Threshold(
    value=value,
    learn=learn,
    memory=3,
    settings={"z": 2.5, "decay": 0.97, "warmup": 25.0, "most": math.inf},
    limits={"decay": (0.0, 1.0), "warmup": (1.0, math.inf)},
)
