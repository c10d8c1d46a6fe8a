"""A user's optimizer: whether its units return what they should."""

from __future__ import annotations

from nbflow._compile import JIT
from nbflow._probe._called import floats, refuse_other_slots
from nbflow._probe._inferred import hold_slotted, number_of, numbers
from nbflow.records import Optimizer


def check_optimizer(optimizer: Optimizer, dtype: str) -> None:
    """Refuse an optimizer whose unit is not what it says of it."""
    slots, settings = len(optimizer.slots), tuple(optimizer.settings.values())
    wanted = f"theta and a tuple of {slots} slots"
    if JIT:
        number = number_of(dtype)
        arguments = (number, number, numbers(slots, number), number, numbers(len(settings), number), number)
        hold_slotted(optimizer, "update", arguments, slots, wanted)
    theta, lr, n = floats((0.5, 0.01, 1.0))
    trials = [(theta, d, floats((0,) * slots), lr, floats(settings), n) for d in floats((0.1, -2.0, 0.0))]
    refuse_other_slots(optimizer, "update", trials, slots, wanted)
