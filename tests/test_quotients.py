"""Claims about clips inside a gradient where threshold / norm leaves the range of numbers, and about parts left out.

The networks here are such that every number of the reference is a product of powers: a linear one that multiplies its
state by `gain` at every step, so that gradients of any size come of numbers that are moderate.
"""

from __future__ import annotations

import itertools
import math

import naive
import numpy as np
import pytest
from cases import DTYPES, make_case
from hypothesis import given, strategies as st
from tolerance import assert_close, same_bits, within

import nbflow as nf
from nbflow.cpu.norm import build_examine, build_measure, build_shrink

B = 5
NET = {dtype: nf.Network("linear", 1, 4, 1, loss="square", dtype=dtype) for dtype in DTYPES}


def network_of(dtype):
    """Return a network without recurrence whose gradient is as large as its inputs and targets make it."""
    net = NET[dtype]
    theta = nf.init(net, "identity", rng=0)
    nf.unpack(net, theta).w_rec[...] = 0
    return net, theta


def batch_of(dtype, sizes):
    """Return a batch of one step whose examples have slopes of some sizes at the output."""
    inputs = np.random.default_rng(1).uniform(0.5, 1, (1, len(sizes), 1)).astype(dtype)
    weights = (np.array(sizes) / len(sizes)).astype(dtype)[None]
    return nf.Batch(inputs, np.full((1, len(sizes), 1), 3, dtype), weights)


def gradients_of(net, theta, batch):
    """Return B times each example's share of the gradient (B, P), in long double: exact enough, and of any size."""
    rows = []
    for b in range(batch.weights.shape[1]):
        size = np.longdouble(batch.weights[0, b])
        one = nf.Batch(batch.inputs[:, b : b + 1], batch.targets[:, b : b + 1], np.ones((1, 1), net.dtype))
        plain = nf.gradient(nf.Network(**{**vars_of(net), "dtype": "float64"}), theta.astype("f8"), as_double(one))
        rows.append(plain.d_theta.astype(np.longdouble) * size * batch.weights.shape[1])
    return np.array(rows)


def vars_of(net):
    return {name: getattr(net, name) for name in ("cell", "n_in", "n_hidden", "n_out", "loss")}


def as_double(batch):
    return nf.Batch(*(part.astype("f8") for part in batch))


def clipped(rows, threshold):
    """Return the mean of the rows, each of at most this norm, in long double."""
    norms = np.sqrt((rows**2).sum(axis=1))
    factors = np.where(norms > threshold, threshold / norms, 1)
    return (factors[:, None] * rows).mean(axis=0), norms


def sizes_of(dtype):
    """Return sizes of a slope, and thresholds, from nearly the least to nearly the greatest number."""
    limits = np.finfo(dtype)
    root = float(limits.max) ** 0.5
    return [float(limits.tiny) * 64, float(limits.tiny) ** 0.5, 1.0, root, float(limits.max) / 64]


def thresholds_of(dtype):
    limits = np.finfo(dtype)
    least = float(limits.smallest_subnormal)
    return [
        least,
        1000 * least,
        float(limits.tiny),
        3 * float(limits.tiny),
        *sizes_of(dtype),
        float(limits.max),
        np.inf,
    ]


def allowed(dtype, threshold, count):
    """Return what rounding to the least number may do to a vector of `count` entries: a subnormal one for a small v.

    Elsewhere they are 0 in a gradient, whoever clips it.
    """
    limits = np.finfo(dtype)
    least = limits.smallest_subnormal if threshold < limits.tiny / limits.eps else limits.tiny
    return float(least) * count**0.5


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("by", ["example", "group"])
def test_a_clip_by_example_is_right_for_thresholds_and_norms_from_the_least_to_the_greatest_number(dtype, by):
    if np.finfo(np.longdouble).maxexp <= np.finfo(np.float64).maxexp:
        pytest.skip("no number here is longer than float64")
    net, theta = network_of(dtype)
    for size, threshold in itertools.product(sizes_of(dtype), thresholds_of(dtype)):
        batch = batch_of(dtype, [size] * 4)
        rows = gradients_of(net, theta, batch)
        if by == "group":
            rows = rows.reshape(2, 2, -1).mean(axis=1)
        held = np.longdouble(np.dtype(dtype).type(threshold))
        wanted, norms = clipped(rows, held)
        if (abs(rows) / 4 > np.finfo(dtype).max).any():
            continue
        how = {"clip_example": threshold} if by == "example" else {"clip_microbatch": (2, threshold)}
        out = nf.gradient(net, theta, batch, **how)
        error = np.sqrt(((out.d_theta.astype(np.longdouble) - wanted) ** 2).sum())
        bound = 100 * np.finfo(dtype).eps * np.sqrt((wanted**2).sum()) + 4 * allowed(dtype, threshold, net.size)
        assert error <= bound, (size, threshold, out.d_theta, wanted)
        if (norms < np.finfo(np.float64).max).all():
            bound = 100 * np.finfo(dtype).eps * norms + 4 * allowed(dtype, threshold, net.size)
            assert (abs(out.example_norms - norms) <= bound).all(), (size, threshold, out.example_norms, norms)
        assert out.left_out == 0


