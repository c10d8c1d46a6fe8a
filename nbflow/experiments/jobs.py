"""Work in processes of this machine, for runs whose networks are needed and not their errors alone.

What `nbflow.sweep` is for errors: a line in a store for each job, progress, and Ctrl-C, after which the same command
goes on. A job keeps what it has done in a checkpoint of its own.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from nbflow._legible import legible
from nbflow.experiments._group import Watch as Watch, clear, done_of, owned
from nbflow.experiments._pool import call_all, local_pool
from nbflow.experiments.console import progress
from nbflow.experiments.machine import cores
from nbflow.storage.store import Row, Store

if TYPE_CHECKING:
    from rich.console import Console


@legible
class Job(NamedTuple):
    """A piece of work, as a worker is given it.

    Attributes
    ----------
    key : str
        What its line in the store is known by.
    words : str
        How its bar is called; jobs of one name have one bar.
    total : int
        How many updates, or sequences, at most.
    path : Path
        Its checkpoint; what else it keeps lies beside.
    stop : Path
        A file that asks it to stop, once it is there.
    what : object
        What it is about, as pickle takes it.
    """

    key: str
    words: str
    total: int
    path: Path
    stop: Path
    what: Any


# What a worker does: the line for the store, or None if it was asked to stop.
Work = Callable[[Job, Watch], Row | None]


def job(store: Store, key: str, words: str, total: int, what: Any, way: str = "") -> Job:
    """Return a job of a store; `way` names its checkpoint, for jobs that go on with each other's work, else the key."""
    folder = _folder_of(store)
    return Job(key, words, total, folder / f"{way or key}.npz", folder / "stop", what)


def done(store: Store, jobs: Iterable[Job]) -> list[Row]:
    """Return the lines of the jobs that are done."""
    rows = store.read()
    return [rows[job.key] for job in jobs if job.key in rows]


def run_all(
    work: Work,
    jobs: Sequence[Job],
    store: Store,
    console: Console,
    executor: Executor | None = None,
    workers: int | None = None,
) -> list[Row]:
    """Do every job that has no line in the store, those of one key once; return the lines of all.

    Parameters
    ----------
    work : function of a Job and a Watch
        Called in a worker. It asks the watch now and then, and returns None when that says so.
    jobs : sequence of Job
    store : Store
    console : Console
        Where progress is shown.
    executor : concurrent.futures.Executor, optional
        By default processes on this machine.
    workers : int, optional
        How many of these, by default one for each core.

    Raises
    ------
    KeyboardInterrupt
        After Ctrl-C, once what runs has saved itself; a second one does not wait for that.
    """
    there = store.read()
    left = list({job.key: job for job in jobs if job.key not in there}.values())
    if left:
        _do(work, left, jobs, store, console, executor, workers)
    return done(store, jobs)


def alone(call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Return what a call gives in a process of its own with one thread, as those of a sweep are."""
    with local_pool(1) as pool:
        return pool.submit(call, *arguments, **named).result()


def _do(
    work: Work, left: Sequence[Job], jobs: Sequence[Job], store: Store, console: Console, executor: Executor | None,
    workers: int | None,
) -> None:  # fmt: skip
    folder, stop = _folder_of(store), left[0].stop
    folder.mkdir(parents=True, exist_ok=True)
    stop.unlink(missing_ok=True)
    bars: dict[str, list[Job]] = {}
    for one in jobs:  # where there are lines instead, one for all
        bars.setdefault(one.words if console.is_terminal else "in all", []).append(one)

    def take(job: Job, future: Future[Row | None]) -> None:
        row = future.result()
        if row is not None:
            store.add([{"key": job.key, **row}])
            clear(job.path)

    def look(running: Collection[Job]) -> None:
        keys = {job.key for job in running}
        for words, mine in bars.items():
            parts = (done_of(job.path) if job.key in keys else job.total for job in mine)
            show(words, sum(parts), sum(job.total for job in mine))

    try:
        own = contextlib.nullcontext(executor) if executor else local_pool(min(workers or cores(), len(left)))
        with own as pool, progress(console) as show:
            call_all(pool, functools.partial(_one, work), left, take, look, stop.touch)
    finally:
        stop.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # there is more to do, or to go on with
            folder.rmdir()


def _one(work: Work, job: Job) -> Row | None:
    """Do a job in a worker, unless another run of the script is at it."""
    with owned(job.path) as ours:
        if not ours:
            raise BlockingIOError(f"{job.words} is trained by another run of this script. Wait for it, or name --out.")
        return None if job.stop.exists() else work(job, Watch(job.path, job.stop.exists))


def _folder_of(store: Store) -> Path:
    """Return where the checkpoints of a store's jobs are."""
    return store.path.with_name(store.path.name + ".runs")
