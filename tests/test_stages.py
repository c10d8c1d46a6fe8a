"""Claims about training in stages: it is one training after the other, whoever cuts it off."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from tolerance import same_bits

import nbflow as nf

TASK = nf.load_task("temporal_order")
NET = nf.Network("tanh", TASK.n_in, 8, TASK.n_out)
THETA = nf.init(NET, "smart_tanh", rng=0)
# Rows and evaluations at updates of their own.
RECIPE = nf.Recipe(
    optimizer="momentum", lr=0.1, batch_size=3, lengths=10, max_updates=20, record_every=3, evaluate_every=4,
    evaluate_size=30, solved_below=0.7, stop_when_solved=True,
)  # fmt: skip
TOPS = (10, 12, 15)


def recipes(**changes):
    return [dataclasses.replace(RECIPE, lengths=(10, top), **changes) for top in TOPS]


def by_hand(theta, stages, budget, seed=0, **named):
    """Train stage by stage, by a loop written out; return the runs."""
    runs, done = [], 0
    for k, stage in enumerate(stages):
        stage = dataclasses.replace(stage, max_updates=min(stage.max_updates, budget - done))
        run = nf.train(NET, theta, TASK, stage, seed=seed + k, **named)
        runs.append(run)
        theta, done = run.theta, done + run.updates
        passages = run.first_passage if isinstance(run.first_passage, list) else [run.first_passage]
        if done >= budget or (stage.stop_when_solved and None in passages):
            break
    return runs


def assert_same(staged, runs):
    assert len(staged.runs) == len(runs)
    done = 0
    for one, two in zip(staged.runs, runs, strict=True):
        assert same_bits(one.theta, two.theta)
        assert same_bits(one.best.theta, two.best.theta)
        assert one.evaluations == two.evaluations
        assert one.history["loss"] == two.history["loss"]
        assert (one.updates, one.before) == (two.updates, done)
        done += one.updates
    assert staged.updates == done
    assert same_bits(staged.theta, runs[-1].theta)
    assert staged.best[1:] == runs[-1].best[1:]


@pytest.mark.parametrize("replicas", [None, 2])
@pytest.mark.parametrize("solved_below", [0.8, 1e-9])
def test_it_is_one_training_after_the_other_until_one_is_not_solved(replicas, solved_below):
    theta = nf.init(NET, "smart_tanh", rng=0, replicas=replicas)
    stages = recipes(solved_below=solved_below)
    staged = nf.train_stages(NET, theta, TASK, stages, seed=5)
    runs = by_hand(theta, stages, 60, seed=5)
    assert_same(staged, runs)
    assert staged.complete
    solved = [None not in np.atleast_1d(np.array(run.first_passage, object)) for run in runs]
    assert staged.passed == sum(solved)
    assert (len(runs) == 1) == (solved_below < 0.5)


@pytest.mark.parametrize("budget", [1, 20, 30, 45, 60, 100])
def test_stages_that_are_not_to_be_solved_follow_each_other_within_the_budget(budget):
    stages = recipes(stop_when_solved=False)
    staged = nf.train_stages(NET, THETA, TASK, stages, max_updates=budget)
    assert_same(staged, by_hand(THETA, stages, budget))
    assert staged.updates == min(budget, 60)
    assert staged.passed == len(staged.runs)


@pytest.mark.parametrize("replicas", [None, 2])
@pytest.mark.parametrize("at", [0, 1, 4, 19, 20, 21, 24, 39, 40, 59])
def test_whoever_is_cut_off_goes_on_to_the_same_bits(tmp_path, at, replicas):
    theta = nf.init(NET, "smart_tanh", rng=0, replicas=replicas)
    cut, done = [at], [0]

    def rate(update):
        if cut and done[0] + update == cut[0]:
            cut.clear()
            raise KeyboardInterrupt
        return 0.1

    def note(run):
        done[0] = run.before + (20 if run.updates == 20 else 0)

    stages = recipes(stop_when_solved=False, lr=rate)
    first = nf.train_stages(NET, theta, TASK, stages, callbacks=[note], checkpoint=tmp_path / "run.npz")
    assert not first.complete
    assert first.runs[-1].interrupted
    assert first.updates == at
    again = nf.train_stages(NET, theta, TASK, stages, checkpoint=tmp_path / "run.npz")
    assert again.complete
    assert_same(again, by_hand(theta, stages, 60))
    assert sorted(path.name for path in tmp_path.glob("*.npz")) == ["run.0.npz", "run.1.npz", "run.2.npz"]


def test_a_larger_budget_goes_on(tmp_path):
    stages = recipes(stop_when_solved=False, record_every=5, evaluate_every=5)
    ways = {"checkpoint": tmp_path / "run.npz"}
    assert nf.train_stages(NET, THETA, TASK, stages, max_updates=25, **ways).updates == 25
    assert_same(nf.train_stages(NET, THETA, TASK, stages, max_updates=50, **ways), by_hand(THETA, stages, 50))


def test_a_true_answer_of_a_callback_ends_all_and_is_told_where_it_is():
    told = []

    def look(run):
        told.append((run.before, run.updates))
        return run.before + run.updates >= 26

    staged = nf.train_stages(NET, THETA, TASK, recipes(stop_when_solved=False), callbacks=[look])
    assert told == [(0, u) for u in (3, 6, 9, 12, 15, 18, 20)] + [(20, 3), (20, 6)]
    assert (staged.complete, staged.passed, staged.updates) == (False, 1, 26)


def test_patience_ends_a_stage_and_not_the_training():
    stop = nf.EarlyStopping(1)
    stages = recipes(stop_when_solved=False, max_updates=200)
    staged = nf.train_stages(NET, THETA, TASK, stages, callbacks=[stop])
    assert_same(staged, by_hand(THETA, stages, 600, callbacks=[stop]))
    assert len(staged.runs) == staged.passed == 3
    assert all(run.updates < 200 for run in staged.runs)
    unsolved = nf.train_stages(NET, THETA, TASK, recipes(solved_below=1e-9, max_updates=200), callbacks=[stop])
    assert (len(unsolved.runs), unsolved.passed, unsolved.complete) == (1, 0, True)


def test_what_makes_no_sense_is_refused():
    for wrong in (RECIPE, [], [RECIPE, 3]):
        with pytest.raises(TypeError, match=r"recipes? is .*; expected a (list of )?Recipe"):
            nf.train_stages(NET, THETA, TASK, wrong)
    with pytest.raises(ValueError, match="max_updates is 0; expected"):
        nf.train_stages(NET, THETA, TASK, [RECIPE], max_updates=0)
    with pytest.raises(TypeError, match="checkpoint is a int"):
        nf.train_stages(NET, THETA, TASK, [RECIPE], checkpoint=3)
