"""Claims about thresholds that follow the norms: against the reference, what they remember, and clips by them."""

from __future__ import annotations

import dataclasses
import math

import naive
import numpy as np
import pytest
from cases import DTYPES
from hypothesis import given, strategies as st
from tolerance import assert_close, near, same_bits, within

import nbflow as nf
from nbflow._compile import exact_unit
from nbflow.training.threshold import Follower

THRESHOLDS = nf.names("thresholds")
# Settings for those that cannot do without, and short memories for the others.
SETTINGS = {
    "constant": {"value": 0.7},
    "inverse_time": {"first": 2.0, "half": 7.0},
    "linear": {"first": 2.0, "last": 0.25, "updates": 30},
    "percentile": {"percent": 30.0, "window": 16, "first": 0.5},
    "quantile": {"quantile": 0.7, "rate": 0.15, "first": 0.4},
    "zscore": {"z": 1.5, "decay": 0.9, "warmup": 6, "most": 50.0},
}
LEARNING = [name for name in THRESHOLDS if nf.load_threshold(name, **SETTINGS[name]).learn is not None]
NET = nf.Network("tanh", 2, 3, 2, loss="square", dtype="float64")
BAD = [math.nan, math.inf, -math.inf]


def made(name, **changes):
    return nf.load_threshold(name, **(SETTINGS.get(name, {}) | changes))


def followed(how, norms, dtype="float64", memory=None, start=0):
    """Return the thresholds (n, R) of gradients with these norms (n, R), and the follower; an entry is its norm."""
    norms = np.atleast_2d(np.asarray(norms, dtype).T).T
    d = np.zeros((norms.shape[1], 5), dtype)
    follower = Follower(how, d)
    if memory is not None:
        follower.memory[...] = memory
    thresholds = []
    for update, norm in enumerate(norms, start=start):
        d[:, 3] = norm
        thresholds.append(follower.at(update).copy())
    return np.array(thresholds), follower


def drawn(seed=0, n=60, spikes=True, size=()):
    """Return norms like those of a training run: log-normal, with spikes."""
    rng = np.random.default_rng(seed)
    norms = np.exp(0.4 * rng.normal(size=(n, *size)))
    if spikes:
        norms[rng.random(norms.shape) < 0.1] *= 30
    return norms


# ---------------------------------------------------------------------------------------------- against the reference


@pytest.mark.sim
@pytest.mark.parametrize("name", THRESHOLDS)
@pytest.mark.parametrize("seed", range(3))
def test_a_threshold_is_the_references(name, seed):
    norms = drawn(seed)
    norms[[4, 20, 21, 40]] = [math.inf, *BAD]
    got, _ = followed(made(name), norms)
    wanted = [naive.THRESHOLDS[name](norms[: k + 1], **SETTINGS[name]) for k in range(len(norms))]
    np.testing.assert_allclose(got[:, 0], wanted, rtol=within("float64", 20, 500))
    assert len(set(wanted)) > 5 or name == "constant"


@pytest.mark.parametrize("name", [name for name in THRESHOLDS if None not in nf.load_threshold(name).settings.values()])
def test_its_own_settings_are_the_references(name):
    norms = drawn(9, n=1100)
    got, _ = followed(name, norms)
    for k in (0, 5, 30, 500, 1099):
        assert got[k, 0] == near(naive.THRESHOLDS[name](norms[: k + 1]), "float64", 20, 500)


@pytest.mark.parametrize("percent", [0, 10, 37.5, 50, 99, 100])
@given(st.lists(st.floats(0, 1e300), min_size=1, max_size=40), st.integers(1, 20))
def test_a_percentile_is_numpys_for_any_norms_and_window(percent, norms, window):
    got, _ = followed(made("percentile", percent=percent, window=window), norms)
    wanted = [np.percentile(norms[max(0, k + 1 - window) : k + 1], percent) for k in range(len(norms))]
    least = np.where(np.equal(wanted, 0), 0, np.finfo(float).tiny)
    np.testing.assert_allclose(got[:, 0], np.maximum(wanted, least), rtol=within("float64", 20, 500))


