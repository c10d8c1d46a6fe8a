"""Are the ways to clip a gradient equivalent? Thirteen of them, each tuned alike, on five tasks, with fresh seeds.

Goodfellow, Bengio, Courville (2016), section 10.11.1, say that clipping element by element and by norm work alike, and
that even a random step above the threshold works almost as well. Here every way (none, norm, value, each array, each
unit, normalize, random step, inside BPTT at two sites by value and by norm, each example, groups of examples) is held
against clipping by norm.

For every task:
1. Thresholds. A network is trained without clipping (learning rate 0.1, 1,000 updates, 2 seeds), and at every tenth
   update it is measured what each way holds against its threshold: the joint norm, entries, norms of arrays, of
   examples, of groups, of back-propagated vectors, their entries, ratios of units. Of those that look at many things,
   it is the value above which lies half of the sum of squares. The thresholds to try are the 10, 50 and 90 % quantiles,
   which would clip the whole or the larger half in 90, 50 and 10 % of the unclipped updates, and a tenth of the lowest.
   (A fourteenth way, random_rare, is a random step at the 95, 99 and 100 % quantiles of the joint norm, and at ten
   times the last, with learning rates a step lower. It runs if it is named.)
2. Tuning. Four learning rates times four thresholds times three seeds of their own: 48 runs for every way. One without
   a threshold to tune (none, normalize) gets sixteen learning rates. The best has most runs solved, then the least mean
   of updates until solved, unsolved ones counting as the budget; for music the least loss on the validation pieces.
3. Cost. Updates of all ways take turns on one thread; the least time of each, relative to no clipping.
4. The comparison. Fresh seeds, the same for all ways, at the settings found. A run is solved at the first evaluation
   with less than 1 % of 2,000 fresh sequences wrong, and ends there. For music the loss on the test pieces after the
   last update counts.

A way is EQUIVALENT to clipping by norm if both its success rate and its cost (updates until solved, or loss) are within
margins named beforehand: 20 points of success, a factor 1.5 of updates, a factor 1.01 of loss, shown by two one-sided
tests at 5 % each. It is DIFFERENT if it is not that, and a logrank test (music: a t test of pairs), adjusted by Holm
for all ways of the task, tells the two apart. Else it CAN'T be told.

Every run is kept as soon as it is done. Ctrl-C and the same command go on where it was; when all runs are there it
makes tables and pictures again, and trains nothing. Piano rolls need --data.

Usage: python scripts/compare_clipping.py --data jsb-chorales-quarter.json
       python scripts/compare_clipping.py --tasks temporal_order_40 --variants norm value random --seeds 100
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import compare_clipping_design as design
import compare_clipping_pictures as pictures
import compare_clipping_verdicts as verdicts
import tyro
from compare_clipping_design import PLANS, REFERENCE, VARIANTS
from rich.console import Console
from rich.table import Table
from ways_to_clip_design import Plan, cheapest, score

import nbflow as nf
from nbflow.experiments.code_version import code_version
from nbflow.experiments.console import begin, begun, check_numbers, document, executor_of, headed, keep, tell
from nbflow.experiments.experiment import key_of
from nbflow.experiments.jobs import alone
from nbflow.storage.compact import clipped_of, unpacked

if TYPE_CHECKING:
    TaskName: TypeAlias = str
    VariantName: TypeAlias = str
else:
    TaskName, VariantName = Literal[design.TASKS], Literal[tuple(VARIANTS)]


@dataclass(frozen=True)
class Options:
    """What is compared, for how long, and where the results go."""

    data: Path | None = None
    """A file of piano rolls, as scripts/music.py takes them; without it that task is left out."""
    tasks: tuple[TaskName, ...] = design.TASKS
    """Which tasks."""
    variants: tuple[VariantName, ...] = design.DEFAULT
    """Which ways of clipping; norm is what the others are held against. random_rare is a random step at thresholds that
    few gradients exceed; smoothed, error_feedback, adagc and spam are rules since 2023."""
    seeds: int = 40
    """Fresh runs of every way and task; more than are there are added to them."""
    budget: float = 1.0
    """How long a run may take, in units of what each task has by default; for tuning and comparison alike."""
    hidden: int = 50
    """H, hidden tanh units of a network."""
    evaluate_size: int = 2_000
    """Fresh sequences in a measurement of the error; the usual 10,000 take longer than the training between two."""
    executor: str = "local"
    """Where it runs: local, or dask://HOST:PORT, whose workers must share this disk."""
    workers: int | None = None
    """Local processes, by default one for each core."""
    code: str | None = None
    """Report from the runs of this version of the code (the column "code" of the store) and train nothing."""
    out: Path = Path("results")
    """The folder for stores, pictures and JSON."""
    name: str = "compare_clipping"
    """How these files are called."""

    @property
    def store(self) -> Path:
        return self.out / f"{self.name}.jsonl"


