"""What scripts/reach.py says of its runs: tables, tests, verdicts and pictures."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from reach_design import CURES, FIGURE_7, RATES, SPAN, Design, Setting, Test
from rich.table import Table

import nbflow as nf
from nbflow import plot, statistics
from nbflow.experiments.console import headed

ALPHA, HALF = 0.05, 0.5
# Success rates that differ by less are alike.
MARGIN = 0.2
WIDENS, SOONER, ALIKE, WORSE, UNCLEAR = "widens", "sooner", "alike", "worse", "can't tell"
MARKERS = ("o", "s", "^", "D", "v", "P")
# Lines that lie on each other are seen through the gaps of those above them.
STYLES: tuple[Any, ...] = ("-", (0, (5, 3)), (0, (1.5, 2.5)), (3, (4, 6)), (0, (6, 2, 1, 2)), (0, (1.2, 1.2)))


class Outcome(NamedTuple):
    """What the fresh runs of an arm at a length came to."""

    family: str
    arm: str
    length: int
    setting: Setting
    note: str  #: what tuning says of it: "end", "guess" or nothing
    seeds: tuple[int, ...]
    updates: int  #: most of a run
    passages: tuple[int | None, ...]  #: by seed, None for unsolved
    clipped: float | None  #: the part of updates in which the clip acted

    @property
    def solved(self) -> int:
        return sum(at is not None for at in self.passages)

    @property
    def times(self) -> Any:
        return statistics.passages(self.passages, self.updates)

    @property
    def median(self) -> float:
        return statistics.survival(self.times).median

    def within(self, updates: int, seeds: Sequence[int]) -> Outcome:
        """Return it as it would be with a smaller budget and fewer seeds."""
        kept = [(seed, at) for seed, at in zip(self.seeds, self.passages, strict=True) if seed in seeds]
        passages = tuple(at if at is not None and at <= updates else None for _, at in kept)
        return self._replace(updates=updates, seeds=tuple(seed for seed, _ in kept), passages=passages)


class Tested(NamedTuple):
    """Two arms at a length, with the seeds and the budget that both have."""

    question: str
    one: str
    other: str
    length: int
    updates: int  #: most of a run
    solved: tuple[int, int]
    runs: int
    difference: nf.Interval  #: of the rates, Newcombe, 95 %
    p: float  #: logrank
    adjusted: float  #: by Holm, over the question
    verdict: str


def tested(asked: Design, outcomes: Sequence[Outcome]) -> list[Tested]:
    """Return every test of a design of which both arms have two seeds in common, adjusted over each question."""
    by_place = {(one.arm, one.length): one for one in outcomes}
    lengths = sorted({one.length for one in outcomes})
    found: list[Tested] = []
    for question in dict.fromkeys(test.question for test in asked.tests):
        mine = [(test, length, *pair) for test in asked.tests if test.question == question for length in lengths
                if (pair := _pair(by_place, test, length)) is not None]  # fmt: skip
        p = [statistics.logrank(one.times, other.times) for *_, one, other in mine]
        adjusted = statistics.holm(p).tolist() if p else []
        for (test, length, one, other), raw, by_holm in zip(mine, p, adjusted, strict=True):
            runs = len(one.seeds)
            difference = statistics.rate_difference((one.solved, other.solved), (runs, runs))
            solved, verdict = (one.solved, other.solved), word(one, other, by_holm)
            found.append(Tested(question, test.one, test.other, length, one.updates, solved, runs, difference, raw,
                                by_holm, verdict))  # fmt: skip
    return found


def _pair(by_place: dict[tuple[str, int], Outcome], test: Test, length: int) -> tuple[Outcome, Outcome] | None:
    """Return both arms of a test with what they have in common, None where that is less than two seeds."""
    one, other = by_place.get((test.one, length)), by_place.get((test.other, length))
    if one is None or other is None:
        return None
    seeds, updates = sorted(set(one.seeds) & set(other.seeds)), min(one.updates, other.updates)
    return None if len(seeds) < 2 else (one.within(updates, seeds), other.within(updates, seeds))


def word(one: Outcome, other: Outcome, adjusted: float) -> str:
    """Say in a word what is known of an arm beside another.

    Widens: it is sooner, solves half of its runs at least, and the other fewer than half. Sooner, worse: the test tells
    them apart, and its mean of updates, unsolved ones counting as the budget, is less, or more. Alike: success rates
    differ by less than the margin, by two one-sided tests at 5 %, and both solve half at least.
    """
    runs = len(one.seeds)
    rates = one.solved / runs, other.solved / runs
    if adjusted < ALPHA:
        if _cost(one) >= _cost(other):
            return WORSE
        return WIDENS if rates[0] >= HALF > rates[1] else SOONER
    near = statistics.equivalence_of_rates((one.solved, other.solved), (runs, runs), MARGIN, alpha=ALPHA).equivalent
    return ALIKE if near and min(rates) >= HALF else UNCLEAR


def _cost(one: Outcome) -> float:
    return float(np.mean([one.updates if at is None else at for at in one.passages]))


# In words.


def said_of(name: str, asked: Design, outcomes: Sequence[Outcome]) -> str:
    """Say what a design has found, by the rules that stood in it."""
    found = tested(asked, outcomes)
    if name == "span":
        return f"8a: {span_verdict(found)}. 8b: {clipping_verdict(found, outcomes)}."
    return f"Figure 7: {figure_verdict(outcomes)}."


def span_verdict(found: Sequence[Tested]) -> str:
    """Say whether Omega with clipping widens the span."""
    mine = [one for one in found if one.question == SPAN.tests[0].question]
    wider = [one.length for one in mine if one.verdict == WIDENS]
    if wider:
        sooner = [one.length for one in mine if one.verdict == SOONER]
        return f"holds at {_steps(wider)}" + (f"; sooner at {_steps(sooner)}" if sooner else "")
    if mine and all(one.verdict in (ALIKE, WORSE) for one in mine):
        return "doesn't hold"
    sooner = [one.length for one in mine if one.verdict == SOONER]
    return "can't tell" + (f"; sooner at {_steps(sooner)}" if sooner else "")


def clipping_verdict(found: Sequence[Tested], outcomes: Sequence[Outcome]) -> str:
    """Say whether Omega fails without clipping: where it does, and where it solves half of its runs all the same."""
    mine = [one for one in found if one.question == SPAN.tests[1].question]
    fails = [one.length for one in mine if one.verdict == WIDENS]
    does = [one.length for one in outcomes if one.arm == "omega" and one.solved >= HALF * len(one.seeds)]
    parts = ([f"holds at {_steps(fails)}"] if fails else []) + ([f"not at {_steps(does)}"] if does else [])
    return ", ".join(parts) if fails else f"doesn't hold at {_steps(does)}" if does else "can't tell"


def figure_verdict(outcomes: Sequence[Outcome]) -> str:
    """Say where clipping with Omega solved every run from 50 to 200 steps, as figure 7 has it with smart_tanh."""
    met = []
    for init, rate in itertools.product(("basic_tanh", "smart_tanh"), RATES):
        mine = [one for one in outcomes if one.arm == f"{init} clip+omega {rate}" and one.family == "main"]
        if len(mine) == len(FIGURE_7.stages[0].lengths) and all(one.solved == len(one.seeds) for one in mine):
            met.append(f"{init} at {RATES[rate]}")
    return f"met by clipping and Omega, {' and '.join(met)}" if met else "can't tell"


def _steps(lengths: Sequence[int]) -> str:
    return f"{', '.join(map(str, sorted(lengths)))} steps"


def tables(asked: Design, outcomes: Sequence[Outcome]) -> list[Table]:
    """Return what each arm solved, with which settings, and the tests."""
    return [of_rates(asked, outcomes), of_settings(asked, outcomes), of_tests(asked, outcomes)]


def _by_length(asked: Design, outcomes: Sequence[Outcome], title: str, cell: Any) -> Table:
    lengths = sorted({one.length for one in outcomes})
    by_place = {(one.arm, one.length): one for one in outcomes}
    found = headed(title, "arm", *(f"L = {length}" for length in lengths))
    for name in (name for name in asked.arms if any(one.arm == name for one in outcomes)):
        row = (by_place.get((name, length)) for length in lengths)
        found.add_row(title_of(asked, name), *("-" if one is None else cell(one) for one in row))
    return found


def title_of(asked: Design, name: str) -> str:
    """Return how an arm is called, with its first weights where arms of others are called alike."""
    arm = asked.arms[name]
    alike = sum(other.title == arm.title for other in asked.arms.values()) > 1
    return f"{arm.init}, {arm.title}" if alike else arm.title


def of_rates(asked: Design, outcomes: Sequence[Outcome]) -> Table:
    """Return how many runs of each arm were solved, and the median of updates; where budgets differ, within which."""
    budgets = sorted({one.updates for one in outcomes})

    def cell(one: Outcome) -> str:
        rate = statistics.success_rate(one.solved, len(one.seeds))
        median = f", median {one.median:,.0f}" if math.isfinite(one.median) else ""
        within = f" within {one.updates:,}" if len(budgets) > 1 else ""
        return f"{one.solved} of {len(one.seeds)}{within} ({100 * rate.low:.0f}-{100 * rate.high:.0f} %){median}"

    words = " or ".join(f"{updates:,}" for updates in budgets)
    return _by_length(asked, outcomes, f"Solved within {words} updates", cell)


def of_settings(asked: Design, outcomes: Sequence[Outcome]) -> Table:
    """Return which setting each arm had at each length, and how often its clip acted."""

    def cell(one: Outcome) -> str:
        note = f" ({one.note})" if one.note else ""
        acted = "" if one.setting.threshold is None or one.clipped is None else f", acted {100 * one.clipped:.0f} %"
        return f"{one.setting}{note}{acted}"

    words = "Settings, (end) at an end of those tried, (guess) where none learnt anything, and how often the clip acted"
    return _by_length(asked, outcomes, words, cell)


def of_tests(asked: Design, outcomes: Sequence[Outcome]) -> Table:
    """Return the tests of a design."""
    found = headed("Arms beside each other", "question", "one", "other", "L", "updates", "solved", "difference",
                   "p (logrank)", "p (Holm)", "")  # fmt: skip
    for one in tested(asked, outcomes):
        low, high = (f"{100 * end:+.0f}" for end in one.difference[1:])
        found.add_row(
            one.question, title_of(asked, one.one), title_of(asked, one.other), str(one.length),
            f"{one.updates:,}",
            f"{one.solved[0]}, {one.solved[1]} of {one.runs}", f"{100 * one.difference.value:+.0f} ({low} to {high})",
            probability(one.p), probability(one.adjusted), one.verdict,
        )  # fmt: skip
    return found


def probability(p: float) -> str:
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}" if p < 0.01 else f"{p:.3f}"


# Pictures.


def pictures(name: str, asked: Design, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return the pictures of a design, by what stands behind its name."""
    found = {"": survival(asked, outcomes)}
    if name == "figure_7":
        found["_rates"] = rates(outcomes)
    return found


