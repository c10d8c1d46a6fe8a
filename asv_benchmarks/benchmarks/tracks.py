"""Numbers that are no times: ratios to PyTorch and JAX, the part of the machine that is used, errors.

The sides of a ratio take turns in processes of their own (scripts/bench/bench_peers.py), because thread pools of two
libraries in one process spin against each other. Where PyTorch or JAX is not installed, its ratio is skipped.
"""

import importlib.util
import math

import numpy as np

import nbflow as nf

from .common import SHAPES, Problem, bench_peers, sizes

RIVALS = {"torch": [{"threads": n} for n in sorted({1, bench_peers.cores()})],
          "jax": [{"unroll": n} for n in (1, 4, 16)]}  # fmt: skip
SECONDS, ROUNDS = 0.5, 5


class Ratio:
    """How many times faster than others a whole update is, each at its best setting."""

    params = [list(RIVALS), SHAPES]
    param_names = ["rival", "T,B,N,H"]

    def setup(self, rival, shape):
        if importlib.util.find_spec(rival) is None:
            raise NotImplementedError(f"{rival} is not installed")

    def track_update(self, rival, shape):
        shape = sizes(shape)
        with bench_peers.Worker() as own, bench_peers.Worker() as other:
            ours = own.make("nbflow", shape, threads=bench_peers.cores())
            ways = [other.make(rival, shape, **how) for how in RIVALS[rival]]
            bench_peers.agree(str(shape), ours.check(), rival, ways[0].check())
            programs = {"ours": ours, "theirs": bench_peers.fastest(ways, SECONDS / 5)}
            return bench_peers.ratio(bench_peers.alternate(programs, SECONDS, ROUNDS), "theirs", "ours")

    track_update.unit = "times as fast"


class PartOfMachine:
    """GFLOP/s of a whole update over those of NumPy's matrix product of two 2048 squares, with the same threads."""

    params = [sorted({1, bench_peers.cores()}), SHAPES]
    param_names = ["threads", "T,B,N,H"]

    def track_update(self, threads, shape):
        shape = sizes(shape)
        with bench_peers.Worker() as own, bench_peers.Worker(threads) as sgemm:
            programs = {"update": own.make("nbflow", shape, threads=threads), "sgemm": sgemm.make("sgemm", shape)}
            times = bench_peers.alternate(programs, SECONDS, ROUNDS)
        work = bench_peers.flops(shape) / (2 * bench_peers.SQUARE**3)
        return work * bench_peers.ratio(times, "sgemm", "update")

    track_update.unit = "of sgemm"


class Error:
    """Relative error of a float32 gradient, in the Euclidean norm, against float64 and the same numbers."""

    params = [nf.names("cells"), SHAPES[:3]]
    param_names = ["cell", "T,B,N,H"]

    def track_gradient(self, cell, shape):
        single = Problem(shape, cell=cell)
        double = Problem(shape, cell=cell, dtype="float64")
        double.theta = single.theta.astype("float64")
        double.batch = nf.Batch(single.batch.inputs.astype("float64"), single.batch.targets,
                                single.batch.weights.astype("float64"))  # fmt: skip
        found, exact = single().d_theta, double().d_theta
        error = np.linalg.norm(found - exact) / np.linalg.norm(exact)
        return float(error) if math.isfinite(error) else math.nan

    track_gradient.unit = "relative"
