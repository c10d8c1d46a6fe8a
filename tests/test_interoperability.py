"""Our clips beside those of PyTorch and optax: the same where they agree, and every difference pinned.

docs/clipping.md has the table. A test here that fails after an upgrade of theirs means that the table has changed.
"""

from __future__ import annotations

import math

import naive
import numpy as np
import pytest
from cases import DTYPES, make_case
from tolerance import assert_close, same_bits, within

import nbflow as nf

TORCH_EPS = 1e-6  # added to the norm
AGC_EPS = 1e-6  # the least norm of a unit's gradient that optax divides by
CELLS = ("tanh", "gru", "lstm")


def network(cell="gru", dtype="float32", **sizes):
    return nf.Network(cell, **{"n_in": 3, "n_hidden": 4, "n_out": 2, **sizes}, loss="square", dtype=dtype)


def draw(net, seed=0, scale=1.0):
    return (scale * np.random.default_rng(seed).normal(size=net.size)).astype(net.dtype)


def triangle(net, unit=1.0):
    """Return a gradient of norm 5 units, exactly."""
    d = np.zeros(net.size, net.dtype)
    d[[2, 7]] = 3 * unit, -4 * unit
    return d


def ours(net, d, rule, threshold, policy="random", **more):
    return nf.clip(net, d, nf.Clip(rule, threshold, policy), **more)


def blocks(net, d):
    """Return the arrays of a gradient that have entries."""
    return [part for part in nf.unpack(net, d) if part.size]


def joined(parts):
    return np.concatenate([np.ravel(part) for part in parts])


# ------------------------------------------------------------------------------------------------------------- PyTorch


@pytest.fixture
def by_torch(torch):
    """Give `(net, d, function, *arguments) -> (clipped d, what was returned)` of torch.nn.utils."""

    def clip(net, d, function, *arguments, **more):
        parameters = []
        for part in blocks(net, d.copy()):
            parameters.append(torch.zeros(part.shape, dtype=getattr(torch, net.dtype), requires_grad=True))
            parameters[-1].grad = torch.from_numpy(part.copy())
        returned = getattr(torch.nn.utils, function)(parameters, *arguments, **more)
        return joined(p.grad.numpy() for p in parameters), returned

    return clip


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_norm_is_torchs_but_for_the_epsilon_that_torch_adds(by_torch, cell, dtype):
    net = network(cell, dtype)
    for seed, threshold in ((0, 0.1), (1, 1.0), (2, 4.0)):
        d = draw(net, seed)
        theirs, norm = by_torch(net, d, "clip_grad_norm_", threshold)
        done = ours(net, d, "norm", threshold)
        assert done.fraction == 1
        assert_close(done.norm, norm.item(), within(dtype, 1, net.size))
        assert_close(done.d_theta * (done.norm / (done.norm + TORCH_EPS)), theirs, within(dtype, 1, net.size))


@pytest.mark.parametrize("dtype", DTYPES)
def test_below_the_threshold_torch_and_we_keep_every_bit(by_torch, dtype):
    net = network(dtype=dtype)
    d = draw(net)
    threshold = 1.001 * naive.length(d)
    assert same_bits(ours(net, d, "norm", threshold).d_theta, d)
    assert same_bits(by_torch(net, d, "clip_grad_norm_", threshold)[0], d)


def test_at_the_threshold_torch_shortens_and_we_do_not(by_torch):
    net = network(dtype="float64")
    d = triangle(net)
    assert same_bits(ours(net, d, "norm", 5.0).d_theta, d)
    theirs = by_torch(net, d, "clip_grad_norm_", 5.0)[0]
    assert_close(naive.length(theirs), 5 * 5 / (5 + TORCH_EPS), within("float64"))
    assert naive.length(theirs) < 5


def test_of_tiny_gradients_torchs_epsilon_is_most_of_the_norm(by_torch):
    net = network(dtype="float64")
    d = triangle(net, 1e-9)
    assert_close(naive.length(ours(net, d, "norm", 1e-9).d_theta), 1e-9, within("float64"))
    theirs = by_torch(net, d, "clip_grad_norm_", 1e-9)[0]
    assert_close(naive.length(theirs), 1e-9 * 5e-9 / (5e-9 + TORCH_EPS), within("float64", 20, 500))


