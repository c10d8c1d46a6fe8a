"""The disk cache of compiled code: a file for each key, which holds the key beside the code.

numba keeps an index of keys beside numbered files of code, and two processes that save at once pair one's entry with
the other's code, for good. Here the file is named by its key, so that nobody writes another's file, and the key and a
sum of the code stand in it: what is loaded is what was asked for, or it is compiled anew.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import pathlib
import pickle
import uuid
import warnings
from collections.abc import Callable
from typing import Any

import numba
from numba.core.caching import FunctionCache
from numba.core.serialize import dumps

# What machine code can depend on: edit any of these, and everything is compiled anew.
SOURCES = ("_compile.py", "_disk_cache.py", "scalars.py", "counter.py", "cpu", "cells", "losses", "clips", "flows",
           "optimizers", "thresholds", "data/sampler.py", "tasks")  # fmt: skip


class DiskCache(FunctionCache):
    """numba's disk cache, with a key that changes whenever the machine code could."""

    def __init__(self, function: Callable[..., Any], key: object) -> None:
        super().__init__(function)
        self._key = key
        self._cache_file = _Files(pathlib.Path(self._cache_path), f"{function.__module__}.{function.__qualname__}")

    def _index_key(self, signature: object, codegen: Any) -> tuple[object, ...]:
        return signature, codegen.magic_tuple(), fingerprint(), self._key

    def load_overload(self, sig: object, target_context: object) -> object:
        """Load, or compile anew: a damaged file costs time and nothing else."""
        try:
            return super().load_overload(sig, target_context)
        except Exception:
            return None

    def save_overload(self, sig: object, data: object) -> None:
        """Save, or go on without: a full or read-only disk, or a damaged file there, costs time and nothing else."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                super().save_overload(sig, data)
        except Exception:
            pass


class _Files:
    """The files of one function, one for each key; numba calls the three methods."""

    def __init__(self, folder: pathlib.Path, name: str) -> None:
        self.folder, self.name = folder, name.replace("<locals>.", "")

    def path(self, key: object) -> pathlib.Path:
        """Return the file of a key; that two of them share one is next to impossible, and costs time only."""
        return self.folder / f"{self.name}-{_sum(repr(key).encode())[:24]}.nbc"

    def save(self, key: object, data: object) -> None:
        """Write a file that is whole or not there."""
        code, path = dumps(data), self.path(key)
        beside = path.with_name(f"{path.name}.tmp.{uuid.uuid4().hex[:16]}")
        try:
            beside.write_bytes(dumps((key, _sum(code))) + code)
            os.replace(beside, path)
        finally:
            with contextlib.suppress(OSError):  # it has its name, or could not be written
                beside.unlink()

    def load(self, key: object) -> Any:
        """Return the data of a key, or None where no file holds just that."""
        try:
            with self.path(key).open("rb") as file:
                kept, wanted = pickle.load(file)
                code = file.read()
        except FileNotFoundError:
            return None
        return pickle.loads(code) if kept == key and _sum(code) == wanted else None

    def flush(self) -> None:
        """Delete all files of the function."""
        for path in self.folder.glob(f"{self.name}-*.nbc"):
            path.unlink(missing_ok=True)


def _sum(code: bytes) -> str:
    return hashlib.sha256(code).hexdigest()


@functools.cache
def fingerprint() -> str:
    """Return a hash of everything that machine code depends on beside its own signature."""
    digest = hashlib.sha256(numba.__version__.encode())
    root = pathlib.Path(__file__).parent
    files = [root / name for name in SOURCES]
    for path in sorted(path for name in files for path in ([name] if name.is_file() else name.rglob("*.py"))):
        digest.update(str(path.relative_to(root)).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
