"""How often a task is learnt, against the length of its sequences: figure 7 of Pascanu, Mikolov, Bengio (2013).

Three kinds of first weights times four methods: plain SGD, SGD with a clipped gradient, clipping with the flow
penalty Omega, and Omega without clipping. Every combination is trained with several seeds; a run counts as a success if
fewer than 1 % of 10,000 fresh sequences are wrong at any evaluation. Rates have Wilson intervals.

The paper gave each run up to 5,000,000 updates. The default here gives 5,000, so that it ends in minutes; it shows
where each method stands after that many, and nothing about who gets there in the end. `--budget 10` gives ten times as
many, `--budget 1000` the paper's.

Every run is kept in the store as soon as it is done. Ctrl-C and the same command go on where it was; more seeds or
lengths add to what is there.

Usage: python scripts/success_rate.py --lengths 20 50 100 --seeds 10 --budget 10
"""

from __future__ import annotations

import itertools
import json
import math
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import tyro
from reporting import begin_with_the_copy, check_positive, console_here, executor_of, machine, plain, refused, write
from rich.console import Console
from rich.table import Table

import nbflow as nf
from nbflow import plot, statistics
from nbflow.experiments.experiment import key_of

Method = Literal["sgd", "clip", "clip+omega", "omega"]
TITLES: dict[str, str] = {"sgd": "plain SGD", "clip": "SGD + clipping", "clip+omega": "SGD + clipping + Omega",
                          "omega": "SGD + Omega"}  # fmt: skip
MARKS = ("o", "s", "^", "D")
# Updates of a run at budget 1, and the parts of them after which its error is measured.
UPDATES, EVALUATIONS = 5_000, 10


@dataclass(frozen=True)
class Options:
    """What is trained, how long, and where the results go."""

    task: str = "temporal_order"
    """The task, by the name of its file in nbflow/tasks."""
    lengths: tuple[int, ...] = (10, 20, 30, 40)
    """L, the steps of a sequence; the gap to bridge grows with it."""
    inits: tuple[str, ...] = ("sigmoid", "basic_tanh", "smart_tanh")
    """First weights, by the names of files in nbflow/inits; the cell is sigmoid for sigmoid, else tanh."""
    methods: tuple[Method, ...] = ("sgd", "clip", "clip+omega", "omega")
    """Which cures to compare: sgd (none), clip, clip+omega, omega (the penalty without clipping)."""
    seeds: int = 5
    """Runs of each combination, each with first weights and sequences of its own."""
    budget: float = 1.0
    """How long a run may take, in units of 5,000 updates."""
    hidden: int = 50
    """H, hidden units of a network."""
    batch_size: int = 20
    """B, sequences in an update."""
    lr: float = 0.01
    """The learning rate."""
    threshold: float = 1.0
    """What the norm of a gradient is clipped to."""
    alpha: float = 2.0
    """The weight of Omega beside the loss; its penalty is (r^2 - 1)^2, the mean over steps and sequences."""
    evaluate_size: int = 10_000
    """Fresh sequences in a measurement of the error."""
    solved_below: float = 0.01
    """The error below which a run is a success."""
    confidence: float = 0.95
    """Of the intervals."""
    executor: str = "local"
    """Where it runs: local (a process for each core), or dask://HOST:PORT, whose workers must share this disk."""
    code: str | None = None
    """Which runs of the store count, by the name in their lines under "code"; by default those of this code."""
    out: Path = Path("results")
    """The folder for store, picture and JSON."""
    name: str = "success_rate"
    """How these files are called."""

    @property
    def updates(self) -> int:
        """Most updates of a run."""
        return max(round(UPDATES * self.budget), EVALUATIONS)


class Cell(NamedTuple):
    """One combination: how many of its runs solved the task."""

    init: str
    method: str
    length: int
    solved: int
    runs: int
    failed: int


def experiments(options: Options) -> dict[tuple[str, str, int], nf.Experiment]:
    """Return every combination of first weights, method and length."""
    found: dict[tuple[str, str, int], nf.Experiment] = {}
    for init, method, length in itertools.product(options.inits, options.methods, options.lengths):
        recipe = nf.Recipe(
            lr=options.lr, batch_size=options.batch_size, lengths=length,
            clip=nf.Clip("norm", options.threshold) if "clip" in method else None,
            flow=nf.Flow("squared", options.alpha, reduction="mean") if "omega" in method else None,
            max_updates=options.updates, record_every=options.updates // EVALUATIONS,
            evaluate_every=options.updates // EVALUATIONS, evaluate_size=options.evaluate_size,
            solved_below=options.solved_below, stop_when_solved=True,
        )  # fmt: skip
        cell = "sigmoid" if init == "sigmoid" else "tanh"
        found[init, method, length] = nf.Experiment(options.task, recipe, cell, options.hidden, init)
    return found


