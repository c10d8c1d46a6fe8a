"""Experiment: all that makes a training run what it is, but its seed; grids of them; what a run is known by."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
import numbers
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nbflow import _check
from nbflow._legible import legible
from nbflow._plain import plain_fields
from nbflow.data.sampler import Sampler
from nbflow.data.synthetic import Task, load_task
from nbflow.experiments._columns import columns_of, told_apart
from nbflow.model.network import Network
from nbflow.model.parameters import init
from nbflow.records import Cell, Floats
from nbflow.storage._former import LATER
from nbflow.training._identity import OPAQUE, describe
from nbflow.training.recipe import Recipe, check_recipe, completed


@legible
@dataclass(frozen=True)
class Experiment:
    """All that makes a training run what it is, but its seed.

    The run of seed s is replica s of `nbflow.init(net, init, rng=0)`, trained on replica s of the task's sequences of
    seed 0, whichever runs are trained beside it. The lengths of drawn batches are the same for all seeds.

    Parameters
    ----------
    task : str or Task
    recipe : Recipe
        With numbers, not arrays, for what may differ between replicas.
    cell : str or Cell
    n_hidden : int
    init : str
        One of `nbflow.names("inits")`.
    init_options : dict
        Options of the initialisation.
    dtype : str

    Raises
    ------
    TypeError, ValueError
        If something in it has no name by which its runs could be known again: a lambda, a function inside another one.
        (A schedule with numbers of its own is best a frozen dataclass with `__call__`.)

    Examples
    --------
    >>> import nbflow as nf
    >>> one = nf.Experiment("temporal_order", nf.Recipe(lengths=50, max_updates=1000), init="basic_tanh")
    >>> one.net.n_in, one.net.loss
    (6, 'softmax')
    """

    task: str | Sampler
    recipe: Recipe
    cell: str | Cell = "tanh"
    n_hidden: int = 50
    init: str = "smart_tanh"
    init_options: dict[str, Any] = field(default_factory=dict)
    dtype: str = "float32"

    def __post_init__(self) -> None:
        """Let numbers be plain, and refuse what cannot be told apart later."""
        plain_fields(self)
        self._completed()
        _refuse(self.described)

    @property
    def net(self) -> Network:
        """The network, made for the task."""
        task = load_task(self.task) if isinstance(self.task, str) else self.task
        return Network(self.cell, task.n_in, self.n_hidden, task.n_out, task.loss, self.dtype)

    def theta(self, seed: int) -> Floats:
        """Return the first weights (P,) of a seed."""
        return init(self.net, self.init, 0, replica_ids=[seed], **self.init_options)

    def __getstate__(self) -> dict[str, Any]:
        """Return the fields alone: what is found from them is found again where a pickle arrives."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @functools.cached_property
    def described(self) -> dict[str, Any]:
        """All of it as plain data; what the recipe leaves to the task as the task has it."""
        found: dict[str, Any] = describe(self)
        return {**found, "recipe": describe(self._completed())}

    def _completed(self) -> Recipe:
        """Return the recipe with what it leaves to the task."""
        # A name is that of a synthetic task; whether there is one, a run will tell.
        return completed(check_recipe(self.recipe), self.task if isinstance(self.task, Sampler) else Task)

    @functools.cached_property
    def flat(self) -> dict[str, Any]:
        """All of it in one table: {"task": ..., "recipe.lr": ..., "recipe.clip": ..., "recipe.clip.rule": ...}.

        A record has its name in its column, all that it is, and its fields in columns beside it.
        """
        return dict(columns_of(self, self.described))

    @functools.cached_property
    def structure(self) -> str:
        """What runs must share to be replicas of one training."""
        return _structure(self)


def grid(base: Experiment, changes: Mapping[str, Sequence[Any]]) -> list[Experiment]:
    """Return one experiment for each combination of changes.

    Parameters
    ----------
    base : Experiment
    changes : dict of sequences
        By field, "init", or by field of a field, "recipe.clip.threshold". The last one varies fastest.

    Returns
    -------
    list of Experiment

    Raises
    ------
    TypeError, ValueError
        If there is no such field, or no sequence of values for it.

    Examples
    --------
    >>> import nbflow as nf
    >>> base = nf.Experiment("temporal_order", nf.Recipe(clip=nf.Clip("norm", 1.0)))
    >>> both = nf.grid(base, {"init": ["sigmoid", "smart_tanh"], "recipe.clip.threshold": [0.1, 1.0, 10.0]})
    >>> len(both), both[-1].init, both[-1].recipe.clip.threshold
    (6, 'smart_tanh', 10.0)
    """
    if not isinstance(base, Experiment):
        raise TypeError(f"base is a {type(base).__name__}; expected an Experiment. Write nbflow.Experiment(...).")
    if not isinstance(changes, Mapping):
        raise TypeError(f"changes is a {type(changes).__name__}; expected a dict. Write {{'init': ['sigmoid']}}, say.")
    for name, values in changes.items():
        if not isinstance(name, str) or isinstance(values, str) or not isinstance(values, Iterable):
            raise TypeError(
                f"changes has {_check.said(name)}: {_check.said(values)}; expected a name and a list. Write [value]."
            )
    lists = {name: tuple(values) for name, values in changes.items()}
    for name, values in lists.items():
        if not values:
            raise ValueError(f"changes has no value for {_check.said(name)}; expected at least one. Leave it out.")
    found = []
    for values in itertools.product(*lists.values()):
        changed = [(name, name.split("."), value) for name, value in zip(changes, values, strict=True)]
        found.append(_changed(base, changed) if changed else base)
    return found


