"""Tables of the ways to clip beside each other (claims 1 and 7), from scripts/ways_to_clip.py."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import ways_to_clip_verdicts as verdicts
from results_markdown import grid, probability
from results_stores import Stores
from ways_to_clip import Study
from ways_to_clip_design import MOST_SEEDS, REFERENCE, VARIANTS

import nbflow as nf
from nbflow.storage.store import Row

MARKS = {verdicts.EQUIVALENT: "**=**", verdicts.DIFFERENT: "**≠**", verdicts.UNCLEAR: "**?**"}
HIDDEN = tuple(name for name in VARIANTS if name.startswith("hidden"))


def title_of(name: str) -> str:
    return VARIANTS[name].title.replace("preact.", "preactivation")


def interval(found: nf.Interval, digits: int = 2) -> str:
    return "{:.{d}f} ({:.{d}f}-{:.{d}f})".format(*found, d=digits)


def compared(studies: Sequence[Study]) -> str:
    """Return every way on every task, beside clipping by norm."""
    heads = ["", *(study.plan.title for study in studies)]
    return grid(heads, [[title_of(name), *(beside(study, name) for study in studies)] for name in studies[0].tuned])


def beside(study: Study, name: str) -> str:
    """Return a way on a task: runs solved, and what it costs relative to clipping by norm."""
    one, seen = study.outcomes[name], study.compared[name]
    if name == REFERENCE:
        if study.plan.is_music:
            return f"{seen.typical.value:.3f} nats"
        return f"{one.solved}/{one.runs}, median {seen.median:,.0f} updates"
    solved, digits = ("", 4) if study.plan.is_music else (f"{one.solved}/{one.runs} ", 2)
    though = " +" if seen.verdict == verdicts.EQUIVALENT and seen.adjusted < verdicts.ALPHA else ""
    return f"{MARKS[seen.verdict]}{though} {solved}{interval(seen.ratio, digits)}"


def together(studies: Sequence[Study]) -> str:
    """Return what the tasks say together of each way, music apart."""
    rows = [
        [title_of(name), interval(one.ratio), probability(one.adjusted), f"{one.slower} of {one.tasks}",
         f"{one.faster} of {one.tasks}"]
        for name, one in joint(studies).items()
    ]  # fmt: skip
    return grid(["all tasks together", "updates relative to norm (95 %)", "p (Holm)", "slower on", "faster on"], rows)


def joint(studies: Sequence[Study]) -> dict[str, verdicts.Joint]:
    """Return what the tasks say together of each way, music apart; nothing of fewer than two."""
    tasks = [study.compared for study in studies if not study.plan.is_music]
    return verdicts.joint(tasks) if len(tasks) > 1 else {}


def verdicts_by_way(studies: Sequence[Study]) -> str:
    """Return on how many tasks each way is equivalent to norm, different to which side, or can't be told."""
    others = [name for name in studies[0].tuned if name != REFERENCE]
    parts = [(title_of(name), (name,), studies) for name in others] + [("all ways", tuple(others), studies)]
    solved = [study for study in studies if not study.plan.is_music]
    if 0 < len(solved) < len(studies):
        parts.append(("all ways, without music", tuple(others), solved))
    rows = []
    for title, names, some in parts:
        found = [study.compared[name] for study in some for name in names]
        counts = [sum(one.verdict == verdicts.EQUIVALENT for one in found), *map(len, sides(found)),
                  sum(one.verdict == verdicts.UNCLEAR for one in found)]  # fmt: skip
        rows.append([title, *(f"{count} of {len(found)}" for count in counts)])
    return grid(["beside norm", "equivalent", "different", "sooner or better", "later or worse", "can't tell"], rows)


def sides(found: Sequence[verdicts.Comparison]) -> tuple[list[verdicts.Comparison], ...]:
    """Return what is different from clipping by norm, and of that whose whole interval lies below 1, and above."""
    different = [one for one in found if one.verdict == verdicts.DIFFERENT]
    below = [one for one in different if one.ratio.high < 1]
    return different, below, [one for one in different if one.ratio.low > 1]


def settings(studies: Sequence[Study]) -> str:
    """Return where the settings that tuning chose lie, and what it took to find them."""
    rows = []
    for study in studies:
        every = study.tuned.values()
        rows.append([study.plan.title, f"{sum(not one.inside for one in every)} of {len(every)}",
                     f"{sum(not one.settled for one in every)} of {len(every)}",
                     f"{sum(one.settings for one in every):,}", f"{sum(one.runs for one in every):,}"])  # fmt: skip
    heads = ["", "at an end of the first grid or beyond", "with a better neighbour", "settings tried", "runs of tuning"]
    return grid(heads, rows)


def chosen(studies: Sequence[Study]) -> str:
    """Return learning rate and threshold of each way on each task."""
    rows = []
    for name in studies[0].tuned:
        pairs = [study.tuned[name].setting for study in studies]
        rows.append([title_of(name), *map(setting_of, pairs)])
    return grid(["learning rate, threshold", *(study.plan.title for study in studies)], rows)


