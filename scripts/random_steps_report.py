"""What scripts/random_steps.py says of its runs: tests, a verdict in words, tables, a picture.

All margins are named here, before any run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from random_steps_design import LOOKS, METHODS, RATES, REFERENCE, STEPS, TRIGGERS, Study, solved_of
from rich.console import Console
from rich.table import Table

import nbflow as nf
from nbflow import plot, statistics
from nbflow.experiments.console import document, headed, keep, tell
from nbflow.storage.compact import clipped_of
from nbflow.storage.store import Row

ALPHA, POINTS, FACTOR = 0.05, 0.1, 1.5
# Of the runs of clipping by norm: where it solves fewer, to be as good as it says nothing.
LEAST_SOLVED = 0.5
AT_AN_END = "the learning rate is at an end of those that were tried"
ALMOST, NOT, UNCLEAR = "works almost as well", "doesn't hold", "can't tell"


# The verdict.


class Tested(NamedTuple):
    """A method on a task beside clipping by norm."""

    points: nf.Interval  #: success less that of clipping by norm, Newcombe, 90 %
    ratio: nf.Interval  #: how many times the updates, geometric means over pairs of one seed, 90 %
    almost: float  #: p of: worse by a margin in success or in updates; by Holm over the tasks
    beyond: float  #: p of: worse by no margin; by Holm over the tasks and both
    verdict: str


def tested(done: Sequence[Study], method: str) -> list[Tested]:
    """Hold a method against clipping by norm on every task, adjusted for their number."""
    pairs = [margins(study, method) for study in done]
    almost = statistics.holm([max(pair) for pair in pairs])
    beyond = statistics.holm([1 - p for pair in pairs for p in pair]).reshape(-1, 2).min(axis=1)
    found = []
    for study, p, q in zip(done, almost.tolist(), beyond.tolist(), strict=True):
        enough = solved_of(study.fresh[REFERENCE]) >= LEAST_SOLVED * len(study.fresh[REFERENCE])
        word = ALMOST if p < ALPHA else NOT if q < ALPHA else UNCLEAR
        found.append(Tested(points(study, method), ratio(study, method), p, q, word if enough else UNCLEAR))
    return found


def points(study: Study, method: str) -> nf.Interval:
    """Return the success less that of clipping by norm, with Newcombe's 90 % interval."""
    return statistics.rate_difference(*_counts(study, method), confidence=1 - 2 * ALPHA)


def _counts(study: Study, method: str) -> Any:
    """Return solved and all runs of a method and of clipping by norm."""
    rows = study.fresh[method], study.fresh[REFERENCE]
    return tuple(map(solved_of, rows)), tuple(map(len, rows))


def ratio(study: Study, method: str) -> nf.Interval:
    """Return how many times the updates of clipping by norm, with its 90 % interval."""
    one, two = (np.log(study.costs(study.fresh[name])) for name in (method, REFERENCE))
    found = statistics.paired_equivalence(one, two, math.log(FACTOR), alpha=ALPHA).difference
    return nf.Interval(*map(math.exp, found))


def margins(study: Study, method: str) -> tuple[float, float]:
    """Return one-sided p: that success is more than 10 points below, and that updates are more than 1.5 times."""
    from scipy.stats import ttest_1samp

    one, two = (np.log(study.costs(study.fresh[name])) for name in (method, REFERENCE))
    over = one - two - math.log(FACTOR)
    if np.ptp(over) == 0:  # no test without a variance, and no need of one
        late = float(over[0] > 0) if over[0] else 0.5
    else:
        late = float(ttest_1samp(over, 0.0, alternative="less").pvalue)
    solved, runs = _counts(study, method)
    return below(solved, runs, -POINTS), late


def below(solved: tuple[int, int], runs: tuple[int, int], at: float) -> float:
    """Return p of: the difference of two rates is `at` or less; the level at which Newcombe's interval ends there.

    So it is below alpha where the interval of confidence 1 - 2 alpha lies above `at`.
    """
    from scipy.optimize import brentq

    above = solved[0] / runs[0] - solved[1] / runs[1] > at

    def off(level: float) -> float:
        found = statistics.rate_difference(solved, runs, confidence=1 - 2 * level)
        return found.low - at if above else at - found.high

    least, most = 1e-12, 0.5 - 1e-12
    level = least if off(least) >= 0 else 0.5 if off(most) <= 0 else float(brentq(off, least, most))
    return level if above else 1 - level


