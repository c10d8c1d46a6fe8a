"""Claims about sweeps: a run is run once, comes out the same in any company, and outlives whatever ends the sweep."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import importlib
import json
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing.context import SpawnProcess
from pathlib import Path

import numba
import numpy as np
import pytest
from disks import small_disk

import nbflow as nf
from nbflow.data import Text
from nbflow.experiments import _driver, _group as group, _pool as pool
from nbflow.experiments._pool import local_pool
from nbflow.experiments.code_version import code_version
from nbflow.experiments.experiment import key_of, keys_of
from nbflow.storage import _checkpoint as checkpoint, _journal, _lines, store
from nbflow.storage._former import LATER
from nbflow.storage.store import Store

ROOT = Path(__file__).parent.parent
# `nf.sweep` is the function.
SWEEP = importlib.import_module("nbflow.experiments.sweep")
RECIPE = nf.Recipe(
    lr=0.1, batch_size=3, lengths=(10, 14), max_updates=30, record_every=7, evaluate_every=10, evaluate_size=20,
    clip=nf.Clip("norm", 0.5),
)  # fmt: skip
BASE = nf.Experiment("temporal_order", RECIPE, n_hidden=6)
GRID = nf.grid(BASE, {"init": ["sigmoid", "smart_tanh"], "recipe.lr": [0.05, 0.1, 0.2]})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs.jsonl"


@pytest.fixture(scope="module")
def threads():
    """Workers in this process, which has compiled everything already."""
    with ThreadPoolExecutor(2) as executor:
        yield executor


def sweep(path, experiments=GRID, seeds=2, **options):
    return nf.sweep(experiments, seeds, path, progress=False, **options)


def results(swept):
    """Return what came out, without the time that it took."""
    return [{name: value for name, value in row.items() if name != "seconds"} for row in swept.runs]


def changed(**changes):
    return dataclasses.replace(BASE, recipe=dataclasses.replace(RECIPE, **changes))


def slow(updates=10**6, **changes):
    return changed(max_updates=updates, evaluate_every=0, record_every=50, **changes)


# --- What a run is.


def test_a_run_is_the_training_that_anybody_can_repeat(path, threads):
    row = sweep(path, executor=threads, seeds=[3]).runs[4]
    one = GRID[4]
    theta = nf.init(one.net, "smart_tanh", rng=0, replicas=4)[3]
    run = nf.train(one.net, theta, "temporal_order", one.recipe, replica_ids=[3])
    assert row["theta_sha256"] == hashlib.sha256(run.theta.tobytes()).hexdigest()
    assert (row["init"], row["recipe.lr"], row["seed"], row["updates"]) == ("smart_tanh", 0.1, 3, 30)
    assert row["recipe.clip.threshold"] == 0.5
    assert row["recipe.flow"] is None
    assert row["evaluations"] == run.evaluations
    assert row["history"] == {name: column for name, column in run.history.items() if name != "seconds"}
    assert (row["first_passage"], row["stays_below"]) == (run.first_passage, run.stays_below)
    assert row["loss"] == run.history["loss"][-1]
    assert row["score"] == run.evaluations["score"][-1]
    assert row["failure"] is None
    assert json.loads(json.dumps(row)) == row


@pytest.mark.parametrize("size", [1, 3, 100])
def test_runs_come_out_the_same_however_they_are_grouped(tmp_path, threads, size):
    changes = {"recipe.clip": [None, nf.Clip("norm", 0.1), nf.Clip("norm", math.inf), nf.Clip("value", 0.01)],
               "recipe.flow": [None, nf.Flow("squared", 0.5), nf.Flow("squared", 2.0)]}  # fmt: skip
    many = [*nf.grid(BASE, changes), *GRID, changed(clip_example=0.1), changed(clip_example=0.2)]
    usual = sweep(tmp_path / "usual.jsonl", many, [0, 5], executor=threads)
    other = sweep(tmp_path / "other.jsonl", many[::-1], [5, 0], executor=threads, group_size=size)
    key = lambda row: row["key"]  # noqa: E731
    assert sorted(results(usual), key=key) == sorted(results(other), key=key)
    assert len({row["theta_sha256"] for row in usual.runs}) == len(usual.runs) - 6, "an infinite threshold is none"


def test_only_runs_that_may_differ_as_numbers_do_are_grouped():
    thresholds = [nf.Clip("norm", v) for v in (0.1, 1.0, "percentile")]
    many = nf.grid(BASE, {"recipe.clip": [None, *thresholds], "init": ["sigmoid", "identity"]})
    many += [changed(batch_size=4), changed(lr=math.sqrt), changed(lr=math.exp)]
    members = [group.Member(str(k), one, 0) for k, one in enumerate(many)]
    assert sorted(len(one) for one in group.cut(members, 10)) == [1, 1, 1, 2, 2, 4]
    assert sorted(len(one) for one in group.cut(members, 3)) == [1, 1, 1, 1, 2, 2, 3]
    alone = [m._replace(experiment=changed(stop_when_solved=True)) for m in members[:3]]
    assert [len(one) for one in group.cut(alone, 10)] == [1, 1, 1]


def test_a_run_that_stops_when_solved_stops_as_it_would_alone(path, threads):
    how = changed(stop_when_solved=True, solved_below=0.7, evaluate_every=3, evaluate_size=50)
    rows = sweep(path, how, 4, executor=threads).runs
    assert len({row["updates"] for row in rows}) > 1
    for row in rows:
        run = nf.train(how.net, how.theta(row["seed"]), how.task, how.recipe, replica_ids=[row["seed"]])
        assert row["theta_sha256"] == hashlib.sha256(run.theta.tobytes()).hexdigest()
        assert row["first_passage"] == run.first_passage


@dataclasses.dataclass(frozen=True)
class Falling:
    start: float

    def __call__(self, update):
        return self.start / (1 + update)


@dataclasses.dataclass(frozen=True)
class Constant:
    start: float

    def __call__(self, update):
        return self.start


def test_schedules_are_told_apart_by_name_and_numbers(path, threads):
    many = [changed(lr=schedule(start)) for schedule in (Falling, Constant) for start in (0.1, 0.2)]
    swept = sweep(path, many, 1, executor=threads)
    assert len({row["key"] for row in swept.runs}) == len({row["theta_sha256"] for row in swept.runs}) == 4
    assert swept.runs[1]["recipe.lr.start"] == 0.2


def test_runs_of_an_older_version_are_found_under_its_name_and_not_trained_again(path):
    """Their keys are the same, though what the recipe leaves to the task was written otherwise."""
    path.write_bytes((Path(__file__).parent / "former" / "runs.jsonl").read_bytes())
    how = nf.Recipe(lengths=10, max_updates=4, record_every=2, evaluate_every=2, evaluate_size=20)
    text = Text(np.arange(1000, dtype=np.int32) % 5, tuple("abcde")).task(held_out=0.2)
    # What was the bound for data too when nobody had said one.
    of_text = nf.Experiment(text, dataclasses.replace(how, solved_below=0.01), n_hidden=4)
    assert key_of(of_text, 0, FORMER) != key_of(nf.Experiment(text, how, n_hidden=4), 0, FORMER)
    for bound in (None, 0.01):
        of_task = nf.Experiment("temporal_order", dataclasses.replace(how, solved_below=bound), n_hidden=4)
        done = sweep(path, [of_task, of_text], 1, executor=Nobody(), code=FORMER)
        assert [row["score"] for row in done.runs] == [0.8, 2.321842490910201]
        assert [row["unit"] for row in done.runs] == ["part wrong", "bits per character"]


class Nobody:
    """An executor that is asked for nothing."""

    def submit(self, *arguments):
        raise AssertionError("a run is trained again")


FORMER = "0.1.0+856d24d8fa31"
OTHER = {
    "task": "addition", "cell": "lstm", "n_hidden": 7, "init": "identity", "init_options": {"scale": 0.5},
    "dtype": "float64", "recipe.optimizer": "momentum", "recipe.lr": 0.1 + 1e-16, "recipe.batch_size": 4,
    "recipe.lengths": (10, 15), "recipe.clip": nf.Clip("norm", 0.5 + 1e-16), "recipe.flow": nf.Flow("squared", 1.0),
    "recipe.clip_hidden": nf.HiddenClip(1.0), "recipe.clip_example": 1.0, "recipe.clip_microbatch": (3, 1.0),
    "recipe.h_detach": nf.HDetach(0.5), "recipe.max_updates": 31, "recipe.record_every": 8,
    "recipe.evaluate_every": 11, "recipe.evaluate_size": 21, "recipe.solved_below": 0.02,
    "recipe.stop_when_solved": True, "recipe.trainable": {"w_rec": False},
    "recipe.project": np.copy, "recipe.noise": 0.1, "recipe.settings": {"momentum": 0.5},
}  # fmt: skip


def test_every_field_of_an_experiment_its_seed_and_its_code_are_in_the_key():
    fields = {field.name for field in dataclasses.fields(nf.Experiment)} - {"recipe"}
    fields |= {f"recipe.{field.name}" for field in dataclasses.fields(nf.Recipe)}
    assert OTHER.keys() == fields - {"recipe.carry"}  # of which there is a test of its own
    changes = [{name: [value]} for name, value in OTHER.items()]
    changes[-1]["recipe.optimizer"] = ["momentum"]  # which has such a setting
    many = [BASE, *(one for change in changes for one in nf.grid(BASE, change))]
    keys = {key_of(one, 0, "code") for one in many} | {key_of(BASE, 1, "code"), key_of(BASE, 0, "another")}
    assert len(keys) == len(many) + 2
    again = dataclasses.replace(BASE, recipe=dataclasses.replace(RECIPE, lr=np.float64(0.1), lengths=[10, 14]))
    assert key_of(again, 0, "code") == key_of(BASE, 0, "code")


def test_what_cannot_be_told_apart_is_refused():
    def inner(update):
        return 0.1

    for bad in (lambda update: 0.1, inner):
        with pytest.raises(ValueError, match=r"recipe.lr is .*no name of its own"):
            changed(lr=bad)


def test_a_run_of_other_code_is_another_run(path, threads, monkeypatch):
    first = sweep(path, BASE, 1, executor=threads)
    assert first.runs[0]["code"] == code_version()
    second = sweep(path, BASE, 1, executor=threads, code="mine")
    assert second.runs[0]["code"] == "mine"
    assert first.runs[0]["key"] != second.runs[0]["key"]
    assert len(Store(path).read()) == 2
    monkeypatch.setattr(SWEEP, "code_version", lambda: "another")
    assert sweep(path, BASE, 1, executor=threads).runs[0]["key"] not in (first.runs[0]["key"], second.runs[0]["key"])


def test_a_grid_has_every_combination_and_refuses_what_is_no_field():
    base = nf.Experiment("temporal_order", dataclasses.replace(RECIPE, optimizer="momentum"), n_hidden=6)
    many = nf.grid(base, {"recipe.clip.threshold": [0.1, 0.2], "recipe.settings.momentum": [0.5, 0.9], "n_hidden": [3]})
    assert [(one.recipe.clip.threshold, one.recipe.settings["momentum"]) for one in many] == [
        (0.1, 0.5), (0.1, 0.9), (0.2, 0.5), (0.2, 0.9)]  # fmt: skip
    assert nf.grid(BASE, {}) == [BASE]
    for name, words in {
        "recipe.rl": "expected one of optimizer, lr",
        "recipe.flow.alpha": "it is None",
        "x": "task",
    }.items():
        with pytest.raises(ValueError, match=f"changes has '{name}'.*{words}"):
            nf.grid(BASE, {name: [1]})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (None, "changes is a NoneType; expected a dict"),
        ({"init": "glorot"}, "expected a name and a list"),
        ({"recipe.lr": 0.1}, "expected a name and a list"),
        ({3: [1]}, "expected a name and a list"),
        ({"init": []}, "no value for 'init'; expected at least one"),
    ],
)
def test_a_grid_of_no_lists_is_refused(changes, words):
    with pytest.raises((TypeError, ValueError), match=words):
        nf.grid(BASE, changes)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no process forks here")
def test_an_executor_that_forks_is_refused_before_anything_starts(tmp_path):
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as executor:
        with pytest.raises(ValueError, match=r"executor forks its processes; .*get_context\('spawn'\)"):
            nf.sweep(BASE, 1, tmp_path / "runs.jsonl", executor=executor, progress=False)
        assert not executor._processes
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_an_executor_of_another_kind_runs_a_sweep(tmp_path, method):
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as executor:
        done = nf.sweep(BASE, 1, tmp_path / "runs.jsonl", executor=executor, progress=False)
    assert done.missing == 0
    assert not done.failed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"experiments": []}, "experiments is"), ({"experiments": [3]}, "experiments is"), ({"seeds": 0}, "seeds is 0"),
        ({"seeds": "3"}, "seeds is"), ({"seeds": [2**24]}, "seeds is"), ({"group_size": 0}, "group_size is 0"),
        ({"executor": 3}, "executor has no submit"), ({"workers": 0}, "workers is 0"), ({"code": 3}, "code is 3"),
        ({"checkpoint_seconds": -1}, "checkpoint_seconds is"), ({"path": 3}, "store is"),
        ({"experiments": changed(lr=np.array([0.1]))}, "lr is"),
    ],
)  # fmt: skip
def test_arguments_that_make_no_sense_are_refused(path, arguments, words):
    with pytest.raises((TypeError, ValueError), match=words):
        sweep(**({"path": path} | arguments))
    assert not path.exists()


# --- Again, and after failures.


def test_a_second_sweep_runs_only_what_is_new(path, threads, monkeypatch):
    first = sweep(path, executor=threads)
    ran = []
    usual = group._train
    monkeypatch.setattr(group, "_train", lambda job, watch: ran.append(job) or usual(job, watch))
    assert sweep(path, executor=threads) == first
    assert not ran
    more = sweep(path, seeds=3, executor=threads)
    assert sorted(m.seed for job in ran for m in job.members) == [2] * 6
    assert [row for row in more.runs if row["seed"] < 2] == first.runs
    assert os.listdir(path.parent) == ["runs.jsonl", "runs.jsonl.lock"] or set(os.listdir(path.parent)) == {
        "runs.jsonl", "runs.jsonl.lock"}  # fmt: skip


def test_a_sweep_on_a_large_store_gives_runs_that_are_read_when_they_are_asked_for(path, threads, monkeypatch):
    usual = sweep(path, executor=threads)
    monkeypatch.setattr(SWEEP, "IN_MEMORY", 0)
    lazy = sweep(path, executor=threads)
    assert type(usual.runs) is list
    assert type(lazy.runs).__name__ == "Rows"
    assert lazy == usual
    assert lazy.failed == []
    assert len(repr(lazy)) < 2000


def test_planning_reads_no_run_and_takes_the_memory_of_no_history(path, threads, monkeypatch):
    """A thousand runs with long histories are there, and one is missing: what is parsed is its line alone."""
    many = range(1000)
    lines = [{"key": key, "failure": None, "history": "x" * 10_000} for key in keys_of(BASE, many, code_version())]
    Store(path).add(lines[:-1])
    Store(path).read()
    monkeypatch.setattr(store, "row_of_today", lambda row: pytest.fail("a run was read"))
    monkeypatch.setattr(SWEEP, "IN_MEMORY", 0)
    parsed = []
    usual = store.parse
    for one in (store, _journal, _lines):
        monkeypatch.setattr(one, "parse", lambda text: (parsed.append(text), usual(text))[1])
    tracemalloc.start()
    try:
        swept = sweep(path, BASE, 1000, executor=threads)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (len(swept.runs), swept.missing) == (1000, 0)
    assert path.stat().st_size > 10_000_000
    assert len({json.loads(text)["key"] for text in parsed}) == 1
    assert peak < 5_000_000


def test_a_thousand_jobs_are_looked_at_as_often_as_ten(monkeypatch):
    """An executor has a few at a time, each is taken once, and nobody asks a job that has not ended."""
    monkeypatch.setattr(pool, "WINDOW", 8)
    most, taken, looks = [], [], []

    class Counting(ThreadPoolExecutor):
        def submit(self, *arguments):
            most.append(submitted() - len(taken))
            return super().submit(*arguments)

    def submitted():
        return len(most) + 1

    with Counting(2) as executor:
        pool.call_all(executor, abs, range(1000), lambda job, future: taken.append((job, future.result())),
                      lambda left: looks.append(len(left)), lambda: None)  # fmt: skip
    assert sorted(taken) == [(k, k) for k in range(1000)]
    assert max(most) <= 8 + 1
    assert looks[-1] == 0
    assert len(looks) < 1000


def test_a_cancelled_job_whose_end_is_never_told_is_not_waited_for():
    """Dask's executor tells of none that a worker had done when it was cancelled; others are waited for, and taken."""
    taken, futures = [], []

    class Silent(Executor):
        def submit(self, call, job):
            futures.append(Future())
            if job == 0:
                futures[-1].set_result("first")
            if job == 1:
                assert futures[-1].set_running_or_notify_cancel()
            return futures[-1]

    def take(job, future):
        taken.append((job, future.result()))
        if job == 0:
            raise OSError("the disk is full")

    def call_all():
        with pytest.raises(OSError, match="the disk is full"):
            pool.call_all(Silent(), abs, range(4), take, lambda left: None, lambda: futures[1].set_result("last"))
        return "ended"

    with ThreadPoolExecutor(1) as executor:
        ended = executor.submit(call_all)
        try:
            assert ended.result(timeout=20) == "ended"
        finally:
            for future in futures:  # or a thread would wait for them for ever
                future.set_running_or_notify_cancel() if future.cancelled() else None
    assert taken == [(0, "first"), (0, "first"), (1, "last")]


