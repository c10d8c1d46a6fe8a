"""Penalties: of the gain, of the states, of the network as a whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nbflow import _check, _fields
from nbflow._legible import legible
from nbflow.records._types import Floats, Unit


@legible
@dataclass(frozen=True)
class Penalty:
    """A penalty of the gain r, as units of its square q = r^2.

    Attributes
    ----------
    value : unit
        `(q) -> number`: 0 at least, and without a unit.
    slope : unit
        `(q) -> number`: d value / d q.
    """

    value: Unit
    slope: Unit

    def __post_init__(self) -> None:
        """Check both units."""
        _fields.check_unit(self, "value")
        _fields.check_unit(self, "slope")


@legible
@dataclass(frozen=True)
class StatePenalty:
    """A penalty of the size of two neighbouring states, as units of n = ||h_t|| and before = ||h_{t-1}||.

    Omega is its mean over the steps of a sequence, up to the last one with weight, and then over the B sequences.

    Attributes
    ----------
    value : unit
        `(n, before) -> number`.
    slope : unit
        `(n, before) -> (number, number)`: the derivatives of `value` with respect to both.
    """

    value: Unit
    slope: Unit

    def __post_init__(self) -> None:
        """Check both units."""
        _fields.check_unit(self, "value")
        _fields.check_unit(self, "slope")


@legible
@dataclass(frozen=True)
class Regularizer:
    """A penalty of the network as a whole, in NumPy.

    Attributes
    ----------
    value_and_gradient : function
        `(net, theta, batch) -> (value, d_theta)`. It sees one network at a time, in float64: theta and d_theta (P,), a
        plain `Batch`. It is called once an update and replica, and is as fast as it is written.
    """

    value_and_gradient: Callable[..., tuple[float, Floats]]

    def __post_init__(self) -> None:
        """Check that it can be called."""
        if not callable(self.value_and_gradient):
            raise TypeError(
                f"Regularizer.value_and_gradient is {_check.said(self.value_and_gradient)}; expected a function (net, "
                f"theta, batch) -> (value, d_theta). Pass one."
            )


# What a file of `flows` declares.
AnyPenalty = Penalty | StatePenalty | Regularizer
