"""The two pictures of scripts/clip_bias.py, from the lines of its store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import clip_bias_report as reporting
import numpy as np

from nbflow import plot
from nbflow.storage.store import Row

# What is drawn: its field, its words, and the ends of the axis.
METRICS = (("cosine", "cosine with the true gradient", (0.35, 1.02)),
           ("relative_norm", "norm, relative to the true gradient", (0.0, 0.75)),
           ("sign_agreement", "entries with the true sign (part)", (0.45, 1.02)))  # fmt: skip
SHADES = {"norm": plot.COLOURS[1], "each example": plot.COLOURS[0]}
MARKS = {"norm": "o", "each example": "s"}


def bias(rows: Sequence[Row]) -> Any:
    """Draw cosine, relative norm and signs of every way of clipping, a row for each setting, a dot for each network."""
    every = reporting.settings(rows)
    names, count = reporting.names(every), len(every[0].seen)
    part = float(np.median([one["ways"]["norm"]["strength"] for one in every[0].seen]))
    words = (
        f"The mean of clipped minibatch gradients against the mean of the unclipped ones. Thresholds are such that "
        f"each way shortens them alike, to about {100 * part:.0f} % of their mean norm.\nA dot for each of {count} "
        f"networks; means over them and 95 % intervals. A number on the right: of so many networks only. Dashed: no "
        f"bias, or only in length."
    )
    size = 12.5, (0.5 + 0.25 * len(names)) * len(every) + 0.4
    title = "What each way of clipping does to the gradient on average"
    with plot.page(title, words, size, dpi=110, h_pad=0.1, w_pad=0.1) as found:
        grid = found.subplots(len(every), len(METRICS), squeeze=False, sharey=True, sharex="col")
        for line, setting in zip(grid, every, strict=True):
            line[0].set_title(headline(setting), loc="left", fontsize=11, fontweight="bold")
            for axes, (metric, label, ends), mark in zip(line, METRICS, (1.0, part, 1.0), strict=True):
                for row, name in enumerate(names):
                    _networks(axes, row, setting, name, metric, ends[0])
                axes.set_xlim(ends)
                axes.tick_params(labelbottom=True)
                plot.reference(axes, x=mark)
                plot.grid(axes, "x")
                if setting is every[-1]:
                    axes.set_xlabel(label)
            line[0].set_yticks(range(len(names)), names)
        grid[0, 0].set_ylim(len(names) - 0.5, -0.5)
    return found


def headline(setting: reporting.Setting) -> str:
    return f"{setting.title[0].upper()}{setting.title[1:]}"


def _networks(axes: Any, row: int, setting: reporting.Setting, name: str, metric: str, least: float) -> None:
    """Draw a way of clipping; what lies left of the axis is written."""
    values = reporting.numbers(setting, name, metric)
    there = [value for value in values if np.isfinite(value)]
    words = "" if len(there) > 1 else "nothing but noise" if values else "cannot shorten so far"
    mean = reporting.mean(there, most=1.0) if len(there) > 1 else None
    if mean and mean.value < least:
        words = f"◄ {reporting.words(mean, 2)}"
    elif mean:
        axes.plot(there, [row] * len(there), ".", color=plot.COLOURS[0], markersize=5, alpha=0.55, markeredgewidth=0)
        plot.intervals([row], [mean], colour=plot.COLOURS[1], across=True, ax=axes, capsize=0, elinewidth=2,
                       markersize=5, zorder=3)  # fmt: skip
    for at, said in ((0.02, words), (1.01, f"{len(there)}" if mean and len(there) < len(setting.seen) else "")):
        axes.text(at, row, said, transform=axes.get_yaxis_transform(), fontsize=8, color=plot.FAINT, va="center")


def who_loses(rows: Sequence[Row]) -> Any:
    """Draw what is kept by size of an example's gradient and by kind, and averages of clipped against clipped ones."""
    every = reporting.settings(rows)
    words = (
        f"Means over {len(every[0].seen)} networks, each thin or a dot. Above: the part of an example's own gradient "
        "that is kept; large are the 5 % with the largest gradients.\nBelow: how far the average of norm-clipped "
        "minibatch gradients is from the norm-clipped average over all their examples."
    )
    size = 4.3 * len(every), 11.0
    with plot.page("Whose gradient counts for less", words, size, dpi=110, h_pad=0.12, w_pad=0.1) as found:
        grid = found.subplots(3, len(every), squeeze=False, sharey="row")
        for column, setting in zip(grid.T, every, strict=True):
            _by_rank(column[0], setting)
            _by_kind(column[1], setting)
            _averages(column[2], setting)
        for axes, label in zip(grid[:, 0], ("part that is kept", "part that is kept", "distance / its length"),
                               strict=True):  # fmt: skip
            axes.set_ylabel(label)
    return found


def _by_rank(axes: Any, setting: reporting.Setting) -> None:
    """Draw what is kept against the order of examples by the norms of their gradients."""
    for name, colour in SHADES.items():
        lines = np.array([one["ways"][name]["by_rank"] for one in setting.seen if name in one["ways"]], float)
        at = 100 * (np.arange(lines.shape[1]) + 0.5) / lines.shape[1]
        axes.plot(at, lines.T, color=colour, linewidth=0.7, alpha=0.4)
        axes.plot(at, lines.mean(axis=0), color=colour, linewidth=2.4, label=_clipped(name))
    axes.set(title=headline(setting), xlabel="examples, by norm of the gradient (%)", ylim=(0, 1.04), xlim=(0, 100))
    plot.grid(axes)
    plot.legend_beside(axes, fontsize=9)


def _clipped(name: str) -> str:
    return {"norm": "clipping the minibatch by norm"}.get(name, f"clipping {name}")


def _by_kind(axes: Any, setting: reporting.Setting) -> None:
    """Draw what is kept of large examples, of those beside them, and of the others."""
    for side, (name, colour) in zip((-0.14, 0.14), SHADES.items(), strict=True):
        for kind in range(3):
            values = reporting.kept(setting, name, kind)
            axes.plot([kind + side] * len(values), values, ".", color=colour, markersize=5, alpha=0.4,
                      markeredgewidth=0)  # fmt: skip
        means = [reporting.mean(reporting.kept(setting, name, kind)) for kind in range(3)]
        plot.intervals([kind + side for kind in range(3)], means, colour=colour, marker=MARKS[name], ax=axes,
                       linewidth=0, capsize=0, elinewidth=2, markersize=5)  # fmt: skip
    axes.set_xticks(range(3), ["large", "beside a\nlarge one", "others"])
    axes.set(xlim=(-0.5, 2.5), ylim=(0, 1.04))
    plot.grid(axes, "y")


def _averages(axes: Any, setting: reporting.Setting) -> None:
    """Draw the distance of average of clipped and clipped average against the threshold, by size of the minibatch."""
    averages = setting.seen[0]["averages"]
    values = np.mean([reporting.distances(one["averages"]) for one in setting.seen], axis=0)
    for line, size, colour in zip(values, averages["sizes"], plot.shades(len(values)), strict=True):
        axes.plot(averages["thresholds"], line, color=colour, linewidth=2, label=f"{size}")
    axes.set(xscale="log", xlabel="threshold / norm of the true gradient", ylim=(0, 1.04))
    plot.reference(axes, x=1)
    plot.grid(axes)
    plot.legend_beside(axes, columns=len(values), title="examples in a minibatch", fontsize=9, title_fontsize=9)
