"""Does a random step lead away from where the gradient is Inf or NaN? From where real trainings came to an end.

Goodfellow, Bengio, Courville (2016), section 10.11.1: when the gradient is Inf or NaN, a random step of size v will
typically move away from the numerically unstable configuration. Here 100 networks learn temporal order without a clip,
at learning rates that are too large, until their first gradient that is not finite; likewise with Adam. From the
parameters just before that update, with the same minibatches as they would have seen, each policy makes 50 updates:
random (a step of length v), skip, zero, shrink, keep, raise (docs/clipping.md), at the training's own learning rate,
and at a usual one. What moments the optimizer had, it has.

A network is *back* if loss and gradient are finite in all of the last 10 of the 50 updates, and *well* if besides its
mean loss there is below twice that of guessing.

Every network is kept in the store, parameters included, and so is every outcome. Ctrl-C and the same command go on
where it was; when all is there it makes table and picture again, and trains nothing.

Usage: python scripts/overflow.py
       python scripts/overflow.py --optimizers sgd --networks 20
"""

from __future__ import annotations

import dataclasses
import math
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import overflow_report as reporting
import tyro
from generalization import hashed, text_of, theta_of
from rich.console import Console

import nbflow as nf
from nbflow.experiments import machine
from nbflow.experiments.code_version import code_version
from nbflow.experiments.console import Found as Something, Show, begin, begun, check_numbers, document, keep, progress
from nbflow.storage.compact import unpacked
from nbflow.storage.store import Row, Store

TASK, POLICIES = "temporal_order", ("random", "skip", "zero", "shrink", "keep", "raise")
# Learning rates that are tried, and a usual one, by optimizer.
RATES = {"sgd": (0.05, 0.1, 0.2, 0.3, 1.0, 3.0), "adam": (0.005, 0.01, 0.02, 0.03, 0.05, 0.1)}
USUAL = {"sgd": 0.01, "adam": 0.001}
# Seeds of a rate: so many are tried first, and at most.
FIRST_SEEDS, MOST_SEEDS = 10, 100
# Of the updates after the end, those that are looked at in the end.
LAST = 10
Optimizer = Literal["sgd", "adam"]


@dataclass(frozen=True)
class Options:
    """What is trained, what is tried, and where the results go."""

    optimizers: tuple[Optimizer, ...] = ("sgd", "adam")
    """By which optimizers."""
    networks: int = 100
    """Trainings that came to an end, by optimizer."""
    most_updates: int = 60
    """Updates of a training; one whose gradients are finite for as long gives no network."""
    updates: int = 50
    """Updates of each policy."""
    length: int = 400
    """L, the steps of a sequence."""
    cell: Literal["relu", "tanh"] = "relu"
    """The cell: relu begins as the identity, tanh as smart_tanh."""
    hidden: int = 50
    """H, hidden units."""
    batch_size: int = 20
    """B, sequences in a minibatch."""
    threshold: float = 1.0
    """What the policies clip the norm to, and the length of a random step before the learning rate."""
    out: Path = Path("results")
    """The folder for store, picture and JSON."""
    name: str = "overflow"
    """How these files are called."""

    @property
    def store(self) -> Store:
        return Store(unpacked(self.out / f"{self.name}.jsonl"))

    @property
    def net(self) -> nf.Network:
        task = nf.load_task(TASK)
        return nf.Network(self.cell, task.n_in, self.hidden, task.n_out, task.loss)

    def first(self, seed: int) -> Any:
        """Return the first weights of a seed."""
        return nf.init(self.net, "identity" if self.cell == "relu" else "smart_tanh", rng=seed)

    def recipe(self, optimizer: str, lr: float, policy: str, threshold: float, updates: int) -> nf.Recipe:
        """Return how a network is trained; every update has a row of the history."""
        return nf.Recipe(
            optimizer=optimizer, lr=lr, batch_size=self.batch_size, lengths=self.length,
            clip=nf.Clip("norm", threshold, nonfinite=policy), max_updates=updates, record_every=1, evaluate_every=0,
        )  # fmt: skip


