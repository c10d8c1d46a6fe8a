"""Measure what each way of clipping does to the gradient on average, and whose gradient it makes count for less.

A recurrent network learns temporal order; early and late in training its parameters are kept, and the gradients of many
minibatches are clipped in every way there is: the gradient of the whole minibatch by norm, value, array, unit, always
(normalize), by a random step; each example or group of examples before the mean; the back-propagated vector at every
step. The mean of the clipped gradients is held against the true gradient, the mean of the unclipped ones: cosine,
relative norm, signs, each with a bootstrap interval over minibatches. With --data the same is done for a network that
has learnt to predict piano rolls. Thresholds are chosen so that every way shortens the gradients alike, to `part` of
their mean norm; else rules that measure different things could not be compared.

Large examples, and those that share a minibatch with one, count for less after clipping (Goodfellow, Bengio, Courville
2016, section 10.11.1): the second picture shows by how much, and how the average of clipped gradients differs from the
clipped average, by threshold and size of the minibatch.

Usage: python scripts/clip_bias.py
       python scripts/clip_bias.py --data jsb-chorales-quarter.json
"""

from __future__ import annotations

import itertools
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import clip_bias_pictures as pictures
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

import nbflow as nf
from nbflow.data import piano_roll_batches, read_piano_rolls
from nbflow.experiments.console import (
    Found as Something,
    Show,
    begin,
    begun,
    check_numbers,
    document,
    headed,
    keep,
    progress,
    tell,
    uninterrupted,
)
from nbflow.experiments.methods import omega

NOTES = 88
# Batches that thresholds are found on.
SOME = 100


@dataclass(frozen=True)
class Options:
    """What is trained, how clipping is measured, and where the results go."""

    data: Path | None = None
    """A file of piano rolls, as scripts/music.py takes them; without it that part is left out."""
    task: str = "temporal_order"
    """The task, by the name of its file in nbflow/tasks."""
    length: int = 50
    """L, the steps of its sequences."""
    cell: str = "tanh"
    """The recurrent cell, by the name of its file in nbflow/cells."""
    init: str = "smart_tanh"
    """How first weights are drawn, by the name of a file in nbflow/inits."""
    hidden: int = 50
    """H, hidden units."""
    batch_size: int = 20
    """B, sequences in a minibatch."""
    early: int = 500
    """Updates before the first look."""
    late: int = 25_000
    """Updates before the second look."""
    lr: float = 0.01
    """The learning rate of SGD on the task."""
    threshold: float = 1.0
    """What the gradient is clipped to in training, by norm."""
    alpha: float = 2.0
    """The weight of Omega in training (squared, mean); the gradients looked at are those of the loss alone."""
    roll_hidden: int = 100
    """Hidden units of the network that learns piano rolls."""
    roll_updates: int = 1000
    """Its updates, by Adam."""
    roll_batch_size: int = 10
    """Pieces in a minibatch of piano rolls."""
    minibatches: int = 300
    """n, the size of the reference set."""
    part: float = 0.5
    """How far every way of clipping shortens the gradients: mean norm after clipping over mean norm before."""
    large: float = 0.05
    """The part of the examples that count as large: those with the largest gradients."""
    group: int = 5
    """Examples in a group, for clipping by groups; it divides both batch sizes."""
    resamples: int = 1000
    """Resamples of the bootstrap."""
    seed: int = 0
    """Decides first weights, sequences and resamples."""
    out: Path = Path("results")
    """The folder for the pictures and the JSON."""
    name: str = "clip_bias"
    """How these files are called."""


@dataclass(frozen=True)
class Stage:
    """A network at one moment of its training, and minibatches to look at it with."""

    name: str
    title: str
    net: nf.Network
    theta: Any
    batches: list[nf.Batch]


@dataclass(frozen=True)
class Seen:
    """What was seen of a stage: thresholds by way, the bias, and average of clipped against clipped average."""

    stage: Stage
    thresholds: dict[str, float]
    bias: nf.ClippingBias
    averages: nf.AverageOfClipped


def ways(options: Options) -> dict[str, Any]:
    """Return every way of clipping by name; thresholds are found later."""
    joint = {"norm": "norm", "value": "value", "block": "each array", "unit": "each unit", "normalize": "normalize",
             "random": "random step"}  # fmt: skip
    # One that remembers clips a gradient by those before it.
    others = [name for name in nf.names("clips") if name not in joint and remembers_nothing(name)]
    found: dict[str, Any] = {title: nf.Clip(name, 1.0) for name, title in joint.items()}
    found |= {name: nf.Clip(name, 1.0) for name in others}
    found["each example"] = nf.ExampleClip(1.0)
    found[f"groups of {options.group}"] = nf.MicrobatchClip(options.group, 1.0)
    for site, by in itertools.product(("preactivation", "state"), ("value", "norm")):
        found[f"inside, {site} {by}"] = nf.HiddenClip(1.0, site=site, by=by)
    return found


def remembers_nothing(rule: str) -> bool:
    """Whether a rule clips a gradient as it would any other time."""
    return isinstance(nf.load_rule(rule), nf.Rule)


# What is trained.


