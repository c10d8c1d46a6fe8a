"""A user's penalty: whether its units return what they should, and slopes are those of differences."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from nbflow import _check
from nbflow._compile import JIT
from nbflow._probe._called import (
    TRIALS,
    answer,
    called,
    compare,
    floats,
    is_real,
    refuse_chance,
    refuse_nan,
    slope_of,
)
from nbflow._probe._inferred import are_numbers, hold, hold_number, number_of, refuse_result
from nbflow.records import Penalty, StatePenalty


@functools.lru_cache(maxsize=256)
def check_penalty(penalty: Penalty | StatePenalty, dtype: str) -> None:
    """Refuse a penalty whose units are not what it says of them."""
    gain = isinstance(penalty, Penalty)
    count = 1 if gain else 2
    if JIT:
        number = number_of(dtype)
        hold_number(penalty, "value", (number,) * count)
        if gain:
            hold_number(penalty, "slope", (number,))
        else:
            hold(penalty, "slope", (number, number), "two numbers", lambda found: are_numbers(found, 2))
    rng = np.random.default_rng(0)
    points = [rng.uniform(0.2, 3.0, size=count) for _ in range(TRIALS)]
    refuse_chance(penalty, "value", *floats(points[0]))
    refuse_nan(penalty, "value", [answer(penalty, "value", *floats(point)) for point in points])
    for point in points:
        found = called(penalty, "slope", *floats(point))
        slopes = (found,) if gain else found
        if not isinstance(slopes, tuple) or len(slopes) != count or not all(map(is_real, slopes)):
            refuse_result(penalty, "slope", _check.said(found), f"{count} number{'s' if count > 1 else ''}")
        for k, moved in enumerate(np.eye(count)):

            def value(h: float, point: Any = point, moved: Any = moved) -> Any:
                return answer(penalty, "value", *floats(point + h * moved))

            compare(penalty, "slope", "value", slopes[k], slope_of(value), "Write d value / d q.")
