"""What gives the groups of a sweep to an executor, until all their runs are in the store."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future
from pathlib import Path

from nbflow._progress import Show
from nbflow.experiments._group import Group, Member, Outcome, clear, cut, done_of, lock_of, owned, run_group
from nbflow.experiments._pool import GLANCE, call_all, last_words, local_pool, pass_words_on
from nbflow.experiments.warm_up import compile_all, kinds_of
from nbflow.storage._files import explained
from nbflow.storage.store import Store

# How often in a row a pool may break before anything is done.
BREAKS = 3
# How the file of a sweep begins, which its groups look for.
SWEEP = "sweep-"

Pool = Callable[[list[Group]], contextlib.AbstractContextManager[Executor]]


def given(executor: Executor) -> Pool:
    """Return what gives an executor that somebody else shuts down."""
    return lambda jobs: contextlib.nullcontext(executor)


def local(workers: int) -> Pool:
    """Return what gives processes of this machine, at most so many."""

    @contextlib.contextmanager
    def pool(jobs: list[Group]) -> Iterator[Executor]:
        executor = local_pool(min(workers, len(jobs)))
        try:
            if min(workers, len(jobs)) > 1:  # or each of them would compile the same
                compile_all(executor, kinds_of([job.members[0].experiment for job in jobs]))
            yield executor
        finally:
            executor.shutdown(wait=True, cancel_futures=True)
            pass_words_on()

    return pool


class Driver:
    """Gives groups to an executor until all their runs are in the store."""

    def __init__(self, store: Store, members: Sequence[Member], size: int, seconds: float, code: str) -> None:
        self.store, self.code, self.total = store, code, len(members)
        self.folder = store.path.with_name(store.path.name + ".runs")
        # A sweep in progress holds a lock on its file, as a group does: a file without one is what a killed sweep left.
        self.name = self.folder / f"{SWEEP}{uuid.uuid4().hex}"
        self.seconds = seconds
        self.failures = len(store.failed(m.key for m in members))
        absent = set(store.absent(m.key for m in members))
        # Cut before those that are there are left out: a group that was interrupted is the same group again.
        groups = cut(members, size)
        left = [[m for m in group if m.key in absent] for group in groups]
        self.left = {job.path: job for job in (self._job(tuple(group)) for group in left if group)}
        # Whose files may lie there: also those of a sweep that was killed between a line and its tidying.
        self.seen = {self._job(group).path for group in groups} | self.left.keys()
        self.error: Exception | None = None

    def _job(self, members: tuple[Member, ...]) -> Group:
        return Group(members, self.folder.absolute(), self.store.path.absolute(), lock_of(self.name).absolute(),
                   self.code, self.seconds)  # fmt: skip

    def drive(self, pool: Pool, show: Show) -> bool:
        """Run everything; return whether it was interrupted."""
        breaks = 0
        try:
            while self.left:
                with explained(f"folder {self.folder} for the checkpoints of a sweep could not be made"):
                    self.folder.mkdir(parents=True, exist_ok=True)
                before = len(self.left)
                with owned(self.name):
                    try:
                        with pool(list(self.left.values())) as executor:
                            self._round(executor, show)
                    except BrokenExecutor as error:
                        said = last_words()
                        breaks = 0 if len(self.left) < before else breaks + 1
                        if breaks == BREAKS:
                            raise RuntimeError(
                                f"workers ended {BREAKS} times before any run did ({error}). {_explained(said)} "
                                f"What was done is kept: call again to go on."
                            ) from error
                    self._leave_out_what_is_there()
                    self._wait_for_others(show)
        except KeyboardInterrupt:
            return True
        finally:
            with contextlib.suppress(OSError, KeyboardInterrupt):  # it is done, or the next sweep will do it
                self._tidy()
        if self.error is not None:
            raise self.error
        return False

    def _tidy(self) -> None:
        """Delete what this sweep, killed ones and finished groups left, and the folder if it is empty then."""
        for place in self.folder.glob(f"{SWEEP}*"):
            clear(place)
        for path in self.seen - self.left.keys():
            if lock_of(path).exists():
                clear(path)
        self.folder.rmdir()

    def _wait_for_others(self, show: Show) -> None:
        """Wait while every group that is left is another sweep's."""
        while self.left and not any(map(_is_free, self.left)):
            time.sleep(GLANCE)
            self._leave_out_what_is_there()
            show("", *self._state())

    def _leave_out_what_is_there(self) -> None:
        absent = set(self.store.absent(member.key for job in self.left.values() for member in job.members))
        for path, job in list(self.left.items()):
            if all(member.key not in absent for member in job.members):
                del self.left[path]

    def _round(self, executor: Executor, show: Show) -> None:
        """Submit every group once, and take in what comes back; on an exception, stop those that run."""
        jobs, stop = list(self.left.values()), lock_of(self.name).unlink
        call_all(executor, run_group, jobs, self._take, lambda _: show("", *self._state()), stop)

    def _take(self, job: Group, future: Future[Outcome]) -> None:
        """Keep what a group has done."""
        try:
            outcome = future.result()
        except BrokenExecutor:
            raise
        except Exception as error:  # the machine's fault: the others go on, and it is raised at the end
            self.error = self.error or error
            del self.left[job.path]
            return
        if outcome.state == "unasked" and lock_of(self.name).exists():
            raise OSError(
                f"a worker does not see {self.folder.absolute()}, made here for the checkpoints of this sweep; "
                f"expected a disk that workers share. Name a store there, by a path that is the same for all."
            )
        if outcome.state == "failed" and len(job.members) > 1:
            # One of them: each on its own says which.
            clear(job.path)
            del self.left[job.path]
            alone = [self._job((member,)) for member in job.members]
            self.left |= {one.path: one for one in alone}
            self.seen |= self.left.keys()
            return
        rows = outcome.rows
        if outcome.state == "failed":
            rows = [{**member.row(self.code), "failure": outcome.words} for member in job.members]
            self.failures += len(rows)
        if rows:
            self.store.add(rows)
            clear(job.path)
            del self.left[job.path]

    def _running(self) -> Iterator[Group]:
        """Yield the groups that have said how far they are: not many more than there are workers."""
        places: list[Path] = []
        with contextlib.suppress(OSError):  # another sweep deletes the folder when it was the last
            places = list(self.folder.absolute().glob("*.progress"))
        for place in places:
            if (job := self.left.get(place.with_suffix(".npz"))) is not None:
                yield job

    def _state(self) -> tuple[float, int, str]:
        """Return how many runs are done, a part of one counting as such, of how many, and the same in words."""
        jobs = self.left.values()
        done = self.total - sum(len(job.members) for job in jobs)
        parts = sum(len(job.members) * _part(job) for job in self._running())
        failed = f", {self.failures} failed" if self.failures else ""
        return done + parts, self.total, f"{done} of {self.total} runs{failed}"


def _explained(said: str) -> str:
    """Say why workers ended: in their own last words, if there are any."""
    if said:
        return f"Their last words:\n    {said}\nA script needs `if __name__ == '__main__':`."
    return "They said nothing, as one that the system has killed: is memory short?"


def _is_free(path: Path) -> bool:
    """Tell whether no sweep has a group now."""
    try:
        with owned(path) as ours:
            return ours
    except FileNotFoundError:  # the folder is gone, which another sweep deletes when it was the last
        return True


def _part(job: Group) -> float:
    """Return how far a group is, from 0 to 1."""
    return min(done_of(job.path) / job.members[0].experiment.recipe.max_updates, 1.0)
