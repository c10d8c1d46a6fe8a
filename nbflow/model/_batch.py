"""What the arrays of a batch must be, for a network: inputs, targets where they have weight, and weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from nbflow import _check
from nbflow.model.stack import Model
from nbflow.records import Batch

SHARE = (
    "Replicas have data of their own; to share a batch write np.broadcast_to(array, (R, *array.shape)) of all three."
)


def triple(batch: Any) -> None:
    """Refuse what is no Batch."""
    if not isinstance(batch, tuple) or len(batch) != 3:
        raise TypeError(
            f"batch is a {type(batch).__name__}; expected a Batch(inputs, targets, weights). Write nbflow.Batch(...)."
        )


def check_inputs(net: Model, inputs: Any, lead: tuple[int, ...]) -> Any:
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


def check_targets(net: Model, targets: Any, weights: Any, lead: tuple[int, ...]) -> Any:
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


def check_weights(net: Model, weights: Any, lead: tuple[int, ...]) -> Any:
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
    check_inputs(net, inputs, lead[:1])
    _check.finite("weights", weights, "Give a step that does not count weight 0.")
    check_targets(net, targets, weights, lead)
