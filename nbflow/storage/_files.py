"""What keeps files whole: locks that die with their process, directories that are flushed, and errors that say more."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator


@contextlib.contextmanager
def explained(what: str) -> Iterator[None]:
    """Have an OSError say what could not be done, why, and what to do about it."""
    try:
        yield
    except OSError as error:
        raise OSError(
            error.errno,
            f"{what}: {error.strerror or error}. What was there before is still there. Make room, or name another "
            f"place.",
        ) from error


def lock(handle: int, *, wait: bool = True) -> bool:
    """Lock an open file until it is closed or its process dies; return whether it could be, at once unless it waits.

    The lock is `flock`, of the opened file and not of the process, so it holds between threads too.
    """
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def unlock(handle: int) -> None:
    """Give a lock back, also where a process that was forked meanwhile has the file open too."""
    import fcntl

    fcntl.flock(handle, fcntl.LOCK_UN)


def flush_directory(directory: pathlib.Path) -> None:
    """Make sure that what was made or renamed in a directory stays so."""
    if os.name == "nt":  # which opens no directories
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def whole(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Give a place beside `path`, with its suffix, and rename what was written there: nobody sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield beside
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
