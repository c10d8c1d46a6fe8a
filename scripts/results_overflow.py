"""Random steps where the gradient is Inf or NaN (claim 4), from scripts/overflow.py and scripts/brink.py."""

from __future__ import annotations

from collections.abc import Callable

import brink
import overflow_report
from results_markdown import rate, rich_to_markdown
from results_stores import Stores


def overflow_claim(stores: Stores) -> list[str]:
    """Return the line of claim 4: from real trainings where there are any, else as it was."""
    claim = ["4", "a random step of length v moves away from where the gradient is Inf or NaN"]
    if "overflow" not in stores:
        return [*claim, "holds at the brink, where no step does as well; not deep in overflow", "below", "32 a cell"]
    outcomes = stores.of("overflow", "outcome")
    effects = []
    for optimizer, which in overflow_report.settings(outcomes):
        seen = {policy: overflow_report.back(outcomes, (optimizer, which), policy).values()
                for policy in ("random", "skip", "shrink")}  # fmt: skip
        counts = [rate(sum(one), len(one)) for one in seen.values()]
        effects.append(f"{optimizer} {overflow_report.RATES[which]} {', '.join(counts)}")
    networks = len(overflow_report.back(outcomes, ("sgd", "own"), "random"))
    effect = f"back of {networks}, by random steps, no step, shrink: {'; '.join(effects)}"
    verdict = f"from where trainings ended {overflow_report.verdict(outcomes)}; at the brink it does move away"
    return [*claim, verdict, effect, f"{networks} networks an optimizer"]


def made_of(stores: Stores) -> dict[str, Callable[[], str]]:
    """Return how each table is made, by the name of its marks."""
    found: dict[str, Callable[[], str]] = {}
    if "overflow" in stores:
        found["overflow"] = lambda: rich_to_markdown(overflow_report.of_networks(stores.of("overflow", "outcome")))
        found["overflow_tests"] = lambda: rich_to_markdown(overflow_report.of_tests(stores.of("overflow", "outcome")))
    if "brink" in stores:
        found["brink"] = lambda: rich_to_markdown(brink.table(stores.of("brink", "escape")))
    return found
