"""scripts/reach.py: which setting tuning chooses, what goes on, what is balanced, and what is said of it."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripted import assert_help, assert_legible, assert_refused, assert_stopped, fixture_of, load
from tolerance import near

import nbflow as nf
from nbflow.storage.compact import compact
from nbflow.storage.store import Store

TINY = ["--budget", "0.001", "--hidden", "6", "--seeds", "2"]
script = fixture_of("reach")


@pytest.fixture
def designs(monkeypatch: pytest.MonkeyPatch) -> Any:
    found = load(monkeypatch, "reach_design")
    monkeypatch.setattr(found, "EVALUATE_EVERY", 2)
    monkeypatch.setattr(found, "EVALUATE_SIZE", 40)
    monkeypatch.setattr(found, "FINAL_SIZE", 50)
    return found


@pytest.fixture
def reporting(monkeypatch: pytest.MonkeyPatch) -> Any:
    return load(monkeypatch, "reach_report")


def run(script: Any, *arguments: str) -> int:
    with ThreadPoolExecutor(1) as executor:
        return int(script.main([*TINY, *arguments], executor))


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "reach.jsonl").read_text().splitlines()]


def test_help_teaches() -> None:
    assert_help("reach.py", "How long may sequences be", "--report-only", "Ctrl-C", "--costs")


# Designs.


def test_a_first_part_is_balanced_and_tuning_seeds_are_never_reported(designs: Any) -> None:
    for one in designs.DESIGNS.values():
        for stage in one.stages:
            assert set(stage.arms) <= set(one.arms)
            assert stage.lengths == tuple(sorted(stage.lengths))
            assert max(stage.seeds) < min(designs.TUNING_SEEDS)
        for stages in one.families().values():
            assert [stage.updates for stage in stages] == sorted(stage.updates for stage in stages)
            assert len({stage.arms for stage in stages}) == 1
        assert {arm for row in one.rows.values() for arm in row} <= set(one.arms)
        assert all({test.one, test.other} <= set(one.arms) for test in one.tests)


def test_arms_are_what_they_are_called(designs: Any) -> None:
    for one in designs.DESIGNS.values():
        for arm in one.arms.values():
            for setting in arm.settings:
                recipe = arm.experiment(50, setting, 10).recipe
                assert recipe.lr == setting.lr
                assert recipe.clip.threshold == (np.inf if setting.threshold is None else setting.threshold)
                assert (recipe.flow is None) == (arm.flow == "")
                if recipe.flow is not None:
                    assert recipe.flow.derivative == arm.flow
    span, figure = designs.SPAN.arms, designs.FIGURE_7.arms
    assert [setting.threshold for setting in span["omega"].settings] == [None] * 4
    assert min(setting.lr for setting in span["omega"].settings) == 0.0003
    assert [(setting.lr, setting.threshold) for setting in span["clip"].settings] == [
        (0.0667, 0.15), (0.2, 0.15), (0.667, 0.15)], "lr v of 0.01, 0.03, 0.1, by three digits"  # fmt: skip
    (paper,) = figure["smart_tanh clip+omega paper"].settings
    assert (paper.lr, paper.threshold) == (0.01, 1.0)


def test_what_both_designs_ask_for_has_one_name(script: Any, designs: Any) -> None:
    for method in ("clip", "clip+omega"):
        one, two = designs.SPAN.arms[method], designs.FIGURE_7.arms[f"smart_tanh {method} tuned"]
        ways = {script.Place(arm, 50, arm.settings[0], 3).way(50) for arm in (one, two)}
        assert len(ways) == 1
    every = [script.Place(arm, length, setting, seed).way(50) for arm in designs.SPAN.arms.values()
             for setting in arm.settings for length in (50, 100) for seed in (0, 1)]  # fmt: skip
    assert len(set(every)) == len(every)


# Tuning.


def lines(script: Any, arm: Any, passages: dict[Any, list[Any]], most: int, scores: Any = None) -> list[Any]:
    """Return lines of tuning runs by setting; a passage is None where the budget ended."""
    return [
        {"kind": "run", "way": script.Place(arm, 50, setting, 1_000_000 + k).way(50), "most": most,
         "first_passage": at, "best_score": 0.5 if scores is None else scores[setting]}
        for setting, some in passages.items() for k, at in enumerate(some)
    ]  # fmt: skip


def test_the_setting_with_the_least_median_is_chosen_as_soon_as_it_is_known(script: Any, designs: Any) -> None:
    arm = designs.SPAN.arms["clip"]
    low, mid, high = arm.settings
    choose = lambda rows: script.chosen(script.Known(rows, 50), arm, 50)[1]  # noqa: E731
    assert choose([]) == 2_000
    first = lines(script, arm, {low: [None] * 3, mid: [None, 1500, None], high: [None] * 3}, 2_000)
    assert choose(first) == 4_000, "one of three is no median"
    second = lines(script, arm, {low: [None, 3000, 2500], mid: [None, 1500, 2500], high: [4000, 3500, 3600]}, 4_000)
    assert choose(first + second) == mid, "medians 3,000, 2,500 and 3,600"
    known = lines(script, arm, {low: [1800, 1900, None], mid: [1000, 1900, 1950], high: [None] * 3}, 2_000)
    assert choose(known) == mid, "of one median the lesser mean"


def test_where_nothing_has_a_median_most_solved_and_then_least_error_count(script: Any, designs: Any) -> None:
    arm = designs.SPAN.arms["clip"]
    (low, mid, high), most = arm.settings, designs.TUNING[-1]
    choose = lambda rows: script.chosen(script.Known(rows, 50), arm, 50)[1]  # noqa: E731
    none = {low: [None] * 3, mid: [None] * 3, high: [None] * 3}
    scores = {low: 0.5, mid: 0.25, high: 0.4}
    assert choose(lines(script, arm, none, most, scores)) == mid
    assert choose(lines(script, arm, {**none, mid: [None, 7_000, None]}, most, {**scores, mid: 0.7})) == mid


def test_beyond_an_end_more_is_tried_until_the_best_stands_between_others(script: Any, designs: Any) -> None:
    arm = designs.SPAN.arms["clip"]
    (low, mid, high), most = arm.settings, designs.TUNING[-1]
    choose = lambda rows: script.chosen(script.Known(rows, 50), arm, 50)[:2]  # noqa: E731
    rows = lines(script, arm, {low: [None] * 3, mid: [None] * 3, high: [1_000] * 3}, 2_000)
    tried, budget = choose(rows)
    assert (len(tried), budget) == (4, 2_000)
    assert tried[-1] == designs.Setting(2.11, high.threshold)
    slower, faster = ({tried[-1]: [at] * 3} for at in (1_500, 500))
    assert choose(rows + lines(script, arm, slower, 2_000)) == (tried, high)
    assert choose(rows + lines(script, arm, faster, 2_000))[1] == 2_000, "and one more beyond that"
    none: dict[Any, list[Any]] = {}
    for k in range(designs.MOST_SETTINGS - 3, -1, -1):  # none is better than the least rate, whatever is tried
        settings, _ = choose(lines(script, arm, none, most, {one: one.lr for one in none}))
        none = {one: [None] * 3 for one in settings}
        assert len(settings) == designs.MOST_SETTINGS - k
    settings, best = choose(lines(script, arm, none, most, {one: one.lr for one in none}))
    assert (len(settings), best) == (designs.MOST_SETTINGS, settings[0]), "until there are enough"


def test_it_is_said_where_nothing_was_learnt_and_where_the_best_is_an_end(script: Any, designs: Any) -> None:
    arm = designs.SPAN.arms["clip"]
    choose, most = lambda rows: script.chosen(script.Known(rows, 50), arm, 50), designs.TUNING[-1]
    low, mid, high = arm.settings
    noise = {low: 0.74, mid: 0.72, high: 0.73}
    none = dict.fromkeys(arm.settings, [None] * 3)
    first, far = lines(script, arm, none, most, noise), designs.FAR_TUNING
    assert choose(first) == (arm.settings, far, ""), "this arm goes on"
    assert choose(first + lines(script, arm, none, far, noise)) == (arm.settings, mid, "guess")
    later = lines(script, arm, {**none, high: [None, 70_000, 90_000]}, far, noise)
    assert choose(first + later)[:2] == ((*arm.settings, designs.Setting(2.11, high.threshold)), 2_000)
    short = designs.SPAN.arms["orthogonal"]
    assert script.chosen(script.Known(lines(script, short, none, most, noise), 50), short, 50) == (
        short.settings,
        mid,
        "guess",
    )
    assert choose(lines(script, arm, none, most, {**noise, mid: 0.69})).note == ""
    assert choose(lines(script, arm, {low: [None] * 3, mid: [900] * 3, high: [None] * 3}, most)).note == ""
    found = choose([])
    rows: list[Any] = []
    while len(found.tried) < designs.MOST_SETTINGS or isinstance(found.best, int):
        rows = lines(script, arm, dict.fromkeys(found.tried, [None] * 3), most, {one: one.lr for one in found.tried})
        found = choose(rows)
    assert (found.best, found.note) == (found.tried[0], "end")


def test_a_run_is_seen_within_a_budget(script: Any, designs: Any) -> None:
    arm = designs.SPAN.arms["clip"]
    place = script.Place(arm, 50, arm.settings[0], 1_000_000)
    unsolved = lines(script, arm, {arm.settings[0]: [None]}, 30)
    solved = lines(script, arm, {arm.settings[0]: [70]}, 100)
    assert script.Known(unsolved, 50).of(place, 31) is None
    assert script.Known(unsolved, 50).of(place, 30)["passage"] is None
    both = script.Known(unsolved + solved, 50)
    assert [both.of(place, updates)["passage"] for updates in (30, 69, 70, 1000)] == [None, None, 70, 70]


# Runs.


def test_a_run_writes_store_tables_pictures_and_goes_on_where_it_was(
    script: Any, designs: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    some = ("--arms", "clip", "clip+omega", "omega", "gru", "--lengths", "50", "--out", str(tmp_path))
    assert run(script, *some) == 0
    said = " ".join(capsys.readouterr().out.split())
    for words in ("Solved within 30 updates", "p (Holm)", "8a: can't tell. 8b: can't tell", "picture:", "numbers:"):
        assert words in said
    rows = rows_of(tmp_path)
    final = [row for row in rows if row["seed"] < 1_000_000]
    assert len(final) == 2 * 4
    assert {row["most"] for row in rows if row["seed"] >= 1_000_000} == {2, 4, 8, 30}
    assert all(row["processor"] and row["code"] and row["updates"] == row["most"] for row in rows)
    assert all(("theta" in row) == (row["seed"] < designs.KEPT_SEEDS) for row in rows)
    assert (tmp_path / "reach_span.png").read_bytes().startswith(b"\x89PNG")
    assert run(script, *some) == 0
    assert rows_of(tmp_path) == rows, "nothing is run twice"
    monkeypatch.setattr(nf, "train", None)
    assert run(script, *some, "--report-only") == 0
    assert [path.name for path in sorted(tmp_path.glob("*.json"))] == ["reach_span.json"]


def test_a_larger_budget_goes_on_to_the_bits_of_one_training(
    script: Any, designs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = ("--arms", "clip", "--lengths", "50", "--out", str(tmp_path))
    assert run(script, *one) == 0
    assert run(script, *one, "--budget", "0.002") == 0
    row = next(row for row in rows_of(tmp_path) if (row["seed"], row["most"]) == (0, 60))
    arm = designs.SPAN.arms["clip"]
    setting = designs.Setting(row["lr"], row["threshold"])
    whole = arm.experiment(50, setting, 60, 6)
    trained = nf.train(whole.net, whole.theta(0), whole.task, whole.recipe, replica_ids=[0])
    theta = load(monkeypatch, "generalization").theta_of(row["theta"])
    assert (theta == trained.theta).all()
    score = nf.evaluate(
        whole.net, theta, whole.task, length=50, size=50, seed=load(monkeypatch, "reach_runs").FINAL_SEED
    )
    assert row["wrong"] == round(50 * score)


def test_figure_7_has_both_rates_side_by_side(
    script: Any, designs: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arms = [f"{init} {cure} {rate}" for init, cure in (("smart_tanh", "sgd"), ("smart_tanh", "clip+omega"),
            ("smart_tanh", "clip"), ("sigmoid", "clip")) for rate in ("paper", "tuned")]  # fmt: skip
    more = ("--design", "figure_7", "--arms", *arms, "--lengths", "50", "--seeds", "2", "--out", str(tmp_path))
    assert run(script, *more) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Figure 7: can't tell" in said
    assert "lr 0.01, v 1, lr v 0.01" in said
    assert {path.name for path in tmp_path.glob("*.png")} == {"reach_figure_7.png", "reach_figure_7_rates.png"}
    tuned = [row for row in rows_of(tmp_path) if row["seed"] >= 1_000_000]
    assert not [row for row in tuned if (row["lr"], row["threshold"]) == (0.01, 1.0)], "the paper's is not tuned"


def test_only_seeds_that_all_arms_of_a_family_have_are_reported(script: Any, designs: Any) -> None:
    options = script.Options(design="figure_7", stages=12)
    arms = designs.FIGURE_7.arms

    def line(name: str, seed: int, most: int, at: int | None) -> Any:
        (setting,) = arms[name].settings
        return {"kind": "run", "way": script.Place(arms[name], 100, setting, seed).way(50), "most": most,
                "first_passage": at, "best_score": 0.5, "clipped": 0.5, "seconds": 1.0}  # fmt: skip

    names = ("sigmoid clip paper", "sigmoid clip+omega paper")
    keep = {name: arms[name] for name in names}
    rows = [line(name, seed, 30_000, None) for name in names for seed in range(3)] + [line(names[0], 3, 30_000, 900)]
    stages = tuple(s for s in script.Options(design="figure_7", stages=12, arms=names, lengths=(100,)).asked.stages)
    small = script.replace(designs.FIGURE_7, arms=keep, stages=stages)
    found = script.Found()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(designs.DESIGNS, "figure_7", small)
        options = script.Options(design="figure_7", stages=len(stages))
        script.gather(options, rows, found)
        assert [one.seeds for one in found.outcomes] == [(0, 1, 2)] * 2
        assert {one.updates for one in found.outcomes} == {30_000}
        more = script.Found()
        script.gather(options, rows + [line(name, seed, 500_000, 400_000) for name in names for seed in range(3)], more)
        assert {one.updates for one in more.outcomes} == {500_000}
        assert {one.passages for one in more.outcomes} == {(400_000,) * 3}
        sooner = script.Found()
        script.gather(options, [line(name, seed, 500_000, 9_000) for name in names for seed in range(3)], sooner)
    assert {one.updates for one in sooner.outcomes} == {30_000}, "the least budget within which all are solved"


def test_costs_are_timed_and_nothing_is_trained(
    script: Any, designs: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script.costs, "TIMED_STEPS", 100)
    assert run(script, "--costs", "--arms", "clip", "omega", "--lengths", "50", "--out", str(tmp_path)) == 0
    said = capsys.readouterr().out
    assert "Core-hours at most" in said
    assert not (tmp_path / "reach.jsonl").exists()
    found = json.loads((tmp_path / "reach_span_costs.json").read_text())
    stage = found["stages"][0]
    seconds = {one["arm"]: one["seconds"] for one in found["seconds"]}
    assert stage["runs"] == near(sum(seconds.values()) * 2 * 30 / 3600)
    assert stage["tuning"] == near((3 * seconds["clip"] + 4 * seconds["omega"]) * 3 * 30 / 3600)


# What is said.


def outcome(reporting: Any, arm: str, length: int, passages: list[Any], updates: int = 30_000) -> Any:
    setting = reporting.Setting(0.2, 0.15)
    seeds = tuple(range(len(passages)))
    return reporting.Outcome("core", arm, length, setting, "", seeds, updates, tuple(passages), 0.5)


def test_verdicts_follow_the_rules(reporting: Any) -> None:
    fast, slow, never = [1000 + k for k in range(10)], [9000 + k for k in range(10)], [None] * 10
    find = lambda *some: reporting.tested(reporting.SPAN, [outcome(reporting, *one) for one in some])  # noqa: E731
    verdicts = lambda *some: {one.verdict for one in find(*some)}  # noqa: E731
    assert verdicts(("clip+omega", 50, fast), ("clip", 50, never)) == {reporting.WIDENS}
    assert verdicts(("clip+omega", 50, fast), ("clip", 50, slow)) == {reporting.SOONER}
    assert verdicts(("clip+omega", 50, never), ("clip", 50, slow)) == {reporting.WORSE}
    assert verdicts(("clip+omega", 50, never), ("clip", 50, never)) == {reporting.UNCLEAR}
    many = [fast[k % 10] + 10 * k for k in range(20)]
    assert verdicts(("clip+omega", 50, many), ("clip", 50, many)) == {reporting.ALIKE}
    assert find(("clip+omega", 50, fast), ("clip", 100, fast)) == []


def test_what_is_held_together_has_the_same_seeds_and_budget(reporting: Any) -> None:
    one = outcome(reporting, "clip+omega", 50, [1000, 40_000, 2000, 3000], 100_000)
    other = outcome(reporting, "clip", 50, [None, None], 30_000)
    (test,) = reporting.tested(reporting.SPAN, [one, other])
    assert (test.runs, test.solved) == (2, (1, 0))


def test_where_budgets_differ_each_cell_says_its_own(reporting: Any) -> None:
    one, other = (outcome(reporting, "clip", 50, [1000, None], updates) for updates in (30_000, 100_000))
    exact = outcome(reporting, "exact", 50, [1000, None])
    cells = lambda *some: [*reporting.of_rates(reporting.SPAN, some).columns[1].cells]  # noqa: E731
    assert [cell.split(" (")[0] for cell in cells(one, exact)] == ["1 of 2"] * 2
    assert [cell.split(" (")[0] for cell in cells(other, exact)] == ["1 of 2 within 100,000", "1 of 2 within 30,000"]


def test_holm_is_over_a_question(reporting: Any) -> None:
    fast, slow = [1000 + k for k in range(6)], [4000 + k for k in range(6)]
    some = [outcome(reporting, arm, length, fast if arm == "clip+omega" else slow) for length in (50, 100)
            for arm in ("clip", "clip+omega", "omega")]  # fmt: skip
    tests = reporting.tested(reporting.SPAN, some)
    assert len(tests) == 4
    assert all(one.adjusted == 2 * one.p for one in tests), "of two lengths, not of four tests"


def test_claims_are_said_in_a_line(reporting: Any) -> None:
    fast, slow, never = [1000 + k for k in range(10)], [9000 + k for k in range(10)], [None] * 10
    some = [outcome(reporting, *one) for one in (
        ("clip", 50, slow), ("clip+omega", 50, fast), ("omega", 50, slow),
        ("clip", 100, never), ("clip+omega", 100, fast), ("omega", 100, never))]  # fmt: skip
    words = reporting.said_of("span", reporting.SPAN, some)
    assert words == "8a: holds at 100 steps; sooner at 50 steps. 8b: holds at 100 steps, not at 50 steps."
    one = some[0]._replace(family="main", arm="smart_tanh clip+omega tuned")
    full = [one._replace(length=length) for length in (50, 100, 150, 200)]
    assert reporting.said_of("figure_7", reporting.FIGURE_7, full) == (
        "Figure 7: met by clipping and Omega, smart_tanh at tuned.")  # fmt: skip
    assert "can't tell" in reporting.said_of("figure_7", reporting.FIGURE_7, full[:3])


@pytest.mark.parametrize("lengths", [(50,), (50, 100), (50, 100, 150, 200)], ids=len)
@pytest.mark.parametrize("name", ["span", "figure_7"])
def test_pictures_of_any_lengths_are_legible(reporting: Any, name: str, lengths: tuple[int, ...]) -> None:
    asked = {"span": reporting.SPAN, "figure_7": reporting.FIGURE_7}[name]
    arms = [arm for arm in asked.arms if len(lengths) > 1 or not arm.startswith(("smart", "sigmoid"))]
    some = [outcome(reporting, arm, length, [1000 * k + 3000 for k in range(5)]) for arm in arms for length in lengths]
    for picture in reporting.pictures(name, asked, some).values():
        assert_legible(picture)


# What docs/results.md makes of it.


def test_results_have_tables_and_pictures_of_a_store_and_say_nothing_of_none(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables, pictures = load(monkeypatch, "results_span"), load(monkeypatch, "results_pictures")
    stores, arms = tables.Stores, script.designs.SPAN.arms
    assert {make() for make in tables.made_of(stores(tmp_path)).values()} == {""}
    assert pictures.drawn_of(stores(tmp_path)) == {}
    assert tables.span_claims(stores(tmp_path)) == []
    solved = {"clip": None, "clip+omega": 3_000, "omega": None}
    rows = []
    for name, length in [(name, length) for name in solved for length in (50, 100)]:
        tuning = [(setting, 1_000_000 + k, 30_000) for setting in arms[name].settings for k in range(3)]
        for setting, seed, most in [
            *tuning,
            *((setting, k, 30_000) for setting in arms[name].settings for k in range(8)),
        ]:
            way, best = script.Place(arms[name], length, setting, seed).way(50), setting == arms[name].settings[1]
            rows.append({"key": f"{way}{most}", "kind": "run", "way": way, "most": most, "seed": seed, "seconds": 1.0,
                         "first_passage": solved[name] if best else None, "best_score": 0.3 if best else 0.5,
                         "clipped": 0.5})  # fmt: skip
    Store(tmp_path / "reach.jsonl").add(rows)
    compact(tmp_path / "reach.jsonl")
    there = stores(tmp_path)
    made = tables.made_of(there)
    assert {name for name in made if made[name]()} == {"reach_span", "reach_span_settings", "reach_span_tests"}
    assert "8 of 8" in tables.made_of(there)["reach_span"]()
    (wider, _) = tables.span_claims(there)
    assert wider[2] == "holds at 50, 100 steps"
    assert wider[4] == "8 a cell"
    assert "L = 50, 30,000 updates: +100 points" in wider[3]
    drawn = pictures.drawn_of(there)
    assert set(drawn) == {"reach_span"}
    assert len(drawn["reach_span"]().axes) == 2


# What is refused.


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        (["--lengths", "60"], "lengths has '60'; expected some of 50, 100, 150, 200, 250"),
        (["--arms", "clips"], "arms has 'clips'; expected some of clip, clip+omega"),
        (["--stages", "13"], "stages is 13; expected at most the 12"),
        (["--arms", "gru", "--lengths", "250"], "leave nothing to train"),
        (["--workers", "0"], "workers is 0"),
        (["--report-only"], "report_only asks for"),
    ],
)
def test_a_wrong_option_is_one_clear_error(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: list[str], found: str
) -> None:
    assert_refused(script, [*TINY, *wrong, "--out", str(tmp_path / "new")], found, capsys)


def test_runs_that_two_arms_share_are_made_once(script: Any, designs: Any, tmp_path: Path) -> None:
    """A tuned rate may be the paper's, and both are in one list of jobs."""
    arm = designs.SPAN.arms["clip"]
    options, place = script.Options(hidden=6, out=tmp_path), script.Place(arm, 50, arm.settings[0], 0)
    jobs = [script.training(options.store, 6, words, place, 4) for words in ("tuned", "paper")]
    with ThreadPoolExecutor(2) as pool:
        found = script.run_all(script.learn, jobs, options.store, script.Console(quiet=True), pool)
    assert found[0] == found[1]
    assert len(rows_of(tmp_path)) == 1


def test_ctrl_c_reports_what_is_there(
    script: Any, designs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_all = script.run_all

    def interrupted(work: Any, jobs: Any, *more: Any) -> Any:
        if jobs and jobs[0].words.startswith("kinds"):
            raise KeyboardInterrupt
        return run_all(work, jobs, *more)

    monkeypatch.setattr(script, "run_all", interrupted)
    code = run(script, "--arms", "clip", "exact", "--lengths", "50", "--out", str(tmp_path))
    assert_stopped(code, capsys.readouterr().out, "reach.jsonl")
    assert (tmp_path / "reach_span.json").exists()
