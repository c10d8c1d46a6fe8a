"""What numba compiles for: the processor, unless NUMBA_CPU_NAME and NUMBA_CPU_FEATURES name another."""

import functools
import platform

import numba
from llvmlite.binding import llvm_version_info
from numba.core.registry import cpu_target

from nbflow._compile import JIT
from nbflow.cpu.product import vector_bytes


def compiled_for():
    """Return what the bits of compiled code depend on beside its source: processor, vectors, releases."""
    cpu = cpu_target.target_context.codegen().magic_tuple()[1]
    version = ".".join(map(str, llvm_version_info))
    return f"{cpu} with vectors of {vector_bytes()} bytes by numba {numba.__version__} and LLVM {version}"


def registers():
    """Return how assembly names the widest vector registers of the target; None without the JIT, AVX, or x86."""
    there = JIT and platform.machine().lower() in ("x86_64", "amd64")
    return {64: "zmm", 32: "ymm"}.get(vector_bytes()) if there else None


@functools.cache
def fuses():
    """Tell whether the target multiplies and adds in one instruction."""
    kind = numba.float64

    @numba.njit(kind(kind, kind, kind), fastmath={"contract"})
    def add(a, b, c):
        return a * b + c

    [code] = add.inspect_asm().values()
    return "vfmadd" in code


def fast():
    """Tell whether vectors of the target are those that the kernels are written for: AVX2 or AVX-512."""
    return registers() is not None and fuses()