@pytest.mark.parametrize("unit", [1e20, 1e30])
def test_where_the_squares_overflow_torch_makes_the_gradient_0_and_we_clip_it(by_torch, unit):
    net = network()
    d = triangle(net, unit)
    theirs, norm = by_torch(net, d, "clip_grad_norm_", 1.0)
    assert math.isinf(norm.item())
    assert not theirs.any()
    done = ours(net, d, "norm", 1.0)
    assert done.finite
    assert_close(done.norm, 5 * unit, within("float32"))
    assert_close(naive.length(done.d_theta), 1.0, within("float32"))


def test_where_the_squares_vanish_torch_reports_0_and_we_the_norm(by_torch):
    net = network()
    d = triangle(net, 1e-30)
    assert by_torch(net, d, "clip_grad_norm_", 1.0)[1].item() == 0
    assert_close(ours(net, d, "norm", 1.0).norm, 5e-30, within("float32"))


def test_one_nan_makes_all_of_torchs_gradient_nan_and_inf_makes_the_rest_0(by_torch):
    net = network()
    for bad in (np.nan, np.inf, -np.inf):
        d = draw(net)
        d[3] = bad
        theirs, norm = by_torch(net, d, "clip_grad_norm_", 1.0)
        assert not math.isfinite(norm.item())
        assert math.isnan(theirs[3])
        rest = np.delete(theirs, 3)
        assert np.isnan(rest).all() if math.isnan(bad) else not rest.any()
        for policy in ("random", "skip", "zero"):
            assert np.isfinite(ours(net, d, "norm", 1.0, policy, rng=0).d_theta).all()
        assert same_bits(ours(net, d, "norm", 1.0, "keep").d_theta, d)


def test_torchs_error_if_nonfinite_is_our_policy_raise(by_torch):
    net = network()
    d = draw(net)
    d[0] = np.inf
    with pytest.raises(RuntimeError, match="non-finite"):
        by_torch(net, d, "clip_grad_norm_", 1.0, error_if_nonfinite=True)
    with pytest.raises(FloatingPointError, match="1 of w_in"):
        ours(net, d, "norm", 1.0, "raise")


def test_torch_returns_the_norm_before_and_changes_its_argument_and_we_return_both_and_change_nothing(by_torch):
    net = network(dtype="float64")
    d = draw(net)
    before = d.copy()
    done = ours(net, d, "norm", 1.0)
    assert_close(by_torch(net, d, "clip_grad_norm_", 1.0)[1].item(), done.norm, within("float64", 1, 100))
    assert_close(done.clipped_norm, 1.0, within("float64", 1, 100))
    assert same_bits(d, before)


@pytest.mark.parametrize("dtype", DTYPES)
def test_value_is_torchs_to_the_bit(by_torch, dtype):
    for scale in (1e-30, 1.0, 1e30):
        net = network(dtype=dtype)
        d = draw(net, 1, scale)
        d[:2] = 0.0, -0.0
        for threshold in (0.5 * scale, 100 * scale):
            theirs, returned = by_torch(net, d, "clip_grad_value_", threshold)
            assert returned is None
            assert same_bits(ours(net, d, "value", threshold).d_theta, theirs)


def test_value_of_inf_is_the_threshold_for_torch_and_of_nan_nan_and_for_us_a_policy(by_torch):
    net = network()
    d = draw(net)
    d[:3] = np.nan, np.inf, -np.inf
    theirs = by_torch(net, d, "clip_grad_value_", 0.5)[0]
    assert np.array_equal(theirs[:3], [np.nan, 0.5, -0.5], equal_nan=True)
    cleaned = ours(net, d, "value", 0.5, "zero").d_theta
    assert not cleaned[:3].any()
    assert same_bits(cleaned[3:], theirs[3:])
    assert same_bits(ours(net, d, "value", 0.5, "keep").d_theta, d)


