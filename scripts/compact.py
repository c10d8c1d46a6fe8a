"""Make a compact copy of a store of runs, small enough to be kept with the code.

results/NAME.jsonl, which a script appends to, stays where it is and is known to git by nobody. Its copy
results/NAME.jsonl.xz holds the same lines without "history" (the means between evaluations), and nothing else is left
out or rounded. `pandas.read_json("results/NAME.jsonl.xz", lines=True)` reads it. A script that finds the copy and no
store begins with the copy, and so draws its picture again without a single run, as long as code and numba are those
that made it; else `--code`, with the name that the lines have under "code", says that they count.

Usage: python scripts/compact.py results/success_rate.jsonl
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console

from nbflow.experiments.console import begin, tell
from nbflow.storage.compact import compact


@dataclass(frozen=True)
class Options:
    """Which stores, and what of them."""

    stores: tyro.conf.Positional[tuple[Path, ...]]
    """Files of JSON lines; each gets its copy beside it."""
    code: str | None = None
    """Only runs of this code, by the name in their lines; all by default."""
    drop: tuple[str, ...] = ("history",)
    """Columns to leave out."""


def work(options: Options, console: Console, copies: list[Path]) -> None:
    """Write the copy of each store."""
    for store in options.stores:
        tell(console, f"Reading {store}.")
        path, runs = compact(store, options.code, options.drop)
        tell(console, f"{path}: {runs:,} runs, {path.stat().st_size:,} bytes of {store.stat().st_size:,}")
        copies.append(path)


def main(arguments: Sequence[str] | None = None) -> int:
    options = tyro.cli(Options, args=arguments, description=__doc__)
    return begin(work, lambda options, copies, console: copies, options, [])


if __name__ == "__main__":
    sys.exit(main())
