"""Tables of the ways to clip beside each other (claims 1 and 7), from scripts/compare_clipping.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import compare_clipping_design as design
import compare_clipping_verdicts as verdicts
from results_markdown import grid
from results_stores import Stores

MARKS = {verdicts.EQUIVALENT: "**=**", verdicts.DIFFERENT: "**≠**", verdicts.UNCLEAR: "**?**"}
HIDDEN = tuple(name for name in design.DEFAULT if name.startswith("hidden"))


def compared(studies: Sequence[Any]) -> str:
    """Return every way on every task, beside clipping by norm."""
    heads = ["", *(study.plan.title for study in studies)]
    rows = []
    for name in studies[0].tuned:
        title = design.VARIANTS[name].title.replace("preact.", "preactivation")
        rows.append([title, *(beside(study, name) for study in studies)])
    return grid(heads, rows)


def beside(study: Any, name: str) -> str:
    """Return a way on a task: runs solved, and what it costs relative to clipping by norm."""
    one, seen = study.outcomes[name], study.compared[name]
    if name == design.REFERENCE:
        if study.plan.is_music:
            return f"{seen.typical.value:.3f} nats"
        return f"{one.solved}/{one.runs}, median {seen.median:,.0f} updates"
    solved, digits = ("", 4) if study.plan.is_music else (f"{one.solved}/{one.runs} ", 2)
    ratio = "{:.{d}f} ({:.{d}f}-{:.{d}f})".format(*seen.ratio, d=digits)
    return f"{MARKS[seen.verdict]} {solved}{ratio}"


def costs(studies: Sequence[Any]) -> str:
    """Return what an update of each way costs on the slower temporal order."""
    study = next(study for study in studies if study.plan.name == "temporal_order_40")
    heads = [design.VARIANTS[name].title.replace("preact.", "preactivation") for name in study.cost]
    return grid(heads, [[f"{cost:.2f}" for cost in study.cost.values()]])


def ends(studies: Sequence[Any]) -> str:
    """Return how many chosen settings stand at an end of what was tried."""
    rows = []
    for study in studies:
        tuned = {name: setting for name, setting in study.tuned.items() if design.VARIANTS[name].measure
                 and not design.VARIANTS[name].scales}  # fmt: skip
        tried = {name: study.thresholds[design.VARIANTS[name].measure] for name in tuned}
        at_v = sum(v in (tried[name][0], tried[name][-1]) for name, (_, v) in tuned.items())
        at_lr = sum(design.at_an_end(design.VARIANTS[name], lr) for name, (lr, _) in tuned.items())
        rows.append([study.plan.title, f"{at_v} of {len(tuned)}", f"{at_lr} of {len(tuned)}"])
    return grid(["", "thresholds at an end", "learning rates at an end"], rows)


def verdicts_of(studies: Sequence[Any], names: Sequence[str]) -> str:
    """Return on how many tasks each way is equivalent to clipping by norm, different, or can't be told."""
    rows = []
    for name in names:
        counts = [sum(study.compared[name].verdict == word for study in studies) for word in MARKS]
        title = design.VARIANTS[name].title.replace("preact.", "preactivation")
        rows.append([title, *(f"{count} of {len(studies)}" for count in counts)])
    return grid(["beside norm", *MARKS], rows)


def tally(studies: Sequence[Any], names: Sequence[str]) -> str:
    """Return on how many tasks ways are equivalent, different, or can't be told."""
    counts = {word: sum(study.compared[name].verdict == word for study in studies for name in names) for word in MARKS}
    return ", ".join(f"{word} on {count} of {len(studies) * len(names)}" for word, count in counts.items() if count)


def ratio(study: Any, name: str) -> str:
    digits = 3 if study.plan.is_music else 2
    return "{} {:.{d}f} ({:.{d}f}-{:.{d}f})".format(
        study.plan.title.split(" (")[0], *study.compared[name].ratio, d=digits
    )


def runs_of(studies: Sequence[Any]) -> str:
    """Return how many fresh runs each way had on each task."""
    return f"{max(one.runs for study in studies for one in study.outcomes.values())} a cell"


def studies_of(stores: Stores) -> list[Any]:
    """Return what the comparison found, task by task."""
    return stores.studies("compare_clipping", tuple(design.DEFAULT))


def value_claim(stores: Stores) -> list[str]:
    """Return the line of claim 1."""
    every = studies_of(stores)
    return ["1", "clipping element by element and by norm work alike", tally(every, ["value"]),
            "cost relative to norm (90 %): " + "; ".join(ratio(study, "value") for study in every),
            runs_of(every)]  # fmt: skip


def hidden_claim(stores: Stores) -> list[str]:
    """Return the line of claim 7."""
    every = studies_of(stores)
    equivalent = sum(study.compared[name].verdict == verdicts.EQUIVALENT for study in every for name in HIDDEN)
    return ["7", "clipping the back-propagated vector behaves like the others", tally(every, HIDDEN),
            f"{equivalent} of {len(every) * len(HIDDEN)} equivalent", runs_of(every)]  # fmt: skip


def made_of(stores: Stores) -> dict[str, Callable[[], str]]:
    """Return how each table is made, by the name of its marks."""
    if "compare_clipping" not in stores:
        return {}
    return {
        "compared": lambda: compared(studies_of(stores)),
        "costs": lambda: costs(studies_of(stores)),
        "ends": lambda: ends(studies_of(stores)),
        "verdicts_by_way": lambda: verdicts_of(studies_of(stores), tuple(design.DEFAULT)[1:]),
    }
