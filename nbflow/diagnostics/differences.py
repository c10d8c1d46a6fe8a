"""Checking a gradient by differences, without any of the kernels that computed it.

The network runs forward in NumPy, its units compiled for complex numbers: a complex step, `Im f(x + ih) / h`, is the
derivative to rounding (Squire and Trapp 1998); central differences with four points make a second opinion, for units
that are not analytic. Both are as slow as they are simple: one forward pass for every parameter.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from nbflow.diagnostics._gradient_flow import trace
from nbflow.gradients._choices import check_asked, check_flow
from nbflow.gradients.gradient import gradient
from nbflow.gradients.vector_products import vjp
from nbflow.gradients.workspace import Buffers, shape_of
from nbflow.model import _arguments, _layout as layout
from nbflow.model._step import last_step, preactivations
from nbflow.model.network import Network
from nbflow.model.parameters import unpack
from nbflow.records import Batch, Floats, Flow, GradientCheck, Params, Regularizer, StatePenalty

STEP = 1e-30
CENTRAL_STEP = 1e-4
# Perturbed networks that run side by side.
CHUNK = 64

Function = Callable[[Any], Any]


def check_gradient(net: Network, theta: Floats, batch: Batch, *, flow: Flow | None = None) -> GradientCheck:
    """Compare the gradient with complex-step and central differences.

    Parameters
    ----------
    net : Network
        A cell, a loss or a penalty of your own included: this is how to find out whether its derivatives are right.
    theta : array of shape (P,)
    batch : Batch
        A small one: the time goes with P.
    flow : Flow, optional
        Its immediate derivative is compared with differences of Omega as a function of the explicit w_rec alone; the
        exact one with central differences of Omega itself, the detached one with those of Omega for the deltas at
        theta; that of a state penalty with differences of the whole. There are no complex steps of exact, detached and
        a `Regularizer`: the central differences stand for them.

    Returns
    -------
    GradientCheck
        Errors relative to the whole vector: near 1e-15 and 1e-10 for a right float64 gradient, 1e-7 for float32. At a
        kink (relu at 0) central differences tell nothing.

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense.

    Examples
    --------
    >>> import nbflow as nf
    >>> net = nf.Network(cell="tanh", n_in=6, n_hidden=3, n_out=4, dtype="float64")
    >>> theta = nf.init(net, "orthogonal", rng=0)
    >>> batch = nf.load_task("temporal_order").sample(seed=0, index=0, batch_size=2, length=10, dtype="float64")
    >>> seen = check_gradient(net, theta, batch, flow=nf.Flow("norm", alpha=2.0))
    >>> seen.error_complex < 1e-12, seen.error_central < 1e-8
    (True, True)
    """
    _arguments.network(net)
    if isinstance(theta, np.ndarray) and theta.ndim == 2:
        raise ValueError(f"theta has shape {theta.shape}; expected ({net.size},). Check one replica: theta[0].")
    d_theta = gradient(net, theta, batch, flow=flow).d_theta
    precise = dataclasses.replace(net, dtype="float64")
    batch = Batch(*(part.astype(np.float64) if part.dtype.kind == "f" else part for part in batch))
    point = theta.astype(np.float64)
    loss = _Forward(precise, batch)
    complex_step, central = _complex_step(loss, point), _central(loss, point)
    if flow is not None:
        strength: Any = flow.alpha  # a number: schedules are refused above
        alpha, (block, omega, analytic) = float(np.ravel(strength)[0]), _omega(precise, point, batch, flow)
        slope = _central(omega, point[block])
        central[block] += alpha * slope
        complex_step[block] += alpha * (_complex_step(omega, point[block]) if analytic else slope)
    return GradientCheck(
        error_central=_relative(d_theta, central),
        error_complex=_relative(d_theta, complex_step),
        worst=_name_of(net, int(np.argmax(np.abs(d_theta - complex_step)))),
        d_theta=d_theta,
        central=central,
        complex_step=complex_step,
    )


def _omega(net: Network, point: Floats, batch: Batch, flow: Flow) -> tuple[slice, Function, bool]:
    """Return the parameters that Omega moves with, Omega as a function of these, and whether they may be complex."""
    penalty, _ = check_flow(flow, 1, net.dtype)
    whole = slice(None)
    if isinstance(penalty, Regularizer):
        return whole, lambda points: _values(penalty, net, points, batch), False
    if isinstance(penalty, StatePenalty):
        return whole, _StateOmega(net, batch, penalty), True
    if flow.derivative == "immediate":
        return layout.blocks(net)["w_rec"], _FrozenOmega(net, point, batch, flow), True
    return whole, (_Omega if flow.derivative == "exact" else _DetachedOmega)(net, point, batch, flow), False


def _values(penalty: Regularizer, net: Network, points: Any, batch: Batch) -> Any:
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        return np.array([penalty.value_and_gradient(net, theta, batch)[0] for theta in points.real], complex)


def _relative(found: Floats, wanted: Floats) -> float:
    """Return ||found - wanted|| / ||wanted||, or the difference itself where that would be 0/0."""
    return float(np.linalg.norm(found - wanted) / (np.linalg.norm(wanted) or 1.0))


def _name_of(net: Network, index: int) -> str:
    """Return the name of a parameter, as in "w_rec[3, 0, 2]"."""
    for name, block in layout.blocks(net).items():
        if block.start <= index < block.stop:
            place = np.unravel_index(index - block.start, net.shapes[name])
            return f"{name}{[int(i) for i in place]}"
    raise AssertionError


def _chunks(size: int) -> Iterator[Any]:
    """Yield the indices of all parameters, some at a time."""
    for start in range(0, size, CHUNK):
        yield np.arange(start, min(start + CHUNK, size))


def _moved(function: Function, point: Floats, rows: Any, by: complex) -> Any:
    """Return a function (n, P) -> (n,) at n points: each of these parameters moved by itself."""
    points = np.tile(point.astype(complex), (rows.size, 1))
    points[np.arange(rows.size), rows] += by
    return function(points)


def _complex_step(function: Function, point: Floats) -> Floats:
    """Return the gradient of a function of (n, P) -> (n,) at `point` by complex steps."""
    return np.concatenate([_moved(function, point, rows, 1j * STEP).imag / STEP for rows in _chunks(point.size)])


def _central(function: Function, point: Floats) -> Floats:
    """Return the gradient by four-point central differences, whose error falls as the fourth power of the step."""
    steps = ((-2, 1.0), (-1, -8.0), (1, 8.0), (2, -1.0))
    found: list[Any] = [
        sum(factor * _moved(function, point, rows, shift * CENTRAL_STEP).real for shift, factor in steps)
        for rows in _chunks(point.size)
    ]
    return np.concatenate(found) / (12 * CENTRAL_STEP)


class _Forward:
    """The loss as a function of theta (n, P), complex."""

    def __init__(self, net: Network, batch: Batch) -> None:
        from nbflow.cpu.complex_step import build_complex_loss, build_complex_step

        self.net, self.batch = net, batch
        self.step, self.loss = build_complex_step(net.compiled_cell), build_complex_loss(net.loss_object)
        weights = batch.weights
        if net.loss_object.classes:
            self.targets = (batch.targets[..., None] == np.arange(net.n_out)).astype(np.float64)
        else:
            self.targets = batch.targets
        self.seen = [np.flatnonzero(weights[t]) for t in range(weights.shape[0])]

    def __call__(self, theta: Any) -> Any:
        params = _complex_params(self.net, theta)
        n, batch_size = theta.shape[0], self.batch.weights.shape[1]
        s = np.zeros((n, batch_size, len(self.net.cell_object.states), self.net.n_hidden), complex)
        total = np.zeros(n, complex)
        for t, seen in enumerate(self.seen):
            s = self._advance(params, t, s)
            if seen.size:
                y = s[:, seen, 0] @ params.w_out + params.b_out[:, None]
                values = np.empty(n * seen.size, complex)
                targets = np.broadcast_to(self.targets[t, seen], y.shape)
                self.loss(_rows(y), _rows(targets), values)
                total += values.reshape(n, -1) @ self.batch.weights[t, seen]
        return total

    def _advance(self, params: Params, t: int, s: Any) -> Any:
        n, batch_size, _, hidden = s.shape
        a_in, a_rec = preactivations(params, self.batch.inputs[t], s[:, :, 0])
        out = np.empty_like(s)
        flat = (n * batch_size, -1, hidden)
        self.step(self.net.cell_settings, a_in.reshape(flat), a_rec.reshape(flat), s.reshape(flat), out.reshape(flat))
        return out


class _StateOmega(_Forward):
    """The mean of a state penalty as a function of theta (n, P), complex."""

    def __init__(self, net: Network, batch: Batch, penalty: StatePenalty) -> None:
        from nbflow.cpu.complex_step import build_complex_state_penalty

        super().__init__(net, batch)
        self.penalty = build_complex_state_penalty(penalty)
        self.last = last_step(batch.weights)

    def __call__(self, theta: Any) -> Any:
        params = _complex_params(self.net, theta)
        n, batch_size = theta.shape[0], self.last.size
        s = np.zeros((n, batch_size, len(self.net.cell_object.states), self.net.n_hidden), complex)
        total, before, values = np.zeros(n, complex), self._norms(s), np.empty((n, batch_size), complex)
        for t in range(self.last.max()):
            s = self._advance(params, t, s)
            norms = self._norms(s)
            self.penalty(norms.ravel(), before.ravel(), values.ravel())
            live = self.last > t
            total += (values[:, live] / self.last[live]).sum(axis=1) / batch_size
            before = norms
        return total

    @staticmethod
    def _norms(s: Any) -> Any:
        """Return ||h|| (n, B), analytic: no modulus of a complex number is taken."""
        return np.sqrt((s[:, :, 0] ** 2).sum(axis=-1))


def _rows(array: Any) -> Any:
    return np.ascontiguousarray(array.reshape(-1, array.shape[-1]))


def _complex_params(net: Network, theta: Any) -> Params:
    """Return views of complex theta (n, P) by name."""
    where, shapes = layout.blocks(net), net.shapes
    return Params(*(theta[:, where[name]].reshape(len(theta), *shape) for name, shape in shapes.items()))


class _FrozenOmega:
    """Omega as a function of the explicit w_rec (n, H*G*H): delta, e and what J carries past a_rec stay as they are."""

    def __init__(self, net: Network, theta: Floats, batch: Batch, flow: Flow) -> None:
        from nbflow.cpu.complex_step import build_complex_penalty
        from nbflow.cpu.engine import back

        checked = _arguments.computation(net, theta, batch)
        asked = check_asked(net, (1, batch.weights.shape[1]), flow=flow)
        self.penalty, self.net = build_complex_penalty(asked.penalty), net
        found = back(Buffers(net, shape_of(checked)), checked, asked)
        self._keep(batch, flow, unpack(net, theta).w_rec, *(part[0] for part in found))

    def _keep(self, batch: Batch, flow: Flow, w_rec: Floats, delta: Floats, e: Floats, v_h: Floats) -> None:
        """Keep delta, e and what of v is not through w_rec at the counted (t, b), one row each."""
        reach, hidden = last_step(batch.weights).max(), e.shape[-1]
        v = delta[:-1].copy()  # right but for the h-line, which has the loss of its own step
        v[:, :, 0] = v_h
        square = (delta[1 : reach + 1] ** 2).sum(axis=(2, 3))
        counted = square >= flow.bound
        self.square = square[counted]
        self.e = e[:reach][counted].reshape(-1, e.shape[-2] * hidden)
        self.beside_w_rec = v[:reach][counted].astype(complex)
        self.beside_w_rec[:, 0] -= self.e @ w_rec.reshape(hidden, -1).T
        self.scale = 1.0 / max(counted.sum(), 1) if flow.reduction == "mean" else 1.0 / batch.weights.shape[1]

    def __call__(self, w_rec: Any) -> Any:
        total = np.zeros(w_rec.shape[0], complex)
        for k, matrix in enumerate(w_rec.reshape(w_rec.shape[0], self.net.n_hidden, -1)):
            v = self.beside_w_rec.copy()
            v[:, 0] += self.e @ matrix.T
            q = (v**2).sum(axis=(1, 2)) / self.square
            values = np.empty(q.size, complex)
            self.penalty(q, values)
            total[k] = values.sum() * self.scale
        return total


class _Omega:
    """Omega as a function of theta (n, P), all of it moving: n networks side by side."""

    def __init__(self, net: Network, theta: Floats, batch: Batch, flow: Flow) -> None:
        self.net, self.batch = net, batch
        self.flow = dataclasses.replace(flow, alpha=0.0, derivative="immediate")

    def __call__(self, theta: Any) -> Any:
        return gradient(self.net, _real(theta), _shared(self.batch, len(theta)), flow=self.flow).omega


class _DetachedOmega:
    """Omega as a function of theta (n, P) for the deltas at one theta: J_t and its states move, delta_t does not."""

    def __init__(self, net: Network, theta: Floats, batch: Batch, flow: Flow) -> None:
        from nbflow.cpu.complex_step import build_complex_penalty

        self.net, self.batch = net, batch
        self.penalty = build_complex_penalty(check_flow(flow, 1, net.dtype)[0])
        # No state after a sequence's last weight is listened to: its delta is 0, and Omega does not count it.
        self.delta = trace(net, theta, batch).delta[1:]
        self.square = (self.delta**2).sum(axis=(2, 3)).ravel()
        self.counted = self.square >= flow.bound
        self.scale = 1.0 / max(self.counted.sum(), 1) if flow.reduction == "mean" else 1.0 / batch.weights.shape[1]

    def __call__(self, theta: Any) -> Any:
        n, theta = len(theta), _real(theta)
        states = trace(self.net, theta, _shared(self.batch, n)).states[:, :-1]
        rows = (n, -1, *states.shape[3:])  # every step of every sequence is a sequence of one step
        delta = np.broadcast_to(self.delta, states.shape).reshape(rows)
        inputs = _shared(self.batch, n).inputs
        inputs = inputs.reshape(n, 1, -1, *inputs.shape[3:])
        v = vjp(self.net, theta, inputs, d_state=delta, state=states.reshape(rows)).d_state
        square = (v**2).sum(axis=(2, 3))[:, self.counted] / self.square[self.counted]
        values = np.empty(square.size, complex)
        self.penalty(square.ravel().astype(complex), values)
        return values.real.reshape(n, -1).sum(axis=1) * self.scale


def _real(theta: Any) -> Floats:
    return np.ascontiguousarray(theta.real)


def _shared(batch: Batch, n: int) -> Batch:
    """Return the batch for each of n replicas."""
    return Batch(*(np.broadcast_to(part, (n, *part.shape)) for part in batch))
