"""Branch-free elementary functions of one number, each under one name for every kind of number.

Called from compiled code, `exp`, `tanh` and the others are compiled for the type of their argument and inlined, and a
loop over them vectorises. Called from Python they take NumPy scalars and whole arrays and follow the same formulas.

======================  ==========================================================================
argument                what is computed
======================  ==========================================================================
float32                 float32 arithmetic alone; float32 comes back
float64                 float64 arithmetic; float64 comes back
complex                 the analytic continuation, so that a complex step passes through;
                        comparisons (`relu`, `larger`) look at the real part
int, bool               as float64
array (Python only)     element by element, in the array's dtype
======================  ==========================================================================

NaN passes through all of them. Bounds are in ulp, units in the last place of the exact result; the tests hold every
function to its bound, with fused multiply-adds (compiled) and without (Python).
"""

from __future__ import annotations

import cmath
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numba import extending
from numba.core import types

from nbflow._compile import HALF as HALF, ONE as ONE, TWO as TWO, ZERO as ZERO

X = TypeVar("X")

# No fastmath, and said so lest the caller's be inherited: reassociation would undo the splitting of ln 2 in two parts
# and turn (x + magic) - magic into x, and numba-cuda takes any set of flags as leave to divide approximately.
# `_fma` says what may be fused.
_OPTIONS: Any = {"error_model": "numpy", "forceinline": True, "fastmath": False}
_formula: Any = extending.register_jitable(**_OPTIONS)
_overload: Any = functools.partial(extending.overload, jit_options=_OPTIONS, strict=False)
_intrinsic: Any = extending.intrinsic


# How a formula is bound to a type.


class _Formulas(NamedTuple):
    """The formula to follow for each kind of number."""

    float32: Callable[[Any], Any]
    float64: Callable[[Any], Any]
    complex: Callable[[Any], Any]


class _Scalar(Protocol):
    """A function from any kind of number to the same kind."""

    def __call__(self, x: X, /) -> X: ...


def _by_type(formulas: _Formulas) -> Callable[[Callable[[Any], Any]], _Scalar]:
    """Give a documented, empty function its formulas: in Python by the dtype, in compiled code by numba's type."""

    def decorate(stub: Callable[[Any], Any]) -> _Scalar:
        @functools.wraps(stub)
        def scalar(x: Any) -> Any:
            return _interpret(formulas, x)

        @_overload(scalar)
        def _compile(x: types.Type) -> Callable[[Any], Any] | None:
            if isinstance(x, (types.Integer, types.Boolean)):
                return lambda x: scalar(np.float64(x))
            if isinstance(x, types.Complex):
                return formulas.complex
            return {types.float32: formulas.float32, types.float64: formulas.float64}.get(x)

        return scalar

    return decorate


def _interpret(formulas: _Formulas, x: Any) -> Any:
    """Follow the formula for x in NumPy arithmetic, in silence where a number overflows."""
    dtype = np.result_type(x)
    if dtype.kind in "biu":
        dtype = np.dtype(np.float64)
    if dtype.char not in "fdFD":
        raise TypeError(f"x has dtype {dtype}; expected float32, float64, complex64 or complex128. Cast x.")
    formula = {"f": formulas.float32, "d": formulas.float64}.get(dtype.char, formulas.complex)
    # As a NumPy number: a Python float would give way to the float32 constants.
    with np.errstate(all="ignore"):
        y = formula(np.asarray(x, dtype)[()])
    return y.item() if type(x) in (bool, int, float, complex) else y


def _one_formula(formula: Callable[[Any], Any]) -> _Formulas:
    return _Formulas(formula, formula, formula)


# The operations that Python writes in no form common to numbers, arrays and compiled code.


@_intrinsic
def _bitcast(typing_context, x):
    twins = ((types.float32, types.uint32), (types.float64, types.uint64))
    twin = dict(twins + tuple((integer, real) for real, integer in twins))[x]

    def emit(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(signature.return_type))

    return twin(x), emit


@_intrinsic
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


@_intrinsic
def _multiply_add(typing_context, a, b, c):
    def emit(context, builder, signature, arguments):
        return _fuse(builder, *arguments)

    return a(a, a, a), emit


@_intrinsic
def _horner(typing_context, x, coefficients):
    def emit(context, builder, signature, arguments):
        x, packed = arguments
        value = builder.extract_value(packed, coefficients.count - 1)
        for i in reversed(range(coefficients.count - 1)):
            value = _fuse(builder, value, x, builder.extract_value(packed, i))
        return value

    return x(x, coefficients), emit


