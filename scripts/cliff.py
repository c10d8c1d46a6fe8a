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
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tyro
from cliff_pictures import picture
from cliff_surface import Descent, Options, Unit, surface
from rich.console import Console
from rich.table import Table

import nbflow as nf
from nbflow import plot
from nbflow.experiments.console import begin, begun, check_numbers, headed, tell


def check(options: Options) -> None:
    """Refuse what would end in nonsense; the rest is refused by nbflow."""
    check_numbers(options, least_1="steps updates", least_2="grid")
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
    found = headed(
        f"{options.updates} updates from w = {options.start[0]:g}, b = {options.start[1]:g}", "gradient\ndescent",
        "largest\nnorm", "longest\nstep", "smallest\nloss", "last\nloss", "ends at\nw, b",
    )  # fmt: skip
    for name, descent in descents.items():
        w, b = descent.points[-1]
        numbers = (descent.norms.max(), descent.jump_length, descent.losses.min(), descent.losses[-1])
        found.add_row(name, *(f"{number:.2g}" for number in numbers), f"{w:.2f}, {b:.2f}")
    return found


def work(options: Options, console: Console, descents: dict[str, Descent]) -> None:
    """Walk down with and without a clip."""
    check(options)
    begun(console)
    unit = Unit(options)
    with console.status("Descending"):
        # An infinite threshold changes nothing.
        descents["plain"] = unit.descend(nf.Clip("norm", math.inf, nonfinite="keep"))
        descents["clipped"] = unit.descend(nf.Clip("norm", options.threshold))


def report(options: Options, descents: dict[str, Descent], console: Console) -> list[Path]:
    """Print what each did, compute the surface and draw all of it; of one descent alone there is no picture."""
    console.print(table(options, descents))
    if len(descents) < 2:
        return []
    unit, (plain, clipped) = Unit(options), descents.values()
    with console.status("Computing the surface"):
        whole, ravine = surface(unit, options.w, options.b), surface(unit, *near(clipped))
    path = plot.save(picture(options, whole, ravine, plain, clipped), options.out)
    tell(console, f"picture: {path}")
    return [path]


def main(arguments: Sequence[str] | None = None) -> int:
    return begin(work, report, tyro.cli(Options, args=arguments, description=__doc__), {})


if __name__ == "__main__":
    sys.exit(main())