def method_of(row: dict[str, Any]) -> str:
    """Return the method of a line of the store."""
    cures = {"clip": "recipe.clip.rule", "omega": "recipe.flow.penalty"}
    return "+".join(cure for cure, field in cures.items() if field in row) or "sgd"


def count(swept: nf.Swept) -> list[Cell]:
    """Return how many runs of each combination solved the task; what has no run yet is left out."""
    found: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for row in swept.runs:
        found.setdefault((row["init"], method_of(row), row["recipe.lengths"]), []).append(row)
    return [
        Cell(*place, sum(row.get("first_passage") is not None for row in rows), len(rows),
             sum(row["failure"] is not None for row in rows))
        for place, rows in found.items()
    ]  # fmt: skip


def table(options: Options, cells: Sequence[Cell]) -> Table:
    """Return the table of successes and intervals, in percent."""
    found = Table("first weights", "method", title=f"Solved within {options.updates:,} updates, of all runs, and "
                  f"{100 * options.confidence:g} % intervals in %", title_justify="left")  # fmt: skip
    for length in options.lengths:
        found.add_column(f"L = {length}", justify="right")
    by_place = {cell[:3]: cell for cell in cells}
    for init, method in itertools.product(options.inits, options.methods):
        row = [by_place.get((init, method, length)) for length in options.lengths]
        found.add_row(init, TITLES[method], *(words(options, cell) for cell in row))
    trivial = nf.load_task(options.task).trivial
    if trivial is not None:
        found.add_section()
        found.add_row("guessing", "error", *(f"{100 * trivial(length).score:.3g} %" for length in options.lengths))
    return found


def words(options: Options, cell: Cell | None) -> str:
    if cell is None:
        return "-"
    rate = statistics.success_rate(cell.solved, cell.runs, confidence=options.confidence)
    failed = f", {cell.failed} failed" if cell.failed else ""
    return f"{cell.solved} of {cell.runs} ({100 * rate.low:.0f} to {100 * rate.high:.0f}){failed}"