def setting_of(setting: tuple[float, float]) -> str:
    """Return a learning rate and a threshold, where there is one, in words."""
    return ", ".join(f"{x:,.0f}" if x >= 1_000 else f"{x:.3g}" for x in setting if math.isfinite(x))


def costs(studies: Sequence[Study]) -> str:
    """Return what an update of each way costs, and in what part of the updates its clip acted."""
    heads = ["", *(f"{study.plan.title}: {what}" for study in studies for what in ("time", "acted"))]
    rows = []
    for name in studies[0].tuned:
        rows.append([title_of(name), *(cell for study in studies for cell in (f"{study.cost[name]:.2f}",
                                                                              acted(study, name)))])  # fmt: skip
    return grid(heads, rows)


def acted(study: Study, name: str) -> str:
    """Return in what part of the updates a clip acted, where its runs say so."""
    return f"{100 * study.clipped[name]:.0f} %" if name in study.clipped else "-"


def effort(rows: Sequence[Row]) -> str:
    """Return how many runs there are, and the time that they took."""
    parts = {"tuning": [row for row in rows if row["seed"] >= MOST_SEEDS],
             "comparison": [row for row in rows if row["seed"] < MOST_SEEDS]}  # fmt: skip
    found = [[name, f"{len(some):,}", f"{sum(row['seconds'] or 0 for row in some) / 3600:.1f}"]
             for name, some in parts.items()]  # fmt: skip
    return grid(["", "runs", "hours of a core, by the clock"], found)


# The lines of claims.


def value_claim(stores: Stores) -> list[str]:
    """Return the line of claim 1."""
    claim = ["1", "clipping element by element and by norm work alike"]
    if not (studies := stores.studies()):
        return [*claim, "not seen", "", ""]
    each = "; ".join(ratio(study, "value") for study in studies)
    whole = joint(studies).get("value")
    words = f"; together {interval(whole.ratio)} (95 %), p {probability(whole.adjusted)} (Holm)" if whole else ""
    return [*claim, tally(studies, ["value"]), f"cost relative to norm (90 %): {each}{words}",
            runs_of(studies, "value")]  # fmt: skip


def hidden_claim(stores: Stores) -> list[str]:
    """Return the line of claim 7."""
    claim = ["7", "clipping the back-propagated vector behaves like the others"]
    if not (studies := stores.studies()):
        return [*claim, "not seen", "", ""]
    whole = joint(studies)
    words = "; ".join(f"{title_of(name)} {interval(whole[name].ratio)}, p {probability(whole[name].adjusted)}"
                      for name in HIDDEN if name in whole)  # fmt: skip
    return [*claim, tally(studies, HIDDEN), f"cost relative to norm, all tasks together (95 %; Holm): {words}",
            runs_of(studies, HIDDEN[0])]  # fmt: skip


def tally(studies: Sequence[Study], names: Sequence[str]) -> str:
    """Return on how many tasks ways are equivalent, different, or can't be told."""
    found = [study.compared[name] for study in studies for name in names if name in study.compared]
    counts = {word: sum(one.verdict == word for one in found) for word in MARKS}
    words = {word: f"{word} on {count} of {len(found)}" for word, count in counts.items() if count}
    if verdicts.DIFFERENT in words:
        _, sooner, later = map(len, sides(found))
        words[verdicts.DIFFERENT] += f" (sooner or better on {sooner}, later or worse on {later})"
    return ", ".join(words.values())


def ratio(study: Study, name: str) -> str:
    title = study.plan.title if study.plan.is_music else study.plan.title.split(" (")[0]
    return f"{title} {interval(study.compared[name].ratio, 3 if study.plan.is_music else 2)}"


def runs_of(studies: Sequence[Study], name: str) -> str:
    """Return how many fresh runs a way had on each task."""
    runs = sorted({study.outcomes[name].runs for study in studies})
    return f"{runs[0]} a cell" if len(runs) == 1 else f"{runs[0]} to {runs[-1]} a cell"


TABLES: dict[str, Callable[[Sequence[Study]], str]] = {
    "compared": compared, "together": together, "verdicts_by_way": verdicts_by_way, "settings": settings,
    "chosen": chosen, "costs": costs,
}  # fmt: skip


def made_of(stores: Stores) -> dict[str, Callable[[], str]]:
    """Return how each table is made, by the name of its marks; nothing stands between them without runs."""

    def made(table: Callable[[Sequence[Study]], str]) -> str:
        return table(studies) if (studies := stores.studies()) else ""

    found: dict[str, Callable[[], str]] = {name: functools.partial(made, table) for name, table in TABLES.items()}
    return found | {"effort": lambda: effort(stores.rows("ways_to_clip")) if stores.studies() else ""}
