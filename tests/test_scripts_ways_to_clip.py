"""scripts/ways_to_clip.py: its design, its verdicts on made-up runs, and all of it on runs of a few updates."""

from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripted import assert_help, assert_refused, assert_stopped, load, write_tunes
from tolerance import near, within

import nbflow as nf
from nbflow.storage.compact import compact

TINY = ["--budget", "0.0001", "--hidden", "5", "--evaluate-size", "10",
        "--seeds", "2", "--pair-seeds", "3", "--music-seeds", "2"]  # fmt: skip


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give the script with few looks, seeds and settings, and threads in place of processes."""
    found = load(monkeypatch, "ways_to_clip")
    Round = found.design.Round
    for name, value in {
        "LOOKS": 2,
        "LOOK_UPDATES": 4,
        "LOOK_EVERY": 2,
        "LRS": (0.05, 0.6, 2),
        "LINE": (0.05, 0.6, 2),
        "THRESHOLDS": 2,
        "ROUNDS": (rounds := (Round(1, 0.5, 2), Round(1, 1.0, 1), Round(2, 1.0, 1))),
        "MUSIC_ROUNDS": rounds,
    }.items():
        monkeypatch.setattr(found.design, name, value)
    monkeypatch.setattr(found.tuning, "STEPS", 2)
    monkeypatch.setattr(found, "alone", lambda call, *given, **named: call(*given, **named))
    with ThreadPoolExecutor(1) as executor:
        monkeypatch.setattr(found, "executor_of", lambda name: executor)
        yield found


@pytest.fixture
def tunes(tmp_path: Path) -> Path:
    return write_tunes(tmp_path / "short.json")


def rows_of(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def to_four(x: float) -> float:
    """Return a number to four digits."""
    return float(f"{x:.4g}")


# --- The design.


def design_as_it_is(monkeypatch: pytest.MonkeyPatch) -> Any:
    return load(monkeypatch, "ways_to_clip").design


def test_every_variant_begins_with_as_many_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    design = design_as_it_is(monkeypatch)
    found = {variant.measure: (0.01, 1.0) for variant in design.VARIANTS.values() if variant.measure}
    grids = {name: design.grid(variant, found) for name, variant in design.VARIANTS.items()}
    settings = {name: {one.setting(place) for place in one.places()} for name, one in grids.items()}
    assert {name: len(one) for name, one in settings.items()} == {
        name: 16 if name in ("none", "normalize") else 48 for name in design.VARIANTS
    }
    assert {max(one)[0] for one in settings.values()} == {design.LRS[1]}
    assert {v for _, v in settings["none"]} == {math.inf}
    assert {v for _, v in settings["normalize"]} == {0.1}
    assert sorted({v for _, v in settings["value"]}) == [to_four(0.01 * 10 ** (0.4 * k)) for k in range(6)]
    assert min(v for _, v in settings["adagc"]) > 1
    assert [rounds.budget for rounds in (*design.ROUNDS[1:], *design.MUSIC_ROUNDS[1:])] == [1.0] * 4
    assert max(one.seeds for one in (*design.ROUNDS, *design.MUSIC_ROUNDS)) == len(design.TUNING_SEEDS)


def test_neighbours_go_on_beyond_the_first_grid_and_stay_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    design = design_as_it_is(monkeypatch)
    ranges = {"norm": (0.1, 10.0), "adagc": (0.02, 3.0)}
    plane, line, above = (design.grid(design.VARIANTS[name], ranges) for name in ("norm", "normalize", "adagc"))
    assert sorted(plane.neighbours((0, 5))) == [(-1, 4), (-1, 5), (-1, 6), (0, 4), (0, 6), (1, 4), (1, 5), (1, 6)]
    assert sorted(line.neighbours((0, 0))) == [(-1, 0), (1, 0)]
    lr, v = plane.setting((-1, 6))
    assert lr < design.LRS[0]
    assert v > 10.0
    assert above.setting((0, -30))[1] >= 1.0
    assert [plane.is_inside(place) for place in ((0, 2), (7, 2), (3, 0), (3, 5), (-1, 2), (3, 2))] == [
        *[False] * 5,
        True,
    ]
    assert [line.is_inside(place) for place in ((0, 0), (15, 0), (16, 0), (3, 0))] == [False, False, False, True]


def best_of(script: Any, cost: Any, rounds: Any = None) -> Any:
    """Return what a race over made-up costs comes to: updates until solved, of a place and a seed."""
    design = script.design
    plan = design.PLANS["addition_10"]
    one = script.tuning.race(plan, design.Grid(design.Line(0.1, 0.8, 4), design.Line(1.0, 8.0, 4)), 10_000)

    def run(asked: Any) -> Any:
        return {key: {place: [{"first_passage": at if (at := cost(place, k)) <= 10_000 * want.budget else None,
                               "score": 0.5} for k in range(want.seeds)] for place in want.places}
                for key, want in asked.items()}  # fmt: skip

    return script.tuning.drive({"one": one}, run)["one"]


@pytest.mark.parametrize("target", [(1, 1), (0, 3), (-2, 5), (5, -1), (3, 2)])
def test_a_race_ends_where_no_neighbour_is_better_inside_or_beyond(script: Any, target: Any) -> None:
    script.tuning.STEPS = 20
    found = best_of(
        script, lambda place, k: 200 + 300 * ((place[0] - target[0]) ** 2 + (place[1] - target[1]) ** 2) + k
    )
    assert found.setting == (to_four(0.1 * 2.0 ** target[0]), to_four(2.0 ** target[1]))
    assert found.settled
    assert found.inside == all(0 < k < 3 for k in target)
    assert len(found.rows) == script.design.ROUNDS[-1].seeds
    assert found.settings >= 16


def test_a_setting_that_was_lucky_on_the_first_seeds_is_left_for_a_neighbour_that_is_better_on_all(script: Any) -> None:
    costs = {(1, 1): (100, 20_000), (1, 2): (500, 500)}
    found = best_of(script, lambda place, k: costs.get(place, (2_000, 2_000))[k])
    assert found.setting == (to_four(0.1 * 2.0), to_four(4.0))


def test_a_race_that_would_go_on_for_ever_ends_and_says_so(script: Any) -> None:
    found = best_of(script, lambda place, k: max(5_000 * 2.0 ** -place[0], 1e-9))
    assert not found.settled
    assert not found.inside


def test_runs_of_tuning_are_counted_once(script: Any) -> None:
    """16 of the first round, 2 of the second, 1 + 1 more of the third; then eight neighbours, and none better."""
    found = best_of(script, lambda place, k: 1_000 if place == (1, 1) else 2_000)
    assert found.runs == 16 + 2 + 1 + 7
    assert found.settings == 16


def test_seeds_of_thresholds_tuning_and_comparison_are_never_the_same(script: Any) -> None:
    design = script.design
    assert not set(design.TUNING_SEEDS) & set(design.LOOK_SEEDS)
    assert min(*design.TUNING_SEEDS, *design.LOOK_SEEDS) >= design.MOST_SEEDS
    assert max(*design.TUNING_SEEDS, *design.LOOK_SEEDS) < 2**24


def test_every_clip_of_the_package_is_compared(script: Any) -> None:
    of_stacks = {"layer"}  # the norm rule, for a network of one layer
    assert set(nf.names("clips")) - of_stacks <= set(script.VARIANTS)


def test_variants_differ_in_the_clip_alone_and_all_leave_out_what_is_not_finite(script: Any) -> None:
    design = script.design
    every = {
        name: design.experiment(design.PLANS["addition_10"], variant, (0.1, 1.5), design.Scale(100, 10, 10, 5),
                                tuning=True)
        for name, variant in design.VARIANTS.items()
    }  # fmt: skip
    nothing = {"clip": None, "clip_hidden": None, "clip_example": None, "clip_microbatch": None}
    assert len({json.dumps(replace(one, recipe=replace(one.recipe, **nothing)).described)
                for one in every.values()}) == 1  # fmt: skip
    assert {one.recipe.clip.nonfinite for one in every.values()} == {"skip"}
    assert len({json.dumps(one.described) for one in every.values()}) == len(design.VARIANTS)


def network_and_batch(task: str) -> Any:
    source = nf.load_task(task)
    net = nf.Network("tanh", source.n_in, 7, source.n_out, source.loss, dtype="float64")
    batch = source.sample(seed=3, index=5, batch_size=20, length=12, dtype="float64")
    return net, nf.init(net, "basic_tanh", rng=1) + np.random.default_rng(0).normal(0, 0.2, net.size), batch


def test_half_of_the_squares_lie_above(script: Any) -> None:
    assert script.design.half([3.0, -4.0, 0.1, 0.0]) == 4.0
    assert script.design.half([3.0, -3.5, 0.1, 2.0]) == 3.0
    assert script.design.half([9.0, 1.0, 2.0], [0.1, 5.0, 5.0]) == 2.0, (
        "a large ratio of a tiny gradient is passed over"
    )
    assert script.design.half([[5.0]]) == 5.0
    assert math.isnan(script.design.half([1.0, math.nan]))


@pytest.mark.parametrize("task", ["temporal_order", "addition", "memorization_5bit"])
@pytest.mark.parametrize("name", ["norm", "value", "block", "unit"])
def test_a_rule_changes_half_of_the_gradient_from_its_measure_on(script: Any, task: str, name: str) -> None:
    """Just below what was measured what is clipped makes half of the squared norm, just above it does not."""
    design = script.design
    net, theta, batch = network_and_batch(task)
    plain, seen = nf.gradient(net, theta, batch).d_theta, design.measures(net, theta, batch)
    shares = []
    for part in (1 - 1e-9, 1 + 1e-9):
        clip = design.VARIANTS[name].fields(part * seen[design.VARIANTS[name].measure])["clip"]
        changed = nf.clip(net, plain, clip, theta=theta).d_theta != plain
        shares.append((plain[changed] ** 2).sum() / (plain**2).sum())
    assert shares[1] < 0.5 <= shares[0]


@pytest.mark.parametrize("task", ["temporal_order", "addition", "memorization_5bit"])
@pytest.mark.parametrize("name, size", [("example", 1), ("microbatch", 5)])
def test_groups_are_measured_one_by_one(script: Any, task: str, name: str, size: int) -> None:
    """Each group's norm from a batch in which no other one counts."""
    net, theta, batch = network_and_batch(task)
    norms = []
    for first in range(0, 20, size):
        weights = np.zeros_like(batch.weights)
        weights[:, first : first + size] = batch.weights[:, first : first + size] * 20 / size
        norms.append(np.linalg.norm(nf.gradient(net, theta, batch._replace(weights=weights)).d_theta))
    seen = script.design.measures(net, theta, batch)[name]
    ordered = np.sort(norms)[::-1]
    at = int(np.flatnonzero(np.isclose(ordered, seen, rtol=within("float64", 20, 500)))[0])
    total = (ordered**2).sum()
    assert (ordered[:at] ** 2).sum() < total / 2 <= (ordered[: at + 1] ** 2).sum()