@dataclass
class Study:
    """One task: what was found at each stage.

    Attributes
    ----------
    tuned : dict of (lr, threshold) by variant
    tuning_runs : dict of int by variant
    """

    plan: Plan
    updates: int = 0
    thresholds: dict[str, list[float]] = field(default_factory=dict)
    tuned: dict[str, tuple[float, float]] = field(default_factory=dict)
    tuning_runs: dict[str, int] = field(default_factory=dict)
    cost: dict[str, float] = field(default_factory=dict)
    clipped: dict[str, float] = field(default_factory=dict)
    outcomes: dict[str, verdicts.Outcome] = field(default_factory=dict)
    compared: dict[str, verdicts.Comparison] = field(default_factory=dict)


def code_of(options: Options) -> str:
    """Return the version of the code whose runs count."""
    return code_version() if options.code is None else options.code


class Machinery:
    """The stores, and what runs sweeps."""

    def __init__(self, options: Options, console: Console) -> None:
        self.options, self.console = options, console
        self.runs = nf.Store(unpacked(options.store))
        self.prepared = nf.Store(unpacked(options.out / f"{options.name}.prepared.jsonl"))
        self.executor = executor_of(options.executor)
        self.code = code_of(options)

    def sweep(self, words: str, experiments: Sequence[nf.Experiment], seeds: Sequence[int]) -> list[list[design.Row]]:
        """Train what is missing, and return the runs of each experiment."""
        tell(self.console, f"{words}: {len(experiments) * len(seeds):,} runs")
        keys = [[key_of(one, seed, self.code) for seed in seeds] for one in experiments]
        there = self.runs.read()
        if any(key not in there for row in keys for key in row):
            self.refuse_old_code(words)
            workers = self.options.workers if self.executor is None else None
            swept = nf.sweep(list(experiments), list(seeds), self.runs.path, executor=self.executor, workers=workers)
            if swept.missing:
                raise KeyboardInterrupt(f"{words}: {swept.missing:,} runs are missing")
            there = self.runs.read()
        return [[there[key] for key in row] for row in keys]

    def refuse_old_code(self, words: str) -> None:
        """Refuse to compute what another version of the code is said to have computed."""
        if self.options.code is not None:
            raise ValueError(
                f"code is '{self.code}', and for {words} the stores lack something of it; expected a version whose "
                f"runs are all there. Leave it out to train."
            )

    def experiment(self, plan: Plan, name: str, setting: tuple[float, float], *, tuning: bool) -> nf.Experiment:
        options = self.options
        return design.experiment(plan, VARIANTS[name], *setting, budget=options.budget, hidden=options.hidden,
                                 evaluate_size=options.evaluate_size, tuning=tuning)  # fmt: skip

    def looks(self, plan: Plan) -> dict[str, list[float]]:
        """Return the thresholds to try by what they measure."""
        one, found = design.unclipped(plan, self.options.hidden), []
        for seed in design.LOOK_SEEDS:
            key = key_of(one, seed, self.code)
            if key not in self.prepared.read():
                self.refuse_old_code(f"{plan.title}: thresholds")
                self.prepared.add([{"key": key, "task": plan.name, "seed": seed, "seen": design.look(one, seed)}])
            found.append(self.prepared.read()[key]["seen"])
        return design.thresholds(found)

    def costs(self, plan: Plan, tuned: dict[str, tuple[float, float]]) -> dict[str, float]:
        """Return the seconds of an update, relative to those without clipping."""
        every = {name: self.experiment(plan, name, setting, tuning=False) for name, setting in tuned.items()}
        keys = {name: f"cost {key_of(one, 0, self.code)}" for name, one in every.items()}
        if not set(keys.values()) <= self.prepared.read().keys():
            self.refuse_old_code(f"{plan.title}: cost")
            bare = self.experiment(plan, "none", (design.LRS[0], math.inf), tuning=False)
            seconds = alone(cheapest, {"": bare, **every}, updates=100, rounds=11)
            self.prepared.add({"key": keys[name], "task": plan.name, "variant": name, "seconds": seconds[name],
                               "seconds_unclipped": seconds[""]} for name in every)  # fmt: skip
        rows = self.prepared.read()
        return {name: rows[key]["seconds"] / rows[key]["seconds_unclipped"] for name, key in keys.items()}


