"""Copy, the copying memory problem of unitary networks (Arjovsky, Shah and Bengio 2016).

Ten symbols of 0 .. 7, L - 1 blanks (8), the delimiter (9) and ten blanks: L + 20 steps, their T being L. Asked for are
L + 10 blanks and then the ten symbols: a class at every step, and the loss is a mean over steps. A sequence is wrong if
any step is. Their baseline, which knows all but the symbols, has a loss of 10 log(8) / (L + 20) nats.

It is `memorization` with more symbols, and the answer begins a step after the cue and not with it.
"""

from nbflow import exact_unit
from nbflow.data.sampler import Trivial
from nbflow.data.synthetic import Task
from nbflow.tasks.memorization import SYMBOLS, counted, counts, inputs, steps, target

VALUES = 8


@exact_unit
def plan(stream, length):
    """Name the stream, the number of values and symbols, and the steps of the cue and of the first answer."""
    cue = SYMBOLS + length - 1
    return *stream, VALUES, SYMBOLS, cue, cue + 1


def trivial(length):
    """Return what guessing every symbol reaches, and blanks elsewhere."""
    return Trivial.guessing(VALUES, SYMBOLS, steps(length))


TASK = Task(
    n_in=VALUES + 2, n_out=VALUES + 1, loss="softmax", tokens=True, plan=plan, inputs=inputs, target=target,
    counts=counts, counted=counted, steps=steps, trivial=trivial,
)  # fmt: skip
