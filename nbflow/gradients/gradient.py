"""The gradient of a batch: forward, loss, backward, weights, flow, in that order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, overload

import numpy as np

from nbflow import _check
from nbflow.cpu.report import LEFT_OUT, where_groups
from nbflow.gradients._choices import beginning, check_asked
from nbflow.gradients._engine import engine_of, refuse_lacking
from nbflow.gradients.workspace import Buffers, buffers_for
from nbflow.model import _arguments
from nbflow.model._asked import Asked, Found, at_ends
from nbflow.model.stack import Model, Stack
from nbflow.records import (
    Batch,
    ExampleClip,
    Floats,
    Flow,
    Gradient,
    HDetach,
    HiddenClip,
    MicrobatchClip,
    Noise,
    Regularizer,
)


def gradient(
    net: Model,
    theta: Floats,
    batch: Batch,
    *,
    flow: Flow | None = None,
    state: Floats | None = None,
    lengths: Any = None,
    clip_hidden: HiddenClip | None = None,
    clip_example: float | Floats | ExampleClip | None = None,
    clip_microbatch: tuple[int, float | Floats] | MicrobatchClip | None = None,
    h_detach: HDetach | None = None,
    noise: float | Floats | Noise | None = None,
    recompute_every: int | None = None,
    wrt: str | Sequence[str] = (),
    backend: str = "cpu",
    workspace: Buffers | None = None,
    checkpoint_every: int | None = None,
) -> Gradient:
    """Compute the loss of a batch and its gradient by back-propagation through time.

    `L = sum_{t,b} weights[t,b] * l(y[t,b], target[t,b])` (Goodfellow et al. 2016, eq. 10.17-10.28). Steps after the
    last one with weight are not computed.

    Parameters
    ----------
    net : Network or Stack
    theta : array of shape (P,) or (R, P)
    batch : Batch
        With R in front of every shape if theta has it.
    flow : Flow, optional
        Add alpha * Omega to the objective (eq. 10.52), or alpha times another regularizer. Clips inside the gradient
        see the part of a state penalty as they see the loss, and nothing of a `Regularizer`, which is added after them.
    state : array of shape (B, S, H), optional
        The state before the first step, zeros by default. It is a constant: truncated BPTT.
        With it, all T steps are computed and the last state is returned. Of a stack a tuple, one for each layer.
    lengths : integer array of shape (B,), optional
        Of ragged sequences, 1 to T, or 0 for none: the state that is returned is the one at each sequence's own end,
        from which the next window goes on. (Weights say where a sequence has a loss, not where it ends.) With it a
        state is returned though none is given, and all T steps are computed. A stack of two directions reads each
        sequence from this end on; without lengths from its last weight.
    clip_hidden : HiddenClip, optional
        Clip the back-propagated vector at every step; what comes back is then no gradient of anything.
    clip_example : float, array of shape (R,) or ExampleClip, optional
        Return the mean of norm-clipped gradients of single examples: g_b, the gradient of B times example b's share of
        the loss, is scaled to this norm if it is larger (Goodfellow et al. 2016, section 10.11.1). An `ExampleClip`
        also says what becomes of one that is not finite: by default it is kept, and makes the mean so too. Of a stack
        the norm is that of all layers together.
    clip_microbatch : tuple (size, threshold) or MicrobatchClip, optional
        The same for groups of `size` neighbouring examples, each the gradient of B / size times its share. `size` must
        divide B.
    h_detach : HDetach, optional
        Let no gradient back through h at some steps; what comes back is no gradient of anything.
    noise : float, array of shape (R,) or Noise, optional
        Add Gaussian noise of this standard deviation to the pre-activations of every unit at every step. A `Noise` also
        says which draws; a number is `Noise(number)`, those of seed 0 and index 0. It is a constant to the derivative.
    recompute_every : int, optional
        Keep the state only at about every so many steps and compute those between twice: memory grows as
        T / recompute_every + recompute_every instead of T, the bits stay the same (Chen et al. 2016). Rounded up to a
        multiple of 64 or, for fewer than 10 sequences in a shard, up to 640.
    wrt : "inputs", "state", or a sequence of them, optional
        Where the gradient is wanted beside the parameters: `d_inputs` at the inputs of every step, for saliency, or an
        encoder before the network; `d_state` at the first state, for one that is trained.
    backend : str
        "cpu", or "cuda" for a GPU.
    workspace : Buffers, optional
        Memory from `nbflow.workspace`, for calls in a loop; one for each thread.
    checkpoint_every : int, optional
        The older name of `recompute_every`.

    Returns
    -------
    Gradient

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense. Arguments are never changed.
    FloatingPointError
        If the gradient of an example or a group is not finite, and the clip's `nonfinite` is "raise"; it names it.
    NotImplementedError
        If backend "cuda" lacks what is asked for.
    RuntimeError, MemoryError
        If there is no GPU, or no room on it; or if another call is using the workspace.

    Examples
    --------
    >>> import nbflow as nf
    >>> net = nf.Network(cell="tanh", n_in=6, n_hidden=50, n_out=4)
    >>> theta = nf.init(net, "smart_tanh", rng=0)
    >>> batch = nf.load_task("temporal_order").sample(seed=0, index=0, batch_size=20, length=50)
    >>> out = nf.gradient(net, theta, batch, flow=nf.Flow("norm", alpha=2.0))
    >>> out.d_theta.shape
    (3054,)
    >>> abs(out.loss - 1.386) < 0.05  # log 4: it knows nothing yet
    True
    """
    if checkpoint_every is not None:
        if recompute_every is not None:
            raise ValueError(
                "recompute_every and checkpoint_every, its older name, are both given; expected one. Give the first."
            )
        recompute_every = checkpoint_every
    engine = engine_of(backend, net)
    checked = _arguments.computation(net, theta, batch, takes=_arguments.model)
    replicas, _, batch_size = checked.weights.shape
    first = None if state is None else _arguments.state(net, state, checked)
    ends = None if lengths is None else _check_lengths(lengths, checked)
    if ends is not None and first is None:
        first = _arguments.zero_state(net, replicas, batch_size)
    asked = check_asked(
        net, (replicas, batch_size), flow=flow, state=first, clip_hidden=clip_hidden, clip_example=clip_example,
        clip_microbatch=clip_microbatch, h_detach=h_detach, noise=noise,
        recompute_every=recompute_every, wrt=wrt, tokens=checked.inputs.dtype.kind == "i",
    )  # fmt: skip
    asked = asked if ends is None else asked._replace(ends=ends)
    if ends is not None and isinstance(net, Stack) and net.bidirectional:
        _refuse_weights_after(ends, checked.weights)
    refuse_lacking(engine, asked)
    with buffers_for(net, checked, workspace) as buffers:
        return _gradient_of(engine.gradient(buffers, checked, asked), asked, checked.single)


def _gradient_of(found: Found, asked: Asked, one: bool) -> Gradient:
    """Return what was found, of one network or of replicas, with no number left in a workspace."""
    groups, norms = asked.groups, found.group_norms
    if groups is not None and norms is not None and groups.nonfinite == "raise" and found.report[:, LEFT_OUT].any():
        raise FloatingPointError(where_groups(norms, groups.rows))
    loss, omega, counted, left_out = found.report.T[: LEFT_OUT + 1]
    flow = asked.flow
    counts = flow is not None and not isinstance(asked.penalty, Regularizer)
    return Gradient(
        loss=per_network(loss, one),
        d_theta=found.d_theta[0] if one else found.d_theta,
        omega=None if flow is None else per_network(omega, one),
        counted=per_network(counted.astype(np.int64), one) if counts else None,
        state=first_if(one, found.state),
        example_norms=first_if(one, found.group_norms),
        left_out=None if asked.groups is None else per_network(left_out.astype(np.int64), one),
        d_inputs=first_if(one, found.d_inputs),
        d_state=first_if(one, found.d_state),
    )


def first_if(single: bool, array: Any) -> Any:
    """Return an array with R in front, or the only network's, of a stack likewise for each layer; None stays None."""
    if type(array) is tuple:
        return tuple(first_if(single, layer) for layer in array)
    return array[0] if single and array is not None else array


