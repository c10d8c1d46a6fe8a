"""What tells one compiled function from another: its code, and all that numba finds in its closure and its globals.

A name tells nothing where an object can come from elsewhere: out of a pickle that other code wrote, or from a notebook
where a cell is run twice. So a function is known by what it does. Only what stands under its name in nbflow today is
known by that name, for `_disk_cache.fingerprint` stands for all of nbflow. What cannot be looked into is `Unknown`:
a function that reaches it is compiled in every process.

Code is taken as it lies, bytecode and all constants: this is asked for every kernel before the first gradient. What
outlives a process, and may be read by another Python, knows functions otherwise (`nbflow.training._identity`).

numba reads globals and closures when it compiles for a new type, and what it has compiled before stays. So a function
of a user's must find, each time it is asked for, what it found when it was first seen.
"""

from __future__ import annotations

import builtins
import dataclasses
import dis
import functools
import hashlib
import sys
import types
import weakref
from collections.abc import Iterator
from typing import Any, ClassVar

import numba
import numpy as np
from llvmlite import ir
from numba.core.dispatcher import Dispatcher
from numba.core.extending import _Intrinsic
from numba.core.typing.templates import builtin_registry

# Whose functions are known by their names, for their versions are a part of every key.
LIBRARIES = {"numpy", "numba", "llvmlite"} | sys.stdlib_module_names
HERE = "nbflow"
PLAIN = (type(None), type(...), bool, int, float, complex, str, bytes)

# What each function of a user's was when it was first seen; None where it has changed since.
_FIRST: weakref.WeakKeyDictionary[Any, str | None] = weakref.WeakKeyDictionary()


class UnknownError(Exception):
    """Something that machine code depends on cannot be looked into."""


def identity(thing: Any, *options: Any) -> str | None:
    """Return a hash of what a unit, or a function that is about to be compiled, is to the compiler; None if unknown."""
    look = _Look()
    try:
        what = look.function(thing) if isinstance(thing, types.FunctionType) else look.at(thing)
        return _sum(what, *map(look.at, options))
    except (UnknownError, RecursionError, ValueError):  # of a cell that is empty yet
        return None


class _Look:
    """One look at all that a thing reaches."""

    def __init__(self) -> None:
        # With the things themselves, so that no id is used twice.
        self.seen: dict[int, tuple[Any, str]] = {}

    def at(self, thing: Any, names: frozenset[str] = frozenset()) -> str:
        """Return a hash of a thing, of which a module counts in these names only."""
        if isinstance(thing, types.ModuleType):
            return self.module(thing, names)
        if id(thing) not in self.seen:
            # What calls itself is known by its code there.
            self.seen[id(thing)] = thing, _sum("again", _code(thing))
            self.seen[id(thing)] = thing, _sum(*self.words(thing))
        return self.seen[id(thing)][1]

    def words(self, thing: Any) -> Iterator[str]:
        """Yield words for what a thing is."""
        kind = type(thing)
        yield kind.__qualname__
        if kind in PLAIN:
            yield repr(thing)
        elif isinstance(thing, np.generic):
            yield from (thing.dtype.str, thing.tobytes().hex())
        elif isinstance(thing, np.dtype | numba.types.Number | numba.types.Record | ir.Type):
            yield repr(thing)
        elif kind is np.ndarray and not thing.dtype.hasobject:
            yield from (repr(thing.dtype), repr(thing.shape), repr(thing.strides), thing.tobytes().hex())
        elif kind in (tuple, list) or (isinstance(thing, tuple) and hasattr(thing, "_fields")):
            yield from map(self.at, thing)
            yield repr(getattr(thing, "_fields", ""))
        elif kind in (set, frozenset):
            yield from sorted(map(self.at, thing))
        elif isinstance(thing, dict):
            yield from sorted(f"{self.at(key)} {self.at(value)}" for key, value in thing.items())
        elif isinstance(thing, Dispatcher):
            yield self.compiled(thing)
        elif isinstance(thing, types.FunctionType):
            yield self.plain(thing)
        elif isinstance(thing, _Intrinsic):
            yield from (self.at(thing._defn), self.at(thing._ctor_kwargs), repr(thing._prefer_literal))
        elif isinstance(thing, functools.partial):
            yield from map(self.at, (thing.func, thing.args, thing.keywords))
        elif dataclasses.is_dataclass(thing) and _root(kind) == HERE:
            yield from (self.at(getattr(thing, field.name)) for field in dataclasses.fields(thing))
        else:
            yield _known_by_name(thing)

    def module(self, module: types.ModuleType, names: frozenset[str]) -> str:
        """Return a hash of what a module has under these names."""
        if module.__name__.partition(".")[0] in LIBRARIES:
            if any(map(_overloaded, names)):
                raise UnknownError(f"{module.__name__} has something that is overloaded")
            return _sum(module.__name__)
        held = {name: getattr(module, name) for name in sorted(names) if hasattr(module, name)}
        return _sum(*(f"{name} {self.found(module.__name__, name, one, names)}" for name, one in held.items()))

    def compiled(self, dispatcher: Any) -> str:
        """Return a hash of what numba compiles, a unit or a part."""
        function = dispatcher.py_func
        if _stands(dispatcher, function) and _root(function) == HERE:
            return _sum(function.__module__, function.__qualname__, _code(function))
        what, today = self.own(dispatcher), _standing(function)
        if _root(function) == HERE and isinstance(today, Dispatcher):
            # A copy, as a pickle makes one: of what stands there now, if it is the same in all that it reaches.
            return self.compiled(today) if what == self.own(today) else what
        if dispatcher not in _FIRST:
            # What was compiled before, perhaps with other globals, cannot be known, but if nobody could change them.
            live = function.__globals__ is getattr(sys.modules.get(function.__module__), "__dict__", None)
            _FIRST[dispatcher] = None if dispatcher.overloads and live and _root(function) != HERE else what
        if _FIRST[dispatcher] != what:
            _FIRST[dispatcher] = None
            raise UnknownError(f"{function.__qualname__} has found other things before")
        return what

    def own(self, dispatcher: Any) -> str:
        """Return a hash of what numba was given to compile."""
        pipeline = dispatcher._compiler.pipeline_class
        if _root(pipeline) not in {HERE, "numba"}:
            raise UnknownError(f"{pipeline.__qualname__} may compile it in any way")
        return _sum(self.at(dispatcher.targetoptions), self.at(dispatcher.locals), self.function(dispatcher.py_func))

    def plain(self, function: types.FunctionType) -> str:
        """Return a hash of a function that numba does not compile by itself, so that another one says what it is."""
        if _root(function) != HERE:
            return _known_by_name(function)
        if _stands(function, function):
            return _sum(function.__module__, function.__qualname__, _code(function))
        return self.function(function)

    def function(self, function: Any) -> str:
        """Return a hash of code, and of all that it finds."""
        names, known = _names(function.__code__), function.__globals__.keys() | vars(builtins).keys()
        if _root(function) != HERE and not _looked_up(function.__code__) <= known:
            raise UnknownError(f"{function.__qualname__} finds something that is not there yet")
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        found = [f"closure {name} {self.at(cell.cell_contents, names)}" for name, cell in cells]
        for name in sorted(names):
            if name in function.__globals__:
                one = self.found(function.__module__, name, function.__globals__[name], names)
                found.append(f"global {name} {one}")
        return _sum(_code(function), self.at(function.__defaults__), self.at(function.__kwdefaults__), *found)

    def found(self, module: str, name: str, thing: Any, names: frozenset[str]) -> str:
        """Return a hash of what stands in a module; by its name, if it is nbflow's and cannot be looked into."""
        try:
            return self.at(thing, names)
        except UnknownError:
            if module.partition(".")[0] == HERE and getattr(sys.modules.get(module), name, None) is thing:
                return _sum(module, name)
            raise


