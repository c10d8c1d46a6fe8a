"""Layers: the workspaces of a stack, one above the other, behind the face of one.

Each layer runs all its steps before the next one begins, upwards, then back down. Between two of them lie two arrays
(R, T, B, H): h of every step, which is the inputs of the layer above, and the gradient that comes back to it, which is
the gradient at these inputs. Kernels write and read both where they lie, so that nothing is copied between layers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from nbflow.cpu.hidden_clip import seen_of_a_step
from nbflow.cpu.noise import blocks_of
from nbflow.cpu.program import set_below, set_joint, set_program, set_second, way_back
from nbflow.cpu.purpose import PLAIN, Purpose
from nbflow.cpu.report import CLIPPED_INSIDE, COUNT, OMEGA
from nbflow.cpu.workspace import Workspace
from nbflow.model._asked import UnitNoise
from nbflow.model._shape import Shape
from nbflow.model.stack import Stack
from nbflow.records import Floats, Flow

# Programs that go through all layers twice more.
TWICE = {"flow": set_second, "groups": set_joint}
# Programs of a layer below that stop where the forward pass ends.
FORWARD = ("predict", "losses")


class Layers:
    """Buffers and records for a stack and one shape of batch.

    What `Workspace` has under these names it has for all layers: what is set is set in each; what is gathered of states
    is a tuple, one a layer; what is gathered of outputs is that of the layer on top.

    Attributes
    ----------
    spaces : list of Workspace
        From the bottom to the top.
    top : Workspace
        The one that has outputs and loss.
    parts : list of pairs
        All of them, and where the parameters of each begin in theta.
    between : list of tuples of two arrays (R, T, B, H)
        Above each layer but the last: h, and the gradient that comes back to it.
    """

    def __init__(self, net: Stack, shape: Shape, purpose: Purpose = PLAIN) -> None:
        self.net, self.shape, self.purpose, self.steps = net, shape, purpose, shape.steps
        self.dtype = net.scalar
        self.program = ""
        top = len(net.layers) - 1
        self.spaces = [
            Workspace(layer, shape._replace(tokens=shape.tokens and k == 0), _of_layer(purpose, k, top))
            for k, layer in enumerate(net.layers)
        ]
        self.top = self.spaces[-1]
        self.parts = [*zip(self.spaces, net.firsts, strict=True)]
        for space, first in self.parts:
            space.lie_in(net.size, first)
        lead = shape.replicas, shape.steps, shape.batch
        self._joint = np.zeros((shape.replicas, shape.batch, 3), self.dtype)
        self._room = [[np.zeros((*lead, layer.n_hidden), self.dtype) for _ in range(2)] for layer in net.layers[:-1]]
        self.fit(shape.steps)

    def fit(self, steps: int) -> None:
        """Use the first `steps` steps of the buffers."""
        self.steps = steps
        for space in self.spaces:
            space.fit(steps)
        self.between = [tuple(front(array, steps) for array in pair) for pair in self._room]

    def set_program(self, program: str, *, penalty: Any, whole: bool, subnormals: bool) -> None:
        """Choose the kernels of every layer, and the order of all calls: up to the top, and back."""
        if program in TWICE:
            self._set_twice(TWICE[program], penalty, whole, subnormals)
            return
        *below, top = self.spaces
        back = program if program in (*FORWARD, "trace", "recomputing") else "gradient"
        for space in below:
            set_below(space, back, penalty=penalty, whole=whole, subnormals=subnormals)
        set_program(top, _of_top(program, top), penalty=penalty, whole=whole, subnormals=subnormals)
        self.entries = [space.entries[0] for space in below] + top.entries
        self.entries += [entry for space in reversed(below) for entry in space.entries[1:]]

    def _set_twice(self, set_layer: Any, penalty: Any, whole: bool, subnormals: bool) -> None:
        """Choose the same for what goes up, back, and then through all layers twice more.

        A second derivative of Omega goes up and back once more with tangents. What lies between two layers holds h and
        its gradient first, then the tangents of both: each layer has h on its own tape by then. A clip by groups
        measures the parts of every layer, from the top on, and then adds them up.
        """
        for space in self.spaces:
            set_layer(space, penalty=penalty, whole=whole, subnormals=subnormals)
        *below, top = self.spaces
        self.entries = [space.entries[0] for space in (*below, top)]
        self.entries += [space.entries[1] for space in reversed(below)]
        again = self.spaces if set_layer is set_second else reversed(self.spaces)
        self.entries += [space.entries[-2] for space in again]
        self.entries += [space.entries[-1] for space in reversed(self.spaces)]

    def point_to(
        self, theta: Floats, inputs: Any, targets: Any, weights: Floats, d_theta: Floats | None, d_inputs: Any = None
    ) -> None:
        """Point the records to the caller's arrays, and those of each layer to what lies between it and the next."""
        top = len(self.spaces) - 1
        for k, space in enumerate(self.spaces):
            handed, returned = self.between[k] if k < top else (None, None)
            space.point_to(
                theta, inputs, targets if k == top else None, weights, d_theta, d_inputs, handed, returned, self._joint
            )
            inputs, d_inputs = handed, returned

    def bounds(self) -> dict[tuple[int, str], list[tuple[int, int]]]:
        """Return the bounds of the arrays of all layers."""
        return {key: pairs for space, _ in self.parts for key, pairs in space.bounds().items()}

    @property
    def report(self) -> Floats:
        """The report (R, columns): loss and groups of the layer on top, all else of all layers together."""
        report: Floats = self.top.report
        if self._hidden[0]:
            # At each step, so many entries or vectors of each layer.
            seen = [seen_of_a_step(space.net, *self._hidden) for space in self.spaces]
            report = report.copy()
            clipped = [part * space.report[:, CLIPPED_INSIDE] for part, space in zip(seen, self.spaces, strict=True)]
            report[:, CLIPPED_INSIDE] = np.sum(clipped, axis=0) / sum(seen)
        if self.purpose.derivative or self._penalized:
            report = report.copy()
            for space in self.spaces:
                if space is not self.top:
                    report[:, [OMEGA, COUNT]] += space.report[:, [OMEGA, COUNT]]
        return report

    # ------------------------------------------------------------------------- settings, of every layer

    _penalized, _hidden = False, (0, False)

    def set_flow(self, alpha: Any, flow: Flow) -> None:
        """Set the weight of Omega (R,), how it is reduced and what it counts."""
        self._penalized = True
        for space in self.spaces:
            space.set_flow(alpha, flow)

    def set_alpha(self, alpha: Any) -> None:
        """Set the weight of Omega (R,)."""
        for space in self.spaces:
            space.set_alpha(alpha)

    def set_groups(self, threshold: Any, skips: bool) -> None:
        """Set above which norm over all layers a group's gradient is clipped (R,), and what is left out."""
        for space, _ in self.parts:
            space.set_groups(threshold, skips)

    def set_held(self, held: Any) -> None:
        """Set which parameters (R, P) are held while groups are clipped."""
        for space, first in self.parts:
            space.set_held(held[:, first : first + space.net.size])

    def set_hidden_clip(self, site: int, by_norm: bool, threshold: Any) -> None:
        """Set what is clipped inside BPTT, in each layer by itself."""
        self._hidden = site, by_norm
        for space in self.spaces:
            space.set_hidden_clip(site, by_norm, threshold)

    def set_detach(self, probability: Any, seed: int, index: int, replica_ids: Any = None) -> None:
        """Set how likely h is detached at a step; the same steps in every layer."""
        for space in self.spaces:
            space.set_detach(probability, seed, index, replica_ids)

    def set_noise(self, noise: UnitNoise | None) -> None:
        """Set the noise of the units, draws of its own for each layer."""
        if noise is not None and self.net.bidirectional:
            raise NotImplementedError(
                "noise is given for a Stack of two directions; expected none, for its draws are not there yet. Leave "
                "it out, or make the Stack with bidirectional=False."
            )
        blocks = blocks_of(self.net)
        for k, space in enumerate(self.spaces):
            space.set_noise(noise, k, blocks)

    def set_state(self, states: tuple[Floats, ...] | None) -> None:
        """Set the states before the first step, (R, B, S, H) of each layer, or None for zeros."""
        for space, state in self._with(states):
            space.set_state(state)

    def ask_first_state(self) -> None:
        """Let the way back reach the first states."""
        for space in self.spaces:
            space.ask_first_state()

    def _with(self, states: tuple[Floats, ...] | None) -> Iterator[tuple[Workspace, Any]]:
        return zip(self.spaces, states or [None] * len(self.spaces), strict=True)

    # ------------------------------------------------------------------------- what came out

    def gather(self, name: str) -> Any:
        """Return the outputs, or a tape of each layer."""
        if name == "y":
            return self.top.gather(name)
        return tuple(space.gather(name) for space in self.spaces)

    def gather_ends(self, ends: Any) -> tuple[Floats, ...]:
        """Return the states after so many steps of each sequence (R, B), as (R, B, S, H) of each layer."""
        return tuple(space.gather_ends(ends) for space in self.spaces)

    def group_norms(self) -> Floats:
        """Return the norms of the groups' gradients of the last run, over all layers (R, B / group_rows)."""
        return self.top.group_norms()

    def gather_state(self, name: str, step: int = 0) -> tuple[Floats, ...]:
        """Return states of one step, (R, B, S, H) of each layer."""
        return tuple(space.gather_state(name, step) for space in self.spaces)


def _of_layer(purpose: Purpose, k: int, top: int) -> Purpose:
    """Return what layer k is for: it goes on to its inputs where a layer is below."""
    moved = k > 0 and purpose.derivative == "exact"
    return purpose._replace(
        at_ends=k > 0 or purpose.at_ends, at_inputs=k > 0 or purpose.at_inputs, below=k < top, inputs_move=moved,
        joint=bool(purpose.group_rows),
    )  # fmt: skip


def _of_top(program: str, space: Workspace) -> str:
    """Return the program of the layer on top, which goes on to its inputs."""
    if way_back(space) != "ends":
        return program
    return {"gradient": "ends", "trace": "trace ends", "recomputing": "recomputing ends"}.get(program, program)


def front(array: Floats, steps: int) -> Floats:
    """Return a C-ordered array of so many steps, in the memory of a longer one."""
    shape = (array.shape[0], steps, *array.shape[2:])
    return array.ravel()[: math.prod(shape)].reshape(shape)
