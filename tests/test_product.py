"""The matrix product of the time loop against NumPy: any number of rows, columns and steps of the sum, any strides."""

import numpy as np
import pytest
from tolerance import within

from nbflow._compile import JIT
from nbflow.cpu.memory import call_product
from nbflow.cpu.product import CHUNK, build_product, lanes, panel_vectors

pytestmark = pytest.mark.sim

DTYPES = (np.float32, np.float64)
ROWS = tuple(range(1, 27))
DEPTHS = (0, 1, 2, 17, 50, CHUNK - 1, CHUNK, CHUNK + 1, 300)


def multiply(address, *arguments):
    """Call the product at an address from Python."""
    if not JIT:
        call_product(address, *arguments)
        return
    import ctypes

    ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 12)(address)(*arguments)


def padded(columns, dtype):
    """Return the columns, rounded up to whole vectors."""
    return -(-columns // lanes(dtype)) * lanes(dtype)


def pack(b, dtype):
    """Return b (depth, columns) as panels, padded with zeros, its strides b_panel and b_k, and the padded columns."""
    depth, columns = b.shape
    wide = panel_vectors() * lanes(dtype)
    panels = -(-columns // wide)
    packed = np.zeros((panels, depth, wide), dtype)
    for panel in range(panels):
        part = b[:, panel * wide : (panel + 1) * wide]
        packed[panel, :, : part.shape[1]] = part
    return packed, depth * wide, wide


def lie(b, dtype):
    """Return b (depth, columns) in longer rows, as a tape lies, its strides b_panel and b_k."""
    tape = np.zeros((b.shape[0], padded(b.shape[1], dtype) + 2 * lanes(dtype)), dtype)
    tape[:, : b.shape[1]] = b
    return tape, panel_vectors() * lanes(dtype), tape.shape[1]


def run(a, b, dtype, *, layout=pack, add=0, before=None, spread=(1, 1), transposed=False):
    """Return c (rows, padded columns) of one call; a lies with strides `spread`, in rows or in columns."""
    (rows, depth), columns = a.shape, padded(b.shape[1], dtype)
    room = np.full(
        (depth * spread[1], rows * spread[0]) if transposed else (rows * spread[0], depth * spread[1]), 7, dtype
    )
    held = (room.T if transposed else room)[:: spread[0], :: spread[1]]
    held[...] = a
    factor, b_panel, b_k = layout(b, dtype)
    # Longer rows than the product needs, and rows before and after it: what is not its own must stay.
    c = np.full((rows + 2, columns + 3), 9, dtype)
    inner = c[1:-1, :columns]
    if before is not None:
        inner[...] = before
    outside = c.copy()
    a_row, a_k = (stride // held.itemsize for stride in held.strides)
    multiply(
        build_product(dtype).address, inner.ctypes.data, c.shape[1], held.ctypes.data, a_row, a_k, factor.ctypes.data,
        b_panel, b_k, rows, depth, columns, add,
    )  # fmt: skip
    found = inner.copy()
    inner[...] = outside[1:-1, :columns]
    np.testing.assert_array_equal(c, outside)
    return found


def factors(rows, depth, columns, dtype, seed=0):
    rng = np.random.default_rng([seed, rows, depth, columns])
    return rng.normal(size=(rows, depth)).astype(dtype), rng.normal(size=(depth, columns)).astype(dtype)


def assert_product(found, a, b, dtype, before=0.0):
    """Compare with float64, entry by entry, as far from it as the roundings of a sum of `depth` terms can be."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    columns = b.shape[1]
    size = np.abs(a) @ np.abs(b) + np.abs(before)
    apart = np.abs(found[:, :columns] - (a @ b + before))
    assert (apart <= within(dtype, 1, a.shape[1] + 1) * size).all()
    assert (found[:, columns:] == 0).all(), "the padding is not zero"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("depth", DEPTHS)
def test_every_number_of_rows_agrees_with_numpy(depth, dtype):
    for rows in ROWS:
        columns = 1 + (7 * rows + depth) % 70
        a, b = factors(rows, depth, columns, dtype)
        assert_product(run(a, b, dtype), a, b, dtype)


@pytest.mark.skipif(not JIT, reason="the interpreted product is NumPy's")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("fixed", ["rows", "depth", "columns"])
def test_every_pair_of_sizes_up_to_70_agrees_with_numpy(fixed, dtype):
    """Two sizes take all values from 1 to 70 together, the third one of its own."""
    for one in range(1, 71):
        for other in range(1, 71):
            rows, depth, columns = {
                "rows": (11, one, other), "depth": (one, 29, other), "columns": (one, other, 37)
            }[fixed]  # fmt: skip
            a, b = factors(rows, depth, columns, dtype)
            assert_product(run(a, b, dtype), a, b, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", [pack, lie])
def test_every_number_of_columns_agrees_with_numpy(layout, dtype):
    for columns in range(1, 71):
        a, b = factors(1 + columns % 26, 1 + columns % 11, columns, dtype)
        assert_product(run(a, b, dtype, layout=layout), a, b, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", [pack, lie])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("spread", [(1, 1), (3, 1), (1, 5), (2, 3)])
def test_strides_of_the_left_factor_change_no_bit(spread, transposed, layout, dtype):
    for rows, depth, columns in [(1, 1, 1), (13, 17, 33), (7, CHUNK + 1, 20)]:
        a, b = factors(rows, depth, columns, dtype)
        found = run(a, b, dtype, layout=layout, spread=spread, transposed=transposed)
        np.testing.assert_array_equal(found, run(a, b, dtype))
        assert_product(found, a, b, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("depth", DEPTHS)
def test_a_product_is_added_to_what_was_there_only_if_asked(depth, dtype):
    for rows, columns in [(1, 70), (6, 16), (11, 3)]:
        a, b = factors(rows, depth, columns, dtype)
        before = np.zeros((rows, padded(columns, dtype)), dtype)
        before[:, :columns] = np.random.default_rng(depth).normal(size=(rows, columns))
        assert_product(run(a, b, dtype, add=1, before=before), a, b, dtype, before[:, :columns].astype(np.float64))
        # Not 0 * c: what was there may be NaN.
        assert_product(run(a, b, dtype, add=0, before=np.full_like(before, np.nan)), a, b, dtype)


@pytest.mark.skipif(not JIT, reason="the interpreted product is NumPy's")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("depth", [17, CHUNK + 1, 300])
def test_a_row_has_the_same_bits_whatever_the_number_of_rows(depth, dtype):
    a, b = factors(26, depth, 50, dtype)
    whole = run(a, b, dtype)
    for rows in ROWS:
        for first in range(0, 27 - rows, 5):
            np.testing.assert_array_equal(run(a[first : first + rows], b, dtype), whole[first : first + rows])


@pytest.mark.skipif(not JIT, reason="the interpreted product is NumPy's")
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_column_has_the_same_bits_whatever_the_number_of_columns(dtype):
    a, b = factors(9, 150, 70, dtype)
    whole = run(a, b, dtype)
    for columns in range(1, 70):
        np.testing.assert_array_equal(run(a, b[:, :columns], dtype)[:, :columns], whole[:, :columns])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_spoils_its_own_row_or_column_and_no_other(bad, dtype):
    a, b = factors(13, 20, 40, dtype)
    wanted = run(a, b, dtype)
    spoilt = a.copy()
    spoilt[4, 7] = bad
    with np.errstate(invalid="ignore"):  # interpreted, NumPy warns
        found = run(spoilt, b, dtype)
    assert not np.isfinite(found[4, :40]).any()
    np.testing.assert_array_equal(np.delete(found, 4, axis=0), np.delete(wanted, 4, axis=0))
    spoilt = b.copy()
    spoilt[7, 33] = bad
    with np.errstate(invalid="ignore"):
        found = run(a, spoilt, dtype)
    assert not np.isfinite(found[:, 33]).any()
    np.testing.assert_array_equal(np.delete(found, 33, axis=1), np.delete(wanted, 33, axis=1))
