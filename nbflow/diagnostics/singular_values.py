"""Singular values of the long Jacobian ds_T/ds_0: by how much a gradient can shrink or grow on its way back."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from nbflow import _check
from nbflow.gradients.vector_products import listened
from nbflow.gradients.workspace import Buffers, shape_of
from nbflow.model import _arguments
from nbflow.model._asked import Asked
from nbflow.model.network import Network
from nbflow.records import Floats, Spectrum
from nbflow.statistics import mean_interval

# Up to here the Jacobian is formed after all: a dense decomposition finds what Lanczos iterations lose of a small rank.
SMALL = 64


class LongJacobian:
    """ds_T/ds_0 of one sequence: its tape is computed once, products with it as often as wanted."""

    def __init__(self, net: Network, theta: Floats, inputs: Any, state: Floats | None) -> None:
        from nbflow.cpu.engine import Tape

        checked = _arguments.inputs_only(net, theta, inputs)
        inner, weights, targets = listened(net, checked, None)
        self.shape = (1, 1, len(net.cell_object.states), net.n_hidden)
        asked = Asked(state=None if state is None else _arguments.state(net, state, checked))
        listening = checked._replace(weights=weights, targets=targets)
        self.tape = Tape(Buffers(inner, shape_of(checked)), listening, asked)

    def push(self, vector: Floats) -> Floats:
        """Return ds_T/ds_0 @ vector."""
        return self.tape.push(vector.reshape(self.shape)).ravel()

    def pull(self, vector: Floats) -> Floats:
        """Return its transpose @ vector."""
        return self.tape.pull(vector.reshape(self.shape)).ravel()


def jacobian_singular_values(
    net: Network, theta: Floats, inputs: Any, k: int = 6, *, state: Floats | None = None
) -> Spectrum:
    """Compute the k largest singular values of ds_T/ds_0, for every sequence.

    Lanczos iterations (`scipy.sparse.linalg.svds`) see its products with vectors, one pass forward or back each; it is
    only formed where S * H is at most 64 or 3 k. (Pascanu, Mikolov, Bengio 2013, section 2.1, bounds the largest.) In
    double precision; values below 1e-8 times the largest are rounding.

    Parameters
    ----------
    net : Network
    theta : array of shape (P,)
    inputs : array of shape (T, B, N), or (T, B) of integer tokens
    k : int
        1 to S * H.
    state : array of shape (B, S, H), optional
        The first state, zeros by default.

    Returns
    -------
    Spectrum
        Dimensionless. NaN for a sequence on whose way something was not finite.

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense.

    Examples
    --------
    An orthogonal linear network keeps the length of everything:

    >>> import numpy as np, nbflow as nf
    >>> net = nf.Network(cell="linear", n_in=6, n_hidden=8, n_out=4)
    >>> theta = nf.init(net, "orthogonal", rng=0)
    >>> inputs = nf.load_task("temporal_order").sample(seed=0, index=0, batch_size=3, length=100).inputs
    >>> nf.jacobian_singular_values(net, theta, inputs, k=2).values.round(4)
    array([[1., 1.],
           [1., 1.],
           [1., 1.]])
    """
    net, theta, inputs, state = in_double(net, theta, inputs, state)
    size = len(net.cell_object.states) * net.n_hidden
    k = at_most("k", k, size)
    found = np.empty((inputs.shape[1], k))
    for b in range(len(found)):
        here = LongJacobian(net, theta, inputs[:, b : b + 1], None if state is None else state[b : b + 1])
        found[b] = _largest(here, size, k)
    with np.errstate(divide="ignore"):
        return Spectrum(found, *(np.exp(part) for part in mean_interval(np.log(found).T)[:3]))


def _largest(jacobian: LongJacobian, size: int, k: int) -> Any:
    """Return the k largest singular values, the largest first."""
    if size <= SMALL or 3 * k >= size:
        rows = np.array([jacobian.push(row) for row in np.eye(size)])
        return np.linalg.svd(rows, compute_uv=False)[:k] if np.isfinite(rows).all() else np.full(k, np.nan)
    from scipy.sparse.linalg import LinearOperator, svds  # a tenth of a second that `nbflow.trace` alone does not need

    # The start is fixed, so that a rerun has the same bits; it lies where the Jacobian does not lose it.
    start = jacobian.pull(jacobian.push(np.random.default_rng(0).normal(size=size)))
    if not start.any():
        return np.zeros(k)
    if not np.isfinite(start).all():
        return np.full(k, np.nan)
    operator = LinearOperator((size, size), matvec=jacobian.push, rmatvec=jacobian.pull, dtype=np.float64)
    return np.sort(svds(operator, k, v0=start / np.linalg.norm(start), return_singular_vectors=False))[::-1]


def in_double(net: Network, theta: Any, inputs: Any, state: Any) -> tuple[Network, Floats, Any, Any]:
    """Check the arguments of one network, and return them in double precision."""
    checked = _arguments.inputs_only(net, theta, inputs)
    if not checked.single:
        raise ValueError(f"theta has shape {theta.shape}; expected ({net.size},). Take one replica: theta[0].")
    if state is not None:
        state = _arguments.state(net, state, checked)[0].astype(np.float64)
    inputs = checked.inputs[0]
    if inputs.dtype.kind == "f":
        inputs = inputs.astype(np.float64)
    return dataclasses.replace(net, dtype="float64"), theta.astype(np.float64), inputs, state


def at_most(name: str, value: Any, most: int) -> int:
    """Return a count of 1 to `most`, the numbers in a state."""
    found = _check.count(name, value)
    if found > most:
        raise ValueError(f"{name} is {found}; expected 1 to S * H = {most}. Ask for fewer.")
    return found
