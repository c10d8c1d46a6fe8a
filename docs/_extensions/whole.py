"""What a finished site is held to: nothing from elsewhere, no picture without words, no class without its methods."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

from members import own
from sphinx.application import Sphinx
from sphinx.errors import SphinxError

LOADING = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}


class Page(HTMLParser):
    """Collects what is wrong with a page."""

    def __init__(self) -> None:
        super().__init__()
        self.wrong: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Look at what a tag loads, and at the words of a picture."""
        told = dict(attrs)
        target = told.get(LOADING.get(tag, ""), "") or ""
        if target.startswith(("http:", "https:", "//")):
            self.wrong.append(f"{tag} loads {target}")
        # Beside the thumbnail of an example stands its title.
        if tag == "img" and "_thumb" not in target and not (told.get("alt") or "").strip():
            self.wrong.append(f"picture {target} has no alternative text")


def check(app: Sphinx, error: Exception | None) -> None:
    """Refuse a site that is not whole."""
    if error is not None or app.builder.name != "html":
        return
    found = []
    for path in sorted(Path(app.outdir).rglob("*.html")):
        page = Page()
        text = path.read_text(encoding="utf-8")
        page.feed(text)
        page.wrong += [f"shows an object as {words}" for words in re.findall(r"&lt;nbflow\.[\w.]+ object", text)]
        found += [f"{path.relative_to(app.outdir)}: {words}" for words in page.wrong]
    known = app.env.domains["py"].objects
    pages = [name.rpartition("/")[2] for name in sorted(app.env.found_docs) if name.startswith("api/generated/")]
    found += [f"{name} has a page and no entry" for name in pages if name not in known]
    for name in sorted(name for name, entry in known.items() if entry.objtype == "class" and not entry.aliased):
        found += [f"{name}.{member} has no entry" for member in own(name) if f"{name}.{member}" not in known]
    if found:
        raise SphinxError("\n".join(["the site is not whole:", *found[:20]]))


def setup(app: Sphinx) -> dict[str, bool]:
    """Look when all is written."""
    app.connect("build-finished", check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
