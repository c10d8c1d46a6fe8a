"""Delayed recall: `copy` with a delay that nobody can foresee, drawn for every sequence.

As in `copy`, ten symbols of 0 .. 7 are followed by blanks (8), and the delimiter (9) asks for the symbols in the next
ten steps; but it stands at a step drawn from 10 .. L + 9, and L + 20 steps are what the longest delay takes, which is
that of `copy`. Counting steps no longer helps: what is kept must be kept until it is asked for. After the variable copy
task of Henaff, Szlam and LeCun 2016, where 1 to T blanks come before the delimiter (so Tallec and Ollivier 2018); here
0 to L - 1 do, and the name is ours. Guessing does as in `copy`.
"""

from nbflow import counter, exact_unit
from nbflow.data.synthetic import Task
from nbflow.tasks.copy import VALUES, trivial
from nbflow.tasks.memorization import SYMBOLS, counted, counts, inputs, steps, target


@exact_unit
def plan(stream, length):
    """Draw the step of the cue."""
    cue = SYMBOLS + counter.below(counter.draw(*stream, 0)[0], length)
    return *stream, VALUES, SYMBOLS, cue, cue + 1


TASK = Task(
    n_in=VALUES + 2, n_out=VALUES + 1, loss="softmax", tokens=True, plan=plan, inputs=inputs, target=target,
    counts=counts, counted=counted, steps=steps, trivial=trivial,
)  # fmt: skip
