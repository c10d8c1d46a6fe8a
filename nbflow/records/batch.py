"""What a network is given: its parameters by name, and sequences."""

from __future__ import annotations

from typing import Any, NamedTuple

from numpy.typing import NDArray

from nbflow._legible import legible
from nbflow.records._types import Floats


@legible
class Params(NamedTuple):
    """The parameters of a network by name: zero-copy views of a flat `theta`, in the order in which they lie there.

    What each does: `a_in = x_t @ w_in + bias`, `a_rec = h_{t-1} @ w_rec + bias_rec`, `y_t = h_t @ w_out + b_out`. With
    replicas R stands in front of every shape.

    Attributes
    ----------
    w_in : net.dtype array of shape (N, G, H)
        From inputs, or tokens, to the pre-activations of every gate. `w_in[n, g, j]` leads from input n to unit j.
    w_rec : net.dtype array of shape (H, G, H)
        From h_{t-1} to the pre-activations of every gate. `w_rec[i, g, j]` leads from unit i to unit j.
    bias : net.dtype array of shape (G, H)
        Added to a_in.
    bias_rec : net.dtype array of shape (G, H)
        Added to a_rec, in a cell where that is not the same thing (gru); in others its shape is (0,).
    w_out : net.dtype array of shape (H, M)
        From h_t to the outputs.
    b_out : net.dtype array of shape (M,)
        Added to the outputs.
    """

    w_in: Floats
    w_rec: Floats
    bias: Floats
    bias_rec: Floats
    w_out: Floats
    b_out: Floats


@legible
class Batch(NamedTuple):
    """Sequences, what the network should say of them, and how much each step counts.

    T steps, B sequences, N inputs, M outputs; a batch for R replicas has R in front of every shape. The weights are
    mask, lengths and reduction at once: the loss of a batch is `sum(weights * l)` over all (t, b), l being the loss of
    a step, and nothing divides it by B or T. Steps of a sequence after its last one with weight change neither loss nor
    gradient.

    Attributes
    ----------
    inputs : net.dtype array of shape (T, B, N), or integer array of shape (T, B)
        Numbers, or tokens from 0 to N - 1.
    targets : integer array of shape (T, B), or net.dtype array of shape (T, B, M)
        Classes from 0 to M - 1 for the loss softmax, numbers for square and bernoulli (those from 0 to 1). Where the
        weight is 0 they count for nothing.
    weights : net.dtype array of shape (T, B)
        What the loss of each step is multiplied by; 0 for a step that does not count.

    Examples
    --------
    A network that says 0 whatever it sees, so that the loss of a step is the square of its target:

    >>> import numpy as np, nbflow as nf
    >>> net = nf.Network("tanh", n_in=1, n_hidden=1, n_out=1, loss="square", dtype="float64")
    >>> targets = np.array([[1.0, 1.0], [2.0, 2.0], [3.0, 5.0]])  # T = 3 steps of B = 2 sequences
    >>> def loss(weights):
    ...     batch = nf.Batch(np.zeros((3, 2, 1)), targets[..., None], weights)
    ...     return round(nf.gradient(net, np.zeros(net.size), batch).loss, 3)

    A mean over all steps, and a sum:

    >>> loss(np.full((3, 2), 1 / 6)), loss(np.ones((3, 2)))
    (7.333, 44.0)

    A mask, for a mean over what it lets through:

    >>> mask = np.array([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    >>> loss(mask / mask.sum())
    3.0

    Lengths, for a mean over all steps that there are, or over sequences and the steps of each:

    >>> lengths = np.array([3, 2])
    >>> there = np.arange(3)[:, None] < lengths
    >>> loss(there / there.sum()), loss(there / lengths / 2)
    (3.8, 3.583)

    A loss at the last step of each sequence alone, as a mean over sequences:

    >>> last = np.arange(3)[:, None] == lengths - 1
    >>> loss(last / 2.0)
    6.5
    """

    inputs: NDArray[Any]
    targets: NDArray[Any]
    weights: Floats
