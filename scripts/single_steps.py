"""What a single clipped step does: its direction, its length, and whether it is descent.

Does a joint scale keep the direction and bound the step, and is element-wise clipping still descent? A network learns
temporal order; at several moments of its training the gradients of many minibatches are clipped by every rule, at
thresholds that halve their mean norm. Looked at are the cosine of each clipped gradient with its own gradient, its
length, and whether a step along it makes the loss of the same minibatch smaller. (scripts/descent.py asks the same of
several networks, scripts/brink.py whether a random step leads out of overflow.)

Usage: python scripts/single_steps.py
       python scripts/single_steps.py --moments 100 1000 --minibatches 50
"""

from __future__ import annotations

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
    threshold: float = 1.0
    """v, what the norm is clipped to in training."""
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


@dataclass
class Seen:
    """What was seen so far, in the order of the run: Ctrl-C leaves the rest out."""

    moments: list[Moment] = field(default_factory=list)
    whole: bool = False

    def __bool__(self) -> bool:
        return bool(self.moments)


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


# What is said of it.


def steps_table(moments: Sequence[Moment]) -> Table:
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


def report(options: Options, seen: Seen, console: Console) -> list[Path]:
    """Print the tables, write the JSON and draw the picture; of a run that was stopped, under a name of their own."""
    moments = seen.moments
    name = options.name if seen.whole else f"{options.name}.interrupted"
    console.print(steps_table(moments))
    rows = [{"updates": m.updates, "error": m.error,
             "rules": {rule: steps._asdict() for rule, steps in m.rules.items()}} for m in moments]  # fmt: skip
    numbers = document(options, interrupted=not seen.whole, moments=rows)
    return keep(console, options.out / name, numbers, {"": pictures.draw(options, moments)})


def check(options: Options) -> None:
    """Refuse what would end in nonsense; the rest is refused by nbflow."""
    if not options.moments or min(options.moments) < 1:
        said = " ".join(map(str, options.moments)) or "empty"
        raise ValueError(f"moments is {said}; expected numbers above 0. Give 100 1000, say.")
    counts = "length hidden batch_size minibatches"
    check_numbers(options, positive="lr threshold", part="part", least_0="alpha", least_1=counts)


def work(options: Options, console: Console, seen: Seen) -> None:
    """Train, and look at every moment."""
    check(options)
    begun(console)
    with progress(console) as show:
        net, kept = train(options, show)
        for updates in options.moments:
            seen.moments.append(look_at(options, net, kept[updates], updates, show))
    seen.whole = True


def main(arguments: Sequence[str] | None = None) -> int:
    given = tyro.cli(Options, args=arguments, description=__doc__)
    options = replace(given, moments=tuple(sorted(set(given.moments))))
    return begin(work, report, options, Seen())


if __name__ == "__main__":
    sys.exit(main())
