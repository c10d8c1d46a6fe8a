"""Store: finished runs in one file, a JSON line each, whole or not there.

A line is appended under a lock, flushed and synced before `add` returns; one with a key that is there already is left
out, so sweeps may share a store. What a cut-off writer left at the end is moved away by the next one, and so is a line
that is no JSON: both are kept beside, in `PATH.garbled`, with their numbers.

The file is read line by line, and each line once: what stays in memory is where a run begins, by its key (`_index.py`).
Of a large file that lies beside, as `PATH.index`, and may be deleted.

The lock is `flock` on a file of its own, `PATH.lock`, which is never deleted: the system frees it when a process dies,
however that happens. On a local disk it holds for all processes of the machine. On NFS Linux turns it into a lock of
the server's, which holds for all machines if the mount has locks; mounted with `nolock` or `local_lock` it holds for
one machine only, and then the machines need stores of their own. A file system without locks is an error.
"""

from __future__ import annotations

import os
import pathlib
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from nbflow.storage import _parquet
from nbflow.storage._files import (
    explained,
    open_stream,
    path_of,
)
from nbflow.storage._former import row_of_today
from nbflow.storage._journal import Journal, Taken
from nbflow.storage._lines import Row as Row, ended, line, lines_at, parse as parse
from nbflow.storage._rows import Rows


