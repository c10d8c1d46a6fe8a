"""A pool of processes on this machine, each with one thread, deaf to Ctrl-C, and gone when its parent is gone."""

from __future__ import annotations

import collections
import contextlib
import multiprocessing
import os
import queue
import signal
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, wait
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any, ClassVar, TypeVar

# Seconds between two looks at what the workers do.
GLANCE = 0.5
# Jobs that an executor has at a time.
WINDOW = 4096
# Lines of a worker that has died.
LINES = 12
Job = TypeVar("Job")
_STREAM = threading.Lock()
# Runs are the parallel axis of a sweep: a thread for each process is as many as there are cores.
ONE_THREAD = dict.fromkeys(
    ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)


def local_pool(workers: int) -> ProcessPoolExecutor:
    """Return a pool of spawned processes with one thread each."""
    _WORDS[:] = [words for words in _WORDS if words.of.is_alive()]
    return ProcessPoolExecutor(workers, mp_context=_Context(), initializer=_live_as_long_as_the_parent)


def forks(executor: Executor) -> bool:
    """Tell whether the processes of an executor are copies of this one; no executor says so in public."""
    context = getattr(executor, "_mp_context", None)
    return isinstance(executor, ProcessPoolExecutor) and context is not None and context.get_start_method() == "fork"


def hides_main(executor: Executor | None) -> bool:
    """Tell whether what is defined in `__main__` is unknown to the processes of an executor.

    They import it by its name, where they can: from a file, or as a module. A notebook, a prompt and `python -c` are
    neither. Executors that send code itself, as Dask's, know it all the same.
    """
    main = sys.modules["__main__"]
    found = getattr(main, "__file__", None) is not None or getattr(main, "__spec__", None) is not None
    return not found and (executor is None or isinstance(executor, ProcessPoolExecutor))


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

    An executor has as many jobs at a time as keep a thousand workers busy, and tells when one has ended: each of
    a hundred thousand jobs costs no more than one of a hundred.

    On any exception, Ctrl-C among them, `stop` asks what runs to save itself, and what comes back then is taken all the
    same: so `take` may be called again for a job that the exception cut off in it. A second Ctrl-C does not wait for
    that, and ends the processes of local pools.
    """
    left = collections.deque(jobs)
    waiting: dict[Future[Any], Job] = {}
    ended: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
    looked = time.monotonic()
    try:
        while left or waiting:
            while left and len(waiting) < WINDOW:
                future = executor.submit(call, left[0])
                waiting[future] = left.popleft()
                future.add_done_callback(ended.put)
            found = _some(ended)
            pass_words_on()
            for future in found:
                take(waiting[future], future)
                del waiting[future]  # only now
            if time.monotonic() - looked >= GLANCE or not (left or waiting):
                look([*waiting.values(), *left])
                looked = time.monotonic()
    except BaseException:
        with contextlib.suppress(OSError):
            stop()
        # What can be cancelled is not waited for: nothing comes of it, and an executor may never say that it is over.
        running = {future: job for future, job in waiting.items() if not future.cancel()}
        try:
            wait(running)
        except KeyboardInterrupt:
            end_processes()
            raise
        for future, job in running.items():
            with contextlib.suppress(Exception):
                take(job, future)
        raise


def _some(ended: queue.SimpleQueue[Future[Any]]) -> Iterator[Future[Any]]:
    """Yield all that have ended; wait for one for a glance."""
    with contextlib.suppress(queue.Empty):
        yield ended.get(timeout=GLANCE)
        while True:
            yield ended.get_nowait()


class _Process(SpawnProcess):
    def start(self) -> None:
        # What a child finds when it starts, before anything that it imports can load numba.
        with _environment(ONE_THREAD), _ignoring_ctrl_c(), _error_stream_kept(self):
            super().start()


class _Words:
    """What workers write to their error streams: passed on here, and kept for when one dies."""

    def __init__(self, of: SpawnProcess) -> None:
        self.of = of
        with tempfile.TemporaryFile() as file:
            self.number = os.dup(file.fileno())
        weakref.finalize(self, os.close, self.number)
        self.passed = 0

    def pass_on(self) -> None:
        """Write what is new to the error stream of this process, whatever that is, a notebook's too."""
        new = os.pread(self.number, 1 << 20, self.passed)
        self.passed += len(new)
        if new and sys.stderr is not None:
            with contextlib.suppress(OSError, ValueError):  # a stream that is closed
                sys.stderr.write(new.decode(errors="replace"))

    def last(self) -> list[str]:
        """Return the last lines."""
        size = os.fstat(self.number).st_size
        kept = os.pread(self.number, 1 << 14, max(0, size - (1 << 14)))
        return [line for line in kept.decode(errors="replace").splitlines() if line.strip()][-LINES:]


# The words of each worker, from its start on. Not on Windows, where a process does not inherit numbers of files.
_WORDS: list[_Words] = []


def pass_words_on() -> None:
    """Let what workers have said be seen."""
    for words in _WORDS:
        words.pass_on()


def last_words() -> str:
    """Return the last lines of every worker that has said something, and forget them all."""
    pass_words_on()
    said = dict.fromkeys("\n    ".join(words.last()) for words in _WORDS)
    _WORDS.clear()
    return "\n    --\n    ".join(filter(None, said))


@contextlib.contextmanager
def _error_stream_kept(child: SpawnProcess) -> Iterator[None]:
    """Let a child be born whose error stream is a file of ours, which outlives it."""
    if os.name != "posix":
        yield
        return
    words = _Words(child)
    _WORDS.append(words)
    resource_tracker.ensure_running()  # or it would be born with that stream too
    with _STREAM:
        usual = os.dup(2)
        try:
            os.dup2(words.number, 2)
            yield
        finally:
            os.dup2(usual, 2)
            os.close(usual)


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