def _bits(x):
    """Return the bits of a float as an unsigned integer of its size."""
    return np.asarray(x).view({4: np.uint32, 8: np.uint64}[x.itemsize])[()]


def _from_bits(bits):
    """Return the float with these bits."""
    return np.asarray(bits).view({4: np.float32, 8: np.float64}[bits.itemsize])[()]


def _choose(condition, a, b):
    """Return a where the condition holds and b elsewhere; both are computed, so nothing branches."""
    return np.where(condition, a, b)[()]


def _greatest(x):
    """Return the greatest finite number of x's type."""
    return np.finfo(np.result_type(x)).max


def _fma(a, b, c):
    """Return a b + c, rounded once where the machine does that in one instruction, and twice elsewhere."""
    return a * b + c


def _polynomial(x, coefficients):
    """Return coefficients[0] + coefficients[1] x + coefficients[2] x^2 + ..."""
    value = coefficients[-1]
    for coefficient in coefficients[-2::-1]:
        value = value * x + coefficient
    return value


def _constant(value):
    return lambda x: value


_overload(_bits)(lambda x: lambda x: _bitcast(x))
_overload(_from_bits)(lambda bits: lambda bits: _bitcast(bits))
_overload(_choose)(lambda condition, a, b: lambda condition, a, b: _select(condition, a, b))
_overload(_greatest)(lambda x: _constant(np.finfo(str(x)).max))
_overload(_fma)(lambda a, b, c: lambda a, b, c: _multiply_add(a, b, c))
_overload(_polynomial)(lambda x, coefficients: lambda x, coefficients: _horner(x, coefficients))


# The formulas, written once for both sizes of float.


class _Format(NamedTuple):
    """What the formulas need to know of a floating-point format."""

    real: Any
    word: Any  # the unsigned integer of its size
    digits: int  # stored bits of the significand
    bias: int  # of the exponent
    ln2: tuple[str, str]  # ln 2 in two parts, the first so short that its product with any n is exact
    exp_range: tuple[float, float]  # beyond it exp rounds to 0 or inf
    tanh_range: float  # beyond it tanh rounds to 1
    exp: tuple[float, ...]
    log1p: tuple[float, ...]


# `exp`: p in exp(r) = 1 + r + r^2 p(r), |r| <= ln(2)/2; `log1p`: p in 2 artanh(s) = 2 s + s^3 p(s^2), 0 <= s <= 1/3.
# Both minimax (Remez), for the relative error of the whole:
# 2^-28.2 and 2^-27.7 in float32, 2^-57.9 and 2^-59.2 in float64.
_FLOAT32 = _Format(
    real=np.float32,
    word=np.uint32,
    digits=23,
    bias=127,
    ln2=("0x1.62e4p-1", "0x1.7f7d1cf79abcap-20"),
    exp_range=(-105.0, 89.0),
    tanh_range=10.0,
    exp=(0.4999999344856407, 0.1666652063011753, 0.04166838787998279, 0.008368717031295200, 0.001381460727433814),
    log1p=(0.6666641617383546, 0.4002153449954816, 0.2800167483423023, 0.2801268130431795),
)
_FLOAT64 = _Format(
    real=np.float64,
    word=np.uint64,
    digits=52,
    bias=1023,
    ln2=("0x1.62e42feep-1", "0x1.a39ef35793c76p-33"),
    exp_range=(-747.0, 710.0),
    tanh_range=20.0,
    exp=(
        0.5000000000000010627145,
        0.166666666666664125185,
        0.04166666666653015838254,
        0.008333333333494464708197,
        0.001388888894363018717285,
        0.0001984126950657162801949,
        0.00002480149309881643531771,
        0.00000275575863805104248624,
        2.763024841405356026429e-7,
        2.500005939079102249507e-8,
    ),
    log1p=(
        0.66666666666666519219,
        0.40000000000097349691,
        0.2857142855409330684,
        0.2222222363560750497,
        0.18181754352055877518,
        0.15386359406593558899,
        0.1330338317976835343,
        0.12088454368531871067,
        0.084119664478106387622,
        0.16893475444267914674,
    ),
)


