"""Claims about rules of clipping that remember: against the reference, what they remember, and when."""

from __future__ import annotations

import dataclasses

import naive
import numpy as np
import pytest
from cases import CLIPS, STATEFUL_CLIPS
from tolerance import assert_close, near, same_bits, within

import nbflow as nf
from nbflow import exact_unit
from nbflow.storage import _checkpoint as checkpoint

NET = nf.Network("gru", 2, 4, 1, loss="square", dtype="float64")
BLOCKS, R, UPDATES = naive.sizes("gru", 2, 4, 1), 2, 20
THETA = nf.init(NET, "glorot", rng=0, replicas=R)
# Settings and thresholds under which all that a rule does is seen in 20 updates.
SETTINGS = {
    "adagc": {"relative": 1.02, "decay": 0.7, "warmup": 5},
    "spam": {"decay": 0.8, "interval": 8, "wait": 2},
    "error_feedback": {},
}
REACHED = {"adagc": 0.3, "spam": 2.5, "error_feedback": 0.1}
BAD = 12


def made(name, **changes):
    return nf.load_rule(name, **(SETTINGS[name] | changes))


def clip_of(name, nonfinite="skip"):
    return nf.Clip(made(name), REACHED[name], nonfinite)


def batch_of(update, bad=None, net=NET):
    """Return a batch for two replicas; the gradient of replica `bad` is not finite."""
    rng = np.random.default_rng(update)
    size = (R, 5, 4)
    inputs, targets = rng.normal(size=(*size, net.n_in)), rng.normal(size=(*size, net.n_out))
    weights = np.full(size, 1 / 20)
    if bad is not None:
        inputs[bad], targets[bad], weights[bad] = 1, 1e308, 1e308
    return nf.Batch(*(part.astype(net.dtype) for part in (inputs, targets, weights)))


def alone(r, skip=()):
    """Return a source of the batches of replica r, without those of some updates."""
    kept = [update for update in range(2 * UPDATES) if update not in skip]
    return lambda update: nf.Batch(*(part[r] for part in batch_of(kept[update])))


def spoilt(update):
    return batch_of(update, bad=1 if update == BAD else None)


def train(clip, updates=UPDATES, source=batch_of, theta=THETA, path=None, **changes):
    recipe = nf.Recipe(**{"lr": 0.2, "max_updates": updates, "record_every": 1, "clip": clip, **changes})
    return nf.train(NET, theta, source, recipe, checkpoint=path)


def memory_of(path):
    """Return slots (R, K, P) and counts (R,) of a checkpoint."""
    arrays = checkpoint.read(path).arrays
    return arrays["clip/slots"], arrays["clip/counts"].tolist()


# ---------------------------------------------------------------------------------------------- against the reference


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("name", STATEFUL_CLIPS)
def test_a_run_clips_as_the_reference_does_from_the_first_gradient_on(name, optimizer):
    """Gradients at the run's own parameters, and what the reference makes of all of them: steps of plain descent."""
    at, seen = [THETA], []

    def source(update):
        seen.append(nf.gradient(NET, at[-1], batch_of(update)).d_theta)
        return batch_of(update)

    recipe = nf.Recipe(lr=0.05, max_updates=UPDATES, record_every=1, optimizer=optimizer, clip=clip_of(name))
    run = nf.train(NET, THETA, source, recipe, callbacks=[lambda run: at.append(run.theta)])
    tolerance = 100 * within("float64", UPDATES, 40)
    for r in range(R):
        clipped = naive.STATEFUL[name]([d[r] for d in seen], REACHED[name], BLOCKS, **SETTINGS[name])
        norms = [naive.length(g) for g in clipped]
        assert_close(np.array([row[r] for row in run.history["clipped_norm"]]), np.array(norms), tolerance)
        theta, state = THETA[r], None
        for update, g in enumerate(clipped):
            theta, state = naive.OPTIMIZERS[optimizer](theta, g, state, 0.05, update + 1)
            assert_close(at[update + 1][r] - THETA[r], theta - THETA[r], tolerance, f"update {update}")
        changed = [abs(g - d[r]).max() > within("float64") for g, d in zip(clipped, seen, strict=True)]
        assert [row[r] == 1 for row in run.history["clipped"]] == changed
        assert sum(changed) > 3


