"""Scores: how often a network is wrong on fresh sequences of a stream of their own, or its loss on data held out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from nbflow import _check, counter
from nbflow.data.array_task import part_wrong
from nbflow.data.sampler import Sampler
from nbflow.data.synthetic import Task, check_task
from nbflow.gradients._choices import check_noise
from nbflow.gradients._engine import Engine, engine_of
from nbflow.gradients.workspace import Buffers
from nbflow.model import _arguments
from nbflow.model._asked import PLAIN, Asked, UnitNoise, at_ends
from nbflow.model.stack import Model, Stack
from nbflow.records import Batch, Floats, Noise

if TYPE_CHECKING:
    from nbflow.data.sampler import DataTask

# Sequences in one pass: enough for the matrix product, few enough for the second-level cache.
PASS = 200


def draw_length(lengths: tuple[int, int], seed: int, purpose: int, index: int) -> int:
    """Draw the length of a batch, uniformly: the same for all replicas, which share T."""
    low, high = lengths
    if low == high:
        return low
    from nbflow.cpu.sample import build_draw_below

    # Sequence 2**32 - 1 is no sequence of any batch.
    return low + int(build_draw_below()(high - low + 1, seed, purpose, 0, index, 2**32 - 1))


class Evaluator:
    """Room for evaluating R networks, of these numbers, on `size` sequences of a task."""

    def __init__(
        self, engine: Engine, net: Model, task: Task, lengths: tuple[int, int], replicas: Any, size: int,
        first: Any = None, noise: UnitNoise | None = None,
    ) -> None:  # fmt: skip
        from nbflow.model._shape import Shape

        self.engine, self.task, self.lengths, self.replicas, self.size = engine, task, lengths, replicas, size
        self.batch_size = min(PASS, size)
        self.buffers = Buffers(net, Shape(len(replicas), task.most(lengths), self.batch_size, task.tokens))
        plain = first is None and noise is None
        state = None if first is None else _repeated(first, self.batch_size)
        self.asked = PLAIN if plain else Asked(state=state, noise=noise)

    def score(self, theta: Floats, seed: int, index: int) -> Floats:
        """Return the part of wrong sequences (R,); another `index` gives other sequences."""
        passes = -(-self.size // self.batch_size)
        indices = [(index * passes + k) % 2**32 for k in range(passes)]
        draws = [(k, draw_length(self.lengths, seed, counter.EVALUATION, k)) for k in indices]
        wrong, left = np.zeros(theta.shape[0]), self.size
        for found in self.engine.wrong(self.buffers, theta, self.task, self.replicas, seed, draws, self.asked):
            wrong += found[:, :left].sum(axis=1)
            left -= self.batch_size
        return wrong / self.size


def refuse_carried(net: Model, carries: bool) -> None:
    """Refuse to hand the state of two directions on: the reverse one begins where all is read."""
    if carries and isinstance(net, Stack) and net.bidirectional:
        raise NotImplementedError(
            "net is a Stack of two directions; expected one direction where the state is carried from window to "
            "window, as the reverse direction begins at the end. Give whole sequences, or leave bidirectional out."
        )


class HeldOut:
    """What a task of a user's data holds out, and room for measuring networks on it, one after the other."""

    def __init__(
        self, engine: Engine, net: Model, task: DataTask, first: Any = None, noise: UnitNoise | None = None
    ) -> None:
        from nbflow.model._shape import Shape

        self.engine, self.task, self.first, self.noise = engine, task, first, noise
        from nbflow.data._own import check_held_out

        refuse_carried(net, task.carries)
        held_out = list(task.held_out_batches(net.dtype))
        check_held_out(task, net, held_out)
        self.batches = [Batch(*(part[None] for part in batch)) for batch in held_out]
        self.goes_on = [task.goes_on(k) for k in range(len(held_out) + 1)]
        longest: dict[int, int] = {}  # by the number of sequences
        for _, steps, size in (batch.weights.shape for batch in self.batches):
            longest[size] = max(steps, longest.get(size, 0))
        self.buffers = {size: Buffers(net, Shape(1, most, size, task.tokens)) for size, most in longest.items()}

    def score(self, theta: Floats, seed: int, index: int) -> Floats:
        """Return the score of each network (R,); `seed` and `index` say which noise, and nothing else is drawn."""
        first = index * len(self.batches)
        found = np.array([self._summed(theta[r : r + 1], r, seed, first) for r in range(theta.shape[0])])
        return found if self.task.counts_wrong else found * self.task.units_per_nat

    def _asked(self, r: int, batch: Batch, state: Any, seed: int, number: int) -> Asked:
        """Return what a batch of network r is asked for: to begin with a state, or its first one; and its noise."""
        if state is None and self.first is not None:
            state = _repeated(self.first, batch.weights.shape[2], slice(r, r + 1))
        if self.noise is None:
            return Asked(state=state)
        noise = self.noise._replace(deviation=self.noise.deviation[r : r + 1])
        return Asked(state=state, noise=noise).drawn(seed, number % 2**32, np.array([r]))

    def _summed(self, theta: Floats, r: int, seed: int, first: int) -> float:
        """Return the part that network r gets wrong, or its nats, over all batches."""
        total, state = 0.0, None
        for k, (batch, goes_on) in enumerate(zip(self.batches, self.goes_on[1:], strict=True)):
            buffers, checked = self.buffers[batch.weights.shape[2]], _arguments.Checked(theta, *batch, False)
            asked = self._asked(r, batch, state, seed, first + k)
            if self.task.counts_wrong:
                y, states = self.engine.predict(buffers, checked, asked, with_states=goes_on)
                state = at_ends(states, None) if goes_on else None
                total += part_wrong(y[0], Batch(*(part[0] for part in batch)))
            else:
                losses, state = self.engine.losses(buffers, checked, asked, whole=goes_on)
                total += float(losses[0])
        return total


