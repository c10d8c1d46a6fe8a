"""What comes after every update: a projection of the parameters, by a NumPy function or by units."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from nbflow import _check, _fields
from nbflow._compile import JIT
from nbflow.model import _layout as layout
from nbflow.model.network import Network
from nbflow.model.parameters import unpack
from nbflow.model.stack import Model, layers_of
from nbflow.records import Floats, Params
from nbflow.training._trainable import check_block_name

WANTED = "a function of Params, or units by block, as {'w_rec': unit}"


def check_projection(recipe: Any) -> None:
    """Refuse a `project` of a recipe that is neither a function nor a dict of units by block."""
    how = recipe.project
    if how is None:
        return
    if not isinstance(how, dict):
        if not callable(how):
            raise TypeError(f"project is {_check.said(how)}; expected {WANTED}. Give one, or None.")
        if JIT and _is_unit(how):
            raise TypeError(f"project is a unit; expected {WANTED}. Write project={{'w_rec': {how.__name__}}}, say.")
        return
    for name, unit in how.items():
        check_block_name("project", name)
        _check_unit(name, unit)


def _is_unit(thing: Any) -> bool:
    return hasattr(thing, "py_func") and hasattr(thing, "targetoptions")


def _check_unit(name: str, unit: Any) -> None:
    what, wanted = f"project[{_check.said(name)}]", "a unit, project(w) -> w or project(w, i, g, j) -> w"
    if not callable(unit) or (JIT and not _is_unit(unit)):
        raise TypeError(f"{what} is {_check.said(unit)}; expected {wanted}. Write @nbflow.unit above its def.")
    if _places(unit) not in (1, 4):
        raise TypeError(f"{what} has {_places(unit)} arguments; expected {wanted}. Give it one of the two.")
    for seen, _ in _fields.arrays_of(unit):
        raise TypeError(
            f"{what} reads the array {seen}; expected {wanted}, of numbers alone. Write a function of Params instead."
        )


def _places(unit: Any) -> int:
    """Return how many arguments a unit has."""
    return len(inspect.signature(getattr(unit, "py_func", unit)).parameters)


class Projection:
    """A projection at work in a training run, of parameters (R, P) that are written in their place.

    Where it fails, the update is taken back: `keep` copies all before a step; `apply` puts that back and returns why.
    """

    def __init__(self, recipe: Any, net: Model, theta: Floats, slots: Floats, counts: Any) -> None:
        self.net, self.state = net, (theta, slots, counts)
        self.kept = tuple(part.copy() for part in self.state)
        self._project: Callable[[Any], None]
        if isinstance(recipe.project, dict):
            layers = layers_of(net)
            self.passes = [_Pass(recipe, layer, first, name) for layer, first in layers for name in recipe.project]
            self._project = self._by_units
        else:
            self.function, self.views = recipe.project, [unpack(net, row) for row in theta]
            self._project = self._by_function

    def keep(self) -> None:
        """Remember what is there before a step."""
        for kept, part in zip(self.kept, self.state, strict=True):
            kept[...] = part

    def apply(self, update: int, stands: Any) -> Exception | None:
        """Project the replicas that took a step, not those that stand (R,); return what it fails with, all undone."""
        try:
            self._project(stands)
        except Exception as error:
            for kept, part in zip(self.kept, self.state, strict=True):
                part[...] = kept
            if isinstance(error, ProjectionError):
                return error.kind(f"{error} It is the projection of update {update}.")
            if hasattr(error, "add_note"):  # Python 3.11
                error.add_note(f"It is the projection of update {update}.")
            return error
        return None

    def _by_units(self, stands: Any) -> None:
        for one in self.passes:
            one(self.state[0], stands)

    def _by_function(self, stands: Any) -> None:
        """Call the function once for each replica, with views of its parameters."""
        for row, views, still in zip(self.state[0], self.views, stands, strict=True):
            if still:
                continue
            whole = np.isfinite(row).all()
            found = self.function(views)
            if found is not None:
                _take(found, row, views)
            if whole and not np.isfinite(row).all():
                name = next(name for name, at in layout.named(self.net).items() if not np.isfinite(row[at]).all())
                raise ProjectionError(ValueError, _not_finite(name))


class ProjectionError(Exception):
    """What is refused, and the type of error that says so."""

    def __init__(self, kind: type[Exception], words: str) -> None:
        super().__init__(words)
        self.kind = kind


def _take(found: Any, row: Floats, views: Any) -> None:
    """Copy what the function returned to the parameters of a replica: a record, of a stack one a layer, or theta."""
    given, places = ((one,) if isinstance(one, Params) else one for one in (found, views))
    records = isinstance(given, tuple) and len(given) == len(places) and all(isinstance(one, Params) for one in given)
    if not records:
        _refuse_other("", found, row)
        row[...] = found
        return
    parts = [part for pair in zip(given, places, strict=True) for part in zip(Params._fields, *pair, strict=True)]
    for name, block, place in parts:
        _refuse_other(name, block, place)
    for _, block, place in parts:
        place[...] = block


def _refuse_other(name: str, found: Any, place: Floats) -> None:
    """Refuse what has another shape or dtype than the parameters that it is to become."""
    what = f"project returns {name or 'theta'}" if name else "project returns"
    if not isinstance(found, np.ndarray):
        raise ProjectionError(
            TypeError,
            f"{what} {_check.said(found)}; expected an array, Params or None. Write into the views that it is given, "
            f"and return nothing.",
        )
    if found.shape != place.shape or found.dtype != place.dtype:
        wanted = f"{place.shape} and {place.dtype}" + ("" if name else ", as theta has, or Params, or None")
        raise ProjectionError(
            ValueError,
            f"{what} {'' if name else 'an array '}of shape {found.shape} and dtype {found.dtype}; expected {wanted}. "
            f"Write into the views that it is given, and return nothing.",
        )


def _not_finite(name: str) -> str:
    return (
        f"project makes NaN or Inf of finite numbers in {name}; expected finite ones. Look where it divides, or takes "
        f"a root."
    )


class _Pass:
    """A unit's way through a block."""

    def __init__(self, recipe: Any, net: Network, begins: int, name: str) -> None:
        from nbflow.cpu.project import build_project

        unit = recipe.project[name]
        placed = _places(unit) == 4
        if JIT:
            _infer(recipe, unit, placed, net.dtype)
        shape, first = net.shapes[name], begins + layout.blocks(net)[name].start
        # Rows, gates and columns of a block of any shape: a bias has one row, and the way out one gate.
        rows = shape[0] if name in ("w_in", "w_rec", "w_out") else 1
        columns = shape[-1]
        gates = math.prod(shape) // (rows * columns) if math.prod(shape) else 0
        self.name, self.where = name, (first, rows, gates, columns)
        self._run = build_project(unit, placed, net.scalar)

    def __call__(self, theta: Floats, stands: Any) -> None:
        if self._run(theta, stands, *self.where):
            raise ProjectionError(ValueError, _not_finite(self.name))


def _infer(recipe: Any, unit: Any, placed: bool, dtype: str) -> None:
    """Refuse a unit that numba cannot compile, that may raise, or that returns no number."""
    from numba.core import types

    from nbflow import _probe
    from nbflow._compile import exactly

    number = types.float32 if dtype == "float32" else types.float64
    arguments = (number, *(types.int64,) * 3) if placed else (number,)
    found = _probe.inferred(recipe, "project", arguments, unit=exactly(unit))
    if not isinstance(found, types.Float):
        _probe.refuse_result(recipe, "project", _probe.shown(found), "one number")
