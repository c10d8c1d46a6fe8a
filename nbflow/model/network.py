"""Network: what a recurrent network is made of, and how its first weights are drawn."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from nbflow import _check
from nbflow._legible import legible
from nbflow._load import load
from nbflow.model import _layout as layout
from nbflow.records import Cell, Floats, Loss


@legible
@dataclass(frozen=True)
class Network:
    """A recurrent network: a cell, sizes, and a loss on a linear output layer.

    `a_in = x_t @ w_in + bias`, `a_rec = h_{t-1} @ w_rec (+ bias_rec)`, `s_t = step(a_in, a_rec, s_{t-1})`,
    `y_t = h_t @ w_out + b_out` (Goodfellow et al. 2016, eq. 10.8-10.10).

    Parameters
    ----------
    cell : str or Cell
        One of `nbflow.names("cells")`, or a cell of your own.
    n_in, n_hidden, n_out : int
        N, H and M: input channels or tokens, hidden units, outputs or classes.
    loss : str or Loss
        One of `nbflow.names("losses")`, or a loss of your own.
    dtype : str
        "float32" or "float64"; every array of the network has it.

    Raises
    ------
    TypeError, ValueError
        If a size is not a positive integer, a name is unknown or the dtype is another.

    Examples
    --------
    >>> net = Network(cell="tanh", n_in=6, n_hidden=50, n_out=4, loss="softmax")
    >>> net.size
    3054
    """

    cell: str | Cell
    n_in: int
    n_hidden: int
    n_out: int
    loss: str | Loss = "softmax"
    dtype: str = "float32"

    def __post_init__(self) -> None:
        """Check every field."""
        for name in ("n_in", "n_hidden", "n_out"):
            object.__setattr__(self, name, _check.count(name, getattr(self, name)))
        object.__setattr__(self, "dtype", _check.float_dtype("dtype", self.dtype))
        load("cells", self.cell, "cell")
        load("losses", self.loss, "loss")

    @functools.cached_property
    def cell_object(self) -> Cell:
        """The cell's units."""
        found: Cell = load("cells", self.cell, "cell")
        return found

    @functools.cached_property
    def loss_object(self) -> Loss:
        """The loss's units."""
        found: Loss = load("losses", self.loss, "loss")
        return found

    @functools.cached_property
    def scalar(self) -> Any:
        """The dtype as NumPy's scalar type, which kernels are built with."""
        return np.dtype(self.dtype).type

    @functools.cached_property
    def size(self) -> int:
        """P, the number of parameters."""
        return layout.size(self)


def init(
    net: Network, scheme: str, rng: Any = None, replicas: int | None = None, *, replica_ids: Any = None, **options: Any
) -> Floats:
    """Draw the first weights of a network.

    Parameters
    ----------
    net : Network
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
    >>> net = Network(cell="tanh", n_in=6, n_hidden=50, n_out=4)
    >>> init(net, "smart_tanh", rng=0, replicas=3).shape
    (3, 3054)
    """
    _check.network(net)
    draw = load("inits", scheme, "scheme")
    if replicas is not None:
        replicas = _check.count("replicas", replicas)
    if replica_ids is not None:
        seed, ids = _check.count("rng", rng, 0), _check.replica_ids(replica_ids, replicas or 1)
        streams = [np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(r,))) for r in ids.tolist()]
    else:
        # Spawned streams, so that a replica is the same alone and among others.
        streams = _check.generator("rng", rng).spawn(replicas or 1)
    theta = np.zeros((replicas or 1, net.size), net.dtype)
    for row, stream in zip(theta, streams, strict=True):
        draw(net, layout.unpack(net, row), stream, **options)
    return theta if replicas is not None else theta[0]
