"""A loss: what a network is trained to make small."""

from __future__ import annotations

from dataclasses import dataclass

from nbflow import _check, _fields
from nbflow._legible import legible
from nbflow._plain import plain_fields
from nbflow.records._types import Unit


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
