"""Does a random step lead back over the brink of overflow? Weights are multiplied until gradients overflow, and more.

Goodfellow, Bengio, Courville (2016), section 10.11.1: when the gradient is Inf or NaN, a random step of size v will
typically move away from the numerically unstable configuration. Here the recurrent weights of fresh networks are
multiplied until the gradient of a minibatch overflows, and then moved beyond that brink by some number of v's. Counted
are the updates until a gradient is finite again: of the minibatch that overflowed, and of fresh ones, with random steps
of length v and without a step. (scripts/overflow.py asks the same from where real trainings have ended.)

Every network is kept in the store when it is done. Ctrl-C and the same command go on where it was; when all is there it
makes table and picture again.

Usage: python scripts/brink.py
       python scripts/brink.py --depths 0.5 2 8 --networks 64
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from generalization import hashed
from overflow_report import adjusted, beside, words
from rich.console import Console
from rich.table import Table

import nbflow as nf
from nbflow import plot, statistics
from nbflow.experiments import machine
from nbflow.experiments.code_version import code_version
from nbflow.experiments.console import (
    begin,
    begun,
    check_numbers,
    document,
    headed,
    keep,
    progress,
    uninterrupted,
)
from nbflow.storage.compact import unpacked
from nbflow.storage.store import Row, Store

TASK = "temporal_order"
# What is done about a gradient that is not finite, and whether every update sees the minibatch that overflowed.
WAYS = {"random step, the same minibatch": ("random", True), "random step, fresh minibatches": ("random", False),
        "no step, fresh minibatches": ("skip", False)}  # fmt: skip
# By what w_rec grows in search of an overflow, how often, and halvings of the bracket around the brink. (Much larger
# weights saturate every unit, and the gradient vanishes.)
GROWTH, TIMES, HALVINGS = 1.2, 20, 30


@dataclass(frozen=True)
class Options:
    """What is tried, and where the results go."""

    depths: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0)
    """How far beyond the brink of overflow networks start, in lengths of a random step."""
    networks: int = 32
    """Networks at each depth."""
    updates: int = 200
    """Updates that each of them gets."""
    length: int = 400
    """L, the steps of a sequence."""
    hidden: int = 50
    """H, hidden units."""
    batch_size: int = 20
    """B, sequences in a minibatch."""
    threshold: float = 1.0
    """v, the length of a random step, at learning rate 1."""
    seed: int = 0
    """Decides first weights, sequences and random steps."""
    out: Path = Path("results")
    """The folder for store, picture and JSON."""
    name: str = "brink"
    """How these files are called."""

    @property
    def store(self) -> Store:
        return Store(unpacked(self.out / f"{self.name}.jsonl"))

    @property
    def net(self) -> nf.Network:
        task = nf.load_task(TASK)
        return nf.Network("tanh", task.n_in, self.hidden, task.n_out, loss=task.loss)

    def fresh(self, update: int) -> nf.Batch:
        """Return the minibatches of an update, one for each network."""
        return nf.load_task(TASK).sample(
            seed=self.seed, index=update, batch_size=self.batch_size, length=self.length, replicas=self.networks
        )

    def key(self, depth: float, way: str) -> str:
        """Return what a line is known by: all that it depends on, and not the code, which stands in it."""
        return hashed([self.networks, self.updates, self.length, self.hidden, self.batch_size, self.threshold,
                       self.seed, depth, way])  # fmt: skip


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
            f"length is {batch.weights.shape[1]}; expected more, as some gradients stay finite even with w_rec "
            f"{GROWTH**TIMES:.0f} times as large. Give longer sequences."
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


def escape(options: Options, theta: Any, way: str) -> list[int | None]:
    """Return the update of each network's first finite gradient, None where there is none in time."""
    policy, same = WAYS[way]
    recipe = nf.Recipe(lr=1.0, clip=nf.Clip("norm", options.threshold, nonfinite=policy), max_updates=options.updates,
                       record_every=1)  # fmt: skip
    first = options.fresh(0)
    source = (lambda update: first) if same else options.fresh
    run = uninterrupted(nf.train(options.net, theta, source, recipe, seed=options.seed))
    finite = np.array(run.history["nonfinite"], dtype=int).reshape(-1, options.networks) == 0
    return [int(np.argmax(column)) + 1 if column.any() else None for column in finite.T]


def check(options: Options) -> None:
    """Refuse what would end in nonsense; the rest is refused by nbflow."""
    if not options.depths or not all(0 < depth < math.inf for depth in options.depths):
        said = " ".join(map(str, options.depths)) or "empty"
        raise ValueError(f"depths is {said}; expected numbers above 0. Give 0.1 1, say.")
    check_numbers(options, positive="threshold", least_1="networks updates length hidden batch_size")


