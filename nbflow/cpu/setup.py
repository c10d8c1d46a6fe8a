"""From what was asked to a workspace that computes it."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from nbflow.cpu.layers import Layers
from nbflow.cpu.program import execute, set_program, way_back
from nbflow.cpu.purpose import PLAIN as PLAIN_PURPOSE, Purpose
from nbflow.cpu.two_ways import TwoWays
from nbflow.cpu.workspace import Workspace
from nbflow.model._asked import PLAIN, Asked
from nbflow.model.stack import Model, Stack
from nbflow.records import Floats


def kind_of(net: Model) -> type[Any]:
    """Return the kind of workspace of a network."""
    if not isinstance(net, Stack):
        return Workspace
    return TwoWays if net.bidirectional else Layers


def choose(space: Any, program: str, *, penalty: Any = None, whole: bool = False, subnormals: bool = False) -> None:
    """Choose the program of a workspace."""
    if isinstance(space, Layers):
        space.set_program(program, penalty=penalty, whole=whole, subnormals=subnormals)
    else:
        set_program(space, program, penalty=penalty, whole=whole, subnormals=subnormals)


def purpose_of(asked: Asked) -> Purpose:
    """Return what a workspace for a gradient is cut for."""
    if asked is PLAIN:
        return PLAIN_PURPOSE
    groups = asked.groups
    masked = groups is not None and groups.held is not None
    return _purpose(asked.derivative, asked.every, asked.group_rows, asked.wrt, masked)


@functools.cache
def _purpose(derivative: str, every: int, group_rows: int, wrt: tuple[str, ...], masked: bool) -> Purpose:
    return Purpose(derivative=derivative, every=every, group_rows=group_rows, at_ends=bool(wrt),
                   at_inputs="inputs" in wrt, masked=masked)  # fmt: skip


def set_gradient(space: Any, asked: Asked) -> None:
    """Choose the program of a gradient and set what it needs beside a batch."""
    set_limits(space, asked)
    space.set_detach(*asked.detach)
    set_start(space, asked)
    if space.purpose.masked and asked.groups is not None:
        space.set_held(asked.groups.held)
    if space.purpose.at_ends:
        space.ask_first_state()


def set_limits(space: Workspace, asked: Asked) -> None:
    """Set the thresholds of what is clipped inside a gradient, and the program, which depends on how small they are."""
    purpose = space.purpose
    plain = "recomputing" if purpose.every else "groups" if purpose.group_rows else way_back(space)
    program, subnormals = "flow" if purpose.second else plain, _clips_to_subnormals(space.dtype, asked)
    choose(space, program, penalty=asked.penalty, whole=asked.state is not None, subnormals=subnormals)
    space.set_hidden_clip(*asked.inside)
    if asked.groups is not None:
        space.set_groups(asked.groups.threshold, asked.groups.skips)


def _clips_to_subnormals(dtype: Any, asked: Asked) -> bool:
    """Tell whether a clip inside the gradient leaves vectors so short that subnormal entries are part of their length.

    Above this, their squares are lost beside that of the norm.
    """
    least = _least_without_subnormals(dtype)
    inside = asked.inside.site and asked.inside.threshold.min() < least
    return bool(inside or (asked.groups is not None and asked.groups.threshold.min() < least))


@functools.cache
def _least_without_subnormals(dtype: Any) -> float:
    limits = np.finfo(dtype)
    return float(limits.tiny) / float(limits.eps)


def set_start(space: Any, asked: Asked) -> None:
    """Set Omega, the noise of the units and the first state."""
    if asked.flow is not None:
        space.set_flow(asked.alpha, asked.flow)
    space.set_noise(asked.noise)
    space.set_state(asked.state)
    if isinstance(space, TwoWays):
        space.set_ends(asked.ends)


def run(space: Any, checked: Any, d_theta: Floats | None = None, d_inputs: Any = None) -> Any:
    """Run a workspace that is set up on the arrays of a `Checked`."""
    space.point_to(checked.theta, checked.inputs, checked.targets, checked.weights, d_theta, d_inputs)
    execute(space)
    return space
