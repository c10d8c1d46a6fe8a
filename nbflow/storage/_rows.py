"""Rows: runs of a store as a sequence of which nothing is in memory but where each line begins."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable, Sequence
from typing import Any, overload

import numpy as np

from nbflow.storage._former import row_of_today
from nbflow.storage._lines import Row, ended, line_at, parse


class Rows(Sequence[Row]):
    """Runs of a store, each read when it is asked for, and anew each time; a list of them is `list(rows)`.

    The file stays open as long as this does, so it shows the same runs also when the file is replaced or deleted. A
    slice, and what a pickle or a deep copy gives, is a list.

    Parameters
    ----------
    handle : int or None
        An open file, which this will close; None where there are no lines.
    places : iterable of int
        Where their lines begin.
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, handle: int | None, places: Iterable[int]) -> None:
        self._places = np.fromiter(places, np.int64)
        self._handle = handle
        if handle is not None:
            weakref.finalize(self, os.close, handle)

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, k: int) -> Row: ...
    @overload
    def __getitem__(self, k: slice) -> list[Row]: ...
    def __getitem__(self, k: int | slice) -> Row | list[Row]:
        """Return a row, or a list of some."""
        if isinstance(k, slice):
            return [self._row(at) for at in self._places[k]]
        return self._row(self._places[k])

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Sequence) or isinstance(other, str | bytes):
            return NotImplemented
        return len(self) == len(other) and all(one == two for one, two in zip(self, other, strict=True))

    def __repr__(self) -> str:
        return f"<{len(self)} rows of a store>"

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)

    def __deepcopy__(self, memo: Any) -> list[Row]:
        return list(self)

    def _row(self, at: Any) -> Row:
        assert self._handle is not None
        row = parse(ended(line_at(self._handle, int(at))))
        if row is None:
            raise OSError(f"the line at byte {at} of a store was there, and is no run now. Read the store again.")
        return row_of_today(row)
