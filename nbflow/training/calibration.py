"""Which threshold to try: the norms of gradients that are not clipped."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from nbflow import _check
from nbflow.data.sampler import Sampler
from nbflow.model.stack import Model
from nbflow.records import Calibration, Floats
from nbflow.training._batches import Source
from nbflow.training.halving_rate import first_rate
from nbflow.training.recipe import Recipe, check_recipe
from nbflow.training.train import train

LEVELS = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
# Times the mean: Pascanu, Mikolov, Bengio 2013, section 3.2.
LOW, HIGH = 0.5, 10.0


def calibrate_threshold(
    net: Model, theta: Floats, task: str | Sampler | Source, recipe: Recipe, *, updates: int = 1000, seed: int = 0
) -> Calibration:
    """Train without clipping for some updates, and tell how large the gradients are.

    Pascanu, Mikolov, Bengio 2013, section 3.2, look at the mean norm over many updates, and find that thresholds from
    half to ten times that mean work: `low` and `high`.

    A training that is not clipped may diverge. Then theta, and every gradient after that, is not finite: these are
    counted in `nonfinite` and left out of mean, median and quantiles, which are those of the updates before. A mean far
    above the median tells of a few steep places: choose by the quantiles there.

    Parameters
    ----------
    net : Network or Stack
    theta : array of shape (P,) or (R, P)
        Where to begin; it is not changed.
    task : str, Task, task of a user's data, or function of the update that returns a Batch
    recipe : Recipe
        As for `nbflow.train`. Its `clip` is left out; `max_updates` is `updates`, and nothing is evaluated.
    updates : int
        n, how many gradients to look at.
    seed : int
        Of the task's sequences, as in `nbflow.train`.

    Returns
    -------
    Calibration

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense.
    KeyboardInterrupt
        After a Ctrl-C: fewer norms than were asked for would say something else.

    Examples
    --------
    >>> import nbflow as nf
    >>> net = nf.Network(cell="tanh", n_in=6, n_hidden=20, n_out=4)
    >>> theta, recipe = nf.init(net, "smart_tanh", rng=0), nf.Recipe(lengths=10, lr=0.01)
    >>> seen = nf.calibrate_threshold(net, theta, "temporal_order", recipe, updates=100)
    >>> seen.norms.shape, seen.nonfinite, seen.low < seen.median < seen.high
    ((100,), 0, True)
    >>> recipe = nf.Recipe(lengths=10, lr=0.01, clip=nf.Clip("norm", seen.mean))
    """
    n = _check.count("updates", updates)
    recipe = check_recipe(recipe)
    bare = dataclasses.replace(
        recipe, clip=None, max_updates=n, record_every=1, evaluate_every=0, lr=first_rate(recipe.lr)
    )
    run = train(net, theta, task, bare, seed=seed)
    if run.interrupted:
        raise KeyboardInterrupt
    history = run.history
    norms = np.where(np.equal(history["nonfinite"], 0), history["norm"], np.nan)
    each = [_summary(column) for column in norms.reshape(len(norms), -1).T]
    single = norms.ndim == 1
    mean, median, quantiles, nonfinite = (part[0] if single else np.array(part) for part in zip(*each, strict=True))
    return Calibration(
        norms, mean, median, quantiles if single else quantiles.T, LEVELS, nonfinite, LOW * mean, HIGH * mean
    )


def _summary(norms: Floats) -> tuple[float, float, Floats, int]:
    """Return mean, median, quantiles and the number of those that are not finite."""
    finite = norms[np.isfinite(norms)]
    missing = norms.size - finite.size
    if not finite.size:
        return math.nan, math.nan, np.full(len(LEVELS), math.nan), missing
    return float(finite.mean()), float(np.median(finite)), np.quantile(finite, LEVELS), missing
