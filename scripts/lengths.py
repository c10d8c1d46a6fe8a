"""What must be robust must be trained: where symbols stand in training, and how long a trained network remembers them.

Temporal order asks which of two symbols came first. At the positions of Pascanu, Mikolov, Bengio (2013) the first one
never comes later than a fifth of the sequence, so that networks trained on up to 200 steps never wait longer than 40.
Here networks learn it at these positions, or with symbols anywhere (nbflow/tasks/temporal_order_anywhere.py), with
clipping alone or with clipping and Omega: on 20 to 60 steps at a learning rate of 0.1 until under 1 % are wrong, then
on 50 to 200 at 0.01 until none of 10,000 is. Then they are measured as they are: at lengths up to 5,000, and with the
wait before the first symbol, the gap, and the tail after the second stretched one at a time.

Every network is kept in the store, parameters included, as soon as it is done, and so is every measurement. Ctrl-C and
the same command go on where it was, also with later code: a line says which code and which processor made it.

Usage: python scripts/lengths.py --seeds 10
       python scripts/lengths.py --report-only     (tables and pictures from the store, no training)
"""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import lengths_report as reporting
import numpy as np
import tyro
from generalization import hashed, text_of, theta_of
from rich.console import Console

import nbflow as nf
from nbflow.experiments import machine
from nbflow.experiments.code_version import code_version
from nbflow.experiments.console import Found as Something, begin, check_numbers, compiling, document, keep
from nbflow.experiments.experiment import key_of
from nbflow.experiments.jobs import Job, Watch, Work, done, job, run_all
from nbflow.experiments.methods import cures, omega
from nbflow.storage.compact import unpacked
from nbflow.storage.store import Row, Store

# Where symbols stand, and the task of it.
PLACES = {"paper": "temporal_order", "anywhere": "temporal_order_anywhere"}
# Stages of training: lengths, learning rate, the part wrong below which it is over, and its most updates.
STAGES = (((20, 60), 0.1, 0.01, 20_000), ((50, 200), 0.01, 0.0001, 40_000))
EVALUATE_EVERY, RECORD_EVERY = 500, 500
# What a sequence is made of where one part is stretched, and to what.
PARTS = {"wait": 30, "gap": 80, "tail": 90}
STRETCHED = (60, 120, 250, 500, 1000, 2000, 5000)
STRETCHED_SIZE = 1_000
# Where fixed points are looked for from: states of so many sequences after these steps, with no symbol seen, one or
# both, and then so many steps of the mean distractor.
STARTS, AFTER, SETTLED = 40, (15, 30, 45, 60), 2_000
# Sequences of a measurement are of other seeds than those that decided when training ends.
MEASURE_SEED = 2**32
# Steps of all sequences in a pass of a measurement: some tens of MB.
STEPS_A_PASS = 100_000

Place = Literal["paper", "anywhere"]
Method = Literal["clip", "clip+omega"]


@dataclass(frozen=True)
class Options:
    """What is trained, where it is measured, and where the results go."""

    seeds: int = 10
    """Networks of each arm, each with first weights and sequences of its own."""
    places: tuple[Place, ...] = ("paper", "anywhere")
    """Where symbols stand in training."""
    methods: tuple[Method, ...] = ("clip", "clip+omega")
    """Which cures."""
    lengths: tuple[int, ...] = (50, 100, 150, 200, 350, 500, 750, 1000, 2000, 3500, 5000)
    """Where the trained networks are measured, in steps."""
    size: int = 10_000
    """Fresh sequences at each length, and in each evaluation."""
    budget: float = 1.0
    """How long a network may be trained, in units of 20,000 updates of the first and 40,000 of the second stage."""
    hidden: int = 50
    """H, hidden tanh units of a network."""
    alpha: float = 2.0
    """The weight of Omega beside the loss; its penalty is (r^2 - 1)^2, the mean over steps and sequences."""
    threshold: float = 1.0
    """What the norm of a gradient is clipped to."""
    workers: int | None = None
    """Local processes, by default one for each core."""
    report_only: bool = False
    """Make tables and pictures from what is in the store, and train nothing."""
    out: Path = Path("results")
    """The folder for store, picture and JSON."""
    name: str = "lengths"
    """How these files are called."""

    @property
    def store(self) -> Store:
        return Store(unpacked(self.out / f"{self.name}.jsonl"))

    def experiments(self, place: str, method: str) -> list[nf.Experiment]:
        """Return what an arm trains, stage by stage."""
        found = []
        for lengths, lr, solved_below, most in STAGES:
            recipe = nf.Recipe(
                lr=lr, batch_size=20, lengths=lengths,
                **cures(method, clip=nf.Clip("norm", self.threshold), flow=omega("squared", self.alpha)),
                max_updates=max(round(most * self.budget), 1), record_every=RECORD_EVERY,
                evaluate_every=EVALUATE_EVERY, evaluate_size=self.size, solved_below=solved_below,
                stop_when_solved=True,
            )  # fmt: skip
            found.append(nf.Experiment(PLACES[place], recipe, "tanh", self.hidden, "basic_tanh"))
        return found


