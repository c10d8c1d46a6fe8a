"""What is drawn in many pictures: a grid behind, lines that mean something, intervals, curves of replicas, a legend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nbflow.plot._page import COLOURS, page
from nbflow.plot._theme import inks
from nbflow.records import Floats, Interval

DASHED = (0, (4, 3))


def axes_of(ax: Any) -> Any:
    """Return axes to draw in: those given, or the only ones of a new page."""
    if ax is not None:
        return ax
    with page("", "", (6.4, 4.4)) as figure:
        return figure.subplots()


def grid(ax: Any, axis: str = "both") -> None:
    """Draw faint lines behind all else, across "x", "y" or "both"."""
    ax.grid(axis=axis, color=inks(ax).grid, linewidth=0.6)
    ax.set_axisbelow(True)


def plain_log(axis: Any) -> None:
    """Write plain numbers beside a logarithmic axis, and enough of them on a short one, once all is drawn.

    Parameters
    ----------
    axis : matplotlib.axis.Axis
        As `ax.xaxis`.
    """
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    low, high = axis.get_view_interval()
    subs = (1, 1.5, 2, 3, 5, 7) if high < 20 * low else (1, 2, 5) if high < 300 * low else (1,)
    axis.set_major_locator(MaxNLocator(4) if high < 4 * low else LogLocator(subs=subs))
    axis.set_major_formatter("{x:,g}")
    axis.set_minor_locator(NullLocator())


def reference(
    ax: Any,
    *,
    x: float | tuple[float, float] | None = None,
    y: float | tuple[float, float] | None = None,
    colour: str | None = None,
    behind: bool = True,
    **style: Any,
) -> None:
    """Draw a dashed line at x or at y, which means something, or a band from one to another.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    x, y : float or (float, float), optional
        Where the line is, or the ends of the band.
    colour : str, optional
        By default that of words that matter less.
    behind : bool
        Whether a line stands behind what else is drawn; a band always does.
    style : keywords
        Of matplotlib's lines, or patches for a band: label, linestyle, linewidth ...

    Examples
    --------
    >>> from nbflow.plot import page
    >>> with page("", "", (4, 3)) as figure:
    ...     ax = figure.subplots()
    >>> reference(ax, y=3.5, label="published", linestyle=":")
    >>> reference(ax, y=(3.4, 4.5), label="others")
    >>> ax.get_legend_handles_labels()[1]
    ['published', 'others']
    """
    ink = colour or inks(ax).faint
    line = {"color": ink, "linewidth": 0.9, "linestyle": DASHED, "zorder": 0 if behind else 3}
    band = {"color": ink, "alpha": 0.15, "linewidth": 0, "zorder": 0}
    for at, one, two in ((x, ax.axvline, ax.axvspan), (y, ax.axhline, ax.axhspan)):
        if isinstance(at, tuple):
            two(*at, **(band | style))
        elif at is not None:
            one(at, **(line | style))


def intervals(
    places: Sequence[float],
    found: Sequence[Interval],
    *,
    colour: str = COLOURS[0],
    marker: str = "o",
    across: bool = False,
    of: Sequence[Sequence[float]] = (),
    beside: float = 0.0,
    ax: Any = None,
    **style: Any,
) -> Any:
    """Draw estimates, and a bar from end to end of the interval of each.

    Parameters
    ----------
    places : sequence of float
    found : sequence of Interval
        With ends that are not finite there is no bar.
    colour, marker : str
    across : bool
        Whether values go from left to right, and places from bottom to top.
    of : sequence of sequences of float, optional
        What each estimate is of, as the runs of a mean: a dot for each.
    beside : float
        How far from its place the dots of an estimate stand.
    ax : matplotlib.axes.Axes, optional
    style : keywords
        Of `Axes.errorbar`: label, linewidth (0 for points alone), capsize, zorder ...

    Returns
    -------
    matplotlib.axes.Axes

    Examples
    --------
    >>> from nbflow.statistics import success_rate
    >>> ax = intervals([10, 20], [success_rate(k, 10) for k in (3, 8)], label="SGD")
    >>> len(ax.containers)
    1

    The mean of three runs, and the runs beside it:

    >>> from nbflow.statistics import mean_interval
    >>> found = mean_interval([1.0, 2.0, 3.0])
    >>> ax = intervals([0], [found[:3]], of=[[1.0, 2.0, 3.0]], beside=0.1)
    >>> ax.lines[0].get_xdata().tolist()
    [0.1, 0.1, 0.1]
    """
    if len(of) not in (0, len(places)):
        raise ValueError(
            f"of has {len(of)} parts, and there are {len(places)} places; expected as many. Give one for each."
        )
    ax = axes_of(ax)
    value, low, high = np.array([tuple(one) for one in found], float).reshape(-1, 3).T
    ends = np.nan_to_num(np.stack([value - low, high - value]), nan=0.0, posinf=0.0, neginf=0.0)
    style = {"markersize": 6, "linewidth": 1.6, "elinewidth": 1.1, "capsize": 3, **style}
    for place, values in zip(places, of, strict=False):  # none at all where they are not given
        there = np.full(len(values), place + beside)
        ax.plot(*((values, there) if across else (there, values)), ".", color=colour, alpha=0.6, markersize=5)
    x, y = (value, places) if across else (places, value)
    ax.errorbar(x, y, **{"xerr" if across else "yerr": ends}, color=colour, marker=marker, **style)
    return ax


def percent(part: Interval) -> Interval:
    """Return a part of one and its interval in percent."""
    return Interval(*(100 * end for end in part))


def replicas(updates: Sequence[float], values: Any, *, colour: str = COLOURS[0], ax: Any = None) -> Any:
    """Draw a thin line for every replica, and a thick one for their median.

    Parameters
    ----------
    updates : sequence of n numbers
    values : array of shape (n, R)
        NaN is a gap.
    colour : str
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax = axes_of(ax)
    if len(updates):
        rows: Floats = np.asarray(values, dtype=float).reshape(len(updates), -1)
        ax.plot(updates, rows, color=colour, linewidth=0.7, alpha=0.4, solid_joinstyle="round")
        ax.plot(updates, median(rows), color=colour, linewidth=2.4, solid_capstyle="round")
    return ax


def median(rows: Floats) -> Floats:
    """Return the median of each row (n, R) over what is finite, NaN where nothing is."""
    finite = np.isfinite(rows)
    found = np.full(len(rows), np.nan)
    for k in np.flatnonzero(finite.any(axis=1)):
        found[k] = np.median(rows[k, finite[k]])
    return found


def legend_below(ax: Any, *, columns: int = 0, labels: Sequence[str] = ()) -> None:
    """Say below a page what the lines of some axes are, by default in one row; labels take the place of theirs."""
    handles, own = ax.get_legend_handles_labels()
    ax.figure.legend(
        handles, labels or own, loc="outside lower center", ncols=columns or max(len(own), 1), frameon=False
    )


def legend_beside(ax: Any, *, columns: int = 1, above: bool = False, **more: Any) -> None:
    """Say under its own axes, or above them, what their lines are, where nothing is drawn that it could hide."""
    place = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0)} if above else {
        "loc": "upper center", "bbox_to_anchor": (0.5, -0.2)}  # fmt: skip
    ax.legend(ncols=columns, frameon=False, **place, **more)