@pytest.mark.parametrize("task", ["temporal_order", "addition", "memorization_5bit"])
def test_vectors_inside_are_where_the_clip_acts(script: Any, task: str) -> None:
    """Those at the pre-activations add up to the gradient of the bias, and a clip at their largest begins to act."""
    design = script.design
    net, theta, batch = network_and_batch(task)
    plain = nf.gradient(net, theta, batch).d_theta
    at_state, at_preactivation = design.hidden(net, theta, batch)
    size = np.abs(at_preactivation).sum(axis=(0, 1)).max()
    assert at_preactivation.sum(axis=(0, 1)) == near(nf.unpack(net, plain).bias[0], "float64", 20, 500, size=size)
    for site, found in (("state", at_state), ("preactivation", at_preactivation)):
        for by, largest in (("value", np.abs(found).max()), ("norm", np.linalg.norm(found, axis=-1).max())):
            above, below = (
                nf.gradient(net, theta, batch, clip_hidden=nf.HiddenClip(part * largest, site=site, by=by)).d_theta
                for part in (1 + 1e-9, 1 - 1e-3)
            )
            assert np.array_equal(above, plain), (site, by)
            assert np.abs(below - plain).max() > 1e-9 * np.abs(plain).max(), (site, by)


def test_first_thresholds_reach_from_below_a_low_quantile_to_a_high_one_of_what_is_finite(script: Any) -> None:
    looks = [{"norm": [1.0, 2.0, None]}, {"norm": [math.inf, 3.0, math.nan]}]
    found = script.design.ranges(looks)
    assert {name: found.pop(name) for name in script.design.GRIDS} == script.design.GRIDS
    assert found == {"norm": (near(0.12), near(2.8))}


