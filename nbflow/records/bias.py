"""What clipping does to the gradient on average."""

from __future__ import annotations

from typing import Any, NamedTuple

from nbflow._legible import legible
from nbflow.records._types import Floats
from nbflow.records.estimates import Interval


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
