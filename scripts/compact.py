"""Make a compact copy of a store of runs, small enough to be kept with the code.

results/NAME.jsonl, which a script appends to, stays where it is and is known to git by nobody. Its copy
results/NAME.jsonl.xz holds the same lines without "history" (the means between evaluations), and nothing else is left
out or rounded. `pandas.read_json("results/NAME.jsonl.xz", lines=True)` reads it. A script that finds the copy and no
store begins with the copy, and so draws its picture again without a single run, as long as code and numba are those
that made it; else `--code`, with the name that the lines have under "code", says that they count.

Usage: python scripts/compact.py results/success_rate.jsonl
"""

from __future__ import annotations

import lzma
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro
from reporting import compact_of, console_here, refused, write

import nbflow as nf
from nbflow.storage.store import line


@dataclass(frozen=True)
class Options:
    """Which stores, and what of them."""

    stores: tyro.conf.Positional[tuple[Path, ...]]
    """Files of JSON lines; each gets its copy beside it."""
    code: str | None = None
    """Only runs of this code, by the name in their lines; all by default."""
    drop: tuple[str, ...] = ("history",)
    """Columns to leave out."""


def compact(store: Path, code: str | None, drop: Sequence[str]) -> tuple[Path, int]:
    """Write the copy of a store; return where it is and how many runs it has."""
    if store.suffix == ".xz":
        raise ValueError(f"store {store} is a copy; expected what it is a copy of. Give {store.with_suffix('')}.")
    if not store.exists():
        raise FileNotFoundError(f"store {store} is not there; expected a file that a script wrote. Look at the path.")
    rows = [row for row in nf.Store(store).read().values() if code is None or row.get("code") == code]
    if not rows:
        raise ValueError(f"store {store} has no runs of code {code}; expected a name in its lines. Leave it out.")
    # In the order of keys, which is not that of the moments when runs ended: the same runs give the same file.
    rows.sort(key=lambda row: str(row["key"]))
    lines = b"".join(line({name: value for name, value in row.items() if name not in drop}) for row in rows)
    return write(compact_of(store), lzma.compress(lines, preset=9 | lzma.PRESET_EXTREME)), len(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    options = tyro.cli(Options, args=arguments, description=__doc__)
    console = console_here()
    for store in options.stores:
        try:
            path, runs = compact(store, options.code, options.drop)
        except (TypeError, ValueError, OSError) as error:
            return refused(console, error)
        said = f"{path}: {runs:,} runs, {path.stat().st_size:,} bytes of {store.stat().st_size:,}"
        console.print(said, soft_wrap=True, highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
