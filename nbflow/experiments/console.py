"""What all scripts do alike: refuse at once, show how far they are, end a Ctrl-C, and write what they found.

A script is two functions, and `begin` runs them. `work(options, console, found)` computes, and puts into `found` what
is done as soon as it is done; what makes no sense it refuses by raising, before it begins. `report(options, found,
console)` says and writes what was found, and returns the files.

The exit code is 0 if all was done, 1 if it came to nothing, 2 if something was refused, and 130 after a Ctrl-C, as
shells have it: then what was found until then is reported all the same, and the last line says what was kept and how
to go on.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from nbflow import _check
from nbflow._load import names as names_of
from nbflow._progress import Show as Show, shown
from nbflow.experiments import machine
from nbflow.plot import save
from nbflow.storage._files import whole

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from nbflow.training.run import Run

KINDS = {".json": "numbers", ".png": "picture", ".npz": "parameters"}
REFUSED, INTERRUPTED = 2, 130
# Seconds between two lines where there is no terminal to draw bars in.
QUIET_SECONDS = 10.0


class Found:
    """What a script has found, of which it makes a dataclass: nothing as long as its first field is empty."""

    def __bool__(self) -> bool:
        first, *_ = fields(self)  # type: ignore[arg-type]  # of the dataclass that a script makes of it
        return bool(getattr(self, first.name))


Options = TypeVar("Options")
Thing = TypeVar("Thing")
# What a setting, a file or the machine can do wrong, and is said in one line.
WRONG = (OSError, TypeError, ValueError, RuntimeError, FloatingPointError)


def begin(
    work: Callable[[Options, Console, Thing], None],
    report: Callable[[Options, Thing, Console], Sequence[Path]],
    options: Options,
    found: Thing,
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
    files: Sequence[Path] | None = ()
    try:
        check_place(options)
        check_signs(options)
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
    except KeyboardInterrupt as stop:  # a second one, or the first, too late
        stopped, files = stop, None
    if stopped is not None:
        say(console, stopped_early(str(stopped), files, store))
        return INTERRUPTED
    if not files:
        say(console, "Nothing was found, and nothing is written.")
    return 0 if files else 1


def stopped_early(words: str, files: Sequence[Path] | None, store: Path | None) -> str:
    """Say in a line that Ctrl-C came, what was kept (None: the report knows), and how to go on."""
    kept = [*(files or ()), *([store] if store is not None and store.exists() else [])]
    done = f"what was done is kept in {', '.join(map(str, kept))}" if kept else "nothing was done, nothing is written"
    if files is None and not kept:
        done = "what was written is named above, and whole"
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


# What is a count in every script that has it, and what must be above 0.
COUNTS = ("hidden", "batch_size", "replicas", "seeds", "size", "evaluate_size", "networks", "workers")
ABOVE_0 = ("lr", "threshold", "budget")


def check_signs(options: Any) -> None:
    """Refuse numbers below 0, which no option means but those that `SIGNED` names, and NaN; and counts of 0.

    What else makes no sense is refused by each script, with `check_numbers`.
    """
    signed = getattr(options, "SIGNED", ())
    for one in fields(options) if is_dataclass(options) else ():
        value = getattr(options, one.name)
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, bool) or not isinstance(number, int | float) or one.name in signed:
                continue
            least = 1 if one.name in COUNTS else 0
            if not number >= least or (one.name in ABOVE_0 and not number > 0):
                words = "a number above 0" if one.name in ABOVE_0 else f"at least {least}"
                raise ValueError(f"{one.name} is {number:g}; expected {words}. Give another, or leave it out.")


def check_numbers(options: Any, *, positive: str = "", part: str = "", **least: str) -> None:
    """Refuse numbers that make no sense, or are not finite.

    By the names of options, "lr threshold": what must be above 0, above 0 and below 1, or `least_1=` at least 1.
    """
    wanted: dict[str, tuple[str, float, float]] = {
        "a number above 0": (positive, 0.0, math.inf), "a number above 0 and below 1": (part, 0.0, 1.0),
    }  # fmt: skip
    for key, names in least.items():
        number = int(key.removeprefix("least_"))
        wanted[f"at least {number}"] = names, math.nextafter(number, -math.inf), math.inf
    if hasattr(options, "seed"):
        wanted["a seed of at least 0"] = "seed", -0.5, math.inf
    if hasattr(options, "length") and getattr(options, "task", None) in names_of("tasks"):
        from nbflow.data.synthetic import load_task  # which loads numba: not for a page of help

        shortest = load_task(options.task).shortest
        wanted[f"at least {shortest}, the shortest of {options.task}"] = "length", shortest - 0.5, math.inf
    for words, (names, low, high) in wanted.items():
        for name in names.split():
            value = getattr(options, name)
            values = value if isinstance(value, tuple) else (value,)
            if not values:
                raise ValueError(f"{name} is empty; expected at least one. Leave it out.")
            for one in values:
                if not low < one < high:
                    raise ValueError(f"{name} is {one:g}; expected {words}. Give another, or leave it out.")


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


def headed(title: str, *heads: str, wrap: bool = True) -> Table:
    """Return a table without rows: names on the left, and numbers on the right of their columns."""
    from rich.table import Table

    found = Table(title=title, title_justify="left")
    for k, head in enumerate(heads):
        found.add_column(head, justify="right" if k else "left", no_wrap=not (k and wrap))
    return found


def progress(console: Console) -> AbstractContextManager[Show]:
    """Give `show(name, done, total, words)`: a bar for each name in a terminal, else a line now and then."""
    return shown(console=console, seconds=QUIET_SECONDS)


def begun(console: Console) -> None:
    """Say that all is checked and work begins: the first line, for what comes next may be a minute of compiling."""
    tell(console, "Begun. Kernels that are not on disk yet are compiled first, which can take a minute.")


def compiling(console: Console) -> AbstractContextManager[Any]:
    """Say that kernels are compiled, as long as it takes; at once, also where there is no terminal."""
    words = "Compiling kernels; they are kept on disk for the next time"
    if not console.is_terminal:
        tell(console, f"{words}.")
    return console.status(words)


def executor_of(name: str) -> Executor | None:
    """Return what runs a sweep: None, that is processes of this machine, for local, else the scheduler named."""
    if name == "local":
        return None
    scheme, _, address = name.partition("://")
    if scheme != "dask" or not address:
        raise ValueError(
            f"executor is {_check.said(name)}; expected local or dask://HOST:PORT. Start one with `dask scheduler`."
        )
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


def keep(
    console: Console, stem: Path, numbers: dict[str, Any], pictures: Mapping[str, Any], **others: bytes
) -> list[Path]:
    """Write what was found, whole or not at all; say where each file is, and return the paths.

    Numbers go to STEM.json, whose folder is made where it is missing; pictures by what is put behind the stem, "_who"
    for STEM_who.png; bytes by suffix, `npz=...`. Where a file of another setting has that name, the options that differ
    from it stand in the name of this one.
    """
    stem = of_its_own(stem, plain(numbers).get("options", {}))
    text = json.dumps(plain(numbers), allow_nan=False)
    files: dict[str, Any] = {".json": text.encode(), **{f".{suffix}": data for suffix, data in others.items()}}
    files |= {f"{name}.png": picture for name, picture in pictures.items()}
    written = [stem.with_name(stem.name + name) for name in files]
    for path, contents in zip(written, files.values(), strict=True):
        if isinstance(contents, bytes):
            with whole(path) as beside:
                beside.write_bytes(contents)
        else:
            save(contents, path)
        tell(console, f"{KINDS[path.suffix]}: {path}")
    return written


# Options that change nothing of what is found.
NO_SETTINGS = {"out", "name", "executor", "workers", "report_only", "code"}


def of_its_own(stem: Path, options: Mapping[str, Any]) -> Path:
    """Return a stem under which there is no file of another setting; what differs from it is put behind the name.

    Examples
    --------
    >>> of_its_own(Path("nowhere/span"), {"seeds": 10}).name
    'span'
    """
    while (there := stem.with_name(f"{stem.name}.json")).exists():
        before = _options_of(there)
        differ = {name: value for name, value in options.items()
                  if name not in NO_SETTINGS and before.get(name, value) != value}  # fmt: skip
        if not differ:
            break
        stem = stem.with_name(f"{stem.name}.{_brief(differ)}")
    return stem


def _options_of(path: Path) -> dict[str, Any]:
    """Return the options that a script has written; nothing for a file that is of no script, which is kept too."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["options"]
    except (ValueError, TypeError, KeyError):
        return dict.fromkeys(("seed", "seeds"))  # differs from whatever has one
    return found if isinstance(found, dict) else {}


def _brief(options: Mapping[str, Any]) -> str:
    """Return options as a part of a file's name, a hash of them where they are long."""
    parts = []
    for name, value in options.items():
        values = value if isinstance(value, list) else [value]
        parts.append("_".join([name, *(re.sub(r"[^\w.+-]", "-", str(one)) for one in values)]))
    text = "-".join(parts)
    return text if len(text) <= 80 else f"{text[:60]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
