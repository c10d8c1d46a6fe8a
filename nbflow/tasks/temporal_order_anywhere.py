"""Temporal order whose two symbols stand anywhere: what a network must not rely on is where they are.

As `temporal_order` (Hochreiter and Schmidhuber 1997, task 6a), but for the positions: two different steps of all L,
each pair of them equally likely, so that the wait before the first symbol, the gap between both and the tail after the
second are anything from nothing to nearly the whole sequence. The class, asked for at the last step, is v0 + 2 v1 in
the order of the steps. A network that knows nothing is wrong 75 % of the time.

Differs from the source, whose symbols stand in [.1L, .2L) and [.5L, .6L).
"""

from nbflow import counter, exact_unit
from nbflow.data.synthetic import Task
from nbflow.tasks.temporal_order import counts, inputs, target, trivial


@exact_unit
def plan(stream, length):
    """Draw both positions, of which the second one leaves out the first, and both symbols."""
    words = counter.draw(*stream, 0)
    one, other = counter.below(words[0], length), counter.below(words[1], length - 1)
    other = other + 1 if other >= one else other
    first, second = (one, other) if one < other else (other, one)
    return first, second, counter.below(words[2], 2), counter.below(words[3], 2), length


TASK = Task(
    n_in=6, n_out=4, loss="softmax", tokens=True, plan=plan, inputs=inputs, target=target, counts=counts,
    trivial=trivial,
)  # fmt: skip