def test_a_percentile_of_100_clips_nothing_and_of_0_all_but_the_least():
    norms = drawn(3)
    highest, _ = followed(made("percentile", percent=100, window=1000), norms)
    assert same_bits(highest[:, 0], np.maximum.accumulate(norms))
    lowest, _ = followed(made("percentile", percent=0, window=1000), norms)
    assert same_bits(lowest[:, 0], np.minimum.accumulate(norms))


def test_a_zscore_leaves_what_is_within_z_deviations_and_clips_a_spike_the_nearer_to_the_mean_the_larger_it_is():
    how, calm = made("zscore", z=2.0, decay=0.5, warmup=4, most=math.inf), [1.0, 3.0, 1.0, 3.0]  # m = 2, s = 1
    assert followed(how, [*calm, 4.0])[0][-1, 0] == 4.0
    # m + z^2 s^2 / (norm - m)
    for norm, wanted in [(6.0, 3.0), (10.0, 2.5), (402.0, 2.01), (math.inf, 2.0), (math.nan, 2.0)]:
        assert followed(how, [*calm, norm])[0][-1, 0] == near(wanted)
    # What enters is what the spike was clipped to: m = (2 + 3) / 2, s^2 = (1 + (3 - 2.5)^2) / 2.
    _, follower = followed(how, [*calm, 6.0])
    assert follower.memory[0] == near([5, 2.5, math.sqrt(0.625)])


def test_no_norm_is_clipped_while_a_zscore_warms_up():
    got, _ = followed(made("zscore", most=math.inf, warmup=10), drawn(n=10))
    assert np.isinf(got).all()
    assert (followed(made("zscore", most=3.0, warmup=10), drawn(n=10))[0] == 3.0).all()


@pytest.mark.parametrize("quantile", [0.1, 0.5, 0.9])
def test_a_target_quantile_is_where_that_part_of_the_norms_lies_below(quantile):
    """In a stationary run the part below differs from the target by the ends of a telescoping sum over n.

    log v_n - log v_0 = -rate (sum of b - n quantile), so |mean b - quantile| <= |log v_n / v_0| / (rate n).
    """
    norms, rate = drawn(5, n=4000, spikes=False), 0.02
    got, follower = followed(made("quantile", quantile=quantile, rate=rate, first=1.0), norms)
    part, bound = (norms <= got[:, 0]).mean(), abs(math.log(follower.memory[0, 0])) / (rate * norms.size)
    assert abs(part - quantile) <= bound + within("float64", 1, norms.size)
    assert bound < 0.03
    assert np.quantile(norms, quantile) == pytest.approx(got[2000:].mean(), rel=2.5 * rate)


def test_schedules_begin_and_end_where_they_should():
    line, _ = followed(made("linear"), np.ones(40))
    assert line[0, 0] == 2.0
    assert (line[30:, 0] == 0.25).all()
    assert (np.diff(line[:31, 0]) < 0).all()
    decay, _ = followed(made("inverse_time", first=3.0, half=10), np.ones(31))
    assert decay[[0, 10, 20, 30], 0] == near([3.0, 1.5, 1.0, 0.75])


# ------------------------------------------------------------------------------------------------what all have to keep


@pytest.mark.sim
@pytest.mark.parametrize("name", THRESHOLDS)
@pytest.mark.parametrize("bad", BAD, ids=str)
def test_a_norm_that_is_not_finite_leaves_the_memory_alone_to_the_bit(name, bad):
    norms = drawn(1, n=30)
    _, before = followed(made(name), norms)
    memory = before.memory.copy()
    got, after = followed(made(name), [bad] * 5, memory=memory, start=30)
    assert same_bits(after.memory, memory)
    assert (got > 0).all()
    assert np.isfinite(got).all()
    # And before anything was learnt.
    got, first = followed(made(name), [bad] * 3)
    assert not first.memory.any()
    assert (got > 0).all()


@pytest.mark.parametrize("name", THRESHOLDS)
def test_a_replica_has_a_threshold_and_settings_of_its_own_to_the_bit(name):
    norms = drawn(2, size=(3,))
    norms[7, 1] = math.nan
    each = {key: [0.5 * value, value, min(1.3 * value, value + 0.1)] for key, value in SETTINGS[name].items()}
    together, follower = followed(made(name, **each), norms)
    for r in range(3):
        alone, one = followed(made(name, **{key: value[r] for key, value in each.items()}), norms[:, r])
        assert same_bits(together[:, r], alone[:, 0])
        assert same_bits(follower.memory[r, : one.memory.shape[1]], one.memory[0])
    assert (together[-1, 0] != together[-1, 1]).any()


