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
    ax: Any, *, x: float | None = None, y: float | None = None, colour: str | None = None, behind: bool = True
) -> None:
    """Draw a dashed line at x or at y, which means something."""
    style = {"color": colour or inks(ax).faint, "linewidth": 0.9, "linestyle": DASHED, "zorder": 0 if behind else 3}
    if x is not None:
        ax.axvline(x, **style)
    if y is not None:
        ax.axhline(y, **style)


def intervals(
    places: Sequence[float],
    found: Sequence[Interval],
    *,
    colour: str = COLOURS[0],
    marker: str = "o",
    across: bool = False,
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
    """
    ax = axes_of(ax)
    value, low, high = np.array([tuple(one) for one in found], float).reshape(-1, 3).T
    ends = np.nan_to_num(np.stack([value - low, high - value]), nan=0.0, posinf=0.0, neginf=0.0)
    style = {"markersize": 6, "linewidth": 1.6, "elinewidth": 1.1, "capsize": 3, **style}
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