# Trainings until they come to an end.


def places(optimizer: str) -> list[tuple[float, int]]:
    """Return learning rates and seeds in the order in which they are tried."""
    waves = [range(FIRST_SEEDS), range(FIRST_SEEDS, MOST_SEEDS)]
    return [(lr, seed) for wave in waves for seed in wave for lr in RATES[optimizer]]


def train(options: Options, optimizer: str, lr: float, seed: int, path: Path | None = None) -> nf.Run | None:
    """Return a training as it was before its first gradient that is not finite, or None if it had none."""
    net = options.net
    recipe = dataclasses.replace(options.recipe(optimizer, lr, "raise", math.inf, options.most_updates),
                                 record_every=1000)  # fmt: skip
    theta = options.first(seed)
    try:
        nf.train(net, theta, TASK, recipe, seed=seed, checkpoint=path)
    except FloatingPointError as error:
        run: nf.Run = error.run  # type: ignore[attr-defined]  # nbflow says how far it came
        return run
    return None


def ended(options: Options, optimizer: str, lr: float, seed: int) -> Row:
    """Return the line of a training."""
    run = train(options, optimizer, lr, seed)
    facts = {
        "kind": "training",
        "cell": options.cell,
        "length": options.length,
        "optimizer": optimizer,
        "lr": lr,
        "seed": seed,
        **made_by(),
    }
    if run is None:
        return {**facts, "ended": None, "theta": None}
    largest = float(np.abs(run.theta).max())
    return {**facts, "ended": run.updates, "largest": largest, "theta": text_of(run.theta)}


def made_by() -> dict[str, str]:
    """Return what made a line: code and processor."""
    return {"code": code_version(), "processor": machine.processor()}


def key_of(options: Options, *what: Any) -> str:
    """Return what a line is known by: all that it depends on, and not the code, which stands in it."""
    named = [options.cell, options.most_updates, options.length, options.hidden, options.batch_size]
    return hashed([*named, *what])


# What each policy does from there.


def tried(options: Options, row: Row, policy: str, lr: float, path: Path) -> Row:
    """Return what a policy does from where a training has ended, with the minibatches that would have come."""
    begun_at = row["ended"]
    net = options.net
    recipe = options.recipe(row["optimizer"], lr, policy, options.threshold, begun_at + options.updates)
    theta = options.first(row["seed"])
    try:
        run = nf.train(net, theta, TASK, recipe, seed=row["seed"], start_from=path)
    except FloatingPointError as error:
        run = error.run  # type: ignore[attr-defined]  # nbflow says how far it came
    history = run.history
    losses = np.array(history.get("loss", []), dtype=float)
    bad = np.array(history.get("nonfinite", []), dtype=float) > 0
    done = len(bad) == options.updates
    last = losses[-LAST:]
    back = bool(done and not bad[-LAST:].any() and np.isfinite(last).all())
    return {
        "kind": "outcome", "optimizer": row["optimizer"], "lr": row["lr"], "seed": row["seed"], "policy": policy,
        "with_lr": lr, **made_by(), "updates": len(bad), "bad": int(bad.sum()),
        "first_good": int(np.argmin(bad)) + 1 if len(bad) and not bad.all() else None, "back": back,
        "loss": float(last.mean()) if back else None,
        "clipped": float(np.mean([x for x in history.get("clipped", []) if np.isfinite(x)] or [0.0])),
    }  # fmt: skip


# All of it.


@dataclass
class Found(Something):
    """Trainings that came to an end, and what came of each."""

    trained: list[Row] = field(default_factory=list)
    outcomes: list[Row] = field(default_factory=list)


