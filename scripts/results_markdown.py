"""Tables of docs/results.md in Markdown, and how their numbers are written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import nbflow as nf
from nbflow import statistics


def grid(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of Markdown."""
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def rich_to_markdown(table: Any) -> str:
    """Return a table of rich as one of Markdown."""
    heads = [str(column.header).replace("\n", ", ") for column in table.columns]
    cells = [list(column.cells) for column in table.columns]
    return grid(heads, zip(*([str(cell) for cell in column] for column in cells), strict=True))


def section(title: str, command: str, design: str, parts: Sequence[Any], image: str) -> str:
    """Return a section that stands in the page as soon as its store is there."""
    found = [f"### {title}", f"```\n{command}\n```", f"What was fixed before the runs: [design](methods.md#{design})."]
    for part in parts:
        found += [part] if isinstance(part, str) else [f"{part.title}:", rich_to_markdown(part)]
    return "\n\n".join([*found, image])


def percent(interval: nf.Interval, digits: int = 0) -> str:
    low, high = (f"{100 * end:.{digits}f}" for end in interval[1:])
    return f"{low}-{high} %"


def rate(count: int, runs: int, digits: int = 0) -> str:
    return f"{count} ({percent(statistics.success_rate(count, runs), digits)})"


def points(interval: Any) -> str:
    """Return a difference of two rates in points, with its interval."""
    return f"{100 * interval[0]:+.0f} points ({100 * interval[1]:+.0f} to {100 * interval[2]:+.0f})"


def probability(p: float) -> str:
    if p < 0.0001:
        return "below 0.0001"
    return f"{p:.4f}" if p < 0.01 else f"{p:.3f}"
