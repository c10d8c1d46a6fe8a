"""scripts/random_steps.py: its variants, its verdicts on made-up numbers, and all of it on runs of a few updates."""

from __future__ import annotations

import functools
import json
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from scripted import assert_help, assert_legible, assert_refused, assert_stopped, fixture_of, load
from tolerance import near, printed

import nbflow as nf
from nbflow.storage.compact import compact

student = pytest.importorskip("scipy.stats").t
SEEN = {"median": 0.5, "greatest": 8.0, "ten_means": 6.0}
TINY = ["--budget", "0.005", "--hidden", "5", "--evaluate-size", "10", "--seeds", "2", "--tasks", "addition_10",
        "memorization_10"]  # fmt: skip


design, report = fixture_of("random_steps_design"), fixture_of("random_steps_report")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give the script with few updates to look at, and threads in place of processes."""
    found = load(monkeypatch, "random_steps")
    monkeypatch.setattr(found.design, "LOOK_UPDATES", 4)
    sweep = found.nf.sweep
    with ThreadPoolExecutor(1) as executor:
        monkeypatch.setattr(
            found.nf, "sweep", lambda *given, **named: sweep(*given, **{**named, "workers": None, "executor": executor})
        )
        yield found


def test_help_teaches() -> None:
    assert_help("random_steps.py", "apart from its length", "ALMOST AS WELL", "Ctrl-C", "--workers", "--code")


def test_every_trigger_meets_every_length(design: Any) -> None:
    found = design.variants(SEEN)
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


def test_runs_differ_in_rate_and_clip_alone_and_seeds_are_never_the_same(script: Any, design: Any) -> None:
    options = script.Options()
    for plan in design.PLANS.values():
        clips = [clip for _, clip in design.variants(SEEN).values()]
        every = [script.experiment(options, plan, lr, clip) for lr in design.RATES for clip in clips]
        assert len({one.structure for one in every}) == 4 + 2 + 1, (
            "policies and numbers, with and without a length; norm"
        )
        assert {one.recipe.max_updates for one in every} == {plan.updates}
        assert {one.recipe.max_updates // one.recipe.evaluate_every for one in every} == {design.LOOKS}
    assert not set(design.TUNING_SEEDS) & set(design.LOOK_SEEDS)
    assert min(*design.TUNING_SEEDS, *design.LOOK_SEEDS) > options.seeds


# The verdict.


def study(design: Any, **passages: list[int | None]) -> Any:
    found = design.Study(design.PLANS["addition_10"], 1000, SEEN)
    found.fresh = {method: [{"seed": k, "first_passage": at, "clipped": 0.25} for k, at in enumerate(column)]
                   for method, column in passages.items()}  # fmt: skip
    return found


def wilson(solved: int, runs: int, z: float) -> tuple[float, float]:
    """Return the ends of Wilson's interval, by its formula."""
    p, s = solved / runs, z * z / runs
    half = z / math.sqrt(runs) * math.sqrt(p * (1 - p) + s / 4)
    return (p + s / 2 - half) / (1 + s), (p + s / 2 + half) / (1 + s)


@pytest.mark.parametrize("counts", [(40, 40), (30, 40), (37, 40), (39, 38), (0, 40), (40, 0), (36, 40), (20, 33)])
def test_p_of_a_rate_is_where_newcombes_interval_ends_at_the_margin(report: Any, counts: tuple[int, int]) -> None:
    p = report.below(counts, (40, 40), -0.1)
    if counts == (36, 40):
        assert p == near(0.5, condition=1e6), "at the margin itself"
        return
    z = NormalDist().inv_cdf(1 - p) if p < 0.5 else NormalDist().inv_cdf(p)
    one, other = (wilson(k, 40, z) for k in counts)
    d = (counts[0] - counts[1]) / 40
    down = d - math.hypot(counts[0] / 40 - one[0], other[1] - counts[1] / 40)
    up = d + math.hypot(one[1] - counts[0] / 40, counts[1] / 40 - other[0])
    if counts not in [(0, 40), (40, 0)]:
        assert abs((down if p < 0.5 else up) + 0.1) < printed(9)
    else:
        assert (down > -0.1) if p < 0.5 else (up < -0.1)
    assert (p < 0.05) == (nf.statistics.rate_difference(counts, (40, 40), confidence=0.9).low > -0.1)


