"""One training, update by update: its score, its loss, the norm of its gradient before and after the clip, its gain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from nbflow import _check, statistics
from nbflow.plot._given import column
from nbflow.plot._marks import axes_of, grid, median, plain_log, reference, replicas
from nbflow.plot._page import COLOURS
from nbflow.records import Floats

# What is drawn by name: its words. Any other column is called as it is.
WORDS = {
    "norm": "norm of the gradient",
    "gain": "gain of a step back (ratio)",
    "lr": "learning rate",
}
LOGARITHMIC = ("loss", "norm", "gain", "lr")


class _Seen(NamedTuple):
    """Tables of trainings side by side."""

    name: str
    tables: list[Any]
    unit: str
    over: str

    @property
    def places(self) -> Floats:
        """Where they were seen: the same places in all of them."""
        first, *others = (np.asarray(column(self.name, table, self.over), float).ravel() for table in self.tables)
        for other in others:
            if not np.array_equal(first, other):
                raise ValueError(
                    f"run has trainings with {len(first)} and {len(other)} rows that were not seen at the same "
                    f"{self.over!r:.80}; expected the same in all. Draw each by itself."
                )
        return first

    def rows(self, quantity: str) -> Floats:
        """Return a row of numbers for each place, a number for each replica of each training."""
        size, found = len(self.places), []
        for table in self.tables:
            values = np.asarray(column(self.name, table, quantity), float)
            if len(values) != size:
                raise ValueError(
                    f"{self.name} has {len(values)} entries of {quantity!r:.80} and {size} of {self.over!r:.80}; "
                    f"expected as many. Give an entry for each row."
                )
            found.append(values.reshape(size, -1) if size else np.empty((0, 1)))
        return np.concatenate(found, axis=1)


def learning_curve(
    run: Any,
    quantity: str = "score",
    *,
    over: str = "update",
    unit: str | None = None,
    interval: float | None = None,
    bottom: float | None = None,
    marker: str = "",
    step: bool = False,
    colour: str = COLOURS[0],
    label: str | None = None,
    ax: Any = None,
) -> Any:
    """Draw a quantity over the updates of a training: a thin line for each replica, a thick one for their median.

    Parameters
    ----------
    run : Run, a line of a store, a table, or a list of such
        Of `nbflow.train` or `nbflow.load_run`, or one of `nbflow.Swept.runs`. A table is a dict of columns of n entries
        each, of R numbers where there are R networks. Several trainings, seen at the same updates, are drawn as the
        replicas of one.
    quantity : str
        "score" of the evaluations, "loss", "norm" of the gradient (after the clip as a dashed line, and the threshold),
        or another column of the history, as "gain", which a callback has appended to it, or of the table.
    over : str
        The column from left to right; of tables often "epoch".
    unit : str, optional
        Of the quantity, for the axis; that of the run's score by default.
    interval : float, optional
        A confidence: draw the mean of all replicas and its interval at each update (Student's t) as a line and a band,
        in place of their lines and median.
    bottom : float, optional
        Where the axis ends; a triangle stands there for what is below.
    marker : str
        Of matplotlib, on the thick line at each row.
    step : bool
        Whether a number holds until the next, as a learning rate does.
    colour : str
    label : str, optional
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes
        Loss, norm, gain and learning rate ("lr") have a logarithmic axis.

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

    Numbers of a training of one's own, of three networks, as their mean and its 95 % interval:

    >>> table = {"epoch": [1, 2], "loss": [[3.0, 3.1, 2.9], [2.0, 2.2, 2.4]]}
    >>> ax = learning_curve(table, "loss", over="epoch", unit="nats per frame", interval=0.95)
    >>> ax.get_ylabel(), ax.lines[0].get_ydata().round(6).tolist()
    ('loss (nats per frame)', [3.0, 2.2])
    """
    seen = _seen(run, quantity, over)
    places, rows, ax = seen.places, seen.rows(quantity), axes_of(ax)
    unit = seen.unit if unit is None else unit
    ax.set_ylabel(f"{WORDS.get(quantity, quantity)} ({unit})" if unit else WORDS.get(quantity, quantity))
    if quantity in LOGARITHMIC:
        ax.set_yscale("log")
    before = len(ax.lines)
    shown = median(rows) if interval is None else _mean(ax, places, rows, interval, colour)
    if interval is None:
        replicas(places.tolist(), rows, colour=colour, ax=ax)
    if len(places):
        for line in ax.lines[before:]:
            line.set_drawstyle("steps-mid" if step else "default")
        ax.lines[-1].set(marker=marker, markersize=4, **({} if label is None else {"label": label}))
    if quantity == "norm":
        _clipped(ax, seen, colour)
    if quantity == "gain":
        reference(ax, y=1)
    if bottom is not None:
        _below(ax, places[shown < bottom], bottom, colour)
    if quantity in LOGARITHMIC:
        plain_log(ax.yaxis)
    ax.set_xlabel("updates" if over == "update" else over)
    ax.xaxis.set_major_formatter("{x:,.0f}")
    grid(ax, "y")
    return ax


def _seen(run: Any, quantity: str, over: str) -> _Seen:
    """Return the tables that a quantity is taken from."""
    runs = list(run) if isinstance(run, Sequence) and not isinstance(run, str) else [run]
    part = "evaluations" if quantity == "score" else "history"  # copies of stores have no history
    tables: list[Any] = []
    unit, name = "", "run"
    for one in runs:
        told = one if isinstance(one, Mapping) else getattr(one, "__dict__", {})
        if part in told:
            tables.append(told[part])
            name = f"run.{part}"
            unit = unit or (quantity == "score" and told.get("unit")) or ""
        elif isinstance(one, Mapping) and over in one:
            tables.append(one)
        else:
            raise TypeError(
                f"run is {_check.said(one)}; expected an nbflow.Run, a line of a store that has not failed, or a table "
                f"with a column {over!r:.80}. Draw what nbflow.train returns."
            )
    if not tables:
        raise ValueError("run is empty; expected one training, or several. Give those that there are.")
    return _Seen(name, tables, unit, over)


def _mean(ax: Any, places: Floats, rows: Floats, confidence: float, colour: str) -> Floats:
    """Draw the mean of each row, and its interval where there is one; return the mean."""
    found = statistics.mean_interval(np.where(np.isfinite(rows), rows, np.nan), confidence=confidence)
    mean: Floats = np.asarray(found.mean)
    ax.plot(places, mean, color=colour, linewidth=1.8)
    ax.fill_between(places, found.low, found.high, color=colour, alpha=0.18, linewidth=0)
    return mean


def _below(ax: Any, places: Floats, bottom: float, colour: str) -> None:
    """End the axis, and draw a triangle over its end at each place where the line is below."""
    ax.plot(places, np.full(len(places), 0.025), "v", color=colour, markersize=7, transform=ax.get_xaxis_transform())
    ax.set_ylim(bottom=bottom, auto=True)  # more may be drawn on these axes


def _clipped(ax: Any, seen: _Seen, colour: str) -> None:
    """Draw the norm after the clip, and the threshold if there is one for all updates and replicas."""
    if not len(seen.places) or not all("clipped_norm" in table for table in seen.tables):
        return
    rows = seen.rows("clipped_norm")
    ax.plot(seen.places, median(rows), color=colour, linewidth=1.6, linestyle=(0, (2, 1.5)))
    at = np.unique(np.concatenate([np.ravel(np.asarray(table["threshold"], float)) for table in seen.tables]))
    if len(at) == 1 and np.isfinite(at[0]):
        reference(ax, y=float(at[0]))
