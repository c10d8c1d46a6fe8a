"""Subnormal numbers count as 0 while a shard computes.

Where gradients vanish, deltas pass through the numbers below 1.2e-38 (float32) or 2.2e-308 (float64), with which many
processors compute up to a hundred times slower than with others. A gradient does not show them: they are 0 in it. What
is asked about them, `nbflow.trace` and long Jacobians, is computed without this. The control word belongs to the
thread, so it is set where a shard begins and put back where it ends, and no other code of the process sees it.
"""

from __future__ import annotations

import platform

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from nbflow._compile import JIT

# What a processor calls it: "flush to zero" (of results) and "denormals are zero" (of operands) are bits 15 and 6 of
# MXCSR; FZ, bit 24 of FPCR, is both. Elsewhere there is nothing to set.
BITS = {"x86_64": 0x8040, "AMD64": 0x8040, "aarch64": 1 << 24, "arm64": 1 << 24}.get(platform.machine(), 0)
IS_X86 = platform.machine() in ("x86_64", "AMD64")

WORD = ir.IntType(64)


def _call(builder, name, result, arguments):
    function = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, function, name), arguments)


def _mxcsr(builder, name, word=None):
    """Read or write MXCSR, for which x86 wants a place in memory."""
    place = cgutils.alloca_once(builder, ir.IntType(32))
    if word is not None:
        builder.store(builder.trunc(word, ir.IntType(32)), place)
    _call(builder, name, ir.VoidType(), [builder.bitcast(place, ir.IntType(8).as_pointer())])
    return builder.zext(builder.load(place), WORD)


def _read(builder):
    if IS_X86:
        return _mxcsr(builder, "llvm.x86.sse.stmxcsr")
    return _call(builder, "llvm.aarch64.get.fpcr", WORD, []) if BITS else WORD(0)


def _write(builder, word):
    if IS_X86:
        _mxcsr(builder, "llvm.x86.sse.ldmxcsr", word)
    elif BITS:
        _call(builder, "llvm.aarch64.set.fpcr", ir.VoidType(), [word])


def _typed_flush(typing_context):
    def generate(context, builder, signature, arguments):
        word = _read(builder)
        _write(builder, builder.or_(word, WORD(BITS)))
        return word

    return types.int64(), generate


def _typed_restore(typing_context, word):
    def generate(context, builder, signature, arguments):
        _write(builder, arguments[0])
        return context.get_dummy_value()

    return types.void(types.int64), generate


# flush(): let this thread take subnormal numbers for 0, and return what `restore` wants. With the JIT off, nothing.
flush = intrinsic(_typed_flush) if JIT else lambda: 0
# restore(word): let this thread compute as before `flush`.
restore = intrinsic(_typed_restore) if JIT else lambda word: None