def test_costs_are_paired_and_the_unsolved_count_as_the_budget(design: Any, report: Any) -> None:
    norm = [100, 200, 400, 300] * 10
    twice = [2 * at + 10 * (k % 3) for k, at in enumerate(norm)]
    one = study(design, norm=norm, random=twice, none=[None] * 40)
    assert one.costs(one.fresh["none"]) == [1000.0] * 40
    ratio = report.ratio(one, "random")
    assert ratio.value == near(math.prod(a / b for a, b in zip(twice, norm, strict=True)) ** (1 / 40))
    assert 2 < ratio.low < ratio.value < ratio.high < 2.2
    logs = np.log(np.divide(twice, norm)) - math.log(1.5)
    t = logs.mean() / (logs.std(ddof=1) / math.sqrt(40))
    assert report.margins(one, "random")[1] == near(student.cdf(t, 39))
    assert report.points(one, "none").value == -1
    assert [found.verdict for method in ("random", "none") for found in report.tested([one], method)] == [
        "doesn't hold", "doesn't hold",
    ]  # fmt: skip
    assert report.acted(one.fresh["random"]) == "25 %"


def test_verdicts_are_adjusted_for_the_number_of_tasks(design: Any, report: Any) -> None:
    """40 of 40 beside 40 of 40 have p .0175 of ten points less: enough for one task, and not for four of them."""
    norm = [100, 200, 400, 300] * 10
    alike, worse = study(design, norm=norm, random=norm), study(design, norm=norm, random=[None] * 20 + norm[20:])
    (alone,) = report.tested([alike], "random")
    assert alone.verdict == "works almost as well"
    assert abs(alone.almost - NormalDist().cdf(-math.sqrt(0.1 * 40 / 0.9))) < printed(9)
    four = report.tested([alike] * 4, "random")
    assert {one.verdict for one in four} == {"can't tell"}
    assert [one.almost for one in four] == [near(4 * alone.almost)] * 4
    assert report.tally([alike] * 4) == "can't tell on 4 of 4"
    assert report.tally([alike, worse]) == "works almost as well on 1 of 2, doesn't hold on 1 of 2"
    both = report.tested([worse], "random")[0]
    p = [1 - one for one in report.margins(worse, "random")]
    assert both.beyond == near(min(2 * min(p), 1.0)), "worse in either of two, each with a test"


def test_where_clipping_by_norm_fails_nothing_is_said(design: Any, report: Any) -> None:
    few = [None] * 30 + [500, 600] * 5
    assert report.tested([study(design, norm=few, random=few)], "random")[0].verdict == "can't tell"
    assert report.tested([study(design, norm=few, random=[None] * 40)], "random")[0].verdict == "can't tell"


# What is tuned.


def settings(design: Any, methods: str, rates: str, tables: list[Any]) -> Any:
    """Return a study of made-up tuning runs."""
    found = study(design)
    for k, (method, lr) in enumerate(zip(methods.split(), map(float, rates.split()), strict=True)):
        rows = [{"first_passage": at, "score": 0.5} for at in tables[k]]
        found.settings.append(design.Setting(method, method, lr, None, rows))
    return found


def test_the_best_solves_most_and_then_soonest(design: Any) -> None:
    one = study(design)
    row = lambda at, score: {"first_passage": at, "score": score}  # noqa: E731
    ranked = [[row(900, 0), row(900, 0)], [row(10, 0), row(None, 0.1)], [row(20, 0), row(None, 0.1)],
              [row(None, 0.1), row(None, 0.2)], [row(None, 0.1), row(None, math.nan)]]  # fmt: skip
    scores = [one.score(rows) for rows in ranked]
    assert scores == sorted(scores)
    assert len(set(scores)) == len(scores)


