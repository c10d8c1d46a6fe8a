"""How far apart two results of the same arithmetic may be: tolerances from the eps of the dtype, in one place.

A sum of n products that is taken in another order differs by some sqrt(n) roundings of its largest terms, and steps of
a recurrent network add theirs at random: after T steps over sums of n terms the relative error of a whole vector is
about eps * sqrt(T * n) where the network neither forgets nor explodes. The constant covers a few roundings of the
elementary functions (exp, tanh, log) and a sum that cancels a little; of one that cancels more, its condition is
given, sum |terms| / |sum|. Never more than the toolkit claims.

A tolerance follows from these numbers and from none that a machine printed: sums are taken in another order by another
BLAS (OpenBLAS has kernels for each processor) and in vectors of another length. `make test-matrix` computes as other
processors would.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

# What is claimed of every gradient, relative, of the whole vector.
CLAIM = {"float32": 1e-4, "float64": 1e-8}


def within(dtype, steps=1, terms=1, condition=1.0):
    """Return the relative error that `steps` steps over sums of `terms` terms may have, which cancel by `condition`."""
    dtype = np.dtype(dtype)
    return min(float(np.finfo(dtype).eps) * condition * (16 + 2 * float(np.sqrt(steps * terms))), CLAIM[dtype.name])


def near(wanted, *sum_of, size=0.0, **more):
    """Return what equals a number, or numbers, to the roundings of `within(dtype, steps, terms, condition)`.

    By default those of a few operations in float64. What comes out of terms that cancel is told the size of these, for
    then the error is a part of theirs. (pytest.approx alone lets everything below 1e-12 pass for 0.)
    """
    tolerance = within(*(sum_of or ("float64",)), **more)
    return pytest.approx(wanted, rel=tolerance, abs=tolerance * size)


def differenced(step, order, steps=1, terms=1, condition=1.0, curvature=1.0):
    """Return the error of a slope by differences of a function in float64, relative to the largest slope.

    Its roundings, as `within` has them, are divided by the step. What the formula leaves out of Taylor's series is the
    step to the power of its order (2 for two points, 4 for four), times `curvature`, a slope of a higher order.
    """
    return within("float64", steps, terms, condition) / step + curvature * step**order


def by_chance(draws, spread=1.0, false_alarm=1e-4):
    """Return how far a mean of so many independent draws, each of standard deviation `spread`, may be from the truth.

    Beyond it are a part `false_alarm` of all seeds. Seeds are fixed, so a test passes always or never.
    """
    return NormalDist().inv_cdf(1 - false_alarm / 2) * spread / float(np.sqrt(draws))


def printed(digits):
    """Return how far a number may be from one that a publication gives with so many digits behind the point."""
    return 0.5 * 10.0**-digits * (1 + 1e-9)  # a hair more, where the next digit is 5


def error(got, wanted):
    """Return ||got - wanted|| / ||wanted|| of two arrays of one shape, NaN where both are NaN; ||got|| if wanted is 0.

    Norms are scaled by the largest entry, so that nothing overflows; Inf and NaN agree with their own kind only.
    """
    got, wanted = np.asarray(got, np.float64), np.asarray(wanted, np.float64)
    assert got.shape == wanted.shape, f"shapes {got.shape} and {wanted.shape}"
    regular = np.isfinite(wanted)
    if not np.array_equal(got[~regular], wanted[~regular], equal_nan=True) or not np.isfinite(got[regular]).all():
        return np.inf
    got, wanted = got[regular], wanted[regular]
    top = np.abs(wanted).max(initial=0.0)
    if top == 0:
        return float(np.abs(got).max(initial=0.0))
    return float(np.linalg.norm(got / top - wanted / top) / np.linalg.norm(wanted / top))


def assert_close(got, wanted, tolerance, what=""):
    """Assert that the relative error of a whole vector is within a tolerance, and say what it is."""
    found = error(got, wanted)
    assert found <= tolerance, f"{what} has a relative error of {found:.3g}; expected at most {tolerance:.3g}"


def same_bits(a, b):
    """Tell whether two results are the same, bit for bit: arrays, numbers, None, or tuples of them.

    Both are of one process, or of processes with the same target: bits of floating-point numbers depend on the target
    that numba compiles for, on the releases of numba and LLVM, and on numpy's BLAS. None are kept in a file.
    """
    if isinstance(a, tuple):
        return isinstance(b, tuple) and len(a) == len(b) and all(same_bits(x, y) for x, y in zip(a, b, strict=True))
    if a is None or b is None:
        return a is b
    a, b = np.asarray(a), np.asarray(b)
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
