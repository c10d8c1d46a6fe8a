"""Limits: the thresholds of what is clipped inside a gradient, of groups of examples and inside BPTT, by update.

And the deviation of the units' noise, which is asked likewise.

There each is a number, one per replica, a function of the update, or a `Threshold`. A gradient's groups have no norms
before it is computed, so a threshold that follows norms is asked with those of the updates before, and is told the norm
of every group afterwards, in the order of the batch.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from nbflow import _check
from nbflow._load import load
from nbflow.gradients._choices import clip_by_groups
from nbflow.model._asked import Limits
from nbflow.records import BOUNDS, RATES, ExampleClip, Floats, HiddenClip, MicrobatchClip
from nbflow.training._setting import Setting, at_zero
from nbflow.training._window import grouped_by
from nbflow.training.recipe import Recipe
from nbflow.training.threshold import GroupFollower, follows

HIDDEN, NOISE = "hidden_threshold", "noise"


def at_first(how: Any) -> Any:
    """Return a clip inside the gradient as it begins, to be checked: a threshold that is a `Threshold` stands as 1."""
    if isinstance(how, ExampleClip | MicrobatchClip | HiddenClip):
        return dataclasses.replace(how, threshold=_first(how.threshold))
    if isinstance(how, tuple) and len(how) == 2:
        return how[0], _first(how[1])
    return _first(how)


def _first(threshold: Any) -> Any:
    return 1.0 if follows(threshold) else at_zero(threshold)


class RunLimits:
    """What a run asks for its limits; by the names that the history gives them.

    Attributes
    ----------
    last : dict of str to array (R,)
        Those of the last update that was made.
    follower : GroupFollower or None
        The threshold of the groups that remembers norms: its memory is part of the state of a run.
    """

    def __init__(self, recipe: Recipe, replicas: int, dtype: Any) -> None:
        self.asked: dict[str, Setting | GroupFollower] = {}
        self.of_groups = f"{grouped_by(recipe)}_threshold"
        found = clip_by_groups(recipe.clip_example, recipe.clip_microbatch)
        if found is not None:
            name, _, threshold, _ = found
            self.asked[self.of_groups] = _asked(name, threshold, replicas, dtype)
        if recipe.clip_hidden is not None:
            _refuse_what_learns(recipe.clip_hidden.threshold)
            self.asked[HIDDEN] = _asked("clip_hidden", recipe.clip_hidden.threshold, replicas, dtype)
        if recipe.noise is not None:
            self.asked[NOISE] = Setting(NOISE, recipe.noise, replicas, dtype, **RATES)
        of_groups = self.asked.get(self.of_groups)
        self.follower = of_groups if isinstance(of_groups, GroupFollower) and of_groups.learns else None
        self.last = {name: _known(how, replicas, dtype) for name, how in self.asked.items()}
        self._moving = {name for name, how in self.asked.items() if getattr(how, "fixed", None) is None}
        self._now: dict[str, Floats] = {}

    def at(self, update: int) -> Limits | None:
        """Return the limits of an update, None where they are at every update what they are in the recipe."""
        if not self._moving:
            return None
        self._now = {name: self.asked[name].at(update) for name in self._moving}
        return Limits(self._now.get(self.of_groups), self._now.get(HIDDEN), self._now.get(NOISE))

    def settle(self) -> None:
        """Note that the update was made."""
        self.last |= self._now


def _asked(name: str, threshold: Any, replicas: int, dtype: Any) -> Setting | GroupFollower:
    if follows(threshold):
        return GroupFollower(threshold, replicas, dtype)
    return Setting(name, threshold, replicas, dtype, **BOUNDS)


def _known(how: Any, replicas: int, dtype: Any) -> Floats:
    """Return what a limit is before the first update: NaN where it is not the same at all of them."""
    fixed = getattr(how, "fixed", None)
    return np.full(replicas, np.nan, dtype) if fixed is None else fixed


def _refuse_what_learns(threshold: Any) -> None:
    """Refuse a threshold that follows norms: of a vector inside BPTT it depends on what was clipped after its step."""
    if follows(threshold) and load("thresholds", threshold, "threshold").learn is not None:
        raise ValueError(
            f"clip_hidden has threshold {_check.said(threshold)}, which follows norms; expected a number, a function "
            f"of the update, or a Threshold that learns nothing: inside BPTT there is no norm before the clip of the "
            f"steps after it. Give a function of the update, say."
        )