def tune(machinery: Machinery, study: Study) -> None:
    """Try every setting of every variant on seeds of their own, and keep the best."""
    plan, names = study.plan, machinery.options.variants
    tried = {name: design.settings(VARIANTS[name], study.thresholds) for name in names}
    places = [(name, setting) for name in names for setting in tried[name]]
    every = [machinery.experiment(plan, name, setting, tuning=True) for name, setting in places]
    study.updates = every[0].recipe.max_updates
    runs = machinery.sweep(f"{plan.title}: tuning", every, design.TUNING_SEEDS)
    for name in names:
        mine = [(setting, rows) for (owner, setting), rows in zip(places, runs, strict=True) if owner == name]
        study.tuned[name] = min(mine, key=lambda one: score(plan, one[1], study.updates))[0]
        study.tuning_runs[name] = sum(len(rows) for _, rows in mine)


def compare(machinery: Machinery, study: Study) -> None:
    """Train every variant at its setting with fresh seeds, and hold it against clipping by norm."""
    plan = study.plan
    every = [machinery.experiment(plan, name, setting, tuning=False) for name, setting in study.tuned.items()]
    runs = machinery.sweep(f"{plan.title}: comparison", every, range(machinery.options.seeds))
    for name, rows in zip(study.tuned, runs, strict=True):
        study.outcomes[name] = verdicts.outcome(plan, rows, study.updates)
        parts = [part for part in map(clipped_of, rows) if part is not None]  # older copies do not say it
        if parts:
            study.clipped[name] = sum(parts) / len(parts)
    study.compared = verdicts.compare(plan, study.outcomes)


def plans(options: Options, console: Console) -> list[Plan]:
    """Return the tasks that were asked for, and say which one is left out."""
    found = [PLANS[name] for name in options.tasks if name in PLANS]
    if design.MUSIC in options.tasks:
        if options.data is None:
            tell(console, "Piano rolls are left out: no --data.")
        else:
            found.append(design.music(options.data))
    return found


def check(options: Options) -> None:
    """Refuse what would end in nonsense; the rest is refused by nbflow."""
    if REFERENCE not in options.variants:
        raise ValueError(f"variants lacks {REFERENCE}, which the others are held against. Add it.")
    if not options.tasks:
        raise ValueError("tasks is empty; expected one at least. Leave it out.")
    if not 2 <= options.seeds <= design.MOST_SEEDS:
        raise ValueError(f"seeds is {options.seeds}; expected 2 to {design.MOST_SEEDS:,}. Give 40.")
    if options.workers is not None and options.workers < 1:
        raise ValueError(f"workers is {options.workers}; expected at least 1. Leave it out.")
    check_numbers(options, positive="budget", least_1="hidden evaluate_size")


def table(study: Study) -> Table:
    """Return what each variant came to."""
    plan = study.plan
    limit = f"guessing: {plan.trivial:.2f} nats per frame" if plan.is_music else f"of at most {study.updates:,}"
    title = f"{plan.title[0].upper()}{plan.title[1:]}, {limit}"
    better, cost = ("better", "nats per frame") if plan.is_music else ("solved", "updates, median")
    found = headed(title, "variant", "lr", "threshold", better, cost, "times norm (90 %)", "p (Holm)", "cost",
                   "clip acted", "beside norm", wrap=False)  # fmt: skip
    for name, (lr, threshold) in study.tuned.items():
        one, seen = study.outcomes[name], study.compared[name]
        digits = 3 if plan.is_music else 2
        typical = said(seen.typical, 3) if plan.is_music else f"{seen.median:,.0f}"
        found.add_row(
            VARIANTS[name].title, f"{lr:g}{'*' * design.at_an_end(VARIANTS[name], lr)}",
            "-" if math.isinf(threshold) else f"{threshold:.3g}",
            f"{one.solved} of {one.runs} ({100 * seen.rate.low:.0f}-{100 * seen.rate.high:.0f} %)", typical,
            "1" if name == REFERENCE else said(seen.ratio, digits),
            "" if name == REFERENCE else f"{seen.adjusted:.2g}", f"{study.cost[name]:.2f}",
            f"{100 * study.clipped[name]:.0f} %" if name in study.clipped else "-",
            seen.verdict + " +" * (seen.verdict == verdicts.EQUIVALENT and seen.adjusted < verdicts.ALPHA),
        )  # fmt: skip
    return found


