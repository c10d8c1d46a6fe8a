"""mean over i of (lambda_i - target)^2 of the k leading Lyapunov exponents: gradient flossing (Engelken 2023).

The exponents are those of finite time: of a sequence, lambda_i = 1/T sum_t log |R_t[i, i]|, where Q_t R_t =
J_t Q_{t-1} and Q_0 is a fixed orthonormal matrix (S H, k); T is its last step with weight. Omega is the mean over the
sequences of a batch. It is differentiated exactly, through the QR decompositions and the Jacobians inside. Differs from
Engelken 2023 in that the mean over exponents is taken, not the sum, that every step is orthonormalised, and that no
first steps are left out.

It runs in NumPy with the cell's own derivatives and costs many times a plain gradient. A state that loses a direction
altogether, as dead relus do, has an exponent of -inf: Omega is inf then, and its gradient NaN. For another k or target
write `nf.Flow(nbflow.flows.flossing.flossing(k=10), alpha)`; k is at most S H.
"""

import functools
from typing import NamedTuple

import numpy as np

from nbflow._legible import legible
from nbflow.model._step import last_step, preactivations
from nbflow.model.parameters import unpack
from nbflow.records import Params, Regularizer


@legible
class Orbit(NamedTuple):
    """The states of a batch, and the tangents along them: Q_t R_t = J_t Q_{t-1}.

    Attributes
    ----------
    s : float64 array of shape (T+1, B, S, H)
        The states.
    q : float64 array of shape (T+1, B, S, H, k)
        Q_t, k orthonormal columns.
    r : float64 array of shape (T, B, k, k)
        R_t, upper triangular.
    """

    s: np.ndarray
    q: np.ndarray
    r: np.ndarray


def value_and_gradient(net, theta, batch, k, target):
    params = unpack(net, theta)
    last = last_step(batch.weights)
    steps = np.maximum(last, 1)[:, None]
    orbit = _forward(net, params, batch.inputs, last, k)
    stretch = np.abs(np.diagonal(orbit.r, axis1=2, axis2=3))
    exponents = np.log(stretch).sum(axis=0) / steps
    k, batch_size = exponents.shape[1], last.size
    off = np.where(last[:, None] > 0, exponents - target, 0.0)
    omega = float((off**2).sum() / (k * batch_size))
    if not np.isfinite(omega):
        return omega, np.full(theta.shape, np.nan)
    slope = 2 * off / (k * batch_size * steps)  # at the sum over t of log R
    return omega, _backward(net, params, batch.inputs, last, orbit, slope)


def _moved(params, q):
    """Return the tangents (B, k, S, H) of s, and those of a_rec, (B, k, G, H), for columns q (B, S, H, k)."""
    s_dot = np.ascontiguousarray(np.moveaxis(q, -1, 1))
    return np.tensordot(s_dot[:, :, 0], params.w_rec, 1), s_dot


def _forward(net, params, inputs, last, k):
    from nbflow.cpu.pointwise import build_push

    push = build_push(net.compiled_cell)
    steps, (batch, lines, hidden) = len(inputs), (last.size, len(net.cell_object.states), net.n_hidden)
    k = min(k, lines * hidden)
    start = np.linalg.qr(np.random.default_rng(0).normal(size=(lines * hidden, k)))[0]
    s, q = np.zeros((steps + 1, batch, lines, hidden)), np.zeros((steps + 1, batch, lines, hidden, k))
    r = np.tile(np.eye(k), (steps, batch, 1, 1))
    q[0] = start.reshape(lines, hidden, k)
    for t in range(last.max(initial=0)):
        live = last > t
        before = s[t, live]
        s_next, s_next_dot = np.empty_like(before), np.empty((len(before), k, lines, hidden))
        a_in, a_rec = preactivations(params, inputs[t, live], before[:, 0])
        push(net.cell_settings, a_in, a_rec, before, *_moved(params, q[t, live]), s_next, s_next_dot)
        s[t + 1, live] = s_next
        found, r[t, live] = np.linalg.qr(np.moveaxis(s_next_dot, 1, -1).reshape(len(before), -1, k))
        q[t + 1, live] = found.reshape(-1, lines, hidden, k)
    return Orbit(s, q, r)


