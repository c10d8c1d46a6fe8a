"""How long may sequences be that a network still learns? Clipping, Omega, gates; and figure 7 of Pascanu et al. (2013).

Temporal order asks which of two symbols came first, over 50 to 250 steps. Every arm has its learning rate tuned for
every length, by seeds that are not reported: budgets of 2,000, 4,000, 8,000 and 30,000 updates are given out one after
another until a setting has two of three seeds solved, which then has the least median; where that one stands at an end
of what was tried, one more beyond it is tried. Then fresh seeds are trained until they are solved, or the budget of the
stage ends. Two designs (scripts/reach_design.py, docs/methods.md): "span", with and without Omega and clipping, and
other kinds of networks; "figure_7", two kinds of first weights at the paper's learning rate and at the tuned one. What
both ask for is trained once.

Runs are made stage by stage, seed by seed, lengths ascending, arms side by side: whenever it ends, arms have as many
seeds. Later stages have more seeds, and larger budgets with which unsolved runs go on. Every run is kept in the store
when it is done. Ctrl-C and the same command go on where it was, also with later code: a line says which made it.

Usage: python scripts/reach.py --design span
       python scripts/reach.py --design figure_7
       python scripts/reach.py --design span --stages 12     (all of it)
       python scripts/reach.py --design span --report-only   (tables and pictures from the store, no training)
       python scripts/reach.py --design span --costs         (what each stage takes at most, here)
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import reach_costs as costs
import reach_design as designs
import reach_report as reporting
import tyro
from reach_design import Arm, Design, Setting, Stage
from reach_runs import Known, Place, learn, training
from reach_tuning import Choice, chosen
from rich.console import Console

from nbflow.experiments.console import Found as Something, begin, begun, check_numbers, document, keep, tell
from nbflow.experiments.jobs import alone, run_all
from nbflow.storage.compact import unpacked
from nbflow.storage.store import Row, Store


@dataclass(frozen=True)
class Options:
    """What is trained, how far, and where the results go."""

    design: Literal["span", "figure_7"] = "span"
    """Which question."""
    stages: int = 0
    """How many stages of the design are made; 0 for its first part, of about two core-hours."""
    arms: tuple[str, ...] = ()
    """Only these arms of the design; all by default."""
    lengths: tuple[int, ...] = ()
    """Only these lengths of the design, in steps; all by default."""
    seeds: int = 20
    """Most seeds of an arm."""
    budget: float = 1.0
    """By what all budgets are multiplied."""
    hidden: int = designs.HIDDEN
    """H, hidden units of a network."""
    workers: int | None = None
    """Local processes, by default one for each core."""
    report_only: bool = False
    """Make tables and pictures from what is in the store, and train nothing."""
    costs: bool = False
    """Time the arms here for some seconds each, say what each stage takes at most, and train nothing."""
    out: Path = Path("results")
    """The folder for store, pictures and JSON."""
    name: str = "reach"
    """How these files are called; pictures and JSON have the design behind it."""

    @property
    def store(self) -> Store:
        return Store(unpacked(self.out / f"{self.name}.jsonl"))

    @property
    def asked(self) -> Design:
        """The design, as far as it is asked for."""
        whole = designs.DESIGNS[self.design]
        stages = []
        for stage in whole.stages[: self.stages or whole.first]:
            arms = tuple(arm for arm in stage.arms if arm in self.arms or not self.arms)
            lengths = tuple(length for length in stage.lengths if length in self.lengths or not self.lengths)
            seeds = range(stage.seeds.start, min(stage.seeds.stop, self.seeds))
            if arms and lengths and seeds:
                stages.append(replace(stage, arms=arms, lengths=lengths, seeds=seeds,
                                      updates=self.updates(stage.updates)))  # fmt: skip
        return replace(whole, stages=tuple(stages))

    def updates(self, whole: int) -> int:
        """Return a budget in updates."""
        return max(round(whole * self.budget), 1)

    @property
    def tuning(self) -> tuple[int, ...]:
        """The budgets of tuning, ascending."""
        return tuple(self.updates(whole) for whole in designs.TUNING)

    def chosen(self, known: Known, arm: Arm, length: int) -> Choice:
        """Return what tuning says."""
        return chosen(known, arm, length, self.tuning, self.updates(designs.FAR_TUNING))


def tune(options: Options, stage: Stage, run: Any) -> None:
    """Race the settings of every arm and length until each has one."""
    arms = options.asked.arms
    while True:
        known = Known(options.store.read().values(), options.hidden)
        choices = {cell: options.chosen(known, *cell) for cell in stage.cells(arms)}
        least = min((one.best for one in choices.values() if isinstance(one.best, int)), default=None)
        if least is None:
            return
        places = [(Place(*cell, setting, seed), least) for cell, one in choices.items() if one.best == least
                  for seed in designs.TUNING_SEEDS for setting in one.tried]  # fmt: skip
        run(known, f"{stage.family}: tuning, {least:,} updates", places)


@dataclass
class Found(Something):
    """What the runs came to; nothing until one arm has two seeds at some length."""

    outcomes: list[reporting.Outcome] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)


def check(options: Options) -> None:
    """Refuse what would end in nonsense; the rest is refused by nbflow."""
    check_numbers(options, positive="budget", least_1="seeds hidden", least_0="stages")
    whole = designs.DESIGNS[options.design]
    if options.stages > len(whole.stages):
        raise ValueError(f"stages is {options.stages}; expected at most the {len(whole.stages)} of the design.")
    lengths = {length for stage in whole.stages for length in stage.lengths}
    for name, given, known in (("arms", options.arms, whole.arms), ("lengths", options.lengths, sorted(lengths))):
        for one in given:
            if one not in known:
                raise ValueError(f"{name} has {str(one)[:40]!r}; expected some of {', '.join(map(str, known))}.")
    if not options.asked.stages:
        raise ValueError("arms, lengths and stages leave nothing to train; expected some that go together.")
    if options.report_only and not options.store.path.exists():
        raise ValueError(f"report_only asks for {options.store.path}, which is not there. Leave it out to train.")


def work(options: Options, console: Console, found: Found, executor: Executor | None = None) -> None:
    """Tune and train stage by stage, or go on with it."""
    check(options)
    try:
        if not options.report_only:
            begun(console)
            train(options, console, executor)
    finally:
        gather(options, list(options.store.read().values()), found)


def train(options: Options, console: Console, executor: Executor | None) -> None:
    """Make every run that is missing."""
    store = options.store

    def run(known: Known, words: str, places: Sequence[tuple[Place, int]]) -> None:
        jobs = [training(store, options.hidden, words, place, updates) for place, updates in places
                if known.of(place, updates) is None]  # fmt: skip
        tell(console, f"{words}: {len(jobs)} of {len(places)} runs to make")
        run_all(learn, jobs, store, console, executor, options.workers)

    for number, stage in enumerate(options.asked.stages, 1):
        tune(options, stage, run)
        known = Known(store.read().values(), options.hidden)
        places = [(Place(arm, length, setting, seed), stage.updates) for seed in stage.seeds
                  for arm, length in stage.cells(options.asked.arms)
                  if isinstance(setting := options.chosen(known, arm, length).best, Setting)]  # fmt: skip
        run(known, f"stage {number}, {stage.family}, seeds {stage.seeds.start} to {stage.seeds.stop - 1}", places)


def gather(options: Options, rows: Sequence[Row], found: Found) -> None:
    """Put into `found` what the lines of a store say of a design: of each family the seeds that all of its arms have.

    The budget of a length is the largest one that all of these seeds had in all of these arms; where all runs are
    solved, the smallest one within which they are.
    """
    known = Known(rows, options.hidden)
    whole = replace(options, stages=len(designs.DESIGNS[options.design].stages)).asked
    for family, stages in whole.families().items():
        budgets = sorted({stage.updates for stage in stages})
        most = max(stage.seeds.stop for stage in stages)
        for length in sorted({length for stage in stages for length in stage.lengths}):
            names = dict.fromkeys(name for stage in stages if length in stage.lengths for name in stage.arms)
            choices = {name: options.chosen(known, whole.arms[name], length) for name in names}
            places = {name: [Place(whole.arms[name], length, one.best, seed) for seed in range(most)]
                      for name, one in choices.items() if isinstance(one.best, Setting)}  # fmt: skip
            if len(places) == len(names):
                notes = {name: one.note for name, one in choices.items()}
                _gather_cell(known, family, length, places, notes, budgets, found)


def _gather_cell(known: Known, family: str, length: int, places: dict[str, list[Place]], notes: dict[str, str],
                 budgets: Sequence[int], found: Found) -> None:  # fmt: skip
    def there(seed: int, updates: int) -> bool:
        return all(known.of(some[seed], updates) is not None for some in places.values())

    seeds = [seed for seed in range(len(next(iter(places.values())))) if there(seed, budgets[0])]
    if not seeds:
        return
    updates = max(updates for updates in budgets if all(there(seed, updates) for seed in seeds))
    last = [row["passage"] for some in places.values() for seed in seeds if (row := known.of(some[seed], updates))]
    if None not in last:
        updates = min(budget for budget in budgets if budget >= max(last))
    for name, some in places.items():
        rows = [known.of(some[seed], updates) for seed in seeds]
        passages = tuple(row["passage"] if row else None for row in rows)
        acted = [row["clipped"] for row in rows if row and row["clipped"] is not None]
        found.outcomes.append(reporting.Outcome(
            family, name, length, some[0].setting, notes[name], tuple(seeds), updates, passages,
            float(np.mean(acted)) if acted else None,
        ))  # fmt: skip
        found.rows += [row for row in rows if row]


def report(options: Options, found: Found, console: Console) -> list[Path]:
    """Print the tables, write the JSON and draw the pictures; the runs themselves are in the store."""
    asked = designs.DESIGNS[options.design]
    for table in reporting.tables(asked, found.outcomes):
        console.print(table)
    tell(console, reporting.said_of(options.design, asked, found.outcomes))
    numbers = document(
        options, outcomes=[{**one._asdict(), "setting": str(one.setting)} for one in found.outcomes],
        tests=[one._asdict() for one in reporting.tested(asked, found.outcomes)],
        verdict=reporting.said_of(options.design, asked, found.outcomes),
        seconds=sum(row["seconds"] for row in found.rows),
    )  # fmt: skip
    for name in ("stages", "costs"):  # a picture of more stages takes the place of the one of fewer
        del numbers["options"][name]
    pictures = reporting.pictures(options.design, asked, found.outcomes)
    return keep(console, options.out / f"{options.name}_{options.design}", numbers, pictures)


# What it costs.


def time_arms(options: Options, console: Console, found: dict[str, Any], executor: Executor | None = None) -> None:
    """Time an update of every arm and length, and say how many core-hours each stage takes where no run is solved."""
    check(options)
    begun(console)
    cells = costs.cells_of(options.asked)
    timed = alone(costs.timed, cells, options.hidden) if executor is None else costs.timed(cells, options.hidden)
    found |= {"seconds": timed, "stages": costs.costs_of(options.asked, timed, options.tuning[-1])}


def report_costs(options: Options, found: dict[str, Any], console: Console) -> list[Path]:
    """Print what was timed as two tables, and write it."""
    seconds, stages = found["seconds"], found["stages"]
    for table in costs.tables(seconds, stages):
        console.print(table)
    said = [{"arm": arm.name, "length": length, "seconds": one} for (arm, length), one in seconds.items()]
    numbers = document(options, seconds=said, stages=[one._asdict() for one in stages])
    return keep(console, options.out / f"{options.name}_{options.design}_costs", numbers, {})


def main(arguments: Sequence[str] | None = None, executor: Executor | None = None) -> int:
    options = tyro.cli(Options, args=arguments, description=__doc__)
    if options.costs:
        return begin(functools.partial(time_arms, executor=executor), report_costs, options, {})
    return begin(functools.partial(work, executor=executor), report, options, Found(),
                 store=options.out / f"{options.name}.jsonl")  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
