"""Rules of clipping: those that see one gradient, and those that remember."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from nbflow import _check, _fields
from nbflow._legible import legible
from nbflow._plain import plain_fields
from nbflow.records._types import Unit

# What the norm of a rule may measure.
OVER = ("all", "layer", "block", "unit", "entry")


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
