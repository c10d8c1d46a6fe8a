"""Which parameters a training moves: a mask like theta, or a record of blocks, as a recipe has it."""

from __future__ import annotations

import difflib
import math
from typing import Any

import numpy as np

from nbflow import _check
from nbflow.model import _layout as layout
from nbflow.model.network import Network
from nbflow.model.stack import Model, layers_of
from nbflow.records import Params

REMEDY = "Write trainable={'w_rec': False}, say, or a boolean array like theta"


def check_trainable(given: Any) -> None:
    """Refuse what is no mask for any network: neither None, booleans like theta, nor blocks of booleans."""
    if given is None or isinstance(given, np.ndarray):
        if given is not None:
            _check_booleans("trainable", given)
        return
    layers = given if isinstance(given, list | tuple) and not isinstance(given, Params) else [given]
    for layer in layers:
        _check_blocks(layer)


def _check_blocks(given: Any) -> None:
    for name, block in blocks_of(given).items():
        check_block_name("trainable", name)
        if not isinstance(block, bool):
            _check_booleans(f"trainable[{_check.said(name)}]", block)


def check_block_name(what: str, name: Any) -> None:
    """Refuse what is no name of a block of parameters."""
    if name not in Params._fields:
        meant = difflib.get_close_matches(f"{name!s:.40}", Params._fields, 1)
        remedy = f"Write {meant[0]}." if meant else "Name the blocks that nbflow.unpack names."
        raise ValueError(f"{what} has {_check.said(name)}; expected some of: {', '.join(Params._fields)}. {remedy}")


def blocks_of(given: Any) -> dict[str, Any]:
    """Return a record of blocks by name."""
    if isinstance(given, Params):
        return given._asdict()
    if isinstance(given, dict):
        return given
    raise TypeError(
        f"trainable is {_check.said(given)}; expected booleans like theta, or a dict or Params of blocks. {REMEDY}."
    )


def _check_booleans(name: str, value: Any) -> None:
    if not isinstance(value, np.ndarray) or isinstance(value, np.ma.MaskedArray) or value.dtype != bool:
        found = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else _check.said(value)
        raise TypeError(
            f"{name} is {found}; expected True, False or an array of booleans. {REMEDY}; of numbers, mask != 0."
            if name != "trainable" else
            f"{name} is {found}; expected an array of booleans like theta. {REMEDY}; of numbers, mask != 0."
        )  # fmt: skip


def held_of(given: Any, net: Model, replicas: int) -> Any:
    """Return which parameters stay as they are (R, P), or None where all are trained."""
    if given is None:
        return None
    mask = np.ones((replicas, net.size), bool)
    if isinstance(given, np.ndarray):
        mask[:] = _fitting("trainable", given, (net.size,), replicas)
    else:
        for (layer, first), blocks in zip(layers_of(net), _by_layer(given, net), strict=True):
            _mark(layer, blocks_of(blocks), mask[:, first : first + layer.size])
    for r, row in enumerate(mask):
        if not row.any():
            of = f" of replica {r}" if replicas > 1 else ""
            raise ValueError(
                f"trainable holds every parameter{of}; expected one at least that is trained. Leave a block out."
            )
    return None if mask.all() else ~mask


def _by_layer(given: Any, net: Model) -> list[Any]:
    """Return a record of blocks for each layer: one is that of all of them."""
    layers = len(layers_of(net))
    if isinstance(given, dict | Params):
        return [given] * layers
    if len(given) != layers:
        raise ValueError(
            f"trainable has {len(given)} records of blocks; expected {layers}, one for each layer, or one for all. "
            f"Give {{}} for a layer that is trained."
        )
    return list(given)


def _mark(layer: Network, given: dict[str, Any], mask: Any) -> None:
    """Write the blocks of a layer into its part of a mask (R, P)."""
    where = layout.blocks(layer)
    for name, block in given.items():
        if isinstance(block, np.ndarray):
            shape = layer.shapes[name]
            rows = len(mask) if block.ndim > len(shape) else 1
            found = _fitting(f"trainable[{_check.said(name)}]", block, shape, len(mask))
            block = found.reshape(rows, math.prod(shape))
        mask[:, where[name]] = block


def _fitting(name: str, value: Any, shape: tuple[int, ...], replicas: int) -> Any:
    """Return booleans that have this shape, or R in front of it."""
    if value.shape not in (shape, (replicas, *shape)):
        said = ", ".join(map(str, shape))
        raise ValueError(
            f"{name} has shape {value.shape}; expected ({said}{',' * (len(shape) == 1)}), or ({replicas}, {said}) for "
            f"{replicas} replicas. nbflow.unpack(net, theta) has the shapes of blocks."
        )
    return value
