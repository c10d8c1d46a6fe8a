"""Measure how many networks train side by side, and how fast: updates a second against R, on CPU and GPU.

A population of R networks, each with its own weights and sequences, is trained on temporal order: sampling, gradient,
joint clip and SGD are all counted. An update of R networks counts R times. Then one network is trained in several
sizes. Where PyTorch sees a GPU it is measured too, on data that are there already: cuDNN for one network, and products
batched over networks for more, with TF32 off and on. Without a GPU the script says so and measures the CPU. At the end
there are two tables, a picture, and every number and setting as JSON. Ctrl-C ends early and keeps what was done.

Usage: python scripts/bench/gpu_population.py --replicas 1 10 100 1000
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import tyro
from population_sides import Entrant, Side, entrants
from rich.console import Console
from rich.table import Table

from nbflow import plot
from nbflow.experiments.console import (
    Found as Something,
    begin,
    begun,
    check_numbers,
    document,
    headed,
    keep,
    tell,
)


@dataclass(frozen=True)
class Options:
    """What is trained, how large populations are, and where the results go."""

    replicas: tuple[int, ...] = (1, 3, 10, 30, 100, 300, 1000)
    """R, the numbers of networks to measure."""
    length: int = 100
    """T, steps of a sequence."""
    batch_size: int = 20
    """B, sequences in an update."""
    hidden: int = 50
    """H, hidden units of a network."""
    sizes: tuple[tuple[int, int, int], ...] = (
        (100, 20, 50),
        (200, 20, 50),
        (200, 20, 100),
        (1000, 32, 200),
        (100, 64, 512),
    )
    """T, B, H in which one network is measured, three numbers each."""
    cell: str = "tanh"
    """The recurrent cell; PyTorch is only measured for tanh."""
    seconds: float = 2.0
    """About how long each point is measured, after a first run that compiles."""
    peers: bool = True
    """Whether to measure PyTorch where it sees a GPU."""
    out: Path = Path("results")
    """The folder for the picture and the JSON."""
    name: str = "gpu_population"
    """How these two files are called."""


@dataclass
class Line:
    """What one side did: network updates a second for each R."""

    title: str
    replicas: list[int] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    stopped: str = ""  #: why it went no further


@dataclass
class Cell:
    """What one network took in one size."""

    title: str
    size: tuple[int, int, int]
    milliseconds: float  #: of an update


# Measuring.


def rate(side: Side, replicas: int, seconds: float) -> float:
    """Return network updates a second, from a run that takes about so many seconds."""
    updates = 1
    while True:
        took = side(replicas, updates)
        if took >= 0.3 * seconds or updates >= 1_000_000:
            return replicas * updates / took
        # Twice the time of the measured half, since the first half warms up; at most tenfold, in case it was a hiccup.
        updates = int(min(10 * updates, max(2 * updates, updates * 0.5 * seconds / max(took, 1e-9))))


@dataclass
class Found(Something):
    """What was measured: populations, and one network in every size."""

    lines: list[Line] = field(default_factory=list)
    cells: list[Cell] = field(default_factory=list)

    def __bool__(self) -> bool:
        return any(line.replicas for line in self.lines)


def work(options: Options, console: Console, found: Found) -> None:
    """Measure every entrant, first populations, then one network in every size."""
    numbers = [*options.replicas, *(number for size in options.sizes for number in size)]
    if not options.replicas or min(numbers) < 1:
        raise ValueError("replicas or sizes has none, or one below 1; expected numbers above 0. Give 1 10, say.")
    check_numbers(options, positive="seconds")
    begun(console)
    every = list(entrants(options, console))
    for entrant in every:
        found.lines.append(line := Line(entrant.title))
        measure_populations(options, console, entrant, line)
    for size in options.sizes:
        for entrant in (one for one in every if one.alone):
            measure_one(options, console, entrant, size, found.cells)


def measure_populations(options: Options, console: Console, entrant: Entrant, line: Line) -> None:
    """Measure an entrant with more and more networks, until it has no memory left."""
    side = entrant.make(options)
    for R in (R for R in options.replicas if entrant.most is None or entrant.most >= R):
        with console.status(f"{entrant.title}: {R} networks"):
            try:
                found = rate(side, R, options.seconds)
            except MemoryError as error:
                line.stopped = str(error)
                return
        line.replicas.append(R)
        line.rates.append(found)
        tell(console, f"{entrant.title}: {R:,} networks, {found:,.0f} network updates/s")


def measure_one(
    options: Options, console: Console, entrant: Entrant, size: tuple[int, int, int], cells: list[Cell]
) -> None:
    """Measure an entrant with one network of a size, if it has room for it."""
    T, B, H = size
    with console.status(f"{entrant.title}: T={T}, B={B}, H={H}"):
        try:
            found = rate(entrant.make(replace(options, length=T, batch_size=B, hidden=H)), 1, options.seconds)
        except MemoryError as error:
            tell(console, f"{entrant.title}, T={T}, B={B}, H={H}: {error}")
            return
    cells.append(Cell(entrant.title, size, 1000 / found))
    tell(console, f"{entrant.title}: T={T}, B={B}, H={H}, {1000 / found:.3g} ms an update")


# What is seen at the end.


def about(options: Options) -> str:
    """Say in a line what is trained."""
    return (
        f"temporal order, T={options.length}, B={options.batch_size}, {options.hidden} {options.cell} units, float32; "
        f"gradient, joint clip and SGD"
    )


def table(lines: Sequence[Line]) -> Table:
    """Return the table: network updates a second, a row for each R."""
    found = headed("Network updates a second", "networks", *(line.title for line in lines))
    for R in sorted({R for line in lines for R in line.replicas}):
        rates = [dict(zip(line.replicas, line.rates, strict=True)).get(R) for line in lines]
        found.add_row(f"{R:,}", *("-" if one is None else f"{one:,.0f}" for one in rates))
    return found


def table_of_sizes(cells: Sequence[Cell]) -> Table:
    """Return the table: milliseconds of an update of one network, a row for each size."""
    titles = list(dict.fromkeys(cell.title for cell in cells))
    found = headed("", "T, B, H", *titles)
    for size in dict.fromkeys(cell.size for cell in cells):
        took = {cell.title: cell.milliseconds for cell in cells if cell.size == size}
        found.add_row(", ".join(map(str, size)), *(f"{took[title]:.3g}" if title in took else "-" for title in titles))
    return found


def picture(options: Options, lines: Sequence[Line]) -> Any:
    """Draw network updates a second against R, a line for each side."""
    from matplotlib.ticker import NullLocator

    with plot.page("A population of networks", about(options), (7.5, 4.6), dpi=150) as found:
        axes = found.subplots()
        for line, colour, marker in zip(lines, plot.COLOURS, "osD^vP", strict=False):
            axes.plot(line.replicas, line.rates, color=colour, marker=marker, linewidth=2, label=line.title)
        axes.set(xscale="log", yscale="log", xlabel="networks trained side by side, R",
                 ylabel="network updates a second")  # fmt: skip
        rates, replicas = (sorted({x for line in lines for x in getattr(line, name)}) for name in ("rates", "replicas"))
        axes.set_ylim(10 ** math.floor(math.log10(rates[0])), 10 ** (math.floor(math.log10(rates[-1])) + 1))
        axes.set_xticks(replicas, [f"{R:,}" for R in replicas])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter("{x:,.0f}")
        plot.grid(axes)
        plot.legend_below(axes)
    return found


def report(options: Options, found: Found, console: Console) -> list[Path]:
    """Print the tables, write the JSON and draw the picture."""
    lines, cells = [line for line in found.lines if line.replicas], found.cells
    tell(console, about(options))
    console.print(table(lines))
    for line in lines:
        if line.stopped:
            tell(console, f"{line.title} went no further: {line.stopped}")
    if cells:
        tell(console, "One network, milliseconds an update")  # a title would be as narrow as the table
        console.print(table_of_sizes(cells))
    numbers = document(options, lines=list(map(asdict, lines)), sizes=list(map(asdict, cells)))
    return keep(console, options.out / options.name, numbers, {"": picture(options, lines)})


def main(arguments: Sequence[str] | None = None) -> int:
    return begin(work, report, tyro.cli(Options, args=arguments, description=__doc__), Found())


if __name__ == "__main__":
    sys.exit(main())
