"""The gradient of a batch: forward, loss, backward, weights, flow, in that order."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nbflow import _check
from nbflow._load import load
from nbflow.network import Network
from nbflow.records import AnyPenalty, Batch, Floats, Flow, Gradient, HDetach, HiddenClip, Penalty, Regularizer
from nbflow.regularizer import regularize

DERIVATIVES = ("immediate", "detached", "exact")
REDUCTIONS = ("sum", "mean")


class Buffers:
    """Memory that calls with the same network and shape can share; made by `nbflow.workspace`.

    It holds no results, so it may be passed to any call in any order, by one thread at a time.
    """

    def __init__(self, net: Network, shape: Any) -> None:
        self.net, self.shape = net, shape
        self._cut: dict[Any, Any] = {}

    def of(self, checked: _check.Checked, **purpose: Any) -> Any:
        """Return the CPU workspace for a purpose, cut at its first use."""
        from nbflow.cpu.workspace import Purpose, Workspace

        return self._cut_for(checked, Purpose(**purpose), Workspace)

    def on_card(self, checked: _check.Checked, **purpose: Any) -> Any:
        """Return the workspace on the card for a purpose, cut at its first use."""
        from nbflow.cuda.workspace import Purpose, Workspace

        return self._cut_for(checked, Purpose(**purpose), Workspace)

    def _cut_for(self, checked: _check.Checked, wanted: Any, make: Any) -> Any:
        room = self.shape
        replicas, steps, batch = checked.weights.shape
        tokens = checked.inputs.dtype.kind == "i"
        if (replicas, batch, tokens) != (room.replicas, room.batch, room.tokens) or steps > room.steps:
            raise ValueError(
                f"workspace was made for {_said(room)}; got {_said(shape_of(checked))}. Make one by nbflow.workspace("
                f"net, batch) for each batch size; one for the longest batch serves shorter ones."
            )
        # Purposes of the two backends may be equal tuples.
        found = self._cut.get((make, wanted))
        if found is None:
            found = self._cut[make, wanted] = make(self.net, room, wanted)
        if found.steps != steps:
            found.fit(steps)
        return found


def _said(shape: Any) -> str:
    kind = "tokens" if shape.tokens else "dense inputs"
    return f"R={shape.replicas}, T={shape.steps}, B={shape.batch}, {kind}"


def shape_of(checked: _check.Checked) -> Any:
    """Return the sizes of checked arguments."""
    from nbflow.cpu.workspace import Shape

    replicas, steps, batch = checked.weights.shape
    return Shape(replicas, steps, batch, tokens=checked.inputs.dtype.kind == "i")


def workspace(net: Network, batch: Batch) -> Buffers:
    """Allocate the memory that `gradient`, `trace` and `predict` need for batches like this one.

    A call without a workspace allocates its own, which a loop over small networks should not pay for every time.

    Parameters
    ----------
    net : Network
    batch : Batch
        Its shapes count, its values do not: R, B and the kind of inputs must be those of later calls, T their largest.

    Returns
    -------
    Buffers
        To be passed on as `workspace=`.

    Examples
    --------
    >>> import nbflow as nf
    >>> net = nf.Network(cell="tanh", n_in=6, n_hidden=50, n_out=4)
    >>> batch = nf.load_task("temporal_order").sample(seed=0, index=0, batch_size=20, length=50)
    >>> theta, space = nf.init(net, "smart_tanh", rng=0), nf.workspace(net, batch)
    >>> out = nf.gradient(net, theta, batch, workspace=space)
    """
    _check.network(net)
    _check.triple(batch)
    lead = np.shape(_check.array("weights", batch[2]))[:-2]
    if len(lead) > 1 or 0 in lead:
        raise ValueError(f"weights has shape {batch[2].shape}; expected (T, B) or (R, T, B). Leave empty batches out.")
    theta = np.zeros((*lead, net.size), net.dtype)
    return Buffers(net, shape_of(_check.computation(net, theta, batch)))


def buffers_for(net: Network, checked: _check.Checked, given: Any) -> Buffers:
    """Return the caller's workspace, or a new one."""
    if given is None:
        return Buffers(net, shape_of(checked))
    if not isinstance(given, Buffers):
        raise TypeError(
            f"workspace is a {type(given).__name__}; expected what nbflow.workspace(net, batch) returns. Make one so."
        )
    if given.net is not net and given.net != net:
        raise ValueError(f"workspace was made for {given.net}; got {net}. Make one by nbflow.workspace(net, batch).")
    return given


