"""The layout of a network's parameters: one flat vector, and views of it by name."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nbflow import _check
from nbflow.records import Floats, Params

if TYPE_CHECKING:
    from nbflow.model.network import Network


IntegerArray = NDArray[np.int64]


def shapes(net: Network) -> dict[str, tuple[int, ...]]:
    """Return the shape of every block of parameters, in the order in which they lie in theta."""
    gates = len(net.cell_object.gates)
    n, h, m = net.n_in, net.n_hidden, net.n_out
    return {
        "w_in": (n, gates, h),
        "w_rec": (h, gates, h),
        "bias": (gates, h),
        "bias_rec": (gates, h) if net.cell_object.bias_rec else (0,),
        "w_out": (h, m),
        "b_out": (m,),
    }


def size(net: Network) -> int:
    """Return P, the number of parameters."""
    return sum(math.prod(shape) for shape in shapes(net).values())


def blocks(net: Network) -> dict[str, slice]:
    """Return where each block of parameters lies in theta."""
    found, start = {}, 0
    for name, shape in shapes(net).items():
        found[name] = slice(start, start + math.prod(shape))
        start = found[name].stop
    return found


def arrays(net: Network) -> IntegerArray:
    """Return every parameter array as (first, count, stride) in theta."""
    found = [(block.start, block.stop - block.start, 1) for block in blocks(net).values() if block.stop > block.start]
    return np.array(found, np.int64)


def units(net: Network) -> IntegerArray:
    """Return the incoming weights of every unit as (first, count, stride): columns of matrices, biases as a whole."""
    found = []
    for name, block in blocks(net).items():
        if name in ("w_in", "w_rec", "w_out"):
            rows = shapes(net)[name][0]
            columns = (block.stop - block.start) // rows
            found += [(block.start + j, rows, columns) for j in range(columns)]
        elif block.stop > block.start:
            found.append((block.start, block.stop - block.start, 1))
    return np.array(found, np.int64)


def unpack(net: Network, theta: Floats) -> Params:
    """Return the parameters by name, as views: writing to one writes to `theta`.

    Parameters
    ----------
    net : Network
    theta : array of shape (P,) or (R, P)

    Returns
    -------
    Params
        Shapes as in `nbflow.Params`; with R in front if theta has it.

    Raises
    ------
    TypeError, ValueError
        If theta is no array of this network's size and dtype.

    Examples
    --------
    >>> import nbflow as nf
    >>> net = nf.Network(cell="tanh", n_in=2, n_hidden=3, n_out=1, loss="square")
    >>> theta = nf.init(net, "orthogonal", rng=0)
    >>> unpack(net, theta).w_rec.shape
    (3, 1, 3)
    """
    _check.theta_shape(net, theta)
    where = blocks(net)
    lead = theta.shape[:-1]
    # theta[..., a:b].reshape splits the last axis only, so it is a view whatever the strides are.
    return Params(*(theta[..., where[name]].reshape(*lead, *shape) for name, shape in shapes(net).items()))


def pack(net: Network, params: Params) -> Floats:
    """Return a new theta made of the parameters: the inverse of `unpack`.

    Parameters
    ----------
    net : Network
    params : Params
        Shapes as in `nbflow.Params`, or with R in front of each.

    Returns
    -------
    array of shape (P,) or (R, P)

    Raises
    ------
    TypeError, ValueError
        If a block has not the shape or the dtype that it has in this network.

    Examples
    --------
    >>> import nbflow as nf
    >>> net = nf.Network(cell="tanh", n_in=2, n_hidden=3, n_out=1, loss="square")
    >>> theta = nf.init(net, "orthogonal", rng=0)
    >>> bool((pack(net, unpack(net, theta)) == theta).all())
    True
    """
    _check.network(net)
    lead = _check.blocks(net, params, shapes(net))
    theta = np.concatenate([np.reshape(block, (*lead, -1)) for block in params], axis=-1)
    _check.theta_shape(net, theta)
    return theta