def test_a_best_rate_at_an_end_asks_for_the_next_one(design: Any) -> None:
    solved: Any = [[100] * 3, [90] * 3, [None] * 3, [80] * 3, [None] * 3, [None] * 3, [900] * 3, [70] * 3]
    one = settings(design, "norm norm random random none none", "0.015 0.05 0.6 2 0.015 0.05",
                   [*solved[:2], *solved[2:4], solved[7], solved[6]])  # fmt: skip
    assert design.beyond(one) == [("norm", 0.17), ("random", 7.0), ("none", 0.0044)]
    assert [one.at_an_end(one.chosen(method)) for method in design.METHODS] == [True, True, True]
    inside = settings(design, "norm norm norm random random none none", "0.05 0.17 0.6 2 7 0.0013 0.0044",
                      [solved[0], solved[1], solved[2], solved[6], solved[3], solved[3], solved[6]])  # fmt: skip
    assert design.beyond(inside) == [], "inside, at the greatest, at the least"
    assert [inside.at_an_end(inside.chosen(method)) for method in design.METHODS] == [False, True, True]


def test_runs_that_decide_nothing_are_left_out_and_the_best_is_that_of_all(script: Any, design: Any) -> None:
    """Made-up outcomes of every setting and seed: the best by those that were run is the best by all."""
    for seed in range(30):
        rng, asked = np.random.default_rng(seed), []
        chance = rng.choice([0.05, 0.4, 0.9])
        table = [[int(at) if rng.random() < chance else None for at in rng.integers(1, 900, 3)] for _ in range(12)]

        class Made:
            def sweep(self, title: str, some: Any, seeds: Any, table: Any = table, asked: Any = asked) -> Any:
                asked += [(k, one) for k in some for one in seeds]
                return [[{"first_passage": table[k][design.TUNING_SEEDS.index(one)], "score": 0.5} for one in seeds]
                        for k in some]  # fmt: skip

        one = study(design)
        methods = list(design.METHODS)
        one.settings = [design.Setting(str(k), methods[k % 3], 0.1, k) for k in range(12)]
        script.race(Made(), one.settings, "")
        found = [setting.rows for setting in one.settings]
        assert len(asked) == len(set(asked)) == sum(map(len, found)), "nothing twice"
        for method in range(3):
            mine = [k for k in range(12) if k % 3 == method]
            whole = {k: [{"first_passage": at, "score": 0.5} for at in table[k]] for k in mine}
            wanted = min(mine, key=lambda k: one.score(whole[k]))
            assert one.score(found[wanted]) == min(one.score(found[k]) for k in mine)
            assert one.score(one.chosen(methods[method]).rows) == one.score(whole[wanted])
            if any(None not in table[k] for k in mine):
                assert [len(found[k]) for k in mine if table[k][0] is None] == [1] * sum(
                    table[k][0] is None for k in mine
                )


# All of it.


