"""Claims about training runs that are interrupted: they go on to the bits of one that never was."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from cases import OPTIMIZERS
from test_thresholds import SETTINGS, THRESHOLDS
from tolerance import same_bits

import nbflow as nf
from nbflow.data import Text
from nbflow.storage import _checkpoint as checkpoint
from nbflow.training._interrupt import Guard

TASK = nf.load_task("temporal_order")
NET = nf.Network("tanh", TASK.n_in, 8, TASK.n_out)
THETA = nf.init(NET, "smart_tanh", rng=0)
# Rows and evaluations at updates of their own, so that a run is cut between them.
RECIPE = nf.Recipe(
    lr=0.2, batch_size=3, lengths=(10, 14), max_updates=30, record_every=7, evaluate_every=5, evaluate_size=20,
    clip=nf.Clip("norm", nf.load_threshold("percentile", percent=50, window=12)),
)  # fmt: skip


def recipe(**changes):
    return dataclasses.replace(RECIPE, **changes)


def assert_same(one, two):
    """Check that two runs agree bit for bit in all but the time they took."""
    assert same_bits(one.theta, two.theta)
    a, b = one.as_dict(), two.as_dict()
    for run in (a, b):
        run["seconds"] = run["history"]["seconds"] = None
    assert json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)


def stopper(at, how=KeyboardInterrupt):
    """Return a schedule of the rate that interrupts before update `at`, once, and is known by the same name always."""
    left = [at]

    def rate(update):
        if left and update == left[0]:
            left.clear()
            raise how
        return 0.2

    return rate


def cut(path, at, how=KeyboardInterrupt, theta=THETA, **changes):
    """Train, be interrupted before update `at`, and go on; return the whole run."""
    run = nf.train(NET, theta, TASK, recipe(lr=stopper(at, how), **changes), checkpoint=path)
    assert run.interrupted
    assert run.updates == at
    return nf.train(NET, theta, TASK, recipe(lr=stopper(-1), **changes), checkpoint=path)


def whole(theta=THETA, **changes):
    return nf.train(NET, theta, TASK, recipe(lr=stopper(-1), **changes))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.npz"


# --- Going on.


@pytest.mark.parametrize("at", [0, 1, 5, 6, 7, 8, 14, 25, 29])
def test_a_run_goes_on_to_the_same_bits_wherever_it_was_cut(path, at):
    assert_same(cut(path, at), whole())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("replicas", [None, 3])
def test_every_optimizer_goes_on_with_its_slots(path, optimizer, replicas):
    theta = nf.init(NET, "smart_tanh", rng=0, replicas=replicas)
    changes = {"optimizer": optimizer, "theta": theta, "flow": nf.Flow("norm", 0.5)}
    assert_same(cut(path, 12, **changes), whole(**changes))


@pytest.mark.parametrize("name", THRESHOLDS)
def test_every_threshold_goes_on_with_its_memory(path, name):
    clip = nf.Clip("norm", nf.load_threshold(name, **SETTINGS[name]))
    assert_same(cut(path, 17, clip=clip), whole(clip=clip))


def test_a_run_may_be_cut_many_times(path):
    run = None
    for at in (3, 9, 10, 22):
        run = nf.train(NET, THETA, TASK, recipe(lr=stopper(at)), checkpoint=path, checkpoint_seconds=0)
        assert run.updates == at
    assert_same(nf.train(NET, THETA, TASK, recipe(lr=stopper(-1)), checkpoint=path), whole())


def test_rows_longer_than_what_a_window_keeps_go_on_too(path):
    changes = {"max_updates": 300, "record_every": 290, "evaluate_every": 0, "batch_size": 1, "lengths": 10}
    assert_same(cut(path, 270, **changes), whole(**changes))


def test_random_steps_go_on_with_their_stream(path):
    theta, clip = np.full_like(THETA, np.nan), nf.Clip("norm", 0.5)
    assert_same(cut(path, 11, theta=theta, clip=clip), whole(theta=theta, clip=clip))


@pytest.mark.parametrize("at", [7, 14])
def test_a_callback_that_raises_loses_nothing_and_sees_every_row_once(path, at):
    rows = []

    def callback(run):
        rows.append(run.updates)
        if run.updates == at and rows.count(at) == 1:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        nf.train(NET, THETA, TASK, RECIPE, checkpoint=path, callbacks=[callback])
    assert nf.load_run(path).updates == at
    assert_same(
        nf.train(NET, THETA, TASK, RECIPE, checkpoint=path, callbacks=[callback]), nf.train(NET, THETA, TASK, RECIPE)
    )
    assert rows == [7, 14, 21, 28, 30]


def test_a_run_that_is_cut_before_its_first_update_again_says_the_same(path):
    first = nf.train(NET, THETA, TASK, recipe(lr=stopper(9)), checkpoint=path)
    assert first.history["update"] == [7, 9]
    assert_same(nf.train(NET, THETA, TASK, recipe(lr=stopper(9)), checkpoint=path), first)


def test_an_update_that_is_refused_half_way_is_undone_and_the_one_before_is_saved(path):
    """Two replicas; the second's third gradient is not finite, when the first's norm has been learnt."""
    broken = [2]

    def source(update):
        batch = TASK.sample(seed=0, index=update, batch_size=3, length=10, replicas=2)
        if update in broken:
            batch.weights[1] = 3e38
        return batch

    theta = nf.init(NET, "smart_tanh", rng=0, replicas=2)
    how = recipe(max_updates=6, clip=dataclasses.replace(RECIPE.clip, nonfinite="raise"))
    with pytest.raises(FloatingPointError):
        nf.train(NET, 50 * theta, source, how, checkpoint=path)
    assert nf.load_run(path).updates == 2
    broken.clear()
    assert_same(nf.train(NET, 50 * theta, source, how, checkpoint=path), nf.train(NET, 50 * theta, source, how))


def test_a_run_that_ended_is_returned_without_another_update(path):
    def source(update):
        assert update < 5
        return TASK.sample(seed=0, index=update, batch_size=3, length=10)

    run = nf.train(NET, THETA, source, recipe(max_updates=5), checkpoint=path)
    assert_same(nf.train(NET, THETA, source, recipe(max_updates=5), checkpoint=path), run)


def test_a_run_may_be_made_longer(path):
    nf.train(NET, THETA, TASK, recipe(max_updates=14, evaluate_every=7), checkpoint=path)
    longer = nf.train(NET, THETA, TASK, recipe(evaluate_every=7), checkpoint=path)
    assert_same(longer, nf.train(NET, THETA, TASK, recipe(evaluate_every=7)))
    with pytest.raises(ValueError, match="max_updates is 14; expected at least 30"):
        nf.train(NET, THETA, TASK, recipe(max_updates=14, evaluate_every=7), checkpoint=path)


def test_a_run_that_was_solved_stays_ended(path):
    how = recipe(solved_below=1.0, stop_when_solved=True, evaluate_every=4)
    run = nf.train(NET, THETA, TASK, how, checkpoint=path)
    assert run.updates == run.first_passage == 4
    assert_same(nf.train(NET, THETA, TASK, how, checkpoint=path), run)


# The task as 0.1.0 described it before its files moved.
FORMER_TASK = {
    "n_in": 6, "n_out": 4, "loss": "softmax", "tokens": True, "plan": "nbflow.tasks.temporal_order.plan",
    "inputs": "nbflow.tasks.temporal_order.inputs", "target": "nbflow.tasks.temporal_order.target",
    "counts": "nbflow.tasks.temporal_order.counts", "shortest": 10, "steps": "nbflow.task._as_long", "tolerance": 0.04,
    "counted": "nbflow.task.once", "trivial": "nbflow.tasks.temporal_order.trivial",
}  # fmt: skip


def make_former(path):
    """Write a checkpoint as 0.1.0 did: scores are errors without a unit, and everything was solved at 0.01.

    An optimizer had no count of its own, and nobody counted what was left out of a gradient.
    """
    arrays, facts = checkpoint.read(path)
    del facts["unit"], arrays["counts"]
    arrays["window/reports"], arrays["window/sums"] = arrays["window/reports"][:, :, :3], arrays["window/sums"][:8]
    recipe, task = facts["setting"]["recipe"], facts["setting"]["task"]
    del recipe["carry"]
    recipe["solved_below"] = 0.01 if recipe["solved_below"] is None else recipe["solved_below"]
    if isinstance(task, dict) and "plan" in task:
        facts["setting"]["task"] = FORMER_TASK
    old = {name.replace("evaluations/score", "evaluations/error"): array for name, array in arrays.items()}
    evaluations = facts["evaluations"]
    facts["evaluations"] = {name.replace("score", "error"): column for name, column in evaluations.items()}
    checkpoint.before(path).unlink(missing_ok=True)
    checkpoint.save(path, old, facts)


@pytest.mark.parametrize("at", [3, 17])  # before the first evaluation, and after it
@pytest.mark.parametrize("replicas", [None, 2])
def test_a_run_of_an_older_version_goes_on_to_the_same_bits(path, at, replicas):
    theta = nf.init(NET, "smart_tanh", rng=0, replicas=replicas)
    nf.train(NET, theta, TASK, recipe(lr=stopper(at)), checkpoint=path)
    there = nf.load_run(path)
    make_former(path)
    assert_same(nf.load_run(path), there)
    assert_same(nf.train(NET, theta, TASK, recipe(lr=stopper(-1)), checkpoint=path), whole(theta))


@pytest.mark.parametrize("replicas", [None, 2])
def test_a_run_on_a_text_of_an_older_version_goes_on_and_is_solved_no_more(path, replicas):
    text = Text(np.arange(400, dtype=np.int32) % 5, tuple("abcde")).task(held_out=0.2)
    net = nf.Network("tanh", text.n_in, 8, text.n_out)
    theta = nf.init(net, "orthogonal", rng=0, replicas=replicas)
    nf.train(net, theta, text, recipe(lr=stopper(17)), checkpoint=path)
    make_former(path)
    arrays, facts = checkpoint.read(path)
    facts |= {"first_passage": 5, "stays_below": True} if replicas is None else {
        "first_passage": [5, None], "stays_below": [True, False]}  # fmt: skip
    checkpoint.save(path, arrays, facts)
    run = nf.load_run(path)
    assert (run.unit, run.recipe["solved_below"]) == ("bits per character", None)
    assert len(run.evaluations["score"]) == 3
    on = nf.train(net, theta, text, recipe(lr=stopper(-1)), checkpoint=path)
    assert_same(on, nf.train(net, theta, text, recipe(lr=stopper(-1))))
    assert on.first_passage == (None if replicas is None else [None, None])


@pytest.mark.parametrize("bound", [None, 0.01])
def test_a_run_on_batches_of_a_function_of_an_older_version_goes_on(path, bound):
    how = {"solved_below": bound}
    nf.train(NET, THETA, batch_of, recipe(lr=stopper(17), **how), checkpoint=path)
    make_former(path)
    assert nf.load_run(path).unit is None
    assert_same(
        nf.train(NET, THETA, batch_of, recipe(lr=stopper(-1), **how), checkpoint=path),
        nf.train(NET, THETA, batch_of, recipe(lr=stopper(-1), **how)),
    )


def batch_of(update):
    return TASK.sample(seed=0, index=update, batch_size=3, length=10)


def test_seconds_add_up_over_processes(path):
    nf.train(NET, THETA, TASK, recipe(lr=stopper(9)), checkpoint=path)
    before = nf.load_run(path).seconds
    after = nf.train(NET, THETA, TASK, recipe(lr=stopper(-1)), checkpoint=path)
    assert 0 < before < after.seconds
    assert after.history["seconds"] == sorted(after.history["seconds"])


@pytest.mark.parametrize("replicas", [None, 2])
def test_what_was_saved_can_be_looked_at(path, replicas):
    theta = nf.init(NET, "smart_tanh", rng=0, replicas=replicas)
    run = nf.train(NET, theta, TASK, RECIPE, checkpoint=str(path))
    again = nf.load_run(str(path))
    assert_same(again, run)
    assert again.theta.shape == theta.shape


def test_a_column_of_ones_own_is_saved_too(path):
    def look(run):
        run.history.setdefault("note", []).append(f"after {run.updates}")
        run.history.setdefault("own", []).append(run.updates / 3)

    run = nf.train(NET, THETA, TASK, RECIPE, checkpoint=path, callbacks=[look])
    assert nf.load_run(path).history["note"] == run.history["note"]
    assert nf.load_run(path).history["own"] == run.history["own"]


@pytest.mark.sim
def test_a_small_run_goes_on_to_the_same_bits(path):
    changes = {"max_updates": 4, "record_every": 3, "evaluate_every": 3, "evaluate_size": 2, "lengths": 10}
    assert_same(cut(path, 2, **changes), whole(**changes))


# --- What is refused.

LINES = nf.Network("tanh", 2, 8, 1, loss="square")
OTHER = {
    "theta, where it began": {"theta": THETA + np.float32(1)},
    "net.n_in": {"net": LINES, "theta": nf.init(LINES, "smart_tanh", rng=0), "task": "addition"},
    "net.dtype": {"net": dataclasses.replace(NET, dtype="float64"), "theta": THETA.astype("float64")},
    "task": {"task": lambda update: TASK.sample(seed=0, index=update, batch_size=3, length=10)},
    "seed": {"seed": 1},
    "single": {"theta": THETA[None]},
    "lr": {"recipe": recipe(lr=0.1)},
    "batch_size": {"recipe": recipe(batch_size=4)},
    "optimizer": {"recipe": recipe(optimizer="adam")},
    "flow": {"recipe": recipe(flow=nf.Flow("norm", 0.0))},
    "solved_below": {"recipe": recipe(solved_below=0.5)},
    "clip.nonfinite": {"recipe": recipe(clip=dataclasses.replace(RECIPE.clip, nonfinite="skip"))},
    "clip.threshold.settings.percent": {
        "recipe": recipe(clip=nf.Clip("norm", nf.load_threshold("percentile", percent=51, window=12)))
    },
}


@pytest.mark.parametrize("name", OTHER)
def test_a_checkpoint_of_another_training_is_refused_and_left_alone(path, name):
    usual = {"net": NET, "theta": THETA, "task": TASK, "recipe": RECIPE, "seed": 0, "checkpoint": path}
    nf.train(**usual)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=rf"belongs to another training: {name}\b.*delete it"):
        nf.train(**(usual | OTHER[name]))
    assert path.read_bytes() == before


@pytest.mark.sim
@pytest.mark.parametrize(("value", "error"), [(3, TypeError), ([], TypeError), (".", ValueError), ("", ValueError)])
def test_a_path_that_is_none_is_refused(value, error):
    with pytest.raises(error, match=r"checkpoint is .*expected a"):
        nf.train(NET, THETA, TASK, RECIPE, checkpoint=value)


@pytest.mark.sim
@pytest.mark.parametrize("value", [-1, "1", None, np.nan])
def test_seconds_that_are_none_are_refused(path, value):
    with pytest.raises((TypeError, ValueError), match="checkpoint_seconds is"):
        nf.train(NET, THETA, TASK, RECIPE, checkpoint=path, checkpoint_seconds=value)


@pytest.mark.sim
def test_a_checkpoint_of_something_else_is_refused(path):
    checkpoint.save(path, {}, {"kind": "cake"})
    for call in (lambda: nf.load_run(path), lambda: nf.train(NET, THETA, TASK, RECIPE, checkpoint=path)):
        with pytest.raises(ValueError, match="holds no training run"):
            call()


@pytest.mark.parametrize("name", ["theta", "slots", "memory", "window/sums"])
def test_a_checkpoint_with_an_array_that_does_not_fit_is_refused(path, name):
    nf.train(NET, THETA, TASK, RECIPE, checkpoint=path)
    arrays, facts = checkpoint.load(path)
    for change in (arrays[name][..., None], arrays[name].astype("float16"), None):
        checkpoint.save(path, {key: a for key, a in (arrays | {name: change}).items() if a is not None}, facts)
        with pytest.raises(ValueError, match=f"checkpoint: {name} .*expected"):
            nf.train(NET, THETA, TASK, RECIPE, checkpoint=path)


# --- Disks.


def test_a_place_that_cannot_be_written_is_an_error_before_the_first_update(tmp_path):
    with pytest.raises(FileNotFoundError, match="could not be written"):
        nf.train(NET, THETA, TASK, recipe(lr=stopper(0, AssertionError)), checkpoint=tmp_path / "nowhere" / "run.npz")


def test_a_disk_that_fills_up_is_a_warning_and_the_run_goes_on(path, monkeypatch):
    usual, full = os.fsync, []

    def fsync(handle):
        if full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        usual(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.warns(RuntimeWarning, match=r"No space left on device.*Training goes on"):
        run = nf.train(NET, THETA, TASK, RECIPE, checkpoint=path, callbacks=[full.append], checkpoint_seconds=0)
    assert_same(run, nf.train(NET, THETA, TASK, RECIPE))
    assert nf.load_run(path).updates == 6, "what was saved before is still there"
    full.clear()
    assert_same(nf.train(NET, THETA, TASK, RECIPE, checkpoint=path), run)


def test_a_damaged_checkpoint_is_replaced_by_the_one_before(path):
    nf.train(NET, THETA, TASK, RECIPE, checkpoint=path, checkpoint_seconds=0)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.warns(RuntimeWarning, match=r"damaged.*Going on from"):
        run = nf.train(NET, THETA, TASK, RECIPE, checkpoint=path)
    assert_same(run, nf.train(NET, THETA, TASK, RECIPE))


# --- Signals.


def test_ctrl_c_at_any_moment_leaves_a_whole_number_of_updates(path):
    """The signal comes at moments that nobody chose; theta must always be that of so many updates."""
    how = recipe(max_updates=10**6, evaluate_every=0, record_every=50)
    for k in range(12):
        path.unlink(missing_ok=True)
        timer = threading.Timer(0.003 * k, os.kill, (os.getpid(), signal.SIGINT))
        begin = lambda run, timer=timer: timer.start() if run.updates == 50 else None  # noqa: E731
        run = nf.train(NET, THETA, TASK, how, checkpoint=path, callbacks=[begin])
        timer.join()
        assert run.interrupted
        short = nf.train(NET, THETA, TASK, dataclasses.replace(how, max_updates=run.updates))
        assert same_bits(run.theta, short.theta)
        assert nf.load_run(path).updates == run.updates
        assert same_bits(nf.load_run(path).theta, run.theta)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.sim
def test_a_guard_puts_ctrl_c_off_until_its_end():
    guard, done = Guard(), []
    with guard.installed():
        with pytest.raises(KeyboardInterrupt), guard:  # noqa: PT012
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
            done.append(1)
        assert done == [1]
        assert not guard.torn
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
        with pytest.raises(ZeroDivisionError), guard:
            raise ZeroDivisionError
    assert guard.torn


def test_in_another_thread_training_leaves_signals_alone():
    found = []
    thread = threading.Thread(target=lambda: found.append(nf.train(NET, THETA, TASK, RECIPE)))
    thread.start()
    thread.join()
    assert_same(found[0], nf.train(NET, THETA, TASK, RECIPE))


KILLED = """
import sys, nbflow as nf
task = nf.load_task("temporal_order")
net = nf.Network("tanh", task.n_in, 8, task.n_out)
recipe = nf.Recipe(
    optimizer="momentum", lr=0.05, batch_size=3, lengths=(10, 14), max_updates=1500, record_every=40,
    evaluate_every=100, evaluate_size=20, clip=nf.Clip("norm", nf.load_threshold("zscore", most=1.0)),
)
theta = nf.init(net, "smart_tanh", rng=0, replicas=2)
checkpoint = sys.argv[1] if len(sys.argv) > 1 else None
run = nf.train(net, theta, task, recipe, checkpoint=checkpoint, checkpoint_seconds=0)
"""


def test_a_process_that_is_killed_again_and_again_goes_on_to_the_same_bits(path):
    """Checkpoints are written after every update, so most of the kills hit one that is being written."""
    environment, chance, kills = dict(os.environ), random.Random(0), 0
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [os.getcwd(), environment.get("PYTHONPATH")]))
    seen = 0
    while seen < 1500 and kills < 40:
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], env=environment)
        wanted = seen + 250
        while process.poll() is None:
            time.sleep(0.01 + 0.02 * chance.random())
            seen = nf.load_run(path).updates if checkpoint.exists(path) else 0
            if seen >= wanted:
                process.kill()
                process.wait()
                kills += 1
                break
        else:
            assert process.returncode == 0
        seen = nf.load_run(path).updates
    assert kills >= 3
    space = {}
    exec(KILLED.replace("sys.argv[1] if len(sys.argv) > 1 else None", "None"), space)
    assert_same(nf.load_run(path), space["run"])
