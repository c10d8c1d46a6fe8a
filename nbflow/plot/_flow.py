"""How the gradient flows back: its size by lag, the histogram of gains, and a map of its steps."""

from __future__ import annotations

from typing import Any

import numpy as np

from nbflow import _check
from nbflow.plot._given import one_network, record
from nbflow.plot._marks import axes_of, grid, plain_log, reference
from nbflow.plot._page import COLOURS
from nbflow.plot._theme import needed
from nbflow.records import Floats, LagProfile, Trace

# A map shows so many powers of ten below its largest entry; what is smaller has the colour of the least.
DECADES = 12


def gradient_by_lag(
    seen: Any, *, relative: bool = False, colour: str = COLOURS[0], label: str | None = None, ax: Any = None
) -> Any:
    """Draw the size of the gradient against the steps that it has come back, with its interval over sequences.

    A line that falls is a gradient that vanishes, one that rises a gradient that explodes.

    Parameters
    ----------
    seen : LagProfile, or array of shape (T+1,) or (R, T+1)
        From `nbflow.gains_by_lag`, or sizes by lag alone. Of R networks each is a thin line, and their geometric mean a
        thick one.
    relative : bool
        Whether to divide by the size at lag 0, so that networks whose losses differ can be compared.
    colour : str
    label : str, optional
        For a legend.
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes
        With the line of geometric means, and for one network a band between the ends of their intervals.

    Examples
    --------
    >>> import nbflow as nf
    >>> net = nf.Network(cell="tanh", n_in=6, n_hidden=20, n_out=4)
    >>> theta = nf.init(net, "basic_tanh", rng=0)
    >>> batch = nf.load_task("temporal_order").sample(seed=0, index=0, batch_size=20, length=30)
    >>> ax = gradient_by_lag(nf.gains_by_lag(net, theta, batch), label="tanh")
    >>> ax.get_yscale(), len(ax.lines[0].get_xdata())
    ('log', 31)
    """
    rows, ends = _sizes(seen)
    relative = _check.flag("relative", relative)
    ax, lags = axes_of(ax), np.arange(rows.shape[1])
    with np.errstate(divide="ignore", invalid="ignore"):
        if relative:
            rows, ends = rows / rows[:, :1], ends / rows[0, 0]
        mean = rows[0] if len(rows) == 1 else np.exp(np.log(rows).mean(axis=0))
    if len(rows) > 1:
        ax.plot(lags, rows.T, color=colour, linewidth=0.7, alpha=0.5)
    ax.plot(lags, mean, color=colour, linewidth=2, label=label)
    if len(ends):
        ax.fill_between(lags, *ends, color=colour, alpha=0.2, linewidth=0)
    if relative:
        reference(ax, y=1)
    ax.set_yscale("log")
    ax.set_xlabel("lag (steps back from the end)")
    ax.set_ylabel(r"$\|\delta\|$ / $\|\delta\|$ at lag 0" if relative else r"$\|\delta\|$ (loss / state)")
    grid(ax)
    return ax


def _sizes(seen: Any) -> tuple[Floats, Floats]:
    """Return sizes by lag, a row for each network, and of one network the ends of their intervals (2, T+1)."""
    none = np.empty((0, 1))
    if isinstance(seen, LagProfile):
        mean, low, high, _ = seen.delta_norm
        return np.atleast_2d(mean), none if np.ndim(mean) > 1 else np.stack([low, high])
    try:
        rows = np.asarray(seen, np.float64)
    except Exception:
        raise TypeError(
            f"seen is {_check.said(seen)}; expected an nbflow.LagProfile, or sizes by lag. Draw what "
            f"nbflow.gains_by_lag returns."
        ) from None
    if rows.ndim not in (1, 2) or not rows.size:
        raise ValueError(
            f"seen has shape {rows.shape}; expected (T+1,), or (R, T+1) of R networks. Draw what nbflow.gains_by_lag "
            f"returns."
        )
    return np.atleast_2d(rows), none


def gain_histogram(
    seen: Any,
    *,
    bins: Any = 60,
    weights: Any = None,
    colour: str = COLOURS[0],
    label: str | None = None,
    ax: Any = None,
) -> Any:
    """Draw how often a step back multiplies the gradient by how much.

    Parameters
    ----------
    seen : Trace, LagProfile or array
        Whose gains are counted: of all steps, sequences and replicas. NaN, 0 and what is not finite are left out.
    bins : int, or array of shape (n+1,)
        How many between the least and the largest gain, of equal width in the logarithm; or their edges, ascending.
    weights : array with as many numbers as `seen`, optional
        How often each gain counts, for gains that were counted before.
    colour : str
    label : str, optional
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes
        Its stairs have a height in % of all counted steps; a dashed line stands at 1.

    Examples
    --------
    >>> ax = gain_histogram([0.5, 0.5, 2.0, float("nan")], bins=2)
    >>> ax.patches[0].get_data().values.round(1).tolist()
    [66.7, 33.3]
    """
    found, weights = _gains(seen, weights)
    edges = _edges(bins, found)
    counts, _ = np.histogram(np.log(found), edges, weights=weights)
    ax = axes_of(ax)
    ax.stairs(100 * counts / weights.sum(), np.exp(edges), color=colour, linewidth=1.8, label=label)
    reference(ax, x=1)
    ax.set_xscale("log")
    plain_log(ax.xaxis)
    ax.set_xlabel(r"gain $r_t$ of a step back (ratio)")
    ax.set_ylabel("steps (%)")
    grid(ax)
    return ax


