"""Are the ways to clip a gradient equivalent? Seventeen of them, each tuned alike, on five tasks, with fresh seeds.

Goodfellow, Bengio, Courville (2016), section 10.11.1, say that clipping element by element and by norm work alike, and
that even a random step above the threshold works almost as well. Here every way (none, norm, value, each array, each
unit, normalize, random step, inside BPTT at two sites by value and by norm, each example, groups of examples, and four
rules since 2023) is held against clipping by norm.

For every task:
1. Thresholds. A network is trained without clipping (learning rate 0.1, 1,000 updates, 2 seeds), and at every tenth
   update it is measured what each way holds against its threshold: the joint norm, entries, norms of arrays, of
   examples, of groups, of back-propagated vectors, their entries, ratios of units. Of those that look at many things,
   it is the value above which lies half of the sum of squares. Six thresholds are first tried, from a tenth of the
   10 % quantile to the 90 % quantile, with eight learning rates; of a way without a threshold to tune (none,
   normalize) sixteen learning rates.
2. Tuning. A race over these 48: a seed of its own and a quarter of the updates; the best eight with three seeds
   and all updates; the best three with ten. Then every neighbour of the best, beyond the first ones too, until none is
   better. The best has most runs solved, then the least mean of updates until solved, unsolved ones counting as the
   budget; for music the least loss on the validation pieces.
3. Cost. Updates of all ways take turns on one thread; the least time of each, relative to no clipping.
4. The comparison. Fresh seeds, the same for all ways, at the settings found. A run is solved at the first evaluation
   with less than 1 % of 2,000 fresh sequences wrong, and ends there; evaluations are a tenth of the median of clipping
   by norm apart. For music the loss on the test pieces after the last update counts.

A way is EQUIVALENT to clipping by norm if both its success rate and its cost (updates until solved, or loss) are within
margins named beforehand: 10 points of success, a factor 1.5 of updates, a factor 1.01 of loss, shown by two one-sided
tests at 5 % each. It is DIFFERENT if it is not that, and a logrank test (music: a t test of pairs), adjusted by Holm
for all ways of the task, tells the two apart. Else it CAN'T be told. One more test a way takes all tasks together.

Every run is kept as soon as it is done. Ctrl-C and the same command go on where it was; when all runs are there it
makes tables and pictures again, and trains nothing. Piano rolls need --data.

Usage: python scripts/ways_to_clip.py --data jsb-chorales-quarter.json Piano_midi.mat
       python scripts/ways_to_clip.py --tasks temporal_order_40 --variants norm value random --seeds 300
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import tyro
import ways_to_clip_design as design
import ways_to_clip_pictures as pictures
import ways_to_clip_tuning as tuning
import ways_to_clip_verdicts as verdicts
from rich.console import Console
from rich.table import Table
from ways_to_clip_design import PLANS, REFERENCE, VARIANTS, Plan, Scale
from ways_to_clip_tuning import Asked, Tuned

import nbflow as nf
from nbflow.experiments.code_version import code_version
from nbflow.experiments.console import begin, begun, check_numbers, document, executor_of, headed, keep, tell
from nbflow.experiments.experiment import key_of, keys_of
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

    data: tuple[Path, ...] = ()
    """Files of piano rolls, as scripts/music.py takes them; without any that task is left out."""
    tasks: tuple[TaskName, ...] = design.TASKS
    """Which tasks."""
    variants: tuple[VariantName, ...] = tuple(VARIANTS)
    """Which ways of clipping; norm is what the others are held against. smoothed, error_feedback, adagc and spam are
    rules since 2023."""
    seeds: int = 100
    """Fresh runs of every way and task; more than are there are added to them."""
    pair_seeds: int = 300
    """Fresh runs of clipping by norm and by value, whose likeness is the book's first claim; at least seeds."""
    music_seeds: int = 20
    """Fresh runs of every way on piano rolls, where runs differ little; of fewer than 25 none can be equivalent."""
    budget: float = 1.0
    """How long a run may take, in units of what each task has by default; for tuning and comparison alike."""
    hidden: int = 50
    """H, hidden tanh units of a network."""
    evaluate_size: int = 2_000
    """Fresh sequences in a measurement of the error, in tuning a quarter of it; the usual 10,000 take longer than the
    training between two."""
    executor: str = "local"
    """Where it runs: local, or dask://HOST:PORT, whose workers must share this disk."""
    workers: int | None = None
    """Local processes, by default one for each core."""
    code: str | None = None
    """Report from the runs of this version of the code (the column "code" of the store) and train nothing; of fresh
    seeds as many count as all ways of a task have."""
    out: Path = Path("results")
    """The folder for stores, pictures and JSON."""
    name: str = "ways_to_clip"
    """How these files are called."""

    @property
    def store(self) -> Path:
        return self.out / f"{self.name}.jsonl"


