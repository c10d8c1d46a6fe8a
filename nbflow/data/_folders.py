"""Which files are meant: one, several, or those of a folder, in the order that a person would give them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from nbflow import _check
from nbflow.data._files import read_bytes


def files_of(where: Any, pattern: str) -> list[tuple[str, Path]]:
    """Return the name of each file and its path: one file, a list in its order, or what fits in a folder.

    A file of a folder has the name that leads to it from there, with "/" between its parts.
    """
    if isinstance(where, list | tuple):
        return _listed(where)
    path = path_of(where)
    return _inside(path, pattern) if path.is_dir() else [(path.name, path)]


def path_of(where: Any, name: str = "path") -> Path:
    """Return the path, which must be one."""
    if not isinstance(where, str | os.PathLike):
        raise TypeError(
            f"{name} is {type(where).__name__}; expected a str or an os.PathLike. Give the name of a file or a folder, "
            f"or a list of files."
        )
    return Path(where)


def natural(name: str) -> Any:
    """Return what sorts names as a person would: piece2 before piece10."""
    parts = (re.split("([0-9]+)", part) for part in name.split("/"))
    return [[int(one) if k % 2 else one.casefold() for k, one in enumerate(part)] for part in parts], name


def read_all(files: Iterable[Path], max_bytes: int) -> Iterator[bytes]:
    """Yield what is in each file; all together no more than `max_bytes`."""
    before = 0
    for path in files:
        size = path.stat().st_size if path.is_file() else 0
        if before and before + size > max_bytes:
            raise ValueError(
                f"{path}: has {size} bytes, and the files before it {before}; expected at most max_bytes = {max_bytes} "
                f"together. If they are the right files, give a larger max_bytes."
            )
        yield read_bytes(path, max_bytes)
        before += size


def _listed(where: list[Any] | tuple[Any, ...]) -> list[tuple[str, Path]]:
    if not where:
        raise ValueError("path is an empty list; expected at least 1 file. Check how it was made.")
    paths = [path_of(one, f"path[{k}]") for k, one in enumerate(where)]
    seen: dict[Path, int] = {}
    for k, path in enumerate(paths):
        first = seen.setdefault(path.resolve(), k)
        if first != k:
            raise ValueError(f"{path}: is given twice, as path[{first}] and path[{k}]; expected each file once.")
    return [(path.as_posix(), path) for path in paths]


def _inside(folder: Path, pattern: str) -> list[tuple[str, Path]]:
    """Return the files of a folder that fit, without those that are hidden or lie in a hidden folder."""
    if not isinstance(pattern, str):
        raise TypeError(f"pattern is {_check.said(pattern)}; expected a str, as '*.txt'. Give one.")
    try:
        if ".." in Path(pattern).parts:
            raise ValueError
        found = [(path.relative_to(folder).as_posix(), path) for path in folder.glob(pattern)]
    except (ValueError, NotImplementedError, IndexError):
        raise ValueError(
            f"pattern is {_check.said(pattern)}; expected one for names inside the folder, as '*.txt', or '**/*.txt' "
            f"to look into its folders too. Give one of this kind."
        ) from None
    files = [(name, path) for name, path in found if path.is_file() and not _is_hidden(name)]
    if not files:
        others = [path for path in folder.iterdir() if not _is_hidden(path.name)]
        folders = sum(path.is_dir() for path in others)
        if not others:
            raise ValueError(f"{folder}: is an empty folder; expected at least 1 file in it. Check the path.")
        raise ValueError(
            f"{folder}: holds no file that fits {_check.said(pattern)}, but {len(others) - folders} others and "
            f"{folders} folders; expected at least 1. Give another pattern: '**/*' looks into folders."
        )
    return sorted(files, key=lambda one: natural(one[0]))


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))
