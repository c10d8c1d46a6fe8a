"""Where gradients vanish, stay and explode: the side of bench_peers.py that times a network of a given gain.

The recurrent weights of orthogonal first weights are scaled until the gradient at the first state is so many decades
above or below that at the last, as `nf.trace` finds it in float64.
"""

from __future__ import annotations

import functools
import importlib
import math
from typing import Any, NamedTuple

import numpy as np
from peers_sides import THRESHOLD, M, Nbflow, Shape

LARGEST = 30.0
TRIES = 14


class Regime(NamedTuple):
    name: str
    decades: float


# float32 ends 38 decades below 1, and its subnormals at 45; the backward pass crosses them in the first of these.
REGIMES = (Regime("vanishing", -60.0), Regime("steady", 0.0), Regime("exploding", 8.0))


class NbflowRegime(Nbflow):
    """The updates of `Nbflow` for any cell, where the gradient changes by so many decades over the sequence."""

    def __init__(self, shape: Shape, threads: int, cell: str, decades: float) -> None:
        self.nf: Any = importlib.import_module("nbflow")
        self.numba: Any = importlib.import_module("numba")
        nf, (T, B, N, H) = self.nf, shape
        self.threads, self.net = threads, nf.Network(cell=cell, n_in=N, n_hidden=H, n_out=M, loss="softmax")
        rng = np.random.default_rng(0)
        inputs, targets, weights = rng.normal(size=(T, B, N)), np.zeros((T, B), "int32"), np.zeros((T, B))
        targets[-1], weights[-1] = rng.integers(0, M, B), 1 / B
        self.batch = nf.Batch(inputs, targets, weights)
        self.found = self.scaled(cell, shape, decades)
        self.batch = nf.Batch(inputs.astype("float32"), targets, weights.astype("float32"))
        self.clip = nf.Clip("norm", THRESHOLD)
        self.gradient = functools.partial(nf.gradient, workspace=nf.workspace(self.net, self.batch))

    def scaled(self, cell: str, shape: Shape, decades: float) -> float:
        """Set theta so that the gradient changes by about so many decades, and return by how many it does."""
        nf = self.nf
        net = nf.Network(cell=cell, n_in=shape[2], n_hidden=shape[3], n_out=M, loss="softmax", dtype="float64")
        first = nf.init(net, "orthogonal", rng=0)

        def at(scale: float) -> tuple[float, Any]:
            theta = first.copy()
            nf.unpack(net, theta).w_rec[...] *= scale
            with np.errstate(all="ignore"):
                delta = nf.trace(net, theta, self.batch).delta
                norms = np.linalg.norm(delta[[0, -1]].reshape(2, -1), axis=1)
                left = float(np.log10(norms[0] / norms[1])) if norms.all() else -math.inf
            return (math.inf if math.isnan(left) else left), theta

        low, high = 1e-3, LARGEST
        for _ in range(TRIES):
            scale = math.sqrt(low * high)
            low, high = (scale, high) if at(scale)[0] < decades else (low, scale)
        found, theta = at(low)
        self.theta = theta.astype("float32")
        return found

    def check(self) -> dict[str, Any]:
        return {"decades": self.found}
