"""From a file's name to the object that it declares."""

from __future__ import annotations

import dataclasses
import functools
import importlib
from types import ModuleType
from typing import Any

from nbflow import _check, _names
from nbflow.records import AnyPenalty, AnyRule, Cell, Loss, Optimizer, Threshold

# What a package's files declare: the name of the constant, and its type where nbflow has one for it.
DECLARED: dict[str, tuple[str, Any]] = {
    "cells": ("CELL", Cell),
    "losses": ("LOSS", Loss),
    "flows": ("PENALTY", AnyPenalty),
    "clips": ("RULE", AnyRule),
    "optimizers": ("OPTIMIZER", Optimizer),
    "thresholds": ("THRESHOLD", Threshold),
    "inits": ("draw", None),
    "tasks": ("TASK", None),
}


def names(package: str) -> tuple[str, ...]:
    """Return the names that `package` offers: its files.

    Parameters
    ----------
    package : str
        One of "cells", "losses", "flows", "clips", "optimizers", "thresholds", "inits", "tasks".

    Returns
    -------
    tuple of str
        In alphabetical order.

    Raises
    ------
    ValueError
        If there is no such package.

    Examples
    --------
    >>> names("losses")
    ('bernoulli', 'softmax', 'square')
    """
    return tuple(sorted(_names.modules(_check.choice("package", package, tuple(DECLARED)))))


def module(package: str, name: str) -> ModuleType:
    """Return the module of a name: what `nbflow.cells.lstm` is after nothing but `import nbflow`.

    Raises
    ------
    AttributeError
        If the package has no such file.
    """
    package = package.removeprefix("nbflow.")
    if name not in _names.modules(package):
        raise AttributeError(f"module 'nbflow.{package}' has no attribute {name!r:.80}")
    return importlib.import_module(_names.modules(package)[name])


def load(package: str, name: Any, argument: str = "name") -> Any:
    """Return the object that the file `name` of `package` declares; an object of the right type is returned as it is.

    Raises
    ------
    TypeError
        If `name` is neither a string nor such an object.
    ValueError
        If there is no such file.
    """
    constant, kind = DECLARED[package]
    if type(name) is str and (found := _KNOWN.get((package, name))) is not None:
        return found
    if not isinstance(name, str):
        if isinstance(name, kind) if kind is not None else callable(getattr(name, "sample", name)):
            return name
        kinds = [one.__name__ for one in getattr(kind, "__args__", (kind,)) if one is not None]
        wanted = " or a ".join(["a name", *kinds])
        raise TypeError(f"{argument} is {_check.said(name)}; expected {wanted}. Names: {', '.join(names(package))}.")
    _names.check(package, name, argument)
    return _KNOWN.setdefault((package, name), getattr(module(package, name), constant))


def is_declared(thing: Any) -> bool:
    """Tell whether an object is what one of nbflow's own files declares, and so needs no look at what it says.

    A cell may have other settings, and come out of a pickle.
    """
    if isinstance(thing, Cell) and thing.settings:
        return _is_of_a_file(thing.compiled)
    return any(thing is known for known in _KNOWN.values())


@functools.cache
def _is_of_a_file(cell: Cell) -> bool:
    """Tell whether a cell, without its settings, is what the file of its name declares."""
    if cell.name not in _names.modules("cells"):
        return False
    known: Cell = load("cells", cell.name).compiled
    pairs = [(getattr(cell, field.name), getattr(known, field.name)) for field in dataclasses.fields(Cell)]
    return all(one is two or one == two or _do_the_same(one, two) for one, two in pairs)


def _do_the_same(one: Any, two: Any) -> bool:
    """Tell whether two units, one perhaps a copy of the other, are the same to a compiler."""
    from nbflow._identity import identity  # which loads numba

    return callable(one) and callable(two) and identity(one) == identity(two) is not None


# What was loaded before.
_KNOWN: dict[tuple[str, str], Any] = {}
