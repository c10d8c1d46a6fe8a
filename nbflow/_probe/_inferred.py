"""What numba infers of a unit, held against what its record promises."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numba.core import types

from nbflow._compile import exactly
from nbflow._fields import name_of, wanted_unit

REAL = (types.Float, types.Integer)


def number_of(dtype: Any) -> Any:
    """Return the type of a number of a network of this dtype."""
    return types.float32 if np.dtype(dtype) == np.float32 else types.float64


def numbers(count: int, number: Any) -> Any:
    """Return the type of a tuple of so many numbers."""
    return types.UniTuple(number, count) if count else types.Tuple(())


def inferred(record: Any, field: str, arguments: Sequence[Any], *, unit: Any = None, raises: bool = False) -> Any:
    """Return the type that a unit returns for arguments of these types; refuse what does not compile or may raise."""
    unit, name = getattr(record, field) if unit is None else unit, name_of(record, field)
    kinds = tuple(arguments)
    try:
        unit.compile(kinds)
        (code,) = (one for signature, one in unit.overloads.items() if tuple(signature) == kinds)
    except Exception as error:
        raise TypeError(
            f"{name} does not compile ({_said(error)}); expected {wanted_unit(record, field)}, of numbers alone. Write "
            f"what numba compiles: numbers, tuples, nbflow.scalars."
        ) from error
    if not raises:
        _refuse_effects(record, field, code.library.get_llvm_str())
    return code.signature.return_type


def _said(error: Exception) -> str:
    """Return the line of a compiler's message that says what is wrong."""
    lines = [line.strip() for line in str(error).splitlines()]
    telling = [line for line in lines if line and not line.startswith(("Failed in", "-", "There are", "During:"))]
    found = telling[0] if telling else type(error).__name__
    return found if len(found) <= 160 else f"{found[:157]}..."


def may_raise(llvm: str) -> bool:
    """Tell whether code may end otherwise than by returning: a status of -2 says None, and all but 0 that it raised."""
    return not set(re.findall(r"ret i32 (\S+)", llvm)) <= {"0", "-2"}


def _refuse_effects(record: Any, field: str, llvm: str) -> None:
    """Refuse what a kernel could not pass on: exceptions, memory, words."""
    for sign, what in (("PySys_FormatStdout", "prints"), ("NRT_MemInfo_alloc", "allocates memory")):
        if sign in llvm:
            raise TypeError(
                f"{name_of(record, field)} {what}; expected {wanted_unit(record, field)}, a function of numbers and "
                f"nothing else. Leave it out."
            )
    if may_raise(llvm):
        raise TypeError(
            f"{name_of(record, field)} may raise an exception, which nobody would see (a raise, an assert, or an index "
            f"that is not constant); expected {wanted_unit(record, field)}, which returns NaN then. Return NaN there."
        )


def shown(found: Any) -> str:
    """Return a type as a message shows it."""
    if isinstance(found, types.BaseTuple):
        inner = [shown(one) for one in found]
        return f"({', '.join(inner)}{',' if len(inner) == 1 else ''})"
    return "None" if found is types.none else str(found)


def are_numbers(found: Any, count: int, kinds: Any = types.Float) -> bool:
    """Tell whether a type is a tuple of so many numbers."""
    return isinstance(found, types.BaseTuple) and len(found) == count and all(isinstance(one, kinds) for one in found)


def refuse_result(record: Any, field: str, found: str, wanted: str) -> None:
    """Refuse what a unit returns."""
    raise TypeError(
        f"{name_of(record, field)} returns {found}; expected {wanted}: it is {wanted_unit(record, field)}. Return that."
    )


def hold(record: Any, field: str, arguments: Sequence[Any], wanted: str, fits: Callable[[Any], bool]) -> Any:
    found = inferred(record, field, arguments)
    if not fits(found):
        refuse_result(record, field, shown(found), wanted)
    return found


def hold_slotted(record: Any, field: str, arguments: Sequence[Any], slots: int, wanted: str) -> None:
    """Refuse a unit that does not return a number and so many slots, compiled as `exactly` does."""
    found = inferred(record, field, arguments, unit=exactly(getattr(record, field)))
    fits = isinstance(found, types.BaseTuple) and len(found) == 2 and isinstance(found[0], types.Float)
    if not fits or not are_numbers(found[1], slots, REAL):
        refuse_result(record, field, shown(found), wanted)


def hold_number(record: Any, field: str, arguments: Sequence[Any]) -> None:
    """Refuse a unit that does not return one number."""
    hold(record, field, arguments, "one number", lambda found: isinstance(found, types.Float))


def hold_tuples(record: Any, field: str, arguments: Sequence[Any], *wanted: tuple[str, int, Any]) -> None:
    """Refuse a unit that does not return tuples of so many numbers each."""

    def fits(found: Any) -> bool:
        if not isinstance(found, types.BaseTuple) or len(found) != len(wanted):
            return False
        return all(are_numbers(part, count, kinds) for part, (_, count, kinds) in zip(found, wanted, strict=True))

    said = ", ".join(f"{name} of {count}" for name, count, _ in wanted)
    hold(record, field, arguments, f"tuples of numbers, {said}", fits)
