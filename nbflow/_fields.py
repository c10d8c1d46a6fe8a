"""The fields of the records that users make: each is checked when the record is made, whatever becomes of it.

One grammar of messages: the record and the field, what came, what is wanted, the remedy. Whether a unit returns what it
should is found by `nbflow._probe`.
"""

from __future__ import annotations

import functools
import inspect
import numbers
import re
import types
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from nbflow import _check
from nbflow._legible import said


def name_of(record: Any, field: str) -> str:
    """Return how a message calls a field."""
    return f"{type(record).__name__}.{field}"


@functools.cache
def _signature(kind: Any, field: str) -> str:
    """Return the signature that the docstring of a record gives a unit, as in "(a_in, a_rec, s) -> (s_next, saved)"."""
    found = re.search(r"`(\([^`]*)`", said(kind).get(field, ""))
    return found[1] if found else "(...)"


def signature_of(record: Any, field: str) -> str:
    """Return the signature of a record's unit."""
    kind: Any = type(record)
    found = _signature(kind, field)
    return found.replace(")", ", settings)", 1) if getattr(record, "hands_settings", False) else found


def wanted_unit(record: Any, field: str) -> str:
    """Return what a message says of the unit that it wants."""
    return f"a unit, {field}{signature_of(record, field)}"


def _put(record: Any, field: str, value: Any) -> None:
    """Write a field of a frozen record: what was checked is what is used."""
    object.__setattr__(record, field, value)


def check_names(record: Any, field: str, least: int = 0, *, distinct: bool = True) -> None:
    """Make a field a tuple of names, `least` of them or more, and each another one where they are `distinct`."""
    value = getattr(record, field)
    if not isinstance(value, tuple | list) or not all(isinstance(one, str) and one for one in value):
        raise TypeError(
            f"{name_of(record, field)} is {_check.said(value)}; expected a tuple of names. Write {field}=('a',), say."
        )
    if len(value) < least or (distinct and len(set(value)) < len(value)):
        raise ValueError(
            f"{name_of(record, field)} is {_check.said(value)}; expected {least} or more names, each another one. "
            f"Name them."
        )
    _put(record, field, tuple(value))


def check_flags(record: Any, *fields: str) -> None:
    """Make each of these fields True or False."""
    for field in fields:
        _put(record, field, _check.flag(name_of(record, field), getattr(record, field)))


def check_numbers(record: Any, field: str, *, endless: bool = False) -> None:
    """Make a field a tuple of real numbers, finite ones unless it may be `endless`."""
    value = getattr(record, field)
    if not isinstance(value, tuple | list) or not all(is_number(one) for one in value):
        raise TypeError(
            f"{name_of(record, field)} is {_check.said(value)}; expected a tuple of numbers. Write {field}=(0.0,), say."
        )
    if any(np.isnan(one) or (not endless and np.isinf(one)) for one in value):
        raise ValueError(f"{name_of(record, field)} is {_check.said(value)}; expected finite numbers. Give others.")
    _put(record, field, tuple(float(one) for one in value))


