"""Temporal order: which of A and B came first, and which second, long ago (Hochreiter and Schmidhuber 1997, task 6a).

Six symbols: A = 0, B = 1 and four distractors. One of A, B stands at a position in [.1L, .2L), one in [.5L, .6L); the
class, asked for at the last step, is v0 + 2 v1. A network that knows nothing is wrong 75 % of the time.
"""

from nbflow import counter, exact_unit
from nbflow.data.sampler import Trivial
from nbflow.data.synthetic import Task


@exact_unit
def plan(stream, length):
    """Draw both positions and both symbols."""
    words = counter.draw(*stream, 0)
    early, late = length // 10, 5 * length // 10
    first = early + counter.below(words[0], 2 * length // 10 - early)
    second = late + counter.below(words[1], 6 * length // 10 - late)
    return first, second, counter.below(words[2], 2), counter.below(words[3], 2), length


@exact_unit
def inputs(word, plan, t):
    first, second, v0, v1, _ = plan
    distractor = 2 + counter.below(word, 4)
    return v0 if t == first else v1 if t == second else distractor


@exact_unit
def target(plan, t):
    return plan[2] + 2 * plan[3] if t == plan[4] - 1 else 0


@exact_unit
def counts(plan, t):
    return t == plan[4] - 1


def trivial(length):
    """Return what any constant answer reaches."""
    return Trivial.guessing(4)


TASK = Task(
    n_in=6, n_out=4, loss="softmax", tokens=True, plan=plan, inputs=inputs, target=target, counts=counts,
    trivial=trivial,
)  # fmt: skip
