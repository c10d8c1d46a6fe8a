"""What scripts/overflow.py says of its runs: tables, tests and a picture, from the lines of its store."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from nbflow import plot, statistics
from nbflow.experiments.console import headed
from nbflow.storage.store import Row

# A network is well where its loss is below twice that of guessing one of four classes.
WELL = 2 * math.log(4)
POLICIES = ("random", "skip", "zero", "shrink", "keep", "raise")
RATES = {"own": "at its own learning rate", "usual": "at a usual one"}


def setting_of(row: Row) -> tuple[str, str]:
    """Return by which optimizer and rate an outcome came about."""
    return row["optimizer"], "own" if row["with_lr"] == row["lr"] else "usual"


def settings(outcomes: Sequence[Row]) -> list[tuple[str, str]]:
    """Return optimizers and rates, those of plain SGD first."""
    there = set(map(setting_of, outcomes))
    return [one for one in itertools.product(("sgd", "adam"), RATES) if one in there]


def back(outcomes: Sequence[Row], setting: tuple[str, str], policy: str) -> dict[tuple[float, int], bool]:
    """Tell of each network, by learning rate and seed, whether a policy brought it back."""
    return {(row["lr"], row["seed"]): row["back"] for row in outcomes
            if setting_of(row) == setting and row["policy"] == policy}  # fmt: skip


def well(outcomes: Sequence[Row], setting: tuple[str, str], policy: str) -> int:
    """Return how many networks are back with a loss below twice that of guessing."""
    return sum(row["back"] and row["loss"] < WELL for row in outcomes
               if setting_of(row) == setting and row["policy"] == policy)  # fmt: skip


def compared(outcomes: Sequence[Row]) -> list[dict[str, Any]]:
    """Hold random steps against every other policy over the same networks: McNemar's exact test, adjusted by Holm."""
    found: list[dict[str, Any]] = []
    for setting in settings(outcomes):
        one = back(outcomes, setting, "random")
        rows: list[dict[str, Any]] = []
        for policy in POLICIES[1:]:
            other = back(outcomes, setting, policy)
            pair = beside([one[key] for key in one], [other[key] for key in one])
            rows.append({"optimizer": setting[0], "rate": setting[1], "policy": policy, **pair})
        found += adjusted(rows)
    return found


def beside(one: Sequence[bool], other: Sequence[bool]) -> dict[str, Any]:
    """Hold what two ways made of the same networks, in their order, against each other: McNemar's exact test."""
    gained, lost = (sum(a and not b for a, b in zip(*pair, strict=True)) for pair in ((one, other), (other, one)))
    difference = statistics.rate_difference((sum(one), sum(other)), (len(one), len(other)))
    return {"gained": gained, "lost": lost, "difference": difference._asdict(), "p": mcnemar(gained, lost)}