@pytest.mark.sim
@pytest.mark.parametrize("name", THRESHOLDS)
@pytest.mark.parametrize("cut", [1, 5, 17, 40])
def test_the_memory_is_all_of_the_state(name, cut):
    norms = drawn(4)
    whole, end = followed(made(name), norms)
    first, half = followed(made(name), norms[:cut])
    second, again = followed(made(name), norms[cut:], memory=half.memory, start=cut)
    assert same_bits(np.concatenate([first, second]), whole)
    assert same_bits(again.memory, end.memory)


@pytest.mark.parametrize("name", LEARNING)
@pytest.mark.parametrize("power", [-60, -3, 40])
def test_a_threshold_scales_with_the_norms(name, power):
    """The unit of the gradient is a convention: with a power of two, to the bit."""
    lengths, unit = {"first", "most"} & set(SETTINGS[name]), 2.0**power
    norms = drawn(6)
    plain, _ = followed(made(name), norms)
    scaled, _ = followed(made(name, **{key: unit * SETTINGS[name][key] for key in lengths}), unit * norms)
    assert same_bits(scaled, unit * plain)


@pytest.mark.parametrize("name", LEARNING)
def test_a_memory_is_bounded_and_survives_the_largest_and_the_smallest_norms(name):
    norms = np.concatenate([np.full(60, 1e300), np.zeros(9000), np.full(60, 5e-324), drawn(7, n=6000, spikes=False)])
    got, follower = followed(made(name), norms)
    assert follower.memory.nbytes < 1000
    assert np.isfinite(follower.memory).all()
    assert (got >= 0).all()
    assert 0.1 < got[-1, 0] < 10, "it came back"


@pytest.mark.parametrize("name", LEARNING)
def test_float32_gradients_get_thresholds_that_float32_holds(name):
    norms = np.float32([3e38, 1e-44, 1.0, 1e-30, 1e30, 0.0] * 10)
    got, _ = followed(made(name), norms, "float32")
    assert (got[got != 0] >= np.finfo(np.float32).tiny).all()
    assert (got <= np.finfo(np.float32).max).all()


# -------------------------------------------------------------------------------------------------- in a training run

TASK = nf.load_task("temporal_order")
SMALL = nf.Network("tanh", TASK.n_in, 8, TASK.n_out)
START = nf.init(SMALL, "smart_tanh", rng=0)


def trained(clip, theta=START, updates=40, net=SMALL, task=TASK, **changes):
    how = nf.Recipe(
        lr=0.2, batch_size=3, lengths=(10, 14), max_updates=updates, record_every=1, evaluate_every=0, clip=clip,
        **changes,
    )  # fmt: skip
    return nf.train(net, theta, task, how)


@pytest.mark.parametrize("name", THRESHOLDS)
def test_training_clips_at_what_the_reference_says_of_its_norms(name):
    scale = {key: 0.4 * value for key, value in SETTINGS[name].items() if key in ("first", "value", "last")}
    run = trained(nf.Clip("norm", made(name, **scale)))
    norms, got = run.history["norm"], run.history["threshold"]
    wanted = [naive.THRESHOLDS[name](norms[: k + 1], **(SETTINGS[name] | scale)) for k in range(40)]
    np.testing.assert_allclose(got, wanted, rtol=within("float32"))
    assert run.history["clipped"] == [float(norm > v) for norm, v in zip(norms, got, strict=True)]
    assert 0 < sum(run.history["clipped"]) < 40
    np.testing.assert_allclose(run.history["clipped_norm"], np.minimum(norms, got), rtol=within("float32"))


def test_a_constant_is_the_number_to_the_bit():
    one, two = trained(nf.Clip("norm", 0.1)), trained(nf.Clip("norm", made("constant", value=0.1)))
    assert same_bits(one.theta, two.theta)
    assert one.history["norm"] == two.history["norm"]
    assert one.history["threshold"] == two.history["threshold"]


@pytest.mark.parametrize("name", THRESHOLDS)
@pytest.mark.parametrize("rule", nf.names("clips"))
def test_every_rule_takes_every_threshold(rule, name):
    run = trained(nf.Clip(rule, made(name), "skip"), updates=10)
    assert np.isfinite(run.theta).all()
    assert (run.theta != START).any()


