"""Index: where the line of each run begins in a store, by its key; 25 bytes a line, so millions of them fit in memory.

It is kept beside the store and is only ever a shortcut: one that is not there, damaged or of another file is not used,
and the lines are read instead. It fits a file of its size and its time of change, or one to which lines were only
appended; in either case the end of what it knows must be the same, and a sample of lines stand where it says.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import threading
import zipfile
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nbflow._legible import legible
from nbflow.storage._files import open_stream
from nbflow.storage._lines import line_at, parse

VERSION = 1
# Lines that are looked at before a file is believed.
SAMPLE = 64
# Bytes before the end of what is known, which must be the same.
TAIL = 2**12
# So many newest lines stand in a dict before they are sorted in.
LATE = 2**16


@legible
class Entry(NamedTuple):
    """What is known of a line.

    Attributes
    ----------
    at : int
        The byte of the file where it begins.
    failed : bool
        Whether its run has a "failure".
    """

    at: int
    failed: bool


# Halves of digests, places, and whether runs failed, of lines in the order of the file.
Block = tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.int64], NDArray[np.bool_]]


class Index:
    """Where lines begin, by digests of their keys: 128 bits, of which no two have ever been found alike."""

    def __init__(self) -> None:
        self._high, self._low = np.empty(0, np.uint64), np.empty(0, np.uint64)  # sorted by the first
        self._at, self._failed = np.empty(0, np.int64), np.empty(0, np.bool_)
        # What is not sorted in yet: in blocks, or, later than those, line by line.
        self._many: list[Block] = []
        self._late: dict[bytes, tuple[int, bool]] = {}

    def __len__(self) -> int:
        self._all_sorted()
        return len(self._at)

    def find(self, key: str) -> Entry | None:
        """Return what is known of the line with this key, None if there is none."""
        self._sort_in(self._many)
        digest = _digest(key)
        late = self._late.get(digest)
        return self._sorted(digest) or (late and Entry(*late))

    def add(self, key: str, at: int, failed: bool) -> None:
        """Take in a line; of several with one key the first counts."""
        self._sort_in(self._many)
        self._late.setdefault(_digest(key), (at, failed))
        if len(self._late) > max(LATE, len(self._at) // 4):
            self._sort_in_late()

    def take(self, lines: list[tuple[str, int, bool]]) -> None:
        """Take in many lines, at least one, which are sorted in when any is asked for."""
        self._sort_in_late()
        keys, at, failed = zip(*lines, strict=True)
        self._many.append(_block(map(_digest, keys), at, failed))

    def _sort_in_late(self) -> None:
        if self._late:
            at, failed = zip(*self._late.values(), strict=True)
            self._sort_in([_block(self._late, at, failed)])
            self._late = {}

    def places(self) -> NDArray[np.int64]:
        """Return where lines begin, in the order of the file."""
        self._all_sorted()
        return np.sort(self._at)

    def sample(self) -> list[int]:
        """Return numbers of some lines, which their digests have shuffled, and of the last one of the file."""
        count = len(self._at)
        spread = {round(k) for k in np.linspace(0, count - 1, min(SAMPLE, count))}
        return sorted(spread | ({int(np.argmax(self._at))} if count else set()))

    def stands(self, k: int, handle: int) -> bool:
        """Tell whether line k of those that are sorted is in an open file where it is said to be."""
        row = parse(line_at(handle, int(self._at[k])))
        return row is not None and _digest(row["key"]) == self._high[k].tobytes() + self._low[k].tobytes()

    def _sorted(self, digest: bytes) -> Entry | None:
        high, low = np.frombuffer(digest, np.uint64)
        for k in range(int(np.searchsorted(self._high, high)), len(self._high)):
            if self._high[k] != high:
                return None
            if self._low[k] == low:
                return Entry(int(self._at[k]), bool(self._failed[k]))
        return None

    def _sort_in(self, blocks: list[Block]) -> None:
        if not blocks:
            return
        known = self._high, self._low, self._at, self._failed
        high, low, at, failed = (np.concatenate(parts) for parts in zip(known, *blocks, strict=True))
        order = np.lexsort((low, high))  # which leaves of two alike the older one first
        high, low = high[order], low[order]
        first = np.append(True, (high[1:] != high[:-1]) | (low[1:] != low[:-1]))
        order = order[first]
        self._high, self._low, self._at, self._failed = high[first], low[first], at[order], failed[order]
        self._many = []

    def _all_sorted(self) -> None:
        self._sort_in(self._many)
        self._sort_in_late()

    def copy(self) -> Index:
        """Return another one that begins with the same lines."""
        self._all_sorted()
        other = Index()
        other._high, other._low, other._at, other._failed = self._high, self._low, self._at, self._failed
        return other

    def save(self, path: pathlib.Path, known: Known, about: os.stat_result) -> None:
        """Write it, with what tells the file that it is of.

        Parameters
        ----------
        path : pathlib.Path
        known : Known
            How much of the file it knows.
        about : os.stat_result
            Of the file, taken after it was read.
        """
        self._all_sorted()
        facts = {"version": VERSION, **known._asdict(), "tail": _sum(known.tail), "size": about.st_size,
                 "changed": about.st_mtime_ns, "inode": about.st_ino}  # fmt: skip
        beside = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}")
        try:
            with open(beside, "wb") as file:
                np.savez(file, facts=np.frombuffer(json.dumps(facts).encode(), np.uint8), high=self._high,
                         low=self._low, at=self._at, failed=self._failed)  # fmt: skip
            os.replace(beside, path)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(beside)


@legible
class Known(NamedTuple):
    """How much of a file has been read.

    Attributes
    ----------
    seen : int
        Its first bytes, whole lines.
    lines : int
        How many lines they are.
    tail : bytes
        The last of these bytes, by which a file is known again.
    """

    seen: int = 0
    lines: int = 0
    tail: bytes = b""


def tail_of(handle: int, seen: int) -> bytes:
    """Return the last of the first `seen` bytes of an open file."""
    at = max(0, seen - TAIL)
    return os.pread(handle, seen - at, at)


def load(path: pathlib.Path, handle: int) -> tuple[Index, Known] | None:
    """Return the index that lies at `path`, and how much it knows; None if it is not one of the open file."""
    try:
        with open_stream(path, "index") as file, np.load(file) as arrays:  # which checks sums
            facts = json.loads(arrays["facts"].tobytes())
            found = _made_of({name: arrays[name] for name in ("high", "low", "at", "failed")})
        known = Known(facts["seen"], facts["lines"], tail_of(handle, facts["seen"]))
        if found is None or not _may_fit(facts, os.fstat(handle)) or facts["tail"] != _sum(known.tail):
            return None
        return (found, known) if all(found.stands(k, handle) for k in found.sample()) else None
    except (OSError, ValueError, KeyError, TypeError, EOFError, MemoryError, zipfile.BadZipFile):
        return None


def _sum(tail: bytes) -> str:
    return hashlib.blake2b(tail, digest_size=16).hexdigest()


def _made_of(arrays: dict[str, NDArray[Any]]) -> Index | None:
    wanted = {"high": np.uint64, "low": np.uint64, "at": np.int64, "failed": np.bool_}
    shape = arrays["at"].shape
    if len(shape) != 1 or any(arrays[n].dtype != d or arrays[n].shape != shape for n, d in wanted.items()):
        return None
    found = Index()
    found._high, found._low, found._at, found._failed = (arrays[name] for name in wanted)
    return found


def _may_fit(facts: dict[str, Any], about: os.stat_result) -> bool:
    if facts["version"] != VERSION or not 0 <= facts["seen"] <= about.st_size:
        return False
    grown = about.st_size > facts["size"] and about.st_ino == facts["inode"]
    return grown or (about.st_size, about.st_mtime_ns) == (facts["size"], facts["changed"])


def _block(digests: Iterable[bytes], at: Sequence[int], failed: Sequence[bool]) -> Block:
    halves = np.frombuffer(b"".join(digests), np.uint64).reshape(-1, 2)
    return halves[:, 0], halves[:, 1], np.array(at, np.int64), np.array(failed, np.bool_)


def _digest(key: str) -> bytes:
    return hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).digest()
