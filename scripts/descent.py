"""Does a clipped step keep its direction, bound its length, and lower the loss? Over networks, the true loss too.

The first question of scripts/single_steps.py, which looks at one network, asked of several: each learns temporal order
(tanh, clipped by norm at 1, Omega in the loss), and at several moments of its training the gradients of many
minibatches are clipped by every rule, at thresholds that halve their mean norm. Looked at are the cosine of each with
its own gradient, its length, and whether a step along it makes smaller the loss of the same minibatch, and, of some,
the loss over many other fresh sequences, which stand for all. Steps of one network are no independent trials of a
rule: intervals are over networks.

Every network is kept in the store as soon as it is done, with its parameters at the last moment. Ctrl-C and the same
command go on where it was.

Usage: python scripts/descent.py --networks 10
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import single_steps
import tyro
from generalization import hashed, text_of
from rich.console import Console
from rich.table import Table

import nbflow as nf
from nbflow import plot, statistics
from nbflow.experiments import machine
from nbflow.experiments.code_version import code_version
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
)
from nbflow.storage.compact import unpacked
from nbflow.storage.store import Row, Store

TASK = single_steps.TASK
# Batches of these sequences come from another index than those whose gradients are clipped.
TRUE_INDEX = 10**6
QUANTILES = (0.0, 0.05, 0.5, 0.95, 1.0)


@dataclass(frozen=True)
class Options:
    """How many networks, how their steps are looked at, and where the results go."""

    networks: int = 10
    """Networks, each with first weights and sequences of its own."""
    moments: tuple[int, ...] = (100, 1000, 5000, 25_000)
    """Updates after which each is looked at."""
    length: int = 50
    """L, the steps of a sequence."""
    hidden: int = 50
    """H, hidden units."""
    batch_size: int = 20
    """B, sequences in a minibatch."""
    lr: float = 0.01
    """The learning rate, in training and of the steps that are tried."""
    minibatches: int = 300
    """Minibatches whose gradients are clipped at each moment."""
    part: float = 0.5
    """How far every rule shortens the gradients: mean norm after clipping over mean norm before."""
    of_true: int = 20
    """Of these minibatches, the first ones, whose steps are also held against the true loss."""
    true_size: int = 1000
    """Fresh sequences that stand for all in the true loss."""
    out: Path = Path("results")
    """The folder for store, picture and JSON."""
    name: str = "descent"
    """How these files are called."""

    @property
    def store(self) -> Store:
        return Store(unpacked(self.out / f"{self.name}.jsonl"))

    def single(self, network: int) -> single_steps.Options:
        """Return the options of scripts/single_steps.py for a network."""
        return single_steps.Options(
            moments=self.moments, length=self.length, hidden=self.hidden, batch_size=self.batch_size, lr=self.lr,
            minibatches=self.minibatches, part=self.part, seed=network,
        )  # fmt: skip


@dataclass
class Found(Something):
    """A line for each network."""

    rows: list[Row] = field(default_factory=list)


def look_at(options: Options, net: nf.Network, theta: Any, network: int) -> dict[str, Any]:
    """Clip the gradients of fresh minibatches by every rule, try each step, and sum up."""
    task, lr = nf.load_task(TASK), np.float32(options.lr)
    rules = [name for name in nf.names("clips") if isinstance(nf.load_rule(name), nf.Rule)]
    how: dict[str, Any] = {"seed": network, "length": options.length, "stream": "evaluation", "dtype": net.dtype}
    batches = [task.sample(index=k, batch_size=options.batch_size, **how) for k in range(options.minibatches)]
    many = task.sample(index=TRUE_INDEX, batch_size=options.true_size, **how)
    space, large = nf.workspace(net, batches[0]), nf.workspace(net, many)
    gradients = [nf.gradient(net, theta, batch, workspace=space) for batch in batches]
    before = float(nf.gradient(net, theta, many, workspace=large).loss)
    rng, found = np.random.default_rng(network), {}

    def lower(k: int, step: Any) -> float:
        return float(gradients[k].loss - nf.gradient(net, theta - lr * step, batches[k], workspace=space).loss)

    plain = np.array([lower(k, one.d_theta) for k, one in enumerate(gradients)])
    for rule in rules:
        threshold = nf.matched_threshold(net, theta, batches[:100], nf.Clip(rule, 1.0), part=options.part, rng=network)
        clip = nf.Clip(rule, threshold)
        clipped = [nf.clip(net, one.d_theta, clip, theta=theta, rng=rng) for one in gradients]
        gained = np.array([lower(k, one.d_theta) for k, one in enumerate(clipped)])
        true = [before - float(nf.gradient(net, theta - lr * one.d_theta, many, workspace=large).loss)
                for one in clipped[: options.of_true]]  # fmt: skip
        cosine = np.array([one.cosine for one in clipped])
        found[rule] = {
            "threshold": threshold, "steps": len(clipped), "cosine": np.quantile(cosine, QUANTILES).tolist(),
            "mean_cosine": float(cosine.mean()),
            "longest": float(max(one.clipped_norm for one in clipped)) / threshold,
            "descends": int((gained > 0).sum()), "decrease": float(np.median(gained / plain)),
            "true_steps": len(true), "true_descends": int((np.array(true) > 0).sum()),
        }  # fmt: skip
    return found


def looked(options: Options, network: int, show: Show) -> Row:
    """Train a network, and return its line."""
    net, kept = single_steps.train(options.single(network), show)
    moments: list[dict[str, Any]] = []
    for updates in options.moments:
        show(f"network {network}", len(moments), len(options.moments))
        moments.append({"updates": updates, "rules": look_at(options, net, kept[updates], network)})
    return {"kind": "network", "seed": network, "code": code_version(), "processor": machine.processor(),
            "moments": moments, "theta": text_of(kept[options.moments[-1]])}  # fmt: skip


def work(options: Options, console: Console, found: Found) -> None:
    """Look at every network, or go on with it."""
    check_numbers(
        options, positive="lr", part="part", least_1="moments of_true true_size", least_2="networks minibatches"
    )
    if list(options.moments) != sorted(set(options.moments)):
        raise ValueError(f"moments is {options.moments}; expected rising numbers of updates. Give 100 1000.")
    begun(console)
    store = options.store
    there = store.read()
    with progress(console) as show:
        for network in range(options.networks):
            key = hashed([network, options.moments, options.length, options.hidden, options.batch_size, options.lr,
                          options.minibatches, options.part, options.of_true, options.true_size])  # fmt: skip
            if key not in there:
                there[key] = {"key": key, **looked(options, network, show)}
                store.add([there[key]])
            found.rows.append(there[key])


# What is said of it.


def rules_of(rows: Sequence[Row]) -> list[str]:
    return list(rows[0]["moments"][0]["rules"])


def seen_of(row: Row, rule: str) -> list[dict[str, Any]]:
    """Return what was seen of a rule at each moment of a network."""
    return [moment["rules"][rule] for moment in row["moments"]]


def part_of(rows: Sequence[Row], rule: str, what: str, of: str) -> nf.SequenceMean:
    """Return which part of the steps of a rule descends: a mean over networks with Student's interval."""
    parts = [sum(one[what] for one in seen_of(row, rule)) / sum(one[of] for one in seen_of(row, rule)) for row in rows]
    return statistics.mean_interval(parts)


