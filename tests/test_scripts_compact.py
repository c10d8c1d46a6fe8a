"""scripts/compact.py: what a compact copy keeps, who reads it, and that a script draws from it without a run."""

from __future__ import annotations

import json
import lzma
import math
import subprocess
from pathlib import Path
from typing import Any

import pytest
from scripted import SCRIPTS, assert_help, assert_refused, fixture_of

from nbflow.storage.compact import unpacked
from nbflow.storage.store import Store

ROOT = SCRIPTS.parent
ROWS = [
    {"key": f"r{9 - k}", "code": "old" if k < 2 else "new", "loss": math.inf if k == 3 else k / 7,
     "evaluations": {"update": [1, 2], "score": [0.1, k / 3]}, "history": {"loss": [0.1] * 1000}}
    for k in range(9)
]  # fmt: skip

script = fixture_of("compact")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    Store(tmp_path / "runs.jsonl").add(ROWS)
    return tmp_path / "runs.jsonl"


def without_history(rows: Any) -> Any:
    found = [{name: value for name, value in row.items() if name != "history"} for row in rows]
    return sorted(found, key=lambda row: row["key"])


def test_a_copy_has_every_number_but_the_histories(
    script: Any, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main([str(store)]) == 0
    copy = store.with_name("runs.jsonl.xz")
    assert f"9 runs, {copy.stat().st_size:,} bytes" in capsys.readouterr().out
    lines = lzma.decompress(copy.read_bytes()).decode().splitlines()
    assert [json.loads(line) for line in lines] == without_history(ROWS)
    assert copy.stat().st_size < store.stat().st_size / 20


def test_the_same_runs_give_the_same_file_whatever_their_order(script: Any, store: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    Store(other).add(ROWS[::-1])
    assert script.main([str(store), str(other)]) == 0
    assert store.with_name("runs.jsonl.xz").read_bytes() == other.with_name("other.jsonl.xz").read_bytes()


def test_runs_of_other_code_can_be_left_out(script: Any, store: Path) -> None:
    assert script.main([str(store), "--code", "new"]) == 0
    assert lzma.decompress(store.with_name("runs.jsonl.xz").read_bytes()).count(b"\n") == 7


def test_what_is_not_there_is_said(script: Any, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert_refused(script, [str(store.with_name("none.jsonl"))], "none.jsonl is not there", capsys)
    assert_refused(script, [str(store), "--code", "none"], "no runs of code none", capsys)
    assert not store.with_name("runs.jsonl.xz").exists()


def test_pandas_reads_it(script: Any, store: Path) -> None:
    pandas = pytest.importorskip("pandas")
    assert script.main([str(store)]) == 0
    frame = pandas.read_json(store.with_name("runs.jsonl.xz"), lines=True)
    assert sorted(frame["key"]) == sorted(row["key"] for row in ROWS)
    assert frame["loss"].max() == math.inf


def test_a_script_begins_with_the_copy_where_there_is_no_store(script: Any, store: Path) -> None:
    assert script.main([str(store)]) == 0
    store.unlink()
    assert unpacked(store) == store
    assert without_history(Store(store).read().values()) == without_history(ROWS)
    Store(store).add([{"key": "more"}])
    unpacked(store)
    assert "more" in Store(store).read(), "a store that is there is left alone"
    nothing = store.with_name("nothing.jsonl")
    assert not unpacked(nothing).exists()


def test_git_keeps_compact_copies_and_nothing_else_of_what_scripts_write() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("no checkout")
    names = ("a.jsonl", "a.jsonl.xz", "a.jsonl.lock", "a.png", "a.json", "a.jsonl.runs/x.npz", "README.md")
    command = ["git", "check-ignore", *(f"results/{name}" for name in names)]
    try:
        ignored = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.split()
    except FileNotFoundError:
        pytest.skip("no git")
    assert {f"results/{name}" for name in names} - set(ignored) == {"results/a.jsonl.xz", "results/README.md"}


def test_a_copy_is_not_copied(script: Any, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main([str(store)]) == 0
    copy = store.with_name("runs.jsonl.xz")
    before = copy.read_bytes()
    assert_refused(script, [str(copy)], "is a copy; expected what it is a copy of", capsys)
    assert copy.read_bytes() == before


def test_help_teaches() -> None:
    assert_help("compact.py", "pandas.read_json")
