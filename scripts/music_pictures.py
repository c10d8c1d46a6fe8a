"""The picture of scripts/music.py, and the line about a run that stands in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from music_published import Published, published
from music_training import Options, Result

from nbflow import plot


def about(options: Options) -> str:
    """Say in a line what is trained."""
    clip = "no clipping" if options.rule == "none" else f"clipped to {options.threshold:g} ({options.rule})"
    omega = "no Omega"
    if options.penalty != "none":
        omega = f"Omega ({options.penalty}) times {options.alpha:g}{'/epoch' * options.decay}"
    return (
        f"{options.hidden} {options.cell} units ({options.init}), {options.optimizer}, lr {options.lr:g}"
        f"{' halved' * bool(options.halve_after)}, batches of {options.batch_size} x {options.length}, {clip}, {omega}"
    )


def picture(options: Options, result: Result) -> Any:
    """Draw losses, gradient norm and learning rate over epochs."""
    rows, known = result.history, published(result.frames, options.data.stem)
    with plot.page(f"{known.title}: predicting the next frame", about(options), (8.5, 7.2), dpi=130) as found:
        losses, norm, lr = found.subplots(3, 1, sharex=True, height_ratios=(3, 1, 1))
        _draw_losses(losses, known, result)
        _draw(norm, rows["epoch"], rows["norm"], "gradient norm,\nmean of the epoch", plot.COLOURS[2])
        if options.rule == "norm":
            plot.reference(norm, y=options.threshold, colour=plot.INK, behind=False)
            norm.text(1, options.threshold, f"clipped to {options.threshold:g}", fontsize=8.5, ha="right",
                      va="bottom", transform=norm.get_yaxis_transform())  # fmt: skip
        _draw(lr, rows["epoch"], rows["lr"], "learning rate", plot.COLOURS[3], drawstyle="steps-mid")
        lr.set_xlabel("epoch")
        for axes in (losses, norm, lr):
            axes.margins(x=0.02)
            plot.grid(axes, "y")
    return found


def _draw(axes: Any, epochs: Sequence[int], values: Sequence[float], label: str, colour: str, **more: Any) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    # A mark for an epoch that has no neighbours.
    axes.plot(epochs, values, color=colour, linewidth=1.6, marker="o" if len(epochs) == 1 else "", **more)
    axes.set_yscale("log")
    axes.set_ylabel(label)
    axes.margins(y=0.2)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def _draw_losses(axes: Any, known: Published, result: Result) -> None:
    rows, marker = result.history, "o" if result.epochs == 1 else ""
    axes.plot(rows["epoch"], rows["loss"], color=plot.COLOURS[1], label="train, while it learns", marker=marker)
    axes.plot(rows["epoch"], rows["valid"], color=plot.COLOURS[0], linewidth=2, label="valid", marker=marker)
    plot.reference(axes, x=result.best_epoch)
    axes.plot(result.best_epoch, result.test, "*", color=plot.INK, markersize=12, zorder=5,
              label=f"test at the best valid epoch: {result.test:.3f}")  # fmt: skip
    if known.span:
        label = "{:.1f} to {:.1f}: test loss of plain RNNs in several papers".format(*known.span)
        axes.axhspan(*known.span, color=plot.FAINT, alpha=0.15, linewidth=0, label=label, zorder=0)
    for (network, test), style in zip(known.lines(), ("-", "--", ":"), strict=False):
        axes.axhline(test, color=plot.FAINT, linewidth=1.2, linestyle=style, label=f"{test:.2f}: {network}, published")
    low = min(*rows["loss"], *rows["valid"], result.test, *(test for _, test in known.lines()))
    # The first epochs, from 61 nats down, would flatten all that follows.
    axes.set_ylim(low - 0.15, max(result.test + 0.3, low + 2.5))
    axes.set_ylabel("loss (nats per frame)")
    plot.legend_beside(axes, columns=2, above=True, fontsize=9)
