"""How long a process takes to begin: the first, which compiles, and those that find its cache."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence

from peers_words import say, table

START = """
import time
started = time.perf_counter()
import nbflow as nf
imported = time.perf_counter()
import numpy as np
net = nf.Network(cell="tanh", n_in=6, n_hidden=50, n_out=4)
weights = np.zeros((50, 20), "float32")
weights[-1] = 1 / 20
batch = nf.Batch(np.ones((50, 20, 6), "float32"), np.zeros((50, 20), "int32"), weights)
out = nf.gradient(net, nf.init(net, "orthogonal", rng=0), batch)
nf.clip(net, out.d_theta, nf.Clip("norm", 1.0))
print(imported - started, time.perf_counter() - imported)
"""


def starts(count: int) -> str:
    """Return a table: `count` first processes, and as many after each."""
    firsts, seconds = [], []
    for k in range(count):
        say(f"first process, {k + 1}")
        with tempfile.TemporaryDirectory() as folder:
            firsts.append(start(folder))
            seconds += [start(folder) for _ in range(count)]
    rows = [start_cells("first, with an empty cache", firsts), start_cells("second", seconds)]
    return table(["process", "import nbflow, s", "first gradient and clip, s", "whole process, s"], rows)


def start(cache: str) -> list[float]:
    """Return the seconds of import, of the first gradient and clip, and of the whole of a new process."""
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", START], env=os.environ | {"NUMBA_CACHE_DIR": cache},
                          check=True, capture_output=True, text=True)  # fmt: skip
    whole = time.perf_counter() - begun
    return [*map(float, done.stdout.split()), whole]


def start_cells(name: str, seconds: Iterable[Sequence[float]]) -> list[str]:
    return [name, *(f"{statistics.median(column):.2f}" for column in zip(*seconds, strict=True))]
