"""How long it takes to begin: importing nbflow, and the first gradient of a process that finds a warm cache."""

import subprocess
import sys

FIRST = """
import numpy as np, nbflow as nf
net = nf.Network(cell="tanh", n_in=6, n_hidden=50, n_out=4)
weights = np.zeros((50, 20), "float32")
weights[-1] = 1 / 20
batch = nf.Batch(np.ones((50, 20, 6), "float32"), np.zeros((50, 20), "int32"), weights)
out = nf.gradient(net, nf.init(net, "orthogonal", rng=0), batch)
nf.clip(net, out.d_theta, nf.Clip("norm", 1.0))
"""


class Start:
    rounds = 1
    repeat = 3
    number = 1

    def setup(self):
        subprocess.run([sys.executable, "-c", FIRST], check=True)

    def timeraw_import(self):
        return "import nbflow"

    def timeraw_import_numba(self):
        """The part of a first gradient that no library on numba can save."""
        return "import numba"

    def timeraw_first_gradient_and_clip(self):
        return FIRST
