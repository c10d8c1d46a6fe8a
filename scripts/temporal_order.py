"""Train recurrent networks on a task with long gaps, with and without cures for exploding and vanishing gradients.

Each method begins with the same R networks, trained side by side on the same sequences for the same number of updates:
plain SGD; SGD with a clipped gradient, so that it cannot explode; and clipping with the flow penalty Omega, so that the
gradient does not vanish on its way back in time (Pascanu, Mikolov, Bengio 2013; Goodfellow, Bengio, Courville 2016,
section 10.11). At the end there are a table, a picture of error, gradient norm and gain, and every number and setting
as JSON. Ctrl-C ends early and keeps what was done.

Usage: python scripts/temporal_order.py --length 50 --replicas 8 --updates 30000
"""

from __future__ import annotations

import math
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

import nbflow as nf
from nbflow import plot
from nbflow.data.sampler import Trivial
from nbflow.experiments.console import (
    Found as Something,
    begin,
    check_numbers,
    compiling,
    document,
    headed,
    keep,
    progress,
    tell,
    uninterrupted,
)
from nbflow.experiments.methods import TITLES, cures, omega

Method = Literal["sgd", "clip", "omega", "clip+omega"]


@dataclass(frozen=True)
class Options:
    """What is trained, how, and where the results go."""

    task: str = "temporal_order"
    """The task, by the name of its file in nbflow/tasks."""
    length: int | tuple[int, int] = 50
    """L, the steps of a sequence; the gap to bridge grows with it. Two numbers: every batch draws its own."""
    replicas: int = 8
    """R, how many networks each method trains: same settings, other first weights and other sequences."""
    methods: tuple[Method, ...] = ("sgd", "clip", "clip+omega")
    """Which cures to compare: sgd (none), clip, omega, clip+omega."""
    cell: str = "tanh"
    """The recurrent cell, by the name of its file in nbflow/cells."""
    init: str = "smart_tanh"
    """How first weights are drawn, by the name of a file in nbflow/inits."""
    hidden: int = 50
    """H, hidden units of a network."""
    batch_size: int = 20
    """B, sequences in an update."""
    lr: float = 0.01
    """The learning rate."""
    rule: str = "norm"
    """How a gradient is clipped: norm (scaled as a whole) or value (entry by entry)."""
    threshold: float = 1.0
    """What a gradient, or an entry of it, is clipped to."""
    nonfinite: str = "random"
    """What the clip does with a gradient that has NaN or Inf in it: random, skip, zero, shrink, raise or keep."""
    alpha: float = 2.0
    """The weight of Omega beside the loss."""
    penalty: str = "squared"
    """How Omega counts a gain r that is not 1: norm (r-1)^2, squared (r^2-1)^2 or log (log r)^2; or another regularizer
    in nbflow/flows."""
    reduction: str = "mean"
    """Whether Omega is the mean over steps and sequences, or the sum over steps; of norm, squared and log alone."""
    updates: int = 30_000
    """Updates of every network, the same for all methods."""
    stop_when_solved: bool = False
    """Whether a method may end early, once each of its networks has been below `solved_below`."""
    record_every: int = 100
    """Updates between two points of the curves of norm and gain."""
    evaluate_every: int = 1000
    """Updates between two measurements of the error."""
    evaluate_size: int = 10_000
    """Fresh sequences in such a measurement."""
    solved_below: float = 0.01
    """The error below which a network counts as having solved the task."""
    seed: int = 0
    """Decides first weights and sequences."""
    out: Path = Path("results")
    """The folder for the picture and the JSON."""
    name: str = ""
    """How these two files are called; by default as the task."""


@dataclass
class Result:
    """What one method did."""

    method: str
    run: nf.Run
    gain: dict[str, list[Any]] = field(default_factory=lambda: {"update": [], "mean": []})

    @property
    def title(self) -> str:
        return TITLES[self.method]

    @property
    def passages(self) -> list[int | None]:
        """First evaluated update below the wanted error, for each network."""
        return list(self.run.first_passage)

    @property
    def solved(self) -> int:
        return sum(at is not None for at in self.passages)

    @property
    def stays(self) -> int:
        return sum(self.run.stays_below)

    @property
    def median_passage(self) -> float:
        """The median over all networks; infinite if fewer than half of them got there."""
        return statistics.median(math.inf if at is None else at for at in self.passages)

    @property
    def errors(self) -> list[float]:
        """The last measured error of each network."""
        return list(self.run.evaluations["score"][-1]) if self.run.evaluations["score"] else []

    @property
    def nonfinite(self) -> int:
        return int(sum(sum(row) for row in self.run.history.get("nonfinite", [])))

    @property
    def rate(self) -> float:
        """Network updates a second: an update of R networks counts R times."""
        return self.run.updates * len(self.passages) / self.run.seconds if self.run.seconds else 0.0