# --------------------------------------------------------------------------------------------------------------- optax


@pytest.fixture(scope="module")
def optax():
    """Give optax; tests that ask for it skip where it is not installed."""
    return pytest.importorskip("optax")


def by_optax(net, d, transformation, theta=None):
    """Return what a transformation of optax makes of a gradient."""
    params = None if theta is None else blocks(net, theta)
    updates, _ = transformation.update(blocks(net, d), transformation.init(params or blocks(net, d)), params)
    return joined(np.asarray(part) for part in updates)


@pytest.mark.parametrize("cell", CELLS)
def test_norm_is_optaxs_to_rounding(optax, cell):
    net = network(cell)
    for seed, threshold in ((0, 0.1), (1, 1.0), (2, 1000.0)):
        d = draw(net, seed)
        theirs = by_optax(net, d, optax.clip_by_global_norm(threshold))
        assert_close(ours(net, d, "norm", threshold).d_theta, theirs, within("float32", 1, net.size))
    assert same_bits(theirs, d)


def test_at_the_threshold_optax_scales_by_1_to_rounding_and_we_keep_every_bit(optax):
    """Its test is `norm < threshold`, else it computes (g / norm) threshold: (15 / 25) 25 is not 15 in float32."""
    net = network()
    d = triangle(net, 5.0)
    theirs = by_optax(net, d, optax.clip_by_global_norm(25.0))
    assert same_bits(ours(net, d, "norm", 25.0).d_theta, d)
    assert not same_bits(theirs, d)
    assert_close(theirs, d, within("float32"))


@pytest.mark.parametrize("unit", [1e20, 1e30])
def test_where_the_squares_overflow_optax_makes_the_gradient_0_and_we_clip_it(optax, unit):
    net = network()
    d = triangle(net, unit)
    assert not by_optax(net, d, optax.clip_by_global_norm(1.0)).any()
    assert_close(naive.length(ours(net, d, "norm", 1.0).d_theta), 1.0, within("float32"))


def test_where_the_squares_vanish_optax_does_not_clip_and_we_do(optax):
    net = network()
    d = triangle(net, 1e-30)
    assert same_bits(by_optax(net, d, optax.clip_by_global_norm(1e-30)), d)
    assert_close(naive.length(ours(net, d, "norm", 1e-30).d_theta), 1e-30, within("float32"))


def test_one_nan_makes_all_of_optaxs_gradient_nan_and_inf_makes_the_rest_0(optax):
    net = network()
    for bad in (np.nan, np.inf):
        d = draw(net)
        d[3] = bad
        theirs = by_optax(net, d, optax.clip_by_global_norm(1.0))
        assert math.isnan(theirs[3])
        rest = np.delete(theirs, 3)
        assert np.isnan(rest).all() if math.isnan(bad) else not rest.any()


def test_value_is_optaxs_clip_to_the_bit_and_bad_entries_are_as_in_torch(optax):
    net = network()
    d = draw(net, 1)
    assert same_bits(ours(net, d, "value", 0.5).d_theta, by_optax(net, d, optax.clip(0.5)))
    d[:3] = np.nan, np.inf, -np.inf
    assert np.array_equal(by_optax(net, d, optax.clip(0.5))[:3], [np.nan, 0.5, -0.5], equal_nan=True)


def test_block_is_optaxs_clip_by_block_rms_with_the_root_of_the_size_between_them(optax):
    net = network()
    d = draw(net, 1)
    theirs = by_optax(net, d, optax.clip_by_block_rms(0.5))
    first = 0
    for part in blocks(net, d):
        at = slice(first, first := first + part.size)
        done = ours(net, d, "block", 0.5 * math.sqrt(part.size)).d_theta
        assert_close(done[at], theirs[at], within("float32", 1, part.size))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("clipping", [0.01, 0.3, 100.0])
