"""The size of the gradient, and its gain, by the number of steps that it has come back."""

from __future__ import annotations

from typing import Any

import numpy as np

from nbflow import _check
from nbflow.diagnostics._gradient_flow import trace
from nbflow.gradients.workspace import Buffers
from nbflow.model import _arguments
from nbflow.model._step import last_step
from nbflow.model.network import Network
from nbflow.records import Batch, Floats, LagProfile, SequenceMean
from nbflow.statistics import mean_interval


def gains_by_lag(
    net: Network,
    theta: Floats,
    batch: Batch,
    *,
    state: Floats | None = None,
    confidence: float = 0.95,
    backend: str = "cpu",
    workspace: Buffers | None = None,
) -> LagProfile:
    """Compute the norm of delta and the gain by lag, the steps before a sequence's last one with weight.

    What `nbflow.trace` gives for every step and sequence, aligned where the sequences end and averaged over them. Both
    span orders of magnitude, so means are geometric, and so are their intervals: Student's t of the logarithms. A delta
    that is exactly 0 has no logarithm; it is counted instead.

    Parameters
    ----------
    net : Network
    theta : array of shape (P,) or (R, P)
    batch : Batch
        With R in front of every shape if theta has it.
    state : array of shape (B, S, H), optional
        The state before the first step, zeros by default.
    confidence : float
        Of the intervals.
    backend : str
        "cpu", or "cuda" for a GPU.
    workspace : Buffers, optional

    Returns
    -------
    LagProfile

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense.

    Examples
    --------
    >>> import nbflow as nf
    >>> net = nf.Network(cell="linear", n_in=6, n_hidden=5, n_out=4, dtype="float64")
    >>> theta = nf.init(net, "orthogonal", rng=0)
    >>> nf.unpack(net, theta).w_rec[:] *= 0.5
    >>> batch = nf.load_task("temporal_order").sample(seed=0, index=0, batch_size=9, length=10, dtype="float64")
    >>> seen = nf.gains_by_lag(net, theta, batch)
    >>> seen.gain.mean.round(6)
    array([0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5])
    >>> round(float(seen.delta_norm.mean[0] / seen.delta_norm.mean[10]), 6)
    1024.0
    """
    _arguments.network(net)
    confidence = _check.part("confidence", confidence)
    seen = trace(net, theta, batch, state=state, backend=backend, workspace=workspace)
    return profile(seen.delta_norm, seen.gain, batch.weights, confidence)


def profile(delta_norm: Floats, gain: Floats, weights: Any, confidence: float = 0.95) -> LagProfile:
    """Return norms (..., T+1, B) and gains (..., T, B) by lag, aligned where weights say that sequences end."""
    last = last_step(weights)
    norms = _aligned(delta_norm, np.where(last > 0, last, -1))
    gains = _aligned(gain, last - 1)  # the gain of J_t stands at t - 1
    return LagProfile(
        delta_norm=_geometric(norms, confidence),
        gain=_geometric(gains, confidence),
        zeros=(norms == 0).sum(axis=-1),
        norms=norms,
        gains=gains,
    )


def _aligned(values: Floats, start: Any) -> Floats:
    """Return values (..., T, B) read backwards in time from each sequence's `start` (..., B), NaN before the first."""
    at = start[..., None, :] - np.arange(values.shape[-2])[:, None]
    found = np.take_along_axis(values.astype(np.float64), np.maximum(at, 0), axis=-2)
    return np.where(at >= 0, found, np.nan)


def _geometric(values: Floats, confidence: float) -> SequenceMean:
    """Return the geometric mean over sequences, of values that are not 0, with its interval."""
    with np.errstate(divide="ignore", over="ignore"):
        logs = np.log(np.where(values == 0, np.nan, values))
        mean, low, high, count = mean_interval(logs, confidence=confidence)
        return SequenceMean(np.exp(mean), np.exp(low), np.exp(high), count)
