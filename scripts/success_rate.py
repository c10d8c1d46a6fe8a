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
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import tyro
from rich.console import Console
from rich.table import Table

import nbflow as nf
from nbflow import plot, statistics
from nbflow.experiments.console import (
    Found as Something,
    begin,
    begun,
    check_numbers,
    document,
    executor_of,
    headed,
    keep,
    tell,
)
from nbflow.experiments.experiment import key_of
from nbflow.experiments.methods import TITLES, cures, omega
from nbflow.storage.compact import clipped_of, unpacked

Method = Literal["sgd", "clip", "clip+omega", "omega"]
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

    @property
    def store(self) -> Path:
        return self.out / f"{self.name}.jsonl"


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
            **cures(method, clip=nf.Clip("norm", options.threshold), flow=omega("squared", options.alpha)),
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


def count(rows: Sequence[dict[str, Any]]) -> list[Cell]:
    """Return how many runs of each combination solved the task; what has no run yet is left out."""
    found: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["init"], method_of(row), row["recipe.lengths"]), []).append(row)
    return [
        Cell(*place, sum(row.get("first_passage") is not None for row in rows), len(rows),
             sum(row["failure"] is not None for row in rows))
        for place, rows in found.items()
    ]  # fmt: skip


def clipped(rows: Sequence[dict[str, Any]]) -> dict[tuple[str, str, int], float]:
    """Return in which part of its updates the clip of each combination acted, a mean over runs whose lines say it."""
    found: dict[tuple[str, str, int], list[float]] = {}
    for row in rows:
        part = clipped_of(row)
        if part is not None:
            found.setdefault((row["init"], method_of(row), row["recipe.lengths"]), []).append(part)
    return {place: sum(parts) / len(parts) for place, parts in found.items()}


def table(options: Options, cells: Sequence[Cell]) -> Table:
    """Return the table of successes and intervals, in percent."""
    title = (f"Solved within {options.updates:,} updates, of all runs, and {100 * options.confidence:g} % intervals "
             f"in %")  # fmt: skip
    found = headed(title, "first weights", "method", *(f"L = {length}" for length in options.lengths))
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
    title = f"{options.task.replace('_', ' ').capitalize()}: how often is it learnt?"
    size = 1.2 + 3.6 * max(len(options.inits), 2), 3.9
    with plot.page(title, about(options), size, dpi=150, wspace=0.05) as found:
        line = found.subplots(1, len(options.inits), sharey=True, squeeze=False)[0]
        for axes, init in zip(line, options.inits, strict=True):
            for k, method in enumerate(options.methods):
                mine = sorted((c for c in cells if c[:2] == (init, method)), key=lambda c: c.length)
                _draw(axes, options, mine, k)
            axes.set_title(init, fontweight="bold", fontsize=11)
            axes.set_xlabel("length L (steps)")
            axes.set_xticks(options.lengths)
        line[0].set_ylabel("runs that solved it (%)")
        plot.legend_below(line[0])
    return found


def _draw(axes: Any, options: Options, cells: Sequence[Cell], k: int) -> None:
    """Draw one method; beside the others, so that intervals do not hide each other."""
    gaps = [b - a for a, b in itertools.pairwise(sorted(set(options.lengths)))] or [10]
    x = [c.length + 0.11 * min(gaps) * (k - (len(options.methods) - 1) / 2) for c in cells]
    plot.success(
        x, [c.solved for c in cells], [c.runs for c in cells], confidence=options.confidence, colour=plot.COLOURS[k],
        marker=MARKS[k], label=TITLES[options.methods[k]], ax=axes,
    )  # fmt: skip
    axes.set_ylabel("")


def about(options: Options) -> str:
    """Say what was trained, and what it was not."""
    return (
        f"{options.seeds} runs a point, at most {options.updates:,} updates each (the paper: 5,000,000); "
        f"{options.hidden} units, batches of {options.batch_size}, learning rate {options.lr:g}, "
        f"threshold {options.threshold:g}, alpha {options.alpha:g}. "
        f"Solved: under {100 * options.solved_below:g} % of {options.evaluate_size:,} fresh sequences wrong. "
        f"Bars: Wilson intervals, {100 * options.confidence:g} %."
    )


@dataclass
class Found(Something):
    """The runs that are done, and how many are not."""

    runs: Sequence[dict[str, Any]] = field(default_factory=list)
    missing: int = 0


def report(options: Options, found: Found, console: Console) -> list[Path]:
    """Print the table, write the JSON and draw the picture; the runs themselves are in the store."""
    cells = count(found.runs)
    console.print(table(options, cells))
    acted = clipped(found.runs)
    for (init, method, length), part in acted.items():
        tell(console, f"{init}, {TITLES[method]}, L = {length}: the clip acted on {100 * part:.1f} % of the updates")
    for row in [row for row in found.runs if row["failure"] is not None][:3]:
        tell(console, f"failed: {row['init']}, {method_of(row)}: {row['failure']}")
    rows = [
        cell._asdict()
        | {
            "rate": statistics.success_rate(*cell[3:5], confidence=options.confidence)._asdict(),
            "clipped": acted.get(cell[:3]),
        }
        for cell in cells
    ]
    numbers = document(options, updates=options.updates, missing=found.missing, cells=rows)
    return keep(console, options.out / options.name, numbers, {"": picture(options, cells)})


def check(options: Options) -> None:
    """Refuse what would end in nonsense, or in runs that all fail; the rest is refused by nbflow."""
    if not (options.inits and options.methods and options.lengths):
        raise ValueError("lengths, inits or methods is empty; expected at least one of each. Leave it out.")
    for name in options.inits:
        if name not in nf.names("inits"):
            raise ValueError(f"inits has '{name}'; expected some of {', '.join(nf.names('inits'))}. Choose of these.")
    check_numbers(options, positive="budget threshold lr solved_below", part="confidence", least_0="alpha",
                  least_1="seeds hidden batch_size evaluate_size")  # fmt: skip


def check_lengths(options: Options) -> None:
    """Refuse lengths in the task's own words, which compiles what draws its sequences."""
    for length in options.lengths:
        nf.load_task(options.task).sample(seed=0, index=0, batch_size=1, length=length)


def check_code(options: Options, every: Sequence[nf.Experiment]) -> None:
    """Refuse to train what another version of the code is said to have trained."""
    if options.code is None:
        return
    there = nf.Store(options.store).read()
    wanted = [key_of(one, seed, options.code) for one in every for seed in range(options.seeds)]
    missing = sum(key not in there for key in wanted)
    if missing:
        raise ValueError(
            f"code is '{options.code}', and the store lacks {missing:,} of its {len(wanted):,} runs; expected a "
            f"version whose runs are all there. Leave it out to train."
        )


def work(options: Options, console: Console, found: Found) -> None:
    """Train every combination with every seed."""
    check(options)
    begun(console)
    check_lengths(options)
    every = list(experiments(options).values())
    store = unpacked(options.store)
    check_code(options, every)
    swept = nf.sweep(every, options.seeds, store, executor=executor_of(options.executor), code=options.code)
    found.runs, found.missing = swept.runs, swept.missing
    if swept.interrupted:
        raise KeyboardInterrupt(f"{swept.missing:,} runs are missing")


def main(arguments: Sequence[str] | None = None) -> int:
    options = tyro.cli(Options, args=arguments, description=__doc__)
    return begin(work, report, options, Found(), store=options.store)


if __name__ == "__main__":
    sys.exit(main())
