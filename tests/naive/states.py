"""The way forward: states and outputs of a batch."""

from __future__ import annotations

from typing import Any

import numpy as np

from naive.arrays import Array, Params
from naive.cells import CELLS


def preactivations(p: Params, cell: str, x: Array, s: Array, noise: Any = 0.0) -> tuple[Array, Array]:
    """Return a_in = x @ w_in + bias (+ noise) and a_rec = h @ w_rec (+ bias_rec), each (G,H), of one step."""
    a_in = p["bias"] + (p["w_in"][x] if np.ndim(x) == 0 else np.einsum("n,ngh->gh", x, p["w_in"])) + noise
    a_rec = np.einsum("k,kgh->gh", s[0], p["w_rec"])
    return a_in, a_rec + p["bias_rec"] if CELLS[cell].has_bias_rec else a_rec


@np.errstate(over="ignore", invalid="ignore")
def forward(p: Params, cell: str, inputs: Array, s0: Array | None = None, noise: Array | None = None) -> Array:
    """Return the states (T+1,B,S,H), the initial one (s0 (B,S,H), else zeros) first (book eq. 10.8-10.9).

    `noise` (T,B,G,H) is added to a_in.
    """
    inputs = np.asarray(inputs)
    T, B = inputs.shape[:2]
    S, H = CELLS[cell].states, p["w_rec"].shape[0]
    start = np.zeros((B, S, H)) if s0 is None else np.asarray(s0)
    kind = np.result_type(np.float64, p["w_in"], start, *([inputs] if inputs.ndim == 3 else []))
    states = np.zeros((T + 1, B, S, H), dtype=kind)
    states[0] = start
    for b in range(B):
        for t in range(1, T + 1):
            added = 0.0 if noise is None else noise[t - 1, b]
            a_in, a_rec = preactivations(p, cell, inputs[t - 1, b], states[t - 1, b], added)
            states[t, b] = CELLS[cell].step(a_in, a_rec, states[t - 1, b])
    return states


@np.errstate(over="ignore", invalid="ignore")
def outputs(p: Params, states: Array) -> Array:
    """Return y = h @ w_out + b_out, (T,B,M), of every state but the initial one (book eq. 10.10)."""
    T, B = states.shape[0] - 1, states.shape[1]
    y = np.zeros((T, B, p["b_out"].size), dtype=np.result_type(states, p["w_out"]))
    for t in range(T):
        for b in range(B):
            y[t, b] = states[t + 1, b, 0] @ p["w_out"] + p["b_out"]
    return y
