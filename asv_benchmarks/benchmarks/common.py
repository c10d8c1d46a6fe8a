"""What the benchmarks share: shapes, problems, and how long asv looks at each."""

import importlib
import sys
from pathlib import Path

import numpy as np

import nbflow as nf

# The sides of PyTorch and JAX, each in a process of its own, are those of the script.
sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts" / "bench"))
bench_peers = importlib.import_module("bench_peers")
peers_regimes = importlib.import_module("peers_regimes")

DTYPES = ("float32", "float64")
SHAPES = ("50,20,6,50", "200,20,6,50", "200,20,6,100", "200,64,50,200", "100,64,100,512", "100,128,100,1024")
RESEARCH = (SHAPES[0], SHAPES[2], SHAPES[3])
USUAL = "200,20,6,100"


class Timed:
    """One process a benchmark, warmed by its setup, and about half a second of samples."""

    rounds = 1
    warmup_time = 0.05
    repeat = (2, 7, 0.5)


def sizes(shape):
    return tuple(int(part) for part in shape.split(","))


def network(shape, cell="tanh", loss="softmax", dtype="float32", n_out=4):
    _, _, N, H = sizes(shape)
    return nf.Network(cell=cell, n_in=N, n_hidden=H, n_out=n_out, loss=loss, dtype=dtype)


def random_batch(net, shape, replicas=None, tokens=False, every_step=False):
    """Return random inputs and targets, with a loss at the last step or at every one."""
    T, B, N, _ = sizes(shape)
    lead = (T, B) if replicas is None else (replicas, T, B)
    rng = np.random.default_rng(0)
    inputs = rng.integers(0, N, lead, np.int32) if tokens else rng.normal(size=(*lead, N)).astype(net.dtype)
    if net.loss_object.classes:
        targets = rng.integers(0, net.n_out, lead, np.int32)
    else:
        targets = rng.integers(0, 2, (*lead, net.n_out)).astype(net.dtype)
    weights = np.zeros(lead, net.dtype)
    weights[..., slice(None) if every_step else slice(-1, None), :] = 1 / B
    return nf.Batch(inputs, targets, weights)


class Problem:
    """A network, its first weights, a batch and a workspace; calling it computes a gradient."""

    def __init__(self, shape, replicas=None, tokens=False, every_step=False, asked=None, **network_options):
        self.net = network(shape, **network_options)
        self.theta = nf.init(self.net, "orthogonal", rng=0, replicas=replicas)
        self.batch = random_batch(self.net, shape, replicas, tokens, every_step)
        self.workspace, self.asked = nf.workspace(self.net, self.batch), asked or {}
        self.out = self()

    def __call__(self):
        return nf.gradient(self.net, self.theta, self.batch, workspace=self.workspace, **self.asked)
