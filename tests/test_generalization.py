"""scripts/generalization.py: what it keeps, measures and says, on networks of a few units."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripted import SCRIPTS, assert_help, assert_refused, assert_stopped, load

import nbflow as nf

TINY = ["--seeds", "2", "--shortest", "10", "--stages", "10", "12", "--lengths", "10", "30", "--size", "300",
        "--hidden", "20", "--budget", "0.0008"]  # fmt: skip


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    generalization = load(monkeypatch, "generalization")

    monkeypatch.setattr(generalization, "EVALUATE_EVERY", 100)
    monkeypatch.setattr(generalization, "RECORD_EVERY", 50)
    return generalization


def run(script: Any, *arguments: str) -> int:
    with ThreadPoolExecutor(1) as executor:
        return int(script.main([*TINY, *arguments], executor))


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "generalization.jsonl").read_text().splitlines()]


def options_of(script: Any, folder: Path, **changes: Any) -> Any:
    tiny = {"shortest": 10, "stages": (10, 12), "size": 300, "hidden": 20, "budget": 0.0008, "lengths": (10, 30)}
    return script.Options(**{**tiny, "out": folder, **changes})


class Cut:
    """In place of a watch: one that asks to stop after so many updates of all stages."""

    def __init__(self, at: int) -> None:
        self.at, self.stopped = at, False

    def __call__(self, run: nf.Run) -> bool:
        self.stopped = run.updates >= self.at
        return self.stopped


def test_help_teaches_every_option() -> None:
    assert_help("generalization.py", "Pascanu", "--budget", "units of 500,000", "--stages 200`", "Ctrl-C")


def test_a_run_writes_store_table_picture_and_every_error(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(script, "--out", str(tmp_path)) == 0
    said = " ".join(capsys.readouterr().out.split())
    for words in ("Wrong of 300 fresh sequences", "guessing", "75 %", "picture:"):
        assert words in said
    assert (tmp_path / "generalization.png").read_bytes().startswith(b"\x89PNG")
    found = json.loads((tmp_path / "generalization.json").read_text())
    assert [(p["seed"], p["length"]) for p in found["points"]] == [(0, 10), (0, 30), (1, 10), (1, 30)]
    for point in found["points"]:
        assert point["error"]["low"] <= point["wrong"] / 300 <= point["error"]["high"]
    rows = rows_of(tmp_path)
    assert sorted(row["kind"] for row in rows) == ["measurement"] * 4 + ["training"] * 2
    assert run(script, "--out", str(tmp_path)) == 0
    assert rows_of(tmp_path) == rows, "nothing is run twice"
    assert run(script, "--out", str(tmp_path), "--lengths", "10", "20", "30") == 0
    more = rows_of(tmp_path)
    assert more[: len(rows)] == rows
    assert [row["length"] for row in more[len(rows) :]] == [20, 20]


def test_what_is_measured_is_the_network_in_the_store(script: Any, tmp_path: Path) -> None:
    run(script, "--out", str(tmp_path))
    rows = rows_of(tmp_path)
    task, net = nf.load_task("temporal_order"), nf.Network("tanh", 6, 20, 4)
    (trained,) = [row for row in rows if row["kind"] == "training" and row["seed"] == 1]
    (measured,) = [row for row in rows if (row["kind"], row["seed"], row.get("length")) == ("measurement", 1, 30)]
    theta, wrong = script.theta_of(trained["theta"]), 0
    for index, size in ((0, 200), (200, 100)):  # a pass is of 200 at most
        batch = task.sample(seed=script.MEASURE_SEED + 1, index=index, batch_size=size, length=30, stream="evaluation")
        wrong += int(task.wrong(nf.predict(net, theta, batch.inputs), batch).sum())
    assert measured["wrong"] == wrong


def test_parameters_come_out_of_the_store_bit_for_bit(script: Any) -> None:
    theta = np.random.default_rng(0).normal(size=500).astype(np.float32)
    assert (script.theta_of(script.text_of(theta)) == theta).all()


def test_stages_follow_each_other_until_the_last_is_solved(script: Any, tmp_path: Path) -> None:
    options = options_of(script, tmp_path, budget=0.02, lr=0.05)
    (tmp_path / "generalization.jsonl.runs").mkdir()
    row = script.learn(script.training_jobs(options)[0], Cut(10**9))
    assert row["solved"]
    assert row["passed"] == 2
    tops = [one["stage"] for one in row["evaluations"]]
    assert tops == sorted(tops)
    for top in (10, 12):
        errors = [one["error"] for one in row["evaluations"] if one["stage"] == top]
        assert errors[-1] < 0.01 <= min([1.0, *errors[:-1]])
    assert [one["update"] for one in row["evaluations"]] == list(range(100, row["updates"] + 1, 100))
    assert row["best_error"] == row["evaluations"][-1]["error"]


def test_a_network_that_does_not_learn_is_measured_at_its_best_and_called_so(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(script, "--out", str(tmp_path), "--lr", "0.0001", "--stages", "12") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "No network was below 1 % within 400 updates: these are the errors of the best ones" in said
    assert "NOT learnt in 400 updates (0 of 1 stages)" in said
    row = next(row for row in rows_of(tmp_path) if row["kind"] == "training" and row["seed"] == 0)
    errors = [one["error"] for one in row["evaluations"]]
    assert row["best_error"] == min(errors)
    options = options_of(script, tmp_path, lr=0.0001, stages=(12,))
    best = row["evaluations"][errors.index(min(errors))]["update"]
    again = script.experiment(options, 0, best)
    kept = nf.train(again.net, again.theta(0), again.task, again.recipe, replica_ids=[0]).theta
    assert (script.theta_of(row["theta"]) == kept).all()


@pytest.mark.parametrize("cuts", [(50,), (150, 250)])
def test_a_training_that_was_cut_off_ends_in_the_same_bits(script: Any, tmp_path: Path, cuts: tuple[int, ...]) -> None:
    jobs = {}
    for name in ("whole", "cut"):
        options = options_of(script, tmp_path / name, lr=0.05)
        (tmp_path / name / "generalization.jsonl.runs").mkdir(parents=True)
        jobs[name] = script.training_jobs(options)[0]
    whole = script.learn(jobs["whole"], Cut(10**9))
    for cut in cuts:
        assert script.learn(jobs["cut"], Cut(cut)) is None
    assert script.learn(jobs["cut"], Cut(10**9)) == whole


def test_a_larger_budget_goes_on_where_the_smaller_one_ended(script: Any, tmp_path: Path) -> None:
    (tmp_path / "generalization.jsonl.runs").mkdir(parents=True)
    small, large = (script.training_jobs(options_of(script, tmp_path, lr=1e-4, budget=b))[0] for b in (0.0004, 0.0008))
    assert small.path == large.path
    assert small.key != large.key
    first, second = script.learn(small, Cut(10**9)), script.learn(large, Cut(10**9))
    assert (first["updates"], second["updates"]) == (200, 400)
    assert second["evaluations"][: len(first["evaluations"])] == first["evaluations"]


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_ctrl_c_keeps_what_was_done(tmp_path: Path) -> None:
    command = [sys.executable, SCRIPTS / "generalization.py", *TINY, "--seeds", "1", "--lr", "0.0001",
               "--budget", "0.2", "--solved-below", "0.0001", "--out", tmp_path]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        folder = tmp_path / "generalization.jsonl.runs"
        deadline = time.monotonic() + 300
        while not list(folder.glob("*.progress")) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=300)
    assert_stopped(process.returncode, said, "The same command goes on.")
    done = [nf.load_run(path).updates for path in folder.glob("*.0.npz")]
    assert len(done) == 1
    assert 0 < done[0] < 100_000


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        (["--stages", "50", "20"], "stages is (50, 20); expected rising lengths"),
        (["--seeds", "0"], "seeds is 0"),
        (["--hidden", "0"], "error: hidden is 0; expected"),
        (["--lengths", "5"], "expected at least 10"),
        (["--task", "addition2"], "addition2"),
        (["--budget", "0"], "budget is 0"),
    ],
)
def test_a_wrong_option_is_one_clear_error(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: list[str], found: str
) -> None:
    assert_refused(script, [*TINY, *wrong, "--out", str(tmp_path / "new")], found, capsys)
