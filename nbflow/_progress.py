"""What is seen of a long computation: bars of rich in a terminal or a notebook, else a line now and then."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import time
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from rich.console import Console

# Seconds between two lines where there is no terminal to draw bars in, and between two looks at a bar.
QUIET_SECONDS, BAR_SECONDS = 30.0, 0.1


class Show(Protocol):
    """Say that `done` of `total` is done of what is called `name`, and in words how it stands."""

    def __call__(self, name: str, done: float, total: float, words: str = "") -> None: ...


@contextlib.contextmanager
def shown(*, wanted: bool = True, console: Console | None = None, seconds: float = QUIET_SECONDS) -> Iterator[Show]:
    """Give a `Show`: on a console, or on the error stream; there is a bar for each name.

    Without a name, and without words, done and total stand alone.
    """
    stream = sys.stderr if console is None else console.file
    terminal = sys.stderr.isatty() if console is None else console.is_terminal
    if not wanted:
        yield lambda name, done, total, words="": None
    elif (terminal or (console is None and _in_notebook())) and importlib.util.find_spec("rich"):
        with _bars(console) as show:
            yield show
    else:
        yield _Lines(stream, seconds)


def _in_notebook() -> bool:
    """Tell whether rich draws into a notebook's cell; only IPython's kernel can make one."""
    if "IPython" not in sys.modules or not importlib.util.find_spec("rich"):
        return False
    from rich.console import Console

    return Console(stderr=True).is_jupyter


def said(name: str, done: float, total: float, words: str) -> str:
    """Say how far it is; words without a name say it already."""
    counted = f"{done:,.0f} of {total:,.0f}"
    if not name:
        return words or counted
    return f"{name}: {counted}{', ' if words else ''}{words}"


@contextlib.contextmanager
def _bars(console: Console | None) -> Iterator[Show]:
    from rich import progress as rich
    from rich.console import Console

    columns = (rich.TextColumn("{task.description}"), rich.BarColumn(16), rich.TaskProgressColumn(),
               rich.TextColumn("elapsed"), rich.TimeElapsedColumn(), rich.TextColumn("left"),
               rich.TimeRemainingColumn(elapsed_when_finished=False))  # fmt: skip
    known: dict[str, tuple[Any, float]] = {}
    with rich.Progress(*columns, console=console or Console(stderr=True), refresh_per_second=2,
                  speed_estimate_period=600) as bars:  # fmt: skip

        def show(name: str, done: float, total: float, words: str = "") -> None:
            bar, before = known.get(name) or (bars.add_task(name, total=total), -BAR_SECONDS)
            now = time.perf_counter()
            # Some computations say how they are doing thousands of times a second.
            if done >= total or now - before >= BAR_SECONDS:
                known[name] = bar, now
                bars.update(bar, completed=done, total=total, description=said(name, done, total, words))

        yield show


class _Lines:
    """A line every some seconds, with the time that is left at the pace of what it has seen."""

    def __init__(self, stream: IO[str], seconds: float) -> None:
        self.stream, self.seconds, self.last = stream, seconds, time.perf_counter()
        self.begun: dict[str, tuple[float, float]] = {}

    def __call__(self, name: str, done: float, total: float, words: str = "") -> None:
        now = time.perf_counter()
        started, first = self.begun.setdefault(name, (now, done))
        if now - self.last < self.seconds:
            return
        self.last, here = now, done - first
        left = f", {(now - started) * (total - done) / here:.0f} s left" if here > 0 else ""
        print(f"{said(name, done, total, words)}{left}", file=self.stream, flush=True)
