"""scripts/descent.py: directions, lengths and descent over several networks, on tiny ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cases import CLIPS
from scripted import assert_help, assert_refused, fixture_of
from tolerance import within

TINY = ["--networks", "2", "--moments", "5", "15", "--length", "10", "--hidden", "40", "--batch-size", "4",
        "--minibatches", "8", "--of-true", "3", "--true-size", "50"]  # fmt: skip
script = fixture_of("descent")


def test_help_teaches() -> None:
    assert_help("descent.py", "Over networks, the true loss too", "--of-true", "Ctrl-C")


def test_every_network_has_a_line_and_a_joint_scale_keeps_the_direction(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main([*TINY, "--out", str(tmp_path)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "32 clipped gradients of 2 networks" in said
    rows = [json.loads(line) for line in (tmp_path / "descent.jsonl").read_text().splitlines()]
    assert [row["seed"] for row in rows] == [0, 1]
    for row in rows:
        assert [moment["updates"] for moment in row["moments"]] == [5, 15]
        for moment in row["moments"]:
            assert set(moment["rules"]) == set(CLIPS)
            for name in ("norm", "normalize"):
                assert moment["rules"][name]["cosine"][0] > 1 - within("float32")
                assert moment["rules"][name]["longest"] <= 1 + within("float32")
            value = moment["rules"]["value"]
            assert (value["steps"], value["true_steps"]) == (8, 3)
            assert value["descends"] == 8
            assert value["decrease"] > 0
    assert (tmp_path / "descent.png").stat().st_size > 10_000
    assert script.main([*TINY, "--out", str(tmp_path)]) == 0
    assert len((tmp_path / "descent.jsonl").read_text().splitlines()) == 2, "nothing is run twice"


def test_parts_are_means_over_networks(script: Any) -> None:
    def row(*counts: int) -> dict[str, Any]:
        return {"moments": [{"rules": {"value": {"descends": count, "steps": 10}}} for count in counts]}

    part = script.part_of([row(10, 10), row(10, 0)], "value", "descends", "steps")
    assert (part.mean, part.count) == (0.75, 2)
    assert part.low < 0.5 < 1.0 < part.high
    assert script.words(part) == "75.0 % (0.0-100.0)"


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        (["--networks", "1"], "networks is 1; expected at least 2"),
        (["--moments", "10", "5"], "moments is (10, 5); expected rising"),
        (["--moments"], "moments is empty"),
        (["--part", "2"], "part is 2"),
        (["--lr", "0"], "lr is 0"),
    ],
)
def test_a_wrong_option_is_one_clear_error(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: list[str], found: str
) -> None:
    assert_refused(script, [*TINY, *wrong, "--out", str(tmp_path / "new")], found, capsys)
