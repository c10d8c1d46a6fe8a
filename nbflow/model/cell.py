"""Cells by name, with settings of their own."""

from __future__ import annotations

import dataclasses
from typing import Any

from nbflow import _check
from nbflow._load import load, names
from nbflow.records import Cell


def load_cell(name: str, **settings: Any) -> Cell:
    """Return the cell of this name, with other settings: for `Network(cell, ...)` or `Experiment(..., cell=cell)`.

    Settings are numbers of the run and no part of the compiled code, nor are they trained: a sweep over them compiles
    once. In a grid they stand as `"cell.settings.rate"`, and in the rows of a store as columns of that name.

    Parameters
    ----------
    name : str or Cell
        One of `nbflow.names("cells")`, or a cell of your own. The top of its file gives equations, source and settings.
    **settings : float, or array of shape (H,)
        Settings that differ from its own: a number, or one for each unit.

    Returns
    -------
    Cell

    Raises
    ------
    TypeError, ValueError
        If there is no such cell or setting, or a setting is out of range.

    Examples
    --------
    >>> import numpy as np, nbflow as nf
    >>> slow = nf.load_cell("leaky_tanh", rate=0.05)
    >>> net = nf.Network(slow, n_in=6, n_hidden=50, n_out=4)
    >>> net.cell.settings
    {'rate': 0.05}
    >>> mixed = nf.load_cell("leaky_tanh", rate=np.geomspace(0.01, 1.0, 50))  # a time constant of its own for each unit
    """
    found: Cell = load("cells", name)
    _check.known_settings(found.settings, settings, "Leave the others out." if found.settings else _with_settings())
    return dataclasses.replace(found, settings={**found.settings, **settings}) if settings else found


def _with_settings() -> str:
    having = [one for one in names("cells") if load("cells", one).settings]
    return f"Cells with settings: {', '.join(having)}."


def check_settings(cell: Cell, hidden: int) -> None:
    """Refuse settings that are missing, or not one for each unit."""
    for name, value in cell.settings.items():
        if value is None:
            raise ValueError(
                f"{name} is None; expected a number for this cell. Write nbflow.load_cell(name, {name}=...)."
            )
        if isinstance(value, tuple) and len(value) != hidden:
            raise ValueError(
                f"{name} has shape ({len(value)},); expected a number, or one for each of n_hidden = {hidden} units. "
                f"Give so many."
            )
