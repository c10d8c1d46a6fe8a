"""Work of a script in processes of this machine, for runs whose networks are needed and not their errors alone.

What `nbflow.sweep` is for errors: a line in a store for each job, progress, and Ctrl-C, after which the same command
goes on. A job keeps what it has done in a checkpoint of its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from pathlib import Path
from typing import Any, NamedTuple

from reporting import Show, progress
from rich.console import Console

from nbflow.experiments._group import Watch as Watch, clear, owned, progress_of
from nbflow.experiments._pool import cores, local_pool
from nbflow.storage.store import Row, Store

# Seconds between two looks at what the workers do.
GLANCE = 0.5


class Job(NamedTuple):
    """A piece of work, as a worker is given it."""

    key: str  #: what its line in the store is known by
    words: str  #: how its bar is called; jobs of one name have one bar
    total: int  #: how many updates, or sequences, at most
    path: Path  #: its checkpoint; what else it keeps lies beside
    stop: Path  #: a file that asks it to stop, once it is there
    what: Any  #: what it is about, as pickle takes it


# What a worker does: the line for the store, or None if it was asked to stop.
Work = Callable[[Job, Watch], Row | None]


def folder_of(store: Store) -> Path:
    """Return where the checkpoints of a store's jobs are."""
    return store.path.with_name(store.path.name + ".runs")


def run_all(work: Work, jobs: Sequence[Job], store: Store, console: Console, executor: Executor | None = None) -> bool:
    """Do every job that has no line in the store; return whether Ctrl-C ended it."""
    there = store.read()
    left = [job for job in jobs if job.key not in there]
    if not left:
        return False
    folder_of(store).mkdir(parents=True, exist_ok=True)
    left[0].stop.unlink(missing_ok=True)
    try:
        with _pool(executor, len(left)) as pool, progress(console) as show:
            waiting = {pool.submit(_one, work, job): job for job in left}
            try:
                _wait(waiting, _bars(jobs, console), store, show)
            except BaseException:
                _halt(waiting, left[0].stop, store)
                raise
    except KeyboardInterrupt:
        return True
    finally:
        left[0].stop.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # there is more to do, or to go on with
            folder_of(store).rmdir()
    return False


@contextlib.contextmanager
def _pool(executor: Executor | None, jobs: int) -> Iterator[Executor]:
    if executor is not None:
        yield executor
        return
    found = local_pool(min(cores(), jobs))
    try:
        yield found
    finally:
        found.shutdown(wait=True, cancel_futures=True)


def _one(work: Work, job: Job) -> Row | None:
    """Do a job in a worker, unless another run of the script is at it."""
    with owned(job.path) as ours:
        if not ours:
            raise BlockingIOError(f"{job.words} is trained by another run of this script. Wait for it, or name --out.")
        return None if job.stop.exists() else work(job, Watch(job.path, job.stop.exists))


def _bars(jobs: Sequence[Job], console: Console) -> dict[str, list[Job]]:
    """Return the jobs of each bar; where there are lines instead, one for all."""
    found: dict[str, list[Job]] = {}
    for job in jobs:
        found.setdefault(job.words if console.is_terminal else "in all", []).append(job)
    return found


def _wait(waiting: dict[Future[Row | None], Job], bars: dict[str, list[Job]], store: Store, show: Show) -> None:
    """Take in what comes back, and show how far the others are."""
    while waiting:
        ended, _ = wait(waiting, timeout=GLANCE, return_when=FIRST_COMPLETED)
        for future in ended:
            _take(waiting[future], future, store)
            del waiting[future]  # only now: what is cut off by Ctrl-C is taken in again
        running = {job.key for job in waiting.values()}
        for words, mine in bars.items():
            done = sum(_done(job) if job.key in running else job.total for job in mine)
            show(words, done, sum(job.total for job in mine))


def _take(job: Job, future: Future[Row | None], store: Store) -> None:
    row = future.result()
    if row is not None:
        store.add([{"key": job.key, **row}])
        clear(job.path)


def _halt(waiting: dict[Future[Row | None], Job], stop: Path, store: Store) -> None:
    """Ask what runs to save itself and stop, wait for that, and keep what was done meanwhile."""
    stop.touch()
    for future in waiting:
        future.cancel()
    wait(waiting)
    with contextlib.suppress(Exception):
        for future, job in waiting.items():
            if not future.cancelled():
                _take(job, future, store)


def _done(job: Job) -> int:
    """Return how far a job is."""
    try:
        return int(progress_of(job.path).read_text())
    except (OSError, ValueError):
        return 0
