"""The records that cross the seams of nbflow; every shape is documented here, once.

Letters: T steps, B sequences in a batch, N inputs, H hidden units, M outputs, G gates, S state lines, R replicas,
P parameters. Arrays are time-major. A call with replicas has R in front of every shape.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Unit = Callable[..., Any]


class Params(NamedTuple):
    """The parameters of a network by name: zero-copy views of a flat `theta`, in the order in which they lie there."""

    w_in: Floats  #: (N, G, H)
    w_rec: Floats  #: (H, G, H)
    bias: Floats  #: (G, H)
    bias_rec: Floats  #: (G, H), or size 0 for a cell without it
    w_out: Floats  #: (H, M)
    b_out: Floats  #: (M,)


class Batch(NamedTuple):
    """Sequences, what the network should say of them, and how much each step counts."""

    inputs: NDArray[Any]  #: (T, B, N) floats, or (T, B) integer tokens
    targets: NDArray[Any]  #: (T, B) integer classes, or (T, B, M) floats
    weights: Floats  #: (T, B); masks, lengths and the reduction at once


class Gradient(NamedTuple):
    """What `nbflow.gradient` returns."""

    loss: Any  #: nats (softmax, bernoulli) or squared units (square), summed with the weights; float, or (R,)
    d_theta: Floats  #: (P,); of loss + alpha * Omega
    omega: Any  #: Omega, or the regularizer; None without a flow; float, or (R,)
    counted: Any  #: how many (t, b) Omega counted; None without a flow or for a Regularizer; int, or (R,)
    state: Floats | None = None  #: (B, S, H), the last state; None unless a first one was given
    example_norms: Floats | None = None  #: (B,), norms before clip_example or (B / size,) before clip_microbatch


class Trace(NamedTuple):
    """What `nbflow.trace` returns: the states, and how the gradient flows back through them."""

    loss: Any  #: as in `Gradient`
    states: Floats  #: (T+1, B, S, H)
    delta: Floats  #: (T+1, B, S, H); the total derivative dL/ds_t
    delta_norm: Floats  #: (T+1, B)
    gain: Floats  #: (T, B); ||J_t^T delta_t|| / ||delta_t||, t = 1..T, NaN where delta_t = 0


class Tangent(NamedTuple):
    """What `nbflow.jvp` returns: by how much outputs and the last state move."""

    outputs: Floats  #: (T, B, M)
    state: Floats  #: (B, S, H)


class Cotangent(NamedTuple):
    """What `nbflow.vjp` returns: how a sum of outputs and of the last state depends on where it came from."""

    d_theta: Floats  #: (P,)
    d_state: Floats  #: (B, S, H), with respect to the first state


class Spectrum(NamedTuple):
    """Singular values or Lyapunov exponents, the largest first."""

    values: Floats  #: (B, k), for every sequence
    mean: Floats  #: (k,), over sequences; of singular values the geometric mean
    low: Floats  #: (k,), of an interval that holds the mean with 95 % confidence (t); NaN for one sequence
    high: Floats  #: (k,)


class SequenceMean(NamedTuple):
    """A mean over sequences, and Student's t interval of it; NaN where there are too few."""

    mean: Any
    low: Any
    high: Any
    count: Any  #: how many sequences it is the mean of


class LagProfile(NamedTuple):
    """What `nbflow.gains_by_lag` returns; lag k is k steps before the last step of a sequence that has weight."""

    delta_norm: SequenceMean  #: (T+1,); geometric mean over sequences of ||delta|| at lag 0 .. T
    gain: SequenceMean  #: (T,); likewise of the gain from lag k to lag k+1
    zeros: Any  #: (T+1,); how many sequences reach this lag with a delta that is exactly 0, and are in no mean
    norms: Floats  #: (T+1, B); of each sequence, NaN before its first step
    gains: Floats  #: (T, B); likewise, and NaN where delta is 0


