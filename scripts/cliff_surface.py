"""The loss of scripts/cliff.py, a one-unit network's over its two parameters, and gradient descent on it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

import nbflow as nf

Array = NDArray[np.float64]
CHUNK = 1024


@dataclass(frozen=True)
class Options:
    """Which network, where descent begins, how it goes, and what is drawn."""

    SIGNED: ClassVar = ("x_0", "target", "start", "w", "b")

    steps: int = 50
    """T, steps of the network."""
    x_0: float = 0.5
    """x before the first step."""
    target: float = 0.7
    """What the unit should say after the last step."""
    start: tuple[float, float] = (4.7, -1.9)
    """w and b where both descents begin."""
    lr: float = 0.2
    """The learning rate of both."""
    threshold: float = 0.3
    """What the norm of the clipped gradient is held to."""
    updates: int = 80
    """Updates of both."""
    w: tuple[float, float] = (4.0, 6.2)
    """The smallest and the largest w of the map."""
    b: tuple[float, float] = (-2.9, 0.6)
    """The smallest and the largest b of the map."""
    grid: int = 241
    """Points of the map along each axis."""
    out: Path = Path("results/cliff.png")
    """The picture; its suffix says the format."""


@dataclass(frozen=True)
class Descent:
    """What gradient descent did.

    Attributes
    ----------
    points : array of shape (n + 1, 2)
        w and b before every update, and after the last.
    losses : array of shape (n + 1,)
        The loss at each.
    norms : array of shape (n,)
        The norm of the gradient before it was clipped.
    """

    points: Array
    losses: Array
    norms: Array

    @property
    def jump(self) -> int:
        """The update that moved farthest."""
        return int(np.hypot(*np.diff(self.points, axis=0).T).argmax())

    @property
    def jump_length(self) -> float:
        return float(np.hypot(*(self.points[self.jump + 1] - self.points[self.jump])))


class Unit:
    """A network of one sigmoid unit without input."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.net = nf.Network("sigmoid", n_in=1, n_hidden=1, n_out=1, loss="square", dtype="float64")
        # Descent moves w_rec and the bias alone; the other parameters stay as they are.
        free = np.zeros(self.net.size)
        params = nf.unpack(self.net, free)
        params.w_rec[...] = params.bias[...] = 1.0
        self.free = free
        self.spaces: dict[int, Any] = {}

    def theta(self, points: Array) -> Array:
        """Return the parameters (R, P) of points (R, 2)."""
        rows = np.zeros((len(points), self.net.size))
        params = nf.unpack(self.net, rows)
        params.w_rec[:, 0, 0, 0], params.bias[:, 0, 0], params.w_out[...] = *points.T, 1.0
        return rows

    def gradient(self, points: Array) -> nf.Gradient:
        """Return loss (R,) and gradient (R, P) at points (R, 2)."""
        options, replicas = self.options, len(points)
        shape = (replicas, options.steps, 1)
        weights = np.zeros(shape)
        weights[:, -1] = 1.0
        batch = nf.Batch(np.zeros((*shape, 1)), np.full((*shape, 1), options.target), weights)
        state = np.full((replicas, 1, 1, 1), 1 / (1 + math.exp(-options.x_0)))
        if replicas not in self.spaces:
            self.spaces[replicas] = nf.workspace(self.net, batch)
        found = nf.gradient(self.net, self.theta(points), batch, state=state, workspace=self.spaces[replicas])
        return found._replace(d_theta=found.d_theta * self.free)

    def losses(self, points: Array) -> Array:
        """Return the loss (n,) at points (n, 2)."""
        found = np.empty(len(points))
        for k in range(0, len(points), CHUNK):
            found[k : k + CHUNK] = self.gradient(points[k : k + CHUNK]).loss
        return found

    def descend(self, clip: nf.Clip) -> Descent:
        """Walk down from the start."""
        options = self.options
        points, losses, norms = [np.array([options.start])], [], []
        for _ in range(options.updates):
            found = self.gradient(points[-1])
            done = nf.clip(self.net, found.d_theta, clip)
            params = nf.unpack(self.net, done.d_theta[0])
            step = np.array([[params.w_rec.item(), params.bias.item()]])
            points.append(points[-1] - options.lr * step)
            losses.append(found.loss[0])
            norms.append(done.norm[0])
        losses.append(self.gradient(points[-1]).loss[0])
        return Descent(np.concatenate(points), np.array(losses), np.array(norms))


@dataclass(frozen=True)
class Surface:
    """The loss over a grid: w (n,), b (n,), loss (n, n), a row for each b."""

    w: Array
    b: Array
    loss: Array


def surface(unit: Unit, w: tuple[float, float], b: tuple[float, float]) -> Surface:
    """Compute the loss over a grid, a replica for each point."""
    size = unit.options.grid
    ws, bs = np.linspace(*w, size), np.linspace(*b, size)
    points = np.stack(np.meshgrid(ws, bs), axis=-1).reshape(-1, 2)
    return Surface(ws, bs, unit.losses(points).reshape(size, size))
