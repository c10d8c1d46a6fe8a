"""w_in, w_out N(0, .01); w_rec sparse, 15 non-zero N(0, 1) entries a unit, spectral radius .95; biases 0.

Pascanu, Mikolov, Bengio 2013, section 4.1 ("smart tanh"), after Sutskever et al. 2013. The paper gives each unit 15
incoming connections, the authors' code 15 outgoing ones: `connections="incoming"` (the default) or "outgoing".
Differs from the source in nothing else; a unit cannot have more connections than there are units.
"""

import numpy as np

from nbflow import _check
from nbflow.model.network import Network
from nbflow.records import Floats, Params

DEVIATION = 0.01
NON_ZERO = 15
SPECTRAL_RADIUS = 0.95


def sparse_matrix(rng: np.random.Generator, size: int) -> Floats:
    """A matrix whose columns each have NON_ZERO normal entries, scaled to the spectral radius."""
    while True:
        matrix = np.zeros((size, size))
        for j in range(size):
            rows = rng.choice(size, min(NON_ZERO, size), replace=False)
            matrix[rows, j] = rng.normal(size=rows.size)
        radius = np.abs(np.linalg.eigvals(matrix)).max()
        if radius > 0:
            matrix *= SPECTRAL_RADIUS / radius
            return matrix


def draw(net: Network, params: Params, rng: np.random.Generator, connections: str = "incoming") -> None:
    """Fill `params` in place."""
    _check.choice("connections", connections, ("incoming", "outgoing"))
    params.w_in[...] = rng.normal(0.0, DEVIATION, params.w_in.shape)
    params.w_out[...] = rng.normal(0.0, DEVIATION, params.w_out.shape)
    for g in range(params.w_rec.shape[1]):
        # a = h @ w_rec: a column holds what comes in.
        matrix = sparse_matrix(rng, net.n_hidden)
        params.w_rec[:, g] = matrix if connections == "incoming" else matrix.T