@pytest.mark.parametrize("name", STATEFUL_CLIPS)
def test_its_usual_settings_are_the_references(name):
    seen, threshold = [], {"spam": 5.0}.get(name, 0.3)
    recipe = nf.Recipe(lr=0.0, max_updates=130, record_every=1, clip=nf.Clip(name, threshold, "skip"))
    run = nf.train(NET, THETA, batch_of, recipe)
    seen = [nf.gradient(NET, THETA, batch_of(update)).d_theta[0] for update in range(130)]
    wanted = [naive.length(g) for g in naive.STATEFUL[name](seen, threshold, BLOCKS)]
    assert_close(np.array(run.history["clipped_norm"])[:, 0], np.array(wanted), within("float64", 130, 40))
    assert 0 < np.mean(run.history["clipped"]) <= 1


def test_adagc_warms_up_as_clipping_by_norm_does_to_the_bit():
    warm, plain = (train(nf.Clip(rule, 0.3)) for rule in (made("adagc", warmup=UPDATES), "norm"))
    assert same_bits(warm.theta, plain.theta)
    assert not same_bits(train(clip_of("adagc")).theta, plain.theta)


def test_an_array_whose_gradient_was_0_begins_with_its_norm_and_is_not_held_at_0(tmp_path):
    """Inputs of 0 leave w_in without a gradient until the warm-up is over."""

    def source(update):
        batch = batch_of(update)
        return batch._replace(inputs=batch.inputs * (update >= 8))

    train(clip_of("adagc"), 9, source, path=tmp_path / "run.npz")
    slots, _ = memory_of(tmp_path / "run.npz")
    w_in = nf.unpack(NET, slots[0, 0]).w_in
    assert len(set(w_in.ravel().tolist())) == 1
    assert w_in.min() > 0


def test_under_adam_spam_remembers_the_root_of_adams_own_mean_square(tmp_path):
    rule = nf.load_rule("spam", interval=1000, wait=2, decay=0.999)
    run = train(nf.Clip(rule, 3.0, "skip"), optimizer="adam", lr=0.01, path=tmp_path / "run.npz")
    slots, _ = memory_of(tmp_path / "run.npz")
    assert_close(slots[:, 0] ** 2, checkpoint.read(tmp_path / "run.npz").arrays["slots"][:, 1], within("float64", 20))
    assert np.sum(run.history["clipped"]) > 0


def test_error_feedback_begins_as_clipping_by_norm_and_comes_to_a_gradient_that_stays():
    first, plain = train(clip_of("error_feedback"), 1), train(nf.Clip("norm", REACHED["error_feedback"]), 1)
    assert same_bits(first.theta, plain.theta)
    still = train(clip_of("error_feedback"), 60, lambda update: batch_of(0), lr=0.0)
    assert still.history["clipped"][-1] == [0, 0]
    assert still.history["clipped_norm"][-1] == still.history["norm"][-1]
    steps = np.diff([[0.0, 0.0], *still.history["clipped_norm"]], axis=0)
    assert steps.max() <= REACHED["error_feedback"] * (1 + within("float64", 60, 40))


@pytest.mark.parametrize("name", ["error_feedback", "adagc"])
def test_under_an_infinite_threshold_a_gradient_keeps_its_bits(name):
    rule = made(name, **({"relative": 1e9} if name == "adagc" else {}))
    free, plain = (train(nf.Clip(how, np.inf, "skip")) for how in (rule, "norm"))
    assert same_bits(free.theta, plain.theta)
    assert np.sum(free.history["clipped"]) == 0