def test_workers_that_do_not_see_the_folder_are_an_error_and_no_endless_loop(path, threads, monkeypatch):
    usual = group.run_group

    def elsewhere(job):
        return usual(job._replace(sign=job.sign.with_name("of another disk")))

    monkeypatch.setattr(_driver, "run_group", elsewhere)
    with pytest.raises(OSError, match=r"a worker does not see .*runs.jsonl.runs, .*expected a disk that workers share"):
        sweep(path, executor=threads)
    assert not (path.parent / "runs.jsonl.runs").exists()


def test_a_carried_state_is_in_the_key():
    text = Text(np.arange(1000, dtype=np.int32) % 5, tuple("abcde")).task(held_out=0.2)
    how = [nf.Experiment(text, nf.Recipe(lengths=10, carry=carry), n_hidden=4) for carry in (False, True)]
    assert key_of(how[0], 0, "code") != key_of(how[1], 0, "code")


def test_keys_are_hashes_of_setting_seed_and_code():
    """Of a recipe without what came later and is not asked for: as older versions have hashed it."""
    recipe = {name: value for name, value in BASE.described["recipe"].items() if name not in LATER}
    assert LATER.items() <= BASE.described["recipe"].items()
    text = json.dumps([BASE.described | {"recipe": recipe}, 7, 'a"b'], sort_keys=True)
    assert key_of(BASE, 7, 'a"b') == "r" + hashlib.sha256(text.encode()).hexdigest()[:32]
    assert keys_of(BASE, [7, 2**24 - 1], "c") == [key_of(BASE, 7, "c"), key_of(BASE, 2**24 - 1, "c")]


