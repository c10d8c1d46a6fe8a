"""Claims about what follows a run's evaluations: early stopping, the best that is kept, rates that are halved."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import json
import math

import numpy as np
import pytest
from hypothesis import given, strategies as st
from tolerance import near, same_bits

import nbflow as nf
from nbflow.storage import _checkpoint as checkpoint
from nbflow.training.early_stopping import Stopper

TASK = nf.load_task("temporal_order")
NET = nf.Network("tanh", TASK.n_in, 8, TASK.n_out)
# Rows and evaluations at updates of their own.
RECIPE = nf.Recipe(
    lr=0.2, batch_size=3, lengths=(10, 14), max_updates=40, record_every=3, evaluate_every=2, evaluate_size=20,
    solved_below=1e-9,
)  # fmt: skip
NAN = math.nan
# Scores that fall, rise, are equal, and are none; of two replicas, which run out of patience at 8 and at 12.
WRITTEN = [(5.0, NAN), (4.0, 9.0), (4.0, 8.0), (4.5, NAN), (4.2, 7.0), (3.0, 7.5), (NAN, 7.0), (2.0, 7.2), (1.0, 0.5)]


def theta_of(replicas=None):
    return nf.init(NET, "smart_tanh", rng=0, replicas=replicas)


def recipe(**changes):
    return dataclasses.replace(RECIPE, **changes)


@pytest.fixture
def written(monkeypatch):
    """Return a function that trains with scores that are written down, a row for each evaluation."""

    class Written:
        rows: tuple = ()

        def __init__(self, *arguments):
            self.replicas = len(arguments[4])

        def score(self, theta, seed, index):
            return np.array(self.rows[index // 2 - 1], dtype=float).reshape(-1)[: self.replicas]

    monkeypatch.setattr(importlib.import_module("nbflow.training._loop"), "Evaluator", Written)

    def train(rows, replicas=None, *, patience=None, min_delta=0.0, keep="best", **more):
        Written.rows = rows
        named = {name: more.pop(name) for name in ("checkpoint", "start_from", "callbacks") if name in more}
        stop = [] if patience is None else [nf.EarlyStopping(patience, min_delta, keep)]
        named["callbacks"] = [*named.get("callbacks", ()), *stop]
        return nf.train(NET, theta_of(replicas), TASK, recipe(**{"max_updates": 2 * len(rows), **more}), **named)

    return train


def assert_same(one, two):
    """Check that two runs agree bit for bit in all but the time they took."""
    assert same_bits(one.theta, two.theta)
    assert (one.best is None) == (two.best is None)
    assert one.best is None or same_bits(one.best.theta, two.best.theta)
    a, b = one.as_dict(), two.as_dict()
    for run in (a, b):
        run["seconds"] = run["history"]["seconds"] = None
        del run["recipe"]
    assert json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)


# --- Early stopping.


def stops_after(scores, patience, min_delta):
    """Return after how many evaluations one network runs out of patience, by a loop written anew; None for never."""
    lowest, waited = math.inf, 0
    for k, score in enumerate(scores):
        if score < lowest - min_delta:
            lowest, waited = score, 0
        else:
            waited += 1
        if waited == patience:
            return k + 1
    return None


SCORES = st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, NAN, math.inf]), min_size=1, max_size=30)


@pytest.mark.sim
@given(st.integers(1, 3), st.data(), st.integers(1, 5), st.sampled_from([0.0, 0.3]))
def test_it_ends_where_a_loop_by_hand_ends_when_the_last_replica_has_run_out(replicas, data, patience, min_delta):
    columns = [data.draw(SCORES) for _ in range(replicas)]
    count = min(map(len, columns))
    ends = [stops_after(column[:count], patience, min_delta) for column in columns]
    wanted = None if None in ends else max(ends)
    run, how = nf.Run(np.zeros((replicas, 3))), nf.EarlyStopping(patience, min_delta)
    run.recipe, stopper, found = {"evaluate_every": 5}, Stopper(how, replicas), None
    for k in range(count):
        run.evaluations["update"].append(5 * (k + 1))
        run.evaluations["score"].append([column[k] for column in columns])
        assert stopper.out(run) == how(run), "asked once in the end or at each evaluation, it is the same"
        if found is None and how(run):
            found = k + 1
    assert found == wanted


@pytest.mark.parametrize("replicas", [None, 2])
@pytest.mark.parametrize("patience", [1, 2, 3, 4])
def test_training_ends_at_that_evaluation_with_a_row_and_the_callbacks(written, patience, replicas):
    shown = []
    run = written(WRITTEN, replicas, patience=patience, callbacks=[lambda run: shown.append(run.updates)])
    column = [row[0] for row in WRITTEN]
    ends = [stops_after([row[r] for row in WRITTEN], patience, 0.0) or len(column) for r in range(replicas or 1)]
    assert run.updates == 2 * max(ends) == run.history["update"][-1] == shown[-1]
    assert (patience < 4) == (run.updates < 2 * len(WRITTEN))


@pytest.mark.parametrize("replicas", [None, 2])
@pytest.mark.parametrize("at", [1, 6, 7, 8, 9])
def test_a_run_that_was_cut_ends_at_the_same_update_to_the_same_bits(written, tmp_path, at, replicas):
    cut, path = [at], tmp_path / "run.npz"

    def rate(update):
        if cut and update == cut[0]:
            cut.clear()
            raise KeyboardInterrupt
        return 0.2

    ways = {"patience": 3, "lr": rate, "optimizer": "momentum"}
    assert written(WRITTEN, replicas, **ways, checkpoint=path).interrupted
    again = written(WRITTEN, replicas, **ways, checkpoint=path)
    whole = written(WRITTEN, replicas, **ways)
    assert whole.updates < 2 * len(WRITTEN)
    assert_same(again, whole)
    assert_same(written(WRITTEN, replicas, **ways, checkpoint=path), whole)  # what has ended stays ended


def test_more_patience_goes_on_from_where_less_had_ended(written, tmp_path):
    path = tmp_path / "run.npz"
    ended = written(WRITTEN, patience=2, checkpoint=path)
    on = written(WRITTEN, patience=4, checkpoint=path)
    assert ended.updates < on.updates
    whole = written(WRITTEN, patience=4)
    assert same_bits(on.theta, whole.theta)
    assert on.best[1:] == whole.best[1:]
    assert str(on.evaluations) == str(whole.evaluations)  # there is a NaN


def test_an_evaluation_at_the_end_of_a_shorter_run_does_not_count(written, tmp_path):
    rows, path = [(5.0,), (6.0,), (7.0,), (8.0,)], tmp_path / "run.npz"
    rate = nf.HalvingRate(0.2, patience=2)
    short = written(rows, patience=3, max_updates=5, lr=rate, checkpoint=path)
    assert short.evaluations["update"] == [2, 4, 5]
    on = written(rows, patience=3, lr=rate, checkpoint=path)
    assert on.updates == 8
    assert same_bits(on.theta, written(rows, patience=3, lr=rate).theta)


def test_a_callback_that_asks_one_decides_as_it_does(written):
    rule = nf.EarlyStopping(2)
    run = written(WRITTEN, callbacks=[lambda run: rule(run)], record_every=1)
    assert run.updates == written(WRITTEN, patience=2, record_every=1).updates


# --- The best.


@pytest.mark.parametrize("replicas", [None, 2])
def test_the_best_is_the_first_lowest_score_of_each_replica_and_its_parameters(written, replicas):
    seen = {}
    rows = WRITTEN[:-2]
    run = written(rows, replicas, callbacks=[lambda run: seen.update({run.updates: run.theta})], record_every=1)
    for r in range(replicas or 1):
        column = [row[r] for row in rows]
        lowest = min(score for score in column if score == score)
        update = 2 * (column.index(lowest) + 1)
        update_found, score_found = (one if replicas is None else one[r] for one in run.best[1:])
        assert (update_found, score_found) == (update, lowest)
        assert same_bits(np.atleast_2d(run.best.theta)[r], np.atleast_2d(seen[update])[r])
    assert run.best.theta.shape == run.theta.shape
    assert not same_bits(run.best.theta, run.theta)


def test_the_best_of_an_evaluation_between_two_rows_is_what_was_evaluated():
    """Rows are at multiples of 3, evaluations at those of 2: nobody else sees the parameters in between."""
    run = nf.train(NET, theta_of(), TASK, recipe(lr=0.5))
    assert run.best.update % 2 == 0
    again = nf.train(NET, theta_of(), TASK, recipe(lr=0.5, max_updates=run.best.update))
    assert same_bits(again.theta, run.best.theta)
    assert run.best.score == min(run.evaluations["score"])
    score = nf.evaluate(NET, run.best.theta, TASK, length=(10, 14), size=20, index=run.best.update)
    assert score == run.best.score


def test_a_score_that_is_none_is_never_the_best(written):
    assert written([(NAN,), (math.inf,), (NAN,)]).best is None
    found = written([(NAN, 3.0), (NAN, NAN)], 2).best
    assert (found.update, found.score) == ([None, 2], [None, 3.0])
    assert np.isnan(found.theta[0]).all()
    assert np.isfinite(found.theta[1]).all()


def test_nobody_writes_the_best_and_what_was_seen_of_it_stays(written):
    seen = []
    run = written([(5.0,), (4.0,), (3.0,)], callbacks=[lambda run: seen.append(run.best and run.best.theta)])
    with pytest.raises(ValueError, match="read-only"):
        run.best.theta[0] = 1.0
    assert seen[0] is not None
    assert not same_bits(seen[0], run.best.theta)


@pytest.mark.parametrize("replicas", [None, 2])
def test_a_checkpoint_shows_the_best(written, tmp_path, replicas):
    path = tmp_path / "run.npz"
    run = written(WRITTEN[:-1], replicas, checkpoint=path)
    found = nf.load_run(path).best
    assert same_bits(found.theta, run.best.theta)
    assert found[1:] == run.best[1:]
    assert not found.theta.flags.writeable


def test_a_damaged_best_is_refused(written, tmp_path):
    path = tmp_path / "run.npz"
    written(WRITTEN, checkpoint=path)
    arrays, facts = checkpoint.load(path)
    for wrong in ({"update": "2", "score": 1.0}, {"update": 2, "score": [1.0]}, {"update": True, "score": 1.0}, {}, 3):
        checkpoint.save(path, arrays, {**facts, "best": wrong})
        with pytest.raises(ValueError, match="is damaged"):
            nf.load_run(path)
    checkpoint.save(path, {**arrays, "best/theta": arrays["theta"][0][:-1]}, dict(facts))
    with pytest.raises(ValueError, match="is damaged"):
        nf.load_run(path)


def test_of_a_checkpoint_of_an_older_version_the_score_is_known_and_the_parameters_are_not(written, tmp_path):
    path = tmp_path / "run.npz"
    written(WRITTEN[:3], checkpoint=path)
    arrays, facts = checkpoint.load(path)
    del arrays["best/theta"], facts["best"]
    checkpoint.save(path, arrays, facts)
    found = nf.load_run(path).best
    assert found[1:] == (4, 4.0)
    assert np.isnan(found.theta).all()
    on = written(WRITTEN, checkpoint=path)
    assert_same(on, written(WRITTEN))  # the rest is as if it had never been so


def test_a_branch_has_the_best_of_its_trunk_where_it_measures_the_same(tmp_path):
    trunk, path = recipe(max_updates=20), tmp_path / "trunk.npz"
    run = nf.train(NET, theta_of(), TASK, trunk, checkpoint=path)
    branch = functools.partial(nf.train, NET, run.theta, TASK, start_from=path)
    same = branch(recipe(lr=0.0))
    assert same.best[1:] == run.best[1:] or same.best.score < run.best.score
    assert same.evaluations["update"][0] == 20
    first = branch(recipe(max_updates=20))
    assert first.best[1:] == run.best[1:]
    assert same_bits(first.best.theta, run.best.theta)
    assert run.best.update < 20
    assert branch(recipe(max_updates=20, lengths=12)).best.update == 20  # the branch's own first evaluation
    assert branch(recipe(max_updates=20), score=lambda theta: 1.0).best[1:] == (20, 1.0)


def test_a_branch_that_was_cut_keeps_its_best(tmp_path):
    path, own = tmp_path / "trunk.npz", tmp_path / "branch.npz"
    run = nf.train(NET, theta_of(), TASK, recipe(max_updates=20), checkpoint=path)
    branch = functools.partial(nf.train, NET, run.theta, TASK, start_from=path)
    short = branch(recipe(max_updates=22), checkpoint=own)
    assert short.best.update <= 22
    whole = branch(recipe(max_updates=30))
    on = branch(recipe(max_updates=30), checkpoint=own)
    assert on.best[1:] == whole.best[1:]
    assert same_bits(on.best.theta, whole.best.theta)


def test_without_keep_there_is_no_best_in_memory_or_on_the_disk(written, tmp_path):
    path = tmp_path / "run.npz"
    run = written(WRITTEN, patience=9, keep=None, checkpoint=path)
    assert run.best is None
    assert nf.load_run(path).best is None
    assert not any("best" in name for name in checkpoint.load(path).arrays)


# --- Rates that are halved.


def rates_by_hand(scores, how, lr):
    """Return the rate after each evaluation, by a loop written anew."""
    lowest, waited, found = math.inf, 0, []
    for score in scores:
        if score < lowest - how.min_delta:
            lowest, waited = score, 0
        else:
            waited += 1
            if waited == how.patience:
                lr, waited = max(lr * how.factor, how.least), 0
        found.append(lr)
    return found


@pytest.mark.parametrize("replicas", [None, 2])
@pytest.mark.parametrize(
    "how",
    [nf.HalvingRate(0.5), nf.HalvingRate(0.5, patience=2), nf.HalvingRate(0.5, min_delta=1.5, least=0.1),
     nf.HalvingRate(0.5, 0.25, patience=3)],
    ids=["each", "two", "least", "quarter"],
)  # fmt: skip
def test_rates_are_those_of_a_loop_by_hand(written, how, replicas):
    run = written(WRITTEN, replicas, lr=how, record_every=1)
    assert run.updates == 2 * len(WRITTEN)
    rows = np.reshape(run.history["lr"], (len(run.history["lr"]), -1))
    for r in range(replicas or 1):
        rates = [0.5, *rates_by_hand([row[r] for row in WRITTEN], how, 0.5)]
        assert rows[:, r].tolist() == np.repeat(np.float32(rates), 2)[: len(rows)].tolist()
    assert len(set(rows[:, 0].tolist())) > 1


def test_pytorchs_plateau_has_the_same_rates(written, torch):
    scores = [row[0] for row in WRITTEN] * 3
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.5, patience=1, threshold=0.1, threshold_mode="abs"
    )
    wanted = [0.5]
    for score in scores:
        plateau.step(score)
        wanted.append(optimizer.param_groups[0]["lr"])
    run = written([(s,) for s in scores], lr=nf.HalvingRate(0.5, patience=2, min_delta=0.1), record_every=2)
    assert run.history["lr"] == near(wanted[:-1])


@pytest.mark.parametrize("replicas", [None, 2])
@pytest.mark.parametrize("at", [2, 7, 9])
def test_a_run_that_was_cut_goes_on_with_the_same_rates(written, tmp_path, at, replicas):
    path, how = tmp_path / "run.npz", nf.HalvingRate(0.5)

    def interrupt(run):
        if run.updates == at and run.updates > run.shown:
            raise KeyboardInterrupt

    ways = {"lr": how, "record_every": 1, "optimizer": "momentum"}
    assert written(WRITTEN, replicas, **ways, callbacks=[interrupt], checkpoint=path).updates == at
    assert_same(written(WRITTEN, replicas, **ways, checkpoint=path), written(WRITTEN, replicas, **ways))


def test_what_a_calibration_measures_is_at_the_first_rate():
    seen = [
        nf.calibrate_threshold(NET, theta_of(), TASK, recipe(lr=lr), updates=5).norms
        for lr in (nf.HalvingRate(0.3), 0.3)
    ]
    assert same_bits(*seen)


def test_a_replica_has_the_rate_that_it_has_alone():
    changes = recipe(lr=nf.HalvingRate(0.3), lengths=10)
    both = nf.train(NET, theta_of(2), TASK, changes)
    for r in (0, 1):
        alone = nf.train(NET, theta_of(2)[r], TASK, changes, replica_ids=[r])
        assert same_bits(alone.theta, both.theta[r])
    assert len({tuple(row) for row in both.history["lr"]}) > 1


def test_a_checkpoint_with_such_a_rate_holds_to_its_evaluations(written, tmp_path):
    path = tmp_path / "run.npz"
    rate = nf.HalvingRate(0.2)
    written(WRITTEN, lr=rate, max_updates=6, checkpoint=path)
    with pytest.raises(ValueError, match="evaluate_every is 2 there and 4 here"):
        written(WRITTEN, lr=rate, evaluate_every=4, checkpoint=path)
    with pytest.raises(ValueError, match=r"lr\.patience is 1 there and 2 here"):
        written(WRITTEN, lr=nf.HalvingRate(0.2, patience=2), checkpoint=path)


def test_a_sweep_over_such_rates_trains_them_side_by_side_to_the_same_bits():
    from nbflow.experiments.experiment import joined, structure

    base = nf.Experiment("temporal_order", recipe(lr=nf.HalvingRate(0.1), lengths=10), n_hidden=8)
    grid = nf.grid(base, {"recipe.lr.lr": [0.1, 0.4]})
    assert structure(grid[0]) == structure(grid[1])
    assert grid[0].flat["recipe.lr"] != grid[1].flat["recipe.lr"]
    both = nf.train(base.net, np.stack([base.theta(3)] * 2), TASK, joined(grid), replica_ids=[3, 3])
    for r, one in enumerate(grid):
        alone = nf.train(base.net, base.theta(3), TASK, one.recipe, replica_ids=[3])
        assert same_bits(alone.theta, both.theta[r])


# --- A score of one's own.


def source(update):
    return TASK.sample(seed=0, index=update, batch_size=3, length=10)


def size_of(theta):
    return np.abs(theta).max(axis=-1)


@pytest.mark.parametrize("replicas", [None, 3])
def test_a_score_of_ones_own_takes_the_place_of_the_tasks_and_is_the_one_of_a_source(replicas):
    theta = theta_of(replicas)
    run = nf.train(NET, theta, TASK, recipe(), score=size_of)
    assert run.unit is None
    assert np.shape(run.evaluations["score"]) == (20, *theta.shape[:-1])
    np.testing.assert_array_equal(size_of(run.best.theta), np.min(run.evaluations["score"], axis=0))
    if replicas is None:
        run = nf.train(NET, theta, source, recipe(), score=size_of, callbacks=[nf.EarlyStopping(2)])
        assert len(run.evaluations["score"]) == run.updates // 2


def test_a_run_with_a_score_of_ones_own_knows_it_again(tmp_path):
    path = tmp_path / "run.npz"
    nf.train(NET, theta_of(), source, recipe(max_updates=7), score=size_of, checkpoint=path)
    on = nf.train(NET, theta_of(), source, recipe(), score=size_of, checkpoint=path)
    assert on.updates == 40
    assert on.evaluations["update"][:5] == [2, 4, 6, 7, 8]
    with pytest.raises(ValueError, match="score is"):
        nf.train(NET, theta_of(), source, recipe(), score=np.mean, checkpoint=path)


def test_a_score_of_ones_own_may_solve(tmp_path):
    run = nf.train(NET, theta_of(), source, recipe(solved_below=100.0, stop_when_solved=True), score=size_of)
    assert run.first_passage == run.updates == 2
    with pytest.raises(ValueError, match="Give solved_below"):
        nf.train(NET, theta_of(), source, recipe(solved_below=None, stop_when_solved=True), score=size_of)


@pytest.mark.parametrize("answer", [None, "low", np.ones(2), np.ones((1, 1)), [1.0, [2.0]]])
def test_what_a_score_of_ones_own_returns_is_one_number_a_network(answer):
    with pytest.raises(TypeError, match=r"score returned .* at update 2; expected a number\. Return"):
        nf.train(NET, theta_of(), source, recipe(), score=lambda theta: answer)


def test_a_score_of_ones_own_writes_nothing():
    def score(theta):
        theta[...] = 0.0
        return 0.0

    with pytest.raises(ValueError, match="read-only"):
        nf.train(NET, theta_of(), TASK, recipe(), score=score)


@pytest.mark.sim
@pytest.mark.parametrize("backend", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("replicas", [None, 2])
def test_on_either_backend_a_run_ends_by_its_scores_and_has_the_best(backend, replicas):
    net = nf.Network("tanh", 6, 3, 4)
    theta, shape = nf.init(net, "smart_tanh", rng=0, replicas=replicas), [] if replicas is None else [replicas]
    how = nf.Recipe(lr=nf.HalvingRate(0.5), max_updates=9, record_every=4, evaluate_every=1)

    def two_steps(update):
        inputs = np.random.default_rng(update).normal(size=(*shape, 2, 2, 6)).astype("f4")
        return nf.Batch(inputs, np.ones((*shape, 2, 2), "i4"), np.ones((*shape, 2, 2), "f4"))

    def train(recipe):
        left = [3.0, 1.0, 2.0, 2.0]
        return nf.train(
            net, theta, two_steps, recipe, callbacks=[nf.EarlyStopping(2)], backend=backend,
            score=lambda theta: np.full(shape, left.pop(0)) if shape else left.pop(0),
        )  # fmt: skip

    run, short = train(how), train(dataclasses.replace(how, max_updates=2))
    assert run.updates == 4
    assert (run.best.update, run.best.score) == ((2, 1.0) if replicas is None else ([2] * 2, [1.0] * 2))
    assert same_bits(run.best.theta, short.theta)
    assert not same_bits(run.theta, short.theta)
    assert run.history["lr"][-1] == (0.25 if replicas is None else [0.25] * 2)


# --- What is refused.


@pytest.mark.sim
@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda: nf.EarlyStopping(0), "patience is 0; expected"),
        (lambda: nf.EarlyStopping(2.5), "patience is 2.5; expected an integer"),
        (lambda: nf.EarlyStopping(2, -1.0), "min_delta is -1; expected"),
        (lambda: nf.EarlyStopping(2, math.inf), "min_delta is inf; expected"),
        (lambda: nf.EarlyStopping(2, keep="last"), "keep is 'last'; expected 'best' or None"),
        (lambda: nf.HalvingRate(-0.1), "lr is -0.1; expected"),
        (lambda: nf.HalvingRate("fast"), "lr is 'fast'; expected"),
        (lambda: nf.HalvingRate(0.1, factor=1.0), "factor is 1; expected a part"),
        (lambda: nf.HalvingRate(0.1, patience=0), "patience is 0; expected"),
        (lambda: nf.HalvingRate(0.1, least=NAN), "least is NaN; expected"),
    ],
)
def test_fields_that_make_no_sense_are_refused(make, found):
    with pytest.raises((TypeError, ValueError), match=found.replace(".", r"\.")):
        make()


def test_what_follows_scores_is_refused_where_there_are_none():
    stop, rate = [nf.EarlyStopping(2)], nf.HalvingRate(0.1)
    with pytest.raises(ValueError, match="EarlyStopping, which follows scores, and evaluate_every is 0"):
        nf.train(NET, theta_of(), TASK, recipe(evaluate_every=0), callbacks=stop)
    with pytest.raises(ValueError, match="lr is a HalvingRate, which follows scores, and batches of a function"):
        nf.train(NET, theta_of(), source, recipe(lr=rate))
    with pytest.raises(TypeError, match="score is 3; expected a function of theta"):
        nf.train(NET, theta_of(), TASK, recipe(), score=3)
    with pytest.raises(ValueError, match=r"lr has shape \(3,\)"):
        nf.train(NET, theta_of(2), TASK, recipe(lr=nf.HalvingRate(np.full(3, 0.1))))
