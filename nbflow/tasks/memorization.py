"""Memorization: ten symbols of five, repeated when the cue comes (Martens and Sutskever 2011; Pascanu et al. 2013).

The noiseless memorization of more than 20 bits, in the form of Pascanu's code; in that of Martens and Sutskever the
answer begins a step after the cue.

Ten symbols of 0 .. 4, L blanks (5), the cue (6) and nine blanks: L + 20 steps. Asked for are blanks, and from the cue
on the ten symbols: a class at every step, and the loss is a mean over steps. A sequence is wrong if any step is. Who
knows all but the symbols is right once in 5^10 times, with a loss of 10 log(5) / (L + 20) nats.

Every task of this kind has this form; `memorization_5bit`, `copy` and `delayed_recall` differ in their plans.
"""

from nbflow import counter, exact_unit
from nbflow.data.sampler import Trivial
from nbflow.data.synthetic import Task

SYMBOLS, VALUES = 10, 5


@exact_unit
def plan(stream, length):
    """Name the stream, the number of values and symbols, and the steps of the cue and of the first answer."""
    return *stream, VALUES, SYMBOLS, SYMBOLS + length, SYMBOLS + length


@exact_unit
def inputs(word, plan, t):
    values, symbols, cue = plan[5], plan[6], plan[7]
    return counter.below(word, values) if t < symbols else values + 1 if t == cue else values


@exact_unit
def target(plan, t):
    values, symbols, start = plan[5], plan[6], plan[8]
    step = t - start
    if step < 0 or step >= symbols:
        return values
    # The symbol of that step, from the same word as `inputs` got.
    stream = plan[:5]
    return counter.below(counter.draw(*stream, 1 + step // 4)[step % 4], values)


@exact_unit
def counts(plan, t):
    return True


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