def survival(asked: Design, outcomes: Sequence[Outcome]) -> Any:
    """Draw which part of the runs is not yet solved: a row for arms that belong together, a column for each length."""
    lengths = sorted({one.length for one in outcomes})
    rows = _rows_of(asked, {one.arm for one in outcomes})
    size = max(2.6 * len(lengths), 7.0), 3.1 * len(rows)
    with plot.page(asked.title, _words(outcomes), size, dpi=130) as found:
        lines = found.subfigures(len(rows), 1, squeeze=False)[:, 0]
        seen: set[str] = set()
        for line, (title, arms) in zip(lines, rows.items(), strict=True):
            _survival_row(asked, line, title, arms, lengths, outcomes, set(arms) - seen)
            seen |= set(arms)
    return found


def _rows_of(asked: Design, there: set[str]) -> dict[str, tuple[str, ...]]:
    """Return the rows that show an arm which none above them shows."""
    found: dict[str, tuple[str, ...]] = {}
    for title, arms in asked.rows.items():
        if (there & set(arms)) - {arm for row in found.values() for arm in row}:
            found[title] = arms
    return found


def _words(outcomes: Sequence[Outcome]) -> str:
    seeds = sorted({len(one.seeds) for one in outcomes})
    budgets = sorted({one.updates for one in outcomes})
    runs, most = (" or ".join(some) for some in (map(str, seeds), (f"{one:,}" for one in budgets)))
    return (f"Temporal order, {runs} runs an arm and length, at most {most} updates.\n"
            f"Solved: under 1 % of 2,000 fresh sequences wrong.")  # fmt: skip


