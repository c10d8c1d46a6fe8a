"""Where parameters lie in theta: by block, by array, by the incoming weights of a unit."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from nbflow.model.network import Network
from nbflow.model.stack import Model, Stack, layers_of

IntegerArray = NDArray[np.int64]


def blocks(net: Network) -> dict[str, slice]:
    """Return where each block of parameters lies in theta."""
    found, start = {}, 0
    for name, shape in net.shapes.items():
        found[name] = slice(start, start + math.prod(shape))
        start = found[name].stop
    return found


def named(net: Model) -> dict[str, slice]:
    """Return where each block of parameters lies in theta, under the name that a message gives it."""
    found: dict[str, slice] = {}
    titles = net.titles if isinstance(net, Stack) else ("",)
    for title, (layer, first) in zip(titles, layers_of(net), strict=True):
        of = f" of {title}" if title else ""
        found |= {f"{name}{of}": _moved(block, first) for name, block in blocks(layer).items()}
    return found


def recurrent(net: Model) -> list[slice]:
    """Return where w_rec lies in theta, of every layer."""
    return [_moved(blocks(layer)["w_rec"], first) for layer, first in layers_of(net)]


def _moved(block: slice, by: int) -> slice:
    return slice(block.start + by, block.stop + by)


def spans(net: Model, over: str) -> IntegerArray:
    """Return what a rule over each "layer", "block" or "unit" measures, as (first, count, stride)."""
    return {"layer": layers, "block": arrays, "unit": units}[over](net)


def layers(net: Model) -> IntegerArray:
    """Return every layer as (first, count, stride) in theta: one, of a network that is no stack."""
    return np.array([(first, layer.size, 1) for layer, first in layers_of(net)], np.int64)


def arrays(net: Model) -> IntegerArray:
    """Return every parameter array as (first, count, stride) in theta."""
    found = [(block.start, block.stop - block.start, 1) for block in named(net).values() if block.stop > block.start]
    return np.array(found, np.int64)


def units(net: Model) -> IntegerArray:
    """Return the incoming weights of every unit as (first, count, stride): columns of matrices, biases as a whole."""
    found = []
    for layer, start in layers_of(net):
        for name, block in blocks(layer).items():
            first, count = start + block.start, block.stop - block.start
            if name in ("w_in", "w_rec", "w_out"):
                rows = layer.shapes[name][0]
                found += [(first + j, rows, count // rows) for j in range(count // rows)]
            elif count:
                found.append((first, count, 1))
    return np.array(found, np.int64)
