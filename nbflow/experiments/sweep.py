"""Sweeps: experiments times seeds, on whatever runs them, kept in a store."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from nbflow import _check, _frame
from nbflow._legible import legible
from nbflow._progress import shown
from nbflow.experiments._driver import Driver, given, local
from nbflow.experiments._group import Member
from nbflow.experiments._pool import forks, hides_main
from nbflow.experiments.code_version import code_version
from nbflow.experiments.experiment import Experiment, check_experiments, check_seeds, keys_of
from nbflow.experiments.machine import cores
from nbflow.storage.store import Row, Store

# Bytes of a store that are held in memory when a sweep ends; of a larger one a run is read when it is asked for.
IN_MEMORY = 2**26


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
        interrupted = driver.drive(given(executor) if executor else local(workers), show)
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