def test_unit_is_optaxs_adaptive_grad_clip_for_every_matrix(optax, cell, clipping):
    net = network(cell)
    d, theta = draw(net, 1), draw(net, 2)
    d[:3], theta[:5] = 0, 0
    theirs = nf.unpack(net, by_optax(net, d, optax.adaptive_grad_clip(clipping), theta))
    done = nf.unpack(net, ours(net, d, "unit", clipping, theta=theta).d_theta)
    for name in ("w_in", "w_rec", "w_out", "b_out"):
        assert_close(getattr(done, name), getattr(theirs, name), within("float32", 1, net.size), name)


def test_a_bias_of_several_gates_is_one_unit_for_us_and_one_of_each_hidden_unit_for_optax(optax):
    net = network("lstm")
    d, theta = draw(net, 1), draw(net, 2)
    clipping = 0.3
    theirs = nf.unpack(net, by_optax(net, d, optax.adaptive_grad_clip(clipping), theta)).bias
    done = nf.unpack(net, ours(net, d, "unit", clipping, theta=theta).d_theta).bias
    g, w = nf.unpack(net, d).bias, nf.unpack(net, theta).bias
    assert g.shape == (4, 4)
    assert_close(done, naive.rescale(g.astype(np.float64), clipping * naive.length(w)), within("float32"))
    columns = [naive.rescale(x.astype(np.float64), clipping * naive.length(y)) for x, y in zip(g.T, w.T, strict=True)]
    assert_close(theirs, np.transpose(columns), within("float32"))
    # One gate alone is one group for both.
    one = network("tanh")
    d, theta = draw(one, 1), draw(one, 2)
    theirs = nf.unpack(one, by_optax(one, d, optax.adaptive_grad_clip(clipping), theta)).bias
    assert_close(nf.unpack(one, ours(one, d, "unit", clipping, theta=theta).d_theta).bias, theirs, within("float32"))


def test_a_matrix_of_one_row_is_one_unit_for_optax(optax):
    """It squeezes shapes first, so that of one input channel all units are measured together."""
    net = network("tanh", n_in=1)
    d, theta = draw(net, 1), draw(net, 2)
    theirs = nf.unpack(net, by_optax(net, d, optax.adaptive_grad_clip(0.1), theta)).w_in
    g, w = nf.unpack(net, d).w_in, nf.unpack(net, theta).w_in
    assert_close(theirs, naive.rescale(g.astype(np.float64), 0.1 * naive.length(w)), within("float32"))
    done = nf.unpack(net, ours(net, d, "unit", 0.1, theta=theta).d_theta).w_in
    assert_close(np.abs(done), np.minimum(np.abs(g), 0.1 * np.abs(w)), within("float32"))


def test_of_tiny_unit_gradients_optax_divides_by_its_epsilon(optax):
    net = network("tanh")
    d, theta = triangle(net, 1e-7), np.zeros(net.size, np.float32)
    d[7] = 0  # 3e-7 in one unit, of weights 0: the limit is 1e-4 * 1e-3
    assert_close(naive.length(ours(net, d, "unit", 1e-4, theta=theta).d_theta), 1e-7, within("float32"))
    theirs = by_optax(net, d, optax.adaptive_grad_clip(1e-4), theta)
    assert_close(naive.length(theirs), 3e-7 * 1e-7 / AGC_EPS, within("float32"))


@pytest.mark.parametrize("threshold", [0.05, 1.0, 100.0])
def test_clip_example_is_the_mean_of_which_optaxs_per_example_clip_is_the_sum(optax, threshold):
    case = make_case("gru", "square", "dense", "all", T=5, B=6, N=3, H=4, M=2, dtype="float32", seed=1)
    theta = case.theta.astype(np.float64)
    gradients = 6 * naive.shares(theta, *case.sizes, case.net.loss, case.plain)
    rows = [blocks(case.net, g.astype(np.float32)) for g in gradients]
    total, clipped = optax.per_example_global_norm_clip(
        [np.stack(parts) for parts in zip(*rows, strict=True)], threshold
    )
    out = nf.gradient(case.net, case.theta, case.batch, clip_example=threshold)
    assert_close(out.d_theta, joined(np.asarray(part) for part in total) / 6, within("float32", 5, case.terms))
    assert int(clipped) == (out.example_norms > threshold).sum()
