"""The four pictures of scripts/flow.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from flow_measures import EDGES, PAIRS, over_seeds, said

from nbflow import plot

COLUMNS = 3
# Below this a gradient or a singular value counts as gone; axes end there.
GONE = 1e-8
PARTS = {"all": "cosine,\nall parameters", "w_rec": "cosine,\nw_rec alone", "step": "cosine, with\nthe loss"}


def about(options: Any) -> str:
    return (f"{options.task.replace('_', ' ').capitalize()}, {options.length} steps, {options.hidden} hidden units, "
            f"{options.replicas} seeds a method")  # fmt: skip


def _panels(
    picture: Any, options: Any, found: Sequence[Any], draw: Callable[[Any, Any, Any], None], y: str, x: str
) -> None:
    """Draw a panel for each method, a line for each moment."""
    rows = -(-len(found) // COLUMNS)
    grid = picture.subplots(rows, min(COLUMNS, len(found)), sharex=True, sharey=True, squeeze=False)
    shades = plot.shades(len(options.moments))
    for k, axes in enumerate(grid.flat):
        if k >= len(found):
            axes.set_axis_off()
            continue
        learnt = sum(passage is not None for passage in found[k].passages)
        words = f"{found[k].title}: {learnt} of {options.replicas} learnt it"
        axes.set_title(words, loc="left", fontsize=10.5, fontweight="bold")
        for moment, shade in zip(options.moments, shades, strict=True):
            draw(axes, found[k].looks[moment], (shade, f"{moment * options.updates // 100:,}"))
        axes.set(xlabel="", ylabel="")  # said once, at the edges
        if k + COLUMNS >= len(found):
            axes.set_xlabel(x)
            axes.tick_params(labelbottom=True)
    for line in grid:
        line[0].set_ylabel(y)
    labels = [f"after {moment * options.updates // 100:,} updates" for moment in options.moments]
    plot.legend_below(grid[0, 0], labels=labels)


def lags(options: Any, found: Sequence[Any]) -> Any:
    """Draw how much of the gradient is left after so many steps back, a panel for each method."""
    title = "How much of the gradient is left on its way back in time?"
    words = (
        f"{about(options)}. Size of the gradient so many steps before the end, relative to the end.\n"
        "A line that falls is a gradient that vanishes: what happened that far back is hard to learn from. Flat, at 1: "
        "it arrives as it was.\nThick lines: geometric means over sequences and seeds; the more a line stands out from "
        "the page, the later in training. Thin lines: each seed at the end of training."
    )

    def draw(axes: Any, look: Any, style: Any) -> None:
        at_end = style[1] == f"{options.moments[-1] * options.updates // 100:,}"
        sizes = look.by_lag if at_end else over_seeds(look.by_lag, logarithmic=True).mean
        plot.gradient_by_lag(sizes, relative=True, colour=style[0], label=style[1], ax=axes)

    rows = -(-len(found) // COLUMNS)
    with plot.page(title, words, (12.5, 0.8 + 2.3 * rows), dpi=100) as picture:
        _panels(picture, options, found, draw, "gradient, relative\nto the last step", "steps back from the end")
        low = min(look.by_lag.min() for seen in found for look in seen.looks.values())
        picture.axes[0].set_ylim(bottom=max(GONE, low / 2))
    return picture


def gains(options: Any, found: Sequence[Any]) -> Any:
    """Draw the histogram of gains, a panel for each method."""
    words = (
        f"{about(options)}. The gain: the size of the gradient after one step back over its size before.\nBelow 1 "
        f"it shrinks, above 1 it grows. All steps, fresh sequences and seeds. The more a line stands out from "
        f"the page, the later in training."
    )

    def draw(axes: Any, look: Any, style: Any) -> None:
        plot.gain_histogram(np.sqrt(EDGES[1:] * EDGES[:-1]), weights=look.gains.mean(axis=0), bins=EDGES,
                            colour=style[0], label=style[1], ax=axes)  # fmt: skip

    rows = -(-len(found) // COLUMNS)
    title = "What one step back does to the gradient"
    with plot.page(title, words, (12.5, 0.8 + 2.1 * rows), dpi=100) as picture:
        _panels(picture, options, found, draw, "% of steps", "gain of the gradient")
        picture.axes[0].set_xlim(0.2, 5)
        picture.axes[0].set_xticks([0.2, 0.5, 1, 2, 5], ["0.2", "0.5", "1", "2", "5"])
        picture.axes[0].set_xticks([], minor=True)
    return picture


def spectra(options: Any, found: Sequence[Any]) -> Any:
    """Draw Lyapunov exponents and singular values, a row for each method."""
    first, last = options.moments[0], options.moments[-1]
    words = (
        f"{about(options)}. The {options.k} largest of each, the largest in orange; open marks above the line: update "
        f"{first * options.updates // 100:,}, full marks: update {last * options.updates // 100:,}.\nLeft: the rate at "
        f"which directions grow or shrink along sequences of {options.orbit} steps. Right: by how much the state after "
        f"{options.length} steps still depends on the first one."
    )
    title = "Which directions survive the way through time"
    with plot.page(title, words, (12.5, 0.8 + 0.52 * len(found)), dpi=100) as picture:
        rates, values = picture.subplots(1, 2, sharey=True)
        for row, seen in enumerate(found):
            for moment, place, full in ((first, row - 0.2, False), (last, row + 0.2, True)):
                look = seen.looks[moment]
                _dots(rates, over_seeds(look.exponents), place, full)
                _dots(values, over_seeds(np.maximum(look.singular, GONE / 10), True), place, full)
        rates.set_yticks(range(len(found)), [seen.title for seen in found])
        rates.invert_yaxis()
        rates.set_xlabel("Lyapunov exponents (nats a step): below 0 a direction is forgotten")
        values.set_xlabel(f"singular values of the Jacobian over {options.length} steps: below 1 it shrinks")
        values.set_xscale("log")
        values.set_xlim(left=GONE)
        for axes, mark in ((rates, 0), (values, 1)):
            plot.reference(axes, x=mark)
            plot.grid(axes, "x")
    return picture


def _dots(axes: Any, spans: Any, place: float, full: bool) -> None:
    """Draw one spectrum, and the interval of its largest member."""
    rest, largest = plot.COLOURS[1], plot.COLOURS[0]
    axes.plot(spans.mean, np.full(len(spans.mean), place), "o", color=rest, markersize=4, alpha=0.9,
              markerfacecolor=rest if full else "white")  # fmt: skip
    axes.plot([spans.low[0], spans.high[0]], [place, place], color=largest, linewidth=1.6)
    axes.plot(spans.mean[0], place, "o", color=largest, markersize=6, markerfacecolor=largest if full else "white")


def derivatives(options: Any, compared: Sequence[Any]) -> Any:
    """Draw the cosines between the derivatives of Omega along training, a column for each training."""
    words = (
        f"{about(options)}.\nCosine 1: the same direction; 0: nothing in common. With the loss: loss and alpha Omega "
        f"together, which training follows.\n"
        f"Lines: means over seeds and {options.batches} minibatches; bands: 95 % intervals over seeds."
    )
    with plot.page("How good is the usual derivative of Omega?", words, (10.5, 8.6), dpi=100) as picture:
        grid = picture.subplots(len(PARTS) + 1, len(compared), sharex=True, sharey="row", squeeze=False)
        for column, seen in zip(grid.T, compared, strict=True):
            column[0].set_title(f"while training by {seen.title}", loc="left", fontsize=11, fontweight="bold")
            updates = [moment * options.updates // 100 for moment in seen.comparisons]
            for axes, part in zip(column, PARTS, strict=False):
                rows = [at.cosine[part] for at in seen.comparisons.values()]
                _lines(axes, updates, rows, False)
                axes.set_ylim(-0.25, 1.08)
                plot.reference(axes, y=0, behind=False)
            _lines(column[-1], updates, [at.ratio["all"] for at in seen.comparisons.values()], True)
            plot.reference(column[-1], y=1, behind=False)
            column[-1].set(yscale="log", xlabel="updates")
            column[-1].set_xscale("symlog", linthresh=max(updates[1] if len(updates) > 1 else 1, 1), linscale=0.4)
        for axes, label in zip(grid[:, 0], (*PARTS.values(), "norm of one / the other,\nall parameters"),
                               strict=True):  # fmt: skip
            axes.set_ylabel(label)
        picture.align_ylabels(grid[:, 0])
        plot.legend_below(grid[0, 0])
    return picture


def _lines(axes: Any, updates: Sequence[int], rows: Sequence[Any], logarithmic: bool) -> None:
    for pair, colour, marker in zip(PAIRS, plot.COLOURS, "os^", strict=False):
        spans = [over_seeds(row[said(pair)], logarithmic) for row in rows]
        mean, low, high = (np.array(part) for part in zip(*spans, strict=True))
        axes.plot(updates, mean, color=colour, linewidth=2, marker=marker, markersize=4, label=said(pair))
        axes.fill_between(updates, low, high, color=colour, alpha=0.18, linewidth=0)
    plot.grid(axes)
