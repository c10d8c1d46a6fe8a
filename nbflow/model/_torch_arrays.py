"""The arrays of a PyTorch state dict, by PyTorch's own names; what else a state dict can be is refused by name."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from nbflow import _check
from nbflow.records import Floats

RECURRENT = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
LINEAR = ("weight", "bias")
# The same of nn.RNNCell, nn.LSTMCell and nn.GRUCell.
OF_A_CELL = {name.removesuffix("_l0"): name for name in RECURRENT}
# Of a module with layers above the first.
OF_A_LAYER = re.compile(rf"({'|'.join(OF_A_CELL)})_l(\d+)(?:_reverse)?")
# What a key says that stands for something that nbflow has not, and what to do about it.
ABSENT = (
    (r"weight_hr_l\d+$", "states without projection", "Make the module with proj_size=0."),
    (r"_packed_params|_all_weight_values", "floats", "Take the weights of the module before it was quantized."),
)
# By what ends beside it a weight is known to be made of parts, and what makes it one again.
MADE_BY = (("g", "remove_weight_norm"), ("mask", "prune.remove"), ("u", "remove_spectral_norm"))


def wanted() -> str:
    """Say what a state dict must have."""
    return f"{', '.join(RECURRENT)} of one recurrent module and {', '.join(LINEAR)} of one nn.Linear"


def keys_said(state_dict: Mapping[str, Any]) -> str:
    """Say which keys there are, the first of them."""
    first = [f"{key!s:.60}" for key in itertools.islice(state_dict, 12)]
    more = len(state_dict) - len(first)
    return (", ".join(first) or "nothing") + (f" and {more} more" if more else "")


def arrays_of(state_dict: Any) -> dict[str, Floats]:
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
            f"state_dict has 'param_groups', as an optimizer's has; expected {wanted()}. Write module.state_dict()."
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
    for pattern, instead, remedy in ABSENT:
        if re.search(pattern, key):
            raise ValueError(f"state_dict has {key!r:.80}; expected {instead}. {remedy}")
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
        raise ValueError(f"state_dict has {key!r:.80}; expected {wanted()}. Leave it out.")


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
            f"{wanted()}. Fold it into the input weights, so that tokens are the inputs: w = module.state_dict(); "
            f"w[{_check.said(inputs)}] = w[{_check.said(inputs)}] @ w.pop({_check.said(table)}).mT."
        )
    one, two = [*found[name]][:2]
    return f"state_dict has {one!r:.80} and {two!r:.80}; expected {wanted()}. Leave one of them out."


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


def dtype_of(found: dict[str, Floats]) -> str:
    """Return the one dtype of all arrays."""
    dtypes = sorted({str(array.dtype) for array in found.values()})
    if len(dtypes) > 1:
        raise TypeError(
            f"state_dict has dtypes {', '.join(dtypes)}; expected one of them. Write module.float().state_dict()."
        )
    return dtypes[0]
