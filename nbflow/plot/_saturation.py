"""Saturation: how much of the time each unit's gates are at the ends of their ranges."""

from __future__ import annotations

from typing import Any

from nbflow.plot._given import one_network, record
from nbflow.plot._marks import axes_of, grid
from nbflow.plot._page import COLOURS
from nbflow.plot._spectra import MARKS
from nbflow.plot._theme import inks
from nbflow.records import Saturation


def saturation(seen: Saturation, *, ax: Any = None) -> Any:
    """Draw a point for each gate of each unit: how often it is near its lower end, and how often near its upper one.

    After Karpathy, Johnson, Fei-Fei 2015, figure 2. On the slanted line a gate is at one end or the other all the time,
    and passes next to no gradient; in the lower left corner it is never near either.

    Parameters
    ----------
    seen : Saturation
        Of one network, from `nbflow.saturation`.
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes
        With a line of points for each gate, labelled by its name.

    Examples
    --------
    >>> import nbflow as nf
    >>> net = nf.Network(cell="lstm", n_in=6, n_hidden=20, n_out=4)
    >>> batch = nf.load_task("temporal_order").sample(seed=0, index=0, batch_size=8, length=30)
    >>> ax = saturation(nf.saturation(net, nf.init(net, "glorot", rng=0), batch))
    >>> ax.get_legend_handles_labels()[1]
    ['i', 'f', 'g', 'o']
    """
    record("seen", seen, Saturation, "nbflow.saturation")
    low, high = one_network("seen.low", seen.low, 2), one_network("seen.high", seen.high, 2)
    ax = axes_of(ax)
    for place, gate in enumerate(seen.gates):
        colour, mark = COLOURS[place % len(COLOURS)], MARKS[place % len(MARKS)]
        ax.plot(100 * high[place], 100 * low[place], mark, color=colour, markersize=5, alpha=0.7, label=gate,
                clip_on=False)  # fmt: skip
    ax.plot([0, 100], [100, 0], color=inks(ax).faint, linewidth=0.9, zorder=0)
    ax.set(xlabel="near the upper end (% of steps)", ylabel="near the lower end (% of steps)")
    ax.set(xlim=(0, 100), ylim=(0, 100), aspect="equal")
    grid(ax)
    return ax
