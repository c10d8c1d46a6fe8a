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
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba.core import types

from nbflow._compile import HALF, ONE, TWO, ZERO
from nbflow.scalars._floats import exp32, exp64, log1p32, log1p64, tanh32, tanh64
from nbflow.scalars._operations import choose, greatest_of
from nbflow.scalars._types import Formulas, by_type, formula, one_formula, overload

__all__ = [
    "HALF", "ONE", "TWO", "ZERO", "exp", "larger", "log", "relu", "relu_slope", "saturated", "sigmoid",
    "sigmoid_slope", "softplus", "sqrt", "tanh", "tanh_slope",
]  # fmt: skip


def _library(name: str) -> Callable[[Any], Any]:
    """Return a formula that calls math or cmath where it is compiled, and NumPy where it is interpreted."""
    of_array, of_real, of_complex = getattr(np, name), getattr(math, name), getattr(cmath, name)

    def function(x):
        return of_array(x)

    def compiled(x):
        return (lambda x: of_complex(x)) if isinstance(x, types.Complex) else (lambda x: of_real(x))

    overload(function)(compiled)
    return lambda x: function(x)


def _log1p_complex(x):
    # log|1 + x| from |1 + x|^2 - 1: accurate for small x, where np.log(1 + x) is not.
    size = np.log1p(x.real * (TWO + x.real) + x.imag * x.imag) / TWO
    return size + 1j * np.arctan2(x.imag, ONE + x.real)


def _sigmoid(x):
    # Both sides from exp(-|x|), which never overflows.
    negative = x.real < ZERO
    e = exp(choose(negative, x, -x))
    return choose(negative, e, ONE) / (ONE + e)


def _softplus(x):
    # Both terms take the same side at 0, or a complex step from there would lose its direction.
    negative = x.real < ZERO
    return choose(negative, ZERO, x) + _log1p(exp(choose(negative, x, -x)))


def _relu(x):
    return choose(x.real <= ZERO, ZERO, x)


def _tanh_slope(y):
    # (1 - y)(1 + y), since 1 - y * y loses half of the digits as |y| comes near 1.
    return (ONE - y) * (ONE + y)


def _sigmoid_slope(y):
    return y * (ONE - y)


def _relu_slope(y):
    return choose(y.real > ZERO, ONE, choose(y.real <= ZERO, ZERO, y))


# The public names. "ns" is nanoseconds per element: the median over calls of a compiled loop on 4096 numbers of scale
# 3, on one core of an AMD EPYC (Zen 5, AVX-512), with NumPy's function (or the least NumPy expression) beside it.


# ns: float32 0.19 (np.exp 0.42); float64 0.45 (0.57).
@by_type(Formulas(exp32, exp64, _library("exp")))
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
@by_type(Formulas(tanh32, tanh64, _library("tanh")))
def tanh(x):
    r"""Return tanh x, to 2.6 ulp: odd, never beyond 1 in size, and x itself near 0.

    :math:`\tanh |x| = -m / (2 + m)` with :math:`m = e^{-2|x|} - 1`, as in fdlibm's ``s_tanh.c``, without its branches.

    Examples
    --------
    >>> tanh(1e-300)
    1e-300
    """


@by_type(Formulas(log1p32, log1p64, _log1p_complex))
def _log1p(x):
    """Return log(1 + x) for 0 <= x <= 1, to 2 ulp."""


# ns: float32 0.25 (1 / (1 + np.exp(-x)) 0.93); float64 0.58 (1.42).
@by_type(one_formula(_sigmoid))
def sigmoid(x):
    r"""Return :math:`1 / (1 + e^{-x})`, to 2.5 ulp, where it is subnormal too.

    For negative x as :math:`e^x / (1 + e^x)`, so that nothing overflows and nothing cancels.

    Examples
    --------
    >>> sigmoid(0.0)
    0.5
    """


# ns: float32 0.33 (np.logaddexp(0, x) 8.5); float64 1.02 (10.3).
@by_type(one_formula(_softplus))
def softplus(x):
    r"""Return :math:`\log(1 + e^x)`, to 2.2 ulp.

    As :math:`\max(x, 0) + \log(1 + e^{-|x|})`, the logarithm from :math:`2 \operatorname{artanh}(s)` with
    :math:`s = u / (2 + u)`, as in fdlibm's ``s_log1p.c``.

    Examples
    --------
    >>> softplus(-800.0) == 0.0, softplus(800.0)
    (True, 800.0)
    """


@by_type(one_formula(_relu))
def relu(x):
    """Return x where its real part is positive, and 0 elsewhere; NaN stays NaN.

    Examples
    --------
    >>> relu(-2.0), relu(2.0)
    (0.0, 2.0)
    """


@formula
def larger(a, b):
    """Return the number with the larger real part, `a` if they are equal, and NaN if either is NaN.

    Two floats of different sizes give the larger size; an integer takes the other's type.

    Examples
    --------
    >>> float(larger(1.0, 2.0))
    2.0
    """
    return choose(b.real != b.real, b, choose(a.real < b.real, b, a))


@formula
def saturated(x, d):
    """Return x, and the greatest finite number of its sign where x is infinite though d is not; NaN stays NaN.

    For what is summed from finite numbers, such as the moments of an optimizer, which would stay infinite for ever.

    Examples
    --------
    >>> float(saturated(np.float64("inf"), 1.0)), float(saturated(np.float64("inf"), np.float64("inf")))
    (1.7976931348623157e+308, inf)
    """
    greatest = greatest_of(x)
    bound = choose(x < ZERO, -greatest, greatest)
    return choose((abs(x) > greatest) & (abs(d) <= greatest), bound, x)


# ns: float32 1.77 (np.log 0.34); float64 2.65 (0.60).
@by_type(one_formula(_library("log")))
def log(x):
    """Return the natural logarithm by the platform's library, NaN for a negative float; loops don't vectorise."""


# ns: float32 0.11 (np.sqrt 0.36); float64 0.28 (0.98).
@by_type(one_formula(_library("sqrt")))
def sqrt(x):
    """Return the square root, correctly rounded, NaN for a negative float."""


# Derivatives, from the value y of the function: what back-propagation has at hand.


@by_type(one_formula(_tanh_slope))
def tanh_slope(y):
    r"""Return the derivative of tanh where its value is y: :math:`1 - y^2`, to 2 ulp.

    Examples
    --------
    >>> tanh_slope(0.5)
    0.75
    """


@by_type(one_formula(_sigmoid_slope))
def sigmoid_slope(y):
    r"""Return the derivative of `sigmoid` where its value is y: :math:`y (1 - y)`, to 2 ulp.

    Examples
    --------
    >>> sigmoid_slope(0.5)
    0.25
    """


@by_type(one_formula(_relu_slope))
def relu_slope(y):
    """Return the derivative of `relu` where its value is y: 1 where y > 0 and 0 elsewhere; NaN stays NaN.

    Examples
    --------
    >>> relu_slope(0.0), relu_slope(2.0)
    (0.0, 1.0)
    """
