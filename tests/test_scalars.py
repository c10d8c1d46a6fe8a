"""The scalars against mpmath and wider arithmetic: accuracy, limits, types, vectors."""

import re

import mpmath
import numba
import numpy as np
import pytest
from targets import fast

from nbflow import scalars
from nbflow._compile import JIT, SAFE

# Formulas that the interpreter follows too.
pytestmark = pytest.mark.sim

# In ulp, as the docstrings state them.
BOUNDS = {"exp": 1.1, "tanh": 2.6, "sigmoid": 2.5, "softplus": 2.2}
FLOATS = [np.float32, np.float64]
EXACT = {
    "exp": mpmath.exp,
    "tanh": mpmath.tanh,
    "sigmoid": lambda x: mpmath.exp(-mpmath.log1p(mpmath.exp(-x))) if x > -40 else mpmath.exp(x) / (1 + mpmath.exp(x)),
    "softplus": lambda x: x + mpmath.log1p(mpmath.exp(-x)) if x > 0 else mpmath.log1p(mpmath.exp(x)),
}
WIDER = {
    "exp": np.exp,
    "tanh": np.tanh,
    "sigmoid": lambda x: np.where(x < 0, np.exp(-abs(x)), 1) / (1 + np.exp(-abs(x))),
    "softplus": lambda x: np.maximum(x, 0) + np.log1p(np.exp(-abs(x))),
}
LIMITS = {  # at -inf, inf
    "exp": (0, np.inf),
    "tanh": (-1, 1),
    "sigmoid": (0, 1),
    "softplus": (0, np.inf),
    "relu": (0, np.inf),
}
UNARY = [*BOUNDS, "relu", "log", "sqrt", "tanh_slope", "sigmoid_slope", "relu_slope"]


def looped(name):
    """Compile a loop over one of the scalars, with the fastmath that units have."""
    function = getattr(scalars, name)

    @numba.njit(error_model="numpy", fastmath=set(SAFE))
    def run(x, y):
        for i in range(x.size):
            y[i] = function(x[i])

    return run


@pytest.fixture(scope="module")
def loops():
    return {name: looped(name) for name in UNARY}


def evaluate(loops, name, x, mode):
    """Return the scalar at each x, by a compiled loop or by Python with whole arrays."""
    if mode == "python":
        return getattr(scalars, name)(x)
    if not JIT:
        pytest.skip("needs the JIT")
    y = np.empty_like(x)
    loops[name](x, y)
    return y


