"""The training loop: what it reports, when it ends, and that a replica trains as it would alone."""

import dataclasses
import importlib
import json
import pickle
import tracemalloc

import numpy as np
import pytest
from cases import CLIPS, OPTIMIZERS
from tolerance import near, same_bits, within

import nbflow as nf
from nbflow._compile import exact_unit
from nbflow.gradients._engine import engine_of
from nbflow.records import Regularizer
from nbflow.training.evaluation import Evaluator

TASK = nf.load_task("temporal_order")
NET = nf.Network("tanh", TASK.n_in, 12, TASK.n_out)
NET64 = dataclasses.replace(NET, dtype="float64")
# Small enough for the interpreter; without evaluations unless a test asks for them.
SMALL = nf.Recipe(batch_size=3, lengths=(10, 14), max_updates=6, record_every=2, evaluate_every=0)


def theta_of(net=NET, replicas=None, rng=0):
    return nf.init(net, "smart_tanh", rng=rng, replicas=replicas)


def recipe(**changes):
    return dataclasses.replace(SMALL, **changes)


def one_replica(theta, r):
    """Return theta (R,P) in which all replicas but r are 0: replica r trains as before if nothing leaks."""
    alone = np.zeros_like(theta)
    alone[r] = theta[r]
    return alone


def assert_same(one, two):
    """Check that two runs agree bit for bit in all but the time they took."""
    np.testing.assert_array_equal(one.theta, two.theta)
    a, b = one.as_dict(), two.as_dict()
    for run in (a, b):
        run["seconds"] = run["history"]["seconds"] = None
    assert a == b


def batch_of(update, steps=4, batch=3, dtype="float32", replicas=None):
    """Return a batch that depends on the update."""
    rng = np.random.default_rng(update)
    lead = (() if replicas is None else (replicas,)) + (steps, batch)
    weights = np.zeros(lead, dtype)
    weights[..., -1, :] = 1 / batch
    return nf.Batch(rng.integers(0, 6, lead), rng.integers(0, 4, lead), weights)


def by_hand(net, theta, batches, lr, clip=None, flow=None):
    """Train by the public functions: plain gradient descent with per-update settings."""
    theta = theta.copy()
    for update, batch in enumerate(batches):
        at = lambda value, update=update: value(update) if callable(value) else value  # noqa: E731
        how = None if flow is None else dataclasses.replace(flow, alpha=at(flow.alpha))
        d_theta = nf.gradient(net, theta, batch, flow=how).d_theta
        if clip is not None:
            d_theta = nf.clip(net, d_theta, dataclasses.replace(clip, threshold=at(clip.threshold))).d_theta
        theta = theta - net_dtype(net)(at(lr)) * d_theta
    return theta


def net_dtype(net):
    return np.dtype(net.dtype).type


def close(found, wanted, updates=10):
    """Compare after some updates of the same arithmetic, in which a multiplication and an addition may be fused."""
    np.testing.assert_allclose(found, wanted, rtol=0, atol=within(found.dtype, updates, 4) * np.abs(wanted).max())


# --- The arithmetic: what the loop does is what the public functions do.


@pytest.mark.sim
@pytest.mark.parametrize("net", [NET, NET64], ids=["float32", "float64"])
def test_training_is_gradient_clip_and_step_in_that_order(net):
    theta, clip, flow = theta_of(net), nf.Clip("norm", 0.05), nf.Flow("squared", 0.5, reduction="mean")
    run = nf.train(net, theta, TASK, recipe(lr=0.3, clip=clip, flow=flow, lengths=10, max_updates=4), seed=5)
    batches = [TASK.sample(seed=5, index=k, batch_size=3, length=10, dtype=net.dtype) for k in range(4)]
    close(run.theta, by_hand(net, theta, batches, 0.3, clip, flow))
    assert (run.theta != theta).any()


@pytest.mark.sim
def test_schedules_are_functions_of_the_update_counted_from_zero():
    asked = {"lr": [], "threshold": [], "alpha": []}

    def schedule(name, first):
        def value(update):
            asked[name].append(update)
            return first / (1 + update)

        return value

    lr, threshold, alpha = schedule("lr", 0.5), schedule("threshold", 0.1), schedule("alpha", 1.0)
    clip, flow = nf.Clip("norm", threshold), nf.Flow("norm", alpha)
    run = nf.train(NET64, theta_of(NET64), lambda k: batch_of(k, dtype="float64"), recipe(lr=lr, clip=clip, flow=flow))
    for name in asked:
        assert set(asked[name]) == set(range(6)), name
    batches = [batch_of(k, dtype="float64") for k in range(6)]
    close(run.theta, by_hand(NET64, theta_of(NET64), batches, lr, clip, flow))
    assert run.history["lr"] == near([0.5 / 2, 0.5 / 4, 0.5 / 6])


@pytest.mark.sim
def test_a_schedule_that_returns_a_number_is_that_number():
    fixed = recipe(lr=0.3, clip=nf.Clip("norm", 0.1), flow=nf.Flow("norm", 0.5))
    moving = recipe(lr=lambda k: 0.3, clip=nf.Clip("norm", lambda k: 0.1), flow=nf.Flow("norm", lambda k: 0.5))
    one, two = nf.train(NET, theta_of(), TASK, fixed), nf.train(NET, theta_of(), TASK, moving)
    np.testing.assert_array_equal(one.theta, two.theta)
    assert one.history["loss"] == two.history["loss"]


@pytest.mark.sim
def test_the_argument_is_not_changed_and_the_result_is_not_it():
    theta = theta_of()
    theta.flags.writeable = False
    before = theta.copy()
    run = nf.train(NET, theta, TASK, SMALL)
    np.testing.assert_array_equal(theta, before)
    assert not np.shares_memory(run.theta, theta)
    assert run.theta.flags.writeable
    assert run.theta.shape == theta.shape


# --- Replicas.

LRS, THRESHOLDS, ALPHAS = [0.1, 0.5, 0.0], [0.02, 10.0, 0.5], [0.0, 1.0, 2.0]


