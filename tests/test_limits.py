"""Claims about the thresholds of clips inside a gradient in a training: what they are, what they clip, what is kept."""

from __future__ import annotations

import naive
import numpy as np
import pytest
from cases import CELLS, make_case
from test_inside import BY, SITES, hidden_reference, share_of
from tolerance import assert_close, near, same_bits, within

import nbflow as nf
from nbflow import exact_unit
from nbflow.storage import _checkpoint as checkpoint

NET = nf.Network("tanh", 2, 4, 1, loss="square", dtype="float64")
STEPS, B, R = 5, 4, 2
THETA = nf.init(NET, "smart_tanh", rng=0, replicas=R)
# Each with a threshold v, and where the history has it.
WAYS = {
    "example": (lambda v: {"clip_example": nf.ExampleClip(v)}, "example_threshold"),
    "example, bare": (lambda v: {"clip_example": v}, "example_threshold"),
    "group": (lambda v: {"clip_microbatch": nf.MicrobatchClip(2, v)}, "group_threshold"),
    "group, bare": (lambda v: {"clip_microbatch": (2, v)}, "group_threshold"),
    "hidden": (lambda v: {"clip_hidden": nf.HiddenClip(v, "state", "norm")}, "hidden_threshold"),
}
GROUPS = {"example": ("example", 1), "group": ("group", 2)}
# Settings under which thresholds of some 60 norms are each used, and the norms clipped now and then.
SETTINGS = {
    "constant": {"value": 0.5},
    "inverse_time": {"first": 2.0, "half": 7.0},
    "linear": {"first": 2.0, "last": 0.05, "updates": 10},
    "percentile": {"percent": 30.0, "window": 16, "first": 0.5},
    "quantile": {"quantile": 0.7, "rate": 0.05, "first": 0.4},
    "zscore": {"z": 0.5, "decay": 0.9, "warmup": 6},
}


def batch_of(update, bad=()):
    """Return a batch for two replicas; of those that are `bad`, (replica, example), the gradient is not finite."""
    rng = np.random.default_rng(update)
    inputs, targets = rng.normal(size=(R, STEPS, B, 2)), rng.normal(size=(R, STEPS, B, 1))
    weights = np.full((R, STEPS, B), 1 / (STEPS * B))
    for r, b in bad:
        targets[r, :, b], weights[r, :, b] = 1e308, 1e308
    return nf.Batch(inputs, targets, weights)


def schedule(update):
    """Return thresholds that clip some and not others, another one for each replica."""
    return np.array([0.05, 0.2]) * (1 + update) ** 0.5


def tight(update):
    """Return the same for vectors inside BPTT."""
    return schedule(update) / 20


def train(updates=6, source=batch_of, theta=THETA, every=1, path=None, **changes):
    recipe = nf.Recipe(lr=0.05, max_updates=updates, record_every=every, **changes)
    return nf.train(NET, theta, source, recipe, checkpoint=path)


def alone(r):
    return lambda update: nf.Batch(*(part[r] for part in batch_of(update)))


# --------------------------------------------------------------------------------------------- functions of the update


@pytest.mark.parametrize("way", WAYS)
def test_a_schedule_clips_each_gradient_as_a_number_would_at_its_update(way):
    clips, name = WAYS[way]
    moving = tight if way == "hidden" else schedule
    run, theta = train(**clips(moving)), THETA.copy()
    for update in range(6):
        theta -= 0.05 * nf.gradient(NET, theta, batch_of(update), **clips(moving(update))).d_theta
    assert_close(run.theta - THETA, theta - THETA, within("float64", 6, 100))
    assert run.history[name] == [moving(update).tolist() for update in range(6)]
    fixed = train(**clips(moving(0)))
    assert not same_bits(fixed.theta, run.theta), "the threshold counts"
    assert fixed.history[name] == [moving(0).tolist()] * 6


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("value", [0.1, [0.1, 0.1]])
def test_a_schedule_that_never_moves_is_the_number_to_the_bit(way, value):
    clips, _ = WAYS[way]
    moving, fixed = train(**clips(lambda update: np.array(value))), train(**clips(0.1))
    assert same_bits(moving.theta, fixed.theta)
    assert {**moving.history, "seconds": 0} == {**fixed.history, "seconds": 0}


