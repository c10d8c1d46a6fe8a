"""Temporal order of three: which of A and B came first, second and third (Hochreiter and Schmidhuber 1997, task 6b).

Six symbols: A = 0, B = 1 and four distractors. One of A, B stands at a position in [.1L, .2L), one in [.3L, .4L), one
in [.6L, .7L); the class, asked for at the last step, is v0 + 2 v1 + 4 v2. A network that knows nothing is wrong 87.5 %
of the time.
"""

from nbflow import counter, exact_unit
from nbflow.data.sampler import Trivial
from nbflow.data.synthetic import Task


@exact_unit
def place(word, tenth, length):
    """Return a position from so many tenths of the length up to the next."""
    start = tenth * length // 10
    return start + counter.below(word, (tenth + 1) * length // 10 - start)


@exact_unit
def plan(stream, length):
    """Draw the three positions, and the class: its bits are the three symbols."""
    words = counter.draw(*stream, 0)
    first, second, third = place(words[0], 1, length), place(words[1], 3, length), place(words[2], 6, length)
    return first, second, third, counter.below(words[3], 8), length


@exact_unit
def inputs(word, plan, t):
    first, second, third, answer, _ = plan
    for k, position in enumerate((first, second, third)):
        if t == position:
            return answer >> k & 1
    return 2 + counter.below(word, 4)


@exact_unit
def target(plan, t):
    return plan[3] if t == plan[4] - 1 else 0


@exact_unit
def counts(plan, t):
    return t == plan[4] - 1


def trivial(length):
    """Return what any constant answer reaches."""
    return Trivial.guessing(8)


TASK = Task(
    n_in=6, n_out=8, loss="softmax", tokens=True, plan=plan, inputs=inputs, target=target, counts=counts,
    trivial=trivial,
)  # fmt: skip