def test_what_a_sweep_left_that_was_killed_before_it_had_tidied_up_is_deleted(path, threads, monkeypatch):
    monkeypatch.setattr(_driver, "clear", lambda path: None)
    first = sweep(path, executor=threads)
    assert len(list((path.parent / "runs.jsonl.runs").glob("*.npz"))) == 3
    monkeypatch.undo()
    assert sweep(path, executor=threads) == first
    assert not (path.parent / "runs.jsonl.runs").exists()


def test_a_setting_that_fails_is_recorded_and_the_others_go_on(path, threads):
    lr = [0.1, 1e40, 0.2, 1e50, 0.3]  # which float64 holds, and the network's float32 doesn't
    swept = sweep(path, nf.grid(BASE, {"recipe.lr": lr}), 2, executor=threads, group_size=10)
    assert [row["failure"] is None for row in swept.runs] == [
        True,
        True,
        False,
        False,
        True,
        True,
        False,
        False,
        True,
        True,
    ]
    assert len(swept.failed) == 4
    assert swept.failed[0]["failure"].startswith("ValueError: lr is 1e+40; expected")
    assert swept.failed[0]["recipe.lr"] == 1e40
    others = nf.grid(BASE, {"recipe.lr": [0.1, 0.3]})
    assert results(swept)[0:9:8] == results(sweep(path.with_name("o"), others, 1, executor=threads))
    size = path.stat().st_size
    assert sweep(path, nf.grid(BASE, {"recipe.lr": lr[:4]}), 2, executor=threads).failed[0] == swept.failed[0]
    assert path.stat().st_size == size, "it would fail again"


