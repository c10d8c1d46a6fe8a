"""Make every table and picture of docs/results.md that has a store in results/ from it, and train nothing.

Tables stand in the page between marks, <!-- NAME --> and <!-- /NAME -->; what is between them is written here, and a
test holds it against the stores. Pictures go to docs/images. It reads the compact copies, results/NAME.jsonl.xz, and no
data set: what a picture says of the data stands in results/data.jsonl.xz. In minutes, from a fresh clone.

Usage: python scripts/results.py      (or make results)
       python scripts/results.py --check
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import results_pictures as pictures
import results_tables as tables
import tyro
from results_stores import Stores
from rich.console import Console

from nbflow.experiments.console import begin, begun, tell
from nbflow.plot import save

ROOT = Path(__file__).parents[1]
BLOCK = "<!-- {0} -->\n{1}\n<!-- /{0} -->"
MARKED = re.compile(r"<!-- ([a-z0-9_]+) -->\n(.*?)\n<!-- /\1 -->", re.DOTALL)


@dataclass(frozen=True)
class Options:
    """What is made, and where it is."""

    stores: Path = ROOT / "results"
    """The folder of the compact copies."""
    out: Path = ROOT / "docs"
    """The folder of the page, with images/ in it."""
    name: str = "results"
    """How the page is called."""
    pictures: bool = True
    """Whether pictures are made too."""
    check: bool = False
    """Write nothing, and end with an error where a table of the page is not what the stores say."""


@dataclass
class Found:
    """The files that were written, or are as they should be."""

    files: list[Path] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.files)


def written(text: str, made: dict[str, Callable[[], str]]) -> str:
    """Return a page with what is between marks made anew."""
    unknown = set(named(text)) - set(made)
    if unknown:
        raise ValueError(f"the page has marks of {', '.join(sorted(unknown))}; expected some of {', '.join(made)}.")

    def again(found: re.Match[str]) -> str:
        table = made[found[1]]()
        return BLOCK.format(found[1], f"\n{table}\n" if table else "")  # "" where the store is yet to come

    return MARKED.sub(again, text)


def named(text: str) -> list[str]:
    """Return the names of the marks of a page, in its order."""
    return [found[1] for found in MARKED.finditer(text)]


def work(options: Options, console: Console, found: Found) -> None:
    """Make the tables, and the pictures."""
    begun(console)
    page = options.out / f"{options.name}.md"
    stores = Stores(options.stores)
    before = page.read_text(encoding="utf-8")
    after = written(before, tables.made_of(stores))
    if options.check:
        if after != before:
            raise ValueError(f"{page} is not what the stores say; expected the tables of `make results`. Run it.")
        found.files.append(page)
        return
    page.write_text(after, encoding="utf-8")
    found.files.append(page)
    tell(console, f"tables: {page}")
    for name, draw in pictures.drawn_of(stores).items() if options.pictures else ():
        path = save(draw(), options.out / "images" / f"{name}.png")
        tell(console, f"picture: {path}")
        found.files.append(path)


def main(arguments: Sequence[str] | None = None) -> int:
    options = tyro.cli(Options, args=arguments, description=__doc__)
    return begin(work, lambda options, found, console: found.files, options, Found())


if __name__ == "__main__":
    sys.exit(main())