@dataclass
class Study:
    """One task: what was found at each stage.

    Attributes
    ----------
    updates : int
        Most updates of a run.
    every : int
        Updates between two evaluations in the comparison.
    ranges : dict of (least, greatest threshold of the first grid) by measure
    tuned : dict of Tuned by variant
    """

    plan: Plan
    updates: int = 0
    every: int = 0
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    tuned: dict[str, Tuned] = field(default_factory=dict)
    cost: dict[str, float] = field(default_factory=dict)
    clipped: dict[str, float] = field(default_factory=dict)
    outcomes: dict[str, verdicts.Outcome] = field(default_factory=dict)
    compared: dict[str, verdicts.Comparison] = field(default_factory=dict)


# Whose likeness is the book's first claim.
PAIR = (REFERENCE, "value")


def code_of(options: Options) -> str:
    """Return the version of the code whose runs count."""
    return code_version() if options.code is None else options.code


class MissingError(ValueError):
    """What is to be reported without training is not all there."""


class Machinery:
    """The stores, and what runs sweeps.

    Attributes
    ----------
    there : dict of runs by key
        What the store had when it was read last.
    """

    def __init__(self, options: Options, console: Console) -> None:
        self.options, self.console = options, console
        self.runs = nf.Store(unpacked(options.store))
        self.there = self.runs.read()
        self.prepared = nf.Store(unpacked(options.out / f"{options.name}.prepared.jsonl"))
        self.executor = executor_of(options.executor)
        self.code = code_of(options)

    def sweep(self, words: str, experiments: Sequence[nf.Experiment], seeds: Sequence[int]) -> list[list[design.Row]]:
        """Train what is missing, and return the runs of each experiment."""
        tell(self.console, f"{words}: {len(experiments) * len(seeds):,} runs")
        keys = [keys_of(one, seeds, self.code) for one in experiments]
        if any(key not in self.there for row in keys for key in row):
            self.refuse_old_code(words)
            workers = self.options.workers if self.executor is None else None
            swept = nf.sweep(list(experiments), list(seeds), self.runs.path, executor=self.executor, workers=workers)
            if swept.missing:
                raise KeyboardInterrupt(f"{words}: {swept.missing:,} runs are missing")
            self.there = self.runs.read()
        return [[self.there[key] for key in row] for row in keys]

    def refuse_old_code(self, words: str) -> None:
        """Refuse to compute what another version of the code is said to have computed."""
        if self.options.code is not None:
            raise MissingError(
                f"code is '{self.code}', and for {words} the stores lack something of it; expected a version whose "
                f"runs are all there. Leave it out to train."
            )

    def updates(self, plan: Plan, budget: float = 1.0) -> int:
        """Return the most updates of a run at a part of the budget."""
        return max(round(plan.updates * self.options.budget * budget), 1)

    def tuned_by(self, plan: Plan, name: str, setting: tuple[float, float], budget: float) -> nf.Experiment:
        """Return a run of tuning."""
        every, size = max(self.updates(plan) // design.LOOKS, 1), max(self.options.evaluate_size // 4, 1)
        scale = Scale(self.updates(plan, budget), every, size, self.options.hidden)
        return design.experiment(plan, VARIANTS[name], setting, scale, tuning=True)

    def fresh(self, study: Study, name: str) -> nf.Experiment:
        """Return a run of the comparison."""
        scale = Scale(study.updates, study.every, self.options.evaluate_size, self.options.hidden)
        return design.experiment(study.plan, VARIANTS[name], study.tuned[name].setting, scale, tuning=False)

    def seeds(self, study: Study) -> dict[str, int]:
        """Return how many fresh runs each variant has; where nothing is trained, at most what all alike have."""
        music, found = study.plan.is_music, dict[str, int]()
        for pair in (True, False):
            names = [name for name in study.tuned if (name in PAIR) == pair]
            most = self.options.music_seeds if music else self.options.pair_seeds if pair else self.options.seeds
            if self.options.code is not None:
                most = min((self.stored(study, name, most) for name in names), default=0)
            found |= dict.fromkeys(names, most)
        if min(found.values()) < 2:
            self.refuse_old_code(f"{study.plan.title}: comparison")
        return {name: found[name] for name in study.tuned}

    def stored(self, study: Study, name: str, most: int) -> int:
        """Return how many fresh runs of a variant are there, from the first seed on."""
        keys = keys_of(self.fresh(study, name), range(most), self.code)
        return sum(1 for _ in itertools.takewhile(self.there.__contains__, keys))

    def looks(self, plan: Plan) -> dict[str, tuple[float, float]]:
        """Return the least and greatest threshold of the first grid by what they measure."""
        one, found = design.unclipped(plan, self.options.hidden), []
        for seed in design.LOOK_SEEDS:
            key = key_of(one, seed, self.code)
            if key not in self.prepared.read():
                self.refuse_old_code(f"{plan.title}: thresholds")
                self.prepared.add([{"key": key, "task": plan.name, "seed": seed, "seen": design.look(one, seed)}])
            found.append(self.prepared.read()[key]["seen"])
        return design.ranges(found)

    def costs(self, study: Study) -> dict[str, float]:
        """Return the seconds of an update, relative to those without clipping."""
        plan = study.plan
        every = {name: self.fresh(study, name) for name in study.tuned}
        keys = {name: f"cost {key_of(one, 0, self.code)}" for name, one in every.items()}
        if not set(keys.values()) <= self.prepared.read().keys():
            self.refuse_old_code(f"{plan.title}: cost")
            bare = self.tuned_by(plan, "none", (design.LINE[0], math.inf), 1.0)
            seconds = alone(design.cheapest, {"": bare, **every}, updates=100, rounds=11)
            self.prepared.add({"key": keys[name], "task": plan.name, "variant": name, "seconds": seconds[name],
                               "seconds_unclipped": seconds[""]} for name in every)  # fmt: skip
        rows = self.prepared.read()
        return {name: rows[key]["seconds"] / rows[key]["seconds_unclipped"] for name, key in keys.items()}


def tune(machinery: Machinery, studies: Sequence[Study]) -> None:
    """Find the best setting of every variant on every task, all side by side, on seeds of their own."""
    by_name = {study.plan.name: study for study in studies}
    races = {
        (study.plan.name, name): tuning.race(study.plan, design.grid(VARIANTS[name], study.ranges), study.updates)
        for study in studies
        for name in machinery.options.variants
    }
    grids = {(task, name): design.grid(VARIANTS[name], by_name[task].ranges) for task, name in races}
    turn = itertools.count(1)

    def run(asked: dict[tuple[str, str], Asked]) -> dict[tuple[str, str], tuning.Rows]:
        found: dict[tuple[str, str], tuning.Rows] = {key: {} for key in asked}
        words = f"tuning, turn {next(turn)}"
        for seeds in sorted({one.seeds for one in asked.values()}):
            mine = [(key, place) for key, one in asked.items() if one.seeds == seeds for place in one.places]
            every = [machinery.tuned_by(by_name[key[0]].plan, key[1], grids[key].setting(place), asked[key].budget)
                     for key, place in mine]  # fmt: skip
            runs = machinery.sweep(words, every, design.TUNING_SEEDS[:seeds])
            for (key, place), rows in zip(mine, runs, strict=True):
                found[key][place] = rows
        return found

    for (task, name), one in tuning.drive(races, run).items():
        by_name[task].tuned[name] = one


def compare(machinery: Machinery, studies: Sequence[Study]) -> None:
    """Train every variant at its setting with fresh seeds, and hold it against clipping by norm."""
    places = [(study, name, seeds) for study in studies for name, seeds in machinery.seeds(study).items()]
    for seeds in sorted({seeds for *_, seeds in places}):
        mine = [(study, name) for study, name, wanted in places if wanted == seeds]
        runs = machinery.sweep("comparison", [machinery.fresh(*one) for one in mine], range(seeds))
        for (study, name), rows in zip(mine, runs, strict=True):
            study.outcomes[name] = verdicts.outcome(study.plan, rows, study.updates)
            parts = [part for part in map(clipped_of, rows) if part is not None]
            if parts and VARIANTS[name].is_of_gradient:
                study.clipped[name] = sum(parts) / len(parts)
    for study in studies:
        study.outcomes = {name: study.outcomes[name] for name in study.tuned}
        study.compared = verdicts.compare(study.plan, study.outcomes)


def grain(study: Study) -> int:
    """Return the updates between two evaluations: a part of the median of clipping by norm, as tuning saw it."""
    if study.plan.is_music:
        return study.updates
    passages = [row.get("first_passage") for row in study.tuned[REFERENCE].rows]
    return max(int(np.median([study.updates if at is None else at for at in passages])) // design.GRAIN, 1)


def plans(options: Options, console: Console) -> list[Plan]:
    """Return the tasks that were asked for, and say which one is left out."""
    found = [PLANS[name] for name in options.tasks if name in PLANS]
    if design.MUSIC in options.tasks:
        if not options.data:
            tell(console, "Piano rolls are left out: no --data.")
        found += [design.music(path) for path in options.data]
    return found


def check(options: Options) -> None:
    """Refuse what would end in nonsense; the rest is refused by nbflow."""
    if REFERENCE not in options.variants:
        raise ValueError(f"variants lacks {REFERENCE}, which the others are held against. Add it.")
    if not options.tasks:
        raise ValueError("tasks is empty; expected one at least. Leave it out.")
    for name in ("seeds", "pair_seeds", "music_seeds"):
        if not 2 <= getattr(options, name) <= design.MOST_SEEDS:
            raise ValueError(f"{name} is {getattr(options, name)}; expected 2 to {design.MOST_SEEDS:,}. Leave it out.")
    if options.pair_seeds < options.seeds:
        raise ValueError(f"pair_seeds is {options.pair_seeds}; expected at least seeds, {options.seeds}. Leave it out.")
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
    for name, tuned in study.tuned.items():
        (lr, threshold), one, seen = tuned.setting, study.outcomes[name], study.compared[name]
        digits = 3 if plan.is_music else 2
        typical = said(seen.typical, 3) if plan.is_music else f"{seen.median:,.0f}"
        found.add_row(
            VARIANTS[name].title, f"{lr:.3g}{'*' * (not tuned.settled)}",
            "-" if math.isinf(threshold) else f"{threshold:.3g}",
            f"{one.solved} of {one.runs} ({100 * seen.rate.low:.0f}-{100 * seen.rate.high:.0f} %)", typical,
            "1" if name == REFERENCE else said(seen.ratio, digits),
            "" if name == REFERENCE else f"{seen.adjusted:.2g}", f"{study.cost[name]:.2f}",
            f"{100 * study.clipped[name]:.0f} %" if name in study.clipped else "-",
            seen.verdict + " +" * (seen.verdict == verdicts.EQUIVALENT and seen.adjusted < verdicts.ALPHA),
        )  # fmt: skip
    return found


def joint_table(studies: Sequence[Study]) -> Table:
    """Return what the tasks say together of each variant."""
    found = headed("All tasks together, without music", "variant", "times the updates of norm (95 %)", "p (Holm)",
                   "slower on", "faster on", wrap=False)  # fmt: skip
    for name, one in verdicts.joint([study.compared for study in studies if not study.plan.is_music]).items():
        found.add_row(VARIANTS[name].title, said(one.ratio, 2), f"{one.adjusted:.2g}",
                      f"{one.slower} of {one.tasks}", f"{one.faster} of {one.tasks}")  # fmt: skip
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
        for name, tuned in study.tuned.items():
            one, seen = study.outcomes[name], study.compared[name]
            numbers = {key: value._asdict() if isinstance(value, nf.Interval) else value
                    for key, value in seen._asdict().items()}  # fmt: skip
            rows[name] = {"lr": tuned.setting[0], "threshold": tuned.setting[1], "settings_tried": tuned.settings,
                          "tuning_runs": tuned.runs, "inside_the_first_grid": tuned.inside, "settled": tuned.settled,
                          "runs": one.runs, "solved": one.solved, "failed": one.failed,
                          "update_relative_to_none": study.cost[name], "clipped": study.clipped.get(name),
                          **numbers, "cost": list(one.cost.values()), "first_passages": list(one.passages)}  # fmt: skip
        tasks[study.plan.name] = {"title": study.plan.title, "updates": study.updates, "every": study.every,
                                  "trivial": study.plan.trivial, "ranges": study.ranges, "variants": rows}  # fmt: skip
    margins = {"alpha": verdicts.ALPHA, "rate": verdicts.RATE_MARGIN, "time": verdicts.TIME_MARGIN,
               "loss": verdicts.LOSS_MARGIN}  # fmt: skip
    return document(options, code=code_of(options), margins=margins, lrs=design.LRS, line=design.LINE, tasks=tasks)


def report(options: Options, studies: Sequence[Study], console: Console) -> list[Path]:
    """Print tables, write the JSON and draw the pictures."""
    for study in studies:
        console.print(table(study))
    tell(console, "*: a neighbour may be better. cost: time of an update, no clipping being 1. +: within the margins, "
                  "though a test tells the two apart.")  # fmt: skip
    if sum(not study.plan.is_music for study in studies) > 1:
        console.print(joint_table(studies))
    for sentence in conclusions(studies):
        tell(console, sentence)
    drawn = {f"_{study.plan.name}": pictures.task(study) for study in studies}
    drawn[""] = pictures.summary(studies)
    return keep(console, options.out / options.name, numbers(options, studies), drawn)


def work(options: Options, console: Console, done: list[Study]) -> None:
    """Do every stage of every task."""
    check(options)
    begun(console)
    done += studied(Machinery(options, console), plans(options, console))


def studied(machinery: Machinery, plans: Sequence[Plan]) -> list[Study]:
    """Do every stage of every task."""
    studies = [Study(plan, machinery.updates(plan), ranges=machinery.looks(plan)) for plan in plans]
    tune(machinery, studies)
    for study in studies:
        study.every = grain(study)
        study.cost = machinery.costs(study)
    compare(machinery, studies)
    return studies


def main(arguments: Sequence[str] | None = None) -> int:
    options = tyro.cli(Options, args=arguments, description=__doc__)
    return begin(work, report, options, [], store=options.store)


if __name__ == "__main__":
    sys.exit(main())
