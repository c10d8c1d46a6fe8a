"""scripts/brink.py: where gradients begin to overflow, and ways out of it, on tiny networks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripted import assert_help, assert_refused, assert_stopped, fixture_of

import nbflow as nf

TINY = ["--depths", "30", "0.01", "--networks", "2", "--updates", "12", "--hidden", "40", "--batch-size", "4"]

script = fixture_of("brink")


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "brink.jsonl").read_text().splitlines()]


def test_help_teaches() -> None:
    assert_help("brink.py", "Usage:", "--depths", "How far beyond the brink", "Ctrl-C")


def test_the_brink_lies_between_a_finite_gradient_and_an_overflow(script: Any) -> None:
    task = nf.load_task("temporal_order")
    net = nf.Network("tanh", task.n_in, 40, task.n_out)
    theta = nf.init(net, "smart_tanh", rng=0, replicas=2)
    batch = task.sample(seed=0, index=0, batch_size=4, length=400, replicas=2)
    brink = script.brinks(net, theta, batch)
    for factor, wanted in ((brink, False), (0.999 * brink, True)):
        d = nf.gradient(net, script.stretched(net, theta, factor), batch).d_theta
        assert np.isfinite(d).all(axis=1).tolist() == [wanted] * 2


def test_who_stands_at_the_brink_gets_out_and_who_is_far_beyond_it_does_not(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert script.main([*TINY, "--out", str(tmp_path)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for words in ("Networks with a finite gradient within 12 updates", "0.01 v", "picture:"):
        assert words in said
    rows = rows_of(tmp_path)
    assert [(row["depth"], row["way"]) for row in rows] == [(depth, way) for depth in (0.01, 30) for way in script.WAYS]
    until = {(row["depth"], row["way"]): row["until"] for row in rows}
    assert None not in until[0.01, "no step, fresh minibatches"]
    assert all(until[30, way] == [None, None] for way in script.WAYS)
    assert (tmp_path / "brink.png").stat().st_size > 10_000
    monkeypatch.setattr(script.nf, "train", None)
    assert script.main([*TINY, "--out", str(tmp_path)]) == 0
    assert rows_of(tmp_path) == rows, "nothing is run twice"


def test_the_minibatch_that_overflowed_does_so_at_once_and_does_not_change_where_no_step_is_made(
    script: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(script.WAYS, "no step, the same minibatch", ("skip", True))
    options = script.Options(networks=2, updates=5, hidden=40, batch_size=4)
    net = options.net
    theta = nf.init(net, "smart_tanh", rng=0, replicas=2)
    start = script.stretched(net, theta, script.brinks(net, theta, options.fresh(0)))
    assert script.escape(options, start, "no step, the same minibatch") == [None, None]
    assert script.escape(options, theta, "no step, the same minibatch") == [1, 1]


def test_of_half_the_networks_the_median_is_said(script: Any) -> None:
    assert script.said([None, None]).endswith("0 of 2 (0-66 %), none in half")
    assert script.said([3, None]).endswith("update 3")
    assert script.said([3, None, None]).endswith("none in half")
    assert script.said([9, 3, 5]).endswith("update 5")


def test_a_step_is_held_against_none_over_the_same_networks(script: Any) -> None:
    same, step, none = script.WAYS
    until = {(1.0, step): [1, 1, None, 4], (1.0, none): [None] * 4, (2.0, step): [None, 3], (2.0, none): [3, None]}
    rows = [{"depth": depth, "way": way, "updates": 5, "until": one} for (depth, way), one in until.items()]
    rows += [{"depth": 3.0, "way": way, "updates": 5, "until": [1]} for way in (same, step)]
    found = script.compared(rows)
    assert [(depth, one["gained"], one["lost"], one["p"], one["adjusted"]) for depth, one in found.items()] == [
        (1.0, 3, 0, 0.25, 0.5), (2.0, 1, 1, 1.0, 1.0),
    ]  # fmt: skip
    assert found[1.0]["difference"]["value"] == 0.75
    assert "+75 (" in (cells := list(script.table(rows).columns[-1].cells))[0]
    assert cells[2] == "-"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--depths"], "depths is empty"),
        (["--depths", "-1", "0.5"], "depths is -1"),
        (["--depths", "0"], "depths is 0"),
        (["--depths", "nan"], "depths is nan"),
        (["--depths", "inf"], "depths is inf"),
        (["--networks", "0"], "networks is 0"),
        (["--updates", "0"], "updates is 0"),
        (["--threshold", "inf"], "threshold is inf"),
        (["--length", "20", "--hidden", "3"], "length is 20; expected more, as some gradients stay finite"),
    ],
)
def test_nonsense_is_refused_in_one_line_and_nothing_is_written(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert_refused(script, [*TINY, *arguments, "--out", str(tmp_path / "new")], words, capsys)


def test_ctrl_c_keeps_what_is_done_and_the_same_command_goes_on(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, seen = script.escape, []

    def interrupt(*arguments: Any) -> Any:
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(real(*arguments))
        return seen[-1]

    monkeypatch.setattr(script, "escape", interrupt)
    assert_stopped(script.main([*TINY, "--out", str(tmp_path)]), capsys.readouterr().out, "brink.jsonl")
    first = rows_of(tmp_path)
    assert len(first) == 2
    monkeypatch.setattr(script, "escape", real)
    assert script.main([*TINY, "--out", str(tmp_path)]) == 0
    assert rows_of(tmp_path)[:2] == first
    assert len(rows_of(tmp_path)) == 6
