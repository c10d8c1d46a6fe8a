"""HalvingRate: a learning rate that is halved when the score has not been better for a while."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nbflow import _check
from nbflow._legible import legible
from nbflow._plain import plain_fields
from nbflow.records import Floats
from nbflow.training._patience import Waiting
from nbflow.training._setting import Setting
from nbflow.training.run import Run


@legible
@dataclass(frozen=True)
class HalvingRate:
    """A learning rate that falls when the score does not: the `lr` of a `Recipe`.

    The rate is lr · factor^k, where k counts how often `patience` evaluations in a row were not better (2 · patience in
    a row count twice). Each replica has a rate of its own. It follows from the run's evaluations, so a run that goes on
    from a checkpoint has the same rates. Halving whenever the validation loss rises is the recipe of Pascanu,
    Mikolov, Bengio (2013) for music.

    PyTorch's ReduceLROnPlateau with patience n - 1, threshold_mode "abs" and threshold min_delta does the same with
    patience n.

    Parameters
    ----------
    lr : float, or float array of shape (R,)
        The rate at first.
    factor : float
        What it is multiplied by, above 0 and below 1.
    patience : int
        Evaluations in a row that are not better: 1 for a lower rate after each of them.
    min_delta : float
        By how much a score must fall below the last one that was better to be better itself, in the `unit` of the run.
    least : float
        The rate never falls below it (or below `lr`, if that is lower).

    Raises
    ------
    TypeError, ValueError
        If a field makes no sense.

    Examples
    --------
    >>> import nbflow as nf
    >>> net = nf.Network(cell="tanh", n_in=6, n_hidden=8, n_out=4)
    >>> recipe = nf.Recipe(
    ...     lr=nf.HalvingRate(0.1, patience=2),
    ...     lengths=10,
    ...     max_updates=100,
    ...     record_every=10,
    ...     evaluate_every=10,
    ...     evaluate_size=50,
    ... )
    >>> run = nf.train(net, nf.init(net, "smart_tanh", rng=0), "temporal_order", recipe)
    >>> run.history["lr"][0] > run.history["lr"][-1]
    True
    """

    lr: float | Floats
    factor: float = 0.5
    patience: int = 1
    min_delta: float = 0.0
    least: float = 0.0

    def __post_init__(self) -> None:
        """Check every field."""
        plain_fields(self)
        _check.per_replica("lr", self.lr, np.size(self.lr), least=0.0, finite=True)
        _check.part("factor", self.factor)
        _check.count("patience", self.patience)
        for name in ("min_delta", "least"):
            _check.per_replica(name, getattr(self, name), 1, least=0.0, finite=True)


def first_rate(lr: Any) -> Any:
    """Return a learning rate for a run that is not evaluated: of one that follows scores what it is at first."""
    return lr.lr if isinstance(lr, HalvingRate) else lr


class Halving(Setting):
    """The rate at work in a run: what `Setting.at` gives follows the evaluations."""

    def __init__(self, how: HalvingRate, replicas: int, dtype: Any, run: Run, every: int) -> None:
        super().__init__("lr", how.lr, replicas, dtype, least=0.0, finite=True)
        self.how, self.run, self.every = how, run, every
        self.waiting, self.times = Waiting(replicas, how.min_delta), np.zeros(replicas, np.int64)
        self.first, self.rates = _check.per_replica("lr", how.lr, replicas), self._checked(how.lr)

    def at(self, update: int) -> Floats:
        """Return the rates (R,) after the evaluations so far."""
        new = self.waiting.new(self.run.evaluations, self.every)
        for scores in new:
            self.waiting.see(scores)
            waited = self.waiting.waited
            self.times += (waited > 0) & (waited % self.how.patience == 0)
        if new:
            least = np.minimum(self.first, self.how.least)
            self.rates = np.maximum(self.first * self.how.factor**self.times, least).astype(self.dtype)
        return self.rates
