"""Networks in files: the network and its parameters, by name, in the safetensors format."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from nbflow import __version__
from nbflow._load import is_declared, load as load_unit, names
from nbflow.model.cell import load_cell
from nbflow.model.network import Network
from nbflow.model.parameters import pack, unpack
from nbflow.model.stack import Model, Stack, layers_of
from nbflow.records import Cell, Floats, Loss, Params
from nbflow.storage import _safetensors
from nbflow.storage._files import path_of

# What a file says of a network, and of what type each of it is.
SIZES = ("n_in", "n_hidden", "n_out")


def save(path: str | os.PathLike[str], net: Model, theta: Floats) -> None:
    """Write a network and its parameters to a file, from which `nbflow.load` makes both again.

    The file is in the safetensors format, without pickle: other programs read it too. It holds the blocks of
    `nbflow.unpack` by their names, w_in of shape (N, G, H) or (R, N, G, H) and so on, without those that are empty, and
    in its `__metadata__` what the network is; of a Stack they are "0.w_in" and so on, layer by layer from the bottom,
    and of its reverse direction "0.reverse.w_in". A cell or a loss of your own is not in it: its name is.

    Parameters
    ----------
    path : path
        It is written beside and renamed, so there is never half a file; one that is there is replaced.
    net : Network or Stack
    theta : array of shape (P,) or (R, P)

    Returns
    -------
    None
        The file is there, and on the disk.

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense.
    OSError
        If it cannot be written, and why.

    Examples
    --------
    >>> import os, tempfile, nbflow as nf
    >>> net = nf.Network(cell="lstm", n_in=6, n_hidden=20, n_out=4)
    >>> theta = nf.init(net, "glorot", rng=0, replicas=3)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "net.safetensors")
    ...     nf.save(path, net, theta)
    ...     again, parameters = nf.load(path)
    >>> again == net, parameters.shape, bool((parameters == theta).all())
    (True, (3, 2244), True)
    """
    place = path_of("path", path, "net.safetensors")
    params: Any = unpack(net, theta)
    if isinstance(net, Stack):
        # Those below say of outputs and loss what the one on top does, and so make sense alone.
        tops = ({"n_out": net.n_out, "loss": _name_of("losses", net.loss, net.loss_object)} for _ in net.layers)
        said: dict[str, Any] = {"layers": [_said_of(one) | top for one, top in zip(net.layers, tops, strict=True)]}
        said |= {"bidirectional": True} if net.bidirectional else {}
    else:
        said, params = _said_of(net), (params,)
    blocks = {f"{lead}{name}": block for lead, part in zip(_leads(net), params, strict=True)
              for name, block in part._asdict().items()}  # fmt: skip
    _safetensors.write(
        place,
        {name: block for name, block in blocks.items() if block.size},
        {"nbflow": __version__, "network": json.dumps(said), "replicas": "none" if theta.ndim == 1 else "first axis"},
    )


def load(
    path: str | os.PathLike[str], *, cell: Cell | Sequence[Cell | None] | None = None, loss: Loss | None = None
) -> tuple[Model, Floats]:
    """Read a network and its parameters from a file that `nbflow.save` wrote.

    Nothing in a file is run, and nothing of it is believed that is not there twice: one that is cut off, or says of an
    array what its bytes do not, is refused by name.

    Parameters
    ----------
    path : path
    cell : Cell, or sequence of Cell and None, optional
        The one of your own that the network was saved with, of which the file has the name alone; of a Stack the one of
        all layers, or one for each.
    loss : Loss, optional
        Likewise.

    Returns
    -------
    net : Network or Stack
    theta : net.dtype array of shape (P,) or (R, P)

    Raises
    ------
    TypeError, ValueError
        If it is no such file, or damaged; if it is of a cell or a loss of your own and none is given, or another.
    FileNotFoundError, OSError
        If there is no such file, or it cannot be read.

    Examples
    --------
    A file of `nbflow.save`, read again; and its header, as any other reader sees it:

    >>> import json, os, tempfile, nbflow as nf
    >>> net = nf.Network(cell="tanh", n_in=2, n_hidden=3, n_out=1, loss="square")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "net.safetensors")
    ...     nf.save(path, net, nf.init(net, "orthogonal", rng=0))
    ...     again, theta = nf.load(path)
    ...     with open(path, "rb") as file:
    ...         header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    >>> again == net, header["w_rec"]
    (True, {'dtype': 'F32', 'shape': [3, 1, 3], 'data_offsets': [24, 60]})
    """
    place = path_of("path", path, "net.safetensors")
    arrays, about = _safetensors.read(place)
    layers = _layers_of(place, about)
    several = isinstance(layers, list)
    cells = list(cell) if isinstance(cell, list | tuple) else [cell] * (len(layers) if several else 1)
    if len(cells) != (len(layers) if several else 1):
        raise ValueError(
            f"cell has {len(cells)} entries; expected one for each of {len(layers) if several else 1} layers. Write "
            f"None for a layer whose cell is not your own."
        )
    made = [
        Network(
            cell=_unit_of(place, "cell", "cells", said["cell"], own),
            **{name: said[name] for name in SIZES},
            loss=_unit_of(place, "loss", "losses", said["loss"], loss),
            dtype=said["dtype"],
        )
        for said, own in zip(layers if several else [layers], cells, strict=True)
    ]
    try:
        net: Model = Stack(made, bidirectional=_both_ways(about)) if several else made[0]
    except (TypeError, ValueError) as error:
        raise ValueError(_damaged(place, f"its layers do not fit ({error!s:.120})")) from error
    parts = _blocks(place, net, arrays)
    return net, pack(net, parts if several else parts[0])


def _said_of(net: Network) -> dict[str, Any]:
    """Return what a file says of a network, or of a layer."""
    cell, loss = _name_of("cells", net.cell, net.cell_object), _name_of("losses", net.loss, net.loss_object)
    return {"cell": cell, **{name: getattr(net, name) for name in SIZES}, "loss": loss, "dtype": net.dtype}


def _leads(net: Model) -> list[str]:
    """Return what stands before the names of each layer's blocks."""
    if not isinstance(net, Stack):
        return [""]
    ways = ("", "reverse.") if net.bidirectional else ("",)
    return [f"{k}.{way}" for k in range(len(net.layers)) for way in ways]


