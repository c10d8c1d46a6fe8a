"""Views of the arrays of a record, made from their declaration (`nbflow.cpu.record`).

    pre_at = at("pre")        pre_at(shard, t)      item t, an array (rows, gates, width)
    pre_rows = at("pre", 2)   pre_rows(shard, t)    the same numbers as (rows, gates * width)
    length_of = of("length")  length_of(shard)      the whole array
    pre_row = row("pre")      pre_row(shard, t, b)  item [t, b] as one row of numbers
    pre_place = place("pre")  pre_place(shard, t, b)  its address, for the matrix product

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
from nbflow.cpu.record import ARRAYS, replica_dtype, shard_dtype

WORD = ir.IntType(64)
PLAIN = python.SimpleNamespace(add=operator.add, mul=operator.mul, urem=operator.mod)


def of(name, axes=None):
    """Return `see(record)`: the whole array, of the declared shape or with its last axes merged to make `axes`."""
    return _build_view(name, 0, axes)


def at(name, axes=None):
    """Return `see(record, i)`: item i of the first axis; of a block, the array in copy i."""
    return _build_view(name, 1, axes)


def row(name):
    """Return `see(record, i, j)`: item [i, j] as one row of numbers."""
    return _build_view(name, 2, 1)


def place(name, indices=2):
    """Return `find(record, i, j)`: the address of item [i, j], or that of [i, j, k] for three indices."""
    return _build_view(name, indices, 0)


def _locate(name, number, size, indices, do):
    """Return the address of an item of an array, and the sizes of the item's own axes.

    `number` gives a field of the record or a constant, `do` adds, multiplies and takes remainders: on numbers of
    Python's, or on values of a function that LLVM compiles.
    """
    array = ARRAYS[name]
    skipped = len(indices) - bool(array.block)
    address, stride, sizes = number(name), number(size), []
    for k, axis in reversed(list(enumerate(array.axes))):
        if k < skipped:
            index = indices[k - skipped]
            index = do.urem(index, number(axis.size)) if axis.ring else index
            address = do.add(address, do.mul(index, stride))
        else:
            sizes.insert(0, do.add(number(axis.size), number(axis.more)))
        stride = do.mul(stride, do.add(number(axis.of), number(axis.more)))
    if array.block and indices:
        address = do.add(address, do.mul(indices[0], do.mul(number(f"{array.block}_size"), number(size))))
    return address, sizes


def _merged(sizes, axes, mul):
    """Return the sizes with the last axes merged, so that `axes` are left."""
    return sizes if axes is None else [*sizes[: axes - 1], functools.reduce(mul, sizes[axes - 1 :])]


@functools.cache
def _build_view(name, indices, axes):
    see = _build_compiled(name, axes) if JIT else _build_interpreted(name, axes)
    if not JIT:
        return see
    # An intrinsic tells its arguments by their names.
    if indices == 0:
        return intrinsic(lambda typing_context, record: see(record))
    if indices == 1:
        return intrinsic(lambda typing_context, record, i: see(record, i))
    if indices == 2:
        return intrinsic(lambda typing_context, record, i, j: see(record, i, j))
    return intrinsic(lambda typing_context, record, i, j, k: see(record, i, j, k))


def _build_compiled(name, axes):
    """Build what types and generates a view: of a record's type, and of as many indices as there are."""
    array = ARRAYS[name]
    count = len(array.axes) + bool(array.block)

    def see(record, *indices):
        number = record.typeof("alpha") if array.dtype is None else numba.from_dtype(np.dtype(array.dtype))
        size = numpy_support.as_dtype(number).itemsize
        shown = types.intp
        if axes != 0:
            shown = types.Array(number, count - len(indices) if axes is None else axes, "C")

        def generate(context, builder, signature, arguments):
            read = functools.partial(_read, builder, record, arguments[0])
            address, sizes = _locate(name, read, size, arguments[1:], builder)
            if axes == 0:
                return address
            sizes = _merged(sizes, axes, builder.mul)
            return _array(context, builder, shown, address, sizes, size)

        return shown(record, *[types.intp] * len(indices)), generate

    return see


def _read(builder, record, pointer, name):
    """Return a field of a record, or a constant."""
    if isinstance(name, int) or name.isdigit():
        return WORD(int(name))
    return builder.load(cgutils.get_record_member(builder, pointer, record.offset(name), WORD))


def _array(context, builder, kind, address, sizes, size):
    """Return the array of these sizes at an address, as `numba.carray` makes it."""
    array = context.make_array(kind)(context, builder)
    strides = [WORD(size)]
    for length in reversed(sizes[1:]):
        strides.insert(0, builder.mul(strides[0], length))
    data = builder.inttoptr(address, array.data.type)
    populate_array(array, data, sizes, strides, WORD(size), meminfo=None)
    return array._getvalue()


def _build_interpreted(name, axes):
    array = ARRAYS[name]

    def see(record, *indices):
        dtype = np.dtype(array.dtype or record.dtype["alpha"])

        def read(field):
            return int(field) if isinstance(field, int) or field.isdigit() else int(record[field])

        address, sizes = _locate(name, read, dtype.itemsize, [int(index) for index in indices], PLAIN)
        if axes == 0:
            return address
        check(address, math.prod(sizes) * dtype.itemsize, record, name)
        return array_at(address, tuple(_merged(sizes, axes, operator.mul)), dtype)

    return see


# ------------------------------------------------------------------------- records


def shards(dtype):
    """Return `shard_at(address)`, the record of a shard."""
    return _build_record_at(shard_dtype(dtype))


def replicas(dtype):
    """Return `replica_at(address)`, the record of a replica."""
    return _build_record_at(replica_dtype(dtype))


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


# ------------------------------------------------------------------------- the tape, when it slides

SLIDING = [name for name, array in ARRAYS.items() if array.slides]


def _build_slide():
    """Build `slide(shard, steps)`: move the tape by a number of steps, forward in time if positive.

    What moves are the addresses, so that step t is found where every phase looks for it.
    """
    if not JIT:

        def moved(shard, steps):
            for name in SLIDING:
                first, second = (place(name)(shard, i, 0) for i in (0, int(steps)))
                shard[name] -= second - first

        return moved

    @intrinsic
    def slide(typing_context, shard, steps):
        def generate(context, builder, signature, arguments):
            pointer, distance = arguments
            read = functools.partial(_read, builder, shard, pointer)
            size = numpy_support.as_dtype(shard.typeof("alpha")).itemsize
            for name in SLIDING:
                address, _ = _locate(name, read, size, [builder.neg(distance)], builder)
                builder.store(address, cgutils.get_record_member(builder, pointer, shard.offset(name), WORD))
            return context.get_dummy_value()

        return types.void(shard, types.intp), generate

    return slide


slide = _build_slide()