class Saturation(NamedTuple):
    """What `nbflow.saturation` returns: at which part of the steps, 0 to 1, a gate is near an end of its range."""

    gates: tuple[str, ...]  #: as the cell names them
    low: Floats  #: (G, H); near the lower end, over all steps of all sequences
    high: Floats  #: (G, H); near the upper end
    by_step: Floats  #: (T, G); near either, over sequences and units; NaN where no sequence goes so far
    part: SequenceMean  #: (G,); near either, over steps and units, as a mean over sequences


class RecurrentSpectrum(NamedTuple):
    """What `nbflow.recurrent_spectrum` returns."""

    gates: tuple[str, ...]  #: as the cell names them
    radius: Floats  #: (G,); the largest modulus of an eigenvalue of w_rec[:, g]
    norm: Floats  #: (G,); its largest singular value


class Clipped(NamedTuple):
    """What `nbflow.clip` returns."""

    d_theta: Floats  #: (P,); a new array
    norm: Any  #: Euclidean norm before; float, or (R,)
    clipped_norm: Any  #: and after
    fraction: Any  #: part of the entries (value) or of the gradients (norm: 0 or 1) that were clipped
    cosine: Any  #: between the gradient before and after; NaN where one of them is 0 or not finite
    finite: Any  #: whether every entry was finite before; bool, or (R,)


class Calibration(NamedTuple):
    """What `nbflow.calibrate_threshold` returns: norms of gradients that were not clipped, in units of the gradient."""

    norms: Floats  #: (n,), or (n, R); NaN where the gradient was not finite
    mean: Any  #: of the finite ones, as all below; float, or (R,); NaN if there is none
    median: Any
    quantiles: Floats  #: (Q,), or (Q, R), at `levels`
    levels: tuple[float, ...]  #: parts of the norms that lie below
    nonfinite: Any  #: how many gradients were not finite; int, or (R,)
    low: Any  #: half the mean
    high: Any  #: ten times the mean


class GradientCheck(NamedTuple):
    """What `nbflow.check_gradient` returns: relative errors of the whole vector, and where the worst entry lies."""

    error_central: float
    error_complex: float
    worst: str  #: the parameter with the largest complex-step difference, as in "w_rec[3, 0, 2]"
    d_theta: Floats
    central: Floats
    complex_step: Floats


class Interval(NamedTuple):
    """A number estimated from a sample, and its bootstrap interval."""

    value: float
    low: float
    high: float


class Distances(NamedTuple):
    """How far a mean clipped gradient is from the true one: numbers, or an Interval each."""

    cosine: Any  #: between the two
    relative_norm: Any  #: ||mean clipped|| / ||true||
    sign_agreement: Any  #: part of the entries that have the same sign in both
    bias: Any  #: ||mean clipped - true|| / ||true||


class Kinds(NamedTuple):
    """A number for each kind of example, NaN for a kind that does not occur."""

    large: float  #: the examples with the largest gradients
    companion: float  #: those that share their minibatch with a large one
    other: float  #: and the rest


class RuleBias(NamedTuple):
    """What a way of clipping does to the gradient on average.

    The first four are estimates of what it is in the long run, over ever more minibatches, NaN where noise is all that
    there is; `in_set` is what it is over the minibatches given, where both means share their noise.
    """

    cosine: Interval  #: between the mean clipped gradient and the true one
    relative_norm: Interval  #: ||mean clipped|| / ||true||
    sign_agreement: Interval  #: part of the entries that have the same sign, of those whose true sign is known
    bias: Interval  #: ||mean clipped - true|| / ||true||
    in_set: Distances  #: the same four, as plain numbers; signs of all entries where the true one is not 0
    noise: float  #: standard error of the mean clipped gradient / ||true||: a relative_norm no larger may be chance
    changed: float  #: part of the minibatches whose gradient is not what it was
    strength: float  #: mean norm of the clipped minibatch gradients over that of the unclipped
    mean: Floats  #: (P,); the mean clipped gradient
    kept: Floats  #: (N,); what is left of each example's own gradient: 1 is all of it, NaN where it is 0
    contribution: Floats  #: (N,); <what is left of an example, true> / ||true||^2, and 1/N
    kept_by_kind: Kinds  #: means of `kept`
    share_by_kind: Kinds  #: sums of `contribution`