def _formulas_for(kind: _Format) -> tuple[Callable[[Any], Any], ...]:
    """Return exp, tanh and log1p for one floating-point format."""
    real, word = kind.real, kind.word
    log2e = real(1.4426950408889634)
    ln2_high, ln2_low = (real(float.fromhex(part)) for part in kind.ln2)
    lowest, highest = map(real, kind.exp_range)
    saturated = real(kind.tanh_range)
    exp_p, log1p_p = tuple(map(real, kind.exp)), tuple(map(real, kind.log1p))
    # A sum with 1.5 * 2^digits is an integer, and has that integer in its low bits.
    magic = real(1.5 * 2.0**kind.digits)
    bias, one, digits = word(kind.bias), word(1), word(kind.digits)
    sign = word(1 << (8 * word().itemsize - 1))
    size_bits = ~sign
    origin = word(int(_bits(magic)) - 2 * kind.bias)

    @_formula
    def split(x):
        """Return n + 2 bias as a word, and r, with x = n ln 2 + r and |r| <= ln(2)/2."""
        shifted = _fma(x, log2e, magic)
        n = shifted - magic
        return word(_bits(shifted) - origin), _fma(-n, ln2_low, _fma(-n, ln2_high, x))

    @_formula
    def expm1_of_rest(r):
        return _fma(r * r, _polynomial(r, exp_p), r)

    @_formula
    def power(k):
        """Return 2^(k - bias)."""
        return _from_bits(word(k << digits))

    @_formula
    def exp(x):
        x = _choose(x < lowest, lowest, x)
        x = _choose(x > highest, highest, x)
        k, r = split(x)
        # 2^n in two halves: neither overflows, and a subnormal result is rounded once.
        half = word(k >> one)
        return (ONE + expm1_of_rest(r)) * power(half) * power(word(k - half))

    @_formula
    def tanh(x):
        # tanh |x| = -m / (2 + m) with m = exp(-2|x|) - 1, which keeps its relative accuracy down to 0.
        size = abs(x)
        size = _choose(size > saturated, saturated, size)
        k, r = split(-(size + size))
        scale = power(word(k - bias))
        m = _fma(scale, expm1_of_rest(r), scale - ONE)
        return _from_bits(word((_bits(m / (TWO + m)) & size_bits) | (_bits(x) & sign)))

    @_formula
    def log1p(x):
        # log(1 + x) = 2 artanh(s) with s = x / (2 + x); and 2 s = x - s x, where s has less weight than in 2 s.
        s = x / (TWO + x)
        square = s * s
        return _fma(-s, _fma(-square, _polynomial(square, log1p_p), x), x)

    return exp, tanh, log1p


_exp32, _tanh32, _log1p32 = _formulas_for(_FLOAT32)
_exp64, _tanh64, _log1p64 = _formulas_for(_FLOAT64)


def _library(name: str) -> Callable[[Any], Any]:
    """Return a formula that calls math or cmath where it is compiled, and NumPy where it is interpreted."""
    of_array, of_real, of_complex = getattr(np, name), getattr(math, name), getattr(cmath, name)

    def function(x):
        return of_array(x)

    def choose(x):
        return (lambda x: of_complex(x)) if isinstance(x, types.Complex) else (lambda x: of_real(x))

    _overload(function)(choose)
    return lambda x: function(x)


def _log1p_complex(x):
    # log|1 + x| from |1 + x|^2 - 1: accurate for small x, where np.log(1 + x) is not.
    size = np.log1p(x.real * (TWO + x.real) + x.imag * x.imag) / TWO
    return size + 1j * np.arctan2(x.imag, ONE + x.real)


def _sigmoid(x):
    # Both sides from exp(-|x|), which never overflows.
    negative = x.real < ZERO
    e = exp(_choose(negative, x, -x))
    return _choose(negative, e, ONE) / (ONE + e)


def _softplus(x):
    # Both terms take the same side at 0, or a complex step from there would lose its direction.
    negative = x.real < ZERO
    return _choose(negative, ZERO, x) + _log1p(exp(_choose(negative, x, -x)))


def _relu(x):
    return _choose(x.real <= ZERO, ZERO, x)


def _tanh_slope(y):
    # (1 - y)(1 + y), since 1 - y * y loses half of the digits as |y| comes near 1.
    return (ONE - y) * (ONE + y)


def _sigmoid_slope(y):
    return y * (ONE - y)


def _relu_slope(y):
    return _choose(y.real > ZERO, ONE, _choose(y.real <= ZERO, ZERO, y))


# The public names. "ns" is nanoseconds per element: the median over calls of a compiled loop on 4096 numbers of scale
# 3, on one core of an AMD EPYC (Zen 5, AVX-512), with NumPy's function (or the least NumPy expression) beside it.


# ns: float32 0.19 (np.exp 0.42); float64 0.45 (0.57).
@_by_type(_Formulas(_exp32, _exp64, _library("exp")))
def exp(x):
    r"""Return :math:`e^x`, to 1.1 ulp.

    As :math:`2^n e^r` with :math:`x = n \ln 2 + r` and :math:`|r| \le \tfrac12 \ln 2`, the remainder taken with ln 2 in
    two parts (Cody and Waite 1980) and :math:`e^r` from a minimax polynomial.

    Examples
    --------
    >>> exp(0.0)
    1.0
    """


