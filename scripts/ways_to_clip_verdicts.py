"""What scripts/ways_to_clip.py says of its runs: outcomes, intervals, tests, and a verdict in words.

All margins are named here, before any run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from ways_to_clip_design import REFERENCE, Plan, Row

import nbflow as nf
from nbflow import statistics

ALPHA = 0.05
# Two methods that differ by less in their success: one run in ten.
RATE_MARGIN = 0.1
# Updates until solved: less than this factor is less than what one step of a usual grid of learning rates changes.
TIME_MARGIN = 1.5
# Held-out nats per frame: published results of plain recurrent networks on one set lie several times as far apart.
LOSS_MARGIN = 1.01
# Medians are looked at where at least this part of the runs was solved; else the budget is what a time says.
SEEN = 0.5

EQUIVALENT, DIFFERENT, UNCLEAR = "equivalent", "different", "can't tell"


@dataclass(frozen=True)
class Outcome:
    """What the fresh runs of a variant came to.

    Attributes
    ----------
    cost : dict of float by seed
        Updates until solved, the whole budget where unsolved; of music the held-out nats per frame, and what the
        frequencies of notes reach where that is less or the run diverged.
    passages : tuple of int or None
        Updates until solved; none for music.
    solved : int
        Runs solved; of music those that do better than the frequencies of notes.
    failed : int
        Runs whose setting could not be run; they count as unsolved.
    budget : int
        Most updates of a run.
    """

    cost: dict[int, float]
    passages: tuple[int | None, ...]
    solved: int
    failed: int
    budget: int

    @property
    def runs(self) -> int:
        return len(self.cost)

    @property
    def seen(self) -> bool:
        """Whether the costs are those of most runs, and not the budget's or the frequencies'."""
        return self.solved >= SEEN * self.runs

    @property
    def times(self) -> Any:
        return statistics.passages(self.passages, self.budget)


class Comparison(NamedTuple):
    """A variant beside clipping by norm."""

    rate: nf.Interval  #: of runs solved, Wilson, 95 %
    typical: nf.Interval  #: geometric mean of the cost, bootstrap, 95 %
    median: float  #: updates until half are solved, infinite if that was not seen; NaN for music
    ratio: nf.Interval  #: of geometric means to that of norm, over pairs of one seed, 90 %, as two tests at 5 % ask
    rates: nf.Interval  #: difference of the success rates to that of norm, Newcombe, 90 %
    p: float  #: logrank test, or t test of pairs for music; NaN for norm itself
    adjusted: float  #: by Holm, for all variants of the task
    verdict: str
    words: str


class Joint(NamedTuple):
    """A variant beside clipping by norm, over tasks that stand for others."""

    ratio: nf.Interval  #: geometric mean over tasks of the ratios of costs, Student's interval over tasks, 95 %
    p: float  #: t test over tasks
    adjusted: float  #: by Holm, for all variants
    slower: int  #: tasks on which the 90 % interval of the ratio lies above 1
    faster: int  #: tasks on which it lies below 1
    tasks: int


def joint(tasks: Sequence[dict[str, Comparison]]) -> dict[str, Joint]:
    """Return what tasks say together, each counting once: they are the sample, and their own seeds only its noise.

    All variants of a task are held against the same runs of clipping by norm, so that verdicts by task depend on each
    other; Holm's adjustment holds for tests that do.
    """
    names = [name for name in tasks[0] if name != REFERENCE and all(name in task for task in tasks)]
    logs = {name: [math.log(task[name].ratio.value) for task in tasks] for name in names}
    p = [statistics.paired_difference(logs[name], [0.0] * len(tasks)) for name in names]
    adjusted = dict(zip(names, statistics.holm(p).tolist(), strict=True))
    return {
        name: Joint(
            nf.Interval(*map(math.exp, statistics.mean_interval(logs[name])[:3])), one, adjusted[name],
            sum(task[name].ratio.low > 1 for task in tasks), sum(task[name].ratio.high < 1 for task in tasks),
            len(tasks),
        )
        for name, one in zip(names, p, strict=True)
    }  # fmt: skip


def outcome(plan: Plan, rows: Sequence[Row], budget: int) -> Outcome:
    """Sum up the runs of a variant."""
    failed = sum(row["failure"] is not None for row in rows)
    if plan.is_music:
        worst = plan.trivial
        losses = {row["seed"]: row.get("score") for row in rows}
        cost = {seed: worst if e is None or not e < worst else float(e) for seed, e in losses.items()}
        return Outcome(cost, (), sum(c < worst for c in cost.values()), failed, budget)
    passages = {row["seed"]: row.get("first_passage") for row in rows}
    cost = {seed: float(budget if at is None else at) for seed, at in passages.items()}
    return Outcome(cost, tuple(passages.values()), sum(at is not None for at in passages.values()), failed, budget)


def compare(plan: Plan, outcomes: dict[str, Outcome], margin: float = RATE_MARGIN) -> dict[str, Comparison]:
    """Hold every variant against clipping by norm; those with fewer than two pairs of runs are left out."""
    reference = outcomes.get(REFERENCE)
    if reference is None:
        return {}
    known = {name: one for name, one in outcomes.items() if len(one.cost.keys() & reference.cost.keys()) > 1}
    others = [name for name in known if name != REFERENCE]
    p = [_p(plan, known[name], reference) for name in others]
    adjusted = dict(zip(others, zip(p, statistics.holm(p).tolist(), strict=True), strict=True))
    return {name: _one(plan, name, one, reference, margin, *adjusted.get(name, (math.nan, math.nan)))
            for name, one in known.items()}  # fmt: skip


def _logs(one: Outcome, two: Outcome) -> tuple[Any, Any]:
    """Return the logarithms of both costs, by seed."""
    seeds = [seed for seed in one.cost if seed in two.cost]
    return np.log([one.cost[seed] for seed in seeds]), np.log([two.cost[seed] for seed in seeds])


def _p(plan: Plan, one: Outcome, reference: Outcome) -> float:
    if plan.is_music:
        return statistics.paired_difference(*_logs(one, reference))
    return statistics.logrank(one.times, reference.times)


def _one(plan: Plan, name: str, one: Outcome, reference: Outcome, of_rates: float, p: float,
         adjusted: float) -> Comparison:  # fmt: skip
    rates = statistics.equivalence_of_rates(
        (one.solved, reference.solved), (one.runs, reference.runs), of_rates, alpha=ALPHA
    )
    margin = math.log(LOSS_MARGIN if plan.is_music else TIME_MARGIN)
    costs = statistics.paired_equivalence(*_logs(one, reference), margin, alpha=ALPHA)
    ratio = nf.Interval(*map(math.exp, costs.difference))
    own = statistics.bootstrap(_logs(one, one)[0])
    comparable = one.seen and reference.seen
    found = "" if name == REFERENCE else verdict(rates, costs, comparable, adjusted)
    return Comparison(
        statistics.success_rate(one.solved, one.runs), nf.Interval(*map(math.exp, own)),
        math.nan if plan.is_music else statistics.survival(one.times).median, ratio, rates.difference, p, adjusted,
        found, _words(plan, found, ratio, one, reference, comparable, adjusted),
    )  # fmt: skip


def verdict(rates: statistics.Equivalence, costs: statistics.Equivalence, comparable: bool, adjusted: float) -> str:
    """Say in a word what is known of a variant beside clipping by norm.

    Equivalent: success and cost are both within their margins, each shown by two one-sided tests; a difference that is
    smaller may still be there. Different: not that, and a test tells the two apart, adjusted for being many. Else it
    can't be told: that no difference was found shows nothing.

    Parameters
    ----------
    rates, costs : Equivalence
        Of the success rates, and of the logarithms of the costs.
    comparable : bool
        Whether enough runs of both were solved for the costs to mean anything.
    adjusted : float
        The p-value of the test that tells the two apart.
    """
    if rates.equivalent and costs.equivalent and comparable:
        return EQUIVALENT
    return DIFFERENT if adjusted < ALPHA else UNCLEAR


def _words(plan: Plan, found: str, ratio: nf.Interval, one: Outcome, reference: Outcome, comparable: bool,
           adjusted: float) -> str:  # fmt: skip
    """Say the verdict in a few words more."""
    what = "the loss" if plan.is_music else "the updates"
    digits = 3 if plan.is_music else 2
    if found == EQUIVALENT and adjusted < ALPHA:
        return f"{found}, though not the same: {ratio.value:.{digits}f} times {what}"
    if found == DIFFERENT:
        if comparable:
            return f"{found}: {ratio.value:.{digits}f} times {what}"
        return f"{found}: solves {one.solved} of {one.runs}, norm {reference.solved} of {reference.runs}"
    return found
