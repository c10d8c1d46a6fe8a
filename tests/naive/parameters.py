"""theta as named arrays, and back."""

from __future__ import annotations

import numpy as np

from naive.arrays import Array, Params
from naive.cells import CELLS


def sizes(cell: str, N: int, H: int, M: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of every parameter, in the order in which they stand in theta."""
    G = CELLS[cell].gates
    return {
        "w_in": (N, G, H),
        "w_rec": (H, G, H),
        "bias": (G, H),
        "bias_rec": (G, H) if CELLS[cell].has_bias_rec else (0,),
        "w_out": (H, M),
        "b_out": (M,),
    }


def slices(shapes: dict[str, tuple[int, ...]]) -> dict[str, slice]:
    """Return where each parameter lies in theta."""
    where, start = {}, 0
    for name, shape in shapes.items():
        stop = start + int(np.prod(shape))
        where[name] = slice(start, stop)
        start = stop
    return where


def unpack(theta: Array, cell: str, N: int, H: int, M: int) -> Params:
    """Cut theta (P,) into named arrays, in float64 (or complex128)."""
    theta = np.asarray(theta)
    theta = theta.astype(np.result_type(theta, np.float64))
    shapes = sizes(cell, N, H, M)
    where = slices(shapes)
    wanted = max(s.stop for s in where.values())
    if theta.shape != (wanted,):
        raise ValueError(f"theta has shape {theta.shape}; expected ({wanted},)")
    return {name: theta[where[name]].reshape(shape) for name, shape in shapes.items()}


def pack(params: Params) -> Array:
    """Join the named arrays into theta (P,)."""
    names = ("w_in", "w_rec", "bias", "bias_rec", "w_out", "b_out")
    return np.concatenate([np.ravel(params[name]) for name in names])