def said(interval: nf.Interval, digits: int) -> str:
    return f"{interval.value:.{digits}f} ({interval.low:.{digits}f}-{interval.high:.{digits}f})"


def conclusions(studies: Sequence[Study]) -> list[str]:
    """Say of every variant where it is equivalent to clipping by norm, where not, and where that can't be told."""
    found = []
    for name in studies[0].tuned:
        if name == REFERENCE:
            continue
        parts = []
        for verdict in (verdicts.EQUIVALENT, verdicts.DIFFERENT, verdicts.UNCLEAR):
            where = [study.plan.title for study in studies if study.compared[name].verdict == verdict]
            if where:
                parts.append(f"{verdict} on {len(where)} of {len(studies)} ({'; '.join(where)})")
        found.append(f"{VARIANTS[name].title} and norm: {', '.join(parts)}.")
    return found


def numbers(options: Options, studies: Sequence[Study]) -> dict[str, Any]:
    """Return every setting and every result as JSON takes it; the runs themselves are in the store."""
    tasks = {}
    for study in studies:
        rows = {}
        for name, (lr, threshold) in study.tuned.items():
            one, seen = study.outcomes[name], study.compared[name]
            numbers = {key: value._asdict() if isinstance(value, nf.Interval) else value
                    for key, value in seen._asdict().items()}  # fmt: skip
            rows[name] = {"lr": lr, "threshold": threshold, "tuning_runs": study.tuning_runs[name],
                          "lr_at_an_end": design.at_an_end(VARIANTS[name], lr), "runs": one.runs,
                          "solved": one.solved, "failed": one.failed, "update_relative_to_none": study.cost[name],
                          "clipped": study.clipped.get(name),
                          **numbers, "cost": list(one.cost.values()), "first_passages": list(one.passages)}  # fmt: skip
        tasks[study.plan.name] = {"title": study.plan.title, "updates": study.updates, "trivial": study.plan.trivial,
                                  "thresholds": study.thresholds, "variants": rows}  # fmt: skip
    margins = {"alpha": verdicts.ALPHA, "rate": verdicts.RATE_MARGIN, "time": verdicts.TIME_MARGIN,
               "loss": verdicts.LOSS_MARGIN}  # fmt: skip
    return document(
        options, code=code_of(options), margins=margins, lrs=design.LRS, least_lr=design.LEAST_LR,
        levels=design.LEVELS, lower=design.LOWER, rare_levels=design.RARE_LEVELS, upper=design.UPPER,
        low_lrs=design.LOW_LRS, tasks=tasks,
    )  # fmt: skip


def report(options: Options, studies: Sequence[Study], console: Console) -> list[Path]:
    """Print tables, write the JSON and draw the pictures."""
    for study in studies:
        console.print(table(study))
    tell(console, "*: the learning rate is at an end of the range that was tried. cost: time of an update, no clipping "
                  "being 1. +: within the margins, though a test tells the two apart.")  # fmt: skip
    for sentence in conclusions(studies):
        tell(console, sentence)
    drawn = {f"_{study.plan.name}": pictures.task(study) for study in studies}
    drawn[""] = pictures.summary(studies)
    return keep(console, options.out / options.name, numbers(options, studies), drawn)


def work(options: Options, console: Console, done: list[Study]) -> None:
    """Do every stage of every task."""
    check(options)
    begun(console)
    machinery = Machinery(options, console)
    for plan in plans(options, console):
        done.append(studied(machinery, plan))


def studied(machinery: Machinery, plan: Plan) -> Study:
    """Do every stage of a task."""
    study = Study(plan, thresholds=machinery.looks(plan))
    tune(machinery, study)
    study.cost = machinery.costs(plan, study.tuned)
    compare(machinery, study)
    return study


def main(arguments: Sequence[str] | None = None) -> int:
    options = tyro.cli(Options, args=arguments, description=__doc__)
    return begin(work, report, options, [], store=options.store)


if __name__ == "__main__":
    sys.exit(main())
