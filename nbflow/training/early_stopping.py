"""EarlyStopping: a training ends when its score has not been better for a while."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nbflow import _check
from nbflow._legible import legible
from nbflow._plain import plain_fields
from nbflow.training._patience import Waiting
from nbflow.training.run import Run


@legible
@dataclass(frozen=True)
class EarlyStopping:
    """Ends a training when its score has not been better for `patience` evaluations in a row; a callback of `nf.train`.

    It looks at `run.evaluations` and remembers nothing. So a run that goes on from a checkpoint ends at the same
    update, to the same bits, and one that has ended here stays ended, unless it is given more patience. Of R replicas
    all must have run out of patience once, each for itself; until then all go on. `run.theta` is where training ended,
    and `run.best` has the parameters of the best evaluation.

    An evaluation at the end of a run that is at no multiple of `evaluate_every` does not count, for a longer run would
    not have it.

    Parameters
    ----------
    patience : int
        Evaluations in a row, `evaluate_every` updates each, that are not better: 1 ends at the first of them.
    min_delta : float
        By how much a score must fall below the last one that was better to be better itself, in the `unit` of the run.
    keep : str or None
        "best": `run.best` is kept, as in every training that is evaluated. None: it is not, which saves one copy of
        theta in memory, and in checkpoints.

    Raises
    ------
    TypeError, ValueError
        If a field makes no sense.

    Examples
    --------
    >>> import numpy as np, nbflow as nf
    >>> rng = np.random.default_rng(0)
    >>> inputs, targets = rng.normal(size=(60, 5, 3)).astype(np.float32), rng.integers(0, 2, 60)  # pure noise
    >>> task = nf.arrays(inputs, targets, batch_first=True, held_out=0.3, seed=0)
    >>> net = nf.Network("tanh", task.n_in, 16, task.n_out, task.loss)
    >>> recipe = nf.Recipe(optimizer="adam", lr=0.03, lengths=5, max_updates=1000, evaluate_every=5)
    >>> run = nf.train(net, nf.init(net, "glorot", rng=0), task, recipe, callbacks=[nf.EarlyStopping(patience=4)])
    >>> run.updates < 1000, run.best.theta.shape == (net.size,)
    (True, True)
    >>> run.best.score == min(run.evaluations["score"])
    True
    """

    patience: int
    min_delta: float = 0.0
    keep: str | None = "best"

    def __post_init__(self) -> None:
        """Check every field."""
        plain_fields(self)
        _check.count("patience", self.patience)
        _check.per_replica("min_delta", self.min_delta, 1, least=0.0, finite=True)
        if self.keep not in ("best", None):
            raise ValueError(
                f"keep is {_check.said(self.keep)}; expected 'best' or None. run.theta is the last in any case."
            )

    def __call__(self, run: Run) -> bool:
        """Return whether to end a run that has had these evaluations."""
        return Stopper(self, 1 if run.theta.ndim == 1 else len(run.theta)).out(run)


class Stopper:
    """Early stopping at work in a run of R replicas."""

    def __init__(self, how: EarlyStopping, replicas: int) -> None:
        self.how, self.waiting = how, Waiting(replicas, how.min_delta)
        self.is_out = np.zeros(replicas, bool)

    def out(self, run: Run) -> bool:
        """Return whether all replicas have run out of patience."""
        for scores in self.waiting.new(run.evaluations, run.recipe["evaluate_every"]):
            self.waiting.see(scores)
            self.is_out |= self.waiting.waited >= self.how.patience
        return bool(self.is_out.all())
