"""Compact copies of stores, small enough to be kept with code: the same lines without some columns, compressed."""

from __future__ import annotations

import lzma
import os
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from nbflow.storage._files import explained, memory, open_regular, whole
from nbflow.storage._lines import Row, judged, line
from nbflow.storage.store import Store


def acted(history: Mapping[str, Sequence[Any]]) -> float | None:
    """Return the part of a run's updates in which its clip changed the gradient, None where the history does not say.

    Parameters
    ----------
    history : dict of lists
        Of one network; its rows are means since the row before.

    Examples
    --------
    >>> acted({"update": [10, 30], "clipped": [1.0, 0.25]})
    0.5
    """
    parts, updates = history.get("clipped"), history.get("update")
    if not parts or not updates:
        return None
    lengths = [after - before for before, after in zip([0, *updates], updates, strict=False)]
    known = [(part, length) for part, length in zip(parts, lengths, strict=True) if part is not None and part == part]
    return float(sum(part * length for part, length in known) / max(sum(length for _, length in known), 1))


def clipped_of(row: Mapping[str, Any]) -> float | None:
    """Return in which part of its updates the clip of a stored run acted, None where its line does not say.

    Examples
    --------
    >>> clipped_of({"clipped": 0.5}), clipped_of({"history": {"update": [10], "clipped": [1.0]}}), clipped_of({})
    (0.5, 1.0, None)
    """
    if isinstance(row.get("clipped"), int | float):
        return float(row["clipped"])
    return acted(row["history"]) if isinstance(row.get("history"), dict) else None


def copy_of(store: Path) -> Path:
    """Return where the compact copy of a store is."""
    return store.with_name(f"{store.name}.xz")


def compact(
    store: str | os.PathLike[str], code: str | None = None, drop: Sequence[str] = ("history",)
) -> tuple[Path, int]:
    """Write the compact copy of a store beside it; `pandas.read_json(copy, lines=True)` reads it.

    Parameters
    ----------
    store : path
        A file of JSON lines, as `nbflow.sweep` keeps them.
    code : str, optional
        Keep only runs of this code, by the name in their lines.
    drop : sequence of str
        Columns to leave out. Nothing else is left out or rounded. Of a history that is left out, the part of updates in
        which the clip acted stands as "clipped".

    Returns
    -------
    copy : Path
    runs : int
        How many it holds.

    Raises
    ------
    FileNotFoundError
        If there is no such store.
    ValueError
        If it is a copy itself, or has no runs of that code.
    """
    store = Path(store)
    if store.suffix == ".xz":
        raise ValueError(f"store {store} is a copy; expected what it is a copy of. Give {store.with_suffix('')}.")
    if not store.exists():
        raise FileNotFoundError(f"store {store} is not there; expected a file that a script wrote. Look at the path.")
    rows = [row for row in Store(store).read().values() if code is None or row.get("code") == code]
    if not rows:
        raise ValueError(f"store {store} has no runs of code {code}; expected a name in its lines. Leave it out.")
    # In the order of keys, which is not that of the moments when runs ended: the same runs give the same file.
    rows.sort(key=lambda row: str(row["key"]))
    lines = b"".join(line(_without(row, drop)) for row in rows)
    with whole(copy_of(store)) as beside:
        beside.write_bytes(lzma.compress(lines, preset=9 | lzma.PRESET_EXTREME))
    return copy_of(store), len(rows)


def _without(row: Mapping[str, Any], drop: Sequence[str]) -> dict[str, Any]:
    """Return a line without some columns, and with how often the clip acted where that was in one of them."""
    found = {name: value for name, value in row.items() if name not in drop}
    part = acted(row["history"]) if "history" in drop and isinstance(row.get("history"), dict) else None
    return found if part is None or "clipped" in row else {**found, "clipped": part}


def unpacked(store: Path) -> Path:
    """Unpack the compact copy of a store where there is one and no store yet; return the store."""
    if not store.exists() and copy_of(store).exists():
        Store(store).add(read_copy(copy_of(store)))
    return store


def read_copy(path: Path) -> list[Row]:
    """Return the runs of a compressed copy of a store, PATH.jsonl.xz.

    Raises
    ------
    OSError
        If it cannot be read, or is no regular file.
    ValueError
        If it is damaged in any way: a copy is whole or of no use.
    """
    what, most = f"copy {path}", memory() // 4  # of which the runs will take several times as much
    with explained(f"{what} could not be read"), open_regular(path, what) as file:
        try:
            with lzma.LZMAFile(file) as unpacked:
                data = unpacked.read(most + 1)
        except (lzma.LZMAError, EOFError) as error:
            raise _damaged(what, str(error)) from None
    if len(data) > most:
        raise _damaged(what, f"it unpacks to more than {most} bytes")
    found = []
    for number, _, _, row in judged(BytesIO(data), what):
        if row is None:
            raise _damaged(what, f"no run stands in line {number}")
        found.append(row)
    return found


def _damaged(what: str, why: str) -> ValueError:
    said = why.rstrip(".")
    return ValueError(f"{what} is damaged: {said}. Fetch it again, or delete it to begin without it.")
