"""One step of an optimizer, for a training loop of one's own."""

from __future__ import annotations

from typing import Any

import numpy as np

from nbflow import _check
from nbflow._load import is_declared, load
from nbflow.records import Floats, Optimizer, OptimizerSlots

DTYPES = ("float32", "float64")


def apply_update(
    optimizer: str | Optimizer,
    theta: Floats,
    d_theta: Floats,
    lr: float | Floats,
    slots: OptimizerSlots | None = None,
    *,
    settings: dict[str, float] | None = None,
    skip: Any = None,
) -> tuple[Floats, OptimizerSlots]:
    """Take a step of an optimizer: parameters and a gradient go in, the next parameters come out.

    It is the step that `nbflow.train` takes: with the same gradients, a loop of one's own comes to the same bits.

    Parameters
    ----------
    optimizer : str or Optimizer
        One of `nbflow.names("optimizers")`.
    theta : array of shape (P,) or (R, P)
        float32 or float64. It is not changed.
    d_theta : array like theta
        The gradient, as from `nbflow.gradient` or `nbflow.clip`. One that is not finite makes theta so.
    lr : float or float array of shape (R,)
        The learning rate of this step.
    slots : OptimizerSlots, optional
        What came back beside theta from the step before; None at the first one. They are not changed.
    settings : dict, optional
        Settings of the optimizer that differ from its own, as {"momentum": 0.95}.
    skip : bool or bool array of shape (R,), optional
        Which networks keep theta, slots and count: those whose gradient was not finite, say.

    Returns
    -------
    theta : array like theta
        A new array.
    slots : OptimizerSlots
        For the next step.

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense, or the slots are of another optimizer or another network.

    Examples
    --------
    >>> import nbflow as nf
    >>> task = nf.load_task("temporal_order")
    >>> net = nf.Network(cell="tanh", n_in=task.n_in, n_hidden=20, n_out=task.n_out)
    >>> theta, slots = nf.init(net, "smart_tanh", rng=0), None
    >>> for update in range(10):
    ...     out = nf.gradient(net, theta, task.sample(seed=0, index=update, batch_size=20, length=10))
    ...     clipped = nf.clip(net, out.d_theta, nf.Clip("norm", 1.0))
    ...     theta, slots = nf.apply_update("adam", theta, clipped.d_theta, 0.01, slots)
    >>> slots.count, slots.values.shape == (2, net.size)  # the mean, and the mean square
    (10, True)
    """
    rows, gradient = _check_theta(theta), _check_theta(d_theta, "d_theta")
    single, dtype = theta.ndim == 1, str(theta.dtype)
    if d_theta.shape != theta.shape or d_theta.dtype != theta.dtype:
        raise ValueError(
            f"d_theta has shape {d_theta.shape} and dtype {d_theta.dtype}; expected {theta.shape} and {dtype}, as "
            f"theta has. Pass its own."
        )
    found: Optimizer = load("optimizers", optimizer, "optimizer")
    if slots is None and not is_declared(found):
        from nbflow import _probe

        _probe.check_optimizer(found, dtype)
    chosen = _check.settings(found.settings, {} if settings is None else settings, found.limits, dtype)
    rates = _check.per_replica("lr", lr, len(rows), least=0.0, finite=True, dtype=dtype)
    values, counts = _moments(found, theta, rows, slots)
    stands = _flags(skip, len(rows))
    from nbflow.cpu.update import build_update

    step = build_update(found.update, len(found.slots), len(chosen))
    constants = np.array(list(chosen.values()), rows.dtype).reshape(1, -1, 1)
    step(rows, gradient, values, np.ascontiguousarray(rates, rows.dtype), constants, counts, stands)
    if single:
        return rows[0], OptimizerSlots(values[0], int(counts[0]))
    return rows, OptimizerSlots(values, counts)


def _check_theta(value: Any, name: str = "theta") -> Floats:
    """Return a copy of parameters, or of their gradient, as a C-ordered (R, P)."""
    _check.array(name, value)
    if value.dtype not in DTYPES:
        raise TypeError(f"{name} has dtype {value.dtype}; expected float32 or float64. Cast it.")
    if value.ndim not in (1, 2) or value.size == 0:
        raise ValueError(f"{name} has shape {value.shape}; expected (P,) or (R, P). Pass the vector of nbflow.init.")
    return np.array(value.reshape(-1, value.shape[-1]), order="C")


def _moments(optimizer: Optimizer, theta: Floats, rows: Floats, slots: Any) -> tuple[Floats, Any]:
    """Return copies of what the optimizer keeps, (R, K, P), and of how many steps it has taken, (R,)."""
    lead, kept = theta.shape[:-1], len(optimizer.slots)
    if slots is None:
        return np.zeros((len(rows), kept, rows.shape[1]), rows.dtype), np.zeros(len(rows), np.int64)
    if not isinstance(slots, OptimizerSlots):
        raise TypeError(
            f"slots is {_check.said(slots)}; expected what the step before returned beside theta, or None. Write "
            f"theta, slots = nbflow.apply_update(...)."
        )
    values, wanted = _check.array("slots.values", slots.values), (*lead, kept, rows.shape[1])
    if values.shape != wanted or values.dtype != theta.dtype:
        raise ValueError(
            f"slots has values of shape {values.shape} and dtype {values.dtype}; expected {wanted} and {theta.dtype} "
            f"for this optimizer and theta. Begin with slots=None."
        )
    counts = np.asarray(slots.count)
    if counts.shape != lead or counts.dtype.kind not in "iu" or counts.min(initial=0) < 0:
        raise ValueError(
            f"slots has count {_check.said(slots.count)}; expected {'integers of shape (R,)' if lead else 'an integer'}"
            f", the steps taken. Begin with slots=None."
        )
    room = len(rows), kept, rows.shape[1]
    return np.array(values, rows.dtype, order="C").reshape(room), counts.astype(np.int64).reshape(len(rows))


def _flags(skip: Any, replicas: int) -> Any:
    """Return which networks keep all that they have, (R,)."""
    found = np.zeros(1, bool) if skip is None else np.asarray(skip)
    if found.dtype != bool or found.ndim > 1 or found.size not in (1, replicas):
        raise TypeError(
            f"skip is {_check.said(skip)}; expected True or False, or booleans of shape ({replicas},). Write "
            f"skip=~clipped.finite, say."
        )
    return np.array(np.broadcast_to(found.ravel(), (replicas,)))
