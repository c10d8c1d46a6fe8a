"""Setting: a number of a recipe, one per replica, or a schedule."""

from __future__ import annotations

from typing import Any

import numpy as np

from nbflow import _check
from nbflow.records import Floats


class Setting:
    """A number, one per replica, or a function of the update that returns either; checked each time it is asked."""

    def __init__(self, name: str, value: Any, replicas: int, dtype: Any, **limits: Any) -> None:
        self.name, self.value, self.replicas, self.dtype, self.limits = name, value, replicas, dtype, limits
        self.fixed = None if callable(value) else self._checked(value)
        self.last = np.full(replicas, np.nan, dtype)

    def _checked(self, value: Any) -> Floats:
        found = _check.per_replica(self.name, value, self.replicas, dtype=self.dtype, **self.limits)
        return np.ascontiguousarray(found, self.dtype)

    def at(self, update: int) -> Floats:
        """Return the values (R,) of an update."""
        return self._scheduled(update) if self.fixed is None else self.fixed

    def _scheduled(self, update: int) -> Floats:
        value = self.value(update)
        try:
            return self._checked(value)
        except (TypeError, ValueError) as error:
            settled = self._without_dust(value)
            if settled is None:
                raise type(error)(f"{error} It is what {self.name}({update}) returned, at update {update}.") from None
            return settled

    def _without_dust(self, value: Any) -> Floats | None:
        """Return what was meant by 0 and came out a hair below, or above it and too small for the dtype; or None."""
        try:
            found = _check.per_replica(self.name, value, self.replicas)
            first = _check.per_replica(self.name, self.value(0), self.replicas)
            room = _check.DUST * np.maximum(1.0, np.where(np.isfinite(first), np.abs(first), 0.0))
            tiny = np.finfo(self.dtype).smallest_subnormal
            return self._checked(np.where(((found < 0) & (found >= -room)) | (np.abs(found) < tiny), 0.0, found))
        except (TypeError, ValueError):
            return None


def at_zero(value: Any) -> Any:
    """Return what is used first, for a check before the first update."""
    return value(0) if callable(value) else value