def adjusted(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return comparisons with p adjusted by Holm over all of them."""
    return [{**row, "adjusted": float(p)}
            for row, p in zip(rows, statistics.holm([row["p"] for row in rows]), strict=True)]  # fmt: skip


def mcnemar(gained: int, lost: int) -> float:
    """Return the exact p of as unequal a split of the networks that two policies treat unlike."""
    from scipy.stats import binomtest

    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def verdict(outcomes: Sequence[Row]) -> str:
    """Return what the design in docs/methods.md makes of it, setting by setting."""
    words: dict[str, list[str]] = {}
    for setting in settings(outcomes):
        seen = back(outcomes, setting, "random")
        skip = back(outcomes, setting, "skip")
        (row,) = [row for row in compared(outcomes) if row["policy"] == "skip" and row["optimizer"] == setting[0]
                  and row["rate"] == setting[1]]  # fmt: skip
        n, mine, other = len(seen), sum(seen.values()), sum(skip.values())
        holds = mine > other and row["adjusted"] < 0.05 and 2 * mine > n
        fails = 2 * mine <= n or other >= mine - 0.1 * n
        said = "holds" if holds else "doesn't hold" if fails else "can't tell"
        words.setdefault(said, []).append(f"{setting[0]}, {RATES[setting[1]]}")
    if len(words) == 1:
        return f"{next(iter(words))} in {len(settings(outcomes))} of {len(settings(outcomes))} settings"
    return "; ".join(f"{said} ({'; '.join(where)})" for said, where in words.items())


def rate(count: int, runs: int) -> str:
    found = statistics.success_rate(count, runs)
    return f"{count} of {runs} ({100 * found.low:.0f}-{100 * found.high:.0f} %)"


def tables(trained: Sequence[Row], outcomes: Sequence[Row]) -> list[Table]:
    """Return the table of networks that are back, and that of comparisons with random steps."""
    return [of_networks(outcomes), of_tests(outcomes)]


def of_networks(outcomes: Sequence[Row]) -> Table:
    """Return how many networks each policy brought back."""
    heads = [f"{optimizer}, {RATES[which]}" for optimizer, which in settings(outcomes)]
    found = headed("Networks with finite gradients in the last updates, and of these with a loss below twice guessing",
                   "policy", *heads)  # fmt: skip
    for policy in POLICIES:
        cells = []
        for setting in settings(outcomes):
            seen = back(outcomes, setting, policy)
            cells.append(f"{rate(sum(seen.values()), len(seen))}, {well(outcomes, setting, policy)} well")
        found.add_row(policy, *cells)
    return found


def of_tests(outcomes: Sequence[Row]) -> Table:
    """Return random steps beside each other policy."""
    found = headed("Random steps less another policy: points of networks that are back (95 %), p (McNemar, Holm)",
                   "policy", *(f"{optimizer}, {RATES[which]}" for optimizer, which in settings(outcomes)))  # fmt: skip
    rows = compared(outcomes)
    for policy in POLICIES[1:]:
        found.add_row(policy, *(words(row) for row in rows if row["policy"] == policy))
    return found


def words(row: dict[str, Any]) -> str:
    points = [100 * row["difference"][name] for name in ("value", "low", "high")]
    return f"{points[0]:+.0f} ({points[1]:+.0f} to {points[2]:+.0f}), p {row['adjusted']:.2g}"


def picture(trained: Sequence[Row], outcomes: Sequence[Row]) -> Any:
    """Draw how many networks are back, policy by setting, and when trainings ended."""
    count = len({(row["optimizer"], row["lr"], row["seed"]) for row in outcomes})
    said = (
        f"{count} networks whose training without a clip ended at a gradient that is not finite, and what some "
        f"updates of each policy made of them. Bars: Wilson intervals, 95 %.\nFilled: finite in the last 10 updates. "
        f"Hollow: besides, a loss below twice that of guessing."
    )
    with plot.page("Out of overflow: where trainings have ended", said, (12.0, 4.6), dpi=130, wspace=0.08) as found:
        line = found.subplots(1, len(settings(outcomes)), sharey=True, squeeze=False)[0]
        for axes, setting in zip(line, settings(outcomes), strict=True):
            for k, policy in enumerate(POLICIES):
                seen = back(outcomes, setting, policy)
                _mark(axes, k - 0.12, sum(seen.values()), len(seen), "o", filled=True)
                _mark(axes, k + 0.18, well(outcomes, setting, policy), len(seen), "s", filled=False)
            axes.set_title(f"{setting[0]}, {RATES[setting[1]]}", fontsize=10.5, fontweight="bold")
            axes.set_xlabel("networks (%)")
            axes.set_xlim(-4, 104)
            plot.grid(axes, "x")
        line[0].set_yticks(range(len(POLICIES)), POLICIES)
        line[0].invert_yaxis()
    return found


def _mark(axes: Any, at: float, count: int, runs: int, mark: str, *, filled: bool) -> None:
    colour = plot.COLOURS[0] if filled else plot.COLOURS[1]
    plot.intervals([at], [plot.percent(statistics.success_rate(count, runs))], colour=colour, marker=mark, across=True,
                   ax=axes, capsize=0, elinewidth=1.8, markerfacecolor=colour if filled else "white")  # fmt: skip


def ended(trained: Sequence[Row]) -> dict[str, dict[float, list[int]]]:
    """Return after how many updates trainings ended, by optimizer and learning rate."""
    found: dict[str, dict[float, list[int]]] = {}
    for row in trained:
        if row["ended"] is not None:
            found.setdefault(row["optimizer"], {}).setdefault(row["lr"], []).append(row["ended"])
    return found