class ClippingBias(NamedTuple):
    """What `nbflow.clipping_bias` returns: n minibatches of N examples in all, and each way of clipping by name."""

    loss: float  #: mean over the minibatches
    true: Floats  #: (P,); the mean of the unclipped minibatch gradients
    noise: float  #: its standard error / its norm: how far it is from the gradient of ever more data
    known_signs: float  #: part of the entries whose mean is more than two standard errors from 0
    norms: Floats  #: (n,); of the unclipped minibatch gradients
    example_norms: Floats  #: (N,); of the gradient of B times each example's share of the loss
    minibatch: Any  #: (N,) ints, where each example stands
    large: Any  #: (N,) bools
    companion: Any  #: (N,) bools
    contribution: Floats  #: (N,); before clipping: <example, true> / ||true||^2 and its weight 1/N; adds up to 1
    share_by_kind: Kinds  #: sums of `contribution`
    rules: dict[str, RuleBias]


class AverageOfClipped(NamedTuple):
    """What `nbflow.average_of_clipped` returns, for m sizes of minibatches and v thresholds."""

    sizes: Any  #: (m,) ints, examples in a minibatch
    thresholds: Floats  #: (v,)
    true_norm: float  #: of the mean over all examples
    mean_norm: Floats  #: (m,); mean norm of the unclipped minibatch gradients
    changed: Floats  #: (m, v); part of the minibatches that are clipped
    cosine: Floats  #: (m, v); between the average of the clipped and the clipped average
    norm_ratio: Floats  #: (m, v); norm of the average of the clipped / norm of the clipped average


@dataclass(frozen=True)
class Cell:
    """A recurrent cell: one pointwise map of two matrix products, as units.

    Attributes
    ----------
    gates, states : tuple of str
        Their names; G and S are their numbers. The first state is the output h.
    step : unit
        `(a_in, a_rec, s) -> (s_next, saved)`: tuples of G, G and S numbers to tuples of S and K numbers.
    step_vjp : unit, optional
        `(saved, s, s_next, d) -> (d_a_in, d_a_rec, d_s)`: the transposed derivative of `step` applied to d (S numbers).
        d_s leaves out what goes through a_rec, and is () for a cell that does not carry.
    step_jvp : unit, optional
        `(saved, s, s_next, a_in_dot, a_rec_dot, s_dot) -> s_next_dot`: the derivative of `step` along a tangent.
    step_vjp_jvp : unit, optional
        `(saved, s, s_next, d, a_in_dot, a_rec_dot, s_dot, d_dot) -> like step_vjp`: the derivative of `step_vjp` along
        a tangent, by which a_in, a_rec, s and d move at once.

        The three that are missing are found from `step` by complex steps: right, and slow (`nbflow.cpu.derive`).
    saved : tuple of str
        Names of the K numbers that `step_vjp` needs beside the states.
    additive : bool
        Whether `step` depends on a_in + a_rec alone: then d_a_in = d_a_rec, and one array holds both.
    carries : bool
        Whether `step` depends on s other than through a_rec.
    bias_rec : bool
        Whether a_rec has a bias of its own.
    ranges : tuple of (float, float)
        The ends of what each gate's nonlinearity gives, for `nbflow.saturation`: (0, 1) for a sigmoid. It looks at the
        number in `saved` that has the gate's name or, of a cell that has one gate, at the first state.
    """

    gates: tuple[str, ...]
    states: tuple[str, ...]
    step: Unit
    step_vjp: Unit | None = None
    step_jvp: Unit | None = None
    step_vjp_jvp: Unit | None = None
    saved: tuple[str, ...] = ()
    additive: bool = True
    carries: bool = False
    bias_rec: bool = False
    ranges: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Loss:
    """A loss: a fold over the M outputs of one step of one sequence, as units.

    Attributes
    ----------
    classes : bool
        Whether a target is one integer in [0, M); its `t` is then 1 for that output and 0 for all others.
        Otherwise a target is M floats, and `t` is one of them.
    start : tuple of float
        The accumulator before the first output.
    fold : unit
        `(accumulator, y, t) -> accumulator`.
    value : unit
        `(accumulator) -> loss`.
    slope : unit
        `(accumulator, y, t) -> d loss / d y`.
    units : str
        What the loss is counted in.
    targets : tuple of two floats, optional
        The smallest and the largest float target that makes sense; without it every finite one does.
    share : unit, optional
        `(accumulator, y, t) -> number`: what `slope` of every output loses where this one grows, times it.
    slope_jvp : unit, optional
        `(accumulator, y, t, y_dot, shared) -> number`: the derivative of `slope` as all outputs move by y_dot, `shared`
        being the sum over outputs of share * y_dot. Without the two, complex steps find it.
    """

    classes: bool
    start: tuple[float, ...]
    fold: Unit
    value: Unit
    slope: Unit
    units: str
    targets: tuple[float, float] | None = None
    share: Unit | None = None
    slope_jvp: Unit | None = None


