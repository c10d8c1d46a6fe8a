"""The pictures of scripts/ways_to_clip.py: one for each task, and one for all."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from ways_to_clip_design import REFERENCE, VARIANTS
from ways_to_clip_verdicts import (
    DIFFERENT,
    EQUIVALENT,
    LOSS_MARGIN,
    RATE_MARGIN,
    TIME_MARGIN,
    UNCLEAR,
)

import nbflow as nf
from nbflow import plot

# Mark and colour of a verdict: told apart by either.
LOOKS = {EQUIVALENT: ("o", plot.COLOURS[1]), DIFFERENT: ("D", plot.COLOURS[0]), UNCLEAR: ("s", plot.FAINT),
         "": ("*", plot.INK)}  # fmt: skip
# How many margins the axis of a ratio reaches to at most, so that the margin itself can be seen.
FARTHEST = 8
TITLES = {EQUIVALENT: "equivalent to norm", DIFFERENT: "different from norm", UNCLEAR: "can't tell",
          "": "norm itself"}  # fmt: skip


def task(study: Any) -> Any:
    """Draw success, and every run with its geometric mean, for every variant of a task."""
    plan, names = study.plan, list(study.tuned)
    runs = max(one.runs for one in study.outcomes.values())
    words = (
        f"Up to {runs} fresh runs a variant, of at most {study.updates:,} updates each, at the learning rate and "
        f"threshold that some {study.tuned[names[0]].runs:,} runs of tuning found best.\nLeft: Wilson intervals, 95 %. "
        f"Right: small dots are runs, large marks geometric means with 95 % bootstrap intervals"
        f"{'' if plan.is_music else _unsolved()}."
    )
    with _page(f"Ways to clip a gradient: {plan.title}", words, 2, names, 11.5) as (found, (left, right)):
        for k, name in enumerate(names):
            one, seen = study.outcomes[name], study.compared[name]
            mark, colour = LOOKS[seen.verdict]
            _interval(left, k, plot.percent(seen.rate), mark, colour)
            values = np.array(list(one.cost.values()))
            spread = k + np.linspace(-0.26, 0.26, len(values))
            solved = np.ones(len(values), bool) if plan.is_music else np.array([at is not None for at in one.passages])
            right.plot(values[solved], spread[solved], ".", color=colour, alpha=0.4, markersize=4, zorder=1)
            right.plot(
                values[~solved], spread[~solved], ">", mfc="none", color=colour, alpha=0.6, markersize=4, zorder=1
            )
            _interval(right, k, seen.typical, mark, colour)
        left.set_xlim(-4, 104)
        left.set_xlabel("runs better than the frequencies of notes (%)" if plan.is_music else "runs that solved it (%)")
        if plan.is_music:
            right.set_xlabel("loss on the test pieces (nats per frame)")
        else:
            right.set_xscale("log")
            right.set_xlabel("updates until solved")
            plot.plain_log(right.xaxis)
    return found


def _unsolved() -> str:
    return "; triangles: not solved, counted as the whole budget"


def summary(studies: Sequence[Any]) -> Any:
    """Draw the ratio to clipping by norm, variant by task, and the margin of equivalence."""
    names = list(studies[0].tuned)
    words = (
        f"Geometric mean of updates until solved (music: of the loss) over that of clipping by norm, same seeds. "
        f"Lines: 90 % intervals, as two one-sided tests at 5 % ask. Shaded: the margin, a factor {TIME_MARGIN:g} "
        f"(music {LOSS_MARGIN:g}). Equivalent also needs success within {100 * RATE_MARGIN:.0f} points; numbers: "
        f"runs solved. Hollow: fewer than half solved, so that the ratio is the budget's. Triangles: beyond the axis."
    )
    width = 2.6 + 3.0 * max(len(studies), 3)
    with _page("Does it matter how a gradient is clipped?", words, len(studies), names, width) as (found, line):
        for axes, study in zip(line, studies, strict=True):
            margin = LOSS_MARGIN if study.plan.is_music else TIME_MARGIN
            axes.axvspan(1 / margin, margin, color=plot.COLOURS[2], alpha=0.15, linewidth=0, zorder=0)
            plot.reference(axes, x=1)
            reach = _reach(study, margin)
            for k, name in enumerate(names):
                one, seen = study.outcomes[name], study.compared[name]
                hollow = not (one.seen and study.outcomes[REFERENCE].seen)
                if abs(math.log(seen.ratio.value)) > reach:
                    _beyond(axes, k, seen.ratio.value, reach, LOOKS[seen.verdict][1])
                else:
                    _interval(axes, k, seen.ratio, *LOOKS[seen.verdict], hollow=hollow)
                axes.text(1.02, k, f"{one.solved}/{one.runs}", transform=axes.get_yaxis_transform(), fontsize=8,
                          va="center", color=plot.FAINT)  # fmt: skip
            axes.set_xscale("log")
            axes.set_xlim(math.exp(-reach), math.exp(reach))
            plot.plain_log(axes.xaxis)
            axes.set_title(study.plan.title.replace(", ", "\n").replace(" (", "\n("), fontsize=10.5, fontweight="bold")
            axes.set_xlabel("loss / loss of norm" if study.plan.is_music else "updates / updates of norm")
    return found


def _reach(study: Any, margin: float) -> float:
    """Return how far from 1 the axis of the ratios of a task goes, on both sides, as a logarithm."""
    ends = [end for seen in study.compared.values() for end in (seen.ratio.low, seen.ratio.high)]
    wanted = max(*(abs(math.log(end)) for end in ends), 1.6 * math.log(margin)) * 1.1
    return min(wanted, FARTHEST * math.log(margin))


def _beyond(axes: Any, k: int, ratio: float, reach: float, colour: str) -> None:
    """Draw a ratio that the axis does not reach at its end, with its number."""
    side = 1 if ratio > 1 else -1
    axes.plot([math.exp(side * reach * 0.96)], [k], ">" if side > 0 else "<", color=colour, markersize=6.5)
    axes.text(math.exp(side * reach * 0.88), k, f"{ratio:.2f}", fontsize=8, va="center", color=plot.FAINT,
              ha="right" if side > 0 else "left")  # fmt: skip


@contextmanager
def _page(title: str, words: str, columns: int, names: Sequence[str], width: float) -> Iterator[tuple[Any, Any]]:
    """Give a page and axes side by side with a row for each variant, whose names and marks are explained."""
    from matplotlib.lines import Line2D

    with plot.page(title, words, (width, 1.5 + 0.31 * len(names)), dpi=130, w_pad=0.08, wspace=0.04) as found:
        line = found.subplots(1, columns, sharey=True, squeeze=False)[0]
        for axes in line:
            plot.grid(axes, "x")
        yield found, line
        line[0].set_yticks(range(len(names)), [VARIANTS[name].title for name in names])
        line[0].invert_yaxis()
        handles = [Line2D([], [], marker=mark, color=colour, linewidth=1.8, label=TITLES[key])
                   for key, (mark, colour) in LOOKS.items()]  # fmt: skip
        found.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)


def _interval(axes: Any, k: int, ends: Sequence[float], mark: str, colour: str, *, hollow: bool = False) -> None:
    plot.intervals([k], [nf.Interval(*ends)], colour=colour, marker=mark, across=True, ax=axes, zorder=4, capsize=0,
                   elinewidth=1.8, markerfacecolor="white" if hollow else colour,
                   markersize=9 if mark == "*" else 6.5)  # fmt: skip
