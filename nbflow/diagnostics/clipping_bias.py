"""What clipping does to the gradient on average, and whose share of it is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from nbflow import _check
from nbflow.data.sampler import Sampler
from nbflow.diagnostics._bootstrap import distances, intervals, known_signs, noise
from nbflow.diagnostics._minibatches import Minibatches, check_minibatches, draw_minibatches, lengths, strength
from nbflow.diagnostics._ways import Way, named, way_of
from nbflow.gradients._engine import engine_of
from nbflow.model import _arguments
from nbflow.model.network import Network
from nbflow.records import Batch, ClippingBias, Distances, Floats, Kinds, RuleBias

Show = Callable[[str, int, int], None]


def clipping_bias(
    net: Network,
    theta: Floats,
    source: str | Sampler | Iterable[Batch],
    clips: Sequence[Any] | Mapping[str, Any],
    *,
    length: int | tuple[int, int] | None = None,
    batch_size: int = 20,
    count: int = 200,
    seed: int = 0,
    large: float = 0.05,
    resamples: int = 1000,
    confidence: float = 0.95,
    rng: Any = None,
    show: Show | None = None,
    backend: str = "cpu",
) -> ClippingBias:
    """Hold the mean of clipped minibatch gradients against the true gradient, for every way of clipping.

    Training follows the mean of clipped gradients, which need not be the true gradient made shorter: examples with
    large gradients, and those in the same minibatch, count for less (Goodfellow, Bengio, Courville 2016, section
    10.11.1; Chen, Wu, Hong 2020). The true gradient is the mean of the unclipped minibatch gradients. How far the two
    are apart in the long run is estimated from inner products of pairs of different minibatches: in a sample both
    means have the noise of the same minibatches, and clipping weighs it otherwise, which alone turns one from the
    other.

    Parameters
    ----------
    net : Network
    theta : array of shape (P,)
        One network; its parameters stay as they are.
    source : str, Task or iterable of Batch
        The reference set: a task, from whose evaluation stream `count` minibatches are drawn, or the minibatches.
    clips : sequence or dict of Clip, HiddenClip, ExampleClip or MicrobatchClip
        The ways of clipping, by name; in a sequence each is named by what it is, as "norm 1".
    length, batch_size, count, seed : int
        Of a task alone; `length` may be a pair, as in `nbflow.Recipe`.
    large : float
        The part of the examples that count as large: those with the largest gradient norms.
    resamples : int
        Of the bootstrap over minibatches.
    confidence : float
        Of its intervals, which are percentiles (for the cosine: reflected at the estimate).
    rng : None, int or numpy.random.Generator
        For the resamples, and for random steps.
    show : function of (words, done, total), optional
        Called now and then, to show how far it is.
    backend : str
        "cpu", or "cuda" for a GPU, which computes and clips the gradients.

    Returns
    -------
    ClippingBias

    Raises
    ------
    FloatingPointError
        If the unclipped gradient of a minibatch is not finite: there is no true gradient then.
    TypeError, ValueError
        If an argument makes no sense.

    Notes
    -----
    An example's share of a minibatch gradient g is the gradient of its part of the loss. Joint rules multiply g, and so
    every share, by one factor; value, block and unit multiply each entry of g by its own. A clip by example or inside
    BPTT treats each share by itself. What is left of a share adds up to the clipped gradient, except after a random
    step, of which nothing belongs to anybody.

    Examples
    --------
    An infinite threshold does nothing, and has no bias:

    >>> import nbflow as nf
    >>> net = nf.Network(cell="tanh", n_in=6, n_hidden=10, n_out=4)
    >>> theta = nf.init(net, "basic_tanh", rng=0)
    >>> clips = {"none": nf.Clip("norm", float("inf")), "by value": nf.Clip("value", 0.01)}
    >>> found = nf.clipping_bias(net, theta, "temporal_order", clips, length=10, count=50, rng=0)
    >>> round(found.rules["none"].in_set.cosine, 6), found.rules["none"].in_set.bias
    (1.0, 0.0)
    >>> found.rules["by value"].in_set.relative_norm < 1
    True
    """
    engine_of(backend)  # refused before anything is drawn
    batches = _batches(net, source, length, batch_size, count, seed)
    data = Minibatches(net, theta, check_minibatches(net, theta, batches), backend)
    hows = named(clips, data)
    large = _check.part("large", large)
    confidence, resamples = _check.part("confidence", confidence), _check.count("resamples", resamples)
    generator = _check.generator("rng", rng)
    if show is not None and not callable(show):
        raise TypeError(f"show is {_check.said(show)}; expected a function of (words, done, total). Leave it out.")
    report = show or (lambda words, done, total: None)

    plain, found = data.gradients()
    _refuse_nonfinite(plain)
    ways: dict[str, Way] = {}
    for name, how in hows.items():
        report("clipping", len(ways), len(hows))
        ways[name] = way_of(data, plain, how, generator)
    true = plain.mean(axis=0, dtype=np.float64)
    before, kept, after = _follow(data, ways, true, report)
    minibatch = np.repeat(np.arange(len(data)), data.sizes)
    norms = before.norm * data.sizes[minibatch]
    is_large, companion = _kinds(norms, minibatch, large)
    kinds = is_large, companion, ~(is_large | companion)
    rules = {}
    for k, (name, way) in enumerate(ways.items()):
        report("resampling", k, len(ways))
        long_run = intervals(way.rows, plain, resamples, confidence, generator)
        rules[name] = _of_rule(way, plain, true, long_run, kept[k], after[k], kinds)
    return ClippingBias(
        loss=float(np.mean([out.loss for out in found])), true=true.astype(net.dtype), noise=noise(plain, true),
        known_signs=float(known_signs(plain).mean()), norms=lengths(plain), example_norms=norms, minibatch=minibatch,
        large=is_large, companion=companion, contribution=before.contribution,
        share_by_kind=_sums(before.contribution, kinds), rules=rules,
    )  # fmt: skip


def _of_rule(
    way: Way, plain: Floats, true: Floats, long_run: Distances, kept: Floats, contribution: Floats, kinds: Any
) -> RuleBias:
    """Put together what is known of a way of clipping."""
    mean = way.rows.mean(axis=0, dtype=np.float64)
    return RuleBias(
        *long_run, in_set=distances(mean, true), noise=noise(way.rows, true), changed=float(way.changed.mean()),
        strength=strength(way.rows, plain), mean=mean.astype(plain.dtype), kept=kept, contribution=contribution,
        kept_by_kind=_means(kept, kinds), share_by_kind=_sums(contribution, kinds),
    )  # fmt: skip


def _batches(net: Network, source: Any, length: Any, batch_size: Any, count: Any, seed: Any) -> Any:
    _arguments.network(net)
    if not isinstance(source, str | Sampler):
        return source
    if length is None:
        raise ValueError("length is None; expected the length of the task's sequences. Give length=50, say.")
    batch_size, seed = _check.count("batch_size", batch_size), _check.count("seed", seed, 0)
    return draw_minibatches(net, source, length, batch_size, _check.count("count", count, 2), seed)


def _refuse_nonfinite(plain: Floats) -> None:
    bad = np.flatnonzero(~np.isfinite(plain).all(axis=1))
    if bad.size:
        raise FloatingPointError(
            f"the gradient of minibatch {bad[0]} is not finite, and of {bad.size} of {len(plain)} in all; there is no "
            f"true gradient to compare with. Take the parameters from before it overflowed."
        )


class _Shares:
    """What is known of each example before clipping: the norm of its share, and its contribution (E,)."""

    def __init__(self, count: int) -> None:
        self.norm, self.contribution = np.zeros(count), np.zeros(count)


def _follow(data: Minibatches, ways: dict[str, Way], true: Floats, report: Show) -> tuple[_Shares, Floats, Floats]:
    """Return each example before clipping, and what each way keeps of it and lets it contribute (ways, E)."""
    count = int(data.sizes.sum())
    before = _Shares(count)
    kept, after = np.full((len(ways), count), np.nan), np.zeros((len(ways), count))
    top = np.abs(true).max(initial=0.0) or 1.0
    unit = true / top
    toward = unit / (len(data) * (unit @ unit)) if unit.any() else np.full_like(unit, np.nan)
    start = 0
    for k in range(len(data)):
        report("following each example", k, len(data))
        raw = data.shares(k)
        shares = raw.astype(np.float64)
        size = np.abs(shares).max(initial=0.0) or 1.0
        shares /= size
        squares = (shares**2).sum(axis=1)
        at = slice(start, start + len(shares))
        before.norm[at], before.contribution[at] = size * np.sqrt(squares), (shares @ toward) * (size / top)
        for row, way in enumerate(ways.values()):
            left = way.left(k, raw) / size
            after[row, at] = (left @ toward) * (size / top)
            np.divide((left * shares).sum(axis=1), squares, out=kept[row, at], where=squares > 0)
        start = at.stop
    return before, kept, after


def _kinds(norms: Floats, minibatch: Any, large: float) -> tuple[Any, Any]:
    """Tell which examples (E,) are large, and which are not but share their minibatch with one that is."""
    count = max(1, round(large * len(norms)))
    is_large = np.zeros(len(norms), bool)
    is_large[np.argsort(norms, kind="stable")[len(norms) - count :]] = True
    with_large = np.bincount(minibatch, weights=is_large) > 0
    return is_large, with_large[minibatch] & ~is_large


def _means(values: Floats, kinds: Any) -> Kinds:
    there = ~np.isnan(values)
    return Kinds(*(float(values[kind & there].mean()) if (kind & there).any() else np.nan for kind in kinds))


def _sums(values: Floats, kinds: Any) -> Kinds:
    return Kinds(*(float(values[kind].sum()) if kind.any() else np.nan for kind in kinds))
