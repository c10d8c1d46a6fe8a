"""The boundary of whatever takes a network: what drivers check in the same way before anything reaches a kernel.

What comes out is what kernels trust: the right dtype, C-ordered, with R in front, every index in range.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from nbflow import _check
from nbflow.model._asked import PLAIN, Asked
from nbflow.model._hidden import Hidden
from nbflow.model.network import Network
from nbflow.model.stack import Model, Stack
from nbflow.records import Batch, Floats

SHARE = (
    "Replicas have data of their own; to share a batch write np.broadcast_to(array, (R, *array.shape)) of all three."
)


class Checked(NamedTuple):
    """The arguments of a computation, as kernels want them."""

    theta: Floats  #: (R, P)
    inputs: Any  #: (R, T, B, N), or int32 (R, T, B)
    targets: Any  #: (R, T, B, M), or int32 (R, T, B); None where none are needed
    weights: Floats  #: (R, T, B)
    single: bool  #: whether theta came without R


def network(net: Any) -> None:
    """Refuse what is no Network, as whatever does not say that it takes stacks refuses them."""
    if isinstance(net, Stack) and net.bidirectional:
        raise TypeError(
            "net is a Stack of two directions; expected a Network, for this looks at one layer. With such a Stack work "
            "init, unpack, pack, predict, gradient, clip, trace, train, evaluate, calibrate_threshold, workspace, save "
            "and to_torch."
        )
    if isinstance(net, Stack):
        raise TypeError(
            "net is a Stack; expected a Network, for this looks at one layer. With a Stack work init, unpack, pack, "
            "predict, gradient, clip, trace, diagnose, train, evaluate, calibrate_threshold, workspace, to_torch. The "
            "layer on top is stack.layers[-1], with stack.split(theta)[-1]; its inputs are h of the one below, "
            "nf.trace(stack, theta, batch)[-2].states[1:, :, 0]."
        )
    if not isinstance(net, Network):
        raise TypeError(
            f"net is {_check.said(net)}; expected a Network. Write nbflow.Network(cell, n_in, n_hidden, n_out)."
        )


def model(net: Any) -> None:
    """Refuse what is neither a Network nor a Stack."""
    if not isinstance(net, Stack):
        network(net)


def with_outputs(net: Any) -> None:
    """Refuse a layer of a stack that has no outputs."""
    if isinstance(net, Hidden):
        raise ValueError(
            "net has n_out 0, as a layer of a Stack below another; expected a network with outputs. Pass the Stack."
        )


Taken = Callable[[Any], None]


def theta_shape(net: Any, theta: Any, name: str = "theta", takes: Taken = network) -> None:
    """Refuse what is not the parameter vector of `net`, or R of them; `takes` refuses what `net` must not be."""
    takes(net)
    _check.floats(name, theta, net.dtype)
    if theta.ndim not in (1, 2) or theta.shape[-1] != net.size:
        raise ValueError(
            f"{name} has shape {theta.shape}; expected ({net.size},) or (R, {net.size}) for {net}. "
            f"Make one by nbflow.init(net, ...)."
        )
    if theta.size == 0:
        raise ValueError(f"{name} has shape {theta.shape}; expected at least one replica. Leave R away for one.")


def blocks(net: Network, params: Any, shapes: dict[str, tuple[int, ...]]) -> tuple[int, ...]:
    """Refuse what are no parameters of `net`; return () or (R,)."""
    if not isinstance(params, tuple) or len(params) != len(shapes):
        raise TypeError(
            f"params is {_check.said(params)}; expected Params of {len(shapes)} blocks. "
            f"Write nbflow.unpack(net, theta)."
        )
    lead = getattr(params[-1], "shape", ())[:-1]  # of what is no array, `floats` will say so
    said = "R, " * len(lead)
    for block, (name, shape) in zip(params, shapes.items(), strict=True):
        _check.floats(name, block, net.dtype)
        if block.shape != (*lead, *shape):
            raise ValueError(
                f"{name} has shape {block.shape}; expected ({said}{', '.join(map(str, shape))}). Reshape it."
            )
    return lead


def triple(batch: Any) -> None:
    """Refuse what is no Batch."""
    if not isinstance(batch, tuple) or len(batch) != 3:
        raise TypeError(
            f"batch is a {type(batch).__name__}; expected a Batch(inputs, targets, weights). Write nbflow.Batch(...)."
        )


def _contiguous(value: Any, shape: tuple[int, ...]) -> Any:
    """Return `value` as kernels read it, a copy only where it lies otherwise."""
    value = np.ascontiguousarray(value)
    return (value if value.flags.aligned else value.copy()).reshape(shape)


def _inputs(net: Model, inputs: Any, lead: tuple[int, ...]) -> Any:
    """Check inputs against the network; return them with dtype int32 for tokens."""
    if isinstance(inputs, Batch):
        raise TypeError("inputs is a Batch; expected its inputs alone. Write batch.inputs.")
    _check.array("inputs", inputs)
    rank = len(lead)
    said = "R, " * rank
    if inputs.dtype.kind in "iu":
        if inputs.ndim != rank + 2:
            remedy = f"Dense inputs are floats: inputs.astype(np.{net.dtype})."
            if inputs.ndim == 2 and rank == 1:
                remedy = SHARE
            raise ValueError(
                f"inputs has shape {inputs.shape} and dtype {inputs.dtype}; expected tokens of shape ({said}T, B). "
                f"{remedy}"
            )
        _not_empty("inputs", inputs)
        if not _classes(inputs, net.n_in):
            low, high = inputs.min(), inputs.max()
            raise ValueError(
                f"inputs has tokens from {low} to {high}; expected 0 to {net.n_in - 1} (n_in is {net.n_in}). "
                f"Map the tokens to that range, or make the network with n_in={int(high) + 1}."
            )
        return inputs.astype(np.int32, copy=False)
    _check.floats("inputs", inputs, net.dtype)
    if inputs.ndim == rank + 2 and net.n_in == 1:
        raise ValueError(
            f"inputs has shape {inputs.shape}; expected ({said}T, B, 1). Add the channel axis: inputs[..., None]."
        )
    if inputs.ndim != rank + 3 or inputs.shape[-1] != net.n_in:
        remedy = "Add the channel axis: inputs[..., None]." if inputs.ndim == rank + 2 else "Transpose or reshape it."
        if inputs.ndim == 4 and rank == 0:
            remedy = "Inputs with replicas need theta of shape (R, P)."
        if inputs.ndim == 3 and rank == 1:
            remedy = SHARE
        raise ValueError(f"inputs has shape {inputs.shape}; expected ({said}T, B, {net.n_in}). {remedy}")
    _not_empty("inputs", inputs)
    _check.finite(
        "inputs", inputs, "Clean the data; steps that do not count may be anything finite, and have weight 0."
    )
    return inputs


def _not_empty(name: str, value: Any) -> None:
    if value.size == 0:
        raise ValueError(f"{name} has shape {value.shape}; expected T, B and R of at least 1. Leave empty batches out.")


def _classes(values: Any, count: int) -> bool:
    """Tell whether all integers are in 0 .. count-1: negative ones are large without their sign."""
    return bool(np.maximum.reduce(values.view(f"{values.dtype.byteorder}u{values.itemsize}"), axis=None) < count)


def _targets(net: Model, targets: Any, weights: Any, lead: tuple[int, ...]) -> Any:
    """Check targets where they have weight; return classes as int32."""
    _check.array("targets", targets)
    loss = net.loss_object
    if loss.classes:
        if targets.dtype.kind not in "iu":
            raise TypeError(
                f"targets has dtype {targets.dtype}; expected integer classes for loss {_check.said(net.loss)}. "
                f"Write targets.astype(np.int64)."
            )
        if targets.shape != lead:
            remedy = _for_targets(targets.shape, lead, net.n_out)
            raise ValueError(f"targets has shape {targets.shape}; expected {lead}, one class a step. {remedy}")
        if not _classes(targets, net.n_out):
            seen = targets[weights != 0]
            if seen.size and not _classes(seen, net.n_out):
                raise ValueError(
                    f"targets has classes from {seen.min()} to {seen.max()} where weights are not 0; "
                    f"expected 0 to {net.n_out - 1} (n_out is {net.n_out}). Give steps without a class (-100, say) "
                    f"weight 0."
                )
        return targets.astype(np.int32, copy=False)
    _check.floats("targets", targets, net.dtype)
    if targets.shape != (*lead, net.n_out):
        remedy = _for_targets(targets.shape, lead, net.n_out)
        raise ValueError(f"targets has shape {targets.shape}; expected {(*lead, net.n_out)}. {remedy}")
    _check.finite("targets", targets, "Give steps without a target any finite one, and weight 0.")
    if loss.targets is not None:
        seen, (low, high) = targets[weights != 0], loss.targets
        if seen.size and (seen.min() < low or seen.max() > high):
            raise ValueError(
                f"targets has values from {seen.min():g} to {seen.max():g} where weights are not 0; "
                f"expected {low:g} to {high:g} for loss {_check.said(net.loss)}. Scale them."
            )
    return targets


def _for_targets(found: tuple[int, ...], lead: tuple[int, ...], outputs: int) -> str:
    """Return the remedy for targets of another shape than (*lead) or (*lead, M)."""
    steps, batch = lead[-2:]
    if found in ((batch,), (batch, outputs)) and len(lead) == 2:
        return (
            f"One for each sequence counts at its last step: repeat it by np.broadcast_to(targets, ({steps}, "
            f"*targets.shape)), and give all other steps weight 0."
        )
    if found == (*lead, outputs):
        return "Classes are integers: targets.argmax(axis=-1)."
    if len(found) >= 2 and found[:2] == (batch, steps) and len(lead) == 2:
        return "Steps come first: targets.swapaxes(0, 1)."
    if found == lead and outputs == 1:
        return "Add the axis of outputs: targets[..., None]."
    return "Reshape it."


def _weights(net: Model, weights: Any, lead: tuple[int, ...]) -> Any:
    """Check weights, which have the shape of the steps."""
    _check.array("weights", weights)
    steps, batch = lead[-2:]
    if weights.shape == (batch,) and len(lead) == 2:
        raise ValueError(
            f"weights has shape {weights.shape}; expected {lead}. If these are lengths, write "
            f"(np.arange({steps})[:, None] < lengths).astype(np.{net.dtype}) / lengths.sum()."
        )
    _check.floats("weights", weights, net.dtype)
    if weights.shape != lead:
        remedy = "Reshape it."
        if weights.shape == (*lead[:-2], batch, steps):
            remedy = (
                "Steps come first, in all three arrays: array.swapaxes(-1, -2) of weights and targets, or of inputs."
            )
        raise ValueError(f"weights has shape {weights.shape}; expected {lead}, like the inputs. {remedy}")
    return weights


def parameters(net: Any, theta: Any, name: str = "theta", takes: Taken = network) -> tuple[Floats, bool]:
    """Return theta as a C-ordered (R, P), and whether it came without R."""
    theta_shape(net, theta, name, takes)
    single = theta.ndim == 1
    return _contiguous(theta, (1, -1) if single else theta.shape), single


def inputs_only(net: Any, theta: Any, inputs: Any, takes: Taken = network) -> Checked:
    """Check the arguments of a forward pass."""
    rows, single = parameters(net, theta, takes=takes)
    with_outputs(net)
    lead = () if single else (rows.shape[0],)
    inputs = _inputs(net, inputs, lead)
    if not single:
        _same_replicas("inputs", inputs, rows)
    steps, batch = inputs.shape[len(lead) : len(lead) + 2]
    shape = (rows.shape[0], *inputs.shape[len(lead) :])
    weights = np.zeros((rows.shape[0], steps, batch), net.dtype)
    return Checked(rows, _contiguous(inputs, shape), None, weights, single)


def computation(net: Any, theta: Any, batch: Any, takes: Taken = network) -> Checked:
    """Check the arguments of a gradient."""
    takes(net)
    with_outputs(net)
    triple(batch)
    rows, single = parameters(net, theta, takes=takes)
    replicas = rows.shape[0]
    rank = 0 if single else 1
    inputs = _inputs(net, batch[0], () if single else (replicas,))
    if not single:
        _same_replicas("inputs", inputs, rows)
    lead = inputs.shape[: rank + 2]
    weights = _weights(net, batch[2], lead)
    _check.finite("weights", weights, "Give a step that does not count weight 0.")
    targets = _targets(net, batch[1], weights, lead)
    full = (replicas, *lead[rank:])
    return Checked(
        rows,
        _contiguous(inputs, full + inputs.shape[rank + 2 :]),
        _contiguous(targets, full + targets.shape[rank + 2 :]),
        _contiguous(weights, full),
        single,
    )


def drawn(net: Model, batch: Any, tokens: bool) -> None:
    """Refuse a batch, R in front, that was drawn for a network and does not fit it."""
    triple(batch)
    inputs, targets, weights = batch
    lead = np.shape(weights)
    _check.floats("weights", weights, net.dtype)
    if len(lead) != 3 or np.shape(inputs)[:3] != lead:
        raise ValueError(
            f"weights has shape {lead[1:]} and inputs {np.shape(inputs)[1:]}; expected (T, B), and the same in front "
            f"of the inputs. Reshape them."
        )
    if (_check.array("inputs", inputs).dtype.kind in "iu") != tokens:
        raise TypeError(
            f"inputs has dtype {inputs.dtype}; expected {'integers, as tokens is True' if tokens else net.dtype}. "
            f"Cast them, or change tokens."
        )
    _inputs(net, inputs, lead[:1])
    _check.finite("weights", weights, "Give a step that does not count weight 0.")
    _targets(net, targets, weights, lead)


def direction(net: Network, value: Any, theta: Any, name: str) -> Floats:
    """Return a direction in the space of theta as a C-ordered (R, P)."""
    theta_shape(net, value, name)
    if value.shape != theta.shape:
        raise ValueError(f"{name} has shape {value.shape}; expected {theta.shape}, as theta has. Pass its own.")
    _check.finite(name, value, "Clean it.")
    return parameters(net, value, name)[0]


def _same_replicas(name: str, value: Any, theta: Any) -> None:
    if value.shape[0] != theta.shape[0]:
        raise ValueError(f"{name} has {value.shape[0]} replicas; expected {theta.shape[0]}, as theta has. {SHARE}")


def like_inputs(net: Network, value: Any, checked: Checked, name: str) -> Any:
    """Return what is laid out like dense inputs as (R, T, B, N)."""
    if checked.inputs.dtype.kind == "i":
        raise ValueError(f"{name} is given and the inputs are tokens; expected dense inputs. Leave it out.")
    return _laid_out(net, value, checked, name, checked.inputs.shape[1:], "(T, B, N)")


def like_states(net: Network, value: Any, checked: Checked, name: str) -> Any:
    """Return what is laid out like the states after every step as (R, T, B, S, H)."""
    shape = (*checked.weights.shape[1:], len(net.cell_object.states), net.n_hidden)
    return _laid_out(net, value, checked, name, shape, "(T, B, S, H)")


def _laid_out(net: Network, value: Any, checked: Checked, name: str, shape: tuple[int, ...], said: str) -> Any:
    _check.floats(name, value, net.dtype)
    full = (checked.weights.shape[0], *shape)
    wanted = shape if checked.single else full
    if value.shape != wanted:
        raise ValueError(f"{name} has shape {value.shape}; expected {wanted}, that is {said}. Reshape it.")
    _check.finite(name, value, "Clean it.")
    return _contiguous(value, full)


def beginning(net: Model, value: Any, checked: Checked) -> Asked:
    """Return what asks for a first state (B, S, H) alone; None is for zeros."""
    return PLAIN if value is None else Asked(state=state(net, value, checked))


def zero_state(net: Model, replicas: int, batch: int) -> Any:
    """Return a state of zeros (R, B, S, H), for a stack a tuple of such."""
    if isinstance(net, Stack):
        return tuple(zero_state(one, replicas, batch) for one in net.nets)
    return np.zeros((replicas, batch, len(net.cell_object.states), net.n_hidden), net.dtype)


def state(net: Model, value: Any, checked: Checked, name: str = "state") -> Any:
    """Return a state, or something laid out like one, as (R, B, S, H), or for a stack as a tuple of such."""
    if isinstance(net, Stack):
        if not isinstance(value, tuple | list) or len(value) != len(net.nets):
            each = "direction of each layer" if net.bidirectional else "layer"
            raise TypeError(
                f"{name} is {_check.said(value)}; expected {len(net.nets)} arrays (B, S, H), one for each {each} of "
                f"the Stack. Pass the last one on."
            )
        layers = zip(net.nets, value, strict=True)
        return tuple(state(layer, one, checked, f"{name}[{k}]") for k, (layer, one) in enumerate(layers))
    _check.floats(name, value, net.dtype)
    replicas, _, batch = checked.weights.shape
    shape = (batch, len(net.cell_object.states), net.n_hidden)
    wanted = shape if checked.single else (replicas, *shape)
    if value.shape != wanted:
        raise ValueError(f"{name} has shape {value.shape}; expected {wanted}, that is (B, S, H). Pass the last one on.")
    _check.finite(name, value, "Start again from zeros.")
    return _contiguous(value, (replicas, *shape))
