"""The picture of scripts/single_steps.py: cosines, and steps that lower the loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nbflow import plot, statistics

SIZE = 9.0, 4.2  # inches


def draw(options: Any, moments: Sequence[Any]) -> Any:
    """Draw both panels."""
    words = (
        f"{options.minibatches} minibatches after {', '.join(f'{m.updates:,}' for m in moments)} updates of a network "
        f"that learns temporal order,\nthresholds that leave {100 * options.part:g} % of the mean norm. "
        f"Lines on the right: 95 % Wilson intervals."
    )
    with plot.page("What a single clipped step does", words, SIZE, w_pad=0.15) as found:
        left, right = found.subplots(1, 2)
        _cosines(left, moments)
        _descent(right, moments)
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
