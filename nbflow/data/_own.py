"""What a task of one's own is held to: the units of a `Task` before they draw, and every batch that it has drawn."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numba.core import types

from nbflow import _check, _probe, counter
from nbflow._compile import JIT, bounded
from nbflow.model import _batch
from nbflow.model.network import Network
from nbflow.model.stack import Model
from nbflow.records import Batch

UNITS = ("plan", "inputs", "target", "counts", "counted")


def check_units(task: Any, dtype: str) -> None:
    """Refuse a task whose units are not what it says of them."""
    if JIT:
        _infer(task)
    _try(task, dtype)


def _infer(task: Any) -> None:
    """Compile each unit for the numbers that it will meet; an exception reaches the caller, and is allowed."""
    step = types.int64

    def found(field: str, *arguments: Any) -> Any:
        return _probe.inferred(task, field, arguments, unit=bounded(getattr(task, field)), raises=True)

    def hold(field: str, fits: Any, wanted: str, *arguments: Any) -> None:
        kind = found(field, *arguments)
        if not fits(kind):
            _probe.refuse_result(task, field, _probe.shown(kind), wanted)

    stream = types.UniTuple(types.int64, 5)
    plan = found("plan", stream, step)
    if not isinstance(plan, types.Number) and not _probe.are_numbers(plan, _count(plan), types.Number | types.Boolean):
        _probe.refuse_result(task, "plan", _probe.shown(plan), "a tuple of numbers")
    word = types.uint32
    whole = (types.Integer, types.Boolean)
    places = ("inputs", task.tokens, task.n_in, (word, plan, step)), ("target", task.classes, task.n_out, (plan, step))
    for field, one, count, arguments in places:
        if one:
            hold(field, lambda kind: isinstance(kind, whole), "one integer", *arguments)
        else:
            fits = functools.partial(_are_channels, count)
            hold(field, fits, f"a tuple of {count} numbers", *arguments)
    hold("counts", lambda kind: isinstance(kind, whole), "a bool", plan, step)
    hold("counted", lambda kind: isinstance(kind, whole), "an integer", step)


def _count(kind: Any) -> int:
    return len(kind) if isinstance(kind, types.BaseTuple) else -1


def _are_channels(count: int, kind: Any) -> bool:
    return _probe.are_numbers(kind, count, (types.Float, types.Integer, types.Boolean))


def _try(task: Any, dtype: str) -> None:
    """Draw a batch twice: it is a function of (seed, replica, index) alone."""
    batches = []
    for _ in range(2):
        batch = task.empty(1, task.taken(task.shortest), 3, dtype)
        task.draw(batch, 0, counter.TRAIN, np.arange(1), 0, task.shortest)
        batches.append(batch)
    if not all(np.array_equal(one, two) for one, two in zip(*batches, strict=True)):
        raise ValueError(
            f"{type(task).__name__} draws two batches for one seed, replica and index; expected the same one. Draw by "
            f"nbflow.counter alone."
        )


@functools.lru_cache(maxsize=64)
def _face(n_in: int, n_out: int, loss: Any, dtype: str) -> Network:
    """Return a network that takes batches of a task."""
    return Network("linear", n_in, 1, n_out, loss, dtype)


def check_drawn(task: Any, batch: Any, length: int) -> None:
    """Hold a batch that a task has drawn, R in front, to what `nbflow.gradient` asks of one."""
    kind = type(task).__name__
    try:
        net = _face(task.n_in, task.n_out, task.loss, str(batch.weights.dtype))
        _batch.drawn(net, batch, task.tokens)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{kind} drew what is no batch for it: {error}") from None
    counted = getattr(task, "counted", None)
    if counted is None:
        return
    wanted, seen = int(counted(length)), np.count_nonzero(batch.weights, axis=1)
    if (seen != wanted).any():
        raise ValueError(
            f"{kind}.counted({length}) is {wanted}, and a sequence has {seen[seen != wanted][0]} steps that count; "
            f"expected the number of steps at which counts is True, the same for every sequence. Mend one of the two."
        )


def check_held_out(task: Any, net: Model, batches: list[Any]) -> None:
    """Hold what a task of a user's data holds out to what `nbflow.gradient` asks, and its weights to a mean."""
    kind = type(task).__name__
    if not batches:
        raise ValueError(f"{kind}.held_out_batches yields nothing; expected a batch or more. Hold something out.")
    try:
        for batch in batches:
            _batch.triple(batch)
            _batch.drawn(net, Batch(*(np.asarray(part)[None] for part in batch)), task.tokens)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{kind}.held_out_batches yields what is no batch for it: {error}") from None
    total = math.fsum(float(np.sum(batch[2], dtype=np.float64)) for batch in batches)
    if abs(total - 1) > 1e-3:
        raise ValueError(
            f"{kind}.held_out_batches has weights that add up to {total:.6g}; expected 1, for a mean. Divide them."
        )


def check_fields(task: Any) -> None:
    """Refuse a task of which a field is missing, or of another kind than it has to be."""
    kind = type(task).__name__
    for field in ("n_in", "n_out", "shortest"):
        if not hasattr(task, field):
            raise TypeError(f"{kind}.{field} is missing; expected an integer. Write {field} = ... in its class.")
        _check.count(f"{kind}.{field}", getattr(task, field))
    if not isinstance(getattr(task, "tokens", None), bool | np.bool_):
        said = _check.said(getattr(task, "tokens", None))
        raise TypeError(f"{kind}.tokens is {said}; expected True or False. Write it in its class.")
    for field in ("units_per_nat", "solved_below", "worst"):
        value = getattr(task, field, None)
        if value is not None:
            _check.per_replica(f"{kind}.{field}", value, 1, least=0.0, above=True, finite=field != "worst")
