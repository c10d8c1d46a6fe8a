"""Claims about what sweeps and scripts show: how far it is and the time left, as bars in a terminal, else as lines."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from nbflow import _progress as progress

ROOT = Path(__file__).parent.parent
STEPS = """
import time
from nbflow import _progress as progress
with progress.shown() as show:
    for done in range(41):
        show("", done / 2, 40, f"{done // 2} of 40 runs, 1 failed")
        time.sleep(0.05)
"""


def test_a_terminal_gets_a_bar_with_runs_and_the_time_left():
    pytest.importorskip("rich")
    mine, theirs = os.openpty()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "120", "NO_COLOR": "1"}
    process = subprocess.Popen([sys.executable, "-c", STEPS], env=environment, stderr=theirs, stdout=subprocess.PIPE)
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(mine, 10_000):
            shown += chunk
    except OSError:  # how a terminal says that nobody writes to it any more
        pass
    os.close(mine)
    assert process.communicate()[0] == b""
    assert process.returncode == 0
    text = shown.decode()
    assert "20 of 40 runs, 1 failed" in text
    assert "50%" in text
    assert re.search(r"left 0:00:0[1-9]", text), "half is done in 2 seconds"


def test_elsewhere_lines_say_it_now_and_then(monkeypatch, capsys):
    clock = [100.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: clock[0])
    with progress.shown() as show:
        for done in range(10, 21):  # ten of which were there before
            show("", done, 40, f"{done} of 40 runs")
            clock[0] += 10
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["13 of 40 runs, 270 s left", "16 of 40 runs, 240 s left", "19 of 40 runs, 210 s left"]


def test_who_wants_to_see_nothing_sees_nothing(capsys):
    with progress.shown(wanted=False) as show:
        show("", 1, 2, "1 of 2 runs")
    assert capsys.readouterr() == ("", "")


def test_a_name_has_its_own_pace_and_says_how_it_stands(monkeypatch, capsys):
    clock = [100.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: clock[0])
    with progress.shown(seconds=10.0) as show:
        for done in range(3):
            show("raking", 10 * done, 1000, "leaves wet")
            clock[0] += 5
        for done in range(3):
            show("burning", done, 4)
            clock[0] += 5
    assert capsys.readouterr().err.splitlines() == [
        "raking: 20 of 1,000, leaves wet, 490 s left", "burning: 1 of 4, 15 s left"]  # fmt: skip
