"""The way back: a batch's gradient flow, step by step."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from naive.arrays import Array, Batch, Params, length
from naive.calculus import TINY
from naive.cells import CELLS
from naive.losses import loss, loss_slope
from naive.parameters import pack, unpack
from naive.states import forward, outputs, preactivations


class Pulled(NamedTuple):
    """What one step makes of delta_t: v = J^T delta, the gradients at a_in and a_rec, and v less its w_rec part."""

    v: Array
    e_in: Array
    e_rec: Array
    direct: Array


class Flow(NamedTuple):
    """The gradients of one batch by time step.

    states and delta are (T+1,B,S,H), delta[t] = dL/ds_t in total. For step t = 1..T, at index t-1: v (T,B,S,H) is
    J_t^T delta_t, direct (T,B,S,H) the part of v that does not pass through w_rec, e_in and e_rec (T,B,G,H) the
    gradients at a_in and a_rec, gain (T,B) = ||v_t|| / ||delta_t||, NaN where delta_t is zero.
    """

    loss: float
    states: Array
    delta: Array
    v: Array
    direct: Array
    e_in: Array
    e_rec: Array
    gain: Array
    d_params: Params


def partials(cell: str, a_in: Array, a_rec: Array, s: Array) -> tuple[Array, Array, Array]:
    """Return d step / d a_in (G,S,H), / d a_rec (G,S,H) and / d s (S,S,H), by complex step, the nudged line first."""
    found = []
    for k, argument in enumerate((a_in, a_rec, s)):
        slopes = []
        for line in range(len(argument)):
            nudged = [a_in, a_rec, s]
            nudged[k] = argument.astype(complex)
            nudged[k][line] += 1j * TINY
            slopes.append(np.imag(CELLS[cell].step(*nudged)) / TINY)
        found.append(np.stack(slopes))
    return found[0], found[1], found[2]


@np.errstate(over="ignore", invalid="ignore")
def jacobian(p: Params, cell: str, x: Array, s: Array) -> Array:
    """Return J = ds_t/ds_{t-1} (S*H,S*H) of one sequence at s_{t-1} = s (S,H): column j nudges entry j of s."""
    J = np.zeros((s.size, s.size))
    for j in range(s.size):
        nudged = s.astype(complex)
        nudged.flat[j] += 1j * TINY
        J[:, j] = np.imag(CELLS[cell].step(*preactivations(p, cell, x, nudged), nudged)).ravel() / TINY
    return J


@np.errstate(over="ignore", invalid="ignore")
def pull_back(p: Params, cell: str, x: Array, s: Array, delta: Array, noise: Any = 0.0) -> Pulled:
    """Send delta_t (S,H) back through one step taken from s_{t-1} = s (Pascanu 2013 eq. 5; book eq. 10.20)."""
    to_in, to_rec, to_s = partials(cell, *preactivations(p, cell, x, s, noise), s)
    e_in = np.einsum("gsh,sh->gh", to_in, delta)
    e_rec = np.einsum("gsh,sh->gh", to_rec, delta)
    direct = np.einsum("lsh,sh->lh", to_s, delta)
    v = direct.copy()
    v[0] += np.einsum("gh,kgh->k", e_rec, p["w_rec"])
    return Pulled(v, e_in, e_rec, direct)


@np.errstate(over="ignore", invalid="ignore")
def backward(
    p: Params, cell: str, loss_name: str, batch: Batch, s0: Array | None = None, detached: Any = (),
    noise: Array | None = None,
) -> Flow:  # fmt: skip
    """Back-propagate through time (book eq. 10.18-10.28); of a zero delta_t nothing flows, not even NaN.

    At a step t in `detached`, h_{t-1} is a constant to the pre-activations (h-detach, Arpit et al. 2018). `noise`
    (T,B,G,H) is added to a_in.
    """
    inputs, targets, weights = (np.asarray(a) for a in batch)
    states = forward(p, cell, inputs, s0, noise)
    y = outputs(p, states)
    slope = loss_slope(loss_name, y, targets, weights)
    T, B, G, H = len(y), y.shape[1], CELLS[cell].gates, p["w_rec"].shape[0]
    delta, v, direct = np.zeros(states.shape), np.zeros(states[1:].shape), np.zeros(states[1:].shape)
    e_in, e_rec = np.zeros((T, B, G, H)), np.zeros((T, B, G, H))
    gain = np.full((T, B), np.nan)
    d = {name: np.zeros(a.shape) for name, a in p.items()}
    for b in range(B):
        for t in range(T, 0, -1):
            if weights[t - 1, b] != 0:
                delta[t, b, 0] += p["w_out"] @ slope[t - 1, b]
                d["w_out"] += np.outer(states[t, b, 0], slope[t - 1, b])
                d["b_out"] += slope[t - 1, b]
            if not delta[t, b].any():
                continue
            x, before = inputs[t - 1, b], states[t - 1, b]
            back = pull_back(p, cell, x, before, delta[t, b], 0.0 if noise is None else noise[t - 1, b])
            if t in detached:
                back = back._replace(v=back.direct)
            delta[t - 1, b] = back.v
            v[t - 1, b], direct[t - 1, b], e_in[t - 1, b], e_rec[t - 1, b] = back.v, back.direct, back.e_in, back.e_rec
            gain[t - 1, b] = length(back.v) / length(delta[t, b])
            if np.ndim(x) == 0:
                d["w_in"][x] += back.e_in
            else:
                d["w_in"] += np.einsum("n,gh->ngh", x, back.e_in)
            d["w_rec"] += np.einsum("k,gh->kgh", before[0], back.e_rec)
            d["bias"] += back.e_in
            if CELLS[cell].has_bias_rec:
                d["bias_rec"] += back.e_rec
    return Flow(float(loss(loss_name, y, targets, weights)), states, delta, v, direct, e_in, e_rec, gain, d)


def loss_of(
    theta: Array, cell: str, N: int, H: int, M: int, loss_name: str, batch: Batch, s0: Array | None = None,
    noise: Array | None = None,
) -> Any:  # fmt: skip
    """Return the loss as a function of theta; complex-safe."""
    p = unpack(theta, cell, N, H, M)
    return loss(loss_name, outputs(p, forward(p, cell, batch[0], s0, noise)), batch[1], batch[2])


def gradient(
    theta: Array, cell: str, N: int, H: int, M: int, loss_name: str, batch: Batch, s0: Array | None = None
) -> tuple[float, Array]:
    """Return the loss and its gradient (P,)."""
    flow = backward(unpack(theta, cell, N, H, M), cell, loss_name, batch, s0)
    return flow.loss, pack(flow.d_params)
