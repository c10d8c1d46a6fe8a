"""The gradient at every time step: what a fused recurrent network elsewhere does not show."""

from __future__ import annotations

from typing import Any, overload

import numpy as np

from nbflow.gradients._choices import beginning
from nbflow.gradients._engine import engine_of, refuse_lacking
from nbflow.gradients.gradient import per_network
from nbflow.gradients.workspace import Buffers, buffers_for
from nbflow.model import _arguments
from nbflow.model.network import Network
from nbflow.model.stack import Model, Stack
from nbflow.records import Batch, Floats, Noise, Trace


@overload
def trace(
    net: Network, theta: Floats, batch: Batch, *, state: Floats | None = None,
    noise: float | Floats | Noise | None = None, backend: str = "cpu", workspace: Buffers | None = None,
) -> Trace: ...  # fmt: skip
@overload
def trace(
    net: Stack, theta: Floats, batch: Batch, *, state: Any = None,
    noise: float | Floats | Noise | None = None, backend: str = "cpu", workspace: Buffers | None = None,
) -> tuple[Trace, ...]: ...  # fmt: skip
def trace(
    net: Model, theta: Floats, batch: Batch, *, state: Any = None,
    noise: float | Floats | Noise | None = None, backend: str = "cpu", workspace: Buffers | None = None,
) -> Trace | tuple[Trace, ...]:  # fmt: skip
    """Compute every state and the total derivative of the loss with respect to it.

    `delta_t = dL/ds_t`, and the gain `||J_t^T delta_t|| / ||delta_t||` of every step: below 1 the gradient vanishes on
    its way back, above 1 it explodes (Pascanu, Mikolov, Bengio 2013, section 2.2).

    Parameters
    ----------
    net : Network or Stack
    theta : array of shape (P,) or (R, P)
    batch : Batch
        With R in front of every shape if theta has it.
    state : array of shape (B, S, H), optional
        The state before the first step, zeros by default; of a stack a tuple of them.
    noise : float, array of shape (R,) or Noise, optional
        Of the units, as in `nbflow.gradient`: the same draws give the same states as there.
    backend : str
        "cpu", or "cuda" for a GPU.
    workspace : Buffers, optional

    Returns
    -------
    Trace, or tuple of Trace
        Of a stack one for each layer, from the bottom on; delta_t of a layer holds what comes back from the layers
        above, and its gain is that of the step in time, from s_t to s_{t-1} of the same layer.

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
    engine = engine_of(backend, net)
    checked = _arguments.computation(net, theta, batch, takes=_arguments.model)
    asked = beginning(net, checked, state, noise)
    refuse_lacking(engine, asked)
    with buffers_for(net, checked, workspace) as buffers:
        losses, *parts, v_norm = engine.trace(buffers, checked, asked)
        loss = per_network(losses, checked.single)  # which lie in the workspace
    if isinstance(net, Stack):
        return tuple(_record(loss, layer, checked.single) for layer in zip(*parts, v_norm, strict=True))
    return _record(loss, (*parts, v_norm), checked.single)


def _record(loss: Any, parts: tuple[Floats, ...], single: bool) -> Trace:
    """Return the record of a layer, of which states, delta, ||delta|| and ||v|| are given."""
    *others, v_norm = parts
    with np.errstate(invalid="ignore", divide="ignore"):
        found = (*others, v_norm / others[-1][:, 1:])
    return Trace(loss, *(part[0] if single else part for part in found))