# ----------------------------------------------------------------------------------------------- when it is remembered


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("policy", ["random", "skip", "zero", "shrink", "keep"])
@pytest.mark.parametrize("name", STATEFUL_CLIPS)
def test_a_gradient_that_is_not_finite_leaves_the_memory_as_it_was_under_every_policy(name, policy, tmp_path):
    if policy == "random" and made(name).relative:
        return
    how = clip_of(name, policy)
    for updates in (BAD, BAD + 1):
        train(how, updates, spoilt, path=tmp_path / f"{updates}.npz")
    (before, counts), (after, others) = (memory_of(tmp_path / f"{updates}.npz") for updates in (BAD, BAD + 1))
    assert same_bits(after[1], before[1])
    assert not same_bits(after[0], before[0])
    assert (counts, others) == ([BAD, BAD], [BAD + 1, BAD])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", STATEFUL_CLIPS)
def test_a_run_with_a_skipped_update_is_to_the_bit_the_run_without_it(name):
    run = train(clip_of(name), source=spoilt)
    assert [row[1] for row in run.history["nonfinite"]] == [int(k == BAD) for k in range(UPDATES)]
    other = train(clip_of(name), UPDATES - 1, alone(1, skip=[BAD]), THETA[1])
    assert same_bits(run.theta[1], other.theta)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", STATEFUL_CLIPS)
def test_an_update_of_which_all_examples_were_left_out_leaves_the_memory_as_it_was(name, tmp_path):
    how = {"clip_example": nf.ExampleClip(1.0, "skip")}
    for updates in (BAD, BAD + 1):
        run = train(clip_of(name), updates, spoilt, path=tmp_path / f"{updates}.npz", **how)
    (before, _), (after, counts) = (memory_of(tmp_path / f"{updates}.npz") for updates in (BAD, BAD + 1))
    assert run.history["left_out"][-1] == [0, 4]
    assert same_bits(after[1], before[1])
    assert counts == [BAD + 1, BAD]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", STATEFUL_CLIPS)
def test_a_refused_update_teaches_no_replica_anything(name, tmp_path):
    """Of the finite one neither, which was clipped before the other was seen."""
    with pytest.raises(FloatingPointError, match="replica 1 is not finite"):
        train(clip_of(name, "raise"), source=spoilt, path=tmp_path / "run.npz")
    train(clip_of(name, "raise"), BAD, path=tmp_path / "wanted.npz")
    (got, counts), (wanted, others) = (memory_of(tmp_path / f"{which}.npz") for which in ("run", "wanted"))
    assert same_bits(got, wanted)
    assert counts == others == [BAD, BAD]


@pytest.mark.parametrize("stop", [1, 5, 11])
@pytest.mark.parametrize("name", STATEFUL_CLIPS)
def test_a_run_goes_on_to_the_same_bits(name, stop, tmp_path):
    whole = train(clip_of(name), path=tmp_path / "whole.npz")
    path = tmp_path / "run.npz"
    train(clip_of(name), stop, path=path)
    run = train(clip_of(name), path=path)
    assert same_bits(run.theta, whole.theta)
    assert {**run.history, "seconds": 0} == {**whole.history, "seconds": 0}
    assert same_bits(memory_of(path)[0], memory_of(tmp_path / "whole.npz")[0])


@pytest.mark.parametrize("name", STATEFUL_CLIPS)
def test_a_replica_trains_as_it_would_alone(name):
    together = train(clip_of(name))
    for r in range(R):
        one = train(clip_of(name), source=alone(r), theta=THETA[r])
        assert same_bits(together.theta[r], one.theta)
        for column in ("clipped", "clipped_norm", "cosine"):
            assert [row[r] for row in together.history[column]] == one.history[column]


@pytest.mark.parametrize("name", STATEFUL_CLIPS)
def test_a_branch_goes_on_with_the_same_rule_and_begins_another_ones_memory_anew(name, tmp_path):
    path = tmp_path / "run.npz"
    run, whole = train(clip_of(name), 8, path=path), train(clip_of(name), 12)

    def branch(clip, where):
        recipe = nf.Recipe(lr=0.2, max_updates=12, record_every=1, clip=clip)
        return nf.train(NET, run.theta, batch_of, recipe, start_from=path, checkpoint=where)

    assert same_bits(branch(clip_of(name), None).theta, whole.theta)
    other = next(one for one in STATEFUL_CLIPS if one != name)
    branch(clip_of(other), tmp_path / "other.npz")
    assert memory_of(tmp_path / "other.npz")[1] == [4, 4]


