"""What kernels share: arrays behind addresses, and calls through addresses.

With the JIT off each has a plain Python form that does the same with ctypes. A kernel then also learns where it looks
too far: while a workspace runs (`watched`), every array must lie within one that the workspace or the caller allocated.
"""

from __future__ import annotations

import contextlib
import ctypes

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from nbflow._compile import JIT, interpreted, part

# The first byte of each array, or of its copies, and the byte behind the last, by address of a record and name.
_WATCHED: dict = {}


@contextlib.contextmanager
def watched(bounds):
    """Check all views against these bounds, as in `_WATCHED`."""
    _WATCHED.update(bounds)
    try:
        yield
    finally:
        _WATCHED.clear()


def check(address, size, record=None, name=None):
    """Refuse to show bytes beyond the array of this name, or without one, beyond any array."""
    if not _WATCHED or size == 0:
        return
    if record is None:
        # Not within the whole of a block, but within one of its arrays.
        bounds = [pair for (_, field), pairs in _WATCHED.items() if field != "partial" for pair in pairs]
        name = "no array in particular"
    else:
        bounds = _WATCHED[record.__array_interface__["data"][0], name]
    if not any(first <= address and address + size <= end for first, end in bounds):
        first, end = bounds[0]
        raise IndexError(
            f"a view of {name} shows bytes {address - first} to {address - first + size}; expected 0 to {end - first}. "
            f"See the shapes in nbflow.cpu.record."
        )


def array_at(address, shape, dtype):
    """Return the C-ordered array of `shape` and `dtype` that starts at `address`, whatever lies there."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if size == 0:
        return np.empty(shape, dtype)
    found = np.frombuffer((ctypes.c_char * size).from_address(int(address)), dtype=dtype).reshape(shape)
    return found.view(np.recarray) if found.dtype.fields else found


def view(address, shape, dtype):
    """Return the C-ordered array of `shape` and `dtype` that starts at `address`, with the JIT off."""
    check(int(address), int(np.prod(shape)) * np.dtype(dtype).itemsize)
    return array_at(address, shape, dtype)


def _address_of(array):
    return array.ctypes.data


def _call(address, record, t):
    interpreted(int(address))(record, t)


def _call_product(address, c, c_row, a, a_row, a_k, b, b_panel, b_k, rows, depth, columns, add):
    interpreted(int(address))(c, c_row, a, a_row, a_k, b, b_panel, b_k, rows, depth, columns, add)


def _typed_address_of(typing_context, array):
    def generate(context, builder, signature, arguments):
        return builder.ptrtoint(context.make_array(array)(context, builder, arguments[0]).data, ir.IntType(64))

    return types.intp(array), generate


def _generate_call(context, builder, signature, arguments):
    word = ir.IntType(64)
    function = ir.FunctionType(ir.VoidType(), [word] * (len(arguments) - 1))
    builder.call(builder.inttoptr(arguments[0], function.as_pointer()), list(arguments[1:]))
    return context.get_dummy_value()


def _typed_call(typing_context, address, record, t):
    return types.void(types.intp, types.intp, types.intp), _generate_call


def _typed_product(typing_context, address, c, c_row, a, a_row, a_k, b, b_panel, b_k, rows, depth, columns, add):
    return types.void(*[types.intp] * 13), _generate_call


# address_of(array): where an array starts.
address_of = intrinsic(_typed_address_of) if JIT else _address_of
# call(address, record, t): call the kernel at `address`, a function of the address of a record and a step.
call = intrinsic(_typed_call) if JIT else _call
# call_product(address, c, ...): call the matrix product at `address` (see `nbflow.cpu.product`).
call_product = intrinsic(_typed_product) if JIT else _call_product


@part
def clear(numbers):
    """Set a row of numbers to 0: less to compile than a slice assignment."""
    for i in range(numbers.size):
        numbers[i] = 0