def test_a_schedule_may_come_down_to_where_only_subnormal_numbers_are_left():
    """A program that takes them for 0 would lose all of the gradient; which one runs is looked at at every update."""
    threshold = 1e-310
    run = train(4, clip_example=lambda update: 1e-2 if update < 2 else threshold)
    assert run.history["norm"][1] > [0, 0]
    assert all(0 < norm <= threshold for row in run.history["norm"][2:] for norm in row)


@pytest.mark.parametrize("way", ["example", "group", "hidden"])
def test_what_is_no_threshold_ends_the_training_and_names_the_update(way):
    clips, _ = WAYS[way]
    with pytest.raises(ValueError, match=r"clip_\w+ is -1; expected .* at update 2") as caught:
        train(**clips(lambda update: 1.0 if update < 2 else -1.0))
    assert caught.value.run.updates == 2
    with pytest.raises(ValueError, match=r"clip_\w+ has shape \(3,\)"):
        train(**clips(lambda update: 1.0 if update < 2 else np.ones(3)))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "threshold",
    [schedule, "quantile", nf.load_threshold("constant", value=1.0)],
    ids=["schedule", "quantile", "constant"],
)
def test_a_single_gradient_refuses_what_needs_a_run(way, threshold):
    clips, _ = WAYS[way]
    with pytest.raises(TypeError, match=r"clip_\w+ is .*a single gradient knows no update.*nbflow.train"):
        nf.gradient(NET, THETA, batch_of(0), **clips(threshold))


# ----------------------------------------------------------------------------------------- thresholds that follow norms


def expected(name, settings, before, update):
    """Return the threshold of an update by the reference, from the norms of all groups before it."""
    if name in ("constant", "linear", "inverse_time"):
        return naive.THRESHOLDS[name](np.ones(update + 1), **settings)
    if name == "percentile":  # the reference's is of this norm too
        kept = before[-settings["window"] :]
        return np.percentile(kept, settings["percent"]) if len(kept) else settings["first"]
    return naive.THRESHOLDS[name](np.array([*before, 0.0]), **settings)


@pytest.mark.parametrize("of", GROUPS)
@pytest.mark.parametrize("name", SETTINGS)
def test_a_threshold_follows_the_norms_of_all_groups_before(of, name):
    assert set(SETTINGS) == set(nf.names("thresholds"))
    way, size = GROUPS[of]
    clips, column = WAYS[way]
    run = train(12, **clips(nf.load_threshold(name, **SETTINGS[name])))
    theta, norms, wanted, clipped = THETA.copy(), [[], []], [], []
    for update in range(12):
        limits = [expected(name, SETTINGS[name], norms[r], update) for r in range(R)]
        out = nf.gradient(NET, theta, batch_of(update), clip_microbatch=(size, np.array(limits)))
        theta -= 0.05 * out.d_theta
        for r in range(R):
            norms[r] += out.example_norms[r].tolist()
        wanted.append(limits)
        clipped.append((out.example_norms > np.array(limits)[:, None]).mean(axis=1).tolist())
    np.testing.assert_allclose(run.history[column], wanted, rtol=within("float64", 20, 500))
    assert run.history[f"clipped_{of}s"] == clipped
    assert 0 < np.mean(clipped) < 1
    assert_close(run.theta - THETA, theta - THETA, within("float64", 12, 100))


