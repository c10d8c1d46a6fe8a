"""What a computation is asked for: checked records, the same for both engines."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from nbflow.records import AnyPenalty, AnyRule, Clip, Floats, Flow, Optimizer


class Inside(NamedTuple):
    """A clip inside back-propagation through time."""

    site: int = 0  #: what is clipped at every step (`nbflow.cpu.hidden_clip.SITES`); 0 for nothing
    by_norm: bool = False  #: the vector of each sequence, not each entry
    threshold: Any = 0.0  #: (R,)


class Groups(NamedTuple):
    """A clip of the gradient of each group of neighbouring sequences."""

    rows: int  #: sequences of a group
    threshold: Floats  #: (R,)
    nonfinite: str = "keep"  #: what becomes of one that is not finite: "keep", "skip" or "raise"
    held: Any = None  #: (R, P), booleans: where the gradient of a group counts as 0; None for nowhere

    @property
    def skips(self) -> bool:
        """Whether one that is not finite is left out of the sum; "raise" looks at how many were."""
        return self.nonfinite != "keep"


class Detach(NamedTuple):
    """When no gradient goes back through h."""

    probability: Floats | None = None  #: (R,), of each step; None for never
    seed: int = 0
    number: int = 0  #: with the seed, which draws decide
    ids: Any = None  #: (R,), the numbers under which replicas draw; 0 to R - 1 for None


class UnitNoise(NamedTuple):
    """Noise that is added to a_in at every step, and which draws it is."""

    deviation: Floats  #: (R,)
    seed: int = 0
    number: int = 0
    ids: Any = None  #: (R,), the numbers under which replicas draw; 0 to R - 1 for None
    evaluating: bool = False  #: draws of an evaluation, which are none of a training's


class Limits(NamedTuple):
    """What a schedule makes of the numbers that a gradient is asked for with; None for those that stay."""

    groups: Floats | None = None  #: (R,), the threshold of the gradients of groups
    hidden: Floats | None = None  #: (R,), of the clip inside back-propagation through time
    noise: Floats | None = None  #: (R,), the deviation of the units' noise


class Asked(NamedTuple):
    """What a gradient is asked for beside the plain one."""

    flow: Flow | None = None  #: as it was given
    penalty: AnyPenalty | None = None  #: the flow's
    alpha: Floats | None = None  #: (R,), the flow's weight
    derivative: str = ""  #: of Omega; "" without a flow, or for a regularizer that is no penalty of the gain
    state: Floats | None = None  #: (R, B, S, H), the first state; then all T steps are taken, and the last is returned
    inside: Inside = Inside()
    groups: Groups | None = None
    every: int = 0  #: steps between two states that are kept, the tape between being computed twice; 0 for none
    detach: Detach = Detach()
    noise: UnitNoise | None = None
    ends: Any = None  #: (R, B), after how many steps of each sequence the returned state is; all T for None
    wrt: tuple[str, ...] = ()  #: where the gradient is asked for beside the parameters: of `ENDS`

    def limited(self, limits: Limits) -> Asked:
        """Return the same with other thresholds, and another deviation."""
        groups, inside, noise = self.groups, self.inside, self.noise
        if groups is not None and limits.groups is not None:
            groups = groups._replace(threshold=limits.groups)
        if limits.hidden is not None:
            inside = inside._replace(threshold=limits.hidden)
        if noise is not None and limits.noise is not None:
            noise = noise._replace(deviation=limits.noise)
        return self._replace(groups=groups, inside=inside, noise=noise)

    def drawn(self, seed: int, number: int, ids: Any) -> Asked:
        """Return the same with the noise that these three name."""
        noise = self.noise
        return self if noise is None else self._replace(noise=noise._replace(seed=seed, number=number, ids=ids))

    @property
    def group_rows(self) -> int:
        """The sequences that are clipped together, 0 for none."""
        return 0 if self.groups is None else self.groups.rows


PLAIN = Asked()
ENDS = ("inputs", "state")


class Found(NamedTuple):
    """A gradient as an engine returns it, with R in front of everything."""

    report: Floats  #: (R, columns of `nbflow.cpu.report.GRADIENT`); a view, good until the next run
    d_theta: Floats  #: (R, P)
    state: Floats | None  #: (R, B, S, H), the last state, if a first one was given
    group_norms: Floats | None  #: (R, groups), of the groups' gradients before the clip
    d_inputs: Floats | None = None  #: (R, T, B, N), where it was asked for
    d_state: Floats | None = None  #: (R, B, S, H), of the first state, likewise


class ClipMemory(NamedTuple):
    """What a rule of clipping remembers; it holds what is remembered from then on."""

    slots: Floats  #: (R, K, P), what it keeps for each parameter
    counts: Any  #: (R,), int64, the gradients that it has learnt


class Plan(NamedTuple):
    """What an engine's `Training` is made of."""

    net: Any
    theta: Floats  #: (R, P), where to begin; it holds the parameters from then on
    slots: Floats  #: (R, K, P), what the optimizer keeps, likewise
    counts: Any  #: (R,), int64, how many steps the optimizer has taken, likewise: an update that is skipped is none
    d_theta: Floats  #: (R, P), room for the gradient, where a threshold that follows the norms looks at it
    ids: Any  #: (R,), the numbers under which replicas draw
    seed: int
    asked: Any  #: function of B that returns the Asked of batches of so many sequences
    clip: Clip
    rule: AnyRule
    follower: Any  #: the `nbflow.training.threshold.Follower`, None where a threshold is given at every update
    optimizer: Optimizer
    settings: dict[str, float]  #: the optimizer's
    held: Any  #: (R, P), booleans: the parameters that stay as they are; None where all are trained
    projection: Any  #: the `nbflow.training._projection.Projection` after every update, or None
    window: Any  #: where the reports of updates go (`nbflow.training._window`)
    group_follower: Any = None  #: the `GroupFollower` that is told the norms of the groups, if there is one
    memory: ClipMemory | None = None  #: what the rule remembers, None for one that does not


def at_ends(states: Any, ends: Any) -> Any:
    """Return of states (R, T+1, B, S, H) those after so many steps (R, B), or the last; of a stack for each layer."""
    if type(states) is tuple:
        return tuple(at_ends(layer, ends) for layer in states)
    return states[:, -1] if ends is None else np.take_along_axis(states, ends[:, None, :, None, None], axis=1)[:, 0]
