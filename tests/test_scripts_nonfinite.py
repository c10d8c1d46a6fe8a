"""scripts/nonfinite.py: what each policy does after an overflow, and what is said of it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripted import assert_help, assert_refused, assert_stopped, fixture_of, read

TINY = ["--hidden", "8", "--batch-size", "4", "--replicas", "2", "--updates", "40"]

script = fixture_of("nonfinite")


def test_help_teaches_every_option() -> None:
    assert_help("nonfinite.py", "Usage:", "--policies", "--scenarios", "Ways into overflow")


def test_after_one_bad_minibatch_all_go_on_but_keep_and_raise(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main([*TINY, "--length", "10", "--scenarios", "minibatch", "--out", str(tmp_path)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "raise, at update 20: the gradient of replica 0 is not finite in" in said
    found = {result["policy"]: result for result in read(tmp_path / "nonfinite.json")["results"]}
    assert list(found) == ["random", "skip", "zero", "shrink", "keep", "raise"]
    for policy in ("random", "skip", "zero", "shrink"):
        assert np.flatnonzero(np.sum(found[policy]["history"]["nonfinite"], axis=1)).tolist() == [19]
        assert found[policy]["recovered"] == 2
        assert math.isfinite(found[policy]["loss_after"])
    assert np.flatnonzero(np.sum(found["keep"]["history"]["nonfinite"], axis=1)).tolist() == list(range(19, 40))
    assert found["keep"]["recovered"] == 0
    assert found["keep"]["loss_after"] is None
    # Nothing is trained after an error, and all saw the same until then.
    assert len(found["raise"]["history"]["loss"]) == 19
    for result in found.values():
        assert result["history"]["loss"][:19] == found["skip"]["history"]["loss"][:19]
    assert (tmp_path / "nonfinite.png").read_bytes().startswith(b"\x89PNG")


def test_from_an_overflow_of_the_states_only_a_smaller_w_rec_leads_back(script: Any) -> None:
    options = script.Options(hidden=8, batch_size=4, replicas=2, updates=60)
    results = {policy: script.train(options, "state", policy) for policy in ("random", "skip", "zero", "shrink")}
    for policy in ("random", "skip", "zero"):
        assert results[policy].bad.all()
        assert results[policy].recovered == 0
    back = results["shrink"]
    assert back.recovered == 2
    assert back.bad[0].all()
    # w_rec is 0.98 of what it was after each such update: it takes some to get from 3 to what fits in float32.
    assert 5 < back.last_bad < 40
    assert all(math.isfinite(loss) for loss in back.before)


def test_the_gradient_overflows_on_its_way_back_though_the_loss_is_finite(script: Any) -> None:
    found = script.train(script.Options(replicas=1, updates=3), "gradient", "skip")
    assert found.bad.all()
    assert np.isfinite(found.losses).all()


def test_a_setting_that_makes_no_sense_is_one_clear_line(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = [*TINY, "--threshold", "-1", "--out", str(tmp_path / "new")]
    assert_refused(script, wrong, "error: threshold is -1", capsys)


def test_ctrl_c_keeps_the_policies_that_were_tried(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    train = script.train

    def interrupt(options: Any, name: str, policy: str) -> Any:
        if policy == "zero":
            raise KeyboardInterrupt
        return train(options, name, policy)

    monkeypatch.setattr(script, "train", interrupt)
    given = [*TINY, "--length", "10", "--scenarios", "minibatch"]
    code = script.main([*given, "--out", str(tmp_path)])
    assert_stopped(code, capsys.readouterr().out, str(tmp_path / "nonfinite.json"))
    assert [result["policy"] for result in read(tmp_path / "nonfinite.json")["results"]] == ["random", "skip"]
    assert script.main([*given, "--policies", "zero", "--out", str(tmp_path / "new")]) == 130
    assert not (tmp_path / "new").exists()
