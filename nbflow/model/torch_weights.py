"""Weights to and from PyTorch's recurrent modules, as plain dictionaries of arrays; no torch needed.

`nn.RNN`, `nn.LSTM` and `nn.GRU` keep `weight_ih_l0 (G*H, N)` and `weight_hh_l0 (G*H, H)`, each the transpose of ours
with the gates one below the other in the same order, and two biases; `nn.Linear` keeps `weight (M, H)` and `bias`.
The modules of one step (`nn.LSTMCell` and its like) have the same names without `_l0`.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from nbflow import _check
from nbflow._load import load
from nbflow.model import _arguments
from nbflow.model.network import Network
from nbflow.model.parameters import pack, unpack
from nbflow.model.stack import Model, Stack
from nbflow.records import Floats, Loss, Params

# Cells that PyTorch has, by their gates. A state dict does not tell tanh from relu.
CELLS = {1: ("tanh", "relu"), 3: ("gru",), 4: ("lstm",)}
RECURRENT = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
LINEAR = ("weight", "bias")
# The same of nn.RNNCell, nn.LSTMCell and nn.GRUCell.
OF_A_CELL = {name.removesuffix("_l0"): name for name in RECURRENT}
# Of a module with layers above the first.
OF_A_LAYER = re.compile(rf"({'|'.join(OF_A_CELL)})_l(\d+)(?:_reverse)?")
# What stands behind the names of the second direction's weights.
REVERSE = "_reverse"
# What a key says that stands for something that nbflow has not, and what to do about it.
ABSENT = (
    (r"weight_hr_l\d+$", "states without projection", "Make the module with proj_size=0."),
    (r"_packed_params|_all_weight_values", "floats", "Take the weights of the module before it was quantized."),
)
# By what ends beside it a weight is known to be made of parts, and what makes it one again.
MADE_BY = (("g", "remove_weight_norm"), ("mask", "prune.remove"), ("u", "remove_spectral_norm"))


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
    found = _arrays(state_dict)
    layers = 1 + max((int(named[2]) for named in map(OF_A_LAYER.fullmatch, found) if named), default=0)
    if num_layers is not None and _check.count("num_layers", num_layers) != layers:
        raise ValueError(f"num_layers is {num_layers}; expected {layers}, as the weights are of so many. Leave it out.")
    ways = ("", REVERSE) if any(name.endswith(REVERSE) for name in found) else ("",)
    parts = [f"_l{k}{way}" for k in range(layers) for way in ways]
    for name in (*(f"{name}{part}" for part in parts for name in ("weight_ih", "weight_hh")), "weight"):
        if name not in found:
            lacks = f"state_dict has no {_check.said(name)}"
            raise ValueError(f"{lacks}; expected {_wanted()}. It has: {_keys(state_dict)}.")
    dtype = _dtype(found)
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


def _wanted() -> str:
    return f"{', '.join(RECURRENT)} of one recurrent module and {', '.join(LINEAR)} of one nn.Linear"


def _keys(state_dict: Mapping[str, Any]) -> str:
    first = [f"{key!s:.60}" for key in itertools.islice(state_dict, 12)]
    more = len(state_dict) - len(first)
    return (", ".join(first) or "nothing") + (f" and {more} more" if more else "")


def _arrays(state_dict: Any) -> dict[str, Floats]:
    """Return the arrays by PyTorch's own names, without what stands before them."""
    if not isinstance(state_dict, Mapping):
        write = "module.state_dict()"
        if isinstance(state_dict, str | os.PathLike):
            write = "torch.load(path, map_location='cpu', weights_only=True)"
        raise TypeError(f"state_dict is a {type(state_dict).__name__}; expected a dict of arrays. Write {write}.")
    _refuse_other_dicts(state_dict)
    found: dict[str, dict[str, Floats]] = {}
    for key, value in state_dict.items():
        name = str(key).rpartition(".")[2]
        name = OF_A_CELL.get(name, name)
        _refuse_other_keys(state_dict, str(key), name)
        found.setdefault(name, {})[str(key)] = _array(key, value)
    for name, several in found.items():
        if len(several) > 1:
            raise ValueError(_said_of_several(found, name))
    return {name: array for name, several in found.items() for array in several.values()}


def _refuse_other_dicts(state_dict: Mapping[str, Any]) -> None:
    """Refuse a checkpoint that has the weights somewhere inside, and an optimizer's state."""
    inside = _path_to_weights(state_dict)
    if inside:
        raise ValueError(
            f"state_dict has its weights inside {inside[0]!r:.80}; expected the dict of weights itself. "
            f"Write from_torch(state_dict{''.join(f'[{key!r:.80}]' for key in inside)})."
        )
    if "param_groups" in state_dict:
        raise ValueError(
            f"state_dict has 'param_groups', as an optimizer's has; expected {_wanted()}. Write module.state_dict()."
        )


def _path_to_weights(thing: Mapping[Any, Any], depth: int = 0) -> tuple[Any, ...]:
    """Return the keys that lead to a dict of recurrent weights; none where it is the outermost one or nowhere."""
    for key, value in thing.items():
        if isinstance(value, Mapping) and depth < 4:
            if any(re.search(r"(^|\.)weight_hh", str(name)) for name in value):
                return (key,)
            inside = _path_to_weights(value, depth + 1)
            if inside:
                return (key, *inside)
    return ()


