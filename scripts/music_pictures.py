"""The picture of scripts/music.py, and the line about a run that stands in it."""

from __future__ import annotations

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
    from matplotlib.ticker import LogLocator

    rows, known = result.history, published(result.frames, options.data.stem)
    # A mark for an epoch that has no neighbours.
    over: dict[str, Any] = {"over": "epoch", "marker": "o" if result.epochs == 1 else ""}
    with plot.page(f"{known.title}: predicting the next frame", about(options), (8.5, 7.2), dpi=130) as found:
        losses, norm, lr = found.subplots(3, 1, sharex=True, height_ratios=(3, 1, 1))
        _draw_losses(losses, known, result, over)
        plot.learning_curve(rows, "norm", colour=plot.COLOURS[2], ax=norm, **over)
        norm.set_ylabel("gradient norm,\nmean of the epoch")
        if options.rule == "norm":
            plot.reference(norm, y=options.threshold, colour=plot.inks(norm).ink, behind=False)
            norm.text(1, options.threshold, f"clipped to {options.threshold:g}", fontsize=8.5, ha="right",
                      va="bottom", transform=norm.get_yaxis_transform())  # fmt: skip
        plot.learning_curve(rows, "lr", step=True, colour=plot.COLOURS[3], ax=lr, **over)
        for axes in (losses, norm):
            axes.set_xlabel("")
        for axes in (losses, norm, lr):
            axes.margins(x=0.02)
        for axes in (norm, lr):
            axes.margins(y=0.2)
            plot.plain_log(axes.yaxis)
        lr.yaxis.set_major_locator(LogLocator(subs=(1, 3)))  # it is short, and halved many times
    return found


def _draw_losses(axes: Any, known: Published, result: Result, over: dict[str, Any]) -> None:
    rows = result.history
    for column, colour, label in (
        ("loss", plot.COLOURS[1], "train, while it learns"),
        ("valid", plot.COLOURS[0], "valid"),
    ):
        plot.learning_curve(rows, column, unit="nats per frame", colour=colour, label=label, ax=axes, **over)
    axes.set_yscale("linear")
    plot.reference(axes, x=result.best_epoch)
    axes.plot(result.best_epoch, result.test, "*", color=plot.inks(axes).ink, markersize=12, zorder=5,
              label=f"test at the best valid epoch: {result.test:.3f}")  # fmt: skip
    if known.span:
        plot.reference(
            axes, y=known.span, label="{:.1f} to {:.1f}: test loss of plain RNNs in several papers".format(*known.span)
        )
    for (network, test), style in zip(known.lines(), ("-", "--", ":"), strict=False):
        plot.reference(axes, y=test, linewidth=1.2, linestyle=style, label=f"{test:.2f}: {network}, published")
    low = min(*rows["loss"], *rows["valid"], result.test, *(test for _, test in known.lines()))
    # The first epochs, from 61 nats down, would flatten all that follows.
    axes.set_ylim(low - 0.15, max(result.test + 0.3, low + 2.5))
    axes.set_ylabel("loss (nats per frame)")
    plot.legend_beside(axes, columns=2, above=True, fontsize=9)
