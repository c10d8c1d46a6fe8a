"""What scripts/clip_bias.py says of its networks: tables and verdicts, from the lines of its store."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from rich.table import Table

import nbflow as nf
from nbflow import statistics
from nbflow.experiments.console import headed
from nbflow.storage.store import Row

# Within this all is called alike, and cosines from which on a gradient has kept its direction, or has not.
MARGIN, KEPT, TURNED = 0.05, 0.99, 0.95
KINDS = ("large", "beside a large one", "others")
# Of which ways it is told what they keep of whom.
OF_WHOM = ("norm", "value", "each example")
HOLDS, FAILS, UNCLEAR = "holds", "doesn't hold", "can't tell"


class Setting(NamedTuple):
    """Networks of a kind at one moment of their trainings: what was seen of each."""

    on: str
    updates: int
    seen: list[dict[str, Any]]

    @property
    def title(self) -> str:
        return f"{self.on}, {self.updates:,} updates"

    @property
    def examples(self) -> int:
        """Return how many examples a minibatch has."""
        return int(self.seen[0]["batch_size"])


def settings(rows: Sequence[Row]) -> list[Setting]:
    """Return the settings: temporal order first, and its moments as they follow."""
    found: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: (row["on"] != "temporal order", row["seed"])):
        for moment in row["moments"]:
            found.setdefault((row["on"], moment["updates"]), []).append(moment)
    return [Setting(*key, seen) for key, seen in found.items()]


def names(every: Sequence[Setting]) -> list[str]:
    """Return the ways of clipping, in their order; one may be missing in some networks."""
    return list(dict.fromkeys(name for setting in every for one in setting.seen for name in one["ways"]))


# What is measured, a number for each network.


def numbers(setting: Setting, name: str, metric: str) -> list[float]:
    """Return the estimates of a way of clipping: NaN where there is nothing but noise; of networks that have it."""
    triples = [one["ways"][name][metric] for one in setting.seen if name in one["ways"]]
    return [math.nan if None in triple else float(triple[0]) for triple in triples]


def kept(setting: Setting, name: str, kind: int) -> list[float]:
    """Return what is kept of an example's own gradient, on average over those of a kind."""
    parts = [one["ways"][name]["kept"][kind] for one in setting.seen if name in one["ways"]]
    return [math.nan if part is None else float(part) for part in parts]


def weights(setting: Setting, name: str, kind: int) -> list[float]:
    """Return what is kept of examples of a kind, over what is kept of the others."""
    return [one / other for one, other in zip(kept(setting, name, kind), kept(setting, name, 2), strict=True)]


def shares(setting: Setting, name: str = "") -> list[float]:
    """Return which part of the mean gradient the large examples make, of the clipped one or before clipping."""
    found = [one["ways"][name]["share"] if name else one["share"] for one in setting.seen
             if not name or name in one["ways"]]  # fmt: skip
    return [(share[0] or 0.0) / sum(part or 0.0 for part in share) for share in found]


def place(averages: dict[str, Any], size: int, relative: float = 1.0) -> tuple[int, int]:
    """Return where a size of minibatches and a threshold stand, the latter by the norm of the true gradient."""
    return averages["sizes"].index(size), int(np.argmin(np.abs(np.log(averages["thresholds"]) - math.log(relative))))


def of_average(setting: Setting, metric: str, size: int) -> list[float]:
    """Return what tells the average of clipped gradients from the clipped average, at the norm of the true one."""
    found = []
    for one in setting.seen:
        k, j = place(one["averages"], size)
        found.append(float(one["averages"][metric][k][j]))
    return found


def distances(averages: dict[str, Any]) -> Any:
    """Return ||average of clipped - clipped average|| / ||clipped average||, by size and threshold."""
    cosine, ratio = np.array(averages["cosine"], float), np.array(averages["norm_ratio"], float)
    return np.sqrt(np.maximum((ratio - cosine) ** 2 + 1 - cosine**2, 0.0))


def apart(setting: Setting, size: int = 0) -> list[float]:
    """Return that distance at the norm of the true gradient, by default of minibatches as they are."""
    found = []
    for one in setting.seen:
        k, j = place(one["averages"], size or setting.examples)
        found.append(float(distances(one["averages"])[k, j]))
    return found


# Over networks.


