"""Memorization of five bits, as in `memorization`: 2^5 sequences in all (Martens and Sutskever 2011).

Five symbols of 0 and 1, L blanks (2), the cue (3) and four blanks: L + 10 steps. Differs from the authors' code, and
from that of Pascanu et al. 2013, where a batch may hold each of the 32 sequences once: here they are drawn, as
everywhere. Who knows all but the symbols is wrong 31 of 32 times, with a loss of 5 log(2) / (L + 10) nats.
"""

from nbflow import exact_unit
from nbflow.data.sampler import Trivial
from nbflow.data.synthetic import Task
from nbflow.tasks.memorization import counts, inputs, target

SYMBOLS, VALUES = 5, 2


@exact_unit
def plan(stream, length):
    return *stream, VALUES, SYMBOLS, SYMBOLS + length, SYMBOLS + length


def steps(length):
    """T: the symbols, the blanks, the answer."""
    return int(length) + 2 * SYMBOLS


counted = exact_unit(steps)  # all of them


def trivial(length):
    """Return what guessing every symbol reaches, and blanks elsewhere."""
    return Trivial.guessing(VALUES, SYMBOLS, steps(length))


TASK = Task(
    n_in=VALUES + 2, n_out=VALUES + 1, loss="softmax", tokens=True, plan=plan, inputs=inputs, target=target,
    counts=counts, counted=counted, steps=steps, trivial=trivial,
)  # fmt: skip
