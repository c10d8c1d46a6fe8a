"""g v / (v + ||g||), over all parameters jointly: smoothed clipping. A short gradient stays nearly as it is.

Gorbunov, Tupitsa, Choudhury, Aliev, Richtarik, Horvath, Takac 2024, algorithm 1: with their step
eta / (L0 + L1 ||g||), v is L0 / L1 and the learning rate eta / L0. Never above v, and never quite at it; no gradient
keeps its bits. Differs from what else goes by a like name: I-NSGD (Yang, Tripp, Sun, Zou, Zhou 2024) divides by a power
of the norm of another, independent minibatch, which no rule of one gradient sees; the smooth clipping of Yu, Jakovetic,
Kar 2023 takes each entry alone.
"""

from nbflow import exact_unit
from nbflow.records import Rule
from nbflow.scalars import ONE, ZERO


@exact_unit
def clip(g, norm, threshold):
    if norm == ZERO:
        return g
    # Both quotients are at most 1, whichever of the two is the larger.
    if norm <= threshold:
        return g / (ONE + norm / threshold)
    return (g / norm) * (threshold / (ONE + threshold / norm))


RULE = Rule(over="all", clip=clip)