def _qr_back(q, r, d_q, slope):
    """Return the gradient at M = Q R from that at Q (B, n, k) and that at log |R_ii|, `slope` (B, k).

    (D_Q + Q diag(slope - diag(D_Q^T Q))) R^-T. Of the general formula (Walter and Lehmann 2010) the diagonal alone is
    left: exponents depend on the spans of leading columns, so a column of D_Q is orthogonal to the columns of Q before.
    """
    along = slope - np.einsum("bni,bni->bi", d_q, q)
    return np.swapaxes(np.linalg.solve(r, np.swapaxes(d_q + q * along[:, None], 1, 2)), 1, 2)


def _backward(net, params, inputs, last, orbit, slope):
    """Return the gradient of a function of all log |R_ii|, `slope` (B, k) being its derivatives, in theta's layout.

    With m the gradient at M = J_t Q_{t-1}, column by column, the gradient of m^T J_t q with respect to all that J_t
    depends on is the derivative along q of the step's transposed derivative at m: `step_vjp_jvp`.
    """
    from nbflow.cpu.pointwise import build_bend, build_pull

    bend, pull = build_bend(net.compiled_cell), build_pull(net.compiled_cell)
    _, batch, lines, hidden, k = orbit.q.shape
    d_theta = np.zeros(net.size)
    d = unpack(net, d_theta)
    d_s, d_q = np.zeros((batch, lines, hidden)), np.zeros((batch, lines * hidden, k))
    for t in range(last.max(initial=0) - 1, -1, -1):
        live = last > t
        x, s, q = inputs[t, live], orbit.s[t, live], orbit.q[t + 1, live].reshape(-1, lines * hidden, k)
        m = _qr_back(q, orbit.r[t, live], d_q[live], slope[live]).reshape(-1, lines, hidden, k)
        at = (*preactivations(params, x, s[:, 0]), s)
        a_rec_dot, s_dot = _moved(params, orbit.q[t, live])
        to_rec, e_in, e_rec = (np.empty_like(a_rec_dot) for _ in range(3))
        to_s, e_s = np.zeros_like(s_dot), np.zeros_like(s_dot)
        m = np.ascontiguousarray(np.moveaxis(m, -1, 1))
        bend(net.cell_settings, *at, a_rec_dot, s_dot, m, to_rec, to_s, e_in, e_rec, e_s)
        d.w_rec[:] += np.tensordot(s_dot[:, :, 0], to_rec, ((0, 1), (0, 1)))
        to_s[:, :, 0] += np.tensordot(to_rec, params.w_rec, ((2, 3), (1, 2)))
        d_q[live] = np.moveaxis(to_s, 1, -1).reshape(q.shape)
        # And what comes back to the state from the steps after this one, the plain way.
        plain = np.empty_like(at[0]), np.empty_like(at[0]), np.zeros_like(s)
        pull(net.cell_settings, *at, d_s[live], *plain)
        found = [part.sum(axis=1) + more for part, more in zip((e_in, e_rec, e_s), plain)]
        d_s[live] = _collect(params, d, x, s, *found)
    return d_theta


def _collect(params: Params, d: Params, x, s, e_in, e_rec, e_s):
    """Add one step's gradients at a_in, a_rec and s to those of the parameters; return that at s_{t-1}."""
    if x.dtype.kind in "iu":
        np.add.at(d.w_in, x, e_in)
    else:
        d.w_in[:] += np.tensordot(x, e_in, (0, 0))
    d.w_rec[:] += np.tensordot(s[:, 0], e_rec, (0, 0))
    d.bias[:] += e_in.sum(axis=0)
    if d.bias_rec.size:
        d.bias_rec[:] += e_rec.sum(axis=0)
    e_s[:, 0] += np.tensordot(e_rec, params.w_rec, ((1, 2), (1, 2)))
    return e_s


def flossing(k: int = 5, target: float = 0.0) -> Regularizer:
    """Return the penalty of another number of exponents, or with another target."""
    return Regularizer(functools.partial(value_and_gradient, k=k, target=target))


PENALTY = flossing()
