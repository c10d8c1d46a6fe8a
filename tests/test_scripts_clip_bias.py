"""scripts/clip_bias.py: what it writes, says and refuses, on tiny networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import CLIPS
from scripted import assert_help, assert_refused, assert_stopped, fixture_of, read, write_tunes
from tolerance import near

TINY = ["--length", "10", "--hidden", "6", "--batch-size", "4", "--group", "2", "--early", "5", "--late", "15",
        "--minibatches", "10", "--resamples", "20", "--part", "0.9", "--roll-hidden", "5", "--roll-updates", "3",
        "--roll-batch-size", "2"]  # fmt: skip

script = fixture_of("clip_bias")


@pytest.fixture
def tunes(tmp_path: Path) -> Path:
    return write_tunes(tmp_path / "short.json")


def test_help_teaches_every_option() -> None:
    assert_help("clip_bias.py", "Usage:", "--data", "--minibatches", "mean norm after clipping over mean norm before")


def test_a_run_writes_numbers_and_two_pictures(
    script: Any, tunes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert script.main([*TINY, "--data", str(tunes), "--out", str(out)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for words in ("way of clipping", "each example", "Clipping by norm keeps", "10 minibatches, 40 examples", "Piano"):
        assert words in said
    assert "left out" not in said
    assert sorted(path.name for path in out.iterdir()) == ["clip_bias.json", "clip_bias.png", "clip_bias_who.png"]
    for name in ("clip_bias.png", "clip_bias_who.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    found = read(out / "clip_bias.json")
    search = 4 * 1e-4  # where the search for thresholds ends, in log2 of them
    assert found["options"]["data"] == "short.json"
    assert list(found["stages"]) == ["early", "late", "rolls"]
    for stage in found["stages"].values():
        assert len(stage["norms"]) == 10
        assert sum(part or 0 for part in stage["share_by_kind"]) == near(1, "float32")
        assert set(stage["rules"]) == set(stage["thresholds"])
        assert {"norm", "value", "each unit", "each example", "groups of 2"} <= set(stage["rules"])
        # All ways shorten gradients alike: that is what makes them comparable.
        assert all(rule["strength"] == pytest.approx(0.9, abs=search) for rule in stage["rules"].values())
        averages = stage["average_of_clipped"]
        assert np.shape(averages["cosine"]) == (len(averages["sizes"]), len(averages["thresholds"]))
        assert averages["norm_ratio"][0][-1] == near(1, "float32", 1, 200)


def test_without_a_file_of_piano_rolls_that_part_is_left_out_and_said_to_be(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main([*TINY, "--out", str(tmp_path)]) == 0
    assert "Piano rolls are left out: no --data." in capsys.readouterr().out
    assert list(read(tmp_path / "clip_bias.json")["stages"]) == ["early", "late"]


def test_a_way_that_cannot_shorten_so_far_is_named(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main([*TINY, "--part", "0.01", "--out", str(tmp_path)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "shorten it to 0.01: inside, preactivation value; inside" in said
    assert "inside, state norm" not in read(tmp_path / "clip_bias.json")["stages"]["late"]["rules"]


def test_a_new_rule_is_measured_as_soon_as_its_file_is_there(script: Any) -> None:
    """Under its own name, unless it remembers: the bias is that of minibatches that know nothing of each other."""
    ways = script.ways(script.Options())
    assert ways["smoothed"].rule == "smoothed"
    assert {how.rule for how in ways.values() if isinstance(how, script.nf.Clip)} == set(CLIPS)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--late", "5"], "late is 5; expected at least 6"),
        (["--group", "3"], "group is 3; expected a divisor of batch_size, 4"),
        (["--part", "1.5"], "part is 1.5"),
        (["--init", "nope"], "expected one of"),
        (["--data", "nowhere.json"], "nowhere.json"),
    ],
)
def test_a_setting_that_makes_no_sense_is_one_clear_line(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert_refused(script, [*TINY, *arguments, "--out", str(tmp_path / "new")], words, capsys)


def test_ctrl_c_keeps_the_stages_that_were_done(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = script.measure

    def interrupt(options: Any, stage: Any, show: Any) -> Any:
        if stage.name == "late":
            raise KeyboardInterrupt
        return measure(options, stage, show)

    monkeypatch.setattr(script, "measure", interrupt)
    code = script.main([*TINY, "--out", str(tmp_path)])
    assert_stopped(code, capsys.readouterr().out, "clip_bias.json", "clip_bias_who.png")
    assert list(read(tmp_path / "clip_bias.json")["stages"]) == ["early"]
    monkeypatch.setattr(script, "temporal_order", interrupt_at_once)
    assert script.main([*TINY, "--out", str(tmp_path / "new")]) == 130
    assert not (tmp_path / "new").exists()


def interrupt_at_once(*arguments: Any) -> Any:
    raise KeyboardInterrupt