def test_a_run_that_fails_on_its_way_takes_no_other_with_it(path, threads):
    """One of three explodes, and its policy is to raise."""
    how = changed(clip=nf.Clip("norm", 1e30, nonfinite="raise"), lr=0.1)
    many = nf.grid(how, {"recipe.lr": [0.1, 1e38, 0.2]})
    swept = sweep(path, many, 1, executor=threads)
    assert [row["failure"] is None for row in swept.runs] == [True, False, True]
    assert "FloatingPointError: the gradient is not finite in" in swept.failed[0]["failure"]


def test_what_is_the_machines_fault_is_raised_and_not_recorded(path, threads, monkeypatch):
    usual = group._train

    def broken(job, watch):
        if any(member.experiment.init == "sigmoid" for member in job.members):
            raise OSError(errno.ENOSPC, "No space left on device")
        return usual(job, watch)

    monkeypatch.setattr(group, "_train", broken)
    with pytest.raises(OSError, match="No space left"):
        sweep(path, executor=threads, group_size=3)
    assert {row["init"] for row in Store(path).read().values()} == {"smart_tanh"}
    monkeypatch.undo()
    assert results(sweep(path, executor=threads)) == results(sweep(path.with_name("o"), executor=threads))


def test_a_store_that_cannot_be_written_is_a_clear_error_and_loses_nothing(path, threads, monkeypatch):
    usual, calls = _journal.Journal.append, []

    def fail(self, data):
        calls.append(1)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        usual(self, data)

    monkeypatch.setattr(_journal.Journal, "append", fail)
    with pytest.raises(OSError, match=r"runs.jsonl could not be written: No space left.*still there"):
        sweep(path, executor=threads)
    monkeypatch.undo()
    ran = []
    usual_train = group._train
    monkeypatch.setattr(group, "_train", lambda job, watch: ran.append(usual_train(job, watch)) or ran[-1])
    assert results(sweep(path, executor=threads)) == results(sweep(path.with_name("o"), executor=threads))


