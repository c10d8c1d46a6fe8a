"""Where and how a gradient is clipped: after it is computed, by examples, inside back-propagation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from nbflow import _check, _fields, _names
from nbflow._legible import legible
from nbflow._plain import plain_fields
from nbflow.records._limits import BOUNDS, LENGTHS, THRESHOLDS
from nbflow.records._types import UNLESS_EMPTY, Floats
from nbflow.records.batch import Params
from nbflow.records.rules import AnyRule
from nbflow.records.threshold import Threshold, check_threshold

SITES = ("preactivation", "state")
POLICIES = ("random", "skip", "zero", "shrink", "raise", "keep")
GROUP_POLICIES = ("keep", "skip", "raise")
# What stands for the blocks that a mapping of thresholds does not name.
OTHERS = "others"


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
    length : float, or float array of shape (R,), optional
        The norm of every random step of this clip, those of a rule like "random" and those of policy "random" alike, in
        units of the gradient: above 0 and finite. None, by default: that of the threshold. So when a random step is
        taken and how long it is are two numbers. A clip that takes no random steps has none, nor has one with a
        threshold for each block.
    """

    rule: str | AnyRule
    threshold: float | Floats | str | Threshold | Callable[[int], Any] | dict[str, Any]
    nonfinite: str = "random"
    length: float | Floats | None = field(default=None, metadata={UNLESS_EMPTY: True})

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
        if self.length is not None:
            _check_length(self.length, isinstance(self.threshold, dict))


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


def _check_length(length: Any, by_block: bool) -> None:
    """Refuse what is no length of a random step."""
    if callable(length):
        raise TypeError(
            f"length is {_check.said(length)}; expected a number, or one per replica, the same at every update. Give a "
            f"float."
        )
    _fields.check_numeric("length", length, LENGTHS)
    if by_block:
        raise ValueError(
            f"length is {_check.said(length)} and threshold is by block; expected no length there: a random step has "
            f"in each block that of its threshold. Leave length out, or give one threshold."
        )


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