def _survival_row(asked: Design, line: Any, title: str, arms: Sequence[str], lengths: Sequence[int],
                  outcomes: Sequence[Outcome], new: set[str]) -> None:  # fmt: skip
    """Draw a row; its axes end where the runs of those arms do that no row above shows."""
    labels: dict[str, Any] = {}
    field = line.subplots(1, len(lengths), sharey=True, squeeze=False)[0]
    for axes, length in zip(field, lengths, strict=True):
        axes.set_visible(any(one.length == length and one.arm in arms for one in outcomes))
        for k, arm in enumerate(arms):
            for one in (one for one in outcomes if (one.arm, one.length) == (arm, length)):
                plot.survival(statistics.survival(one.times), colour=plot.COLOURS[k], ax=axes)
                axes.lines[-1].set_linestyle(STYLES[k])
                labels[asked.arms[arm].title] = axes.lines[-1]
        most = max((one.updates for one in outcomes if one.length == length and one.arm in new), default=1)
        axes.set(title=f"L = {length}", xlim=(0, most), ylim=(-4, 104), ylabel="", xlabel="updates")
        axes.xaxis.set_major_locator(_few())
        axes.xaxis.set_major_formatter("{x:,.0f}")
    field[0].set_ylabel(f"{title}\nnot yet solved (%)")
    columns = 3 if len(lengths) > 2 or len(labels) <= 3 else 2
    line.legend(labels.values(), labels.keys(), loc="outside lower center", ncols=columns, frameon=False)


