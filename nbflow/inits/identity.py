"""w_rec the identity, w_in and w_out N(0, .001), biases 0: the IRNN, meant for relu (Le, Jaitly, Hinton 2015)."""

import numpy as np

from nbflow.model.network import Network
from nbflow.records import Params

DEVIATION = 0.001


def draw(net: Network, params: Params, rng: np.random.Generator) -> None:
    """Fill `params` in place."""
    params.w_in[...] = rng.normal(0.0, DEVIATION, params.w_in.shape)
    params.w_out[...] = rng.normal(0.0, DEVIATION, params.w_out.shape)
    params.w_rec[...] = np.eye(net.n_hidden)[:, None, :]
