"""One training, update by update: its score, its loss, the norm of its gradient before and after the clip, its gain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nbflow import _check
from nbflow.plot._given import column
from nbflow.plot._marks import axes_of, grid, median, plain_log, reference, replicas
from nbflow.plot._page import COLOURS

QUANTITIES = ("score", "loss", "norm", "gain")


def learning_curve(
    run: Any, quantity: str = "score", *, colour: str = COLOURS[0], label: str | None = None, ax: Any = None
) -> Any:
    """Draw a quantity over the updates of a training: a thin line for each replica, a thick one for their median.

    Parameters
    ----------
    run : Run, or a line of a store
        Of `nbflow.train` or `nbflow.load_run`, or one of `nbflow.Swept.runs`.
    quantity : str
        "score" of the evaluations, "loss", "norm" of the gradient (after the clip as a dashed line, and the threshold),
        or "gain": a column that a callback has appended to the history, one entry a row.
    colour : str
    label : str, optional
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes

    Examples
    --------
    >>> import nbflow as nf
    >>> task = nf.load_task("temporal_order")
    >>> net = nf.Network(cell="tanh", n_in=task.n_in, n_hidden=10, n_out=task.n_out)
    >>> recipe = nf.Recipe(lengths=10, max_updates=400, evaluate_every=200, evaluate_size=100, record_every=100)
    >>> run = nf.train(net, nf.init(net, "basic_tanh", rng=0), task, recipe)
    >>> learning_curve(run).get_ylabel(), learning_curve(run, "norm").get_yscale()
    ('score (part wrong)', 'log')

    A row of panels:

    >>> from nbflow.plot import page
    >>> with page("A training", "", (9, 3)) as figure:
    ...     for ax, quantity in zip(figure.subplots(1, 3), ("score", "loss", "norm"), strict=True):
    ...         _ = learning_curve(run, quantity, ax=ax)
    """
    _check.choice("quantity", quantity, QUANTITIES)
    told = run if isinstance(run, Mapping) else getattr(run, "__dict__", {})
    if not {"history", "evaluations"} <= told.keys():
        raise TypeError(
            f"run is {_check.said(run)}; expected an nbflow.Run, or a line of a store that has not failed. "
            f"Draw what nbflow.train returns."
        )
    history, found = told["history"], told["evaluations"]
    ax = axes_of(ax)
    if quantity == "score":
        unit = told.get("unit")
        updates, values = found["update"], column("run.evaluations", found, "score")
        ax.set_ylabel(f"score ({unit})" if unit else "score")
    else:
        updates, values = column("run.history", history, "update"), column("run.history", history, quantity)
        words = {"loss": "loss", "norm": "norm of the gradient", "gain": "gain of a step back (ratio)"}
        ax.set_ylabel(words[quantity])
        ax.set_yscale("log")
    _one(ax, updates, values, colour, label)
    if quantity == "norm":
        _clipped(ax, history, colour)
    if quantity == "gain":
        reference(ax, y=1)
    if quantity != "score":
        plain_log(ax.yaxis)
    ax.set_xlabel("updates")
    ax.xaxis.set_major_formatter("{x:,.0f}")
    grid(ax, "y")
    return ax


def _one(ax: Any, updates: Any, values: Any, colour: str, label: str | None) -> None:
    replicas(updates, values, colour=colour, ax=ax)
    if label is not None and ax.lines:
        ax.lines[-1].set_label(label)


def _clipped(ax: Any, history: Any, colour: str) -> None:
    """Draw the norm after the clip, and the threshold if there is one for all updates and replicas."""
    if "clipped_norm" not in history or not history["update"]:
        return
    rows = np.asarray(history["clipped_norm"], float).reshape(len(history["update"]), -1)
    ax.plot(history["update"], median(rows), color=colour, linewidth=1.6, linestyle=(0, (2, 1.5)))
    at = np.unique(np.asarray(history["threshold"], float))
    if len(at) == 1 and np.isfinite(at[0]):
        reference(ax, y=float(at[0]))
