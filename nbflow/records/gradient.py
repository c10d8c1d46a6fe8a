"""What computations of derivatives return: the gradient, products with tangents and cotangents."""

from __future__ import annotations

from typing import Any, NamedTuple

from nbflow._legible import legible
from nbflow.records._types import Floats


@legible
class Gradient(NamedTuple):
    """What `nbflow.gradient` returns. With replicas R stands in front of every shape, and numbers are arrays (R,).

    Attributes
    ----------
    loss : float, or net.dtype array of shape (R,)
        `sum(weights * l)`, without Omega: nats (softmax, bernoulli) or squared units of the output (square).
    d_theta : net.dtype array of shape (P,)
        The gradient of loss + alpha * Omega, in units of the loss over those of a parameter; `nbflow.unpack` names its
        parts. It has the scale of the weights: where they make a mean over B sequences its size does not grow with B,
        where they make a sum it is B times as large, and so are the thresholds that fit it.
    omega : float, or net.dtype array of shape (R,), or None
        Omega, or the value of another regularizer, not multiplied by alpha; None without a flow.
    counted : int, or int64 array of shape (R,), or None
        How many (t, b) Omega counted; None without a flow or for a `Regularizer`.
    state : net.dtype array of shape (B, S, H), or None
        The last state, or with `lengths` that at each sequence's own end, to go on from; None unless a first one or
        `lengths` were given. Of a stack a tuple, one for each layer.
    example_norms : float64 array of shape (B,), or of shape (B / size,), or None
        Norms before `clip_example`, or `clip_microbatch` of groups of `size`: of the gradient of B, or B / size, times
        the share that each has in the loss, so that weights for a mean over B give the norm of the gradient of each by
        itself, whatever B is. NaN where that is not finite. None without either.
    left_out : int, or int64 array of shape (R,), or None
        How many examples or groups were left out because their gradient was not finite: see `ExampleClip`. None without
        a clip by them.
    d_inputs : net.dtype array of shape (T, B, N), or None
        dL/dx_t, the gradient of the loss at the inputs of every step; None unless `wrt` asks for it. 0 after a
        sequence's last step with weight.
    d_state : net.dtype array of shape (B, S, H), or None
        dL/ds_0, the gradient of the loss at the first state; None unless `wrt` asks for it. Of a stack a tuple.
    """

    loss: Any
    d_theta: Floats
    omega: Any
    counted: Any
    state: Floats | None = None
    example_norms: Floats | None = None
    left_out: Any = None
    d_inputs: Floats | None = None
    d_state: Floats | None = None


@legible
class Tangent(NamedTuple):
    """What `nbflow.jvp` returns: by how much outputs and the last state move. With replicas R stands in front.

    Attributes
    ----------
    outputs : net.dtype array of shape (T, B, M)
        In units of the outputs over those of the direction.
    state : net.dtype array of shape (B, S, H)
        Of s_T, likewise.
    """

    outputs: Floats
    state: Floats


@legible
class Cotangent(NamedTuple):
    """What `nbflow.vjp` returns: the gradient of <d_outputs, outputs> + <d_state, last state> + <d_states, states>.

    With replicas R stands in front of every shape.

    Attributes
    ----------
    d_theta : net.dtype array of shape (P,)
        With respect to the parameters; a sum over the sequences.
    d_state : net.dtype array of shape (B, S, H)
        With respect to the first state, s_0.
    d_inputs : net.dtype array of shape (T, B, N), or None
        With respect to the inputs of every step; None where they are tokens.
    """

    d_theta: Floats
    d_state: Floats
    d_inputs: Floats | None
