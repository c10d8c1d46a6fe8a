"""Does a random step above a threshold work almost as well as clipping, if it is rare, or short? On four tasks.

Goodfellow, Bengio, Courville (2016), section 10.11.1, say so of a random step in the place of a gradient above the
threshold. Here what brings one about, its trigger, is apart from its length (`nbflow.Clip("random", v, length=...)`).
tanh networks, plain SGD:

1. Two networks are trained without a clip (nbflow.calibrate_threshold): the norms of their gradients say what is large.
2. Twelve kinds of random steps: the trigger is the 90 or 99 % percentile of the norms so far (of the training itself),
   the greatest norm of step 1, or ten times their mean; the length is the trigger itself, the median norm of step 1, or
   a tenth of that. Each at four learning rates, three runs each; so is clipping by norm, at the median norm and at a
   tenth of it, and no clip. The best has most runs solved, then the least mean of updates (unsolved: the budget). A
   setting that has failed so often that it can no more be the best has no further runs.
3. Fresh seeds, the same for all three, at the best random step, the best clip by norm and the best rate without one.

A random step WORKS ALMOST AS WELL on a task if its success is less than 10 points below that of clipping by norm
(Newcombe) and its updates are less than 1.5 times as many (geometric means, over pairs of one seed), each by a
one-sided test at 5 %; it DOESN'T HOLD if a whole 90 % interval lies beyond; else it CAN'T be told.

Every run is kept as soon as it is done. Ctrl-C and the same command go on where it was.

Usage: python scripts/random_steps.py
       python scripts/random_steps.py --tasks memorization_10 --seeds 100
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import tyro
from compare_clipping_design import PLANS
from rich.console import Console
from rich.table import Table

import nbflow as nf
from nbflow import plot, statistics
from nbflow.experiments.code_version import code_version
from nbflow.experiments.console import begin, begun, check_numbers, document, headed, keep, tell
from nbflow.experiments.experiment import key_of
from nbflow.storage.compact import clipped_of, unpacked
from nbflow.storage.store import Row

if TYPE_CHECKING:
    TaskName: TypeAlias = str
else:
    TaskName = Literal[tuple(PLANS)]

# Most updates of a run, at budget 1.
BUDGETS = {"temporal_order_20": 2_000, "temporal_order_40": 8_000, "addition_10": 10_000, "memorization_10": 6_000}
LRS = (0.015, 0.05, 0.17, 0.6)
# Evaluations of a run: the grain of its first passage.
LOOKS = 50
BATCH = 20
# Seeds are numbers of replicas. Fresh ones count from 0; these are never among them.
TUNING_SEEDS, LOOK_SEEDS = range(1_000_000, 1_000_003), (2_000_000, 2_000_001)
# Unclipped training that is looked at: its sequences are of another seed of the task.
LOOK_LR, LOOK_UPDATES, LOOK_SEED = 0.1, 1_000, 1
ALPHA, POINTS, FACTOR = 0.05, 0.1, 1.5
ALMOST, NOT, UNCLEAR = "works almost as well", "doesn't hold", "can't tell"

PERCENTS = (90, 99)
TRIGGERS = {**{f"{p} % percentile": p for p in PERCENTS}, "the greatest": "greatest", "ten means": "ten_means"}
STEPS = ("the trigger", "the median", "a tenth of it")
METHODS = {"norm": "clipping by norm", "random": "random step", "none": "no clip"}
# A gradient that is not finite is left out by all.
BAD = "skip"


@dataclass(frozen=True)
class Options:
    """Which tasks, for how long, and where the results go."""

    tasks: tuple[TaskName, ...] = tuple(PLANS)
    """Which tasks."""
    seeds: int = 40
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
    """Report from the runs of this version of the code (the column "code" of the store) and train nothing."""
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


@dataclass
class Study:
    """One task.

    Attributes
    ----------
    seen : dict of float
        Norms of unclipped training: median, greatest, ten_means.
    tuned : dict of (method, lr, experiment, tuning runs)
        The best learning rate of every variant, by its name.
    chosen : dict of str
        The best variant of each method.
    fresh : dict of list of rows
        By method.
    """

    plan: Any
    updates: int
    seen: dict[str, float] = field(default_factory=dict)
    tuned: dict[str, tuple[str, float, nf.Experiment, list[Row]]] = field(default_factory=dict)
    chosen: dict[str, str] = field(default_factory=dict)
    fresh: dict[str, list[Row]] = field(default_factory=dict)

    def costs(self, rows: Sequence[Row]) -> list[float]:
        """Return updates until solved, the whole budget where unsolved."""
        return [float(self.updates if row.get("first_passage") is None else row["first_passage"]) for row in rows]

    def ratio(self, method: str) -> nf.Interval:
        """Return how many times the updates of clipping by norm, with its 90 % interval."""
        one, two = (np.log(self.costs(self.fresh[name])) for name in (method, "norm"))
        return nf.Interval(
            *map(math.exp, statistics.paired_equivalence(one, two, math.log(FACTOR), alpha=ALPHA).difference)
        )

    def points(self, method: str) -> nf.Interval:
        """Return the success less that of clipping by norm, with Newcombe's 90 % interval."""
        solved = tuple(solved_of(self.fresh[name]) for name in (method, "norm"))
        runs = tuple(len(self.fresh[name]) for name in (method, "norm"))
        return statistics.rate_difference(solved, runs, confidence=1 - 2 * ALPHA)  # type: ignore[arg-type]

    def verdict(self, method: str) -> str:
        return verdict(self.points(method), self.ratio(method))