def per_network(values: Any, single: bool) -> Any:
    """Return a plain number for one network, a new array for replicas."""
    return values.item(0) if single else values.copy()


@overload
def predict(
    net: Model, theta: Floats, inputs: Any, *, state: Floats | None = None, lengths: Any = None,
    noise: float | Floats | Noise | None = None, return_state: Literal[False] = False, backend: str = "cpu",
    workspace: Buffers | None = None,
) -> Floats: ...  # fmt: skip
@overload
def predict(
    net: Model, theta: Floats, inputs: Any, *, state: Floats | None = None, lengths: Any = None,
    noise: float | Floats | Noise | None = None, return_state: Literal[True], backend: str = "cpu",
    workspace: Buffers | None = None,
) -> tuple[Floats, Floats]: ...  # fmt: skip
def predict(
    net: Model, theta: Floats, inputs: Any, *, state: Floats | None = None, lengths: Any = None,
    noise: float | Floats | Noise | None = None, return_state: bool = False, backend: str = "cpu",
    workspace: Buffers | None = None,
) -> Floats | tuple[Floats, Floats]:  # fmt: skip
    """Compute the outputs of a network at every step.

    Parameters
    ----------
    net : Network or Stack
    theta : array of shape (P,) or (R, P)
    inputs : array of shape (T, B, N), or (T, B) of integer tokens
    state : array of shape (B, S, H), optional
        The state before the first step, zeros by default; of a stack a tuple, one for each layer.
    lengths : integer array of shape (B,), optional
        Of ragged sequences, 1 to T, or 0 for none: the state that is returned is the one at each sequence's own end,
        from where a stack of two directions reads it. All T by default.
    noise : float, array of shape (R,) or Noise, optional
        Of the units, as in `nbflow.gradient`.
    return_state : bool
        Return the state at the end as well, from which another call goes on.
    backend : str
        "cpu", or "cuda" for a GPU.
    workspace : Buffers, optional

    Returns
    -------
    array of shape (T, B, M)
        Logits (softmax, bernoulli) or values (square), with R in front if theta has it.
    array of shape (B, S, H), if return_state
        The state after the last step, or after `lengths` steps of each sequence; of a stack a tuple.

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense.

    Examples
    --------
    >>> import nbflow as nf
    >>> net = nf.Network(cell="tanh", n_in=6, n_hidden=50, n_out=4)
    >>> theta = nf.init(net, "smart_tanh", rng=0)
    >>> batch = nf.load_task("temporal_order").sample(seed=0, index=0, batch_size=20, length=50)
    >>> whole = nf.predict(net, theta, batch.inputs)
    >>> whole.shape
    (50, 20, 4)

    In two parts, the state handed on from the first to the second:

    >>> first, state = nf.predict(net, theta, batch.inputs[:30], return_state=True)
    >>> second = nf.predict(net, theta, batch.inputs[30:], state=state)
    >>> bool((second == whole[30:]).all())
    True
    """
    engine = engine_of(backend, net)
    checked = _arguments.inputs_only(net, theta, inputs, takes=_arguments.model)
    asked = beginning(net, checked, state, noise)
    refuse_lacking(engine, asked)
    returned = _check.flag("return_state", return_state)
    two_ways = isinstance(net, Stack) and net.bidirectional
    if lengths is not None and not returned and not two_ways:
        raise ValueError("lengths is given without return_state; expected both. Outputs are those of every step.")
    ends = None if lengths is None else _check_lengths(lengths, checked)
    asked = asked._replace(ends=ends) if two_ways else asked
    with buffers_for(net, checked, workspace) as buffers:
        y, states = engine.predict(buffers, checked, asked, with_states=returned)
    outputs: Floats = first_if(checked.single, y)
    if not returned:
        return outputs
    return outputs, first_if(checked.single, at_ends(states, ends))


def _refuse_weights_after(ends: Any, weights: Any) -> None:
    """Refuse weights behind the end of a sequence, where a network of two directions says nothing."""
    steps = np.arange(weights.shape[1])[:, None]
    if (weights[(steps >= ends[:, None, :])] != 0).any():
        raise ValueError(
            "weights count steps after the lengths; expected weight 0 there, as a sequence of two directions is read "
            "from its own end on. Give longer lengths."
        )


def _check_lengths(lengths: Any, checked: _arguments.Checked) -> Any:
    """Return the lengths (R, B) of ragged sequences."""
    replicas, steps, batch = checked.weights.shape
    wanted = (batch,) if checked.single else (replicas, batch)
    found = _check.array("lengths", lengths)
    if found.dtype.kind not in "iu" or found.shape != wanted:
        raise ValueError(
            f"lengths has shape {found.shape} and dtype {found.dtype}; expected integers of shape {wanted}. "
            f"Give one for each sequence."
        )
    if found.min() < 0 or found.max() > steps:
        raise ValueError(
            f"lengths has values from {found.min()} to {found.max()}; expected 0 to T = {steps}. Give how many steps "
            f"of each sequence count."
        )
    return found.astype(np.int64).reshape(replicas, batch)
