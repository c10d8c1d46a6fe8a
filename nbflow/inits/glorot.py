"""w_in, w_out Glorot uniform, w_rec orthogonal, biases 0 but 1 for a gate named f (Glorot 2010; Jozefowicz 2015)."""

import numpy as np

from nbflow.inits import orthogonal
from nbflow.model.network import Network
from nbflow.records import Params


def draw(net: Network, params: Params, rng: np.random.Generator) -> None:
    """Fill `params` in place."""
    orthogonal.draw(net, params, rng)
    for g, gate in enumerate(net.cell_object.gates):
        params.bias[g] = 1.0 if gate == "f" else 0.0
