"""nbflow.experiments.console and machine: what the scripts do alike, a Ctrl-C of every one of them first."""

from __future__ import annotations

import io
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripted import BENCH, SCRIPTS, assert_refused, assert_stopped, load, write_tunes

from nbflow.experiments import console, machine

EVERY = sorted(path.stem for path in (*SCRIPTS.glob("*.py"), *BENCH.glob("*.py")) if "\ndef main(" in path.read_text())
# What a script must be given.
NEEDED = {
    "music": ["--data", "tunes.json"], "language": ["--text", "text.txt"], "compact": ["runs.jsonl"],
    "bench_peers": ["--quick"], "language_sizes": ["--texts", "text.txt", "--length", "10"],
    "table_1": ["--data", "tunes.json"],
}  # fmt: skip


@dataclass(frozen=True)
class Options:
    """Options of a script."""

    out: Path
    data: Path = Path("where/it/is.json")
    name: str = "one"
    size: float = 1.0


def interrupt(*_: Any, **__: Any) -> Any:
    raise KeyboardInterrupt


def test_there_are_scripts() -> None:
    assert {"cliff", "compact", "demo", "flow", "bench_peers", "gpu_population"} <= set(EVERY)


@pytest.mark.parametrize("name", EVERY)
def test_every_script_ends_a_ctrl_c_alike(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A new one is under test too: it is interrupted where it first draws weights, trains or looks into a store.

    Until then it has said a first word.
    """
    script = load(monkeypatch, name)
    write_tunes(tmp_path / "tunes.json")
    (tmp_path / "text.txt").write_text("to be or not to be " * 400)
    (tmp_path / "runs.jsonl").write_text('{"key": "r1"}\n')
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    for place in ("nbflow.init", "nbflow.train", "nbflow.sweep", "nbflow.gradient", "nbflow.storage.store.Store.read"):
        monkeypatch.setattr(place, interrupt)
    if name.startswith("bench"):  # whose sides are in processes of their own
        side = {
            "bench_peers": "Bench.updates",
            "bench_writers": "timed",
            "bench_device": "run",
            "bench_executors": "bare",
        }.get(name, "phases")
        monkeypatch.setattr(f"{name}.{side}", interrupt)
    code = script.main(NEEDED.get(name, []))
    said = "".join(capsys.readouterr())
    assert_stopped(code, said, "nothing was")
    assert said.count("Stopped early") == 1
    if not name.startswith("bench"):  # whose first words are in what is interrupted here
        assert len(said.splitlines()) > 1, "nothing was said before the first computation, which may compile a minute"
    assert sorted(tmp_path.rglob("*")) == before, "nothing was done, and nothing is written"


@pytest.mark.parametrize(("found", "files", "code"), [([1], ["a.json"], 0), ([], [], 1), ([1], [], 1)])
def test_a_script_that_comes_to_nothing_says_so(
    found: list[int], files: list[str], code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def report(options: Options, found: list[int], there: Any) -> list[Path]:
        return [options.out / name for name in files]

    assert console.begin(lambda *_: None, report, Options(tmp_path), found) == code
    assert ("nothing is written" in capsys.readouterr().out) == (code == 1)


def test_after_a_ctrl_c_what_was_found_is_reported_and_the_last_line_says_where_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(options: Options, there: Any, found: list[int]) -> None:
        found.append(7)
        raise KeyboardInterrupt("3 runs are missing")

    def report(options: Options, found: list[int], there: Any) -> list[Path]:
        return console.keep(there, options.out / "one", {"found": found}, {})

    code = console.begin(work, report, Options(tmp_path / "new"), [])
    assert_stopped(code, capsys.readouterr().out, f"what was done is kept in {tmp_path / 'new' / 'one.json'}",
                   "Stopped early, 3 runs are missing", "begins anew")  # fmt: skip
    assert (tmp_path / "new" / "one.json").read_text() == '{"found": [7]}'
    assert console.begin(work, interrupt, Options(tmp_path), []) == 130
    assert "Stopped early: what was written is named above, and whole." in capsys.readouterr().out
    store = tmp_path / "runs.jsonl"
    store.write_text("{}")
    code = console.begin(interrupt, report, Options(tmp_path), [], store=store)
    assert_stopped(code, capsys.readouterr().out, f"is kept in {store}", "goes on")


@pytest.mark.parametrize("error", [ValueError, TypeError, OSError, NotImplementedError, FloatingPointError])
def test_what_is_wrong_is_one_line_and_what_is_a_fault_of_ours_is_not_hidden(
    error: type[Exception], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(*_: Any) -> None:
        raise error("size is [1]; expected another.")

    def report(*_: Any) -> list[Path]:
        raise KeyError("a bug")

    assert console.begin(work, report, Options(tmp_path), []) == 2
    assert capsys.readouterr().out == "error: size is [1]; expected another.\n"
    with pytest.raises(KeyError):
        console.begin(lambda *_: None, report, Options(tmp_path), [1])


@pytest.mark.parametrize(
    ("check", "value", "words"),
    [
        (lambda o: console.check_numbers(o, positive="size"), 0.0, "size is 0; expected a number above 0"),
        (lambda o: console.check_numbers(o, positive="size"), np.inf, "size is inf; expected a number above 0"),
        (lambda o: console.check_numbers(o, least_1="size"), 0.5, "size is 0.5; expected at least 1"),
        (lambda o: console.check_numbers(o, least_0="size"), np.nan, "size is nan; expected at least 0"),
        (lambda o: console.check_numbers(o, part="size"), 1.0, "size is 1; expected a number above 0 and below 1"),
        (lambda o: console.check_numbers(o, part="size"), np.nan, "size is nan; expected a number above 0 and below 1"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(check: Any, value: float, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check(Options(Path(), size=value))
    check(Options(Path(), size=1.0 if "below" not in words else 0.5))


def test_files_appear_whole_or_not_at_all(tmp_path: Path) -> None:
    there, folder = console.console_here(), tmp_path / "new"
    console.keep(there, folder / "result", {"a": 1}, {})
    before = (folder / "result.json").read_bytes()
    for wrong in ({"a": object()}, {"a": "half\ud800" * 2, "b": {1, 2}}):
        with pytest.raises(TypeError):
            console.keep(there, folder / "result", wrong, {})
    assert (folder / "result.json").read_bytes() == before
    assert [path.name for path in folder.iterdir()] == ["result.json"]


def test_what_json_cannot_say_is_said_otherwise() -> None:
    given = {1: (Path("a"), float("nan"), np.float64("inf"), 2, np.float32(0.5), np.array([[1.0, np.nan]]))}
    assert console.plain(given) == {"1": ["a", None, None, 2, 0.5, [[1.0, None]]]}


def test_a_document_has_the_settings_and_the_machine_and_of_files_to_read_the_name_alone(tmp_path: Path) -> None:
    found = console.document(Options(tmp_path), best=3)
    assert found["options"] == {"out": tmp_path, "data": "is.json", "name": "one", "size": 1.0}
    assert found["best"] == 3
    assert found["machine"]["python"] == platform.python_version()
    assert found["machine"]["cores"] == machine.cores() >= 1
    assert found["machine"]["processor"]
    assert set(found["machine"]) >= {"threads", "system", "nbflow", "numpy", "numba"}


def test_progress_is_bars_in_a_terminal_and_seldom_lines_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    for terminal, quiet, words in ((True, 10.0, "raking: 3 of 4"), (False, 0.0, "raking: 3 of 4"), (False, 10.0, "")):
        monkeypatch.setattr(console, "QUIET_SECONDS", quiet)
        there = Console(force_terminal=terminal, width=100, file=io.StringIO())
        with console.progress(there) as show:
            show("raking", 3, 4)
        shown = there.file.getvalue()
        assert words in shown
        assert bool(words) == bool(shown)


@pytest.mark.parametrize(
    "name", sorted(set(EVERY) - {"compact", "bench_executors", "bench_parts", "bench_peers", "bench_writers"})
)
def test_a_folder_that_cannot_be_made_is_refused_before_anything_is_computed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = load(monkeypatch, name)
    monkeypatch.setattr("nbflow.train", lambda *_, **__: pytest.fail("it trains"))
    (tmp_path / "file").write_text("mine")
    place = str(tmp_path / "file" / "folder" / ("cliff.png" if name == "cliff" else ""))
    assert_refused(script, [*NEEDED.get(name, []), "--out", place], "cannot hold one. Name another.", capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_name_of_a_processor_is_that_of_the_machine() -> None:
    assert os.linesep not in machine.processor()
    assert machine.processor() == (machine.cpu_fields().get("model name") or platform.processor() or platform.machine())
