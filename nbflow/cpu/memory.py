"""What kernels share: records and arrays behind addresses, and calls through addresses.

A kernel takes the address of a `Job` (see `nbflow.cpu.job`). These four functions are all that is needed to go from
there to arrays and to other kernels. With the JIT off each has a plain Python form that does the same with ctypes.
"""

from __future__ import annotations

import ctypes

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.extending import intrinsic, overload

from nbflow._compile import interpreted, part


def _bytes_at(address, size):
    return (ctypes.c_char * size).from_address(int(address))


def view(address, shape, dtype):
    """Return the C-ordered array of `shape` and `dtype` that starts at `address`."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if size == 0:
        return np.empty(shape, dtype)
    found = np.frombuffer(_bytes_at(address, size), dtype=dtype).reshape(shape)
    return found.view(np.recarray) if found.dtype.fields else found


def call(address, job, t):
    """Call the kernel at `address`, a function of a job and a step."""
    interpreted(int(address))(job, t)


def call_product(address, c, c_row, a, a_row, a_k, b, b_panel, b_k, rows, depth, columns, add):
    """Call the matrix product at `address` (see `nbflow.cpu.product`)."""
    interpreted(int(address))(c, c_row, a, a_row, a_k, b, b_panel, b_k, rows, depth, columns, add)


@intrinsic
def _as_pointer(typing_context, address, dtype):
    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(dtype.dtype)(address, dtype), generate


@overload(view, jit_options={"forceinline": True})
def _view(address, shape, dtype):
    return lambda address, shape, dtype: carray(_as_pointer(address, dtype), shape)


def _generate_call(context, builder, signature, arguments):
    word = ir.IntType(64)
    function = ir.FunctionType(ir.VoidType(), [word] * (len(arguments) - 1))
    builder.call(builder.inttoptr(arguments[0], function.as_pointer()), list(arguments[1:]))
    return context.get_dummy_value()


@intrinsic
def _call_job(typing_context, address, job, t):
    return types.void(types.intp, types.intp, types.intp), _generate_call


@intrinsic
def _call_product(typing_context, address, c, c_row, a, a_row, a_k, b, b_panel, b_k, rows, depth, columns, add):
    return types.void(*[types.intp] * 13), _generate_call


@overload(call, jit_options={"forceinline": True})
def _call(address, job, t):
    return lambda address, job, t: _call_job(address, job, t)


@overload(call_product, jit_options={"forceinline": True})
def _overload_product(address, c, c_row, a, a_row, a_k, b, b_panel, b_k, rows, depth, columns, add):
    def jitted(address, c, c_row, a, a_row, a_k, b, b_panel, b_k, rows, depth, columns, add):
        _call_product(address, c, c_row, a, a_row, a_k, b, b_panel, b_k, rows, depth, columns, add)

    return jitted


@part
def clear(address, count, dtype):
    """Set `count` numbers from `address` on to 0: less to compile than a slice assignment."""
    numbers = view(address, (count,), dtype)
    for i in range(count):
        numbers[i] = 0
