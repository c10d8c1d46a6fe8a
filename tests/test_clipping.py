"""Claims about clipping: against the reference, and the facts that hold exactly."""

from __future__ import annotations

import itertools
import math

import naive
import numpy as np
import pytest
from cases import CLIPS, DTYPES
from hypothesis import given, strategies as st
from tolerance import assert_close, near, same_bits, within

import nbflow as nf
from nbflow import counter
from nbflow.records import POLICIES

NET = {dtype: nf.Network("tanh", 2, 3, 2, loss="square", dtype=dtype) for dtype in DTYPES}
P = NET["float64"].size
BLOCKS = naive.sizes("tanh", 2, 3, 2)
SMALL = {dtype: nf.Network("linear", 1, 1, 1, loss="square", dtype=dtype) for dtype in DTYPES}  # five parameters
BAD = {"nan": [np.nan], "inf": [np.inf], "-inf": [-np.inf], "all": [np.nan, np.inf, -np.inf]}


def draw(dtype, seed=0, scale=1.0):
    return (scale * np.random.default_rng(seed).normal(size=P)).astype(dtype)


def direction_of(rng, replica=0):
    """Return the unit vector of a random step: Box and Muller's normals of the counter stream that `rng` names."""
    seed, normals = int(np.random.default_rng(rng).integers(2**63)), []
    for n in range((P + 3) // 4):
        words = naive.draw(seed, counter.DIRECTION, replica, 0, 0, n)
        for w0, w1 in (words[:2], words[2:]):
            radius = math.sqrt(-2 * math.log((w0 + 1) / 2**32))
            normals += [radius * math.cos(math.tau * w1 / 2**32), radius * math.sin(math.tau * w1 / 2**32)]
    return np.array(normals[:P]) / naive.length(normals[:P])


def assert_report(done, d, dtype):
    """Assert that a report tells the truth about a finite gradient and what became of it."""
    assert done.finite
    assert done.d_theta.dtype == dtype
    assert_close(done.norm, naive.length(d), within(dtype, 1, P), "the norm")
    assert_close(done.clipped_norm, naive.length(done.d_theta), within(dtype, 1, P), "the norm after")
    wanted = naive.cosine(d, done.d_theta)
    if math.isnan(wanted):
        assert math.isnan(done.cosine)
    else:
        assert abs(done.cosine - wanted) <= within(dtype, 1, P)
        assert -1 <= done.cosine <= 1


# ---------------------------------------------------------------------------------------------- against the reference


@pytest.mark.parametrize("rule", CLIPS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_clip_is_the_references(rule, dtype):
    for seed, threshold, scale in itertools.product(range(5), (1e-3, 0.1, 1.0, 3.0, 100.0), (1e-6, 1.0, 1e6)):
        d, theta = draw(dtype, seed, scale), draw(dtype, seed + 50)
        done = nf.clip(NET[dtype], d, nf.Clip(rule, threshold), theta=theta, rng=seed)
        wanted = naive.clip(rule, d, threshold, theta=theta, blocks=BLOCKS, direction=direction_of(seed))
        assert_close(done.d_theta, wanted.d_theta, within(dtype, 1, P))
        assert_report(done, d, dtype)
        if rule != "smoothed" or threshold < naive.length(d) / within(dtype):  # else its factor may be 1
            assert done.fraction == near(wanted.fraction)


@pytest.mark.sim
@pytest.mark.parametrize("rule", CLIPS)
def test_a_clip_is_the_references_for_a_small_network(rule):
    for threshold in (0.5, 100.0):
        d, theta = draw("float64", 1), draw("float64", 51)
        done = nf.clip(NET["float64"], d, nf.Clip(rule, threshold), theta=theta, rng=0)
        wanted = naive.clip(rule, d, threshold, theta=theta, blocks=BLOCKS, direction=direction_of(0))
        assert_close(done.d_theta, wanted.d_theta, within("float64", 1, P))
        assert_report(done, d, "float64")


@pytest.mark.parametrize("rule", CLIPS)
@pytest.mark.parametrize("policy", [policy for policy in POLICIES if policy != "raise"])
@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_stands_in_for_a_bad_gradient_is_the_references(rule, policy, bad, dtype):
    for threshold in (0.5, 100.0):
        d, theta = draw(dtype, 2), draw(dtype, 52)
        d[3 : 3 + 4 * len(BAD[bad]) : 4] = BAD[bad]
        done = nf.clip(NET[dtype], d, nf.Clip(rule, threshold, policy), theta=theta, rng=7)
        wanted = naive.clip(rule, d, threshold, policy, theta=theta, blocks=BLOCKS, direction=direction_of(7))
        assert done.d_theta.dtype == dtype
        assert_close(done.d_theta, wanted.d_theta, within(dtype, 1, P))
        assert_close(done.clipped_norm, naive.length(wanted.d_theta), within(dtype, 1, P))
        assert not done.finite
        assert not np.isfinite(done.norm)
        assert math.isnan(done.cosine)
        assert (done.fraction > 0) == (policy != "keep")
        if policy == "zero" and rule == "value":
            assert done.fraction == near(wanted.fraction)


# ----------------------------------------------------------------------------------------------------------- the rules


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1e-30, 1e-10, 1.0, 1e10, 1e30])
def test_the_clipped_norm_is_the_threshold_to_rounding(dtype, scale):
    for seed, part in itertools.product(range(20), (1e-6, 0.1, 0.999)):
        d = draw(dtype, seed, scale)
        threshold = part * naive.length(d)
        done = nf.clip(NET[dtype], d, nf.Clip("norm", threshold))
        assert_close(naive.length(done.d_theta), threshold, 8 * np.finfo(dtype).eps)
        assert_close(done.clipped_norm, threshold, 8 * np.finfo(dtype).eps)
        assert abs(done.cosine - 1) < within(dtype, 1, P)
        assert done.fraction == 1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("unit", [2.0**-140, 2.0**-90, 1.0, 2.0**60, 2.0**120])
