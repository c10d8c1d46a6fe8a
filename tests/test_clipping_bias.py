"""Claims about the bias of clipping: against the reference, exact cases, intervals, and who loses weight."""

from __future__ import annotations

import math

import naive
import numpy as np
import pytest
from cases import CELLS, CLIPS, DTYPES, KINDS, LOSSES, make_case, make_theta
from test_inside import hidden_reference
from tolerance import assert_close, near, same_bits, within

import nbflow as nf
from nbflow._compile import ONE, unit
from nbflow.diagnostics._bootstrap import distances, intervals

N_BATCHES, B = 6, 4


@unit
def soft(g, norm, threshold):
    return g / (ONE + norm / threshold)


SOFT = nf.Rule(over="all", clip=soft)


def reference_set(cell, loss="softmax", kind="dense", dtype="float64", batch=B, count=N_BATCHES, when="all"):
    """Return a network, its parameters, minibatches, and the same as cases for the reference."""
    cases = [
        make_case(cell, loss, kind, when, T=4, B=batch, N=3, H=4, M=3, dtype=dtype, seed=200 + k) for k in range(count)
    ]
    theta = make_theta(cases[0].net, np.random.default_rng(0)).astype(dtype)
    return cases[0].net, theta, [case.batch for case in cases], [case._replace(theta=theta) for case in cases]


# Thresholds that some gradients reach, or some entries: 0.7 where nothing stands here.
REACHED = {"value": 0.03}


def ways(scale):
    """Return every way of clipping there is, and a rule of a user's, at thresholds that some gradients reach."""
    every = {name: nf.Clip(name, REACHED.get(name, 0.7) * scale) for name in CLIPS}
    every["soft"] = nf.Clip(SOFT, scale)
    every["example"], every["two"] = nf.ExampleClip(1.5 * scale), nf.MicrobatchClip(2, scale)
    for site in ("preactivation", "state"):
        for by in ("value", "norm"):
            every[f"{site} {by}"] = nf.HiddenClip(0.02, site=site, by=by)
    return every


def slow_rows(name, how, cases, random_rows):
    """Return what is left (B, P) of the shares of every minibatch, by the reference."""
    left = []
    for case, random_row in zip(cases, random_rows, strict=True):
        theta = case.theta.astype(np.float64)
        shares = naive.shares(theta, *case.sizes, case.net.loss, case.plain)
        if isinstance(how, nf.HiddenClip):
            inputs, targets, weights = case.plain
            own = [weights * (np.arange(len(shares)) == b) for b in range(len(shares))]
            parts = [case._replace(batch=nf.Batch(inputs, targets, part)) for part in own]
            left.append([hidden_reference(part, how.threshold, how.site, how.by) for part in parts])
        elif isinstance(how, nf.Clip):
            g = shares.sum(axis=0)
            if name == "soft":
                row = g / (1 + naive.length(g) / how.threshold)
            elif name == "random":
                row = random_row if naive.length(g) > how.threshold else g
            else:
                blocks = naive.sizes(*case.sizes)
                row = naive.clip(how.rule, g, how.threshold, theta=theta, blocks=blocks).d_theta
            factor = [0.0 if y == 0 else x / y for x, y in zip(row, g, strict=True)]
            left.append(shares * (0.0 if name == "random" and not np.array_equal(row, g) else np.array(factor)))
        else:
            size = 1 if isinstance(how, nf.ExampleClip) else how.size
            groups = [len(shares) / size * shares[k : k + size].sum(axis=0) for k in range(0, len(shares), size)]
            factors = [min(1.0, how.threshold / naive.length(g)) for g in groups]
            left.append(shares * np.repeat(factors, size)[:, None])
    return np.array(left)


@pytest.fixture(scope="module")
def seen():
    """Give what was found for a tanh network, and all that the reference needs."""
    net, theta, batches, cases = reference_set("tanh", "square")
    shares = np.array([naive.shares(theta, *case.sizes, net.loss, case.plain) for case in cases])
    scale = float(np.median([naive.length(g) for g in shares.sum(axis=1)]))
    hows = ways(scale)
    found = nf.clipping_bias(net, theta, batches, hows, resamples=50, rng=3, large=0.1)
    return found, hows, shares, cases


