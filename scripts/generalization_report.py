"""What scripts/generalization.py says of its runs: a table and a picture, from the lines of its store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from rich.table import Table

import nbflow as nf
from nbflow import plot, statistics
from nbflow.experiments.console import headed
from nbflow.storage.store import Row


class Point(NamedTuple):
    """A network at a length."""

    seed: int
    length: int
    wrong: int
    size: int


def points_of(rows: Sequence[Row]) -> list[Point]:
    found = [Point(row["seed"], row["length"], row["wrong"], row["size"]) for row in rows]
    return sorted(found)


def state(row: Row) -> str:
    """Say what became of a seed."""
    if row["solved"]:
        return f"learnt after {row['updates']:,} updates"
    return f"NOT learnt in {row['updates']:,} updates ({row['passed']} of {len(row['stages'])} stages)"


def table(options: Any, trained: Sequence[Row], points: Sequence[Point]) -> Table:
    """Return the table of errors and intervals, in percent."""
    trivial = nf.load_task(options.task).trivial
    heads = [f"seed {row['seed']}\n{state(row)}" for row in trained] + ["guessing"] * (trivial is not None)
    found = headed(f"Wrong of {options.size:,} fresh sequences, and {100 * options.confidence:g} % intervals in %",
                   "length", *heads)  # fmt: skip
    by_place = {point[:2]: point for point in points}
    for length in options.lengths:
        here = [by_place.get((row["seed"], length)) for row in trained]
        guess = [f"{100 * trivial(length).score:g} %"] if trivial is not None else []
        found.add_row(f"{length:,}", *(words(options, point) for point in here), *guess)
    return found


def words(options: Any, point: Point | None) -> str:
    if point is None:
        return "-"
    rate = statistics.success_rate(point.wrong, point.size, confidence=options.confidence)
    return f"{point.wrong:,} ({100 * rate.low:.2f} to {100 * rate.high:.2f})"


def picture(options: Any, trained: Sequence[Row], points: Sequence[Point]) -> Any:
    """Draw error against length, both logarithmic above their smallest values; a colour for each network."""
    from matplotlib.ticker import NullLocator

    least = 100 / options.size  # one sequence, in %
    title = f"{options.task.replace('_', ' ').capitalize()}: learnt on short sequences, asked for long ones"
    with plot.page(title, about(options), (9.0, 4.2), dpi=150) as found:
        axes = found.subplots()
        for k, row in enumerate(trained):
            mine = [point for point in points if point.seed == row["seed"]]
            draw(axes, options, mine, k, f"seed {row['seed']}: {state(row)}")
        chance = nf.load_task(options.task).trivial
        if chance is not None:
            axes.plot(options.lengths, [100 * chance(length).score for length in options.lengths], color=plot.INK,
                      linewidth=0.9, linestyle=(0, (4, 3)), label="guessing")  # fmt: skip
        if options.task == "temporal_order":
            axes.plot(options.lengths, [0.0] * len(options.lengths), "x", color=plot.INK, markersize=5, clip_on=False,
                      label="published: one model, no error (Pascanu et al. 2013)")  # fmt: skip
        axes.axvspan(options.shortest, max(options.stages), color=plot.COLOURS[2], alpha=0.13, linewidth=0)
        axes.text(options.shortest, 1.01, "trained here", transform=axes.get_xaxis_transform(), fontsize=9,
                  va="bottom", color=plot.FAINT)  # fmt: skip
        axes.set_xscale("log")
        ticks = sorted({50, 100, 200, 500, 1000, 2000, 5000} & set(options.lengths)) or sorted(options.lengths)
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_yscale("symlog", linthresh=least, linscale=0.5)
        decades = [0.0, *(tick for tick in (0.01, 0.1, 1.0, 10.0, 100.0) if tick >= least)]
        axes.set_yticks(decades, [f"{tick:g}" for tick in decades])
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_ylim(-0.2 * least, 130)
        axes.set_xlabel("length of a sequence (steps)")
        axes.set_ylabel(f"wrong, of {options.size:,} (%)")
        plot.legend_below(axes, columns=2)
    return found


def draw(axes: Any, options: Any, points: Sequence[Point], k: int, title: str) -> None:
    """Draw a network, a little beside the others, so that intervals do not hide each other."""
    x = [point.length * 1.025 ** (k - 1) for point in points]
    wrong, sizes = [point.wrong for point in points], [point.size for point in points]
    colour, mark = plot.COLOURS[k % len(plot.COLOURS)], "os^Dv<"[k % 6]
    plot.success(x, wrong, sizes, confidence=options.confidence, colour=colour, marker=mark, label=title,
                 clip_on=False, ax=axes)  # fmt: skip


def about(options: Any) -> str:
    """Say in two lines what was trained, and how it was measured."""
    tops = " to ".join([f"{options.shortest}", f"{max(options.stages)}"])
    grown = f"; the longest grew: {', '.join(map(str, options.stages))}" if len(options.stages) > 1 else ""
    return (
        f"{options.hidden} tanh units ({options.init}), SGD, clipping, Omega; trained on {tops} steps{grown}.\n"
        f"A network each line. Bars: Wilson intervals, {100 * options.confidence:g} %; below {100 / options.size:g} % "
        f"the axis is linear."
    )
