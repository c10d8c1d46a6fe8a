"""What a single clipped step does: its direction, its length, and whether it leads out of overflow.

A clip changes one gradient at a time. Two questions about one step have exact answers, and a third a measured one:

1. Does a joint scale keep the direction and bound the step, and is element-wise clipping still descent? A network
   learns temporal order; at several moments of its training the gradients of many minibatches are clipped by every
   rule, at thresholds that halve their mean norm. Looked at are the cosine of each clipped gradient with its own
   gradient, its length, and whether a step along it makes the loss of the same minibatch smaller.
2. Does a random step of length v move away from where the gradient is Inf or NaN (Goodfellow, Bengio, Courville 2016,
   section 10.11.1)? The recurrent weights of fresh networks are multiplied until the gradients of minibatches overflow,
   and then moved beyond that brink by some number of v's; counted are the updates until a gradient is finite again:
   of the minibatch that overflowed, and of fresh ones, with random steps of length v and without a step.

Usage: python scripts/single_steps.py
       python scripts/single_steps.py --depths 0.5 2 8 --replicas 64
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import single_steps_pictures as pictures
import tyro
from rich.console import Console
from rich.table import Table

import nbflow as nf
from nbflow import statistics
from nbflow.experiments.console import (
    Show,
    begin,
    begun,
    check_numbers,
    document,
    headed,
    keep,
    progress,
    uninterrupted,
)
from nbflow.experiments.methods import omega

TASK = "temporal_order"
# What is done about a gradient that is not finite, and whether every update sees the minibatch that overflowed.
WAYS = {"random step, the same minibatch": ("random", True), "random step, fresh minibatches": ("random", False),
        "no step, fresh minibatches": ("skip", False)}  # fmt: skip
# By what w_rec grows in search of an overflow, how often, and halvings of the bracket around the brink. (Much larger
# weights saturate every unit, and the gradient vanishes.)
GROWTH, TIMES, HALVINGS = 1.2, 20, 30


@dataclass(frozen=True)
class Options:
    """What is trained, how its steps are looked at, and where the results go."""

    moments: tuple[int, ...] = (100, 1000, 5000, 25_000)
    """Updates after which the network is looked at."""
    length: int = 50
    """L, the steps of a sequence."""
    hidden: int = 50
    """H, hidden units."""
    batch_size: int = 20
    """B, sequences in a minibatch."""
    lr: float = 0.01
    """The learning rate, in training and of the steps that are tried."""
    alpha: float = 2.0
    """The weight of Omega in training (squared, mean); the steps are those of the loss alone."""
    minibatches: int = 300
    """Minibatches whose gradients are clipped at each moment."""
    part: float = 0.5
    """How far every rule shortens the gradients: mean norm after clipping over mean norm before."""
    depths: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0)
    """How far beyond the brink of overflow networks start, in lengths of a random step."""
    replicas: int = 32
    """Networks at each depth."""
    updates: int = 200
    """Updates that each of them gets."""
    overflow_length: int = 400
    """L of the sequences that overflow."""
    threshold: float = 1.0
    """v, the length of a random step, at learning rate 1."""
    seed: int = 0
    """Decides first weights, sequences and random steps."""
    out: Path = Path("results")
    """The folder for the picture and the JSON."""
    name: str = "single_steps"
    """How these two files are called."""


class Steps(NamedTuple):
    """The clipped gradients of a rule at one moment, each against its own gradient; arrays over minibatches."""

    threshold: float
    cosine: Any
    length: Any  #: norm after clipping
    descends: Any  #: whether lr times it makes the loss of the same minibatch smaller
    decrease: Any  #: by how much, over what the unclipped gradient's step gives


class Moment(NamedTuple):
    """What was seen after so many updates."""

    updates: int
    error: float
    rules: dict[str, Steps]


class Escape(NamedTuple):
    """Updates until a gradient was finite, of R networks (None: not within the updates)."""

    depth: float
    way: str
    until: list[int | None]


@dataclass
class Seen:
    """What was seen so far, in the order of the run: Ctrl-C leaves the rest out."""

    escapes: list[Escape] = field(default_factory=list)
    moments: list[Moment] = field(default_factory=list)
    whole: bool = False

    def __bool__(self) -> bool:
        return bool(self.escapes)  # which come first


# Direction and length.


def train(options: Options, show: Show) -> tuple[nf.Network, dict[int, Any]]:
    """Train the network; return its parameters at each moment."""
    task, last = nf.load_task(TASK), max(options.moments)
    net = nf.Network("tanh", task.n_in, options.hidden, task.n_out, loss=task.loss)
    kept: dict[int, Any] = {}

    def look(run: nf.Run) -> None:
        if run.updates in options.moments:
            kept[run.updates] = run.theta.copy()
        show("training", run.updates, last)

    recipe = nf.Recipe(
        lr=options.lr, batch_size=options.batch_size, lengths=options.length, clip=nf.Clip("norm", options.threshold),
        flow=omega("squared", options.alpha) if options.alpha else None,
        max_updates=last, record_every=int(np.gcd.reduce(options.moments)), evaluate_every=0,
    )  # fmt: skip
    theta = nf.init(net, "smart_tanh", rng=options.seed)
    uninterrupted(nf.train(net, theta, task, recipe, seed=options.seed, callbacks=[look]))
    return net, kept


def look_at(options: Options, net: nf.Network, theta: Any, updates: int, show: Show) -> Moment:
    """Clip the gradients of fresh minibatches by every rule, and try each step."""
    task, rules = nf.load_task(TASK), [name for name in nf.names("clips") if isinstance(nf.load_rule(name), nf.Rule)]
    batches = [
        task.sample(seed=options.seed, index=k, batch_size=options.batch_size, length=options.length,
                    stream="evaluation", dtype=net.dtype)
        for k in range(options.minibatches)
    ]  # fmt: skip
    space, rng, found = nf.workspace(net, batches[0]), np.random.default_rng(options.seed), {}
    gradients = [nf.gradient(net, theta, batch, workspace=space) for batch in batches]
    thresholds = {
        rule: nf.matched_threshold(net, theta, batches[:100], nf.Clip(rule, 1.0), part=options.part, rng=options.seed)
        for rule in rules
    }

    def decrease(k: int, step: Any) -> float:
        """By how much a step makes the loss of minibatch k smaller."""
        after = nf.gradient(net, theta - np.float32(options.lr) * step, batches[k], workspace=space).loss
        return float(gradients[k].loss - after)

    plain_steps = np.array([decrease(k, one.d_theta) for k, one in enumerate(gradients)])
    for done, rule in enumerate(rules):
        show(f"steps after {updates:,} updates", done, len(rules))
        how = nf.Clip(rule, thresholds[rule])
        clipped = [nf.clip(net, one.d_theta, how, theta=theta, rng=rng) for one in gradients]
        gained = np.array([decrease(k, one.d_theta) for k, one in enumerate(clipped)])
        cosines, lengths = (np.array([getattr(one, name) for one in clipped]) for name in ("cosine", "clipped_norm"))
        found[rule] = Steps(thresholds[rule], cosines, lengths, gained > 0, gained / plain_steps)
    error = nf.evaluate(net, theta, task, length=options.length, size=2000, seed=options.seed)
    return Moment(updates, float(error), found)


# Out of overflow.


def brinks(net: nf.Network, theta: Any, batch: nf.Batch) -> Any:
    """Return by what w_rec of each network is multiplied where the gradient of its minibatch overflows, (R,)."""
    space, replicas = nf.workspace(net, batch), theta.shape[0]

    def overflows(factor: Any) -> Any:
        return ~np.isfinite(nf.gradient(net, stretched(net, theta, factor), batch, workspace=space).d_theta).all(axis=1)

    low, high = np.ones(replicas), np.ones(replicas)
    for _ in range(TIMES):
        short = ~overflows(high)
        low[short], high[short] = high[short], GROWTH * high[short]
    if not overflows(high).all():
        raise ValueError(
            f"overflow_length is {batch.weights.shape[1]}; expected more, as some gradients stay finite even with "
            f"w_rec {GROWTH**TIMES:.0f} times as large. Give longer sequences."
        )
    for _ in range(HALVINGS):
        middle = np.sqrt(low * high)
        bad = overflows(middle)
        low, high = np.where(bad, low, middle), np.where(bad, middle, high)
    return high


def stretched(net: nf.Network, theta: Any, factor: Any) -> Any:
    """Return parameters with the w_rec of each replica multiplied."""
    found = theta.copy()
    nf.unpack(net, found).w_rec[...] *= np.asarray(factor, theta.dtype)[:, None, None, None]
    return found


def escape(options: Options, show: Show, found: list[Escape]) -> None:
    """Start networks beyond the brink, and count their updates until a gradient is finite."""
    task = nf.load_task(TASK)
    net = nf.Network("tanh", task.n_in, options.hidden, task.n_out, loss=task.loss)
    theta = nf.init(net, "smart_tanh", rng=options.seed, replicas=options.replicas)

    def fresh(update: int) -> nf.Batch:
        return task.sample(seed=options.seed, index=update, batch_size=options.batch_size,
                           length=options.overflow_length, replicas=options.replicas)  # fmt: skip

    first = fresh(0)
    brink = brinks(net, theta, first)
    norms = np.linalg.norm(nf.unpack(net, theta).w_rec.reshape(options.replicas, -1), axis=1)
    wanted = [(depth, way) for depth in options.depths for way in WAYS]
    for done, (depth, way) in enumerate(wanted):
        show("out of overflow", done, len(wanted))
        policy, same = WAYS[way]
        recipe = nf.Recipe(lr=1.0, clip=nf.Clip("norm", options.threshold, nonfinite=policy),
                           max_updates=options.updates, record_every=1)  # fmt: skip
        start = stretched(net, theta, brink + depth * options.threshold / norms)
        source = (lambda update: first) if same else fresh
        run = uninterrupted(nf.train(net, start, source, recipe, seed=options.seed))
        finite = np.array(run.history["nonfinite"], dtype=int).reshape(-1, options.replicas) == 0
        until = [int(np.argmax(column)) + 1 if column.any() else None for column in finite.T]
        found.append(Escape(depth, way, until))


# What is said of it.


def steps_table(options: Options, moments: Sequence[Moment]) -> Table:
    """Return direction, length and descent of every rule, over all moments and minibatches."""
    count = sum(len(next(iter(m.rules.values())).cosine) for m in moments)
    found = headed(
        f"{count:,} clipped gradients of minibatches, each against its own gradient", "rule", "least cosine",
        "mean cosine", "greatest length / v", "descends",
        "decrease of the loss, parts of the unclipped step's (quartiles)",
    )  # fmt: skip
    for rule in moments[0].rules:
        seen = [m.rules[rule] for m in moments]
        cosine, descends, decrease = (
            np.concatenate([getattr(one, name) for one in seen]) for name in ("cosine", "descends", "decrease")
        )
        longest = max(float((one.length / one.threshold).max()) for one in seen)
        rate = statistics.success_rate(int(descends.sum()), len(descends))
        quartiles = np.quantile(decrease, (0.25, 0.5, 0.75))
        found.add_row(
            rule, f"{cosine.min():.4g}", f"{cosine.mean():.4g}", f"{longest:.7g}" if bounded(rule) else "-",
            f"{100 * rate.value:.1f} % ({100 * rate.low:.1f}-{100 * rate.high:.1f})",
            " ".join(f"{value:.2f}" for value in quartiles),
        )  # fmt: skip
    return found


def bounded(rule: str) -> bool:
    """Whether the threshold of a rule is a length of the whole step."""
    return rule in ("norm", "normalize", "random")


def escapes_table(options: Options, found: Sequence[Escape]) -> Table:
    """Return how many networks got out, and how soon."""
    table = headed(f"Networks with a finite gradient within {options.updates} updates, and the median update of the "
                   f"first", "beyond the brink (v)", *WAYS)  # fmt: skip
    for depth in dict.fromkeys(one.depth for one in found):
        cells = [said(options, one) for one in found if one.depth == depth]
        table.add_row(f"{depth:g}", *cells)
    return table


def said(options: Options, one: Escape) -> str:
    """Say how many got out, with an interval, and the median of the first finite update where half of them did."""
    out = sorted(until for until in one.until if until is not None)
    rate = statistics.success_rate(len(out), len(one.until))
    half = (len(one.until) - 1) // 2
    median = f"update {out[half]}" if len(out) > half else "-"
    return f"{len(out)} of {len(one.until)} ({100 * rate.low:.0f}-{100 * rate.high:.0f} %), {median}"


def report(options: Options, seen: Seen, console: Console) -> list[Path]:
    """Print the tables, write the JSON and draw the picture; of a run that was stopped, under a name of their own."""
    moments, found = seen.moments, seen.escapes
    name = options.name if seen.whole else f"{options.name}.interrupted"
    if moments:
        console.print(steps_table(options, moments))
    console.print(escapes_table(options, found))
    rows = [{"updates": m.updates, "error": m.error,
             "rules": {rule: steps._asdict() for rule, steps in m.rules.items()}} for m in moments]  # fmt: skip
    numbers = document(options, interrupted=not seen.whole, moments=rows, escapes=[one._asdict() for one in found])
    return keep(console, options.out / name, numbers, {"": pictures.draw(options, moments, found)})


def check(options: Options) -> None:
    """Refuse what would end in nonsense; the rest is refused by nbflow."""
    for name, example in (("moments", "100 1000"), ("depths", "0.1 1")):
        values = getattr(options, name)
        if not values or not all(value > 0 and math.isfinite(value) for value in values):
            raise ValueError(f"{name} is {' '.join(map(str, values)) or 'empty'}; expected numbers above 0. "
                             f"Give {example}, say.")  # fmt: skip
    counts = "length hidden batch_size minibatches replicas updates overflow_length"
    check_numbers(options, positive="lr threshold", part="part", least_0="alpha", least_1=counts)


def work(options: Options, console: Console, seen: Seen) -> None:
    """Do both experiments."""
    check(options)
    begun(console)
    with progress(console) as show:
        escape(options, show, seen.escapes)
        net, kept = train(options, show)
        for updates in options.moments:
            seen.moments.append(look_at(options, net, kept[updates], updates, show))
    seen.whole = True


def main(arguments: Sequence[str] | None = None) -> int:
    given = tyro.cli(Options, args=arguments, description=__doc__)
    options = replace(given, moments=tuple(sorted(set(given.moments))), depths=tuple(sorted(set(given.depths))))
    return begin(work, report, options, Seen())


if __name__ == "__main__":
    sys.exit(main())