def condition_of_pairs(a, b):
    """Return how much the products of rows of a and b (n, P) cancel, taken over pairs of different rows."""
    return np.abs(a).sum(axis=0) @ np.abs(b).sum(axis=0) / abs(a.sum(axis=0) @ b.sum(axis=0) - (a * b).sum())


# ---------------------------------------------------------------------------------------------- against the reference


def test_the_true_gradient_and_each_examples_contribution_are_the_references(seen):
    found, _, shares, cases = seen
    plain = shares.sum(axis=1)
    true = plain.mean(axis=0)
    assert_close(found.true, true, within("float64", 4, 50))
    assert_close(found.norms, [naive.length(g) for g in plain], within("float64", 4, 50))
    flat = shares.reshape(-1, shares.shape[-1])
    assert_close(found.example_norms, [B * naive.length(g) for g in flat], within("float64", 4, 50))
    assert_close(found.contribution, flat @ true / len(shares) / (true @ true), within("float64", 4, 50))
    assert found.contribution.sum() == near(1, "float64", 4, 50)
    assert found.minibatch.tolist() == np.repeat(np.arange(N_BATCHES), B).tolist()
    spread = sum(np.var(column, ddof=1) for column in plain.T)
    assert found.noise == near(math.sqrt(spread / N_BATCHES) / naive.length(true), "float64", 20, 500)
    assert found.loss == near(np.mean([case.flow().loss for case in cases]), "float64", 20, 500)


@pytest.mark.parametrize("name", ways(1.0))
def test_what_a_way_of_clipping_does_on_average_is_the_references(seen, name):
    found, hows, shares, cases = seen
    rule = found.rules[name]
    plain = shares.sum(axis=1)
    true = plain.mean(axis=0)
    # A random step is made of no example's gradient: it is known from the mean alone.
    left = slow_rows(name, hows[name], cases, np.zeros_like(plain))
    rows = left.sum(axis=1)
    tolerance = within("float64", 4, 200)
    flat, own = left.reshape(-1, left.shape[-1]), shares.reshape(-1, shares.shape[-1])
    assert_close(rule.kept, [naive.kept(x, y) for x, y in zip(flat, own, strict=True)], tolerance)
    assert_close(rule.contribution, flat @ true / len(shares) / (true @ true), tolerance)
    changed = [not np.allclose(x, y, rtol=within("float64", 20, 500), atol=0) for x, y in zip(rows, plain, strict=True)]
    assert rule.changed == np.mean(changed)
    assert 0 < rule.changed <= 1
    if name == "random":
        return
    assert_close(rule.mean, rows.mean(axis=0), tolerance)
    assert_close(rule.in_set, naive.distances(rows.mean(axis=0), true), tolerance)
    wanted = naive.long_run_distances(rows, plain)
    got = [getattr(rule, part).value for part in wanted._fields]
    both = ((rows, rows), (rows, plain), (plain, plain), (rows - plain, rows - plain))
    within_pairs = within("float64", 4, 200, max(condition_of_pairs(*pair) for pair in both))
    assert_close(got, (min(wanted.cosine, 1.0), *wanted[1:]), within_pairs)
    lengths = [np.mean([naive.length(g) for g in some]) for some in (rows, plain)]
    assert rule.strength == near(lengths[0] / lengths[1], "float64", 20, 500)
    size = np.abs(rule.contribution).sum()
    assert rule.contribution.sum() == near(rule.in_set.cosine * rule.in_set.relative_norm, "float64", 4, 200, size=size)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_network_is_followed_example_by_example(cell, loss, kind):
    net, theta, batches, cases = reference_set(cell, loss, kind, count=2, batch=3, when="ragged")
    shares = np.concatenate([naive.shares(theta, *case.sizes, loss, case.plain) for case in cases])
    hows = {"norm": nf.Clip("norm", 0.1), "one": nf.ExampleClip(0.1)}
    found = nf.clipping_bias(net, theta, batches, hows, resamples=9, rng=0)
    assert_close(found.example_norms, [3 * naive.length(g) for g in shares], within("float64", 4, 50))
    silent = found.example_norms == 0
    assert silent.any()
    for rule in found.rules.values():
        assert np.array_equal(np.isnan(rule.kept), silent)
        assert not rule.contribution[silent].any()