def _changed(thing: Any, changes: Iterable[tuple[str, Sequence[str], Any]]) -> Any:
    """Return a copy of a record, or of a dict, with other values at the ends of paths, all of them at once.

    A change has the name that it was given by, the path that is left of it, and a value.
    """
    by_head: dict[str, list[tuple[str, Sequence[str], Any]]] = {}
    for name, (head, *rest), value in changes:
        by_head.setdefault(head, []).append((name, rest, value))
    new = {head: _with_changes(thing, head, inner) for head, inner in by_head.items()}
    return {**thing, **new} if isinstance(thing, dict) else dataclasses.replace(thing, **new)


def _with_changes(thing: Any, head: str, changes: list[tuple[str, Sequence[str], Any]]) -> Any:
    """Return a field of a record with the changes that are of it or inside it."""
    name = changes[0][0]
    names = [f.name for f in dataclasses.fields(thing)] if dataclasses.is_dataclass(thing) else []
    if not isinstance(thing, dict) and head not in names:
        said = f"one of {', '.join(names)}" if names else f"a record there, and it is {_check.said(thing)}"
        raise ValueError(f"changes has {_check.said(name)}; expected {said}. Name a field, as in 'recipe.lr'.")
    found = thing.get(head) if isinstance(thing, dict) else getattr(thing, head)
    for _, rest, value in changes:
        found = found if rest else value
    inside = [change for change in changes if change[1]]
    return _changed(found, inside) if inside else found


def _refuse(thing: Any, name: str = "") -> None:
    """Refuse what describes two different things alike."""
    if isinstance(thing, dict):
        for key, value in thing.items():
            _refuse(value, f"{name}.{key}" if name else key)
    elif isinstance(thing, list):
        for value in thing:
            _refuse(value, name)
    elif isinstance(thing, str) and any(mark in thing for mark in ("<lambda>", "<locals>", " at 0x", OPAQUE)):
        raise ValueError(
            f"{name} is {thing:.120}, which has no name of its own to know its runs by; expected a function at the "
            "top of a "
            f"file. Write it there, or as a frozen dataclass with __call__."
        )


def key_of(experiment: Experiment, seed: int, code: str) -> str:
    """Return what a run is known by."""
    return keys_of(experiment, [seed], code)[0]


def keys_of(experiment: Experiment, seeds: Iterable[int], code: str) -> list[str]:
    """Return what the runs of an experiment are known by: hashes of `[described, seed, code]` as JSON.

    Fields that recipes have had from some version on are left out where they stand as if they were not there, so that
    runs of older versions are found.
    """
    described = experiment.described
    recipe = {name: value for name, value in described["recipe"].items() if name not in LATER or value != LATER[name]}
    begun = hashlib.sha256(f"[{json.dumps({**described, 'recipe': recipe}, sort_keys=True)}, ".encode())
    found, end = [], f", {json.dumps(code)}]".encode()
    for seed in seeds:
        one = begun.copy()
        one.update(b"%d" % seed + end)
        # A letter in front, so that no reader takes it for a number.
        found.append(f"r{one.hexdigest()[:32]}")
    return found


# Fields of a recipe that may differ between replicas of one training.
OWN = (("lr",), ("lr", "lr"), ("clip", "threshold"), ("clip", "length"), ("flow", "alpha"),
       ("clip_hidden", "threshold"), ("clip_example",))  # fmt: skip


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def structure(experiment: Experiment) -> str:
    """Return what runs must share to be replicas of one training."""
    return experiment.structure


def _structure(experiment: Experiment) -> str:
    found = json.loads(json.dumps(experiment.described))
    for name in ("init", "init_options"):  # which only make the first weights
        del found[name]
    for path in OWN:
        if _is_number(_own(experiment, path)):
            *before, last = path
            functools.reduce(lambda part, name: part[name], before, found["recipe"])[last] = "of its own"
    return sys.intern(json.dumps(found, sort_keys=True))  # of thousands of experiments there are a few


def _own(experiment: Experiment, path: Sequence[str]) -> Any:
    """Return what stands in a recipe at a path, None where it ends before."""
    found: Any = experiment.recipe
    for name in path:
        found = getattr(found, name, None)
    return found


def joined(experiments: Sequence[Experiment]) -> Recipe:
    """Return one recipe for experiments of one structure, with an array (R,) where they may differ."""
    recipe = experiments[0].recipe
    for path in OWN:
        values = [_own(one, path) for one in experiments]
        if all(map(_is_number, values)):
            recipe = _changed(recipe, [(".".join(path), path, np.array(values, np.float64))])
    return recipe


def check_experiments(value: Any) -> list[Experiment]:
    """Return a list of experiments, of numbers alone."""
    found = [value] if isinstance(value, Experiment) else list(value) if isinstance(value, list | tuple) else []
    if not found or not all(isinstance(one, Experiment) for one in found):
        raise TypeError("experiments is no list of Experiment. Write nbflow.grid(nbflow.Experiment(...), {...}).")
    for one in found:
        for path in OWN:
            own = _own(one, path)
            if isinstance(own, np.ndarray | list | tuple):
                raise TypeError(
                    f"{'.'.join(path)} is {_check.said(own)}; expected a number, for each run has its own. Use "
                    "nbflow.grid."
                )
    told_apart(found)
    return found


def check_seeds(value: Any) -> list[int]:
    """Return the seeds of runs, each once."""
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return list(range(_check.count("seeds", value)))
    if isinstance(value, str) or not isinstance(value, Sequence | np.ndarray) or not len(value):
        raise TypeError(f"seeds is {_check.said(value)}; expected how many, or a list of integers. Write seeds=10.")
    return [int(one) for one in _check.replica_ids(list(dict.fromkeys(value)), len(set(value)), "seeds")]
