"""Claims about the gallery: each example asks one question, fits a screen, and has a picture with words.

They are run by `make docs`: a few of them, and all with GALLERY=all.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples" / "gallery").glob("plot_*.py"))


def test_there_are_examples_enough_and_some_run_in_every_build():
    assert len(EXAMPLES) >= 15
    conf = (ROOT / "docs" / "conf.py").read_text(encoding="utf-8")
    small = re.findall(r'"(plot_\w+)"', re.search(r"SMALL = \((.*?)\)", conf, re.DOTALL)[1])
    assert small
    assert set(small) <= {path.stem for path in EXAMPLES}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_asks_a_question_and_answers_it_in_20_to_70_lines_with_one_picture(path):
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    title, under = ast.get_docstring(tree).splitlines()[:2]
    assert title.endswith("?")
    assert under == "=" * len(title)
    assert 20 <= len(text.splitlines()) <= 70
    made = {target.id for node in tree.body if isinstance(node, ast.Assign) for target in node.targets
            if isinstance(target, ast.Name)}  # fmt: skip
    assert "alternative_text" in made
    assert len(re.findall(r"plot\.page\(", text)) == 1
    assert re.search(r"\bas figure:", text)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_what_draws_a_picture_stands_alone_since_the_site_draws_it_twice_light_and_dark(path):
    (block,) = [part for part in path.read_text(encoding="utf-8").split("\n# %%") if "plot.page(" in part]
    assert re.findall(r"nf\.(?:train|sweep|clipping_bias|calibrate_threshold|matched_threshold)\(", block) == []
    assert re.search(
        r"^with plot\.page\(", block, re.MULTILINE
    )  # the words of the picture are after it, not in another
    assert re.search(r"^alternative_text = ", block, re.MULTILINE)
    assert not re.search(r"plot\.(?:INK|FAINT)|colou?r=\"(?:black|white)", block)  # colours of a light page


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_uses_what_is_public_alone(path):
    imported = {
        (node.module, alias.name) for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) for alias in node.names
    }  # fmt: skip
    assert not [name for module, name in imported if module.startswith("nbflow") and name.startswith("_")]
    assert {module for module, _ in imported if module.startswith("nbflow")} <= {"nbflow", "nbflow.scalars"}