def temporal_order(options: Options, show: Show) -> Iterator[Stage]:
    """Train on the task; yield it early and late."""
    task = nf.load_task(options.task)
    net = nf.Network(options.cell, task.n_in, options.hidden, task.n_out, loss=task.loss)
    recipe = nf.Recipe(
        lr=options.lr, batch_size=options.batch_size, lengths=options.length, clip=nf.Clip("norm", options.threshold),
        flow=omega("squared", options.alpha) if options.alpha else None,
        max_updates=options.late, record_every=math.gcd(options.early, options.late), evaluate_every=0,
    )  # fmt: skip
    kept: dict[int, Any] = {}

    def look(run: nf.Run) -> None:
        kept[run.updates] = run.theta.copy()
        show("training on the task", run.updates, options.late)

    theta = nf.init(net, options.init, rng=options.seed)
    uninterrupted(nf.train(net, theta, task, recipe, seed=options.seed, callbacks=[look]))
    batches = [
        task.sample(seed=options.seed, index=k, batch_size=options.batch_size, length=options.length,
                    stream="evaluation", dtype=net.dtype)
        for k in range(options.minibatches)
    ]  # fmt: skip
    for name in ("early", "late"):
        updates = getattr(options, name)
        wrong = nf.evaluate(net, kept[updates], task, length=options.length, size=2000, seed=options.seed)
        title = f"{options.task.replace('_', ' ')}, {updates:,} updates, {100 * wrong:.1f} % wrong"
        yield Stage(name, title, net, kept[updates], batches)


def piano_rolls(options: Options, show: Show) -> Iterator[Stage]:
    """Train on the training set of a file of piano rolls; yield the network at the end."""
    assert options.data is not None
    rolls = read_piano_rolls(options.data)
    net = nf.Network(options.cell, NOTES, options.roll_hidden, NOTES, loss="bernoulli")
    rng = np.random.default_rng(options.seed)

    def passes() -> Iterator[nf.Batch]:
        """Go over the training set again and again; a batch with fewer pieces than the others is left out."""
        while True:
            for batch in piano_roll_batches(rolls.train, options.roll_batch_size, 200, rng=rng):
                if batch.weights.shape[1] == options.roll_batch_size:
                    yield batch

    if len(rolls.train) < options.roll_batch_size:
        raise ValueError(
            f"roll_batch_size is {options.roll_batch_size}; expected at most {len(rolls.train)}, the pieces to train "
            f"on. Give a smaller one."
        )
    batches = passes()
    recipe = nf.Recipe("adam", lr=0.001, clip=nf.Clip("norm", options.threshold), max_updates=options.roll_updates,
                       record_every=min(100, options.roll_updates))  # fmt: skip
    run = uninterrupted(nf.train(
        net, nf.init(net, "glorot", rng=options.seed), lambda update: next(batches), recipe, seed=options.seed,
        callbacks=[lambda run: show("training on piano rolls", run.updates, options.roll_updates)],
    ))  # fmt: skip
    title = f"piano rolls ({options.data.stem}), {options.roll_updates:,} updates, {run.history['loss'][-1]:.2f} nats"
    yield Stage("rolls", title, net, run.theta, list(itertools.islice(batches, options.minibatches)))


# What is measured.


def measure(options: Options, stage: Stage, show: Show) -> Seen:
    """Clip in every way, at thresholds that shorten gradients alike."""
    thresholds, clips = {}, {}
    some, every = stage.batches[:SOME], ways(options)
    for k, (name, how) in enumerate(every.items()):
        show(f"{stage.name}: thresholds", k, len(every))
        try:
            thresholds[name] = nf.matched_threshold(stage.net, stage.theta, some, how, part=options.part,
                                                    rng=options.seed)  # fmt: skip
        except ValueError:  # some ways cannot shorten these gradients so far
            continue
        clips[name] = replace(how, threshold=thresholds[name])
    bias = nf.clipping_bias(
        stage.net, stage.theta, stage.batches, clips, large=options.large, resamples=options.resamples,
        rng=options.seed, show=lambda words, done, total: show(f"{stage.name}: {words}", done, total),
    )  # fmt: skip
    show(f"{stage.name}: averages", 0, 1)
    true = float(np.linalg.norm(bias.true))
    averages = nf.average_of_clipped(stage.net, stage.theta, stage.batches, sizes=sizes(stage.batches),
                                     thresholds=np.geomspace(true / 30, 300 * true, 31))  # fmt: skip
    return Seen(stage, thresholds, bias, averages)