# What is trained.


def network(options: Options) -> tuple[nf.Network, Any, nf.Task]:
    """Return the network, the first weights of R of it, and the task."""
    task = nf.load_task(options.task)
    net = nf.Network(cell=options.cell, n_in=task.n_in, n_hidden=options.hidden, n_out=task.n_out, loss=task.loss)
    return net, nf.init(net, options.init, rng=options.seed, replicas=options.replicas), task


def recipe(options: Options, method: str) -> nf.Recipe:
    """Return how a method trains."""
    clip = nf.Clip(options.rule, options.threshold, nonfinite=options.nonfinite)
    return nf.Recipe(
        lr=options.lr, batch_size=options.batch_size, lengths=options.length, max_updates=options.updates,
        record_every=options.record_every, evaluate_every=options.evaluate_every, evaluate_size=options.evaluate_size,
        solved_below=options.solved_below, stop_when_solved=options.stop_when_solved,
        **cures(method, clip=clip, flow=omega(options.penalty, options.alpha, options.reduction)),
    )  # fmt: skip


class Gain:
    """The mean gain of each network over the steps and sequences of one fixed batch that no training sees."""

    def __init__(self, options: Options, net: nf.Network, task: nf.Task) -> None:
        length = options.length if isinstance(options.length, int) else options.length[1]
        self.net = net
        self.batch = task.sample(seed=options.seed, index=2**32 - 1, batch_size=options.batch_size, length=length,
                                 replicas=options.replicas, stream="evaluation", dtype=net.dtype)  # fmt: skip
        self.workspace = nf.workspace(net, self.batch)

    def __call__(self, theta: Any) -> list[float]:
        gain = nf.trace(self.net, theta, self.batch, workspace=self.workspace).gain
        with warnings.catch_warnings():  # a network whose gradient is 0 or NaN everywhere has no gain
            warnings.simplefilter("ignore", RuntimeWarning)
            return [float(np.nanmean(of_one, dtype=np.float64)) for of_one in gain]


def warm_up(options: Options, methods: Sequence[str]) -> None:
    """Check every setting and compile every kernel, so that neither is left for later."""
    net, theta, task = network(options)
    for method in methods:
        short = replace(recipe(options, method), max_updates=1, evaluate_size=1)
        uninterrupted(nf.train(net, theta, task, short, seed=options.seed))
    Gain(options, net, task)(theta)


def train(options: Options, method: str, show: Callable[[Result], None]) -> Result:
    """Train every network by one method, until the end or Ctrl-C."""
    net, theta, task = network(options)
    measure = Gain(options, net, task)
    result = Result(method, nf.Run(theta))

    def look(run: nf.Run) -> None:
        result.run = run
        result.gain["update"].append(run.updates)
        result.gain["mean"].append(measure(run.theta))
        show(result)

    result.run = nf.train(net, theta, task, recipe(options, method), seed=options.seed, callbacks=[look])
    return result


@dataclass
class Found(Something):
    """What was done: a result for each method, and the seconds before the first update."""

    results: list[Result] = field(default_factory=list)
    compiling: float = math.nan


def work(options: Options, console: Console, found: Found) -> None:
    """Train by every method."""
    methods, started = list(dict.fromkeys(options.methods)), time.perf_counter()
    check_numbers(options)
    if not methods:
        raise ValueError("methods is empty; expected one at least. Leave it out.")
    with compiling(console):
        warm_up(options, methods)
    found.compiling = time.perf_counter() - started
    tell(console, f"Kernels ready after {found.compiling:.1f} s. {about(options)}")
    with progress(console) as show:
        for method in methods:
            found.results.append(train(options, method, lambda one: show(
                one.title, one.run.updates, options.updates, state(one))))  # fmt: skip
            uninterrupted(found.results[-1].run)


def about(options: Options) -> str:
    """Say in a line what is trained."""
    length = options.length if isinstance(options.length, int) else "{} to {}".format(*options.length)
    most = f"at most {options.updates:,}" if options.stop_when_solved else f"{options.updates:,}"
    return (
        f"{options.task.replace('_', ' ')}, {length} steps; {options.replicas} networks a method, {options.hidden} "
        f"{options.cell} units ({options.init}), batches of {options.batch_size}, {most} updates each."
    )


def state(result: Result) -> str:
    """Say in few words how a method is doing; norm and error are medians over its networks."""
    words = f"{result.rate:,.0f} network updates/s"
    if result.errors:
        words += f"  error {100 * statistics.median(result.errors):.1f} %"
    return words + f"  norm {statistics.median(result.run.history['norm'][-1]):.2g}"


# What is seen at the end.