@pytest.mark.parametrize("dtype", DTYPES)
@given(data=st.data())
def test_a_vector_of_any_size_is_shrunk_to_any_threshold(dtype, data):
    """What `clip_example` and `HiddenClip(by="norm")` share, on the numbers themselves."""
    kind, limits = np.dtype(dtype).type, np.finfo(dtype)
    width = 8 * np.dtype(dtype).itemsize
    number = st.floats(width=width, allow_nan=False, allow_infinity=False)
    row = np.array(data.draw(st.lists(number, min_size=16, max_size=16)), dtype)
    threshold = kind(data.draw(st.floats(float(limits.smallest_subnormal), float(limits.max), width=width)))
    before, (root, scale) = row.copy(), build_measure(kind)(row)
    factor = build_shrink(kind)(row, root, scale, threshold)
    got, exact = (factor * row).astype(np.longdouble), before.astype(np.longdouble)
    largest = abs(exact).max()
    norm = largest * np.sqrt(((exact / largest) ** 2).sum()) if largest else np.longdouble(0)
    if norm <= threshold * (1 + 8 * np.longdouble(limits.eps)):
        if norm < threshold * (1 - 8 * np.longdouble(limits.eps)):
            assert same_bits(factor * row, before)
        return
    wanted = exact / norm * np.longdouble(threshold)
    bound = 32 * np.longdouble(limits.eps) * np.longdouble(threshold) + allowed(dtype, threshold, 16)
    assert abs(got - wanted).max() <= bound


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_vector_that_is_not_finite_is_not_taken_for_one_below_the_threshold(dtype):
    kind = np.dtype(dtype).type
    for bad in (np.nan, np.inf):
        row = np.ones(16, dtype)
        row[3] = bad
        root, scale, finite = build_examine(kind)(row)
        assert not finite
        factor = build_shrink(kind)(row, root, scale, kind(0.5))
        assert not np.isfinite(factor * row).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("site", ["preactivation", "state"])
def test_a_clip_inside_bptt_by_norm_is_right_for_any_threshold_and_norm(dtype, site):
    """One step: what is clipped goes into w_in and bias as it is, times an input of 1."""
    net, theta = network_of(dtype)
    bias = nf.unpack(net, np.arange(net.size, dtype=dtype)).bias[0].astype(int)
    for size, threshold in itertools.product(sizes_of(dtype), thresholds_of(dtype)):
        batch = batch_of(dtype, [size])._replace(inputs=np.ones((1, 1, 1), dtype))
        plain = gradients_of(net, theta, batch)[0][bias]
        if (abs(plain) > np.finfo(dtype).max).any():
            continue
        out = nf.gradient(net, theta, batch, clip_hidden=nf.HiddenClip(threshold, site, "norm"))
        wanted, _ = clipped(plain[None], np.longdouble(np.dtype(dtype).type(threshold)))
        got = nf.unpack(net, out.d_theta)
        for found in (got.bias[0], got.w_in[0, 0]):
            error = abs(found.astype(np.longdouble) - wanted).max()
            bound = 100 * np.finfo(dtype).eps * abs(wanted).max() + allowed(dtype, threshold, 4)
            assert error <= bound, (size, threshold, found, wanted)


def overflowing(dtype="float32"):
    """Return a network and 20 examples, the first of which has a finite gradient with a norm beyond float32."""
    net = nf.Network("relu", 1, 8, 1, loss="square", dtype=dtype)
    theta = nf.init(net, "identity", rng=0)
    nf.unpack(net, theta).w_rec[...] *= 1.6
    steps = 119
    inputs = np.zeros((steps, 20, 1), dtype)
    inputs[:, 0], inputs[0, 1:] = 1, 1e-20
    weights = np.zeros((steps, 20), dtype)
    weights[-1] = 1 / 20
    return net, theta, nf.Batch(inputs, np.zeros((steps, 20, 1), dtype), weights)


