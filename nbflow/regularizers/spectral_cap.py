"""sum over i of max(0, sigma_i - cap)^2, the singular values of the recurrent matrix above a cap of 1, over all gates.

With slopes of at most 1 no gradient explodes where none is above (Pascanu, Mikolov, Bengio 2013, section 2.1). Differs
from Yoshida and Miyato 2017, who penalise the square of the largest singular value, however small it is: a sum over all
that are above the cap has a derivative where two of them meet, and below the cap nothing is asked for. For another cap
write `nf.Flow(nbflow.flows.spectral_cap.capped(0.9), alpha)`.
"""

import functools

import numpy as np

from nbflow.model.parameters import unpack
from nbflow.records import Regularizer


def value_and_gradient(net, theta, batch, cap):
    d_theta = np.zeros_like(theta)
    w_rec, d_rec = unpack(net, theta).w_rec, unpack(net, d_theta).w_rec
    total = 0.0
    for g in range(w_rec.shape[1]):
        u, sigma, v = np.linalg.svd(w_rec[:, g])
        above = np.maximum(sigma - cap, 0)
        total += float((above**2).sum())
        d_rec[:, g] = (u * (2 * above)) @ v
    return total, d_theta


def capped(cap: float) -> Regularizer:
    """Return the penalty with another cap."""
    return Regularizer(functools.partial(value_and_gradient, cap=cap))


PENALTY = capped(1.0)