def mixed(at=slice(None), **changes):
    """Return a recipe with a rate, a threshold and an alpha for each replica."""
    pick = lambda values: values if at == slice(None) else values[at]  # noqa: E731
    return recipe(lr=pick(LRS), clip=nf.Clip("norm", pick(THRESHOLDS)), flow=nf.Flow("norm", pick(ALPHAS)), **changes)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_each_replica_has_its_own_rate_threshold_and_alpha_to_the_bit(optimizer):
    theta = theta_of(replicas=3)
    together = nf.train(NET, theta, TASK, mixed(optimizer=optimizer), seed=3)
    for r in range(3):
        # The same replica index, for the data depend on it; the same settings for all.
        alone = nf.train(NET, one_replica(theta, r), TASK, mixed(r, optimizer=optimizer), seed=3)
        np.testing.assert_array_equal(together.theta[r], alone.theta[r])
        for name in ("loss", "omega", "norm", "clipped", "nonfinite"):
            assert [row[r] for row in together.history[name]] == [row[r] for row in alone.history[name]]


def test_replica_zero_is_the_network_alone_to_the_bit():
    theta = theta_of(replicas=2)
    together, alone = nf.train(NET, theta, TASK, SMALL), nf.train(NET, theta[0], TASK, SMALL)
    np.testing.assert_array_equal(together.theta[0], alone.theta)
    assert [row[0] for row in together.history["loss"]] == alone.history["loss"]


def test_replicas_with_the_same_weights_see_different_data():
    theta = np.stack([theta_of()] * 2)
    run = nf.train(NET, theta, TASK, SMALL)
    assert (run.theta[0] != run.theta[1]).any()


def test_schedules_may_return_a_number_for_each_replica():
    theta = theta_of(replicas=3)
    moving = recipe(
        lr=lambda k: np.array(LRS),
        clip=nf.Clip("norm", lambda k: THRESHOLDS),
        flow=nf.Flow("norm", lambda k: tuple(ALPHAS)),
    )
    one, two = nf.train(NET, theta, TASK, moving), nf.train(NET, theta, TASK, mixed())
    np.testing.assert_array_equal(one.theta, two.theta)


# --- Seeds and streams.


def test_the_same_seed_gives_the_same_bits_and_another_seed_others():
    runs = [
        nf.train(NET, theta_of(), TASK, recipe(evaluate_every=3, evaluate_size=50), seed=seed) for seed in (1, 1, 2)
    ]
    assert_same(runs[0], runs[1])
    assert (runs[0].theta != runs[2].theta).any()


def test_lengths_are_drawn_from_the_whole_range_and_are_the_same_for_every_number_of_replicas():
    many = recipe(max_updates=60, record_every=1)
    alone, three = nf.train(NET, theta_of(), TASK, many), nf.train(NET, theta_of(replicas=3), TASK, many)
    assert set(alone.history["length"]) == set(range(10, 15))
    assert alone.history["length"] == three.history["length"]
    assert nf.train(NET, theta_of(), TASK, recipe(lengths=12)).history["length"] == [12] * 3


def test_how_often_a_run_is_recorded_or_evaluated_changes_nothing_else():
    plain = nf.train(NET, theta_of(), TASK, SMALL)
    watched = nf.train(NET, theta_of(), TASK, recipe(record_every=1, evaluate_every=1, evaluate_size=50))
    np.testing.assert_array_equal(plain.theta, watched.theta)
    assert np.reshape(watched.history["loss"], (3, 2)).mean(axis=1) == near(plain.history["loss"])


def test_evaluation_is_a_stream_that_training_never_sees():
    one = TASK.sample(seed=0, index=0, batch_size=50, length=20)
    two = TASK.sample(seed=0, index=0, batch_size=50, length=20, stream="evaluation")
    assert (one.inputs != two.inputs).any()
    seen = {TASK.sample(seed=0, index=k, batch_size=50, length=20).inputs.tobytes() for k in range(50)}
    fresh = {
        TASK.sample(seed=0, index=k, batch_size=50, length=20, stream="evaluation").inputs.tobytes() for k in range(50)
    }
    assert len(seen) == len(fresh) == 50
    assert not seen & fresh


@pytest.mark.parametrize("size", [1, 50, 200, 430])
def test_training_evaluates_as_evaluate_does_at_the_same_index(size):
    theta = theta_of(replicas=2)
    run = nf.train(NET, theta, TASK, recipe(evaluate_every=3, evaluate_size=size), seed=4)
    assert run.evaluations["update"] == [3, 6]
    again = nf.evaluate(NET, run.theta, TASK, length=(10, 14), size=size, seed=4, index=6)
    assert run.evaluations["score"][-1] == again.tolist()
    halfway = nf.train(NET, theta, TASK, recipe(max_updates=3), seed=4)
    again = nf.evaluate(NET, halfway.theta, TASK, length=(10, 14), size=size, seed=4, index=3)
    assert run.evaluations["score"][0] == again.tolist()


def test_evaluate_is_what_predict_and_wrong_say_of_the_evaluation_stream():
    theta = theta_of()
    batch = TASK.sample(seed=2, index=7, batch_size=150, length=12, stream="evaluation")
    wanted = TASK.wrong(nf.predict(NET, theta, batch.inputs), batch).mean()
    assert nf.evaluate(NET, theta, TASK, length=12, size=150, seed=2, index=7) == wanted
    assert isinstance(nf.evaluate(NET, theta, TASK, length=12, size=3), float)


def test_another_index_or_seed_evaluates_on_other_sequences():
    theta = theta_of()
    found = [
        nf.evaluate(NET, theta, TASK, length=20, size=1000, seed=s, index=k)
        for s, k in [(0, 0), (0, 0), (0, 1), (1, 0)]
    ]
    assert found[0] == found[1]
    assert len(set(found[1:])) == 3


def test_evaluate_leaves_theta_alone():
    theta = theta_of(replicas=2)
    theta.flags.writeable = False
    before = theta.copy()
    nf.evaluate(NET, theta, TASK, length=12, size=10)
    np.testing.assert_array_equal(theta, before)


