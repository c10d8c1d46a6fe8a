"""scripts/success_rate.py: what it counts, writes and refuses, on runs of a few updates."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from scripted import assert_help, assert_refused, assert_stopped, load

TINY = ["--lengths", "10", "12", "--inits", "sigmoid", "smart_tanh", "--seeds", "2", "--hidden", "6",
        "--batch-size", "3", "--budget", "0.004", "--evaluate-size", "20"]  # fmt: skip


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    success_rate = load(monkeypatch, "success_rate")

    with ThreadPoolExecutor(1) as executor:
        monkeypatch.setattr(success_rate, "executor_of", lambda options: executor)
        yield success_rate


def test_help_teaches_every_option() -> None:
    assert_help("success_rate.py", "figure 7 of Pascanu", "--budget", "units of 5,000", "dask://HOST:PORT")


def test_a_sweep_writes_store_table_picture_and_every_rate(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main([*TINY, "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    for words in ("0 of 2 (0 to 66)", "SGD + clipping + Omega", "SGD + Omega", "L = 12", "Solved within 20 updates"):
        assert words in out
    assert "75 %" in out.split("guessing")[1], "what whoever remembers nothing reaches"
    assert (tmp_path / "success_rate.png").read_bytes().startswith(b"\x89PNG")
    found = json.loads((tmp_path / "success_rate.json").read_text())
    assert len(found["cells"]) == 2 * 4 * 2
    assert {cell["runs"] for cell in found["cells"]} == {2}
    rows = [json.loads(line) for line in (tmp_path / "success_rate.jsonl").read_text().splitlines()]
    assert len(rows) == 32
    assert {row["cell"] for row in rows if row["init"] == "sigmoid"} == {"sigmoid"}
    before = (tmp_path / "success_rate.jsonl").stat().st_size
    assert script.main([*TINY, "--out", str(tmp_path)]) == 0
    assert (tmp_path / "success_rate.jsonl").stat().st_size == before, "nothing is run twice"


def test_a_compact_copy_is_drawn_again_without_a_run(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import compact

    with monkeypatch.context() as patch:
        patch.setattr(script, "check_code", lambda *_: None)
        assert script.main([*TINY, "--out", str(tmp_path / "a"), "--code", "made long ago"]) == 0
    assert compact.main([str(tmp_path / "a" / "success_rate.jsonl")]) == 0
    (tmp_path / "b").mkdir()
    copy = (tmp_path / "a" / "success_rate.jsonl.xz").read_bytes()
    (tmp_path / "b" / "success_rate.jsonl.xz").write_bytes(copy)
    monkeypatch.setattr("nbflow.experiments._group.train", None)
    assert script.main([*TINY, "--out", str(tmp_path / "b"), "--code", "made long ago"]) == 0
    cells = [json.loads((tmp_path / name / "success_rate.json").read_text())["cells"] for name in "ab"]
    assert cells[0] == cells[1]


def row(script: Any, init: str, method: str, length: int, passage: int | None, failure: str | None = None) -> Any:
    """Return a line as the store has it."""
    options = script.Options(lengths=(length,), inits=(init,), methods=(method,))
    (one,) = script.experiments(options).values()
    return {**one.flat, "failure": failure, **({} if failure else {"first_passage": passage})}


def test_every_method_is_told_from_its_line(script: Any) -> None:
    for method in script.Options().methods:
        assert script.method_of(row(script, "smart_tanh", method, 10, None)) == method


def test_rates_are_counted_by_first_weights_method_and_length(script: Any) -> None:
    runs = [row(script, "sigmoid", "sgd", 10, 500), row(script, "sigmoid", "sgd", 10, None),
            row(script, "sigmoid", "sgd", 20, 500), row(script, "smart_tanh", "clip+omega", 10, 500),
            row(script, "smart_tanh", "clip", 10, None, "ValueError: x")]  # fmt: skip
    assert script.count(runs) == [
        ("sigmoid", "sgd", 10, 1, 2, 0), ("sigmoid", "sgd", 20, 1, 1, 0), ("smart_tanh", "clip+omega", 10, 1, 1, 0),
        ("smart_tanh", "clip", 10, 0, 1, 1)]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "words"), [(["--hidden", "0"], "error: hidden is 0"), (["--batch-size", "0"], "batch_size is 0")]
)
def test_a_setting_that_makes_no_sense_is_one_clear_line_or_a_recorded_failure(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    script.main([*TINY, *arguments, "--out", str(tmp_path / "new")])
    assert words in capsys.readouterr().out


def test_an_executor_that_is_none_is_refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
                                             tmp_path: Path) -> None:  # fmt: skip
    success_rate = load(monkeypatch, "success_rate")

    words = "executor is 'slurm'; expected local or dask://HOST:PORT"
    assert_refused(success_rate, [*TINY, "--executor", "slurm", "--out", str(tmp_path)], words, capsys)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--code", "unknown"], "code is 'unknown', and the store lacks"),
        (["--inits", "foo"], "inits has 'foo'; expected some of"),
        (["--lengths", "5"], "length is 5"),
        (["--lengths"], "lengths, inits or methods is empty"),
        (["--budget", "nan"], "budget is nan; expected a number above 0"),
        (["--budget", "inf"], "budget is inf"),
        (["--threshold", "0"], "threshold is 0"),
        (["--alpha", "nan"], "alpha is nan"),
        (["--confidence", "2"], "confidence is 2; expected a number above 0 and below 1"),
    ],
)
def test_a_setting_that_makes_no_sense_is_one_clear_line_and_trains_nothing(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert_refused(script, [*TINY, *arguments, "--out", str(tmp_path / "new")], words, capsys)


def test_ctrl_c_says_how_many_runs_are_missing_and_where_the_others_are(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = script.nf.sweep

    def interrupted(experiments: Any, seeds: int, store: Path, **more: Any) -> Any:
        done = sweep(experiments[:3], seeds, store, **more)
        return script.nf.Swept(done.runs, 2 * (len(experiments) - 3), True)

    monkeypatch.setattr(script.nf, "sweep", interrupted)
    code = script.main([*TINY, "--out", str(tmp_path)])
    assert_stopped(code, capsys.readouterr().out, "Stopped early, 26 runs are missing", "success_rate.jsonl", "goes on")
    assert json.loads((tmp_path / "success_rate.json").read_text())["missing"] == 26
