"""Thresholds for a comparison of rules: from the norms of unclipped gradients, or such that all rules act alike."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable
from typing import Any

import numpy as np

from nbflow import _check
from nbflow.diagnostics._minibatches import Minibatches, check_minibatches, lengths, strength
from nbflow.diagnostics._ways import check_way, way_of
from nbflow.model import _arguments
from nbflow.model.network import Network
from nbflow.records import Batch, Floats

# How far from the mean norm a threshold is looked for, on both sides, in powers of two.
REACH = 40.0


def norm_quantiles(net: Network, theta: Floats, batches: Iterable[Batch], q: Any) -> Any:
    """Return quantiles of the norms of unclipped minibatch gradients, as thresholds.

    Parameters
    ----------
    net : Network
    theta : array of shape (P,)
    batches : iterable of Batch
        A minibatch each.
    q : float or sequence of float
        From 0 to 1; 0.5 is the median.

    Returns
    -------
    float, or array like q

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense.

    Examples
    --------
    >>> import nbflow as nf
    >>> net = nf.Network(cell="tanh", n_in=6, n_hidden=10, n_out=4)
    >>> theta, task = nf.init(net, "basic_tanh", rng=0), nf.load_task("temporal_order")
    >>> batches = [task.sample(seed=0, index=k, batch_size=10, length=10) for k in range(20)]
    >>> low, high = nf.norm_quantiles(net, theta, batches, [0.1, 0.9])
    >>> bool(0 < low < high < 1)
    True
    """
    _arguments.network(net)
    try:
        wanted = np.asarray(q, np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"q is {_check.said(q)}; expected numbers from 0 to 1. Write 0.9 for 90 %.") from None
    if not ((wanted >= 0) & (wanted <= 1)).all():
        raise ValueError(f"q is {_check.said(q)}; expected numbers from 0 to 1. Write 0.9 for 90 %.")
    data = Minibatches(net, theta, check_minibatches(net, theta, batches, least=1))
    found = np.quantile(lengths(data.gradients()[0]), wanted)
    return float(found) if found.ndim == 0 else found


def matched_threshold(
    net: Network, theta: Floats, batches: Iterable[Batch], how: Any, *, part: float = 0.5, rng: Any = None
) -> float:
    """Find the threshold at which the mean norm of the clipped gradients is a part of that of the unclipped.

    Rules measure different things, entries, units, examples, back-propagated vectors, so the same threshold says
    nothing of them: compare them where they shorten steps alike.

    Parameters
    ----------
    net : Network
    theta : array of shape (P,)
    batches : iterable of Batch
        A minibatch each.
    how : Clip, HiddenClip, ExampleClip or MicrobatchClip
        Its threshold does not matter.
    part : float
        Above 0 and below 1.
    rng : None, int or numpy.random.Generator
        For random steps.

    Returns
    -------
    float

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense, or no threshold does it: a clip inside BPTT leaves the output layer as it is.

    Examples
    --------
    >>> import nbflow as nf
    >>> net = nf.Network(cell="tanh", n_in=6, n_hidden=10, n_out=4)
    >>> theta, task = nf.init(net, "basic_tanh", rng=0), nf.load_task("temporal_order")
    >>> batches = [task.sample(seed=0, index=k, batch_size=10, length=10) for k in range(20)]
    >>> how = nf.Clip("value", nf.matched_threshold(net, theta, batches, nf.Clip("value", 1.0)))
    >>> round(nf.clipping_bias(net, theta, batches, {"value": how}).rules["value"].strength, 3)
    0.5
    """
    from scipy.optimize import brentq

    _arguments.network(net)
    part, seed = _check.part("part", part), int(_check.generator("rng", rng).integers(2**32))
    data = Minibatches(net, theta, check_minibatches(net, theta, batches, least=1))
    check_way(how, data)
    if isinstance(how.threshold, dict):
        raise ValueError(
            "threshold is by block; expected one number, for one is looked for. Give nbflow.Clip('block', 1.0), say."
        )
    plain, _ = data.gradients()

    @functools.cache
    def excess(power: float) -> float:
        some = dataclasses.replace(how, threshold=float(2.0**power))
        return strength(way_of(data, plain, some, np.random.default_rng(seed)).rows, plain) - part

    middle = float(np.log2(lengths(plain).mean()))
    ends = middle - REACH, middle + REACH
    if not excess(ends[0]) < 0 < excess(ends[1]):
        least = excess(ends[0]) + part
        raise ValueError(
            f"part is {part:g}; expected more than {least:.3g}, for this way of clipping shortens these gradients no "
            f"further. Give such a one."
        )
    return float(2.0 ** brentq(excess, *ends, xtol=1e-4))
