"""scripts/temporal_order.py and scripts/demo.py: what they write, say and refuse, on runs of a few updates."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from scripted import SCRIPTS, assert_help, assert_refused, assert_stopped, fixture_of, read

TINY = ["--length", "10", "--replicas", "2", "--hidden", "8", "--batch-size", "4", "--updates", "20",
        "--record-every", "5", "--evaluate-every", "10", "--evaluate-size", "50"]  # fmt: skip

script = fixture_of("temporal_order")


@pytest.fixture
def demo(script: Any) -> Any:
    import demo

    return demo


@pytest.mark.parametrize("name", ["temporal_order.py", "demo.py"])
def test_help_teaches_every_option(name: str) -> None:
    assert_help(name, "Usage:", "--length", "--threshold", "Decides first weights and sequences")


def test_a_run_writes_table_picture_and_every_setting(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main([*TINY, "--out", str(tmp_path), "--name", "tiny", "--methods", "sgd", "clip", "clip+omega"]) == 0
    out = capsys.readouterr().out
    for words in ("plain SGD", "SGD + clipping", "SGD + clipping + Omega", "0 of 2", "tiny.png", "tiny.json",
                  "error, loss of guessing", "75 %, 1.39"):  # fmt: skip
        assert words in out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.json", "tiny.png"]
    assert (tmp_path / "tiny.png").read_bytes().startswith(b"\x89PNG")
    found = read(tmp_path / "tiny.json")
    assert found["options"]["hidden"] == 8
    assert set(found["machine"]) >= {"processor", "cores", "nbflow", "numpy", "numba"}
    assert list(found["methods"]) == ["sgd", "clip", "clip+omega"]
    for run in found["methods"].values():
        assert run["updates"] == 20
        assert run["evaluations"]["update"] == [10, 20]
        assert run["gain"]["update"] == run["history"]["update"] == [5, 10, 15, 20]
        assert all(0 < gain < 10 for row in run["gain"]["mean"] for gain in row)
    plain, clipped, flowing = (found["methods"][name] for name in ("sgd", "clip", "clip+omega"))
    assert plain["recipe"]["flow"] is None
    assert clipped["recipe"]["clip"]["threshold"] == 1.0
    assert flowing["recipe"]["flow"]["alpha"] == 2.0
    assert plain["history"]["clipped"] == [[0.0, 0.0]] * 4


def test_methods_begin_with_the_same_networks_and_see_the_same_sequences(script: Any, tmp_path: Path) -> None:
    # A threshold that no gradient reaches, and an Omega of weight 0, change no bit.
    assert script.main([*TINY, "--threshold", "1e6", "--alpha", "0", "--out", str(tmp_path)]) == 0
    runs = read(tmp_path / "temporal_order.json")["methods"]
    assert runs["sgd"]["history"]["loss"] == runs["clip"]["history"]["loss"] == runs["clip+omega"]["history"]["loss"]


def test_another_task_and_drawn_lengths_work(script: Any, tmp_path: Path) -> None:
    chosen = ["--length", "10", "14", "--task", "addition", "--methods", "clip", "--rule", "value"]
    arguments = [*TINY[2:], *chosen, "--out", str(tmp_path)]
    assert script.main(arguments) == 0
    assert set(read(tmp_path / "addition.json")["methods"]) == {"clip"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--init", "no_such"], "expected one of"), (["--length", "3"], "length is 3"), (["--lr", "-1"], "lr is -1")],
)
def test_a_setting_that_makes_no_sense_is_one_clear_line(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    given = TINY[2:] if "--length" in arguments else TINY
    assert_refused(script, [*given, *arguments, "--out", str(tmp_path / "new")], words, capsys)


def test_ctrl_c_keeps_what_was_done(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(result: Any) -> str:
        if result.method == "clip" and result.run.updates == 10:
            raise KeyboardInterrupt
        return ""

    monkeypatch.setattr(script, "state", interrupt)
    code = script.main([*TINY, "--out", str(tmp_path)])
    out = capsys.readouterr().out
    assert_stopped(code, out, str(tmp_path / "temporal_order.json"), str(tmp_path / "temporal_order.png"))
    assert "at 10" in out
    runs = read(tmp_path / "temporal_order.json")["methods"]
    assert {name: run["updates"] for name, run in runs.items()} == {"sgd": 20, "clip": 10}
    assert (tmp_path / "temporal_order.png").exists()


def test_ctrl_c_before_the_first_update_writes_nothing(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(script, "warm_up", interrupt)
    code = script.main([*TINY, "--out", str(tmp_path / "new")])
    assert_stopped(code, capsys.readouterr().out, "nothing is written")
    assert not (tmp_path / "new").exists()


def test_how_a_method_is_doing_is_said_in_few_words(script: Any) -> None:
    said = script.state(made(script, "clip", [None, 10], [0.5, 0.0]))
    assert said == "20 network updates/s  error 25.0 %  norm 0.5"


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_shell_can_tell_that_ctrl_c_ended_it(tmp_path: Path) -> None:
    command = [sys.executable, SCRIPTS / "temporal_order.py", *TINY, "--updates", "1000000", "--out", tmp_path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        said = ""
        while "Kernels ready" not in said and (line := process.stdout.readline()):
            said += line
        process.send_signal(signal.SIGINT)
        said += process.communicate(timeout=300)[0]
    assert_stopped(process.returncode, said, "begins anew")


def made(script: Any, method: str, passages: list[int | None], errors: list[float]) -> Any:
    """Return a result as if a method had been trained."""
    run = script.nf.Run(theta=None, updates=20, seconds=2.0, first_passage=passages)
    run.stays_below = [at is not None for at in passages]
    run.evaluations = {"update": [10, 20], "score": [[1.0] * len(errors), errors]}
    run.history = {"update": [20], "norm": [[0.5] * len(errors)], "nonfinite": [[1] * len(errors)]}
    gain = {"update": [10, 20], "mean": [[0.5] * len(errors), [0.75] * len(errors)]}
    return script.Result(method, run, gain)


def test_the_median_passage_counts_networks_that_did_not_get_there(script: Any) -> None:
    assert made(script, "sgd", [10, None, None], [0.0, 1.0, 1.0]).median_passage == math.inf
    assert made(script, "sgd", [10, 20, None], [0.0, 0.0, 1.0]).median_passage == 20


def test_the_demo_says_what_happened_and_nothing_else(script: Any, demo: Any) -> None:
    options = script.Options(replicas=8, updates=20, methods=("sgd", "clip", "clip+omega"))
    few, all_of_them = [10, 20, *[None] * 6], [10] * 8
    rows = [made(script, "sgd", few, [0.5] * 8), made(script, "clip", few, [0.5] * 8),
            made(script, "clip+omega", all_of_them, [0.0] * 8)]  # fmt: skip
    said = " ".join(demo.sentences(options, rows))
    assert "plain SGD 2, SGD + clipping 2, SGD + clipping + Omega 8" in said
    assert "SGD + clipping solved as many as plain SGD." in said
    assert "SGD + clipping + Omega solved more than SGD + clipping (hardly chance: p = 0.007" in said
    assert "0.75 (plain SGD)" in said

    worse = [made(script, "sgd", all_of_them, [0.0] * 8), made(script, "clip", [10] * 7 + [None], [0.0] * 8)]
    said = " ".join(demo.sentences(script.Options(methods=("sgd", "clip"), replicas=8), worse))
    assert "SGD + clipping solved fewer than plain SGD (too few networks to exclude chance" in said

    assert "cannot be compared" in " ".join(demo.sentences(options, rows[:2]))


def test_the_demo_speaks_before_anything_is_compiled(
    script: Any, demo: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = []

    def listen(*arguments: Any) -> None:
        said.append(capsys.readouterr().out)
        raise KeyboardInterrupt

    monkeypatch.setattr(script, "warm_up", listen)
    assert demo.main([*TINY, "--out", str(tmp_path)]) == 130
    assert "Compiling kernels" in said[0]


def test_the_demo_trains_for_less_than_two_minutes_at_4000_network_updates_a_second(demo: Any) -> None:
    options = demo.DEMO
    updates = len(options.methods) * options.replicas * options.updates
    # A third of an update, forward alone, for every batch of evaluation.
    measured = updates / options.evaluate_every * options.evaluate_size / options.batch_size / 3
    looked_at = updates / options.record_every
    assert (updates + measured + looked_at) / 4000 < 120


def test_the_demo_runs(demo: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main([*TINY, "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "demo.png" in out
    assert "Solved within 20 updates, of 2 networks" in out
    assert (tmp_path / "demo.png").exists()