def test_an_example_with_a_norm_beyond_float32_counts_with_the_thresholds_length():
    net, theta, batch = overflowing()
    out = nf.gradient(net, theta, batch, clip_example=1.0)
    double = nf.Network(**{**vars_of(net), "dtype": "float64"})
    wanted = nf.gradient(double, theta.astype("f8"), as_double(batch), clip_example=1.0)
    assert np.isfinite(nf.gradient(net, theta, batch).d_theta).all()
    assert out.example_norms[0] > np.finfo("f4").max
    assert_close(out.example_norms, wanted.example_norms, within("float32", *batch.weights.shape, condition=5))
    assert_close(out.d_theta, wanted.d_theta, within("float32", *batch.weights.shape, condition=5))


@pytest.mark.parametrize("rule", ["unit"])
@pytest.mark.parametrize("weight, threshold, size", [(3e38, 1e10, 1e38), (1e-30, 1e-43, 1.0), (1e20, 1e-44, 1.0)])
def test_a_threshold_relative_to_weights_may_leave_float32(rule, weight, threshold, size):
    """v ||w_unit|| as a number of float32 would be Inf, or 0, or one of two or three digits."""
    net = nf.Network("tanh", 2, 3, 1)
    theta, d = np.full(net.size, weight, "f4"), np.full(net.size, size, "f4")
    done = nf.clip(net, d, nf.Clip(rule, threshold), theta=theta)
    held = float(np.float32(threshold))
    blocks = {name: part.shape for name, part in nf.unpack(net, theta)._asdict().items()}
    wanted = naive.clip(rule, d.astype("f8"), held, theta=theta.astype("f8"), blocks=blocks)
    assert (
        abs(done.d_theta - wanted.d_theta).max()
        <= within("float32") * abs(wanted.d_theta).max() + np.finfo("f4").smallest_subnormal
    )
    assert done.fraction == wanted.fraction


# ------------------------------------------------------------------------------------------------------ parts left out


