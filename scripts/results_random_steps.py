"""Tables of random steps above the threshold (claim 3), from scripts/random_steps.py and ways_to_clip.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import random_steps_report as reporting
from results_markdown import grid, points, rich_to_markdown
from results_stores import Stores
from results_ways_to_clip import acted, beside, runs_of, setting_of, title_of
from ways_to_clip import Study
from ways_to_clip_design import REFERENCE
from ways_to_clip_verdicts import RATE_MARGIN

from nbflow import statistics


def random_claim(stores: Stores) -> list[str]:
    """Return the line of claim 3: of triggers apart from lengths where they were run, else of both tied."""
    claim = ["3", "a random step above the threshold works almost as well"]
    if not (done := stores.random_steps()):
        return [*claim, *tied(stores)]
    effects = [
        f"{study.plan.title} {reporting.in_points(one.points)} points, {reporting.said(one.ratio)} times the updates"
        for study, one in zip(done, reporting.tested(done, "random"), strict=True)
    ]
    effect = f"the best of twelve kinds beside norm (90 %): {'; '.join(effects)}"
    return [*claim, reporting.tally(done), effect, f"{len(done[0].fresh['random'])} a cell"]


# As one of the ways to clip: trigger and length are one.


def tied(stores: Stores) -> list[str]:
    """Return verdict, effect and runs of how much less random steps solve than clipping by norm, over all tasks."""
    if not (studies := stores.studies()):
        return ["not seen", "", ""]
    seen = [study.outcomes for study in studies if not study.plan.is_music]
    solved = [sum(outcomes[name].solved for outcomes in seen) for name in ("random", REFERENCE)]
    runs = [sum(outcomes[name].runs for outcomes in seen) for name in ("random", REFERENCE)]
    less = statistics.rate_difference((solved[0], solved[1]), (runs[0], runs[1]))
    verdict = "doesn't hold" if less.high < -RATE_MARGIN else "can't tell" if less.low < -RATE_MARGIN else "holds"
    effect = f"solved {solved[0]} of {runs[0]}, norm {solved[1]} of {runs[1]}: {points(less)}"
    return [verdict, effect, runs_of(studies, "random")]


def beside_norm(studies: Sequence[Study]) -> str:
    """Return random steps on every task, and no clip, beside clipping by norm; and how often there was a random one."""
    names = (REFERENCE, "random", "none")
    rows = [[title_of(name), *(beside(study, name) for study in studies)] for name in names]
    rows += [
        ["its learning rate, threshold", *(setting_of(study.tuned["random"].setting) for study in studies)],
        ["steps that were random", *(acted(study, "random") for study in studies)],
    ]
    return grid(["", *(study.plan.title for study in studies)], rows)


# By scripts/random_steps.py.


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
    return {
        "random_steps": lambda: apart(stores),
        "random_beside_norm": lambda: beside_norm(studies) if (studies := stores.studies()) else "",
    }
