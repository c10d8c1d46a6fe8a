"""A workspace: memory and records, what they are told, and what comes out.

It may be used again and again, by one thread at a time.
"""

from __future__ import annotations

from typing import Any

from nbflow.cpu.gathered import Gathered
from nbflow.cpu.purpose import PLAIN, Purpose
from nbflow.cpu.settings import Settings
from nbflow.model._shape import Shape
from nbflow.model.network import Network


class Workspace(Settings, Gathered):
    """Buffers and records for one network and one shape of batch.

    Attributes
    ----------
    shape : Shape
        What it was cut for; `steps` may be fewer.
    shards : structured array (R * shards of a replica,)
        One record a shard, replicas first.
    replicas : structured array (R,)
        One record a replica.
    report : array (R, columns of `nbflow.cpu.report.GRADIENT`)
        Of the last run.
    cell : Cell
        The network's, with the derivatives that the purpose needs.
    entries : list of tuples of int
        What the parallel loop is called with, one call after the other; set by `nbflow.cpu.program.set_program`.
    program : tuple
        What `set_program` last set.
    """

    def __init__(self, net: Network, shape: Shape, purpose: Purpose = PLAIN) -> None:
        super().__init__(net, shape, purpose)
        self.entries: list[tuple[int, ...]] = []
        self.program: tuple[Any, ...] = ()