def tally(done: Sequence[Study], method: str = "random") -> str:
    """Say on how many tasks which verdict holds."""
    seen = [one.verdict for one in tested(done, method)]
    return ", ".join(f"{word} on {seen.count(word)} of {len(done)}" for word in (ALMOST, NOT, UNCLEAR) if word in seen)


# Tables.


def compared(done: Sequence[Study]) -> Table:
    """Return what fresh seeds came to."""
    found = headed("Fresh seeds, at the best setting of each method", "task", "method", "lr", "solved",
                   "median of updates", "clip acted", wrap=False)  # fmt: skip
    for study in done:
        for method, title in METHODS.items():
            best, rows = study.chosen(method), study.fresh[method]
            median = statistics.survival(passages(study, rows)).median
            found.add_row(
                study.plan.title, title if method == "none" else f"{title}: {best.name.removeprefix('norm, ')}",
                f"{best.lr:g}{'*' * study.at_an_end(best)}", f"{solved_of(rows)} of {len(rows)}",
                f"{median:,.0f}" if math.isfinite(median) else f"over {study.updates:,}",
                acted(rows) if method != "none" else "",
            )  # fmt: skip
    return found


def verdicts(done: Sequence[Study]) -> Table:
    """Return what fresh seeds say beside clipping by norm."""
    found = headed("Beside clipping by norm (90 % intervals; p by Holm)", "task", "method", "points of success",
                   "times the updates", "p: as well", "p: worse", "verdict", wrap=False)  # fmt: skip
    for method in (method for method in METHODS if method != REFERENCE):
        for study, seen in zip(done, tested(done, method), strict=True):
            found.add_row(study.plan.title, METHODS[method], in_points(seen.points), said(seen.ratio),
                          probability(seen.almost), probability(seen.beyond), seen.verdict)  # fmt: skip
    return found


def cells(done: Sequence[Study]) -> Table:
    """Return what tuning saw of every trigger and length: runs solved, and mean updates, at the best rate of each."""
    found = headed("Tuning: solved of the runs that were made, their mean updates (unsolved: the budget), at the best "
                   "learning rate of each", "trigger, length", *(study.plan.title for study in done))  # fmt: skip
    for name in dict.fromkeys(one.name for one in done[0].settings):
        row = []
        for study in done:
            best = study.best(name=name)
            mark = " (best)" if best is study.chosen(best.method) and best.method != "none" else ""
            mean = float(np.mean(study.costs(best.rows)))
            row.append(f"{solved_of(best.rows)} of {len(best.rows)}, {mean:,.0f}, lr {best.lr:g}{mark}")
        found.add_row(METHODS.get(name, name), *row)
    return found


def thresholds(done: Sequence[Study]) -> Table:
    """Return the norms of unclipped training."""
    found = headed("Norms of unclipped training", "", *(study.plan.title for study in done))
    for name, title in (("median", "median"), ("ten_means", "ten times the mean"), ("greatest", "greatest")):
        found.add_row(title, *(f"{study.seen[name]:.3g}" for study in done))
    return found


def passages(study: Study, rows: Sequence[Row]) -> Any:
    return statistics.passages([row.get("first_passage") for row in rows], study.updates)


def said(interval: nf.Interval) -> str:
    return f"{interval.value:.2f} ({interval.low:.2f}-{interval.high:.2f})"


def in_points(interval: nf.Interval) -> str:
    return f"{100 * interval.value:+.0f} ({100 * interval.low:+.0f} to {100 * interval.high:+.0f})"


def probability(p: float) -> str:
    return "below 0.0001" if p < 0.0001 else f"{p:.4f}" if p < 0.01 else f"{p:.2f}"


def acted(rows: Sequence[Row]) -> str:
    """Say in which part of the updates the clip acted."""
    parts = [part for part in map(clipped_of, rows) if part is not None]
    return f"{100 * float(np.mean(parts)):.2g} %" if parts else "-"


# The picture.


def picture(done: Sequence[Study]) -> Any:
    """Draw when fresh seeds are solved, and what tuning saw of every trigger and length."""
    title = "Random steps, their trigger apart from their length"
    words = (
        "Above: fresh seeds that are not yet solved, at the best setting of each method. Below: mean updates until "
        "solved of tuning seeds (unsolved: the budget) at the best learning rate of each trigger and length; hollow "
        "where not all three were solved. A setting that could no more be the best had fewer runs."
    )
    with plot.page(title, words, (3.1 * max(len(done), 2) + 1, 7)) as page:
        rows = page.subfigures(2, 1)
        for half, draw in zip(rows, (_survival, _tuning), strict=True):
            line = half.subplots(1, len(done), squeeze=False)[0]
            for axes, study in zip(line, done, strict=True):
                draw(axes, study)
                axes.set_xlim(0, 1.04 * study.updates)
                axes.locator_params(axis="x", nbins=4)
                axes.xaxis.set_major_formatter("{x:,.0f}")
            for axes in line[1:]:
                axes.set_ylabel("")
                axes.tick_params(labelleft=False)
            plot.legend_below(line[0], columns=0 if len(done) > 2 else 3)
    return page


