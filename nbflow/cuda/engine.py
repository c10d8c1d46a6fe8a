"""What drivers ask of the card: the verbs of `nbflow.gradients._engine.Engine`.

Arguments go there, grids are queued, results come back. The arrays have R in front, of arguments and of results.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from nbflow import counter
from nbflow.cpu.report import GRADIENT
from nbflow.cuda import program
from nbflow.cuda.clipping import clip as clip
from nbflow.cuda.training import Training
from nbflow.cuda.workspace import Purpose, Workspace, purpose_of
from nbflow.model._arguments import Checked
from nbflow.model._asked import PLAIN, Asked, Found, Plan, at_ends
from nbflow.records import Floats, Regularizer

FORWARD, BACK, TRACED = Purpose(), Purpose(backward=True), Purpose(backward=True, keeps_delta=True)


def lacks(asked: Asked, project: Any = None, held_by_example: Any = None) -> dict[str, Any]:
    """Return what is asked for and not there, by name."""
    given = {
        "recompute_every": asked.every or None,
        "penalty": asked.flow.penalty if asked.flow is not None and isinstance(asked.penalty, Regularizer) else None,
        "wrt": asked.wrt or None,
        "noise": None if asked.noise is None else asked.noise.deviation,
        "project": project,
        "trainable beside a clip by example": held_by_example,
    }
    return {name: value for name, value in given.items() if value is not None}


def gradient(buffers: Any, checked: Checked, asked: Asked) -> Found:
    """Return loss, Omega and the gradient."""
    space = _sent(buffers, purpose_of(asked), checked, asked)
    space.set_asked(asked)
    if asked.alpha is not None:
        space.write("ALPHA", asked.alpha.astype(space.dtype))
    program.forward(space, whole=asked.state is not None, carried=asked.state is not None)
    program.gradient(space, asked)
    return Found(
        space.read("REPORT", len(GRADIENT)), space.read("D_THETA", space.net.size),
        None if asked.state is None else at_ends(_states(space), asked.ends),
        None if asked.groups is None else space.group_norms(),
    )  # fmt: skip


def predict(buffers: Any, checked: Checked, asked: Asked, *, with_states: bool = False) -> tuple[Floats, Any]:
    """Return the outputs (R, T, B, M) at every step, and if asked for the states (R, T+1, B, S, H)."""
    space = _forward(buffers, checked, asked, whole=True)
    program.predictions(space)
    y: Floats = space.read("Y", space.steps, space.shape.batch, space.net.n_out)
    return y, _states(space) if with_states else None


def activations(buffers: Any, checked: Checked, asked: Asked) -> tuple[Floats, Floats]:
    """Return s_t, t > 0, and what the cell saves (R, T, B, S or K, H); arbitrary after the end of a sequence."""
    space = _forward(buffers, checked, asked, whole=False)
    kept = len(space.net.cell_object.saved)
    return _states(space)[:, 1:], space.read("SAVED", space.steps, space.shape.batch, kept, space.net.n_hidden)


def trace(buffers: Any, checked: Checked, asked: Asked) -> tuple[Floats, ...]:
    """Return the losses (R,), states and delta (R, T+1, B, S, H), ||delta|| (R, T+1, B) and ||v|| (R, T, B)."""
    space = _sent(buffers, TRACED, checked, asked)
    program.forward(space, whole=True, carried=asked.state is not None)
    program.losses(space)
    program.backward(space)
    program.norms(space)
    program.report(space)
    steps, batch = space.steps, space.shape.batch
    return (
        space.read("REPORT", len(GRADIENT))[:, 0], _states(space), _states(space, "DELTA"),
        space.read("DELTA_NORM", steps + 1, batch), space.read("V_NORM", steps, batch),
    )  # fmt: skip


def losses(buffers: Any, checked: Checked, asked: Asked, *, whole: bool) -> tuple[Floats, Floats | None]:
    """Return the losses (R,), and the last state of a computation that is `whole`."""
    space = _sent(buffers, BACK, checked, asked)
    program.forward(space, whole=whole, carried=asked.state is not None)
    program.losses(space)
    program.report(space)
    return space.read("REPORT", len(GRADIENT))[:, 0], _last_state(space) if whole else None


def train(plan: Plan) -> Training:
    """Return a training run."""
    return Training(plan)


def wrong(
    buffers: Any, theta: Floats, task: Any, ids: Any, seed: int, draws: Iterable[tuple[int, int]], asked: Asked = PLAIN
) -> Iterator[Any]:
    """Yield which sequences are answered wrongly (R, B), for each index and length of a batch of a task."""
    space = None
    for index, length in draws:
        if space is None:
            space = buffers.cut(Workspace, FORWARD, task.taken(length))
            space.set_ids(ids)
            space.write("THETA", theta)
            if asked.state is not None:
                space.write("START", asked.state)
        if task.own:
            shape = space.shape
            batch = task.empty(shape.replicas, task.taken(length), shape.batch, space.net.dtype)
            task.draw(batch, seed, counter.EVALUATION, ids, index, length)
            space.send(batch)
        else:
            program.sample(space, task, seed, counter.EVALUATION, index, length)
        program.forward(space, whole=False, carried=asked.state is not None)
        program.predictions(space)
        program.wrong(space, task)
        yield space.read("WRONG", space.shape.batch)


def _sent(buffers: Any, purpose: Purpose, checked: Checked, asked: Asked = PLAIN) -> Workspace:
    """Return a workspace with the arguments."""
    space: Workspace = buffers.of(Workspace, purpose, checked)
    space.write("THETA", checked.theta)
    space.send(checked)
    if asked.state is not None:
        space.write("START", asked.state)
    return space


def _forward(buffers: Any, checked: Checked, asked: Asked, *, whole: bool) -> Workspace:
    space = _sent(buffers, FORWARD, checked, asked)
    program.forward(space, whole=whole, carried=asked.state is not None)
    return space


def _states(space: Workspace, name: str = "STATES") -> Floats:
    """Return a tape of states (R, T+1, B, S, H)."""
    lines = len(space.net.cell_object.states)
    found: Floats = space.read(name, space.steps + 1, space.shape.batch, lines, space.net.n_hidden)
    return found


def _last_state(space: Workspace) -> Floats:
    return _states(space)[:, -1]
