"""Claims about units on numbers from the least to the greatest: fast arithmetic makes no NaN and no Inf of its own.

Each is compiled with every liberty that kernels take, in the place where a kernel has it, and held against the same
formula in NumPy, which takes none. Optimizers have such a test of their own, in test_optimizers.py.
"""

from __future__ import annotations

import types

import numba
import numpy as np
import pytest
from cases import CLIPS, DTYPES

import nbflow as nf
from nbflow._compile import JIT, SAFE, TWO
from nbflow._load import load
from nbflow.cpu import rules

pytestmark = pytest.mark.skipif(not JIT, reason="nothing is compiled")


def spread(dtype, *, signed=True):
    """Return numbers from the least to the greatest."""
    limits = np.finfo(dtype)
    root = np.sqrt(limits.max)
    sizes = [limits.smallest_subnormal, 100 * limits.smallest_subnormal, limits.tiny, limits.tiny**0.5, 1e-3, 1, 3,
             root, 4 * root, limits.max / 4, limits.max / 2, limits.max]  # fmt: skip
    return np.array([0, *sizes, *(np.negative(sizes) if signed else ())], dtype)


def all_of(*axes):
    """Return every combination of some numbers, as columns."""
    return [column.ravel() for column in np.meshgrid(*axes, indexing="ij")]


def assert_nothing_of_its_own(formula, columns):
    """Hold a formula, compiled with every liberty, against itself in NumPy: NaN and Inf at most where that has them."""
    compiled = numba.vectorize(nopython=True, fastmath=set(SAFE))(formula)
    with np.errstate(all="ignore"):
        got, wanted = compiled(*columns), interpreted(formula, columns)
    assert got.dtype == wanted.dtype
    own = (np.isnan(got) & ~np.isnan(wanted)) | (np.isinf(got) & np.isfinite(wanted))
    assert not own.any(), [(*(c[own][0] for c in columns), got[own][0], wanted[own][0])]
    assert np.isfinite(got).any()


def interpreted(formula, columns):
    """Follow a formula in NumPy, the units in it too."""
    cells = tuple(types.CellType(python_of(cell.cell_contents)) for cell in formula.__closure__ or ())
    plain = types.FunctionType(formula.__code__, formula.__globals__, formula.__name__, None, cells)
    return np.array([plain(*row) for row in zip(*columns, strict=True)], columns[0].dtype)


def python_of(thing):
    return getattr(thing, "py_func", thing)


@pytest.mark.parametrize("name", nf.names("losses"))
@pytest.mark.parametrize("dtype", DTYPES)
def test_losses_and_their_slopes_times_a_weight(name, dtype):
    """Of `square` twice the weight, formed first, would be Inf, and NaN where y is t."""
    loss = load("losses", name)
    fold, value, slope, start = loss.fold, loss.value, loss.slope, tuple(map(np.dtype(dtype).type, loss.start))
    targets = spread(dtype) if name == "square" else np.array([0, 1], dtype)
    weighed = rules.weighed
    columns = all_of(spread(dtype), targets, spread(dtype, signed=False))

    def weighted_slope(y, t, weight):
        return weighed(weight, slope(fold(start, y, t), y, t))

    def weighted_value(y, t, weight):
        return weighed(weight, value(fold(start, y, t)))

    assert_nothing_of_its_own(weighted_slope, columns)
    assert_nothing_of_its_own(weighted_value, columns)


@pytest.mark.parametrize("name", ["norm", "squared", "log"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_penalties_of_the_gain_and_their_factors(name, dtype):
    """Wherever ||delta||^2 is not below the least bound that there is."""
    penalty = load("flows", name)
    value, slope = penalty.value, penalty.slope
    delta, v = all_of(spread(dtype, signed=False), spread(dtype, signed=False))
    with np.errstate(over="ignore"):
        counted = delta * delta >= np.finfo(dtype).smallest_subnormal
    assert counted.sum() > 50

    def factor(delta, v):
        return TWO * slope((v / delta) * (v / delta)) / delta

    def omega(delta, v):
        return value((v / delta) * (v / delta))

    assert_nothing_of_its_own(factor, [delta[counted], v[counted]])
    assert_nothing_of_its_own(omega, [delta[counted], v[counted]])


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_penalty_of_the_states(dtype):
    value = load("flows", "norm_stabilizer").value

    def omega(n, before):
        return value(n, before)

    assert_nothing_of_its_own(omega, all_of(spread(dtype, signed=False), spread(dtype, signed=False)))


@pytest.mark.parametrize("name", CLIPS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_rules_of_clipping(name, dtype):
    clip = load("clips", name).clip
    g, norm, threshold = all_of(spread(dtype), spread(dtype, signed=False), spread(dtype, signed=False))
    possible = abs(g) <= norm

    def rule(g, norm, threshold):
        return clip(g, norm, threshold)

    assert_nothing_of_its_own(rule, [g[possible], norm[possible], threshold[possible]])


def test_the_tests_above_see_what_is_regrouped():
    """The update that made theta NaN."""

    def square(kept, before, d):
        return kept * before + (np.float32(1) - kept) * d * d

    columns = [np.float32([0.99] * 64), np.ones(64, np.float32), np.full(64, 1e25, np.float32)]
    with pytest.raises(AssertionError):
        assert_nothing_of_its_own(square, columns)
