"""Parquet: the runs of a store as a table of typed columns, for pandas, Polars, DuckDB and R.

A record's parts are columns named by dots, as "history.loss", a list of numbers for each run. The runs are read twice,
a few at a time: once for what each column holds, once to be written.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from nbflow.storage._files import whole
from nbflow.storage._lines import Row

# Values that are in memory at a time, as Python's objects.
AT_A_TIME = 2**18
# Whole numbers up to here are float64s too; up to the next one they have a column of their own.
EXACT, LONGEST = 2**53, 2**63
# How a list's kind is called; by its elements'.
LIST = "list of "


def write(path: Path, runs: Iterable[Row], drop: Collection[str]) -> int:
    """Write runs, which are iterated over twice, and return how many they are.

    Raises
    ------
    ImportError
        If pyarrow is not installed.
    ValueError
        If two parts of a run have one name.
    """
    try:
        arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise ImportError(
            "to_parquet needs pyarrow, which is not installed; expected it, for it writes the file. "
            "pip install 'nbflow[parquet]'."
        ) from None
    kinds: dict[str, set[str]] = {}
    for cells in _tables(runs, drop):
        for name, value in cells.items():
            kind = _kind(value)
            kinds.setdefault(name, set()).update(kind and [kind])
    kept = {name: _column(found) for name, found in kinds.items()}
    types = {
        "": arrow.null(), "bool": arrow.bool_(), "int": arrow.int64(), "long": arrow.int64(),
        "float": arrow.float64(), "text": arrow.string(),
    }  # fmt: skip
    types |= {LIST + name: arrow.list_(kind) for name, kind in types.items()}
    schema = arrow.schema([(name, types[kind]) for name, kind in kept.items()])
    count = 0
    with whole(path) as beside, parquet.ParquetWriter(beside, schema) as file:
        for some in _chunks(_tables(runs, drop)):
            columns = {name: [_as(kind, cells.get(name)) for cells in some] for name, kind in kept.items()}
            file.write_table(arrow.table(columns, schema=schema))
            count += len(some)
    return count


def _tables(runs: Iterable[Row], drop: Collection[str]) -> Iterator[Row]:
    for row in runs:
        yield _flat({name: value for name, value in row.items() if name not in drop})


def _flat(row: Row) -> Row:
    """Return a run without dicts in it."""
    found: Row = {}
    for name, value in _parts(row, ""):
        if name in found:
            raise ValueError(
                f"run {row['key']} has two parts called {name:.120}; expected one. Give `drop` one of them."
            )
        found[name] = value
    return found


def _parts(row: Row, prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in row.items():
        if isinstance(value, dict):
            yield from _parts(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _chunks(tables: Iterable[Row]) -> Iterator[list[Row]]:
    """Yield as many runs at a time as have about so many values."""
    some: list[Row] = []
    size = 0
    for cells in tables:
        some.append(cells)
        size += sum(len(value) if isinstance(value, list) else 1 for value in cells.values())
        if size >= AT_A_TIME:
            yield some
            some, size = [], 0
    if some:
        yield some


def _kind(value: Any) -> str:
    """Return what a value is: nothing, of which a column may have any number, a plain one, a list of such, or other."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int" if abs(value) <= EXACT else "long" if -LONGEST <= value < LONGEST else "other"
    if isinstance(value, float):
        return "float"
    if isinstance(value, list):
        inner = _column({_kind(part) for part in value})
        return "other" if inner.startswith(LIST) or (inner == "text" and not _all_text(value)) else LIST + inner
    return "text" if isinstance(value, str) else "other"


def _all_text(values: list[Any]) -> bool:
    return all(value is None or isinstance(value, str) for value in values)


def _column(kinds: Collection[str]) -> str:
    """Return what a column of these kinds is: "text" where no other type has them all."""
    found = set(kinds) - {""}
    if found and all(kind.startswith(LIST) for kind in found):
        inner = _column({kind.removeprefix(LIST) for kind in found})
        mixed = inner == "text" and found - {LIST, LIST + "text"}
        return "text" if mixed else LIST + inner
    if len(found) < 2:
        return "text" if "other" in found else next(iter(found), "")
    if found == {"int", "float"}:
        return "float"
    return "long" if found == {"int", "long"} else "text"


def _as(kind: str, value: Any) -> Any:
    """Return a value as its column holds it: in one of texts, JSON stands for what is none."""
    return json.dumps(value) if kind == "text" and value is not None and not isinstance(value, str) else value
