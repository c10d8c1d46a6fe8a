"""Views of the arrays of a record, made from their declaration (`nbflow.cpu.record`).

    whole(shard, "length")         all of an array, in its declared shape; flat(...) as one row of numbers
    at(shard, "pre", t)            item t of its first axis, (rows, gates, width); of a block, the array in a copy
    rows_at(shard, "pre", t)       the same numbers as (rows, gates * width); flat_at(...) as one row
    row(shard, "pre", t, b)        item [t, b] as one row
    place(shard, "pre", t, b)      its address, for the matrix product

They compile to what one would write by hand: loads of sizes, multiplications, an addition. With the JIT off each looks
whether what it shows lies within the array of its name (`nbflow.cpu.memory.watched`).
"""

from __future__ import annotations

import functools
import math
import operator
import types as python

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np import numpy_support
from numba.np.arrayobj import populate_array

from nbflow._compile import JIT
from nbflow.cpu.memory import array_at, check
from nbflow.cpu.record import ARRAYS, dtype_of, replica_dtype, shard_dtype

WORD = ir.IntType(64)
PLAIN = python.SimpleNamespace(add=operator.add, mul=operator.mul, urem=operator.mod)


def _locate(name, size, indices, read, do):
    """Return the address of an item of an array of numbers of `size` bytes, and the sizes of the item's own axes.

    `read` gives a field of the record or a constant, `do` adds, multiplies and takes remainders: of Python's numbers,
    or of values in a function that LLVM compiles.
    """
    array = ARRAYS[name]
    skipped = len(indices) - bool(array.block)
    address, stride, sizes = read(name), read(size), []
    for k, axis in reversed(list(enumerate(array.axes))):
        if k < skipped:
            index = indices[k - skipped]
            index = do.urem(index, read(axis.size)) if axis.ring else index
            address = do.add(address, do.mul(index, stride))
        else:
            sizes.insert(0, do.add(read(axis.size), read(axis.more)))
        stride = do.mul(stride, do.add(read(axis.of), read(axis.more)))
    if array.block:
        address = do.add(address, do.mul(indices[0], do.mul(read(f"{array.block}_size"), read(size))))
    return address, sizes


def _merged(sizes, axes, mul):
    """Return the sizes with the last ones merged, so that `axes` are left; None leaves all."""
    return sizes if axes is None else [*sizes[: axes - 1], functools.reduce(mul, sizes[axes - 1 :])]


def _show(axes, record, name, *indices):
    """Return a view, or for 0 axes an address: the interpreted form."""
    dtype = np.dtype(dtype_of(name, record.dtype["alpha"]))

    def read(field):
        return int(record[field]) if field in record.dtype.fields else int(field)

    address, sizes = _locate(name, dtype.itemsize, [int(index) for index in indices], read, PLAIN)
    if axes == 0:
        return address
    check(address, math.prod(sizes) * dtype.itemsize, record, name)
    return array_at(address, tuple(_merged(sizes, axes, operator.mul)), dtype)


def _reader(builder, record, pointer):
    """Return `read(field)`, which loads a field of a record, or makes a constant."""

    def read(field):
        if field not in record.fields:
            return WORD(int(field))
        return builder.load(cgutils.get_record_member(builder, pointer, record.offset(field), WORD))

    return read


def _array(context, builder, kind, address, sizes, size):
    """Return the array of these sizes at an address, as `numba.carray` makes it."""
    array, strides = context.make_array(kind)(context, builder), [WORD(size)]
    for length in reversed(sizes[1:]):
        strides.insert(0, builder.mul(strides[0], length))
    data = builder.inttoptr(address, array.data.type)
    populate_array(array, data, sizes, strides, WORD(size), meminfo=None)
    return array._getvalue()


