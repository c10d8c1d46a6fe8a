"""How a formula is bound to a type: one name for every kind of number, in Python and in compiled code."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numba import extending
from numba.core import types

X = TypeVar("X")

# No fastmath, and said so lest the caller's be inherited: reassociation would undo the splitting of ln 2 in two parts
# and turn (x + magic) - magic into x, and numba-cuda takes any set of flags as leave to divide approximately.
# `fma` says what may be fused.
_OPTIONS: Any = {"error_model": "numpy", "forceinline": True, "fastmath": False}
formula: Any = extending.register_jitable(**_OPTIONS)
overload: Any = functools.partial(extending.overload, jit_options=_OPTIONS, strict=False)
intrinsic: Any = extending.intrinsic


class Formulas(NamedTuple):
    """The formula to follow for each kind of number."""

    float32: Callable[[Any], Any]
    float64: Callable[[Any], Any]
    complex: Callable[[Any], Any]


class Scalar(Protocol):
    """A function from any kind of number to the same kind."""

    def __call__(self, x: X, /) -> X: ...


def by_type(formulas: Formulas) -> Callable[[Callable[[Any], Any]], Scalar]:
    """Give a documented, empty function its formulas: in Python by the dtype, in compiled code by numba's type."""

    def decorate(stub: Callable[[Any], Any]) -> Scalar:
        @functools.wraps(stub)
        def scalar(x: Any) -> Any:
            return _interpret(formulas, x)

        @overload(scalar)
        def _compile(x: types.Type) -> Callable[[Any], Any] | None:
            if isinstance(x, (types.Integer, types.Boolean)):
                return lambda x: scalar(np.float64(x))
            if isinstance(x, types.Complex):
                return formulas.complex
            return {types.float32: formulas.float32, types.float64: formulas.float64}.get(x)

        return scalar

    return decorate


def _interpret(formulas: Formulas, x: Any) -> Any:
    """Follow the formula for x in NumPy arithmetic, in silence where a number overflows."""
    dtype = np.result_type(x)
    if dtype.kind in "biu":
        dtype = np.dtype(np.float64)
    if dtype.char not in "fdFD":
        raise TypeError(f"x has dtype {dtype}; expected float32, float64, complex64 or complex128. Cast x.")
    follow = {"f": formulas.float32, "d": formulas.float64}.get(dtype.char, formulas.complex)
    # As a NumPy number: a Python float would give way to the float32 constants.
    with np.errstate(all="ignore"):
        y = follow(np.asarray(x, dtype)[()])
    return y.item() if type(x) in (bool, int, float, complex) else y


def one_formula(formula: Callable[[Any], Any]) -> Formulas:
    return Formulas(formula, formula, formula)
