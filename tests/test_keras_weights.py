"""Claims about `from_keras`: Keras' equations in NumPy are the reference, and Keras itself where it is installed."""

from __future__ import annotations

import os

import numpy as np
import pytest
from tolerance import assert_close, within

import nbflow as nf

SIZES = ((3, 5, 2), (1, 1, 1), (2, 2, 6))  # (N, H, M); of the last a GRU's bias has the shape of the Dense's kernel
GATES = {"tanh": 1, "relu": 1, "lstm": 4, "gru": 3}


def make_weights(cell, n, h, m, dtype="float64", seed=0):
    """Return what `[*recurrent.get_weights(), *dense.get_weights()]` would be."""
    rng, columns = np.random.default_rng([seed, n, h, m]), GATES[cell] * h
    bias = (2, columns) if cell == "gru" else (columns,)
    shapes = ((n, columns), (h, columns), bias, (h, m), (m,))
    return [(0.6 * rng.normal(size=shape)).astype(dtype) for shape in shapes]


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def lstm(z, h, c):
    """Return h and c, as Keras' LSTMCell writes them: z0 i, z1 f, z2 c, z3 o."""
    z0, z1, z2, z3 = np.split(z, 4, axis=1)
    c = sigmoid(z1) * c + sigmoid(z0) * np.tanh(z2)
    return sigmoid(z3) * np.tanh(c), c


def gru(matrix_x, matrix_inner, h):
    """Return h, as Keras' GRUCell with reset_after=True writes it: z, r, h."""
    (x_z, x_r, x_h), (rec_z, rec_r, rec_h) = np.split(matrix_x, 3, axis=1), np.split(matrix_inner, 3, axis=1)
    z, r = sigmoid(x_z + rec_z), sigmoid(x_r + rec_r)
    return z * h + (1 - z) * np.tanh(x_h + r * rec_h)


def outputs(cell, weights, x):
    """Return the outputs (B, T, M) of inputs (B, T, N), batch first as in Keras."""
    kernel, recurrent, bias, w_out, b_out = (np.asarray(part, np.float64) for part in weights)
    h = c = np.zeros((len(x), recurrent.shape[0]))
    found = []
    for t in range(x.shape[1]):
        if cell == "gru":
            h = gru(x[:, t] @ kernel + bias[0], h @ recurrent + bias[1], h)
        elif cell == "lstm":
            h, c = lstm(x[:, t] @ kernel + h @ recurrent + bias, h, c)
        else:
            a = x[:, t] @ kernel + h @ recurrent + bias
            h = np.tanh(a) if cell == "tanh" else np.maximum(a, 0)
        found.append(h @ w_out + b_out)
    return np.stack(found, axis=1)


def from_weights(cell, weights, **choices):
    return nf.from_keras(weights, cell=cell if GATES[cell] == 1 else None, **choices)


@pytest.mark.parametrize("cell", GATES)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("n, h, m", SIZES)
def test_outputs_are_those_of_kerass_equations(cell, dtype, n, h, m):
    weights = make_weights(cell, n, h, m, dtype)
    x = np.random.default_rng(1).normal(size=(4, 7, n)).astype(dtype)
    net, theta = from_weights(cell, weights)
    assert (net.cell, net.n_in, net.n_hidden, net.n_out, net.dtype) == (cell, n, h, m, dtype)
    found = nf.predict(net, theta, np.ascontiguousarray(x.swapaxes(0, 1)))
    assert_close(found.swapaxes(0, 1), outputs(cell, weights, x.astype(np.float64)), within(dtype, 7, 4 * (n + h)))


