"""Lines of a store: read one by one, from a file or from where one begins in it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any, BinaryIO

Row = dict[str, Any]

# The most bytes of a line. A longer one is no run: without a bound, a file without line ends would fill the memory.
LONGEST = 2**30
# So many bytes are read at first of a line that begins somewhere.
CHUNK = 2**14


def lines(file: BinaryIO, what: str) -> Iterator[bytes]:
    """Yield lines with their ends, from where a file stands; the last one may have none.

    Raises
    ------
    ValueError
        If one is longer than a run can be.
    """
    while text := file.readline(LONGEST + 1):
        if len(text) > LONGEST:
            raise ValueError(f"{what} has a line of more than {LONGEST} bytes, which is no run. Name another file.")
        yield text


def line_at(handle: int, at: int) -> bytes:
    """Return the line that begins at a byte of an open file, with its end if it has one."""
    text, size = b"", CHUNK
    while True:
        new = os.pread(handle, size, at + len(text))
        end = new.find(b"\n") + 1
        text += new[: end or None]
        if end or not new or len(text) > LONGEST:
            return text
        size = min(2 * size, LONGEST)


def ended(text: bytes) -> bytes:
    """Return a line with its end: all but that may be there."""
    return text if text.endswith(b"\n") else text + b"\n"


def _decode(text: bytes) -> Any:
    """Return what `json.loads` does, which spends a fifth of its time on guessing how a short line is encoded."""
    try:
        return _DECODER.decode(text.decode("utf-8", "surrogatepass"))
    except ValueError:
        return json.loads(text)


_DECODER = json.JSONDecoder()


def parse(text: bytes) -> Row | None:
    """Return the row of a whole line, None if it is none."""
    if not text.endswith(b"\n"):
        return None
    try:
        row = _decode(text)
    except (ValueError, RecursionError):  # UnicodeDecodeError is one too
        return None
    return row if isinstance(row, dict) and isinstance(row.get("key"), str) else None