# --- History, evaluations, first passage.


class FakeEvaluator:
    """An evaluator whose scores are written down beforehand, a row for each evaluation."""

    scores: tuple = ()

    def __init__(self, *arguments):
        self.left = list(self.scores)

    def score(self, theta, seed, index):
        return np.array(self.left.pop(0), dtype=float)


def evaluated(monkeypatch, scores, **changes):
    """Train two replicas whose evaluations, one after every update, are these scores."""
    monkeypatch.setattr(FakeEvaluator, "scores", scores)
    monkeypatch.setattr(importlib.import_module("nbflow.training._loop"), "Evaluator", FakeEvaluator)
    changes = {"evaluate_every": 1, "max_updates": len(scores), "record_every": 1} | changes
    return nf.train(NET, theta_of(replicas=2), TASK, recipe(**changes))


@pytest.mark.sim
def test_first_passage_is_the_first_evaluation_below_and_stays_below_looks_at_all_since(monkeypatch):
    run = evaluated(monkeypatch, [(0.5, 0.009), (0.009, 0.5), (0.0, 0.009), (0.009, 0.009)])
    assert run.first_passage == [2, 1]
    assert run.stays_below == [True, False]
    assert run.evaluations == {
        "update": [1, 2, 3, 4],
        "score": [[0.5, 0.009], [0.009, 0.5], [0.0, 0.009], [0.009, 0.009]],
    }


@pytest.mark.sim
def test_a_score_at_the_bound_is_not_below_it_and_nan_never_is(monkeypatch):
    run = evaluated(monkeypatch, [(0.01, np.nan), (0.00999, np.nan)])
    assert run.first_passage == [2, None]
    assert run.stays_below == [True, False]
    assert evaluated(monkeypatch, [(0.3, 0.5)], solved_below=0.4).first_passage == [1, None]


@pytest.mark.sim
def test_stop_when_solved_ends_at_the_first_passage_of_the_last_replica(monkeypatch):
    scores = [(0.5, 0.0), (0.5, 0.5), (0.0, 0.5), (0.0, 0.0), (0.0, 0.0)]
    run = evaluated(monkeypatch, scores, stop_when_solved=True)
    assert run.updates == 3
    assert run.first_passage == [3, 1]
    assert run.evaluations["update"] == [1, 2, 3]
    assert run.history["update"] == [1, 2, 3]
    assert evaluated(monkeypatch, scores).updates == 5


@pytest.mark.sim
def test_stop_when_solved_stops_between_two_rows_of_the_history_and_calls_back(monkeypatch):
    calls = []
    monkeypatch.setattr(FakeEvaluator, "scores", [(0.5, 0.5), (0.0, 0.0), (0.0, 0.0)])
    monkeypatch.setattr(importlib.import_module("nbflow.training._loop"), "Evaluator", FakeEvaluator)
    how = recipe(max_updates=9, record_every=7, evaluate_every=2, stop_when_solved=True)
    run = nf.train(NET, theta_of(replicas=2), TASK, how, callbacks=[lambda run: calls.append(run.updates)])
    assert run.updates == 4
    assert run.history["update"] == [4]
    assert calls == [4]


@pytest.mark.sim
def test_a_bound_is_a_part_of_sequences_above_0():
    train = lambda value: nf.train(NET, theta_of(), TASK, recipe(solved_below=value))  # noqa: E731
    for value in (1.001, 2.5, 1e30):
        with pytest.raises(
            ValueError, match=r"solved_below is .+; expected at most 1, for .+ 'part wrong' .+ is 0.01\."
        ):
            train(value)
    for value, said in ((0.0, "above 0"), (-1.0, "above 0"), (np.inf, "finite"), (np.nan, "is NaN")):
        with pytest.raises(ValueError, match=f"solved_below .*{said}"):
            train(value)
    assert train(1.0).recipe["solved_below"] == 1.0
    assert train(None).recipe["solved_below"] == TASK.solved_below == 0.01


@pytest.mark.sim
def test_batches_of_a_function_have_no_score_no_unit_and_nothing_to_stop_at():
    run = nf.train(NET, theta_of(), batch_of, recipe(solved_below=0.5))
    assert run.unit is None
    assert run.recipe["solved_below"] is None
    with pytest.raises(ValueError, match=r"stop_when_solved is True; expected False .+ callback"):
        nf.train(NET, theta_of(), batch_of, recipe(stop_when_solved=True))


@pytest.mark.sim
def test_who_asks_for_an_error_is_told_that_it_is_a_score():
    run = nf.train(NET, theta_of(), TASK, SMALL)
    assert run.unit == TASK.unit == "part wrong"
    with pytest.raises(KeyError, match=r"no 'error'; expected one of update, score.+ run\.unit"):
        run.evaluations["error"]
    assert run.evaluations.get("error") is None


def test_the_last_update_is_evaluated_once_whatever_the_interval():
    how = recipe(max_updates=5, evaluate_every=2, evaluate_size=10)
    assert nf.train(NET, theta_of(), TASK, how).evaluations["update"] == [2, 4, 5]
    assert nf.train(NET, theta_of(), TASK, dataclasses.replace(how, max_updates=4)).evaluations["update"] == [2, 4]
    assert nf.train(NET, theta_of(), TASK, SMALL).evaluations == {"update": [], "score": []}


def test_an_easy_task_is_solved_and_stays_so():
    target = nf.Recipe(
        optimizer="adam", lr=0.01, batch_size=50, lengths=10, clip=nf.Clip("norm", 1.0), max_updates=200,
        record_every=20, evaluate_every=50, evaluate_size=1000, solved_below=0.05,
    )  # fmt: skip
    net = nf.Network("tanh", TASK.n_in, 30, TASK.n_out)
    run = nf.train(net, nf.init(net, "orthogonal", rng=0), TASK, target)
    assert run.first_passage is not None
    assert run.evaluations["score"][-1] < 0.05
    assert run.stays_below
    assert run.history["loss"][-1] < 0.2 < 0.4 < run.history["loss"][0]
    assert nf.evaluate(net, run.theta, TASK, length=10, size=1000, seed=99) < 0.08


