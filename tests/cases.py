"""Networks and batches for tests, small and random, and the way from them to the reference."""

from __future__ import annotations

from typing import NamedTuple

import naive
import numpy as np

import nbflow as nf
from nbflow._load import load

# The cells that every test takes; the others are held to the same claims in tests/test_cells.py, each combination once.
CELLS = ("gru", "linear", "lstm", "relu", "sigmoid", "tanh")
MORE_CELLS = tuple(name for name in nf.names("cells") if name not in CELLS)
LOSSES = nf.names("losses")
# Penalties of the gain, of the states, and of the network as a whole.
FLOWS, STATE_FLOWS, REGULARIZERS = (
    tuple(name for name in nf.names("flows") if isinstance(load("flows", name), kind))
    for kind in (nf.Penalty, nf.StatePenalty, nf.Regularizer)
)
# Rules for any gradient, and those that remember, for trainings.
CLIPS, STATEFUL_CLIPS = (
    tuple(name for name in nf.names("clips") if isinstance(load("clips", name), kind))
    for kind in (nf.Rule, nf.StatefulRule)
)
OPTIMIZERS, TASKS = nf.names("optimizers"), nf.names("tasks")
DTYPES = ("float64", "float32")
KINDS = ("dense", "tokens")
WHENS = ("last", "all", "ragged")
REDUCTIONS = ("sum", "mean")


class Case(NamedTuple):
    """A network, its parameters, a batch, and a first state."""

    net: nf.Network
    theta: np.ndarray
    batch: nf.Batch
    state: np.ndarray

    @property
    def cell(self):
        """The name of the cell, also of one that has settings of its own."""
        return self.net.cell if isinstance(self.net.cell, str) else self.net.cell.brief().partition("(")[0]

    @property
    def sizes(self):
        """The sizes as the reference wants them: (cell, N, H, M)."""
        return self.cell, self.net.n_in, self.net.n_hidden, self.net.n_out

    @property
    def plain(self):
        """The batch as the reference wants it, in float64."""
        return tuple(a if a.dtype.kind in "iu" else a.astype(np.float64) for a in self.batch)

    @property
    def params(self):
        return naive.unpack(self.theta, *self.sizes)

    @property
    def terms(self):
        """The length of the longest sum."""
        T, B = self.batch.weights.shape
        return T * B + self.net.n_hidden + self.net.n_in

    def flow(self, *, carried=False):
        """Return the reference's record of this batch, from the first state or from zeros."""
        s0 = self.state.astype(np.float64) if carried else None
        return naive.backward(self.params, self.cell, self.net.loss, self.plain, s0)


def make_weights(rng, when, T, B):
    """Return weights (T,B): the last step, every step, or random ones in sequences of unlike lengths, the first empty.

    Ragged sequences have steps without weight in the middle as well, and the longest one ends with weight.
    """
    weights = np.zeros((T, B))
    if when == "last":
        weights[-1] = 1 / B
    elif when == "all":
        weights[:] = rng.uniform(0.2, 1.5, (T, B))
    else:
        for b in range(B):
            end = T if b == B - 1 else rng.integers(0, T + 1) * (b > 0)
            weights[:end, b] = rng.uniform(0.1, 1.5, end) * (rng.random(end) < 0.6)
            weights[max(end - 1, 0) : end, b] = 0.7
    return weights


def make_theta(net, rng, gain=0.9):
    """Return random parameters of which the recurrent matrix of every gate has about the spectral radius `gain`."""
    shapes = naive.sizes(net.cell, net.n_in, net.n_hidden, net.n_out)
    scales = {"w_in": 0.7, "w_rec": gain / np.sqrt(net.n_hidden), "bias": 0.3, "bias_rec": 0.3, "b_out": 0.3}
    scales["w_out"] = 1 / np.sqrt(net.n_hidden)
    return np.concatenate([scales[name] * rng.normal(size=int(np.prod(shape))) for name, shape in shapes.items()])


def make_case(
    cell, loss="square", kind="dense", when="ragged", T=5, B=3, N=2, H=3, M=2, dtype="float64", seed=0, gain=0.9
):  # fmt: skip
    """Return a random case; the same arguments in another dtype are the same numbers, rounded."""
    net = nf.Network(cell=cell, n_in=N, n_hidden=H, n_out=M, loss=loss, dtype=dtype)
    rng = np.random.default_rng([seed, T, B, N, H, M])
    theta = make_theta(net, rng, gain).astype(dtype)
    inputs = rng.normal(size=(T, B, N)).astype(dtype) if kind == "dense" else rng.integers(0, N, (T, B))
    targets = {
        "softmax": lambda: rng.integers(0, M, (T, B)),
        "square": lambda: rng.normal(size=(T, B, M)).astype(dtype),
        "bernoulli": lambda: rng.integers(0, 2, (T, B, M)).astype(dtype),
    }[loss]()
    weights = make_weights(rng, when, T, B).astype(dtype)
    state = rng.uniform(-0.5, 0.5, (B, naive.CELLS[cell].states, H)).astype(dtype)
    return Case(net, theta, nf.Batch(inputs, targets, weights), state)


def make_replicas(cell, R=3, **choices):
    """Return (net, theta (R,P), batch with R in front, state (R,B,S,H), the R cases)."""
    cases = [make_case(cell, seed=100 + r, **choices) for r in range(R)]
    batch = nf.Batch(*(np.stack(parts) for parts in zip(*(case.batch for case in cases), strict=True)))
    theta, state = np.stack([case.theta for case in cases]), np.stack([case.state for case in cases])
    return cases[0].net, theta, batch, state, cases


def make_exploding_case(cell, kind, dtype, when):
    """Return a case whose states overflow after the end of the sequences, to Inf and, in `linear`, on to NaN.

    early: every sequence ends at the first step. mixed: of lengths 0 and 1, and one that is heard at step 21, so that
    the others must be run that far or be stopped; its own states are 0 and its output is right. Dense inputs
    are so large after the end that the very first state there overflows. The first state is 0.
    """
    T, B, N, H, M = 24, 9, 3, 5, 2
    case = make_case(cell, "square", kind, "all", T, B, N, H, M, dtype, seed=6)
    p = nf.unpack(case.net, case.theta)
    p.w_rec[:] = np.sign(p.w_rec) * (1e4 if dtype == "float32" else 1e30)
    p.w_in[0] = 4
    inputs, weights = case.batch.inputs, np.zeros((T, B), dtype)
    weights[0, slice(None) if when == "early" else slice(None, None, 2)] = 1.0
    if kind == "dense":
        inputs[weights == 0] = np.finfo(dtype).max / 2, 0, 0
    if when == "mixed":
        weights[:, -1] = 0
        weights[20, -1] = 0.5
        p.bias[:] = 0
        p.w_in[2] = 0
        inputs[:, -1] = (0, 0, 1) if kind == "dense" else 2
        case.batch.targets[20, -1] = p.b_out
    states = naive.forward(case.params, cell, case.plain[0])[:21]
    assert np.abs(np.nan_to_num(states, nan=np.inf)).max() > np.finfo(dtype).max
    return case._replace(batch=case.batch._replace(weights=weights), state=0 * case.state)
