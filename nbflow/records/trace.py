"""How the gradient flows back: step by step, and by the lag from the end."""

from __future__ import annotations

from typing import Any, NamedTuple

from nbflow._legible import legible
from nbflow.records._types import Floats
from nbflow.records.estimates import SequenceMean


@legible
class Trace(NamedTuple):
    """What `nbflow.trace` returns: the states, and how the gradient flows back through them.

    With replicas R stands in front of every shape. The gradient at a sequence is that of its share of the loss, and has
    the scale of its weights: where they make a mean over B sequences, delta and delta_norm are 1/B of what they are in
    a sum, and times B they can be compared between batches of different sizes. The gain, a ratio, knows nothing of it.

    Attributes
    ----------
    loss : float, or net.dtype array of shape (R,)
        `sum(weights * l)`: nats (softmax, bernoulli) or squared units of the output (square).
    states : net.dtype array of shape (T+1, B, S, H)
        `states[t]` is s_t, the state after t steps; of the lstm `states[t, :, 0]` is h_t and `states[t, :, 1]` is c_t.
    delta : net.dtype array of shape (T+1, B, S, H)
        `delta[t]` is dL/ds_t, in units of the loss over those of a state: the total derivative, through all later steps
        and the loss of step t, with the other lines of s_t held fixed. So an lstm's h_t and c_t are moved one at a
        time. PyTorch's `c.grad` lets h_t = o_t * tanh(c_t) move along with c_t, and is
        `delta_c + delta_h * o * (1 - tanh(c)**2)`; its `h.grad` is delta_h. 0 after the last step with weight.
    delta_norm : net.dtype array of shape (T+1, B)
        ||delta_t||, the Euclidean norm over all lines and units of a sequence.
    gain : net.dtype array of shape (T, B)
        ||J_t^T delta_t|| / ||delta_t||; `gain[t - 1]` is that of step t, on the way back from s_t to s_{t-1}. Below 1
        the gradient shrinks there, above 1 it grows; NaN where delta_t = 0.
    """

    loss: Any
    states: Floats
    delta: Floats
    delta_norm: Floats
    gain: Floats


@legible
class LagProfile(NamedTuple):
    """What `nbflow.gains_by_lag` returns; lag k is k steps before the last step of a sequence that has weight.

    With replicas R stands in front of every shape. Norms are in units of the loss over those of a state, and scale with
    the weights as those of `nbflow.Trace` do: by 1/B where these make a mean over B sequences.

    Attributes
    ----------
    delta_norm : SequenceMean of shape (T+1,)
        The geometric mean over sequences of ||delta|| at lag 0 .. T.
    gain : SequenceMean of shape (T,)
        Likewise of the gain from lag k to lag k+1, a ratio.
    zeros : int64 array of shape (T+1,)
        How many sequences reach this lag with a delta that is exactly 0, and are in no mean.
    norms : float64 array of shape (T+1, B)
        ||delta|| of each sequence, NaN before its first step.
    gains : float64 array of shape (T, B)
        Likewise, and NaN where delta is 0.
    """

    delta_norm: SequenceMean
    gain: SequenceMean
    zeros: Any
    norms: Floats
    gains: Floats
