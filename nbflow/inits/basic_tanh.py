"""All weights N(0, .1), a standard deviation; biases 0 (Pascanu, Mikolov, Bengio 2013, section 4.1)."""

import numpy as np

from nbflow.model.network import Network
from nbflow.records import Params

DEVIATION = 0.1


def draw(net: Network, params: Params, rng: np.random.Generator) -> None:
    """Fill `params` in place."""
    for block in (params.w_in, params.w_rec, params.w_out):
        block[...] = rng.normal(0.0, DEVIATION, block.shape)
