"""w_rec orthogonal, one gate at a time; w_in and w_out Glorot uniform; biases 0 (Saxe et al. 2014)."""

import numpy as np
from scipy.stats import ortho_group

from nbflow.model.network import Network
from nbflow.records import Floats, Params


def glorot_uniform(rng: np.random.Generator, fan_in: int, fan_out: int, shape: tuple[int, ...]) -> Floats:
    """U[-a, a], a = sqrt(6 / (fan_in + fan_out)): Glorot and Bengio 2010, eq. 16."""
    bound = np.sqrt(6.0 / (fan_in + fan_out))
    return rng.uniform(-bound, bound, shape)


def orthogonal_matrix(rng: np.random.Generator, size: int) -> Floats:
    """A random orthogonal matrix, uniformly."""
    return ortho_group.rvs(size, random_state=rng) if size > 1 else rng.choice([-1.0, 1.0], (1, 1))


def draw(net: Network, params: Params, rng: np.random.Generator) -> None:
    """Fill `params` in place."""
    n, gates, h = params.w_in.shape
    params.w_in[...] = glorot_uniform(rng, n, h, params.w_in.shape)
    for g in range(gates):
        params.w_rec[:, g] = orthogonal_matrix(rng, h)
    fan_in, fan_out = params.w_out.shape
    params.w_out[...] = glorot_uniform(rng, fan_in, fan_out, params.w_out.shape)