def test_at_the_threshold_nothing_happens_and_just_above_it_something_does(dtype, unit):
    """A 3-4-5 triangle: its norm is exact, and so are the numbers next to it."""
    d = np.zeros(P, dtype)
    d[[2, 7]] = 3 * unit, -4 * unit
    norm = np.dtype(dtype).type(5 * unit)
    for threshold in (norm, np.nextafter(norm, np.dtype(dtype).type(np.inf)), 2 * norm):
        done = nf.clip(NET[dtype], d, nf.Clip("norm", float(threshold)))
        assert same_bits(done.d_theta, d)
        assert done.fraction == 0
        assert (done.norm, done.clipped_norm) == (norm, norm)
    below = nf.clip(NET[dtype], d, nf.Clip("norm", float(np.nextafter(norm, 0))))
    assert below.fraction == 1
    value = nf.clip(NET[dtype], d, nf.Clip("value", 4 * unit))
    assert same_bits(value.d_theta, d)
    assert value.fraction == 0
    assert nf.clip(NET[dtype], d, nf.Clip("value", float(np.nextafter(norm * 0.8, 0)))).fraction == near(1 / P)


def floats_of(dtype):
    """Every finite gradient there is: subnormal, huge, of both zeros, all of them side by side."""
    width = 8 * np.dtype(dtype).itemsize
    numbers = st.floats(width=width, allow_nan=False, allow_infinity=False)
    return st.tuples(*[numbers] * 5).map(lambda entries: np.array(entries, dtype))


THRESHOLDS = st.floats(1e-30, 1e30)


@pytest.mark.parametrize("dtype", DTYPES)
@given(data=st.data())
def test_any_finite_gradient_has_the_right_norm(dtype, data):
    d = data.draw(floats_of(dtype))
    done = nf.clip(SMALL[dtype], d, nf.Clip("norm", data.draw(THRESHOLDS)))
    assert done.finite
    assert_close(done.norm, naive.length(d), within(dtype, 1, 5))
    assert_close(done.clipped_norm, naive.length(done.d_theta), within(dtype, 1, 5))


@pytest.mark.parametrize("rule", [rule for rule in CLIPS if rule not in ("unit", "normalize", "smoothed")])
@pytest.mark.parametrize("dtype", DTYPES)
@given(data=st.data())
def test_any_gradient_below_the_threshold_keeps_its_bits(rule, dtype, data):
    """Every entry of it, however unlike the others it is in size; unit, normalize and smoothed do not compare it."""
    d = data.draw(floats_of(dtype))
    if naive.length(d) > np.finfo(dtype).max / 2:
        d = d / np.dtype(dtype).type(2.0**40)
    threshold = data.draw(st.floats(1.01, 2.0)) * max(naive.length(d), 1e-30)
    done = nf.clip(SMALL[dtype], d, nf.Clip(rule, threshold))
    assert np.array_equal(done.d_theta, d)
    assert done.fraction == 0


