"""The operations that Python writes in no form common to numbers, arrays and compiled code."""

from __future__ import annotations

import numpy as np
from numba.core import types

from nbflow.scalars._types import intrinsic, overload


@intrinsic
def _bitcast(typing_context, x):
    twins = ((types.float32, types.uint32), (types.float64, types.uint64))
    twin = dict(twins + tuple((integer, real) for real, integer in twins))[x]

    def emit(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(signature.return_type))

    return twin(x), emit


@intrinsic
def _select(typing_context, condition, a, b):
    joint = typing_context.unify_types(a, b)
    # An integer gives way to the float beside it, as in NumPy, instead of widening it.
    if isinstance(a, types.Integer) != isinstance(b, types.Integer):
        joint = b if isinstance(a, types.Integer) else a

    def emit(context, builder, signature, arguments):
        return builder.select(*arguments)

    return joint(types.boolean, joint, joint), emit


def _fuse(builder, a, b, c):
    return builder.fadd(builder.fmul(a, b, flags=("contract",)), c, flags=("contract",))


@intrinsic
def _multiply_add(typing_context, a, b, c):
    def emit(context, builder, signature, arguments):
        return _fuse(builder, *arguments)

    return a(a, a, a), emit


@intrinsic
def _horner(typing_context, x, coefficients):
    def emit(context, builder, signature, arguments):
        x, packed = arguments
        value = builder.extract_value(packed, coefficients.count - 1)
        for i in reversed(range(coefficients.count - 1)):
            value = _fuse(builder, value, x, builder.extract_value(packed, i))
        return value

    return x(x, coefficients), emit


def bits_of(x):
    """Return the bits of a float as an unsigned integer of its size."""
    return np.asarray(x).view({4: np.uint32, 8: np.uint64}[x.itemsize])[()]


def from_bits(bits):
    """Return the float with these bits."""
    return np.asarray(bits).view({4: np.float32, 8: np.float64}[bits.itemsize])[()]


def choose(condition, a, b):
    """Return a where the condition holds and b elsewhere; both are computed, so nothing branches."""
    return np.where(condition, a, b)[()]


def greatest_of(x):
    """Return the greatest finite number of x's type."""
    return np.finfo(np.result_type(x)).max


def fma(a, b, c):
    """Return a b + c, rounded once where the machine does that in one instruction, and twice elsewhere."""
    return a * b + c


def polynomial(x, coefficients):
    """Return coefficients[0] + coefficients[1] x + coefficients[2] x^2 + ..."""
    value = coefficients[-1]
    for coefficient in coefficients[-2::-1]:
        value = value * x + coefficient
    return value


def _constant(value):
    return lambda x: value


overload(bits_of)(lambda x: lambda x: _bitcast(x))
overload(from_bits)(lambda bits: lambda bits: _bitcast(bits))
overload(choose)(lambda condition, a, b: lambda condition, a, b: _select(condition, a, b))
overload(greatest_of)(lambda x: _constant(np.finfo(str(x)).max))
overload(fma)(lambda a, b, c: lambda a, b, c: _multiply_add(a, b, c))
overload(polynomial)(lambda x, coefficients: lambda x, coefficients: _horner(x, coefficients))