def table(rows: Sequence[Row]) -> Table:
    """Return direction, length and descent of every rule."""
    steps = sum(one["steps"] for row in rows for one in seen_of(row, rules_of(rows)[0]))
    found = headed(f"{steps:,} clipped gradients of {len(rows)} networks, each against its own gradient", "rule",
                   "least cosine", "mean cosine", "greatest length / v", "lowers the loss of its minibatch",
                   "lowers the true loss")  # fmt: skip
    for rule in rules_of(rows):
        every = [one for row in rows for one in seen_of(row, rule)]
        longest = max(one["longest"] for one in every)
        found.add_row(
            rule, f"{min(one['cosine'][0] for one in every):.4f}",
            f"{np.mean([one['mean_cosine'] for one in every]):.4f}",
            f"{longest:.6f}" if single_steps.bounded(rule) else "-", words(part_of(rows, rule, "descends", "steps")),
            words(part_of(rows, rule, "true_descends", "true_steps")),
        )  # fmt: skip
    return found


def words(part: nf.SequenceMean) -> str:
    """Return a part in percent, and its interval over networks, within what parts can be."""
    low, high = max(float(part.low), 0.0), min(float(part.high), 1.0)
    return f"{100 * float(part.mean):.1f} % ({100 * low:.1f}-{100 * high:.1f})"