@dataclass(frozen=True)
class Penalty:
    """A penalty of the gain, as units of q = r^2: `value(q)`, and `slope(q)` = d value / d q."""

    value: Unit
    slope: Unit


@dataclass(frozen=True)
class StatePenalty:
    """A penalty of the size of two neighbouring states, as units of n = ||h_t|| and before = ||h_{t-1}||.

    `value(n, before)`, and `slope(n, before)`, its derivatives with respect to both, a tuple. Omega is its mean over
    the steps of a sequence, up to the last one with weight, and then over the B sequences.
    """

    value: Unit
    slope: Unit


@dataclass(frozen=True)
class Regularizer:
    """A penalty of the network as a whole, in NumPy: `value_and_gradient(net, theta, batch) -> (value, d_theta)`.

    It sees one network at a time, in float64: theta and d_theta (P,), a plain `Batch`. It is called once an update and
    replica, and is as fast as it is written.
    """

    value_and_gradient: Callable[..., tuple[float, Floats]]


# What a file of `flows` declares.
AnyPenalty = Penalty | StatePenalty | Regularizer


@dataclass(frozen=True)
class Rule:
    """A rule of clipping: `clip(g, norm, threshold) -> g`, a unit, for one entry g.

    Attributes
    ----------
    clip : unit
        For one entry g. All three may come multiplied by the same power of two; with "entry" there is no norm.
    over : str
        Which entries `norm` measures: "all" of a network's parameters jointly, each "block" (parameter array), each
        "unit" (its incoming weights), or each "entry" alone.
    relative : bool
        Whether the threshold is multiplied by the norm of the group's weights ("block", "unit").
    random : bool
        Whether a gradient that the rule would change is replaced by a step of the threshold's length in a random
        direction ("all").
    """

    over: str
    clip: Unit
    relative: bool = False
    random: bool = False


