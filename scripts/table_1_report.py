"""What scripts/table_1.py says of its runs: tables beside the published values, verdicts and a picture."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from music_published import PUBLISHED, Published
from rich.table import Table

from nbflow import plot, statistics
from nbflow.experiments.console import headed
from nbflow.records import Interval
from nbflow.storage.store import Row

SPLITS = ("train", "valid", "test")
TITLES = {"plain": "SGD", "clip": "SGD, clipping", "clip+omega": "SGD, clipping, Omega"}
MARKS = ("o", "s", "^")
LEVEL = 0.05


def sets(rows: Sequence[Row]) -> list[str]:
    """Return the sets that there are runs of; those that are published first, in their order."""
    known = [one.title for one in PUBLISHED.values()]
    return sorted({row["data"] for row in rows}, key=lambda data: (data not in known, data))


def known(data: str) -> Published:
    """Return what is published of a set, which was known by what is in it when it was trained on."""
    return next((one for one in PUBLISHED.values() if one.title == data), Published(data))


def of(rows: Sequence[Row], data: str, column: str) -> list[Row]:
    """Return the runs of a column, by seed."""
    found = [row for row in rows if (row["data"], row["column"]) == (data, column)]
    return sorted(found, key=lambda row: row["seed"])


def nats(rows: Sequence[Row], part: str) -> list[float]:
    """Return the losses of runs on a part; Inf of one that never had a finite validation loss."""
    found = [row["nats"].get(part) for row in rows]
    return [math.inf if value is None else float(value) for value in found]


def words(values: Sequence[float], digits: int = 2, scale: float = 1.0) -> str:
    """Return a mean, and half of Student's interval where there is one."""
    values = [scale * value for value in values]
    if not all(map(math.isfinite, values)):
        return f"{sum(not math.isfinite(value) for value in values)} of {len(values)} diverged"
    found = statistics.mean_interval(values)
    width = f" ± {found.high - found.mean:.{digits}f}" if math.isfinite(found.high) else ""
    return f"{found.mean:.{digits}f}{width}"


def tables(rows: Sequence[Row]) -> list[Table]:
    """Return the table of losses, that of accuracies, and that of differences."""
    return [of_nats(rows), of_accuracy(rows), of_differences(rows)]


def of_nats(rows: Sequence[Row]) -> Table:
    """Return train, valid and test losses of each column, with the published ones beside them."""
    found = headed("Nats per frame at the best validation epoch: means over seeds, 95 % intervals", "set", "column",
                   "learning rate", "seeds", *SPLITS, "train, published", "test, published", "epochs (best)",
                   "clip acted on", "minutes of a core")  # fmt: skip
    for data in sets(rows):
        for k, (column, title) in enumerate(TITLES.items()):
            mine = of(rows, data, column)
            if mine:
                found.add_row(
                    data, title, f"{mine[0]['lr']:g}", str(len(mine)),
                    *(words(nats(mine, part), 3) for part in SPLITS),
                    *(f"{values[k]:.2f}" if values else "-" for values in (known(data).trained, known(data).pascanu)),
                    f"{np.mean([row['epochs'] for row in mine]):.0f} "
                    f"({np.mean([row['best_epoch'] or 0 for row in mine]):.0f})",
                    clipped(mine), f"{np.mean([row['core_seconds'] for row in mine]) / 60:.1f}",
                )  # fmt: skip
    return found


def clipped(rows: Sequence[Row]) -> str:
    """Say how often the clip of runs acted."""
    if "rule" not in rows[0]["setting"]:
        return "-"
    times, updates = (sum(row[name] for row in rows) for name in ("clipped_updates", "updates"))
    return f"{times:,} of {updates:,} updates"


def of_accuracy(rows: Sequence[Row]) -> Table:
    """Return the expected accuracies."""
    found = headed("Expected accuracy (%), TP / (TP + FP + FN)", "set", "column", *SPLITS)
    for data in sets(rows):
        for column, title in TITLES.items():
            mine = [row for row in of(rows, data, column) if row["accuracy"]]
            if mine:
                means = [words([row["accuracy"][part] for row in mine], 1, 100) for part in SPLITS]
                found.add_row(data, title, *means)
    return found