@pytest.mark.parametrize("size", [1, 2, 4, 8, 24])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_average_of_clipped_against_the_clipped_average_is_the_references(size, dtype):
    net, theta, batches, cases = reference_set("gru", "softmax", dtype=dtype)
    shares = [naive.shares(theta.astype(np.float64), *case.sizes, net.loss, case.plain) for case in cases]
    gradients = B * np.concatenate(shares)
    middle = naive.length(gradients.mean(axis=0))
    thresholds = np.array([0.1, 0.99, 1.01, 3.0, 1000.0]) * middle
    found = nf.average_of_clipped(net, theta, batches, sizes=[size], thresholds=thresholds)
    assert found.sizes.tolist() == [size]
    assert_close(found.true_norm, middle, within(dtype, 4, 200))
    for k, threshold in enumerate(thresholds):
        wanted = naive.average_of_clipped(gradients, size, threshold)
        assert_close(
            (found.cosine[0, k], found.norm_ratio[0, k], found.changed[0, k]), wanted, 4 * within(dtype, 4, 50)
        )


# --------------------------------------------------------------------------------------------------------- exact cases


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_infinite_threshold_has_no_bias_at_all(dtype):
    net, theta, batches, _ = reference_set("lstm", "square", dtype=dtype)
    batches = [batch._replace(targets=batch.targets + 5) for batch in batches]  # so that noise is not all there is
    hows = {"norm": nf.Clip("norm", np.inf), "value": nf.Clip("value", np.inf), "hidden": nf.HiddenClip(np.inf)}
    hows |= {"example": nf.ExampleClip(np.inf), "two": nf.MicrobatchClip(2, np.inf)}
    found = nf.clipping_bias(net, theta, batches, hows, resamples=20, rng=0)
    norms, size, minibatch = found.norms, net.size, found.example_norms.reshape(N_BATCHES, B)
    # Minibatches of one direction: of the products of pairs little cancels, and of a minibatch's sum over its examples.
    pairs = (norms.mean() / naive.length(found.true)) ** 2
    examples = (minibatch.mean(axis=1) / norms).max()
    assert 1 <= pairs < 4
    assert 1 <= examples < 4
    for name, rule in found.rules.items():
        exact = name in ("norm", "value", "hidden")
        # The same gradients, or sums of what each example has, and products of theirs in float64.
        products = within("float64", 1, size, pairs)
        tolerance = products if exact else products + within(dtype, 4, 50, examples)
        assert_close(rule.in_set[:3], (1, 1, 1), tolerance)
        for part in (rule.cosine, rule.relative_norm):
            assert_close(part, (1, 1, 1), tolerance)
        assert_close(rule.kept, np.ones(N_BATCHES * B), within(dtype, 1, size))
        assert_close(rule.contribution, found.contribution, within(dtype, 1, size, pairs))
        assert rule.changed == 0
        if exact:
            assert same_bits(rule.mean, found.true)
            assert rule.bias == (0, 0, 0)
            assert rule.in_set.bias == 0
        else:
            assert max(rule.bias.value, rule.in_set.bias) <= tolerance


def test_a_bias_far_below_the_root_of_eps_is_seen():
    plain, part = 3 + np.random.default_rng(0).normal(size=(20, 50)), 2.0**-40
    found = intervals(plain * (1 - part), plain, 20, 0.9, np.random.default_rng(0)).bias
    # The shortened rows are rounded, each entry by half an eps of its own.
    assert_close(found, (part, part, part), np.finfo(np.float64).eps / part)


def chen(x, dtype):
    """Return a network whose one parameter's gradient is x - a, and the minibatches of a = -3 and a = 3.

    A linear unit that hears nothing outputs its output bias x; a square loss of weight 1/2 has the slope x - a.
    """
    net = nf.Network("linear", 1, 1, 1, loss="square", dtype=dtype)
    theta = np.zeros(net.size, dtype)
    nf.unpack(net, theta).b_out[:] = x
    one = np.ones((1, 1, 1), dtype)
    return net, theta, [nf.Batch(0 * one, a * one, one[..., 0] / 2) for a in (-3, 3)]


