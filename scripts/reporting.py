"""What scripts share beside pictures: a console, progress, executors, JSON, files whole or not there, the machine."""

from __future__ import annotations

import math
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

import nbflow as nf
from nbflow.storage.store import read_copy

# Seconds between two lines where there is no terminal to draw bars in.
QUIET_SECONDS = 10.0

Show = Callable[[str, int, int], None]


def console_here() -> Console:
    """Return a console that leaves room for the table where no terminal says how wide it is."""
    return Console(width=None if sys.stdout.isatty() else 140)


def begin(run: Callable[[Any, Console], int], options: Any) -> int:
    """Run a script and return its exit code: 130 after a Ctrl-C that it left to others."""
    console = console_here()
    try:
        check_place(options.out if hasattr(options, "name") else options.out.parent)
        return run(options, console)
    except OSError as error:
        return refused(console, error)
    except KeyboardInterrupt:
        return 130


def check_place(folder: Path) -> None:
    """Refuse a folder that cannot be made, or written to, before anything is computed for it."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        said = f"out is {str(folder)!r}; expected a folder, and {there} cannot hold one. Name another."
        raise NotADirectoryError(said)


def check_positive(options: Any, *names: str) -> None:
    """Refuse numbers that are not above 0, or not finite."""
    for name in names:
        value = getattr(options, name)
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{name} is {value:g}; expected a number above 0. Leave it out.")


def refused(console: Console, error: Exception) -> int:
    """Say in one line what is wrong with what was asked for; return the exit code."""
    console.print(f"error: {error}", style="bold red", soft_wrap=True, highlight=False, markup=False)
    return 2


@contextmanager
def progress(console: Console) -> Iterator[Show]:
    """Give `show(words, done, total)`: a bar for each `words` in a terminal, else a line now and then."""
    if not console.is_terminal:
        yield _Lines(console)
        return
    columns = (TextColumn("{task.description}"), BarColumn(24), TextColumn("{task.completed:,} of {task.total:,}"))
    with Progress(*columns, TimeRemainingColumn(), console=console, refresh_per_second=5) as bars:
        known: dict[str, Any] = {}

        def show(words: str, done: int, total: int) -> None:
            if words not in known:
                known[words] = bars.add_task(words, total=total)
            bars.update(known[words], completed=done, total=total)

        yield show


class _Lines:
    """A line every some seconds."""

    def __init__(self, console: Console) -> None:
        self.console, self.last = console, time.perf_counter()

    def __call__(self, words: str, done: int, total: int) -> None:
        if time.perf_counter() - self.last >= QUIET_SECONDS:
            self.last = time.perf_counter()
            self.console.print(f"{words}: {done:,} of {total:,}", highlight=False, soft_wrap=True)


def executor_of(name: str) -> Executor | None:
    """Return what runs a sweep: None, that is processes of this machine, for local, else the scheduler named."""
    if name == "local":
        return None
    scheme, _, address = name.partition("://")
    if scheme != "dask" or not address:
        raise ValueError(f"executor is {name!r}; expected local or dask://HOST:PORT. Start one with `dask scheduler`.")
    from distributed import Client

    found: Executor = Client(f"tcp://{address}").get_executor()
    return found


def machine() -> dict[str, Any]:
    """Say what computed this."""
    import numba

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": processor(), "cores": cores, "threads": numba.get_num_threads(), "system": platform.platform(),
        "python": platform.python_version(), "nbflow": nf.__version__, "numpy": np.__version__,
        "numba": numba.__version__,
    }  # fmt: skip


def processor() -> str:
    """Return the processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def plain(thing: Any) -> Any:
    """Return a thing as strict JSON takes it: paths as text, NaN and Inf as null."""
    if isinstance(thing, dict):
        return {str(key): plain(value) for key, value in thing.items()}
    if isinstance(thing, list | tuple):
        return [plain(value) for value in thing]
    if isinstance(thing, float) and not math.isfinite(thing):
        return None
    return str(thing) if isinstance(thing, Path) else thing


def compact_of(store: Path) -> Path:
    """Return where the compact copy of a store is: see scripts/compact.py."""
    return store.with_name(f"{store.name}.xz")


def begin_with_the_copy(store: Path) -> Path:
    """Unpack the compact copy of a store where there is one and no store yet; return the store."""
    if not store.exists() and compact_of(store).exists():
        nf.Store(store).add(read_copy(compact_of(store)))
    return store


def write(path: Path, contents: str | bytes) -> Path:
    """Write a file beside `path` and rename it, so that there is never half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(contents.encode() if isinstance(contents, str) else contents)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return path