@pytest.mark.parametrize("replicas", [None, 2])
def test_the_whole_report_is_plain_data_that_json_takes(replicas):
    lr = np.array([0.1] * replicas) if replicas else np.float32(0.1)
    how = recipe(
        optimizer="momentum", settings={"momentum": np.float64(0.5)}, lr=lr, clip=nf.Clip("norm", lambda k: 1.0),
        flow=nf.Flow("norm", np.float32(0.5)), evaluate_every=3, evaluate_size=10,
    )  # fmt: skip
    run = nf.train(NET, theta_of(replicas=replicas), TASK, how)
    told = run.as_dict()
    assert json.loads(json.dumps(told, allow_nan=False)) == json.loads(json.dumps(told))
    again = json.loads(json.dumps(told))
    assert again["updates"] == 6
    assert again["interrupted"] is False
    assert again["recipe"]["batch_size"] == 3
    assert again["recipe"]["optimizer"] == "momentum"
    assert again["recipe"]["clip"]["rule"] == "norm"
    assert "theta" not in again
    rows = again["history"]
    assert set(rows) == {"update", "seconds", "length", "lr", "threshold", "loss", "omega", "norm", "clipped_norm",
                         "cosine", "clipped", "nonfinite"}  # fmt: skip
    assert {len(column) for column in rows.values()} == {3}
    assert rows["update"] == [2, 4, 6]
    assert np.shape(rows["loss"]) == (3,) + (() if replicas is None else (replicas,))
    assert np.shape(rows["lr"]) == np.shape(rows["loss"])


@pytest.mark.parametrize("own", ["optimizer", "rule", "penalty", "task"])
def test_objects_of_ones_own_in_a_recipe_are_described_in_plain_data(own):
    from nbflow._load import load

    changes = {
        "optimizer": {"optimizer": load("optimizers", "sgd")},
        "rule": {"clip": nf.Clip(load("clips", "norm"), 1.0)},
        "penalty": {"flow": nf.Flow(load("flows", "norm"), 1.0)},
        "task": {},
    }[own]
    task = dataclasses.replace(TASK) if own == "task" else TASK
    assert json.dumps(nf.train(NET, theta_of(), task, recipe(**changes)).as_dict(), allow_nan=False)


@pytest.mark.sim
def test_without_a_flow_there_is_no_column_of_omega_and_without_a_clip_nothing_is_clipped():
    rows = nf.train(NET, theta_of(), TASK, SMALL).history
    assert set(rows) == {"update", "seconds", "length", "lr", "loss", "norm", "clipped", "nonfinite"}
    assert rows["clipped"] == [0] * 3
    assert (np.array(rows["norm"]) > 0).all()
    norm = nf.train(NET, theta_of(), TASK, recipe(clip=nf.Clip("norm", 1e9))).history["norm"]
    assert rows["norm"] == norm


@pytest.mark.sim
def test_a_row_holds_the_means_since_the_row_before():
    norms, losses, omegas, clipped = [], [], [], []
    theta, clip, flow = theta_of(NET64), nf.Clip("norm", 0.9), nf.Flow("norm", 0.0)
    batches = [batch_of(k, dtype="float64") for k in range(5)]
    for batch in batches:
        out = nf.gradient(NET64, theta, batch, flow=flow)
        done = nf.clip(NET64, out.d_theta, clip)
        losses.append(out.loss), omegas.append(out.omega), norms.append(done.norm), clipped.append(done.fraction)
    how = recipe(lr=0.0, clip=clip, flow=flow, max_updates=5, record_every=3)
    rows = nf.train(NET64, theta, batches.__getitem__, how).history
    assert rows["update"] == [3, 5]
    for name, values in {"loss": losses, "omega": omegas, "norm": norms, "clipped": clipped}.items():
        assert rows[name] == near([np.mean(values[:3]), np.mean(values[3:])]), name
    assert rows["nonfinite"] == [0, 0]


