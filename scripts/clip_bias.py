"""Measure what each way of clipping does to the gradient on average, and whose gradient it makes count for less.

Networks learn temporal order; early and late in training their parameters are kept, and the gradients of many
minibatches are clipped in every way there is: the gradient of the whole minibatch by norm, value, array, unit, always
(normalize), by a random step; each example or group of examples before the mean; the back-propagated vector at every
step. The mean of the clipped gradients is held against the true gradient, the mean of the unclipped ones: cosine,
relative norm, signs, in the long run, over ever more minibatches. With --data the same is done for networks that have
learnt to predict piano rolls. Thresholds are chosen so that every way shortens the gradients alike, to `part` of their
mean norm; else rules that measure different things could not be compared.

Large examples, and those that share a minibatch with one, count for less after clipping, and the average of clipped
gradients is not the clipped average (Goodfellow, Bengio, Courville 2016, section 10.11.1): by how much is measured by
the size of the gradient, by threshold, and by size of the minibatch. Intervals are over networks.

Every network is kept in the store as soon as it is done, with its parameters (of piano rolls those of the first alone,
which are large). Ctrl-C and the same command go on where it was.

Usage: python scripts/clip_bias.py
       python scripts/clip_bias.py --data jsb-chorales-quarter.json
"""

from __future__ import annotations

import hashlib
import itertools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import clip_bias_pictures as pictures
import clip_bias_report as reporting
import numpy as np
import single_steps
import tyro
from generalization import hashed, text_of
from rich.console import Console

import nbflow as nf
from nbflow.data import piano_roll_batches, read_piano_rolls
from nbflow.experiments import machine
from nbflow.experiments.code_version import code_version
from nbflow.experiments.console import (
    Found as Something,
    Show,
    begin,
    begun,
    check_numbers,
    document,
    keep,
    plain,
    progress,
    tell,
    uninterrupted,
)
from nbflow.storage.compact import unpacked
from nbflow.storage.store import Row, Store

NOTES = 88
# Batches that thresholds are found on.
SOME = 100
# Thresholds of the averages, by the norm of the true gradient; 1 is one of them.
RELATIVE = tuple(10.0 ** (k / 4) for k in range(-6, 11))
# Examples are put in order by the norms of their gradients, and looked at in so many equal parts.
RANKS = 20
# Networks of piano rolls whose parameters are kept: 100 KB each.
KEPT_ROLLS = 1


@dataclass(frozen=True)
class Options:
    """How many networks, how clipping is measured, and where the results go."""

    data: Path | None = None
    """A file of piano rolls, as scripts/music.py takes them; without it that part is left out."""
    networks: int = 10
    """Networks of each kind, each with first weights and sequences of its own."""
    moments: tuple[int, ...] = (500, 25_000)
    """Updates after which those that learn temporal order are looked at."""
    length: int = 50
    """L, the steps of a sequence."""
    hidden: int = 50
    """H, hidden units."""
    batch_size: int = 20
    """B, sequences in a minibatch."""
    lr: float = 0.01
    """The learning rate of SGD."""
    roll_hidden: int = 100
    """Hidden units of a network that learns piano rolls."""
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
    """Resamples of the bootstrap over the minibatches of one network."""
    out: Path = Path("results")
    """The folder for the store, the pictures and the JSON."""
    name: str = "clip_bias"
    """How these files are called."""

    @property
    def store(self) -> Store:
        return Store(unpacked(self.out / f"{self.name}.jsonl"))

    def single(self, network: int) -> single_steps.Options:
        """Return the options of scripts/single_steps.py for a network."""
        return single_steps.Options(
            moments=self.moments, length=self.length, hidden=self.hidden, batch_size=self.batch_size, lr=self.lr,
            seed=network,
        )  # fmt: skip


class Stage(NamedTuple):
    """A network at one moment of its training, and minibatches to look at it with."""

    updates: int
    reached: float  #: the part of fresh sequences that is wrong; of piano rolls nats per frame
    net: nf.Network
    theta: Any
    batches: list[nf.Batch]


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


