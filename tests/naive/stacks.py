"""Layers one above the other: the inputs of each are h of the one below, and what comes back to them goes on to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from naive.arrays import Array, Batch, Params, length
from naive.cells import CELLS
from naive.flows import BOUND, counted, penalty_value, share, squared_gain
from naive.gradients import Flow, pull_back
from naive.losses import loss, loss_slope
from naive.states import forward, outputs


def stacked_states(
    layers: list[Params], cells: list[str], inputs: Array, starts: Any = None, noises: Any = None
) -> list[Array]:
    """Return the states (T+1,B,S,H) of every layer, from the bottom on; `noises` has (T,B,G,H) for each."""
    found = []
    for k, (p, cell) in enumerate(zip(layers, cells, strict=True)):
        states = forward(p, cell, inputs, starts and starts[k], noises and noises[k])
        found.append(states)
        inputs = states[1:, :, 0]
    return found


def stacked_loss(
    layers: list[Params], cells: list[str], loss_name: str, batch: Batch, starts: Any = None, noises: Any = None
) -> Any:
    """Return the loss; complex-safe."""
    y = outputs(layers[-1], stacked_states(layers, cells, batch[0], starts, noises)[-1])
    return loss(loss_name, y, batch[1], batch[2])


def unchanged(delta: Array) -> Array:
    """Return delta_t as it is."""
    return delta


def stacked_backward(
    layers: list[Params],
    cells: list[str],
    loss_name: str,
    batch: Batch,
    starts: Any = None,
    clip: Callable[[Array], Array] = unchanged,
) -> tuple[list[Flow], Array]:
    """Back-propagate through time and layers, from the top down; return each layer's record, and dL/dx (T,B,N).

    `clip` is what becomes of delta_t (S,H) of a sequence at every step, in each layer.
    """
    inputs, targets, weights = (np.asarray(a) for a in batch)
    states = stacked_states(layers, cells, inputs, starts)
    y = outputs(layers[-1], states[-1])
    slope = loss_slope(loss_name, y, targets, weights)
    slope = np.where(weights[..., None] != 0, slope, 0.0)
    above = np.einsum("tbm,hm->tbh", slope, layers[-1]["w_out"])
    flows: list[Flow] = []
    for k in reversed(range(len(layers))):
        below = inputs if k == 0 else states[k - 1][1:, :, 0]
        flow = swept(layers[k], cells[k], below, states[k], above, clip)
        if k == len(layers) - 1:
            flow.d_params["w_out"] += np.einsum("tbh,tbm->hm", states[k][1:, :, 0], slope)
            flow.d_params["b_out"] += slope.sum((0, 1))
        flows.insert(0, flow._replace(loss=float(loss(loss_name, y, targets, weights))))
        above = np.einsum("tbgh,ngh->tbn", flow.e_in, layers[k]["w_in"])
    return flows, above


def swept(p: Params, cell: str, inputs: Array, states: Array, above: Array, clip: Callable[[Array], Array]) -> Flow:
    """Return the record of one layer, to whose h of every step `above` (T,B,H) comes back."""
    (T, B), G, H = inputs.shape[:2], CELLS[cell].gates, p["w_rec"].shape[0]
    delta, v, direct = np.zeros(states.shape), np.zeros(states[1:].shape), np.zeros(states[1:].shape)
    e_in, e_rec, gain = np.zeros((T, B, G, H)), np.zeros((T, B, G, H)), np.full((T, B), np.nan)
    d = {name: np.zeros(a.shape) for name, a in p.items()}
    for b in range(B):
        for t in range(T, 0, -1):
            delta[t, b, 0] += above[t - 1, b]
            if not delta[t, b].any():
                continue
            delta[t, b] = clip(delta[t, b])
            x, before = inputs[t - 1, b], states[t - 1, b]
            back = pull_back(p, cell, x, before, delta[t, b])
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
    return Flow(0.0, states, delta, v, direct, e_in, e_rec, gain, d)


def stacked_omega_detached(
    layers: list[Params],
    cells: list[str],
    inputs: Array,
    penalty: str,
    reduction: str,
    deltas: list[Array],
    bound: float = BOUND,
    starts: Any = None,
) -> float:
    """Return the sum over layers of Omega as a function of the parameters, with each layer's delta frozen."""
    states, total = stacked_states(layers, cells, inputs, starts), 0.0
    for k, (p, cell, delta) in enumerate(zip(layers, cells, deltas, strict=True)):
        below = np.asarray(inputs) if k == 0 else states[k - 1][1:, :, 0]
        mask, omega = counted(delta, bound), 0.0
        for t, b in np.argwhere(mask):
            v = pull_back(p, cell, below[t, b], states[k][t, b], delta[t + 1, b]).v
            omega += float(penalty_value(penalty, squared_gain(v, delta[t + 1, b])))
        total += share(reduction, mask) * omega
    return total
