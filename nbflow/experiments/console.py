"""What all scripts do alike: refuse at once, show how far they are, end a Ctrl-C, and write what they found.

A script is two functions, and `begin` runs them. `work(options, console, found)` computes, and puts into `found` what
is done as soon as it is done; what makes no sense it refuses by raising, before it begins. `report(options, found,
console)` says and writes what was found, and returns the files.

The exit code is 0 if all was done, 1 if it came to nothing, 2 if something was refused, and 130 after a Ctrl-C, as
shells have it: then what was found until then is reported all the same, and the last line says what was kept and how
to go on.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from nbflow.experiments import machine
from nbflow.experiments._progress import Show as Show
from nbflow.experiments._progress import shown
from nbflow.storage._files import whole

if TYPE_CHECKING:
    from rich.console import Console

    from nbflow.training.run import Run

REFUSED, INTERRUPTED = 2, 130
# Seconds between two lines where there is no terminal to draw bars in.
QUIET_SECONDS = 10.0

Options = TypeVar("Options")
Found = TypeVar("Found")
# What a setting, a file or the machine can do wrong, and is said in one line.
WRONG = (OSError, TypeError, ValueError, RuntimeError, FloatingPointError)


def begin(
    work: Callable[[Options, Console, Found], None],
    report: Callable[[Options, Found, Console], Sequence[Path]],
    options: Options,
    found: Found,
    *,
    store: Path | None = None,
) -> int:
    """Run a script, and return its exit code.

    Parameters
    ----------
    work, report : function
        See the head of this file. `report` is asked unless `found` is false.
    options : dataclass
        What it was asked for; its `out` is a folder where it has a `name` too, and else a file.
    found : list, or anything that is false as long as there is nothing to report
    store : Path, optional
        Where every run is kept when it is done, so that the same command goes on.
    """
    console = console_here()
    stopped: KeyboardInterrupt | None = None
    files: Sequence[Path] = ()
    try:
        check_place(options)
        work(options, console, found)
    except WRONG as error:
        return refused(console, error)
    except KeyboardInterrupt as stop:
        stopped = stop
    try:
        if found:
            files = report(options, found, console)
    except OSError as error:
        return refused(console, error)
    except KeyboardInterrupt as stop:
        stopped = stop
    if stopped is not None:
        say(console, stopped_early(str(stopped), files, store))
        return INTERRUPTED
    if not files:
        say(console, "Nothing was found, and nothing is written.")
    return 0 if files else 1


def stopped_early(words: str, files: Sequence[Path], store: Path | None) -> str:
    """Say in a line that Ctrl-C came, what was kept, and how to go on."""
    kept = [*files, *([store] if store is not None and store.exists() else [])]
    done = f"what was done is kept in {', '.join(map(str, kept))}" if kept else "nothing was done, nothing is written"
    on = "goes on" if store is not None else "begins anew"
    return f"Stopped early{', ' if words else ''}{words}: {done}. The same command {on}."


def uninterrupted(run: Run) -> Run:
    """Return a run, or raise the Ctrl-C that ended it."""
    if run.interrupted:
        raise KeyboardInterrupt
    return run


# What is refused.


def check_place(options: Any) -> None:
    """Refuse a folder that cannot be made, or written to, before anything is computed for it."""
    out = getattr(options, "out", None)
    if out is None:
        return
    folder = out if hasattr(options, "name") else out.parent
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


def check_least(options: Any, least: float, *names: str) -> None:
    """Refuse numbers below the least that makes sense, or not finite."""
    for name in names:
        value = getattr(options, name)
        if not (value >= least and math.isfinite(value)):
            raise ValueError(f"{name} is {value:g}; expected at least {least:g}. Give a larger one.")


def check_between(options: Any, low: float, high: float, *names: str) -> None:
    """Refuse numbers that do not lie between two others."""
    for name in names:
        value = getattr(options, name)
        if not low < value < high:
            raise ValueError(f"{name} is {value:g}; expected a number above {low:g} and below {high:g}. Leave it out.")


def check_part(options: Any, *names: str) -> None:
    """Refuse what is no part of something."""
    check_between(options, 0, 1, *names)


def refused(console: Console, error: Exception) -> int:
    """Say in one line what is wrong with what was asked for; return the exit code."""
    console.print(f"error: {error}", style="bold red", soft_wrap=True, highlight=False, markup=False)
    return REFUSED


# What is seen.


def console_here() -> Console:
    """Return a console that leaves room for the table where no terminal says how wide it is."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 140)


def say(console: Console, words: str) -> None:
    """Print a line that matters."""
    console.print(words, style="bold yellow", soft_wrap=True, highlight=False, markup=False)


def tell(console: Console, words: str) -> None:
    """Print a line as it is."""
    console.print(words, soft_wrap=True, highlight=False, markup=False)


def progress(console: Console) -> AbstractContextManager[Show]:
    """Give `show(name, done, total, words)`: a bar for each name in a terminal, else a line now and then."""
    return shown(console=console, seconds=QUIET_SECONDS)


def compiling(console: Console) -> AbstractContextManager[Any]:
    """Say that kernels are compiled, as long as it takes."""
    return console.status("Compiling kernels; they are kept on disk for the next time")


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


# What is written.


def document(options: Any, **numbers: Any) -> dict[str, Any]:
    """Return every setting and every number; of what a script was given to read the name alone."""
    settings = {name: value.name if isinstance(value, Path) and name != "out" else value
                for name, value in asdict(options).items()}  # fmt: skip
    return {"options": settings, "machine": machine.facts(), **numbers}


def plain(thing: Any) -> Any:
    """Return a thing as strict JSON takes it: paths as text, arrays as lists, NaN and Inf as null."""
    if isinstance(thing, dict):
        return {str(key): plain(value) for key, value in thing.items()}
    if isinstance(thing, list | tuple):
        return [plain(value) for value in thing]
    if hasattr(thing, "tolist"):  # an array, or a number of NumPy's
        return plain(thing.tolist())
    if isinstance(thing, float) and not math.isfinite(thing):
        return None
    return str(thing) if isinstance(thing, Path) else thing


def keep(console: Console, folder: Path, files: Mapping[str, tuple[str, Any]]) -> list[Path]:
    """Write files, whole or not at all, and say where each is.

    Parameters
    ----------
    console : Console
    folder : Path
        Made where it is missing.
    files : dict of (name, contents)
        By what they are called. Contents are a dict of numbers, a picture of matplotlib, or bytes.

    Returns
    -------
    list of Path
    """
    written = []
    for what, (name, contents) in files.items():
        with whole(folder / name) as beside:
            if hasattr(contents, "savefig"):
                contents.savefig(beside)
            elif isinstance(contents, bytes):
                beside.write_bytes(contents)
            else:
                beside.write_text(json.dumps(plain(contents), allow_nan=False), encoding="utf-8")
        tell(console, f"{what}: {folder / name}")
        written.append(folder / name)
    return written