def _typed(axes, record, name, *indices):
    """Return the signature of a view and what generates its code."""
    if not isinstance(name, types.StringLiteral):  # numba asks for the literal first
        return None
    name_of, array = name.literal_value, ARRAYS[name.literal_value]
    dtype = np.dtype(dtype_of(name_of, numpy_support.as_dtype(record.typeof("alpha"))))
    ndim = len(array.axes) + bool(array.block) - len(indices) if axes is None else axes
    shown = types.intp if axes == 0 else types.Array(numba.from_dtype(dtype), ndim, "C")

    def generate(context, builder, signature, arguments):
        pointer, _, *given = arguments
        address, sizes = _locate(name_of, dtype.itemsize, given, _reader(builder, record, pointer), builder)
        if axes == 0:
            return address
        return _array(context, builder, shown, address, _merged(sizes, axes, builder.mul), dtype.itemsize)

    return shown(record, name, *[types.intp] * len(indices)), generate


def _build_view(axes, indices):
    """Build a view of the item with so many indices, with the last of its axes merged so that `axes` are left."""
    if not JIT:
        return functools.partial(_show, axes)
    forms = (
        lambda typing_context, record, name: _typed(axes, record, name),
        lambda typing_context, record, name, i: _typed(axes, record, name, i),
        lambda typing_context, record, name, i, j: _typed(axes, record, name, i, j),
    )
    return intrinsic(prefer_literal=True)(forms[indices])


whole, flat = _build_view(None, 0), _build_view(1, 0)
at, rows_at, flat_at = _build_view(None, 1), _build_view(2, 1), _build_view(1, 1)
row, place = _build_view(1, 2), _build_view(0, 2)


def _row_of(record, address, count):
    dtype = record.dtype["alpha"]
    check(int(address), int(count) * dtype.itemsize)
    return array_at(address, (int(count),), dtype)


def _typed_row_of(typing_context, record, address, count):
    number = record.typeof("alpha")
    shown, size = types.Array(number, 1, "C"), numpy_support.as_dtype(number).itemsize

    def generate(context, builder, signature, arguments):
        return _array(context, builder, shown, arguments[1], [arguments[2]], size)

    return shown(record, types.intp, types.intp), generate


# row_of(record, address, count): so many numbers of the network's dtype at an address.
row_of = intrinsic(_typed_row_of) if JIT else _row_of


@functools.cache
def _build_record_at(dtype):
    if not JIT:
        return lambda address: array_at(address, (1,), dtype)[0]
    kind = numba.from_dtype(dtype)

    @intrinsic
    def record_at(typing_context, address):
        def generate(context, builder, signature, arguments):
            return builder.inttoptr(arguments[0], context.get_value_type(kind))

        return kind(types.intp), generate

    return record_at


def shards(dtype):
    """Return `shard_at(address)`, the record of a shard."""
    return _build_record_at(shard_dtype(dtype))


def replicas(dtype):
    """Return `replica_at(address)`, the record of a replica."""
    return _build_record_at(replica_dtype(dtype))


# What moves where a part of the tape is computed anew: the arrays that hold some steps.
SLIDING = [name for name, array in ARRAYS.items() if array.axes[0].size == "held"]


def _slide(shard, steps):
    for name in SLIDING:
        shard[name] -= place(shard, name, steps, 0) - place(shard, name, 0, 0)


def _typed_slide(typing_context, shard, steps):
    def generate(context, builder, signature, arguments):
        pointer, distance = arguments
        read, size = _reader(builder, shard, pointer), numpy_support.as_dtype(shard.typeof("alpha")).itemsize
        for name in SLIDING:
            address, _ = _locate(name, size, [builder.neg(distance)], read, builder)
            builder.store(address, cgutils.get_record_member(builder, pointer, shard.offset(name), WORD))
        return context.get_dummy_value()

    return types.void(shard, types.intp), generate


# slide(shard, steps): move the tape by a number of steps, forward in time if positive. What moves are the addresses, so
# that step t is found where every phase looks for it.
slide = intrinsic(_typed_slide) if JIT else _slide