# ns: float32 0.22 (np.tanh 0.25); float64 0.52 (0.82).
@_by_type(_Formulas(_tanh32, _tanh64, _library("tanh")))
def tanh(x):
    r"""Return tanh x, to 2.6 ulp: odd, never beyond 1 in size, and x itself near 0.

    :math:`\tanh |x| = -m / (2 + m)` with :math:`m = e^{-2|x|} - 1`, as in fdlibm's ``s_tanh.c``, without its branches.

    Examples
    --------
    >>> tanh(1e-300)
    1e-300
    """


@_by_type(_Formulas(_log1p32, _log1p64, _log1p_complex))
def _log1p(x):
    """Return log(1 + x) for 0 <= x <= 1, to 2 ulp."""


# ns: float32 0.25 (1 / (1 + np.exp(-x)) 0.93); float64 0.58 (1.42).
@_by_type(_one_formula(_sigmoid))
def sigmoid(x):
    r"""Return :math:`1 / (1 + e^{-x})`, to 2.5 ulp, where it is subnormal too.

    For negative x as :math:`e^x / (1 + e^x)`, so that nothing overflows and nothing cancels.

    Examples
    --------
    >>> sigmoid(0.0)
    0.5
    """


# ns: float32 0.33 (np.logaddexp(0, x) 8.5); float64 1.02 (10.3).
@_by_type(_one_formula(_softplus))
def softplus(x):
    r"""Return :math:`\log(1 + e^x)`, to 2.2 ulp.

    As :math:`\max(x, 0) + \log(1 + e^{-|x|})`, the logarithm from :math:`2 \operatorname{artanh}(s)` with
    :math:`s = u / (2 + u)`, as in fdlibm's ``s_log1p.c``.

    Examples
    --------
    >>> softplus(-800.0) == 0.0, softplus(800.0)
    (True, 800.0)
    """


@_by_type(_one_formula(_relu))
def relu(x):
    """Return x where its real part is positive, and 0 elsewhere; NaN stays NaN.

    Examples
    --------
    >>> relu(-2.0), relu(2.0)
    (0.0, 2.0)
    """


@_formula
def larger(a, b):
    """Return the number with the larger real part, `a` if they are equal, and NaN if either is NaN.

    Two floats of different sizes give the larger size; an integer takes the other's type.

    Examples
    --------
    >>> float(larger(1.0, 2.0))
    2.0
    """
    return _choose(b.real != b.real, b, _choose(a.real < b.real, b, a))


@_formula
def saturated(x, d):
    """Return x, and the greatest finite number of its sign where x is infinite though d is not; NaN stays NaN.

    For what is summed from finite numbers, such as the moments of an optimizer, which would stay infinite for ever.

    Examples
    --------
    >>> float(saturated(np.float64("inf"), 1.0)), float(saturated(np.float64("inf"), np.float64("inf")))
    (1.7976931348623157e+308, inf)
    """
    greatest = _greatest(x)
    bound = _choose(x < ZERO, -greatest, greatest)
    return _choose((abs(x) > greatest) & (abs(d) <= greatest), bound, x)


# ns: float32 1.77 (np.log 0.34); float64 2.65 (0.60).
@_by_type(_one_formula(_library("log")))
def log(x):
    """Return the natural logarithm by the platform's library, NaN for a negative float; loops don't vectorise."""


# ns: float32 0.11 (np.sqrt 0.36); float64 0.28 (0.98).
@_by_type(_one_formula(_library("sqrt")))
def sqrt(x):
    """Return the square root, correctly rounded, NaN for a negative float."""


# Derivatives, from the value y of the function: what back-propagation has at hand.


@_by_type(_one_formula(_tanh_slope))
def tanh_slope(y):
    r"""Return the derivative of tanh where its value is y: :math:`1 - y^2`, to 2 ulp.

    Examples
    --------
    >>> tanh_slope(0.5)
    0.75
    """


@_by_type(_one_formula(_sigmoid_slope))
def sigmoid_slope(y):
    r"""Return the derivative of `sigmoid` where its value is y: :math:`y (1 - y)`, to 2 ulp.

    Examples
    --------
    >>> sigmoid_slope(0.5)
    0.25
    """


@_by_type(_one_formula(_relu_slope))
def relu_slope(y):
    """Return the derivative of `relu` where its value is y: 1 where y > 0 and 0 elsewhere; NaN stays NaN.

    Examples
    --------
    >>> relu_slope(0.0), relu_slope(2.0)
    (0.0, 1.0)
    """
