"""What docs/results.md makes of scripts/ways_to_clip.py: tables, lines of claims and pictures of made-up runs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripted import load

import nbflow as nf

# Updates of a way over those by norm, on every task; of all others 1.
FACTORS = {"value": 1.2, "unit": 4.0, "hidden_state_norm": 0.4, "random": math.inf, "none": math.inf}
TABLES = ("compared", "together", "verdicts_by_way", "settings", "chosen", "costs", "effort", "random_beside_norm")


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> Any:
    return load(monkeypatch, "results_tables")


class MadeUp:
    """In place of stores that have runs of the ways to clip."""

    def __init__(self, script: Any, music: bool) -> None:
        plans = list(script.PLANS.values())
        if music:
            plans.append(script.design.music_of("tunes", Tunes(), Tunes()))
        self.found = [study(script, plan, seed) for seed, plan in enumerate(plans)]

    def __contains__(self, name: str) -> bool:
        return name == "ways_to_clip"

    def studies(self) -> Any:
        return self.found

    def reached(self, name: str) -> list[Any]:
        return []

    def random_steps(self) -> list[Any]:
        return []

    def rows(self, name: str) -> list[Any]:
        return [{"seed": 1_000_000, "seconds": 3600.0}, {"seed": 0, "seconds": 900.0}, {"seed": 1, "seconds": None}]


class Tunes:
    """Piano rolls of which nothing is known but what knowing frequencies reaches."""

    def trivial(self, length: int) -> Any:
        return nf.load_task("addition").trivial(length)._replace(score=11.0)


def study(script: Any, plan: Any, seed: int) -> Any:
    """Return what a comparison came to in which ways differ as FACTORS say: 30 runs of norm and value, 20 of others."""
    rng = np.random.default_rng(seed)
    found = script.Study(plan, updates=20_000, every=10)
    for name in script.VARIANTS:
        runs, factor = 40 if name in script.PAIR else 30, FACTORS.get(name, 1.0)
        times = 1_000 * factor * np.exp(0.2 * rng.normal(size=runs))
        if plan.is_music:
            rows = [{"score": min(8 * (t / 1_000) ** 0.03, 12.0)} for t in times]
        else:
            rows = [{"first_passage": int(t) if math.isfinite(t) else None} for t in times]
        rows = [{"seed": k, "failure": None, **row} for k, row in enumerate(rows)]
        found.outcomes[name] = script.verdicts.outcome(plan, rows, found.updates)
        v = 0.5 if script.VARIANTS[name].measure else math.inf
        found.tuned[name] = script.Tuned((0.1, v), rows, name != "none", name != "spam", 50, 80)
        found.cost[name] = 1.25
        if script.VARIANTS[name].is_of_gradient:
            found.clipped[name] = 0.4
    found.compared = script.verdicts.compare(plan, found.outcomes)
    return found


def cells(table: str) -> dict[str, list[str]]:
    """Return the rows of a table of Markdown by their first cell, its head under ""."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return {row[0]: row[1:] for row in rows if set(row[0]) != {"-"}}


