"""Does a random step above a threshold work almost as well as clipping, if it is rare, or short? On four tasks.

Goodfellow, Bengio, Courville (2016), section 10.11.1, say so of a random step in the place of a gradient above the
threshold. Here what brings one about, its trigger, is apart from its length (`nbflow.Clip("random", v, length=...)`).
tanh networks, plain SGD:

1. Two networks are trained without a clip (nbflow.calibrate_threshold): the norms of their gradients say what is large.
2. Twelve kinds of random steps: the trigger is the 90 or 99 % percentile of the last 1,000 norms (of the training
   itself), the greatest norm of step 1, or ten times their mean; the length is the trigger itself, the median norm of
   step 1, or a tenth of that. Each at four learning rates, three runs each; so is clipping by norm, at the median norm
   and at a tenth of it, and no clip. The best has most runs solved, then the least mean of updates (unsolved: the
   budget). A setting that has failed so often that it can no more be the best has no further runs. Where the best of
   one of the three is at an end of its learning rates, the next rate is tried too, until it is at none (or there is
   no further one: 0.0013 and 7; this is marked).
3. Fresh seeds, the same for all three, at the best random step, the best clip by norm and the best rate without one.

A random step WORKS ALMOST AS WELL on a task if its success is less than 10 points below that of clipping by norm
(Newcombe) and its updates are less than 1.5 times as many (geometric means, over pairs of one seed), each by a
one-sided test at 5 %, by Holm over the tasks; it DOESN'T HOLD if either is shown to lie beyond, by Holm over tasks and
both; else it CAN'T be told, and so where clipping by norm itself solves less than half.

Every run is kept as soon as it is done. Ctrl-C and the same command go on where it was.

Usage: python scripts/random_steps.py
       python scripts/random_steps.py --tasks memorization_10 --seeds 100
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import random_steps_design as design
import tyro
from random_steps_design import METHODS, PLANS, Setting, Study
from random_steps_report import report
from rich.console import Console

import nbflow as nf
from nbflow.experiments.code_version import code_version
from nbflow.experiments.console import begin, begun, check_numbers, tell
from nbflow.experiments.experiment import key_of
from nbflow.storage.compact import unpacked
from nbflow.storage.store import Row

if TYPE_CHECKING:
    TaskName: TypeAlias = str
else:
    TaskName = Literal[tuple(PLANS)]


@dataclass(frozen=True)
class Options:
    """Which tasks, for how long, and where the results go."""

    tasks: tuple[TaskName, ...] = tuple(PLANS)
    """Which tasks."""
    seeds: int = 60
    """Fresh runs of each of the three on each task; more than are there are added to them."""
    budget: float = 1.0
    """How long a run may take, in units of what each task has by default."""
    hidden: int = 50
    """H, hidden tanh units of a network."""
    evaluate_size: int = 2_000
    """Fresh sequences in a measurement of the error."""
    workers: int | None = None
    """Processes, by default one for each core."""
    code: str | None = None
    """Report from the runs of this version of the code (the column "code" of the store) and train nothing; of tasks
    that are not all there nothing is said."""
    out: Path = Path("results")
    """The folder for store, picture and JSON."""
    name: str = "random_steps"
    """How these files are called."""

    @property
    def store(self) -> Path:
        return self.out / f"{self.name}.jsonl"

    @property
    def code_of(self) -> str:
        return code_version() if self.code is None else self.code


class MissingError(ValueError):
    """What is to be reported without training is not all there."""


def experiment(options: Options, plan: Any, lr: float, clip: nf.Clip | None) -> nf.Experiment:
    """Return a run of a task."""
    updates = updates_of(options, plan)
    recipe = nf.Recipe(
        lr=lr, batch_size=design.BATCH, lengths=plan.length, max_updates=updates, record_every=max(updates // 5, 1),
        evaluate_every=updates // design.LOOKS, evaluate_size=options.evaluate_size, stop_when_solved=True, clip=clip,
    )  # fmt: skip
    return nf.Experiment(plan.tuned_on, recipe, n_hidden=options.hidden, init=plan.init)


def updates_of(options: Options, plan: Any) -> int:
    return max(round(float(plan.updates) * options.budget), design.LOOKS)


class Runs:
    """The store, and what fills it."""

    def __init__(self, options: Options, console: Console) -> None:
        self.options, self.console, self.code = options, console, options.code_of
        self.store = nf.Store(unpacked(options.store))

    def sweep(self, words: str, experiments: Sequence[nf.Experiment], seeds: Sequence[int]) -> list[list[Row]]:
        """Train what is missing, and return the runs of each experiment."""
        keys = [[key_of(one, seed, self.code) for seed in seeds] for one in experiments]
        there = self.store.read()
        missing = sum(key not in there for row in keys for key in row)
        runs = len(experiments) * len(seeds)
        there_already = f", {runs - missing:,} of them there" if missing < runs else ""
        tell(self.console, f"{words}: {runs:,} runs{there_already}")
        if missing:
            self.refuse_old_code(words)
            swept = nf.sweep(list(experiments), list(seeds), self.store.path, workers=self.options.workers)
            if swept.missing:
                raise KeyboardInterrupt(f"{words}: {swept.missing:,} runs are missing")
            there = self.store.read()
        return [[there[key] for key in row] for row in keys]

    def seen(self, plan: Any) -> dict[str, float]:
        """Return what the norms of unclipped training are."""
        one = experiment(self.options, plan, design.LOOK_LR, None)
        bare = replace(one.recipe, max_updates=design.LOOK_UPDATES, record_every=1, evaluate_every=0,
                       stop_when_solved=False)  # fmt: skip
        key = f"seen {key_of(replace(one, recipe=bare), design.LOOK_SEED, self.code)}"
        if key not in self.store.read():
            tell(self.console, f"{plan.title}: unclipped norms")
            self.refuse_old_code(f"{plan.title}: unclipped norms")
            theta = np.array([one.theta(seed) for seed in design.LOOK_SEEDS])
            norms = nf.calibrate_threshold(
                one.net, theta, one.task, bare, updates=design.LOOK_UPDATES, seed=design.LOOK_SEED
            ).norms
            numbers = {"median": np.nanmedian(norms), "greatest": np.nanmax(norms), "ten_means": 10 * np.nanmean(norms)}
            self.store.add([{"key": key, "code": self.code, "kind": "seen", "plan": plan.name,
                             **{name: design.rounded(float(value)) for name, value in numbers.items()}}])  # fmt: skip
        row = self.store.read()[key]
        return {name: row[name] for name in ("median", "greatest", "ten_means")}

    def refuse_old_code(self, words: str) -> None:
        """Refuse to compute what another version of the code is said to have computed."""
        if self.options.code is not None:
            raise MissingError(
                f"code is '{self.code}', and for {words} the store lacks something of it; expected a version whose "
                f"runs are all there. Leave it out to train."
            )


def studied(runs: Runs, plan: Any) -> Study:
    """Do every stage of a task."""
    options = runs.options
    study = Study(plan, updates_of(options, plan), runs.seen(plan))
    clips = design.variants(study.seen)
    new = [(name, lr) for name in clips for lr in design.FIRST]
    while new:
        for name, lr in new:
            method, clip = clips[name]
            study.settings.append(Setting(name, method, lr, experiment(options, plan, lr, clip)))
        race(runs, study.settings, plan.title)
        new = design.beyond(study)
    best = [study.chosen(method).experiment for method in METHODS]
    rows = runs.sweep(f"{plan.title}: fresh seeds", best, range(options.seeds))
    study.fresh = dict(zip(METHODS, rows, strict=True))
    return study


def race(runs: Runs, settings: Sequence[Setting], title: str) -> None:
    """Train the tuning runs of every setting: of one that can no more be its method's best, fewer than all."""
    while True:
        some, seed = design.next_seed(settings)
        if not some:
            return
        found = runs.sweep(f"{title}: tuning", [one.experiment for one in some], [seed])
        for one, rows in zip(some, found, strict=True):
            one.rows += rows


def studies(options: Options, console: Console, done: list[Study]) -> None:
    """Do every stage of every task."""
    check_numbers(options, positive="budget", least_1="hidden evaluate_size", least_2="seeds")
    if not options.tasks:
        raise ValueError("tasks is empty; expected one at least. Leave it out.")
    if options.seeds > design.TUNING_SEEDS[0]:
        raise ValueError(f"seeds is {options.seeds}; expected at most {design.TUNING_SEEDS[0]:,}. Give 60.")
    begun(console)
    runs, left = Runs(options, console), []
    for name in dict.fromkeys(options.tasks):
        try:
            done.append(studied(runs, PLANS[name]))
        except MissingError as error:
            left.append(error)
    if left and not done:
        raise left[0]


def main(arguments: Sequence[str] | None = None) -> int:
    options = tyro.cli(Options, args=arguments, description=__doc__)
    return begin(studies, report, options, [], store=options.store)


if __name__ == "__main__":
    sys.exit(main())