def table(options: Options, results: Sequence[Result]) -> Table:
    """Return the table of results, a column for each method."""
    below = f"{100 * options.solved_below:g} %"
    title = f"{options.task.replace('_', ' ').capitalize()}: {options.replicas} networks a method"
    found = headed(title, "", *(result.title for result in results))
    words = (f"solved: below {below}", "first update below, median", "each network, thousands", f"stays below {below}",
             "final error, median", "final loss, median", "non-finite gradients", "network updates/s")  # fmt: skip
    for what, *values in zip(words, *map(cells, results), strict=True):
        found.add_row(what, *values)
    guess = guessing(options)
    if guess is not None:
        found.add_row("error, loss of guessing", *[f"{percent(guess.score)}, {guess.loss:.3g}"] * len(results))
    if any(result.run.interrupted for result in results):
        found.add_row("stopped early", *(f"at {r.run.updates:,}" if r.run.interrupted else "" for r in results))
    return found


def guessing(options: Options) -> Trivial | None:
    """Return what whoever remembers nothing reaches, if the task tells: the mean over the lengths."""
    trivial = nf.load_task(options.task).trivial
    if trivial is None:
        return None
    low, high = nf.Recipe(lengths=options.length).length_range
    found = [trivial(length) for length in range(low, high + 1)]
    return Trivial(*(statistics.fmean(part) for part in zip(*found, strict=True)))


def percent(part: float) -> str:
    """Say a part of one in percent, in three figures."""
    return f"{100 * part:.3g} %"


def cells(result: Result) -> list[str]:
    count, median = len(result.passages), result.median_passage
    error = f"{100 * statistics.median(result.errors):.1f} %" if result.errors else "-"
    loss = f"{statistics.median(result.run.history['loss'][-1]):.3g}" if result.run.history else "-"
    passage = f"{median:,.0f}" if math.isfinite(median) else f"> {result.run.updates:,}"
    each = " ".join("-" if at is None else f"{at / 1000:g}" for at in result.passages)
    return [f"{result.solved} of {count}", passage, each, f"{result.stays} of {count}", error, loss,
            f"{result.nonfinite:,}", f"{result.rate:,.0f}"]  # fmt: skip


def picture(options: Options, results: Sequence[Result]) -> Any:
    """Draw error, gradient norm and gain over updates, a column for each method."""
    errors = {r.method: (r.run.evaluations["update"], 100 * np.array(r.run.evaluations["score"])) for r in results}
    norms = {r.method: (r.run.history.get("update", []), r.run.history.get("norm", [])) for r in results}
    gains = {r.method: (r.gain["update"], r.gain["mean"]) for r in results}
    solved = 100 * options.solved_below
    error_levels = [plot.Level(solved, f"solved:\nbelow {solved:g} %")]
    guess = guessing(options)
    if guess is not None and guess.score < 0.95:  # above that the line would be the frame
        error_levels.append(plot.Level(100 * guess.score, f"guessing:\n{percent(guess.score)}"))
    clipped = [plot.Level(options.threshold, f"threshold {options.threshold:g}:\nclipped above")]
    passing = [plot.Level(1.0, "above: explodes\n1: unchanged\nbelow: vanishes")]
    clipping = {r.method: clipped for r in results if "clip" in r.method and options.rule == "norm"}
    norm = f"norm of the gradient\nbefore clipping ({network(options)[0].loss_object.units})"
    rows = [
        plot.Row("error on fresh\nsequences (%)", errors, "error", {r.method: error_levels for r in results}, solved),
        plot.Row(norm, norms, "log", clipping),
        plot.Row("gain of the gradient,\na step back in time", gains, "log", {r.method: passing for r in results}),
    ]
    titles = {r.method: f"{r.title}: {r.solved} of {len(r.passages)} solved" for r in results}
    words = f"{about(options)}\nThin lines: one network each. Thick line: the median of all."
    return plot.training(f"{options.task.replace('_', ' ').capitalize()}: who learns it?", words, titles, rows)


def report(options: Options, found: Found, console: Console) -> list[Path]:
    """Print the table, write the JSON and draw the picture."""
    results, name, guess = found.results, options.name or options.task, guessing(options)
    console.print(table(options, results))
    numbers = document(
        options, guessing=None if guess is None else guess._asdict(), seconds_before_first_update=found.compiling,
        methods={result.method: result.run.as_dict() | {"gain": result.gain} for result in results},
    )  # fmt: skip
    return keep(console, options.out / name, numbers, {"": picture(options, results)})


def main(arguments: Sequence[str] | None = None) -> int:
    return begin(work, report, tyro.cli(Options, args=arguments, description=__doc__), Found())


if __name__ == "__main__":
    sys.exit(main())
