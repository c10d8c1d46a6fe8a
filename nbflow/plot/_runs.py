"""Many runs: who is not yet solved, how often a task is solved, and a sweep as a map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nbflow import _check, statistics
from nbflow.plot._marks import axes_of, grid, intervals, percent
from nbflow.plot._page import COLOURS
from nbflow.plot._theme import LIGHT


def survival(seen: statistics.Survival, *, colour: str = COLOURS[0], label: str | None = None, ax: Any = None) -> Any:
    """Draw the part of runs that are not yet solved, update by update, with its pointwise interval.

    Parameters
    ----------
    seen : nbflow.statistics.Survival
        From `nbflow.statistics.survival`.
    colour : str
    label : str, optional
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes

    Examples
    --------
    >>> from nbflow.statistics import passages, survival as curve
    >>> ax = survival(curve(passages([1000, 2000, 2500, None], 5000)), label="clip")
    >>> ax.lines[0].get_ydata().tolist()
    [100.0, 75.0, 50.0, 25.0, 25.0]
    """
    if not isinstance(seen, statistics.Survival):
        raise TypeError(
            f"seen is {_check.said(seen)}; expected an nbflow.statistics.Survival. Draw "
            f"nbflow.statistics.survival(nbflow.statistics.passages(first_passage, updates))."
        )
    ax = axes_of(ax)
    low, high = (np.where(np.isfinite(end), end, seen.unsolved) for end in (seen.low, seen.high))
    (line,) = ax.step(seen.updates, 100 * seen.unsolved, where="post", color=colour, linewidth=2, label=label)
    ax.fill_between(seen.updates, 100 * low, 100 * high, step="post", color=colour, alpha=0.18, linewidth=0)
    ax.set(xlabel="updates", ylabel="runs not yet solved (%)", ylim=(-4, 104))
    line.sticky_edges.x.append(0.0)  # axes begin at 0, and grow with a later curve that is longer
    ax.xaxis.set_major_formatter("{x:,.0f}")
    grid(ax, "y")
    return ax


def success(
    lengths: Sequence[float],
    solved: Sequence[int],
    runs: Sequence[int] | int,
    *,
    confidence: float = 0.95,
    colour: str = COLOURS[0],
    label: str | None = None,
    marker: str = "o",
    ax: Any = None,
    **style: Any,
) -> Any:
    """Draw how many of the runs solved a task, against the length of its sequences.

    Parameters
    ----------
    lengths : sequence of n numbers
        In steps; for other numbers, set the label of the axis.
    solved, runs : sequences of n ints, or one int for all runs
    confidence : float
        Of the Wilson intervals.
    colour : str
    label : str, optional
    marker : str
    ax : matplotlib.axes.Axes, optional
    style : keywords
        As in `nbflow.plot.intervals`.

    Returns
    -------
    matplotlib.axes.Axes

    Examples
    --------
    >>> ax = success([10, 20, 40], [10, 7, 0], 10, label="SGD")
    >>> ax.containers[0][0].get_ydata().tolist()
    [100.0, 70.0, 0.0]
    """
    counts = [runs] * len(lengths) if isinstance(runs, int | np.integer) else list(runs)
    if not len(lengths) == len(solved) == len(counts):
        raise ValueError(
            f"lengths, solved and runs have {len(lengths)}, {len(solved)} and {len(counts)} numbers; expected as many "
            f"of each. Give a number of runs for each length."
        )
    rates = [percent(statistics.success_rate(k, n, confidence=confidence))
             for k, n in zip(solved, counts, strict=True)]  # fmt: skip
    ax = intervals(lengths, rates, colour=colour, marker=marker, label=label, ax=ax, **style)
    ax.set(xlabel="length of the sequences (steps)", ylabel="runs that solved it (%)", ylim=(-4, 104))
    grid(ax, "y")
    return ax


def sweep_heatmap(runs: Sequence[Any], x: str, y: str, value: str = "solved", *, ax: Any = None) -> Any:
    """Draw two settings of a sweep against each other: a field for each pair, and what came out of its runs in it.

    Parameters
    ----------
    runs : sequence of dict
        Lines of a store, as `nbflow.Swept.runs`. A failed run solves nothing, and has no numbers.
    x, y : str
        Columns, as "recipe.lr" and "init".
    value : str
        "solved", the part of runs that solved the task in %, or a column of numbers, as "score", of which the median is
        drawn.
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes
        With a map and its colour bar. Where there is no number there is no colour.

    Examples
    --------
    >>> runs = [
    ...     {"recipe.lr": lr, "init": init, "seed": seed, "failure": None, "first_passage": 10 if lr > 0.02 else None}
    ...     for lr in (0.01, 0.03)
    ...     for init in ("basic_tanh", "smart_tanh")
    ...     for seed in range(3)
    ... ]
    >>> sweep_heatmap(runs, "recipe.lr", "init").collections[0].get_array().tolist()
    [[0.0, 100.0], [0.0, 100.0]]
    """
    for name in (x, y):
        if not runs or any(name not in row for row in runs):
            raise ValueError(f"runs have no column {name!r:.80} in every line; expected one. Look at runs[0].keys().")
    across, down = (_settings(row[name] for row in runs) for name in (x, y))
    found = np.full((len(down), len(across)), np.nan)
    for i, below in enumerate(down):
        for j, beside in enumerate(across):
            found[i, j] = _of([row for row in runs if row[x] == beside and row[y] == below], value)
    ax = axes_of(ax)
    limits = {"vmin": 0, "vmax": 100} if value == "solved" else {}
    mesh = ax.pcolormesh(np.ma.masked_invalid(found), cmap="viridis", **limits)
    words = "runs that solved it (%)" if value == "solved" else f"{value} (median of the runs)"
    ax.figure.colorbar(mesh, ax=ax, label=words, pad=0.02)
    for (i, j), number in np.ndenumerate(found):
        if np.isfinite(number):
            # Viridis darkens towards 0: words in white there, in black where it is light.
            ink = LIGHT[0] if mesh.norm(number) < 0.6 else LIGHT[1]
            ax.text(j + 0.5, i + 0.5, f"{number:.3g}", ha="center", va="center", color=ink, fontsize=9)
    ax.set_xticks(np.arange(len(across)) + 0.5, [_said(one) for one in across])
    ax.set_yticks(np.arange(len(down)) + 0.5, [_said(one) for one in down])
    ax.set(xlabel=x, ylabel=y)
    ax.tick_params(length=0)
    return ax


def _settings(values: Any) -> list[Any]:
    """Return the settings that occur: numbers ascending, all else in the order in which it comes."""
    found = list(dict.fromkeys(tuple(value) if isinstance(value, list) else value for value in values))
    return sorted(found) if all(isinstance(value, int | float) for value in found) else found


def _said(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _of(rows: list[Any], value: str) -> float:
    if not rows:
        return np.nan
    if value == "solved":
        return 100 * sum(row.get("first_passage") is not None for row in rows) / len(rows)
    numbers = [row[value] for row in rows if isinstance(row.get(value), int | float)]
    finite = [number for number in numbers if np.isfinite(number)]
    return float(np.median(finite)) if finite else np.nan