def _survival(axes: Any, study: Study) -> None:
    for (method, title), colour in zip(METHODS.items(), plot.COLOURS, strict=False):
        seen = statistics.survival(passages(study, study.fresh[method]))
        plot.survival(seen, colour=colour, label=title, ax=axes)
    axes.set_title(study.plan.title)


def _tuning(axes: Any, study: Study) -> None:
    for k, (step, marker) in enumerate(zip(STEPS, "os^", strict=True)):
        colour = plot.COLOURS[3 + k]
        for row, trigger in enumerate(TRIGGERS):
            best = study.best(name=f"{trigger}, {step}")
            at = float(np.mean(study.costs(best.rows))), row + 0.22 * (k - 1)
            filled = colour if solved_of(best.rows) == 3 else "none"
            axes.plot(*at, marker, color=colour, markerfacecolor=filled, markersize=7, markeredgewidth=1.6)
            if best is study.chosen("random"):
                axes.plot(*at, "o", color=plot.inks(axes).ink, markerfacecolor="none", markersize=14)
        axes.plot([], [], marker, color=colour, label=f"length: {step}")
    axes.plot([], [], "o", color=plot.inks(axes).ink, markerfacecolor="none", markersize=14, label="the best")
    norm = float(np.mean(study.costs(study.chosen(REFERENCE).rows)))
    plot.reference(axes, x=norm, label=METHODS[REFERENCE])
    axes.set_yticks(range(len(TRIGGERS)), list(TRIGGERS))
    axes.set(xlabel="updates until solved", ylabel="trigger", ylim=(len(TRIGGERS) - 0.5, -0.5))
    plot.grid(axes, "x")


# All of it.


def numbers(options: Any, done: Sequence[Study]) -> dict[str, Any]:
    """Return every setting and result as JSON takes it; the runs are in the store."""
    held = {method: tested(done, method) for method in METHODS if method != REFERENCE}
    tasks = {}
    for k, study in enumerate(done):
        tuning = [{"variant": one.name, "method": one.method, "lr": one.lr, "solved": solved_of(one.rows),
                   "runs": len(one.rows), "updates": float(np.mean(study.costs(one.rows)))}
                  for one in study.settings]  # fmt: skip
        fresh = {}
        for method, rows in study.fresh.items():
            best = study.chosen(method)
            fresh[method] = {"variant": best.name, "lr": best.lr, "at_an_end": study.at_an_end(best),
                             "solved": solved_of(rows), "runs": len(rows), "costs": study.costs(rows)}  # fmt: skip
            if method in held:
                seen = held[method][k]
                fresh[method] |= {**seen._asdict(), "points": seen.points._asdict(), "ratio": seen.ratio._asdict()}
        tasks[study.plan.name] = {"updates": study.updates, "seen": study.seen, "tuning": tuning, "fresh": fresh}
    return document(options, code=options.code_of, rates=RATES, looks=LOOKS, alpha=ALPHA, points=POINTS, factor=FACTOR,
                    tasks=tasks)  # fmt: skip


def report(options: Any, done: Sequence[Study], console: Console) -> list[Any]:
    """Print tables, write the JSON and draw the picture."""
    wanted = len(dict.fromkeys(options.tasks))
    if len(done) < wanted:
        tell(console, f"{len(done)} of {wanted} tasks are done; what follows is of these alone, adjusted for these.")
    for table in (thresholds(done), cells(done), compared(done), verdicts(done)):
        console.print(table)
    tell(console, f"*: {AT_AN_END}.")
    failed = [row for study in done for rows in study.fresh.values() for row in rows if row.get("failure")]
    failed += [row for study in done for one in study.settings for row in one.rows if row.get("failure")]
    if failed:
        tell(console, f"{len(failed):,} runs failed and count as unsolved, the first one: {failed[0]['failure']:.500}")
    tell(console, f"A random step {tally(done)}; no clip: {tally(done, 'none')}.")
    return keep(console, options.out / options.name, numbers(options, done), {"": picture(done)})