@pytest.mark.parametrize("name", ["percentile", "quantile", "zscore"])
def test_a_replica_trains_as_it_would_alone(name):
    how = nf.load_threshold(name, **SETTINGS[name])
    together = train(12, clip_example=how)
    for r in range(R):
        one = train(12, alone(r), THETA[r], clip_example=how)
        assert same_bits(together.theta[r], one.theta)
        assert [row[r] for row in together.history["example_threshold"]] == one.history["example_threshold"]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_nothing_is_learnt_at_an_update_that_is_skipped_nor_of_a_group_that_is_left_out():
    """A run with a skipped update is, to the bit, the run without it."""
    how, clip = nf.load_threshold("quantile", **SETTINGS["quantile"]), nf.Clip("norm", 1.0, "skip")

    def source(update):
        return batch_of(update, [(1, 2)] if update == 2 else [])

    run = train(6, source, clip=clip, clip_example=how)
    assert run.history["nonfinite"] == [[0, int(k == 2)] for k in range(6)]
    seen = [row[1] for row in run.history["example_threshold"]]
    assert seen[3] == seen[2]
    without = train(5, lambda k: alone(1)(k if k < 2 else k + 1), THETA[1], clip=clip, clip_example=how)
    assert same_bits(without.theta, run.theta[1])
    # One that is left out, of those of an update that is made.
    kept = train(6, source, clip_example=nf.ExampleClip(how, "skip"))
    before, after = kept.history["example_threshold"][2][1], kept.history["example_threshold"][3][1]
    norms = nf.gradient(NET, train(2, source, clip_example=nf.ExampleClip(how, "skip")).theta, source(2),
                        clip_example=1.0).example_norms[1]  # fmt: skip
    below = np.array([], bool)
    for norm in norms[np.isfinite(norms)]:
        below = np.append(below, norm <= before * np.exp(-0.05 * (below - 0.7).sum()))
    assert len(below) == 3
    assert after == near(before * np.exp(-0.05 * (below - 0.7).sum()))


FOLLOWING = {
    "schedule": {"clip_example": schedule, "clip_hidden": nf.HiddenClip(tight)},
    "memory": {"clip_microbatch": (2, nf.load_threshold("percentile", **SETTINGS["percentile"]))},
    "two memories": {"clip_example": "quantile", "clip": nf.Clip("norm", "percentile")},
    "constant inside": {"clip_hidden": nf.HiddenClip(nf.load_threshold("linear", **SETTINGS["linear"]))},
}


@pytest.mark.parametrize("how", FOLLOWING)
@pytest.mark.parametrize("stop", [1, 4, 6])
def test_a_run_goes_on_to_the_same_bits(how, stop, tmp_path):
    whole = train(9, every=3, path=tmp_path / "whole.npz", **FOLLOWING[how])
    path = tmp_path / "run.npz"
    train(stop, every=3, path=path, **FOLLOWING[how])
    run = train(9, every=3, path=path, **FOLLOWING[how])
    assert same_bits(run.theta, whole.theta)
    for name in set(run.history) - {"seconds", "update"}:
        assert run.history[name][-1] == whole.history[name][-1], name
    one, two = (checkpoint.read(tmp_path / name).arrays for name in ("whole.npz", "run.npz"))
    assert {"memory", "memory_of_groups"} & set(one) == {
        "schedule": set(), "memory": {"memory_of_groups"}, "two memories": {"memory", "memory_of_groups"},
        "constant inside": set(),
    }[how]  # fmt: skip
    assert all(same_bits(two[name], one[name]) for name in one if name.startswith("memory"))


def test_another_threshold_is_another_training_and_a_branch_with_another_one_begins_its_memory_anew(tmp_path):
    path = tmp_path / "run.npz"
    run = train(4, path=path, clip_example="quantile")
    with pytest.raises(ValueError, match=r"another training: clip_example"):
        train(6, path=path, clip_example="percentile")
    for how, begins in (("quantile", None), ("percentile", 1.0)):
        recipe = nf.Recipe(lr=0.05, max_updates=6, record_every=1, clip_example=how)
        on = nf.train(NET, run.theta, batch_of, recipe, start_from=path)
        first = on.history["example_threshold"][0]
        assert first == ([begins] * R if begins else train(6, clip_example=how).history["example_threshold"][4])


