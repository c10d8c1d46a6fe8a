"""What is seen of a long computation: bars of rich in a terminal, bars in a notebook, else a line now and then."""

from __future__ import annotations

import contextlib
import html
import importlib.util
import sys
import time
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from rich.console import Console

# Seconds between two lines where there is no terminal to draw bars in, and between two looks at a bar: in a notebook
# each is a message.
QUIET_SECONDS, BAR_SECONDS, CELL_SECONDS = 30.0, 0.1, 0.5


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
    elif terminal and importlib.util.find_spec("rich"):
        with _bars(console) as show:
            yield show
    elif console is None and _in_notebook():
        with contextlib.closing(_Cell()) as cell:
            yield cell
    else:
        yield _Lines(stream, seconds)


def _in_notebook() -> bool:
    """Tell whether a cell of a notebook is running; only IPython with a kernel has such."""
    if "IPython" not in sys.modules:
        return False
    shell = sys.modules["IPython"].get_ipython()
    return getattr(shell, "kernel", None) is not None


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


class _Pace:
    """How long it will take, at the pace of what was seen under each name."""

    def __init__(self) -> None:
        self.begun: dict[str, tuple[float, float]] = {}

    def left(self, name: str, done: float, total: float) -> str:
        """Return ", 3 s left", or nothing as long as that is not known."""
        now = time.perf_counter()
        started, first = self.begun.setdefault(name, (now, done))
        here = done - first
        return f", {(now - started) * (total - done) / here:.0f} s left" if here > 0 else ""


class _Lines:
    """A line every some seconds, with the time that is left."""

    def __init__(self, stream: IO[str], seconds: float) -> None:
        self.stream, self.seconds, self.last, self.pace = stream, seconds, time.perf_counter(), _Pace()

    def __call__(self, name: str, done: float, total: float, words: str = "") -> None:
        now, left = time.perf_counter(), self.pace.left(name, done, total)
        if now - self.last < self.seconds:
            return
        self.last = now
        print(f"{said(name, done, total, words)}{left}", file=self.stream, flush=True)


class _Bar(NamedTuple):
    words: str
    done: float
    total: float


class _Cell:
    """Bars below a cell, a line for each name, which any front end of Jupyter draws.

    What rich draws there needs ipywidgets, and without them is a warning twice a second.
    """

    def __init__(self) -> None:
        self.bars: dict[str, _Bar] = {}
        self.pace, self.last, self.handle = _Pace(), 0.0, None

    def __call__(self, name: str, done: float, total: float, words: str = "") -> None:
        left = self.pace.left(name, done, total)
        self.bars[name] = _Bar(f"{said(name, done, total, words)}{left if done < total else ''}", done, total)
        if time.perf_counter() - self.last >= CELL_SECONDS:
            self.draw()

    def draw(self) -> None:
        """Show how it stands, in the place where it was shown before."""
        from IPython.display import display

        self.last = time.perf_counter()
        if self.handle is None:
            self.handle = display(self, display_id=True)
        else:
            self.handle.update(self)

    def close(self) -> None:
        """Show how it ended."""
        if self.bars:
            self.draw()

    def _repr_html_(self) -> str:
        lines = (f'<progress value="{bar.done:.6g}" max="{bar.total:.6g}"></progress> {html.escape(bar.words)}'
                 for bar in self.bars.values())  # fmt: skip
        return f"<div>{'<br>'.join(lines)}</div>"

    def __repr__(self) -> str:
        return "\n".join(f"{bar.done / bar.total:4.0%} {bar.words}" for bar in self.bars.values() if bar.total)