def spoilt(dtype, bad, size=1):
    """Return a case of 6 examples, and its batch with some of them spoilt: their gradients are not finite."""
    case = make_case("tanh", "square", "dense", "all", T=4, B=6, N=2, H=3, M=2, dtype=dtype, seed=2)
    targets, weights = case.batch.targets.copy(), case.batch.weights.copy()
    targets[:, bad], weights[:, bad] = np.finfo(dtype).max, np.finfo(dtype).max
    silent = case.batch.weights.copy()
    for b in bad:
        silent[:, b // size * size : b // size * size + size] = 0
    return case, case.batch._replace(targets=targets, weights=weights), case.batch._replace(weights=silent)


@pytest.mark.sim
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size, bad", [(1, [0, 4]), (2, [3]), (3, [0, 1]), (1, [])])
def test_an_example_or_a_group_that_is_not_finite_is_left_out_and_the_others_keep_every_bit(dtype, size, bad):
    """As if its weights were 0, so the mean is over B all the same."""
    case, batch, silent = spoilt(dtype, bad, size)
    how = nf.MicrobatchClip(size, 0.2, "skip")
    out = nf.gradient(case.net, case.theta, batch, clip_microbatch=how)
    wanted = nf.gradient(case.net, case.theta, silent, clip_microbatch=(size, 0.2))
    groups = sorted({b // size for b in bad})
    assert np.isfinite(out.d_theta).all()
    assert out.d_theta.any()
    assert same_bits(out.d_theta + 0, wanted.d_theta + 0)  # a zero has no sign to keep
    assert out.left_out == len(groups)
    assert np.flatnonzero(np.isnan(out.example_norms)).tolist() == groups
    if size == 1:
        same = nf.gradient(case.net, case.theta, batch, clip_example=nf.ExampleClip(0.2, "skip"))
        assert same_bits(same.d_theta, out.d_theta)


@pytest.mark.sim
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("how", [0.2, nf.ExampleClip(0.2), nf.ExampleClip(0.2, "keep")])
def test_by_default_it_is_kept_and_the_policy_of_the_whole_gradient_sees_it(how):
    case, batch, _ = spoilt("float64", [1])
    out = nf.gradient(case.net, case.theta, batch, clip_example=how)
    assert not np.isfinite(out.d_theta).all()
    assert (out.left_out, np.isnan(out.example_norms).tolist()) == (0, [b == 1 for b in range(6)])


@pytest.mark.sim
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_raise_names_the_example_the_group_and_the_replica():
    case, batch, _ = spoilt("float64", [1, 4])
    with pytest.raises(FloatingPointError, match=r"gradient of example 1 is not finite, one of 2 of 6.*'skip'"):
        nf.gradient(case.net, case.theta, batch, clip_example=nf.ExampleClip(0.2, "raise"))
    with pytest.raises(FloatingPointError, match=r"gradient of examples 0 to 2 is not finite, one of 2 of 2"):
        nf.gradient(case.net, case.theta, batch, clip_microbatch=nf.MicrobatchClip(3, 0.2, "raise"))
    both = nf.Batch(*(np.stack(parts) for parts in zip(case.batch, batch, strict=True)))
    theta = np.stack([case.theta] * 2)
    with pytest.raises(FloatingPointError, match=r"example 1 of replica 1"):
        nf.gradient(case.net, theta, both, clip_example=nf.ExampleClip(0.2, "raise"))
    out = nf.gradient(case.net, theta, both, clip_example=nf.ExampleClip(0.2, "skip"))
    assert out.left_out.tolist() == [0, 2]
    nf.gradient(case.net, case.theta, case.batch, clip_example=nf.ExampleClip(0.2, "raise"))


def test_a_policy_that_there_is_not_is_refused():
    for make in (lambda: nf.ExampleClip(1.0, "zero"), lambda: nf.MicrobatchClip(2, 1.0, "zero")):
        with pytest.raises(ValueError, match="nonfinite is 'zero'; expected one of keep, skip, raise"):
            make()


@pytest.mark.gpu
@pytest.mark.sim
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("dtype", DTYPES)
def test_on_the_card_parts_are_left_out_and_quotients_stay_in_range_too(dtype):
    case, batch, _ = spoilt(dtype, [0, 4])
    least = float(np.finfo(dtype).smallest_subnormal)
    for how in (nf.MicrobatchClip(1, 0.2, "skip"), nf.MicrobatchClip(2, 0.2, "skip"), nf.MicrobatchClip(2, 0.2)):
        got, wanted = (nf.gradient(case.net, case.theta, batch, clip_microbatch=how, backend=backend)
                       for backend in ("cuda", "cpu"))  # fmt: skip
        assert got.left_out == wanted.left_out
        assert np.isnan(got.example_norms).tolist() == np.isnan(wanted.example_norms).tolist()
        assert np.isfinite(got.d_theta).all() == (how.nonfinite == "skip")
        if how.nonfinite == "skip":
            assert_close(got.d_theta, wanted.d_theta, within(dtype, 4, 10))
    with pytest.raises(FloatingPointError, match="example 0 is not finite"):
        nf.gradient(case.net, case.theta, batch, clip_example=nf.ExampleClip(1.0, "raise"), backend="cuda")
    net, theta = network_of(dtype)
    pairs = [pair for pair in itertools.product(sizes_of(dtype)[1:], (1000 * least, 1.0)) if pair[0] > pair[1]]
    for size, threshold in [*pairs, (1.0, sizes_of(dtype)[-1])]:  # what is clipped, and one that is not
        batch = batch_of(dtype, [size] * 2)
        for choice in ({"clip_example": threshold}, {"clip_hidden": nf.HiddenClip(threshold, "state", "norm")}):
            got, wanted = (nf.gradient(net, theta, batch, backend=backend, **choice) for backend in ("cuda", "cpu"))
            error = abs(got.d_theta.astype(np.longdouble) - wanted.d_theta).max()
            bound = 100 * np.finfo(dtype).eps * np.longdouble(abs(wanted.d_theta).max())
            assert error <= bound + 4 * allowed(dtype, threshold, 16), (size, threshold, choice)


def source_of(bad):
    """Return a source of batches of two replicas; `bad` tells which examples of the second are spoilt at an update."""
    rng = np.random.default_rng(5)
    inputs, targets = rng.normal(size=(8, 2, 3, 4, 1)), rng.normal(size=(8, 2, 3, 4, 1))
    weights = np.full((8, 2, 3, 4), 1 / 4)
    for update, examples in bad.items():
        targets[update, 1][:, examples], weights[update, 1][:, examples] = 1e308, 1e308
    return lambda update: nf.Batch(inputs[update], targets[update], weights[update])


@pytest.mark.parametrize("clip", [None, nf.Clip("norm", 1.0, "raise")])
@pytest.mark.parametrize("resumed", [False, True])
def test_a_training_counts_what_was_left_out_and_takes_no_step_where_nothing_is_left(clip, resumed, tmp_path):
    net = nf.Network("tanh", 1, 3, 1, loss="square", dtype="float64")
    theta = nf.init(net, "smart_tanh", rng=0, replicas=2)
    source = source_of({1: [0, 2], 3: [0, 1, 2, 3], 4: [3]})
    recipe = {"optimizer": "adam", "lr": 0.1, "clip": clip, "record_every": 4,
              "clip_example": nf.ExampleClip(np.array([0.3, 0.5]), "skip")}  # fmt: skip
    at = {}
    for most in (3, 6) if resumed else (6,):
        run = nf.train(
            net, theta, source, nf.Recipe(max_updates=most, **recipe), checkpoint=tmp_path / "run.npz",
        )  # fmt: skip
        at[most] = run.theta
    assert run.history["left_out"] == ([[0, 2], [0, 4], [0, 1]] if resumed else [[0, 6], [0, 1]])
    assert np.isfinite(run.theta).all()
    one, two = (nf.train(net, theta, source, nf.Recipe(max_updates=most, **recipe)).theta for most in (3, 4))
    assert same_bits(one[1], two[1])
    assert not same_bits(one[0], two[0])
    alone = nf.train(
        net, theta[0], lambda k: nf.Batch(*(part[0] for part in source(k))),
        nf.Recipe(max_updates=6, **{**recipe, "clip_example": 0.3}),
    )  # fmt: skip
    assert same_bits(alone.theta, run.theta[0])
    assert "left_out" not in alone.history


def test_a_training_with_the_policy_raise_ends_before_the_step_and_names_the_update():
    net = nf.Network("tanh", 1, 3, 1, loss="square", dtype="float64")
    theta = nf.init(net, "smart_tanh", rng=0, replicas=2)
    recipe = nf.Recipe(max_updates=6, clip_microbatch=nf.MicrobatchClip(2, 0.3, "raise"))
    with pytest.raises(FloatingPointError, match=r"examples 2 to 3 of replica 1 .* update 4") as caught:
        nf.train(net, theta, source_of({4: [3]}), recipe)
    whole = nf.train(net, theta, source_of({}), nf.Recipe(max_updates=4, clip_microbatch=(2, 0.3)))
    assert same_bits(caught.value.run.theta, whole.theta)


@pytest.mark.gpu
@pytest.mark.sim
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_training_on_the_card_leaves_out_the_same():
    net = nf.Network("tanh", 1, 2, 1, loss="square", dtype="float64")
    theta = nf.init(net, "basic_tanh", rng=0, replicas=2)
    recipe = nf.Recipe(optimizer="momentum", lr=0.1, max_updates=4, record_every=2,
                       clip_example=nf.ExampleClip(0.5, "skip"))  # fmt: skip
    source = source_of({1: [0, 2], 3: [0, 1, 2, 3]})
    got, wanted = (nf.train(net, theta, source, recipe, backend=backend) for backend in ("cuda", "cpu"))
    assert got.history["left_out"] == wanted.history["left_out"] == [[0, 2], [0, 4]]
    assert_close(got.theta, wanted.theta, within("float64", 12, 10))
    harsh = nf.Recipe(max_updates=4, clip_example=nf.ExampleClip(0.5, "raise"))
    with pytest.raises(FloatingPointError, match=r"example 0 of replica 1 .* update 1"):
        nf.train(net, theta, source, harsh, backend="cuda")


def test_the_bias_of_a_clip_by_example_that_leaves_some_out_is_that_of_the_others():
    case, batch, silent = spoilt("float64", [1])
    assert math.isfinite(nf.gradient(case.net, case.theta, silent).loss)
    found = nf.clipping_bias(case.net, case.theta, [silent, silent], {"one": nf.ExampleClip(0.2, "skip")}, rng=0)
    plain = nf.clipping_bias(case.net, case.theta, [silent, silent], {"one": nf.ExampleClip(0.2)}, rng=0)
    assert same_bits(found.rules["one"].mean, plain.rules["one"].mean)
    assert same_bits(found.rules["one"].kept, plain.rules["one"].kept)


@pytest.mark.parametrize("name", ["percentile", "zscore"])
def test_a_threshold_that_follows_the_norms_learns_nothing_of_an_update_of_which_nothing_is_left(name):
    """Such a run is the run without that update."""
    net = nf.Network("tanh", 1, 3, 1, loss="square", dtype="float64")
    theta = nf.init(net, "smart_tanh", rng=0, replicas=2)
    source = source_of({3: [0, 1, 2, 3]})
    how = {"clip": nf.Clip("norm", nf.load_threshold(name)), "clip_example": nf.ExampleClip(0.5, "skip"),
           "record_every": 1}  # fmt: skip
    run = nf.train(net, theta, source, nf.Recipe(max_updates=7, **how))
    other = nf.train(net, theta, lambda k: source(k + (k > 2)), nf.Recipe(max_updates=6, **how))
    assert same_bits(run.theta[1], other.theta[1])
    of_second = [row[1] for row in run.history["threshold"]]
    assert [*of_second[:3], *of_second[4:]] == [row[1] for row in other.history["threshold"]]
