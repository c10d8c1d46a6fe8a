"""Hidden: a layer of a stack below another one; and Joined, whose outputs read two directions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nbflow.model.network import Network


@dataclass(frozen=True, repr=False)
class Hidden(Network):
    """A network without outputs of its own, `n_out` 0, so w_out and b_out are empty.

    Its loss is that of the layer on top, and is never asked.
    """

    least_outputs: ClassVar[int] = 0


@dataclass(frozen=True, repr=False)
class Joined(Network):
    """The reverse direction of the layer on top, which has the outputs of both: w_out is (2 H, M), forward h first."""

    heard: ClassVar[int] = 2