def verdict(points: nf.Interval, ratio: nf.Interval) -> str:
    """Say in a word what is known beside clipping by norm, from 90 % intervals of success and of cost."""
    if points.low > -POINTS and ratio.high < FACTOR:
        return ALMOST
    return NOT if points.high < -POINTS or ratio.low > FACTOR else UNCLEAR


def solved_of(rows: Sequence[Row]) -> int:
    return sum(row.get("first_passage") is not None for row in rows)


# What is trained.


def variants(seen: dict[str, float]) -> dict[str, tuple[str, nf.Clip]]:
    """Return method and clip of every variant by its name."""
    parts = {"the median": seen["median"], "a tenth of it": rounded(seen["median"] / 10)}
    found = {}
    for trigger, what in TRIGGERS.items():
        threshold: Any = seen[what] if isinstance(what, str) else nf.load_threshold("percentile", percent=what)
        for step in STEPS:
            found[f"{trigger}, {step}"] = "random", nf.Clip("random", threshold, BAD, length=parts.get(step))
    for step, value in parts.items():
        found[f"norm, {step}"] = "norm", nf.Clip("norm", value, BAD)
    return {**found, "none": ("none", nf.Clip("norm", math.inf, BAD))}


def rounded(value: float) -> float:
    return float(f"{value:.4g}")


