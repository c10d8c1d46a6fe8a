"""A pool of processes on this machine, each with one thread, deaf to Ctrl-C, and gone when its parent is gone."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any, ClassVar, TypeVar

# Seconds between two looks at what the workers do.
GLANCE = 0.5
Job = TypeVar("Job")
# Runs are the parallel axis of a sweep: a thread for each process is as many as there are cores.
ONE_THREAD = dict.fromkeys(
    ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)


def local_pool(workers: int) -> ProcessPoolExecutor:
    """Return a pool of spawned processes with one thread each."""
    return ProcessPoolExecutor(workers, mp_context=_Context(), initializer=_live_as_long_as_the_parent)


def forks(executor: Executor) -> bool:
    """Tell whether the processes of an executor are copies of this one; no executor says so in public."""
    context = getattr(executor, "_mp_context", None)
    return isinstance(executor, ProcessPoolExecutor) and context is not None and context.get_start_method() == "fork"


def end_processes() -> None:
    """End the processes of local pools at once."""
    for child in multiprocessing.active_children():
        if isinstance(child, _Process):
            child.terminate()


def call_all(
    executor: Executor,
    call: Callable[[Job], Any],
    jobs: Iterable[Job],
    take: Callable[[Job, Future[Any]], None],
    look: Callable[[Collection[Job]], None],
    stop: Callable[[], Any],
) -> None:
    """Have an executor call `call(job)` for every job, and `take` what comes back; `look` at the others now and then.

    On any exception, Ctrl-C among them, `stop` asks what runs to save itself, and what comes back then is taken all the
    same: so `take` may be called again for a job that the exception cut off in it. A second Ctrl-C does not wait for
    that, and ends the processes of local pools.
    """
    waiting: dict[Future[Any], Job] = {}
    try:
        for job in jobs:
            waiting[executor.submit(call, job)] = job
        while waiting:
            ended, _ = wait(waiting, timeout=GLANCE, return_when=FIRST_COMPLETED)
            for future in ended:
                take(waiting[future], future)
                del waiting[future]  # only now
            look(waiting.values())
    except BaseException:
        with contextlib.suppress(OSError):
            stop()
        for future in waiting:
            future.cancel()
        try:
            wait(waiting)
        except KeyboardInterrupt:
            end_processes()
            raise
        for future, job in waiting.items():
            if not future.cancelled():
                with contextlib.suppress(Exception):
                    take(job, future)
        raise


class _Process(SpawnProcess):
    def start(self) -> None:
        # What a child finds when it starts, before anything that it imports can load numba.
        with _environment(ONE_THREAD), _ignoring_ctrl_c():
            super().start()


class _Context(SpawnContext):
    Process: ClassVar[Any] = _Process


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _ignoring_ctrl_c() -> Iterator[None]:
    """Let a child be born deaf to Ctrl-C, which is its parent's to answer."""
    usual = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or usual is None:
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)


def _live_as_long_as_the_parent() -> None:
    """End this process when its parent has ended: a killed parent cannot tell its children."""
    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