def temporal_order(options: Options, network: int, show: Show) -> Iterator[Stage]:
    """Train on the task, as scripts/descent.py does; yield the network at each moment."""
    task = nf.load_task(single_steps.TASK)
    net, kept = single_steps.train(options.single(network), show)
    batches = [
        task.sample(seed=network, index=k, batch_size=options.batch_size, length=options.length, stream="evaluation",
                    dtype=net.dtype)
        for k in range(options.minibatches)
    ]  # fmt: skip
    for updates in options.moments:
        wrong = nf.evaluate(net, kept[updates], task, length=options.length, size=2000, seed=network)
        yield Stage(updates, float(wrong), net, kept[updates], batches)


def piano_rolls(options: Options, pieces: Sequence[Any], network: int, show: Show) -> Iterator[Stage]:
    """Train on pieces; yield the network at the end."""
    net = nf.Network("tanh", NOTES, options.roll_hidden, NOTES, loss="bernoulli")
    rng = np.random.default_rng(network)

    def passes() -> Iterator[nf.Batch]:
        """Go over the pieces again and again; a batch with fewer than the others is left out."""
        while True:
            for batch in piano_roll_batches(pieces, options.roll_batch_size, 200, rng=rng):
                if batch.weights.shape[1] == options.roll_batch_size:
                    yield batch

    batches = passes()
    recipe = nf.Recipe("adam", lr=0.001, clip=nf.Clip("norm", 1.0), max_updates=options.roll_updates,
                       record_every=min(100, options.roll_updates))  # fmt: skip
    run = uninterrupted(nf.train(
        net, nf.init(net, "glorot", rng=network), lambda update: next(batches), recipe, seed=network,
        callbacks=[lambda run: show("training on piano rolls", run.updates, options.roll_updates)],
    ))  # fmt: skip
    nats = float(run.history["loss"][-1])
    yield Stage(options.roll_updates, nats, net, run.theta, list(itertools.islice(batches, options.minibatches)))


# What is measured.


def measure(options: Options, stage: Stage, network: int, show: Show) -> dict[str, Any]:
    """Clip in every way, at thresholds that shorten gradients alike, and sum up."""
    thresholds, clips = {}, {}
    some, every = stage.batches[:SOME], ways(options)
    for k, (name, how) in enumerate(every.items()):
        show(f"network {network}: thresholds", k, len(every))
        try:
            thresholds[name] = nf.matched_threshold(stage.net, stage.theta, some, how, part=options.part, rng=network)
        except ValueError:  # some ways cannot shorten these gradients so far
            continue
        clips[name] = replace(how, threshold=thresholds[name])
    bias = nf.clipping_bias(
        stage.net, stage.theta, stage.batches, clips, large=options.large, resamples=options.resamples, rng=network,
        show=lambda words, done, total: show(f"network {network}: {words}", done, total),
    )  # fmt: skip
    show(f"network {network}: averages", 0, 1)
    true = float(np.linalg.norm(bias.true))
    averages = nf.average_of_clipped(stage.net, stage.theta, stage.batches, sizes=sizes(stage.batches),
                                     thresholds=true * np.array(RELATIVE))  # fmt: skip
    order = np.array_split(np.argsort(bias.example_norms, kind="stable"), RANKS)
    return {
        "batch_size": stage.batches[0].weights.shape[1], "loss": bias.loss, "true_norm": true, "noise": bias.noise,
        "known_signs": bias.known_signs,
        "norms": np.quantile(bias.norms, (0.05, 0.5, 0.95)), "share": bias.share_by_kind,
        "examples": [int(kind.sum()) for kind in (bias.large, bias.companion, ~(bias.large | bias.companion))],
        "norms_by_rank": [float(np.median(bias.example_norms[part])) for part in order],
        "ways": {name: said_of(rule, thresholds[name], order) for name, rule in bias.rules.items()},
        "averages": {"sizes": averages.sizes, "thresholds": RELATIVE, "cosine": averages.cosine,
                     "norm_ratio": averages.norm_ratio, "changed": averages.changed},
    }  # fmt: skip


def said_of(rule: nf.RuleBias, threshold: float, order: Sequence[Any]) -> dict[str, Any]:
    """Return what is kept of a way of clipping: no number for each parameter or example."""
    found = {name: getattr(rule, name) for name in ("cosine", "relative_norm", "sign_agreement", "bias", "noise",
                                                    "changed", "strength")}  # fmt: skip
    by_rank = [float(np.nanmean(rule.kept[part])) if np.isfinite(rule.kept[part]).any() else None for part in order]
    return {"threshold": threshold, **found, "kept": rule.kept_by_kind, "share": rule.share_by_kind, "by_rank": by_rank}


