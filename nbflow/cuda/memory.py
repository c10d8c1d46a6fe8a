"""Between flat memory and numbers: tuples of numbers a stride apart, and reads without the check for negative indices.

numba lets -1 stand for the last entry and tests every index for it; in the innermost loops that would be most of the
instructions.
"""

from __future__ import annotations

import functools

from numba import extending

from nbflow._compile import unit


def fetch(array, i):
    """Return array[i], for i of at least 0."""
    return array[i]


@extending.intrinsic
def _fetch(typing_context, array, i):
    def emit(context, builder, signature, arguments):
        held = context.make_array(signature.args[0])(context, builder, arguments[0])
        return builder.load(builder.gep(held.data, [arguments[1]]))

    return array.dtype(array, i), emit


@extending.overload(fetch, jit_options={"forceinline": True, "fastmath": False})
def _compile_fetch(array, i):
    return lambda array, i: _fetch(array, i)


@unit
def _load_none(array, first, stride):
    return ()


@unit
def _store_none(array, first, stride, numbers):
    return


@functools.cache
def build_load(count):
    """Build `load(array, first, stride)`: the tuple `array[first], array[first + stride], ...`."""
    if count == 0:
        return _load_none
    last = count - 1
    before = build_load(last)

    @unit
    def load(array, first, stride):
        return (*before(array, first, stride), array[first + last * stride])

    return load


@functools.cache
def build_constants(count):
    """Build `constants(array, first, stride)`: what a call is given more by a cell with `count` settings.

    `*constants(...)` is one argument, the tuple of the settings of a unit, or none for a cell without settings.
    """
    if count == 0:
        return _load_none
    load = build_load(count)

    @unit
    def constants(array, first, stride):
        return (load(array, first, stride),)

    return constants


@functools.cache
def build_store(count):
    """Build `store(array, first, stride, numbers)`, the inverse of `load`."""
    if count == 0:
        return _store_none
    last = count - 1
    before = build_store(last)

    @unit
    def store(array, first, stride, numbers):
        before(array, first, stride, numbers)
        array[first + last * stride] = numbers[last]

    return store