class Store:
    """Finished runs by their keys, in a file of JSON lines.

    `pandas.read_json(path, lines=True)` reads it: Inf is written as 1e999, NaN as null. `read` gives lines of older
    versions the names of today ("score" and its "unit" for "error"); the file keeps them as they are. A store is a
    stream: `for row in store` has one run in memory at a time, in the order of the file. It may be used by several
    threads, and sent to other processes, where it is the file of the same path.

    Parameters
    ----------
    path : path
        A file, made by the first `add`.

    Raises
    ------
    TypeError, ValueError
        If `path` is none.

    Examples
    --------
    >>> import os, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = Store(os.path.join(folder, "runs.jsonl"))
    ...     store.add([{"key": "a", "loss": 0.5}, {"key": "b", "loss": float("inf")}])
    ...     store.add([{"key": "a", "loss": 9.0}])
    ...     store.read()
    ...     [row["loss"] for row in store], store.rows(["b"])[0]["loss"], store.absent(["a", "c"])
    2
    0
    {'a': {'key': 'a', 'loss': 0.5}, 'b': {'key': 'b', 'loss': inf}}
    ([0.5, inf], inf, ['c'])
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path_of("store", path, "results/runs.jsonl")
        self._journal = Journal(self.path)
        self._mutex = threading.RLock()  # threads that share this object take turns

    def __reduce__(self) -> tuple[type[Store], tuple[pathlib.Path]]:
        """Travel as a path."""
        return Store, (self.path,)

    def __iter__(self) -> Iterator[Row]:
        """Yield every run that is there now, in the order of the file, as `read` does."""
        with self._mutex:
            view = self._journal.view()
            places = view.index.places().tolist() if view else []
        if view is None:
            return
        with view.file as file:
            file.seek(0)
            for text in lines_at(places, file, self._journal.name):
                row = parse(ended(text))
                if row is not None:  # and nobody has changed it since
                    yield row_of_today(row)

    def read(self) -> dict[str, Row]:
        """Return every run by its key, in the order of the file.

        What is no run is moved away; where nothing can be written it is left out. Either is a RuntimeWarning.

        Raises
        ------
        OSError
            If the file cannot be read, or is no regular file.
        ValueError
            If it is another kind of file. It is left as it is.
        """
        with self._mutex:
            taken = Taken()
            view = self._journal.view(taken)
            if view is None:
                return {}
            found: dict[str, Row] = {}
            with view.file as file:
                file.seek(0)
                places = view.index.places()
                before = places[: np.searchsorted(places, taken.start)].tolist()
                for row in map(parse, map(ended, lines_at(before, file, self._journal.name))):
                    if row is not None:  # and nobody has changed it since
                        found[row["key"]] = row_of_today(row)
        for row in taken.rows:  # of two with one key the first stays
            found.setdefault(row["key"], row_of_today(row))
        return found

    def rows(self, keys: Iterable[str]) -> Rows:
        """Return the runs with these keys that are there, in the order of the keys, each read when it is asked for.

        Parameters
        ----------
        keys : iterable of str

        Returns
        -------
        Rows
            A sequence of dicts. Healing, warnings and errors are those of `read`.
        """
        with self._mutex:
            view = self._journal.view()
            if view is None:
                return Rows(None, ())
            with view.file as file:
                found = (view.index.find(key) for key in keys)
                return Rows(os.dup(file.fileno()), [entry.at for entry in found if entry is not None])

    def to_parquet(self, path: str | os.PathLike[str], drop: Collection[str] = ()) -> int:
        """Write all runs into a Parquet file, which `pandas.read_parquet` reads as a table with a row for each.

        What a run has under a name is under the name of a column, as "recipe.lr"; a record's parts are columns of their
        own, as "evaluations.score" and "history.loss", a list of numbers for each run. A column is of whole numbers,
        numbers, truths or texts, or of lists of such; one that has several of these, as "recipe.lr" has of rates and
        schedules, is of texts. What a run lacks, and NaN, is missing. A few runs are in memory at a time.

        Parameters
        ----------
        path : path
            The file, as "runs.parquet", written whole or not at all.
        drop : collection of str, optional
            What to leave out, as ("history",).

        Returns
        -------
        int
            How many runs it has.

        Raises
        ------
        ImportError
            If pyarrow is not installed: `pip install 'nbflow[parquet]'`.
        TypeError, ValueError
            If a path is none, or is the store's own, or two parts of a run have one name.
        OSError
            If the store cannot be read, or the file not be written.

        Examples
        --------
        >>> import nbflow as nf
        >>> nf.Store("results/runs.jsonl").to_parquet("results/runs.parquet", drop=("history",))  # doctest: +SKIP
        >>> pandas.read_parquet("results/runs.parquet").groupby("recipe.lr")["score"].median()  # doctest: +SKIP
        """
        place = path_of("path", path, "results/runs.parquet")
        if place.absolute() == self.path.absolute():
            raise ValueError(f"path is {str(place)!r}, the store itself; expected another file. Write runs.parquet.")
        if isinstance(drop, str):
            raise TypeError(
                f"drop is {drop!r:.80}, a text; expected a collection of names. Write drop=({drop!r:.80},)."
            )
        with self._mutex:
            view = self._journal.view()
            if view is None:
                runs = Rows(None, ())
            else:  # what is there now, in both readings
                with view.file as file:
                    runs = Rows(os.dup(file.fileno()), view.index.places())
        with explained(f"{place} could not be written"):
            return _parquet.write(place, runs, drop)

    def absent(self, keys: Iterable[str]) -> list[str]:
        """Return those of these keys that have no run; what is there is not read again."""
        with self._mutex:
            index = self._journal.looked()
            return [key for key in keys if index.find(key) is None]

    def failed(self, keys: Iterable[str]) -> list[str]:
        """Return those of these keys whose run is there and has a "failure"."""
        with self._mutex:
            index = self._journal.looked()
            found = ((key, index.find(key)) for key in keys)
            return [key for key, entry in found if entry is not None and entry.failed]

    def size(self) -> int:
        """Return the bytes of the file, 0 where there is none."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def has(self, keys: Sequence[str]) -> bool:
        """Tell whether all these runs are there; nothing is written or healed, and nobody is waited for."""
        with self._mutex:
            try:
                file = open_stream(self.path, self._journal.name)
            except FileNotFoundError:
                return False
            with file:
                index = self._journal.sound(file).index if self._journal.advance(file) else self._journal.index
                return all(index.find(key) is not None for key in keys)

    def add(self, rows: Iterable[Row]) -> int:
        """Append the rows whose keys are not there yet, all or none of them; return how many.

        Parameters
        ----------
        rows : iterable of dict
            What `json.dumps` takes; each has a "key", a string.

        Raises
        ------
        OSError
            If they cannot be written, and why; what was there before is still there.
        TypeError, ValueError
            If a row is no such dict, or the file is of another kind.
        """
        given = {row["key"]: row for row in map(_checked, rows)}
        with self._mutex, explained(f"store {self.path} could not be written"):
            self._journal.advanced()  # which refuses a file of another kind before anything is written beside it
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._journal.locked():
                self._journal.heal()
                new = {key: row for key, row in given.items() if self._journal.index.find(key) is None}
                self._journal.append(b"".join(map(line, new.values())))
                self._journal.advanced()
        return len(new)


def _checked(row: Any) -> Row:
    if not isinstance(row, dict) or not isinstance(row.get("key"), str):
        raise TypeError(f"row is {row!r:.80}; expected a dict with a key, a string. Write {{'key': ..., ...}}.")
    return row
