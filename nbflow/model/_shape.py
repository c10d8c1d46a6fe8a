"""Shape: the sizes of a computation."""

from __future__ import annotations

from typing import NamedTuple


class Shape(NamedTuple):
    """The sizes of a computation: replicas, steps, sequences, and whether inputs are tokens."""

    replicas: int
    steps: int
    batch: int
    tokens: bool
