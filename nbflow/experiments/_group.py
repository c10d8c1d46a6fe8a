"""Groups: runs of a sweep that are trained side by side, in whatever process an executor has."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import pathlib
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from nbflow._legible import legible
from nbflow.experiments.experiment import Experiment, joined, structure
from nbflow.storage import _checkpoint as checkpoint
from nbflow.storage._files import lock
from nbflow.storage.store import Row, Store
from nbflow.training.run import Run
from nbflow.training.train import train

# What is the machine's fault and not the setting's: it is not recorded, and the run is tried again.
MACHINE = (OSError, MemoryError, ImportError)
# Seconds between two looks at the clock of a run.
GLANCE = 0.5


@legible
class Member(NamedTuple):
    """A run: what it is known by, and what it is.

    Attributes
    ----------
    key : str
        A hash of experiment, seed and code.
    experiment : Experiment
        What is trained.
    seed : int
        And with which seed.
    """

    key: str
    experiment: Experiment
    seed: int

    def row(self, code: str) -> Row:
        """Return the columns of the store that are known before it is run."""
        return {"key": self.key, "code": code, "seed": self.seed, **self.experiment.flat}


@legible
class Group(NamedTuple):
    """Runs that are trained side by side, and where their files are.

    Attributes
    ----------
    members : tuple of Member
        The runs that are trained side by side.
    folder : pathlib.Path
        Where its checkpoint lies.
    store : pathlib.Path
        Where what comes out is kept.
    sign : pathlib.Path
        A file that is there while the sweep is; every group stops when it is gone.
    code : str
        The version of the code, as a line of the store says it.
    seconds : float
        Between two checkpoints.
    """

    members: tuple[Member, ...]
    folder: pathlib.Path
    store: pathlib.Path
    sign: pathlib.Path
    code: str
    seconds: float

    @property
    def path(self) -> pathlib.Path:
        """Its checkpoint, named by its runs."""
        text = " ".join(member.key for member in self.members)
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.npz"


@legible
class Outcome(NamedTuple):
    """How a group ended.

    Attributes
    ----------
    state : str
        "done", "failed", "stopped", "unasked" where the sweep is gone or on another disk, or "busy" where another sweep
        has it or had it.
    rows : list of dict
        Lines for the store, one for each run; none but for "done".
    words : str
        The error of one that failed.
    """

    state: str
    rows: list[Row]
    words: str = ""


def cut(members: Sequence[Member], size: int) -> list[tuple[Member, ...]]:
    """Return groups of runs that can be trained side by side, at most `size` each.

    One that stops when it is solved is alone, for a training of many ends when all are.
    """
    alike: dict[str, list[Member]] = {}
    for member in members:
        alike.setdefault(structure(member.experiment), []).append(member)
    found = []
    for group in alike.values():
        most = 1 if group[0].experiment.recipe.stop_when_solved else size
        found += [tuple(group[k : k + most]) for k in range(0, len(group), most)]
    return found


def progress_of(path: pathlib.Path) -> pathlib.Path:
    """Return where a group writes how many updates it has done."""
    return path.with_suffix(".progress")


def done_of(path: pathlib.Path) -> int:
    """Return how many updates a group has done, as far as it has said."""
    try:
        return int(progress_of(path).read_text())
    except (OSError, ValueError):
        return 0


def lock_of(path: pathlib.Path) -> pathlib.Path:
    """Return the lock file of a group: who trains it holds its lock."""
    return path.with_suffix(".lock")


@contextlib.contextmanager
def owned(path: pathlib.Path) -> Iterator[bool]:
    """Give whether the group of this checkpoint is ours, until the end or until the process dies."""
    place = lock_of(path)
    with open(place, "ab") as file:
        # A file that was deleted after we had opened it is locked for nothing: the next one opens another.
        yield lock(file.fileno(), wait=False) and place.exists() and os.path.samefile(place, file.fileno())


def delete_checkpoints(path: pathlib.Path) -> None:
    """Delete all checkpoints of a group."""
    for place in (path, checkpoint.before(path), checkpoint.beside(path), checkpoint.shown(path)):
        place.unlink(missing_ok=True)


def clear(path: pathlib.Path) -> None:
    """Delete what a group left, unless another sweep has it now."""
    with owned(path) as ours:
        if ours:
            delete_checkpoints(path)
            progress_of(path).unlink(missing_ok=True)
            lock_of(path).unlink(missing_ok=True)


def run_group(job: Group) -> Outcome:
    """Train a group, or go on with it; called in a worker.

    Raises
    ------
    OSError, MemoryError, ImportError
        What is not the fault of a setting.
    """
    if not job.sign.exists():  # before a lock is made that nobody would delete
        return Outcome("unasked", [])
    with owned(job.path) as ours:
        if not ours or _store(job.store).has([member.key for member in job.members]):
            return Outcome("busy", [])
        watch = Watch(job.path, lambda: not job.sign.exists())
        try:
            run = _train_anew_if_damaged(job, watch)
        except MACHINE:
            raise
        except Exception as error:  # whatever a setting can do
            return Outcome("failed", [], f"{type(error).__name__}: {error}")
        if run.interrupted or (watch.stopped and run.updates < job.members[0].experiment.recipe.max_updates):
            return Outcome("stopped", [])
        return Outcome("done", rows_of(job, run))


@functools.lru_cache(maxsize=4)
def _store(path: pathlib.Path) -> Store:
    """Return the store of this process, which knows what it has read for the groups before."""
    return Store(path)


class Watch:
    """A callback that says how far a run is, and ends it when it is asked to."""

    keeps_nothing = True  # so nobody needs to know which rows it has seen

    def __init__(self, path: pathlib.Path, asked: Callable[[], bool]) -> None:
        self.asked, self.place, self.last, self.stopped = asked, progress_of(path), 0.0, False

    def __call__(self, run: Run) -> bool:
        """Look, and be looked at, not at every row but now and then."""
        now = time.monotonic()
        if now - self.last < GLANCE:
            return False
        self.last = now
        with contextlib.suppress(OSError):  # it is only to be looked at
            self.place.write_text(str(run.updates))
        self.stopped = self.asked()
        return self.stopped


def _train_anew_if_damaged(job: Group, watch: Watch) -> Run:
    """Train; where not one of its checkpoints is whole, which is not the fault of a setting, from the beginning."""
    try:
        return _train(job, watch)
    except checkpoint.DamagedError as error:
        warnings.warn(f"{error} The group begins anew.", RuntimeWarning, stacklevel=2)
        delete_checkpoints(job.path)
        return _train(job, watch)


def _train(job: Group, watch: Watch) -> Run:
    experiments = [member.experiment for member in job.members]
    seeds = [member.seed for member in job.members]
    net, task = experiments[0].net, experiments[0].task
    theta = np.stack([member.experiment.theta(member.seed) for member in job.members])
    return train(
        net, theta, task, joined(experiments), replica_ids=seeds, callbacks=[watch], checkpoint=job.path,
        checkpoint_seconds=job.seconds,
    )  # fmt: skip


def rows_of(job: Group, run: Run) -> list[Row]:
    """Return the lines of the store."""
    found = []
    for r, member in enumerate(job.members):
        history = {name: _of(column, r) for name, column in run.history.items() if name != "seconds"}
        evaluations = {name: _of(column, r) for name, column in run.evaluations.items()}
        found.append({
            **member.row(job.code), "failure": None, "updates": run.updates,
            "seconds": run.seconds / len(job.members), "first_passage": run.first_passage[r],
            "stays_below": run.stays_below[r], "loss": history["loss"][-1],
            "score": evaluations["score"][-1] if evaluations["score"] else None, "unit": run.unit,
            "theta_sha256": hashlib.sha256(run.theta[r].tobytes()).hexdigest(), "evaluations": evaluations,
            "history": history,
        })  # fmt: skip
    return found


def _of(column: Sequence[Any], r: int) -> list[Any]:
    """Return replica r's part of a column."""
    return [row[r] if isinstance(row, list) else row for row in column]