def test_a_threshold_that_follows_norms_is_refused_inside_bptt_by_name():
    with pytest.raises(ValueError, match=r"clip_hidden has threshold 'zscore', which follows norms; expected"):
        train(clip_hidden=nf.HiddenClip("zscore"))
    train(2, clip_hidden=nf.HiddenClip(nf.load_threshold("inverse_time", first=1.0, half=5)))


@exact_unit
def by_place(norm, memory, settings, update):
    return memory[0] + 1.0


@exact_unit
def beyond(norm, memory, settings):
    memory[int(norm) + 10] = 1.0


def test_a_unit_of_ones_own_that_looks_beyond_its_memory_leaves_the_run_where_it_was():
    how = nf.Threshold(value=by_place, learn=beyond, memory=12)
    with pytest.raises(ValueError, match=r"memory 12 .*look for more .*at update 3") as caught:
        train(6, lambda k: batch_of(k)._replace(weights=batch_of(k).weights * (1 if k < 3 else 1e6)), clip_example=how)
    whole = train(3, clip_example=how)
    assert same_bits(caught.value.run.theta, whole.theta)
    assert caught.value.run.history["example_threshold"] == whole.history["example_threshold"]


# -------------------------------------------------------------------------------------------------- what was clipped


def stacked(*cases):
    """Return batch and parameters of replicas."""
    return nf.Batch(*(np.stack(parts) for parts in zip(*(case.batch for case in cases), strict=True))), np.stack(
        [case.theta for case in cases]
    )


@pytest.mark.parametrize("size", [1, 3])
def test_the_history_counts_the_examples_and_groups_that_were_clipped(size):
    """As the mean over the updates of a row of the part of all B, or B / size."""
    cases = [make_case("gru", "square", "dense", "ragged", T=5, B=6, H=4, dtype="float64", seed=k) for k in range(4)]
    norms = []
    for k, case in enumerate(cases):
        case = case._replace(theta=cases[k % 2].theta)
        norms.append([6 / size * naive.length(share_of(case, list(range(b, b + size)))) for b in range(0, 6, size)])
    threshold = np.array([np.median(norms[r] + norms[r + 2]) + 1e-9 for r in range(2)])
    parts = [np.mean(np.array(norms[k]) > threshold[k % 2]) for k in range(4)]
    _, theta = stacked(*cases[:2])
    how = {"clip_example": threshold} if size == 1 else {"clip_microbatch": (size, threshold)}
    recipe = nf.Recipe(lr=0.0, max_updates=2, record_every=2, **how)
    run = nf.train(cases[0].net, theta, lambda k: stacked(*cases[2 * k : 2 * k + 2])[0], recipe)
    wanted = [(parts[r] + parts[r + 2]) / 2 for r in range(2)]
    assert run.history["clipped_examples" if size == 1 else "clipped_groups"] == [wanted]
    assert 0 < np.mean(parts) < 1


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("by", BY)
def test_the_history_has_the_part_of_entries_or_vectors_inside_bptt_that_were_clipped(cell, site, by):
    """Of those at steps up to each sequence's last weight: of a gru's two arrays of pre-activations both."""
    cases = [make_case(cell, "square", "dense", "ragged", T=6, B=11, H=4, dtype="float64", seed=k) for k in (3, 4)]
    batch, theta = stacked(*cases)
    thresholds, parts = [], []
    for case in cases:
        plain = []
        hidden_reference(case, np.inf, site, by, plain)
        thresholds.append(np.median(plain) + 1e-9)
        seen = []
        hidden_reference(case, thresholds[-1], site, by, seen)
        assert len(seen) == len(plain)
        parts.append((np.array(seen) > thresholds[-1]).sum() / len(seen))
    how = nf.HiddenClip(np.array(thresholds), site, by)
    run = nf.train(cases[0].net, theta, lambda update: batch, nf.Recipe(lr=0.0, max_updates=2, clip_hidden=how))
    assert run.history["clipped_hidden"] == [parts]
    assert all(0 < part < 1 for part in parts)
    assert "clipped_hidden" not in train(1).history


