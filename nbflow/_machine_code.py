"""How numba makes machine code of kernels, loops and their pieces: libraries and compilers that do as here is said."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

from llvmlite.binding import Linkage
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import CPUDispatcher
from numba.core.types import StringLiteral, unliteral

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


class KernelCompiler(Compiler):
    """numba's compiler, but for the library that it puts the machine code in."""

    library: type[JITCodeLibrary] = _Library

    def compile_extra(self, function: Callable[..., Any]) -> Any:
        self.state.library = self.library(self.state.targetctx.codegen(), function.__qualname__)
        self.state.library.enable_object_caching()
        return super().compile_extra(function)


class _PieceCompiler(KernelCompiler):
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


class Piece(CPUDispatcher):
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
