"""Claims about the pages: what they show as Python runs, from a page's first block to its last; links lead to files."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import nbflow as nf

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)
# What `make docs` writes, and what it is made of: a fresh copy has only that.
MADE = {(DOCS / "gallery/index.rst").resolve(): ROOT / "examples/gallery/GALLERY_HEADER.rst"}
# What a page shows may need an extra, which pip may not have for a new Python.
NEEDS = {"docs/midi.md": "mido"}
LINK = re.compile(r"(?<!`)\[[^\]]*\]\(([^)\s]+)\)")
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
FENCED = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# A block that begins with its name is a program of that name; all others of a page are one program.
PROGRAM = re.compile(r"# (\w+\.py)\n")
# Languages of blocks that are no Python: commands, whose words are looked at below, what they print, and others' files.
OTHER = {"sh", "", "dockerfile", "floors"}


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(path: Path) -> list[re.Match[str]]:
    return list(BLOCK.finditer(path.read_text(encoding="utf-8")))


RUN = [path for path in [ROOT / "README.md", ROOT / "results/README.md", *PAGES] if blocks(path)]
PROGRAMS = [path for path in PAGES if any(PROGRAM.match(block[1]) for block in blocks(path))]


@pytest.mark.parametrize("page", RUN, ids=name)
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch):
    if name(page) in NEEDS:
        pytest.importorskip(NEEDS[name(page)])
    monkeypatch.chdir(tmp_path)
    shutil.copytree(
        ROOT / "results",
        "results",
        ignore=lambda folder, names: {n for n in names if n.split(".")[0] not in ("random_steps", "lengths")},
    )
    names = {"__name__": "page"}
    for found in blocks(page):
        if not PROGRAM.match(found[1]):
            line = found.string.count("\n", 0, found.start(1))
            exec(compile("\n" * line + found[1], page.name, "exec"), names)


def run(folder, file, text):
    """Run a program as a user would, in a folder that has those before it."""
    (folder / file).write_text(text, encoding="utf-8")
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run([sys.executable, file], cwd=folder, env=os.environ | {"PYTHONPATH": path},
                          capture_output=True, text=True, timeout=600)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("page", PROGRAMS, ids=name)
def test_the_programs_of_a_page_run_one_after_another(page, tmp_path):
    for found in blocks(page):
        program = PROGRAM.match(found[1])
        if program:
            if "dask" in found[1]:
                pytest.importorskip("distributed")
            run(tmp_path, program[1], found[1])


def test_the_sweep_of_the_readme_runs_with_fewer_updates_and_seeds(tmp_path):
    _, found = blocks(ROOT / "README.md")
    text = "import nbflow as nf\n" + found[1]
    for long, short in {"max_updates=20_000": "max_updates=20, evaluate_every=0", ', 30, "runs': ', 1, "runs'}.items():
        assert text.count(long) == 1
        text = text.replace(long, short)
    run(tmp_path, "sweep.py", text + "    print(len(swept.runs), [run['failure'] for run in swept.runs])\n")
    assert len(nf.Store(tmp_path / "runs.jsonl").read()) == 4


ALL = [*sorted(ROOT.glob("*.md")), ROOT / "results/README.md", *PAGES]


@pytest.mark.parametrize("page", ALL, ids=name)
def test_no_block_of_a_page_is_one_that_nothing_looks_at(page):
    text = page.read_text(encoding="utf-8")
    assert len(re.findall(r"```|~~~", text)) == 2 * len(FENCED.findall(text))
    languages = {language for language, _ in FENCED.findall(text)}
    assert {each for each in languages - OTHER if not each.startswith("{")} <= {"python"}
    assert "python" not in languages or page in RUN or page == ROOT / "CONTRIBUTING.md"  # tests/test_contributing.py
    assert text.count("```python") == len(blocks(page))
    plain = "\n".join(body for language, body in FENCED.findall(text) if not language)
    assert not re.search(r"^(?:>>>|import |from \w+ import|.*\bnf\.\w+\()", plain, re.MULTILINE)


def test_pages_that_are_no_markdown_show_no_code():
    """What stands in docstrings is run as doctests, and the gallery is executed."""
    for page in [*(DOCS / "api").glob("*.rst"), *(ROOT / "examples").rglob("*.rst")]:
        assert not re.search(r"code-block|literalinclude|>>>|::\n\n", page.read_text(encoding="utf-8")), page


@pytest.mark.parametrize("page", ALL, ids=name)
def test_the_commands_of_a_page_are_of_files_verbs_and_extras_that_there_are(page):
    text = page.read_text(encoding="utf-8")
    verbs = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    extras = re.findall(r"^([\w-]+) = \[", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    shown = [found[1] for found in (PROGRAM.match(block[1]) for block in blocks(page)) if found]
    lines = [line for language, body in FENCED.findall(text) if language == "sh" for line in body.splitlines()]
    for words in (shlex.split(line, comments=True) for line in lines):
        if words[:1] == ["make"]:
            assert next(word for word in words[1:] if "=" not in word) in verbs
        for file in (word for word in words if word.endswith(".py")):
            assert file in shown or (ROOT / file).exists()
    for extra in re.findall(r"pip install [^\n`]*\[([\w,-]+)\]", text):
        assert set(extra.split(",")) <= set(extras)


@pytest.mark.parametrize("page", [*sorted(ROOT.glob("*.md")), *PAGES], ids=name)
def test_every_relative_link_of_a_page_leads_to_a_file(page):
    """The README is what an index shows of the wheel, and its links are relative: they exist in the archive."""
    targets = [link.partition("#")[0] for link in LINK.findall(page.read_text(encoding="utf-8"))]
    files = {each: (page.parent / each).resolve() for each in targets if each and "://" not in each}
    missing = [each for each, file in files.items() if not MADE.get(file, file).exists()]
    assert missing == []
