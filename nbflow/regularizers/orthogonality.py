"""||W^T W - I||_F^2 of the recurrent matrix, summed over gates: soft orthogonality (Vorontsov et al. 2017).

It wants all singular values to be 1: then no gradient explodes on its way through the matrix, and none vanishes but by
slopes below 1.
"""

import numpy as np

from nbflow.model.parameters import unpack
from nbflow.records import Regularizer


def value_and_gradient(net, theta, batch):
    d_theta = np.zeros_like(theta)
    w_rec, d_rec = unpack(net, theta).w_rec, unpack(net, d_theta).w_rec
    total = 0.0
    for g in range(w_rec.shape[1]):
        w = w_rec[:, g]
        excess = w.T @ w - np.eye(len(w))
        total += float((excess**2).sum())
        d_rec[:, g] = 4 * w @ excess
    return total, d_theta


PENALTY = Regularizer(value_and_gradient)
