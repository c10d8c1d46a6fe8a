"""scripts/single_steps.py: directions, lengths and ways out of overflow, on tiny networks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import CLIPS
from scripted import assert_help, assert_refused, assert_stopped, fixture_of
from tolerance import near, within

import nbflow as nf

TINY = ["--moments", "5", "15", "--length", "10", "--hidden", "40", "--batch-size", "4", "--minibatches", "8",
        "--depths", "0.01", "30", "--replicas", "2", "--updates", "12"]  # fmt: skip

script = fixture_of("single_steps")


def test_help_teaches_every_option() -> None:
    assert_help("single_steps.py", "Usage:", "--depths", "--minibatches", "How far every rule shortens the gradients")


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


def test_the_brink_lies_between_a_finite_gradient_and_an_overflow(script: Any) -> None:
    task = nf.load_task("temporal_order")
    net = nf.Network("tanh", task.n_in, 40, task.n_out)
    theta = nf.init(net, "smart_tanh", rng=0, replicas=2)
    batch = task.sample(seed=0, index=0, batch_size=4, length=400, replicas=2)
    brink = script.brinks(net, theta, batch)
    for factor, wanted in ((brink, False), (0.999 * brink, True)):
        d = nf.gradient(net, script.stretched(net, theta, factor), batch).d_theta
        assert np.isfinite(d).all(axis=1).tolist() == [wanted] * 2


def test_a_network_far_beyond_the_brink_is_not_said_to_be_out(script: Any) -> None:
    options = script.Options(updates=10)
    assert script.said(options, script.Escape(1.0, "", [None, None])).endswith("-")
    assert "update 3" in script.said(options, script.Escape(1.0, "", [3, None]))
    assert "1 of 2" in script.said(options, script.Escape(1.0, "", [3, None]))
    assert options.threshold == near(1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--moments", "0"], "moments is 0; expected numbers above 0"),
        (["--moments"], "moments is empty"),
        (["--depths"], "depths is empty"),
        (["--depths", "-1", "0.5"], "depths is -1"),
        (["--depths", "nan"], "depths is nan"),
        (["--minibatches", "0"], "minibatches is 0; expected at least 1"),
        (["--replicas", "0"], "replicas is 0"),
        (["--updates", "0"], "updates is 0"),
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
    monkeypatch.setattr(script, "brinks", lambda *_: pytest.fail("it runs"))
    assert_refused(script, [*TINY, *arguments, "--out", str(tmp_path / "new")], words, capsys)


@pytest.mark.parametrize(("part", "calls", "moments"), [("train", 0, 0), ("look_at", 0, 0), ("look_at", 1, 1)])
def test_an_interruption_keeps_what_was_seen_and_what_was_there(
    script: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    part: str,
    calls: int,
    moments: int,
) -> None:
    (tmp_path / "single_steps.json").write_text("{}")
    real, seen = getattr(script, part), []

    def interrupt(*arguments: Any) -> Any:
        if len(seen) == calls:
            raise KeyboardInterrupt
        seen.append(real(*arguments))
        return seen[-1]

    monkeypatch.setattr(script, part, interrupt)
    code = script.main([*TINY, "--out", str(tmp_path)])
    assert_stopped(code, capsys.readouterr().out, "single_steps.interrupted.json")
    found = json.loads((tmp_path / "single_steps.interrupted.json").read_text())
    assert found["interrupted"]
    assert (len(found["escapes"]), len(found["moments"])) == (6, moments)
    assert (tmp_path / "single_steps.interrupted.png").stat().st_size > 10_000
    assert (tmp_path / "single_steps.json").read_text() == "{}"


def test_an_interruption_before_anything_was_seen_writes_nothing(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(script, "escape", interrupt)
    code = script.main([*TINY, "--out", str(tmp_path / "none")])
    assert_stopped(code, capsys.readouterr().out, "nothing is written")
    assert not (tmp_path / "none").exists()


def test_the_picture_of_an_interrupted_run_says_nothing_of_what_it_lacks(script: Any) -> None:
    escapes = [script.Escape(1.0, way, [3, None]) for way in script.WAYS]
    found = script.pictures.draw(script.Options(), [], escapes)
    said = " ".join(text.get_text() for text in found.texts)
    assert "networks at each depth" in said
    assert "minibatches" not in said
    assert [axes.axison for axes in found.axes] == [False, False, True]
