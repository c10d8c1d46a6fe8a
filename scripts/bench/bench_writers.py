"""What many writers do to one store and its lock, and what a part for each does instead.

Usage: python scripts/bench/bench_writers.py --writers 8 --lines 200 --out FOLDER

Each writer is a process that adds a line of 25 KB at a time, as a sweep does when a run ends. First all add to one
file; then each adds to a file of its own, and one process merges them.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import commands

import nbflow as nf

TEXT = "x" * 25_000


def write(path: Path, writer: int, lines: int) -> float:
    """Add lines; return the seconds that the slowest one took."""
    store, slowest = nf.Store(path), 0.0
    for k in range(lines):
        start = time.perf_counter()
        store.add([{"key": f"{writer}-{k}", "text": TEXT}])
        slowest = max(slowest, time.perf_counter() - start)
    return slowest


def timed(name: str, paths: list[Path], lines: int) -> None:
    """Have a writer for each path, and say how long they took."""
    with multiprocessing.get_context("spawn").Pool(len(paths)) as pool:
        pool.map(time.sleep, [0.5] * len(paths))  # until all have started
        start = time.perf_counter()
        slowest = pool.starmap(write, [(path, k, lines) for k, path in enumerate(paths)], chunksize=1)
        seconds = time.perf_counter() - start
    rate = len(paths) * lines / seconds
    print(f"{name}: {seconds:.1f} s, {rate:.0f} lines a second, the slowest line {1000 * max(slowest):.0f} ms")


def measure(writers: int, lines: int, folder: Path) -> None:
    """Have all writers add to one file, then each to its own, which are merged."""
    timed(f"{writers} writers, one file", [folder / "one.jsonl"] * writers, lines)
    parts = [folder / f"part-{k}.jsonl" for k in range(writers)]
    timed(f"{writers} writers, a part each", parts, lines)
    start = time.perf_counter()
    whole = nf.Store(folder / "whole.jsonl")
    count = sum(whole.add(nf.Store(part)) for part in parts)
    print(f"merged: {count} runs in {time.perf_counter() - start:.1f} s")
    assert count == sum(1 for _ in nf.Store(folder / "one.jsonl")) == writers * lines


def main(arguments: Sequence[str] | None = None) -> int:
    parser = commands.parser_for(__doc__)
    parser.add_argument("--writers", type=commands.count, default=8, help="processes that write at once")
    parser.add_argument("--lines", type=commands.count, default=200, help="that each of them adds")
    options = parser.parse_args(arguments)
    return commands.measured_in_a_folder(
        parser, options.out, lambda folder: measure(options.writers, options.lines, folder)
    )


if __name__ == "__main__":
    sys.exit(main())