@pytest.mark.parametrize("dtype", DTYPES)
@given(data=st.data())
def test_any_gradient_above_the_threshold_gets_its_norm_and_keeps_its_direction(dtype, data):
    d, threshold = data.draw(floats_of(dtype)), float(np.dtype(dtype).type(data.draw(THRESHOLDS)))
    if naive.length(d) <= threshold * (1 + within(dtype, 1, 5)):
        return
    done = nf.clip(SMALL[dtype], d, nf.Clip("norm", threshold))
    assert done.fraction == 1
    assert_close(naive.length(done.d_theta), threshold, within(dtype, 1, 5))
    assert_close(done.d_theta, naive.clip("norm", d, threshold).d_theta, within(dtype, 1, 5))


@pytest.mark.parametrize("dtype", DTYPES)
@given(data=st.data())
def test_value_clipping_bounds_every_entry_and_leaves_the_others_alone(dtype, data):
    d, threshold = data.draw(floats_of(dtype)), np.dtype(dtype).type(data.draw(THRESHOLDS))
    done = nf.clip(SMALL[dtype], d, nf.Clip("value", float(threshold)))
    assert np.array_equal(done.d_theta, np.clip(d, -threshold, threshold))
    assert done.fraction == near((np.abs(d) > threshold).mean())


@pytest.mark.parametrize("dtype", DTYPES)
@given(data=st.data())
def test_value_clipping_is_a_descent_direction(dtype, data):
    """<clip(g), g> > 0 unless g is 0: no entry changes its sign or vanishes."""
    d = data.draw(floats_of(dtype))
    out = nf.clip(SMALL[dtype], d, nf.Clip("value", data.draw(THRESHOLDS))).d_theta
    assert (np.sign(out) == np.sign(d)).all()
    assert (np.abs(out) <= np.abs(d)).all()


