"""Drive recurrent networks into overflow on purpose, and see what each policy does to the next 200 updates.

A gradient with NaN or Inf in it cannot be clipped: its norm is no number. What then happens is a choice: `random`, a
step of the threshold's length in a random direction (Goodfellow, Bengio, Courville 2016, section 10.11.1); `skip`, no
step; `zero`, the bad entries are set to 0 and the rest is clipped; `shrink`, 0.02 w_rec as the gradient of w_rec, and 0
for all else (the code of Pascanu, Mikolov, Bengio 2013); `keep`, the step as it is; `raise`, an error. Three ways into
overflow: one minibatch whose loss is too large for float32; a tanh network whose recurrent weights are multiplied, so
that states stay bounded and the gradient overflows on its way back; a relu network for which states overflow as well.
Each policy gets the same networks and the same sequences.

Usage: python scripts/nonfinite.py
       python scripts/nonfinite.py --scenarios state --replicas 8
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

import nbflow as nf
from nbflow import plot
from nbflow.experiments.console import begin, begun, document, headed, keep, progress, tell, uninterrupted

Name = Literal["minibatch", "gradient", "state"]
Policy = Literal["random", "skip", "zero", "shrink", "keep", "raise"]
TASK = "temporal_order"
# The weight of every sequence in the bad minibatch: finite, but a sum of losses is not.
HUGE = 3e38


class Scenario(NamedTuple):
    """A way into overflow."""

    title: str
    cell: str
    init: str
    length: int
    lr: float
    kick: float  #: what w_rec is multiplied by before the first update
    bad: int | None = None  #: the update with the bad minibatch, counted from 0


SCENARIOS: dict[str, Scenario] = {
    "minibatch": Scenario("one bad minibatch, at update 20", "tanh", "smart_tanh", 50, 0.1, 1.0, bad=19),
    "gradient": Scenario("tanh, w_rec times 10", "tanh", "smart_tanh", 200, 1.0, 10.0),
    "state": Scenario("relu, w_rec times 3", "relu", "identity", 100, 1.0, 3.0),
}


@dataclass(frozen=True)
class Options:
    """Which networks overflow, what is tried, and where the results go."""

    scenarios: tuple[Name, ...] = ("minibatch", "gradient", "state")
    """Ways into overflow."""
    policies: tuple[Policy, ...] = ("random", "skip", "zero", "shrink", "keep", "raise")
    """What is done with a gradient that is not finite."""
    replicas: int = 4
    """R, how many networks each policy gets."""
    updates: int = 200
    """Updates of each."""
    hidden: int = 50
    """H, hidden units."""
    batch_size: int = 20
    """B, sequences in a minibatch."""
    threshold: float = 1.0
    """What the norm of a gradient is clipped to, and the length of a random step."""
    length: int = 0
    """L, the steps of a sequence; 0 for what each scenario has."""
    seed: int = 0
    """Decides first weights, sequences and random steps."""
    out: Path = Path("results")
    """The folder for the picture and the JSON."""
    name: str = "nonfinite"
    """How these two files are called."""

    def long(self, scenario: Scenario) -> int:
        return self.length or scenario.length


@dataclass(frozen=True)
class Result:
    """What a policy did: the loss before the first update of each network (R,), and every update since."""

    scenario: str
    policy: str
    before: list[float]
    history: dict[str, list[Any]]
    message: str = ""

    @property
    def losses(self) -> Any:
        """(updates, R); NaN or Inf where there was no loss."""
        return np.array(self.history.get("loss", []), dtype=float).reshape(-1, len(self.before))

    @property
    def bad(self) -> Any:
        """(updates, R); whether the gradient was not finite."""
        return np.array(self.history.get("nonfinite", []), dtype=int).reshape(-1, len(self.before)) > 0

    @property
    def recovered(self) -> int:
        """Networks whose gradients were all finite in the last tenth of the updates."""
        return int((~self.bad[-self.tenth :].any(axis=0)).sum())

    @property
    def loss_after(self) -> float:
        """The median over networks of the mean loss in the last tenth."""
        return float(np.median(self.losses[-self.tenth :].mean(axis=0)))

    @property
    def tenth(self) -> int:
        return max(1, len(self.bad) // 10)

    @property
    def last_bad(self) -> int | None:
        """The last update with a gradient that was not finite, counted from 1."""
        at = np.flatnonzero(self.bad.any(axis=1))
        return int(at[-1]) + 1 if at.size else None


def train(options: Options, name: str, policy: str) -> Result:
    """Train R networks from the brink of overflow on."""
    scenario, task = SCENARIOS[name], nf.load_task(TASK)
    net = nf.Network(scenario.cell, task.n_in, options.hidden, task.n_out, loss=task.loss, dtype="float32")
    theta = nf.init(net, scenario.init, rng=options.seed, replicas=options.replicas)

    def source(update: int) -> nf.Batch:
        batch = task.sample(seed=options.seed, index=update, batch_size=options.batch_size,
                            length=options.long(scenario), replicas=options.replicas)  # fmt: skip
        if update == scenario.bad:
            batch = batch._replace(weights=np.where(batch.weights > 0, np.float32(HUGE), np.float32(0)))
        return batch

    before = nf.gradient(net, theta, source(0)).loss
    nf.unpack(net, theta).w_rec[...] *= scenario.kick
    recipe = nf.Recipe(lr=scenario.lr, clip=nf.Clip("norm", options.threshold, nonfinite=policy),
                       max_updates=options.updates, record_every=1)  # fmt: skip
    seen: dict[str, list[Any]] = {}

    def look(run: nf.Run) -> None:
        seen.update(run.history)

    try:
        run = nf.train(net, theta, source, recipe, seed=options.seed, callbacks=[look])
    except FloatingPointError as error:
        at = len(seen.get("update", [])) + 1
        return Result(name, policy, before.tolist(), dict(seen), f"update {at}: {error}")
    return Result(name, policy, before.tolist(), uninterrupted(run).history)


def work(options: Options, console: Console, results: list[Result]) -> None:
    """Train by every policy from every overflow."""
    wanted = [(name, policy) for name in dict.fromkeys(options.scenarios) for policy in dict.fromkeys(options.policies)]
    begun(console)
    with progress(console) as show:
        for k, (name, policy) in enumerate(wanted):
            show("policies", k, len(wanted))
            results.append(train(options, name, policy))


# What is seen.


def table(options: Options, name: str, results: Sequence[Result]) -> Table:
    """Return what each policy did from one overflow on."""
    scenario, before = SCENARIOS[name], np.median(results[0].before)
    title = f"{scenario.title[0].upper()}{scenario.title[1:]}; {options.long(scenario)} steps, lr {scenario.lr:g}"
    found = headed(title, "policy", "loss after (nats)", "gradients not finite", "last at update",
                   "networks finite again")  # fmt: skip
    found.add_row("before", f"{before:.3g}", "", "", "", end_section=True)
    for result in results:
        if result.message:
            continue
        bad, last = result.bad, result.last_bad
        loss = f"{result.loss_after:.3g}" if math.isfinite(result.loss_after) else "none"
        found.add_row(result.policy, loss, f"{bad.sum():,} of {bad.size:,}", "-" if last is None else f"{last}",
                      f"{result.recovered} of {len(result.before)}")  # fmt: skip
    return found


def picture(options: Options, results: Sequence[Result]) -> Any:
    """Draw the loss by update, a row for each overflow and a column for each policy, and where gradients were bad."""
    drawn = [result for result in results if not result.message and len(result.losses)]
    names, policies = (list(dict.fromkeys(getattr(r, key) for r in drawn)) for key in ("scenario", "policy"))
    rows = []
    for name in names:
        curves = {r.policy: (range(1, len(r.losses) + 1), finite(r.losses)) for r in drawn if r.scenario == name}
        title = SCENARIOS[name].title.replace(", ", ",\n")
        rows.append(plot.Row(f"{title}\nloss (nats)", curves, "log"))
    words = (
        f"Thin lines: one network each of {options.replicas}. Thick line: the median of all. A gap: the loss is not "
        f"finite.\nBlack marks at the bottom: updates with a gradient that is not finite, in any network."
    )
    found = plot.training("What comes after a gradient that is not finite", words, {p: p for p in policies}, rows)
    for k, (name, policy) in enumerate((name, policy) for name in names for policy in policies):
        for result in drawn:
            if (result.scenario, result.policy) == (name, policy):
                at, axes = np.flatnonzero(result.bad.any(axis=1)) + 1, found.axes[k]
                axes.plot(at, np.full(len(at), 0.02), "|", color=plot.INK, markersize=7, clip_on=False,
                          transform=axes.get_xaxis_transform())  # fmt: skip
    return found


def finite(losses: Any) -> Any:
    """Return losses with NaN where they are not finite or not above 0, which a logarithmic axis cannot show."""
    return np.where(np.isfinite(losses) & (losses > 0), losses, np.nan)


def report(options: Options, results: Sequence[Result], console: Console) -> list[Path]:
    """Print tables, write the JSON and draw the picture."""
    for name in dict.fromkeys(result.scenario for result in results):
        of_one = [result for result in results if result.scenario == name]
        console.print(table(options, name, of_one))
        for result in of_one:
            if result.message:
                tell(console, f"raise, at {result.message}")
        console.print()
    rows = [asdict(r) | ({} if r.message else {"loss_after": r.loss_after, "recovered": r.recovered}) for r in results]
    scenarios = {name: SCENARIOS[name]._asdict() for name in options.scenarios}
    drawn = {"": picture(options, results)} if any(not result.message for result in results) else {}
    numbers = document(options, scenarios=scenarios, results=rows)
    return keep(console, options.out / options.name, numbers, drawn)


def main(arguments: Sequence[str] | None = None) -> int:
    return begin(work, report, tyro.cli(Options, args=arguments, description=__doc__), [])


if __name__ == "__main__":
    sys.exit(main())