def picture(options: Options, cells: Sequence[Cell]) -> Any:
    """Draw success against length, first weights side by side, a colour and a mark for each method."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    width, height = 1.2 + 3.6 * max(len(options.inits), 2), plot.HEAD + 3.9
    with rc_context(plot.STYLE):
        layout = ConstrainedLayoutEngine(rect=(0, 0, 1, 1 - plot.HEAD / height), h_pad=0.08, wspace=0.05)
        found = Figure(figsize=(width, height), dpi=150, layout=layout)
        found.text(0.1 / width, 1 - 0.1 / height, f"{options.task.replace('_', ' ').capitalize()}: how often is it "
                   f"learnt?", fontsize=15, fontweight="bold", va="top")  # fmt: skip
        words = textwrap.fill(about(options), int(13 * width))
        found.text(0.1 / width, 1 - 0.42 / height, words, fontsize=10, color=plot.FAINT, va="top",
                   linespacing=1.4)  # fmt: skip
        line = found.subplots(1, len(options.inits), sharey=True, squeeze=False)[0]
        for axes, init in zip(line, options.inits, strict=True):
            for k, method in enumerate(options.methods):
                mine = sorted((c for c in cells if c[:2] == (init, method)), key=lambda c: c.length)
                _draw(axes, options, mine, k)
            axes.set_title(init, fontweight="bold", fontsize=11)
            axes.set_xlabel("length L (steps)")
            axes.set_xticks(options.lengths)
            axes.set_ylim(-4, 104)
            axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
            axes.set_axisbelow(True)
        line[0].set_ylabel("runs that solved it (%)")
        handles, labels = line[0].get_legend_handles_labels()
        found.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    return found


def _draw(axes: Any, options: Options, cells: Sequence[Cell], k: int) -> None:
    """Draw one method; beside the others, so that intervals do not hide each other."""
    title = TITLES[options.methods[k]]
    if not cells:
        axes.errorbar([], [], color=plot.COLOURS[k], marker=MARKS[k], label=title)
        return
    gaps = [b - a for a, b in itertools.pairwise(sorted(set(options.lengths)))] or [10]
    x = [c.length + 0.11 * min(gaps) * (k - (len(options.methods) - 1) / 2) for c in cells]
    rates = [statistics.success_rate(c.solved, c.runs, confidence=options.confidence) for c in cells]
    ends = [[100 * (r.value - r.low) for r in rates], [100 * (r.high - r.value) for r in rates]]
    axes.errorbar(x, [100 * r.value for r in rates], yerr=ends, color=plot.COLOURS[k], marker=MARKS[k], markersize=6,
                  linewidth=1.6, elinewidth=1.1, capsize=3, label=title)  # fmt: skip


def about(options: Options) -> str:
    """Say what was trained, and what it was not."""
    return (
        f"{options.seeds} runs a point, at most {options.updates:,} updates each (the paper: 5,000,000); "
        f"{options.hidden} units, batches of {options.batch_size}, learning rate {options.lr:g}, "
        f"threshold {options.threshold:g}, alpha {options.alpha:g}. "
        f"Solved: under {100 * options.solved_below:g} % of {options.evaluate_size:,} fresh sequences wrong. "
        f"Bars: Wilson intervals, {100 * options.confidence:g} %."
    )


def document(options: Options, cells: Sequence[Cell], swept: nf.Swept) -> dict[str, Any]:
    """Return every setting and every rate as JSON takes it; the runs themselves are in the store."""
    rows = [
        cell._asdict() | {"rate": statistics.success_rate(*cell[3:5], confidence=options.confidence)._asdict()}
        for cell in cells
    ]
    found = {"options": asdict(options), "updates": options.updates, "machine": machine(), "missing": swept.missing,
             "cells": rows}  # fmt: skip
    return {key: plain(value) for key, value in found.items()}


def report(options: Options, swept: nf.Swept, console: Console) -> None:
    """Print the table, write the JSON and draw the picture."""
    if swept.interrupted:
        said = f"Stopped early; {swept.missing} runs are missing. The same command goes on."
        console.print(said, style="bold yellow")
    if not swept.runs:
        return
    cells = count(swept)
    console.print(table(options, cells))
    for row in swept.failed[:3]:
        console.print(f"failed: {row['init']}, {method_of(row)}: {row['failure']}", soft_wrap=True, highlight=False)
    text = json.dumps(document(options, cells, swept), allow_nan=False)
    console.print(f"numbers: {write(options.out / f'{options.name}.json', text)}", soft_wrap=True, highlight=False)
    path = plot.save(picture(options, cells), options.out / f"{options.name}.png")
    console.print(f"picture: {path}", soft_wrap=True, highlight=False)


def check(options: Options) -> None:
    """Refuse what would end in nonsense, or in runs that all fail; the rest is refused by nbflow."""
    if not (options.inits and options.methods and options.lengths):
        raise ValueError("lengths, inits or methods is empty; expected at least one of each. Leave it out.")
    for name in options.inits:
        if name not in nf.names("inits"):
            raise ValueError(f"inits has {name!r}; expected some of {', '.join(nf.names('inits'))}. Choose of these.")
    check_positive(options, "budget", "threshold", "lr", "confidence", "solved_below")
    if options.confidence >= 1:
        raise ValueError(f"confidence is {options.confidence:g}; expected a number below 1. Leave it out.")
    if not (options.alpha >= 0 and math.isfinite(options.alpha)):
        raise ValueError(f"alpha is {options.alpha:g}; expected a number of at least 0. Leave it out.")
    for length in options.lengths:  # which every task refuses in its own way
        nf.load_task(options.task).sample(seed=0, index=0, batch_size=1, length=length)


def check_code(options: Options, every: Sequence[nf.Experiment], store: Path) -> None:
    """Refuse to train what another version of the code is said to have trained."""
    if options.code is None:
        return
    there = nf.Store(store).read()
    wanted = [key_of(one, seed, options.code) for one in every for seed in range(options.seeds)]
    missing = sum(key not in there for key in wanted)
    if missing:
        raise ValueError(
            f"code is {options.code!r}, and the store lacks {missing:,} of its {len(wanted):,} runs; expected a "
            f"version whose runs are all there. Leave it out to train."
        )


def main(arguments: Sequence[str] | None = None) -> int:
    options = tyro.cli(Options, args=arguments, description=__doc__)
    console = console_here()
    try:
        check(options)
        every = list(experiments(options).values())
        store = begin_with_the_copy(options.out / f"{options.name}.jsonl")
        check_code(options, every, store)
        swept = nf.sweep(every, options.seeds, store, executor=executor_of(options.executor), code=options.code)
    except (TypeError, ValueError, OSError) as error:
        return refused(console, error)
    report(options, swept, console)
    return 0


if __name__ == "__main__":
    sys.exit(main())
