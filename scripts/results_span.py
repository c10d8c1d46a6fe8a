"""How long sequences may be (claims 8a and 8b, figure 7), from scripts/reach.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import reach_report
from reach_design import DESIGNS
from results_markdown import points, rich_to_markdown
from results_stores import Stores

TABLES: dict[str, Callable[..., Any]] = {
    "": reach_report.of_rates, "_settings": reach_report.of_settings, "_tests": reach_report.of_tests,
}  # fmt: skip


def span_claims(stores: Stores) -> list[list[str]]:
    """Return the lines of claims 8a and 8b, if they were seen."""
    outcomes = stores.reached("span")
    core = [one for one in outcomes if one.family == "core"]
    if not core:
        return []
    found = reach_report.tested(DESIGNS["span"], outcomes)
    heads = [["8a", "Omega with clipping widens the span"], ["8b", "Omega fails without clipping"]]
    words = reach_report.span_verdict(found), reach_report.clipping_verdict(found, outcomes)
    questions = [test.question for test in DESIGNS["span"].tests[:2]]
    runs = f"{min(len(one.seeds) for one in core)} a cell"
    return [[*head, verdict, reached(found, question), runs]
            for head, verdict, question in zip(heads, words, questions, strict=True)]  # fmt: skip


def reached(found: Sequence[reach_report.Tested], question: str) -> str:
    """Return the effects behind a question of scripts/reach.py."""
    return "; ".join(f"L = {one.length}, {one.updates:,} updates: {points(one.difference)}, "
                     f"p {reach_report.probability(one.adjusted)} (Holm)"
                     for one in found if one.question == question)  # fmt: skip


def made_of(stores: Stores) -> dict[str, Callable[[], str]]:
    """Return how each table is made, by the name of its marks; nothing of a design that has no runs yet."""

    def made(name: str, table: Callable[..., Any]) -> Callable[[], str]:
        return lambda: rich_to_markdown(table(DESIGNS[name], stores.reached(name)))

    return {f"reach_{name}{kind}": made(name, table) if stores.reached(name) else str
            for name in DESIGNS for kind, table in TABLES.items()}  # fmt: skip
