"""Tables for pandas, of what runs have measured: a row for each update, and for each replica."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from nbflow import _check

TABLES = ("history", "evaluations")


def table_of(name: Any) -> str:
    """Return the name of a table that runs have."""
    return _check.choice("table", name, TABLES)


def frame(columns: Mapping[str, Sequence[Any]] | Iterable[Mapping[str, Any]]) -> Any:
    """Return a DataFrame of columns, or of rows; pandas is loaded here.

    Raises
    ------
    ImportError
        If it is not installed.
    """
    try:
        pandas = importlib.import_module("pandas")
    except ImportError:
        raise ImportError(
            "frame needs pandas, which is not installed; expected it, for it makes the table. "
            "pip install 'nbflow[frame]'."
        ) from None
    return pandas.DataFrame(columns if isinstance(columns, Mapping) else list(columns))


def tidy(columns: Mapping[str, Sequence[Any]], replicas: int | None) -> dict[str, list[Any]]:
    """Return columns with a row for each replica, numbered in a column of its own; without replicas, as they are.

    Raises
    ------
    ValueError
        If a column, which may be of a callback, has not as many rows as the updates.
    """
    rows = len(columns.get("update", ()))
    for name, column in columns.items():
        if len(column) != rows:
            raise ValueError(
                f"column {name!r:.80} has {len(column)} rows; expected {rows}, one for each update. Append one a row."
            )
    if replicas is None:
        return {name: list(column) for name, column in columns.items()}
    found: dict[str, list[Any]] = {"replica": [r for _ in range(rows) for r in range(replicas)]}
    return found | {name: list(_spread(column, replicas)) for name, column in columns.items()}


def _spread(column: Sequence[Any], replicas: int) -> Iterator[Any]:
    for value in column:
        yield from value if isinstance(value, list) and len(value) == replicas else [value] * replicas