# Training.


def training(options: Options, place: str, method: str, seed: int) -> Job:
    """Return the training of a seed of an arm."""
    stages = options.experiments(place, method)
    # By what is trained, not by what code: nor by fields of recipes that did not exist when a line was made.
    key = hashed([key_of(one, seed, "") for one in stages])
    most = sum(one.recipe.max_updates for one in stages)
    return job(options.store, key, f"{place}, {method}", most, (options, place, method, seed))


def learn(job: Job, watch: Watch) -> Row | None:
    """Train a network through both stages, or go on with it."""
    options, place, method, seed = job.what
    stages = options.experiments(place, method)
    staged = nf.train_stages(
        stages[0].net, stages[0].theta(seed), PLACES[place], [one.recipe for one in stages], replica_ids=[seed],
        callbacks=[in_all(watch)], checkpoint=job.path,
    )  # fmt: skip
    if not staged.complete:
        return None
    assert staged.best is not None  # the last update is evaluated
    evaluations = [{"stage": k, "update": list(run.evaluations["update"]), "score": list(run.evaluations["score"])}
                   for k, run in enumerate(staged.runs)]  # fmt: skip
    acted = [clipped_part(run) for run in staged.runs]
    return {
        "kind": "training", "place": place, "method": method, "seed": seed, **made_by(),
        "stages": [[*lengths, lr, solved_below] for lengths, lr, solved_below, _ in STAGES],
        "n_hidden": options.hidden, "init": stages[0].init, "updates": staged.updates,
        "updates_by_stage": [run.updates for run in staged.runs], "passed": staged.passed,
        "solved": staged.passed == len(stages), "best_score": staged.best.score, "clipped_part": acted,
        "seconds": sum(run.seconds for run in staged.runs), "evaluations": evaluations,
        "theta": text_of(staged.best.theta),
    }  # fmt: skip


def in_all(watch: Watch) -> Callable[[nf.Run], bool]:
    """Return a callback that counts the updates of the stages before."""
    return lambda run: watch(dataclasses.replace(run, updates=run.before + run.updates))


def clipped_part(run: nf.Run) -> float:
    """Return in which part of the updates the clip acted."""
    return float(np.mean(run.history["clipped"])) if run.history.get("clipped") else 0.0


def made_by() -> dict[str, str]:
    """Return what made a line: code and processor."""
    return {"code": code_version(), "processor": machine.processor()}


# Measuring.


def measurements(options: Options, trained: Row) -> list[Job]:
    """Return the measurements of a trained network: lengths, the longest first, and parts stretched."""
    found = []
    measured = ["paper"] if trained["place"] == "paper" else ["paper", "anywhere"]
    for place in measured:
        for length in sorted(set(options.lengths), reverse=True):
            key = hashed([trained["key"], place, length, options.size])
            found.append(job(options.store, key, "measuring", 1, (options, trained, place, length)))
    key = hashed([trained["key"], "points", STARTS, AFTER, SETTLED])
    found.append(job(options.store, key, "fixed points", 1, (options, trained, "points", None)))
    for part in PARTS:
        key = hashed([trained["key"], part, PARTS, STRETCHED, STRETCHED_SIZE])
        found.append(job(options.store, key, "stretching", 1, (options, trained, part, None)))
    return found


def measure(job: Job, watch: Watch) -> Row | None:
    """Count the wrong answers of a network at a length, or with a part stretched."""
    options, trained, where, length = job.what
    theta = theta_of(trained["theta"])
    head = {name: trained[name] for name in ("place", "method", "seed")}
    if length is not None:
        wrong = wrong_at(options.hidden, theta, PLACES[where], length, options.size, trained["seed"])
        return {"kind": "measurement", **head, **made_by(), "measured": where, "length": length, "size": options.size,
                "wrong": wrong}  # fmt: skip
    if where == "points":
        first = options.experiments(trained["place"], trained["method"])[0].theta(trained["seed"])
        return {"kind": "points", **head, **made_by(), "starts": STARTS * len(AFTER),
                "before": attractors(options.hidden, first), "after": attractors(options.hidden, theta)}  # fmt: skip
    counts = {to: wrong_stretched(options.hidden, theta, {**PARTS, where: to}, STRETCHED_SIZE, trained["seed"])
              for to in (PARTS[where], *STRETCHED)}  # fmt: skip
    return {"kind": "stretched", **head, **made_by(), "part": where, "from": PARTS, "size": STRETCHED_SIZE,
            "wrong": [[to, wrong] for to, wrong in counts.items()]}  # fmt: skip