def sizes(batches: Sequence[nf.Batch]) -> list[int]:
    """Return sizes of minibatches from 1 to all, some of the divisors of B and multiples of it."""
    size, count = batches[0].weights.shape[1], len(batches)
    fit = [m for m in range(1, size + 1) if size % m == 0]
    return sorted({1, *fit[len(fit) // 2 : len(fit) // 2 + 1], size, *(size * m for m in (5, 10) if count % m == 0)})


@dataclass
class Found(Something):
    """What was seen of each stage, and the seconds it took."""

    seen: list[Seen] = field(default_factory=list)
    seconds: float = 0.0


def work(options: Options, console: Console, found: Found) -> None:
    """Train and measure, stage by stage."""
    check(options)
    begun(console)
    started = time.perf_counter()
    parts = [temporal_order] if options.data is None else [temporal_order, piano_rolls]
    with progress(console) as show:
        for part in parts:
            for stage in part(options, show):
                found.seen.append(measure(options, stage, show))
                found.seconds = time.perf_counter() - started
                tell(console, f"Seen: {stage.title}.")


# What is said of it.


def table(options: Options, seen: Seen) -> Table:
    """Return what each way of clipping did."""
    bias = seen.bias
    title = f"{seen.stage.title[0].upper()}{seen.stage.title[1:]}"
    found = headed(title, "way of clipping", "threshold", "clipped", "cosine", "relative norm", "same signs", "large",
                   "compan.", "other", wrap=False)  # fmt: skip
    for name, rule in bias.rules.items():
        found.add_row(
            name, f"{seen.thresholds[name]:.3g}", f"{100 * rule.changed:.0f} %", said(rule.cosine, 3),
            said(rule.relative_norm, 2), said(rule.sign_agreement, 2), *(f"{kept:.2f}" for kept in rule.kept_by_kind),
        )  # fmt: skip
    return found


def said(interval: nf.Interval, digits: int) -> str:
    """Say an estimate and its interval; without an interval nothing is known."""
    if not np.isfinite(interval).all():
        return "noise"
    return f"{interval.value:.{digits}f} ({interval.low:.{digits}f}-{interval.high:.{digits}f})"


def sentences(options: Options, seen: Seen) -> list[str]:
    """Say how far the numbers can be trusted, and who counts for less."""
    bias = seen.bias
    counts = [int(kind.sum()) for kind in (bias.large, bias.companion, ~(bias.large | bias.companion))]
    shares = [f"{100 * share:.0f} %" for share in bias.share_by_kind]
    found = [
        f"{len(bias.norms)} minibatches, {len(bias.minibatch):,} examples. Norm of the true gradient "
        f"{np.linalg.norm(bias.true):.3g}, its standard error {100 * bias.noise:.0f} % of that; of a minibatch's "
        f"gradient {np.median(bias.norms):.3g} (median).",
        f"The {counts[0]:,} largest examples make {shares[0]} of the true gradient, the {counts[1]:,} that share a "
        f"minibatch with one of them {shares[1]}, the other {counts[2]:,} {shares[2]}.",
    ]
    for name in ("norm", "each example"):
        if name in bias.rules:
            kept = [f"{100 * part:.0f} %" for part in bias.rules[name].kept_by_kind]
            found.append(f"Clipping by {name} keeps {kept[0]} of a large example's gradient on average, {kept[1]} of a "
                         f"companion's, {kept[2]} of the others'.")  # fmt: skip
    unable = [name for name in ways(options) if name not in bias.rules]
    if unable:
        found.append(f"Too little of this gradient passes where they act to shorten it to {options.part:g}: "
                     f"{'; '.join(unable)}.")  # fmt: skip
    return found


def numbers(options: Options, found: Found) -> dict[str, Any]:
    """Return every setting and the numbers."""
    stages = {}
    for one in found.seen:
        rules = {
            name: {key: value for key, value in rule._asdict().items() if key not in ("mean", "kept", "contribution")}
            for name, rule in one.bias.rules.items()
        }
        stages[one.stage.name] = {
            "title": one.stage.title, "loss": one.bias.loss, "true_norm": float(np.linalg.norm(one.bias.true)),
            "noise": one.bias.noise, "known_signs": one.bias.known_signs, "norms": one.bias.norms,
            "share_by_kind": one.bias.share_by_kind, "thresholds": one.thresholds, "rules": rules,
            "average_of_clipped": one.averages._asdict(),
        }  # fmt: skip
    return document(options, seconds=found.seconds, stages=stages)


def report(options: Options, found: Found, console: Console) -> list[Path]:
    """Print tables, write the JSON and draw both pictures."""
    for one in found.seen:
        console.print(table(options, one))
        for sentence in sentences(options, one):
            tell(console, sentence)
        console.print()
    if options.data is None:
        tell(console, "Piano rolls are left out: no --data.")
    last = [one for one in found.seen if one.stage.name != "rolls"][-1]
    first, second = (
        pictures.bias(found.seen, list(ways(options)), options.part),
        pictures.who_loses(last, options.large),
    )
    return keep(console, options.out / options.name, numbers(options, found), {"": first, "_who": second})


def check(options: Options) -> None:
    """Refuse what would end in nonsense; the rest is refused by nbflow."""
    late = {f"least_{options.early + 1}": "late"}
    check_numbers(options, part="part", least_1="early roll_updates", least_2="minibatches", **late)
    for name in ("batch_size", "roll_batch_size"):
        if options.group < 1 or getattr(options, name) % options.group:
            raise ValueError(f"group is {options.group}; expected a divisor of {name}, {getattr(options, name)}. "
                             f"Choose one.")  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    return begin(work, report, tyro.cli(Options, args=arguments, description=__doc__), Found())


if __name__ == "__main__":
    sys.exit(main())