def test_a_disk_that_is_full_before_the_first_update_is_a_clear_error_and_loses_nothing(tmp_path, threads):
    with small_disk(tmp_path, "2m") as disk:
        path = disk.folder / "runs.jsonl"
        first = sweep(path, BASE, 1, executor=threads)
        with disk.full(), pytest.raises(OSError, match=r"checkpoint .* could not be written: No space.*Make room"):
            sweep(path, executor=threads)
        assert list(Store(path).read().values()) == first.runs
        assert results(sweep(path, executor=threads)) == results(sweep(tmp_path / "o.jsonl", executor=threads))


def test_a_disk_that_is_full_when_runs_are_done_costs_no_training(tmp_path, threads, monkeypatch):
    trained, usual_train, usual_add = [], group._train, Store.add
    monkeypatch.setattr(group, "_train", lambda job, watch: trained.append(usual_train(job, watch)) or trained[-1])
    with small_disk(tmp_path, "2m") as disk:
        path = disk.folder / "runs.jsonl"
        first = sweep(path, BASE, 1, executor=threads)
        monkeypatch.setattr(Store, "add", lambda self, rows: (disk.fill(), usual_add(self, rows))[1])
        with pytest.raises(OSError, match=r"store .*runs.jsonl could not be written: No space.*Make room"):
            sweep(path, GRID[:2], 2, executor=threads, group_size=4)
        assert list(Store(path).read().values()) == first.runs
        monkeypatch.setattr(Store, "add", usual_add)
        (disk.folder / "ballast").unlink()
        (kept,) = disk.folder.glob("runs.jsonl.runs/*.npz")
        before = nf.load_run(kept)
        assert before.updates == RECIPE.max_updates
        del trained[:]
        again = sweep(path, GRID[:2], 2, executor=threads, group_size=4)
        usual = sweep(tmp_path / "o.jsonl", GRID[:2], 2, executor=threads)
        assert results(again) == results(usual)
        assert trained[0].history["seconds"] == before.history["seconds"], "it was trained again"
        assert not (disk.folder / "runs.jsonl.runs").exists()


