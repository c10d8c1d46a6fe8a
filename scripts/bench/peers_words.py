"""What benchmarks print and write: tables, the machine, versions, and a place between two marks of a file."""

from __future__ import annotations

import datetime
import importlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from nbflow.experiments.machine import cores, cpu_fields, processor

Rows = list[list[str]]


def say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def spread(seconds: Sequence[float]) -> str:
    """Write a median and quartiles, in milliseconds."""
    low, middle, high = (f"{1000 * quartile:.3g}" for quartile in np.percentile(seconds, (25, 50, 75)))
    return f"{middle} ({low}-{high})"


def table(head: Sequence[str], rows: Rows) -> str:
    """Write a table that reads well as text and as Markdown."""
    lines = [list(head), *rows]
    widths = [max(len(line[k]) for line in lines) for k in range(len(head))]
    text = [" | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    text.insert(1, " | ".join("-" * width for width in widths))
    return "\n".join(f"| {line} |" for line in text)


def machine() -> str:
    """Say what the machine is: processor, cores, vector instructions."""
    fields = cpu_fields()
    ids = f" (family {fields['cpu family']}, model {fields['model']})" if "cpu family" in fields else ""
    flags = fields.get("flags", "").split()
    vectors = next((word for flag, word in (("avx512f", "AVX-512"), ("avx2", "AVX2")) if flag in flags), "neither")
    said = vectors if flags else "not known"
    return f"{processor()}{ids}, {cores()} cores, vector instructions: {said}"


def versions() -> str:
    """Say what is installed, and which commit of nbflow this is."""
    found = [f"Python {platform.python_version()}", f"nbflow {importlib.import_module('nbflow').__version__}"]
    folder = Path(__file__).resolve().parent
    git = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=folder, capture_output=True, text=True)
    if git.returncode == 0:
        found[-1] += f" at {git.stdout.strip()}"
    for name in ("numba", "llvmlite", "numpy", "torch", "jax", "jaxlib"):
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            pass
    return ", ".join(found)


def load() -> str:
    return ", ".join(f"{x:.2f}" for x in os.getloadavg()) if hasattr(os, "getloadavg") else "not known"


def today() -> str:
    return datetime.datetime.now(datetime.timezone.utc).date().isoformat()


def measured(sections: Mapping[str, Callable[[], str]]) -> tuple[list[str], bool]:
    """Return a table with its title for each section, and whether Ctrl-C came before the last."""
    found = []
    try:
        for title, section in sections.items():
            found.append(f"**{title}**\n\n{section()}")
    except KeyboardInterrupt:
        return found, True
    return found, False


def finish(
    facts: Sequence[str], tables: Sequence[str], stopped: bool, file: Path | None, marks: tuple[str, str]
) -> int:
    """Print the tables, and write all of them where they belong; return the exit code."""
    text = "\n\n".join(["\n".join(f"- {fact}" for fact in facts), *tables])
    if tables:
        print(text)
    if stopped:
        kept = f"{len(tables)} tables are printed above" if tables else "nothing was measured"
        say(f"Stopped early: {kept}, and no file is written. The same command begins anew.")
        return 130
    if file:
        write(file, text, marks)
    return 0


def marks(script: str) -> tuple[str, str]:
    """Return the two lines of a file between which a script writes."""
    return f"<!-- written by scripts/bench/{script}: begin -->", f"<!-- written by scripts/bench/{script}: end -->"


def write(path: Path, text: str, marks: tuple[str, str]) -> None:
    """Put text between the two marks of a file."""
    begin, end = marks
    before, _, rest = path.read_text(encoding="utf-8").partition(begin)
    _, mark, after = rest.partition(end)
    if not mark:
        raise SystemExit(f"{path} has no lines '{begin}' and '{end}'; put them where tables belong")
    path.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", encoding="utf-8")


def between(path: Path, marks: tuple[str, str]) -> str:
    """Return the text between the two marks of a file."""
    begin, end = marks
    return path.read_text(encoding="utf-8").partition(begin)[2].partition(end)[0].strip()
