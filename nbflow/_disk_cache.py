"""The disk cache of compiled code: a file for each key, which holds the key beside the code.

numba keeps an index of keys beside numbered files of code, and two processes that save at once pair one's entry with
the other's code, for good. Here the file is named by its key, so that nobody writes another's file, and the key and a
sum of the code stand in it: what is loaded is what was asked for, or it is compiled anew.

A key is the signature, the processor, what numba is told to do, a hash of all source files of nbflow that machine code
can depend on, and what the function is and reaches (`_identity.py`). Without sources nothing is kept.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import multiprocessing
import os
import pathlib
import pickle
import sys
import uuid
import warnings
from collections.abc import Callable
from typing import Any

import llvmlite
import numba
import numpy as np
from numba.core import config
from numba.core.caching import CompileResultCacheImpl, FunctionCache
from numba.core.serialize import dumps

from nbflow._identity import identity
from nbflow._sources import meaning, read

# What machine code can depend on: edit any of these, and everything is compiled anew; but for comments.
SOURCES = ("_compile.py", "_machine_code.py", "_disk_cache.py", "_identity.py", "scalars", "counter.py", "cpu", "cells",
           "losses", "clips", "flows", "optimizers", "thresholds", "data/sampler.py", "tasks")  # fmt: skip
# Settings of numba that change what it makes of the same function.
SETTINGS = (
    "OPT",
    "LOOP_VECTORIZE",
    "SLP_VECTORIZE",
    "BOUNDSCHECK",
    "DEBUGINFO_DEFAULT",
    "USING_SVML",
    "ENABLE_PROFILING",
)

# The environment variable that hides what is said of compiling, and where that was said.
QUIET = "NBFLOW_QUIET"
_SAID: list[str] = []


class DiskCache(FunctionCache):
    """numba's disk cache, with a key that changes whenever the machine code could."""

    def __init__(self, function: Callable[..., Any], bound: tuple[Any, ...], options: dict[str, Any]) -> None:
        impl = _place()
        self._impl, self._cache_path, self._name = impl, impl.locator.get_cache_path(), repr(function)
        self._parts = function, bound, options
        self._cache_file = _Files(pathlib.Path(self._cache_path), f"{function.__module__}.{function.__qualname__}")
        self.enable()

    def _index_key(self, signature: object, codegen: Any) -> tuple[object, ...]:
        # Asked when it is loaded and when it is saved: what has changed between is saved where nobody looks for it.
        what = identity(*self._parts)
        if what is None:
            raise LookupError("what cannot be known is not kept")
        return signature, codegen.magic_tuple(), settings(), fingerprint(), what

    def load_overload(self, sig: object, target_context: object) -> object:
        """Load, or compile anew: a damaged file costs time and nothing else."""
        try:
            found = super().load_overload(sig, target_context)
        except Exception:
            found = None
        if found is None:
            _say_that_it_compiles(self._cache_path)
        return found

    def save_overload(self, sig: object, data: object) -> None:
        """Save, or go on without: a full or read-only disk, or a damaged file there, costs time and nothing else."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                super().save_overload(sig, data)
        except Exception:
            pass


def _say_that_it_compiles(folder: str) -> None:
    """Say on the error stream, once a process, why a first call takes so long; workers of a pool are silent."""
    if _SAID or os.environ.get(QUIET, "0") not in ("", "0") or multiprocessing.parent_process() or sys.stderr is None:
        return
    _SAID.append(folder)
    with contextlib.suppress(OSError, ValueError):  # a stream that is closed
        print(f"nbflow compiles kernels, once for each kind of network, and keeps them in {folder}. ({QUIET}=1 hides "
              f"this line.)", file=sys.stderr, flush=True)  # fmt: skip


class _Files:
    """The files of one function, one for each key; numba calls the three methods."""

    def __init__(self, folder: pathlib.Path, name: str) -> None:
        self.folder, self.name = folder, name.replace("<locals>.", "")

    def path(self, key: object) -> pathlib.Path:
        """Return the file of a key; that two of them share one is next to impossible, and costs time only."""
        return self.folder / f"{self.name}-{_sum(repr(key).encode())[:24]}.nbc"

    def save(self, key: object, data: object) -> None:
        """Write a file that is whole or not there."""
        code = dumps(data)
        _write(self.path(key), dumps((key, _sum(code))) + code)

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


def _write(path: pathlib.Path, content: bytes) -> None:
    """Write a file that is whole or not there."""
    beside = path.with_name(f"{path.name}.tmp.{uuid.uuid4().hex[:16]}")
    try:
        beside.write_bytes(content)
        os.replace(beside, path)
    finally:
        with contextlib.suppress(OSError):  # it has its name, or could not be written
            beside.unlink()


def _sum(code: bytes) -> str:
    return hashlib.sha256(code).hexdigest()


@functools.cache
def can_keep() -> bool:
    """Tell whether anything can be kept; where not, say once what to do about it, but not in the workers of a pool."""
    if _place() is None:
        words = "no folder to keep them in can be written: set NUMBA_CACHE_DIR to one that can"
    elif fingerprint() is None:
        words = "it was installed without its source files, which tell old kernels from new ones: install them too"
    else:
        return True
    if os.environ.get(QUIET, "0") in ("", "0") and not multiprocessing.parent_process() and sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):  # a stream that is closed
            print(f"nbflow compiles its kernels in every process, for {words}. ({QUIET}=1 hides this line.)",
                  file=sys.stderr, flush=True)  # fmt: skip
    return False


@functools.cache
def _place() -> Any:
    """Return numba's idea of where all of it is kept: one folder, which is looked for once; None if there is none."""
    try:
        return CompileResultCacheImpl(settings)
    except (RuntimeError, OSError):
        return None


def settings() -> tuple[object, ...]:
    """Return what else makes other machine code of the same function."""
    told = tuple(repr(getattr(config, name, None)) for name in SETTINGS)
    return numba.__version__, llvmlite.__version__, np.__version__, sys.implementation.cache_tag, told


@functools.cache
def fingerprint() -> str | None:
    """Return a hash of what all source files mean that machine code can depend on; None where there are no sources."""
    texts = read(SOURCES)
    return None if texts is None else _meaning_of({path: _sum(text) for path, text in texts.items()}, texts)


def _meaning_of(sums: dict[str, str], texts: dict[str, bytes]) -> str:
    """Return a hash of syntax trees; to read them takes 0.14 s, so it is kept beside the code by a hash of bytes."""
    digest, impl = _sum(repr((sums, sys.implementation.cache_tag)).encode()), _place()
    path = pathlib.Path(impl.locator.get_cache_path() if impl else os.devnull) / f"nbflow-sources-{digest[:24]}.txt"
    with contextlib.suppress(OSError, ValueError):
        asked, found = path.read_text().split()
        if asked == digest and len(found) == len(digest):
            return found
    found = _sum(repr({path: meaning(text) for path, text in sorted(texts.items())}).encode())
    with contextlib.suppress(OSError):
        _write(path, f"{digest} {found}".encode())
    return found
