"""Scores: how often a network is wrong on fresh sequences of a stream of their own, or its loss on data held out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nbflow import _check, counter
from nbflow.data.sampler import Sampler, Task, check_task
from nbflow.model.network import Network
from nbflow.records import Batch, Floats

if TYPE_CHECKING:
    from nbflow.data.tasks import DataTask

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

    def __init__(self, net: Network, task: Task, lengths: tuple[int, int], replicas: Any, size: int) -> None:
        self.net, self.task, self.lengths, self.replicas, self.size = net, task, lengths, replicas, size
        self.batch_size = min(PASS, size)
        self._prepare(len(replicas), task.steps(lengths[1]))

    def _prepare(self, replicas: int, most: int) -> None:
        """Make room for a pass of at most so many steps."""
        from nbflow.cpu.program import set_program
        from nbflow.cpu.workspace import Shape, Workspace

        self.space: Any = Workspace(self.net, Shape(replicas, most, self.batch_size, self.task.tokens))
        set_program(self.space, "predict")

    def score(self, theta: Floats, seed: int, index: int) -> Floats:
        """Return the part of wrong sequences (R,); another `index` gives other sequences."""
        wrong = np.zeros(theta.shape[0])
        passes = -(-self.size // self.batch_size)
        for k in range(passes):
            count = min(self.batch_size, self.size - k * self.batch_size)
            wrong += self._pass(theta, seed, (index * passes + k) % 2**32)[:, :count].sum(axis=1)
        return wrong / self.size

    def _pass(self, theta: Floats, seed: int, index: int) -> Any:
        from nbflow.cpu.program import execute

        length = draw_length(self.lengths, seed, counter.EVALUATION, index)
        batch = self.task.empty(theta.shape[0], self.task.steps(length), self.batch_size, self.net.dtype)
        self.task.fill(batch, seed, counter.EVALUATION, self.replicas, index, length)
        space = self.space
        space.fit(batch.weights.shape[1])
        space.point_to(theta, batch.inputs, None, batch.weights, None)
        execute(space)
        y = space.gather("y")
        # What lies at steps without weight was left there by another batch.
        y[batch.weights == 0] = 0
        return self.task.wrong(y, batch)


class HeldOut:
    """What a task of a user's data holds out, and room for measuring networks on it, one after the other."""

    def __init__(self, net: Network, task: DataTask) -> None:
        self.net, self.task = net, task
        self.batches = [Batch(*(part[None] for part in batch)) for batch in task.held_out_batches(net.dtype)]
        self.spaces: dict[int, Any] = {}

    def score(self, theta: Floats, seed: int, index: int) -> Floats:
        """Return the score of each network (R,); there are no others to draw, whatever `seed` and `index` are."""
        nats = np.array([self._nats(theta[r : r + 1]) for r in range(theta.shape[0])])
        return nats * self.task.units_per_nat

    def _nats(self, theta: Floats) -> float:
        nats, state = 0.0, None
        for batch in self.batches:
            loss, state = self._loss(self._space(batch), theta, batch, state)
            nats += loss
        return nats

    def _space(self, batch: Batch) -> Any:
        """Return a workspace for this batch, with room for the longest of so many sequences."""
        _, steps, size = batch.weights.shape
        if size not in self.spaces:
            most = max(other.weights.shape[1] for other in self.batches if other.weights.shape[2] == size)
            self.spaces[size] = self._make(size, most)
        found = self.spaces[size]
        if found.steps != steps:
            found.fit(steps)
        return found

    def _make(self, size: int, most: int) -> Any:
        """Return a workspace for one network and `size` sequences of at most so many steps."""
        from nbflow.cpu.program import set_program
        from nbflow.cpu.workspace import Shape, Workspace

        found = Workspace(self.net, Shape(1, most, size, self.task.tokens))
        set_program(found, "score", whole=self.task.carries)
        return found

    def _loss(self, space: Any, theta: Floats, batch: Batch, state: Floats | None) -> tuple[float, Floats | None]:
        """Return the loss of a batch from a state, zeros if there is none, and the state after it if it is needed."""
        from nbflow.cpu.program import execute

        space.set_state(state)
        space.point_to(theta, *batch, None)
        execute(space)
        return float(space.report[0, 0]), space.gather_state("end") if self.task.carries else None


def evaluate(
    net: Network, theta: Floats, task: str | Sampler, *, length: int | tuple[int, int] | None = None,
    size: int = 10_000, seed: int = 0, index: int = 0,
) -> Any:  # fmt: skip
    """Return a network's score: how often it is wrong on fresh sequences, or its mean loss on data held out.

    Parameters
    ----------
    net : Network
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
    rows, single = _check.parameters(net, theta)
    found = check_task(net, task)
    size, seed, index = _check.count("size", size), _check.count("seed", seed, 0), _check.count("index", index, 0)
    evaluator: Evaluator | HeldOut
    if isinstance(found, Task):
        lengths = _check.length_range("length", length, found.shortest)
        evaluator = Evaluator(net, found, lengths, np.arange(rows.shape[0]), size)
    elif length is not None:
        raise ValueError(f"length is {length!r}; expected None for {found!r}, all of which is measured. Leave it out.")
    else:
        evaluator = HeldOut(net, found)
    score = evaluator.score(rows, seed, index)
    return float(score[0]) if single else score
