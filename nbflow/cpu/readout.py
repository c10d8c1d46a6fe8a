"""Readout: the output layer alone, over h of two directions, which it is given as inputs (R, T, B, 2 H).

To the memory of a computation it is a network of no gates: its states are its inputs, and all its parameters are w_out
and b_out. So the kernels of outputs, losses and groups are those of any network.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, ClassVar

from nbflow._compile import kernel, part
from nbflow.cpu.forward import find_lengths
from nbflow.cpu.product import times
from nbflow.cpu.record import PARAMETERS, TOTAL
from nbflow.cpu.views import at, place, rows_at, shards, whole
from nbflow.cpu.weights import every_sequence, output_weights
from nbflow.model.network import Network


class _NoGates:
    """What stands for the cell of a network that takes no steps."""

    gates: tuple[str, ...] = ()
    states = ("h",)
    saved: tuple[str, ...] = ()
    additive, carries, bias_rec = True, False, False
    settings: ClassVar[dict[str, Any]] = {}
    step_vjp = "none"  # so that none is looked for


NO_GATES: Any = _NoGates()


@dataclass(frozen=True, repr=False)
class Readout(Network):
    """An output layer over `n_hidden` inputs; its cell is a name that is never asked."""

    @functools.cached_property
    def cell_object(self) -> Any:
        """No cell."""
        return NO_GATES

    @functools.cached_property
    def compiled_cell(self) -> Any:
        """No cell."""
        return NO_GATES


def readout_of(net: Network) -> Readout:
    """Return the output layer over both directions of the layer on top."""
    both = 2 * net.n_hidden
    return Readout("linear", both, both, net.n_out, net.loss, net.dtype)


@part
def take(shard, t):
    """Take the inputs of step t for h."""
    h, inputs = rows_at(shard, "states", t + 1), at(shard, "inputs", t)
    for b in range(shard.rows):
        for j in range(shard.hidden):
            h[b, j] = inputs[b, j]


@functools.cache
def build_take(dtype):
    """Build the phase that takes the inputs of all steps for h."""
    shard_at = shards(dtype)

    @kernel(dtype)
    def take_all(address, _):
        shard = shard_at(address)
        find_lengths(shard)
        for t in range(shard.reach):
            take(shard, t)

    return take_all


@functools.cache
def build_give(dtype):
    """Build the phase that writes dL/dh of every step to `d_inputs`, 0 where no step has weight, and sums its own."""
    shard_at = shards(dtype)

    @kernel(dtype)
    def give(address, _):
        shard = shard_at(address)
        active, h = whole(shard, "active"), rows_at(shard, "delta", 0)
        w_out = place(shard, "p_out_back", PARAMETERS, 0)
        for t in range(shard.steps):
            heard = t < shard.reach and active[t] != 0
            if heard:
                times(shard, h, place(shard, "y", t, 0), shard.out_width, w_out, shard.n_out, shard.width, 0)
            given = at(shard, "d_inputs", t)
            for b in range(shard.rows):
                for j in range(shard.hidden):
                    given[b, j] = h[b, j] if heard else 0
        output_weights(shard, every_sequence(shard, 0, shard.reach), TOTAL, 0)

    return give
