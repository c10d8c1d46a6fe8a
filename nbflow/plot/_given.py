"""What the functions of nbflow.plot are given, checked in one grammar: what it is, what it should be, and a way out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

from nbflow import _check
from nbflow.records import Floats

Record = TypeVar("Record")


def record(name: str, value: Any, kind: type[Record], maker: str) -> Record:
    """Return a record if it is of the kind that `maker` returns."""
    if not isinstance(value, kind):
        raise TypeError(
            f"{name} is {_check.said(value)}; expected an nbflow.{kind.__name__}. Draw what {maker} returns."
        )
    return value


def one_network(name: str, values: Any, dimensions: int) -> Floats:
    """Return the numbers of one network, which have so many dimensions."""
    found = np.asarray(values, np.float64)
    if found.ndim != dimensions:
        raise ValueError(
            f"{name} has shape {found.shape}, of {found.ndim} dimensions; expected {dimensions}: those of one network. "
            f"Compute it of one, theta[r], and draw replica after replica on the same axes."
        )
    return found


def column(name: str, source: Any, key: str) -> Any:
    """Return a column of a table: a dict of lists."""
    if not isinstance(source, Mapping) or key not in source:
        there = ", ".join(map(str, source)) if isinstance(source, Mapping) and source else "nothing"
        raise ValueError(
            f"{name} has {there:.300}; expected {key!r:.80} among it. Draw what it has, or let it be recorded."
        )
    return source[key]
