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
import os
import types
from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np
from llvmlite.binding import Linkage
from numba.core import config
from numba.core.ccallback import CFunc
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import CPUDispatcher
from numba.core.types import StringLiteral, intp, unliteral, void

from nbflow._disk_cache import DiskCache, can_keep
from nbflow._identity import identity

F = TypeVar("F", bound=Callable[..., Any])

# Never "nnan" or "ninf": LLVM could then drop tests for NaN and Inf, and a gradient that is not finite must be seen.
SAFE = frozenset({"nsz", "arcp", "contract", "afn", "reassoc"})
JIT = not config.DISABLE_JIT

# A fork waits until no other thread compiles: its child would have their lock, and nobody to open it.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=global_compiler_lock.acquire,
        after_in_parent=global_compiler_lock.release,
        after_in_child=global_compiler_lock.release,
    )

# Compiled for Sapphire Rapids on two cores of an EPYC (Zen 4), float32, in turns, an update without it takes 1.06, 1.05
# and 1.02 times as long of an LSTM at (T, B, N, H) = (50, 20, 6, 50), (200, 20, 6, 50) and (200, 64, 50, 200); of tanh
# no more than the noise. On an Emerald Rapids 1.03 to 1.06 were seen. Code for Zen 4 is the same with and without.
FULL_WIDTH = '"prefer-vector-width"="512"'


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


class _WideLibrary(JITCodeLibrary):
    """Machine code whose loops fill the widest vector registers that the target has.

    For most of Intel's processors with AVX-512 LLVM is tuned to half their width (`prefer-256-bit`), for the sake of
    code that seldom uses vectors. An attribute of our own functions says otherwise, and changes no other numba code;
    on targets without that tuning or without AVX-512 it changes nothing. It is the same for every target, so the cache
    needs no key of its own for it beside `fingerprint` (this file) and the target that numba's key names.
    """

    def add_ir_module(self, ir_module: Any) -> None:
        for function in ir_module.functions:
            # llvmlite's own `add` knows no attribute that has a value.
            set.add(function.attributes, FULL_WIDTH)
        super().add_ir_module(ir_module)


class _Library(_WideLibrary):
    """The machine code of a kernel or a loop, which keeps its parts to itself.

    numba lets every library export its copies of the parts, under names made of a count of what the process has
    compiled so far, and the first copy that a process meets serves all callers. Such a name means one part in a
    process that compiles and maybe another in the file that is loaded next to it; and where it means the same part,
    the copies were optimized in different places, so that a last bit would depend on which came first.
    """

    def _finalize_final_module(self) -> None:
        for function in self._final_module.functions:
            if function.linkage == Linkage.linkonce_odr and not function.is_declaration:
                function.linkage = Linkage.internal
        super()._finalize_final_module()


class _PieceLibrary(_WideLibrary):
    """The code of a unit or a part: what is linked into its callers, where all of it is optimized together."""

    _final_module: Any

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._finalized = True

    def get_llvm_str(self) -> str:
        """Return the code as LLVM leaves it where it stands alone, for whoever looks at what it may do."""
        with global_compiler_lock:
            self._ensure_finalized()
            kept = self._final_module
            self._final_module = kept.clone()
            try:
                super()._optimize_final_module()
                return str(super().get_llvm_str())
            finally:
                self._final_module = kept


class _Compiler(Compiler):
    """numba's compiler, but for the library that it puts the machine code in."""

    library: type[JITCodeLibrary] = _Library

    def compile_extra(self, function: Callable[..., Any]) -> Any:
        self.state.library = self.library(self.state.targetctx.codegen(), function.__qualname__)
        self.state.library.enable_object_caching()
        return super().compile_extra(function)


class _PieceCompiler(_Compiler):
    """The same for units and parts, without wrappers for callers from Python and from C."""

    library = _PieceLibrary

    def compile_extra(self, function: Callable[..., Any]) -> Any:
        flags = self.state.flags
        flags.no_compile = flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True
        found = super().compile_extra(function)
        # Callers look it up by what would be its entry point.
        found = found._replace(entry_point=found.library)
        found.target_context.insert_user_function(found.entry_point, found.fndesc, [found.library])
        return found


class _Piece(CPUDispatcher):
    """A unit or a part: compiled into what calls it, and only that, but that Python can call it too.

    Half of the time of a first gradient went into machine code of pieces that nobody called, and into wrappers that
    unpack Python's objects for them.
    """

    def __init__(
        self, py_func: Any, locals: Any = None, targetoptions: Any = None, pipeline_class: Any = _PieceCompiler
    ) -> None:
        super().__init__(py_func, locals, {"nopython": True, **(targetoptions or {})}, pipeline_class)

    def get_call_template(self, args: Any, kws: Any) -> Any:
        # One form for all numbers: numba would compile one for each literal that is passed.
        plain = [kind if isinstance(kind, StringLiteral) else unliteral(kind) for kind in args]
        return super().get_call_template(plain, kws)

    def add_overload(self, cres: Any) -> None:
        self.overloads[tuple(cres.signature.args)] = cres

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._for_python(*arguments, **named)

    @functools.cached_property
    def _for_python(self) -> Any:
        return CPUDispatcher(self.py_func, {}, self.targetoptions)


def _piece(function: Any, **options: Any) -> Any:
    return _Piece(function, None, {"error_model": "numpy", **options}) if JIT else function


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
    dispatcher = numba.njit(pipeline_class=_Compiler, error_model="numpy", nogil=True, **options)(function)
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
        compiled = CFunc(function, (signature.args, signature.return_type), {}, options, _Compiler)
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
