"""The expected accuracy of piano rolls: how much of what sounds, or is said to sound, is both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

import nbflow as nf
from nbflow.data import evaluation_batches

# Pieces in one pass: outputs of long ones take room.
PIECES = 8


def expected_accuracy(net: nf.Network, theta: NDArray[Any], pieces: Sequence[NDArray[Any]]) -> float:
    """Return the accuracy TP / (TP + FP + FN) of frames that are drawn from the model, each given the true ones before.

    Counts are over all notes and frames of a set (Bay, Ehmann, Downie 2009), and of each the expectation is taken under
    the probabilities p of the model (Boulanger-Lewandowski, Bengio, Vincent 2012): TP is the sum of p v, FP of
    p (1 - v), FN of (1 - p) v, over notes v that are 0 or 1. Over thousands of frames the ratio of expectations is that
    of the ratio. A set without a note has none.
    """
    both = either = 0.0
    for batch in evaluation_batches(pieces, PIECES, dtype=net.dtype, bucket=-(-len(pieces) // PIECES)):
        here = batch.weights > 0
        sounding = batch.targets[here].astype(np.float64)
        likely = 0.5 * (1 + np.tanh(0.5 * nf.predict(net, theta, batch.inputs)[here].astype(np.float64)))
        both += float((likely * sounding).sum())
        either += float((likely + sounding - likely * sounding).sum())
    return both / either if either else float("nan")