def mean(values: Sequence[float], least: float = -math.inf, most: float = math.inf) -> nf.Interval:
    """Return a mean over networks with Student's interval, within what the values can be."""
    value, low, high, _ = (float(end) for end in statistics.mean_interval(list(values)))
    return nf.Interval(value, max(low, least), min(high, most))


def mean_part(values: Sequence[float]) -> nf.Interval:
    return mean(values, 0.0, 1.0)


def mean_cosine(values: Sequence[float]) -> nf.Interval:
    return mean(values, -1.0, 1.0)


def mean_length(values: Sequence[float]) -> nf.Interval:
    return mean(values, 0.0)


def mean_ratio(values: Sequence[float]) -> nf.Interval:
    """Return the geometric mean over networks with its interval."""
    return nf.Interval(*(math.exp(end) for end in mean([math.log(value) for value in values])))


def words(interval: nf.Interval, digits: int, per: float = 1.0) -> str:
    low, high = (f"{per * end:.{digits}f}" for end in interval[1:])
    return f"{per * interval.value:.{digits}f} ({low}-{high})"


def told(setting: Setting, name: str, metric: str, digits: int) -> str:
    """Return the mean of a metric of a way over the networks in which it is more than noise, and their number."""
    values = numbers(setting, name, metric)
    there = [value for value in values if math.isfinite(value)]
    if len(there) < 2:
        return "noise" if values else "cannot shorten so far"
    found = words(mean_cosine(there) if metric == "cosine" else mean_length(there), digits)
    return found if len(there) == len(setting.seen) else f"{found}, {len(there)} of {len(setting.seen)}"


# The verdicts.


class Part(NamedTuple):
    """A part of claim 5: what is asked, its values in a setting, how they are summed up, and what decides."""

    asked: str
    values: Callable[[Setting], list[float]]
    sum_up: Callable[[Sequence[float]], nf.Interval]
    least: bool  #: whether it holds where the interval lies above the limit, or below
    limit: float
    claimed: bool = True


PARTS = (
    Part("distance of the average of clipped gradients from the clipped average", apart, mean_length, True, MARGIN),
    Part("weight of large examples, clipping by norm", lambda setting: weights(setting, "norm", 0), mean_ratio, False,
         1 - MARGIN),
    Part("weight of examples beside a large one, clipping by norm", lambda setting: weights(setting, "norm", 1),
         mean_ratio, False, 1 - MARGIN),
    Part("clipping by norm keeps the direction: cosine", lambda setting: numbers(setting, "norm", "cosine"),
         mean_cosine, True, KEPT, claimed=False),
    Part("clipping element by element turns: cosine", lambda setting: numbers(setting, "value", "cosine"), mean_cosine,
         False, TURNED, claimed=False),
)  # fmt: skip


def judged(part: Part, setting: Setting) -> tuple[nf.Interval, str]:
    """Return the effect in a setting, and what the design in docs/methods.md makes of it."""
    found = part.sum_up([value for value in part.values(setting) if math.isfinite(value)])
    above, below = found.low > part.limit, found.high < part.limit
    wanted, other = (above, below) if part.least else (below, above)
    return found, HOLDS if wanted else FAILS if other else UNCLEAR


def verdict(every: Sequence[Setting]) -> str:
    """Return the verdict of claim 5: it holds if all its parts do in all settings."""
    said = [[judged(part, setting)[1] for setting in every] for part in PARTS if part.claimed]
    if all(word == HOLDS for line in said for word in line):
        return HOLDS
    if any(all(word == FAILS for word in line) for line in said):
        return FAILS
    count = sum(word == HOLDS for line in said for word in line)
    return f"{UNCLEAR}: its parts hold in {count} of {sum(map(len, said))}"


# Tables.


def heads(every: Sequence[Setting]) -> list[str]:
    return [setting.title for setting in every]


def of_networks(rows: Sequence[Row]) -> Table:
    """Return how far the networks of each setting have come, and how well their true gradients are known."""
    found = headed("Networks: medians (least-most)", "", "networks", "wrong, or nats per frame", "loss",
                   "norm of the true gradient", "its standard error (% of it)", "norm of a minibatch's gradient",
                   "the large ones' part of it (%)")  # fmt: skip
    for setting in settings(rows):
        rolls = setting.on == "piano rolls"
        reached = [one["reached"] * (1 if rolls else 100) for one in setting.seen]
        found.add_row(
            setting.title, f"{len(setting.seen)}", spread(reached, 2 if rolls else 1) + ("" if rolls else " %"),
            spread([one["loss"] for one in setting.seen], 3), spread([one["true_norm"] for one in setting.seen], 2),
            spread([100 * one["noise"] for one in setting.seen], 0),
            spread([one["norms"][1] for one in setting.seen], 2),
            spread([100 * share for share in shares(setting)], 0),
        )  # fmt: skip
    return found