def test_a_disk_that_fills_up_in_training_is_a_warning_and_the_run_goes_on(tmp_path, threads, monkeypatch):
    with small_disk(tmp_path, "2m") as disk:
        path = disk.folder / "runs.jsonl"
        usual, calls = checkpoint.save, []

        def fill_after_the_first(*arguments):
            usual(*arguments)
            calls.append(arguments)
            if len(calls) == 1:
                disk.fill()

        monkeypatch.setattr(checkpoint, "save", fill_after_the_first)
        monkeypatch.setattr(Store, "add", make_room_first(disk, Store.add))
        with pytest.warns(RuntimeWarning, match=r"checkpoint .* could not be written: No space.*Training goes on"):
            swept = sweep(path, BASE, 1, executor=threads, checkpoint_seconds=0)
        monkeypatch.undo()
        assert results(swept) == results(sweep(tmp_path / "o.jsonl", BASE, 1, executor=threads))


def make_room_first(disk, add):
    def inside(store, rows):
        (disk.folder / "ballast").unlink()
        return add(store, rows)

    return inside


def test_a_read_only_disk_is_a_clear_error_and_what_is_there_can_be_read(tmp_path, threads):
    with small_disk(tmp_path, "2m") as disk:
        path = disk.folder / "runs.jsonl"
        first = sweep(path, BASE, 1, executor=threads)
        disk.make_read_only()
        assert sweep(path, BASE, 1, executor=threads) == first
        with pytest.raises(OSError, match=r"folder .*runs.jsonl.runs .*could not be made: Read-only.*another place"):
            sweep(path, executor=threads)
        disk.make_writable()
        assert sweep(path, executor=threads).missing == 0
        assert list(Store(path).read().values())[:1] == first.runs


def test_a_store_below_a_file_is_a_clear_error(tmp_path, threads):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"store .*runs.jsonl could not be read: Not a directory.*another place"):
        sweep(tmp_path / "file" / "runs.jsonl", executor=threads)
    (tmp_path / "runs.jsonl.runs").write_text("")
    with pytest.raises(OSError, match=r"folder .*runs.jsonl.runs .*could not be made: File exists.*another place"):
        sweep(tmp_path / "runs.jsonl", executor=threads)


# --- Interruption.


def interrupted_when(ready):
    """Send this process Ctrl-C once something is there."""

    def interrupt():
        while not ready():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    return thread


def test_ctrl_c_and_a_second_call_go_on_where_it_was(path, threads):
    many = [slow(3000, lr=lr) for lr in (0.01, 0.02)]
    seen = interrupted_when(lambda: list(path.parent.glob("runs.jsonl.runs/*.progress")))
    first = sweep(path, [slow()], 2, executor=threads)
    seen.join()
    assert first.interrupted
    assert (first.runs, first.missing) == ([], 2)
    (kept,) = (path.parent / "runs.jsonl.runs").glob("*.npz")
    before = nf.load_run(kept).updates
    assert before > 0
    assert not list(kept.parent.glob("sweep-*"))
    done = sweep(path, many, 2, executor=threads)
    assert not done.interrupted
    assert results(done) == results(sweep(path.with_name("o"), many, 2, executor=threads, group_size=1))
    assert nf.load_run(kept).updates == before
    progress = kept.with_suffix(".progress")
    progress.unlink()
    seen = interrupted_when(lambda: progress.exists() and int(progress.read_text() or 0) > before)
    assert sweep(path, [slow()], 2, executor=threads).interrupted
    seen.join()
    assert nf.load_run(kept).updates > before


