"""Network: what a recurrent network is made of."""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from nbflow import _check
from nbflow._legible import legible
from nbflow._load import is_declared, load
from nbflow.model.cell import check_settings
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
        If a size is not a positive integer, a name is unknown or the dtype is another; if the units of a cell or a
        loss of your own are not what it says of them, as its flags and its derivatives can be tried.

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
    least_outputs: ClassVar[int] = 1
    heard: ClassVar[int] = 1

    def __post_init__(self) -> None:
        """Check every field."""
        for name, least in (("n_in", 1), ("n_hidden", 1), ("n_out", self.least_outputs)):
            object.__setattr__(self, name, _check.count(name, getattr(self, name), least))
        object.__setattr__(self, "dtype", _check.float_dtype("dtype", self.dtype))
        cell, loss = load("cells", self.cell, "cell"), load("losses", self.loss, "loss")
        check_settings(cell, self.n_hidden)
        if not is_declared(cell) or not is_declared(loss):
            from nbflow import _probe

            if not is_declared(cell):
                _probe.check_cell(cell, self.dtype)
            if not is_declared(loss):
                _probe.check_loss(loss, self.dtype)

    def __getstate__(self) -> dict[str, Any]:
        """Return the fields alone: what is found from them is found again where a pickle arrives."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @functools.cached_property
    def cell_object(self) -> Cell:
        """The cell's units."""
        found: Cell = load("cells", self.cell, "cell")
        return found

    @functools.cached_property
    def compiled_cell(self) -> Cell:
        """The cell without the values of its settings, which kernels are compiled for."""
        return self.cell_object.compiled

    @functools.cached_property
    def cell_settings(self) -> Floats:
        """The settings of the cell, one row each, for every unit: float64 (K, H)."""
        rows = [np.broadcast_to(value, self.n_hidden) for value in self.cell_object.settings.values()]
        return np.reshape(np.array(rows, np.float64), (len(rows), self.n_hidden))

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
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every block of parameters, by its name, in the order in which they lie in theta."""
        gates, n, h, m = len(self.cell_object.gates), self.n_in, self.n_hidden, self.n_out
        return {
            "w_in": (n, gates, h),
            "w_rec": (h, gates, h),
            "bias": (gates, h),
            "bias_rec": (gates, h) if self.cell_object.bias_rec else (0,),
            "w_out": (self.heard * h, m),
            "b_out": (m,),
        }

    @functools.cached_property
    def size(self) -> int:
        """P, the number of parameters."""
        return sum(math.prod(shape) for shape in self.shapes.values())