def test_the_best_setting_solves_most_then_soonest_then_errs_least(script: Any) -> None:
    design = script.design
    plan = design.PLANS["addition_10"]

    def of(*runs: tuple[int | None, float | None]) -> Any:
        return design.score(plan, [{"first_passage": at, "score": score} for at, score in runs], 1000)

    in_order = [of((900, 0.0), (900, 0.0)), of((100, 0.0), (None, 0.3)), of((200, 0.0), (None, 0.3)),
                of((None, 0.3), (None, 0.3)), of((None, 0.4), (None, 0.3)), of((None, None), (None, 0.3))]  # fmt: skip
    assert sorted(in_order) == in_order
    assert len(set(in_order)) == len(in_order)
    music = replace(plan, is_music=True)
    assert design.score(music, [{"score": 9.0}, {"score": 8.0}], 10) == (8.5,)
    assert design.score(music, [{"score": 9.0}, {"failure": "x"}], 10) == (math.inf,)


# --- Verdicts on made-up runs.


def made_up(script: Any, *times: Any, music: bool = False) -> Any:
    """Return verdicts for norm and one other; a time of None is unsolved."""
    design, verdicts = script.design, script.verdicts
    plan = design.PLANS["temporal_order_20"]
    if music:
        plan = replace(plan, is_music=True)  # whose trivial error is 0.75
    field = "score" if music else "first_passage"
    outcomes = {
        name: verdicts.outcome(plan, [{"seed": k, "failure": None, field: at} for k, at in enumerate(column)], 10_000)
        for name, column in zip(("norm", "value"), times, strict=True)
    }
    return verdicts.compare(plan, outcomes)["value"]