def wrong_at(hidden: int, theta: Any, task: str, length: int, size: int, seed: int) -> int:
    """Return how many of so many fresh sequences of a length a network gets wrong; the same each time it is asked."""
    net, step = network(hidden), max(STEPS_A_PASS // length, 1)
    wrong = 0
    for first in range(0, size, step):
        count = min(step, size - first)
        score = nf.evaluate(net, theta, task, length=length, size=count, seed=MEASURE_SEED + seed, index=first)
        wrong += round(score * count)
    return wrong


def network(hidden: int) -> nf.Network:
    """Return the network that all arms train."""
    task = nf.load_task("temporal_order")
    return nf.Network("tanh", task.n_in, hidden, task.n_out, task.loss)


def wrong_stretched(hidden: int, theta: Any, parts: dict[str, int], size: int, seed: int) -> int:
    """Return how many of so many sequences with this wait, gap and tail, in steps, a network gets wrong."""
    net, length = network(hidden), sum(parts.values()) + 2
    rng = np.random.default_rng([seed, *parts.values()])
    wrong, step = 0, max(STEPS_A_PASS // length, 1)
    for first in range(0, size, step):
        count = min(step, size - first)
        tokens = rng.integers(2, 6, (length, count))
        symbols = rng.integers(0, 2, (2, count))
        tokens[parts["wait"]], tokens[parts["wait"] + 1 + parts["gap"]] = symbols
        answers = nf.predict(net, theta, tokens)[-1].argmax(axis=-1)
        wrong += int((answers != symbols[0] + 2 * symbols[1]).sum())
    return wrong


def attractors(hidden: int, theta: Any) -> dict[str, Any]:
    """Return the fixed points to which states go under the mean distractor: how many attract, and eigenvalues."""
    net, task = network(hidden), nf.load_task(PLACES["anywhere"])
    tokens = task.sample(seed=MEASURE_SEED, index=0, batch_size=STARTS, length=max(AFTER), stream="evaluation").inputs
    states = np.concatenate([nf.predict(net, theta, tokens[:steps], return_state=True)[1] for steps in AFTER])
    mean = np.array([0, 0, 0.25, 0.25, 0.25, 0.25])
    found = nf.fixed_points(net, theta, mean, starts=states, steps=SETTLED)
    inside = found.attracting
    return {"attracting": int(inside.sum()), "others": int((~inside).sum()), "lost": int(found.lost),
            "reached": found.reached[inside].tolist(),
            "largest": np.abs(found.eigenvalues[inside, 0]).tolist()}  # fmt: skip


# All of it.


@dataclass
class Found(Something):
    """The networks that were trained, and what was measured of them."""

    trained: list[Row] = field(default_factory=list)
    measured: list[Row] = field(default_factory=list)


def check(options: Options) -> None:
    """Refuse what would end in nonsense; the rest is refused by nbflow."""
    check_numbers(options, positive="budget threshold", least_0="alpha", least_1="seeds size hidden")
    for name in ("places", "methods", "lengths"):
        if not getattr(options, name):
            raise ValueError(f"{name} is empty; expected one at least. Leave it out.")
    if min(options.lengths) < nf.load_task("temporal_order").shortest:
        raise ValueError(f"lengths has {min(options.lengths)}; expected at least 10, the shortest of the task.")
    if options.workers is not None and options.workers < 1:
        raise ValueError(f"workers is {options.workers}; expected at least 1. Leave it out.")
    if options.report_only and not options.store.path.exists():
        raise ValueError(f"report_only asks for {options.store.path}, which is not there. Leave it out to train.")


def work(options: Options, console: Console, found: Found, executor: Executor | None = None) -> None:
    """Train and measure seed by seed, or go on with it."""
    check(options)
    if not options.report_only:
        with compiling(console):
            options.experiments("paper", "clip")
    store = options.store

    def do(work: Work, jobs: Sequence[Job]) -> list[Row]:
        if options.report_only:
            return done(store, jobs)
        return run_all(work, jobs, store, console, executor, options.workers)

    try:
        for seed in range(options.seeds):
            arms = [training(options, place, method, seed) for place in options.places for method in options.methods]
            trained = do(learn, arms)
            found.trained += trained
            found.measured += do(measure, [one for row in trained for one in measurements(options, row)])
    except KeyboardInterrupt:
        found.trained, found.measured = all_of(options)
        raise


def all_of(options: Options) -> tuple[list[Row], list[Row]]:
    """Return all lines of the store that these options ask for."""
    arms = [training(options, place, method, seed)
            for seed in range(options.seeds) for place in options.places for method in options.methods]  # fmt: skip
    trained = done(options.store, arms)
    return trained, done(options.store, [one for row in trained for one in measurements(options, row)])


def report(options: Options, found: Found, console: Console) -> list[Path]:
    """Print the tables, write the JSON and draw the picture; the networks themselves are in the store."""
    for table in reporting.tables(found.trained, found.measured):
        console.print(table)
    networks = [{name: value for name, value in row.items() if name != "theta"} for row in found.trained]
    numbers = document(options, networks=networks, measured=json.loads(json.dumps(found.measured)))
    drawn = {"": reporting.picture(found.trained, found.measured)}
    return keep(console, options.out / options.name, numbers, drawn)


def main(arguments: Sequence[str] | None = None, executor: Executor | None = None) -> int:
    options = tyro.cli(Options, args=arguments, description=__doc__)
    return begin(functools.partial(work, executor=executor), report, options, Found(),
                 store=options.out / f"{options.name}.jsonl")  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
