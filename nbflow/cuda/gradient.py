"""What the drivers ask of the card: arguments that were checked go there, results come back."""

from __future__ import annotations

from typing import Any

from nbflow import _check
from nbflow.cpu.workspace import Shape
from nbflow.cuda import program
from nbflow.cuda.workspace import Purpose, Workspace
from nbflow.data.sampler import Task
from nbflow.model.network import Network
from nbflow.records import Batch, Floats, Flow


def send(space: Workspace, checked: _check.Checked) -> None:
    """Copy parameters and data to the card."""
    space.write("THETA", checked.theta)
    send_data(space, checked)


def send_data(space: Workspace, checked: _check.Checked | Batch) -> None:
    """Copy a batch to the card."""
    space.fit(checked.weights.shape[1])
    space.write("WEIGHTS", checked.weights)
    space.write("TOKENS" if space.shape.tokens else "INPUTS", checked.inputs)
    if checked.targets is not None:
        space.write("CLASSES" if space.net.loss_object.classes else "TARGETS", checked.targets)


def run_gradient(
    space: Workspace, checked: _check.Checked, penalty: Any, alpha: Any, flow: Flow | None, state: Any
) -> None:
    """Run the gradient of checked arguments; D_THETA and REPORT hold it."""
    send(space, checked)
    if state is not None:
        space.write("START", state)
    program.forward(space, whole=state is not None, carried=state is not None)
    program.losses(space)
    program.backward(space)
    if flow is None:
        program.weights(space)
        return
    space.write("ALPHA", alpha.astype(space.dtype))
    program.norms(space)
    program.weights(space, penalty, flow.bound, flow.reduction == "mean")


def run_score(space: Workspace, theta: Floats, batch: Batch, state: Any, *, whole: bool) -> float:
    """Return the loss of one network; `whole` runs all steps."""
    space.write("THETA", theta)
    send_data(space, batch)
    if state is not None:
        space.write("START", state)
    program.forward(space, whole=whole, carried=state is not None)
    program.losses(space)
    program.report(space)
    return float(space.read("REPORT", 3)[0, 0])


def last_state(space: Workspace) -> Floats:
    """Return the state after all steps (R, B, S, H)."""
    lines, hidden = len(space.net.cell_object.states), space.net.n_hidden
    states: Floats = space.read("STATES", space.steps + 1, space.shape.batch, lines, hidden)[:, -1]
    return states


def run_predict(space: Workspace, checked: _check.Checked) -> Floats:
    """Return the outputs (R, T, B, M)."""
    send(space, checked)
    program.forward(space, whole=True)
    program.predictions(space)
    y: Floats = space.read("Y", space.steps, space.shape.batch, space.net.n_out)
    return y


def run_trace(space: Workspace, checked: _check.Checked) -> tuple[Floats, ...]:
    """Return losses (R,), states, delta, delta_norm and v_norm."""
    send(space, checked)
    program.forward(space, whole=True)
    program.losses(space)
    program.backward(space)
    program.norms(space)
    program.weights(space)
    steps, batch = space.steps, space.shape.batch
    row = batch, len(space.net.cell_object.states), space.net.n_hidden
    found = space.read("STATES", steps + 1, *row), space.read("DELTA", steps + 1, *row)
    norms = space.read("DELTA_NORM", steps + 1, batch), space.read("V_NORM", steps, batch)
    return space.read("REPORT", 3)[:, 0], *found, *norms


def run_sample(
    net: Network, task: Task, replicas: int, batch_size: int, seed: int, purpose: int, index: int, length: int
) -> Batch:
    """Return a batch that was drawn on the card, with R in front."""
    lead = task.steps(length), batch_size
    space = Workspace(net, Shape(replicas, *lead, task.tokens), Purpose())
    program.sample(space, task, seed, purpose, index, length)
    inputs = space.read("TOKENS", *lead) if task.tokens else space.read("INPUTS", *lead, task.n_in)
    targets = space.read("CLASSES", *lead) if task.classes else space.read("TARGETS", *lead, task.n_out)
    return Batch(inputs, targets, space.read("WEIGHTS", *lead))
