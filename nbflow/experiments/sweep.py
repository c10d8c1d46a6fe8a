"""Sweeps: experiments times seeds, on whatever runs them, kept in a store."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbflow import _check, _frame
from nbflow._legible import legible
from nbflow._progress import Show, shown
from nbflow.experiments._group import Group, Member, Outcome, clear, cut, done_of, lock_of, owned, run_group
from nbflow.experiments._pool import GLANCE, call_all, forks, hides_main, last_words, local_pool, pass_words_on
from nbflow.experiments.code_version import code_version
from nbflow.experiments.experiment import Experiment, check_experiments, check_seeds, keys_of
from nbflow.experiments.machine import cores
from nbflow.experiments.warm_up import compile_all, kinds_of
from nbflow.storage._files import explained
from nbflow.storage.store import Row, Store

# How often in a row a pool may break before anything is done.
BREAKS = 3
# Bytes of a store that are held in memory when a sweep ends; of a larger one a run is read when it is asked for.
IN_MEMORY = 2**26
# How the file of a sweep begins, which its groups look for.
SWEEP = "sweep-"


@legible
@dataclass(frozen=True)
class Swept:
    """What a sweep has: the line of each run, as the store keeps it.

    Attributes
    ----------
    runs : sequence of dict
        In the order of the experiments, and of the seeds in each; a list, but for a store of over 64 MB, of which each
        run is read when it is asked for; `frame()` is a table. "task", "cell", "recipe.lr" and so on are
        the setting; a record, as "recipe.clip" or a rule of one's own, has all that it is as a text there, and its
        fields beside it, as "recipe.clip.threshold": a groupby never merges two that differ. "seed" is the seed, "code"
        the version; "updates", "first_passage", "stays_below", the last "loss" and "score", the score's "unit",
        "evaluations", "history" and the sha256 of theta are what came out (see `nbflow.Run`), "seconds" the run's share
        of its group's time. "failure" is None, or the error of a setting that failed; then the results are missing.
    missing : int
        How many runs are not done.
    interrupted : bool
        Whether Ctrl-C ended it.
    """

    runs: Sequence[Row]
    missing: int = 0
    interrupted: bool = False

    @property
    def failed(self) -> list[Row]:
        """The runs whose setting failed."""
        return [row for row in self.runs if row["failure"] is not None]

    def frame(self, table: str | None = None) -> Any:
        """Return a table of the sweep for pandas.

        Parameters
        ----------
        table : str, optional
            "history" or "evaluations", for a row of each update of each run. By default a row a run.

        Returns
        -------
        pandas.DataFrame
            A row a run has the columns of `runs` but these two. A row an update has those of the table, and in front
            "run", the place in `runs`, "seed", and the settings in which runs differ, as "recipe.lr"; runs that failed
            have none.

        Raises
        ------
        ImportError
            If pandas is not installed.
        ValueError
            If there is no such table.

        Examples
        --------
        >>> import os, tempfile, nbflow as nf
        >>> from concurrent.futures import ThreadPoolExecutor
        >>> recipe = nf.Recipe(lengths=10, max_updates=20, evaluate_every=10, evaluate_size=50)
        >>> grid = nf.grid(nf.Experiment("temporal_order", recipe, n_hidden=8), {"recipe.lr": [0.01, 0.1]})
        >>> with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as executor:
        ...     done = nf.sweep(grid, 3, os.path.join(folder, "runs.jsonl"), executor=executor, progress=False)
        >>> done.frame().groupby("recipe.lr")["score"].median()  # doctest: +SKIP
        >>> list(done.frame("evaluations"))  # doctest: +SKIP
        ['run', 'seed', 'recipe.lr', 'update', 'score']
        """
        if table is None:
            return _frame.frame({k: v for k, v in row.items() if k not in _frame.TABLES} for row in self.runs)
        table = _frame.table_of(table)
        differing = _differing(self.runs)
        return _frame.frame(
            {"run": k, **{name: row.get(name) for name in differing}, **cells}
            for k, row in enumerate(self.runs)
            for cells in _rows(row.get(table) or {})
        )


# What came out of a run, and what it is known by: no setting, whatever else a line has.
NO_SETTING = {
    "key", "code", "failure", "updates", "seconds", "first_passage", "stays_below", "loss", "score", "unit",
    "theta_sha256", *_frame.TABLES,
}  # fmt: skip


def _differing(runs: Iterable[Row]) -> list[str]:
    """Return the seed, and the settings that not all runs have alike."""
    seen, times, count = dict[str, set[str]](), Counter[str](), 0
    for row in runs:
        settings = {name: value for name, value in row.items() if name not in NO_SETTING}
        times.update(settings.keys())
        count += 1
        for name, value in settings.items():
            seen.setdefault(name, set()).add(repr(value))
    return ["seed", *(name for name in seen if name != "seed" and (len(seen[name]) > 1 or times[name] < count))]


def _rows(columns: dict[str, list[Any]]) -> Iterator[dict[str, Any]]:
    tidied = _frame.tidy(columns, None)
    return (dict(zip(tidied, values, strict=True)) for values in zip(*tidied.values(), strict=True))


def sweep(
    experiments: Experiment | Sequence[Experiment],
    seeds: int | Sequence[int],
    store: str | os.PathLike[str],
    *,
    executor: Executor | None = None,
    workers: int | None = None,
    group_size: int = 4,
    checkpoint_seconds: float = 60.0,
    code: str | None = None,
    progress: bool = True,
) -> Swept:
    """Train every experiment with every seed, and keep what comes out.

    Runs that differ in numbers only (seed, first weights, learning rate, threshold, alpha) are trained side by side in
    groups, and groups go to the executor. What comes out of a run does not depend on its group. A run that is in the
    store is not run again; one that was interrupted goes on where it was, from the checkpoint of its group in the
    folder beside the store. Sweeps that run at once on one store share the work; where their groups differ, as their
    experiments or seeds do, a run may be trained by both, and its first line stays.

    Parameters
    ----------
    experiments : Experiment or sequence of them
        See `nbflow.grid`.
    seeds : int or sequence of ints
        How many, from 0, or which; each below 2**24.
    store : path
        A file of JSON lines, and beside it a folder with the same name and ".runs", which workers must be able to
        write too.
    executor : concurrent.futures.Executor, optional
        Any one that does not fork, as `dask.distributed.Client(address).get_executor()`. By default processes on this
        machine, one for each core, with one thread each; a script then needs `if __name__ == "__main__":`.
    workers : int, optional
        How many processes, without an executor.
    group_size : int
        Most runs in a group. Ones with `stop_when_solved` are alone.
    checkpoint_seconds : float
        As in `nbflow.train`.
    code : str, optional
        Names the code that runs belong to; runs of another code are run again. By default the version, and a hash of
        all of nbflow that a training depends on, and of numba's version. It knows nothing of units of your own: name
        the code when you change one.
    progress : bool
        Whether to show runs, failures and time left on the error stream.

    Returns
    -------
    Swept
        Ctrl-C stops the workers, which save what they have; a second one does not wait for them.

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense. What is wrong with a setting is recorded with its runs instead.
    OSError, MemoryError, ImportError
        If store, checkpoints or workers fail for reasons that are not a setting's, after all else is done.
    RuntimeError
        If workers die again and again.

    Examples
    --------
    >>> import os, tempfile, nbflow as nf
    >>> from concurrent.futures import ThreadPoolExecutor
    >>> base = nf.Experiment("temporal_order", nf.Recipe(lengths=10, max_updates=20, evaluate_every=0), n_hidden=8)
    >>> grid = nf.grid(base, {"init": ["basic_tanh", "smart_tanh"], "recipe.lr": [0.01, 0.1]})
    >>> with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as executor:
    ...     done = nf.sweep(grid, 3, os.path.join(folder, "runs.jsonl"), executor=executor, progress=False)
    >>> len(done.runs), done.missing, done.runs[-1]["recipe.lr"], done.runs[-1]["seed"]
    (12, 0, 0.1, 2)
    """
    found, numbers = check_experiments(experiments), check_seeds(seeds)
    group_size = _check.count("group_size", group_size)
    seconds = float(_check.per_replica("checkpoint_seconds", checkpoint_seconds, 1, least=0.0)[0])
    if executor is not None and (workers is not None or not callable(getattr(executor, "submit", None))):
        raise TypeError("executor has no submit, or comes with workers; expected one of the two. Leave one out.")
    if executor is not None and forks(executor):
        raise ValueError(
            "executor forks its processes; expected one that spawns them, for a copy of one that has computed has "
            "none of its threads. Leave it out, or make it with mp_context=multiprocessing.get_context('spawn')."
        )
    if hides_main(executor):
        _refuse_main(found)
    workers = cores() if workers is None else _check.count("workers", workers)
    if code is not None and not isinstance(code, str):
        raise TypeError(f"code is {_check.said(code)}; expected a string that names the code. Leave it out.")
    code = code_version() if code is None else code
    keys = {
        (e, s): key for e, one in enumerate(found) for s, key in zip(numbers, keys_of(one, numbers, code), strict=True)
    }
    # Seed by seed, so that a group has the same runs when more seeds are asked for.
    members = {keys[e, s]: Member(keys[e, s], one, s) for s in numbers for e, one in enumerate(found)}
    driver = Driver(Store(store), list(members.values()), group_size, seconds, code)
    with shown(wanted=progress) as show:
        interrupted = driver.drive(_given(executor) if executor else _local(workers), show)
    wanted = dict.fromkeys(keys.values())
    rows = driver.store.rows(wanted)
    runs = list(rows) if driver.store.size() <= IN_MEMORY else rows
    return Swept(runs, len(wanted) - len(runs), interrupted)


def _refuse_main(experiments: Sequence[Experiment]) -> None:
    """Refuse by its name what other processes cannot import."""
    for one in experiments:
        for name, value in one.flat.items():
            if isinstance(value, str) and value.startswith("__main__."):
                raise ValueError(
                    f"{name.removesuffix('.function')} is {value.removeprefix('__main__.')}, defined in a notebook or "
                    f"at a prompt; expected what other processes can import. Write it into a file of its own and "
                    f"import it, or give executor=concurrent.futures.ThreadPoolExecutor(1)."
                )


Pool = Callable[[list[Group]], contextlib.AbstractContextManager[Executor]]


def _given(executor: Executor) -> Pool:
    return lambda jobs: contextlib.nullcontext(executor)


def _local(workers: int) -> Pool:
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