def _sum(*words: str) -> str:
    return hashlib.sha256("\0".join(words).encode()).hexdigest()


def _root(thing: Any) -> str:
    return str(getattr(thing, "__module__", None)).partition(".")[0]


def _standing(function: Any) -> Any:
    """Return what stands under the name of a function today."""
    found: Any = sys.modules.get(str(getattr(function, "__module__", None)))
    for name in function.__qualname__.split("."):
        found = getattr(found, name, None)
    return found


def _stands(thing: Any, function: Any) -> bool:
    return _standing(function) is thing


def _known_by_name(thing: Any) -> str:
    """Return the name of a library's function or class, if that is all that it is."""
    name = getattr(thing, "__qualname__", getattr(thing, "__name__", None))
    module = "numpy" if isinstance(thing, np.ufunc) else getattr(thing, "__module__", None)
    held: Any = sys.modules.get(str(module), builtins)
    if name is None or str(module).partition(".")[0] not in LIBRARIES or _overloaded(name.split(".")[-1]):
        raise UnknownError(repr(thing))
    for part in name.split("."):
        held = getattr(held, part, None)
    if held is not thing:
        raise UnknownError(repr(thing))
    return f"{module}.{name}"


def _overloaded(name: str) -> bool:
    """Tell whether somebody else has told numba how to compile a library's function of this name."""
    last = len(builtin_registry.globals)
    made = [value for value, kind in builtin_registry.globals[_FOREIGN.read : last] if _is_foreign(kind)]
    _FOREIGN.names.update(getattr(value, "__name__", "") for value in made)
    _FOREIGN.read = last
    return name in _FOREIGN.names


class _Foreign:
    """The functions that neither numba nor nbflow has overloaded, as far as numba's list was read."""

    read = 0
    names: ClassVar[set[str]] = set()


_FOREIGN = _Foreign()


def _is_foreign(kind: Any) -> bool:
    made_by = [getattr(template, "_overload_func", None) for template in getattr(kind, "templates", ())]
    return any(_root(function) not in {HERE, *LIBRARIES} for function in made_by if function is not None)


def _names(code: types.CodeType) -> frozenset[str]:
    """Return what code may look up in globals and modules; attributes are among them."""
    inner = (one for one in code.co_consts if isinstance(one, types.CodeType))
    return frozenset(code.co_names).union(*map(_names, inner))


@functools.lru_cache(1024)
def _looked_up(code: types.CodeType) -> frozenset[str]:
    """Return what code looks up in globals."""
    inner = (one for one in code.co_consts if isinstance(one, types.CodeType))
    here = (one.argval for one in dis.get_instructions(code) if one.opname in ("LOAD_GLOBAL", "LOAD_NAME"))
    return frozenset(here).union(*map(_looked_up, inner))


def _code(function: Any) -> str:
    """Return a hash of a function's code, wherever it stands in its file; nothing for what is no function."""
    code = getattr(getattr(function, "py_func", function), "__code__", None)
    return _hash_of(code) if isinstance(code, types.CodeType) else ""


@functools.lru_cache(4096)
def _hash_of(code: types.CodeType) -> str:
    consts = [_hash_of(one) if isinstance(one, types.CodeType) else _constant(one) for one in code.co_consts]
    counts = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags
    names = code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars
    caught = getattr(code, "co_exceptiontable", b"")
    return _sum(code.co_name, code.co_code.hex(), caught.hex(), repr(counts), repr(names), *consts)


def _constant(one: Any) -> str:
    """Return words for a constant of code; `repr` of a set has no order."""
    return repr(sorted(map(repr, one))) if isinstance(one, frozenset) else repr(one)
