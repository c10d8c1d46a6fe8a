"""Store: finished runs in one file, a JSON line each, whole or not there.

A line is appended under a lock, flushed and synced before `add` returns; one with a key that is there already is left
out, so sweeps may share a store. What a cut-off writer left at the end is moved away by the next one, and so is a line
that is no JSON: both are kept beside, in `PATH.garbled`, with their numbers.

The file is read line by line, and each line once: what stays in memory is where a run begins, by its key (`_index.py`).
Of a large file that lies beside, as `PATH.index`, and may be deleted.

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
import sys
import threading
import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, BinaryIO

import numpy as np

from nbflow._legible import legible
from nbflow.storage import _index, _parquet
from nbflow.storage._files import (
    dumped,
    explained,
    flush_directory,
    lock,
    memory,
    open_regular,
    open_stream,
    open_to_write,
    path_of,
    unlock,
)
from nbflow.storage._former import row_of_today
from nbflow.storage._index import Index, Known
from nbflow.storage._lines import LONGEST, Row as Row, ended, line_at, lines, parse as parse
from nbflow.storage._rows import Rows

# An index is written when so many bytes of the file are new to the one that lies there, and an eighth of all.
WORTH_AN_INDEX = 2**23
# Lines that are put into an index at a time.
AT_ONCE = 2**12
# No file has this byte.
LAST = 2**63 - 1


class Store:
    """Finished runs by their keys, in a file of JSON lines.

    `pandas.read_json(path, lines=True)` reads it: Inf is written as 1e999, NaN as null. `read` gives lines of older
    versions the names of today ("score" and its "unit" for "error"); the file keeps them as they are. A store is a
    stream: `for row in store` has one run in memory at a time, in the order of the file. It may be used by several
    threads, and sent to other processes, where it is the file of the same path.

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
    ...     [row["loss"] for row in store], store.rows(["b"])[0]["loss"], store.absent(["a", "c"])
    2
    0
    {'a': {'key': 'a', 'loss': 0.5}, 'b': {'key': 'b', 'loss': inf}}
    ([0.5, inf], inf, ['c'])
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path_of("store", path, "results/runs.jsonl")
        self._forget()
        self._mutex = threading.RLock()  # threads that share this object take turns

    def __reduce__(self) -> tuple[type[Store], tuple[pathlib.Path]]:
        """Travel as a path."""
        return Store, (self.path,)

    def __iter__(self) -> Iterator[Row]:
        """Yield every run that is there now, in the order of the file, as `read` does."""
        with self._mutex:
            view = self._view()
            places = view.index.places().tolist() if view else []
        if view is None:
            return
        with view.file as file:
            file.seek(0)
            for text in _at(places, file, f"store {self.path}"):
                row = parse(ended(text))
                if row is not None:  # and nobody has changed it since
                    yield row_of_today(row)

    def read(self) -> dict[str, Row]:
        """Return every run by its key, in the order of the file.

        What is no run is moved away; where nothing can be written it is left out. Either is a RuntimeWarning.

        Raises
        ------
        OSError
            If the file cannot be read, or is no regular file.
        ValueError
            If it is another kind of file. It is left as it is.
        """
        with self._mutex:
            taken = Taken()
            view = self._view(taken)
            if view is None:
                return {}
            found: dict[str, Row] = {}
            with view.file as file:
                file.seek(0)
                places = view.index.places()
                before = places[: np.searchsorted(places, taken.start)].tolist()
                for row in map(parse, map(ended, _at(before, file, f"store {self.path}"))):
                    if row is not None:  # and nobody has changed it since
                        found[row["key"]] = row_of_today(row)
        for row in taken.rows:  # of two with one key the first stays
            found.setdefault(row["key"], row_of_today(row))
        return found

    def rows(self, keys: Iterable[str]) -> Rows:
        """Return the runs with these keys that are there, in the order of the keys, each read when it is asked for.

        Parameters
        ----------
        keys : iterable of str

        Returns
        -------
        Rows
            A sequence of dicts. Healing, warnings and errors are those of `read`.
        """
        with self._mutex:
            view = self._view()
            if view is None:
                return Rows(None, ())
            with view.file as file:
                found = (view.index.find(key) for key in keys)
                return Rows(os.dup(file.fileno()), [entry.at for entry in found if entry is not None])

    def to_parquet(self, path: str | os.PathLike[str], drop: Collection[str] = ()) -> int:
        """Write all runs into a Parquet file, which `pandas.read_parquet` reads as a table with a row for each.

        What a run has under a name is under the name of a column, as "recipe.lr"; a record's parts are columns of their
        own, as "evaluations.score" and "history.loss", a list of numbers for each run. A column is of whole numbers,
        numbers, truths or texts, or of lists of such; one that has several of these, as "recipe.lr" has of rates and
        schedules, is of texts. What a run lacks, and NaN, is missing. A few runs are in memory at a time.

        Parameters
        ----------
        path : path
            The file, as "runs.parquet", written whole or not at all.
        drop : collection of str, optional
            What to leave out, as ("history",).

        Returns
        -------
        int
            How many runs it has.

        Raises
        ------
        ImportError
            If pyarrow is not installed: `pip install 'nbflow[parquet]'`.
        TypeError, ValueError
            If a path is none, or is the store's own, or two parts of a run have one name.
        OSError
            If the store cannot be read, or the file not be written.

        Examples
        --------
        >>> import nbflow as nf
        >>> nf.Store("results/runs.jsonl").to_parquet("results/runs.parquet", drop=("history",))  # doctest: +SKIP
        >>> pandas.read_parquet("results/runs.parquet").groupby("recipe.lr")["score"].median()  # doctest: +SKIP
        """
        place = path_of("path", path, "results/runs.parquet")
        if place.absolute() == self.path.absolute():
            raise ValueError(f"path is {str(place)!r}, the store itself; expected another file. Write runs.parquet.")
        if isinstance(drop, str):
            raise TypeError(
                f"drop is {drop!r:.80}, a text; expected a collection of names. Write drop=({drop!r:.80},)."
            )
        with self._mutex:
            view = self._view()
            if view is None:
                runs = Rows(None, ())
            else:  # what is there now, in both readings
                with view.file as file:
                    runs = Rows(os.dup(file.fileno()), view.index.places())
        with explained(f"{place} could not be written"):
            return _parquet.write(place, runs, drop)

    def absent(self, keys: Iterable[str]) -> list[str]:
        """Return those of these keys that have no run; what is there is not read again."""
        with self._mutex:
            index = self._looked()
            return [key for key in keys if index.find(key) is None]

    def failed(self, keys: Iterable[str]) -> list[str]:
        """Return those of these keys whose run is there and has a "failure"."""
        with self._mutex:
            index = self._looked()
            found = ((key, index.find(key)) for key in keys)
            return [key for key, entry in found if entry is not None and entry.failed]

    def size(self) -> int:
        """Return the bytes of the file, 0 where there is none."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def has(self, keys: Sequence[str]) -> bool:
        """Tell whether all these runs are there; nothing is written or healed, and nobody is waited for."""
        with self._mutex:
            try:
                file = open_stream(self.path, f"store {self.path}")
            except FileNotFoundError:
                return False
            with file:
                index = self._sound(file).index if self._advance(file) else self._index
                return all(index.find(key) is not None for key in keys)

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
        with self._mutex, explained(f"store {self.path} could not be written"):
            self._advanced()  # which refuses a file of another kind before anything is written beside it
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._locked():
                self._heal()
                new = {key: row for key, row in given.items() if self._index.find(key) is None}
                self._append(b"".join(map(line, new.values())))
                self._advanced()
        return len(new)

    def _looked(self) -> Index:
        """Return an index of all that is there."""
        view = self._view()
        if view is None:
            return Index()
        view.file.close()
        return view.index

    def _view(self, taken: Taken | None = None) -> View | None:
        """Open the file with an index of every run in it, healed if that can be done; None if there is none.

        Runs that are read for it are put into `taken`, all that are from its start on.
        """
        with explained(f"store {self.path} could not be read"):
            try:
                file = open_stream(self.path, f"store {self.path}")
            except FileNotFoundError:
                self._forget()
                return None
            with contextlib.ExitStack() as stack:
                stack.enter_context(file)
                if self._advance(file, taken):
                    if taken is not None:  # they may stand elsewhere in a while: all are read again
                        taken.forget()
                    try:
                        with self._locked():
                            self._heal()
                    except OSError as error:
                        sound = self._sound(file)
                        if sound.bad:
                            self._warn(sound, f"left out, and left there, as nothing could be written "
                                              f"({error.strerror or error})")  # fmt: skip
                        stack.pop_all()
                        return View(file, sound.index)
                    return self._view()
                self._keep_index(file)
                stack.pop_all()
        return View(file, self._index)

    def _forget(self) -> None:
        """Know of no line."""
        self._index, self._known, self._inode = Index(), Known(), -1
        self._saved = 0  # bytes of the file that the index beside it knows

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with open_to_write(_beside(self.path, ".lock"), "ab") as file:
            lock(file.fileno())
            try:
                yield
            finally:
                unlock(file.fileno())

    def _advanced(self) -> bool:
        """Take in the lines that are new; return whether there is something to heal."""
        try:
            file = open_stream(self.path, f"store {self.path}")
        except FileNotFoundError:
            self._forget()
            return False
        with file:
            return self._advance(file)

    def _advance(self, file: BinaryIO, taken: Taken | None = None) -> bool:
        """Take in the lines of an open file that are new; return whether there is something to heal."""
        handle, about = file.fileno(), os.fstat(file.fileno())
        same = about.st_ino == self._inode and about.st_size >= self._known.seen
        if not same or _index.tail_of(handle, self._known.seen) != self._known.tail:
            self._forget()
            self._inode = about.st_ino
            kept = _index.load(_beside(self.path, ".index"), handle) if about.st_size > WORTH_AN_INDEX else None
            if kept is not None:
                self._index, self._known = kept
                self._saved = self._known.seen
        seen, count, odd = self._known.seen, self._known.lines, False
        if taken is not None:
            taken.start = seen
        file.seek(seen)
        new: list[tuple[str, int, bool]] = []
        try:
            for text in lines(file, f"store {self.path}"):
                row = parse(text)
                if row is None:
                    odd = True
                    break
                new.append((row["key"], seen, row.get("failure") is not None))
                if taken is not None:
                    taken.rows.append(row)
                seen, count = seen + len(text), count + 1
                if len(new) == AT_ONCE:
                    self._index.take(new)
                    new = []
        finally:
            for line in new:
                self._index.add(*line)
            self._known = Known(seen, count, _index.tail_of(handle, seen))
        if odd and not count and not _is_store(file):
            raise ValueError(f"store {self.path} is a file of another kind: no line of it is a run. Name another file.")
        return odd

    def _keep_index(self, file: BinaryIO) -> None:
        """Write the index beside the store, where that saves reading much."""
        seen = self._known.seen
        if seen - self._saved >= max(WORTH_AN_INDEX, seen // 8):
            self._saved = seen  # also where it could not be written: not again for every line
            with contextlib.suppress(OSError):  # it is only a shortcut
                self._index.save(_beside(self.path, ".index"), self._known, os.fstat(file.fileno()))

    def _heal(self) -> None:
        """Take in what is new, and move what is no line away; under the lock."""
        if not self._advanced():
            return
        # Written beside and renamed: a reader sees the old file or the new one.
        beside = _beside(self.path, ".new")
        sound = Sound(Index())
        try:
            with open_stream(self.path, f"store {self.path}") as old, open_to_write(beside, "wb") as new:
                for number, at, text, row in _judged(old, f"store {self.path}"):
                    if row is None:
                        sound.bad[number] = at
                    else:
                        new.write(ended(text))
                        sound.good += 1
                new.flush()
                os.fsync(new.fileno())
                if sound.bad:
                    _keep_aside(_beside(self.path, ".garbled"), sound.bad, old)
            os.replace(beside, self.path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(beside)
            raise
        flush_directory(self.path.parent)
        if sound.bad:
            self._warn(sound, f"moved to {_beside(self.path, '.garbled').name}")
        self._advanced()

    def _sound(self, file: BinaryIO) -> Sound:
        """Look for the runs of a file that cannot be healed now, from where `_advance` met the first odd line."""
        found = Sound(self._index.copy(), self._known.lines)
        file.seek(self._known.seen)
        for number, at, _, row in _judged(file, f"store {self.path}", self._known.lines + 1):
            if row is None:
                found.bad[number] = at
            else:
                found.index.add(row["key"], at, row.get("failure") is not None)
                found.good += 1
        return found

    def _warn(self, sound: Sound, done: str) -> None:
        first, more = [*sound.bad][:10], len(sound.bad) - 10
        where = ", ".join(map(str, first)) + (f" and {more} more" if more > 0 else "")
        warnings.warn(
            f"store {self.path}: no run stands in line {where}, cut off or garbled; {done}. The {sound.good} others "
            f"are whole.",
            RuntimeWarning,
            stacklevel=_level(),
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


@legible
@dataclass
class View:
    """An open file, and where each run in it begins.

    Attributes
    ----------
    file : BinaryIO
        Who asked for it closes it.
    index : Index
        Of every run in it.
    """

    file: BinaryIO
    index: Index


@legible
@dataclass
class Taken:
    """Runs that were parsed for the index, which whoever wants all of them need not parse again.

    Attributes
    ----------
    start : int
        The byte from which on each run of the file is here; by default none is.
    rows : list of dict
        In the order of the file, also those whose key another one had before.
    """

    start: int = LAST
    rows: list[Row] = field(default_factory=list)

    def forget(self) -> None:
        """Have none."""
        self.start, self.rows = LAST, []


@legible
@dataclass
class Sound:
    """What is whole of a file, and what is not.

    Attributes
    ----------
    index : Index
        Of the runs in it.
    good : int
        How many lines are runs.
    bad : dict of int
        Where the other lines begin, by their numbers.
    """

    index: Index
    good: int = 0
    bad: dict[int, int] = field(default_factory=dict)


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


def _judged(file: BinaryIO, what: str, number: int = 1) -> Iterator[tuple[int, int, bytes, Row | None]]:
    """Yield lines from where a file stands: number, first byte, text, and the run; None where there is none.

    All but its end may be there of the last one.
    """
    at = file.tell()
    for text in lines(file, what):
        yield number, at, text, parse(ended(text))
        number, at = number + 1, at + len(text)


def _at(places: Iterable[int], file: BinaryIO, what: str) -> Iterator[bytes]:
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
    found = []
    for number, _, _, row in _judged(BytesIO(data), what):
        if row is None:
            raise _damaged(what, f"no run stands in line {number}")
        found.append(row)
    return found


def _damaged(what: str, why: str) -> ValueError:
    said = why.rstrip(".")
    return ValueError(f"{what} is damaged: {said}. Fetch it again, or delete it to begin without it.")


def _is_store(file: BinaryIO) -> bool:
    """Tell whether a file is empty, has a run, or begins like one that was cut off."""
    file.seek(0)
    head = file.read(len(_START))
    file.seek(0)
    return head == _START[: len(head)] or any(parse(text) is not None for text in lines(file, "a store"))


def _checked(row: Any) -> Row:
    if not isinstance(row, dict) or not isinstance(row.get("key"), str):
        raise TypeError(f"row is {row!r:.80}; expected a dict with a key, a string. Write {{'key': ..., ...}}.")
    return row


def _beside(path: pathlib.Path, end: str) -> pathlib.Path:
    return path.with_name(path.name + end)


def _keep_aside(path: pathlib.Path, bad: dict[int, int], old: BinaryIO) -> None:
    with open_to_write(path, "ab") as file:
        for number, at in bad.items():
            text = line_at(old.fileno(), at)
            file.write(f"line {number}: ".encode() + text.rstrip(b"\n") + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _level() -> int:
    """Return how far up the first caller is that is not of this file, as `warnings.warn` counts for its caller."""
    frame, level = sys._getframe(1), 1
    while frame.f_code.co_filename == __file__ and frame.f_back is not None:
        frame, level = frame.f_back, level + 1
    return level