def spread(factor: float, n: int, seed: int = 0) -> list[float]:
    return [float(x) for x in factor * np.exp(0.3 * np.random.default_rng(seed).normal(size=n))]


def test_runs_of_one_distribution_are_equivalent(script: Any) -> None:
    found = made_up(script, spread(2000, 40), spread(2000, 40, 1))
    assert found.verdict == script.verdicts.EQUIVALENT
    assert 1 / 1.5 < found.ratio.low < 1 < found.ratio.high < 1.5
    assert found.words == "equivalent"


def test_a_small_difference_that_is_there_is_equivalent_and_said_to_be_there(script: Any) -> None:
    found = made_up(script, spread(2000, 200), spread(2400, 200, 1))
    assert found.verdict == script.verdicts.EQUIVALENT
    assert found.adjusted < 0.05
    assert found.words.startswith("equivalent, though not the same: 1.17 times")


def test_three_times_the_updates_is_different_by_how_much(script: Any) -> None:
    found = made_up(script, spread(1000, 30), spread(3000, 30, 1))
    assert found.verdict == script.verdicts.DIFFERENT
    assert found.ratio.low < 3 < found.ratio.high
    assert "times the updates" in found.words


def test_what_solves_nothing_is_different_by_its_success(script: Any) -> None:
    found = made_up(script, spread(1000, 30), [None] * 30)
    assert found.words == "different: solves 0 of 30, norm 30 of 30"


