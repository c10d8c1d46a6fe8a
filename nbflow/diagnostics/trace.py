"""The gradient at every time step: what a fused recurrent network elsewhere does not show."""

from __future__ import annotations

from typing import Any

import numpy as np

from nbflow import _check
from nbflow.gradients._choices import backend_there
from nbflow.gradients.gradient import per_network
from nbflow.gradients.workspace import Buffers, buffers_for
from nbflow.model.network import Network
from nbflow.records import Batch, Floats, Trace


def trace(
    net: Network, theta: Floats, batch: Batch, *, backend: str = "cpu", workspace: Buffers | None = None
) -> Trace:
    """Compute every state and the total derivative of the loss with respect to it.

    `delta_t = dL/ds_t`, and the gain `||J_t^T delta_t|| / ||delta_t||` of every step: below 1 the gradient vanishes on
    its way back, above 1 it explodes (Pascanu, Mikolov, Bengio 2013, section 2.2).

    Parameters
    ----------
    net : Network
    theta : array of shape (P,) or (R, P)
    batch : Batch
        With R in front of every shape if theta has it.
    backend : str
        "cpu", or "cuda" for a GPU.
    workspace : Buffers, optional

    Returns
    -------
    Trace

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense.

    Examples
    --------
    A linear network whose recurrent matrix is orthogonal hands the gradient back as it came:

    >>> import nbflow as nf
    >>> net = nf.Network(cell="linear", n_in=6, n_hidden=5, n_out=4, dtype="float64")
    >>> theta = nf.init(net, "orthogonal", rng=0)
    >>> batch = nf.load_task("temporal_order").sample(seed=0, index=0, batch_size=2, length=10, dtype="float64")
    >>> nf.trace(net, theta, batch).gain.round(6).min(), nf.trace(net, theta, batch).gain.round(6).max()
    (np.float64(1.0), np.float64(1.0))
    """
    from nbflow.cpu.program import execute, set_program

    backend_there(backend)
    checked = _check.computation(net, theta, batch)
    buffers = buffers_for(net, checked, workspace)
    if backend == "cuda":
        from nbflow.cuda.gradient import run_trace

        losses, *parts, v_norm = run_trace(buffers.on_card(checked, backward=True, keeps_delta=True), checked)
        loss, found = per_network(losses, checked.single), (*parts, _gain(v_norm, parts[-1]))
        return Trace(loss, *(part[0] if checked.single else part for part in found))
    space = buffers.of(checked, keep_delta=True)
    set_program(space, "trace", whole=True)
    space.set_state(None)
    space.point_to(checked.theta, checked.inputs, checked.targets, checked.weights, None)
    execute(space)
    found = _read(space)
    loss = per_network(space.report[:, 0], checked.single)
    return Trace(loss, *(part[0] if checked.single else part for part in found))


def _read(space: Any) -> tuple[Floats, ...]:
    """Return states, delta, delta_norm and gain of the last run, with R in front."""
    states, delta, delta_norm, v_norm = map(space.gather, ("states", "delta", "delta_norm", "v_norm"))
    return states, delta, delta_norm, _gain(v_norm, delta_norm)


def _gain(v_norm: Floats, delta_norm: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        gain: Floats = v_norm / delta_norm[:, 1:]
    return gain
