"""Parameters: the first ones drawn, one flat vector, and views of it by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

import numpy as np

from nbflow import _check
from nbflow._load import load
from nbflow.model import _arguments, _layout
from nbflow.model.network import Network
from nbflow.model.stack import Model, Stack, layers_of
from nbflow.records import Floats, Params


def init(
    net: Model, scheme: str, rng: Any = None, replicas: int | None = None, *, replica_ids: Any = None, **options: Any
) -> Floats:
    """Draw the first weights of a network.

    Parameters
    ----------
    net : Network or Stack
        Of a stack every layer is drawn by the scheme, the lowest first.
    scheme : str
        One of `nbflow.names("inits")`.
    rng : None, int or numpy.random.Generator
        Where random numbers come from, as in numpy.
    replicas : int, optional
        R. Replica r of an integer seed does not depend on R.
    replica_ids : sequence of R ints, optional
        Which replicas, of 0 to 2**24 - 1; by default 0 to R - 1. `rng` must then be an int.
    **options
        Options of the scheme, as its file explains.

    Returns
    -------
    theta : array of shape (P,), or (R, P) with `replicas`
        In the dtype of the network.

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense or the scheme is unknown.

    Examples
    --------
    >>> import nbflow as nf
    >>> net = nf.Network(cell="tanh", n_in=6, n_hidden=50, n_out=4)
    >>> init(net, "smart_tanh", rng=0, replicas=3).shape
    (3, 3054)
    """
    _arguments.model(net)
    draw = load("inits", scheme, "scheme")
    if replicas is not None:
        replicas = _check.count("replicas", replicas)
        if replicas > _check.MOST_REPLICAS:
            raise ValueError(f"replicas is {replicas}; expected at most 2**24. Make them in several calls.")
    if replica_ids is not None:
        seed, ids = _check.count("rng", rng, 0), _check.replica_ids(replica_ids, replicas or 1)
        streams = [np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(r,))) for r in ids.tolist()]
    else:
        # Spawned streams, so that a replica is the same alone and among others.
        streams = _check.generator("rng", rng).spawn(replicas or 1)
    theta = np.zeros((replicas or 1, net.size), net.dtype)
    for row, stream in zip(theta, streams, strict=True):
        for layer, first in layers_of(net):
            draw(layer, unpack(layer, row[first : first + layer.size]), stream, **options)
    return theta if replicas is not None else theta[0]


@overload
def unpack(net: Network, theta: Floats) -> Params: ...
@overload
def unpack(net: Stack, theta: Floats) -> tuple[Params, ...]: ...
def unpack(net: Model, theta: Floats) -> Params | tuple[Params, ...]:
    """Return the parameters by name, as views: writing to one writes to `theta`.

    Parameters
    ----------
    net : Network or Stack
    theta : array of shape (P,) or (R, P)

    Returns
    -------
    Params, or tuple of Params
        Shapes as in `nbflow.Params`; with R in front if theta has it. Of a stack one for each layer, from the bottom
        on; below the top w_out is (H, 0) and b_out (0,).

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
    _arguments.theta_shape(net, theta, takes=_arguments.model)
    if isinstance(net, Stack):
        return tuple(unpack(layer, part) for layer, part in zip(net.nets, net.split(theta), strict=True))
    where = _layout.blocks(net)
    lead = theta.shape[:-1]
    # theta[..., a:b].reshape splits the last axis only, so it is a view whatever the strides are.
    return Params(*(theta[..., where[name]].reshape(*lead, *shape) for name, shape in net.shapes.items()))


def pack(net: Model, params: Params | Sequence[Params]) -> Floats:
    """Return a new theta made of the parameters: the inverse of `unpack`.

    Parameters
    ----------
    net : Network or Stack
    params : Params, or sequence of Params, one for each layer of a stack
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
    _arguments.model(net)
    if isinstance(net, Stack):
        if not isinstance(params, tuple | list) or len(params) != len(net.nets):
            each = "direction of each layer" if net.bidirectional else "layer"
            raise TypeError(
                f"params is {_check.said(params)}; expected {len(net.nets)} Params, one for each {each}. "
                f"Write nbflow.unpack(net, theta)."
            )
        parts = [pack(layer, part) for layer, part in zip(net.nets, params, strict=True)]
        if len({part.shape[:-1] for part in parts}) > 1:
            raise ValueError(
                f"params has layers of shapes {', '.join(str(part.shape) for part in parts)}; expected R in front of "
                f"all or of none. Give each layer as many replicas."
            )
        return np.concatenate(parts, axis=-1)
    lead = _arguments.blocks(net, params, net.shapes)
    theta = np.concatenate([np.reshape(block, (*lead, -1)) for block in params], axis=-1)
    _arguments.theta_shape(net, theta)
    return theta