def work(options: Options, console: Console, found: list[Row]) -> None:
    """Start networks beyond the brink, and count their updates until a gradient is finite; or go on with it."""
    check(options)
    begun(console)
    net, store = options.net, options.store
    there, wanted = store.read(), [(depth, way) for depth in options.depths for way in WAYS]
    if any(options.key(*one) not in there for one in wanted):
        theta = nf.init(net, "smart_tanh", rng=options.seed, replicas=options.networks)
        norms = np.linalg.norm(nf.unpack(net, theta).w_rec.reshape(options.networks, -1), axis=1)
        brink = brinks(net, theta, options.fresh(0))
    with progress(console) as show:
        for done, (depth, way) in enumerate(wanted):
            show("out of overflow", done, len(wanted))
            key = options.key(depth, way)
            if key not in there:
                start = stretched(net, theta, brink + depth * options.threshold / norms)
                there[key] = {"key": key, "kind": "escape", "depth": depth, "way": way, "updates": options.updates,
                              "until": escape(options, start, way), "code": code_version(),
                              "processor": machine.processor()}  # fmt: skip
                store.add([there[key]])
            found.append(there[key])


# What is said of it.


def table(rows: Sequence[Row]) -> Table:
    """Return how many networks got out, and how soon; and on fresh minibatches a random step beside none."""
    found = headed(f"Networks with a finite gradient within {rows[0]['updates']} updates, and the median update of the "
                   f"first", "beyond the brink", *WAYS, "a step less none (95 %), p (McNemar, Holm)")  # fmt: skip
    tests = compared(rows)
    for depth in sorted({row["depth"] for row in rows}):
        of = {row["way"]: said(row["until"]) for row in rows if row["depth"] == depth}
        found.add_row(f"{depth:g} v", *(of.get(way, "-") for way in WAYS),
                      words(tests[depth]) if depth in tests else "-")  # fmt: skip
    return found


def compared(rows: Sequence[Row]) -> dict[float, dict[str, Any]]:
    """Hold random steps against none, both on fresh minibatches, over the same networks at each depth."""
    _, step, none = WAYS
    out = {(row["depth"], row["way"]): [one is not None for one in row["until"]] for row in rows}
    depths = [depth for depth in sorted({row["depth"] for row in rows}) if {(depth, step), (depth, none)} <= out.keys()]
    pairs = [{"depth": depth, **beside(out[depth, step], out[depth, none])} for depth in depths]
    return {row["depth"]: row for row in adjusted(pairs)}


def said(until: Sequence[int | None]) -> str:
    """Say how many got out, with an interval, and the median of the first finite update where half of them did."""
    out = sorted(one for one in until if one is not None)
    rate = statistics.success_rate(len(out), len(until))
    half = (len(until) - 1) // 2
    median = f"update {out[half]}" if len(out) > half else "none in half"
    return f"{len(out)} of {len(until)} ({100 * rate.low:.0f}-{100 * rate.high:.0f} %), {median}"


def picture(rows: Sequence[Row]) -> Any:
    """Draw how many networks had a finite gradient in time, by depth."""
    updates, networks = rows[0]["updates"], len(rows[0]["until"])
    about = f"{networks} networks at each depth, {updates} updates each. Lines: 95 % Wilson intervals."
    with plot.page("Out of overflow, at its brink", about, (7.0, 5.0)) as found:
        axes = found.subplots()
        for k, way in enumerate(way for way in WAYS if any(row["way"] == way for row in rows)):
            seen = sorted((row for row in rows if row["way"] == way), key=lambda row: row["depth"])
            x = [row["depth"] * 1.06 ** (k - 1) for row in seen]
            out = [sum(one is not None for one in row["until"]) for row in seen]
            plot.success(x, out, [len(row["until"]) for row in seen], colour=plot.COLOURS[k], marker="os^"[k],
                         linewidth=1.2, elinewidth=2, capsize=0, label=way, ax=axes)  # fmt: skip
        depths = sorted({row["depth"] for row in rows})
        axes.set_xscale("log")
        axes.set_xticks(depths, [f"{depth:g}" for depth in depths])
        axes.minorticks_off()
        axes.set_xlabel("distance beyond the brink of overflow (lengths v of a random step)")
        axes.set_ylabel(f"finite again within {updates} updates (%)")
        plot.legend_beside(axes, above=True, fontsize=9)
    return found


def report(options: Options, found: list[Row], console: Console) -> list[Path]:
    """Print the table, write the JSON and draw the picture; the counts themselves are in the store."""
    console.print(table(found))
    return keep(
        console,
        options.out / options.name,
        document(options, escapes=found, compared=[*compared(found).values()]),
        {"": picture(found)},
    )


def main(arguments: Sequence[str] | None = None) -> int:
    given = tyro.cli(Options, args=arguments, description=__doc__)
    options = replace(given, depths=tuple(sorted(set(given.depths))))
    return begin(work, report, options, list[Row](), store=options.out / f"{options.name}.jsonl")


if __name__ == "__main__":
    sys.exit(main())
