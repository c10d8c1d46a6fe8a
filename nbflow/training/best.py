"""Best: the evaluation of the lowest score that a run has seen, and the parameters that had it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from nbflow._legible import legible
from nbflow.records import Floats


@legible
class Best(NamedTuple):
    """The best of a run's evaluations: that of the lowest score, the first of equal ones.

    A score that is NaN or Inf is never the best. Each replica has a best of its own.

    Attributes
    ----------
    theta : net.dtype array of shape (P,), or of shape (R, P)
        The parameters that had it: a copy, which nobody can write. NaN for a replica without a best, and where the
        checkpoint of an older nbflow had not kept them.
    update : int or None, or a list of R
        After how many updates; None for a replica without a best.
    score : float or None, or a list of R
        Its score, in the `unit` of the run.
    """

    theta: Floats
    update: Any
    score: Any


def better(best: Best | None, theta: Floats, update: int, scores: Floats) -> Best | None:
    """Return the best after one more evaluation, of parameters (R, P) with scores (R,)."""
    replicas = range(len(theta))
    nothing = [None for _ in replicas]
    old = best or Best(np.full_like(theta, np.nan), nothing, nothing)
    lower = [bool(scores[r] < (np.inf if old.score[r] is None else old.score[r])) for r in replicas]
    if not any(lower):
        return best
    # A new array each time, for whoever has looked at the one before may have kept it.
    kept = np.where(np.array(lower)[:, None], theta, old.theta)
    kept.flags.writeable = False
    return Best(
        kept,
        [update if lower[r] else old.update[r] for r in replicas],
        [float(scores[r]) if lower[r] else old.score[r] for r in replicas],
    )


def first(best: Best | None) -> Best | None:
    """Return the best of the first replica alone, as a network without replicas has it."""
    return None if best is None else Best(best.theta[0], best.update[0], best.score[0])


def as_rows(best: Best | None, single: bool) -> Best | None:
    """Return a best with R in front."""
    return Best(best.theta[None], [best.update], [best.score]) if best is not None and single else best