def check(options: Options) -> None:
    """Refuse what would end in nonsense; the rest is refused by nbflow."""
    check_numbers(options, positive="threshold", least_1="networks most_updates hidden batch_size",
                  least_10="updates")  # fmt: skip
    shortest = nf.load_task(TASK).shortest
    if options.length < shortest:
        raise ValueError(f"length is {options.length}; expected at least {shortest}, the shortest of the task.")
    if not options.optimizers:
        raise ValueError("optimizers is empty; expected sgd, adam or both. Leave it out.")


def work(options: Options, console: Console, found: Found) -> None:
    """Train until enough trainings have come to an end, then try every policy; or go on with it."""
    check(options)
    begun(console)
    with progress(console) as show:
        for optimizer in dict.fromkeys(options.optimizers):
            mine = trainings(options, optimizer, show)
            found.trained += mine
            outcomes(options, mine, show, found.outcomes)


def trainings(options: Options, optimizer: str, show: Show) -> list[Row]:
    """Return the first trainings that came to an end, in the order in which they are tried."""
    store = options.store
    mine: list[Row] = []
    there = store.read()
    for lr, seed in places(optimizer):
        if len(mine) == options.networks:
            break
        key = key_of(options, "training", optimizer, lr, seed)
        if key not in there:
            there[key] = {"key": key, **ended(options, optimizer, lr, seed)}
            store.add([there[key]])
        if there[key]["ended"] is not None:
            mine.append(there[key])
        show(f"{optimizer}: trainings that ended", len(mine), options.networks)
    if not mine:
        raise ValueError(f"most_updates is {options.most_updates:,}, within which no training with {optimizer} came to "
                         f"an end; expected one at least. Give more.")  # fmt: skip
    return mine


def outcomes(options: Options, trained: Sequence[Row], show: Show, found: list[Row]) -> None:
    """Try every policy from each training."""
    store = options.store
    there = store.read()
    for k, row in enumerate(trained):
        show(f"{row['optimizer']}: policies", k, len(trained))
        wanted = {}
        for lr in (row["lr"], USUAL[row["optimizer"]]):
            for policy in POLICIES:
                key = key_of(options, "outcome", row["key"], policy, lr, options.updates, options.threshold)
                wanted[key] = policy, lr
        missing = [key for key in wanted if key not in there]
        if missing:
            rows = from_there(options, row, {key: wanted[key] for key in missing})
            store.add(rows)
            there |= {one["key"]: one for one in rows}
        found += [there[key] for key in wanted]


def from_there(options: Options, row: Row, wanted: dict[str, tuple[str, float]]) -> list[Row]:
    """Train once more until the end, as moments are needed, and go on by each policy."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ended.npz"
        run = train(options, row["optimizer"], row["lr"], row["seed"], path)
        if run is None or run.updates != row["ended"] or not np.array_equal(run.theta, theta_of(row["theta"])):
            raise RuntimeError(f"the training of seed {row['seed']} at lr {row['lr']:g} has another end here than in "
                               f"the store; expected the same. Name another --name.")  # fmt: skip
        return [{"key": key, **tried(options, row, *how, path)} for key, how in wanted.items()]


def report(options: Options, found: Found, console: Console) -> list[Path]:
    """Print the tables, write the JSON and draw the picture; the networks themselves are in the store."""
    for table in reporting.tables(found.trained, found.outcomes):
        console.print(table)
    networks = [{name: value for name, value in row.items() if name != "theta"} for row in found.trained]
    numbers = document(options, networks=networks, outcomes=found.outcomes,
                       compared=reporting.compared(found.outcomes))  # fmt: skip
    return keep(console, options.out / options.name, numbers, {"": reporting.picture(found.trained, found.outcomes)})


def main(arguments: Sequence[str] | None = None) -> int:
    options = tyro.cli(Options, args=arguments, description=__doc__)
    return begin(work, report, options, Found(), store=options.out / f"{options.name}.jsonl")


if __name__ == "__main__":
    sys.exit(main())