def picture(rows: Sequence[Row]) -> Any:
    """Draw cosines, and which part of the steps descends, a dot for each network."""
    moments = ", ".join(f"{moment['updates']:,}" for moment in rows[0]["moments"])
    said = (
        f"{len(rows)} networks that learn temporal order, looked at after {moments} updates; thresholds that halve the "
        f"mean norm.\nLeft: least to greatest, middle 90 %, median. Right: a dot a network, lines are 95 % intervals."
    )
    with plot.page("What a single clipped step does", said, (11.5, 4.2), w_pad=0.15) as found:
        left, right = found.subplots(1, 2, sharey=True)
        for k, rule in enumerate(rules_of(rows)):
            _cosines(left, k, [one["cosine"] for row in rows for one in seen_of(row, rule)])
            for side, what, of, colour in ((-0.13, "descends", "steps", plot.COLOURS[0]),
                                           (0.13, "true_descends", "true_steps", plot.COLOURS[1])):  # fmt: skip
                _descent(right, k + side, rows, rule, what, of, colour)
        left.set_yticks(range(len(rules_of(rows))), rules_of(rows))
        left.invert_yaxis()
        left.set_xlabel("cosine with its own gradient")
        right.set_xlabel("steps that lower the loss (%)")
        plot.reference(left, x=0)
        for axes in (left, right):
            plot.grid(axes, "x")
        right.plot([], [], "o", color=plot.COLOURS[0], label="of their minibatch")
        right.plot([], [], "o", color=plot.COLOURS[1], label="over other fresh sequences")
        plot.legend_below(right)
    return found


def _cosines(axes: Any, k: int, quantiles: Sequence[Sequence[float]]) -> None:
    low, part, middle, most, high = np.array(quantiles).T
    axes.plot([low.min(), high.max()], [k, k], color=plot.COLOURS[5], linewidth=1.2)
    axes.plot([np.median(part), np.median(most)], [k, k], color=plot.COLOURS[1], linewidth=5, solid_capstyle="butt")
    axes.plot(np.median(middle), k, "o", color=plot.COLOURS[0], markersize=6, zorder=3)


def _descent(axes: Any, at: float, rows: Sequence[Row], rule: str, what: str, of: str, colour: str) -> None:
    for row in rows:
        seen = seen_of(row, rule)
        axes.plot(100 * sum(one[what] for one in seen) / sum(one[of] for one in seen), at, ".", color=colour, alpha=0.5)
    part = part_of(rows, rule, what, of)
    axes.plot([100 * max(float(part.low), 0), 100 * min(float(part.high), 1)], [at, at], color=colour, linewidth=2)


def report(options: Options, found: Found, console: Console) -> list[Path]:
    """Print the table, write the JSON and draw the picture."""
    console.print(table(found.rows))
    networks = [{name: value for name, value in row.items() if name != "theta"} for row in found.rows]
    numbers = document(options, networks=networks)
    return keep(console, options.out / options.name, numbers, {"": picture(found.rows)})


def main(arguments: Sequence[str] | None = None) -> int:
    options = tyro.cli(Options, args=arguments, description=__doc__)
    return begin(work, report, options, Found(), store=options.out / f"{options.name}.jsonl")


if __name__ == "__main__":
    sys.exit(main())
