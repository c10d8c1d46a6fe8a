"""What drivers ask of the CPU: the verbs of `nbflow.gradients._engine.Engine`, and what only the CPU has.

Each takes a workspace from the caller's buffers, sets it up, runs it on the arguments and copies what came out. The
arrays have R in front, of arguments and of results.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from nbflow import counter
from nbflow.cpu.clipping import clip as clip
from nbflow.cpu.program import set_program, way_back
from nbflow.cpu.purpose import PLAIN as PLAIN_PURPOSE, Purpose
from nbflow.cpu.regularize import regularize
from nbflow.cpu.setup import choose, kind_of, purpose_of, run, set_gradient, set_start
from nbflow.cpu.training import Training
from nbflow.cpu.two_ways import TwoWays
from nbflow.cpu.workspace import Workspace
from nbflow.model._arguments import Checked
from nbflow.model._asked import PLAIN, Asked, Found, Plan, at_ends
from nbflow.records import Floats, Regularizer

TANGENT = Purpose(tangent="states")


def lacks(asked: Asked, project: Any = None, held_by_example: Any = None) -> dict[str, Any]:
    """Return what is asked for and not there, by name: nothing."""
    return {}


def gradient(buffers: Any, checked: Checked, asked: Asked) -> Found:
    """Return loss, Omega and the gradient."""
    space = buffers.of(kind_of(buffers.net), purpose_of(asked), checked)
    set_gradient(space, asked)
    d_theta, d_inputs = np.empty_like(checked.theta), _room_at_inputs(space, checked)
    run(space, checked, d_theta, d_inputs)
    if isinstance(asked.penalty, Regularizer) and asked.alpha is not None:
        regularize(asked.penalty, space.net, checked.theta, checked[1:4], asked.alpha, d_theta, space.report)
    found = Found(
        space.report, d_theta, None if asked.state is None else space.gather_state("end"),
        None if asked.groups is None else space.group_norms(),
        d_inputs if "inputs" in asked.wrt else None,
        space.gather_state("delta") if "state" in asked.wrt else None,
    )  # fmt: skip
    return found if asked.ends is None else _with_ends(buffers, space, checked, asked, found)


def _with_ends(buffers: Any, space: Any, checked: Checked, asked: Asked, found: Found) -> Found:
    """Return a gradient with the state at each sequence's own end, where the states of two directions are anyway.

    The way back clears the states behind the last weight: an end there is found once more, but for that of all steps.
    """
    if isinstance(space, TwoWays):
        ends: Any = space.gather_ends(asked.ends)  # of each direction
        return found._replace(state=ends)
    steps = checked.weights.shape[1]
    last = np.where(checked.weights != 0, np.arange(1, steps + 1)[:, None], 0).max(axis=1)
    if not ((asked.ends > last) & (asked.ends < steps)).any():
        return found._replace(state=space.gather_ends(asked.ends))
    found = found._replace(report=found.report.copy())  # its memory is used anew
    _, states = predict(buffers, checked, Asked(state=asked.state, noise=asked.noise), with_states=True)
    return found._replace(state=at_ends(states, asked.ends))


def predict(buffers: Any, checked: Checked, asked: Asked, *, with_states: bool = False) -> tuple[Floats, Any]:
    """Return the outputs (R, T, B, M) at every step, and if asked for the states (R, T+1, B, S, H)."""
    space = _forward(buffers, checked, asked, whole=True)
    return space.gather("y"), space.gather("states") if with_states else None


def activations(buffers: Any, checked: Checked, asked: Asked) -> tuple[Floats, Floats]:
    """Return s_t, t > 0, and what the cell saves (R, T, B, S or K, H); arbitrary after the end of a sequence."""
    space = _forward(buffers, checked, asked, whole=False)
    return space.gather("states")[:, 1:], space.gather("saved")


def trace(buffers: Any, checked: Checked, asked: Asked) -> tuple[Floats, ...]:
    """Return the losses (R,), states and delta (R, T+1, B, S, H), ||delta|| (R, T+1, B) and ||v|| (R, T, B)."""
    kind = kind_of(buffers.net)
    space = _set(buffers.of(kind, Purpose(keep_delta=True), checked), "trace", asked, whole=True)
    run(space, checked)
    return space.report[:, 0], *map(space.gather, ("states", "delta", "delta_norm", "v_norm"))


def losses(buffers: Any, checked: Checked, asked: Asked, *, whole: bool) -> tuple[Floats, Floats | None]:
    """Return the losses (R,), and the last state of a computation that is `whole`."""
    space = _set(buffers.of(kind_of(buffers.net), PLAIN_PURPOSE, checked), "losses", asked, whole=whole)
    run(space, checked)
    return space.report[:, 0], space.gather_state("end") if whole else None


def train(plan: Plan) -> Training:
    """Return a training run."""
    return Training(plan)


def wrong(
    buffers: Any, theta: Floats, task: Any, ids: Any, seed: int, draws: Iterable[tuple[int, int]], asked: Asked = PLAIN
) -> Iterator[Any]:
    """Yield which sequences are answered wrongly (R, B), for each index and length of a batch of a task."""
    replicas, _, batch_size, _ = buffers.shape
    for index, length in draws:
        batch = task.empty(replicas, task.taken(length), batch_size, buffers.net.dtype)
        task.draw(batch, seed, counter.EVALUATION, ids, index, length)
        checked = Checked(theta, batch.inputs, batch.targets, batch.weights, False)
        y = _forward(buffers, checked, asked.drawn(seed, index, ids), whole=False).gather("y")
        # What lies at steps without weight was left there by another batch.
        y[batch.weights == 0] = 0
        yield task.wrong(y, batch)


def jvp(
    buffers: Any, checked: Checked, asked: Asked, direction: Any, state_dot: Any, inputs_dot: Any
) -> tuple[Floats, Floats]:
    """Return the tangents of the outputs (R, T, B, M) and of the last state (R, B, S, H)."""
    purpose = TANGENT._replace(inputs_move=inputs_dot is not None)
    space = _set(buffers.of(Workspace, purpose, checked), "jvp", asked, whole=True)
    space.set_state_dot(state_dot)
    space.set_direction(direction)
    if inputs_dot is not None:
        space.set_inputs_dot(inputs_dot)
    run(space, checked)
    return space.gather("y_dot"), space.gather_state("states_dot", space.steps)


def vjp(
    buffers: Any, checked: Checked, asked: Asked, d_state: Floats, d_states: Any
) -> tuple[Floats, Floats, Floats | None]:
    """Return the gradients at theta (R, P), the first state and the inputs (R, T, B, N), None for tokens.

    `d_state` comes back to the last state, `d_states` to that of every step.
    """
    space = buffers.of(Workspace, Purpose(at_ends=True, at_inputs=True, listened=d_states is not None), checked)
    _set(space, way_back(space), asked, whole=True)
    space.set_end_cotangent(d_state)
    if d_states is not None:
        space.set_cotangents(d_states)
    d_theta, d_inputs = np.empty_like(checked.theta), _room_at_inputs(space, checked)
    run(space, checked, d_theta, d_inputs)
    return d_theta, space.gather_state("delta"), d_inputs


def hvp(buffers: Any, checked: Checked, asked: Asked, direction: Floats) -> Floats:
    """Return the Hessian times a direction (R, P)."""
    space = _set(buffers.of(Workspace, Purpose(tangent="loss"), checked), "hvp", asked, whole=asked.state is not None)
    space.set_state_dot(None)
    space.set_direction(direction)
    moved = np.empty_like(checked.theta)
    run(space, checked, moved)
    return moved


def carry(buffers: Any, checked: Checked, state: Floats, state_dot: Floats) -> tuple[Floats, Floats]:
    """Return the state after all steps and its tangent (R, B, S, H)."""
    space = _set(buffers.of(Workspace, TANGENT, checked), "carry", Asked(state=state), whole=True)
    space.set_state_dot(state_dot)
    space.set_direction(None)
    run(space, checked)
    return space.gather_state("end"), space.gather_state("states_dot", space.steps)


class Tape:
    """A forward pass that is computed once, for tangents to go along it and gradients to come back, many times."""

    def __init__(self, buffers: Any, checked: Checked, asked: Asked) -> None:
        self._checked = checked  # alive as long as the workspace points to it
        self._space = _set(buffers.of(Workspace, TANGENT, checked), "losses", asked, whole=True)
        self._space.set_direction(None)
        run(self._space, checked)

    def push(self, state_dot: Floats) -> Floats:
        """Return ds_T/ds_0 @ state_dot, (R, B, S, H)."""
        set_program(self._space, "push", whole=True)
        self._space.set_state_dot(state_dot)
        return run(self._space, self._checked).gather_state("states_dot", self._space.steps)

    def pull(self, d_state: Floats) -> Floats:
        """Return the transpose of ds_T/ds_0 @ d_state, (R, B, S, H)."""
        set_program(self._space, "pull", whole=True)
        self._space.set_end_cotangent(d_state)
        return run(self._space, self._checked).gather_state("delta")


def back(buffers: Any, checked: Checked, asked: Asked) -> tuple[Floats, Floats, Floats]:
    """Return delta (R, T+1, B, S, H), the gradients at a_rec (R, T, B, G, H), and h's line of v (R, T, B, H).

    As the immediate derivative of Omega finds them, up to each batch's last weight.
    """
    space = _set(buffers.of(Workspace, Purpose(keep_delta=True, derivative="immediate"), checked), "trace", asked)
    run(space, checked)
    return space.gather("delta"), space.gather("rec"), space.gather("v")[:, :, :, 0]


def _room_at_inputs(space: Any, checked: Checked) -> Any:
    """Return room for the gradient at the inputs where it is computed, else None."""
    return np.empty_like(checked.inputs) if space.purpose.at_inputs and not space.shape.tokens else None


def _set(space: Any, program: str, asked: Asked = PLAIN, *, whole: bool = False) -> Any:
    """Set a workspace up for a program other than a gradient."""
    choose(space, program, penalty=asked.penalty, whole=whole)
    set_start(space, asked)
    return space


def _forward(buffers: Any, checked: Checked, asked: Asked, *, whole: bool) -> Any:
    space = buffers.of(kind_of(buffers.net), PLAIN_PURPOSE, checked)
    return run(_set(space, "predict", asked, whole=whole), checked)
