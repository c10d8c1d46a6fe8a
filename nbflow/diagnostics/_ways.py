"""Every way of clipping seen alike: the clipped gradient of each minibatch, and what is left of each example in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nbflow._load import load
from nbflow.diagnostics._minibatches import Minibatches
from nbflow.gradients._choices import check_groups, check_hidden
from nbflow.gradients.clipping import check_clip, clip, refuse_memory
from nbflow.records import Clip, ExampleClip, Floats, HiddenClip, MicrobatchClip, Rule


class Way:
    """One way of clipping.

    Attributes
    ----------
    rows : array of shape (n, P)
        The clipped gradient of each minibatch.
    changed : bool array of shape (n,)
        Whether it is not what it was.
    """

    rows: Floats
    changed: Any

    def left(self, k: int, shares: Floats) -> Floats:
        """Return what is left (B, P) of the shares (B, P) of the examples of minibatch k; it adds up to its row.

        A random step is made of no example's gradient, so nothing is left of any.
        """
        raise NotImplementedError


class _OfMinibatch(Way):
    """A rule for the gradient of the whole minibatch: it multiplies each entry, and so that entry of every share."""

    def __init__(self, data: Minibatches, plain: Floats, how: Clip, rng: np.random.Generator) -> None:
        rule: Rule = load("clips", how.rule)
        theta = np.broadcast_to(data.theta, plain.shape)
        self.rows = clip(data.net, plain, how, theta=theta, rng=rng, backend=data.backend).d_theta
        self.plain, self.random = plain, rule.random
        self.changed = (self.rows != plain).any(axis=1)

    def left(self, k: int, shares: Floats) -> Floats:
        row, plain = self.rows[k], self.plain[k]
        factor = np.divide(row, plain, out=np.zeros_like(row), where=plain != 0)
        if self.random and self.changed[k]:
            factor[:] = 0.0
        found: Floats = factor * shares
        return found


class _OfGroups(Way):
    """Groups of examples, each scaled as a whole."""

    def __init__(self, data: Minibatches, how: ExampleClip | MicrobatchClip) -> None:
        self.size = how.size if isinstance(how, MicrobatchClip) else 1
        self.rows, found = data.gradients(clip_microbatch=MicrobatchClip(self.size, how.threshold, how.nonfinite))
        with np.errstate(divide="ignore"):
            self.factors = [np.minimum(1.0, how.threshold / out.example_norms) for out in found]
        if how.nonfinite == "skip":
            self.factors = [np.where(np.isnan(factors), 0.0, factors) for factors in self.factors]
        # Not by the rows: they are sums in another order than those of the unclipped.
        self.changed = np.array([(factors < 1).any() for factors in self.factors])

    def left(self, k: int, shares: Floats) -> Floats:
        found: Floats = np.repeat(self.factors[k], self.size)[:, None] * shares
        return found


class _Inside(Way):
    """A clip inside BPTT, which treats each sequence by itself."""

    def __init__(self, data: Minibatches, plain: Floats, how: HiddenClip) -> None:
        self.data, self.how = data, how
        self.rows, _ = data.gradients(clip_hidden=how)
        self.changed = (self.rows != plain).any(axis=1)

    def left(self, k: int, shares: Floats) -> Floats:
        return self.data.shares(k, clip_hidden=self.how)


def way_of(data: Minibatches, plain: Floats, how: Any, rng: np.random.Generator) -> Way:
    """Clip every minibatch in some way; `plain` are their unclipped gradients (n, P)."""
    if isinstance(how, Clip):
        return _OfMinibatch(data, plain, how, rng)
    return _Inside(data, plain, how) if isinstance(how, HiddenClip) else _OfGroups(data, how)


def check_way(how: Any, data: Minibatches) -> None:
    """Refuse what is no way of clipping, or does not fit the minibatches."""
    if isinstance(how, Clip):
        check_clip(how, 1, data.net)
        refuse_memory(how)
    elif isinstance(how, HiddenClip):
        check_hidden(how, 1, data.net.dtype)
    elif isinstance(how, ExampleClip | MicrobatchClip):
        size = how.size if isinstance(how, MicrobatchClip) else 1
        for batch_size in set(data.sizes.tolist()):
            check_groups((1, batch_size), data.net.dtype, None, MicrobatchClip(size, how.threshold, how.nonfinite))
    else:
        raise TypeError(
            f"clips has a {type(how).__name__}; expected Clip, HiddenClip, ExampleClip or MicrobatchClip. "
            f"Write nbflow.Clip('norm', 1.0)."
        )


def _name(how: Any) -> str:
    """Say in a word or two which way of clipping it is."""
    if isinstance(how.threshold, dict):
        thresholds = (
            f"{name} {'none' if value is None else f'{np.ravel(value)[0]:g}'}" for name, value in how.threshold.items()
        )
        threshold = f"({', '.join(thresholds)})"
    else:
        threshold = f"{np.ravel(how.threshold)[0]:g}"
    if isinstance(how, Clip):
        length = "" if how.length is None else f" length {np.ravel(how.length)[0]:g}"
        return f"{how.rule if isinstance(how.rule, str) else type(how.rule).__name__} {threshold}{length}"
    if isinstance(how, HiddenClip):
        return f"hidden {how.site} {how.by} {threshold}"
    return f"example {threshold}" if isinstance(how, ExampleClip) else f"{how.size} examples {threshold}"


def named(clips: Any, data: Minibatches) -> dict[str, Any]:
    """Check ways of clipping and return them by name; those of a sequence are named by what they are."""
    if not isinstance(clips, list | tuple | Mapping):
        raise TypeError(
            f"clips is a {type(clips).__name__}; expected a list or a dict of ways of clipping. Write [clip]."
        )
    if not clips:
        raise ValueError("clips is empty; expected at least one way of clipping. Give [nbflow.Clip('norm', 1.0)].")
    hows = list(clips.values() if isinstance(clips, Mapping) else clips)
    for how in hows:
        check_way(how, data)
    found = dict(clips) if isinstance(clips, Mapping) else {_name(how): how for how in hows}
    if len(found) < len(hows):
        raise ValueError("clips has two that are called alike; expected different ones. Name them in a dict.")
    return found
