"""Pages of the repository as they are in the site: how-tos find their contents, links their page, long names an end."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx

# Pages that a table of contents names. Every other one of docs/ is a how-to: nobody has to list it.
FIRST = {"index", "five_minutes", "concepts", "overview", "how_to", "more"}
MORE = {"clipping", "flow", "results", "stores", "benchmarks", "contributors", "changelog", "architecture", "glossary"}
PLACED = FIRST | MORE | {"benchmarks_avx512", "bibliography", "methods"}
# What stands for a default in a signature and is no Python.
DEFAULTS = re.compile(r"=(?:\w+\(<function \w+>\)|<(?:factory|function \w+)>)")
# Files above docs/ that have a page here.
ELSEWHERE = {
    "../CONTRIBUTING.md": "contributors.md",
    "../ARCHITECTURE.md": "architecture.md",
    "../CHANGELOG.md": "changelog.md",
    "../README.md": "index.md",
    "../results/README.md": "stores.md",
}


def how_tos(folder: Path) -> list[str]:
    """Return the names of these pages, by the titles that they have."""
    pages = [path for path in folder.glob("*.md") if path.stem not in PLACED]
    return [path.stem for path in sorted(pages, key=lambda path: path.read_text(encoding="utf-8").splitlines()[0])]


def read(app: Sphinx, page: str, source: list[str]) -> None:
    """Write the table of contents of the how-tos at the end of their page; lead links to pages of the site."""
    if page == "how_to":
        names = "\n".join(how_tos(Path(app.srcdir)))
        source[0] += f"\n```{{toctree}}\n:maxdepth: 1\n\n{names}\n```\n"
    for outside, here in ELSEWHERE.items():
        source[0] = source[0].replace(f"]({outside}", f"]({here}")


def link(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Let a docstring that names a page of docs/ lead there."""
    lines[:] = [re.sub(r"(?<![`\w/])docs/(\w+)\.md", r":doc:`/\1`", line) for line in lines]


def shorten(app: Sphinx, what: str, name: str, thing: Any, options: Any, signature: str, returns: str) -> Any:
    """Write dots for a default that nobody could write, as <factory> and <function _as_long>."""
    return DEFAULTS.sub("=...", signature) if signature else signature, returns


def broken(name: str) -> str:
    """Return a name that may break after a dot or an underscore, where it is a long word that does not fit."""
    return re.sub(r"(?<=\w[._])(?=\w)", "<wbr>", name) if name.startswith("nbflow.") else name


def let_break(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Let names in headings, signatures and what leads to the pages beside break between their parts."""
    for beside in (context.get("prev"), context.get("next")):
        if beside:
            beside["title"] = broken(beside["title"])
    body = re.sub(r"(?<=<h1>)[\w.]+", lambda found: broken(found[0]), context.get("body", ""))
    context["body"] = body.replace('<span class="sig-paren">(</span>', '<span class="sig-paren">(</span><wbr>')


def setup(app: Sphinx) -> dict[str, bool]:
    """Listen to what is read."""
    app.connect("source-read", read)
    app.connect("autodoc-process-docstring", link)
    app.connect("autodoc-process-signature", shorten)
    app.connect("html-page-context", let_break)
    app.connect("env-get-outdated", lambda app, env, added, changed, removed: ["how_to"])  # a page more, or less
    app.add_lexer("floors", TextLexer)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
