"""What a recipe, a network or a function is, in plain data that another process finds again.

`describe` says it by names and numbers: of a function its module and name, of a partial or a callable object what it
holds beside. `codes_of` tells one function from another of the same name, as far as Python knows: by instructions,
with a constant where it is used, so that a docstring does not count. Checkpoints keep these words, so they stay as they
are. (Kernels, which only this process must tell apart, are known in less time: `nbflow._identity`.)
"""

from __future__ import annotations

import dataclasses
import dis
import functools
import hashlib
import inspect
import json
import math
import sys
import sysconfig
from collections.abc import Iterator
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from nbflow._plain import plain
from nbflow.data.sampler import Sampler
from nbflow.records import UNLESS_EMPTY

# An array of more entries than this is known by its hash.
MANY = 4096
# How deep an object within an object is looked at, which may hold itself.
DEEP = 6
# What stands for an object of which nothing can be known but what it is an instance of.
OPAQUE = "<an object>"
PLAIN = (str, int, float, bool, type(None))


def describe(thing: Any, depth: int = DEEP) -> Any:
    """Return a recipe, or a part of one, as `json.dumps` takes it: functions and units by name, data by their hash.

    Nothing in it depends on the process, as an address would.
    """
    if isinstance(thing, Sampler) and hasattr(thing, "identity"):
        return thing.identity()
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        # A schedule with numbers of its own: its name tells it from another with the same numbers.
        held = ((f, getattr(thing, f.name)) for f in dataclasses.fields(thing))
        own = {f.name: describe(value) for f, value in held if not (f.metadata.get(UNLESS_EMPTY) and _is_empty(value))}
        return {"function": name_of(type(thing)), **own} if callable(thing) else own
    if isinstance(thing, np.ndarray):
        return _of_array(thing)
    thing = plain(thing)
    if isinstance(thing, dict):
        return {str(key): describe(value, depth) for key, value in thing.items()}
    if isinstance(thing, list | tuple):
        return [describe(value, depth) for value in thing]
    if callable(thing):
        return _of_callable(thing, depth)
    if isinstance(thing, float) and not math.isfinite(thing):
        return str(thing)
    return thing


def _is_empty(value: Any) -> bool:
    return value is None or value is False or (isinstance(value, dict) and not value)


def name_of(thing: Any) -> str:
    """Return module and name of a function or a class."""
    function = getattr(thing, "py_func", thing)
    module = getattr(function, "__module__", None) or type(function).__module__
    return f"{module}.{getattr(function, '__qualname__', None) or function.__name__}"


def _of_array(array: Any) -> Any:
    if array.size <= MANY and array.dtype.kind in "biuf":
        numbers = array.astype(np.float64) if array.dtype.itemsize > 8 else array
        # Entry by entry 3,054 booleans took 5 ms, as much as 25 updates.
        return describe(numbers.tolist()) if numbers.dtype.kind == "f" else numbers.tolist()
    if array.dtype.hasobject:
        return OPAQUE
    data = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
    return {"array": [*array.shape], "dtype": array.dtype.str, "sha256": data}


def _of_callable(thing: Any, depth: int) -> Any:
    """Describe a function by its name, and what else can be called by its name and what it holds."""
    if isinstance(thing, functools.partial):
        keywords = {name: _inside(value, depth) for name, value in thing.keywords.items()}
        return {"function": "functools.partial", "of": describe(thing.func, depth - 1),
                "arguments": [_inside(value, depth) for value in thing.args], "keywords": keywords}  # fmt: skip
    owner = getattr(thing, "__self__", None)
    if owner is not None and not isinstance(owner, ModuleType | type) and hasattr(thing, "__name__"):
        # A bound method, one written in C too.
        return {"function": f"{name_of(type(owner))}.{thing.__name__}", "of": _inside(owner, depth)}
    if hasattr(getattr(thing, "py_func", thing), "__qualname__") or isinstance(thing, np.ufunc):
        return name_of(thing)
    held = _attributes(thing, depth)
    return {"function": name_of(type(thing)), **held} if held else _in_words(thing)


def _attributes(thing: Any, depth: int) -> dict[str, Any]:
    """Describe what an object holds, in `__dict__` and in slots."""
    slots = [name for kind in type(thing).__mro__ for name in np.atleast_1d(getattr(kind, "__slots__", ())).tolist()]
    held = {name: getattr(thing, name) for name in slots if hasattr(thing, name) and not name.startswith("__")}
    return {name: _inside(value, depth) for name, value in {**held, **getattr(thing, "__dict__", {})}.items()}


