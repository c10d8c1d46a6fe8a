"""Store: finished runs in one file, a JSON line each, whole or not there.

A line is appended under a lock, flushed and synced before `add` returns; one with a key that is there already is left
out, so sweeps may share a store. What a cut-off writer left at the end is moved away by the next one, and so is a line
that is no JSON: both are kept beside, in `PATH.garbled`, with their numbers.

The lock is `flock` on a file of its own, `PATH.lock`, which is never deleted: the system frees it when a process dies,
however that happens. On a local disk it holds for all processes of the machine. On NFS Linux turns it into a lock of
the server's, which holds for all machines if the mount has locks; mounted with `nolock` or `local_lock` it holds for
one machine only, and then the machines need stores of their own. A file system without locks is an error.
"""

from __future__ import annotations

import contextlib
import json
import lzma
import math
import os
import pathlib
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from nbflow.storage._files import dumped, explained, flush_directory, lock, memory, open_regular, open_to_write, unlock
from nbflow.storage._former import row_of_today

Row = dict[str, Any]


class Store:
    """Finished runs by their keys, in a file of JSON lines.

    `pandas.read_json(path, lines=True)` reads it: Inf is written as 1e999, NaN as null. `read` gives lines of older
    versions the names of today ("score" and its "unit" for "error"); the file keeps them as they are.

    Parameters
    ----------
    path : path
        A file, made by the first `add`.

    Raises
    ------
    TypeError, ValueError
        If `path` is none.

    Examples
    --------
    >>> import os, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = Store(os.path.join(folder, "runs.jsonl"))
    ...     store.add([{"key": "a", "loss": 0.5}, {"key": "b", "loss": float("inf")}])
    ...     store.add([{"key": "a", "loss": 9.0}])
    ...     store.read()
    2
    0
    {'a': {'key': 'a', 'loss': 0.5}, 'b': {'key': 'b', 'loss': inf}}
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        if not isinstance(path, str | os.PathLike):
            raise TypeError(f"store is a {type(path).__name__}; expected a path. Write store='results/runs.jsonl'.")
        self.path = pathlib.Path(path)
        if self.path.is_dir() or not self.path.name:
            raise ValueError(f"store is {str(path)!r}, a directory; expected a file. Name one in it.")
        self._rows: dict[str, Row] = {}
        self._seen = 0  # bytes that stand in _rows
        self._inode = -1

    def read(self) -> dict[str, Row]:
        """Return every run by its key, in the order of the file.

        What is no run is moved away; where nothing can be written it is left out. Either is a RuntimeWarning.

        Raises
        ------
        OSError
            If the file cannot be read, or is no regular file.
        ValueError
            If it is another kind of file, or larger than this machine's memory. It is left as it is.
        """
        with explained(f"store {self.path} could not be read"):
            if self._advance():
                try:
                    with self._locked():
                        self._heal()
                except OSError as error:
                    return self._whole_rows(error.strerror or str(error))
        return dict(self._rows)

    def add(self, rows: Iterable[Row]) -> int:
        """Append the rows whose keys are not there yet, all or none of them; return how many.

        Parameters
        ----------
        rows : iterable of dict
            What `json.dumps` takes; each has a "key", a string.

        Raises
        ------
        OSError
            If they cannot be written, and why; what was there before is still there.
        TypeError, ValueError
            If a row is no such dict, or the file is of another kind.
        """
        given = {row["key"]: row for row in map(_checked, rows)}
        with explained(f"store {self.path} could not be written"):
            self._advance()  # which refuses a file of another kind before anything is written beside it
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._locked():
                self._heal()
                new = {key: row for key, row in given.items() if key not in self._rows}
                self._append(b"".join(map(line, new.values())))
                self._advance()
        return len(new)

    def has(self, keys: Sequence[str]) -> bool:
        """Tell whether all these runs are there, without parsing what they are."""
        try:
            data = self._bytes()
        except FileNotFoundError:
            return False
        return all(_START + json.dumps(key).encode() in data for key in keys)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with open_to_write(_beside(self.path, ".lock"), "ab") as file:
            lock(file.fileno())
            try:
                yield
            finally:
                unlock(file.fileno())

    def _bytes(self) -> bytes:
        with open_regular(self.path, f"store {self.path}") as file:
            return file.read()

    def _advance(self) -> bool:
        """Take in the lines that are new; return whether there is something to heal."""
        try:
            with open_regular(self.path, f"store {self.path}") as file:
                about = os.fstat(file.fileno())
                if about.st_ino != self._inode or about.st_size < self._seen:
                    self._rows, self._seen, self._inode = {}, 0, about.st_ino
                file.seek(self._seen)
                data = file.read()
        except FileNotFoundError:
            self._rows, self._seen, self._inode = {}, 0, -1
            return False
        lines = split(data)
        if not self._rows and not _is_store(data, lines):
            raise ValueError(f"store {self.path} is a file of another kind: no line of it is a run. Name another file.")
        for text in lines:
            row = parse(text)
            if row is None:
                return True
            _enter(self._rows, row)
            self._seen += len(text)
        return False

    def _heal(self) -> None:
        """Take in what is new, and move what is no line away; under the lock."""
        if not self._advance():
            return
        good, bad = _sorted_out(self._bytes())
        # Written beside and renamed: a reader sees the old file or the new one.
        beside = _beside(self.path, ".new")
        try:
            with open_to_write(beside, "wb") as file:
                file.writelines(good)
                file.flush()
                os.fsync(file.fileno())
            if bad:
                _keep_aside(_beside(self.path, ".garbled"), bad)
            os.replace(beside, self.path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(beside)
            raise
        flush_directory(self.path.parent)
        if bad:
            self._warn(bad, len(good), f"moved to {_beside(self.path, '.garbled').name}")
        self._advance()

    def _whole_rows(self, why: str) -> dict[str, Row]:
        """Return the runs of a file that could not be healed; it is healed when it can be."""
        good, bad = _sorted_out(self._bytes())
        if bad:
            self._warn(bad, len(good), f"left out, and left there, as nothing could be written ({why})")
        rows: dict[str, Row] = {}
        for row in filter(None, map(parse, good)):
            _enter(rows, row)
        return rows

    def _warn(self, bad: dict[int, bytes], good: int, done: str) -> None:
        first, more = [*bad][:10], len(bad) - 10
        where = ", ".join(map(str, first)) + (f" and {more} more" if more > 0 else "")
        warnings.warn(
            f"store {self.path}: no run stands in line {where}, cut off or garbled; {done}. The {good} others are "
            f"whole.",
            RuntimeWarning,
            stacklevel=4,
        )

    def _append(self, data: bytes) -> None:
        """Append all of it, or nothing; under the lock."""
        if not data:
            return
        is_new = not self.path.exists()
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            size = os.fstat(handle).st_size
            try:
                left = memoryview(data)
                while left:
                    left = left[os.write(handle, left) :]
                os.fsync(handle)
            except BaseException:
                os.ftruncate(handle, size)
                raise
        finally:
            os.close(handle)
        if is_new:
            flush_directory(self.path.parent)


def line(row: Row) -> bytes:
    """Return a row as a line of strict JSON, its key first."""
    what = f"row {row['key']!r:.80}"
    try:
        strict = _strict({"key": row["key"], **row})
    except RecursionError:
        raise ValueError(f"{what} is nested too deep; expected plain data. Leave out what holds itself.") from None
    text = dumped(what, strict, allow_nan=False, separators=(",", ":"))
    # json has no way to write 1e999, which every reader takes for Inf.
    return text.replace(_INFINITY, "1e999").replace(_MINUS_INFINITY, "-1e999").encode() + b"\n"


_START = b'{"key":'  # of every line

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


def split(data: bytes) -> list[bytes]:
    """Return lines with their ends; the last one may have none."""
    *whole, tail = data.split(b"\n")
    return [text + b"\n" for text in whole] + ([tail] if tail else [])


def parse(text: bytes) -> Row | None:
    """Return the row of a whole line, None if it is none."""
    if not text.endswith(b"\n"):
        return None
    try:
        row = json.loads(text)
    except (ValueError, RecursionError):  # UnicodeDecodeError is one too
        return None
    return row if isinstance(row, dict) and isinstance(row.get("key"), str) else None


def _enter(rows: dict[str, Row], row: Row) -> None:
    """Take in a row; of several with one key the first counts."""
    rows.setdefault(row["key"], row_of_today(row))


def _sorted_out(data: bytes) -> tuple[list[bytes], dict[int, bytes]]:
    """Return the lines that are runs, with their ends, and the others by their numbers."""
    good, bad = [], {}
    for number, text in enumerate(split(data), 1):
        whole = text if text.endswith(b"\n") else text + b"\n"  # all but its end may be there
        if parse(whole) is not None:
            good.append(whole)
        else:
            bad[number] = text
    return good, bad


def read_copy(path: pathlib.Path) -> list[Row]:
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
    good, bad = _sorted_out(data)
    if bad:
        raise _damaged(what, f"no run stands in line {next(iter(bad))}")
    return [row for row in map(parse, good) if row is not None]


def _damaged(what: str, why: str) -> ValueError:
    said = why.rstrip(".")
    return ValueError(f"{what} is damaged: {said}. Fetch it again, or delete it to begin without it.")


def _is_store(data: bytes, lines: list[bytes]) -> bool:
    """Tell whether a file is empty, has a run, or begins like one that was cut off."""
    return data.startswith(_START[: len(data)]) or any(parse(text) is not None for text in lines)


def _checked(row: Any) -> Row:
    if not isinstance(row, dict) or not isinstance(row.get("key"), str):
        raise TypeError(f"row is {row!r:.80}; expected a dict with a key, a string. Write {{'key': ..., ...}}.")
    return row


def _beside(path: pathlib.Path, end: str) -> pathlib.Path:
    return path.with_name(path.name + end)


def _keep_aside(path: pathlib.Path, lines: dict[int, bytes]) -> None:
    with open_to_write(path, "ab") as file:
        for number, text in lines.items():
            file.write(f"line {number}: ".encode() + text.rstrip(b"\n") + b"\n")
        file.flush()
        os.fsync(file.fileno())