@pytest.mark.parametrize("every", [255, 256, 257, 600])
def test_long_windows_have_the_same_means_as_short_ones(every):
    how = recipe(max_updates=600, batch_size=1, lengths=10, clip=nf.Clip("norm", 0.5))
    short = nf.train(NET64, theta_of(NET64), TASK, dataclasses.replace(how, record_every=1)).history
    long = nf.train(NET64, theta_of(NET64), TASK, dataclasses.replace(how, record_every=every)).history
    for name in ("loss", "norm", "clipped"):
        assert long[name][0] == near(np.mean(short[name][:every])), name
        assert long[name][-1] == near(np.mean(short[name][(600 - 1) // every * every :])), name
    assert sum(long["nonfinite"]) == 0


@pytest.mark.sim
def test_an_enormous_interval_between_rows_takes_no_memory():
    how = recipe(record_every=10**9, max_updates=2, clip=nf.Clip("norm", 1.0))
    nf.train(NET, theta_of(), TASK, how)
    tracemalloc.start()
    try:
        run = nf.train(NET, theta_of(), TASK, how)
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()
    assert run.history["update"] == [2]


# --- Callbacks and Ctrl-C.


@pytest.mark.sim
def test_callbacks_see_the_run_after_every_row_in_their_order():
    seen = []
    first = lambda run: seen.append(("first", run.updates, len(run.history["loss"]), run.seconds > 0))  # noqa: E731
    second = lambda run: seen.append(("second", run.updates))  # noqa: E731
    nf.train(NET, theta_of(), TASK, recipe(max_updates=5), callbacks=(first, second))
    assert seen == [
        ("first", 2, 1, True), ("second", 2),
        ("first", 4, 2, True), ("second", 4),
        ("first", 5, 3, True), ("second", 5),
    ]  # fmt: skip


@pytest.mark.sim
@pytest.mark.parametrize(
    ("answer", "updates"), [(True, 2), (np.True_, 2), (1, 2), ("stop", 2), (None, 6), (False, 6), (0, 6)]
)
def test_a_callback_with_a_true_answer_ends_the_training_and_nothing_else_does(answer, updates):
    calls = []
    run = nf.train(NET, theta_of(), TASK, SMALL, callbacks=[lambda run: answer, lambda run: calls.append(run.updates)])
    assert run.updates == updates
    assert calls[-1] == updates, "the callbacks after it are called as well"
    assert not run.interrupted


@pytest.mark.sim
def test_a_callback_sees_the_parameters_as_they_are():
    seen = []
    run = nf.train(NET, theta_of(), TASK, SMALL, callbacks=[lambda run: seen.append(run.theta.copy())])
    for k, theta in enumerate(seen):
        np.testing.assert_array_equal(theta, nf.train(NET, theta_of(), TASK, recipe(max_updates=2 * k + 2)).theta)
    np.testing.assert_array_equal(seen[-1], run.theta)


@pytest.mark.sim
def test_what_a_callback_keeps_stays_and_nobody_writes_what_training_goes_on_with():
    seen = []

    def keep(run):
        seen.append((run.theta, run.theta.copy()))
        with pytest.raises(ValueError, match="read-only"):
            run.theta[...] = 0

    run = nf.train(NET, theta_of(), TASK, SMALL, callbacks=[keep])
    assert len(seen) > 1
    assert all((kept == then).all() for kept, then in seen)
    run.theta[...] = 0  # the end of it is the caller's


def test_a_mean_over_no_finite_gradient_is_nan():
    theta = theta_of()
    theta[0] = np.nan
    how = recipe(max_updates=4, record_every=2, evaluate_every=0, clip=nf.Clip("norm", 1.0, "skip"))
    history = nf.train(NET, theta, TASK, how).history
    assert np.isnan([history[name] for name in ("norm", "clipped_norm", "cosine")]).all()
    assert history["nonfinite"] == [2, 2]


def test_a_network_that_was_used_is_pickled_without_what_it_found():
    net = nf.Network("lstm", 3, 4, 2)
    nf.init(net, "glorot", rng=0)
    assert pickle.dumps(net) == pickle.dumps(nf.Network("lstm", 3, 4, 2))
    assert pickle.loads(pickle.dumps(net)) == net


@pytest.mark.parametrize(
    "change, said",
    [
        ({"lr": lambda update: 0.35 - 0.1 * update}, r"lr is -0.05; .* at update 4\."),
        ({"clip": nf.Clip("norm", lambda update: 3.5 - update)}, r"threshold is -0.5; .* at update 4\."),
        ({"lr": lambda update: np.nan if update == 4 else 0.1}, r"lr is NaN; .* at update 4\."),
        ({"flow": nf.Flow("norm", lambda update: 3.5 - update)}, r"alpha is -0.5; .* at update 4\."),
        ({"lr": lambda update: "no" if update == 4 else 0.1}, r"lr is 'no'; .* at update 4\."),
    ],
)
def test_an_error_in_mid_run_names_the_update_and_carries_the_run(change, said, tmp_path):
    how = recipe(max_updates=6, record_every=2, **change)
    with pytest.raises((TypeError, ValueError), match=said) as caught:
        nf.train(NET, theta_of(), TASK, how, checkpoint=tmp_path / "run.npz")
    run = caught.value.run
    assert run.updates == 4
    assert run.history["update"] == [2, 4]
    np.testing.assert_array_equal(run.theta, nf.load_run(tmp_path / "run.npz").theta)


# Schedules that run to 0: exactly, a hair below by rounding, and to what float32 cannot hold.
ENDS = {
    "exactly": lambda update: 1 - update / 4,
    "a hair below": lambda update: 0.3 - 0.1 * (update / 4 * 3),
    "a hair below, from 1e6": lambda update: 1e6 if update < 4 else -1e-9,
    "a hair below, after a warm-up from 0": lambda update: 0.1 * update if update < 4 else -1e-16,
    "below the least number": lambda update: 0.1 if update < 4 else 1e-60,
    "a hair below, from no threshold": lambda update: np.inf if update < 4 else -1e-18,
    "one of two": lambda update: [0.1, 0.4 - update / 10 - 1e-18],
}


@pytest.mark.sim
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("name", ["lr", "threshold", "alpha"])
def test_a_schedule_that_runs_to_0_ends_at_0(name, end):
    assert ENDS["a hair below"](4) < 0
    schedule, replicas = ENDS[end], 2 if end == "one of two" else None
    if end == "a hair below, from no threshold" and name != "threshold":
        return
    change = {
        "lr": {"lr": schedule},
        "threshold": {"clip": nf.Clip("norm", schedule)},
        "alpha": {"flow": nf.Flow("norm", schedule)},
    }
    how = recipe(max_updates=5, record_every=1, lengths=10, **change[name])
    theta = theta_of(replicas=replicas)
    run, before = (nf.train(NET, theta, TASK, dataclasses.replace(how, max_updates=k)) for k in (5, 4))
    if name != "alpha":
        assert np.ravel(run.history[name][-1])[-1] == 0
        assert same_bits(run.theta[-1:], before.theta[-1:]), "a step of 0"
    else:
        plain = nf.train(NET, before.theta, lambda k: sample(4, replicas), recipe(max_updates=1))
        assert same_bits(run.theta[-1:], plain.theta[-1:]), "Omega counts for nothing"


def sample(update, replicas=None):
    return TASK.sample(seed=0, index=update, batch_size=3, length=10, replicas=replicas)


@pytest.mark.sim
def test_a_threshold_of_ones_own_that_runs_to_0_ends_there():
    def value(norm, memory, settings, update):
        return 0.3 - 0.1 * (update / 4 * 3)

    how = recipe(max_updates=5, record_every=1, clip=nf.Clip("norm", nf.Threshold(exact_unit(value))))
    assert nf.train(NET, theta_of(), TASK, how).history["clipped_norm"][-1] <= 2 * float(np.finfo(np.float32).tiny)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_rate_of_0_leaves_theta_and_a_threshold_of_0_makes_every_gradient_0(optimizer):
    theta = theta_of(replicas=2)
    still = nf.train(NET, theta, TASK, recipe(optimizer=optimizer, lr=[0.0, 0.1]))
    assert same_bits(still.theta[0], theta[0])
    assert (still.theta[1] != theta[1]).any()
    for rule in CLIPS:
        run = nf.train(NET, theta, TASK, recipe(optimizer=optimizer, clip=nf.Clip(rule, 0.0)))
        assert same_bits(run.theta, theta), rule
        assert np.ravel(run.history["clipped_norm"]).tolist() == [0.0] * 6, rule


# What can fail in mid-run: what goes wrong at update 4 as long as `broken` is true, as an argument or a recipe's field.
def failing(kind, broken):
    def fail(update):
        if broken and update == 4:
            raise ZeroDivisionError("mine")
        return 0.1

    def source(update):
        fail(update)
        return sample(update)

    def overflowing(update):
        batch = sample(update)
        if broken and update == 4:
            batch.weights[-1] = np.float32(3e38)
        return batch

    def value_and_gradient(net, theta, batch):
        fail(4 if len(calls) == 4 else 0)
        calls.append(0)
        return 0.0, np.zeros_like(theta)

    calls = []
    follower = nf.load_threshold("percentile", window=3, percent=50)
    return {
        "schedule of the rate": {"lr": fail},
        "schedule of the threshold": {"clip": nf.Clip("norm", fail)},
        "threshold below 0": {"clip": nf.Clip("norm", lambda update: -1.0 if broken and update == 4 else 0.1)},
        "source": {"task": source},
        "policy raise": {"task": overflowing, "clip": nf.Clip("norm", 1.0, "raise")},
        "policy raise with a memory": {"task": overflowing, "clip": nf.Clip("norm", follower, "raise")},
        "regularizer": {"flow": nf.Flow(Regularizer(value_and_gradient), 1.0)},
        "callback": {"callbacks": [lambda run: fail(run.updates) and None]},
    }[kind]


@pytest.mark.parametrize(
    "kind",
    ["schedule of the rate", "schedule of the threshold", "threshold below 0", "source", "policy raise",
     "policy raise with a memory", "regularizer", "callback"],
)  # fmt: skip
def test_whatever_fails_in_mid_run_leaves_the_run_and_its_checkpoint_to_go_on_from(kind, tmp_path):
    path, broken = tmp_path / "run.npz", [True]
    change = failing(kind, broken)
    arguments = {name: change.pop(name) for name in ("task", "callbacks") if name in change}
    how = recipe(max_updates=8, record_every=4 if kind == "callback" else 3, lr=0.1, optimizer="adam")
    how = dataclasses.replace(how, **change)
    theta = theta_of() * (50 if "raise" in kind else 1)
    call = {"net": NET, "theta": theta, "task": TASK, "recipe": how} | arguments
    with pytest.raises((ZeroDivisionError, FloatingPointError, ValueError)) as caught:
        nf.train(**call, checkpoint=path)
    run, saved = caught.value.run, nf.load_run(path)
    assert run.updates == saved.updates == 4
    assert same_bits(run.theta, saved.theta)
    assert saved.history["update"] == [4 if kind == "callback" else 3]
    assert run.history["update"] == ([4] if kind == "callback" else [3, 4]), "with a row of what is left"
    broken.clear()
    if "raise" in kind:
        assert "gradient of update 4" in str(caught.value)
    on = nf.train(**call, checkpoint=path)
    assert_same(on, nf.train(**call))


def test_an_evaluation_that_fails_leaves_the_run_and_is_made_again(monkeypatch, tmp_path):
    path, how = tmp_path / "run.npz", recipe(evaluate_every=2, evaluate_size=4)
    score, calls = Evaluator.score, []

    def fail(self, theta, seed, index):
        calls.append(index)
        if calls.count(4) == 1 and index == 4:
            raise ZeroDivisionError
        return score(self, theta, seed, index)

    monkeypatch.setattr(Evaluator, "score", fail)
    with pytest.raises(ZeroDivisionError) as caught:
        nf.train(NET, theta_of(), TASK, how, checkpoint=path)
    assert caught.value.run.updates == nf.load_run(path).updates == 4
    assert caught.value.run.evaluations["update"] == [2]
    assert_same(nf.train(NET, theta_of(), TASK, how, checkpoint=path), nf.train(NET, theta_of(), TASK, how))


def test_an_error_between_two_settings_of_an_update_leaves_those_of_the_one_before():
    def threshold(update):
        if update == 3:
            raise ZeroDivisionError
        return 1.0

    how = recipe(lr=lambda update: 0.1 * (1 + update), record_every=10, clip=nf.Clip("norm", threshold))
    with pytest.raises(ZeroDivisionError) as caught:
        nf.train(NET, theta_of(), TASK, how)
    assert caught.value.run.history["lr"] == near([0.3], "float32")


def test_an_error_of_a_callback_carries_the_run():
    def fail(run):
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match=r"^mine") as caught:
        nf.train(NET, theta_of(), TASK, SMALL, callbacks=[fail])
    assert caught.value.run.updates == 2


def test_ctrl_c_in_a_callback_returns_what_was_done():
    def callback(run):
        if run.updates == 4:
            raise KeyboardInterrupt

    run = nf.train(NET, theta_of(), TASK, SMALL, callbacks=[callback])
    assert run.interrupted
    assert run.updates == 4
    assert run.history["update"] == [2, 4]
    np.testing.assert_array_equal(run.theta, nf.train(NET, theta_of(), TASK, recipe(max_updates=4)).theta)
    assert json.dumps(run.as_dict(), allow_nan=False)


@pytest.mark.sim
@pytest.mark.parametrize(("at", "rows"), [(0, []), (3, [2, 3]), (4, [2, 4])])
def test_ctrl_c_in_a_source_returns_what_was_done(at, rows):
    def source(update):
        if update == at:
            raise KeyboardInterrupt
        return batch_of(update)

    run = nf.train(NET, theta_of(), source, SMALL)
    assert run.interrupted
    assert run.updates == at
    assert run.history.get("update", []) == rows
    assert json.dumps(run.as_dict(), allow_nan=False)
    if at:
        np.testing.assert_array_equal(run.theta, nf.train(NET, theta_of(), batch_of, recipe(max_updates=at)).theta)
    else:
        np.testing.assert_array_equal(run.theta, theta_of())


@pytest.mark.sim
def test_another_exception_of_a_callback_or_a_source_is_not_swallowed():
    def fail(argument):
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        nf.train(NET, theta_of(), TASK, SMALL, callbacks=[fail])
    with pytest.raises(ZeroDivisionError, match="mine"):
        nf.train(NET, theta_of(), fail, SMALL)


# --- Gradients that are not finite.


def spoilt(update):
    """Return a batch whose gradient is not finite at updates 1 and 4."""
    batch = batch_of(update)
    if update in (1, 4):
        batch.weights[-1] = 3e38
    return batch


@pytest.mark.parametrize("policy", ["random", "skip", "zero", "shrink", "keep"])
def test_gradients_that_are_not_finite_are_counted(policy):
    how = recipe(clip=nf.Clip("norm", 1.0, nonfinite=policy), max_updates=6, record_every=3)
    net = dataclasses.replace(NET, loss="softmax")
    theta = 100 * theta_of(net)
    run = nf.train(net, theta, spoilt, how)
    if policy == "keep":
        assert run.history["nonfinite"] == [2, 3]
        assert np.isnan(run.theta).any()
    else:
        assert run.history["nonfinite"] == [1, 1]
        assert np.isfinite(run.theta).all()
        assert run.history["clipped"][0] >= 1 / 3
        assert np.isfinite(run.history["norm"]).all()
    assert json.dumps(run.as_dict())


LINES = nf.Network("tanh", 2, 4, 1, loss="square")


def spoilt_second(update):
    """Return a batch of two replicas, of which the second has a gradient that is not finite at updates 1 and 4."""
    rng = np.random.default_rng(update)
    inputs, targets = (rng.normal(size=(2, 5, 3, size)).astype("float32") for size in (2, 1))
    if update in (1, 4):
        targets[1] = 3e38
    return nf.Batch(inputs, targets, np.full((2, 5, 3), 0.1, "float32"))


@pytest.mark.parametrize("rule", CLIPS)
@pytest.mark.parametrize("policy", ["random", "skip", "zero", "shrink", "keep"])
def test_every_rule_and_policy_counts_per_replica_and_leaves_the_others_alone_to_the_bit(rule, policy):
    theta = nf.init(LINES, "orthogonal", rng=0, replicas=2)
    how = recipe(clip=nf.Clip(rule, 0.1, nonfinite=policy), record_every=3)
    run = nf.train(LINES, theta, spoilt_second, how)
    assert run.history["nonfinite"] == [[0, 1 if policy != "keep" else 2], [0, 1 if policy != "keep" else 3]]
    assert run.recipe["clip"]["nonfinite"] == policy
    assert np.isfinite(run.theta[1]).all() == (policy != "keep")
    alone = nf.train(LINES, theta[0], lambda k: nf.Batch(*(part[0] for part in spoilt_second(k))), how)
    np.testing.assert_array_equal(run.theta[0], alone.theta)
    for name in ("loss", "norm", "clipped_norm", "cosine", "clipped", "nonfinite"):
        assert [row[0] for row in run.history[name]] == alone.history[name], name


@pytest.mark.parametrize("rule", CLIPS)
def test_the_history_says_of_a_clip_what_the_report_of_one_does(rule):
    theta = theta_of(NET64)
    batches, clip = [batch_of(k, dtype="float64") for k in range(3)], nf.Clip(rule, 0.1)
    run = nf.train(NET64, theta, batches.__getitem__, recipe(lr=0.0, clip=clip, max_updates=3, record_every=3))
    done = [nf.clip(NET64, nf.gradient(NET64, theta, batch).d_theta, clip, theta=theta, rng=0) for batch in batches]
    for name in ("norm", "clipped_norm") if rule == "random" else ("norm", "clipped_norm", "cosine"):
        assert run.history[name] == near([np.mean([getattr(one, name) for one in done])], "float64", 20, 500), name
    assert run.history["threshold"] == [0.1]
    assert abs(run.history["cosine"][0]) <= 1.0 + within("float64", 1, NET64.size)
    if rule not in ("norm", "normalize", "smoothed", "layer"):  # of one layer, the joint norm
        assert run.history["cosine"][0] < 0.999, "the clip turns it"


def test_gradients_without_a_direction_are_left_out_of_the_mean_cosine():
    """Of four: one as it was, one of 0, one that is not finite, one that is clipped entry by entry."""
    theta = theta_of(NET64)
    batches = [batch_of(k, dtype="float64") for k in range(4)]
    for batch, size in zip(batches, (1e-3, 0.0, 1.0, 1.0), strict=True):
        batch.weights[...] *= size
    batches[2].weights[...], batches[2].targets[...] = 1e308, 0
    how = recipe(lr=0.0, clip=nf.Clip("value", 0.01, nonfinite="skip"), max_updates=4, record_every=4)
    rows = nf.train(NET64, theta, batches.__getitem__, how).history
    done = [nf.clip(NET64, nf.gradient(NET64, theta, batches[k]).d_theta, nf.Clip("value", 0.01)) for k in (0, 3)]
    assert rows["nonfinite"] == [1]
    assert rows["cosine"] == near([(1 + done[1].cosine) / 2])
    assert rows["norm"] == near([(done[0].norm + 0 + done[1].norm) / 3])
    assert rows["clipped_norm"] == near([(done[0].clipped_norm + 0 + done[1].clipped_norm) / 3])


def test_skip_leaves_the_parameters_where_they_were():
    how = recipe(clip=nf.Clip("norm", 1.0, nonfinite="skip"), max_updates=2)
    theta = 100 * theta_of()
    first = nf.train(NET, theta, spoilt, dataclasses.replace(how, max_updates=1))
    np.testing.assert_array_equal(nf.train(NET, theta, spoilt, how).theta, first.theta)


def test_the_policy_raise_raises_and_names_the_parameters():
    how = recipe(clip=nf.Clip("norm", 1.0, nonfinite="raise"))
    with pytest.raises(FloatingPointError, match="w_rec"):
        nf.train(NET, 100 * theta_of(), spoilt, how)


@pytest.mark.sim
def test_random_steps_have_the_length_of_the_threshold_and_differ_between_updates_and_replicas():
    theta = np.full((2, NET64.size), np.nan)
    runs = []
    for updates in (1, 2):
        how = recipe(lr=1.0, clip=nf.Clip("norm", [0.5, 2.0]), max_updates=updates)
        runs.append(nf.train(NET64, theta, TASK, how))
    # theta is NaN, so the steps cannot be read off it; the direction is the one of seed, replica and update.
    from nbflow.cpu.clipping import random_step

    whole, lengths = [(0, NET64.size, 1)], np.array([[0.5], [2.0]])
    steps = [random_step(whole, lengths[r], 0, r, k) for r in (0, 1) for k in (0, 1)]
    assert [np.linalg.norm(step) for step in steps] == near([0.5, 0.5, 2.0, 2.0])
    units = [step / np.linalg.norm(step) for step in steps]
    for a in range(4):
        for b in range(a):
            assert abs(units[a] @ units[b]) < 0.5
    assert runs[1].history["nonfinite"] == [[2, 2]]


@pytest.mark.sim
def test_without_a_clip_nothing_hides_a_gradient_that_is_not_finite():
    run = nf.train(NET, np.full_like(theta_of(), np.nan), TASK, SMALL)
    assert np.isnan(run.history["loss"]).all()
    assert np.isnan(run.theta).all()


# --- Sources of one's own.


@pytest.mark.sim
def test_a_source_may_give_another_length_and_batch_size_every_time():
    shapes = [(4, 3), (9, 1), (2, 8), (4, 3), (1, 1), (12, 3)]
    batches = [batch_of(k, *shape, dtype="float64") for k, shape in enumerate(shapes)]
    run = nf.train(NET64, theta_of(NET64), batches.__getitem__, recipe(lr=0.3, record_every=1))
    close(run.theta, by_hand(NET64, theta_of(NET64), batches, 0.3))
    assert run.history["length"] == [4, 9, 2, 4, 1, 12]
    assert run.evaluations == {"update": [], "score": []}


@pytest.mark.sim
def test_a_source_may_give_dense_inputs_tokens_strides_and_read_only_arrays():
    net = nf.Network("tanh", 2, 3, 2, loss="square", dtype="float64")
    theta, rng = nf.init(net, "orthogonal", rng=0), np.random.default_rng(0)
    batches = [nf.Batch(rng.normal(size=(5, 3, 2)), rng.normal(size=(5, 3, 2)), np.full((5, 3), 0.1)) for _ in range(5)]
    batches.append(batches[0]._replace(inputs=rng.integers(0, 2, (5, 3))))
    run = nf.train(net, theta, [*batches].__getitem__, SMALL)
    other = [nf.Batch(*(np.asfortranarray(part) for part in batch)) for batch in batches]
    for batch in other:
        for part in batch:
            part.flags.writeable = False
    again = nf.train(net, theta, other.__getitem__, SMALL)
    np.testing.assert_array_equal(run.theta, again.theta)


@pytest.mark.sim
def test_a_source_may_give_the_same_array_with_other_numbers():
    batch = batch_of(0)

    def source(update):
        for part, new in zip(batch, batch_of(update), strict=True):
            part[...] = new
        return batch

    np.testing.assert_array_equal(
        nf.train(NET, theta_of(), source, SMALL).theta, nf.train(NET, theta_of(), batch_of, SMALL).theta
    )


@pytest.mark.sim
def test_batches_of_a_source_have_replicas_if_theta_has():
    theta = theta_of(replicas=2)
    run = nf.train(NET, theta, lambda k: batch_of(k, replicas=2), SMALL)
    for r in range(2):
        alone = nf.train(NET, theta[r], lambda k, r=r: nf.Batch(*(part[r] for part in batch_of(k, replicas=2))), SMALL)
        np.testing.assert_array_equal(run.theta[r], alone.theta)
    with pytest.raises(ValueError, match=r"inputs has shape"):
        nf.train(NET, theta, batch_of, SMALL)


@pytest.mark.sim
def test_a_task_as_a_source_is_the_task():
    how = recipe(lengths=10)
    source = lambda update: TASK.sample(seed=8, index=update, batch_size=3, length=10)  # noqa: E731
    one, two = nf.train(NET, theta_of(), TASK, how, seed=8), nf.train(NET, theta_of(), source, how)
    np.testing.assert_array_equal(one.theta, two.theta)
    assert one.history["loss"] == two.history["loss"]


@pytest.mark.sim
@pytest.mark.parametrize("name", nf.names("tasks"))
def test_every_task_trains_and_is_evaluated(name):
    task = nf.load_task(name)
    net = nf.Network("tanh", task.n_in, 5, task.n_out, loss=task.loss)
    how = recipe(max_updates=2, evaluate_every=2, evaluate_size=5, lengths=(10, 30))
    run = nf.train(net, nf.init(net, "smart_tanh", rng=0), name, how)
    assert run.updates == 2
    assert np.isfinite(run.history["loss"]).all()
    assert 0 <= run.evaluations["score"][0] <= 1


@pytest.mark.sim
def test_an_evaluator_is_made_for_the_longest_sequences():
    task = nf.load_task("addition")
    net = nf.Network("tanh", task.n_in, 3, task.n_out, loss=task.loss)
    evaluator = Evaluator(engine_of("cpu"), net, task, (10, 40), np.arange(1), 5)
    assert evaluator.buffers.shape.steps == task.steps(40)
    assert evaluator.batch_size == 5