def _both_ways(about: dict[str, str]) -> bool:
    """Return whether a file says that its stack has two directions."""
    return json.loads(about["network"]).get("bidirectional") is True


def _name_of(package: str, given: Any, unit: Any) -> Any:
    """Return a built-in unit's name, or what one of the user's own is called and has."""
    if isinstance(given, str):
        return given
    for name in names(package):
        if load_unit(package, name) is unit:
            return name
    if isinstance(unit, Cell) and unit.settings and is_declared(unit):
        return {"name": unit.name, "settings": unit.settings}
    function = unit.step if isinstance(unit, Cell) else unit.value
    function = getattr(function, "py_func", function)
    return {"own": f"{function.__module__}.{function.__qualname__}", **_told(unit)}


def _told(unit: Cell | Loss) -> dict[str, Any]:
    """Return what tells one unit of the user's own from another that would read its parameters otherwise."""
    if isinstance(unit, Cell):
        settings = {name: [*value] if isinstance(value, tuple) else value for name, value in unit.settings.items()}
        return {"gates": [*unit.gates], "states": [*unit.states], **({"settings": settings} if settings else {})}
    return {"classes": unit.classes, "units": unit.units}


def _layers_of(place: Any, about: dict[str, str]) -> Any:
    """Return what a file says of its network, or a list of that for each layer of a Stack: all there, of good types."""
    if "network" not in about:
        raise ValueError(
            f"path {place} says nothing of a network; expected a file that nbflow.save wrote. Read it with the "
            f"safetensors library, and make theta with nbflow.pack."
        )
    try:
        found = json.loads(about["network"])
        layers = found.get("layers", [found])
        if not isinstance(layers, list) or not layers:
            raise TypeError("its layers are none")
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(_damaged(place, f"what it says of its network cannot be read ({error!s:.80})")) from error
    for said in layers:
        _check_said(place, said)
    return layers if "layers" in found else found