@pytest.mark.parametrize("cell", GATES)
def test_without_biases_they_are_0(cell):
    kernel, recurrent, bias, w_out, b_out = make_weights(cell, 3, 5, 2)
    net, theta = from_weights(cell, [kernel, recurrent, w_out])
    wanted = from_weights(cell, [kernel, recurrent, 0 * bias, w_out, 0 * b_out])[1]
    assert np.array_equal(theta, wanted)
    assert net.n_out == 2


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras, as it reads its tensors
@pytest.mark.parametrize("cell", GATES)
def test_outputs_and_gradients_are_those_of_keras(cell, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setenv("KERAS_BACKEND", os.environ.get("KERAS_BACKEND", "torch"))
    keras = pytest.importorskip("keras")
    if keras.config.backend() != "torch":
        pytest.skip("Keras has another backend than torch")
    kind = {"tanh": "SimpleRNN", "relu": "SimpleRNN", "lstm": "LSTM", "gru": "GRU"}[cell]
    layer = getattr(keras.layers, kind)(
        5, return_sequences=True, dtype="float64", **({"activation": "relu"} if cell == "relu" else {})
    )
    dense = keras.layers.Dense(2, dtype="float64")
    x = np.random.default_rng(2).normal(size=(4, 7, 3))
    given = torch.from_numpy(x)
    dense(layer(given))
    weights = make_weights(cell, 3, 5, 2)
    layer.set_weights(weights[:3])
    dense.set_weights(weights[3:])
    net, theta = from_weights(cell, [*layer.get_weights(), *dense.get_weights()], loss="square")
    # Products of Keras 3.15 with torch are right to seven digits, in float64 too: those of Dense and SimpleRNN.
    tolerance = within("float64" if cell in ("lstm", "gru") else "float32", 7, 128, 10)
    y = layer(given) @ dense.kernel.value + dense.bias.value
    inputs = np.ascontiguousarray(x.swapaxes(0, 1))
    assert_close(nf.predict(net, theta, inputs).swapaxes(0, 1), y.detach().cpu().numpy(), tolerance)
    (y**2).sum().backward()
    batch = nf.Batch(inputs, np.zeros((7, 4, 2)), np.ones((7, 4)))
    found = nf.unpack(net, nf.gradient(net, theta, batch).d_theta)
    grads = [part.value.grad.cpu().numpy() for part in (*layer.weights, *dense.weights)]
    kernel, recurrent = nf.unpack(net, nf.from_keras([*grads], cell=cell if GATES[cell] == 1 else None)[1])[:2]
    assert_close(found.w_in, kernel, tolerance, "w_in")
    assert_close(found.w_rec, recurrent, tolerance, "w_rec")


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        (lambda w: dict(enumerate(w)), TypeError, "expected a list of arrays"),
        (lambda w: w[:2], ValueError, "kernel, recurrent_kernel and bias of one recurrent layer"),
        (lambda w: [*w[:3], *w], ValueError, "nbflow.Stack"),
        (
            lambda w: [w[0], w[1], w[2][0], *w[3:]],
            ValueError,
            "reset_after=False.*Make the layer with reset_after=True",
        ),
        (lambda w: [w[0].T, *w[1:]], ValueError, "kernel has shape"),
        (lambda w: [w[0], w[1][:, :-1], *w[2:]], ValueError, r"expected \(H, H\), \(H, 3\*H\) or \(H, 4\*H\)"),
        (lambda w: [*w[:3], w[3][:-1], w[4]], ValueError, "kernel of the Dense has shape"),
        (lambda w: [*w[:4], w[4][:-1]], ValueError, "bias of the Dense has shape"),
        (lambda w: [w[0].astype(int), *w[1:]], TypeError, "dtype int64"),
        (lambda w: [w[0].astype("float32"), *w[1:]], TypeError, "float32, float64"),
        (lambda w: [object(), *w[1:]], TypeError, r"weights\[0\]"),
    ],
)
def test_what_is_no_such_list_is_refused(change, kind, said):
    with pytest.raises(kind, match=said):
        nf.from_keras(change(make_weights("gru", 3, 5, 2)))


def test_another_cell_than_the_weights_have_is_refused():
    with pytest.raises(ValueError, match="cell is 'tanh'"):
        nf.from_keras(make_weights("gru", 3, 5, 2), cell="tanh")
