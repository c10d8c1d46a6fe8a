"""Quantities over updates: a row of axes for each, a column and a colour for each method."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nbflow._legible import legible
from nbflow.plot._marks import grid, plain_log, reference, replicas
from nbflow.plot._page import COLOURS, page
from nbflow.plot._theme import inks


@legible
@dataclass(frozen=True)
class Level:
    """A horizontal line that means something, and the words beside it.

    Attributes
    ----------
    at : float
        Where it lies, in units of the row.
    text : str
        What it means.
    """

    at: float
    text: str


@legible
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
    size = 2.2 + 3.4 * max(len(methods), 2), 0.5 + 2.3 * len(rows)
    with page(title, subtitle, size, dpi=150, wspace=0.06, hspace=0.04) as picture:
        lines = picture.subplots(len(rows), len(methods), sharex=True, sharey="row", squeeze=False)
        for line, row in zip(lines, rows, strict=True):
            _draw_row(line, row, list(methods))
        for axes, words, colour in zip(lines[0], methods.values(), itertools.cycle(COLOURS), strict=False):
            axes.set_title(words, color=colour, fontweight="bold", fontsize=11)
        for axes in lines[-1]:
            axes.set_xlabel("updates")
            axes.set_xlim(left=0)
            axes.xaxis.set_major_formatter("{x:,.0f}")
            axes.xaxis.get_major_locator().set_params(nbins=4)
        picture.align_ylabels(lines[:, 0])
    return picture


def _draw_row(line: Any, row: Row, methods: Sequence[str]) -> None:
    last = row.levels.get(methods[-1], ())
    for axes, method, colour in zip(line, methods, itertools.cycle(COLOURS), strict=False):
        if row.scale != "linear":
            axes.set_yscale("log" if row.scale == "log" else "symlog", **_room(row))
        if method in row.curves:
            replicas(*row.curves[method], colour=colour, ax=axes)
        for level in row.levels.get(method, ()):
            reference(axes, y=level.at, colour=inks(axes).ink, behind=False)
            # What a line means is said once, to the right of the last column.
            if method == methods[-1] or level not in last:
                x, side = (1.02, "left") if method == methods[-1] else (0.99, "right")
                axes.text(
                    x, level.at, level.text, transform=axes.get_yaxis_transform(), fontsize=9, ha=side, va="center"
                )
        grid(axes, "y")
        axes.margins(x=0)
        if row.scale == "error":
            axes.axhspan(-0.25 * row.solved, row.solved, color="#009E73", alpha=0.13, linewidth=0, zorder=0)
    line[0].set_ylabel(row.label)
    _ticks(line[0], row)


def _room(row: Row) -> dict[str, Any]:
    return {"linthresh": row.solved, "linscale": 0.35} if row.scale == "error" else {}


def _ticks(axes: Any, row: Row) -> None:
    """Write plain numbers beside an axis that is not linear."""
    from matplotlib.ticker import NullLocator

    if row.scale == "error":
        ticks = [tick for tick in (0.0, 1.0, 3.0, 10.0, 30.0, 100.0) if tick == 0 or tick >= row.solved]
        axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_ylim(-0.25 * row.solved, 115)
        axes.yaxis.set_minor_locator(NullLocator())
    elif row.scale == "log":
        plain_log(axes.yaxis)