@pytest.mark.parametrize("times", [([None] * 40, [None] * 40), ([500.0, *[None] * 39], [None] * 40)])
def test_where_hardly_anything_is_solved_nothing_can_be_told(script: Any, times: Any) -> None:
    """All unsolved runs cost the budget: their ratio of 1 says nothing."""
    found = made_up(script, *times)
    assert found.ratio.high < 1.5
    assert found.verdict == script.verdicts.UNCLEAR
    assert made_up(script, [9.0] * 40, [9.0] * 40, music=True).verdict == script.verdicts.UNCLEAR


def test_that_no_difference_is_found_in_few_runs_is_no_equivalence(script: Any) -> None:
    found = made_up(script, spread(2000, 4), spread(2000, 4, 1))
    assert found.adjusted > 0.05
    assert found.verdict == script.verdicts.UNCLEAR


def test_losses_are_compared_by_pairs_and_what_diverged_is_no_better_than_the_trivial(script: Any) -> None:
    shared = np.random.default_rng(0).normal(size=30)
    one, two = ([float(0.5 + 0.05 * x + 1e-4 * k) for x in shared] for k in (0, 1))
    assert made_up(script, one, two, music=True).verdict == script.verdicts.EQUIVALENT
    assert made_up(script, one, [1.05 * x for x in one], music=True).verdict == script.verdicts.DIFFERENT
    diverged = made_up(script, one, [*one[:10], *[math.nan, None, math.inf, 50.0] * 5], music=True)
    assert diverged.rate.value == near(1 / 3)
    assert diverged.typical.high < 0.75


def test_p_values_are_adjusted_for_all_variants_of_a_task(script: Any) -> None:
    verdicts, plan = script.verdicts, script.design.PLANS["temporal_order_20"]
    names = list(script.VARIANTS)
    outcomes = {
        name: verdicts.outcome(plan, [{"seed": s, "failure": None, "first_passage": at}
                                      for s, at in enumerate(spread(1000 + 50 * k, 20, k))], 10_000)
        for k, name in enumerate(names)
    }  # fmt: skip
    found = verdicts.compare(plan, outcomes)
    p = [found[name].p for name in names[1:]]
    assert [found[name].adjusted for name in names[1:]] == near(nf.statistics.holm(p))
    assert math.isnan(found["norm"].p)


def test_tasks_together_count_once_each_and_are_adjusted(script: Any) -> None:
    verdicts, plan = script.verdicts, script.design.PLANS["temporal_order_20"]

    def task(factor: float, seed: int) -> Any:
        times = {"norm": spread(1000, 30, seed), "value": spread(1000 * factor, 30, 10 + seed),
                 "unit": spread(3000, 30, 20 + seed)}  # fmt: skip
        return verdicts.compare(plan, {
            name: verdicts.outcome(plan, [{"seed": k, "failure": None, "first_passage": at}
                                          for k, at in enumerate(column)], 100_000)
            for name, column in times.items()
        })  # fmt: skip

    tasks = [task(factor, seed) for seed, factor in enumerate((0.5, 2.0, 0.5, 2.0))]
    found = verdicts.joint(tasks)
    assert list(found) == ["value", "unit"]
    for name, one in found.items():
        ratios = [each[name].ratio.value for each in tasks]
        assert one.ratio.value == near(float(np.prod(ratios)) ** 0.25)
        assert one.ratio.low < min(ratios)
    assert (found["value"].slower, found["value"].faster, found["value"].tasks) == (2, 2, 4)
    assert found["value"].adjusted == near(found["value"].p)
    assert found["value"].p > 0.5
    assert (found["unit"].slower, found["unit"].faster) == (4, 0)
    assert found["unit"].adjusted == near(2 * found["unit"].p)
    assert found["unit"].adjusted < 0.01