def test_a_second_ctrl_c_waits_for_nobody_and_leaves_nothing_but_checkpoints(path):
    """What runs on elsewhere, here in a thread, stops all the same."""
    with ThreadPoolExecutor(1) as executor:
        halted = wait_and_interrupt_twice(path)
        swept = sweep(path, [slow(10**8)], 1, executor=executor)
        halted.join()
        assert swept.interrupted
        assert executor.submit(int).result(60) == 0
    left = {place.suffix for place in (path.parent / "runs.jsonl.runs").iterdir()}
    assert left <= {".npz", ".before", ".lock", ".progress"}
    assert not list(path.parent.glob("runs.jsonl.runs/sweep-*"))


def wait_and_interrupt_twice(path):
    """Interrupt this process when it trains, and again when it waits for that to end."""

    def interrupt():
        while not list(path.parent.glob("runs.jsonl.runs/*.progress")):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)
        while list(path.parent.glob("runs.jsonl.runs/sweep-*")):
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    return thread


def test_what_a_killed_sweep_left_of_itself_is_deleted_and_what_lives_is_not(path, threads):
    folder = path.parent / "runs.jsonl.runs"
    folder.mkdir()
    (folder / "sweep-of-the-dead.lock").touch()
    with group.owned(folder / "sweep-of-the-living"):
        sweep(path, BASE, 1, executor=threads)
        assert [place.name for place in folder.iterdir()] == ["sweep-of-the-living.lock"]
    sweep(path, BASE, 1, executor=threads)
    assert not folder.exists()


def test_sweeps_that_run_at_once_on_one_store_share_the_work(path, monkeypatch):
    ran = []
    usual = group._train
    monkeypatch.setattr(
        group, "_train", lambda job, watch: (ran.append(job.path), time.sleep(0.1), usual(job, watch))[-1]
    )
    found = []

    def run():
        with ThreadPoolExecutor(1) as executor:
            found.append(sweep(path, executor=executor, group_size=1))

    several = [threading.Thread(target=run) for _ in range(3)]
    for one in several:
        one.start()
    for one in several:
        one.join()
    assert found[0] == found[1] == found[2]
    assert len(found[0].runs) == 12
    assert path.read_bytes().count(b"\n") == 12
    assert len(set(ran)) == 12
    assert len(ran) < 24, "a group may be taken again between its end and its line, and is then only read"
    assert not (path.parent / "runs.jsonl.runs").exists()


def test_sweeps_that_run_at_once_and_cut_other_groups_lose_nothing(path, monkeypatch):
    usual = group._train
    monkeypatch.setattr(group, "_train", lambda job, watch: (time.sleep(0.1), usual(job, watch))[-1])
    found = {}

    def run(seeds, size, experiments):
        with ThreadPoolExecutor(1) as executor:
            found[seeds] = sweep(path, experiments, seeds, executor=executor, group_size=size)

    several = [threading.Thread(target=run, args=one) for one in ((1, 4, GRID), (2, 3, GRID[::-1]), (3, 2, GRID[2:]))]
    for one in several:
        one.start()
    for one in several:
        one.join()
    assert {seeds: (len(swept.runs), swept.missing) for seeds, swept in found.items()} == {
        1: (6, 0),
        2: (12, 0),
        3: (12, 0),
    }
    assert path.read_bytes().count(b"\n") == len(Store(path).read()) == 16
    monkeypatch.undo()
    with ThreadPoolExecutor(1) as executor:
        for seeds, experiments in ((2, GRID[::-1]), (3, GRID[2:])):
            other = sweep(path.with_name(f"o{seeds}"), experiments, seeds, executor=executor)
            assert results(found[seeds]) == results(other)
    assert not (path.parent / "runs.jsonl.runs").exists()


def test_a_group_whose_checkpoints_are_all_damaged_is_trained_anew(path, threads, monkeypatch):
    monkeypatch.setattr(_driver, "clear", lambda path: None)
    first = sweep(path, BASE, 1, executor=threads, checkpoint_seconds=0)
    monkeypatch.undo()
    kept = list(path.parent.glob("runs.jsonl.runs/*.npz*"))
    assert len(kept) == 2
    for place in kept:
        place.write_bytes(place.read_bytes()[:1000])
    path.unlink()
    with pytest.warns(RuntimeWarning, match=r"npz is damaged.*npz.before is damaged.*The group begins anew"):
        again = sweep(path, BASE, 1, executor=threads)
    assert not again.failed
    assert results(again) == results(first)


