"""scripts/bench/bench_device.py: what it writes, after which stage, and what it says where there is no device."""

from __future__ import annotations

import sys
import time

import pytest
from scripted import assert_help, fixture_of

script = fixture_of("bench_device")


def says(script, words, *, ends="", seconds=20.0, last=None):
    code = f"import sys, time; print({words!r}, flush=True); {ends}"
    return script.Stage(f"It says {words.split()[0]}", [sys.executable, "-c", code], seconds, last)


@pytest.fixture
def stages(script, monkeypatch):
    def put(**found):
        monkeypatch.setattr(script, "STAGES", found)

    return put


def test_help_teaches_every_option():
    assert_help("bench/bench_device.py", "Usage:", "--stages", "--minutes", "--out")


def test_the_page_has_every_stage(script, stages, tmp_path):
    stages(device=says(script, "- Device: one"), tests=says(script, "a\nb\nc", last=2))
    assert script.main(["--stages", "device", "tests", "--out", str(tmp_path / "gpu.md")]) == 0
    page = (tmp_path / "gpu.md").read_text()
    assert "## It says -\n\n- Device: one" in page
    assert "```\nb\nc\n```" in page
    assert [path.name for path in tmp_path.iterdir()] == ["gpu.md"]


def test_a_stage_that_fails_or_takes_too_long_is_said_and_the_next_begins(script, stages, tmp_path, capsys):
    stages(device=says(script, "one"), tests=says(script, "two", ends="time.sleep(60)", seconds=1.0),
           bits=says(script, "three", ends="sys.exit(3)"), registers=says(script, "four"))  # fmt: skip
    names = ["device", "tests", "bits", "registers"]
    assert script.main(["--stages", *names, "--out", str(tmp_path / "gpu.md")]) == 1
    page = (tmp_path / "gpu.md").read_text()
    assert "**It was ended after 1 s; this is what it had.**\n\ntwo" in page
    assert "**It ended with status 3.**\n\nthree" in page
    assert "four" in page
    assert "Not well: tests, bits." in capsys.readouterr().out


def test_what_was_done_before_an_interrupt_is_on_the_page(script, stages, tmp_path, monkeypatch):
    stages(device=says(script, "one"), tests=says(script, "two"))
    run = script.run

    def once(stage, limit):
        if "two" in stage.title:
            raise KeyboardInterrupt
        return run(stage, limit)

    monkeypatch.setattr(script, "run", once)
    assert script.main(["--stages", "device", "tests", "--out", str(tmp_path / "gpu.md")]) == 130
    page = (tmp_path / "gpu.md").read_text()
    assert "one" in page
    assert "two" not in page


def test_time_that_is_up_is_said(script, stages, tmp_path):
    stages(tests=says(script, "one"), bits=says(script, "two"))
    arguments = ["--stages", "tests", "bits", "--minutes", "1e-9", "--out", str(tmp_path / "gpu.md")]
    assert script.main(arguments) == 1
    assert (tmp_path / "gpu.md").read_text().count("There was no time left for it.") == 2


def test_what_a_stage_has_begun_ends_with_it(script, stages, tmp_path):
    late = tmp_path / "late"
    child = f"import time, pathlib; time.sleep(3); pathlib.Path({str(late)!r}).touch()"
    begins = f"import subprocess; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(60)"
    stages(tests=says(script, "one", ends=begins, seconds=1.0))
    assert script.main(["--stages", "tests", "--out", str(tmp_path / "gpu.md")]) == 1
    time.sleep(3)
    assert not late.exists()


def test_without_a_device_it_says_so_and_writes_nothing(script, stages, tmp_path, capsys):
    stages(device=says(script, "RuntimeError: no CUDA GPU", ends="sys.exit(1)"))
    assert script.main(["--out", str(tmp_path / "gpu.md")]) == 2
    assert "there is no device to look at: RuntimeError: no CUDA GPU" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_minutes_that_make_no_sense_are_refused(script, tmp_path, capsys):
    assert script.main(["--minutes", "-1", "--out", str(tmp_path / "gpu.md")]) == 2
    assert "minutes is -1" in capsys.readouterr().out