def experiment(options: Options, plan: Any, lr: float, clip: nf.Clip | None) -> nf.Experiment:
    """Return a run of a task."""
    updates = updates_of(options, plan)
    recipe = nf.Recipe(
        lr=lr, batch_size=BATCH, lengths=plan.length, max_updates=updates, record_every=max(updates // 5, 1),
        evaluate_every=updates // LOOKS, evaluate_size=options.evaluate_size, stop_when_solved=True, clip=clip,
    )  # fmt: skip
    return nf.Experiment(plan.tuned_on, recipe, n_hidden=options.hidden, init=plan.init)


def updates_of(options: Options, plan: Any) -> int:
    return max(round(BUDGETS[plan.name] * options.budget), LOOKS)


class Runs:
    """The store, and what fills it."""

    def __init__(self, options: Options, console: Console) -> None:
        self.options, self.console, self.code = options, console, options.code_of
        self.store = nf.Store(unpacked(options.store))

    def sweep(self, words: str, experiments: Sequence[nf.Experiment], seeds: Sequence[int]) -> list[list[Row]]:
        """Train what is missing, and return the runs of each experiment."""
        tell(self.console, f"{words}: {len(experiments) * len(seeds):,} runs")
        keys = [[key_of(one, seed, self.code) for seed in seeds] for one in experiments]
        there = self.store.read()
        if any(key not in there for row in keys for key in row):
            self.refuse_old_code(words)
            swept = nf.sweep(list(experiments), list(seeds), self.store.path, workers=self.options.workers)
            if swept.missing:
                raise KeyboardInterrupt(f"{words}: {swept.missing:,} runs are missing")
            there = self.store.read()
        return [[there[key] for key in row] for row in keys]

    def seen(self, plan: Any) -> dict[str, float]:
        """Return what the norms of unclipped training are."""
        one = experiment(self.options, plan, LOOK_LR, None)
        key = f"seen {key_of(one, LOOK_SEED, self.code)}"
        if key not in self.store.read():
            self.refuse_old_code(f"{plan.title}: unclipped norms")
            theta = np.array([one.theta(seed) for seed in LOOK_SEEDS])
            bare = replace(one.recipe, stop_when_solved=False)
            norms = nf.calibrate_threshold(one.net, theta, one.task, bare, updates=LOOK_UPDATES, seed=LOOK_SEED).norms
            numbers = {"median": np.nanmedian(norms), "greatest": np.nanmax(norms), "ten_means": 10 * np.nanmean(norms)}
            self.store.add([{"key": key, "code": self.code, "kind": "seen", "plan": plan.name,
                             **{name: rounded(float(value)) for name, value in numbers.items()}}])  # fmt: skip
        row = self.store.read()[key]
        return {name: row[name] for name in ("median", "greatest", "ten_means")}

    def refuse_old_code(self, words: str) -> None:
        """Refuse to compute what another version of the code is said to have computed."""
        if self.options.code is not None:
            raise ValueError(
                f"code is '{self.code}', and for {words} the store lacks something of it; expected a version whose "
                f"runs are all there. Leave it out to train."
            )


def studied(runs: Runs, plan: Any) -> Study:
    """Do every stage of a task."""
    options = runs.options
    study = Study(plan, updates_of(options, plan), runs.seen(plan))
    places = [(name, method, lr, experiment(options, plan, lr, clip))
              for name, (method, clip) in variants(study.seen).items() for lr in LRS]  # fmt: skip
    for (name, method, lr, one), rows in zip(places, tuned(runs, places, plan.title), strict=True):
        if name not in study.tuned or score(study, rows) < score(study, study.tuned[name][-1]):
            study.tuned[name] = method, lr, one, rows
    for method in METHODS:
        mine = [name for name, tuned in study.tuned.items() if tuned[0] == method]
        study.chosen[method] = min(mine, key=lambda name: score(study, study.tuned[name][-1]))
    best = [study.tuned[name][2] for name in study.chosen.values()]
    study.fresh = dict(zip(METHODS, runs.sweep(f"{plan.title}: fresh seeds", best, range(options.seeds)), strict=True))
    return study


def tuned(runs: Runs, places: Sequence[tuple[str, str, float, nf.Experiment]], title: str) -> list[list[Row]]:
    """Return the tuning runs of every setting: of one that can no more be its method's best, fewer than all.

    Those go on first that may yet solve most seeds. So the best is the one that all runs of all settings would show.
    """
    found: list[list[Row]] = [[] for _ in places]
    while True:
        solved = [solved_of(rows) for rows in found]
        best = {method: max(solved[k] for k, place in enumerate(places) if place[1] == method) for method in METHODS}
        reach = [solved[k] + len(TUNING_SEEDS) - len(rows) for k, rows in enumerate(found)]
        open_ = [k for k, rows in enumerate(found) if len(rows) < len(TUNING_SEEDS) and reach[k] >= best[places[k][1]]]
        if not open_:
            return found
        most, fewest = max((reach[k], -len(found[k])) for k in open_)
        some = [k for k in open_ if (reach[k], -len(found[k])) == (most, fewest)]
        seed = TUNING_SEEDS[-fewest]
        for k, rows in zip(some, runs.sweep(f"{title}: tuning", [places[k][-1] for k in some], [seed]), strict=True):
            found[k] += rows


def score(study: Study, rows: Sequence[Row]) -> tuple[float, ...]:
    """Return what the best setting has least of: unsolved runs, mean updates, mean last error."""
    errors = [row.get("score") for row in rows]
    last = float(np.mean([math.inf if e is None or not math.isfinite(e) else e for e in errors]))
    return -float(solved_of(rows)), float(np.mean(study.costs(rows))), last


def studies(options: Options, console: Console, done: list[Study]) -> None:
    """Do every stage of every task."""
    check_numbers(options, positive="budget", least_1="hidden evaluate_size", least_2="seeds")
    if not options.tasks:
        raise ValueError("tasks is empty; expected one at least. Leave it out.")
    if options.seeds > TUNING_SEEDS[0]:
        raise ValueError(f"seeds is {options.seeds}; expected at most {TUNING_SEEDS[0]:,}. Give 40.")
    begun(console)
    runs = Runs(options, console)
    for name in options.tasks:
        done.append(studied(runs, PLANS[name]))


# What is said of it.


def compared(done: Sequence[Study]) -> Table:
    """Return what fresh seeds came to, beside clipping by norm."""
    heads = ("task", "method", "lr", "solved", "updates, median", "points of success", "times the updates",
             "clip acted", "verdict")  # fmt: skip
    found = headed("Fresh seeds, beside clipping by norm (90 % intervals)", *heads, wrap=False)
    for study in done:
        for method, title in METHODS.items():
            name, rows = study.chosen[method], study.fresh[method]
            lr = study.tuned[name][1]
            times = statistics.survival(statistics.passages([row.get("first_passage") for row in rows], study.updates))
            beside = method != "norm"
            found.add_row(
                study.plan.title, title if method == "none" else f"{title}: {name.removeprefix('norm, ')}",
                f"{lr:g}{'*' * (lr in (LRS[0], LRS[-1]))}", f"{solved_of(rows)} of {len(rows)}",
                f"{times.median:,.0f}" if math.isfinite(times.median) else f"over {study.updates:,}",
                in_points(study.points(method)) if beside else "", said(study.ratio(method)) if beside else "1",
                acted(rows) if method != "none" else "-", study.verdict(method) if beside else "",
            )  # fmt: skip
    return found


def cells(done: Sequence[Study]) -> Table:
    """Return what tuning saw of every trigger and length: runs solved, and mean updates, at the best rate of each."""
    found = headed("Tuning: solved, mean updates (unsolved: the budget), at the best learning rate of each",
                   "trigger, length", *(study.plan.title for study in done), wrap=False)  # fmt: skip
    for name in done[0].tuned:
        row = []
        for study in done:
            _, lr, _, rows = study.tuned[name]
            mark = " (best)" if name in study.chosen.values() and name != "none" else ""
            row.append(f"{solved_of(rows)} of {len(rows)}, {np.mean(study.costs(rows)):,.0f}, lr {lr:g}{mark}")
        found.add_row(METHODS.get(name, name), *row)
    return found


def thresholds(done: Sequence[Study]) -> Table:
    """Return the norms of unclipped training."""
    found = headed("Norms of unclipped training", "", *(study.plan.title for study in done))
    for name, title in (("median", "median"), ("ten_means", "ten times the mean"), ("greatest", "greatest")):
        found.add_row(title, *(f"{study.seen[name]:.3g}" for study in done))
    return found


def said(interval: nf.Interval) -> str:
    return f"{interval.value:.2f} ({interval.low:.2f}-{interval.high:.2f})"


def in_points(interval: nf.Interval) -> str:
    return f"{100 * interval.value:+.0f} ({100 * interval.low:+.0f} to {100 * interval.high:+.0f})"


def acted(rows: Sequence[Row]) -> str:
    """Say in which part of the updates the clip acted."""
    parts = [part for part in map(clipped_of, rows) if part is not None]
    return f"{100 * float(np.mean(parts)):.2g} %" if parts else "-"


def tally(done: Sequence[Study], method: str = "random") -> str:
    """Say on how many tasks which verdict holds."""
    seen = [study.verdict(method) for study in done]
    return ", ".join(f"{word} on {seen.count(word)} of {len(done)}" for word in (ALMOST, NOT, UNCLEAR) if word in seen)


def picture(done: Sequence[Study]) -> Any:
    """Draw when fresh seeds are solved, and what tuning saw of every trigger and length."""
    words = (
        "Above: the part of fresh seeds that is not yet solved, at the best setting of each method.\nBelow: mean "
        "updates until solved of three tuning seeds at the best learning rate of each trigger and length (unsolved: "
        "the budget);\nfilled where all three were solved."
    )
    colours = dict(zip(METHODS, plot.COLOURS, strict=False))
    with plot.page("Random steps, their trigger apart from their length", words, (3.2 * len(done) + 1, 6.2)) as page:
        axes = page.subplots(2, len(done), squeeze=False)
        for k, study in enumerate(done):
            above, below = axes[:, k]
            for method, title in METHODS.items():
                rows = study.fresh[method]
                times = statistics.passages([row.get("first_passage") for row in rows], study.updates)
                plot.survival(statistics.survival(times), colour=colours[method], label=title, ax=above)
            above.set_title(study.plan.title)
            _draw_cells(below, study)
            below.set_yticks(range(len(TRIGGERS)), TRIGGERS if k == 0 else [])
        plot.legend_below(axes[0, 0])
        plot.legend_below(axes[1, 0])
    return page


def _draw_cells(axes: Any, study: Study) -> None:
    for row, trigger in enumerate(TRIGGERS):
        for k, step in enumerate(STEPS):
            rows, colour = study.tuned[f"{trigger}, {step}"][-1], plot.COLOURS[k]
            filled = colour if solved_of(rows) == len(rows) else "none"
            axes.plot(np.mean(study.costs(rows)), row + 0.2 * (k - 1), "o", color=colour, markerfacecolor=filled,
                      label=f"length: {step}" if row == 0 else None)  # fmt: skip
    plot.reference(axes, x=float(np.mean(study.costs(study.tuned[study.chosen["norm"]][-1]))))
    axes.set_xscale("log")
    plot.plain_log(axes.xaxis)
    axes.invert_yaxis()
    plot.grid(axes, "x")
    axes.set_xlabel("updates until solved\n(line: clipping by norm)")


def numbers(options: Options, done: Sequence[Study]) -> dict[str, Any]:
    """Return every setting and result as JSON takes it; the runs are in the store."""
    tasks = {}
    for study in done:
        tuning = {name: {"method": method, "lr": lr, "solved": solved_of(rows),
                         "updates": float(np.mean(study.costs(rows)))}
                  for name, (method, lr, _, rows) in study.tuned.items()}  # fmt: skip
        fresh = {method: {"variant": study.chosen[method], "solved": solved_of(rows), "runs": len(rows),
                          "points": study.points(method)._asdict(), "ratio": study.ratio(method)._asdict(),
                          "verdict": study.verdict(method) if method != "norm" else "", "costs": study.costs(rows)}
                 for method, rows in study.fresh.items()}  # fmt: skip
        tasks[study.plan.name] = {"updates": study.updates, "seen": study.seen, "tuning": tuning, "fresh": fresh}
    return document(options, code=options.code_of, lrs=LRS, alpha=ALPHA, points=POINTS, factor=FACTOR, tasks=tasks)


def report(options: Options, done: Sequence[Study], console: Console) -> list[Path]:
    """Print tables, write the JSON and draw the picture."""
    for table in (thresholds(done), cells(done), compared(done)):
        console.print(table)
    tell(console, "*: the learning rate is at an end of those that were tried.")
    tell(console, f"A random step {tally(done)}; no clip: {tally(done, 'none')}.")
    return keep(console, options.out / options.name, numbers(options, done), {"": picture(done)})


def main(arguments: Sequence[str] | None = None) -> int:
    options = tyro.cli(Options, args=arguments, description=__doc__)
    return begin(studies, report, options, [], store=options.store)


if __name__ == "__main__":
    sys.exit(main())