@pytest.mark.parametrize("by", BY)
def test_of_a_stack_the_entries_of_all_layers_count(by):
    batch = nf.Batch(*(part[0] for part in batch_of(0)))
    layers = [nf.Network("tanh", 2, 5, 1, "square", "float64"), nf.Network("gru", 5, 3, 1, "square", "float64")]
    net = nf.Stack(layers)
    theta = nf.init(net, "glorot", rng=0)

    def part(threshold):
        recipe = nf.Recipe(lr=0.0, max_updates=1, clip_hidden=nf.HiddenClip(threshold, by=by))
        return nf.train(net, theta, lambda update: batch, recipe).history["clipped_hidden"][0]

    # A tanh layer of 5 has one array of pre-activations, a gru of 3 two of 9 entries each.
    vectors = 3 if by == "norm" else 5 + 18
    steps = STEPS * B
    assert part(np.inf) == 0
    least = 1e-12
    assert 0.6 < part(least) <= 1  # at the first step h is 0, and so are some entries, and vectors with them
    counts = [part(threshold) * vectors * steps for threshold in (1e-5, 1e-4, 1e-3, 1e-2)]
    assert counts == near(np.round(counts))
    assert sorted(counts, reverse=True) == counts
    assert counts[0] > counts[-1]


def test_counts_are_the_same_for_a_network_alone_and_of_any_number_of_threads():
    how = {"clip_hidden": nf.HiddenClip(1e-3), "clip_example": 0.15}
    together = train(4, every=2, **how)
    for r in range(R):
        one = train(4, alone(r), THETA[r], every=2, **how)
        for name in ("clipped_hidden", "clipped_examples"):
            assert [row[r] for row in together.history[name]] == one.history[name]
            assert 0 < one.history[name][0] < 1


# ---------------------------------------------------------------------------------------------------------- on the card

ON_CARD = {
    "examples by schedule": {"clip_example": schedule},
    "groups by quantile": {"clip_microbatch": (2, "quantile"), "clip": nf.Clip("norm", 0.2, "skip")},
    "inside, state, norm": {"clip_hidden": nf.HiddenClip(tight, "state", "norm")},
    "inside, preactivation, value": {"clip_hidden": nf.HiddenClip(tight)},
}


@pytest.mark.gpu
@pytest.mark.sim
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("how", ON_CARD)
def test_on_the_card_thresholds_and_counts_are_the_same(how, tmp_path):
    """Resumed there, with one update that is skipped."""
    net = nf.Network("gru", 2, 3, 1, loss="square", dtype="float64")
    theta = nf.init(net, "glorot", rng=0, replicas=R)
    bad = [(1, 2)] if "quantile" in how else []
    found = []
    for backend, stops in (("cpu", (2,)), ("cuda", (1, 2))):
        for most in stops:
            recipe = nf.Recipe(lr=0.1, max_updates=most, record_every=1, **ON_CARD[how])
            run = nf.train(net, theta, lambda k: batch_of(k, bad if k == 1 else ()), recipe, backend=backend,
                           checkpoint=tmp_path / backend)  # fmt: skip
        found.append(run)
    wanted, got = found
    for name in wanted.history:
        if name.startswith(("clipped_", "example_", "group_", "hidden_")) and name != "clipped_norm":
            np.testing.assert_allclose(got.history[name], wanted.history[name], rtol=within("float64", 10, 50))
            assert np.mean(got.history[name]) > 0
    assert_close(got.theta - theta, wanted.theta - theta, within("float64", 20, 50))
