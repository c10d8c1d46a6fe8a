"""The two pictures of scripts/clip_bias.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nbflow import plot

# What is drawn: its field, its words, and the smallest value on the axis.
METRICS = (("cosine", "cosine with the true gradient", 0.6),
           ("relative_norm", "norm, relative to the true gradient", 0.0),
           ("sign_agreement", "entries with the true sign (part)", 0.6))  # fmt: skip
KINDS = (("other", plot.COLOURS[5]), ("companion", plot.COLOURS[1]), ("large", plot.COLOURS[0]))
WORDS = {"large": "large", "companion": "in a minibatch\nwith a large one", "other": "all others"}


def bias(seen: Sequence[Any], names: Sequence[str], part: float) -> Any:
    """Draw cosine, relative norm and signs of every way of clipping, a row for each stage."""
    words = (
        f"The mean of clipped minibatch gradients against the mean of the unclipped ones. Thresholds are such that "
        f"each way shortens them to {100 * part:.0f} % of their mean norm.\nDots: estimates for ever more minibatches; "
        f"lines: 95 % bootstrap intervals over minibatches. A dashed line: no bias, or only in length."
    )
    size = 12.5, (0.5 + 0.25 * len(names)) * len(seen) + 0.4
    title = "What each way of clipping does to the gradient on average"
    with plot.page(title, words, size, dpi=110, h_pad=0.1, w_pad=0.1) as found:
        grid = found.subplots(len(seen), len(METRICS), squeeze=False, sharey=True, sharex="col")
        for line, one in zip(grid, seen, strict=True):
            line[0].set_title(f"{one.stage.title[0].upper()}{one.stage.title[1:]}", loc="left", fontsize=11,
                              fontweight="bold")  # fmt: skip
            for axes, (metric, _, least), mark in zip(line, METRICS, (1.0, part, 1.0), strict=True):
                plot.clipping_bias(one.bias, metric, names=names, least=least, mark=mark, ax=axes)
                axes.set_xlabel("")
                axes.tick_params(labelbottom=True)
                for row, name in enumerate(names):
                    if name not in one.bias.rules:
                        axes.text(0.02, row, "cannot shorten so far", transform=axes.get_yaxis_transform(), fontsize=8,
                                  color=plot.FAINT, va="center")  # fmt: skip
        for column, (_, label, least) in zip(grid.T, METRICS, strict=True):
            column[-1].set(xlabel=label)
            column[-1].set_xlim(left=least)
    return found


def who_loses(seen: Any, large: float) -> Any:
    """Draw what is kept of each example, what it contributes, and average of clipped against clipped average."""
    words = (
        f"{seen.stage.title[0].upper()}{seen.stage.title[1:]}. Every dot is an example, in a minibatch of "
        f"{seen.stage.batches[0].weights.shape[1]}; large are the {100 * large:g} % with the largest gradients.\n"
        "Below: the average of norm-clipped minibatch gradients against the norm-clipped average over all examples."
    )
    with plot.page("Whose gradient counts for less", words, (13, 8.6), dpi=110, h_pad=0.12, w_pad=0.1) as found:
        grid = found.subplots(2, 3)
        _draw_kept(grid[0, 0], seen, "norm", "Clipping the minibatch by norm")
        _draw_kept(grid[0, 1], seen, "each example", "Clipping each example by norm")
        plot.legend_beside(grid[0, 0], fontsize=9, markerscale=2.5)
        _draw_shares(grid[0, 2], seen)
        _draw_averages(grid[1], seen.averages)
    return found


def _draw_kept(axes: Any, seen: Any, name: str, title: str) -> None:
    kind_of = {"large": seen.bias.large, "companion": seen.bias.companion}
    kind_of["other"] = ~(seen.bias.large | seen.bias.companion)
    axes.set(title=title, xlabel="norm of the example's gradient", ylabel="part of it that is kept", xscale="log")
    if name in seen.bias.rules:
        kept, norms = seen.bias.rules[name].kept, seen.bias.example_norms
        for kind, colour in KINDS:
            there = kind_of[kind] & np.isfinite(kept) & (norms > 0)
            mean = getattr(seen.bias.rules[name].kept_by_kind, kind)
            axes.plot(norms[there], kept[there], ".", color=colour, markersize=3, alpha=0.6, rasterized=True,
                      label=f"{WORDS[kind]}: {mean:.2f} on average".replace("\n", " "))  # fmt: skip
            plot.reference(axes, y=mean, colour=colour, behind=False)
    axes.set_ylim(-0.05, 1.12)
    axes.set_yticks(np.linspace(0, 1, 6))
    plot.grid(axes)


def _draw_shares(axes: Any, seen: Any) -> None:
    """Draw what each kind of example contributes to the true gradient, before and after."""
    ways = [("before", seen.bias.share_by_kind)]
    ways += [(f"{name}", seen.bias.rules[name].share_by_kind) for name in ("norm", "each example", "value")
             if name in seen.bias.rules]  # fmt: skip
    kinds = [kind for kind, _ in reversed(KINDS)]
    width = 0.8 / len(ways)
    for k, (name, shares) in enumerate(ways):
        colour = plot.INK if name == "before" else plot.COLOURS[(k + 1) % len(plot.COLOURS)]
        places = np.arange(len(kinds)) + (k - (len(ways) - 1) / 2) * width
        heights = [100 * np.nan_to_num(getattr(shares, kind)) for kind in kinds]
        axes.bar(places, heights, width * 0.92, color=colour, label=name)
    axes.set_xticks(range(len(kinds)), [WORDS[kind] for kind in kinds])
    axes.axhline(0, color=plot.FAINT, linewidth=0.8)
    axes.set(title="Contribution to the true direction", ylabel="% of the true gradient")
    plot.legend_beside(axes, columns=len(ways), fontsize=9)


def _draw_averages(line: Any, found: Any) -> None:
    x = found.thresholds / found.true_norm
    colours = plot.shades(len(found.sizes))
    ratio = "norm of the average of clipped /\nnorm of the clipped average"
    rows = ((found.cosine, "cosine between the two"), (found.norm_ratio, ratio),
            (100 * found.changed, "minibatches clipped (%)"))  # fmt: skip
    for axes, (values, label) in zip(line, rows, strict=True):
        for row, size, colour in zip(values, found.sizes, colours, strict=True):
            axes.plot(x, row, color=colour, linewidth=2, label=f"{size}")
        axes.set(xscale="log", xlabel="threshold / norm of the true gradient", ylabel=label)
        plot.reference(axes, x=1)
        plot.grid(axes)
    plot.legend_beside(line[0], columns=len(found.sizes), title="examples in a minibatch", fontsize=9, title_fontsize=9)
