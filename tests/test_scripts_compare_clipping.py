"""scripts/compare_clipping.py: its design, its verdicts on made-up runs, and all of it on runs of a few updates."""

from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scripted import assert_help, assert_refused, assert_stopped, load, write_tunes

import nbflow as nf

TINY = ["--budget", "0.0001", "--hidden", "5", "--evaluate-size", "10", "--seeds", "2"]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give the script with few looks and seeds, and threads in place of processes."""
    found = load(monkeypatch, "compare_clipping")

    for name, value in {
        "LOOKS": 2,
        "LOOK_UPDATES": 4,
        "LOOK_EVERY": 2,
        "TUNING_SEEDS": range(1_000_000, 1_000_002),
    }.items():
        monkeypatch.setattr(found.design, name, value)
    monkeypatch.setattr(found, "alone", lambda call, *given, **named: call(*given, **named))
    with ThreadPoolExecutor(1) as executor:
        monkeypatch.setattr(found, "executor_of", lambda name: executor)
        yield found


@pytest.fixture
def tunes(tmp_path: Path) -> Path:
    return write_tunes(tmp_path / "short.json")


def rows_of(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# --- The design.


def test_tuning_gives_every_variant_as_many_settings(script: Any) -> None:
    design = script.design
    found = {variant.measure: [0.01, 0.1, 0.2, 0.3] for variant in design.VARIANTS.values() if variant.measure}
    every = {name: design.settings(variant, found) for name, variant in design.VARIANTS.items()}
    assert {len(set(settings)) for settings in every.values()} == {16}
    assert {max(settings)[0] for name, settings in every.items() if name != "random_rare"} == {design.LRS[-1]}
    assert {v for _, v in every["none"]} == {math.inf}
    assert {v for _, v in every["normalize"]} == {0.2}
    assert {v for _, v in every["value"]} == {0.01, 0.1, 0.2, 0.3}
    for name, settings in every.items():
        ends = [design.at_an_end(design.VARIANTS[name], lr) for lr in sorted({lr for lr, _ in settings})]
        assert ends == [True, *[False] * (len(ends) - 2), True]


def test_seeds_of_thresholds_tuning_and_comparison_are_never_the_same(script: Any) -> None:
    design = script.design
    assert not set(design.TUNING_SEEDS) & set(design.LOOK_SEEDS)
    assert min(*design.TUNING_SEEDS, *design.LOOK_SEEDS) >= design.MOST_SEEDS
    assert max(*design.TUNING_SEEDS, *design.LOOK_SEEDS) < 2**24


def test_every_clip_of_the_package_is_compared(script: Any) -> None:
    of_stacks = {"layer"}  # the norm rule, for a network of one layer
    assert set(nf.names("clips")) - of_stacks <= set(script.VARIANTS)
    assert len(script.design.DEFAULT) == 13
    later = {"random_rare", "smoothed", "error_feedback", "adagc", "spam"}
    assert set(script.VARIANTS) - set(script.design.DEFAULT) == later


def test_variants_differ_in_the_clip_alone_and_all_leave_out_what_is_not_finite(script: Any) -> None:
    design = script.design
    every = {
        name: design.experiment(design.PLANS["addition_10"], variant, 0.1, 0.5, budget=1.0, hidden=5, evaluate_size=10,
                                tuning=True)
        for name, variant in design.VARIANTS.items()
    }  # fmt: skip
    nothing = {"clip": None, "clip_hidden": None, "clip_example": None, "clip_microbatch": None}
    assert len({json.dumps(replace(one, recipe=replace(one.recipe, **nothing)).described)
                for one in every.values()}) == 1  # fmt: skip
    assert {one.recipe.clip.nonfinite for one in every.values()} == {"skip"}
    assert len({json.dumps(one.described) for one in every.values()}) == 17  # a step at random is one, however rare


def test_thresholds_are_quantiles_of_what_is_finite_and_beyond_them_on_both_sides(script: Any) -> None:
    looks = [{"norm": [1.0, 2.0, None]}, {"norm": [math.inf, 3.0, math.nan]}]
    found = script.design.thresholds(looks)
    assert {name: found.pop(name) for name in script.design.GRIDS} == {k: [*v] for k, v in script.design.GRIDS.items()}
    assert found == {"norm": [0.12, 1.2, 2.0, 2.8], "norm_rare": [2.9, 2.98, 3.0, 30.0]}


# --- All of it.


def test_help_teaches_every_option() -> None:
    assert_help("compare_clipping.py", "EQUIVALENT", "two one-sided", "--budget", "--workers", "go on where")


def test_variants_are_tuned_compared_written_and_never_trained_twice(
    script: Any, tmp_path: Path, tunes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    some = ["norm", "none", "hidden_state_norm"]
    arguments = [*TINY, "--tasks", "temporal_order_20", "music", "--data", str(tunes), "--variants", *some,
                 "--out", str(tmp_path)]  # fmt: skip
    assert script.main(arguments) == 0, capsys.readouterr().out
    out = capsys.readouterr().out
    for words in ("temporal order, 20 steps: tuning: 96 runs", "can't tell", "inside, state, norm"):
        assert words in out
    found = json.loads((tmp_path / "compare_clipping.json").read_text())
    assert set(found["tasks"]) == {"temporal_order_20", "music"}
    for task in found["tasks"].values():
        assert list(task["variants"]) == some
        assert {one["tuning_runs"] for one in task["variants"].values()} == {32}
        assert {one["runs"] for one in task["variants"].values()} == {2}
        assert {one["failed"] for one in task["variants"].values()} == {0}
        assert all(one["update_relative_to_none"] > 0 for one in task["variants"].values())
    rows = rows_of(tmp_path / "compare_clipping.jsonl")
    assert len(rows) == 2 * 3 * (32 + 2)
    assert {row["seed"] for row in rows} == {0, 1, *script.design.TUNING_SEEDS}
    assert len({row["task.held_out"] for row in rows if "task.held_out" in row}) == 2, "tuned on valid, tested on test"
    for name in ("", "_temporal_order_20", "_music"):
        assert (tmp_path / f"compare_clipping{name}.png").read_bytes().startswith(b"\x89PNG")
    before = {
        name: (tmp_path / name).read_bytes() for name in ("compare_clipping.jsonl", "compare_clipping.prepared.jsonl")
    }
    assert script.main(arguments) == 0
    assert {name: (tmp_path / name).read_bytes() for name in before} == before, "nothing is run twice"
    again = json.loads((tmp_path / "compare_clipping.json").read_text())
    assert again == found
    assert script.main([*arguments, "--code", found["code"]]) == 0
    capsys.readouterr()
    assert script.main([*arguments, "--code", "old"]) == 2
    assert "code is 'old'" in capsys.readouterr().out
    assert {name: (tmp_path / name).read_bytes() for name in before} == before, "another code's name trains nothing"


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
        assert_stopped(code, capsys.readouterr().out, "runs are missing", "compare_clipping.jsonl", "goes on")
        assert not (tmp_path / "a" / "compare_clipping.json").exists()
    monkeypatch.setattr(script.nf, "sweep", sweep)
    assert script.main(arguments) == 0
    assert script.main([*arguments[:-1], str(tmp_path / "b")]) == 0
    one, two = (rows_of(tmp_path / name / "compare_clipping.jsonl") for name in "ab")
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
