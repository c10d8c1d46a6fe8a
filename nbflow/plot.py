"""Pictures that the scripts share; matplotlib is imported inside the functions, for nbflow itself does without it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nbflow.records import Floats

# Okabe and Ito 2008: told apart by colour-blind readers too, and in this order also by their lightness.
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
INK, FAINT = "#222222", "#777777"
STYLE = {
    "font.size": 10,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
}


@dataclass(frozen=True)
class Level:
    """A horizontal line that means something, and the words beside it."""

    at: float
    text: str


@dataclass(frozen=True)
class Row:
    """One quantity over updates, for every method.

    Attributes
    ----------
    label : str
        What it is, and its unit.
    curves : dict of (updates (n,), values (n, R))
        By method. NaN is a gap.
    scale : str
        "linear", "log" or "error": percents, linear below the `solved` error and logarithmic above.
    levels : dict of sequences of Level
        By method.
    solved : float
        For the scale "error": the error below which a task counts as solved, in percent.
    """

    label: str
    curves: Mapping[str, tuple[Sequence[float], Any]]
    scale: str = "linear"
    levels: Mapping[str, Sequence[Level]] = field(default_factory=dict)
    solved: float = 1.0


def training(title: str, subtitle: str, methods: Mapping[str, str], rows: Sequence[Row]) -> Any:
    """Draw quantities over updates: a row for each, a column and a colour for each method, the same axes along a row.

    Parameters
    ----------
    title, subtitle : str
    methods : dict of str
        Method: the words above its column.
    rows : sequence of Row

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> row = Row("error (%)", {"sgd": ([100, 200], [[75.0, 74.0], [60.0, 0.5]])}, scale="error")
    >>> picture = training("Two networks", "", {"sgd": "plain SGD"}, [row])
    >>> [axes.get_ylabel() for axes in picture.axes]
    ['error (%)']
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        size = (1.6 + 3.6 * max(len(methods), 2), 1.5 + 2.4 * len(rows))
        picture = Figure(figsize=size, dpi=150, layout="constrained")
        picture.suptitle(f"{title}\n", fontsize=15, fontweight="bold", x=0.01, ha="left")
        picture.text(0.01, 1 - 0.46 / size[1], subtitle, fontsize=10, color=FAINT, ha="left", va="top")
        grid = picture.subplots(len(rows), len(methods), sharex=True, sharey="row", squeeze=False)
        for line, row in zip(grid, rows, strict=True):
            _draw_row(line, row, methods)
        for axes, words, colour in zip(grid[0], methods.values(), COLOURS, strict=False):
            axes.set_title(words, color=colour, fontweight="bold", fontsize=11)
        for axes in grid[-1]:
            axes.set_xlabel("updates")
            axes.xaxis.set_major_formatter("{x:,.0f}")
            axes.xaxis.get_major_locator().set_params(nbins=5)
        picture.align_ylabels(grid[:, 0])
    return picture


def _draw_row(line: Any, row: Row, methods: Mapping[str, str]) -> None:
    for axes, method, colour in zip(line, methods, COLOURS, strict=False):
        if row.scale == "error":
            _error_scale(axes, row.solved)
        elif row.scale == "log":
            axes.set_yscale("log")
        if method in row.curves:
            replicas(axes, *row.curves[method], colour)
        for level in row.levels.get(method, ()):
            axes.axhline(level.at, color=INK, linewidth=0.9, linestyle=(0, (4, 3)), zorder=3)
            axes.annotate(level.text, (1, level.at), (0, 2), xycoords=("axes fraction", "data"), fontsize=8.5,
                          textcoords="offset points", ha="right", va="bottom", color=INK, zorder=4,
                          bbox={"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 0.6})  # fmt: skip
        axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.margins(x=0)
    line[0].set_ylabel(row.label)


def replicas(axes: Any, updates: Sequence[float], values: Any, colour: str) -> None:
    """Draw a thin line for every replica, and a thick one for their median.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    updates : sequence of n numbers
    values : array of shape (n, R)
    colour : str
    """
    rows: Floats = np.asarray(values, dtype=float).reshape(len(updates), -1)
    if not rows.size:
        return
    axes.plot(updates, rows, color=colour, linewidth=0.7, alpha=0.45, solid_joinstyle="round")
    axes.plot(updates, median(rows), color=colour, linewidth=2.4, solid_capstyle="round")


def median(rows: Floats) -> Floats:
    """Return the median of each row (n, R) over what is finite, NaN where nothing is."""
    finite = np.isfinite(rows)
    found = np.full(len(rows), np.nan)
    for k in np.flatnonzero(finite.any(axis=1)):
        found[k] = np.median(rows[k, finite[k]])
    return found


def _error_scale(axes: Any, solved: float) -> None:
    """Show 0 to 100 %, with room for what is solved."""
    from matplotlib.ticker import NullLocator

    axes.set_yscale("symlog", linthresh=solved, linscale=0.35)
    ticks = [tick for tick in (0.0, 1.0, 3.0, 10.0, 30.0, 100.0) if tick == 0 or tick >= solved]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylim(-0.25 * solved, 115)
    axes.axhspan(-0.25 * solved, solved, color="#009E73", alpha=0.13, linewidth=0, zorder=0)


def save(picture: Any, path: str | os.PathLike[str]) -> Path:
    """Write a picture beside `path` and rename it, so that there is never half a picture; return the path.

    Parameters
    ----------
    picture : matplotlib.figure.Figure
    path : path
        Its suffix says the format; missing folders are made.

    Returns
    -------
    Path
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.stem}.{os.getpid()}{target.suffix}")
    try:
        picture.savefig(beside)
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
    return target
