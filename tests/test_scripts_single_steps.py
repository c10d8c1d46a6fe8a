"""scripts/single_steps.py: directions and lengths, on tiny networks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cases import CLIPS
from scripted import assert_help, assert_refused, assert_stopped, fixture_of
from tolerance import within

TINY = ["--moments", "5", "15", "--length", "10", "--hidden", "40", "--batch-size", "4", "--minibatches", "8"]

script = fixture_of("single_steps")


def test_help_teaches_every_option() -> None:
    assert_help("single_steps.py", "Usage:", "--moments", "--minibatches", "How far every rule shortens the gradients")


def test_a_joint_scale_keeps_the_direction_and_values_still_descend(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main([*TINY, "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "single_steps.json").read_text())
    assert [moment["updates"] for moment in found["moments"]] == [5, 15]
    for moment in found["moments"]:
        rules = moment["rules"]
        assert set(rules) == set(CLIPS)
        for name in ("norm", "normalize"):
            assert min(rules[name]["cosine"]) > 1 - within("float32")
            assert max(rules[name]["length"]) <= rules[name]["threshold"] * (1 + within("float32"))
        assert 0 < min(rules["value"]["cosine"]) < max(rules["value"]["cosine"]) <= 1 + within("float32")
        assert all(rules["value"]["descends"])
        for steps in rules.values():
            assert [gain > 0 for gain in steps["decrease"]] == steps["descends"]  # the plain step descends here
    assert (tmp_path / "single_steps.png").stat().st_size > 10_000
    assert "descends" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--moments", "0"], "moments is 0; expected numbers above 0"),
        (["--moments"], "moments is empty"),
        (["--minibatches", "0"], "minibatches is 0; expected at least 1"),
        (["--part", "2"], "part is 2; expected a number above 0 and below 1"),
        (["--threshold", "inf"], "threshold is inf"),
        (["--lr", "0"], "lr is 0"),
        (["--alpha", "-1"], "alpha"),
    ],
)
def test_nonsense_is_refused_in_one_line_before_anything_runs(
    script: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.setattr(script, "train", lambda *_: pytest.fail("it runs"))
    assert_refused(script, [*TINY, *arguments, "--out", str(tmp_path / "new")], words, capsys)


def test_an_interruption_keeps_what_was_seen_and_what_was_there(
    script: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "single_steps.json").write_text("{}")
    real, seen = script.look_at, []

    def interrupt(*arguments: Any) -> Any:
        if len(seen) == 1:
            raise KeyboardInterrupt
        seen.append(real(*arguments))
        return seen[-1]

    monkeypatch.setattr(script, "look_at", interrupt)
    code = script.main([*TINY, "--out", str(tmp_path)])
    assert_stopped(code, capsys.readouterr().out, "single_steps.interrupted.json")
    found = json.loads((tmp_path / "single_steps.interrupted.json").read_text())
    assert found["interrupted"]
    assert len(found["moments"]) == 1
    assert (tmp_path / "single_steps.interrupted.png").stat().st_size > 10_000
    assert (tmp_path / "single_steps.json").read_text() == "{}"


@pytest.mark.parametrize("part", ["train", "look_at"])
def test_an_interruption_before_anything_was_seen_writes_nothing(
    part: str, script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(script, part, interrupt)
    code = script.main([*TINY, "--out", str(tmp_path / "none")])
    assert_stopped(code, capsys.readouterr().out, "nothing is written")
    assert not (tmp_path / "none").exists()