@pytest.mark.parametrize("rule", [rule for rule in CLIPS if rule != "smoothed"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_clipping_twice_is_clipping_once_to_rounding(rule, dtype):
    theta = draw(dtype, 60)
    for seed in range(50):
        how = nf.Clip(rule, 0.3)
        once = nf.clip(NET[dtype], draw(dtype, seed), how, theta=theta, rng=0).d_theta
        twice = nf.clip(NET[dtype], once, how, theta=theta, rng=0).d_theta
        assert_close(twice, once, 8 * np.finfo(dtype).eps)
        if rule == "value":
            assert same_bits(twice, once)


@pytest.mark.parametrize("size", [1e30, 1e-30, 3e38, 1e-38, 1e-44, 2.0**-149])
def test_float32_entries_of_any_size_have_the_right_norm_and_clip(size):
    d = np.float32(size) * np.where(np.arange(P) % 3, 1, -1).astype(np.float32)
    norm = np.sqrt(P) * np.float64(np.float32(size))
    whole = nf.clip(NET["float32"], d, nf.Clip("norm", 3.4e38))
    assert_close(whole.norm, norm, within("float32"))
    if norm < 3e38:
        assert same_bits(whole.d_theta, d)
        assert_close(whole.clipped_norm, norm, within("float32"))
    for threshold in (1e-20, 1e-3, 1.0, 1e20):
        done = nf.clip(NET["float32"], d, nf.Clip("norm", threshold))
        assert done.finite
        assert done.fraction == float(norm > threshold)
        assert_close(naive.length(done.d_theta), min(norm, threshold), within("float32"))
        assert_close(done.clipped_norm, min(norm, threshold), within("float32"))
        assert_close(done.cosine, 1.0, within("float32"))


def test_one_huge_entry_does_not_hide_the_small_ones():
    """In float32, 1e30 beside 1e-20: below the threshold both keep their bits, and by value only one is clipped."""
    d = np.zeros(P, np.float32)
    d[:4] = 1e30, 1e-20, 1e-10, -1.0
    assert same_bits(nf.clip(NET["float32"], d, nf.Clip("norm", 1e31)).d_theta, d)
    clipped = nf.clip(NET["float32"], d, nf.Clip("value", 1e5)).d_theta
    assert clipped[0] == 1e5
    assert same_bits(clipped[1:], d[1:])


def test_a_gradient_of_0_stays_0():
    for rule, dtype in itertools.product(("norm", "value"), DTYPES):
        done = nf.clip(NET[dtype], np.zeros(P, dtype), nf.Clip(rule, 1.0))
        assert not done.d_theta.any()
        assert (done.norm, done.clipped_norm, done.fraction, done.finite) == (0, 0, 0, True)
        assert math.isnan(done.cosine)


def test_an_infinite_threshold_clips_nothing():
    for rule, dtype in itertools.product(("norm", "value"), DTYPES):
        d = draw(dtype, 3, 1e20)
        assert same_bits(nf.clip(NET[dtype], d, nf.Clip(rule, np.inf)).d_theta, d)


@pytest.mark.parametrize("rule", ["norm", "value"])
@pytest.mark.parametrize("size", [1, 7, 511, 512, 513, 5000])
def test_norms_of_long_vectors_are_right_in_float32(rule, size):
    """Sums over one block and over many, and what is left of one."""
    net = nf.Network("linear", 1, 1, size, loss="square")
    d = np.random.default_rng(4).normal(size=net.size).astype(np.float32)
    done = nf.clip(net, d, nf.Clip(rule, 0.5))
    wanted = naive.clip(rule, d, 0.5)
    assert_close(done.d_theta, wanted.d_theta, within("float32"))
    assert_close(
        (done.norm, done.clipped_norm, done.cosine),
        (wanted.norm, wanted.clipped_norm, wanted.cosine),
        within("float32"),
    )
    assert done.fraction == near(wanted.fraction)


@pytest.mark.parametrize("x", [-2.0, -1.5, -0.25, 0.0, 0.5, 1.0, 1.75, 2.0])
def test_the_mean_of_clipped_gradients_can_vanish_far_from_the_minimum(x):
    """Chen, Wu & Hong 2020: f(x) = mean (x - a)^2 / 2, a = -3, 3, clipped at 1: no gradient is left for |x| <= 2."""
    net = nf.Network("linear", 1, 1, 1, loss="square", dtype="float64")
    d = np.zeros((2, net.size))
    d[:, 0] = x - np.array([-3.0, 3.0])
    done = nf.clip(net, d, nf.Clip("norm", 1.0))
    assert abs(done.d_theta.mean(axis=0)).max() <= 2 * np.finfo(float).eps
    assert (d.mean(axis=0)[0] != 0) == (x != 0)


# ------------------------------------------------------------------------------------------------------- the policies


def test_the_default_policy_is_a_random_step():
    d = draw("float64")
    d[0] = np.nan
    one, two = (
        nf.clip(NET["float64"], d, how, rng=3) for how in (nf.Clip("norm", 2.0), nf.Clip("norm", 2.0, "random"))
    )
    assert same_bits(one.d_theta, two.d_theta)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("threshold", [1e-10, 1.0, 1e20])
def test_a_random_step_has_the_length_of_the_threshold_and_repeats(dtype, threshold):
    d = np.full(P, np.inf, dtype)
    one, two, other = (nf.clip(NET[dtype], d, nf.Clip("norm", threshold), rng=rng) for rng in (0, 0, 1))
    assert_close(naive.length(one.d_theta), threshold, 4 * np.finfo(dtype).eps)
    assert same_bits(one.d_theta, two.d_theta)
    assert not np.array_equal(one.d_theta, other.d_theta)
    assert np.isfinite(one.d_theta).all()


def test_random_steps_point_everywhere_alike():
    """n unit vectors in P dimensions, uniform: n |mean|^2 has mean 1 and variance about 2/P.

    The bound of 8 standard deviations on each side has a false-alarm rate below 1e-6 (and the seeds are fixed). The
    second moments are 1/P each with variance 2/(P (P + 2)) / n about; 6 deviations over P of them: below 1e-7.
    """
    n = 2000
    d = np.full((n, P), np.nan)
    steps = nf.clip(NET["float64"], d, nf.Clip("norm", 1.0), rng=0).d_theta
    spread = math.sqrt(2 / P)
    assert abs(n * (steps.mean(axis=0) ** 2).sum() - 1) < 8 * spread
    assert np.abs((steps**2).mean(axis=0) - 1 / P).max() < 6 * math.sqrt(2 / (P * (P + 2)) / n)


def test_replicas_step_in_directions_of_their_own():
    d = np.full((3, P), np.nan)
    steps = nf.clip(NET["float64"], d, nf.Clip("norm", np.array([1.0, 2.0, 3.0])), rng=5).d_theta
    for r in range(3):
        assert_close(steps[r], (r + 1) * direction_of(5, r), within("float64", 1, P))


@pytest.mark.parametrize("policy", [policy for policy in POLICIES if policy != "raise"])
@pytest.mark.parametrize("rule", CLIPS)
def test_other_replicas_are_untouched_to_the_bit(policy, rule):
    """A good gradient beside a bad one is clipped as if it were alone, and with the threshold that is its own."""
    d, theta = np.stack([draw("float32", r) for r in range(4)]), np.stack([draw("float32", 60 + r) for r in range(4)])
    thresholds = np.array([0.5, 1.0, 100.0, 0.1])
    good = nf.clip(NET["float32"], d, nf.Clip(rule, thresholds, policy), theta=theta, rng=0)
    d[1, 4], d[3] = np.nan, -np.inf
    mixed = nf.clip(NET["float32"], d, nf.Clip(rule, thresholds, policy), theta=theta, rng=0)
    assert mixed.finite.tolist() == [True, False, True, False]
    for r in (0, 2):
        alone = nf.clip(NET["float32"], d[r], nf.Clip(rule, thresholds[r], policy), theta=theta[r], rng=0)
        assert same_bits(mixed.d_theta[r], good.d_theta[r])
        assert same_bits(mixed.d_theta[r], alone.d_theta)
        for name in ("norm", "clipped_norm", "fraction", "cosine"):
            assert getattr(mixed, name)[r] == getattr(good, name)[r] == getattr(alone, name)


@pytest.mark.parametrize("name", [name for name, shape in BLOCKS.items() if np.prod(shape)])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_raise_names_the_parameter_and_the_replica(name, bad):
    d = np.stack([draw("float32", r) for r in range(3)])
    d[2, naive.slices(BLOCKS)[name].start] = bad
    how = nf.Clip("norm", 1.0, "raise")
    with pytest.raises(FloatingPointError, match=rf"replica 2\b.*1 of {name}\b") as caught:
        nf.clip(NET["float32"], d, how)
    others = set(BLOCKS) - {name}
    assert not any(f" {other}" in str(caught.value) for other in others)
    with pytest.raises(FloatingPointError, match=rf"1 of {name}\b"):
        nf.clip(NET["float32"], d[2], how)
    assert nf.clip(NET["float32"], d[:2], how).finite.all()


def test_zero_drops_the_bad_entries_and_clips_the_rest():
    d = draw("float64", 8)
    d[[1, 5]] = np.nan, np.inf
    kept = np.where(np.isfinite(d), d, 0)
    for rule, threshold in itertools.product(("norm", "value"), (0.5, 100.0)):
        done = nf.clip(NET["float64"], d, nf.Clip(rule, threshold, "zero"))
        assert same_bits(done.d_theta, nf.clip(NET["float64"], kept, nf.Clip(rule, threshold)).d_theta)


def test_keep_keeps_every_bit_and_skip_is_0():
    d = draw("float32", 9)
    d[[0, 3, 6]] = np.nan, np.inf, -np.inf
    assert same_bits(nf.clip(NET["float32"], d, nf.Clip("norm", 1.0, "keep")).d_theta, d)
    assert not nf.clip(NET["float32"], d, nf.Clip("norm", 1.0, "skip")).d_theta.any()


def test_shrink_is_a_fiftieth_of_w_rec():
    d, theta = draw("float64", 10), draw("float64", 11)
    d[0] = np.nan
    done = nf.clip(NET["float64"], d, nf.Clip("norm", 1e-6, "shrink"), theta=theta)
    wanted = np.zeros(P)
    where = naive.slices(BLOCKS)["w_rec"]
    wanted[where] = 0.02 * theta[where]
    assert same_bits(done.d_theta, wanted)


@pytest.mark.parametrize("policy", POLICIES)
def test_arguments_are_not_changed(policy):
    d, theta = np.stack([draw("float32", r) for r in range(2)]), np.stack([draw("float32", 60 + r) for r in range(2)])
    if policy != "raise":
        d[1, 2] = np.nan
    thresholds = np.array([0.1, 0.2])
    before = d.copy(), theta.copy(), thresholds.copy()
    for array in (d, theta, thresholds):
        array.flags.writeable = False
    done = nf.clip(NET["float32"], d, nf.Clip("norm", thresholds, policy), theta=theta, rng=0)
    assert same_bits((d, theta, thresholds), before)
    assert not np.shares_memory(done.d_theta, d)
    assert done.d_theta.flags.writeable


@pytest.mark.parametrize("policy", POLICIES)
def test_the_order_of_memory_does_not_matter(policy):
    d, theta = np.stack([draw("float64", r) for r in range(4)]), np.stack([draw("float64", 60 + r) for r in range(4)])
    if policy != "raise":
        d[2, 3] = np.inf
    how = nf.Clip("norm", 0.5, policy)
    plain = nf.clip(NET["float64"], d, how, theta=theta, rng=0)
    wide, wide_theta = np.empty((4, 2 * P)), np.empty((4, 2 * P))
    wide[:, ::2], wide_theta[:, ::2] = d, theta
    forms = [(np.asfortranarray(d), np.asfortranarray(theta)), (wide[:, ::2], wide_theta[:, ::2]),
             (d[::-1, ::-1].copy()[::-1, ::-1], theta[::-1].copy()[::-1])]  # fmt: skip
    for other, other_theta in forms:
        assert same_bits(nf.clip(NET["float64"], other, how, theta=other_theta, rng=0).d_theta, plain.d_theta)
