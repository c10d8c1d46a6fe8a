"""The average of clipped minibatch gradients against the clipped average, by threshold and size of the minibatches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from nbflow import _check
from nbflow.diagnostics._minibatches import Minibatches, check_minibatches
from nbflow.model import _arguments
from nbflow.model.network import Network
from nbflow.records import AverageOfClipped, Batch, Floats


def average_of_clipped(
    net: Network, theta: Floats, batches: Iterable[Batch], *, sizes: Any, thresholds: Any
) -> AverageOfClipped:
    """Compare the average of norm-clipped minibatch gradients with the norm-clipped average over all examples.

    The two are not the same (Goodfellow, Bengio, Courville 2016, section 10.11.1), except where nothing is clipped or
    a minibatch holds all examples.

    Parameters
    ----------
    net : Network
    theta : array of shape (P,)
    batches : iterable of Batch
        All examples, in batches of one size B.
    sizes : sequence of int
        Sizes of minibatches to try: divisors of B, or multiples of B that divide the number of examples. Neighbours go
        together.
    thresholds : sequence of float
        In units of the gradient.

    Returns
    -------
    AverageOfClipped

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense.

    Examples
    --------
    >>> import nbflow as nf
    >>> net = nf.Network(cell="tanh", n_in=6, n_hidden=10, n_out=4)
    >>> theta, task = nf.init(net, "basic_tanh", rng=0), nf.load_task("temporal_order")
    >>> batches = [task.sample(seed=0, index=k, batch_size=10, length=10) for k in range(4)]
    >>> found = nf.average_of_clipped(net, theta, batches, sizes=[1, 10, 40], thresholds=[0.1, 100.0])
    >>> found.cosine.round(3)[:, 1], found.norm_ratio.round(3)[2]
    (array([1., 1., 1.]), array([1., 1.]))
    """
    _arguments.network(net)
    data = Minibatches(net, theta, check_minibatches(net, theta, batches, least=1))
    wanted = _sizes(sizes, data)
    limits = np.unique(_thresholds(thresholds, net))
    sums = {size: _Sums(len(limits), net.size) for size in wanted}
    for k in range(len(data)):
        shares = data.shares(k).astype(np.float64) * data.sizes[k]
        for size in wanted:
            for g in sums[size].groups(shares, size):
                sums[size].add(g, limits)
    true = sums[wanted[0]].plain / sums[wanted[0]].count
    true_norm = float(np.linalg.norm(true))
    means = np.stack([sums[size].clipped / sums[size].count for size in wanted])
    with np.errstate(invalid="ignore", divide="ignore"):
        lengths = np.linalg.norm(means, axis=-1)
        cosine = np.clip(means @ true / (lengths * true_norm), -1.0, 1.0)
        ratio = lengths / np.minimum(limits, true_norm)
    return AverageOfClipped(
        np.array(wanted), limits, true_norm, np.array([sums[size].norms / sums[size].count for size in wanted]),
        np.stack([sums[size].changed / sums[size].count for size in wanted]), cosine, ratio,
    )  # fmt: skip


class _Sums:
    """Sums over minibatches of one size, for every threshold."""

    def __init__(self, limits: int, parameters: int) -> None:
        self.clipped, self.plain = np.zeros((limits, parameters)), np.zeros(parameters)
        self.changed, self.norms, self.count = np.zeros(limits), 0.0, 0
        self.waiting, self.waiting_for = np.zeros(parameters), 0

    def groups(self, gradients: Floats, size: int) -> Iterator[Floats]:
        """Yield the gradients of the minibatches that are complete, from those (B, P) of the next B examples."""
        if size <= len(gradients):
            yield gradients.reshape(-1, size, gradients.shape[1]).mean(axis=1)
            return
        self.waiting += gradients.sum(axis=0)
        self.waiting_for += len(gradients)
        if self.waiting_for == size:
            yield self.waiting[None] / size
            self.waiting, self.waiting_for = np.zeros_like(self.waiting), 0

    def add(self, gradients: Floats, limits: Floats) -> None:
        norms = np.linalg.norm(gradients, axis=1)
        with np.errstate(divide="ignore"):
            factors = np.minimum(1.0, limits[:, None] / norms)
        self.clipped += factors @ gradients
        self.plain += gradients.sum(axis=0)
        self.changed += (factors < 1).sum(axis=1)
        self.norms += float(norms.sum())
        self.count += len(gradients)


def _sizes(sizes: Any, data: Minibatches) -> list[int]:
    batch, total = int(data.sizes[0]), int(data.sizes.sum())
    if (data.sizes != batch).any():
        raise ValueError(f"batches have from {data.sizes.min()} to {data.sizes.max()} examples; expected one size B. "
                         f"Leave out the others.")  # fmt: skip
    found = sorted({_check.count("sizes", size) for size in np.atleast_1d(np.asarray(sizes, object)).tolist()})
    for size in found:
        if batch % size and (size % batch or total % size):
            raise ValueError(f"sizes has {size}; expected a divisor of B = {batch}, or a multiple of it that divides "
                             f"{total}, the number of examples. Choose such a one.")  # fmt: skip
    if not found:
        raise ValueError("sizes is empty; expected at least one size. Give [1].")
    return found


def _thresholds(thresholds: Any, net: Network) -> Floats:
    found = np.atleast_1d(np.asarray(thresholds))
    if found.ndim != 1 or not found.size:
        raise ValueError(f"thresholds has shape {found.shape}; expected a list of numbers. Give [0.1, 1.0].")
    return _check.per_replica("thresholds", found, found.size, least=0.0, above=True, dtype=net.dtype)