def sizes(batches: Sequence[nf.Batch]) -> list[int]:
    """Return sizes of minibatches from 1 to all, some of the divisors of B and multiples of it."""
    size, count = batches[0].weights.shape[1], len(batches)
    fit = [m for m in range(1, size + 1) if size % m == 0]
    return sorted({1, *fit[len(fit) // 2 : len(fit) // 2 + 1], size, *(size * m for m in (5, 10) if count % m == 0)})


@dataclass
class Found(Something):
    """A line for each network."""

    rows: list[Row] = field(default_factory=list)


def looked(options: Options, on: str, network: int, stages: Iterator[Stage], keeps: bool, show: Show) -> Row:
    """Train a network, and return its line."""
    started, moments = time.perf_counter(), []
    for stage in stages:
        theta = stage.theta.astype("<f4").tobytes()
        moments.append({
            "updates": stage.updates, "reached": stage.reached, **measure(options, stage, network, show),
            "sha256": hashlib.sha256(theta).hexdigest(), "theta": text_of(stage.theta) if keeps else None,
        })  # fmt: skip
    row: Row = plain({"kind": "network", "on": on, "seed": network, "code": code_version(),
                      "processor": machine.processor(), "seconds": time.perf_counter() - started,
                      "moments": moments})  # fmt: skip
    return row


def work(options: Options, console: Console, found: Found) -> None:
    """Look at every network, or go on with it."""
    check(options)
    rolls = None if options.data is None else read_piano_rolls(options.data)
    if rolls is not None and len(rolls.train) < options.roll_batch_size:
        raise ValueError(
            f"roll_batch_size is {options.roll_batch_size}; expected at most {len(rolls.train)}, the pieces to train "
            f"on. Give a smaller one."
        )
    begun(console)
    how = [options.minibatches, options.part, options.large, options.group, options.resamples]
    trained: list[tuple[str, list[Any], Callable[[int, Show], Iterator[Stage]], int]] = [(
        "temporal order", [options.moments, options.length, options.hidden, options.batch_size, options.lr],
        lambda network, show: temporal_order(options, network, show), options.networks,
    )]  # fmt: skip
    if rolls is not None:
        trained.append((
            "piano rolls",
            [rolls.task().identity()["train"], options.roll_updates, options.roll_hidden, options.roll_batch_size],
            lambda network, show: piano_rolls(options, rolls.train, network, show), KEPT_ROLLS,
        ))  # fmt: skip
    store = options.store
    there = store.read()
    with progress(console) as show:
        for on, setting, stages, keeps in trained:
            for network in range(options.networks):
                key = hashed([on, network, setting, how])
                if key not in there:
                    row = looked(options, on, network, stages(network, show), network < keeps, show)
                    there[key] = {"key": key, **row}
                    store.add([there[key]])
                found.rows.append(there[key])


def check(options: Options) -> None:
    """Refuse what would end in nonsense; the rest is refused by nbflow."""
    check_numbers(options, part="part large", least_1="moments roll_updates resamples", least_2="networks minibatches")
    if list(options.moments) != sorted(set(options.moments)):
        raise ValueError(f"moments is {options.moments}; expected rising numbers of updates. Give 500 25000.")
    for name in ("batch_size", "roll_batch_size"):
        if options.group < 1 or getattr(options, name) % options.group:
            raise ValueError(f"group is {options.group}; expected a divisor of {name}, {getattr(options, name)}. "
                             f"Choose one.")  # fmt: skip


def report(options: Options, found: Found, console: Console) -> list[Path]:
    """Print tables, write the JSON and draw both pictures."""
    for table in reporting.TABLES.values():
        console.print(table(found.rows))
    if options.data is None:
        tell(console, "Piano rolls are left out: no --data.")
    networks = [{**row, "moments": [{name: value for name, value in moment.items() if name != "theta"}
                                    for moment in row["moments"]]} for row in found.rows]  # fmt: skip
    drawn = {"": pictures.bias(found.rows), "_who": pictures.who_loses(found.rows)}
    return keep(console, options.out / options.name, document(options, networks=networks), drawn)


def main(arguments: Sequence[str] | None = None) -> int:
    options = tyro.cli(Options, args=arguments, description=__doc__)
    return begin(work, report, options, Found(), store=options.out / f"{options.name}.jsonl")


if __name__ == "__main__":
    sys.exit(main())