def ulps(got, exact, dtype):
    """Return the error in units in the last place of the exact result, 0 where that overflows as it should."""
    info = np.finfo(dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        expected = exact.astype(dtype)
        exponent = np.maximum(np.frexp(exact)[1], info.minexp + 1) - info.nmant - 1
        error = abs(got.astype(exact.dtype) - exact) / np.ldexp(exact.dtype.type(1), exponent)
    overflow = np.isinf(expected)
    np.testing.assert_array_equal(got[overflow], expected[overflow])
    return np.where(overflow, 0, error)


def sweep(dtype, size, seed=0):
    """Return finite numbers of every binade and sign, and more where the functions bend or end."""
    rng = np.random.default_rng(seed)
    bits = {4: np.uint32, 8: np.uint64}[np.dtype(dtype).itemsize]
    patterns = rng.integers(0, np.iinfo(bits).max, size, dtype=bits, endpoint=True).view(dtype)
    end = 1.02 * np.log(np.finfo(dtype).max)
    near = [rng.uniform(-end, end, size), rng.uniform(-20, 20, 2 * size), rng.uniform(-2, 2, 2 * size)]
    small = rng.choice([-1, 1], size) * 2.0 ** rng.uniform(-60, 4, size)
    x = np.concatenate([patterns, *(part.astype(dtype) for part in near), small.astype(dtype)])
    return x[np.isfinite(x)]


@pytest.mark.parametrize("mode", ["compiled", "python"])
@pytest.mark.parametrize("name", BOUNDS)
def test_float32_is_within_its_bound_over_all_binades(loops, name, mode):
    x = sweep(np.float32, 300_000)
    with np.errstate(over="ignore", under="ignore"):
        exact = WIDER[name](x.astype(np.float64))  # its own error is 2^-29 ulp of float32
    assert ulps(evaluate(loops, name, x, mode), exact, np.float32).max() <= BOUNDS[name]


@pytest.mark.skipif(np.finfo(np.longdouble).nmant != 63, reason="needs an 80-bit long double")
@pytest.mark.parametrize("mode", ["compiled", "python"])
@pytest.mark.parametrize("name", BOUNDS)
def test_float64_is_within_its_bound_over_all_binades(loops, name, mode):
    x = sweep(np.float64, 60_000)
    with np.errstate(over="ignore", under="ignore"):
        exact = WIDER[name](x.astype(np.longdouble))  # its own error is about 2^-10 ulp of float64
    assert ulps(evaluate(loops, name, x, mode), exact, np.float64).max() <= BOUNDS[name]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", BOUNDS)
def test_mpmath_agrees(loops, name, dtype):
    x = sweep(dtype, 150)
    x = x[abs(x) < 1.05 * np.log(np.finfo(dtype).max)]
    mode = "compiled" if JIT else "python"
    got = evaluate(loops, name, x, mode)
    info = np.finfo(dtype)
    with mpmath.workprec(200):
        for value, result in zip(x, got, strict=True):
            exact = EXACT[name](mpmath.mpf(float(value)))
            exponent = max(mpmath.frexp(exact)[1], int(info.minexp) + 1) - int(info.nmant) - 1
            if exact >= mpmath.ldexp(2 - mpmath.ldexp(1, -int(info.nmant) - 1), int(info.maxexp) - 1):
                assert result == np.inf
            else:
                assert abs(mpmath.mpf(float(result)) - exact) <= BOUNDS[name] * mpmath.ldexp(1, exponent), value


@pytest.mark.parametrize("dtype", FLOATS)
def test_exp_overflows_and_underflows_at_the_right_numbers(loops, dtype):
    info = np.finfo(dtype)
    last = dtype(np.log(np.longdouble(info.max)))
    while np.exp(np.longdouble(last)) > info.max:
        last = np.nextafter(last, dtype(0))
    first = np.nextafter(last, dtype(np.inf))
    while np.exp(np.longdouble(first)) < np.longdouble(info.max) * (1 + np.longdouble(info.eps) / 4):
        first = np.nextafter(first, dtype(np.inf))
    mode = "compiled" if JIT else "python"
    y = evaluate(loops, "exp", np.array([last, first], dtype), mode)
    assert np.isfinite(y[0])
    assert y[1] == np.inf
    half = np.log(float(info.smallest_subnormal) / 2) if dtype == np.float32 else -745.1332191019412
    y = evaluate(loops, "exp", np.array([half * (1 - 1e-6), half * (1 + 1e-6)], dtype), mode)
    assert y[0] == info.smallest_subnormal
    assert y[1] == 0


@pytest.mark.parametrize("mode", ["compiled", "python"])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", UNARY)
def test_nan_passes_through_a_vectorised_loop_and_spares_its_neighbours(loops, name, dtype, mode):
    x = np.full(67, 0.5, dtype)
    x[5::7] = np.nan
    x[6::7] = np.copysign(dtype(np.nan), dtype(-1))
    y = evaluate(loops, name, x, mode)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(x))


@pytest.mark.parametrize("mode", ["compiled", "python"])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", LIMITS)
def test_infinite_and_huge_arguments_give_the_limits(loops, name, dtype, mode):
    huge = np.finfo(dtype).max
    x = np.tile(np.array([-np.inf, -huge, huge, np.inf], dtype), 16)
    low, high = LIMITS[name]
    finite = huge if name in ("softplus", "relu") else high
    np.testing.assert_array_equal(
        evaluate(loops, name, x, mode), np.tile(np.array([low, low, finite, high], dtype), 16)
    )


