"""Spectral radius and norm of the recurrent matrices."""

from __future__ import annotations

from typing import Any

import numpy as np

from nbflow.model import _arguments
from nbflow.model.network import Network
from nbflow.model.parameters import unpack
from nbflow.records import Floats, RecurrentSpectrum

# From here on only the largest are computed: all eigenvalues of 1024 units took 0.8 s on one core, the largest 0.1 s.
LARGE = 1024
# Eigenvalues that are sought together, and restarts before all are computed: of an orthogonal matrix none is largest.
SOUGHT, RESTARTS = 6, 20


def recurrent_spectrum(net: Network, theta: Floats) -> RecurrentSpectrum:
    """Compute the spectral radius and the spectral norm of w_rec, gate by gate.

    Where slopes are at most gamma, 1 for tanh and 1/4 for sigmoid, a norm below 1/gamma suffices for gradients to
    vanish, and one above it is necessary for them to explode (Pascanu, Mikolov, Bengio 2013, section 2.1).

    Parameters
    ----------
    net : Network
    theta : array of shape (P,) or (R, P)

    Returns
    -------
    RecurrentSpectrum
        In float64, with R in front of every shape if theta has it; NaN where a weight is not finite.

    Raises
    ------
    TypeError, ValueError
        If theta is not one of this network.

    Examples
    --------
    >>> import nbflow as nf
    >>> net = nf.Network(cell="tanh", n_in=6, n_hidden=50, n_out=4, dtype="float64")
    >>> seen = recurrent_spectrum(net, nf.init(net, "orthogonal", rng=0))
    >>> seen.gates, seen.radius.round(6), seen.norm.round(6)
    (('a',), array([1.]), array([1.]))
    """
    _arguments.network(net)
    w_rec = unpack(net, theta).w_rec
    matrices = np.moveaxis(w_rec, -2, -3).astype(np.float64)
    flat = matrices.reshape(-1, net.n_hidden, net.n_hidden)
    found = np.array(
        [(_radius(matrix), _norm(matrix)) if np.isfinite(matrix).all() else (np.nan,) * 2 for matrix in flat]
    )
    radius, norm = found.T.reshape(2, *matrices.shape[:-2])
    return RecurrentSpectrum(net.cell_object.gates, radius, norm)


def _radius(matrix: Floats) -> Any:
    from scipy import sparse

    if len(matrix) >= LARGE:
        try:
            largest = sparse.linalg.eigs(
                matrix, k=SOUGHT, v0=np.ones(len(matrix)), maxiter=RESTARTS, return_eigenvectors=False
            )
            return np.abs(largest).max()
        except sparse.linalg.ArpackNoConvergence:
            pass
    return np.abs(np.linalg.eigvals(matrix)).max()


def _norm(matrix: Floats) -> Any:
    from scipy import sparse

    if len(matrix) >= LARGE:
        return sparse.linalg.svds(matrix, k=1, v0=np.ones(len(matrix)), return_singular_vectors=False)[0]
    return np.linalg.norm(matrix, 2)