# --- All of it.


def test_help_teaches_every_option() -> None:
    assert_help("ways_to_clip.py", "EQUIVALENT", "two one-sided", "--budget", "--workers", "go on where")


def test_variants_are_tuned_compared_written_and_never_trained_twice(
    script: Any, tmp_path: Path, tunes: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    some = ["norm", "none", "value", "adagc", "microbatch"]
    arguments = [*TINY, "--tasks", "temporal_order_20", "addition_10", "music", "--data", str(tunes),
                 "--variants", *some, "--out", str(tmp_path)]  # fmt: skip
    assert script.main(arguments) == 0, capsys.readouterr().out
    out = capsys.readouterr().out
    for words in (
        "tuning, turn 1: ",
        "can't tell",
        "groups of 5",
        "All tasks together",
        "AdaGC",
    ):
        assert words in out
    found = json.loads((tmp_path / "ways_to_clip.json").read_text())
    assert set(found["tasks"]) == {"temporal_order_20", "addition_10", "music_short"}
    for task in found["tasks"].values():
        assert list(task["variants"]) == some
        runs = {name: one["runs"] for name, one in task["variants"].items()}
        more = () if task["title"].startswith("piano") else script.PAIR
        assert runs == {name: 3 if name in more else 2 for name in some}
        assert {one["failed"] for one in task["variants"].values()} == {0}
        assert all(one["update_relative_to_none"] > 0 for one in task["variants"].values())
        assert all(one["tuning_runs"] >= one["settings_tried"] - 8 for one in task["variants"].values())
    rows = rows_of(tmp_path / "ways_to_clip.jsonl")
    assert len({row["key"] for row in rows}) == len(rows)
    assert {row["seed"] for row in rows} == {0, 1, 2, *script.design.TUNING_SEEDS[:2]}
    assert len({row["task.held_out"] for row in rows if "task.held_out" in row}) == 2, "tuned on valid, tested on test"
    for name in ("", "_temporal_order_20", "_music_short"):
        assert (tmp_path / f"ways_to_clip{name}.png").read_bytes().startswith(b"\x89PNG")
    before = {name: (tmp_path / name).read_bytes() for name in ("ways_to_clip.jsonl", "ways_to_clip.prepared.jsonl")}
    assert script.main(arguments) == 0
    assert {name: (tmp_path / name).read_bytes() for name in before} == before, "nothing is run twice"
    again = json.loads((tmp_path / "ways_to_clip.json").read_text())
    assert again == found
    assert script.main([*arguments, "--code", found["code"]]) == 0
    capsys.readouterr()
    assert script.main([*arguments, "--code", "old"]) == 2
    assert "code is 'old'" in capsys.readouterr().out
    assert {name: (tmp_path / name).read_bytes() for name in before} == before, "another code's name trains nothing"
    assert_results_read_the_same(script, tmp_path, tunes, found, monkeypatch)


def assert_results_read_the_same(
    script: Any, folder: Path, tunes: Path, found: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Assert that docs/results.md has from compact copies what the script reported, and says nothing of what is cut."""
    stores = load(monkeypatch, "results_stores")
    monkeypatch.setitem(stores.CODES, "ways_to_clip", found["code"])
    monkeypatch.setattr(script, "Options", partial(script.Options, budget=0.0001, hidden=5, evaluate_size=10))

    def costs() -> dict[str, dict[str, int]]:
        for name in ("ways_to_clip", "ways_to_clip.prepared"):
            compact(folder / f"{name}.jsonl")
        studies = stores.Stores(folder).studies()
        for study in studies:
            for name, one in study.outcomes.items():
                told = found["tasks"][study.plan.name]["variants"][name]
                assert list(one.cost.values()) == told["cost"][: one.runs]
                assert study.tuned[name].setting == (told["lr"], told["threshold"] or math.inf)
                assert study.cost[name] == told["update_relative_to_none"]
        return {study.plan.name: {name: one.runs for name, one in study.outcomes.items()} for study in studies}

    every = {"norm": 3, "none": 2, "value": 3, "adagc": 2, "microbatch": 2}
    assert costs() == {"temporal_order_20": every, "addition_10": every}, "music needs a line of what is known of it"
    nf.Store(folder / "data.jsonl").add([stores.facts_of(tunes)])
    compact(folder / "data.jsonl")
    assert costs() == {"temporal_order_20": every, "addition_10": every, "music_short": dict.fromkeys(every, 2)}
    rows = rows_of(path := folder / "ways_to_clip.jsonl")
    lost = [next(row for row in rows if row["seed"] == seed and row["task"] == task)["key"]
            for task, seed in (("temporal_order", 2), ("addition", 1))]  # fmt: skip
    path.unlink()
    nf.Store(path).add([row for row in rows if row["key"] not in lost])
    assert costs() == {
        "temporal_order_20": dict.fromkeys(every, 2), "music_short": dict.fromkeys(every, 2)
    }, "as many seeds as all alike have, and no task of which one alone is there"  # fmt: skip


def test_ctrl_c_in_any_stage_keeps_what_was_done_and_the_same_command_goes_on(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [*TINY, "--tasks", "temporal_order_20", "--variants", "norm", "none", "--out", str(tmp_path / "a")]
    sweep, calls = nf.sweep, []

    def interrupted(experiments: Any, seeds: Any, store: Any, **more: Any) -> Any:
        calls.append(len(experiments))
        some = experiments[: len(experiments) // 2]
        done = sweep(some, seeds, store, **more)
        return nf.Swept(done.runs, (len(experiments) - len(some)) * len(seeds), True)

    for stage in range(2):
        monkeypatch.setattr(script.nf, "sweep", interrupted if not stage else lambda *a, **k: (
            sweep(*a, **k) if len(a[0]) > 2 else interrupted(*a, **k)))  # fmt: skip
        code = script.main(arguments)
        assert_stopped(code, capsys.readouterr().out, "runs are missing", "ways_to_clip.jsonl", "goes on")
        assert not (tmp_path / "a" / "ways_to_clip.json").exists()
    monkeypatch.setattr(script.nf, "sweep", sweep)
    assert script.main(arguments) == 0
    assert script.main([*arguments[:-1], str(tmp_path / "b")]) == 0
    one, two = (rows_of(tmp_path / name / "ways_to_clip.jsonl") for name in "ab")
    assert {row["key"]: row["theta_sha256"] for row in one} == {row["key"]: row["theta_sha256"] for row in two}


def test_without_a_file_of_piano_rolls_that_task_is_left_out_and_said_to_be(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main([*TINY, "--tasks", "music", "--out", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "Piano rolls are left out: no --data." in said
    assert "nothing is written" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--variants", "none"], "variants lacks norm"),
        (["--tasks"], "tasks is empty; expected one"),
        (["--seeds", "1"], "seeds is 1; expected 2 to"),
        (["--budget", "0"], "budget is 0; expected a number above 0"),
        (["--tasks", "music", "--data", "nowhere.json"], "nowhere.json"),
    ],
)
def test_a_setting_that_makes_no_sense_is_one_clear_line(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert_refused(script, [*TINY, *arguments, "--out", str(tmp_path / "new")], words, capsys)


def test_one_thread_measures_the_cost_in_turns(script: Any) -> None:
    design = script.design
    every = {
        name: design.experiment(design.PLANS["temporal_order_20"], design.VARIANTS[name], (0.1, 0.5),
                                design.Scale(2, 1, 10, 5), tuning=False)
        for name in ("none", "norm")
    }  # fmt: skip
    found = design.cheapest(every, updates=3, rounds=2)
    assert list(found) == ["none", "norm"]
    assert all(0 < seconds < 1 for seconds in found.values())
