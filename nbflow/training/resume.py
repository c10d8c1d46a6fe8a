"""Training runs that outlive their process: what is saved of a run, and how it goes on."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import time
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nbflow import __version__
from nbflow._check import said
from nbflow.storage import _checkpoint as checkpoint
from nbflow.storage._files import path_of
from nbflow.storage._former import run_of_today
from nbflow.training._identity import codes_of, describe
from nbflow.training.best import Best, as_rows, better, first
from nbflow.training.run import Evaluations, Run

if TYPE_CHECKING:
    from nbflow.training._loop import Loop

KIND = "training run"


def load_run(path: str | os.PathLike[str]) -> Run:
    """Read what a training run had done when `nbflow.train(..., checkpoint=path)` last saved it.

    Parameters
    ----------
    path : str or path

    Returns
    -------
    Run

    Raises
    ------
    FileNotFoundError
        If there is no checkpoint.
    ValueError
        If it is damaged, and so is the one before it; or if it holds something else.

    Examples
    --------
    >>> import os, tempfile, nbflow as nf
    >>> net = nf.Network(cell="tanh", n_in=6, n_hidden=20, n_out=4)
    >>> theta, recipe = nf.init(net, "smart_tanh", rng=0), nf.Recipe(lengths=10, max_updates=50, evaluate_every=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "run.npz")
    ...     run = nf.train(net, theta, "temporal_order", recipe, checkpoint=path)
    ...     again = nf.load_run(path)
    >>> again.updates, bool((again.theta == run.theta).all()), again.history == run.history
    (50, True, True)
    """
    place = path_of("checkpoint", path, "run.npz")
    arrays, facts = read_run(place)
    with checkpoint.believed(place):
        run = Run(theta=arrays["theta"][0] if facts["single"] else arrays["theta"])
        _restore_run(run, arrays, facts)
        run.unit = facts["unit"]
        run.recipe = {**facts["setting"]["recipe"], "max_updates": facts["max_updates"]}
    return run


def read_run(path: Any, name: str = "checkpoint") -> checkpoint.Saved:
    """Read a checkpoint of a training run."""
    return _of_a_run(path_of(name, path, "run.npz"))


def _of_a_run(path: pathlib.Path) -> checkpoint.Saved:
    saved = checkpoint.load(path)
    if saved.facts.get("kind") != KIND:
        raise ValueError(f"checkpoint {path} holds no training run. Name another file.")
    with checkpoint.believed(path):
        arrays, facts = run_of_today(*saved)
        _refuse_other_types(facts)
        return checkpoint.Saved(arrays, checkpoint.Facts(facts))


# What facts are, which anybody can have written; a fact that is missing is named where it is looked for.
TYPES: dict[str, tuple[type, ...]] = {
    "setting": (dict,), "single": (bool,), "updates": (int,), "max_updates": (int,), "seconds": (int, float),
    "count": (int,), "last": (dict,), "unit": (str, type(None)), "history": (dict,), "evaluations": (dict,),
}  # fmt: skip


# And what each of a list of them is, one for every replica.
EACH: dict[str, tuple[type, ...]] = {"first_passage": (int, type(None)), "stays_below": (bool,)}


def _refuse_other_types(facts: dict[str, Any]) -> None:
    for name, kinds in EACH.items():
        found = facts.get(name, [])
        if not all(isinstance(one, kinds) for one in (found if isinstance(found, list) else [found])):
            raise TypeError(f"its fact '{name}' is a {type(found).__name__}, or holds one of another type")
    for name, kinds in TYPES.items():
        if name in facts and (not isinstance(facts[name], kinds) or (bool not in kinds and facts[name] is True)):
            raise TypeError(f"its fact '{name}' is a {type(facts[name]).__name__}")
        if name in ("updates", "count", "seconds", "max_updates") and facts.get(name, 0) < 0:
            raise TypeError(f"its fact '{name}' is below 0")


def setting_of(loop: Loop, task: Any) -> dict[str, Any]:
    """Return all that makes a run what it is, as plain data, without `max_updates`."""
    recipe = describe(loop.recipe)
    del recipe["max_updates"]
    source = loop.task or task
    scored = {} if loop.own_score is None else {"score": loop.own_score}
    return {
        **describe(scored),
        "net": describe(loop.net), "task": describe(source), "seed": loop.seed,
        "replica_ids": loop.replica_ids.tolist(), "recipe": recipe,
        "single": loop.single, "theta": hash_of(loop.theta),
        "code": codes_of({"net": loop.net, "task": source, "recipe": loop.recipe, **scored}),
    }  # fmt: skip


def hash_of(theta: NDArray[Any]) -> str:
    """Return what parameters are known by."""
    return hashlib.sha256(theta.tobytes()).hexdigest()


# What changes no bit of what is trained, and may be changed when a run goes on; evaluations, if no rate follows them.
FREE = ("record_every", "evaluate_every", "evaluate_size")


def fixed(setting: dict[str, Any]) -> dict[str, Any]:
    """Return what must be the same when a run goes on: `code` is compared apart, where both sides know it."""
    free = FREE[:1] if isinstance(setting["recipe"]["lr"], dict) and "patience" in setting["recipe"]["lr"] else FREE
    recipe = {name: value for name, value in setting["recipe"].items() if name not in free}
    return {**{name: value for name, value in setting.items() if name != "code"}, "recipe": recipe}


class Keeper:
    """Saves a loop now and then, and puts a new one where the saved one was; made before the first update."""

    def __init__(self, path: Any, seconds: float, loop: Loop, task: Any, start: Any = None) -> None:
        self.path, self.seconds, self.loop, self.start = path_of("checkpoint", path, "run.npz"), seconds, loop, start
        self.setting = setting_of(loop, task)
        if checkpoint.exists(self.path):
            self._resume()
            self.kept = self._place()
        else:
            if start is not None:
                self.setting |= start.go(loop)
            checkpoint.shown(self.path).unlink(missing_ok=True)
            # Now, and not after an hour, is when to learn that nothing can be written there.
            self._write()
        self.last = time.perf_counter()

    def _place(self) -> tuple[int, ...]:
        """Return how far the run is, all that tells two states of it apart."""
        run = self.loop.run
        return run.updates, self.loop.window.count, len(run.evaluations["update"])

    def keep(self, *, now: bool = False) -> None:
        """Save if it is time, or if there is something new and it must be now; a failure is a warning."""
        if not now and time.perf_counter() - self.last < self.seconds:
            return
        if self._place() == self.kept:
            return
        try:
            self._write()
        except OSError as error:
            warnings.warn(f"{error.strerror} Training goes on.", RuntimeWarning, stacklevel=2)
        self.last = time.perf_counter()

    def note(self, run: Run) -> None:
        """Write down which row callbacks have seen; called after all of them, as the last one."""
        with contextlib.suppress(OSError):  # as for a checkpoint: training goes on
            checkpoint.shown(self.path).write_text(str(run.updates))

    def _noted(self) -> int:
        try:
            return int(checkpoint.shown(self.path).read_text())
        except (OSError, ValueError):
            return 0

    def _write(self) -> None:
        loop = self.loop
        arrays, facts = _saved_run(loop.run)
        arrays |= loop.state()
        facts |= {
            "kind": KIND, "nbflow": __version__, "setting": self.setting, "single": loop.single,
            "max_updates": loop.recipe.max_updates, "seconds": loop.elapsed(), "count": loop.window.count,
            "last": loop.last(), "unit": loop.run.unit,
        }  # fmt: skip
        checkpoint.save(self.path, arrays, facts)
        self.kept = self._place()

    def _resume(self) -> None:
        arrays, facts = _of_a_run(self.path)
        saved = facts["setting"]
        if self.start is not None:
            self.setting |= self.start.again(saved.get("start"), self.setting["theta"])
        other = difference(fixed(saved), fixed(self.setting)) or other_code(saved.get("code"), self.setting["code"])
        if other:
            raise ValueError(
                f"checkpoint {self.path} belongs to another training: {other}. Name another file, or delete it to "
                f"begin anew; to go on from it with another recipe, give start_from={str(self.path)!r} and another "
                f"checkpoint."
            )
        most = self.loop.recipe.max_updates
        if facts["updates"] > most:
            raise ValueError(
                f"max_updates is {most}; expected at least {facts['updates']}, which checkpoint {self.path} has done. "
                f"Give more, or read it with nbflow.load_run(path)."
            )
        with checkpoint.believed(self.path):
            self.loop.restore(arrays, facts)
            _restore_run(self.loop.run, arrays, facts)
            self.loop.run.shown = self._noted()


def other_code(saved: Any, given: dict[str, str]) -> str:
    """Say which function is another than it was, or nothing: one of an older nbflow or another Python says nothing."""
    if not isinstance(saved, dict) or saved.get("python") != given["python"]:
        return ""
    for name in given:
        if name in saved and saved[name] != given[name]:
            return f"{name.removeprefix('recipe.')} has other code there, or other numbers that it uses"
    return ""


def difference(saved: Any, given: Any, name: str = "") -> str:
    """Say where two settings first differ, or nothing."""
    if isinstance(saved, dict) and isinstance(given, dict):
        for key in [*saved, *(key for key in given if key not in saved)]:
            found = difference(saved.get(key), given.get(key), f"{name}.{key}" if name else key)
            if found:
                return found
        return ""
    if saved == given:
        return ""
    if name == "theta":
        return "theta, where it began, is another"
    return f"{name.removeprefix('recipe.')} is {said(saved)} there and {said(given)} here"


TABLES: dict[str, type[dict[str, list[Any]]]] = {"history": dict, "evaluations": Evaluations}


def _saved_run(run: Run) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Return the columns of a run as arrays, and the rest of it as plain data."""
    arrays: dict[str, NDArray[Any]] = {}
    facts: dict[str, Any] = {name: getattr(run, name) for name in ("updates", "first_passage", "stays_below")}
    for table in TABLES:
        others = facts[table] = {}
        for name, column in getattr(run, table).items():
            array = _numbers(column)
            if array is None:
                others[name] = column
            else:
                arrays[f"{table}/{name}"] = array
    facts["best"] = run.best and {"update": run.best.update, "score": run.best.score}
    if run.best is not None:
        arrays["best/theta"] = run.best.theta
    return arrays, facts


