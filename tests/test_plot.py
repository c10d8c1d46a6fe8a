"""nbflow.plot: pages whose head has room for its words, marks on axes that are given, and files that are whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib")
from tolerance import near

from nbflow import plot
from nbflow.records import Interval


def test_neither_nbflow_nor_a_sweep_loads_what_draws_pictures_and_tables() -> None:
    script = """
import sys, nbflow as nf
from nbflow import plot, statistics
nf.sweep, nf.train, plot.page, statistics.mean_interval
print([name for name in ("matplotlib", "rich", "tyro") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize("words", ["one line", "one\ntwo", "one\ntwo\nthree", "a word too many " * 20])
def test_a_head_has_room_for_its_lines_and_none_leaves_the_page(words: str) -> None:
    with plot.page("A title", words, (6.0, 3.0)) as figure:
        axes = figure.subplots()
    figure.draw_without_rendering()
    said = figure.texts[1].get_window_extent()
    page = figure.bbox
    assert said.x0 >= page.x0
    assert said.x1 <= page.x1
    assert axes.get_window_extent().y1 <= said.y0, "what is drawn begins below the words"
    assert figure.get_size_inches()[0] == 6.0
    below = figure.get_size_inches()[1] * (1 - figure.get_layout_engine().get()["rect"][3])
    assert figure.get_size_inches()[1] - below == near(3.0), "the size is that of what is below the head"


def test_no_title_and_no_words_leave_no_head() -> None:
    with plot.page("", "", (4.0, 3.0)) as figure:
        pass
    assert figure.get_size_inches().tolist() == [4.0, 3.0]


@pytest.mark.parametrize("across", [False, True])
def test_intervals_are_drawn_from_end_to_end_and_where_there_is_none_there_is_no_bar(across: bool) -> None:
    found = [Interval(2.0, 1.0, 5.0), Interval(3.0, np.nan, np.nan)]
    axes = plot.intervals([10, 20], found, across=across)
    points, _, (bars,) = axes.containers[0]
    seen = np.array(points.get_data())[::-1] if across else np.array(points.get_data())
    assert seen.tolist() == [[10, 20], [2.0, 3.0]]
    ends = [part[:, 0 if across else 1].tolist() for part in bars.get_segments()]
    assert ends == [[1.0, 5.0], [3.0, 3.0]]


def test_what_takes_axes_draws_there_and_what_gets_none_makes_a_page() -> None:
    with plot.page("A title", "", (4.0, 3.0)) as figure:
        axes = figure.subplots()
    values = [[1.0, 2.0, np.nan], [4.0, np.inf, 8.0]]
    assert plot.replicas([1, 2], values, ax=axes) is axes
    assert plot.intervals([1], [Interval(1.0, 0.0, 2.0)], ax=axes) is axes
    assert len(axes.lines[:4]) == 4, "three replicas and their median"
    assert np.array(axes.lines[3].get_ydata()).tolist() == [1.5, 6.0]
    assert plot.replicas([1, 2], values).figure is not figure


def test_a_picture_that_cannot_be_drawn_leaves_the_one_before(tmp_path: Path) -> None:
    class Broken:
        def savefig(self, path: Any) -> None:
            Path(path).write_bytes(b"half")
            raise ValueError("no room")

    with plot.page("A title", "", (4.0, 3.0)) as figure:
        figure.subplots()
    target = plot.save(figure, tmp_path / "new" / "one.png")
    before = target.read_bytes()
    assert before.startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="no room"):
        plot.save(Broken(), target)
    assert target.read_bytes() == before
    assert [path.name for path in target.parent.iterdir()] == ["one.png"]
