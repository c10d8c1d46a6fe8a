"""The one compile policy: how units, kernels and loops are compiled, and how their machine code is kept on disk.

Three kinds of compiled functions:

- a *unit* is a pure function of numbers, inlined into whatever calls it;
- a *kernel* is reached by its address and takes integers only (addresses and sizes), so that a loop which calls a
  kernel is compiled once, whichever cell, loss or penalty stands behind the address;
- a *loop* takes arrays and is called from Python; a *part* is a piece of a kernel or a loop.

What is compiled is kept on disk under a sound key (`_disk_cache.py`): numba's key sees neither an edited helper in
another file nor the unit that a factory has bound. Ours adds a hash of every source file of nbflow, and of all that a
function reaches, a user's units too.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np
from numba.core import config
from numba.core.ccallback import CFunc
from numba.core.types import intp, void

from nbflow._disk_cache import DiskCache, can_keep
from nbflow._identity import identity
from nbflow._machine_code import KernelCompiler, Piece

F = TypeVar("F", bound=Callable[..., Any])

# Never "nnan" or "ninf": LLVM could then drop tests for NaN and Inf, and a gradient that is not finite must be seen.
SAFE = frozenset({"nsz", "arcp", "contract", "afn", "reassoc"})
JIT = not config.DISABLE_JIT


class _CpuFlags(dict[str, bool]):
    """Flags for the CPU alone: numba-cuda takes whatever is true for leave to divide and to exponentiate roughly."""

    def __bool__(self) -> bool:
        return False


ON_CPU = _CpuFlags.fromkeys(SAFE, True)

# Exact in float32, so `ONE / (ONE + x)` keeps the dtype of x where `1 / (1 + x)` makes float64 of a float32.
ZERO = np.float32(0.0)
ONE = np.float32(1.0)
HALF = np.float32(0.5)
TWO = np.float32(2.0)


def _piece(function: Any, **options: Any) -> Any:
    return Piece(function, None, {"error_model": "numpy", **options}) if JIT else function


def unit(function: F) -> F:
    """Compile a pure function of numbers, inlined into whatever loop or grid calls it.

    What a cell, a loss, a penalty or a rule is made of, nbflow's own and a user's. A unit takes numbers and tuples of
    numbers and returns such: no arrays, no memory, no exceptions. It may call other units and `nbflow.scalars`, whose
    functions of float32 are float32; so are its constants `ZERO`, `ONE`, `HALF` and `TWO`, where a literal `1.0` makes
    float64 of all that it touches. Sums and products may be regrouped; `exact_unit` keeps their order.

    Parameters
    ----------
    function : function of numbers

    Returns
    -------
    unit
        To be called like the function, also with NumPy's and complex numbers.

    Examples
    --------
    >>> import nbflow as nf
    >>> from nbflow.scalars import HALF
    >>> @nf.unit
    ... def leaky(a, h):
    ...     return HALF * h + HALF * nf.scalars.tanh(a)
    >>> leaky(0.0, 1.0)
    0.5
    """
    return _first_seen(_piece(function, forceinline=True, fastmath=ON_CPU))


def exact_unit(function: F) -> F:
    """Compile a unit whose operations stay in the order written, as range reductions and finiteness tests need.

    Parameters
    ----------
    function : function of numbers

    Returns
    -------
    unit
        As `unit` returns it.

    Examples
    --------
    >>> import nbflow as nf
    >>> @nf.exact_unit
    ... def rounded(x):
    ...     return (x + 2.0**52) - 2.0**52
    >>> rounded(2.7)
    3.0
    """
    return _first_seen(_piece(function, forceinline=True, fastmath=False))


def _first_seen(made: F) -> F:
    """Look at a unit of a user's before it can be compiled: see `_identity.py`."""
    if JIT and not made.__module__.startswith("nbflow."):
        identity(made)
    return made


@functools.cache
def exactly(thing: Any) -> Any:
    """Return a unit as `exact_unit` compiles it, with all units that it calls; itself where it is so.

    For formulas that must stay as written whoever wrote them. Flags belong to the function that they were compiled
    with: neither the loop nor a unit that calls another one can take them back. So what is not exact is compiled anew.
    A plain `numba.njit` is not: it takes the flags of whatever happens to call it first.
    """
    return _exactly(thing, (), exact_unit)


@functools.cache
def bounded(thing: Any) -> Any:
    """Return a unit as `exactly` does, for a unit that is given arrays: a user's raises where it looks beyond one.

    nbflow's own is believed. The loop that calls it may be no kernel, which could not pass an exception on.
    """
    function = getattr(thing, "py_func", None)
    if function is None or function.__module__.startswith("nbflow."):
        return exactly(thing)
    return _exactly(thing, (), _bounded_unit)


