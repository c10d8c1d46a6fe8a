"""What tasks of characters have alike: predict the next one, in bits."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nbflow.data.sampler import DataTask, Trivial


class NextCharacter(DataTask):
    """Predict the next character of texts with one vocabulary; `train` and `held_out` are two parts of them."""

    loss = "softmax"
    tokens = True
    unit = "bits per character"
    units_per_nat = 1 / math.log(2)

    def __init__(self, train: Any, held_out: Any, remedy: str) -> None:
        if train.vocabulary != held_out.vocabulary:
            raise ValueError(
                f"held_out has a vocabulary of {len(held_out.vocabulary)} characters, not that of train, which has "
                f"{len(train.vocabulary)}; expected one for both. {remedy}"
            )
        self.train, self.held_out = train, held_out
        self.n_in = self.n_out = len(train.vocabulary)

    def _characters(self) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Return the characters to train on, those of them that count, and those that count of what is held out."""
        raise NotImplementedError

    def trivial(self, length: int = 1) -> Trivial:
        """Return what knowing how often each character stands in what is trained on reaches; `length` is not used.

        Returns
        -------
        Trivial
            score: bits per character of what is held out; loss: nats per character of what is trained on. A character
            is counted once more than it is there, so that one that is only in the other part is not impossible.
        """
        seen, train, held_out = self._characters()
        counts = np.bincount(seen, minlength=self.n_in) + 1
        nats = -np.log(counts / counts.sum())
        return Trivial(float(nats[held_out].mean() * self.units_per_nat), float(nats[train].mean()))


def hash_of(arrays: Sequence[NDArray[Any]]) -> str:
    """Return a hash of arrays: their shapes, dtypes and numbers."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.shape}{array.dtype.str}".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
