"""A threshold of a clip that changes in training: with the update, or with the norms of the gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from nbflow import _check, _fields, _names
from nbflow._legible import legible
from nbflow._plain import plain_fields
from nbflow.records._limits import BOUNDS
from nbflow.records._types import Unit


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
