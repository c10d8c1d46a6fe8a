"""Shape: the sizes of a computation; and a shorter batch in the memory of a longer one."""

from __future__ import annotations

import math
from typing import NamedTuple

from nbflow.records import Batch


class Shape(NamedTuple):
    """The sizes of a computation: replicas, steps, sequences, and whether inputs are tokens."""

    replicas: int
    steps: int
    batch: int
    tokens: bool


def front(whole: Batch, steps: int) -> Batch:
    """Return C-ordered arrays for so many steps, R in front, in the memory of longer ones."""
    shapes = [(part.shape[0], steps, *part.shape[2:]) for part in whole]
    return Batch(*(part.ravel()[: math.prod(shape)].reshape(shape) for part, shape in zip(whole, shapes, strict=True)))
