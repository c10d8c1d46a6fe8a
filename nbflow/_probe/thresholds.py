"""A user's threshold: whether its units return what they should."""

from __future__ import annotations

import numba
from numba import carray
from numba.core import types

from nbflow._compile import JIT, bounded
from nbflow._probe._inferred import REAL, inferred, may_raise, numbers, refuse_result, shown
from nbflow.records import Threshold


def check_threshold(how: Threshold) -> None:
    """Refuse a threshold whose units are not what it says of them; where they look beyond the memory, they raise."""
    if not JIT:
        return
    number, memory = types.float64, types.Array(types.float64, 1, "C")
    settings = numbers(len(how.settings), number)
    found = inferred(how, "value", (number, memory, settings, types.int64), unit=bounded(how.value), raises=True)
    if not isinstance(found, REAL):
        refuse_result(how, "value", shown(found), "one number")
    if how.learn is not None:
        found = inferred(how, "learn", (number, memory, settings), unit=bounded(how.learn), raises=True)
        if found is not types.none:
            refuse_result(how, "learn", shown(found), "nothing, for it writes into the memory")


def stays_inside(how: Threshold, room: int) -> bool:
    """Tell whether a compiler can prove that the units never look beyond a memory of so many numbers, nor raise.

    So it is where all places are constants. On the card nobody looks at where they look.
    """
    value, learn = bounded(how.value), None if how.learn is None else bounded(how.learn)

    def ask(address, norm, settings, update):  # type: ignore[no-untyped-def]
        memory = carray(address, (room,))
        if learn is not None:
            learn(norm, memory, settings)
        return value(norm, memory, settings, update)

    number = types.float64
    compiled = numba.njit(error_model="numpy", fastmath=False)(ask)
    compiled.compile((types.CPointer(number), number, numbers(len(how.settings), number), types.int64))
    (code,) = compiled.overloads.values()
    return not may_raise(code.library.get_llvm_str())
