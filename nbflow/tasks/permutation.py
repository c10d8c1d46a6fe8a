"""Permutation: what came first comes last, after a row of other symbols (Hochreiter and Schmidhuber 1997, task 2b).

A hundred symbols. The first is 0 or 1, and so is the one that follows step L, which is the same; in between come L - 1
of 2 .. 99. Asked for, at the last step, is the symbol that follows, among all hundred. A network that knows that only 0
and 1 can follow is wrong half of the time.
"""

from nbflow import counter, exact_unit
from nbflow.data.sampler import Trivial
from nbflow.data.synthetic import Task


@exact_unit
def plan(stream, length):
    """Draw what comes first."""
    return counter.below(counter.draw(*stream, 0)[0], 2), length


@exact_unit
def inputs(word, plan, t):
    return plan[0] if t == 0 else 2 + counter.below(word, 98)


@exact_unit
def target(plan, t):
    return plan[0] if t == plan[1] - 1 else 0


@exact_unit
def counts(plan, t):
    return t == plan[1] - 1


def trivial(length):
    """Return what 0 or 1 at random reaches."""
    return Trivial.guessing(2)


TASK = Task(
    n_in=100, n_out=100, loss="softmax", tokens=True, plan=plan, inputs=inputs, target=target, counts=counts,
    trivial=trivial,
)  # fmt: skip
