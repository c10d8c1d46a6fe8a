"""Draw the cliff in the loss of a one-unit recurrent network, and gradient descent that meets it with and without clip.

The network x_t = w sigmoid(x_{t-1}) + b has no input, begins at x_0 = 0.5, and is to end at sigmoid(x_50) = 0.7; its
loss is (sigmoid(x_50) - 0.7)^2. Where the network can settle in two states, one side of a line in the plane of w and b
ends in the one and the other side in the other: there the loss falls like a cliff, and its gradient is as large as the
cliff is steep. Both descents begin at the same point and walk down to the ravine at the foot of the cliff. The first
step onto the cliff face catapults the plain one far away, where the loss is flat; the clipped one takes the same
direction, but a step of bounded length, and stays where the loss is small. It is the picture of Goodfellow, Bengio,
Courville 2016, figure 10.17, drawn for the network of Pascanu, Mikolov, Bengio 2013, eq. 8 and figure 6.

Every loss and gradient comes from nbflow: a sigmoid cell h_t = sigmoid(x_t) with one unit, a square loss at the last
step, a point (w, b) of the surface to a replica.

Usage: python scripts/cliff.py
       python scripts/cliff.py --start 4.8 -2.0 --lr 0.15 --threshold 0.1
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from cliff_pictures import picture
from numpy.typing import NDArray
from reporting import begin, refused
from rich.console import Console
from rich.table import Table

import nbflow as nf
from nbflow import plot

Array = NDArray[np.float64]
CHUNK = 1024


@dataclass(frozen=True)
class Options:
    """Which network, where descent begins, how it goes, and what is drawn."""

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


def check(options: Options) -> None:
    """Refuse what would end in nonsense; the rest is refused by nbflow."""
    for name, least in (("steps", 1), ("updates", 1), ("grid", 2)):
        if getattr(options, name) < least:
            raise ValueError(f"{name} is {getattr(options, name)}; expected at least {least}. Give a larger one.")
    for name in ("w", "b"):
        low, high = getattr(options, name)
        if not -math.inf < low < high < math.inf:
            raise ValueError(f"{name} is {low:g} {high:g}; expected the smallest and the largest. Swap them.")
    for name in ("x_0", "target", "start", "lr"):
        if not np.isfinite(getattr(options, name)).all():
            raise ValueError(f"{name} is {getattr(options, name)}; expected a finite number. Give another.")


def near(descent: Descent) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the smallest and the largest w and b around a path, with room beside it."""
    low, high = descent.points.min(axis=0), descent.points.max(axis=0)
    room = 0.15 * (high - low) + 0.02
    (w_low, b_low), (w_high, b_high) = (low - room).tolist(), (high + room).tolist()
    return (w_low, w_high), (b_low, b_high)


def table(options: Options, descents: dict[str, Descent]) -> Table:
    """Return what each descent did."""
    found = Table(title=f"{options.updates} updates from w = {options.start[0]:g}, b = {options.start[1]:g}",
                  title_justify="left")  # fmt: skip
    found.add_column("gradient\ndescent")
    for words in ("largest\nnorm", "longest\nstep", "smallest\nloss", "last\nloss", "ends at\nw, b"):
        found.add_column(words, justify="right")
    for name, descent in descents.items():
        w, b = descent.points[-1]
        numbers = (descent.norms.max(), descent.jump_length, descent.losses.min(), descent.losses[-1])
        found.add_row(name, *(f"{number:.2g}" for number in numbers), f"{w:.2f}, {b:.2f}")
    return found


def run(options: Options, console: Console) -> int:
    """Compute, draw and report; return the exit code."""
    started = time.perf_counter()
    try:
        check(options)
        unit = Unit(options)
        with console.status("Descending, and computing the surface"):
            # An infinite threshold changes nothing.
            plain = unit.descend(nf.Clip("norm", math.inf, nonfinite="keep"))
            clipped = unit.descend(nf.Clip("norm", options.threshold))
            whole, ravine = surface(unit, options.w, options.b), surface(unit, *near(clipped))
            path = plot.save(picture(options, whole, ravine, plain, clipped), options.out)
    except (OSError, TypeError, ValueError) as error:
        return refused(console, error)
    console.print(table(options, {"plain": plain, "clipped": clipped}))
    console.print(f"picture: {path} ({time.perf_counter() - started:.1f} s)", soft_wrap=True, highlight=False)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    return begin(run, tyro.cli(Options, args=arguments, description=__doc__))


if __name__ == "__main__":
    sys.exit(main())
