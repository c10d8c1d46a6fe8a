"""Claims about the pages: what they show as Python runs, from the first block of a page to its last."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
PAGES = [path.name for path in sorted(DOCS.glob("*.md")) if "```python" in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("page", PAGES)
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (DOCS / page).read_text(encoding="utf-8")
    names = {"__name__": "page"}
    for found in re.finditer(r"```python\n(.*?)```", text, re.DOTALL):
        line = text.count("\n", 0, found.start(1))
        exec(compile("\n" * line + found[1], page, "exec"), names)
