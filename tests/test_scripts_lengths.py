"""scripts/lengths.py: what it keeps, measures and says, on networks of a few units."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripted import assert_help, assert_refused, fixture_of

import nbflow as nf

TINY = ["--seeds", "1", "--lengths", "10", "30", "--size", "100", "--hidden", "8", "--budget", "0.0001"]
script = fixture_of("lengths")


@pytest.fixture(autouse=True)
def short(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "STAGES", (((10, 12), 0.1, 1.0, 20_000), ((10, 20), 0.01, 0.0001, 40_000)))
    monkeypatch.setattr(script, "EVALUATE_EVERY", 2)
    monkeypatch.setattr(script, "RECORD_EVERY", 1)
    monkeypatch.setattr(script, "PARTS", {"wait": 3, "gap": 4, "tail": 5})
    monkeypatch.setattr(script, "STRETCHED", (6, 20))
    monkeypatch.setattr(script, "STRETCHED_SIZE", 50)
    monkeypatch.setattr(script, "STARTS", 5)
    monkeypatch.setattr(script, "SETTLED", 50)


def run(script: Any, *arguments: str) -> int:
    with ThreadPoolExecutor(1) as executor:
        return int(script.main([*TINY, *arguments], executor))


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "lengths.jsonl").read_text().splitlines()]


def test_help_teaches() -> None:
    assert_help("lengths.py", "What must be robust must be trained", "--report-only", "Ctrl-C")


def test_a_run_writes_store_tables_picture_and_goes_on_where_it_was(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(script, "--out", str(tmp_path)) == 0
    said = " ".join(capsys.readouterr().out.split())
    for words in ("What became of each arm", "Wrong of 100", "One part stretched, wrong of 50", "picture:"):
        assert words in said
    rows = rows_of(tmp_path)
    kinds = [row["kind"] for row in rows]
    assert (kinds.count("training"), kinds.count("measurement"), kinds.count("stretched")) == (4, 2 * 2 + 2 * 4, 12)
    assert all(row["processor"] and row["code"] for row in rows)
    points = [row for row in rows if row["kind"] == "points"]
    assert len(points) == 4
    for row in points:
        for when in ("before", "after"):
            seen = row[when]
            assert sum(seen["reached"]) <= 4 * 5 - seen["lost"]
            assert len(seen["largest"]) == seen["attracting"]
            assert all(value < 1 for value in seen["largest"])
    for row in rows:
        if row["kind"] == "training":
            assert all(0 <= part <= 1 for part in row["clipped_part"])
            assert sum(row["updates_by_stage"]) == row["updates"]
    assert (tmp_path / "lengths.png").read_bytes().startswith(b"\x89PNG")
    assert run(script, "--out", str(tmp_path), "--report-only") == 0
    assert run(script, "--out", str(tmp_path), "--lengths", "10", "20", "30") == 0
    more = rows_of(tmp_path)
    assert more[: len(rows)] == rows, "nothing is run twice"
    assert {row["length"] for row in more[len(rows) :]} == {20}


def test_what_is_measured_is_the_network_in_the_store(script: Any, tmp_path: Path) -> None:
    assert run(script, "--out", str(tmp_path), "--places", "paper", "--methods", "clip") == 0
    (trained,) = [row for row in rows_of(tmp_path) if row["kind"] == "training"]
    (measured,) = [row for row in rows_of(tmp_path) if row["kind"] == "measurement" and row["length"] == 30]
    task, net = nf.load_task("temporal_order"), script.network(8)
    theta = script.theta_of(trained["theta"])
    batch = task.sample(seed=script.MEASURE_SEED, index=0, batch_size=100, length=30, stream="evaluation")
    assert measured["wrong"] == task.wrong(nf.predict(net, theta, batch.inputs), batch).sum()


def test_stretched_sequences_are_what_they_say(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def predict(net: Any, theta: Any, tokens: Any) -> Any:
        seen.append(tokens)
        symbols = np.sort(np.nonzero((tokens < 2).T)[1].reshape(-1, 2))
        first, second = (tokens[place, np.arange(tokens.shape[1])] for place in symbols.T)
        return np.eye(4)[first + 2 * second][None]

    monkeypatch.setattr(script.nf, "predict", predict)
    parts = {"wait": 3, "gap": 4, "tail": 5}
    assert script.wrong_stretched(8, None, parts, 40, 0) == 0
    (tokens,) = seen
    assert tokens.shape == (3 + 1 + 4 + 1 + 5, 40)
    assert (np.nonzero((tokens < 2).all(axis=1))[0] == [3, 8]).all()
    assert ((tokens < 2).sum(axis=0) == 2).all()
    assert len(np.unique(tokens[[3, 8]], axis=1).T) == 4


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        (["--lengths", "5"], "lengths has 5; expected at least 10"),
        (["--seeds", "0"], "seeds is 0"),
        (["--places"], "places is empty"),
        (["--workers", "0"], "workers is 0"),
        (["--report-only"], "report_only asks for"),
    ],
)
def test_a_wrong_option_is_one_clear_error(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: list[str], found: str
) -> None:
    assert_refused(script, [*TINY, *wrong, "--out", str(tmp_path / "new")], found, capsys)
