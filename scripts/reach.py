"""How long may sequences be that a network still learns? Clipping, Omega, gates; and figure 7 of Pascanu et al. (2013).

Temporal order asks which of two symbols came first, over 50 to 250 steps. Every arm has its learning rate tuned for
every length, by seeds that are not reported: budgets of 2,000, 4,000 and 8,000 updates are given out one after another
until a setting has two of three seeds solved, which then has the least median; where that one stands at an end of what
was tried, one more beyond it is tried. Then fresh seeds are trained until they are solved, or the budget of the stage
ends. Two designs (scripts/reach_design.py, docs/methods.md): "span", with and without Omega and clipping, and other
kinds of networks; "figure_7", two kinds of first weights at the paper's learning rate and at the tuned one. What both
ask for is trained once.

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
import itertools
import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import reach_design as designs
import reach_report as reporting
import tyro
from generalization import hashed, text_of
from reach_design import Arm, Design, Setting, Stage
from rich.console import Console

import nbflow as nf
from nbflow.experiments import machine
from nbflow.experiments.code_version import code_version
from nbflow.experiments.console import Found as Something, begin, begun, check_numbers, document, headed, keep, tell
from nbflow.experiments.jobs import Job, Watch, alone, job, run_all
from nbflow.storage.compact import acted, unpacked
from nbflow.storage.store import Row, Store

# The fresh sequences that a network is measured on in the end are of other seeds than those of its evaluations.
FINAL_SEED = 2**32
# Steps of all sequences in a timing of an update.
TIMED_STEPS = 20_000


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


# Runs.


class Place(NamedTuple):
    """Where a run stands: all that it is but its budget."""

    arm: Arm
    length: int
    setting: Setting
    seed: int

    def way(self, hidden: int) -> str:
        """Return a name for it; of facts alone, so that arms of two designs that are the same share their runs."""
        arm, setting = self.arm, self.setting
        evaluated = [designs.EVALUATE_EVERY, designs.EVALUATE_SIZE, designs.SOLVED]
        return hashed([designs.TASK, arm.cell, arm.init, arm.flow, designs.ALPHA, setting.lr, setting.threshold,
                       self.length, hidden, designs.BATCH, *evaluated, self.seed])  # fmt: skip


class Known:
    """The runs of a store, by what they are."""

    def __init__(self, rows: Iterable[Row], hidden: int) -> None:
        self.hidden = hidden
        self.rows: dict[str, list[Row]] = {}
        for row in rows:
            if row.get("kind") == "run":
                self.rows.setdefault(row["way"], []).append(row)

    def of(self, place: Place, updates: int) -> Row | None:
        """Return the run of a place within a budget, None if it is not there; "passage" is None for unsolved then."""
        found = self.rows.get(place.way(self.hidden), [])
        solved = [row for row in found if row["first_passage"] is not None]
        whole = solved or [row for row in found if row["most"] >= updates]
        if not whole:
            return None
        row = min(whole, key=lambda row: row["most"])
        passage = row["first_passage"]
        return {**row, "passage": passage if passage is not None and passage <= updates else None}


def training(options: Options, stage: str, place: Place, updates: int) -> Job:
    """Return the training of a place; what is known by its way goes on with what an earlier budget has left."""
    way = place.way(options.hidden)
    return job(options.store, hashed([way, updates]), stage, updates, (place, updates, options.hidden), way)


def learn(job: Job, watch: Watch) -> Row | None:
    """Train until solved or until the budget ends, or go on with it; called in a worker."""
    place, updates, hidden = job.what
    arm, length, setting, seed = place
    one = arm.experiment(length, setting, updates, hidden)
    left = job.path.with_suffix(".left")
    if not job.path.exists() and left.exists():
        copied(left, job.path)
    run = nf.train(one.net, one.theta(seed), one.task, one.recipe, replica_ids=[seed], callbacks=[watch],
                   checkpoint=job.path)  # fmt: skip
    solved = run.first_passage is not None
    if run.interrupted or (run.updates < updates and not solved):
        return None
    if solved:
        left.unlink(missing_ok=True)
    else:
        copied(job.path, left)
    scores = [score for score in run.evaluations["score"] if score is not None]
    score = nf.evaluate(one.net, run.theta, one.task, length=length, size=designs.FINAL_SIZE, seed=FINAL_SEED + seed)
    return {
        "kind": "run", "way": place.way(hidden), "cell": arm.cell, "init": arm.init, "flow": arm.flow,
        "length": length, "lr": setting.lr, "threshold": setting.threshold, "n_hidden": hidden, "seed": seed,
        "code": code_version(), "processor": machine.processor(), "most": updates, "updates": run.updates,
        "seconds": run.seconds, "first_passage": run.first_passage, "best_score": min(scores, default=None),
        "wrong": round(score * designs.FINAL_SIZE), "of": designs.FINAL_SIZE, "clipped": acted(run.history),
        **({"theta": text_of(run.theta)} if seed < designs.KEPT_SEEDS else {}),
    }  # fmt: skip


def copied(path: Path, to: Path) -> None:
    """Copy a checkpoint, whole or not at all."""
    beside = to.with_name(f"{to.name}.copy")
    shutil.copyfile(path, beside)
    os.replace(beside, to)


# Tuning.


def chosen(options: Options, known: Known, arm: Arm, length: int) -> tuple[tuple[Setting, ...], Setting | int]:
    """Return what is tried, and the one of these that is best, or the budget of which runs are missing.

    Where the best stands at an end, one more beyond it is tried, until it stands between others.
    """
    settings = arm.settings
    if len(settings) == 1:
        return settings, settings[0]
    while True:
        best = _raced(options, known, arm, length, settings)
        more = () if isinstance(best, int) else designs.beyond(settings, best)
        if not more:
            return settings, best
        settings = more


def _raced(options: Options, known: Known, arm: Arm, length: int, settings: Sequence[Setting]) -> Setting | int:
    """Return the best of some settings, or the budget of which runs are missing.

    The first setting with a median of updates over the seeds has the least one, for all the others' are larger than the
    budget. Where none has one in the end, it is the setting that solved most, and of these the one whose best errors
    are least on average.
    """
    for updates in options.tuning:
        runs = {setting: [known.of(Place(arm, length, setting, seed), updates) for seed in designs.TUNING_SEEDS]
                for setting in settings}  # fmt: skip
        if any(run is None for some in runs.values() for run in some):
            return updates
        passages = {setting: sorted(np.inf if run["passage"] is None else run["passage"] for run in some if run)
                    for setting, some in runs.items()}  # fmt: skip
        known_median = {setting: some for setting, some in passages.items() if some[len(some) // 2] < np.inf}
        if known_median:
            capped = {setting: np.minimum(some, updates) for setting, some in known_median.items()}
            return min(capped, key=lambda setting: (capped[setting][len(capped[setting]) // 2],
                                                    capped[setting].mean()))  # fmt: skip
    return min(runs, key=lambda setting: (-np.isfinite(passages[setting]).sum(), _mean_error(runs[setting])))


def _mean_error(runs: Sequence[Row | None]) -> float:
    return float(np.mean([1.0 if run is None or run["best_score"] is None else run["best_score"] for run in runs]))


def places_of(stage: Stage, arms: dict[str, Arm]) -> Iterator[tuple[Arm, int]]:
    """Yield arms and lengths of a stage in their order."""
    for length, name in itertools.product(stage.lengths, stage.arms):
        yield arms[name], length


def tune(options: Options, stage: Stage, run: Any) -> None:
    """Race the settings of every arm and length until each has one."""
    arms = options.asked.arms
    while True:
        known = Known(options.store.read().values(), options.hidden)
        wanted = [(arm, length, tried, best) for arm, length in places_of(stage, arms)
                  for tried, best in [chosen(options, known, arm, length)] if isinstance(best, int)]  # fmt: skip
        if not wanted:
            return
        least = min(updates for *_, updates in wanted)
        places = [(Place(arm, length, setting, seed), updates) for arm, length, tried, updates in wanted
                  if updates == least for seed in designs.TUNING_SEEDS for setting in tried]  # fmt: skip
        run(known, f"{stage.family}: tuning, {least:,} updates", places)


# All of it.


@dataclass
class Found(Something):
    """What the runs came to; nothing until one arm has two seeds at some length."""

    outcomes: list[reporting.Outcome] = field(default_factory=list)
    chosen: dict[tuple[str, int], Setting] = field(default_factory=dict)
    ends: set[tuple[str, int]] = field(default_factory=set)
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
        jobs = [training(options, words, place, updates) for place, updates in places
                if known.of(place, updates) is None]  # fmt: skip
        tell(console, f"{words}: {len(jobs)} of {len(places)} runs to make")
        run_all(learn, jobs, store, console, executor, options.workers)

    for number, stage in enumerate(options.asked.stages, 1):
        tune(options, stage, run)
        known = Known(store.read().values(), options.hidden)
        places = [(Place(arm, length, setting, seed), stage.updates) for seed in stage.seeds
                  for arm, length in places_of(stage, options.asked.arms)
                  if isinstance(setting := chosen(options, known, arm, length)[1], Setting)]  # fmt: skip
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
            settings = {name: chosen(options, known, whole.arms[name], length) for name in names}
            places = {name: [Place(whole.arms[name], length, setting, seed) for seed in range(most)]
                      for name, (_, setting) in settings.items() if isinstance(setting, Setting)}  # fmt: skip
            if len(places) == len(names):
                found.ends |= {(name, length) for name, (tried, setting) in settings.items()
                               if len(tried) > 1 and setting in (tried[0], tried[-1])}  # fmt: skip
                _gather_cell(known, family, length, places, budgets, found)


def _gather_cell(known: Known, family: str, length: int, places: dict[str, list[Place]], budgets: Sequence[int],
                 found: Found) -> None:  # fmt: skip
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
        found.chosen[name, length] = some[0].setting
        found.outcomes.append(reporting.Outcome(
            family, name, length, some[0].setting, (name, length) in found.ends, tuple(seeds), updates, passages,
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


def time_arms(
    options: Options, console: Console, found: list[dict[str, Any]], executor: Executor | None = None
) -> None:
    """Time an update of every arm and length, and say how many core-hours each stage takes where no run is solved."""
    check(options)
    begun(console)
    asked = options.asked
    cells = dict.fromkeys(cell for stage in asked.stages for cell in places_of(stage, asked.arms))
    call: Any = alone if executor is None else _here
    seconds = call(timed, tuple(cells), options.hidden)
    found += [{"arm": arm.name, "length": length, "seconds": seconds[arm, length]} for arm, length in cells]
    tuned: set[tuple[Arm, int]] = set()
    for number, stage in enumerate(asked.stages, 1):
        mine = list(places_of(stage, asked.arms))
        new = [cell for cell in mine if len(cell[0].settings) > 1 and cell not in tuned]
        tuned.update(new)
        settings = sum(seconds[cell] * len(cell[0].settings) for cell in new)
        runs = sum(seconds[cell] for cell in mine) * len(stage.seeds) * stage.updates
        seeds = f"seeds {stage.seeds.start}-{stage.seeds.stop - 1}"
        name = f"{number}: {stage.family}, {seeds}, {stage.updates:,} updates"
        found.append({"stage": name, "tuning": settings * len(designs.TUNING_SEEDS) * options.tuning[-1] / 3600,
                      "runs": runs / 3600})  # fmt: skip


def report_costs(options: Options, found: list[dict[str, Any]], console: Console) -> list[Path]:
    """Print what was timed as two tables, and write it."""
    timed = {(one["arm"], one["length"]): one["seconds"] for one in found if "arm" in one}
    lengths = sorted({length for _, length in timed})
    arms = headed("Seconds of 1,000 updates, one thread", "arm", *(f"L = {length}" for length in lengths))
    for arm in dict.fromkeys(arm for arm, _ in timed):
        some = (timed.get((arm, length)) for length in lengths)
        arms.add_row(arm, *("-" if one is None else f"{1000 * one:.2f}" for one in some))
    stages = headed("Core-hours at most, where nothing is solved", "stage", "tuning", "runs")
    for one in found:
        if "stage" in one:
            stages.add_row(one["stage"], f"{one['tuning']:.2f}", f"{one['runs']:.2f}")
    for table in (arms, stages):
        console.print(table)
    return keep(console, options.out / f"{options.name}_{options.design}_costs", document(options, costs=found), {})


def _here(call: Any, *arguments: Any) -> Any:
    return call(*arguments)


def timed(cells: Sequence[tuple[Arm, int]], hidden: int) -> dict[tuple[Arm, int], float]:
    """Return processor seconds of an update of each arm and length, evaluations included: the least of three."""
    found = {}
    for arm, length in cells:
        updates = max(TIMED_STEPS // length, 1)
        one = arm.experiment(length, arm.settings[0], 4 * updates, hidden)
        marks: list[float] = []
        recipe = replace(one.recipe, record_every=updates, evaluate_every=0, stop_when_solved=False)
        nf.train(one.net, one.theta(0), one.task, recipe, callbacks=[functools.partial(_mark, marks)])
        before = time.process_time()
        nf.evaluate(one.net, one.theta(0), one.task, length=length, size=designs.EVALUATE_SIZE)
        evaluation = (time.process_time() - before) / designs.EVALUATE_EVERY
        found[arm, length] = min(b - a for a, b in itertools.pairwise(marks)) / updates + evaluation
    return found


def _mark(marks: list[float], run: nf.Run) -> None:
    marks.append(time.process_time())


def main(arguments: Sequence[str] | None = None, executor: Executor | None = None) -> int:
    options = tyro.cli(Options, args=arguments, description=__doc__)
    if options.costs:
        return begin(functools.partial(time_arms, executor=executor), report_costs, options, [])
    return begin(functools.partial(work, executor=executor), report, options, Found(),
                 store=options.out / f"{options.name}.jsonl")  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
