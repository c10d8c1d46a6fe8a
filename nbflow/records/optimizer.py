"""An optimizer, and what it remembers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from nbflow import _check, _fields
from nbflow._legible import legible
from nbflow._plain import plain_fields
from nbflow.records._types import Floats, Unit


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
