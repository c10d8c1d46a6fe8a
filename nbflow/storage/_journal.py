"""The file of a store: taken in line by line, healed, appended to under a lock, with an index of what is in it."""

from __future__ import annotations

import contextlib
import os
import pathlib
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from nbflow._legible import legible
from nbflow.storage import _index
from nbflow.storage._files import (
    explained,
    flush_directory,
    lock,
    open_stream,
    open_to_write,
    unlock,
)
from nbflow.storage._index import Index, Known
from nbflow.storage._lines import START, Row, ended, judged, line_at, lines, parse

# An index is written when so many bytes of the file are new to the one that lies there, and an eighth of all.
WORTH_AN_INDEX = 2**23
# Lines that are put into an index at a time.
AT_ONCE = 2**12
# No file has this byte.
LAST = 2**63 - 1


class Journal:
    """The file of a store: its lines are taken in as they come, healed and appended to.

    `index` knows where each run begins, of all lines that were taken in: up to the end, or to the first that is no run.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path, self.name = path, f"store {path}"
        self._forget()

    def looked(self) -> Index:
        """Return an index of all that is there."""
        view = self.view()
        if view is None:
            return Index()
        view.file.close()
        return view.index

    def view(self, taken: Taken | None = None) -> View | None:
        """Open the file with an index of every run in it, healed if that can be done; None if there is none.

        Runs that are read for it are put into `taken`, all that are from its start on.
        """
        with explained(f"{self.name} could not be read"):
            try:
                file = open_stream(self.path, self.name)
            except FileNotFoundError:
                self._forget()
                return None
            with contextlib.ExitStack() as stack:
                stack.enter_context(file)
                if self.advance(file, taken):
                    if taken is not None:  # they may stand elsewhere in a while: all are read again
                        taken.forget()
                    try:
                        with self.locked():
                            self.heal()
                    except OSError as error:
                        sound = self.sound(file)
                        if sound.bad:
                            self._warn(sound, f"left out, and left there, as nothing could be written "
                                              f"({error.strerror or error})")  # fmt: skip
                        stack.pop_all()
                        return View(file, sound.index)
                    return self.view()
                self._keep_index(file)
                stack.pop_all()
        return View(file, self.index)

    def _forget(self) -> None:
        """Know of no line."""
        self.index, self._known, self._inode = Index(), Known(), -1
        self._saved = 0  # bytes of the file that the index beside it knows

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of the store; whoever else wants it waits."""
        with open_to_write(_beside(self.path, ".lock"), "ab") as file:
            lock(file.fileno())
            try:
                yield
            finally:
                unlock(file.fileno())

    def advanced(self) -> bool:
        """Take in the lines that are new; return whether there is something to heal."""
        try:
            file = open_stream(self.path, self.name)
        except FileNotFoundError:
            self._forget()
            return False
        with file:
            return self.advance(file)

    def advance(self, file: BinaryIO, taken: Taken | None = None) -> bool:
        """Take in the lines of an open file that are new; return whether there is something to heal."""
        handle, about = file.fileno(), os.fstat(file.fileno())
        same = about.st_ino == self._inode and about.st_size >= self._known.seen
        if not same or _index.tail_of(handle, self._known.seen) != self._known.tail:
            self._forget()
            self._inode = about.st_ino
            kept = _index.load(_beside(self.path, ".index"), handle) if about.st_size > WORTH_AN_INDEX else None
            if kept is not None:
                self.index, self._known = kept
                self._saved = self._known.seen
        seen, count, odd = self._known.seen, self._known.lines, False
        if taken is not None:
            taken.start = seen
        file.seek(seen)
        new: list[tuple[str, int, bool]] = []
        try:
            for text in lines(file, self.name):
                row = parse(text)
                if row is None:
                    odd = True
                    break
                new.append((row["key"], seen, row.get("failure") is not None))
                if taken is not None:
                    taken.rows.append(row)
                seen, count = seen + len(text), count + 1
                if len(new) == AT_ONCE:
                    self.index.take(new)
                    new = []
        finally:
            for line in new:
                self.index.add(*line)
            self._known = Known(seen, count, _index.tail_of(handle, seen))
        if odd and not count and not _is_store(file):
            raise ValueError(f"{self.name} is a file of another kind: no line of it is a run. Name another file.")
        return odd

    def _keep_index(self, file: BinaryIO) -> None:
        """Write the index beside the store, where that saves reading much."""
        seen = self._known.seen
        if seen - self._saved >= max(WORTH_AN_INDEX, seen // 8):
            self._saved = seen  # also where it could not be written: not again for every line
            with contextlib.suppress(OSError):  # it is only a shortcut
                self.index.save(_beside(self.path, ".index"), self._known, os.fstat(file.fileno()))

    def heal(self) -> None:
        """Take in what is new, and move what is no line away; under the lock."""
        if not self.advanced():
            return
        # Written beside and renamed: a reader sees the old file or the new one.
        beside = _beside(self.path, ".new")
        sound = Sound(Index())
        try:
            with open_stream(self.path, self.name) as old, open_to_write(beside, "wb") as new:
                for number, at, text, row in judged(old, self.name):
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
        self.advanced()

    def sound(self, file: BinaryIO) -> Sound:
        """Look for the runs of a file that cannot be healed now, from where `advance` met the first odd line."""
        found = Sound(self.index.copy(), self._known.lines)
        file.seek(self._known.seen)
        for number, at, _, row in judged(file, self.name, self._known.lines + 1):
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
            f"{self.name}: no run stands in line {where}, cut off or garbled; {done}. The {sound.good} others are "
            f"whole.",
            RuntimeWarning,
            stacklevel=_level(),
        )

    def append(self, data: bytes) -> None:
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


def _is_store(file: BinaryIO) -> bool:
    """Tell whether a file is empty, has a run, or begins like one that was cut off."""
    file.seek(0)
    head = file.read(len(START))
    file.seek(0)
    return head == START[: len(head)] or any(parse(text) is not None for text in lines(file, "a store"))


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
    """Return how far up the first caller is that is not of this folder, as `warnings.warn` counts for its caller."""
    here, frame, level = os.path.dirname(__file__), sys._getframe(1), 1
    while os.path.dirname(frame.f_code.co_filename) == here and frame.f_back is not None:
        frame, level = frame.f_back, level + 1
    return level