def _inside(value: Any, depth: int) -> Any:
    """Describe what stands in an object or among arguments, whatever it is."""
    if isinstance(value, set | frozenset):
        return sorted((_inside(one, depth - 1) for one in value), key=str)
    if isinstance(value, bytes | complex | range | slice | np.dtype):
        return repr(value)
    if depth <= 0:
        return f"{OPAQUE} {name_of(type(value))}"
    if isinstance(value, list | tuple):
        return [_inside(one, depth - 1) for one in value]
    if isinstance(value, dict):
        return {str(key): _inside(one, depth - 1) for key, one in value.items()}
    found = describe(value, depth - 1)
    if isinstance(found, (*PLAIN, list, dict)):
        return found
    held = _attributes(value, depth - 1)
    return {"object": name_of(type(value)), **held} if held else _in_words(value)


def _in_words(thing: Any) -> str:
    """Describe an object that shows nothing of what it holds: as it writes itself, unless that is an address."""
    written = repr(thing)
    return f"{OPAQUE} {name_of(type(thing))}" if " at 0x" in written or len(written) > MANY else written


def codes_of(things: dict[str, Any]) -> dict[str, str]:
    """Return a hash of what every function in these says, by where it stands; of the user's own alone.

    It holds bytecode, constants, defaults, and the plain values and own functions that it uses from around it: comments
    and places do not count. What a function writes into, a list or an object, is its memory, and does not count either.
    Another Python has other bytecode, so its version stands beside.
    """
    found = {name: _code_of(function, set()) for name, function in _functions("", things, DEEP) if _is_own(function)}
    return {"python": f"{sys.version_info.major}.{sys.version_info.minor}", **found}


def _functions(name: str, thing: Any, depth: int) -> Iterator[tuple[str, FunctionType]]:
    """Yield the functions in a thing, and where they stand."""
    thing = getattr(thing, "py_func", thing)
    if depth < 0 or isinstance(thing, (*PLAIN, np.ndarray, type)):
        return
    if isinstance(thing, FunctionType):
        yield name, thing
        return
    if isinstance(thing, MethodType):
        yield name, thing.__func__  # type: ignore[misc]
        thing = thing.__self__
    if isinstance(thing, functools.partial):
        parts: dict[Any, Any] = {"of": thing.func, **dict(enumerate(thing.args)), **thing.keywords}
    elif isinstance(thing, dict):
        parts = thing
    elif isinstance(thing, list | tuple):
        parts = dict(enumerate(thing))
    else:
        if callable(thing) and isinstance(called := vars(type(thing)).get("__call__"), FunctionType):
            yield name, called
        parts = getattr(thing, "__dict__", {})
        if dataclasses.is_dataclass(thing):  # without what is kept beside the fields
            parts = {field.name: getattr(thing, field.name) for field in dataclasses.fields(thing)}
    for key, part in parts.items():
        yield from _functions(f"{name}.{key}" if name else str(key), part, depth - 1)


@functools.cache
def _libraries() -> tuple[str, ...]:
    return tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})


def _is_own(function: Any) -> bool:
    """Tell whether a function is the user's: nbflow's are known by its version, those of libraries by their names."""
    if not isinstance(function, FunctionType) or (function.__module__ or "").partition(".")[0] == "nbflow":
        return False
    return not function.__code__.co_filename.startswith(_libraries())


def _code_of(function: FunctionType, known: set[CodeType]) -> str:
    code = function.__code__
    if code in known:
        return ""
    known.add(code)
    around = [cell_contents(cell) for cell in function.__closure__ or ()]
    around += [function.__globals__.get(name) for name in code.co_names]
    used = [_code_of(one, known) if _is_own(one) else one for one in (getattr(v, "py_func", v) for v in around)]
    parts = [
        _said(code),
        function.__defaults__,
        function.__kwdefaults__,
        [one for one in used if _is_fixed(one)],
    ]
    return hashlib.sha256(json.dumps(_inside(parts, DEEP), sort_keys=True).encode()).hexdigest()[:16]


def cell_contents(cell: Any) -> Any:
    """Return what a function closes over; None where that is not there yet."""
    try:
        return cell.cell_contents
    except ValueError:
        return None


def _is_fixed(value: Any) -> bool:
    """Tell whether a value cannot be written into."""
    if isinstance(value, tuple):
        return all(map(_is_fixed, value))
    return isinstance(value, (*PLAIN, bytes, complex, np.generic))


def _said(code: CodeType) -> list[Any]:
    """Return what bytecode says: instructions and what they are given, without places and names of its own.

    A constant stands where it is used: a docstring is not, and from Python 3.14 on moves the numbers of others.
    """
    said: list[Any] = []
    for one in dis.get_instructions(code):
        value = one.argval if one.opcode in dis.hasconst else one.arg
        if one.opname != "EXTENDED_ARG":  # a part of the next one's number
            said += [one.opname, _said(value) if inspect.iscode(value) else value]
    return [said, [*code.co_names]]