def test_all_of_it_on_tiny_runs_once(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = script.Runs.sweep

    def stopped(self: Any, words: str, *given: Any) -> Any:
        if words == "five bits, 10 blanks: tuning":
            raise KeyboardInterrupt(words)
        return sweep(self, words, *given)

    with monkeypatch.context() as patch:
        patch.setattr(script.Runs, "sweep", stopped)
        code = script.main([*TINY, "--out", str(tmp_path)])
    said = capsys.readouterr().out
    assert_stopped(code, said, "five bits", "random_steps.jsonl", "random_steps.png")
    assert "1 of 2 tasks are done; what follows is of these alone" in said
    store = tmp_path / "random_steps.jsonl"
    first = store.read_bytes()
    assert script.main([*TINY, "--out", str(tmp_path)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert store.read_bytes().startswith(first), "what was there is not run again"
    assert "addition, 10 steps: tuning: 60 runs, 60 of them there" in said
    assert "five bits, 10 blanks: tuning: 60 runs " in said
    assert "tasks are done" not in said
    assert "A random step " in said
    rows = [json.loads(line) for line in store.read_text().splitlines()]
    runs = [row for row in rows if "recipe.lr" in row]
    assert 2 * (15 * 4 + 3 * 2) < len(runs) <= 2 * (15 * 4 * 3 + 3 * 4 * 3 + 3 * 2)
    assert not [row["failure"] for row in runs if row["failure"]]
    assert [row["plan"] for row in rows if row.get("kind") == "seen"] == ["addition_10", "memorization_10"]
    assert all(0 < row["median"] <= row["greatest"] for row in rows if row.get("kind") == "seen")
    found = json.loads((tmp_path / "random_steps.json").read_text())
    assert len({one["variant"] for one in found["tasks"]["addition_10"]["tuning"]}) == 15
    assert (tmp_path / "random_steps.png").stat().st_size > 10_000
    code, before = found["code"], store.read_bytes()
    assert script.main([*TINY, "temporal_order_20", "--out", str(tmp_path), "--code", code]) == 0
    assert "2 of 3 tasks are done" in capsys.readouterr().out
    assert store.read_bytes() == before, "nothing is run twice"
    assert_refused(script, [*TINY, "--out", str(tmp_path), "--code", "nonsense"], "code is 'nonsense'", capsys)
    results_say_the_same(tmp_path, found, monkeypatch)


def results_say_the_same(folder: Path, found: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Assert that the results have section, claim and picture of the tasks in a store that are all there."""
    plans = load(monkeypatch, "random_steps_design").PLANS.values()
    stores, tables, pictures = (load(monkeypatch, f"results_{name}") for name in ("stores", "random_steps", "pictures"))
    tiny = functools.partial(stores.random_steps.Options, budget=0.005, hidden=5, evaluate_size=10)
    monkeypatch.setattr(stores.random_steps, "Options", tiny)
    assert tables.made_of(stores.Stores(folder))["random_steps"]() == "", "no copy yet"
    assert "random_steps" not in pictures.drawn_of(stores.Stores(folder))
    store = nf.Store(folder / "random_steps.jsonl")
    lost = [row for row in store.read().values() if row.get("task") == "memorization_5bit" and row["seed"] == 1]
    for rows, titles in ((lost, ["addition, 10 steps"]), ([], ["addition, 10 steps", "five bits, 10 blanks"])):
        place = folder / f"{len(rows)}"
        nf.Store(place / "random_steps.jsonl").add([row for row in store.read().values() if row not in rows])
        compact(place / "random_steps.jsonl")
        there = stores.Stores(place)
        section, claim = tables.made_of(there)["random_steps"](), tables.random_claim(there)
        assert [title for title in (plan.title for plan in plans) if title in section] == titles
        assert "images/random_steps.png" in section
        assert claim[4] == "2 a cell"
        assert f"of {len(titles)}" in claim[2]
        assert all(title in claim[3] for title in titles)
        points = found["tasks"]["addition_10"]["fresh"]["random"]["points"]
        said = f"{100 * points['value']:+.0f} ({100 * points['low']:+.0f} to {100 * points['high']:+.0f})"
        assert f"{said} points" in claim[3]
        picture = pictures.drawn_of(there)["random_steps"]()
        assert len(picture.axes) == 2 * len(titles)
        assert_legible(picture)


def test_a_ctrl_c_while_norms_are_seen_leaves_none_in_the_store(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*given: Any, **named: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(script.nf, "calibrate_threshold", stopped)
    assert_stopped(script.main([*TINY, "--out", str(tmp_path)]), capsys.readouterr().out, "nothing was done")
    assert not (tmp_path / "random_steps.jsonl").exists() or not (tmp_path / "random_steps.jsonl").read_bytes()


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