def check_flow(flow: Any, replicas: int, dtype: str) -> tuple[AnyPenalty, Floats]:
    """Check a Flow; return its penalty and alpha (R,)."""
    if not isinstance(flow, Flow):
        raise TypeError(f"flow is a {type(flow).__name__}; expected a Flow. Write nbflow.Flow('norm', alpha=2.0).")
    penalty = load("flows", flow.penalty, "penalty")
    if not isinstance(penalty, Penalty):
        _check_plain(flow)
    _check.choice("derivative", flow.derivative, DERIVATIVES)
    _check.choice("reduction", flow.reduction, REDUCTIONS)
    _check.per_replica("bound", flow.bound, 1, least=0.0, above=True, dtype=dtype)
    return penalty, _check.per_replica("alpha", flow.alpha, replicas, least=0.0, finite=True, dtype=dtype)


def _check_plain(flow: Flow) -> None:
    """Refuse choices that only a penalty of the gain has."""
    for name in ("derivative", "reduction", "bound"):
        value, wanted = getattr(flow, name), Flow.__dataclass_fields__[name].default
        if value != wanted:
            raise ValueError(
                f"{name} is {value!r}; expected {wanted!r}, the default, as {flow.penalty!r} is no penalty of the gain "
                f"and has the exact derivative. Leave {name} out."
            )


def check_hidden(how: Any, replicas: int, dtype: str) -> tuple[int, bool, Floats]:
    """Return the site's number, whether by norm, and the threshold (R,) of a clip inside BPTT."""
    if how is None:
        return 0, False, np.zeros(replicas)
    from nbflow.cpu.hidden_clip import SITES

    if not isinstance(how, HiddenClip):
        raise TypeError(f"clip_hidden is a {type(how).__name__}; expected a HiddenClip. Write nbflow.HiddenClip(1.0).")
    _check.choice("site", how.site, tuple(SITES))
    _check.choice("by", how.by, ("value", "norm"))
    threshold = _check.per_replica("threshold", how.threshold, replicas, least=0.0, above=True, dtype=dtype)
    return SITES[how.site], how.by == "norm", threshold


def check_detach(how: Any, net: Network, replicas: int) -> tuple[Floats, int, int]:
    """Return the probability (R,), the seed and the index of h-detach."""
    if how is None:
        return np.zeros(replicas), 0, 0
    if not isinstance(how, HDetach):
        raise TypeError(f"h_detach is a {type(how).__name__}; expected an HDetach. Write nbflow.HDetach(0.25).")
    if not net.cell_object.carries:
        raise ValueError(
            f"h_detach is given with cell {net.cell!r}; expected a cell whose state has a way past w_rec, such as "
            f"'lstm'. No gradient at all would be left."
        )
    probability = _check.per_replica("probability", how.probability, replicas, least=0.0, dtype=net.dtype)
    if (probability > 1).any():
        raise ValueError(f"probability is {probability.max():g}; expected a number from 0 to 1. Give a smaller one.")
    return probability, _check.count("seed", how.seed, 0), check_index(how.index)


def check_index(value: Any) -> int:
    """Return an index of draws, one word."""
    if _check.count("index", value, 0) >= 2**32:
        raise ValueError(f"index is {value}; expected less than 2**32. Give a smaller one.")
    return int(value)


