"""Products with derivatives that are never formed: of outputs and states (J v, v J) and of the gradient (H v)."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from nbflow import _check
from nbflow.cpu.inner import INNER_PRODUCT
from nbflow.gradients._choices import beginning
from nbflow.gradients.gradient import first_if
from nbflow.gradients.workspace import Buffers, buffers_for, shape_of
from nbflow.model import _arguments
from nbflow.model.network import Network
from nbflow.records import Batch, Cotangent, Floats, Noise, Tangent


def jvp(
    net: Network,
    theta: Floats,
    inputs: Any,
    *,
    theta_dot: Floats | None = None,
    state_dot: Floats | None = None,
    inputs_dot: Floats | None = None,
    state: Floats | None = None,
    noise: float | Floats | Noise | None = None,
) -> Tangent:
    """Compute by how much outputs and the last state move with the parameters, the first state and the inputs.

    The derivative along a direction, by one pass forward beside that of the states (Pearlmutter 1994).

    Parameters
    ----------
    net : Network
    theta : array of shape (P,) or (R, P)
    inputs : array of shape (T, B, N), or (T, B) of integer tokens
    theta_dot : array like theta, optional
        The direction in which the parameters move; without it they stay.
    state_dot : array of shape (B, S, H), optional
        The direction in which the first state moves; without it it stays.
    inputs_dot : array like inputs, optional
        The direction in which the inputs move, which are dense then; without it they stay.
    state : array of shape (B, S, H), optional
        The first state, zeros by default.
    noise : float, array of shape (R,) or Noise, optional
        Of the units, a constant, as in `nbflow.gradient`.

    Returns
    -------
    Tangent

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense, or nothing moves.

    Examples
    --------
    >>> import numpy as np, nbflow as nf
    >>> net = nf.Network(cell="linear", n_in=1, n_hidden=1, n_out=1, loss="square", dtype="float64")
    >>> theta = np.array([0.0, 0.5, 0.0, 2.0, 0.0])  # w_in, w_rec, bias, w_out, b_out
    >>> moved = nf.jvp(net, theta, np.zeros((3, 1, 1)), state_dot=np.ones((1, 1, 1)))
    >>> moved.outputs.ravel(), moved.state.item()
    (array([1.  , 0.5 , 0.25]), 0.125)
    """
    from nbflow.cpu import engine

    checked = _arguments.inputs_only(net, theta, inputs)
    if theta_dot is None and state_dot is None and inputs_dot is None:
        raise ValueError("theta_dot, state_dot and inputs_dot are None; expected one of them at least. Say what moves.")
    direction = None if theta_dot is None else _arguments.direction(net, theta_dot, theta, "theta_dot")
    asked = beginning(net, checked, state, noise)
    moved = None if state_dot is None else _arguments.state(net, state_dot, checked, "state_dot")
    inputs_moved = None if inputs_dot is None else _arguments.like_inputs(net, inputs_dot, checked, "inputs_dot")
    found = engine.jvp(Buffers(net, shape_of(checked)), checked, asked, direction, moved, inputs_moved)
    return Tangent(*(part[0] if checked.single else part for part in found))


def vjp(
    net: Network,
    theta: Floats,
    inputs: Any,
    *,
    d_outputs: Floats | None = None,
    d_state: Floats | None = None,
    d_states: Floats | None = None,
    state: Floats | None = None,
    noise: float | Floats | Noise | None = None,
) -> Cotangent:
    """Compute the gradient of <d_outputs, outputs> + <d_state, last state> + <d_states, states>.

    By back-propagation through time, at the parameters, the first state and the inputs.

    It is the adjoint of `jvp`: <d, jvp(v)> = <vjp(d), v> for every d and v.

    Parameters
    ----------
    net : Network
    theta : array of shape (P,) or (R, P)
    inputs : array of shape (T, B, N), or (T, B) of integer tokens
    d_outputs : array of shape (T, B, M), optional
        How much each output counts; without it none does.
    d_state : array of shape (B, S, H), optional
        How much each number of the last state counts; without it none does.
    d_states : array of shape (T, B, S, H), optional
        How much each number of the state after every step counts, s_1 to s_T; without it none does.
    state : array of shape (B, S, H), optional
        The first state, zeros by default.
    noise : float, array of shape (R,) or Noise, optional
        Of the units, a constant, as in `nbflow.gradient`.

    Returns
    -------
    Cotangent

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense, or nothing counts.

    Examples
    --------
    >>> import numpy as np, nbflow as nf
    >>> net = nf.Network(cell="linear", n_in=1, n_hidden=1, n_out=1, loss="square", dtype="float64")
    >>> theta = np.array([0.0, 0.5, 0.0, 2.0, 0.0])  # w_in, w_rec, bias, w_out, b_out
    >>> nf.vjp(net, theta, np.zeros((3, 1, 1)), d_state=np.ones((1, 1, 1))).d_state.item()
    0.125
    """
    from nbflow.cpu import engine

    checked = _arguments.inputs_only(net, theta, inputs)
    if d_outputs is None and d_state is None and d_states is None:
        raise ValueError("d_outputs, d_state and d_states are None; expected one of them at least. Say what counts.")
    inner, weights, targets = listened(net, checked, d_outputs)
    asked = beginning(net, checked, state, noise)
    replicas, _, batch = checked.weights.shape
    none = np.zeros((replicas, batch, len(net.cell_object.states), net.n_hidden), net.dtype)
    back = none if d_state is None else _arguments.state(net, d_state, checked, "d_state")
    listening = checked._replace(targets=targets, weights=weights)
    along = None if d_states is None else _arguments.like_states(net, d_states, checked, "d_states")
    found = engine.vjp(Buffers(inner, shape_of(checked)), listening, asked, back, along)
    return Cotangent(*(first_if(checked.single, part) for part in found))


def listened(net: Network, checked: _arguments.Checked, d_outputs: Any) -> tuple[Network, Floats, Floats]:
    """Return the network with the loss <d_outputs, outputs>, and its weights and targets.

    Without d_outputs the last step alone is listened to, and counts 0: so every sequence runs to its end.
    """
    weights = np.zeros_like(checked.weights)
    weights[:, -1] = 1
    shape = (*checked.weights.shape, net.n_out)
    if d_outputs is None:
        return dataclasses.replace(net, loss=INNER_PRODUCT), weights, np.zeros(shape, net.dtype)
    _check.floats("d_outputs", d_outputs, net.dtype)
    wanted = shape[1:] if checked.single else shape
    if d_outputs.shape != wanted:
        raise ValueError(f"d_outputs has shape {d_outputs.shape}; expected {wanted}, as the outputs have. Reshape it.")
    _check.finite("d_outputs", d_outputs, "Give an output that does not count 0.")
    return (
        dataclasses.replace(net, loss=INNER_PRODUCT),
        np.ones_like(weights),
        np.ascontiguousarray(d_outputs).reshape(shape),
    )


def hvp(
    net: Network,
    theta: Floats,
    batch: Batch,
    direction: Floats,
    *,
    state: Floats | None = None,
    noise: float | Floats | Noise | None = None,
    workspace: Buffers | None = None,
) -> Floats:
    """Compute the Hessian of the loss times a vector: how the gradient moves as theta moves along it.

    Exact, by the tangents of both passes (Pearlmutter 1994): 2.2 times the time of a gradient at (T, B, N, H) =
    (200, 20, 6, 100), tanh, float32, one thread of an AMD EPYC (Zen 5).

    Parameters
    ----------
    net : Network
    theta : array of shape (P,) or (R, P)
    batch : Batch
        With R in front of every shape if theta has it.
    direction : array like theta
    state : array of shape (B, S, H), optional
        The first state, a constant; zeros by default.
    noise : float, array of shape (R,) or Noise, optional
        Of the units, a constant, as in `nbflow.gradient`.
    workspace : Buffers, optional
        Memory from `nbflow.workspace`, for calls in a loop; one for each thread.

    Returns
    -------
    array like theta

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense.

    Examples
    --------
    >>> import numpy as np, nbflow as nf
    >>> net = nf.Network(cell="tanh", n_in=6, n_hidden=5, n_out=4, dtype="float64")
    >>> theta = nf.init(net, "orthogonal", rng=0)
    >>> batch = nf.load_task("temporal_order").sample(seed=0, index=0, batch_size=2, length=10, dtype="float64")
    >>> a, b = np.random.default_rng(0).normal(size=(2, net.size))
    >>> bool(np.isclose(b @ nf.hvp(net, theta, batch, a), a @ nf.hvp(net, theta, batch, b)))  # it is symmetric
    True
    """
    from nbflow.cpu import engine

    checked = _arguments.computation(net, theta, batch)
    along = _arguments.direction(net, direction, theta, "direction")
    asked = beginning(net, checked, state, noise)
    with buffers_for(net, checked, workspace) as buffers:
        moved = engine.hvp(buffers, checked, asked, along)
    return moved[0] if checked.single else moved
