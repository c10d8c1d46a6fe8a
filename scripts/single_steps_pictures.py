"""The picture of scripts/single_steps.py: cosines, decrease of the loss, and ways out of overflow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nbflow import plot, statistics

HEIGHT, WIDTH = 5.2, 13.0


def draw(options: Any, moments: Sequence[Any], escapes: Sequence[Any]) -> Any:
    """Draw the three panels."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with rc_context(plot.STYLE):
        layout = ConstrainedLayoutEngine(rect=(0, 0, 1, 1 - plot.HEAD / HEIGHT), w_pad=0.15, h_pad=0.08)
        found = Figure(figsize=(WIDTH, HEIGHT), dpi=120, layout=layout)
        found.text(0.01, 1 - 0.1 / HEIGHT, "What a single clipped step does", fontsize=15, fontweight="bold", va="top")
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
        found.text(0.01, 1 - 0.42 / HEIGHT, said, fontsize=10, color=plot.FAINT, va="top", linespacing=1.4)
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
    axes.axvline(0, color=plot.FAINT, linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
    axes.set_xlabel("cosine with its own gradient\n(median, middle 90 %, least to greatest)")


def _descent(axes: Any, moments: Sequence[Any]) -> None:
    """Draw how often a step lowers the loss, with intervals."""
    for k, rule in enumerate(moments[0].rules):
        values = np.concatenate([m.rules[rule].descends for m in moments])
        rate = statistics.success_rate(int(values.sum()), len(values))
        axes.plot([100 * rate.low, 100 * rate.high], [k, k], color=plot.COLOURS[1], linewidth=2.5)
        axes.plot(100 * rate.value, k, "o", color=plot.COLOURS[0], markersize=6, zorder=3)
    _rules(axes, list(moments[0].rules))
    axes.set_xlim(right=101)
    axes.set_xlabel("steps that lower the loss of\ntheir minibatch (%)")


def _rules(axes: Any, rules: list[str]) -> None:
    axes.set_yticks(range(len(rules)), rules)
    axes.invert_yaxis()
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)


def _escapes(axes: Any, options: Any, escapes: Sequence[Any]) -> None:
    """Draw how many networks had a finite gradient in time, by depth."""
    ways = list(dict.fromkeys(one.way for one in escapes))
    for k, way in enumerate(ways):
        seen = [one for one in escapes if one.way == way]
        x = np.array([one.depth for one in seen]) * 1.06 ** (k - 1)
        rates = [statistics.success_rate(sum(u is not None for u in one.until), len(one.until)) for one in seen]
        values = np.array([[100 * part for part in rate[:3]] for rate in rates])
        axes.vlines(x, values[:, 1], values[:, 2], color=plot.COLOURS[k], linewidth=2)
        axes.plot(x, values[:, 0], "os^"[k] + "-", color=plot.COLOURS[k], markersize=6, linewidth=1.2, label=way)
    depths = sorted({one.depth for one in escapes})
    axes.set_xscale("log")
    axes.set_xticks(depths, [f"{depth:g}" for depth in depths])
    axes.minorticks_off()
    axes.set_ylim(-4, 104)
    axes.set_xlabel("distance beyond the brink of overflow\n(lengths v of a random step)")
    axes.set_ylabel(f"finite again within {options.updates} updates (%)")
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(0, 1.2))