def test_of_a_stack_every_array_of_every_layer_has_a_gamma_of_its_own(tmp_path):
    net = nf.Stack([nf.Network("tanh", 2, 4, 1, "square", "float64"), nf.Network("gru", 4, 3, 1, "square", "float64")])
    recipe = nf.Recipe(lr=0.1, max_updates=8, clip=clip_of("adagc"))
    nf.train(net, nf.init(net, "glorot", rng=0), alone(0), recipe, checkpoint=tmp_path / "run.npz")
    slots, counts = memory_of(tmp_path / "run.npz")
    gammas = [np.unique(part) for layer in nf.unpack(net, slots[0, 0]) for part in layer if part.size]
    assert {part.size for part in gammas} == {1}
    assert np.unique(np.concatenate(gammas)).size == len(gammas)
    assert counts == [8]


@pytest.mark.parametrize("size", [1e-42, 1e-30, 1e30])
@pytest.mark.parametrize("name", STATEFUL_CLIPS)
def test_slots_stay_in_the_range_of_float32_and_come_back(name, size, tmp_path):
    net = nf.Network("tanh", 2, 4, 1, loss="square", dtype="float32")
    theta = nf.init(net, "glorot", rng=0, replicas=R)

    def source(update):
        batch = batch_of(update, net=net)
        return batch._replace(weights=batch.weights * np.float32(size if 3 <= update < 6 else 1))

    recipe = nf.Recipe(lr=0.1, max_updates=UPDATES, record_every=1, clip=clip_of(name))
    run = nf.train(net, theta, source, recipe, checkpoint=tmp_path / "run.npz")
    slots, counts = memory_of(tmp_path / "run.npz")
    assert np.isfinite(slots).all()
    assert np.isfinite(run.theta).all()
    assert counts == [UPDATES] * R
    assert np.sum(run.history["nonfinite"]) == 0


# -------------------------------------------------------------------------------------------------------- the boundary


@pytest.mark.parametrize("name", STATEFUL_CLIPS)
def test_what_knows_no_updates_refuses_a_rule_that_remembers_by_name(name):
    with pytest.raises(TypeError, match=rf"rule is '{name}', which remembers gradients; expected .*nbflow.train"):
        nf.clip(NET, THETA, nf.Clip(name, 1.0, "skip"))
    with pytest.raises(TypeError, match=rf"rule is '{name}', which remembers"):
        nf.clipping_bias(NET, THETA[0], [nf.Batch(*(part[0] for part in batch_of(k))) for k in range(3)],
                         [nf.Clip(name, 1.0, "skip")])  # fmt: skip


def test_a_threshold_without_a_unit_is_no_length_of_a_random_step():
    with pytest.raises(ValueError, match=r"nonfinite is 'random' with rule 'spam', .*Write nonfinite='skip'"):
        train(nf.Clip("spam", 5000.0))


@pytest.mark.gpu
@pytest.mark.sim
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("policy", ["skip", "raise"])
@pytest.mark.parametrize("name", STATEFUL_CLIPS)
def test_on_the_card_it_is_the_same(name, policy, tmp_path):
    """Resumed there, one replica's gradient not finite once: it is skipped, or nobody takes a step."""
    net = nf.Network("tanh", 1, 2, 1, loss="square", dtype="float64")
    theta, bad = nf.init(net, "glorot", rng=0, replicas=R), 4
    short = {"adagc": {"warmup": 2}, "spam": {"wait": 1, "interval": 4}}.get(name, {})
    how = nf.Clip(nf.load_rule(name, **(SETTINGS[name] | short)), REACHED[name] / 3, policy)

    def source(update):
        batch = nf.Batch(*(part[:, :2, :2] for part in batch_of(update, net=net)))
        if update == bad:
            batch.targets[1], batch.weights[1] = 1e308, 1e308
        return batch

    found = []
    for backend, stops in (("cpu", (6,)), ("cuda", (3, 6))):
        path = tmp_path / backend
        for most in stops:
            recipe = nf.Recipe(lr=0.2, max_updates=most, record_every=1, clip=how)
            try:
                run = nf.train(net, theta, source, recipe, backend=backend, checkpoint=path)
            except FloatingPointError as error:
                run = error.run
        found.append((run, *memory_of(path)))
    (wanted, slots, counts), (got, others, learnt) = found
    tolerance = 100 * within("float64", 6, 10)
    assert learnt == counts == ([6, 5] if policy == "skip" else [4, 4])
    assert_close(others, slots, tolerance)
    assert_close(got.theta - theta, wanted.theta - theta, tolerance)
    assert got.history["clipped"] == wanted.history["clipped"]
    assert np.sum(wanted.history["clipped"]) > 1


