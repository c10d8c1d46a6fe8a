"""Lines of a store: how a run is written as one, and read, one by one, from a file or from where one begins in it."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from nbflow.storage._files import dumped

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


def judged(file: BinaryIO, what: str, number: int = 1) -> Iterator[tuple[int, int, bytes, Row | None]]:
    """Yield lines from where a file stands: number, first byte, text, and the run; None where there is none.

    All but its end may be there of the last one.
    """
    at = file.tell()
    for text in lines(file, what):
        yield number, at, text, parse(ended(text))
        number, at = number + 1, at + len(text)


def lines_at(places: Iterable[int], file: BinaryIO, what: str) -> Iterator[bytes]:
    """Yield the lines that begin at these bytes of a file, in its order."""
    left, at = iter(places), 0
    wanted = next(left, None)
    for text in lines(file, what) if wanted is not None else ():
        if at == wanted:
            yield text
            wanted = next(left, None)
            if wanted is None:
                return
        at += len(text)


def line(row: Row) -> bytes:
    """Return a row as a line of strict JSON, its key first."""
    what = f"row {row['key']!r:.80}"
    try:
        strict = _strict({"key": row["key"], **row})
    except RecursionError:
        raise ValueError(f"{what} is nested too deep; expected plain data. Leave out what holds itself.") from None
    text = dumped(what, strict, allow_nan=False, separators=(",", ":"))
    # json has no way to write 1e999, which every reader takes for Inf.
    whole = text.replace(_INFINITY, "1e999").replace(_MINUS_INFINITY, "-1e999").encode() + b"\n"
    if len(whole) > LONGEST:
        raise ValueError(f"{what} has {len(whole)} bytes; expected at most {LONGEST}. Record fewer rows of history.")
    return whole


START = b'{"key":'  # of every line

# Texts that stand for Inf until the line is written: private characters, which json.dumps escapes.
_PLUS, _MINUS = "\ue000inf\ue000", "\ue000-inf\ue000"
_INFINITY, _MINUS_INFINITY = json.dumps(_PLUS), json.dumps(_MINUS)


def _strict(thing: Any) -> Any:
    if isinstance(thing, dict):
        return {str(key): _strict(value) for key, value in thing.items()}
    if isinstance(thing, list | tuple):
        return [_strict(value) for value in thing]
    if isinstance(thing, float) and not math.isfinite(thing):
        return None if math.isnan(thing) else _PLUS if thing > 0 else _MINUS
    return thing
