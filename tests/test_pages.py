"""Claims about the pages: what they show as Python runs, from a page's first block to its last; links lead to files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)
RUN = [path for path in [ROOT / "README.md", *PAGES] if "```python" in path.read_text(encoding="utf-8")]
# What `make docs` writes, and what it is made of: a fresh copy has only that.
MADE = {(DOCS / "gallery/index.rst").resolve(): ROOT / "examples/gallery/GALLERY_HEADER.rst"}
LINK = re.compile(r"(?<!`)\[[^\]]*\]\(([^)\s]+)\)")


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", RUN, ids=name)
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = page.read_text(encoding="utf-8")
    names = {"__name__": "page"}
    for found in re.finditer(r"```python\n(.*?)```", text, re.DOTALL):
        line = text.count("\n", 0, found.start(1))
        exec(compile("\n" * line + found[1], page.name, "exec"), names)


@pytest.mark.parametrize("page", [*sorted(ROOT.glob("*.md")), *PAGES], ids=name)
def test_every_relative_link_of_a_page_leads_to_a_file(page):
    """The README is what an index shows of the wheel, and its links are relative: they exist in the archive."""
    targets = [link.partition("#")[0] for link in LINK.findall(page.read_text(encoding="utf-8"))]
    files = {each: (page.parent / each).resolve() for each in targets if each and "://" not in each}
    missing = [each for each, file in files.items() if not MADE.get(file, file).exists()]
    assert missing == []
