"""Watch the gradient flow back through recurrent networks, with every cure for vanishing gradients, as they learn.

The same R networks learn temporal order by each method: clipping alone; clipping with Omega, the penalty of gains that
are not 1 (Pascanu, Mikolov, Bengio 2013; Goodfellow, Bengio, Courville 2016, section 10.11.2), by its immediate,
detached and exact derivative; its logarithmic form; gradient flossing for the first updates, then clipping alone
(Engelken 2023); the norm stabilizer (Krueger and Memisevic 2015); soft orthogonality (Vorontsov et al. 2017); and an
LSTM without clip or penalty. Each has one setting, hardly tuned. At several moments of training the script keeps the
gradient norm by lag, the histogram of gains, Lyapunov exponents, and the singular values of the Jacobian from the first
state to the last.

Along two of these trainings it compares the three derivatives of Omega: how far is the immediate one, the usual one,
from the true one, and what does the true one cost? Ctrl-C ends early and keeps the methods that were done.

Usage: python scripts/flow.py
       python scripts/flow.py --methods none exact lstm --length 50 --updates 30000
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import flow_pictures as pictures
import numpy as np
import tyro
from flow_measures import EDGES, Comparison, Cost, Look, compare, costs, look
from flow_tables import derivatives_table, moments_table, table
from rich.console import Console

import nbflow as nf
from nbflow.experiments.console import (
    Found as Something,
    Show,
    begin,
    begun,
    check_numbers,
    document,
    keep,
    progress,
    tell,
    uninterrupted,
)
from nbflow.records import Floats

Method = Literal[
    "none", "immediate", "detached", "exact", "log", "flossing", "norm_stabilizer", "orthogonality", "lstm"
]
TITLES: dict[str, str] = {
    "none": "clipping alone",
    "immediate": "Omega, immediate",
    "detached": "Omega, detached",
    "exact": "Omega, exact",
    "log": "log Omega, immediate",
    "flossing": "flossing first",
    "norm_stabilizer": "norm stabilizer",
    "orthogonality": "orthogonality",
    "lstm": "LSTM, no cure",
}
# Whose trainings the derivatives of Omega are compared along.
COMPARED = ("immediate", "exact")
# Indices of batches that nothing else draws from the stream of evaluation.
SEEN, ORBITS, COMPARISONS = 2**32 - 1, 2**32 - 2, 2**31


@dataclass(frozen=True)
class Options:
    """What is trained, what is looked at, and where the results go."""

    methods: tuple[Method, ...] = (
        "none", "immediate", "detached", "exact", "log", "flossing", "norm_stabilizer", "orthogonality", "lstm",
    )  # fmt: skip
    """Which cures to compare."""
    task: str = "temporal_order"
    """The task, by the name of its file in nbflow/tasks; its loss counts at the last step."""
    length: int = 30
    """L, the steps of a sequence."""
    replicas: int = 5
    """R, seeds of every method, trained side by side: other first weights and other sequences each."""
    hidden: int = 50
    """H, hidden units."""
    batch_size: int = 20
    """B, sequences in an update."""
    updates: int = 10_000
    """Updates of every network; a multiple of 100."""
    lr: float = 0.01
    """The learning rate of SGD."""
    threshold: float = 1.0
    """What the gradient is clipped to by norm, but for the LSTM."""
    penalty: str = "squared"
    """How Omega counts a gain r that is not 1: norm (r-1)^2, squared (r^2-1)^2 or log (log r)^2."""
    alpha: float = 2.0
    """The weight of Omega (mean over steps and sequences), of the logarithmic one too."""
    flossing: float = 10.0
    """The weight of gradient flossing."""
    flossing_percent: int = 2
    """The part of the updates, the first ones, that floss; each costs many times a plain update."""
    norm_stabilizer: float = 1.0
    """The weight of the norm stabilizer."""
    orthogonality: float = 0.1
    """The weight of soft orthogonality."""
    moments: tuple[int, ...] = (0, 3, 10, 30, 100)
    """When flow and spectra are looked at, in percent of the updates."""
    comparisons: tuple[int, ...] = (0, 1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100)
    """When the derivatives of Omega are compared, in percent of the updates."""
    sequences: int = 100
    """Fresh sequences that gradients and gains are seen on."""
    few: int = 8
    """Fresh sequences that spectra are measured on."""
    orbit: int = 200
    """Steps of those that Lyapunov exponents are measured along; the first quarter is not counted."""
    k: int = 10
    """How many Lyapunov exponents and singular values, the largest."""
    batches: int = 10
    """Minibatches that the derivatives are compared on, at each moment and for each seed."""
    rounds: int = 200
    """Rounds of timing the derivatives in turn."""
    seed: int = 0
    """Decides first weights and sequences."""
    out: Path = Path("results")
    """The folder for the pictures and the JSON."""
    name: str = "flow"
    """How these files are called."""


@dataclass
class Seen:
    """What one method did: errors by update (n, R), looks and comparisons by percent of the updates."""

    method: str
    updates: list[int] = field(default_factory=list)
    errors: list[list[float]] = field(default_factory=list)
    nonfinite: int = 0
    seconds: float = 0.0
    looks: dict[int, Look] = field(default_factory=dict)
    comparisons: dict[int, Comparison] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return TITLES[self.method]

    @property
    def passages(self) -> list[int | None]:
        """First evaluated update below 1 % for each network."""
        below = np.array(self.errors) < 0.01
        return [self.updates[int(seed.argmax())] if seed.any() else None for seed in below.T]


# What is trained.


def network(options: Options, method: str) -> tuple[nf.Network, Floats, nf.Task]:
    """Return the network, the first weights of R of it, and the task."""
    task = nf.load_task(options.task)
    cell, init = ("lstm", "glorot") if method == "lstm" else ("tanh", "smart_tanh")
    net = nf.Network(cell, task.n_in, options.hidden, task.n_out, loss=task.loss)
    return net, nf.init(net, init, rng=options.seed, replicas=options.replicas), task


def omega(options: Options, derivative: str) -> nf.Flow:
    return nf.Flow(options.penalty, options.alpha, derivative=derivative, reduction="mean")


def phases(options: Options, method: str) -> list[tuple[int, nf.Flow | None]]:
    """Return what is added to the loss, and for how many percent of the updates."""
    if method == "flossing":
        return [(options.flossing_percent, nf.Flow(method, options.flossing)), (100 - options.flossing_percent, None)]
    if method in ("none", "lstm"):
        return [(100, None)]
    if method == "log":
        return [(100, nf.Flow(method, options.alpha, reduction="mean"))]
    if method in ("norm_stabilizer", "orthogonality"):
        return [(100, nf.Flow(method, getattr(options, method)))]
    return [(100, omega(options, method))]


def train(options: Options, method: str, show: Callable[[int], None]) -> tuple[Seen, dict[int, Floats]]:
    """Train every seed by one method; return also the parameters at every percent of the updates."""
    net, theta, task = network(options, method)
    seen, every = Seen(method), options.updates // 100
    kept = {0: theta}
    for n, (percent, flow) in enumerate(phases(options, method)):
        before = max(kept)

        def look(run: nf.Run, before: int = before) -> None:
            kept[before + run.updates // every] = run.theta.copy()
            show(before * every + run.updates)

        recipe = nf.Recipe(
            lr=options.lr, batch_size=options.batch_size, lengths=options.length, flow=flow,
            clip=None if method == "lstm" else nf.Clip("norm", options.threshold), max_updates=percent * every,
            record_every=every, evaluate_every=2 * every, evaluate_size=2000,
        )  # fmt: skip
        # A phase has sequences of its own: they are a function of the seed and of the update within it.
        run = nf.train(net, kept[before], task, recipe, seed=options.seed + 1000 * n, callbacks=[look])
        uninterrupted(run)
        seen.updates += [before * every + update for update in run.evaluations["update"]]
        seen.errors += run.evaluations["score"]
        seen.nonfinite += round(sum(map(sum, run.history["nonfinite"])))
        seen.seconds += run.seconds
    return seen, kept


# What is looked at.


def batch(options: Options, task: nf.Task, index: int, dtype: str = "float64", **sizes: int) -> nf.Batch:
    """Return fresh sequences for R networks."""
    sizes = {"batch_size": options.batch_size, "length": options.length, "replicas": options.replicas} | sizes
    return task.sample(seed=options.seed, index=index, stream="evaluation", dtype=dtype, **sizes)


def watch(options: Options, method: str, show: Show) -> Seen:
    """Train by one method, and look at what came of it."""
    title = TITLES[method]
    seen, kept = train(options, method, lambda done: show(f"training: {title}", done, options.updates))
    net, _, task = network(options, method)
    sequences = batch(options, task, SEEN, batch_size=options.sequences)
    orbits = batch(options, task, ORBITS, batch_size=options.few, length=options.orbit, replicas=1).inputs[0]
    for n, moment in enumerate(options.moments):
        show(f"looking at: {title}", n, len(options.moments))
        seen.looks[moment] = look(net, kept[moment], sequences, orbits, options.k)
    show(f"looking at: {title}", len(options.moments), len(options.moments))
    if method in COMPARED:
        minibatches = [batch(options, task, COMPARISONS + n) for n in range(options.batches)]
        for n, moment in enumerate(options.comparisons):
            show(f"derivatives: {title}", n, len(options.comparisons))
            seen.comparisons[moment] = compare(net, kept[moment], minibatches, omega(options, "exact"))
        show(f"derivatives: {title}", len(options.comparisons), len(options.comparisons))
    return seen


def time_derivatives(options: Options) -> dict[str, Cost]:
    """Time the three derivatives in the shapes and the dtype of training."""
    net, theta, task = network(options, "exact")
    return costs(net, theta, batch(options, task, SEEN, net.dtype), omega(options, "exact"), options.rounds)


@dataclass
class Found(Something):
    """What was seen of each method, what the derivatives of Omega cost, and the seconds of all."""

    seen: list[Seen] = field(default_factory=list)
    cost: dict[str, Cost] = field(default_factory=dict)
    seconds: float = 0.0


def work(options: Options, console: Console, found: Found) -> None:
    """Watch every method, then time the derivatives."""
    check(options)
    begun(console)
    started = time.perf_counter()
    with progress(console) as show:
        for method in dict.fromkeys(options.methods):
            found.seen.append(watch(options, method, show))
            found.seconds = time.perf_counter() - started
            tell(console, f"Seen: {found.seen[-1].title}.")
        found.cost = time_derivatives(options)
    found.seconds = time.perf_counter() - started


# What is said of it.


def numbers(options: Options, found: Found) -> dict[str, Any]:
    """Return every setting and the numbers."""
    methods = {}
    for seen in found.seen:
        methods[seen.method] = {
            "title": seen.title, "updates": seen.updates, "errors": seen.errors, "passages": seen.passages,
            "nonfinite": seen.nonfinite, "seconds": seen.seconds,
            "looks": {moment: at._asdict() for moment, at in seen.looks.items()},
            "comparisons": {moment: at._asdict() for moment, at in seen.comparisons.items()},
        }  # fmt: skip
    costs = {name: one._asdict() for name, one in found.cost.items()}
    return document(options, seconds=found.seconds, costs=costs, gain_edges=EDGES, methods=methods)


def report(options: Options, found: Found, console: Console) -> list[Path]:
    """Print tables, write the JSON and draw the pictures."""
    seen = found.seen
    console.print(table(options, seen), moments_table(options, seen))
    compared = [one for one in seen if one.comparisons]
    for one in compared:
        console.print(derivatives_table(options, one))
    for name, cost in found.cost.items():
        words = f"{cost.median:.2f} times a plain one ({cost.low:.2f} to {cost.high:.2f})"
        tell(console, f"Time of a gradient with Omega, {name}: {words}; median, 95 % interval.")
    drawn = {"_lags": pictures.lags(options, seen), "_gains": pictures.gains(options, seen),
             "_spectra": pictures.spectra(options, seen)}  # fmt: skip
    if compared:
        drawn["_derivatives"] = pictures.derivatives(options, compared)
    return keep(console, options.out / options.name, numbers(options, found), drawn)


def check(options: Options) -> None:
    """Refuse what would end in nonsense; the rest is refused by nbflow."""
    if options.updates < 100 or options.updates % 100:
        raise ValueError(f"updates is {options.updates}; expected a multiple of 100. Give another number.")
    if not options.methods:
        raise ValueError("methods is empty; expected at least one. Name one, as in --methods none.")
    check_numbers(options, least_1="replicas sequences few k batches rounds")
    if options.few > options.sequences:
        raise ValueError(f"few is {options.few}; expected at most sequences, {options.sequences}. Give a smaller one.")
    if not 1 <= options.flossing_percent <= 99:
        raise ValueError(f"flossing_percent is {options.flossing_percent}; expected 1 to 99. The default is 2.")
    for name in ("moments", "comparisons"):
        percents = getattr(options, name)
        if not percents or list(percents) != sorted(set(percents)) or percents[0] < 0 or percents[-1] > 100:
            raise ValueError(f"{name} is {percents}; expected rising percents from 0 to 100. Give other ones.")


def main(arguments: Sequence[str] | None = None) -> int:
    return begin(work, report, tyro.cli(Options, args=arguments, description=__doc__), Found())


if __name__ == "__main__":
    sys.exit(main())
