"""Compact copies of stores, small enough to be kept with code: the same lines without some columns, compressed."""

from __future__ import annotations

import lzma
import os
from collections.abc import Sequence
from pathlib import Path

from nbflow.storage._files import whole
from nbflow.storage.store import Store, line, read_copy


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
        Columns to leave out. Nothing else is left out or rounded.

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
    lines = b"".join(line({name: value for name, value in row.items() if name not in drop}) for row in rows)
    with whole(copy_of(store)) as beside:
        beside.write_bytes(lzma.compress(lines, preset=9 | lzma.PRESET_EXTREME))
    return copy_of(store), len(rows)


def unpacked(store: Path) -> Path:
    """Unpack the compact copy of a store where there is one and no store yet; return the store."""
    if not store.exists() and copy_of(store).exists():
        Store(store).add(read_copy(copy_of(store)))
    return store
