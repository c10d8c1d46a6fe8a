"""What is looked at: gates, gradients by lag, spectra, Lyapunov exponents."""

from __future__ import annotations

import numpy as np

from naive.arrays import Array, Params, gram_schmidt, length
from naive.cells import CELLS, sigmoid
from naive.gradients import Flow, jacobian
from naive.states import forward, preactivations


def gate_values(p: Params, cell: str, x: Array, s: Array) -> tuple[Array, Array, Array]:
    """Return what each gate's nonlinearity gives in one step from s, (G,H), and the ends of its range, (G,1) each."""
    a_in, a_rec = preactivations(p, cell, x, s)
    a = a_in + a_rec
    if cell == "lstm":
        values = np.stack([sigmoid(a[0]), sigmoid(a[1]), np.tanh(a[2]), sigmoid(a[3])])
        return values, np.array([[0], [0], [-1], [0]]), np.ones((4, 1))
    if cell == "gru":
        r = sigmoid(a[0])
        values = np.stack([r, sigmoid(a[1]), np.tanh(a_in[2] + r * a_rec[2])])
        return values, np.array([[0], [0], [-1]]), np.ones((3, 1))
    if cell == "mgu":
        u = sigmoid(a[0])
        return np.stack([u, np.tanh(a_in[1] + u * a_rec[1])]), np.array([[0], [-1]]), np.ones((2, 1))
    if cell == "ugrnn":
        return np.stack([sigmoid(a[0]), np.tanh(a[1])]), np.array([[0], [-1]]), np.ones((2, 1))
    if cell == "leaky_tanh":
        return np.tanh(a), -np.ones((1, 1)), np.ones((1, 1))
    low = {"tanh": -1.0, "sigmoid": 0.0, "relu": 0.0, "linear": -np.inf}[cell]
    high = {"tanh": 1.0, "sigmoid": 1.0, "relu": np.inf, "linear": np.inf}[cell]
    return CELLS[cell].step(a_in, a_rec, s), np.array([[low]]), np.array([[high]])


def last_step(weights: Array) -> Array:
    """Return the last step with weight of each sequence, 1 to T, or 0."""
    return np.array(
        [max([t + 1 for t in range(len(weights)) if weights[t, b] != 0], default=0) for b in range(weights.shape[1])]
    )


def saturation(p: Params, cell: str, inputs: Array, weights: Array, margin: float) -> tuple[Array, Array]:
    """Return whether each gate of each unit is near the lower or the upper end, (T,B,G,H) each, NaN after the end."""
    states = forward(p, cell, inputs)
    T, B = weights.shape
    low, high = (np.full((T, B, CELLS[cell].gates, states.shape[3]), np.nan) for _ in range(2))
    for b, end in enumerate(last_step(weights)):
        for t in range(end):
            values, bottom, top = gate_values(p, cell, np.asarray(inputs)[t, b], states[t, b])
            room = np.where(np.isinf(bottom) | np.isinf(top), 0, margin * (top - bottom))
            low[t, b], high[t, b] = values <= bottom + room, values >= top - room
    return low, high


def by_lag(flow: Flow, weights: Array) -> tuple[Array, Array]:
    """Return norms of delta (T+1,B) and gains (T,B) by the steps before each sequence's last one with weight."""
    T, B = weights.shape
    norms, gains = np.full((T + 1, B), np.nan), np.full((T, B), np.nan)
    for b, end in enumerate(last_step(weights)):
        for lag in range(end + 1 if end else 0):
            norms[lag, b] = length(flow.delta[end - lag, b])
            if lag < end:
                gains[lag, b] = flow.gain[end - lag - 1, b]
    return norms, gains


def spectrum(w_rec: Array) -> tuple[Array, Array]:
    """Return spectral radius (G,) and norm (G,): the largest |eigenvalue|, and the root of that of W^T W."""
    matrices = [w_rec[:, g] for g in range(w_rec.shape[1])]
    radius = [np.abs(np.linalg.eigvals(W)).max() for W in matrices]
    return np.array(radius), np.array([np.sqrt(np.linalg.eigvalsh(W.T @ W).max()) for W in matrices])


def lyapunov(p: Params, cell: str, inputs: Array, weights: Array, k: int) -> Array:
    """Return the k leading finite-time Lyapunov exponents of each sequence up to its last step with weight, (B,k)."""
    states = forward(p, cell, inputs)
    size = states[0, 0].size
    k = min(k, size)
    start, _ = gram_schmidt(np.random.default_rng(0).normal(size=(size, k)))
    found = np.zeros((weights.shape[1], k))
    for b, end in enumerate(last_step(weights)):
        Q = start
        for t in range(end):
            Q, stretch = gram_schmidt(jacobian(p, cell, np.asarray(inputs)[t, b], states[t, b]) @ Q)
            found[b] += np.log(stretch) / end
    return found