@dataclass(frozen=True)
class Optimizer:
    """An optimizer: `update(theta, d, slots, lr, settings, n) -> (theta, slots)`, a unit, for one parameter.

    `slots` names the numbers that it keeps for each parameter, `settings` its constants; n counts updates from 1.
    """

    slots: tuple[str, ...]
    update: Unit
    settings: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Threshold:
    """A threshold that follows the norms of the gradients, or the update, in a training run: units, for one network.

    Attributes
    ----------
    value : unit
        `(norm, memory, settings, update) -> threshold`: `norm` is the joint norm of this update's gradient, Inf if that
        is not finite; `memory` a row of float64 numbers, all 0 before the first update; `settings` the numbers below,
        in their order; updates are counted from 0.
    learn : unit, optional
        `(norm, memory, settings)`: write a norm into the memory. It is never given one that is not finite.
    learns_first : bool
        Whether this update's norm is learnt before `value` is asked, not after.
    memory : int or function
        How many numbers are remembered; a function is given the settings by name.
    settings : dict
        Its constants, each a number or an array (R,); None for one that must be given.
    limits : dict
        The smallest and the largest value of a setting; a setting without them must be above 0.
    """

    value: Unit
    learn: Unit | None = None
    learns_first: bool = False
    memory: int | Callable[..., int] = 0
    settings: dict[str, Any] = field(default_factory=dict)
    limits: dict[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Flow:
    """Omega, the regularizer of gradient flow (Pascanu, Mikolov, Bengio 2013, eq. 9-10; Goodfellow et al., eq. 10.52).

    Or another regularizer, to compare it with.

    Parameters
    ----------
    penalty : str, Penalty, StatePenalty or Regularizer
        "norm" (r-1)^2, "squared" (q-1)^2 or "log" (log r)^2, r being the gain and q its square. Of the others,
        "norm_stabilizer" is one of the states, "orthogonality" and "spectral_cap" of w_rec, "flossing" of the Lyapunov
        exponents: their derivative is the exact one, and the fields below alpha are left as they are.
    alpha : float or array of shape (R,)
        The weight of Omega in the objective.
    derivative : str
        "immediate": everything is constant but the explicit w_rec in J_t (Pascanu, Mikolov, Bengio 2013, and their
        code) · "detached": delta_t is constant, the states inside J_t are not (the wording of Goodfellow et al.) ·
        "exact": the derivative of Omega.
    reduction : str
        "sum" over t of the mean over the B sequences, or "mean" over the counted (t, b).
    bound : float
        Only where ||delta_t||^2 >= bound is (t, b) counted.
    """

    penalty: str | AnyPenalty
    alpha: float | Floats | Callable[[int], float | Floats]
    derivative: str = "immediate"
    reduction: str = "sum"
    bound: float = 1e-20


@dataclass(frozen=True)
class HiddenClip:
    """How the back-propagated vector is clipped at every step, inside back-propagation through time.

    Parameters
    ----------
    threshold : float or array of shape (R,)
        In units of the loss over those of a pre-activation or a state.
    site : str
        "preactivation", the gradients at a_in and a_rec of every gate (Graves 2013), or "state", delta_t before it goes
        back through the cell (Mikolov's RNNLM clips there, at 15).
    by : str
        "value", each entry, or "norm", the vector of each sequence.
    """

    threshold: float | Floats
    site: str = "preactivation"
    by: str = "value"


@dataclass(frozen=True)
class HDetach:
    """How often no gradient goes back through h: h-detach (Arpit et al. 2018, for the lstm).

    At a step that is drawn, h_{t-1} is a constant to the gates of step t, for all sequences of the batch, as in the
    authors' code; what the cell carries past w_rec, as the lstm its c, takes the gradient on. What comes back is the
    gradient of nothing.

    Parameters
    ----------
    probability : float or array of shape (R,)
        Of each step, 0 to 1.
    seed, index : int
        Which draws: the same ones for the same two. `nbflow.train` puts its own seed and the update in their place.
    """

    probability: float | Floats
    seed: int = 0
    index: int = 0


@dataclass(frozen=True)
class ExampleClip:
    """The mean of norm-clipped gradients of single examples, for `nbflow.clipping_bias`: `clip_example` by a name.

    Parameters
    ----------
    threshold : float
        In units of the gradient of B times an example's share of the loss.
    """

    threshold: float


@dataclass(frozen=True)
class MicrobatchClip:
    """The mean of norm-clipped gradients of groups of examples: `clip_microbatch` by a name.

    Parameters
    ----------
    size : int
        Examples in a group; it divides B.
    threshold : float
        In units of the gradient of B / size times a group's share of the loss.
    """

    size: int
    threshold: float


@dataclass(frozen=True)
class Clip:
    """How a gradient is clipped before it is applied.

    Parameters
    ----------
    rule : str or Rule
        One of `nbflow.names("clips")`, or a rule of your own.
    threshold : float or array of shape (R,)
        In units of the gradient; a gradient is clipped strictly above it. In a recipe also a function of the update
        that returns either, one of `nbflow.names("thresholds")`, or a `Threshold`.
    nonfinite : str
        What becomes of a gradient with NaN or Inf: "random", "skip", "zero", "shrink", "raise" or "keep".
    """

    rule: str | Rule
    threshold: float | Floats | str | Threshold | Callable[[int], Any]
    nonfinite: str = "random"
