"""Memory that calls in a loop share."""

from __future__ import annotations

import threading
from typing import Any, TypeVar

import numpy as np

from nbflow import _check
from nbflow.model import _arguments, _batch
from nbflow.model.stack import Model
from nbflow.records import Batch

Kind = TypeVar("Kind")


class Buffers:
    """Memory that calls with the same network and shape can share; made by `nbflow.workspace`.

    It holds no results, so it may be passed to any call in any order, by one thread at a time. Whoever computes in it
    holds it, `with buffers:`, until what came out is copied; a second one is refused there.
    """

    def __init__(self, net: Model, shape: Any) -> None:
        self.net, self.shape = net, shape
        self._cut: dict[Any, Any] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Buffers:
        # Without waiting: threads that take turns at one workspace are no faster than one, and nobody would know.
        if not self._lock.acquire(blocking=False):
            raise RuntimeError(
                "workspace is in use by another call; expected one call at a time, for they would overwrite each "
                "other's numbers. Make one for each thread: nbflow.workspace(net, batch)."
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle the sizes alone: kernels know the memory by its address."""
        return Buffers, (self.net, self.shape)

    def of(self, kind: type[Kind], purpose: Any, checked: _arguments.Checked) -> Kind:
        """Return the workspace for a purpose of an engine whose workspaces are of this kind, cut at its first use."""
        room = self.shape
        replicas, steps, batch = checked.weights.shape
        tokens = checked.inputs.dtype.kind == "i"
        if (replicas, batch, tokens) != (room.replicas, room.batch, room.tokens) or steps > room.steps:
            raise ValueError(
                f"workspace was made for {_said(room)}; got {_said(shape_of(checked))}. Make one by nbflow.workspace("
                f"net, batch) for each batch size; one for the longest batch serves shorter ones."
            )
        return self.cut(kind, purpose, steps)

    def cut(self, kind: type[Kind], purpose: Any, steps: int) -> Kind:
        """Return the same for so many steps, which have room."""
        # Purposes of the two engines may be equal tuples.
        found = self._cut.get((kind, purpose))
        if found is None:
            make: Any = kind
            found = self._cut[kind, purpose] = make(self.net, self.shape, purpose)
        if found.steps != steps:
            found.fit(steps)
        return found  # type: ignore[no-any-return]


def _said(shape: Any) -> str:
    kind = "tokens" if shape.tokens else "dense inputs"
    return f"R={shape.replicas}, T={shape.steps}, B={shape.batch}, {kind}"


def shape_of(checked: _arguments.Checked) -> Any:
    """Return the sizes of checked arguments."""
    from nbflow.model._shape import Shape

    replicas, steps, batch = checked.weights.shape
    return Shape(replicas, steps, batch, tokens=checked.inputs.dtype.kind == "i")


def workspace(net: Model, batch: Batch) -> Buffers:
    """Allocate the memory that `gradient`, `trace` and `predict` need for batches like this one.

    A call without a workspace allocates its own, which a loop over small networks should not pay for every time. Calls
    without one may run in as many threads as you like; a workspace is one thread's at a time, and a second call is a
    RuntimeError.

    Parameters
    ----------
    net : Network or Stack
    batch : Batch
        Its shapes count, its values do not: R, B and the kind of inputs must be those of later calls, T their largest.

    Returns
    -------
    Buffers
        To be passed on as `workspace=`.

    Examples
    --------
    >>> import nbflow as nf
    >>> net = nf.Network(cell="tanh", n_in=6, n_hidden=50, n_out=4)
    >>> batch = nf.load_task("temporal_order").sample(seed=0, index=0, batch_size=20, length=50)
    >>> theta, space = nf.init(net, "smart_tanh", rng=0), nf.workspace(net, batch)
    >>> out = nf.gradient(net, theta, batch, workspace=space)
    """
    _arguments.model(net)
    _batch.triple(batch)
    lead = np.shape(_check.array("weights", batch[2]))[:-2]
    if len(lead) > 1 or 0 in lead:
        raise ValueError(f"weights has shape {batch[2].shape}; expected (T, B) or (R, T, B). Leave empty batches out.")
    theta = np.zeros((*lead, net.size), net.dtype)
    return Buffers(net, shape_of(_arguments.computation(net, theta, batch, takes=_arguments.model)))


def buffers_for(net: Model, checked: _arguments.Checked, given: Any) -> Buffers:
    """Return the caller's workspace, or a new one."""
    if given is None:
        return Buffers(net, shape_of(checked))
    if not isinstance(given, Buffers):
        raise TypeError(
            f"workspace is a {type(given).__name__}; expected what nbflow.workspace(net, batch) returns. Make one so."
        )
    if given.net is not net and given.net != net:
        raise ValueError(f"workspace was made for {given.net}; got {net}. Make one by nbflow.workspace(net, batch).")
    return given