def _few() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(3)


def rates(outcomes: Sequence[Outcome]) -> Any:
    """Draw success against length: first weights side by side, the paper's rate above the tuned one."""
    inits = [init for init in FIGURE_7.rows if any(one.arm.startswith(init) for one in outcomes)]
    size, lengths = (max(3.4 * len(inits) + 1, 7.0), 5.6), sorted({one.length for one in outcomes})
    with plot.page(FIGURE_7.title, _words(outcomes) + " Bars: Wilson intervals, 95 %.", size, dpi=130) as found:
        grid = found.subplots(len(RATES), len(inits), sharey=True, sharex=True, squeeze=False)
        for (row, rate), (column, init) in itertools.product(enumerate(RATES), enumerate(inits)):
            axes = grid[row][column]
            for k, cure in enumerate(CURES):
                mine = [one for one in outcomes if one.arm == f"{init} {cure} {rate}"]
                shifted = [one.length + 4 * (k - 1) for one in mine]
                plot.success(shifted, [one.solved for one in mine], [len(one.seeds) for one in mine],
                             colour=plot.COLOURS[k], marker=MARKERS[k], label=CURES[cure], ax=axes)  # fmt: skip
            axes.set(title=f"{init}, {RATES[rate]}", xlabel="length (steps)" if row else "",
                     ylabel="" if column else "runs that solved it (%)")  # fmt: skip
            axes.set_xticks(lengths)
            axes.set_xlim(lengths[0] - 15, lengths[-1] + 15)
        plot.legend_below(grid[0][0])
    return found
