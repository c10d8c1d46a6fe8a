"""A user's rule of clipping: whether its units return what they should."""

from __future__ import annotations

import functools

import numpy as np
from numba.core import types

from nbflow._compile import JIT, exactly
from nbflow._probe._called import answer, floats, refuse_chance, refuse_nan, refuse_other_slots
from nbflow._probe._inferred import hold_number, hold_slotted, inferred, number_of, numbers, refuse_result, shown
from nbflow.records import Rule, StatefulRule

# Entry, norm and threshold: on either side of it.
CLIPPED = ((0.3, 1.0, 0.5), (-0.3, 1.0, 0.5), (0.3, 0.4, 0.5), (2.0, 2.5, 0.7), (-2.0, 2.5, 7.0), (0.01, 0.02, 0.5))


@functools.lru_cache(maxsize=256)
def check_rule(rule: Rule, dtype: str) -> None:
    """Refuse a rule of clipping that its norms could not be scaled for, or that looks at one that there is not."""
    if JIT:
        for number in {number_of(dtype), types.float64}:
            hold_number(rule, "clip", (number, number, number))
    refuse_chance(rule, "clip", *floats(CLIPPED[0]))
    values = [answer(rule, "clip", *floats(point)) for point in CLIPPED]
    refuse_nan(rule, "clip", values)
    for point, value in zip(CLIPPED, values, strict=True):
        g, norm, threshold = floats(point)
        scaled = answer(rule, "clip", *(np.float64(4.0) * one for one in (g, norm, threshold)))
        if not np.isclose(scaled, 4.0 * value, rtol=1e-5, atol=1e-9, equal_nan=True):
            raise ValueError(
                f"Rule.clip gives {value:.6g} for {point} and {scaled:.6g} for four times that; expected 4 x "
                f"{value:.6g}: all three may come multiplied by a power of two. Write quotients, and no numbers of "
                f"their own."
            )
        if rule.over != "entry":
            continue
        if not np.isclose(answer(rule, "clip", g, 4.0 * norm, threshold), value, equal_nan=True):
            raise ValueError(
                f"Rule.over is 'entry' and clip looks at the norm; expected one that does not, for none is measured. "
                f"Write over='all', say: {value:.6g} for {point} is another number where the norm is."
            )


def check_stateful_rule(rule: StatefulRule, dtype: str) -> None:
    """Refuse a rule that remembers whose units are not what it says of them."""
    slots, settings, wide = len(rule.slots), tuple(rule.settings.values()), types.float64
    kept, wanted = numbers(slots, number_of(dtype)), f"g and a tuple of {slots} slots"
    if JIT:
        hold_slotted(rule, "clip", (wide, wide, wide, wide, kept, numbers(len(settings), wide), wide), slots, wanted)
        if rule.measured is not None:
            found = inferred(rule, "measured", (wide, kept), unit=exactly(rule.measured))
            if not isinstance(found, types.Float):
                refuse_result(rule, "measured", shown(found), "one number")
    points, empty, n = [floats(point) for point in CLIPPED], floats((0,) * slots), np.float64(1.0)
    trials = [(g, norm, norm, threshold, empty, floats(settings), n) for g, norm, threshold in points]
    refuse_other_slots(rule, "clip", trials, slots, wanted)
    if rule.measured is not None:
        rows = [(g, empty) for g, _, _ in points]
        for row in rows:
            refuse_chance(rule, "measured", *row)
        refuse_nan(rule, "measured", [answer(rule, "measured", *row) for row in rows])