@pytest.mark.parametrize(
    "name, settings, words",
    [
        ("adagc", {"decay": 1.0}, r"settings\['decay'\] is 1.0"),
        ("adagc", {"relative": 0.0}, r"settings\['relative'\] is 0.0"),
        ("spam", {"waits": 3}, r"settings has \['waits'\]; expected some of: decay, interval, wait. Write wait"),
        ("norm", {"decay": 0.5}, r"settings has \['decay'\]; expected some of: none"),
        ("nope", {}, "expected one of adagc, block"),
        (3, {}, "name is 3; expected one of adagc"),
    ],
)
def test_a_setting_that_there_is_not_is_refused(name, settings, words):
    with pytest.raises((TypeError, ValueError), match=words):
        nf.load_rule(name, **settings)


def test_every_rule_is_found_by_its_name():
    assert set(STATEFUL_CLIPS) == set(naive.STATEFUL) == set(SETTINGS)
    assert {name for name in nf.names("clips") if isinstance(nf.load_rule(name), nf.Rule)} == set(CLIPS)
    for name in STATEFUL_CLIPS:
        assert nf.load_rule(name) is nf.load_rule(name)
        assert same_bits(train(nf.Clip(nf.load_rule(name), 0.5, "skip")).theta, train(nf.Clip(name, 0.5, "skip")).theta)


@exact_unit
def half_of_a_surprise(g, norm, joint, threshold, slots, settings, n):
    g = slots[0] + settings[0] * (g - slots[0]) if norm > threshold and n > 1.0 else g
    return g, (g,)


@exact_unit
def without_slots(g, norm, joint, threshold, slots, settings, n):
    return g, ()


OWN = nf.StatefulRule(over="unit", clip=half_of_a_surprise, slots=("last",), settings={"part": 0.5})


def test_a_rule_of_ones_own_is_accepted_wherever_a_name_is():
    run = train(nf.Clip(OWN, 0.05), 3)
    assert np.sum(run.history["clipped"]) > 0
    with pytest.raises(TypeError, match=r"StatefulRule.clip .*expected .*a tuple of 1 slots"):
        train(nf.Clip(dataclasses.replace(OWN, clip=without_slots), 0.05), 1)
    with pytest.raises(ValueError, match=r"StatefulRule.slots is \(\); expected 1 or more"):
        nf.StatefulRule(over="all", clip=half_of_a_surprise, slots=())
    with pytest.raises(ValueError, match=r"StatefulRule.over is 'nowhere'; expected one of"):
        nf.StatefulRule(over="nowhere", clip=half_of_a_surprise, slots=("last",))


def test_smoothed_is_half_of_the_threshold_there_and_never_above_it():
    d = np.zeros(NET.size)
    d[[3, 9]] = 3.0, -4.0
    assert nf.clip(NET, d, nf.Clip("smoothed", 5.0)).clipped_norm == near(2.5)
    for threshold in (1e-300, 1e-3, 1.0, 1e3, 1e300):
        done = nf.clip(NET, d, nf.Clip("smoothed", threshold))
        assert done.clipped_norm == near(5 / (1 + 5 / threshold))
        assert done.clipped_norm <= threshold
        assert done.cosine == near(1.0)
    assert same_bits(nf.clip(NET, d, nf.Clip("smoothed", np.inf)).d_theta, d)
    assert not nf.clip(NET, d, nf.Clip("smoothed", 0.0)).d_theta.any()
