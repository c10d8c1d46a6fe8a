"""Layers of two directions: each sequence alone, forward as it is and reversed as a whole, with h side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from naive.arrays import Array, Batch, Params
from naive.gradients import Flow
from naive.losses import loss, loss_slope
from naive.stacks import swept, unchanged
from naive.states import forward


def two_way_states(layers: list[Params], cells: list[str], x: Array, starts: Any = None) -> list[Array]:
    """Return the states (T+1,1,S,H) of every direction of one sequence (T,1,N), each in its own time."""
    found, inputs = [], x
    for k in range(0, len(layers), 2):
        each = [
            forward(p, cells[(k + way) // 2], inputs[:: -1 if way else 1], None if starts is None else starts[k + way])
            for way, p in enumerate(layers[k : k + 2])
        ]
        found += each
        inputs = side_by_side(*each)
    return found


def side_by_side(one: Array, two: Array) -> Array:
    """Return h of both directions (T,1,2H) in the time of the first."""
    return np.concatenate([one[1:, :, 0], two[:0:-1, :, 0]], axis=-1)


def two_way_outputs(layers: list[Params], states: list[Array]) -> Array:
    """Return y (T,1,M); w_out and b_out are those of the last direction."""
    return np.einsum("tbh,hm->tbm", side_by_side(*states[-2:]), layers[-1]["w_out"]) + layers[-1]["b_out"]


def two_way_loss(
    layers: list[Params], cells: list[str], loss_name: str, batch: Batch, lengths: Array, starts: Any = None
) -> Any:
    """Return the loss of sequences that are so long; complex-safe."""
    inputs, targets, weights = batch
    total: Any = 0.0
    for b, T in enumerate(lengths):
        if T:
            first = None if starts is None else [s[b : b + 1] for s in starts]
            y = two_way_outputs(layers, two_way_states(layers, cells, inputs[:T, b : b + 1], first))
            total = total + loss(loss_name, y, targets[:T, b : b + 1], weights[:T, b : b + 1])
    return total


def two_way_backward(
    layers: list[Params],
    cells: list[str],
    loss_name: str,
    batch: Batch,
    lengths: Array,
    starts: Any = None,
    clip: Callable[[Array], Array] = unchanged,
) -> tuple[float, list[Params], Array, list[list[Flow]]]:
    """Return loss, gradient of every direction, dL/dx (T,B,N), and each sequence's records, one a direction."""
    inputs, targets, weights = (np.asarray(a) for a in batch)
    total, d = 0.0, [{name: np.zeros(a.shape) for name, a in p.items()} for p in layers]
    d_inputs = np.zeros((*weights.shape, layers[0]["w_in"].shape[0]))
    records: list[list[Flow]] = []
    for b, T in enumerate(lengths):
        if T == 0:
            records.append([])
            continue
        x, here = inputs[:T, b : b + 1], weights[:T, b : b + 1]
        states = two_way_states(layers, cells, x, None if starts is None else [s[b : b + 1] for s in starts])
        y = two_way_outputs(layers, states)
        total += float(loss(loss_name, y, targets[:T, b : b + 1], here))
        slope = np.where(here[..., None] != 0, loss_slope(loss_name, y, targets[:T, b : b + 1], here), 0.0)
        d[-1]["w_out"] += np.einsum("tbh,tbm->hm", side_by_side(*states[-2:]), slope)
        d[-1]["b_out"] += slope.sum((0, 1))
        above = np.einsum("tbm,hm->tbh", slope, layers[-1]["w_out"])
        flows: list[Flow] = []
        for k in reversed(range(0, len(layers), 2)):
            below = x if k == 0 else side_by_side(*states[k - 2 : k])
            H, back = states[k].shape[-1], np.zeros((T, 1, layers[k]["w_in"].shape[0]))
            for way in (1, 0):
                turn = slice(None, None, -1 if way else 1)
                h = above[turn, :, H * way : H * (way + 1)]
                flow = swept(layers[k + way], cells[k // 2], below[turn], states[k + way], h, clip)
                back += np.einsum("tbgh,ngh->tbn", flow.e_in, layers[k + way]["w_in"])[turn]
                flows.insert(0, flow)
                for name in ("w_in", "w_rec", "bias", "bias_rec"):
                    if name in d[k + way]:
                        d[k + way][name] += flow.d_params[name]
            above = back
        d_inputs[:T, b] = above[:, 0]
        records.append(flows)
    return total, d, d_inputs, records
