"""Scripts as tests use them: imported from their folder, asked for help, their JSON read by its strict rules."""

from __future__ import annotations

import importlib
import itertools
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nbflow.experiments import console
from nbflow.plot import save

for needed in ("matplotlib", "rich", "tyro"):
    pytest.importorskip(needed)

SCRIPTS = Path(__file__).parent.parent / "scripts"
BENCH = SCRIPTS / "bench"
SHORT = {"train": (7, 5, 4, 4, 3), "valid": (6,), "test": (3,)}


def load(monkeypatch: pytest.MonkeyPatch, name: str) -> Any:
    """Import a script, which finds its neighbours as long as the test runs, and hides no data behind a legend."""
    for folder in (BENCH, SCRIPTS):
        monkeypatch.syspath_prepend(str(folder))
    if console.save is save:
        monkeypatch.setattr(console, "save", save_with_legends_beside)
    return importlib.import_module(name)


def save_with_legends_beside(figure: Any, path: Path) -> Path:
    """Save a picture, once no legend is found to lie over axes or another one, and no words are found to be cut."""
    assert legends_over_data(figure) == []
    assert words_cut(figure) == []
    return save(figure, path)


def legends_over_data(figure: Any) -> list[str]:
    """Return the words of the legends that lie over axes, by more than a line's width, or over another legend."""
    figure.draw_without_rendering()
    legends = legends_of(figure)
    fields = [one.get_window_extent().padded(-3) for one in figure.axes if one.axison]
    return [
        " ".join(text.get_text() for text in legend.get_texts()) for legend in legends
        if any(legend.get_window_extent().overlaps(field) for field in fields)
        or any(legend.get_window_extent().overlaps(one.get_window_extent()) for one in legends if one is not legend)
    ]  # fmt: skip


def words_cut(figure: Any) -> list[str]:
    """Return the words of heads, titles, labels and legends that go beyond a page, by more than a line's width."""
    figure.draw_without_rendering()
    page = figure.bbox.padded(3)
    seen = [*figure.texts, *(text for legend in legends_of(figure) for text in legend.get_texts())]
    seen += [text for axes in figure.axes for text in (axes.title, axes.xaxis.label, axes.yaxis.label)]
    ends = [(text, text.get_window_extent()) for text in seen if text.get_visible() and text.get_text().strip()]
    return [text.get_text() for text, at in ends
            if at.x0 < page.x0 or at.y0 < page.y0 or at.x1 > page.x1 or at.y1 > page.y1]  # fmt: skip


def labels_that_meet(figure: Any) -> list[str]:
    """Return the labels at ticks of an axis that lie over the next one."""
    figure.draw_without_rendering()
    found = []
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        ticks = [tick for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()) if low <= tick.get_loc() <= high]
        labels = [tick.label1 for tick in sorted(ticks, key=lambda tick: float(tick.get_loc()))]
        labels = [label for label in labels if label.get_visible() and label.get_text()]
        found += [one.get_text() for one, two in itertools.pairwise(labels)
                  if one.get_window_extent().overlaps(two.get_window_extent())]  # fmt: skip
    return found


def assert_legible(figure: Any) -> None:
    """Assert that no legend hides anything, that no words are cut, and that labels at ticks stand apart."""
    assert (legends_over_data(figure), words_cut(figure), labels_that_meet(figure)) == ([], [], [])


def legends_of(figure: Any) -> list[Any]:
    """Return the legends of a page, of its parts and of its axes."""
    from matplotlib.legend import Legend

    return list(figure.findobj(Legend))


def fixture_of(name: str) -> Any:
    """Return a fixture that gives a script."""

    @pytest.fixture
    def script(monkeypatch: pytest.MonkeyPatch) -> Any:
        return load(monkeypatch, name)

    return script


def assert_help(name: str, *words: str) -> None:
    """Assert that --help, in a process of its own, says these words."""
    done = subprocess.run([sys.executable, SCRIPTS / name, "--help"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    for one in words:
        assert one in done.stdout


def assert_refused(script: Any, arguments: Sequence[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Assert that a script answers with exit code 2 and one line that has these words, and makes nothing new."""
    place = Path(arguments[arguments.index("--out") + 1]) if "--out" in arguments else None
    folder = place.parent if place is not None and place.parent.is_dir() else None
    before = sorted(folder.rglob("*")) if folder else []
    capsys.readouterr()
    assert script.main(list(arguments)) == 2
    said = capsys.readouterr().out
    assert said.splitlines()[-1].startswith("error: "), said
    assert words in " ".join(said.split())
    assert before == (sorted(folder.rglob("*")) if folder else []), "something was written"


def assert_stopped(code: int, said: str, *words: str) -> None:
    """Assert that a script ended as all do after a Ctrl-C: the exit code, and a last line that says what was kept."""
    assert code == 130, said
    last = said.splitlines()[-1]
    assert last.startswith("Stopped early")
    assert last.endswith(("The same command goes on.", "The same command begins anew."))
    for one in words:
        assert one in last


def read(path: Path) -> Any:
    """Return what stands in a JSON file, in which NaN and Infinity do not exist."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


def write_tunes(path: Path, frames: Mapping[str, Sequence[int]] = SHORT) -> Path:
    """Write a file of short pieces, three notes a frame, of so many frames each; return its path."""
    rng = np.random.default_rng(0)
    parts = {
        name: [[rng.choice(np.arange(40, 80), 3, replace=False).tolist() for _ in range(n)] for n in lengths]
        for name, lengths in frames.items()
    }
    path.write_text(json.dumps(parts))
    return path


class Cut:
    """In place of a watch: one that asks to stop after so many updates."""

    keeps_nothing = True

    def __init__(self, at: int) -> None:
        self.at = at

    def __call__(self, run: Any) -> bool:
        return bool(run.updates >= self.at)