@pytest.mark.parametrize("mode", ["compiled", "python"])
@pytest.mark.parametrize("dtype", FLOATS)
def test_tanh_is_odd_bounded_and_the_identity_near_zero(loops, dtype, mode):
    x = sweep(dtype, 20_000)
    y = evaluate(loops, "tanh", x, mode)
    np.testing.assert_array_equal(evaluate(loops, "tanh", -x, mode), -y)
    assert abs(y).max() == 1
    tiny = np.finfo(dtype).smallest_subnormal * np.array([0, 1, 2, 3, 1000], dtype)
    near = np.concatenate([tiny, -tiny, x[abs(x) < np.finfo(dtype).eps / 16]])
    np.testing.assert_array_equal(evaluate(loops, "tanh", near, mode), near)
    np.testing.assert_array_equal(np.signbit(evaluate(loops, "tanh", near, mode)), np.signbit(near))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", ["tanh", "sigmoid"])
def test_slopes_from_the_output_are_within_2_ulp(loops, name, dtype):
    y = np.unique(scalars.tanh(sweep(dtype, 20_000)) if name == "tanh" else scalars.sigmoid(sweep(dtype, 20_000)))
    wide = y.astype(np.longdouble)
    exact = (1 - wide) * (1 + wide) if name == "tanh" else wide * (1 - wide)
    for mode in ("compiled", "python") if JIT else ("python",):
        assert ulps(evaluate(loops, f"{name}_slope", y, mode), exact, dtype).max() <= 2


def test_relu_slope_is_the_step():
    np.testing.assert_array_equal(scalars.relu_slope(np.array([-1.0, -0.0, 0.0, 1e-300, 3.0])), [0, 0, 0, 1, 1])


@pytest.mark.parametrize("a, b, expected", [(1.0, 2.0, 2.0), (2.0, 1.0, 2.0), (-np.inf, 0.0, 0.0)])
def test_larger_is_the_maximum(a, b, expected):
    assert scalars.larger(a, b) == expected


def test_larger_lets_nan_through_from_either_side():
    a = np.array([np.nan, 1, np.nan, 1] * 16, np.float32)
    b = np.array([1, np.nan, np.nan, 2] * 16, np.float32)
    expected = np.array([np.nan, np.nan, np.nan, 2] * 16, np.float32)
    np.testing.assert_array_equal(scalars.larger(a, b), expected)

    @numba.njit(error_model="numpy", fastmath=set(SAFE))
    def run(a, b, y):
        for i in range(a.size):
            y[i] = scalars.larger(a[i], b[i])

    y = np.empty_like(a)
    run(a, b, y)
    np.testing.assert_array_equal(y, expected)


@pytest.mark.skipif(not JIT, reason="needs the JIT")
def test_larger_does_not_widen_a_float_beside_an_integer():
    compiled = numba.njit(lambda a: scalars.larger(a, 0))
    compiled.compile((numba.float32,))
    assert compiled.nopython_signatures[0].return_type == numba.float32
    assert numba.njit(lambda a, b: scalars.larger(a, b))(2**40, np.int32(3)) == 2**40


def test_larger_compares_real_parts():
    assert scalars.larger(1 + 5j, 2 - 1j) == 2 - 1j
    if JIT:
        assert numba.njit(lambda a, b: scalars.larger(a, b))(1 + 5j, 2 - 1j) == 2 - 1j


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
@pytest.mark.parametrize("name", UNARY)
def test_python_keeps_dtype_and_shape(name, dtype):
    function = getattr(scalars, name)
    assert type(function(dtype(0.5))) is dtype
    for x in (np.full((3, 4), 0.5, dtype)[:, ::2], np.full((0,), 0.5, dtype)):
        assert function(x).dtype == dtype
        assert function(x).shape == x.shape


@pytest.mark.parametrize("name", UNARY)
def test_python_numbers_come_back_as_python_numbers_of_full_precision(name):
    function = getattr(scalars, name)
    assert type(function(0.3)) is float
    assert type(function(1)) is float
    assert type(function(0.3 + 0j)) is complex
    assert function(0.3) == function(np.float64(0.3))