def _numbers(column: list[Any]) -> NDArray[Any] | None:
    """Return a column as an array if that gives the same column again."""
    try:
        array = np.asarray(column)
    except ValueError:  # rows of different lengths
        return None
    return array if array.size and array.dtype.kind in checkpoint.KINDS else None


def _restore_run(run: Run, arrays: dict[str, NDArray[Any]], facts: dict[str, Any]) -> None:
    for name in ("updates", "seconds", "first_passage", "stays_below"):
        setattr(run, name, facts[name])
    for table, kind in TABLES.items():
        columns = {
            key.removeprefix(f"{table}/"): array.tolist()
            for key, array in arrays.items()
            if key.startswith(f"{table}/")
        }
        setattr(run, table, kind({**facts[table], **columns}))
    run.best = best_of(run, arrays, facts)


def best_of(run: Run, arrays: dict[str, NDArray[Any]], facts: dict[str, Any]) -> Best | None:
    """Return the best that was saved, of a run whose evaluations stand again."""
    single, shape = facts["single"], run.theta.shape
    if "best" not in facts:  # an older nbflow kept no parameters: they are lost, and what they scored is not
        found = None
        for update, score in zip(run.evaluations["update"], run.evaluations["score"], strict=True):
            lost = np.full_like(np.atleast_2d(run.theta), np.nan)
            found = better(found, lost, update, np.atleast_1d(np.asarray(score, np.float64)))
        return first(found) if single else found
    if facts["best"] is None:
        return None
    theta = arrays["best/theta"]
    found = Best(theta, facts["best"]["update"], facts["best"]["score"])
    theta.flags.writeable = False
    whole = as_rows(found, single)
    if theta.shape != shape or theta.dtype != run.theta.dtype or not _are_scores(whole, len(np.atleast_2d(theta))):
        raise TypeError("its best evaluation is of other networks, or none")
    return found


def _are_scores(best: Any, replicas: int) -> bool:
    """Tell whether update and score of each replica are numbers, or None where it has none."""
    return all(
        isinstance(column, list) and len(column) == replicas
        and all(isinstance(one, (*kinds, type(None))) and not isinstance(one, bool) for one in column)
        for column, kinds in ((best.update, (int,)), (best.score, (int, float)))
    )  # fmt: skip