def spread(values: Sequence[float], digits: int) -> str:
    return "{:,.{d}f} ({:,.{d}f}-{:,.{d}f})".format(float(np.median(values)), min(values), max(values), d=digits)


def of_parts(rows: Sequence[Row]) -> Table:
    """Return the parts of claim 5, and what was asked besides, setting by setting."""
    every = settings(rows)
    found = headed("The parts of the claim, and what was asked besides: means over networks (95 %)", "", "holds if",
                   *heads(every))  # fmt: skip
    for part in PARTS:
        found.add_row(part.asked, f"{'above' if part.least else 'below'} {part.limit:g}",
                      *(f"{effect(part, setting)}: {judged(part, setting)[1]}" for setting in every))  # fmt: skip
    return found


def effect(part: Part, setting: Setting) -> str:
    """Return the effect of a part of the claim, and in how many networks it is known where that is not all."""
    count = sum(math.isfinite(value) for value in part.values(setting))
    found = words(judged(part, setting)[0], 3)
    return found if count == len(setting.seen) else f"{found}, {count} of {len(setting.seen)}"


def of_ways(rows: Sequence[Row], metric: str) -> Table:
    """Return a metric of every way of clipping."""
    every = settings(rows)
    what, digits = {"cosine": ("Cosine with the true gradient", 3),
                    "relative_norm": ("Norm, relative to that of the true gradient", 2)}[metric]  # fmt: skip
    title = f"{what}: means over networks (95 %), with their number where it is not known of all"
    found = headed(title, what.lower(), *heads(every))
    for name in names(every):
        found.add_row(name, *(told(setting, name, metric, digits) for setting in every))
    return found


def of_whom(rows: Sequence[Row]) -> Table:
    """Return what is kept of whose gradient, and what the large ones make of the mean before and after."""
    every = settings(rows)
    heads = (*(f"kept of {kind} (%)" for kind in KINDS), "the large ones' part of the mean gradient: before (%)",
             "after (%)", "change (points)")  # fmt: skip
    found = headed("Whose gradient counts for less: means over networks (95 %)", "", "clipping", *heads)
    for setting in every:
        for name in OF_WHOM:
            found.add_row(
                setting.title, f"by {name}" if name in ("norm", "value") else name,
                *(words(mean_part(kept(setting, name, kind)), 0, 100) for kind in range(3)),
                words(mean(shares(setting)), 0, 100), words(mean(shares(setting, name)), 0, 100),
                changed(setting, name),
            )  # fmt: skip
    return found


def changed(setting: Setting, name: str) -> str:
    """Return by how many points a way changes the large examples' part of the mean gradient, network by network."""
    before = [share for share, one in zip(shares(setting), setting.seen, strict=True) if name in one["ways"]]
    change = mean([100 * (after - share) for share, after in zip(before, shares(setting, name), strict=True)])
    return f"{change.value:+.0f} ({change.low:+.0f} to {change.high:+.0f})"


def of_averages(rows: Sequence[Row]) -> Table:
    """Return how the average of clipped gradients differs from the clipped average, by size of the minibatches."""
    every = settings(rows)
    title = "Average of norm-clipped gradients and norm-clipped average, threshold = norm of the true gradient"
    found = headed(title, "", "examples in a minibatch", "distance", "cosine", "ratio of norms", "clipped (%)")
    for setting in every:
        for size in setting.seen[0]["averages"]["sizes"]:
            found.add_row(
                setting.title, f"{size}", words(mean_length(apart(setting, size)), 3),
                words(mean_cosine(of_average(setting, "cosine", size)), 3),
                words(mean_part(of_average(setting, "norm_ratio", size)), 3),
                words(mean_part(of_average(setting, "changed", size)), 0, 100),
            )  # fmt: skip
    return found


# By what they are called between the marks of docs/results.md.
TABLES: dict[str, Callable[[Sequence[Row]], Table]] = {
    "networks": of_networks, "parts": of_parts, "cosines": functools.partial(of_ways, metric="cosine"),
    "norms": functools.partial(of_ways, metric="relative_norm"), "whom": of_whom, "averages": of_averages,
}  # fmt: skip
