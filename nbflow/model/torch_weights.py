"""Weights to and from PyTorch's recurrent modules, as plain dictionaries of arrays; no torch needed.

`nn.RNN`, `nn.LSTM` and `nn.GRU` keep `weight_ih_l0 (G*H, N)` and `weight_hh_l0 (G*H, H)`, each the transpose of ours
with the gates one below the other in the same order, and two biases; `nn.Linear` keeps `weight (M, H)` and `bias`.
The modules of one step (`nn.LSTMCell` and its like) have the same names without `_l0`.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from nbflow import _check
from nbflow._load import load
from nbflow.model import _arguments
from nbflow.model._torch_arrays import LINEAR, OF_A_CELL, OF_A_LAYER, arrays_of, dtype_of, keys_said, wanted
from nbflow.model.network import Network
from nbflow.model.parameters import pack, unpack
from nbflow.model.stack import Model, Stack
from nbflow.records import Floats, Loss, Params

# Cells that PyTorch has, by their gates. A state dict does not tell tanh from relu.
CELLS = {1: ("tanh", "relu"), 3: ("gru",), 4: ("lstm",)}
# What stands behind the names of the second direction's weights.
REVERSE = "_reverse"


def from_torch(
    state_dict: Mapping[str, Any], *, cell: str | None = None, loss: str | Loss = "softmax",
    num_layers: int | None = None,
) -> tuple[Any, Floats]:  # fmt: skip
    """Make a network of the weights of `nn.RNN`, `nn.LSTM` or `nn.GRU`, or their cells, and an `nn.Linear` on top.

    A module of several layers makes a `Stack`, one with `bidirectional=True` a stack of two directions.

    Parameters
    ----------
    state_dict : dict of str to array or tensor
        What `state_dict()` of a module with these two in it returns, or of both, joined: `{**rnn.state_dict(),
        **linear.state_dict()}`. Names may stand before the keys ("encoder.rnn.weight_ih_l0"). Missing biases are 0.
        With R in front of every shape, as `torch.func.stack_module_state` makes them, R networks.
    cell : str, optional
        "relu" for `nn.RNN(nonlinearity="relu")`, which its weights do not tell from "tanh", the default; any other cell
        is known by its shapes.
    loss : str or Loss
        The loss on the outputs; weights do not tell that either.
    num_layers : int, optional
        How many layers there should be, if anything else is an error. The weights tell how many there are.

    Returns
    -------
    net : Network, or Stack where there are several layers
        In the dtype of the weights.
    theta : array of shape (P,) or (R, P)
        A new array. Of cells with one bias (all but gru) it holds the sum of torch's two.

    Raises
    ------
    TypeError, ValueError
        If the weights are those of something else: a projection, an embedding; or if they are not there: in a
        checkpoint that has them inside, parametrized, on the meta device. What to write instead is said.

    Examples
    --------
    >>> import numpy as np
    >>> weights = {"weight_ih_l0": np.ones((20, 3)), "weight_hh_l0": np.ones((20, 5)), "weight": np.ones((2, 5))}
    >>> net, theta = from_torch(weights)
    >>> net.cell, net.n_in, net.n_hidden, net.n_out, net.dtype
    ('lstm', 3, 5, 2, 'float64')
    """
    found = arrays_of(state_dict)
    layers = 1 + max((int(named[2]) for named in map(OF_A_LAYER.fullmatch, found) if named), default=0)
    if num_layers is not None and _check.count("num_layers", num_layers) != layers:
        raise ValueError(f"num_layers is {num_layers}; expected {layers}, as the weights are of so many. Leave it out.")
    ways = ("", REVERSE) if any(name.endswith(REVERSE) for name in found) else ("",)
    parts = [f"_l{k}{way}" for k in range(layers) for way in ways]
    for name in (*(f"{name}{part}" for part in parts for name in ("weight_ih", "weight_hh")), "weight"):
        if name not in found:
            lacks = f"state_dict has no {_check.said(name)}"
            raise ValueError(f"{lacks}; expected {wanted()}. It has: {keys_said(state_dict)}.")
    dtype = dtype_of(found)
    if len(ways) == 2:
        return _of_two_directions(found, parts, cell, loss, dtype)
    made = [_network(found, part, part == parts[-1], cell, loss, dtype) for part in parts]
    if layers == 1:
        return made[0]
    nets, thetas = zip(*made, strict=True)
    _refuse_unlike(nets, thetas)
    stack = Stack(nets)
    return stack, _without_outputs(stack, thetas)


def _without_outputs(stack: Stack, thetas: Any) -> Floats:
    """Return the parameters of all layers: the outputs that a Network must have, at its end, are left away below."""
    return np.concatenate([theta[..., : net.size] for theta, net in zip(thetas, stack.nets, strict=True)], axis=-1)


def _of_two_directions(
    found: dict[str, Floats], parts: list[str], cell: Any, loss: Any, dtype: str
) -> tuple[Stack, Floats]:
    """Return a stack of two directions and its parameters: w_out reads h of both, and stands behind all others."""
    nets, thetas = zip(*(_network(found, part, False, cell, loss, dtype) for part in parts), strict=True)
    for k, (forward, reverse) in enumerate(zip(nets[::2], nets[1::2], strict=True)):
        if forward != reverse:
            raise ValueError(
                f"weight_ih_l{k}_reverse is of {reverse}; expected {forward}, as weight_ih_l{k} is. Look where they "
                f"come from."
            )
    _refuse_unlike(nets[::2], thetas, 2)
    w_out, lead = found["weight"], thetas[0].shape[:-1]
    outputs, both = w_out.shape[-2] if w_out.ndim > 1 else 0, 2 * nets[-1].n_hidden
    b_out = found.get("bias", np.zeros((*lead, outputs), dtype))
    for name, array, shape in (("weight", w_out, (outputs, both)), ("bias", b_out, (outputs,))):
        if not outputs or array.shape != (*lead, *shape):
            raise ValueError(
                f"{name} has shape {array.shape}; expected {(*lead, *shape)} beside two directions of "
                f"{nets[-1].n_hidden} units. Look where it comes from."
            )
    stack = Stack([dataclasses.replace(net, n_out=outputs) for net in nets[::2]], bidirectional=True)
    *others, last = stack.nets
    theta = [part[..., : net.size] for part, net in zip(thetas, [*others, stack.directions[-1]], strict=True)]
    assert last.n_out == outputs
    return stack, np.concatenate([*theta, _transposed(w_out).reshape(*lead, -1), b_out], axis=-1)


def _refuse_unlike(nets: Any, thetas: Any, ways: int = 1) -> None:
    """Refuse layers of which some have replicas and others not, or of sizes that do not follow on one another."""
    leads = {theta.shape[:-1] for theta in thetas}
    if len(leads) > 1:
        raise ValueError(
            f"layers have {' and '.join(sorted(map(str, leads)))} in front; expected the same in all. Look where they "
            f"come from."
        )
    for k, (lower, upper) in enumerate(itertools.pairwise(nets)):
        if upper.n_in != ways * lower.n_hidden:
            remedy = "Look at it."
            if ways == 1 and upper.n_in == 2 * lower.n_hidden:
                remedy = "It is of two directions: leave no weight that ends in _reverse out."
            raise ValueError(
                f"weight_ih_l{k + 1} has {upper.n_in} columns; expected {ways * lower.n_hidden}, the units of the "
                f"layer below. {remedy}"
            )


def _network(
    arrays: dict[str, Floats], part: str, top: bool, cell: Any, loss: Any, dtype: str
) -> tuple[Network, Floats]:
    """Return layer "_l0", or whichever part, and its parameters; below the top with one output, of weight 0."""
    found = {name: arrays[f"{base}{part}"] for base, name in OF_A_CELL.items() if f"{base}{part}" in arrays}
    if top:
        found |= {name: arrays[name] for name in LINEAR if name in arrays}
    else:
        w_rec = found["weight_hh_l0"]
        found["weight"] = np.zeros((*w_rec.shape[:-2], 1, *w_rec.shape[-1:]), dtype)
    lead, gates, (n, h, m) = _sizes(found, part)
    net = Network(_cell(gates, cell, part), n, h, m, loss, dtype)
    biases = [found.get(name, np.zeros((*lead, gates * h), dtype)) for name in ("bias_ih_l0", "bias_hh_l0")]
    if not net.cell_object.bias_rec:
        first, second = biases
        # 0 is not added: -0.0 + 0.0 has another bit pattern.
        biases = [np.where(second == 0, first, first + second), np.zeros((*lead, 0), dtype)]
    shapes = net.shapes
    parts = Params(
        w_in=_transposed(found["weight_ih_l0"]),
        w_rec=_transposed(found["weight_hh_l0"]),
        bias=biases[0],
        bias_rec=biases[1],
        w_out=_transposed(found["weight"]),
        b_out=found.get("bias", np.zeros((*lead, m), dtype)),
    )
    blocks = (part.reshape(*lead, *shapes[name]) for name, part in parts._asdict().items())
    return net, pack(net, Params(*blocks))


def to_torch(net: Model, theta: Floats, *, rnn: str = "", linear: str = "") -> dict[str, Floats]:
    """Return the weights of a network as PyTorch's modules take them: the inverse of `from_torch`.

    Parameters
    ----------
    net : Network or Stack
        With a cell that PyTorch has: tanh, relu, lstm or gru. A stack makes a module with `num_layers`, if all its
        layers have the same cell and `n_hidden`, and of two directions one with `bidirectional=True`.
    theta : array of shape (P,) or (R, P)
        A gradient is taken as well; that of `bias_hh_l0` is the one of `bias_ih_l0` then, where 0 stands.
    rnn, linear : str
        What stands before the keys of either: "rnn." and "head.", say.

    Returns
    -------
    dict of str to array
        New arrays, in the order of the module's own keys. Where the cell has one bias it is `bias_ih_l0`, and
        `bias_hh_l0` is 0. `module.load_state_dict({k: torch.from_numpy(v) for k, v in weights.items()})` loads them.

    Raises
    ------
    TypeError, ValueError
        If theta is not one of this network, or PyTorch has no such cell.

    Examples
    --------
    >>> import nbflow as nf
    >>> net = nf.Network(cell="gru", n_in=3, n_hidden=5, n_out=2)
    >>> weights = to_torch(net, nf.init(net, "orthogonal", rng=0), rnn="rnn.", linear="head.")
    >>> {name: array.shape for name, array in weights.items()}  # doctest: +NORMALIZE_WHITESPACE
    {'rnn.weight_ih_l0': (15, 3), 'rnn.weight_hh_l0': (15, 5), 'rnn.bias_ih_l0': (15,), 'rnn.bias_hh_l0': (15,),
     'head.weight': (2, 5), 'head.bias': (2,)}
    """
    _arguments.model(net)
    _arguments.with_outputs(net)
    for name, prefix in (("rnn", rnn), ("linear", linear)):
        if not isinstance(prefix, str):
            raise TypeError(
                f"{name} is {_check.said(prefix)}; expected what stands before its keys. Write {name}='{name}.'."
            )
    if not isinstance(net, Stack):
        return {**_recurrent(net, theta, rnn, "_l0"), **_linear(net, theta, linear)}
    _arguments.theta_shape(net, theta, takes=_arguments.model)
    for k, layer in enumerate(net.layers):
        if (layer.cell_object, layer.n_hidden) != (net.layers[0].cell_object, net.layers[0].n_hidden):
            raise ValueError(
                f"layers[{k}] has cell {_check.said(layer.cell)} and n_hidden={layer.n_hidden}; expected "
                f"{_check.said(net.layers[0].cell)} and {net.layers[0].n_hidden} in every layer, as one module of "
                f"PyTorch has. Bring each over by itself: nbflow.unpack(net, theta)."
            )
    parts, found = net.split(theta), dict[str, Floats]()
    ways = ("", REVERSE) if net.bidirectional else ("",)
    names = (f"_l{k}{way}" for k in range(len(net.layers)) for way in ways)
    for name, one, part in zip(names, net.nets, parts, strict=True):
        found |= _recurrent(one, part, rnn, name)
    return found | _linear(net.nets[-1], parts[-1], linear)


def _recurrent(net: Network, theta: Floats, rnn: str, part: str) -> dict[str, Floats]:
    """Return the weights of the recurrent module's layer "_l0", or whichever part."""
    known = [name for names in CELLS.values() for name in names]
    if not any(load("cells", name) is net.cell_object for name in known):
        raise ValueError(
            f"cell is {_check.said(net.cell)}; expected one of {', '.join(known)}. PyTorch has no other module."
        )
    params = unpack(net, theta)
    lead = theta.shape[:-1]
    bias = params.bias.reshape(*lead, -1).copy()
    bias_rec = params.bias_rec.reshape(*lead, -1).copy() if net.cell_object.bias_rec else np.zeros_like(bias)
    return {
        f"{rnn}weight_ih{part}": _transposed(params.w_in.reshape(*lead, net.n_in, -1)),
        f"{rnn}weight_hh{part}": _transposed(params.w_rec.reshape(*lead, net.n_hidden, -1)),
        f"{rnn}bias_ih{part}": bias,
        f"{rnn}bias_hh{part}": bias_rec,
    }


