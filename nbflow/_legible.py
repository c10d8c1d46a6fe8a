"""Records that explain themselves: a field says what its class's docstring says of it, and a record fits a screen.

The docstring is the one place where a field is described, in a section Attributes or Parameters; `help(nf.Batch)` and
the tooltips of a notebook read it there. What is shown of a value is its shape and dtype, or its length, and a few
figures from both ends: nothing is computed, so that a billion numbers are shown as fast as a thousand.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterable, Sequence, Set
from typing import Any, NamedTuple, TypeVar

import numpy as np

Record = TypeVar("Record", bound=type[Any])

# A screen, in characters and lines; and how many of the lines the columns of one field may take.
WIDTH, LINES, COLUMNS = 100, 25, 10
INDENT = "    "
# Longer sequences are shown by their ends.
FEW = 6
# So many entries of a list or a dict are looked at to find out what it holds.
SAMPLE = 64
# Less room than this is enough for nothing but dots.
LEAST = 8
PLAIN = (str, int, float, bool, type(None))


def legible(record: Record) -> Record:
    """Let a NamedTuple or a dataclass show itself on a screen, and its fields say what they are; a decorator."""
    for name, words in said(record).items():
        if name in getattr(record, "_fields", ()):
            vars(record)[name].__doc__ = words  # instead of "Alias for field number 0"
    for name, show in (("__repr__", as_text), ("_repr_html_", as_html)):
        setattr(record, name, show)
    return record


def said(record: type[Any]) -> dict[str, str]:
    """Return what the docstring of a class says of each field: its type, an empty line, what it means."""
    found: dict[str, list[str]] = {}
    lines = inspect.cleandoc(record.__doc__ or "").splitlines()
    inside, names = False, list[str]()
    for line, under in zip(lines, [*lines, ""][1:], strict=True):
        if under and not under.strip("-"):
            inside, names = line in ("Attributes", "Parameters"), []
        elif inside and line and line[0] not in " -":
            heads, _, kind = line.partition(" : ")
            names = heads.split(", ")
            found |= {name: [kind, ""] for name in names}
        else:
            for name in names:
                found[name].append(line.strip())
    return {name: "\n".join(words).strip() for name, words in found.items()}


def as_text(record: Any) -> str:
    """Return a record as text, on one line if it fits there."""
    head, lines = type(record).__name__, _lines_of(record)
    short = f"{head}({', '.join(f'{line.name}={line.value}' for line in lines)})"
    if len(short) <= WIDTH and not any(line.columns for line in lines):
        return short
    shown = []
    for line in lines:
        shown.append(f"{INDENT}{line.name}={line.value}{'' if line.columns else ','}")
        shown += [f"{2 * INDENT}{name}: {value}," for name, value in line.columns]
    return "\n".join([f"{head}(", *shown, ")"])


def as_html(record: Any) -> str:
    """Return a record as a table, for a notebook; what a field means is shown where the mouse rests on its name."""
    import html  # seldom needed, and 2,000 names of characters

    meaning, rows = said(type(record)), []
    for line in _lines_of(record):
        rows.append((line.name, line.value, meaning.get(line.name, "")))
        rows += [(f"· {name}", value, "") for name, value in line.columns]
    body = (
        f'<tr><th style="text-align: left" title="{html.escape(words)}">{html.escape(name)}</th>'
        f'<td style="text-align: left">{html.escape(value)}</td></tr>'
        for name, value, words in rows
    )
    return "\n".join([f"<table><caption>{html.escape(type(record).__name__)}</caption>", *body, "</table>"])


class _Line(NamedTuple):
    """How a field is shown.

    Attributes
    ----------
    name : str
    value : str
        In brief.
    columns : list of (str, str)
        Name and value of each column, for a table that would not fit on the line.
    """

    name: str
    value: str
    columns: list[tuple[str, str]]


def _lines_of(record: Any) -> list[_Line]:
    fields = _fields_of(record)
    left, found = LINES - 2 - len(fields), []
    for name, value in fields:
        brief = _brief(value, WIDTH - len(f"{INDENT}{name}=,"))
        columns = _columns(value, min(left, COLUMNS)) if "..." in brief and left > 1 else []
        left -= len(columns)
        found.append(_Line(name, f"{type(value).__name__} of {len(value)}:" if columns else brief, columns))
    return found


def _fields_of(record: Any) -> list[tuple[str, Any]]:
    if dataclasses.is_dataclass(record):
        return [(field.name, getattr(record, field.name)) for field in dataclasses.fields(record)]
    return list(zip(record._fields, record, strict=True))


def _columns(value: Any, most: int) -> list[tuple[str, str]]:
    """Return the columns of a table in brief: a dict of lists or records, or a list of dicts."""
    if isinstance(value, dict):
        names = list(value)
        if any(isinstance(value[name], PLAIN) for name in names[:SAMPLE]):
            return []  # settings, not columns
    elif isinstance(value, list) and isinstance(value[0], dict):
        names = _differing(value)
    else:
        return []
    # Of too many those of both ends: settings come first, and results last.
    left_out = len(names) - most + 1 if len(names) > most else 0
    first, found = (most - 1) // 2 if left_out else len(names), []
    for name in names[:first] + names[first + left_out :]:
        label = _brief(name, WIDTH // 3)
        cell = value[name] if isinstance(value, dict) else _Column(value, name)
        found.append((label, _brief(cell, WIDTH - len(f"{2 * INDENT}{label}: ,"), exact=False)))
    if left_out:
        found.insert(first, ("...", f"{left_out} more"))
    return found


def _differing(rows: list[Any]) -> list[Any]:
    """Return the names under which rows have plain values that are not all the same."""
    seen = [row for row in rows[:: max(1, len(rows) // SAMPLE)] if isinstance(row, dict)]
    found = []
    for name in dict.fromkeys(name for row in seen for name in row):
        values = [row.get(name) for row in seen]
        if all(isinstance(value, PLAIN) for value in values) and any(value != values[0] for value in values):
            found.append(name)
    return found


class _Column(Sequence[Any]):
    """A column of a list of dicts, which is not made, for only its ends are looked at."""

    def __init__(self, rows: list[Any], name: Any) -> None:
        self.rows, self.name = rows, name

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, k: Any) -> Any:
        row = self.rows[k]
        return row.get(self.name) if isinstance(row, dict) else row


def _brief(value: Any, room: int, exact: bool = True) -> str:
    """Return a value in so many characters, however large it is; numbers to the last digit, or to the fourth."""
    if room < LEAST:
        return "..."
    if isinstance(value, np.ndarray):
        return _cut(f"{_cut(str(value.dtype), 24)} {value.shape} {_ends(value.flat, value.size, room)}", room)
    if isinstance(value, float | complex | np.inexact) and not exact:
        return f"{value:.4g}"
    if isinstance(value, np.generic):
        return _cut(str(value), room)
    if isinstance(value, str | bytes):
        return _cut(repr(value[:room]), room)
    brief = getattr(type(value), "brief", None)
    if brief and (words := brief(value)):
        return _cut(words, room)
    if hasattr(value, "_fields") or (dataclasses.is_dataclass(value) and not isinstance(value, type)):
        parts = ((f"{name}=", part) for name, part in _fields_of(value))
        return _joined(f"{type(value).__name__}(", parts, ")", room, exact)
    if isinstance(value, dict):
        return _joined("{", ((f"{_brief(name, room // 2)}: ", part) for name, part in value.items()), "}", room, exact)
    if isinstance(value, list | tuple | _Column):
        return _sequence(value, room, exact)
    if isinstance(value, Set) and len(value) > FEW:
        return f"{type(value).__name__} of {len(value)}"
    function = getattr(value, "py_func", value)  # what numba has compiled is known by its Python name
    if callable(function) and hasattr(function, "__qualname__"):
        return _cut(f"<{function.__module__}.{function.__qualname__}>", room)
    return _cut(" ".join(repr(value).split()), room)


def _sequence(value: Any, room: int, exact: bool) -> str:
    if len(value) > FEW:
        kind = "" if isinstance(value, _Column) else f"{type(value).__name__} of {len(value)} "
        return _cut(kind + _ends(value, len(value), room - len(kind)), room)
    opening, closing = ("(", ",)" if len(value) == 1 else ")") if isinstance(value, tuple) else ("[", "]")
    return _joined(opening, (("", part) for part in value), closing, room, exact)


def _ends(values: Any, count: int, room: int) -> str:
    """Return the first and the last of some values in brackets, or all if they are few."""
    ends = range(count) if count <= FEW else (0, 1, count - 1)
    shown = [_brief(values[k], max(room // (len(ends) + 1), LEAST), exact=False) for k in ends]
    return f"[{', '.join(shown if count <= FEW else [*shown[:2], '...', shown[2]])}]"


def _joined(opening: str, parts: Iterable[tuple[str, Any]], closing: str, room: int, exact: bool) -> str:
    """Return as many of the parts, each behind its label, as there is room for."""
    left, shown, more = iter(parts), list[str](), ", ..."
    room -= len(opening) + len(closing)
    part = next(left, None)
    while part is not None:
        (label, value), part = part, next(left, None)
        here = room if part is None else room - len(more)
        piece = label + _brief(value, here - len(label), exact)
        if len(piece) > here:
            shown.append("...")
            break
        shown.append(piece)
        room -= len(piece) + len(", ")
    return f"{opening}{', '.join(shown)}{closing}"


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else f"{text[: room - 3]}..."
