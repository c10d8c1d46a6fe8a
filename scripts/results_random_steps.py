"""Tables of random steps above the threshold (claim 3), from scripts/compare_clipping.py and random_steps.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import compare_clipping_design as design
import random_steps_report as reporting
from results_clips import beside, runs_of, studies_of
from results_markdown import grid, points, rich_to_markdown
from results_stores import Stores

from nbflow import statistics


def rare(studies: Sequence[Any]) -> str:
    """Return random steps at thresholds that few gradients exceed, and no clip at all."""
    heads = ["", *(study.plan.title for study in studies)]
    chosen = []
    for study in studies:
        words = ("95 % quantile", "99 % quantile", "the greatest", "ten times the greatest")
        chosen.append(words[study.thresholds["norm_rare"].index(study.tuned["random_rare"][1])])
    rows = [
        [design.VARIANTS[name].title, *(beside(study, name) for study in studies)] for name in ("random_rare", "none")
    ]
    return grid(heads, [["threshold chosen", *chosen], *rows])


def random_steps(studies: Sequence[Any]) -> str:
    """Return how much less random steps solve than clipping by norm, over all tasks that are solved or not."""
    seen = [study for study in studies if not study.plan.is_music]
    solved = [sum(study.outcomes[name].solved for study in seen) for name in ("random", "norm")]
    runs = [sum(study.outcomes[name].runs for study in seen) for name in ("random", "norm")]
    difference = statistics.rate_difference((solved[0], solved[1]), (runs[0], runs[1]))
    return f"solved {solved[0]} of {runs[0]}, norm {solved[1]} of {runs[1]}: {points(difference)}"


def random_claim(stores: Stores) -> list[str]:
    """Return the line of claim 3: of triggers apart from lengths where they were run, else of both tied."""
    claim = ["3", "a random step above the threshold works almost as well"]
    done = stores.random_steps()
    if not done:
        every = studies_of(stores)
        return [*claim, "doesn't hold", random_steps(every), runs_of(every)]
    effects = [
        f"{study.plan.title} {reporting.in_points(one.points)} points, {reporting.said(one.ratio)} times the updates"
        for study, one in zip(done, reporting.tested(done, "random"), strict=True)
    ]
    effect = f"the best of twelve kinds beside norm (90 %): {'; '.join(effects)}"
    return [*claim, reporting.tally(done), effect, f"{len(done[0].fresh['random'])} a cell"]


def apart(stores: Stores) -> str:
    """Return tables and picture of triggers apart from lengths; nothing where no task is done."""
    done = stores.random_steps()
    tables = (reporting.verdicts, reporting.compared, reporting.cells, reporting.thresholds) if done else ()
    made = [make(done) for make in tables]
    found = [part for table in made for part in (f"{table.title}:", rich_to_markdown(table))]
    picture = "![when fresh seeds are solved, and what tuning saw of every trigger and length](images/random_steps.png)"
    return "\n\n".join([*found, f"*: {reporting.AT_AN_END}.", picture]) if done else ""


def made_of(stores: Stores) -> dict[str, Callable[[], str]]:
    """Return how each table is made, by the name of its marks; nothing of what has no runs yet."""
    found: dict[str, Callable[[], str]] = {"random_steps": lambda: apart(stores)}
    if "rare" in stores:
        found["rare"] = lambda: rare(stores.studies("rare", ("norm", "none", "random_rare")))
    return found