def _linear(net: Network, theta: Floats, linear: str) -> dict[str, Floats]:
    """Return the weights of the linear module on top."""
    params = unpack(net, theta)
    return {f"{linear}weight": _transposed(params.w_out), f"{linear}bias": params.b_out.copy()}


def _transposed(matrix: Floats) -> Floats:
    return np.swapaxes(matrix, -1, -2).copy()


def _sizes(found: dict[str, Floats], part: str) -> tuple[tuple[int, ...], int, tuple[int, int, int]]:
    """Return () or (R,), G, and (N, H, M) of layer "_l0", or whichever part, after a look at every shape."""
    w_in, w_rec, w_out = (found[name] for name in ("weight_ih_l0", "weight_hh_l0", "weight"))
    if w_rec.ndim not in (2, 3) or w_rec.size == 0 or w_rec.shape[-2] % w_rec.shape[-1]:
        raise ValueError(f"weight_hh{part} has shape {w_rec.shape}; expected (G * H, H). Look where it comes from.")
    lead, (rows, h) = w_rec.shape[:-2], w_rec.shape[-2:]
    n, m = w_in.shape[-1] if w_in.ndim else 0, w_out.shape[-2] if w_out.ndim > 1 else 0
    shapes = {
        "weight_ih_l0": (rows, n), "bias_ih_l0": (rows,), "bias_hh_l0": (rows,), "weight": (m, h), "bias": (m,),
    }  # fmt: skip
    for name, shape in shapes.items():
        if name in found and found[name].shape != (*lead, *shape):
            raise ValueError(
                f"{name.replace('_l0', part)} has shape {found[name].shape}; expected {(*lead, *shape)} beside "
                f"weight_hh{part} of shape {w_rec.shape}. Look where it comes from."
            )
    return lead, rows // h, (n, h, m)


def _cell(gates: int, cell: Any, part: str) -> str:
    """Return the cell's name, the caller's if it fits."""
    if gates not in CELLS:
        raise ValueError(f"weight_hh{part} has {gates} times as many rows as columns; expected 1, 3 or 4. Look at it.")
    return CELLS[gates][0] if cell is None else _check.choice("cell", cell, CELLS[gates])
