"""Weights from Keras' recurrent layers, as plain lists of arrays; no Keras needed.

`SimpleRNN`, `LSTM` and `GRU` keep a kernel (N, G*H), a recurrent kernel (H, G*H) and a bias (G*H,): ours, flat. Gates
are i, f, c, o of an LSTM, as here i, f, g, o, and z, r, h of a GRU, here r, z, n. A GRU with `reset_after=True` has two
biases, the rows of (2, 3*H): at a_in and at a_rec.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nbflow import _check
from nbflow.model.network import Network
from nbflow.model.parameters import pack
from nbflow.records import Floats, Loss, Params

# Cells that Keras has, by their gates; weights do not tell what the activation of a SimpleRNN is.
CELLS = {1: ("tanh", "relu", "sigmoid", "linear"), 3: ("gru",), 4: ("lstm",)}
# Where each gate of ours stands there.
ORDER = {1: [0], 3: [1, 0, 2], 4: [0, 1, 2, 3]}
WANTED = "kernel, recurrent_kernel and bias of one recurrent layer, then kernel and bias of one Dense"
WRITE = "Write nbflow.from_keras([*recurrent.get_weights(), *dense.get_weights()])."


def from_keras(
    weights: Sequence[Any], *, cell: str | None = None, loss: str | Loss = "softmax"
) -> tuple[Network, Floats]:
    """Make a network of the weights of Keras' `SimpleRNN`, `LSTM` or `GRU`, and a `Dense` on top.

    Parameters
    ----------
    weights : sequence of arrays
        `[*recurrent.get_weights(), *dense.get_weights()]`: the kernel (N, G*H), the recurrent kernel (H, G*H), the bias
        (G*H,), of a GRU (2, 3*H); the kernel (H, M) and the bias (M,) of the Dense. Without biases they are 0.
    cell : str, optional
        The activation of a SimpleRNN: "tanh", the default, "relu", "sigmoid" or "linear"; any other layer is known by
        its shapes. That of the others must be Keras' own, tanh, and the recurrent activation its sigmoid.
    loss : str or Loss
        The loss on the outputs; weights do not tell that either. Outputs are those before the Dense's activation.

    Returns
    -------
    net : Network
        In the dtype of the weights.
    theta : array of shape (P,)
        A new array.

    Raises
    ------
    TypeError, ValueError
        If the weights are those of something else: two layers or directions, or a GRU with `reset_after=False`, which
        resets before the product.

    Examples
    --------
    >>> import numpy as np
    >>> weights = [np.ones((3, 20)), np.ones((5, 20)), np.zeros(20), np.ones((5, 2)), np.zeros(2)]
    >>> net, theta = from_keras(weights)
    >>> net.cell, net.n_in, net.n_hidden, net.n_out, net.dtype
    ('lstm', 3, 5, 2, 'float64')
    """
    kernel, recurrent, bias, w_out, b_out = _parts(weights)
    n, h, m = kernel.shape[0], recurrent.shape[0], w_out.shape[1]
    gates = recurrent.shape[1] // h
    net = Network(_cell(recurrent, cell), n, h, m, loss, str(kernel.dtype))
    rows = 2 if net.cell_object.bias_rec else 1
    bias = np.zeros((rows, gates * h), net.dtype) if bias is None else np.atleast_2d(bias)
    b_out = np.zeros(m, net.dtype) if b_out is None else b_out
    if rows == 2 and bias.shape == (1, gates * h):
        raise ValueError(
            f"bias has shape ({gates * h},), as of a GRU with reset_after=False; expected (2, {gates * h}): here r "
            f"resets after the product. Make the layer with reset_after=True, and train it so."
        )
    wanted = {"kernel": (kernel, (n, gates * h)), "bias": (bias, (rows, gates * h)),
              "kernel of the Dense": (w_out, (h, m)), "bias of the Dense": (b_out, (m,))}  # fmt: skip
    for name, (array, shape) in wanted.items():
        if array.shape != shape:
            raise ValueError(
                f"{name} has shape {array.shape}; expected {shape} beside a recurrent kernel of shape "
                f"{recurrent.shape}. {WRITE}"
            )

    def ours(array: Floats) -> Floats:
        return array.reshape(len(array), gates, h)[:, ORDER[gates]]

    biases = ours(bias)
    params = Params(
        w_in=ours(kernel),
        w_rec=ours(recurrent),
        bias=biases[0],
        bias_rec=biases[1] if rows == 2 else np.zeros(0, net.dtype),
        w_out=w_out,
        b_out=b_out,
    )
    return net, pack(net, params)


def _parts(weights: Any) -> tuple[Floats, Floats, Floats | None, Floats, Floats | None]:
    """Return the five arrays; None for a bias that is not there, which the number of axes of the last one tells."""
    if not isinstance(weights, list | tuple):
        raise TypeError(f"weights is a {type(weights).__name__}; expected a list of arrays: {WANTED}. {WRITE}")
    found = [_array(k, value) for k, value in enumerate(weights)]
    dtypes = sorted({str(array.dtype) for array in found})
    if len(dtypes) > 1:
        raise TypeError(f"weights have dtypes {', '.join(dtypes)}; expected one of them. Cast them alike.")
    b_out = found.pop() if found and found[-1].ndim == 1 else None
    if len(found) not in (3, 4) or any(array.ndim != 2 or not array.size for array in (*found[:2], found[-1])):
        shapes = ", ".join(map(str, (np.shape(value) for value in weights[:12])))
        raise ValueError(
            f"weights have shapes {shapes or 'of nothing'}; expected {WANTED}. {WRITE} Of several layers make a "
            f"network each, and an nbflow.Stack of them."
        )
    kernel, recurrent, *bias, w_out = found
    return kernel, recurrent, bias[0] if bias else None, w_out, b_out


def _array(k: int, value: Any) -> Floats:
    """Return an array of floats, or a tensor's numbers."""
    try:
        found = np.asarray(value.detach().cpu().numpy() if hasattr(value, "detach") else value)
    except Exception as error:
        raise TypeError(
            f"weights[{k}] is a {type(value).__name__} that gives no array ({type(error).__name__}); expected an array "
            f"of floats. {WRITE}"
        ) from error
    if found.dtype not in (np.float32, np.float64):
        raise TypeError(
            f"weights[{k}] has dtype {found.dtype!s:.40}; expected float32 or float64. Cast it: "
            f"weights[{k}].astype('float32')."
        )
    return found


def _cell(recurrent: Floats, cell: Any) -> str:
    """Return the cell's name, the caller's if it fits."""
    h, columns = recurrent.shape
    if columns % h or columns // h not in CELLS:
        raise ValueError(
            f"the recurrent kernel has shape {recurrent.shape}; expected (H, H), (H, 3*H) or (H, 4*H). {WRITE}"
        )
    known = CELLS[columns // h]
    return known[0] if cell is None else _check.choice("cell", cell, known)
