"""How often a network is wrong, on fresh sequences from a stream of their own."""

from __future__ import annotations

from typing import Any

import numpy as np

from nbflow import _check, counter
from nbflow.network import Network
from nbflow.records import Floats
from nbflow.task import Task, check_task

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

    def error(self, theta: Floats, seed: int, index: int) -> Floats:
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
        y = space.gather("y", space.steps, int(space.jobs["out_width"][0]), keep=(self.net.n_out,))
        # What lies at steps without weight was left there by another batch.
        y[batch.weights == 0] = 0
        return self.task.wrong(y, batch)


def evaluate(
    net: Network, theta: Floats, task: str | Task, *, length: int | tuple[int, int], size: int = 10_000, seed: int = 0,
    index: int = 0,
) -> Any:  # fmt: skip
    """Return how often a network is wrong on fresh sequences of a task.

    Parameters
    ----------
    net : Network
    theta : array of shape (P,) or (R, P)
    task : str or Task
    length : int or tuple of two ints
        The length, or the smallest and the largest.
    size : int
        How many sequences.
    seed, index : int
        Which ones.

    Returns
    -------
    float, or array of shape (R,)
        The part of sequences that are wrong.

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
    lengths = _check.length_range("length", length, found.shortest)
    evaluator = Evaluator(net, found, lengths, np.arange(rows.shape[0]), _check.count("size", size))
    error = evaluator.error(rows, _check.count("seed", seed, 0), _check.count("index", index, 0))
    return float(error[0]) if single else error
