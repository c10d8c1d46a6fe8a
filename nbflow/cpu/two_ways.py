"""Two ways: the workspaces of a stack whose layers run in both directions, behind the face of one.

Every direction is a layer that hands h on and to which something comes back; the reverse one is given its sequences
from their own ends on. So all that is new lies between layers, in NumPy: sequences are turned within their own lengths,
h of both directions is put side by side, and what comes back is taken apart and turned again. On top stands the output
layer alone (`nbflow.cpu.readout`).
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from nbflow.cpu.layers import FORWARD, Layers, front
from nbflow.cpu.program import set_below, set_joint, set_readout
from nbflow.cpu.purpose import PLAIN, Purpose
from nbflow.cpu.readout import readout_of
from nbflow.cpu.workspace import Workspace
from nbflow.model._asked import at_ends
from nbflow.model._shape import Shape
from nbflow.model._step import last_step
from nbflow.model.stack import Stack
from nbflow.records import Floats


class TwoWays(Layers):
    """Buffers and records for a stack of two directions and one shape of batch.

    Attributes
    ----------
    spaces : list of Workspace
        Of every direction: the lowest layer's forward and reverse one, then those above.
    top : Workspace
        Of the output layer.
    lengths : int array (R, B)
        Of the last run: how many steps of each sequence there are, within which it is turned.
    """

    def __init__(self, net: Stack, shape: Shape, purpose: Purpose = PLAIN) -> None:
        self.net, self.shape, self.purpose, self.steps = net, shape, purpose, shape.steps
        self.dtype, self.program = net.scalar, ""
        joint = purpose._replace(below=True, joint=bool(purpose.group_rows))
        self.spaces = [
            Workspace(one, shape._replace(tokens=shape.tokens and k < 2), joint if k < 2 else _upper(joint))
            for k, one in enumerate(net.directions)
        ]
        of_top = PLAIN._replace(at_inputs=True, group_rows=purpose.group_rows, masked=purpose.masked, joint=joint.joint)
        self.top = Workspace(readout_of(net.layers[-1]), shape._replace(tokens=False), of_top)
        self.parts = [*zip(self.spaces, net.firsts, strict=True), (self.top, net.size - self.top.net.size)]
        for space, first in self.parts:
            space.lie_in(net.size, first)
        self._ends: Any = None
        self._whole = False
        self._allocate(shape)
        self.fit(shape.steps)

    def _allocate(self, shape: Shape) -> None:
        """Make room for what lies between layers: arrays (R, T, B, ...), of each direction or of each layer."""
        lead = shape.replicas, shape.steps, shape.batch

        def room(size: int) -> Floats:
            return np.zeros((*lead, size), self.dtype)

        bottom = self.net.layers[0].n_in
        self._joint = np.zeros((shape.replicas, shape.batch, 3), self.dtype)
        first = np.zeros(lead, np.int32) if shape.tokens else room(bottom)
        rooms: dict[str, list[Any]] = {
            "handed": [room(one.n_hidden) for one in self.net.directions],
            "returned": [room(one.n_hidden) for one in self.net.directions],
            "both": [room(2 * layer.n_hidden) for layer in self.net.layers],
            "turned": [first, *(room(2 * layer.n_hidden) for layer in self.net.layers[:-1])],
            "d_inputs": [room(one.n_in) if k > 1 or not shape.tokens else None
                         for k, one in enumerate(self.net.directions)],
            "d_both": [room(2 * self.net.layers[-1].n_hidden)],
            "there": [room(1)],
        }  # fmt: skip
        self._rooms = rooms

    def fit(self, steps: int) -> None:
        """Use the first `steps` steps of the buffers."""
        self.steps = steps
        for space, _ in self.parts:
            space.fit(steps)
        cut: dict[str, list[Any]] = {
            name: [None if a is None else front(a, steps) for a in of] for name, of in self._rooms.items()
        }
        self.handed, self.returned, self.both = cut["handed"], cut["returned"], cut["both"]
        self.turned, self.d_inputs, (self.d_both,) = cut["turned"], cut["d_inputs"], cut["d_both"]
        self.there = cut["there"][0][..., 0]

    # ------------------------------------------------------------------------- programs

    def set_program(self, program: str, *, penalty: Any, whole: bool, subnormals: bool) -> None:
        """Choose the kernels of every direction, and the order of all calls: up to the top, and back.

        `whole` takes all steps of a forward pass for the sequences; a gradient has those up to their last weight.
        """
        self._whole = whole and program == "predict"
        how = {"penalty": penalty, "whole": False, "subnormals": subnormals}
        back = program if program in (*FORWARD, "trace", "recomputing") else "gradient"
        for space in self.spaces:
            if program == "groups":
                set_joint(space, **how)
            else:
                set_below(space, back, **how)
        set_readout(self.top, back if program != "groups" else program, whole=self._whole, subnormals=subnormals)
        levels = range(len(self.net.layers))
        self.entries: list[Any] = [self._begin]
        for level in levels:
            self.entries += [space.entries[0] for space in self._of(level)]
            self.entries.append(functools.partial(self._join, level))
        self.entries.append(self.top.entries[0])
        if back not in FORWARD:
            for level in reversed(levels):
                self.entries.append(functools.partial(self._part, level))
                self.entries += [space.entries[1] for space in self._of(level)]
            if self.purpose.at_inputs and not self.shape.tokens:
                self.entries.append(self._give)
        if program == "groups":
            for k in (-2, -1):  # all norms, from the top on, then all sums
                self.entries += [space.entries[k] for space in (self.top, *self.spaces)]

    def _of(self, level: int) -> list[Workspace]:
        """Return both directions of a layer."""
        return self.spaces[2 * level : 2 * level + 2]

    def set_ends(self, ends: Any) -> None:
        """Set how many steps of each sequence there are (R, B); up to its last weight for None."""
        self._ends = ends

    def point_to(
        self, theta: Floats, inputs: Any, targets: Any, weights: Floats, d_theta: Floats | None, d_inputs: Any = None
    ) -> None:
        """Point the records to the caller's arrays, and those of each direction to what lies around it."""
        self._batch, self._given = (inputs, weights), d_inputs
        for k, space in enumerate(self.spaces):
            level, reverse = divmod(k, 2)
            of_layer = inputs if level == 0 else self.both[level - 1]
            space.point_to(
                theta, self.turned[level] if reverse else of_layer, None, self.there, d_theta, self.d_inputs[k],
                self.handed[k], self.returned[k], self._joint,
            )  # fmt: skip
        self.top.point_to(theta, self.both[-1], targets, weights, d_theta, self.d_both, joint=self._joint)

    # ------------------------------------------------------------------------- between layers

    def _begin(self) -> None:
        """Find how long every sequence is, and turn the inputs."""
        inputs, weights = self._batch
        steps = np.arange(self.steps)[:, None]
        if self._ends is not None:
            self.lengths = self._ends
        else:
            self.lengths = np.full_like(last_step(weights), self.steps) if self._whole else last_step(weights)
        here = steps < self.lengths[:, None, :]
        self.there[...] = here
        self._order = np.where(here, self.lengths[:, None, :] - 1 - steps, steps)
        self.turned[0][...] = self._turn(inputs)

    def _turn(self, values: Any) -> Any:
        """Return (R, T, B, ...) with each sequence from its own end on; what lies behind the ends stays."""
        order = self._order if values.ndim == 3 else self._order[..., None]
        return np.take_along_axis(values, order, axis=1)

    def _join(self, level: int) -> None:
        """Put h of both directions side by side: the inputs of the layer above, and turned for its reverse one."""
        both, size = self.both[level], self.net.layers[level].n_hidden
        both[..., :size] = self.handed[2 * level]
        both[..., size:] = self._turn(self.handed[2 * level + 1])
        if level + 1 < len(self.net.layers):
            self.turned[level + 1][...] = self._turn(both)

    def _part(self, level: int) -> None:
        """Return to both directions of a layer what comes back to their h from above."""
        size, above = self.net.layers[level].n_hidden, 2 * (level + 1)
        d = self.d_both if above == len(self.spaces) else self._at_inputs(above)
        self.returned[2 * level][...] = d[..., :size]
        self.returned[2 * level + 1][...] = self._turn(d[..., size:])

    def _at_inputs(self, k: int) -> Floats:
        """Return the gradient at the inputs of a layer, whose forward direction is number k."""
        found: Floats = self.d_inputs[k] + self._turn(self.d_inputs[k + 1])
        return found

    def _give(self) -> None:
        """Write the gradient at the inputs of the lowest layer to where the caller wants it."""
        self._given[...] = self._at_inputs(0)

    # ------------------------------------------------------------------------- what came out

    def gather_ends(self, ends: Any) -> tuple[Floats, ...]:
        """Return the states of each direction at its own end: of the forward one after so many steps (R, B)."""
        return tuple(at_ends(space.gather("states"), ends) for space in self.spaces)

    def gather_state(self, name: str, step: int = 0) -> tuple[Floats, ...]:
        """Return states of one step, (R, B, S, H) of each direction; the end is each sequence's own."""
        return self.gather_ends(self.lengths) if name == "end" else super().gather_state(name, step)


def _upper(purpose: Purpose) -> Purpose:
    """Return what a direction above another layer is for: it goes on to its inputs."""
    return purpose._replace(at_ends=True, at_inputs=True)
