"""What scripts/lengths.py says of its runs: tables and a picture, from the lines of its store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.table import Table

from nbflow import plot, statistics
from nbflow.experiments.console import headed
from nbflow.experiments.methods import TITLES
from nbflow.storage.store import Row

PARTS = ("wait", "gap", "tail")
PLACES = {"paper": "symbols at the paper's positions", "anywhere": "symbols anywhere"}
SHADES = {"clip": plot.COLOURS[0], "clip+omega": plot.COLOURS[1]}
MARKS = {"clip": "o", "clip+omega": "s"}


def arms(trained: Sequence[Row]) -> list[tuple[str, str]]:
    """Return the arms, as (place, method), in the order of the store."""
    return list(dict.fromkeys((row["place"], row["method"]) for row in trained))


def of(rows: Sequence[Row], place: str, method: str, **wanted: Any) -> list[Row]:
    """Return the lines of an arm with these fields."""
    return [row for row in rows if (row["place"], row["method"]) == (place, method)
            and all(row.get(name) == value for name, value in wanted.items())]  # fmt: skip


def clean(measured: Sequence[Row], place: str, method: str, where: str) -> dict[int, bool]:
    """Tell of each seed of an arm whether it is wrong nowhere, of all lengths at which symbols stood `where`."""
    rows = [row for row in measured if row["kind"] == "measurement"]
    lengths = {row["length"] for row in rows}
    found: dict[int, list[int]] = {}
    for row in of(rows, place, method, measured=where):
        found.setdefault(row["seed"], []).append(row["wrong"])
    # One that is not measured everywhere yet is left out.
    return {seed: not any(wrong) for seed, wrong in found.items() if len(wrong) == len(lengths)}


def tables(trained: Sequence[Row], measured: Sequence[Row]) -> list[Table]:
    """Return the table of arms, and those of wrong answers by length and by the part that was stretched."""
    return [of_arms(trained, measured), by_length(trained, measured), by_part(trained, measured),
            by_points(trained, measured)]  # fmt: skip


def of_arms(trained: Sequence[Row], measured: Sequence[Row]) -> Table:
    """Return what became of each arm."""
    found = headed("What became of each arm", "trained", "method", "learnt", "updates, median (range)",
                   "clip acted (%)", "clean at the paper's positions", "clean anywhere")  # fmt: skip
    for place, method in arms(trained):
        mine = of(trained, place, method)
        updates = sorted(row["updates"] for row in mine)
        acted = [100 * np.average(row["clipped_part"], weights=row["updates_by_stage"]) for row in mine]
        cells = [rate(clean(measured, place, method, where)) for where in PLACES]
        found.add_row(place, TITLES[method], f"{sum(row['solved'] for row in mine)} of {len(mine)}",
                      f"{np.median(updates):,.0f} ({updates[0]:,}-{updates[-1]:,})", f"{np.mean(acted):.0f}",
                      *cells)  # fmt: skip
    return found


def rate(seeds: dict[int, bool]) -> str:
    if not seeds:
        return "-"
    found = statistics.success_rate(sum(seeds.values()), len(seeds))
    return f"{sum(seeds.values())} of {len(seeds)} ({100 * found.low:.0f}-{100 * found.high:.0f} %)"


def by_length(trained: Sequence[Row], measured: Sequence[Row]) -> Table:
    """Return how many answers were wrong at each length."""
    rows = [row for row in measured if row["kind"] == "measurement"]
    heads = [(place, method, where) for place, method in arms(trained) for where in PLACES
             if of(rows, place, method, measured=where)]  # fmt: skip
    size = rows[0]["size"] if rows else 0
    found = headed(f"Wrong of {size:,}: median (least-most) over seeds", "length",
                   *(f"trained {place}, {method}\nmeasured {where}" for place, method, where in heads))  # fmt: skip
    for length in sorted({row["length"] for row in rows}):
        cells = [spread([row["wrong"] for row in of(rows, place, method, measured=where, length=length)])
                 for place, method, where in heads]  # fmt: skip
        found.add_row(f"{length:,}", *cells)
    return found


def spread(values: Sequence[int]) -> str:
    return f"{np.median(values):,.0f} ({min(values):,}-{max(values):,})" if values else "-"


def by_part(trained: Sequence[Row], measured: Sequence[Row]) -> Table:
    """Return how many answers were wrong with one part of a sequence stretched."""
    rows = [row for row in measured if row["kind"] == "stretched"]
    size = rows[0]["size"] if rows else 0
    found = headed(f"One part stretched, wrong of {size:,}: median (least-most) over seeds", "part", "steps",
                   *(f"trained {place}, {method}" for place, method in arms(trained)))  # fmt: skip
    for part in [part for part in PARTS if any(row["part"] == part for row in rows)]:
        counts = [[dict(map(tuple, row["wrong"])) for row in of(rows, *arm, part=part)] for arm in arms(trained)]
        for to in sorted({to for arm in counts for one in arm for to in one}):
            found.add_row(part, f"{to:,}", *(spread([one[to] for one in arm]) for arm in counts))
    return found


def by_points(trained: Sequence[Row], measured: Sequence[Row]) -> Table:
    """Return how many fixed points attract under the mean distractor, before training and after."""
    title = "Fixed points that attract under the mean distractor: median (least-most) over seeds"
    heads = ("before", "after", "largest modulus of an eigenvalue after", "networks that settle nowhere")
    found = headed(title, "trained", "method", *heads)
    for place, method in arms(trained):
        rows = of(measured, place, method, kind="points")
        largest = [max(row["after"]["largest"]) for row in rows if row["after"]["largest"]]
        top = f"{np.median(largest):.2f} ({min(largest):.2f}-{max(largest):.2f})" if largest else "-"
        found.add_row(place, TITLES[method], *(spread([row[when]["attracting"] for row in rows])
                                               for when in ("before", "after")), top,
                      f"{sum(not row['after']['attracting'] for row in rows)} of {len(rows)}")  # fmt: skip
    return found


# The picture.


def picture(trained: Sequence[Row], measured: Sequence[Row]) -> Any:
    """Draw wrong answers against length, by place, and against wait, gap and tail: a line each network."""
    title = "Temporal order: what is trained is what is robust"
    rows = [row for row in measured if row["kind"] == "measurement"]
    stretched = [row for row in measured if row["kind"] == "stretched"]
    seeds = len({row["seed"] for row in trained})
    words = (
        f"tanh networks of {trained[0]['n_hidden']} units, {seeds} seeds an arm, trained on 20 to 60 and then 50 to "
        f"200 steps (shaded). A line each network.\nAbove: wrong at fresh sequences with symbols at the paper's "
        f"positions. Below: one part of a sequence stretched, of networks trained anywhere (full) and at the paper's "
        f"positions (dotted)."
    )
    with plot.page(title, words, (12.0, 8.0), dpi=130) as found:
        grid = found.add_gridspec(2, 6)
        upper = [found.add_subplot(grid[0, :3]), found.add_subplot(grid[0, 3:])]
        for axes, place in zip(upper, PLACES, strict=True):
            _lengths(axes, place, rows)
        for k, part in enumerate(PARTS):
            _part(found.add_subplot(grid[1, 2 * k : 2 * k + 2]), part, stretched)
        _legend(found)
    return found


def _lengths(axes: Any, place: str, rows: Sequence[Row]) -> None:
    axes.axvspan(50, 200, color=plot.COLOURS[2], alpha=0.13, linewidth=0)
    for method, colour in SHADES.items():
        mine = of(rows, place, method, measured="paper")
        for seed in dict.fromkeys(row["seed"] for row in mine):
            one = sorted((row["length"], 100 * row["wrong"] / row["size"]) for row in mine if row["seed"] == seed)
            axes.plot(*zip(*one, strict=True), MARKS[method] + "-", color=colour, linewidth=1, markersize=3, alpha=0.6,
                      clip_on=False)  # fmt: skip
    lengths = sorted({row["length"] for row in rows})
    axes.plot(lengths, [0.0] * len(lengths), "x", color=plot.INK, markersize=5, clip_on=False)
    _scales(axes, least=0.01)
    axes.set_title(f"trained with {PLACES[place]}", fontsize=11, fontweight="bold")
    axes.set_xlabel("length of a sequence (steps)")
    axes.set_ylabel("wrong (%)")


def _part(axes: Any, part: str, rows: Sequence[Row]) -> None:
    for method, colour in SHADES.items():
        for place, style in (("anywhere", "-"), ("paper", ":")):
            for row in of(rows, place, method, part=part):
                steps, wrong = zip(*sorted(map(tuple, row["wrong"])), strict=True)
                axes.plot(steps, [100 * one / row["size"] for one in wrong], style, color=colour, linewidth=1,
                          alpha=0.6, clip_on=False)  # fmt: skip
    _scales(axes, least=0.1)
    axes.set_xlabel(f"{part} (steps)")
    axes.set_ylabel("wrong (%)" if part == "wait" else "")


def _scales(axes: Any, least: float) -> None:
    """Make both axes logarithmic, the lower one linear below a single sequence."""
    from matplotlib.ticker import NullLocator

    axes.set_xscale("log")
    low, high = axes.get_xlim()
    ticks = [tick for tick in (50, 100, 200, 500, 1000, 2000, 5000) if low <= tick <= high]
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks], fontsize=9)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_yscale("symlog", linthresh=least, linscale=0.5)
    decades = [0.0, *(tick for tick in (0.01, 0.1, 1.0, 10.0, 100.0) if tick >= least)]
    axes.set_yticks(decades, [f"{tick:g}" for tick in decades])
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylim(-0.25 * least, 130)
    plot.grid(axes, "y")


def _legend(page: Any) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=colour, marker=MARKS[method], label=TITLES[method])
               for method, colour in SHADES.items()]  # fmt: skip
    published = "published: one model, no error (Pascanu et al. 2013)"
    handles.append(Line2D([], [], color=plot.INK, linestyle="", marker="x", label=published))
    page.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