def check_groups(shape: tuple[int, int], dtype: str, example: Any, microbatch: Any) -> tuple[int, Floats] | None:
    """Return the size of a group and the threshold (R,) of its norm, or None."""
    if example is not None and microbatch is not None:
        raise ValueError("clip_example and clip_microbatch are both given; expected one of them. Leave one out.")
    if example is None and microbatch is None:
        return None
    if microbatch is not None and not (isinstance(microbatch, tuple) and len(microbatch) == 2):
        raise TypeError(f"clip_microbatch is {microbatch!r}; expected (size, threshold). Write (4, 1.0), say.")
    name, (size, threshold) = ("clip_example", (1, example)) if microbatch is None else ("clip_microbatch", microbatch)
    replicas, batch = shape
    if batch % _check.count(name, size):
        raise ValueError(f"{name} has size {size}; expected a divisor of B = {batch}. Choose one.")
    return size, _check.per_replica(name, threshold, replicas, least=0.0, above=True, dtype=dtype)


def check_checkpoints(checked: _check.Checked, every: Any) -> int:
    """Return the steps between checkpoints, 0 for none."""
    if every is None:
        return 0
    from nbflow.cpu.gradient import segment_steps
    from nbflow.cpu.workspace import shard_rows

    # The largest of the shards' segments is a multiple of the others, which are all powers of two times 64 or alike.
    segments = {segment_steps(rows) for rows in shard_rows(checked.weights.shape[2])}
    multiple = math.lcm(*segments)
    return -(-_check.count("checkpoint_every", every) // multiple) * multiple


def derivative_of(flow: Flow | None, penalty: Any) -> str:
    """Return the derivative of Omega, "" without a flow or for a regularizer that is no penalty of the gain."""
    return flow.derivative if flow is not None and isinstance(penalty, Penalty) else ""


def refuse_combinations(derivative: str, state: Any, groups: Any, every: int, hidden: Any, detach: Any) -> None:
    """Refuse what has no meaning together, or is not there yet."""
    if groups and derivative:
        raise ValueError(
            "flow and a clip by example are both given; expected one. Omega has no gradient of its own for each "
            "example once it is a mean over them: clip the sum with nbflow.clip."
        )
    if hidden[0] and derivative:
        raise ValueError(
            "flow and clip_hidden are both given; expected one. Omega asks what J does to delta, and a clipped "
            "delta is none that J made. Leave one out."
        )
    if detach is not None and derivative:
        raise ValueError(
            "flow and h_detach are both given; expected one. Omega asks what J does to delta, and a J without h is "
            "another one. Leave one out."
        )
    if every and derivative not in ("", "immediate"):
        raise ValueError(
            f"checkpoint_every and derivative {derivative!r} are both given; expected one. The other sweeps of "
            f"Omega need the whole tape: take 'immediate', or shorter sequences."
        )
    if every and groups:
        raise ValueError("checkpoint_every and a clip by example are both given; expected one. Leave one out.")
    if every and state is not None:
        raise ValueError("checkpoint_every and state are both given; expected one. Cut the batch along T instead.")


def backend_there(backend: str) -> None:
    """Refuse a backend that is not there."""
    if _check.choice("backend", backend, ("cpu", "cuda")) == "cuda":
        from nbflow.cuda.device import require

        require()


def refuse_on_card(penalty: Any, flow: Flow | None, **choices: Any) -> None:
    """Refuse by its name what backend "cuda" lacks; it never does something else instead."""
    if flow is not None:
        choices["penalty"] = None if isinstance(penalty, Penalty) else flow.penalty
        choices["derivative"] = None if flow.derivative == "immediate" else flow.derivative
    for name, value in choices.items():
        if value is not None:
            raise NotImplementedError(
                f"{name} is {value!r}; expected none, or the default, as backend 'cuda' does not have it yet. "
                f"Leave it out, or give backend='cpu'."
            )


def gradient(
    net: Network,
    theta: Floats,
    batch: Batch,
    *,
    flow: Flow | None = None,
    state: Floats | None = None,
    clip_hidden: HiddenClip | None = None,
    clip_example: float | Floats | None = None,
    clip_microbatch: tuple[int, float | Floats] | None = None,
    h_detach: HDetach | None = None,
    checkpoint_every: int | None = None,
    backend: str = "cpu",
    workspace: Buffers | None = None,
) -> Gradient:
    """Compute the loss of a batch and its gradient by back-propagation through time.

    `L = sum_{t,b} weights[t,b] * l(y[t,b], target[t,b])` (Goodfellow et al. 2016, eq. 10.17-10.28). Steps after the
    last one with weight are not computed.

    Parameters
    ----------
    net : Network
    theta : array of shape (P,) or (R, P)
    batch : Batch
        With R in front of every shape if theta has it.
    flow : Flow, optional
        Add alpha * Omega to the objective (eq. 10.52), or alpha times another regularizer. Clips inside the gradient
        see the part of a state penalty as they see the loss, and nothing of a `Regularizer`, which is added after them.
    state : array of shape (B, S, H), optional
        The state before the first step, zeros by default. It is a constant: truncated BPTT.
        With it, all T steps are computed and the last state is returned.
    clip_hidden : HiddenClip, optional
        Clip the back-propagated vector at every step; what comes back is then no gradient of anything.
    clip_example : float or array of shape (R,), optional
        Return the mean of norm-clipped gradients of single examples: g_b, the gradient of B times example b's share of
        the loss, is scaled to this norm if it is larger (Goodfellow et al. 2016, section 10.11.1).
    clip_microbatch : tuple (size, threshold), optional
        The same for groups of `size` neighbouring examples, each the gradient of B / size times its share. `size` must
        divide B.
    h_detach : HDetach, optional
        Let no gradient back through h at some steps; what comes back is no gradient of anything.
    checkpoint_every : int, optional
        Keep the state only at about every so many steps and compute those between twice: memory grows as
        T / checkpoint_every + checkpoint_every instead of T, the bits stay the same (Chen et al. 2016). Rounded up to a
        multiple of 64 or, for fewer than 10 sequences in a shard, up to 640.
    backend : str
        "cpu", or "cuda" for a GPU.
    workspace : Buffers, optional
        Memory from `nbflow.workspace`, for calls in a loop.

    Returns
    -------
    Gradient

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense. Arguments are never changed.
    NotImplementedError
        If backend "cuda" lacks what is asked for: clips by example or microbatch, and checkpoints.
    RuntimeError, MemoryError
        If there is no GPU, or no room on it.

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
    backend_there(backend)
    checked = _check.computation(net, theta, batch)
    penalty, alpha = (None, None) if flow is None else check_flow(flow, checked.theta.shape[0], net.dtype)
    first = None if state is None else _check.state(net, state, checked)
    replicas, _, batch_size = checked.weights.shape
    hidden = check_hidden(clip_hidden, replicas, net.dtype)
    groups = check_groups((replicas, batch_size), net.dtype, clip_example, clip_microbatch)
    every = check_checkpoints(checked, checkpoint_every)
    detach = check_detach(h_detach, net, replicas)
    derivative = derivative_of(flow, penalty)
    refuse_combinations(derivative, state, groups, every, hidden, h_detach)
    if backend == "cuda":
        refuse_on_card(
            penalty, flow, clip_example=clip_example, clip_microbatch=clip_microbatch,
            checkpoint_every=checkpoint_every, h_detach=h_detach,
        )  # fmt: skip
        return _on_card(buffers_for(net, checked, workspace), checked, penalty, alpha, flow, first, hidden)
    space = buffers_for(net, checked, workspace).of(
        checked, derivative=derivative, every=every, group_rows=groups[0] if groups else 0
    )
    d_theta = np.empty_like(checked.theta)
    space.set_hidden_clip(*hidden)
    space.set_detach(*detach)
    if groups:
        space.set_group_threshold(groups[1])
    run_gradient(space, checked, d_theta, penalty, alpha, flow, first)
    loss, omega, counted = space.report.T
    one = checked.single
    counts = flow is not None and not isinstance(penalty, Regularizer)
    return Gradient(
        loss=per_network(loss, one),
        d_theta=d_theta[0] if one else d_theta,
        omega=None if flow is None else per_network(omega, one),
        counted=per_network(counted.astype(np.int64), one) if counts else None,
        state=None if state is None else space.gather_state("end")[0 if one else slice(None)],
        example_norms=None if groups is None else space.group_norms()[0 if one else slice(None)],
    )


def _on_card(
    buffers: Buffers, checked: _check.Checked, penalty: Any, alpha: Any, flow: Flow | None, state: Any, hidden: Any
) -> Gradient:
    """Compute the gradient of checked arguments by backend "cuda"."""
    from nbflow.cuda.gradient import last_state, run_gradient

    flowing, one = flow is not None, checked.single
    space = buffers.on_card(checked, backward=True, keeps_delta=flowing, flowing=flowing)
    space.set_hidden_clip(*hidden)
    run_gradient(space, checked, penalty, alpha, flow, state)
    report, d_theta = space.read("REPORT", 3), space.read("D_THETA", buffers.net.size)
    return Gradient(
        loss=per_network(report[:, 0], one),
        d_theta=d_theta[0] if one else d_theta,
        omega=per_network(report[:, 1], one) if flowing else None,
        counted=per_network(report[:, 2].astype(np.int64), one) if flowing else None,
        state=None if state is None else last_state(space)[0 if one else slice(None)],
    )


def program_for(purpose: Any) -> str:
    """Return the name of the program that computes a gradient for a purpose."""
    if purpose.second:
        return "flow"
    return "checkpointed" if purpose.every else "groups" if purpose.group_rows else "gradient"


def run_gradient(
    space: Any, checked: _check.Checked, d_theta: Floats, penalty: Any, alpha: Any, flow: Flow | None, state: Any
) -> None:
    """Run the gradient of checked arguments into `d_theta` and the report of the workspace."""
    from nbflow.cpu.program import execute, set_program

    set_program(space, program_for(space.purpose), penalty=penalty, whole=state is not None)
    if flow is not None:
        space.set_flow(alpha, flow)
    space.set_state(state)
    space.point_to(checked.theta, checked.inputs, checked.targets, checked.weights, d_theta)
    execute(space)
    if isinstance(penalty, Regularizer):
        batch = (checked.inputs, checked.targets, checked.weights)
        regularize(penalty, space.net, checked.theta, batch, alpha, d_theta, space.report)


def per_network(values: Any, single: bool) -> Any:
    """Return a plain number for one network, a new array for replicas."""
    return values.item(0) if single else values.copy()


def predict(
    net: Network, theta: Floats, inputs: Any, *, backend: str = "cpu", workspace: Buffers | None = None
) -> Floats:
    """Compute the outputs of a network at every step.

    Parameters
    ----------
    net : Network
    theta : array of shape (P,) or (R, P)
    inputs : array of shape (T, B, N), or (T, B) of integer tokens
    backend : str
        "cpu", or "cuda" for a GPU.
    workspace : Buffers, optional

    Returns
    -------
    array of shape (T, B, M)
        Logits (softmax, bernoulli) or values (square), with R in front if theta has it.

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
    >>> nf.predict(net, theta, batch.inputs).shape
    (50, 20, 4)
    """
    from nbflow.cpu.program import execute, set_program

    backend_there(backend)
    checked = _check.inputs_only(net, theta, inputs)
    if backend == "cuda":
        from nbflow.cuda.gradient import run_predict

        found = run_predict(buffers_for(net, checked, workspace).on_card(checked), checked)
        return found[0] if checked.single else found
    space = buffers_for(net, checked, workspace).of(checked)
    set_program(space, "predict", whole=True)
    space.set_state(None)
    space.point_to(checked.theta, checked.inputs, None, checked.weights, None)
    execute(space)
    y: Floats = space.gather("y", space.steps, int(space.jobs["out_width"][0]), keep=(net.n_out,))
    return y[0] if checked.single else y