def differences(rows: Sequence[Row]) -> list[tuple[str, str, Interval, float]]:
    """Return how far apart columns are on test: set, words, Welch's interval, and p adjusted by Holm over all."""
    from scipy.stats import ttest_ind

    found = []
    for data in sets(rows):
        for one, other in (("clip", "plain"), ("clip+omega", "clip"), ("clip+omega", "plain")):
            values = [nats(of(rows, data, column), "test") for column in (one, other)]
            if min(map(len, values)) >= 2 and all(map(math.isfinite, itertools.chain(*values))):
                seen = statistics.equivalence(values[0], values[1], 0.02, alpha=LEVEL / 2).difference
                p = float(ttest_ind(*values, equal_var=False).pvalue)
                found.append((data, f"{TITLES[one]} less {TITLES[other]}", Interval(*seen[:3]), p))
    if not found:
        return []
    adjusted = statistics.holm([p for *_, p in found])
    return [(*one[:3], float(p)) for one, p in zip(found, adjusted, strict=True)]


def of_differences(rows: Sequence[Row]) -> Table:
    found = headed("Nats per frame on test: Welch, 95 %; p by Holm", "set", "difference", "nats", "p")
    for data, pair, (value, low, high), p in differences(rows):
        found.add_row(data, pair, f"{value:+.3f} ({low:+.3f} to {high:+.3f})", f"{p:.3g}")
    return found


def verdicts(rows: Sequence[Row]) -> list[str]:
    """Say of each set whether the mean test loss with clipping and Omega is the published one or better."""
    found = []
    for data in sets(rows):
        mine = of(rows, data, "clip+omega")
        if mine and known(data).pascanu:
            goal, reached = known(data).pascanu[-1], nats(mine, "test")
            word = "met or beaten" if round(float(np.mean(reached)), 2) <= goal else "NOT met"
            found.append(f"{data}: {words(reached, 3)} nats on test with clipping and Omega; the published {goal:.2f} "
                         f"is {word}.")  # fmt: skip
    return found


def picture(rows: Sequence[Row]) -> Any:
    """Draw validation over epochs, a line for each seed, and the test losses beside the published ones."""
    found = sets(rows)
    about = (
        "Left: validation, a thin line for each seed; train, while it learns, dotted. Right: test at the best "
        "validation epoch, a dot for each seed, means with 95 % intervals; a cross is the published value."
    )
    title = "Table 1 of Pascanu, Mikolov, Bengio (2013)"
    with plot.page(title, about, (9.5, 3.4 * len(found) + 0.8), dpi=130, wspace=0.08) as shown:
        grid = shown.subplots(len(found), 2, squeeze=False, width_ratios=(3, 2))
        for (curves, ends), data in zip(grid, found, strict=True):
            for k, column in enumerate(TITLES):
                draw(curves, ends, of(rows, data, column), k)
            curves.set_ylim(*_range([row["evaluations"] for row in rows if row["data"] == data]))
            curves.set_ylabel(f"{data}\nnats per frame")
            ends.set_xticks(range(len(TITLES)), [name.replace(", ", ",\n") for name in TITLES.values()])
            ends.set_xlim(-0.5, len(TITLES) - 0.5)
            for axes in (curves, ends):
                plot.grid(axes, "y")
        grid[-1][0].set_xlabel("epoch")
        grid[-1][1].set_ylabel("test")
        plot.legend_below(grid[-1][0])
    return shown


def _range(seen: Sequence[Any]) -> tuple[float, float]:
    """Return where curves are seen: the first epochs, from 61 nats down, would flatten all that follows."""
    values = [value for one in seen for name in ("valid", "train") for value in one[name]]
    low = min((value for value in values if value is not None and math.isfinite(value)), default=0.0)
    return low - 0.15, low + 3


def draw(curves: Any, ends: Any, rows: Sequence[Row], k: int) -> None:
    """Draw a column of a set in its two panels."""
    if not rows:
        return
    colour = plot.COLOURS[k]
    for n, row in enumerate(rows):
        seen = row["evaluations"]
        label = None if n else TITLES[row["column"]]
        curves.plot(seen["epoch"], seen["valid"], color=colour, linewidth=1.1, label=label)
        curves.plot(seen["epoch"], seen["train"], color=colour, linewidth=0.8, linestyle=":")
    values = [value for value in nats(rows, "test") if math.isfinite(value)]
    if values:
        mean = statistics.mean_interval(values)
        plot.intervals([k], [Interval(mean.mean, mean.low, mean.high)], colour=colour, marker=MARKS[k], ax=ends)
        ends.plot([k + 0.15] * len(values), values, ".", color=colour, alpha=0.6, markersize=6)
    if known(rows[0]["data"]).pascanu:
        ends.plot(k - 0.15, known(rows[0]["data"]).pascanu[k], "x", color=plot.inks(ends).faint,
                  markersize=7)  # fmt: skip