def _repeated(first: Any, batch: int, rows: slice = slice(None)) -> Any:
    """Return a state (R, 1, S, H) of these rows for so many sequences, C-ordered; of a stack for each layer."""
    if type(first) is tuple:
        return tuple(_repeated(layer, batch, rows) for layer in first)
    return np.repeat(first[rows], batch, axis=1)


class OwnScore:
    """What a function of the user's says of parameters, in place of a task."""

    def __init__(self, function: Callable[[Floats], Any], single: bool) -> None:
        self.function, self.single = function, single

    def score(self, theta: Floats, seed: int, index: int) -> Floats:
        """Return the score of each network (R,), NaN where the function has none."""
        asked = (theta[0] if self.single else theta).copy()
        asked.flags.writeable = False
        found = self.function(asked)
        try:
            scores = np.asarray(found)
        except ValueError:  # lists of different lengths
            scores = np.empty(0, object)
        if scores.dtype.kind not in "iuf" or scores.shape != (() if self.single else (len(theta),)):
            wanted = "a number" if self.single else f"{len(theta)} numbers, one for each replica"
            raise TypeError(
                f"score returned {_check.said(found)} at update {index}; expected {wanted}. Return float(...) of what "
                f"is to be low."
            )
        return np.atleast_1d(scores.astype(np.float64))


def evaluate(
    net: Model, theta: Floats, task: str | Sampler, *, length: int | tuple[int, int] | None = None,
    size: int = 10_000, seed: int = 0, index: int = 0, state: Any = None, noise: float | Floats | None = None,
) -> Any:  # fmt: skip
    """Return a network's score: how often it is wrong on fresh sequences, or its mean loss on data held out.

    Parameters
    ----------
    net : Network or Stack
    theta : array of shape (P,) or (R, P)
    task : str, Task, or task of a user's data (see `nbflow.data`)
    length : int or tuple of two ints
        The length, or the smallest and the largest. None for a user's data, of which all that is held out is measured.
    size : int
        How many sequences; of no effect for a user's data, as the following.
    seed, index : int
        Which ones, and which noise.
    state : array of shape (1, S, H), optional
        The state that every sequence begins with, one that was trained, say; R in front if theta has it, and of a stack
        a tuple, one for each layer. Zeros by default. Of a text each of the streams in which it is read begins so.
    noise : float, or array of shape (R,), optional
        The standard deviation of noise of the units (see `nbflow.Noise`), by draws that no training has: named by seed
        and index, of each batch by its own. None by default.

    Returns
    -------
    float, or array of shape (R,)
        The score, in the task's `unit`; the lower, the better. Of a synthetic task the part of sequences that are
        wrong ("part wrong"), of a user's data the mean loss of what is held out ("bits per character", "nats per
        frame").

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense.

    Examples
    --------
    >>> import nbflow as nf
    >>> net = nf.Network(cell="tanh", n_in=6, n_hidden=20, n_out=4)
    >>> abs(evaluate(net, nf.init(net, "smart_tanh", rng=0), "temporal_order", length=10, size=1000) - 0.75) < 0.1
    True
    """
    rows, single = _arguments.parameters(net, theta, takes=_arguments.model)
    found = check_task(net, task)
    size, seed, index = _check.count("size", size), _check.count("seed", seed, 0), _check.count("index", index, 0)
    first = None if state is None else _first_state(net, state, rows, single)
    if isinstance(noise, Noise):
        raise TypeError(
            f"noise is {_check.said(noise)}; expected a number, or one per replica: seed and index are arguments of an "
            f"evaluation. Write noise=0.1."
        )
    drawn = check_noise(noise, rows.shape[0], net.dtype)
    drawn = None if drawn is None else drawn._replace(evaluating=True)
    evaluator: Evaluator | HeldOut
    if isinstance(found, Task):
        lengths = _check.length_range("length", length, found.shortest)
        evaluator = Evaluator(engine_of("cpu"), net, found, lengths, np.arange(rows.shape[0]), size, first, drawn)
    elif length is not None:
        raise ValueError(
            f"length is {_check.said(length)}; expected None for {_check.said(found)}, all of which is measured. "
            "Leave it out."
        )
    else:
        evaluator = HeldOut(engine_of("cpu"), net, found, first, drawn)
    score = evaluator.score(rows, seed, index)
    return float(score[0]) if single else score


def _first_state(net: Model, state: Any, rows: Floats, single: bool) -> Any:
    """Return a state for every sequence as (R, 1, S, H), of a stack as a tuple of such."""
    alone = _arguments.Checked(rows, None, None, np.empty((rows.shape[0], 1, 1), rows.dtype), single)
    try:
        return _arguments.state(net, state, alone)
    except ValueError as error:
        raise ValueError(f"{error} All sequences begin with the same one here, so B is 1.") from None
