"""The Jacobians of single steps, written out as matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nbflow import _check
from nbflow.gradients._engine import engine_of
from nbflow.gradients.workspace import Buffers, buffers_for
from nbflow.model import _arguments
from nbflow.model._step import preactivations
from nbflow.model.network import Network
from nbflow.model.parameters import unpack
from nbflow.records import Floats, Params


def step_jacobians(
    net: Network,
    theta: Floats,
    inputs: Any,
    *,
    at: int | Sequence[int] | None = None,
    state: Floats | None = None,
    backend: str = "cpu",
    workspace: Buffers | None = None,
) -> Floats:
    """Compute J_t = ds_t/ds_{t-1} of single steps, as matrices.

    `J[t][s H + i, l H + j]` is the derivative of line s of unit i after step t with respect to line l of unit j before
    it (Pascanu, Mikolov, Bengio 2013, eq. 5, of a plain network). By the cell's own derivatives, exact to rounding. For
    small networks: each matrix has (S H)^2 entries.

    Parameters
    ----------
    net : Network
    theta : array of shape (P,) or (R, P)
    inputs : array of shape (T, B, N), or (T, B) of integer tokens
        With R in front if theta has it.
    at : int or sequence of int, optional
        Which t, 1 to T; all of them by default.
    state : array of shape (B, S, H), optional
        The state before the first step, zeros by default.
    backend : str
        "cpu", or "cuda" for a GPU, which computes the states.
    workspace : Buffers, optional

    Returns
    -------
    array of shape (K, B, S*H, S*H)
        For each of K values of t; without K for a single int, with R in front if theta has it.

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense.

    Examples
    --------
    >>> import nbflow as nf
    >>> net = nf.Network(cell="linear", n_in=6, n_hidden=5, n_out=4, dtype="float64")
    >>> theta = nf.init(net, "orthogonal", rng=0)
    >>> batch = nf.load_task("temporal_order").sample(seed=0, index=0, batch_size=3, length=10, dtype="float64")
    >>> jacobian = step_jacobians(net, theta, batch.inputs, at=4)
    >>> jacobian.shape, bool((jacobian[0] == nf.unpack(net, theta).w_rec[:, 0].T).all())
    ((3, 5, 5), True)
    """
    engine = engine_of(backend)
    checked = _arguments.inputs_only(net, theta, inputs)
    steps = _check_steps(at, checked.weights.shape[1])
    asked = _arguments.beginning(net, state, checked)
    with buffers_for(net, checked, workspace) as buffers:
        _, states = engine.predict(buffers, checked, asked, with_states=True)
    found = np.stack([_of_replica(net, checked, states, r, steps) for r in range(len(states))])
    if isinstance(at, int | np.integer):
        found = found[:, 0]
    return found[0] if checked.single else found


def _check_steps(at: Any, most: int) -> list[int]:
    """Return the steps asked for, 1 to T."""
    if at is None:
        return list(range(1, most + 1))
    listed = [at] if isinstance(at, int | np.integer) else at
    if not isinstance(listed, list | tuple | range | np.ndarray) or not len(listed):
        raise TypeError(f"at is {_check.said(at)}; expected an int, or a list of them. Write at=[1, {most}], say.")
    steps = [_check.count("at", t) for t in listed]
    if max(steps) > most:
        raise ValueError(f"at is {max(steps)}; expected steps from 1 to T = {most}. Give a smaller one.")
    return steps


def _of_replica(net: Network, checked: _arguments.Checked, states: Floats, r: int, steps: list[int]) -> Floats:
    """Return the matrices (K, B, S*H, S*H) of one replica."""
    params = Params(*(part.astype(np.float64) for part in unpack(net, checked.theta[r])))
    lines, hidden = states.shape[-2:]
    found = np.zeros((len(steps), states.shape[2], lines, hidden, lines, hidden), states.dtype)
    for matrix, t in zip(found, steps, strict=True):
        d_rec, d_s = partials(net, params, checked.inputs[r, t - 1], states[r, t - 1].astype(np.float64))
        np.einsum("bsili->sbli", matrix)[:] = d_s  # the diagonals, as a view
        matrix[:, :, :, 0, :] += np.einsum("sbgi,jgi->bsij", d_rec, params.w_rec)
    size = lines * hidden
    return found.reshape(*found.shape[:2], size, size)


def partials(net: Network, params: Params, inputs: Any, s: Floats) -> tuple[Floats, Floats]:
    """Return the derivatives of one step's states (S, B) at a_rec, (S, B, G, H), and directly at s, (S, B, S, H)."""
    from nbflow.cpu.pointwise import build_pull

    pull, (lines, gates) = build_pull(net.compiled_cell), (s.shape[1], len(net.cell_object.gates))
    a_in, a_rec = preactivations(params, inputs, s[:, 0])
    d_rec, d_s = np.zeros((lines, len(s), gates, net.n_hidden)), np.zeros((lines, *s.shape))
    for line in range(lines):
        d = np.zeros_like(s)
        d[:, line] = 1
        pull(net.cell_settings, a_in, a_rec, s, d, np.empty_like(a_in), d_rec[line], d_s[line])
    return d_rec, d_s
