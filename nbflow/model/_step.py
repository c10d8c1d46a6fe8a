"""One step of a network in NumPy, and where sequences end: for drivers and regularizers that have no kernel."""

from __future__ import annotations

from typing import Any

import numpy as np

from nbflow.records import Params


def preactivations(params: Params, x: Any, h: Any) -> tuple[Any, Any]:
    """Return a_in and a_rec (B, G, H) of a step from its inputs, (B, N) or tokens (B,), and h (B, H).

    Parameters, and h, may have axes in front.
    """
    gates, hidden = params.bias.shape[-2:]

    def times(rows: Any, w: Any) -> Any:
        flat = rows @ w.reshape(*w.shape[:-2], gates * hidden)
        return flat.reshape(*flat.shape[:-1], gates, hidden)

    a_in = params.w_in[..., x, :, :] if x.dtype.kind in "iu" else times(x, params.w_in)
    a_rec = times(h, params.w_rec)
    if params.bias_rec.size:
        a_rec = a_rec + params.bias_rec[..., None, :, :]
    return a_in + params.bias[..., None, :, :], a_rec


def last_step(weights: Any) -> Any:
    """Return the last step with weight of every sequence, 1 to T, or 0: (B,), or (R, B)."""
    steps = weights.shape[-2]
    backwards = np.flip(weights != 0, axis=-2)
    return np.where(backwards.any(axis=-2), steps - backwards.argmax(axis=-2), 0)
