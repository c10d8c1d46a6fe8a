"""Success against length (claims 8a and 8b, figure 7), from scripts/success_rate.py and scripts/reach.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import reach_report
import success_rate
from reach_design import DESIGNS
from results_markdown import grid, points, probability, rate, rich_to_markdown
from results_stores import Stores

import nbflow as nf
from nbflow import statistics
from nbflow.experiments.methods import TITLES
from nbflow.storage.store import Row

METHODS = ("sgd", "clip", "clip+omega", "omega")


def solved(rows: Sequence[Row], lengths: Sequence[int]) -> str:
    """Return how many runs of each method solved each length."""
    cells = {cell[1:3]: cell for cell in success_rate.count(rows)}
    found = []
    for method in METHODS:
        row = [cells[method, length] for length in lengths]
        found.append([TITLES[method], *(rate(cell.solved, cell.runs) for cell in row)])
    runs = cells[METHODS[0], lengths[0]].runs
    return grid([f"solved, of {runs}", *(f"L = {length}" for length in lengths)], found)


def span_differences(rows: Sequence[Row]) -> str:
    """Return what is claimed of the span as differences, with exact tests adjusted for being five."""
    found = span_tests(rows)
    return grid(["", "difference", "p (Fisher)", "p (Holm, of five)"],
                [[words, points(interval), probability(p), probability(adjusted)]
                 for words, interval, p, adjusted in found])  # fmt: skip


def span_tests(rows: Sequence[Row]) -> list[tuple[str, nf.Interval, float, float]]:
    """Return the five differences of the span: words, Newcombe's interval, Fisher's p, and that by Holm."""
    from scipy.stats import fisher_exact

    cells = {cell[1:3]: cell for cell in success_rate.count(rows)}
    pairs = [("clip+omega", "clip", 50), ("clip+omega", "clip", 100), ("clip", "sgd", 50), ("clip+omega", "omega", 100),
             ("clip+omega", "omega", 50)]  # fmt: skip
    found = []
    for one, other, length in pairs:
        a, b = cells[one, length], cells[other, length]
        interval = statistics.rate_difference((a.solved, b.solved), (a.runs, b.runs))
        p = float(fisher_exact([[a.solved, a.runs - a.solved], [b.solved, b.runs - b.solved]]).pvalue)
        found.append((f"{TITLES[one]} less {TITLES[other]}, L = {length}", interval, p))
    adjusted = statistics.holm([p for *_, p in found])
    return [(*one, float(p)) for one, p in zip(found, adjusted, strict=True)]


def kinds(rows: Sequence[Row], lengths: Sequence[int]) -> str:
    """Return solved runs of figure 7, a line for each kind of first weights."""
    cells = {cell[:3]: cell.solved for cell in success_rate.count(rows)}
    inits = dict.fromkeys(
        key[0] for key in sorted(cells, key=lambda key: ("sigmoid", "basic_tanh", "smart_tanh").index(key[0]))
    )
    found = [[init, *(", ".join(str(cells[init, method, length]) for method in METHODS) for length in lengths)]
             for init in inits]  # fmt: skip
    return grid(["SGD, clipping, clipping and Omega, Omega", *(f"L = {length}" for length in lengths)], found)


def of_reach(stores: Stores) -> dict[str, Callable[[], str]]:
    """Return the tables of scripts/reach.py; nothing of a design that has no runs yet."""

    def made(name: str, table: Callable[..., Any]) -> Callable[[], str]:
        return lambda: rich_to_markdown(table(DESIGNS[name], stores.reached(name)))

    kinds: dict[str, Callable[..., Any]] = {
        "": reach_report.of_rates, "_settings": reach_report.of_settings, "_tests": reach_report.of_tests,
    }  # fmt: skip
    return {f"reach_{name}{kind}": made(name, table) if stores.reached(name) else str
            for name in DESIGNS for kind, table in kinds.items()}  # fmt: skip


def span_claims(stores: Stores) -> list[list[str]]:
    """Return the lines of claims 8a and 8b: of tuned rates where they were run, else of one rate for all."""
    heads = [["8a", "Omega with clipping widens the span"], ["8b", "Omega fails without clipping"]]
    outcomes = stores.reached("span")
    if any(one.family == "core" for one in outcomes):
        found = reach_report.tested(DESIGNS["span"], outcomes)
        words = reach_report.span_verdict(found), reach_report.clipping_verdict(found, outcomes)
        questions = [test.question for test in DESIGNS["span"].tests[:2]]
        runs = f"{min(len(one.seeds) for one in outcomes if one.family == 'core')} a cell"
        return [[*head, verdict, reached(found, question), runs]
                for head, verdict, question in zip(heads, words, questions, strict=True)]  # fmt: skip
    span = span_tests(stores.rows("span"))
    wider = "; ".join(f"{words.split(', ')[1]}: {points(interval)}, p {probability(adjusted)} (Holm)"
                      for words, interval, _, adjusted in span[:2])  # fmt: skip
    alone = f"L = 100: {points(span[3][1])}, p {probability(span[3][3])} (Holm)"
    return [[*heads[0], "holds at 50 steps, in this budget", wider, "10 a cell"],
            [*heads[1], "holds at 100 steps, not at 20", alone, "10 a cell"]]  # fmt: skip


def reached(found: Sequence[reach_report.Tested], question: str) -> str:
    """Return the effects behind a question of scripts/reach.py."""
    return "; ".join(f"L = {one.length}: {points(one.difference)}, p {reach_report.probability(one.adjusted)} (Holm)"
                     for one in found if one.question == question)  # fmt: skip


def made_of(stores: Stores) -> dict[str, Callable[[], str]]:
    """Return how each table is made, by the name of its marks."""
    found: dict[str, Callable[[], str]] = {}
    if "span" in stores:
        found["span"] = lambda: solved(stores.rows("span"), (20, 50, 100))
        found["span_differences"] = lambda: span_differences(stores.rows("span"))
    if "figure_7" in stores:
        found["figure_7"] = lambda: kinds(stores.rows("figure_7"), (10, 20, 30, 40))
    return found | of_reach(stores)