def _edges(bins: Any, found: Floats) -> Floats:
    """Return the logarithms of the edges between which gains are counted."""
    if np.ndim(bins) == 0:
        return np.histogram_bin_edges(np.log(found), _check.count("bins", bins))
    edges = np.asarray(bins, np.float64)
    if edges.ndim != 1 or len(edges) < 2 or not (edges[0] > 0 and (np.diff(edges) > 0).all()):
        raise ValueError(
            f"bins is {_check.said(bins)}; expected a number of bins, or their edges, above 0 and ascending. Give 60."
        )
    return np.log(edges)


def _gains(seen: Any, weights: Any) -> tuple[Floats, Floats]:
    """Return the gains that can be counted, and how often each of them counts."""
    values = seen.gain if isinstance(seen, Trace) else seen.gains if isinstance(seen, LagProfile) else seen
    try:
        found = np.asarray(values, np.float64).ravel()
    except Exception:
        raise TypeError(
            f"seen is {_check.said(seen)}; expected gains. Draw what nbflow.trace or nbflow.gains_by_lag returns."
        ) from None
    often = np.ones(len(found)) if weights is None else np.asarray(weights, np.float64).ravel()
    if len(often) != len(found) or not (np.isfinite(often) & (often >= 0)).all():
        raise ValueError(
            f"weights is {_check.said(weights)}; expected {len(found)} numbers of at least 0, one for each gain. "
            f"Leave it out."
        )
    counted = np.isfinite(found) & (found > 0) & (often > 0)
    if not counted.any():
        raise ValueError("seen has no gain that is finite and above 0; expected one. Look at its delta_norm.")
    return found[counted], often[counted]


def delta_map(seen: Trace, *, sequence: int | None = None, state: int = 0, ax: Any = None) -> Any:
    """Draw the gradient at every step: of each sequence its norm, or of one sequence each unit's share.

    Parameters
    ----------
    seen : Trace
        Of one network, from `nbflow.trace`.
    sequence : int, optional
        Which one to look into, unit by unit.
    state : int
        Which line of its states: of an lstm 0 is h and 1 is c.
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes
        With a map, of logarithmic colours over twelve powers of ten at most, and its colour bar. Where the gradient
        is 0 or not finite there is no colour.

    Examples
    --------
    >>> import nbflow as nf
    >>> net = nf.Network(cell="lstm", n_in=6, n_hidden=20, n_out=4)
    >>> batch = nf.load_task("temporal_order").sample(seed=0, index=0, batch_size=8, length=30)
    >>> seen = nf.trace(net, nf.init(net, "glorot", rng=0), batch)
    >>> delta_map(seen).collections[0].get_array().shape
    (8, 31)
    >>> delta_map(seen, sequence=3, state=1).collections[0].get_array().shape
    (20, 31)
    """
    needed()
    from matplotlib.colors import LogNorm

    record("seen", seen, Trace, "nbflow.trace")
    delta = one_network("seen.delta", seen.delta, 4)
    if sequence is None:
        values, down, what = one_network("seen.delta_norm", seen.delta_norm, 2).T, "sequence", r"$\|\delta_t\|$"
    else:
        values = np.abs(delta[:, _at("sequence", sequence, delta.shape[1]), _at("state", state, delta.shape[2])]).T
        down, what = "unit", r"$|\delta_t|$"
    there = np.isfinite(values) & (values > 0)
    largest = values[there].max() if there.any() else 1.0
    least = max(values[there].min() if there.any() else 0.1, largest * 10.0**-DECADES)
    norm = LogNorm(least, largest if largest > least else 10 * least)
    ax = axes_of(ax)
    steps, rows = np.arange(values.shape[1] + 1) - 0.5, np.arange(len(values) + 1) - 0.5
    mesh = ax.pcolormesh(steps, rows, np.ma.array(values, mask=~there), norm=norm, cmap="viridis", rasterized=True)
    ax.figure.colorbar(mesh, ax=ax, label=f"{what} (loss / state)", pad=0.02)
    ax.set(xlabel="step t", ylabel=down)
    ax.yaxis.get_major_locator().set_params(integer=True)
    ax.invert_yaxis()
    return ax


def _at(name: str, value: Any, size: int) -> int:
    found = _check.count(name, value, 0)
    if found >= size:
        raise ValueError(f"{name} is {found}; expected less than {size}, for there are so many. They count from 0.")
    return found