def is_number(value: Any) -> bool:
    """Tell whether a value is one real number, and no bool."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool | np.bool_)


def check_kind(name: str, value: Any, kinds: Any, wanted: str) -> None:
    """Refuse what is of none of some kinds."""
    if not isinstance(value, kinds):
        raise TypeError(f"{name} is {_check.said(value)}; expected {wanted}. Give one.")


def check_numeric(name: str, value: Any, limits: Mapping[str, Any], *, schedule: bool = False) -> None:
    """Refuse what is neither a number nor a line of them nor, where there may be a `schedule`, a function.

    `limits` are those of `_check.per_replica`. Whether there is one for each replica, and whether the network's dtype
    holds it, is found where it is used.
    """
    if not (schedule and callable(value)):
        _check.per_replica(name, value, _size(value), **limits)


def _size(value: Any) -> int:
    """Return how many numbers something has, 1 where nobody can tell."""
    try:
        return max(np.size(value), 1)
    except ValueError:  # rows of different lengths
        return 1


def check_pair(name: str, value: Any) -> tuple[float, float]:
    """Return the two ends of a range, the smaller one first."""
    if not isinstance(value, tuple | list) or len(value) != 2 or not all(is_number(one) for one in value):
        raise TypeError(f"{name} is {_check.said(value)}; expected (smallest, largest). Write (0.0, 1.0), say.")
    low, high = map(float, value)
    if not low < high:
        raise ValueError(f"{name} is {_check.said(value)}; expected (smallest, largest). Give the smaller one first.")
    return low, high


def check_settings(record: Any, *, required: bool) -> None:
    """Refuse settings that are no dict of names and numbers; `required` ones may be None, or arrays of numbers."""
    name = name_of(record, "settings")
    for key, value in _named(record).items():
        if value is None and required:
            continue
        _check.per_replica(f"{name}[{_check.said(key)}]", value, _size(value) if required else 1, finite=not required)


def check_limits(record: Any) -> None:
    """Refuse limits that are no dict of pairs, or those of settings that there are not."""
    limits = record.limits
    if not isinstance(limits, dict) or not set(limits) <= set(record.settings):
        raise TypeError(
            f"{name_of(record, 'limits')} is {_check.said(limits)}; expected a dict of pairs for some of the settings: "
            f"{', '.join(record.settings) or 'none'}. Leave the others out."
        )
    for name, pair in limits.items():
        ends = pair if isinstance(pair, tuple | list) and len(pair) == 2 else (np.nan,)
        if not all(end is None or (is_number(end) and end == end) for end in ends) or ends[-1] is None:
            raise TypeError(
                f"{name_of(record, 'limits')}[{_check.said(name)}] is {_check.said(pair)}; expected a pair of numbers. "
                f"Write (0.0, 1.0), say."
            )


def _named(record: Any) -> dict[str, Any]:
    """Return settings that are a dict of names."""
    settings = record.settings
    if isinstance(settings, dict) and all(isinstance(one, str) for one in settings):
        return settings
    raise TypeError(
        f"{name_of(record, 'settings')} is {_check.said(settings)}; expected a dict of names and numbers. Write "
        f"{{'a': 1.0}}."
    )


def check_constants(record: Any) -> None:
    """Make settings a dict of names and finite numbers, or lines of them as tuples, each within its limits; or None."""
    settings, name = _named(record), name_of(record, "settings")
    check_limits(record)
    of = name_of(record, "limits")
    limits = {key: check_pair(f"{of}[{_check.said(key)}]", pair) for key, pair in record.limits.items()}
    _put(record, "limits", limits)
    found = {key: _constant(f"{name}[{_check.said(key)}]", one, limits.get(key)) for key, one in settings.items()}
    _put(record, "settings", found)


def _constant(name: str, value: Any, limits: tuple[float, float] | None) -> Any:
    """Return a setting as a float, or one for each unit as a tuple of them; None as it is."""
    if value is None:
        return None
    found = _check.line(name, value)
    if not np.isfinite(found).all():
        raise ValueError(f"{name} is {found[~np.isfinite(found)][0]}; expected finite numbers. Give others.")
    low, high = limits or (-np.inf, np.inf)
    outside = found[(found < low) | (found > high)]
    if outside.size:
        raise ValueError(f"{name} is {outside[0]:g}; expected a number from {low:g} to {high:g}. Give one of these.")
    return float(found) if found.ndim == 0 else tuple(found.tolist())


def few(value: Any) -> str:
    """Return a setting in a few figures: a number, or the ends of a line of them."""
    if isinstance(value, tuple):
        return f"{len(value)} from {min(value):.4g} to {max(value):.4g}"
    return "None" if value is None else f"{value:.6g}"


def check_unit(record: Any, field: str, *, optional: bool = False, arrays: bool = False) -> None:
    """Refuse what is no unit with as many arguments as are given to it.

    A unit with `arrays` may read arrays that nobody can write, and all others none.
    """
    unit = getattr(record, field)
    if unit is None and optional:
        return
    function = _function_of(record, field, unit)
    name, wanted = name_of(record, field), wanted_unit(record, field)
    if inspect.isgeneratorfunction(function) or inspect.iscoroutinefunction(function):
        raise TypeError(f"{name} yields; expected {wanted}. Return all of it at once.")
    count = signature_of(record, field).partition("->")[0].count(",") + 1
    if "(..." not in wanted and not _takes(function, count):
        raise TypeError(
            f"{name} is {function.__name__}{inspect.signature(function)}; expected {wanted}. Give it {count} arguments."
        )
    if not is_own(unit):
        return
    if repeats(unit):
        raise TypeError(f"{name} calls itself; expected {wanted}, which does not. Write a loop.")
    for seen, value in arrays_of(unit):
        if not arrays:
            raise TypeError(f"{name} reads the array {seen}; expected {wanted}, of numbers alone. Write them out.")
        if value.flags.writeable:
            raise TypeError(
                f"{name} reads the array {seen}, of which compiled code keeps a copy; expected one that nobody can "
                f"change. Write {seen}.flags.writeable = False."
            )


def _function_of(record: Any, field: str, unit: Any) -> Any:
    """Return the Python function of a unit; without the JIT the two are the same."""
    found = getattr(unit, "py_func", None)
    if found is not None and hasattr(unit, "targetoptions"):
        return found
    if isinstance(unit, types.FunctionType):
        from nbflow._compile import JIT

        if not JIT:
            return unit
        what = f"the plain function {unit.__name__}"
    else:
        what = _check.said(unit)
    raise TypeError(
        f"{name_of(record, field)} is {what}; expected {wanted_unit(record, field)}. Write @nbflow.unit above its def."
    )


def _takes(function: Any, count: int) -> bool:
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError:
        return False
    return True


def is_own(unit: Any) -> bool:
    """Tell whether a unit is a user's own, and no part of nbflow."""
    function = getattr(unit, "py_func", unit)
    return not str(getattr(function, "__module__", "")).startswith("nbflow.")


def _used(unit: Any) -> dict[str, Any]:
    """Return what a unit finds outside itself, by name: what it calls and reads."""
    function = getattr(unit, "py_func", unit)
    seen = inspect.getclosurevars(function)
    used = {**seen.globals, **seen.nonlocals}
    for name, module in list(used.items()):
        if isinstance(module, types.ModuleType) and not module.__name__.startswith(("nbflow.", "numpy", "math")):
            del used[name]
            names = (one for one in function.__code__.co_names if hasattr(module, one))
            used |= {f"{name}.{one}": getattr(module, one) for one in names}
    return used


def _calls(unit: Any) -> Iterator[Any]:
    for value in _used(unit).values():
        if (hasattr(value, "py_func") or isinstance(value, types.FunctionType)) and is_own(value):
            yield value


def repeats(unit: Any, callers: tuple[Any, ...] = ()) -> bool:
    """Tell whether a unit calls itself, at once or through others."""
    return unit in callers or any(repeats(other, (*callers, unit)) for other in _calls(unit))


def arrays_of(unit: Any) -> Iterator[tuple[str, Any]]:
    """Yield the arrays that a unit reads, and the units that it calls, each with its name."""
    for name, value in _used(unit).items():
        if isinstance(value, np.ndarray):
            yield name, value
    for other in _calls(unit):
        yield from arrays_of(other)