def _bounded_unit(function: F) -> F:
    return numba.njit(error_model="numpy", forceinline=True, fastmath=False, boundscheck=True)(function)


def _exactly(thing: Any, callers: tuple[Any, ...], compiled: Callable[[Any], Any]) -> Any:
    function = getattr(thing, "py_func", None)
    if function is None or thing in callers:
        return thing
    seen = inspect.getclosurevars(function)
    used, names, callers = {**seen.globals, **seen.nonlocals}, function.__code__.co_names, (*callers, thing)
    anew = {name: _exact_helper(value, names, callers, compiled) for name, value in used.items()}
    same = all(anew[name] is value for name, value in used.items())
    if same and compiled is exact_unit and thing.targetoptions.get("fastmath") is False:
        return thing
    cells = tuple(types.CellType(anew[name]) for name in function.__code__.co_freevars)
    again = types.FunctionType(
        function.__code__, {**function.__globals__, **anew}, function.__name__, function.__defaults__, cells
    )
    again.__qualname__, again.__kwdefaults__ = function.__qualname__, function.__kwdefaults__
    return compiled(again)


def _exact_helper(thing: Any, names: tuple[str, ...], callers: tuple[Any, ...], compiled: Callable[[Any], Any]) -> Any:
    """Return what a unit finds under a name: exact if it is a unit, and if a module, with exact units in it."""
    if not isinstance(thing, types.ModuleType):
        return _exactly(thing, callers, compiled)
    held = {name: getattr(thing, name) for name in names if hasattr(thing, name)}
    anew = {name: _exactly(value, callers, compiled) for name, value in held.items()}
    if all(anew[name] is value for name, value in held.items()):
        return thing
    module = types.ModuleType(thing.__name__)
    module.__dict__.update({**vars(thing), **anew})
    return module


def part(function: F) -> F:
    """Compile a piece of a kernel, together with the kernel that calls it."""
    return _piece(function, fastmath=ON_CPU)


def exact_part(function: F) -> F:
    """Compile a piece of a kernel whose operations stay as written: a test for NaN and Inf."""
    return _piece(function, fastmath=False)


def loop(*bound: Any, parallel: bool = False) -> Callable[[F], F]:
    """Compile a function of arrays that Python calls; `bound` are the units and dtypes that its closure holds."""
    return lambda function: _compiled_loop(function, bound, {"fastmath": set(SAFE), "parallel": parallel})


def exact_loop(*bound: Any) -> Callable[[F], F]:
    """Compile a loop whose operations stay as written; so do those of units that say so, and those of no other."""
    return lambda function: _compiled_loop(function, bound, {"fastmath": False, "parallel": False})


def _compiled_loop(function: F, bound: tuple[Any, ...], options: dict[str, Any]) -> F:
    dispatcher = numba.njit(pipeline_class=KernelCompiler, error_model="numpy", nogil=True, **options)(function)
    if JIT:
        _keep_on_disk(dispatcher, function, bound, options)
    return dispatcher


class Kernel:
    """A compiled function of integers, known to other kernels by its `address`."""

    def __init__(self, function: Callable[..., None], bound: tuple[Any, ...]) -> None:
        if not JIT:
            self.address = len(_INTERPRETED) + 1
            _INTERPRETED[self.address] = function
            return
        options = {"error_model": "numpy", "nogil": True, "fastmath": set(SAFE)}
        signature = void(*[intp] * len(inspect.signature(function).parameters))
        compiled = CFunc(function, (signature.args, signature.return_type), {}, options, KernelCompiler)
        _keep_on_disk(compiled, function, bound, options)
        compiled.compile()
        self._compiled = compiled  # the machine code lives as long as this object does
        self.address = int(compiled.address)

    @property
    def llvm(self) -> str:
        """The LLVM code, for tests that look at its arithmetic."""
        return str(self._compiled.inspect_llvm())

    @property
    def assembly(self) -> str:
        """The machine code as text, for tests that look for vector instructions."""
        return str(self._compiled._library.get_asm_str())


# With the JIT off an address is a key of this table.
_INTERPRETED: dict[int, Callable[..., None]] = {}


def kernel(*bound: Any) -> Callable[[Callable[..., None]], Kernel]:
    """Compile a function of integers to a `Kernel`; `bound` are the units and dtypes that its closure holds."""
    return lambda function: Kernel(function, bound)


def interpreted(address: int) -> Callable[..., None]:
    """Return the Python function behind a kernel's address (JIT off only)."""
    return _INTERPRETED[address]


def _keep_on_disk(compiled: Any, function: Callable[..., Any], bound: tuple[Any, ...], options: dict[str, Any]) -> None:
    if can_keep():
        compiled._cache = DiskCache(function, bound, options)
