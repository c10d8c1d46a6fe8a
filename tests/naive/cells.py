"""Recurrent cells: one step of one sequence, each unit by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from naive.arrays import Array


class Cell(NamedTuple):
    """A recurrent cell: s_t = step(a_in, a_rec, s_{t-1}), acting on each unit by itself."""

    gates: int
    states: int
    has_bias_rec: bool
    step: Callable[[Array, Array, Array], Array]


def sigmoid(a: Array) -> Array:
    """Return 1 / (1 + exp(-a)) by whichever form does not overflow; complex-safe."""
    positive = np.real(a) > 0
    e = np.exp(np.where(positive, -a, a))
    value: Array = np.where(positive, 1, e) / (1 + e)
    return value


def relu(a: Array) -> Array:
    """Return a where its real part is positive, else 0; NaN stays NaN."""
    return np.where(np.real(a) <= 0, 0, a)


def _simple(phi: Callable[[Array], Array]) -> Cell:
    """Return the simple recurrent cell h = phi(a_in + a_rec) (book eq. 10.8-10.9)."""
    return Cell(1, 1, False, lambda a_in, a_rec, s: phi(a_in + a_rec))


def _lstm(a_in: Array, a_rec: Array, s: Array) -> Array:
    """Return (h, c) of the LSTM without peepholes (Gers et al. 2000; book eq. 10.40-10.44), gates i f g o."""
    i, f, o = sigmoid(a_in[0] + a_rec[0]), sigmoid(a_in[1] + a_rec[1]), sigmoid(a_in[3] + a_rec[3])
    g = np.tanh(a_in[2] + a_rec[2])
    c = f * s[1] + i * g
    return np.stack([o * np.tanh(c), c])


def _gru(a_in: Array, a_rec: Array, s: Array) -> Array:
    """Return h of the GRU (Cho et al. 2014) with the reset after the product, as cuDNN has it, gates r z n."""
    r, z = sigmoid(a_in[0] + a_rec[0]), sigmoid(a_in[1] + a_rec[1])
    n = np.tanh(a_in[2] + r * a_rec[2])
    return np.stack([(1 - z) * n + z * s[0]])


def leaky_tanh(rate: float | Array = 0.1) -> Cell:
    """Return h' = (1 - rate) h + rate tanh(a) (book section 10.9.2), with a rate or one for each unit."""
    return Cell(1, 1, False, lambda a_in, a_rec, s: (1 - rate) * s + rate * np.tanh(a_in + a_rec))


def rotation(real: float | Array = 0.9, imaginary: float | Array = 0.3) -> Cell:
    """Return z' = lambda z + a of two lines, Re z and Im z (Orvieto et al. 2023), as a matrix of turning."""

    def step(a_in: Array, a_rec: Array, s: Array) -> Array:
        return np.stack([real * s[0] - imaginary * s[1], imaginary * s[0] + real * s[1]]) + a_in + a_rec

    return Cell(2, 2, False, step)


def _mgu(a_in: Array, a_rec: Array, s: Array) -> Array:
    """Return h of the minimal gated unit (Zhou et al. 2016), reset after the product, gates u n."""
    u = sigmoid(a_in[0] + a_rec[0])
    return np.stack([s[0] + u * (np.tanh(a_in[1] + u * a_rec[1]) - s[0])])


def _ugrnn(a_in: Array, a_rec: Array, s: Array) -> Array:
    """Return h of the update gate network (Collins et al. 2017), gates g c."""
    g = sigmoid(a_in[0] + a_rec[0])
    return np.stack([g * s[0] + (1 - g) * np.tanh(a_in[1] + a_rec[1])])


CELLS: dict[str, Cell] = {
    "tanh": _simple(np.tanh),
    "sigmoid": _simple(sigmoid),
    "relu": _simple(relu),
    "linear": _simple(lambda a: a),
    "lstm": Cell(4, 2, False, _lstm),
    "gru": Cell(3, 1, True, _gru),
    "leaky_tanh": leaky_tanh(),
    "mgu": Cell(2, 1, False, _mgu),
    "rotation": rotation(),
    "ugrnn": Cell(2, 1, False, _ugrnn),
}
