"""The gradients of many minibatches at one theta, and of each example in them: what `clipping_bias` looks at."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from nbflow import _check, counter
from nbflow.data.sampler import Sampler
from nbflow.data.synthetic import check_task
from nbflow.gradients.gradient import gradient
from nbflow.gradients.workspace import Buffers, workspace
from nbflow.model import _arguments
from nbflow.model.network import Network
from nbflow.records import Batch, Floats
from nbflow.training.evaluation import draw_length


def draw_minibatches(
    net: Network, task: str | Sampler, length: int | tuple[int, int], batch_size: int, count: int, seed: int
) -> list[Batch]:
    """Draw minibatches of a task from the stream that training never sees."""
    found = check_task(net, task)
    lengths = _check.length_range("length", length, found.shortest)
    return [
        found.sample(
            seed=seed, index=k, batch_size=batch_size, length=draw_length(lengths, seed, counter.EVALUATION, k),
            stream="evaluation", dtype=net.dtype,
        )
        for k in range(count)
    ]  # fmt: skip


def check_minibatches(net: Network, theta: Any, batches: Any, least: int = 2) -> list[Batch]:
    """Return minibatches as a list, each fit for one network at theta."""
    _arguments.theta_shape(net, theta)
    if theta.ndim != 1:
        raise ValueError(f"theta has shape {theta.shape}; expected ({net.size},), one network. Pass theta[0].")
    _check.finite("theta", theta, "Take the parameters from before they overflowed.")
    if isinstance(batches, Batch) or not isinstance(batches, Iterable):
        raise TypeError(
            f"batches is a {type(batches).__name__}; expected a list of Batch, a minibatch each. Write [batch, ...]."
        )
    found = list(batches)
    if len(found) < least:
        raise ValueError(f"batches has {len(found)} minibatches; expected at least {least}. Give more of them.")
    for batch in found:
        _arguments.computation(net, theta, batch)
    return [Batch(*batch) for batch in found]


class Minibatches:
    """One network at one theta, and minibatches of any shapes.

    The gradient of a minibatch is the sum over its examples of the gradient of each one's share of the loss.
    """

    def __init__(self, net: Network, theta: Floats, batches: list[Batch], backend: str = "cpu") -> None:
        self.net, self.theta, self.batches, self.backend = net, theta, batches, backend
        self.sizes = np.array([batch.weights.shape[1] for batch in batches])
        self._spaces: dict[Any, Buffers] = {}

    def __len__(self) -> int:
        return len(self.batches)

    def _gradient(self, theta: Floats, batch: Batch, how: dict[str, Any]) -> Any:
        shape = (batch.weights.shape, batch.inputs.dtype.kind)
        if shape not in self._spaces:
            self._spaces[shape] = workspace(self.net, batch)
        return gradient(self.net, theta, batch, workspace=self._spaces[shape], backend=self.backend, **how)

    def gradients(self, **how: Any) -> tuple[Floats, list[Any]]:
        """Return the gradients (n, P) and all else that `nbflow.gradient` found, clipped inside as `how` says."""
        rows, found = np.empty((len(self), self.net.size), self.net.dtype), []
        for row, batch in zip(rows, self.batches, strict=True):
            out = self._gradient(self.theta, batch, how)
            row[...] = out.d_theta
            found.append(out)
        return rows, found

    def shares(self, k: int, **how: Any) -> Floats:
        """Return the gradient (B, P) of each example's share of the loss of minibatch k: a replica for each."""
        size = int(self.sizes[k])
        parts = (np.ascontiguousarray(np.moveaxis(part, 1, 0)[:, :, None]) for part in self.batches[k])
        rows: Floats = self._gradient(np.broadcast_to(self.theta, (size, self.net.size)), Batch(*parts), how).d_theta
        return rows


def lengths(rows: Floats) -> Floats:
    """Return the Euclidean norm (n,) of each row, in float64 and without overflow."""
    rows = rows.astype(np.float64)
    top = np.abs(rows).max(axis=1, initial=0.0)
    top[top == 0] = 1.0
    found: Floats = top * np.linalg.norm(rows / top[:, None], axis=1)
    return found


def strength(clipped: Floats, plain: Floats) -> float:
    """Return the mean norm of clipped gradients (n, P) over that of the unclipped."""
    with np.errstate(invalid="ignore"):
        return float(lengths(clipped).mean() / lengths(plain).mean())
