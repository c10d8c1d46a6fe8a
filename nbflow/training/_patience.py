"""Patience: for how many evaluations a score has not been better.

All of it follows from a run's evaluations, so a run that goes on from a checkpoint finds it again.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nbflow.records import Floats


class Waiting:
    """How many evaluations in a row each of R replicas has waited for a better score.

    A score is better if it is below the last one that was, by more than `min_delta`; one that is NaN never is.
    """

    def __init__(self, replicas: int, min_delta: float) -> None:
        self.min_delta, self.looked = min_delta, 0
        self.mark, self.waited = np.full(replicas, np.inf), np.zeros(replicas, np.int64)

    def see(self, scores: Floats) -> None:
        """Look at the scores (R,) of an evaluation."""
        better = scores < self.mark - self.min_delta
        self.mark = np.where(better, scores, self.mark)
        self.waited = np.where(better, 0, self.waited + 1)

    def new(self, evaluations: dict[str, list[Any]], every: int) -> list[Floats]:
        """Return the scores (R,) of evaluations that have come since the last call.

        One at the end of a run, at no multiple of `every`, would not be there had the run been longer: it is left out.
        """
        if len(evaluations["update"]) == self.looked:  # as at almost every update
            return []
        rows = list(zip(evaluations["update"][self.looked :], evaluations["score"][self.looked :], strict=True))
        self.looked += len(rows)
        return [np.atleast_1d(np.asarray(score, np.float64)) for update, score in rows if update % every == 0]