LOCAL = """
import sys, nbflow as nf
if __name__ == "__main__":
    recipe = nf.Recipe(lr=0.1, batch_size=3, lengths=(10, 14), max_updates=200, record_every=20, evaluate_every=50,
                       evaluate_size=20, clip=nf.Clip("norm", 0.5))
    base = nf.Experiment("temporal_order", recipe, n_hidden=6)
    grid = nf.grid(base, {"init": ["sigmoid", "smart_tanh"], "recipe.lr": [0.05, 0.1]})
    done = nf.sweep(grid, 3, sys.argv[1], workers=2, group_size=3, checkpoint_seconds=0, progress=len(sys.argv) > 2)
    print("interrupted" if done.interrupted else "done", len(done.runs))
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("script") / "local.py"
    path.write_text(LOCAL)
    return path


def start(script, path, *more):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    return subprocess.Popen([sys.executable, script, path, *more], env=environment, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)  # fmt: skip


@pytest.fixture(scope="module")
def expected(threads, tmp_path_factory):
    """What LOCAL's runs are, each trained alone in this process."""
    path = tmp_path_factory.mktemp("expected") / "runs.jsonl"
    recipe = dataclasses.replace(RECIPE, max_updates=200, record_every=20, evaluate_every=50)
    grid = nf.grid(
        dataclasses.replace(BASE, recipe=recipe), {"init": ["sigmoid", "smart_tanh"], "recipe.lr": [0.05, 0.1]}
    )
    return {row["key"]: row for row in results(sweep(path, grid, 3, executor=threads, group_size=1))}


def assert_all_there(path, expected):
    rows = {key: {**row} for key, row in Store(path).read().items()}
    for row in rows.values():
        del row["seconds"]
    assert rows == expected
    assert path.read_bytes().count(b"\n") == len(expected)


def test_processes_of_one_thread_each_do_the_same(script, path, expected):
    process = start(script, path)
    out, err = process.communicate(timeout=300)
    assert (out, err) == ("done 12\n", "")
    assert_all_there(path, expected)
    assert not (path.parent / "runs.jsonl.runs").exists()


def about_this_process():
    spawned = isinstance(multiprocessing.current_process(), SpawnProcess)
    return numba.get_num_threads(), spawned, signal.getsignal(signal.SIGINT)


def test_workers_are_spawned_with_one_thread_each_and_deaf_to_ctrl_c(monkeypatch):
    monkeypatch.setenv("NUMBA_NUM_THREADS", "2")
    with local_pool(1) as pool:
        assert pool.submit(about_this_process).result() == (1, True, signal.SIG_IGN)
    assert os.environ["NUMBA_NUM_THREADS"] == "2"


def test_two_processes_that_sweep_at_once_on_one_store_lose_nothing(script, path, expected):
    several = [start(script, path) for _ in range(2)]
    assert [one.communicate(timeout=300) for one in several] == [("done 12\n", "")] * 2
    assert_all_there(path, expected)
    assert not path.with_name("runs.jsonl.runs").exists()


def test_ctrl_c_of_a_terminal_reaches_everybody_and_nobody_complains(script, path, expected):
    process = start(script, path)
    while not list(path.parent.glob("runs.jsonl.runs/*.npz")):
        time.sleep(0.02)
        assert process.poll() is None
    for child in [process.pid, *children(process.pid)]:  # as a terminal does
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Traceback" not in err
    if not out.startswith("done"):
        assert out.startswith("interrupted")
    assert start(script, path).communicate(timeout=300) == ("done 12\n", "")
    assert_all_there(path, expected)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_a_second_ctrl_c_ends_the_workers_and_loses_nothing(script, path, expected):
    process = start(script, path)
    folder = path.with_name("runs.jsonl.runs")
    while not list(folder.glob("*.progress")):
        time.sleep(0.01)
        assert process.poll() is None
    workers = children(process.pid)
    process.send_signal(signal.SIGINT)
    while list(folder.glob("sweep-*")):
        time.sleep(0.0005)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    assert process.returncode == 0
    assert out.startswith(("interrupted", "done"))
    assert workers
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < deadline, "a worker goes on"
        time.sleep(0.01)
    assert start(script, path).communicate(timeout=300) == ("done 12\n", "")
    assert_all_there(path, expected)
    assert not folder.exists()


def children(pid):
    """Return the children of a process, where the system tells."""
    found = [Path(f"/proc/{pid}/task/{pid}/children")]
    return [int(child) for place in found if place.exists() for child in place.read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_a_worker_that_is_killed_is_replaced(script, path, expected):
    process = start(script, path)
    killed = 0
    while process.poll() is None and killed < 2:
        time.sleep(0.02)
        if list(path.parent.glob("runs.jsonl.runs/*.npz")):
            workers = [
                pid for pid in children(process.pid) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
            ]
            if workers:
                os.kill(workers[-1], signal.SIGKILL)
                killed += 1
                time.sleep(0.5)
    out, err = process.communicate(timeout=300)
    assert killed
    assert (out, err) == ("done 12\n", "")
    assert_all_there(path, expected)
