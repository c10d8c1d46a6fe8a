"""Scores: how often a network is wrong on fresh sequences of a stream of their own, or its loss on data held out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from nbflow import _check, counter
from nbflow.data.array_task import part_wrong
from nbflow.data.sampler import Sampler, Task, check_task
from nbflow.gradients._engine import Engine, engine_of
from nbflow.gradients.workspace import Buffers
from nbflow.model import _arguments
from nbflow.model._asked import PLAIN, Asked
from nbflow.model.stack import Model
from nbflow.records import Batch, Floats

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
        self, engine: Engine, net: Model, task: Task, lengths: tuple[int, int], replicas: Any, size: int
    ) -> None:
        from nbflow.model._shape import Shape

        self.engine, self.task, self.lengths, self.replicas, self.size = engine, task, lengths, replicas, size
        self.batch_size = min(PASS, size)
        self.buffers = Buffers(net, Shape(len(replicas), task.most(lengths), self.batch_size, task.tokens))

    def score(self, theta: Floats, seed: int, index: int) -> Floats:
        """Return the part of wrong sequences (R,); another `index` gives other sequences."""
        passes = -(-self.size // self.batch_size)
        indices = [(index * passes + k) % 2**32 for k in range(passes)]
        draws = [(k, draw_length(self.lengths, seed, counter.EVALUATION, k)) for k in indices]
        wrong, left = np.zeros(theta.shape[0]), self.size
        for found in self.engine.wrong(self.buffers, theta, self.task, self.replicas, seed, draws):
            wrong += found[:, :left].sum(axis=1)
            left -= self.batch_size
        return wrong / self.size


class HeldOut:
    """What a task of a user's data holds out, and room for measuring networks on it, one after the other."""

    def __init__(self, engine: Engine, net: Model, task: DataTask) -> None:
        from nbflow.model._shape import Shape

        self.engine, self.task = engine, task
        from nbflow.data._own import check_held_out

        held_out = list(task.held_out_batches(net.dtype))
        check_held_out(task, net, held_out)
        self.batches = [Batch(*(part[None] for part in batch)) for batch in held_out]
        longest: dict[int, int] = {}  # by the number of sequences
        for _, steps, size in (batch.weights.shape for batch in self.batches):
            longest[size] = max(steps, longest.get(size, 0))
        self.buffers = {size: Buffers(net, Shape(1, most, size, task.tokens)) for size, most in longest.items()}

    def score(self, theta: Floats, seed: int, index: int) -> Floats:
        """Return the score of each network (R,); there are no others to draw, whatever `seed` and `index` are."""
        if self.task.counts_wrong:
            return np.array([self._wrong(theta[r : r + 1]) for r in range(theta.shape[0])])
        nats = np.array([self._nats(theta[r : r + 1]) for r in range(theta.shape[0])])
        return nats * self.task.units_per_nat

    def _wrong(self, theta: Floats) -> float:
        wrong = 0.0
        for batch in self.batches:
            checked = _arguments.Checked(theta, *batch, False)
            y, _ = self.engine.predict(self.buffers[batch.weights.shape[2]], checked, PLAIN)
            wrong += part_wrong(y[0], Batch(*(part[0] for part in batch)))
        return wrong

    def _nats(self, theta: Floats) -> float:
        nats, state = 0.0, None
        for batch in self.batches:
            buffers, checked = self.buffers[batch.weights.shape[2]], _arguments.Checked(theta, *batch, False)
            losses, state = self.engine.score(buffers, checked, Asked(state=state), whole=self.task.carries)
            nats += float(losses[0])
        return nats


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
    size: int = 10_000, seed: int = 0, index: int = 0,
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
        Which ones.

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
    evaluator: Evaluator | HeldOut
    if isinstance(found, Task):
        lengths = _check.length_range("length", length, found.shortest)
        evaluator = Evaluator(engine_of("cpu"), net, found, lengths, np.arange(rows.shape[0]), size)
    elif length is not None:
        raise ValueError(
            f"length is {_check.said(length)}; expected None for {_check.said(found)}, all of which is measured. "
            "Leave it out."
        )
    else:
        evaluator = HeldOut(engine_of("cpu"), net, found)
    score = evaluator.score(rows, seed, index)
    return float(score[0]) if single else score