@pytest.mark.parametrize("name", THRESHOLDS)
def test_a_replica_trains_as_it_would_alone(name):
    theta = nf.init(SMALL, "smart_tanh", rng=0, replicas=2)
    together, alone = trained(nf.Clip("norm", made(name)), theta), trained(nf.Clip("norm", made(name)), theta[0])
    assert same_bits(together.theta[0], alone.theta)
    assert [row[0] for row in together.history["threshold"]] == alone.history["threshold"]


LINES = nf.Network("tanh", 2, 4, 1, loss="square")


def spoilt(update):
    """Return a batch of two replicas, of which the second has a gradient that is not finite at updates 3 and 4."""
    rng = np.random.default_rng(update)
    inputs, targets = (rng.normal(size=(2, 5, 3, size)).astype("float32") for size in (2, 1))
    if update in (3, 4):
        targets[1] = 3e38
    return nf.Batch(inputs, targets, np.full((2, 5, 3), 0.1, "float32"))


@pytest.mark.parametrize("policy", ["random", "skip", "zero", "shrink"])
@pytest.mark.parametrize("name", THRESHOLDS)
def test_a_gradient_that_is_not_finite_meets_its_policy_and_no_threshold_learns_of_it(name, policy):
    theta, clip = nf.init(LINES, "orthogonal", rng=0, replicas=2), nf.Clip("norm", made(name), nonfinite=policy)
    run = trained(clip, theta, 12, LINES, spoilt)
    assert run.history["nonfinite"] == [[0, int(k in (3, 4))] for k in range(12)]
    assert np.isfinite(run.history["threshold"]).all()
    assert np.isfinite(run.theta).all()
    alone = trained(clip, theta[0], 12, LINES, lambda update: nf.Batch(*(part[0] for part in spoilt(update))))
    assert same_bits(run.theta[0], alone.theta), "the other replica is untouched"


def test_a_random_step_of_infinite_length_is_refused():
    theta = np.full_like(START, np.nan)
    with pytest.raises(FloatingPointError, match=r"length.*finite one"):
        trained(nf.Clip("norm", "zscore"), theta)
    with pytest.raises(FloatingPointError, match=r"length.*finite one"):
        trained(nf.Clip("norm", math.inf), theta)
    assert trained(nf.Clip("norm", "zscore", nonfinite="skip"), theta, 2).history["nonfinite"] == [1, 1]


@exact_unit
def twice_the_last(norm, memory, settings, update):
    return memory[0] if update > 0 else settings[0]


@exact_unit
def remember(norm, memory, settings):
    memory[0] = 2.0 * norm


@exact_unit
def nothing(norm, memory, settings, update):
    return settings[0] - update


@exact_unit
def endless_at_first(norm, memory, settings, update):
    return 1.0 / update


@exact_unit
def one_then_0(norm, memory, settings, update):
    return 1.0 if update < 2 else 0.0


@exact_unit
def fading(norm, memory, settings, update):
    return 1.0 / (1.0 + update)


OWN = nf.Threshold(value=twice_the_last, learn=remember, memory=1, settings={"first": 0.1})


@pytest.mark.sim
def test_a_threshold_of_ones_own_is_accepted_wherever_a_name_is():
    run = trained(nf.Clip("norm", OWN), updates=8)
    assert run.history["threshold"] == near([0.1] + [2 * norm for norm in run.history["norm"][:-1]], "float32")
    bare = trained(nf.Clip("norm", nf.Threshold(value=fading)), updates=8)
    assert same_bits(bare.theta, trained(nf.Clip("norm", lambda update: 1 / (1 + update)), updates=8).theta)
    with pytest.raises(ValueError, match=r"threshold is .* at update 2; expected numbers of at least 0"):
        trained(nf.Clip("norm", dataclasses.replace(OWN, value=nothing, settings={"first": 1.0})))


# --------------------------------------------------------------------------------------------------------- the boundary


@pytest.mark.sim
@pytest.mark.parametrize("how", ["percentile", OWN, lambda update: 1.0], ids=["name", "object", "function"])
def test_a_single_clip_refuses_what_needs_a_run(how):
    with pytest.raises(TypeError, match=r"threshold is .*expected a number.*nbflow.train"):
        nf.clip(NET, np.ones(NET.size), nf.Clip("norm", how))


