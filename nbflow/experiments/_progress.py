"""What is seen of a long computation: bars of rich in a terminal, else a line now and then."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import time
from collections.abc import Callable, Iterator

# Seconds between two lines where there is no terminal to draw a bar in.
QUIET_SECONDS = 30.0

Show = Callable[[float, str], None]


@contextlib.contextmanager
def shown(total: int, *, wanted: bool) -> Iterator[Show]:
    """Give `show(done, words)`, with `done` of `total` runs, a part of one counting as such."""
    if not wanted:
        yield lambda done, words: None
    elif sys.stderr.isatty() and importlib.util.find_spec("rich"):
        with _bar(total) as show:
            yield show
    else:
        yield _Lines(total)


@contextlib.contextmanager
def _bar(total: int) -> Iterator[Show]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(24), TaskProgressColumn(), TextColumn("elapsed"),
               TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(elapsed_when_finished=False))  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), refresh_per_second=2, speed_estimate_period=600) as bars:
        bar = bars.add_task("", total=total)
        yield lambda done, words: bars.update(bar, completed=done, description=words)


class _Lines:
    """A line on the error stream every some seconds."""

    def __init__(self, total: int) -> None:
        self.total, self.started, self.first = total, time.perf_counter(), -1.0
        self.last = self.started

    def __call__(self, done: float, words: str) -> None:
        now = time.perf_counter()
        if self.first < 0:
            self.first = done
        if now - self.last < QUIET_SECONDS:
            return
        self.last, here = now, done - self.first
        left = f", {(now - self.started) * (self.total - done) / here:.0f} s left" if here > 0 else ""
        print(f"{words}{left}", file=sys.stderr, flush=True)
