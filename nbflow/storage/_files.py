"""What keeps files whole: locks that die with their process, directories that are flushed, and errors that say more.

A path can name a pipe, which waits for a writer, a device, which may never end, or more than the machine can hold. So
what is read is opened by `open_regular`, and what is written by `open_to_write`: neither waits.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import stat
from collections.abc import Iterator
from typing import Any, BinaryIO


@contextlib.contextmanager
def explained(what: str) -> Iterator[None]:
    """Have an OSError say what could not be done, why, and what to do about it."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # one of ours, which says it all
            raise
        raise OSError(
            error.errno,
            f"{what}: {error.strerror or error}. What was there before is still there. Make room, or name another "
            f"place.",
        ) from error


# More than this no system takes for a path; a file's name is shorter yet.
LONGEST_PATH, LONGEST_NAME = 4096, 255


def path_of(name: str, value: Any, example: str) -> pathlib.Path:
    """Return the path of a file that is read or written, as far as can be told before it is looked at."""
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name} is a {type(value).__name__}; expected a path. Write {name}='{example}'.")
    found = pathlib.Path(value)
    length = len(str(found))
    if length > LONGEST_PATH or len(found.name) > LONGEST_NAME:
        raise ValueError(f"{name} is a path of {length} characters; expected a shorter one. Write {name}='{example}'.")
    if found.is_dir() or not found.name:
        raise ValueError(f"{name} is {str(value)!r}, a directory; expected a file. Name one in it.")
    return found


def memory() -> int:
    """Return the bytes of memory that this machine has; 2**40 where it does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 2**40


def open_regular(path: pathlib.Path, what: str) -> BinaryIO:
    """Open a file to read all of it, or say why that makes no sense.

    Raises
    ------
    OSError
        If it is not there, cannot be read or is no regular file.
    ValueError
        If this machine could not hold it.
    """
    file = open_stream(path, what)
    size = os.fstat(file.fileno()).st_size
    if size > memory():
        file.close()
        raise ValueError(
            f"{what} has {size} bytes; expected at most {memory()}, the memory of this machine. Name another file."
        )
    return file


def open_stream(path: pathlib.Path, what: str) -> BinaryIO:
    """Open a file to read it piece by piece; an OSError if it is not there, cannot be read or is no regular file."""
    if not _is_regular(os.stat(path).st_mode):  # some devices do things when they are opened
        raise _irregular(what)
    file = open(path, "rb", opener=_at_once)  # noqa: SIM115
    if not _is_regular(os.fstat(file.fileno()).st_mode):
        file.close()
        raise _irregular(what)
    return file


def open_to_write(path: pathlib.Path, mode: str) -> BinaryIO:
    """Open a file to write; a pipe that nobody reads is an OSError."""
    return open(path, mode, opener=_at_once)  # type: ignore[return-value]


def _at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o666)


def _is_regular(mode: int) -> bool:
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)  # of which `open` says it better


def _irregular(what: str) -> OSError:
    return OSError(f"{what} is no regular file; expected one. Name another.")


def dumped(what: str, thing: Any, **options: Any) -> str:
    """Return a thing as JSON, or say which part of it is none."""
    try:
        return json.dumps(thing, **options)
    except (TypeError, ValueError, RecursionError):
        place, kind = _odd_part(thing)
        if not kind:
            raise ValueError(f"{what} is nested too deep; expected plain data. Leave out what holds itself.") from None
        raise TypeError(
            f"{what}: {place or 'it'} is a {kind}; expected a number, a text, None, or lists and dicts of such. "
            f"Convert it: float(...), int(...), str(...), or .tolist() for an array."
        ) from None


def _odd_part(thing: Any, place: str = "", depth: int = 0) -> tuple[str, str]:
    """Return where the first part is that JSON has not, and of what type; two empty texts if there is none."""
    if depth > 100:
        return "", ""
    if isinstance(thing, dict):
        odd = next((key for key in thing if not isinstance(key, str | int | float | None)), "")
        if odd != "":
            return f"{place}, a key," if place else "a key", type(odd).__name__
        parts = ((f"{place}.{key}" if place else str(key), value) for key, value in thing.items())
    elif isinstance(thing, list | tuple):
        parts = ((f"{place}[{i}]", value) for i, value in enumerate(thing))
    else:
        plain = thing is None or isinstance(thing, str | int | float)
        return ("", "") if plain else (place, type(thing).__name__)
    return next((found for name, part in parts if (found := _odd_part(part, name, depth + 1))[1]), ("", ""))


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