@pytest.mark.parametrize("music", [False, True])
def test_every_way_stands_beside_norm_on_every_task_with_music_or_without(
    tables: Any, music: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = load(monkeypatch, "ways_to_clip")
    stores = MadeUp(script, music)
    made = {name: cells(tables.made_of(stores)[name]()) for name in TABLES}
    tasks = 5 if music else 4
    for name in ("compared", "chosen"):
        assert {len(row) for row in made[name].values()} == {tasks}
        assert len(made[name]) == 1 + len(script.VARIANTS)
    seen = made["compared"]
    assert seen["norm"][0].startswith("40/40, median ")
    assert all(cell.startswith("**=**") for cell in seen["each array"])
    assert all(cell.startswith("**≠** 30/30 ") for cell in seen["each unit"][:4])
    assert all(cell.startswith("**≠** 30/30 0.") for cell in seen["inside, state, norm"][:4])
    assert all(cell.startswith("**≠** 0/30 ") for cell in seen["random step"][:4])
    assert "**=** + 40/40 1.2" in " ".join(seen["value"]), "equivalent, though a test tells them apart"
    assert made["random_beside_norm"] == {name: seen[name] for name in ("", "norm", "random step", "none")} | {
        "its learning rate, threshold": ["0.1, 0.5"] * tasks, "steps that were random": ["40 %"] * tasks}  # fmt: skip
    no, all_of = f"0 of {tasks}", f"{tasks} of {tasks}"
    by_way = made["verdicts_by_way"]
    assert by_way["each unit"] == [no, all_of, no, all_of, no]
    assert by_way["inside, state, norm"] == [no, all_of, all_of, no, no]
    assert by_way["each array"] == [all_of, no, no, no, no]
    assert by_way["all ways"][1:] == [f"{k * tasks} of {16 * tasks}" for k in (4, 1, 3, 0)]
    if music:
        assert by_way["all ways, without music"][1:] == [f"{k * 4} of 64" for k in (4, 1, 3, 0)]
    assert "norm" not in by_way
    assert {row[3] for name, row in made["together"].items() if name != "all tasks together"} <= {
        f"{k} of 4" for k in range(5)
    }, "music apart"
    assert made["together"]["each unit"][2:] == ["4 of 4", "0 of 4"]
    assert made["together"]["inside, state, norm"][2:] == ["0 of 4", "4 of 4"]
    assert list(made["together"])[1:3] == ["none", "value"], "in the order of the ways"
    assert made["settings"]["temporal order, 40 steps"] == ["1 of 17", "1 of 17", "850", "1,360"]
    assert made["chosen"]["none"][0] == "0.1"
    assert made["chosen"]["norm"][0] == "0.1, 0.5"
    assert made["costs"]["norm"][:2] == ["1.25", "40 %"]
    assert made["costs"]["inside, state, norm"][:2] == ["1.25", "-"], "its clip is not the one that a history tells of"
    assert made["effort"] == {"": ["runs", "hours of a core, by the clock"], "tuning": ["1", "1.0"],
                              "comparison": ["2", "0.2"]}  # fmt: skip


def test_claims_say_what_the_tables_say(tables: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    script, ways, steps = (load(monkeypatch, name) for name in (
        "ways_to_clip", "results_ways_to_clip", "results_random_steps"))  # fmt: skip
    stores = MadeUp(script, music=True)
    value, hidden, random = ways.value_claim(stores), ways.hidden_claim(stores), steps.random_claim(stores)
    together = cells(tables.made_of(stores)["together"]())
    assert [line[0] for line in (value, random, hidden)] == ["1", "3", "7"]
    assert value[2] == "equivalent on 5 of 5"
    assert together["value"][0] in value[3]
    assert value[3].count("; ") == 5
    assert value[4] == "40 a cell"
    assert hidden[2].startswith("equivalent on ")
    assert hidden[2].endswith(", different on 5 of 20 (sooner or better on 5, later or worse on 0)")
    assert all(together[name][0] in hidden[3] for name in together if name.startswith("inside"))
    assert hidden[4] == "30 a cell"
    assert random[2] == "doesn't hold"
    assert random[3].startswith("solved 0 of 120, norm 160 of 160: -100 points")
    for claim in (value, hidden, random):
        assert len(claim) == 5


def test_without_runs_the_page_says_so_and_has_no_tables(
    tables: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = load(monkeypatch, "results_stores").Stores(tmp_path)
    assert {tables.made_of(stores)[name]() for name in TABLES} == {""}
    for name, claim in (("ways_to_clip", "value"), ("ways_to_clip", "hidden"), ("random_steps", "random")):
        assert getattr(load(monkeypatch, f"results_{name}"), f"{claim}_claim")(stores)[2] == "not seen"
    assert load(monkeypatch, "results_pictures").drawn_of(stores) == {}


def test_both_pictures_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = load(monkeypatch, "results_pictures").drawn_of(MadeUp(load(monkeypatch, "ways_to_clip"), music=True))
    assert set(drawn) == {"ways_to_clip", "ways_to_clip_temporal_order_40"}
    save = load(monkeypatch, "results").save
    for name, draw in drawn.items():
        assert save(draw(), tmp_path / f"{name}.png").stat().st_size > 10_000
