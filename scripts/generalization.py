"""Does a network that has learnt short sequences know long ones? As in Pascanu, Mikolov, Bengio (2013), section 4.1.

One network a seed (tanh, 50 units, SGD, clipping, Omega) learns temporal order from sequences of 50 to 200 steps, until
fewer than 1 % of 10,000 fresh ones are wrong. Then it is measured, as it is, on 10,000 fresh sequences of each of some
lengths up to 5,000. The paper's network made no error at any of them.

The paper draws lengths from 50 to 200 from the first update on, and takes hundreds of thousands of updates. By default
the longest length grows here in stages, `--stages 50 70 100 140 200`: batches are of 50 steps until fewer than 1 % of
them are wrong, then of 50 to 70, and so on. What is learnt in the end is the same task at the same lengths, sooner.
`--stages 200` is the paper's way; give it a `--name` of its own.

A seed that is not there within the budget is measured at the best evaluation of the last stage it came to.

Everything is kept beside the store. Ctrl-C and the same command go on where it was; more seeds or lengths add to what
is there; a larger budget goes on with seeds that were not done.

Usage: python scripts/generalization.py --seeds 3
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from generalization_report import Point, picture as picture, points_of as points_of, state as state, table
from rich.console import Console

import nbflow as nf
from nbflow import statistics
from nbflow.experiments.code_version import code_version
from nbflow.experiments.console import (
    Found as Something,
    begin,
    check_numbers,
    compiling,
    document,
    keep,
    say,
    tell,
)
from nbflow.experiments.experiment import key_of
from nbflow.experiments.jobs import Job, Watch, done, job, run_all
from nbflow.experiments.methods import omega
from nbflow.records import Floats
from nbflow.storage.compact import acted
from nbflow.storage.store import Row, Store

# Updates of a seed at budget 1, in all stages together, and between two measurements of its error.
UPDATES, EVALUATE_EVERY, RECORD_EVERY = 500_000, 2_000, 500
# Sequences, and steps of all of them, in a pass of a measurement: some tens of MB.
PASS, STEPS_A_PASS = 200, 100_000
# Sequences of a measurement are of other seeds than those that decided when training ends.
MEASURE_SEED = 2**32


@dataclass(frozen=True)
class Options:
    """What is trained, how long, where it is measured, and where the results go."""

    seeds: int = 3
    """Networks, each with first weights and sequences of its own."""
    budget: float = 1.0
    """How long a seed may be trained, in units of 500,000 updates."""
    lengths: tuple[int, ...] = (50, 100, 200, 350, 500, 1000, 2000, 3500, 5000)
    """Where the trained networks are measured, in steps."""
    stages: tuple[int, ...] = (50, 70, 100, 140, 200)
    """The longest sequences trained on, stage by stage; each stage ends when it is solved. 200 alone: as the paper."""
    shortest: int = 50
    """The shortest sequences trained on."""
    size: int = 10_000
    """Fresh sequences at each length, and in each evaluation."""
    task: str = "temporal_order"
    """The task, by the name of its file in nbflow/tasks."""
    init: str = "basic_tanh"
    """First weights, by the name of a file in nbflow/inits."""
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
    solved_below: float = 0.01
    """The error below which a stage is solved, and training ends after the last."""
    confidence: float = 0.95
    """Of the intervals."""
    out: Path = Path("results")
    """The folder for store, picture and JSON."""
    name: str = "generalization"
    """How these files are called."""

    @property
    def updates(self) -> int:
        """Most updates of a seed."""
        return max(round(UPDATES * self.budget), 1)

    @property
    def store(self) -> Store:
        return Store(self.out / f"{self.name}.jsonl")


# Training.


def experiment(options: Options, stage: int, updates: int) -> nf.Experiment:
    """Return what a stage trains, for at most so many updates."""
    recipe = nf.Recipe(
        lr=options.lr, batch_size=options.batch_size, lengths=(options.shortest, options.stages[stage]),
        clip=nf.Clip("norm", options.threshold), flow=omega("squared", options.alpha),
        max_updates=updates, record_every=RECORD_EVERY, evaluate_every=EVALUATE_EVERY, evaluate_size=options.size,
        solved_below=options.solved_below, stop_when_solved=True,
    )  # fmt: skip
    return nf.Experiment(options.task, recipe, "tanh", options.hidden, options.init)


def training_jobs(options: Options) -> list[Job]:
    """Return the training of each seed."""
    found = []
    for seed in range(options.seeds):
        stages = [experiment(options, stage, 1) for stage in range(len(options.stages))]
        # A larger budget goes on with the same checkpoints, and has a line of its own.
        way = hashed([key_of(one, seed, code_version()) for one in stages])
        key = hashed([way, options.updates])
        found.append(job(options.store, key, f"seed {seed}", options.updates, (options, seed), way))
    return found


def hashed(what: Any) -> str:
    """Return a name for plain data."""
    return "r" + hashlib.sha256(json.dumps(what).encode()).hexdigest()[:32]


def learn(job: Job, watch: Watch) -> Row | None:
    """Train a seed through all stages, or go on with it; called in a worker."""
    options, seed = job.what
    stages = [experiment(options, stage, options.updates) for stage in range(len(options.stages))]
    staged = nf.train_stages(
        stages[0].net, stages[0].theta(seed), options.task, [one.recipe for one in stages],
        max_updates=options.updates, replica_ids=[seed], callbacks=[in_all(watch)], checkpoint=job.path,
    )  # fmt: skip
    if not staged.complete:
        return None
    last = len(staged.runs) - 1
    assert staged.best is not None  # the last update is evaluated
    evaluations = [
        {"stage": top, "update": run.before + update, "error": error}
        for top, run in zip(options.stages, staged.runs, strict=False)
        for update, error in zip(*run.evaluations.values(), strict=True)
    ]
    return {
        "kind": "training", "seed": seed, **experiment(options, last, options.updates - staged.runs[last].before).flat,
        "stages": list(options.stages), "updates": staged.updates, "passed": staged.passed,
        "solved": staged.passed == len(stages), "best_error": staged.best.score, "evaluations": evaluations,
        "clipped": [acted(run.history) for run in staged.runs], "theta": text_of(staged.best.theta),
    }  # fmt: skip


def in_all(watch: Watch) -> Callable[[nf.Run], bool]:
    """Return a callback that counts the updates of the stages before."""
    return lambda run: watch(dataclasses.replace(run, updates=run.before + run.updates))


def text_of(theta: Floats) -> str:
    """Return parameters as a line of the store holds them: float32, little-endian, base64."""
    return base64.b64encode(theta.astype("<f4").tobytes()).decode()


def theta_of(text: str) -> Floats:
    return np.frombuffer(base64.b64decode(text), "<f4").astype(np.float32)


# Measuring.


def measuring_jobs(options: Options, trained: Sequence[Row]) -> list[Job]:
    """Return the measurement of each trained network at each length, the longest first."""
    found = []
    for length in sorted(set(options.lengths), reverse=True):
        for row in trained:
            key = hashed([row["key"], length, options.size])
            what = (options, row["seed"], row["theta"], length)
            found.append(job(options.store, key, "measuring", options.size, what))
    return found


def measure(job: Job, watch: Watch) -> Row | None:
    """Count the wrong answers of a network at a length, pass by pass; called in a worker."""
    options, seed, text, length = job.what
    net, theta = experiment(options, 0, 1).net, theta_of(text)
    size = min(PASS, max(STEPS_A_PASS // length, 1))
    wrong, run = 0, nf.Run(theta)
    for first in range(0, options.size, size):
        count = min(size, options.size - first)
        error = nf.evaluate(net, theta, options.task, length=length, size=count, seed=MEASURE_SEED + seed, index=first)
        wrong += round(error * count)
        run.updates = first + count
        if watch(run) and run.updates < options.size:
            return None
    return {"kind": "measurement", "seed": seed, "length": length, "size": options.size, "wrong": wrong}


@dataclass
class Found(Something):
    """The networks that were trained, and how often each is wrong at each length."""

    points: list[Point] = field(default_factory=list)
    trained: list[Row] = field(default_factory=list)


def report(options: Options, found: Found, console: Console) -> list[Path]:
    """Print the table, write the JSON and draw the picture; the networks themselves are in the store."""
    trained, points = found.trained, found.points
    console.print(table(options, trained, points))
    for row in trained:
        if row.get("clipped"):  # older lines do not say it
            parts = ", ".join("?" if part is None else f"{100 * part:.1f}" for part in row["clipped"])
            tell(console, f"seed {row['seed']}: the clip acted on {parts} % of the updates of each stage")
    if not any(row["solved"] for row in trained):
        said = (f"No network was below {100 * options.solved_below:g} % within {options.updates:,} updates: these are "
                f"the errors of the best ones that were met. Give a larger --budget.")  # fmt: skip
        say(console, said)
    rows = [
        point._asdict()
        | {"error": statistics.success_rate(point.wrong, point.size, confidence=options.confidence)._asdict()}
        for point in points
    ]
    networks = [{name: value for name, value in row.items() if name != "theta"} for row in trained]
    numbers = document(options, updates=options.updates, networks=networks, points=rows)
    return keep(console, options.out / options.name, numbers, {"": picture(options, trained, points)})


def check(options: Options) -> None:
    """Refuse what makes no sense before a worker finds it."""
    stages = list(options.stages)
    if not stages or stages != sorted(set(stages)) or stages[0] < options.shortest:
        raise ValueError(
            f"stages is {options.stages}; expected rising lengths, from {options.shortest} up. Give 50 100 200."
        )
    check_numbers(options, positive="budget lr threshold solved_below", part="confidence", least_0="alpha",
                  least_1="seeds size hidden batch_size")  # fmt: skip
    if not options.lengths:
        raise ValueError("lengths is empty; expected at least one. Leave it out.")
    task = nf.load_task(options.task)
    if min(*options.lengths, options.shortest) < task.shortest:
        raise ValueError(f"lengths is {options.lengths}; expected at least {task.shortest}, the shortest of the task.")
    for stage in range(len(stages)):
        of_stage = experiment(options, stage, 1)
        nf.train(of_stage.net, of_stage.theta(0), options.task, dataclasses.replace(of_stage.recipe, evaluate_every=0))


def work(options: Options, console: Console, found: Found, executor: Executor | None = None) -> None:
    """Train and measure, or go on with it; also what was measured of a network before Ctrl-C is found."""
    with compiling(console):
        check(options)
    store, training = options.store, training_jobs(options)
    try:
        run_all(learn, training, store, console, executor)
        run_all(measure, measuring_jobs(options, done(store, training)), store, console, executor)
    finally:
        found.trained = done(store, training)
        found.points = points_of(done(store, measuring_jobs(options, found.trained)))


def main(arguments: Sequence[str] | None = None, executor: Executor | None = None) -> int:
    options = tyro.cli(Options, args=arguments, description=__doc__)
    return begin(functools.partial(work, executor=executor), report, options, Found(), store=options.store.path)


if __name__ == "__main__":
    sys.exit(main())
