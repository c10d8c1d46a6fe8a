"""How scripts/ways_to_clip.py tunes: a race over a first grid, then steps to better neighbours until there is none.

So no setting that is chosen stands at an end of what was tried, and what was tried is the same rule for every variant.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import NamedTuple, TypeAlias, TypeVar

from ways_to_clip_design import Grid, Place, Plan, Row, score

# Steps to better neighbours, at most.
STEPS = 50


class Asked(NamedTuple):
    """What a race wants to see: each place with the first so many seeds, to a part of the budget."""

    places: list[Place]
    seeds: int
    budget: float


class Tuned(NamedTuple):
    """What tuning came to."""

    setting: tuple[float, float]  #: learning rate and threshold
    rows: list[Row]  #: its runs
    inside: bool  #: whether the first grid has it, and not at an end
    settled: bool  #: whether no neighbour is better
    settings: int  #: how many were tried
    runs: int  #: how many runs were made, short ones included


Rows: TypeAlias = dict[Place, list[Row]]
Race: TypeAlias = Generator[Asked, Rows, Tuned]
Key = TypeVar("Key")


def race(plan: Plan, grid: Grid, updates: int) -> Race:
    """Ask for runs, take them in, and return the best setting.

    Rounds: every place of the grid with few seeds and a part of the budget; those that stay with more of both. Then
    every neighbour of the best, with as many seeds as the round before the last had, and with all of them where it is
    better on these, or better than the best is on all of its own; until the best has no better neighbour.
    """
    alive, runs, tried = grid.places(), 0, set(grid.places())
    seen: Rows = {}
    for one in plan.rounds:
        rows = yield Asked(alive, one.seeds, one.budget)
        runs += len(alive) * one.seeds if one.budget < 1 else new_runs(seen, rows)
        alive = sorted(alive, key=lambda place: score(plan, rows[place], round(updates * one.budget)))[: one.stay]
        if one.budget == 1:
            seen |= rows
    (best,), few, every = alive, plan.rounds[-2].seeds, plan.rounds[-1].seeds

    def cost(place: Place, seeds: int) -> tuple[float, ...]:
        return score(plan, seen[place][:seeds], updates)

    settled = False
    for _ in range(STEPS):
        near = grid.neighbours(best)
        tried |= set(near)
        if unseen := [place for place in near if place not in seen]:
            rows = yield Asked(unseen, few, 1.0)
            runs += new_runs(seen, rows)
            seen |= rows
        mark = max(cost(best, few), cost(best, every))
        if better := [p for p in near if len(seen[p]) < every and cost(p, few) < mark]:
            rows = yield Asked(better, every, 1.0)
            runs += new_runs(seen, rows)
            seen |= rows
        whole = [place for place in near if len(seen[place]) == every]
        nearest = min([best, *whole], key=lambda place: cost(place, every))
        if nearest == best:
            settled = True
            break
        best = nearest
    return Tuned(grid.setting(best), seen[best], grid.is_inside(best), settled, len(tried), runs)


def new_runs(seen: Mapping[Place, Sequence[Row]], rows: Mapping[Place, Sequence[Row]]) -> int:
    """Return how many of the runs were not there before."""
    return sum(len(mine) - len(seen.get(place, ())) for place, mine in rows.items())


def drive(races: Mapping[Key, Race], run: Callable[[dict[Key, Asked]], dict[Key, Rows]]) -> dict[Key, Tuned]:
    """Let races go on side by side, a turn at a time, and return what each came to.

    Parameters
    ----------
    races : dict of Race
    run : function
        Takes what each race asks for, and returns the runs by the same names.
    """
    done: dict[Key, Tuned] = {}
    asked = {name: next(one) for name, one in races.items()}
    while asked:
        answers, asked = run(asked), {}
        for name, rows in answers.items():
            try:
                asked[name] = races[name].send(rows)
            except StopIteration as end:
                done[name] = end.value
    return {name: done[name] for name in races}
