"""The records that cross the seams of nbflow; every shape is documented here, once.

Letters: T steps, B sequences in a batch, N inputs, H hidden units, M outputs, G gates, S state lines, R replicas,
P parameters. Arrays are time-major. A call with replicas has R in front of every shape. A "net.dtype array" has the
dtype of the network, float32 or float64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nbflow import _check, _fields, _names
from nbflow._legible import legible
from nbflow._plain import plain_fields

Floats = NDArray[np.floating[Any]]
Unit = Callable[..., Any]
# Marks fields that came later: where they are empty a record is known by what it was known by before.
UNLESS_EMPTY = "known unless empty"


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


@legible
class Spectrum(NamedTuple):
    """The k largest singular values (dimensionless) or Lyapunov exponents (nats a step), the largest first.

    Attributes
    ----------
    values : float64 array of shape (B, k)
        For every sequence.
    mean : float64 array of shape (k,)
        Over sequences: the geometric mean of singular values, the arithmetic mean of exponents.
    low, high : float64 array of shape (k,)
        The ends of an interval that holds the mean with 95 % confidence (Student's t); NaN for one sequence.
    """

    values: Floats
    mean: Floats
    low: Floats
    high: Floats


@legible
class SequenceMean(NamedTuple):
    """A mean over sequences, and Student's t interval of it.

    All four have one shape, that of what is averaged, which whoever returns it says; unit and range are those of what
    is averaged too.

    Attributes
    ----------
    mean : float64 array
        NaN where there is no sequence.
    low, high : float64 array
        The ends of the interval; NaN where there are fewer than two sequences.
    count : int64 array
        How many sequences it is the mean of.
    """

    mean: Any
    low: Any
    high: Any
    count: Any


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


@legible
class Saturation(NamedTuple):
    """What `nbflow.saturation` returns: at which part of the steps, 0 to 1, a gate is near an end of its range.

    With replicas R stands in front of every shape. NaN where a gate was NaN, or nothing counts.

    Attributes
    ----------
    gates : tuple of G str
        As the cell names them.
    low, high : float64 array of shape (G, H)
        Near the lower end, and near the upper end, over all steps of all sequences.
    by_step : float64 array of shape (T, G)
        Near either, over sequences and units; NaN where no sequence goes so far.
    part : SequenceMean of shape (G,)
        Near either, over steps and units, as a mean over sequences.
    """

    gates: tuple[str, ...]
    low: Floats
    high: Floats
    by_step: Floats
    part: SequenceMean


@legible
class RecurrentSpectrum(NamedTuple):
    """What `nbflow.recurrent_spectrum` returns. With replicas R stands in front; NaN where a weight is not finite.

    Attributes
    ----------
    gates : tuple of G str
        As the cell names them.
    radius : float64 array of shape (G,)
        The spectral radius: the largest modulus of an eigenvalue of w_rec[:, g].
    norm : float64 array of shape (G,)
        The spectral norm: its largest singular value.
    """

    gates: tuple[str, ...]
    radius: Floats
    norm: Floats


@legible
class Clipped(NamedTuple):
    """What `nbflow.clip` returns. With replicas R stands in front of d_theta, and numbers are arrays (R,).

    Attributes
    ----------
    d_theta : net.dtype array of shape (P,)
        The gradient after the clip, a new array.
    norm : float, or float64 array of shape (R,)
        Euclidean norm of the whole gradient before; NaN where that is not finite. It is in units of the gradient, as
        the threshold is: where the weights make a mean over B sequences it does not grow with B, where they make a sum
        it is B times as large.
    clipped_norm : float, or float64 array of shape (R,)
        And after.
    fraction : float, or float64 array of shape (R,)
        Which part of the entries was clipped, 0 to 1; 0 or 1 for a rule with one norm over all of them.
    cosine : float, or float64 array of shape (R,)
        Between the gradient before and after; NaN where one of them is 0 or not finite.
    finite : bool, or bool array of shape (R,)
        Whether every entry was finite before.
    """

    d_theta: Floats
    norm: Any
    clipped_norm: Any
    fraction: Any
    cosine: Any
    finite: Any


@legible
class Calibration(NamedTuple):
    """What `nbflow.calibrate_threshold` returns: norms of n gradients that were not clipped, in units of the gradient.

    Norms and the thresholds that fit them scale with the weights of the batches: a task's make a mean over B sequences,
    so they do not grow with B; with weights for a sum they do. With replicas numbers are arrays (R,).

    Attributes
    ----------
    norms : float64 array of shape (n,), or of shape (n, R)
        One for each update; NaN where the gradient was not finite.
    mean, median : float, or float64 array of shape (R,)
        Of the finite ones; NaN if there is none.
    quantiles : float64 array of shape (Q,), or of shape (Q, R)
        Of the finite ones, at `levels`.
    levels : tuple of Q float
        Parts of the norms that lie below, 0 to 1.
    nonfinite : int, or int64 array of shape (R,)
        How many gradients were not finite.
    low, high : float, or float64 array of shape (R,)
        Half the mean and ten times the mean: between them Pascanu, Mikolov, Bengio 2013 found thresholds that work.
    """

    norms: Floats
    mean: Any
    median: Any
    quantiles: Floats
    levels: tuple[float, ...]
    nonfinite: Any
    low: Any
    high: Any


@legible
class GradientCheck(NamedTuple):
    """What `nbflow.check_gradient` returns: relative errors of the whole vector, and where the worst entry lies.

    Attributes
    ----------
    error_central, error_complex : float
        ||d_theta - differences|| / ||differences||, for central and for complex-step differences.
    worst : str
        The parameter with the largest complex-step difference, as in "w_rec[3, 0, 2]".
    d_theta : net.dtype array of shape (P,)
        The gradient that was checked.
    central, complex_step : float64 array of shape (P,)
        The differences that it was compared with.
    """

    error_central: float
    error_complex: float
    worst: str
    d_theta: Floats
    central: Floats
    complex_step: Floats


@legible
class Interval(NamedTuple):
    """A number estimated from a sample, and a confidence interval of it, in the same unit.

    Attributes
    ----------
    value : float
        The estimate.
    low, high : float
        The ends of the interval.
    """

    value: float
    low: float
    high: float


@legible
class Distances(NamedTuple):
    """How far a mean clipped gradient is from the true one, without a unit.

    Attributes
    ----------
    cosine : float or Interval
        Between the two, -1 to 1.
    relative_norm : float or Interval
        ||mean clipped|| / ||true||.
    sign_agreement : float or Interval
        Part of the entries that have the same sign in both, 0 to 1.
    bias : float or Interval
        ||mean clipped - true|| / ||true||.
    """

    cosine: Any
    relative_norm: Any
    sign_agreement: Any
    bias: Any


@legible
class Diagnosis(NamedTuple):
    """What `nbflow.diagnose` returns for one network; `str` of it is the summary. Lag k is k steps before the end.

    Attributes
    ----------
    words : str
        The summary: what becomes of the gradient, why, and what to try.
    verdict : str
        What is left at the longest lag: less than 1/100 "vanishes", less than 1/2 "fades", up to 2 "stays", up to 100
        "grows", more "explodes"; "is not finite" where the loss is not.
    kept : float
        What a step back leaves of the gradient's length: the geometric mean of the gains over lags, a ratio.
    left : float64 array of shape (T+1,)
        What is left of it at lag 0 .. T: the product of the mean gains, 1 at lag 0; NaN at lags that no sequence has.
    half, hundredth : int or None
        The first lag at which less than 1/2, and less than 1/100, is left.
    loss : float
        Of the batch.
    norm : float
        Of its gradient.
    lags : LagProfile
        Norms and gains by lag, of which `left` is made: see `nbflow.gains_by_lag`.
    exponents : Spectrum
        Lyapunov exponents, in nats a step, of the longest sequences, over `steps`.
    singular_values : Spectrum
        Of ds_t/ds_0, likewise.
    steps : int
        How many steps that is: those that all of these sequences have.
    saturation : Saturation or None
        See `nbflow.saturation`; None for a cell that declares no ranges.
    spectrum : RecurrentSpectrum
        Radius and norm of w_rec.
    clipped : float or None
        The part of a run's updates in which the clip changed the gradient; None without a run that clips.
    """

    words: str
    verdict: str
    kept: float
    left: Floats
    half: int | None
    hundredth: int | None
    loss: float
    norm: float
    lags: LagProfile
    exponents: Spectrum
    singular_values: Spectrum
    steps: int
    saturation: Saturation | None
    spectrum: RecurrentSpectrum
    clipped: float | None

    def __str__(self) -> str:
        """Return the summary."""
        return self.words


@legible
class Kinds(NamedTuple):
    """A number for each kind of example, NaN for a kind that does not occur.

    Attributes
    ----------
    large : float
        Of the examples with the largest gradients.
    companion : float
        Of those that share their minibatch with a large one.
    other : float
        And of the rest.
    """

    large: float
    companion: float
    other: float


@legible
class RuleBias(NamedTuple):
    """What a way of clipping does to the gradient on average.

    The first four are estimates of what it is in the long run, over ever more minibatches, NaN where noise is all that
    there is; `in_set` is what it is over the minibatches given, where both means share their noise. All are ratios, and
    have no unit, but `mean`. E is the number of examples.

    Attributes
    ----------
    cosine : Interval
        Between the mean clipped gradient and the true one.
    relative_norm : Interval
        ||mean clipped|| / ||true||.
    sign_agreement : Interval
        Part of the entries that have the same sign, of those whose true sign is known.
    bias : Interval
        ||mean clipped - true|| / ||true||.
    in_set : Distances
        The same four, as plain numbers; signs of all entries where the true one is not 0.
    noise : float
        Standard error of the mean clipped gradient / ||true||: a relative_norm no larger may be chance.
    changed : float
        Part of the minibatches whose gradient is not what it was.
    strength : float
        Mean norm of the clipped minibatch gradients over that of the unclipped.
    mean : net.dtype array of shape (P,)
        The mean clipped gradient, in units of the gradient.
    kept : float64 array of shape (E,)
        What is left of each example's own gradient: 1 is all of it, NaN where it is 0.
    contribution : float64 array of shape (E,)
        <what is left of an example, true> / ||true||^2, and 1/E.
    kept_by_kind : Kinds
        Means of `kept`.
    share_by_kind : Kinds
        Sums of `contribution`.
    """

    cosine: Interval
    relative_norm: Interval
    sign_agreement: Interval
    bias: Interval
    in_set: Distances
    noise: float
    changed: float
    strength: float
    mean: Floats
    kept: Floats
    contribution: Floats
    kept_by_kind: Kinds
    share_by_kind: Kinds


@legible
class ClippingBias(NamedTuple):
    """What `nbflow.clipping_bias` returns: n minibatches of E examples in all, and each way of clipping by name.

    Norms are in units of the gradient, which has the scale of the weights of its minibatch: where these make a mean
    over B sequences, `example_norms` are those of the gradient of each example by itself; where they make a sum, both
    `norms` and `example_norms` are B times as large.

    Attributes
    ----------
    loss : float
        Mean over the minibatches; nats or squared units.
    true : net.dtype array of shape (P,)
        The mean of the unclipped minibatch gradients.
    noise : float
        Its standard error / its norm: how far it is from the gradient of ever more data.
    known_signs : float
        Part of the entries whose mean is more than two standard errors from 0.
    norms : float64 array of shape (n,)
        Of the unclipped minibatch gradients.
    example_norms : float64 array of shape (E,)
        Of the gradient of B times each example's share of the loss.
    minibatch : int64 array of shape (E,)
        In which minibatch each example stands, 0 to n - 1.
    large : bool array of shape (E,)
        Whether it is one of those with the largest gradients.
    companion : bool array of shape (E,)
        Whether it is not, but shares its minibatch with one.
    contribution : float64 array of shape (E,)
        Before clipping: <example, true> / ||true||^2 and its weight 1/E; adds up to 1.
    share_by_kind : Kinds
        Sums of `contribution`.
    rules : dict of str to RuleBias
        Each way of clipping.
    """

    loss: float
    true: Floats
    noise: float
    known_signs: float
    norms: Floats
    example_norms: Floats
    minibatch: Any
    large: Any
    companion: Any
    contribution: Floats
    share_by_kind: Kinds
    rules: dict[str, RuleBias]


@legible
class AverageOfClipped(NamedTuple):
    """What `nbflow.average_of_clipped` returns, for m sizes of minibatches and v thresholds.

    Norms are in units of the gradient; the weights of the batches should make a mean over sequences, so that those of
    minibatches of different sizes can be compared.

    Attributes
    ----------
    sizes : int64 array of shape (m,)
        Examples in a minibatch, ascending.
    thresholds : float64 array of shape (v,)
        In units of the gradient, ascending.
    true_norm : float
        Of the mean over all examples.
    mean_norm : float64 array of shape (m,)
        Mean norm of the unclipped minibatch gradients.
    changed : float64 array of shape (m, v)
        Part of the minibatches that are clipped.
    cosine : float64 array of shape (m, v)
        Between the average of the clipped and the clipped average.
    norm_ratio : float64 array of shape (m, v)
        Norm of the average of the clipped / norm of the clipped average.
    """

    sizes: Any
    thresholds: Floats
    true_norm: float
    mean_norm: Floats
    changed: Floats
    cosine: Floats
    norm_ratio: Floats


@legible
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
    surrogate : bool
        Whether `step_vjp` is meant to be another function than the derivative of `step`, as the straight-through
        estimator of a threshold is. It is believed then; otherwise a wrong derivative is refused.
    settings : dict of str to (float or tuple of H floats)
        Its constants by name, each a number or one for each unit; None for one that must be given. Where there are any,
        every unit of the cell takes `settings` as its last argument: a tuple of numbers, in the order of the names.
        They are numbers of the run: other ones compile nothing anew. See `nbflow.load_cell`.
    limits : dict of str to (float, float)
        The smallest and the largest value of a setting; a setting without them may be any finite number.
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
    surrogate: bool = False
    settings: dict[str, Any] = field(default_factory=dict, hash=False, metadata={UNLESS_EMPTY: True})
    limits: dict[str, tuple[float, float]] = field(default_factory=dict, hash=False, metadata={UNLESS_EMPTY: True})

    def __post_init__(self) -> None:
        """Check every field; what the units do is looked at when a network is made."""
        plain_fields(self)
        _fields.check_constants(self)
        _fields.check_names(self, "gates", 1)
        _fields.check_names(self, "states", 1)
        _fields.check_names(self, "saved", distinct=False)
        for name in ("step", "step_vjp", "step_jvp", "step_vjp_jvp"):
            _fields.check_unit(self, name, optional=name != "step")
        _fields.check_flags(self, "additive", "carries", "bias_rec", "surrogate")
        self._check_ranges()

    def _check_ranges(self) -> None:
        if not isinstance(self.ranges, tuple | list):
            raise TypeError(
                f"Cell.ranges is {_check.said(self.ranges)}; expected a pair of ends for each gate. Write "
                f"ranges=((0.0, 1.0),), say."
            )
        if self.ranges and len(self.ranges) != len(self.gates):
            raise ValueError(
                f"Cell.ranges has {len(self.ranges)} ranges; expected one for each of its gates "
                f"{', '.join(self.gates)}, or none. Give them all."
            )
        pairs = (_fields.check_pair(f"Cell.ranges[{k}]", pair) for k, pair in enumerate(self.ranges))
        object.__setattr__(self, "ranges", tuple(pairs))

    @property
    def hands_settings(self) -> bool:
        """Whether its units take `settings` as their last argument."""
        return bool(self.settings)

    @property
    def compiled(self) -> Cell:
        """The cell without the values of its settings: all that kernels are compiled for, and so known by."""
        if not self.settings:
            return self
        return replace(self, settings=dict.fromkeys(self.settings))

    @property
    def name(self) -> str:
        """The name of its file, or of the step of one that has none in nbflow."""
        function = getattr(self.step, "py_func", self.step)
        home, _, file = function.__module__.rpartition(".")
        return file if home == "nbflow.cells" else f"{function.__module__}.{function.__qualname__}"

    def brief(self, *, every: bool = False) -> str:
        """Return its name and its settings, which tell it best, `every` number of them; empty without settings."""
        if not self.settings:
            return ""
        say = repr if every else _fields.few
        return f"{self.name}({', '.join(f'{key}={say(value)}' for key, value in self.settings.items())})"


@legible
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

    def __post_init__(self) -> None:
        """Check every field; what the units do is looked at when a network is made."""
        plain_fields(self)
        _fields.check_flags(self, "classes")
        _fields.check_numbers(self, "start", endless=True)
        for name in ("fold", "value", "slope", "share", "slope_jvp"):
            _fields.check_unit(self, name, optional=name in ("share", "slope_jvp"))
        if (self.share is None) != (self.slope_jvp is None):
            raise ValueError("Loss.share and Loss.slope_jvp: one is given; expected both, or neither. Write the other.")
        if not isinstance(self.units, str):
            raise TypeError(f"Loss.units is {_check.said(self.units)}; expected words. Write units='nats', say.")
        if self.targets is not None:
            object.__setattr__(self, "targets", _fields.check_pair("Loss.targets", self.targets))


@legible
@dataclass(frozen=True)
class Penalty:
    """A penalty of the gain r, as units of its square q = r^2.

    Attributes
    ----------
    value : unit
        `(q) -> number`: 0 at least, and without a unit.
    slope : unit
        `(q) -> number`: d value / d q.
    """

    value: Unit
    slope: Unit

    def __post_init__(self) -> None:
        """Check both units."""
        _fields.check_unit(self, "value")
        _fields.check_unit(self, "slope")


@legible
@dataclass(frozen=True)
class StatePenalty:
    """A penalty of the size of two neighbouring states, as units of n = ||h_t|| and before = ||h_{t-1}||.

    Omega is its mean over the steps of a sequence, up to the last one with weight, and then over the B sequences.

    Attributes
    ----------
    value : unit
        `(n, before) -> number`.
    slope : unit
        `(n, before) -> (number, number)`: the derivatives of `value` with respect to both.
    """

    value: Unit
    slope: Unit

    def __post_init__(self) -> None:
        """Check both units."""
        _fields.check_unit(self, "value")
        _fields.check_unit(self, "slope")


@legible
@dataclass(frozen=True)
class Regularizer:
    """A penalty of the network as a whole, in NumPy.

    Attributes
    ----------
    value_and_gradient : function
        `(net, theta, batch) -> (value, d_theta)`. It sees one network at a time, in float64: theta and d_theta (P,), a
        plain `Batch`. It is called once an update and replica, and is as fast as it is written.
    """

    value_and_gradient: Callable[..., tuple[float, Floats]]

    def __post_init__(self) -> None:
        """Check that it can be called."""
        if not callable(self.value_and_gradient):
            raise TypeError(
                f"Regularizer.value_and_gradient is {_check.said(self.value_and_gradient)}; expected a function (net, "
                f"theta, batch) -> (value, d_theta). Pass one."
            )


# What there is to choose in the records below.
DERIVATIVES, REDUCTIONS = ("immediate", "detached", "exact"), ("sum", "mean")
SITES = ("preactivation", "state")
POLICIES = ("random", "skip", "zero", "shrink", "raise", "keep")
GROUP_POLICIES = ("keep", "skip", "raise")
# Which numbers make sense, as `_check.per_replica` takes it. They are looked at as a record is made, and as it is used,
# where the dtype and R are known and schedules are asked.
RATES: dict[str, Any] = {"least": 0.0, "finite": True}
THRESHOLDS: dict[str, Any] = {"least": 0.0}
BOUNDS: dict[str, Any] = {"least": 0.0, "above": True}
PARTS: dict[str, Any] = {"least": 0.0, "most": 1.0}
# What stands for the blocks that a mapping of thresholds does not name.
OTHERS = "others"
# What the norm of a rule may measure.
OVER = ("all", "layer", "block", "unit", "entry")
# What a file of `flows` declares.
AnyPenalty = Penalty | StatePenalty | Regularizer


@legible
@dataclass(frozen=True)
class Rule:
    """A rule of clipping: `clip(g, norm, threshold) -> g`, a unit, for one entry g.

    Attributes
    ----------
    clip : unit
        `(g, norm, threshold) -> g`, for one entry g. All three may come multiplied by the same power of two; with
        "entry" there is no norm.
    over : str
        Which entries `norm` measures: "all" of a network's parameters jointly, those of each "layer" of a stack, each
        "block" (parameter array), each "unit" (its incoming weights), or each "entry" alone.
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

    def __post_init__(self) -> None:
        """Check every field, and that they go together."""
        plain_fields(self)
        _check.choice("Rule.over", self.over, OVER)
        _fields.check_unit(self, "clip")
        _fields.check_flags(self, "relative", "random")
        for flag, places in (("relative", ("block", "unit")), ("random", ("all",))):
            if getattr(self, flag) and self.over not in places:
                raise ValueError(
                    f"Rule.{flag} is True and over is {_check.said(self.over)}; expected over "
                    f"{' or '.join(map(repr, places))} with it. Write over={_check.said(places[0])}."
                )


@legible
@dataclass(frozen=True)
class StatefulRule:
    """A rule of clipping that remembers: numbers of each parameter, from update to update of `nbflow.train`.

    It learns of every gradient that is finite and of which a step comes; a skipped update leaves the memory as it was.

    Attributes
    ----------
    over : str
        Which entries a norm measures, as in a `Rule`; with "entry" that of all of them.
    clip : unit
        `(g, norm, joint, threshold, slots, settings, n) -> (g, slots)`, for one entry g: `norm` of its group and
        `joint` of all entries, of what is `measured`; `slots` and `settings` are tuples of numbers, in the order of the
        names here; n counts the gradients from 1. All in float64.
    slots : tuple of str
        Names of the numbers that it keeps for each parameter, 0 at first, in the network's dtype.
    measured : unit, optional
        `(g, slots) -> number`: what of an entry the norms are of; by default g.
    relative : bool
        Whether the threshold has no unit, being held against what is remembered. Then policy "random", a step of that
        length, has no meaning and is refused.
    settings : dict of str to float
        Its constants by name, with their usual values; `nbflow.load_rule` changes them.
    limits : dict of str to (float or None, float)
        As in an `Optimizer`.
    """

    over: str
    clip: Unit
    slots: tuple[str, ...]
    measured: Unit | None = None
    relative: bool = False
    settings: dict[str, float] = field(default_factory=dict)
    limits: dict[str, tuple[float | None, float]] = field(default_factory=dict)

    # What a `Rule` may be and this is not.
    random: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Check every field."""
        plain_fields(self)
        _check.choice("StatefulRule.over", self.over, OVER)
        _fields.check_unit(self, "clip")
        _fields.check_names(self, "slots", 1)
        _fields.check_unit(self, "measured", optional=True)
        _fields.check_flags(self, "relative")
        _fields.check_settings(self, required=False)
        _fields.check_limits(self)
        for name, limit in self.limits.items():
            what = f"StatefulRule.settings[{_check.said(name)}]"
            _check.within(what, self.settings[name], limit, "Give another one, or another limit.")


# What a file of `clips` declares.
AnyRule = Rule | StatefulRule


@legible
@dataclass(frozen=True)
class Optimizer:
    """An optimizer: `update(theta, d, slots, lr, settings, n) -> (theta, slots)`, a unit, for one parameter.

    Attributes
    ----------
    slots : tuple of str
        Names of the numbers that it keeps for each parameter, 0 at first.
    update : unit
        `(theta, d, slots, lr, settings, n) -> (theta, slots)`, for one parameter: theta and d, its gradient, are
        numbers; `slots` and `settings` are tuples of them, in the order of the names here; lr is the learning rate; n
        counts updates from 1.
    settings : dict of str to float
        Its constants by name, with their usual values.
    limits : dict of str to (float or None, float)
        The least value of a setting, None if it must be above 0, and what it must be below; both in the network's
        dtype, where 1 - 1e-9 is 1. A setting without them may be any number.
    """

    slots: tuple[str, ...]
    update: Unit
    settings: dict[str, float] = field(default_factory=dict)
    limits: dict[str, tuple[float | None, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check every field."""
        plain_fields(self)
        _fields.check_names(self, "slots")
        _fields.check_unit(self, "update")
        _fields.check_settings(self, required=False)
        _fields.check_limits(self)
        for name, limit in self.limits.items():
            what = f"Optimizer.settings[{_check.said(name)}]"
            _check.within(what, self.settings[name], limit, "Give another one, or another limit.")


@legible
class OptimizerSlots(NamedTuple):
    """What an optimizer remembers from step to step, as `nbflow.apply_update` takes and returns it.

    Attributes
    ----------
    values : net.dtype array of shape (K, P)
        The K slots of the optimizer, in the order of their names (`Optimizer.slots`), for each parameter; with replicas
        (R, K, P).
    count : int, or int64 array of shape (R,)
        How many steps were taken.
    """

    values: Floats
    count: Any


@legible
@dataclass(frozen=True)
class Threshold:
    """A threshold that follows the norms of the gradients, or the update, in a training run: units, for one network.

    Attributes
    ----------
    value : unit
        `(norm, memory, settings, update) -> threshold`: `norm` is the joint norm of this update's gradient, Inf if that
        is not finite, and 0 for a clip inside the gradient, whose threshold is asked before there is a norm; `memory` a
        row of float64 numbers, all 0 before the first update; `settings` the numbers below, in their order; updates are
        counted from 0.
    learn : unit, optional
        `(norm, memory, settings) -> None`: write a norm into the memory. It is never given one that is not finite. In a
        clip by groups of examples it is given the norm of each, after the update.
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

    def __post_init__(self) -> None:
        """Check every field; what the units do is looked at when a training begins."""
        plain_fields(self)
        _fields.check_unit(self, "value", arrays=True)
        _fields.check_unit(self, "learn", optional=True, arrays=True)
        _fields.check_flags(self, "learns_first")
        if not callable(self.memory):
            object.__setattr__(self, "memory", _check.count("Threshold.memory", self.memory, 0))
        _fields.check_settings(self, required=True)
        _fields.check_limits(self)
        pairs = {
            name: _fields.check_pair(f"Threshold.limits[{_check.said(name)}]", pair)
            for name, pair in self.limits.items()
        }
        object.__setattr__(self, "limits", pairs)
        for name, value in self.settings.items():
            if value is not None:
                _fields.check_numeric(f"{name:.40}", value, self.limits_of(name))

    def limits_of(self, name: str) -> dict[str, Any]:
        """Return which numbers a setting may be, as `_check.per_replica` takes it."""
        return dict(zip(("least", "most"), self.limits[name], strict=True)) if name in self.limits else BOUNDS


def check_threshold(name: str, value: Any, limits: dict[str, Any]) -> None:
    """Refuse what is no threshold of a clip: numbers within `limits`, a function of the update, one that follows."""
    if isinstance(value, str):
        _names.check("thresholds", value, name)
    elif not isinstance(value, Threshold):
        _fields.check_numeric(name, value, limits, schedule=True)


@legible
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
    alpha : float, or float array of shape (R,)
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

    def __post_init__(self) -> None:
        """Check what needs no network: its dtype may hold fewer numbers, and it knows how many replicas there are."""
        plain_fields(self)
        _fields.check_kind(
            "penalty", self.penalty, str | AnyPenalty, "a name or a Penalty or a StatePenalty or a Regularizer"
        )
        if isinstance(self.penalty, str):
            _names.check("flows", self.penalty, "penalty")
        _fields.check_numeric("alpha", self.alpha, RATES, schedule=True)
        _check.choice("derivative", self.derivative, DERIVATIVES)
        _check.choice("reduction", self.reduction, REDUCTIONS)
        _fields.check_numeric("bound", self.bound, BOUNDS)


@legible
@dataclass(frozen=True)
class HiddenClip:
    """How the back-propagated vector is clipped at every step, inside back-propagation through time.

    Parameters
    ----------
    threshold : float, or float array of shape (R,)
        In units of the loss over those of a pre-activation or a state. In a recipe also a function of the update that
        returns either, or a `Threshold` that learns nothing.
    site : str
        "preactivation", the gradients at a_in and a_rec of every gate (Graves 2013), or "state", delta_t before it goes
        back through the cell (Mikolov's RNNLM clips there, at 15).
    by : str
        "value", each entry, or "norm", the vector of each sequence.
    """

    threshold: float | Floats | str | Threshold | Callable[[int], Any]
    site: str = "preactivation"
    by: str = "value"

    def __post_init__(self) -> None:
        """Check what needs no network."""
        plain_fields(self)
        check_threshold("threshold", self.threshold, BOUNDS)
        _check.choice("site", self.site, SITES)
        _check.choice("by", self.by, ("value", "norm"))


@legible
@dataclass(frozen=True)
class HDetach:
    """How often no gradient goes back through h: h-detach (Arpit et al. 2018, for the lstm).

    At a step that is drawn, h_{t-1} is a constant to the gates of step t, for all sequences of the batch, as in the
    authors' code; what the cell carries past w_rec, as the lstm its c, takes the gradient on. What comes back is the
    gradient of nothing.

    Parameters
    ----------
    probability : float, or float array of shape (R,)
        Of each step, 0 to 1.
    seed, index : int
        Which draws: the same ones for the same two. `nbflow.train` puts its own seed and the update in their place.
    """

    probability: float | Floats
    seed: int = 0
    index: int = 0

    def __post_init__(self) -> None:
        """Check what needs no network."""
        plain_fields(self)
        _fields.check_numeric("probability", self.probability, PARTS)
        _check.count("seed", self.seed, 0)
        _check.index("index", self.index)


@legible
@dataclass(frozen=True)
class ExampleClip:
    """The mean of norm-clipped gradients of single examples: `clip_example` by a name, and with a policy.

    Parameters
    ----------
    threshold : float, or float array of shape (R,)
        In units of the gradient of B times an example's share of the loss. In a recipe also a function of the update
        that returns either, one of `nbflow.names("thresholds")`, or a `Threshold`: see `nbflow.load_threshold`.
    nonfinite : str
        What becomes of an example whose gradient is not finite: "keep", and the mean is not finite either, which is
        left to the policy of the `Clip` · "skip", it is left out as if its weights were 0, counted in `left_out`, and
        the others keep every bit; the mean is over B all the same, so that no example ever counts for more than
        threshold / B · "raise". Where all were left out, `nbflow.train` takes no step. The loss is that of all.
    """

    threshold: float | Floats | str | Threshold | Callable[[int], Any]
    nonfinite: str = "keep"

    def __post_init__(self) -> None:
        """Check every field."""
        plain_fields(self)
        check_threshold("threshold", self.threshold, BOUNDS)
        _check.choice("nonfinite", self.nonfinite, GROUP_POLICIES)


@legible
@dataclass(frozen=True)
class MicrobatchClip:
    """The mean of norm-clipped gradients of groups of examples: `clip_microbatch` by a name, and with a policy.

    Parameters
    ----------
    size : int
        Examples in a group; it divides B.
    threshold : float, or float array of shape (R,)
        In units of the gradient of B / size times a group's share of the loss. In a recipe also what it may be in an
        `ExampleClip`.
    nonfinite : str
        What becomes of a group whose gradient is not finite, "keep", "skip" or "raise": see `ExampleClip`.
    """

    size: int
    threshold: float | Floats | str | Threshold | Callable[[int], Any]
    nonfinite: str = "keep"

    def __post_init__(self) -> None:
        """Check every field."""
        plain_fields(self)
        _check.count("size", self.size)
        check_threshold("threshold", self.threshold, BOUNDS)
        _check.choice("nonfinite", self.nonfinite, GROUP_POLICIES)


@legible
@dataclass(frozen=True)
class Clip:
    """How a gradient is clipped before it is applied.

    Parameters
    ----------
    rule : str, Rule or StatefulRule
        One of `nbflow.names("clips")`, one with other settings by `nbflow.load_rule`, or a rule of your own. Those that
        remember ("adagc", "error_feedback", "spam") are for recipes.
    threshold : float, or float array of shape (R,)
        In units of the gradient; a gradient is clipped strictly above it. 0 makes every gradient 0, which is where a
        schedule may end. In a recipe also a function of the update that returns either, one of
        `nbflow.names("thresholds")`, or a `Threshold`. A rule of each block, unit or entry may have a dict instead: the
        threshold of some blocks by name (a number, one per replica, in a recipe a function of the update), as
        {"w_rec": 1.0, "others": 0.5}; a block with None is exempt, and so are those that are not named where there are
        no "others". A random step then has in each block the length of its threshold, and leaves the exempt alone.
    nonfinite : str
        What becomes of a gradient with NaN or Inf: "random", "skip", "zero", "shrink", "raise" or "keep". In a training
        one that becomes 0 is no step: parameters, the optimizer's slots and its count stay as they were.
    """

    rule: str | AnyRule
    threshold: float | Floats | str | Threshold | Callable[[int], Any] | dict[str, Any]
    nonfinite: str = "random"

    def __post_init__(self) -> None:
        """Check what needs no network: its dtype may hold fewer numbers, and it knows how many replicas there are."""
        plain_fields(self)
        _fields.check_kind("rule", self.rule, str | AnyRule, "a name or a Rule or a StatefulRule")
        if isinstance(self.rule, str):
            _names.check("clips", self.rule, "rule")
        if isinstance(self.threshold, dict):
            _check_by_block(self.threshold)
        else:
            check_threshold("threshold", self.threshold, THRESHOLDS)
        _check.choice("nonfinite", self.nonfinite, POLICIES)


def _check_by_block(thresholds: dict[str, Any]) -> None:
    """Refuse names that are of no block, and what is no threshold of one."""
    for name, value in thresholds.items():
        what = f"threshold[{_check.said(name)}]"
        if name not in (*Params._fields, OTHERS):
            raise ValueError(
                f"threshold has {_check.said(name)}; expected some of: {', '.join(Params._fields)}, {OTHERS}. Name "
                f"the blocks as nbflow.unpack does."
            )
        if isinstance(value, str | Threshold):
            raise TypeError(
                f"{what} is {_check.said(value)}; expected a number, a function of the update or None: one that "
                f"follows norms follows the joint one. Give a number."
            )
        if value is not None:
            _fields.check_numeric(what, value, THRESHOLDS, schedule=True)
    if all(value is None for value in thresholds.values()):
        raise ValueError(
            f"threshold is {_check.said(thresholds)}; expected a number for one block at least, for nothing would be "
            f"clipped. Leave the clip out."
        )
