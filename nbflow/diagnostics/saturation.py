"""How often the nonlinearities of a network are near an end of their range, where next to no gradient passes."""

from __future__ import annotations

from typing import Any

import numpy as np

from nbflow import _check
from nbflow.gradients._engine import engine_of
from nbflow.gradients.workspace import Buffers, buffers_for
from nbflow.model import _arguments
from nbflow.model._step import last_step
from nbflow.model.network import Network
from nbflow.records import Batch, Cell, Floats, Saturation, SequenceMean
from nbflow.statistics import mean_interval


def saturation(
    net: Network,
    theta: Floats,
    batch: Batch,
    *,
    state: Floats | None = None,
    margin: float = 0.1,
    confidence: float = 0.95,
    backend: str = "cpu",
    workspace: Buffers | None = None,
) -> Saturation:
    """Count the steps at which each gate of each unit is saturated.

    A gate is saturated where what its nonlinearity gives is nearer than `margin` of its range to one of the ends
    (Karpathy, Johnson, Fei-Fei 2015, who count gates below 0.1 and above 0.9). Its slope is then less than
    4 margin (1 - margin) of the largest, for a sigmoid as for a tanh: 0.36 for 0.1. The end of a half-open range is
    reached at that end alone: a relu is saturated where it gives 0.

    Parameters
    ----------
    net : Network
        Whose cell declares the ranges of its gates.
    theta : array of shape (P,) or (R, P)
    batch : Batch
        With R in front of every shape if theta has it. Steps after a sequence's last one with weight do not count.
    state : array of shape (B, S, H), optional
        The state before the first step, zeros by default.
    margin : float
        Part of the range, below 0.5.
    confidence : float
        Of the interval over sequences.
    backend : str
        "cpu", or "cuda" for a GPU.
    workspace : Buffers, optional

    Returns
    -------
    Saturation
        In float64, with R in front of every shape if theta has it; NaN where a gate was NaN, or nothing counts.

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense or the cell declares no ranges.

    Examples
    --------
    A bias of -5 shuts the input gate; all the other biases are 0:

    >>> import nbflow as nf
    >>> net = nf.Network(cell="lstm", n_in=6, n_hidden=5, n_out=4)
    >>> theta = nf.init(net, "orthogonal", rng=0)
    >>> nf.unpack(net, theta).bias[0] = -5
    >>> batch = nf.load_task("temporal_order").sample(seed=0, index=0, batch_size=9, length=10)
    >>> seen = saturation(net, theta, batch)
    >>> seen.gates, seen.part.mean
    (('i', 'f', 'g', 'o'), array([1., 0., 0., 0.]))
    """
    engine = engine_of(backend)
    margin, confidence = _check_margin(margin), _check.part("confidence", confidence)
    checked = _arguments.computation(net, theta, batch)
    asked = _arguments.beginning(net, state, checked)
    where, ranges = _places(net.cell_object), np.array(net.cell_object.ranges)
    with buffers_for(net, checked, workspace) as buffers:
        states, saved = engine.activations(buffers, checked, asked)
    gates = saved[..., where, :] if where else states[..., :1, :]  # (R, T, B, G, H)
    low_end, high_end = ranges.T[:, :, None]  # (G, 1), beside (R, T, B, G, H)
    room = np.where(np.isfinite(high_end - low_end), margin * (high_end - low_end), 0.0)
    with np.errstate(invalid="ignore"):
        unknown = np.isnan(gates)
        low = np.where(unknown, np.nan, gates <= low_end + room)
        high = np.where(unknown, np.nan, gates >= high_end - room)
    steps = np.arange(gates.shape[1])[:, None]
    taken = (steps < last_step(checked.weights)[:, None, :])[..., None, None]
    either = low + high
    found = Saturation(
        gates=net.cell_object.gates,
        low=_mean(low, taken, (1, 2)),
        high=_mean(high, taken, (1, 2)),
        by_step=_mean(either, taken, (2, 4)),
        part=mean_interval(np.moveaxis(_mean(either, taken, (1, 4)), 1, -1), confidence=confidence),
    )
    return _single(found) if checked.single else found


def _check_margin(value: Any) -> float:
    found = float(_check.per_replica("margin", value, 1, least=0.0)[0])
    if found >= 0.5:
        raise ValueError(f"margin is {found:g}; expected a part of the range below 0.5. The usual one is 0.1.")
    return found


def _places(cell: Cell) -> list[int]:
    """Return where in `saved` each gate's activation stands; an empty list for that of the first state."""
    if len(cell.ranges) != len(cell.gates):
        raise ValueError(
            f"cell has {len(cell.ranges)} ranges; expected one for each of its gates {', '.join(cell.gates)}. "
            f"Write nbflow.Cell(..., ranges=((0.0, 1.0), ...))."
        )
    missing = [gate for gate in cell.gates if gate not in cell.saved]
    if not missing:
        return [cell.saved.index(gate) for gate in cell.gates]
    if len(cell.gates) > 1:
        raise ValueError(
            f"cell saves {', '.join(cell.saved) or 'nothing'}; expected a number for each of its gates. Let step save "
            f"{', '.join(missing)}."
        )
    return []


def _mean(values: Floats, taken: Any, axes: tuple[int, ...]) -> Floats:
    """Return the mean over some axes of what is taken, NaN where nothing is."""
    taken = np.broadcast_to(taken, values.shape)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Floats = np.where(taken, values, 0).sum(axis=axes) / taken.sum(axis=axes)
    return found


def _single(found: Saturation) -> Saturation:
    """Return the only network's."""
    low, high, by_step = found.low[0], found.high[0], found.by_step[0]
    return Saturation(found.gates, low, high, by_step, SequenceMean(*(part[0] for part in found.part)))
