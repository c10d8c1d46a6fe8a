"""A user's loss: whether its units return what they should, and slopes are those of differences."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from nbflow import _check
from nbflow._compile import JIT
from nbflow._probe._called import TRIALS, answer, called, compare, floats, refuse_chance, refuse_nan, slope_of
from nbflow._probe._inferred import are_numbers, hold, hold_number, number_of, numbers, refuse_result
from nbflow.records import Loss


@functools.lru_cache(maxsize=256)
def check_loss(loss: Loss, dtype: str) -> None:
    """Refuse a loss whose units are not what it says of them."""
    if JIT:
        _infer_loss(loss, dtype)
    rng = np.random.default_rng(0)
    values = [_try_loss(loss, rng, k) for k in range(TRIALS)]
    refuse_nan(loss, "value", values)


def _infer_loss(loss: Loss, dtype: str) -> None:
    number = number_of(dtype)
    count = len(loss.start)
    wanted = f"an accumulator of {count} numbers, as start is"
    kept = numbers(count, number)
    for _ in range(2):  # what it returns is given to it again
        kept = hold(loss, "fold", (kept, number, number), wanted, lambda found: are_numbers(found, count))
    hold_number(loss, "value", (kept,))
    hold_number(loss, "slope", (kept, number, number))
    if loss.share is not None:
        hold_number(loss, "share", (kept, number, number))
        hold_number(loss, "slope_jvp", (kept, number, number, number, number))


def _try_loss(loss: Loss, rng: Any, k: int) -> Any:
    """Return the loss of three outputs; refuse slopes that are not those of differences."""
    outputs = 3
    y, moved = rng.normal(size=outputs), rng.normal(size=outputs)
    t = np.eye(outputs)[k % outputs] if loss.classes else rng.normal(size=outputs)
    if loss.targets is not None and not loss.classes:
        low, high = np.clip(loss.targets, -3.0, 3.0)
        t = rng.uniform(low, high, size=outputs)

    def folded(h: float) -> Any:
        accumulator: Any = floats(loss.start)
        for one, target in zip(y + h * moved, t, strict=True):
            accumulator = called(loss, "fold", accumulator, np.float64(one), np.float64(target))
            if not isinstance(accumulator, tuple) or len(accumulator) != len(loss.start):
                wanted = f"an accumulator of {len(loss.start)} numbers, as start is"
                refuse_result(loss, "fold", _check.said(accumulator), wanted)
        return accumulator

    def slopes(h: float) -> Any:
        kept = folded(h)
        rows = zip(y + h * moved, t, strict=True)
        return np.array([answer(loss, "slope", kept, np.float64(one), np.float64(target)) for one, target in rows])

    remedy = "See nbflow.check_gradient."
    refuse_chance(loss, "value", folded(0.0))
    refuse_chance(loss, "fold", floats(loss.start), np.float64(y[0]), np.float64(t[0]))
    compare(loss, "slope", "value", slopes(0.0) @ moved, slope_of(lambda h: answer(loss, "value", folded(h))), remedy)
    if loss.share is not None:
        kept, rows = folded(0.0), list(zip(floats(y), floats(t), floats(moved), strict=True))
        shared = np.float64(sum(answer(loss, "share", kept, one, target) * dot for one, target, dot in rows))
        got = [answer(loss, "slope_jvp", kept, one, target, dot, shared) for one, target, dot in rows]
        compare(loss, "slope_jvp", "slope", got, slope_of(slopes), remedy)
    return answer(loss, "value", folded(0.0))
