"""What is learnt short and asked for long (claim 8c), from scripts/generalization.py and scripts/lengths.py."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import generalization
import lengths_report
from results_markdown import grid, percent, points, probability, rate, rich_to_markdown
from results_stores import Stores

from nbflow import statistics
from nbflow.storage.store import Row


def generalized(trained: Sequence[Row], measured: Sequence[Row], lengths: Sequence[int]) -> str:
    """Return how often each network of scripts/generalization.py is wrong at each length."""
    wrong = {(row["seed"], row["length"]): (row["wrong"], row["size"]) for row in measured}
    heads = [f"seed {row['seed']}, {generalization.state(row)}" for row in trained]
    rows = []
    for length in lengths:
        rows.append([f"{length:,}", *(f"{n:,} ({percent(statistics.success_rate(n, size), 2)})"
                                      for n, size in (wrong[row["seed"], length] for row in trained))])  # fmt: skip
    return grid(["wrong of 10,000 at length", *heads], rows)


def length_claim(stores: Stores) -> list[str]:
    """Return the line of claim 8c: what is learnt short and asked for long."""
    from scipy.stats import fisher_exact

    claim = ["8c", "what is learnt on 50 to 200 steps is known at 5,000"]
    if "lengths" not in stores:
        return [*claim, "not seen", "below", "3 networks"]
    _, measured = stores.lengths()
    seen = {place: [clean for method in lengths_report.SHADES
                    for clean in lengths_report.clean(measured, place, method, "paper").values()]
            for place in ("anywhere", "paper")}  # fmt: skip
    (one, other), (n, m) = zip(*((sum(cleans), len(cleans)) for cleans in seen.values()), strict=True)
    p = float(fisher_exact([[one, n - one], [other, m - other]]).pvalue)
    difference = statistics.rate_difference((one, other), (n, m))
    holds = p < 0.05 and one > other
    verdict = "holds with symbols anywhere in training, not at the paper's positions"
    verdict = verdict if holds else f"can't tell with {max(n, m) // 2} of the 10 seeds"
    effect = (f"no error at any length, asked at the paper's positions: {rate(one, n)} of {n} trained anywhere, "
              f"{rate(other, m)} of {m} at these positions: {points(difference)}, "
              f"p {probability(p)} (Fisher)")  # fmt: skip
    return [*claim, verdict, effect + _by_protocol(stores), f"{max(n, m) // 2} an arm"]


def _by_protocol(stores: Stores) -> str:
    """Return how many networks of the authors' own protocol make no error at any length."""
    if "generalization_200" not in stores:
        return ""
    wrong: dict[int, int] = {}
    for row in stores.of("generalization_200", "measurement"):
        wrong[row["seed"]] = wrong.get(row["seed"], 0) + row["wrong"]
    clean = rate(sum(not all_of for all_of in wrong.values()), len(wrong))
    return f"; by the authors' own protocol {clean} of {len(wrong)}"


def _generalized(stores: Stores, name: str) -> str:
    trained, measured = stores.of(name, "training"), stores.of(name, "measurement")
    return generalized(trained, measured, (50, 100, 200, 350, 500, 1000, 5000))


def made_of(stores: Stores) -> dict[str, Callable[[], str]]:
    """Return how each table is made, by the name of its marks."""
    found: dict[str, Callable[[], str]] = {}
    for name in (one for one in ("generalization", "generalization_200") if one in stores):
        found[name] = functools.partial(_generalized, stores, name)
    if "lengths" in stores:
        found["lengths"] = lambda: rich_to_markdown(lengths_report.of_arms(*stores.lengths()))
        found["lengths_by_length"] = lambda: rich_to_markdown(lengths_report.by_length(*stores.lengths()))
        found["lengths_points"] = lambda: rich_to_markdown(lengths_report.by_points(*stores.lengths()))
        found["lengths_by_part"] = lambda: rich_to_markdown(lengths_report.by_part(*stores.lengths()))
    return found