@pytest.mark.parametrize("x", [-1.75, -0.25, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("dtype", DTYPES)
def test_of_chens_two_points_nothing_is_left_however_far_from_the_minimum(x, dtype):
    """Chen, Wu, Hong 2020: f = mean (x - a)^2 / 2 with a = -3, 3, clipped at 1: on |x| <= 2 the mean gradient is 0."""
    hows = {"norm": nf.Clip("norm", 1.0), "value": nf.Clip("value", 1.0), "example": nf.ExampleClip(1.0)}
    found = nf.clipping_bias(*chen(x, dtype), hows, resamples=9, rng=0)
    assert_close(found.true[-1], x, np.finfo(dtype).eps)
    assert np.array_equal(found.norms, [abs(x + 3), abs(x - 3)])
    for rule in found.rules.values():
        assert not rule.mean.any()
        assert math.isnan(rule.in_set.cosine)
        assert (rule.in_set.relative_norm, rule.in_set.sign_agreement, rule.in_set.bias) == (0, 0, 1)
        assert_close(rule.kept, [1 / abs(x + 3), 1 / abs(x - 3)], 2 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", DTYPES)
def test_beyond_chens_interval_the_clipped_gradient_is_what_chen_says(dtype):
    """At x = 2.5 the gradients are 5.5 and -0.5: clipped at 1 their mean is 0.25, of 2.5."""
    found = nf.clipping_bias(*chen(2.5, dtype), [nf.Clip("norm", 1.0)], resamples=9, rng=0).rules["norm 1"]
    assert (found.in_set.cosine, found.in_set.relative_norm, found.in_set.bias) == (1, 0.1, 0.9)
    assert found.changed == 0.5


def test_a_joint_rule_keeps_companions_of_a_large_example_from_their_share_and_a_clip_by_example_does_not():
    """One example in the first minibatch has a target 100 times as far; the others are as they were."""
    net, theta, batches, _ = reference_set("tanh", "square")
    batches[0].targets[:, 1] *= 100
    norms = nf.clipping_bias(net, theta, batches, [nf.Clip("norm", 1.0)], resamples=9, rng=0).norms
    threshold = 1.01 * np.sort(norms)[-2]
    hows = {"norm": nf.Clip("norm", threshold), "example": nf.ExampleClip(10 * threshold)}
    found = nf.clipping_bias(net, theta, batches, hows, large=1 / 24, resamples=9, rng=0)
    assert np.flatnonzero(found.large).tolist() == [1]
    assert np.flatnonzero(found.companion).tolist() == [0, 2, 3]
    joint, single = found.rules["norm"], found.rules["example"]
    factor = threshold / norms.max()
    assert_close(joint.kept_by_kind, (factor, factor, 1), within("float64", 20, 500))
    assert_close(single.kept_by_kind, (10 * threshold / found.example_norms[1], 1, 1), within("float64", 20, 500))
    assert_close(sum(found.share_by_kind), 1.0, within("float64", 20, 500))
    assert_close(joint.share_by_kind[:2], factor * np.array(found.share_by_kind[:2]), within("float64", 20, 500))


def test_a_random_step_leaves_nothing_of_anybody():
    net, theta, batches, _ = reference_set("tanh")
    found = nf.clipping_bias(net, theta, batches, {"random": nf.Clip("random", 1e-3)}, resamples=9, rng=0)
    rule = found.rules["random"]
    assert rule.changed == 1
    assert not rule.kept.any()
    assert not rule.contribution.any()
    assert rule.mean.any()


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_gradients_of_any_size_have_the_same_bias(scale):
    """The loss is linear in the weights, so gradients and thresholds scale together."""
    net, theta, batches, _ = reference_set("tanh", "square", dtype="float32")
    found = []
    for factor in (1.0, scale):
        some = [batch._replace(weights=batch.weights * np.float32(factor)) for batch in batches]
        hows = {"norm": nf.Clip("norm", 2.0 * factor), "value": nf.Clip("value", 0.1 * factor)}
        hows |= {"one": nf.ExampleClip(8.0 * factor), "state": nf.HiddenClip(0.1 * factor, "state")}
        found.append(nf.clipping_bias(net, theta, some, hows, resamples=9, rng=0))
    for one, other in zip(found[0].rules.values(), found[1].rules.values(), strict=True):
        assert one.changed == other.changed > 0
        assert_close(other.in_set, one.in_set, within("float32", 4, 200))
        # The long run is estimated without the squares, which are most of the sum.
        assert_close(other.relative_norm, one.relative_norm, within("float32", 4, 200, 10))
        assert_close(other.kept, one.kept, within("float32", 4, 200))


# ----------------------------------------------------------------------------------------------------- the long run


def test_intervals_hold_the_truth_as_often_as_they_say():
    """Gradients mu + noise, of many lengths: by symmetry the mean of the clipped has the very direction of mu.

    The means over one sample have not: they share noise, which clipping weighs otherwise. The norm in the long run is
    that of 100,000 draws. Of 60 intervals of 95 % at least 48 must hold the truth: at a coverage of 90 % fewer have a
    chance of 0.6 % (and the seed is fixed).
    """
    rng, n, p = np.random.default_rng(0), 150, 50
    mu = rng.normal(size=p)

    def draw(count):
        plain = (mu + 3 * rng.normal(size=(count, p))) * np.exp(rng.normal(size=(count, 1)))
        return plain, plain * np.minimum(1.0, 15.0 / np.linalg.norm(plain, axis=1))[:, None]

    plain, clipped = draw(100_000)
    wanted = np.linalg.norm(clipped.mean(axis=0)) / (np.exp(1 / 2) * np.linalg.norm(mu))
    held, naively = np.zeros(2), []
    for k in range(60):
        plain, clipped = draw(n)
        found = intervals(clipped, plain, 300, 0.95, np.random.default_rng(k))
        right = found.relative_norm.low <= wanted <= found.relative_norm.high
        held += found.cosine.high > 1 - within("float64", 1, n), right
        naively.append(distances(clipped.mean(axis=0), plain.mean(axis=0)).cosine)
    assert (held >= 48).all(), held
    assert np.mean(naively) < 0.97


def test_the_interval_of_a_cosine_below_1_holds_the_truth_where_its_percentiles_do_not():
    """Clipped by value a mean has another direction for good: the cosine in the long run is that of 200,000 draws.

    Of 60 intervals of 95 % at least 48 must hold it, as above; the plain percentiles of the resamples held few.
    """
    rng, n, p = np.random.default_rng(2), 60, 50
    mu = rng.normal(size=p)

    def draw(count):
        return (mu + rng.normal(size=(count, p))) * np.exp(rng.normal(size=(count, 1)))

    plain = draw(200_000)
    wanted = distances(np.clip(plain, -1, 1).mean(axis=0), plain.mean(axis=0)).cosine
    assert 0.98 < wanted < 0.999
    held = 0
    for k in range(60):
        plain = draw(n)
        found = intervals(np.clip(plain, -1, 1), plain, 300, 0.95, np.random.default_rng(k)).cosine
        held += found.low <= wanted <= found.high
    assert held >= 48


def test_intervals_repeat_and_grow_with_the_confidence(seen):
    found, _, _, _ = seen
    net, theta, batches, _ = reference_set("tanh", "square")
    how = {"value": nf.Clip("value", 0.1)}
    one, two, wide = (
        nf.clipping_bias(net, theta, batches, how, rng=0, resamples=200, confidence=part).rules["value"]
        for part in (0.8, 0.8, 0.99)
    )
    assert one.cosine == two.cosine
    for name in ("cosine", "relative_norm", "sign_agreement", "bias"):
        narrow, other = getattr(one, name), getattr(wide, name)
        assert narrow.value == other.value
        assert other.low <= narrow.low <= narrow.value <= narrow.high <= other.high
    assert wide.relative_norm.high - wide.relative_norm.low > one.relative_norm.high - one.relative_norm.low


def test_where_noise_is_all_there_is_nothing_is_claimed():
    rng = np.random.default_rng(1)
    plain = rng.normal(size=(10, 30))
    plain -= plain.mean(axis=0)
    found = intervals(np.clip(plain, -1, 1), plain, 50, 0.95, rng)
    assert math.isnan(found.cosine.value)
    assert math.isnan(found.relative_norm.value)


# ------------------------------------------------------------------------------------------------------- thresholds


SEARCH = 1e-4  # where the search of matched_threshold ends, in log2 of the threshold


@pytest.mark.parametrize("name", [name for name in ways(1.0) if name not in ("two", "state norm")])
def test_matched_thresholds_shorten_all_gradients_alike(name):
    net, theta, batches, _ = reference_set("tanh", "square", count=8)
    how = ways(1.0)[name]
    part = 0.9 if isinstance(how, nf.HiddenClip) else 0.4
    threshold = nf.matched_threshold(net, theta, batches, how, part=part, rng=0)
    matched = type(how)(**{**vars(how), "threshold": threshold})
    seen = nf.clipping_bias(net, theta, batches, {"it": matched}, resamples=9, rng=0)
    assert seen.rules["it"].strength == pytest.approx(part, abs=4 * SEARCH)


def test_a_clip_inside_bptt_cannot_shorten_the_gradient_of_the_output_layer():
    net, theta, batches, _ = reference_set("tanh", "square")
    with pytest.raises(ValueError, match=r"part is 0.001; expected more than 0\.\d+, for this way"):
        nf.matched_threshold(net, theta, batches, nf.HiddenClip(1.0), part=0.001)


def test_quantiles_of_the_norm_are_those_of_the_minibatch_gradients():
    net, theta, batches, cases = reference_set("tanh", count=7)
    norms = [naive.length(naive.gradient(theta, *case.sizes, net.loss, case.plain)[1]) for case in cases]
    found = nf.norm_quantiles(net, theta, batches, [0, 0.5, 1])
    assert_close(found, np.sort(norms)[[0, 3, 6]], within("float64", 20, 500))
    assert isinstance(nf.norm_quantiles(net, theta, batches, 0.5), float)


# ------------------------------------------------------------------------------------------------------- the boundary


def test_a_task_gives_minibatches_that_training_never_sees():
    task = nf.load_task("temporal_order")
    net = nf.Network("tanh", task.n_in, 5, task.n_out, dtype="float64")
    theta = nf.init(net, "basic_tanh", rng=0)
    drawn = nf.clipping_bias(net, theta, task, [nf.Clip("norm", 1.0)], length=10, count=3, batch_size=4, seed=5, rng=0)
    batches = [
        task.sample(seed=5, index=k, batch_size=4, length=10, stream="evaluation", dtype="float64") for k in range(3)
    ]
    given = nf.clipping_bias(net, theta, iter(batches), {"norm 1": nf.Clip("norm", 1.0)}, rng=0)
    assert same_bits(drawn.true, given.true)
    assert same_bits(drawn.rules["norm 1"].in_set, given.rules["norm 1"].in_set)
    assert same_bits(drawn.rules["norm 1"].bias, given.rules["norm 1"].bias)
    ranged = nf.clipping_bias(net, theta, "temporal_order", [nf.Clip("norm", 1.0)], length=(10, 30), count=3, rng=0)
    assert ranged.norms.shape == (3,)


def test_batches_may_differ_in_shape():
    net = nf.Network("tanh", 2, 3, 2, loss="square", dtype="float64")
    batches = [make_case("tanh", T=T, B=B, when="all", seed=T).batch for T, B in ((3, 2), (5, 4), (3, 6))]
    theta = make_theta(net, np.random.default_rng(0))
    hows = [nf.MicrobatchClip(2, 0.1), nf.Clip("norm", 0.1), nf.HiddenClip(0.1)]
    found = nf.clipping_bias(net, theta, batches, hows, rng=0, resamples=20)
    assert found.minibatch.tolist() == [0] * 2 + [1] * 4 + [2] * 6
    assert list(found.rules) == ["2 examples 0.1", "norm 0.1", "hidden preactivation value 0.1"]


def test_progress_is_shown_and_nothing_of_the_callers_is_changed():
    net, theta, batches, _ = reference_set("tanh")
    before = theta.copy(), [tuple(part.copy() for part in batch) for batch in batches]
    said = []
    nf.clipping_bias(net, theta, batches, ways(1.0), rng=0, resamples=9, show=lambda *what: said.append(what))
    assert {words for words, _, _ in said} == {"clipping", "following each example", "resampling"}
    assert all(0 <= done < total for _, done, total in said)
    assert same_bits(before[0], theta)
    for batch, old in zip(batches, before[1], strict=True):
        assert same_bits(tuple(batch), old)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"clips": []}, ValueError, "clips is empty"),
        ({"clips": nf.Clip("norm", 1.0)}, TypeError, "clips is a Clip; expected a list or a dict"),
        ({"clips": ["norm"]}, TypeError, "clips has a str"),
        ({"clips": [nf.ExampleClip(1.0)] * 2}, ValueError, "two that are called alike"),
        ({"clips": [nf.MicrobatchClip(3, 1.0)]}, ValueError, "has size 3; expected a divisor of B = 4"),
        ({"clips": [nf.Clip("norm", np.ones(2))]}, ValueError, "threshold has shape"),
        ({"source": []}, ValueError, "batches has 0 minibatches; expected at least 2"),
        ({"source": 3}, TypeError, "batches is a int"),
        ({"source": "temporal_order"}, ValueError, "length is None"),
        ({"source": "nope", "length": 10}, ValueError, "task is 'nope'"),
        ({"large": 0.0}, ValueError, "large is 0"),
        ({"confidence": 1.0}, ValueError, "confidence is 1; expected a part"),
        ({"resamples": 0}, ValueError, "resamples is 0"),
        ({"rng": "x"}, TypeError, "rng is 'x'"),
        ({"backend": "tpu"}, ValueError, "backend is 'tpu'"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_computed(change, error, words):
    net, theta, batches, _ = reference_set("tanh", count=2)
    given = {"source": batches, "clips": [nf.Clip("norm", 1.0)], **change}
    with pytest.raises(error, match=words):
        nf.clipping_bias(net, theta, **given)


def test_theta_must_be_one_finite_network_and_its_gradient_finite():
    net, theta, batches, _ = reference_set("tanh", count=2)
    hows = [nf.Clip("norm", 1.0)]
    with pytest.raises(ValueError, match=r"expected \(\d+,\), one network"):
        nf.clipping_bias(net, np.stack([theta, theta]), batches, hows)
    with pytest.raises(ValueError, match="theta is nan"):
        nf.clipping_bias(net, np.full_like(theta, np.nan), batches, hows)
    small = nf.Network("linear", 3, 4, 3, dtype="float32")
    huge = np.full(small.size, 1e30, np.float32)
    batch = make_case("linear", "softmax", T=4, N=3, H=4, M=3, when="all", dtype="float32").batch
    with pytest.raises(FloatingPointError, match="minibatch 0 is not finite, and of 2 of 2"):
        nf.clipping_bias(small, huge, [batch, batch], hows)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sizes": [3]}, "sizes has 3; expected a divisor of B = 4"),
        ({"sizes": [16]}, "that divides 24"),
        ({"sizes": []}, "sizes is empty"),
        ({"thresholds": []}, "thresholds has shape"),
        ({"thresholds": [0.0]}, "thresholds is 0"),
    ],
)
def test_sizes_and_thresholds_that_make_no_sense_are_refused(change, words):
    net, theta, batches, _ = reference_set("tanh")
    with pytest.raises(ValueError, match=words):
        nf.average_of_clipped(net, theta, batches, **{"sizes": [1], "thresholds": [1.0], **change})
    short = nf.Batch(*(part[:, :2] for part in batches[0]))
    with pytest.raises(ValueError, match="from 2 to 4 examples; expected one size"):
        nf.average_of_clipped(net, theta, [short, *batches], sizes=[1], thresholds=[1.0])


def test_what_else_there_is_to_look_at_hangs_on_trace():
    from nbflow.diagnostics.clipping_bias import clipping_bias

    assert nf.trace.clipping_bias is nf.clipping_bias is clipping_bias
    assert nf.trace.average_of_clipped is nf.average_of_clipped
    assert callable(nf.trace)
