"""Regularizers of the network as a whole: the value goes to the report, the gradient is added, replica by replica."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np

from nbflow import _check
from nbflow.model.network import Network
from nbflow.records import Batch, Floats, Regularizer


@functools.lru_cache(maxsize=16)
def precise(net: Network) -> Network:
    """Return the same network in float64."""
    return dataclasses.replace(net, dtype="float64")


def regularize(
    penalty: Regularizer, net: Network, theta: Floats, batch: Any, alpha: Floats, d_theta: Floats, report: Floats
) -> None:
    """Write the values (R,) to the second column of the report and add alpha times the gradients to `d_theta` (R, P).

    The batch comes as three arrays with R in front. Where alpha is 0, no bit of `d_theta` is changed.
    """
    for r, row in enumerate(theta):
        one = Batch(*(part[r].astype(np.float64) if part.dtype.kind == "f" else part[r] for part in batch))
        report[r, 1], d = _value_and_gradient(penalty, precise(net), row.astype(np.float64), one)
        if alpha[r] != 0:
            d_theta[r] += alpha[r] * d


def _value_and_gradient(penalty: Regularizer, net: Network, theta: Floats, batch: Batch) -> tuple[float, Floats]:
    """Return what the function returns, and NaN for weights that are not finite: decompositions raise at these."""
    if not np.isfinite(theta).all():
        return np.nan, np.full(theta.shape, np.nan)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        found = penalty.value_and_gradient(net, theta, batch)
    if not isinstance(found, tuple) or len(found) != 2:
        raise TypeError(
            f"value_and_gradient returns {_check.said(found)}; expected (value, d_theta). Return a tuple of the two."
        )
    value, d = found
    if np.ndim(value) != 0 or np.result_type(value).kind not in "iuf":
        raise TypeError(
            f"value_and_gradient returns a value {_check.said(value)}; expected (value, d_theta), a real number first. "
            f"Return float(value)."
        )
    if np.shape(d) != theta.shape:
        raise ValueError(
            f"value_and_gradient returns a gradient of shape {np.shape(d)}; expected {theta.shape}. Return one like "
            f"theta."
        )
    if np.result_type(d).kind not in "iuf":
        raise TypeError(
            f"value_and_gradient returns a gradient of {np.result_type(d)}; expected real numbers. Cast it."
        )
    return value, d