def _check_said(place: Any, said: Any) -> None:
    try:
        kinds: dict[str, Any] = {**dict.fromkeys(SIZES, int), "cell": (str, dict), "loss": (str, dict), "dtype": str}
        good = {name for name, kind in kinds.items() if isinstance(said[name], kind)}
        wrong = sorted(kinds.keys() - good)
    except (KeyError, TypeError) as error:
        raise ValueError(_damaged(place, f"what it says of its network cannot be read ({error!s:.80})")) from error
    if wrong or any(type(said[name]) is not int or not 0 < said[name] < 2**31 for name in SIZES):
        raise ValueError(_damaged(place, f"{', '.join(wrong or SIZES)} of its network make no sense"))
    if said["dtype"] not in ("float32", "float64"):
        raise ValueError(_damaged(place, f"its network has dtype {said['dtype']!r:.20}"))


def _damaged(place: Any, why: str) -> str:
    return f"path {place} is damaged: {why}; expected what nbflow.save wrote. Name another."


def _unit_of(place: Any, argument: str, package: str, said: Any, given: Any) -> Any:
    """Return the name of a unit, or the one that was given, if it can be that of the file."""
    if isinstance(said, str):
        if said not in names(package):
            raise ValueError(
                f"path {place} has {argument} {said!r:.40}; expected one of {', '.join(names(package))}. It is of "
                f"another nbflow: read it with that."
            )
        if given is not None and given != said and load_unit(package, said) is not load_unit(package, given, argument):
            raise ValueError(
                f"{argument} is given, and path {place} has {said!r:.80}; expected None, or the same. Leave it out."
            )
        return said
    if "name" in said:
        return _with_settings(place, said, given)
    if given is None:
        raise ValueError(
            f"path {place} has a {argument} of its own, {said.get('own', '')!s:.80}; expected {argument}= to be that, "
            f"for a file holds its name alone. Write nbflow.load(path, {argument}=...)."
        )
    told = _told(load_unit(package, given, argument))
    wanted = {name: said.get(name) for name in told}
    if told != wanted:
        raise ValueError(
            f"{argument} has {told!s:.100}; expected {wanted!s:.100}, as that of path {place} had. Give the one that "
            f"it was saved with."
        )
    return given


def _with_settings(place: Any, said: dict[str, Any], given: Any) -> Cell:
    """Return a built-in cell with the settings that a file says."""
    try:
        found = load_cell(said["name"], **said["settings"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(_damaged(place, f"its cell cannot be made ({error!s:.120})")) from error
    if given is not None and given != found:
        raise ValueError(
            f"cell is given, and path {place} has {found.brief()}; expected None, or the same. Leave it out."
        )
    return found


def _blocks(place: Any, net: Model, arrays: dict[str, Any]) -> list[Params]:
    """Return the parameters of each layer by name, all with R in front or none; each as large as the network says."""
    leads, layers = _leads(net), [layer for layer, _ in layers_of(net)]
    shapes = {f"{lead}{name}": shape for lead, layer in zip(leads, layers, strict=True)
              for name, shape in layer.shapes.items()}  # fmt: skip
    wanted = {name: shape for name, shape in shapes.items() if 0 not in shape}
    if arrays.keys() != wanted.keys():
        raise ValueError(_damaged(place, f"it holds {', '.join(arrays)!s:.100} and not {', '.join(wanted)!s:.100}"))
    first = arrays[f"{leads[-1]}b_out"].shape[:-1]
    for name, shape in wanted.items():
        found = arrays[name]
        if len(first) > 1 or found.shape != (*first, *shape) or found.dtype != net.dtype or 0 in first:
            raise ValueError(
                _damaged(place, f"{name} has shape {found.shape} and dtype {found.dtype}, not {shape} and {net.dtype}")
            )
    empty = {name: np.zeros((*first, *shape), net.dtype) for name, shape in shapes.items() if 0 in shape}
    whole = {**arrays, **empty}
    return [Params(*(whole[f"{lead}{name}"] for name in Params._fields)) for lead in leads]
