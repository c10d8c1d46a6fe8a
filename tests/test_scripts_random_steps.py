"""scripts/random_steps.py: its variants, its verdicts on made-up numbers, and all of it on runs of a few updates."""

from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripted import assert_help, assert_refused, load
from tolerance import near

import nbflow as nf

SEEN = {"median": 0.5, "greatest": 8.0, "ten_means": 6.0}
TINY = ["--budget", "0.005", "--hidden", "5", "--evaluate-size", "10", "--seeds", "2", "--tasks", "addition_10",
        "memorization_10"]  # fmt: skip


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give the script with few updates to look at, and threads in place of processes."""
    found = load(monkeypatch, "random_steps")
    monkeypatch.setattr(found, "LOOK_UPDATES", 4)
    sweep = found.nf.sweep
    with ThreadPoolExecutor(1) as executor:
        monkeypatch.setattr(
            found.nf, "sweep", lambda *given, **named: sweep(*given, **{**named, "workers": None, "executor": executor})
        )
        yield found


def test_help_teaches() -> None:
    assert_help("random_steps.py", "apart from its length", "ALMOST AS WELL", "Ctrl-C", "--workers", "--code")


def test_every_trigger_meets_every_length(script: Any) -> None:
    found = script.variants(SEEN)
    random = {name: clip for name, (method, clip) in found.items() if method == "random"}
    assert len(random) == 12
    lengths = {(json.dumps(str(clip.threshold)), clip.length) for clip in random.values()}
    assert len(lengths) == 12
    assert sorted({clip.length or 0 for clip in random.values()}) == [0, 0.05, 0.5]
    assert {clip.rule for clip in random.values()} == {"random"}
    assert {clip.threshold.settings["percent"] for clip in random.values()
            if isinstance(clip.threshold, nf.records.Threshold)} == {90, 99}  # fmt: skip
    assert {clip.threshold for clip in random.values() if isinstance(clip.threshold, float)} == {6.0, 8.0}
    assert [clip.threshold for method, clip in found.values() if method == "norm"] == [0.5, 0.05]
    assert found["none"][1].threshold == math.inf


def test_runs_differ_in_rate_and_clip_alone_and_seeds_are_never_the_same(script: Any) -> None:
    options = script.Options()
    for plan in script.PLANS.values():
        clips = [clip for _, clip in script.variants(SEEN).values()]
        every = [script.experiment(options, plan, lr, clip) for lr in script.LRS for clip in clips]
        assert len({one.structure for one in every}) == 4 + 2 + 1, (
            "policies and numbers, with and without a length; norm"
        )
        assert {one.recipe.max_updates for one in every} == {script.BUDGETS[plan.name]}
        assert {one.recipe.max_updates // one.recipe.evaluate_every for one in every} == {script.LOOKS}
    assert not set(script.TUNING_SEEDS) & set(script.LOOK_SEEDS)
    assert min(*script.TUNING_SEEDS, *script.LOOK_SEEDS) > options.seeds


@pytest.mark.parametrize(
    "points, ratio, said",
    [((0.0, -0.06, 0.06), (1.1, 0.9, 1.4), "works almost as well"), ((0.5, 0.3, 0.6), (0.2, 0.1, 0.3), "works almost"),
     ((0.0, -0.06, 0.06), (1.1, 0.9, 1.6), "can't tell"), ((-0.05, -0.13, 0.03), (1.0, 0.9, 1.1), "can't tell"),
     ((-0.3, -0.4, -0.2), (1.0, 0.9, 1.1), "doesn't hold"), ((0.0, -0.06, 0.06), (2.0, 1.6, 2.4), "doesn't hold")],
)  # fmt: skip
def test_a_verdict_is_of_both_intervals(script: Any, points: Any, ratio: Any, said: str) -> None:
    assert script.verdict(nf.Interval(*points), nf.Interval(*ratio)).startswith(said)


def study(script: Any, **passages: list[int | None]) -> Any:
    found = script.Study(script.PLANS["addition_10"], 1000)
    found.fresh = {method: [{"seed": k, "first_passage": at, "clipped": 0.25} for k, at in enumerate(column)]
                   for method, column in passages.items()}  # fmt: skip
    return found


def test_costs_are_paired_and_the_unsolved_count_as_the_budget(script: Any) -> None:
    norm = [100, 200, 400, 300] * 10
    twice = [2 * at + 10 * (k % 3) for k, at in enumerate(norm)]
    one = study(script, norm=norm, random=twice, none=[None] * 40)
    assert one.costs(one.fresh["none"]) == [1000.0] * 40
    ratio = one.ratio("random")
    assert ratio.value == near(math.prod(a / b for a, b in zip(twice, norm, strict=True)) ** (1 / 40))
    assert 2 < ratio.low < ratio.value < ratio.high < 2.2
    assert one.verdict("random") == one.verdict("none") == "doesn't hold"
    assert one.points("none").value == -1
    alike = study(script, norm=norm, random=norm[::-1], none=norm)
    assert alike.verdict("none") == "works almost as well"
    assert script.tally([one, alike], "none") == "works almost as well on 1 of 2, doesn't hold on 1 of 2"
    assert script.acted(one.fresh["random"]) == "25 %"


def test_the_best_solves_most_and_then_soonest(script: Any) -> None:
    one = study(script)
    row = lambda at, score: {"first_passage": at, "score": score}  # noqa: E731
    ranked = [[row(900, 0), row(900, 0)], [row(10, 0), row(None, 0.1)], [row(20, 0), row(None, 0.1)],
              [row(None, 0.1), row(None, 0.2)], [row(None, 0.1), row(None, math.nan)]]  # fmt: skip
    scores = [script.score(one, rows) for rows in ranked]
    assert scores == sorted(scores)
    assert len(set(scores)) == len(scores)


def test_runs_that_decide_nothing_are_left_out_and_the_best_is_that_of_all(script: Any) -> None:
    """Made-up outcomes of every setting and seed: the best by those that were run is the best by all."""
    for seed in range(30):
        rng, asked = np.random.default_rng(seed), []
        chance = rng.choice([0.05, 0.4, 0.9])
        table = [[int(at) if rng.random() < chance else None for at in rng.integers(1, 900, 3)] for _ in range(12)]

        class Made:
            def sweep(self, title: str, some: Any, seeds: Any, table: Any = table, asked: Any = asked) -> Any:
                asked += [(k, one) for k in some for one in seeds]
                return [[{"first_passage": table[k][script.TUNING_SEEDS.index(one)], "score": 0.5} for one in seeds]
                        for k in some]  # fmt: skip

        places = [("", list(script.METHODS)[k % 3], 0.1, k) for k in range(12)]
        found, one = script.tuned(Made(), places, ""), study(script)
        assert len(asked) == len(set(asked)) == sum(map(len, found)), "nothing twice"
        for method in range(3):
            mine = [k for k in range(12) if k % 3 == method]
            whole = {k: [{"first_passage": at, "score": 0.5} for at in table[k]] for k in mine}
            wanted = min(mine, key=lambda k: script.score(one, whole[k]))
            assert script.score(one, found[wanted]) == min(script.score(one, found[k]) for k in mine)
            if any(None not in table[k] for k in mine):
                assert [len(found[k]) for k in mine if table[k][0] is None] == [1] * sum(
                    table[k][0] is None for k in mine
                )


def test_all_of_it_on_tiny_runs_once(script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main([*TINY, "--out", str(tmp_path)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "addition, 10 steps: tuning: 60 runs" in said
    assert "A random step " in said
    store = tmp_path / "random_steps.jsonl"
    rows = [json.loads(line) for line in store.read_text().splitlines()]
    runs = [row for row in rows if "recipe.lr" in row]
    assert 2 * (15 * 4 + 3 * 2) < len(runs) <= 2 * (15 * 4 * 3 + 3 * 2)
    assert not [row["failure"] for row in runs if row["failure"]]
    assert [row["plan"] for row in rows if row.get("kind") == "seen"] == ["addition_10", "memorization_10"]
    assert all(0 < row["median"] <= row["greatest"] for row in rows if row.get("kind") == "seen")
    found = json.loads((tmp_path / "random_steps.json").read_text())
    assert len(found["tasks"]["addition_10"]["tuning"]) == 15
    assert (tmp_path / "random_steps.png").stat().st_size > 10_000
    code, before = found["code"], store.read_bytes()
    assert script.main([*TINY, "--out", str(tmp_path), "--code", code]) == 0
    assert store.read_bytes() == before, "nothing is run twice"
    assert_refused(script, [*TINY, "--out", str(tmp_path), "--code", "nonsense"], "code is 'nonsense'", capsys)


@pytest.mark.parametrize(
    "arguments, words",
    [(["--seeds", "1"], "seeds is 1"), (["--hidden", "0"], "hidden is 0"), (["--budget", "0"], "budget is 0"),
     (["--workers", "0"], "workers is 0"), (["--tasks"], "tasks is empty"),
     (["--seeds", "9999999"], "at most 1,000,000")],
    ids=lambda value: value[0].strip("-") if isinstance(value, list) else "words",
)  # fmt: skip
def test_what_makes_no_sense_is_refused(
    script: Any, arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_refused(script, [*arguments, "--out", str(tmp_path / "out")], words, capsys)