@pytest.mark.sim
@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("nope", {}, "expected one of constant"), (3, {}, "expected one of constant"),
        ("percentile", {"percent": 101}, "percent is 101; expected a number from 0 to 100"),
        ("percentile", {"percent": -1}, "percent is -1"), ("percentile", {"window": 0}, "window is 0"),
        ("percentile", {"percent": "ten"}, "percent is 'ten'"), ("percentile", {"percent": math.nan}, "percent is NaN"),
        ("zscore", {"z": 0}, "z is 0; expected a number above 0"), ("zscore", {"decay": 1.5}, "decay is 1.5"),
        ("quantile", {"quantile": 2}, "quantile is 2"), ("quantile", {"first": 0}, "first is 0"),
        ("linear", {"nope": 1}, "expected some of: first, last, updates"),
        ("constant", {"value": None}, "value is None"), ("constant", {"value": -1}, "value is -1"),
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(name, settings, said):
    with pytest.raises((TypeError, ValueError), match=said):
        nf.load_threshold(name, **settings)


@pytest.mark.sim
def test_training_refuses_a_threshold_without_its_settings_or_for_another_number_of_replicas():
    for how, said in [
        ("linear", "first is None; .*first=..., last=..., updates=..."),
        (made("constant", value=[1.0, 2.0]), "value has shape"),
    ]:
        with pytest.raises((TypeError, ValueError), match=said):
            trained(nf.Clip("norm", how), updates=1)
    with pytest.raises(ValueError, match="threshold is 'nope'; expected one of constant"):
        nf.Clip("norm", "nope")
    with pytest.raises(ValueError, match="first is 0; expected a number above 0"):
        dataclasses.replace(OWN, settings={"first": 0.0})


@pytest.mark.sim
def test_a_threshold_of_ones_own_that_answers_0_leaves_nothing_and_is_the_0_of_a_schedule():
    def nothing_after_two(update):
        return 1.0 if update < 2 else 0.0

    follows = nf.Threshold(value=one_then_0)
    for rule in ("norm", "value"):
        own, scheduled = (trained(nf.Clip(rule, how), updates=6) for how in (follows, nothing_after_two))
        assert own.history["threshold"] == [1, 1, 0, 0, 0, 0] == scheduled.history["threshold"]
        assert own.history["clipped_norm"][2:] == [0] * 4
        assert same_bits(own.theta, scheduled.theta)


@pytest.mark.sim
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_gradient_that_is_measured_is_not_changed(dtype):
    d = np.random.default_rng(0).normal(size=(2, 40)).astype(dtype)
    before = d.copy()
    got = Follower(made("percentile", percent=50), d).at(0)
    assert same_bits(d, before)
    assert_close(got, [naive.length(row) for row in d], within("float32"))


def test_units_that_look_beyond_their_memory_are_refused_before_they_are_compiled():
    for wrong in ({"memory": 0}, {"settings": {}}):
        with pytest.raises(ValueError, match=r"threshold has memory \d and \d settings, and its units look for more"):
            trained(nf.Clip("norm", dataclasses.replace(OWN, **wrong)), updates=3)


def test_units_may_divide_by_0_as_compiled_arithmetic_does():
    run = trained(nf.Clip("norm", nf.Threshold(value=endless_at_first), nonfinite="skip"), updates=3)
    assert run.history["threshold"] == [math.inf, 1.0, 0.5]


# ----------------------------------------------------------------------------------------------------------- as written


@nf.unit
def mean_of_squares(norm, memory, settings, update):
    return memory[0]


@nf.unit
def learn_squares(norm, memory, settings):
    memory[0] = settings[0] * memory[0] + (1.0 - settings[0]) * norm * norm


def test_a_threshold_of_ones_own_stays_as_written_however_its_parts_were_compiled():
    """A square of Inf is Inf, as in NumPy; regrouped, it is NaN, which is no threshold."""
    own = nf.Threshold(value=mean_of_squares, learn=learn_squares, memory=1, settings={"decay": 0.9})
    got, follower = followed(own, [1.0, 1e200, 1.0, 1.0])
    assert got[:2, 0].tolist() == near([0.0, 0.1])
    assert np.isinf(got[2:]).all()
    assert np.isinf(follower.memory[0, 0])
