"""The picture of scripts/single_steps.py: cosines, decrease of the loss, and ways out of overflow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nbflow import plot, statistics

SIZE = 13.0, 4.2  # inches


def draw(options: Any, moments: Sequence[Any], escapes: Sequence[Any]) -> Any:
    """Draw the three panels."""
    words = []
    if moments:
        words.append(
            f"Left and middle: {options.minibatches} minibatches after "
            f"{', '.join(f'{m.updates:,}' for m in moments)} updates of a network that learns temporal order, "
            f"thresholds that leave {100 * options.part:g} % of the mean norm."
        )
    if escapes:
        words.append(f"Right: {options.replicas} networks at each depth.")
    words.append("Lines in the middle and on the right: 95 % Wilson intervals.")
    said = "\n".join([words[0], " ".join(words[1:])])
    with plot.page("What a single clipped step does", said, SIZE, w_pad=0.15) as found:
        first, second, third = found.subplots(1, 3, width_ratios=(1.1, 1.1, 1))
        if moments:
            _cosines(first, moments)
            _descent(second, moments)
        if escapes:
            _escapes(third, options, escapes)
        for axes in found.axes:
            if not axes.has_data():  # Ctrl-C came before
                axes.set_axis_off()
    return found


def _cosines(axes: Any, moments: Sequence[Any]) -> None:
    """Draw the cosines of every rule: the middle 90 %, the median, the least and the greatest."""
    for k, rule in enumerate(moments[0].rules):
        values = np.concatenate([m.rules[rule].cosine for m in moments])
        low, median, high = np.quantile(values, (0.05, 0.5, 0.95))
        axes.plot([values.min(), values.max()], [k, k], color=plot.COLOURS[5], linewidth=1.2)
        axes.plot([low, high], [k, k], color=plot.COLOURS[1], linewidth=5, solid_capstyle="butt")
        axes.plot(median, k, "o", color=plot.COLOURS[0], markersize=6, zorder=3)
    _rules(axes, list(moments[0].rules))
    plot.reference(axes, x=0)
    axes.set_xlabel("cosine with its own gradient\n(median, middle 90 %, least to greatest)")


def _descent(axes: Any, moments: Sequence[Any]) -> None:
    """Draw how often a step lowers the loss, with intervals."""
    for k, rule in enumerate(moments[0].rules):
        values = np.concatenate([m.rules[rule].descends for m in moments])
        rate = plot.percent(statistics.success_rate(int(values.sum()), len(values)))
        plot.intervals([k], [rate], ecolor=plot.COLOURS[1], elinewidth=2.5, capsize=0, across=True, ax=axes)
    _rules(axes, list(moments[0].rules))
    axes.set_xlim(right=101)
    axes.set_xlabel("steps that lower the loss of\ntheir minibatch (%)")


def _rules(axes: Any, rules: list[str]) -> None:
    axes.set_yticks(range(len(rules)), rules)
    axes.invert_yaxis()
    plot.grid(axes, "x")


def _escapes(axes: Any, options: Any, escapes: Sequence[Any]) -> None:
    """Draw how many networks had a finite gradient in time, by depth."""
    ways = list(dict.fromkeys(one.way for one in escapes))
    for k, way in enumerate(ways):
        seen = [one for one in escapes if one.way == way]
        x = [one.depth * 1.06 ** (k - 1) for one in seen]
        finite = [sum(u is not None for u in one.until) for one in seen]
        plot.success(x, finite, [len(one.until) for one in seen], colour=plot.COLOURS[k], marker="os^"[k],
                     linewidth=1.2, elinewidth=2, capsize=0, label=way, ax=axes)  # fmt: skip
    depths = sorted({one.depth for one in escapes})
    axes.set_xscale("log")
    axes.set_xticks(depths, [f"{depth:g}" for depth in depths])
    axes.minorticks_off()
    axes.set_xlabel("distance beyond the brink of overflow\n(lengths v of a random step)")
    axes.set_ylabel(f"finite again within {options.updates} updates (%)")
    plot.legend_beside(axes, above=True, fontsize=9)
