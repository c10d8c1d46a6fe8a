"""Omega, the penalty of the gain, and its derivatives with more or less of it frozen."""

from __future__ import annotations

from typing import Any

import numpy as np

from naive.arrays import Array, Batch, Params, length
from naive.cells import CELLS
from naive.gradients import Flow, backward, pull_back
from naive.parameters import unpack
from naive.states import forward

BOUND = 1e-20  # the least ||delta||^2 that Omega counts
FLOOR = 1e-20  # the least q that the log penalty tells from zero


@np.errstate(over="ignore", invalid="ignore")
def penalty_value(penalty: str, q: Any) -> Any:
    """Return the penalty at q = r^2; complex-safe.

    norm (r-1)^2 (book eq. 10.52; Pascanu 2013 eq. 9), squared (q-1)^2 (Pascanu 2013 eq. 10), log (log r)^2.
    """
    if penalty == "norm":
        return (np.sqrt(q) - 1) ** 2
    if penalty == "squared":
        return np.square(q - 1)
    if penalty == "log":
        return (0.5 * np.log(q if np.real(q) >= FLOOR else FLOOR)) ** 2
    raise ValueError(f"no penalty is called {penalty!r}")


@np.errstate(over="ignore", invalid="ignore")
def penalty_slope(penalty: str, q: float) -> float:
    """Return d penalty / dq; zero by definition at r = 0 (norm) and below the floor (log)."""
    if penalty == "norm":
        return float(1 - 1 / np.sqrt(q)) if q > 0 else 0.0
    if penalty == "squared":
        return 2 * (q - 1)
    if penalty == "log":
        return float(0.5 * np.log(q) / q) if q >= FLOOR else 0.0
    raise ValueError(f"no penalty is called {penalty!r}")


def squared_gain(v: Array, delta: Array) -> float:
    """Return q = (||v|| / ||delta||)^2 of one step."""
    r = length(v) / length(delta)
    return r * r


def counted(delta: Array, bound: float = BOUND) -> Array:
    """Return (T,B): whether Omega counts step t of sequence b, with ||delta_t||^2 >= bound and delta_t not zero."""
    T, B = delta.shape[0] - 1, delta.shape[1]
    mask = np.zeros((T, B), dtype=bool)
    for t in range(T):
        for b in range(B):
            size = length(delta[t + 1, b])
            mask[t, b] = size * size >= bound and size > 0
    return mask


def share(reduction: str, mask: Array) -> float:
    """Return the weight of one counted penalty: 1/B (sum over t, mean over b) or one over how many are counted."""
    if reduction == "sum":
        return 1 / int(mask.shape[1])
    if reduction == "mean":
        return 1 / int(mask.sum()) if mask.any() else 0.0
    raise ValueError(f"no reduction is called {reduction!r}")


def omega(penalty: str, reduction: str, flow: Flow, bound: float = BOUND) -> float:
    """Return Omega of a recorded flow (book eq. 10.52; Pascanu 2013 eq. 9-10)."""
    mask, total = counted(flow.delta, bound), 0.0
    for t, b in np.argwhere(mask):
        total += float(penalty_value(penalty, squared_gain(flow.v[t, b], flow.delta[t + 1, b])))
    return share(reduction, mask) * total


def omega_of(
    theta: Array,
    cell: str,
    N: int,
    H: int,
    M: int,
    loss_name: str,
    batch: Batch,
    penalty: str,
    reduction: str,
    bound: float = BOUND,
    s0: Array | None = None,
    noise: Array | None = None,
) -> float:
    """Return Omega as a function of theta, all of it moving: its slope is the exact derivative."""
    flow = backward(unpack(theta, cell, N, H, M), cell, loss_name, batch, s0, noise=noise)
    return omega(penalty, reduction, flow, bound)


def omega_detached(
    theta: Array,
    cell: str,
    N: int,
    H: int,
    M: int,
    inputs: Array,
    penalty: str,
    reduction: str,
    delta: Array,
    bound: float = BOUND,
    s0: Array | None = None,
    noise: Array | None = None,
) -> float:
    """Return Omega as a function of theta with only delta frozen: its slope is the detached derivative (the book's)."""
    p = unpack(theta, cell, N, H, M)
    states = forward(p, cell, inputs, s0, noise)
    mask, total = counted(delta, bound), 0.0
    for t, b in np.argwhere(mask):
        added = 0.0 if noise is None else noise[t, b]
        v = pull_back(p, cell, np.asarray(inputs)[t, b], states[t, b], delta[t + 1, b], added).v
        total += float(penalty_value(penalty, squared_gain(v, delta[t + 1, b])))
    return share(reduction, mask) * total


def omega_frozen(w_rec: Array, penalty: str, reduction: str, flow: Flow, bound: float = BOUND) -> Any:
    """Return Omega as a function of the w_rec explicit in J_t, with delta, the states and so e frozen; complex-safe."""
    mask, total = counted(flow.delta, bound), 0.0
    for t, b in np.argwhere(mask):
        v = flow.direct[t, b].astype(np.result_type(np.float64, w_rec))
        v[0] += np.einsum("gh,kgh->k", flow.e_rec[t, b], w_rec)
        scale = length(flow.delta[t + 1, b])
        total = total + penalty_value(penalty, np.sum((v / scale) ** 2))
    return share(reduction, mask) * total


def omega_immediate(penalty: str, reduction: str, flow: Flow, p: Params, cell: str, bound: float = BOUND) -> Array:
    """Return dOmega/dw_rec (H,G,H) with all constant but the explicit w_rec (Pascanu 2013 eq. 10; their code).

    The sum of 2 penalty'(q) / ||delta||^2 * outer(v, e), where v is the line of h, the one that w_rec reaches.
    """
    mask = counted(flow.delta, bound)
    d_w_rec = np.zeros(p["w_rec"].shape)
    for t, b in np.argwhere(mask):
        v, e, size = flow.v[t, b], flow.e_rec[t, b], length(flow.delta[t + 1, b])
        factor = 2 * penalty_slope(penalty, squared_gain(v, flow.delta[t + 1, b])) * share(reduction, mask)
        for g in range(CELLS[cell].gates):
            d_w_rec[:, g, :] += factor * np.outer(v[0] / size, e[g] / size)
    return d_w_rec
