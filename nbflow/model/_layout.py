"""Where parameters lie in theta: by block, by array, by the incoming weights of a unit."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from nbflow.model.network import Network

IntegerArray = NDArray[np.int64]


def blocks(net: Network) -> dict[str, slice]:
    """Return where each block of parameters lies in theta."""
    found, start = {}, 0
    for name, shape in net.shapes.items():
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
            rows = net.shapes[name][0]
            columns = (block.stop - block.start) // rows
            found += [(block.start + j, rows, columns) for j in range(columns)]
        elif block.stop > block.start:
            found.append((block.start, block.stop - block.start, 1))
    return np.array(found, np.int64)