@pytest.mark.parametrize("dtype", [np.float16, object])
def test_another_dtype_is_refused(dtype):
    with pytest.raises(TypeError, match="expected float32, float64"):
        scalars.exp(np.zeros(2, dtype))


@pytest.mark.skipif(not JIT, reason="needs the JIT")
@pytest.mark.parametrize("kind", [numba.float32, numba.float64, numba.complex128])
@pytest.mark.parametrize("name", UNARY)
def test_compiled_code_returns_the_type_of_its_argument(name, kind):
    function = getattr(scalars, name)
    compiled = numba.njit(lambda x: function(x))
    compiled.compile((kind,))
    assert compiled.nopython_signatures[0].return_type == kind


@pytest.mark.skipif(not JIT, reason="needs the JIT")
@pytest.mark.parametrize("name", BOUNDS)
def test_compiled_and_interpreted_differ_by_the_fused_operations_alone(loops, name):
    x = sweep(np.float64, 5000)
    compiled, interpreted = evaluate(loops, name, x, "compiled"), evaluate(loops, name, x, "python")
    limits = np.finfo(float)
    np.testing.assert_allclose(compiled, interpreted, rtol=4 * limits.eps, atol=2 * limits.smallest_subnormal)


SLOPES = {
    "exp": lambda x: np.exp(x),
    "tanh": lambda x: 1 / np.cosh(x) ** 2,
    "sigmoid": lambda x: np.exp(-abs(x)) / (1 + np.exp(-abs(x))) ** 2,
    "softplus": lambda x: 1 / (1 + np.exp(-x)),
    "relu": lambda x: np.where(x > 0, 1.0, 0.0),
}


@pytest.mark.parametrize("mode", ["compiled", "python"])
@pytest.mark.parametrize("name", SLOPES)
def test_a_complex_step_gives_the_derivative_and_leaves_the_value(loops, name, mode):
    x = np.concatenate([np.linspace(-30, 30, 301), [-300.0, -40.0, 1e-8, 40.0, 300.0]])
    step = 1e-150 if name != "relu" else 1.0
    z = evaluate(loops, name, x + 1j * step, mode)
    eps = np.finfo(float).eps
    # tanh, exp and their like amplify the rounding of x by at most |x|.
    slack = 8 * eps * (1 + abs(x))
    assert np.all(abs(z.imag / step - SLOPES[name](x)) <= slack * abs(SLOPES[name](x)) + np.finfo(float).tiny / step)
    np.testing.assert_allclose(z.real, getattr(scalars, name)(x), rtol=8 * eps, atol=np.finfo(float).tiny)


@pytest.mark.skipif(not fast(), reason="what numba compiles for has neither AVX2 nor AVX-512")
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", [*BOUNDS, "relu", "sqrt", "tanh_slope", "sigmoid_slope", "relu_slope"])
def test_a_loop_vectorises_without_calls(loops, name, dtype):
    x = np.ones(64, dtype)
    loops[name](x, np.empty_like(x))
    run = loops[name]
    [assembly] = [text for kinds, text in run.inspect_asm().items() if kinds[0].dtype == numba.from_dtype(dtype)]
    suffix = "ps" if dtype == np.float32 else "pd"
    packed = re.findall(rf"\bv\w+{suffix}\w*\s+.*%[yz]mm", assembly)
    assert packed
    if name in BOUNDS:
        assert re.findall(rf"\bvf(?:n?m)(?:add|sub)\w+{suffix}\s.*%[yz]mm", assembly)
    assert not re.findall(r"\b_?(?:exp|tanh|log1p|log|sqrt)f?\b(?=[@,\s])", assembly)


@pytest.mark.skipif(not JIT, reason="needs the JIT")
@pytest.mark.parametrize("name", UNARY)
def test_float32_is_computed_without_float64(loops, name):
    x = np.ones(4, np.float32)
    loops[name](x, np.empty_like(x))
    [code] = [text for kinds, text in loops[name].inspect_llvm().items() if kinds[0].dtype == numba.float32]
    assert not re.findall(r"\b(?:fadd|fsub|fmul|fdiv|fcmp|fpext|fptrunc)\b.*\bdouble\b", code)
