"""The boundary of whatever takes a network: what drivers check in the same way before anything reaches a kernel.

What comes out is what kernels trust: the right dtype, C-ordered, with R in front, every index in range.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from nbflow import _check
from nbflow.model._asked import PLAIN, Asked
from nbflow.model._batch import SHARE, check_inputs, check_targets, check_weights, triple
from nbflow.model._hidden import Hidden
from nbflow.model.network import Network
from nbflow.model.stack import Model, Stack
from nbflow.records import Floats


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


def _contiguous(value: Any, shape: tuple[int, ...]) -> Any:
    """Return `value` as kernels read it, a copy only where it lies otherwise."""
    value = np.ascontiguousarray(value)
    return (value if value.flags.aligned else value.copy()).reshape(shape)


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
    inputs = check_inputs(net, inputs, lead)
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
    inputs = check_inputs(net, batch[0], () if single else (replicas,))
    if not single:
        _same_replicas("inputs", inputs, rows)
    lead = inputs.shape[: rank + 2]
    weights = check_weights(net, batch[2], lead)
    _check.finite("weights", weights, "Give a step that does not count weight 0.")
    targets = check_targets(net, batch[1], weights, lead)
    full = (replicas, *lead[rank:])
    return Checked(
        rows,
        _contiguous(inputs, full + inputs.shape[rank + 2 :]),
        _contiguous(targets, full + targets.shape[rank + 2 :]),
        _contiguous(weights, full),
        single,
    )


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


def _laid_out(
    net: Network, value: Any, checked: Checked, name: str, shape: tuple[int, ...], said: str,
    remedy: str = "Reshape it.", mend: str = "Clean it.",
) -> Any:  # fmt: skip
    _check.floats(name, value, net.dtype)
    full = (checked.weights.shape[0], *shape)
    wanted = shape if checked.single else full
    if value.shape != wanted:
        raise ValueError(f"{name} has shape {value.shape}; expected {wanted}, that is {said}. {remedy}")
    _check.finite(name, value, mend)
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
    shape = (checked.weights.shape[2], len(net.cell_object.states), net.n_hidden)
    on, anew = "Pass the last one on.", "Start again from zeros."
    return _laid_out(net, value, checked, name, shape, "(B, S, H)", on, anew)
