"""The notebooks of examples/ run from their first cell to their last, carry no outputs, and show pictures."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")
from matplotlib.figure import Figure

NOTEBOOKS = sorted((Path(__file__).parents[1] / "examples").glob("*.ipynb"))


def cells(path):
    """Yield kind and text of each cell, without what IPython alone understands."""
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        yield cell, "\n".join(line for line in text.splitlines() if not line.startswith("%"))


def test_there_are_four():
    assert [path.stem for path in NOTEBOOKS] == ["diagnosis", "lecture", "own_data", "sweep"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_its_pictures_are_the_last_words_of_their_cells(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "notebook"}
    pictures = 0
    for cell, text in cells(path):
        if cell["cell_type"] != "code":
            continue
        assert cell["outputs"] == []
        tree = ast.parse(text)
        last = tree.body[-1]
        exec(compile(tree, path.name, "exec"), names)
        if isinstance(last, ast.Expr) and isinstance(last.value, ast.Name):
            shown = names[last.value.id]
            if isinstance(shown, Figure):
                shown.savefig(tmp_path / f"{path.stem}-{pictures}.png", dpi=50)
                pictures += 1
    assert pictures


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_says_in_words_what_each_picture_is_for(path):
    found = [cell["cell_type"] for cell, _ in cells(path)]
    assert found[0] == "markdown"
    assert found.count("markdown") >= 3