def _refuse_other_keys(state_dict: Mapping[str, Any], key: str, name: str) -> None:
    """Refuse what stands for something that nbflow has not, or for a weight that is made of others."""
    for pattern, wanted, remedy in ABSENT:
        if re.search(pattern, key):
            raise ValueError(f"state_dict has {key!r:.80}; expected {wanted}. {remedy}")
    made = re.search(r"(?:^|\.)parametrizations\.(\w+)\.", key)
    if made:
        raise ValueError(_said_of_parts(key, made[1], "parametrize.remove_parametrizations"))
    whole, _, end = name.rpartition("_")
    if _is_weight(OF_A_CELL.get(whole, whole)):
        ends = {str(other).rpartition("_")[2] for other in state_dict if str(other).startswith(key[: -len(end)])}
        for mark, remove in MADE_BY:
            if mark in ends:
                raise ValueError(_said_of_parts(key, whole, remove))
    if not _is_weight(name):
        raise ValueError(f"state_dict has {key!r:.80}; expected {_wanted()}. Leave it out.")


def _is_weight(name: str) -> bool:
    """Tell whether a recurrent or a linear module has a weight of this name."""
    return name in LINEAR or OF_A_LAYER.fullmatch(name) is not None


def _said_of_parts(key: str, weight: str, remove: str) -> str:
    return (
        f"state_dict has {key!r:.80}, of which {weight} is made; expected {weight} itself. "
        f"Call torch.nn.utils.{remove}(module, {_check.said(weight)}) before module.state_dict()."
    )


def _said_of_several(found: dict[str, dict[str, Floats]], name: str) -> str:
    """Say what to do with two weights of one name: an embedding is part of w_in."""
    w_in = found.get("weight_ih_l0", {})
    wide = {array.shape[-1] for array in w_in.values() if array.ndim}
    biased = {key.removesuffix("bias") for key in found.get("bias", {})}
    tables = [
        key
        for key, array in found[name].items()
        if name == "weight" and array.ndim > 1 and {array.shape[-1]} == wide and key.removesuffix(name) not in biased
    ]
    if len(tables) == 1 and len(found[name]) == 2:
        (table,), (inputs,) = tables, w_in
        return (
            f"state_dict has {table!r:.80} of shape {found[name][table].shape}, as of an nn.Embedding; expected "
            f"{_wanted()}. Fold it into the input weights, so that tokens are the inputs: w = module.state_dict(); "
            f"w[{_check.said(inputs)}] = w[{_check.said(inputs)}] @ w.pop({_check.said(table)}).mT."
        )
    one, two = [*found[name]][:2]
    return f"state_dict has {one!r:.80} and {two!r:.80}; expected {_wanted()}. Leave one of them out."


def _array(key: Any, value: Any) -> Floats:
    """Return an array of floats, or a tensor's numbers."""
    dtype = str(getattr(value, "dtype", type(value).__name__)).removeprefix("torch.")
    if dtype not in ("float32", "float64"):
        raise TypeError(
            f"state_dict[{key!r:.80}] has dtype {dtype:.40}; expected float32 or float64. "
            f"Write module.float().state_dict()."
        )
    if getattr(value, "is_meta", False):
        raise TypeError(
            f"state_dict[{key!r:.80}] is on the meta device, where no numbers are; expected numbers. Load them first: "
            f"module.load_state_dict(torch.load(path, map_location='cpu'), assign=True)."
        )
    try:
        found: Floats = np.asarray(value.detach().cpu().numpy() if hasattr(value, "detach") else value)
    except Exception as error:  # sparse, quantized, in pieces on several machines: whatever a tensor can be
        raise TypeError(
            f"state_dict[{key!r:.80}] is a {type(value).__name__} that gives no array ({type(error).__name__}); "
            f"expected a dense tensor of floats. Write tensor.to_dense(), or tensor.full_tensor() for one in pieces."
        ) from error
    return found


def _dtype(found: dict[str, Floats]) -> str:
    dtypes = sorted({str(array.dtype) for array in found.values()})
    if len(dtypes) > 1:
        raise TypeError(
            f"state_dict has dtypes {', '.join(dtypes)}; expected one of them. Write module.float().state_dict()."
        )
    return dtypes[0]


def _sizes(found: dict[str, Floats], part: str) -> tuple[tuple[int, ...], int, tuple[int, int, int]]:
    """Return () or (R,), G, and (N, H, M) of layer "_l0", or whichever part, after a look at every shape."""
    w_in, w_rec, w_out = (found[name] for name in ("weight_ih_l0", "weight_hh_l0", "weight"))
    if w_rec.ndim not in (2, 3) or w_rec.size == 0 or w_rec.shape[-2] % w_rec.shape[-1]:
        raise ValueError(f"weight_hh{part} has shape {w_rec.shape}; expected (G * H, H). Look where it comes from.")
    lead, (rows, h) = w_rec.shape[:-2], w_rec.shape[-2:]
    n, m = w_in.shape[-1] if w_in.ndim else 0, w_out.shape[-2] if w_out.ndim > 1 else 0
    wanted = {
        "weight_ih_l0": (rows, n), "bias_ih_l0": (rows,), "bias_hh_l0": (rows,), "weight": (m, h), "bias": (m,),
    }  # fmt: skip
    for name, shape in wanted.items():
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
