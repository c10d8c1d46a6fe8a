"""scripts/language.py: what it compares, chooses, keeps and says, on networks of a few units."""

from __future__ import annotations

import collections
import dataclasses
import json
import math
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
from scripted import SCRIPTS, assert_help, assert_refused, assert_stopped, fixture_of
from tolerance import near, within

import nbflow as nf
from nbflow.experiments.experiment import key_of

TINY = ["--hidden", "12", "--length", "8", "--batch-size", "3", "--budget", "0.0016", "--lrs", "0.001", "0.01",
        "--seeds", "2"]  # fmt: skip

script = fixture_of("language")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    words = np.random.default_rng(0).choice(["to be ", "or not ", "that is\n", "the question: "], size=400)
    path = tmp_path / "input.txt"
    path.write_text("".join(words))
    return path


def run(script: Any, text: Path, *arguments: str) -> int:
    with ThreadPoolExecutor(1) as executor:
        return int(script.main(["--text", str(text), *TINY, *arguments], executor))


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "language.jsonl").read_text().splitlines()]


class Cut:
    """In place of a watch: one that asks to stop after so many updates."""

    def __init__(self, at: int) -> None:
        self.at, self.stopped = at, False

    def __call__(self, run: nf.Run) -> bool:
        self.stopped = run.updates >= self.at
        return self.stopped


def test_help_teaches_every_option() -> None:
    assert_help("language.py", "LSTM", "--text", "--budget", "units of 25,000", "Adam", "Bits per character", "Ctrl-C")


@pytest.mark.parametrize("characters", [11, 27, 65, 100, 256])
@pytest.mark.parametrize("hidden", [12, 50, 100, 128, 300])
def test_networks_have_the_same_number_of_parameters_within_one_percent(
    script: Any, characters: int, hidden: int
) -> None:
    found = script.alike(characters, hidden, ("lstm", "gru") if hidden >= 50 else ("lstm",))
    sizes = [nf.Network(cell, characters, h, characters).size for cell, h in found.items()]
    assert all(abs(size / sizes[0] - 1) <= 0.01 for size in sizes)
    assert abs(found["tanh"] - hidden) <= max(0.1 * hidden, 12)


def test_a_run_writes_store_table_picture_and_bits_beside_those_of_frequencies(
    script: Any, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(script, text, "--out", str(out)) == 0
    said = " ".join(capsys.readouterr().out.split())
    for words in ("LSTM + clipping", "each by its frequency", "clip+omega less lstm", "Learning rates: 6 runs of 40"):
        assert words in said
    assert (out / "language.png").read_bytes().startswith(b"\x89PNG")
    found = json.loads((out / "language.json").read_text())
    assert found["options"]["text"] == "input.txt"
    assert str(tmp_path) not in (out / "language.json").read_text().replace(str(out), "")
    rows = rows_of(out)
    assert collections.Counter(row["method"] for row in rows) == dict.fromkeys(script.Options.methods, 2 + 2)
    for method, of in found["methods"].items():
        mine = [row for row in rows if row["method"] == method and row["seed"] < script.TUNING]
        assert [row["seed"] for row in mine] == [0, 1]
        assert {row["lr"] for row in mine} == {of["lr"]}
        assert of["bits"]["test"]["value"] == near(np.mean([row["bits"]["test"] for row in mine]))
    characters = text.read_text()
    train, test = characters[: round(len(characters) * 0.9)], characters[round(len(characters) * 0.95) :]
    counts = collections.Counter(train)
    whole = len(train) + len(set(characters))
    bits = [-math.log2((counts[character] + 1) / whole) for character in test]
    assert found["by_frequency"]["test"] == near(np.mean(bits), "float64", 1, len(bits))
    assert not (out / "language.jsonl.runs").exists(), "no checkpoint of a finished run is left"
    assert run(script, text, "--out", str(out)) == 0
    assert rows_of(out) == rows, "nothing is run twice"
    assert run(script, text, "--out", str(out), "--seeds", "3") == 0
    assert len(rows_of(out)) == len(rows) + 3, "another seed of each method"


def test_what_is_reported_is_the_last_network_on_each_part(script: Any, text: Path, tmp_path: Path) -> None:
    options = script.Options(text, hidden=12, length=8, batch_size=3, budget=0.0016, out=tmp_path)
    parts = script.read(options)
    (tmp_path / "language.jsonl.runs").mkdir()
    (job,) = script.jobs(options, parts, [4], {"clip+omega": [0.01]})
    row = script.learn(job, Cut(10**9))
    one = script.experiment(options, parts, "clip+omega", 0.01)
    theta = nf.train(one.net, one.theta(4), one.task, one.recipe, replica_ids=[4]).theta
    assert row["bits"]["validation"] == row["evaluations"]["score"][-1]
    # The test part in one stream, step by step.
    tokens = parts.test.tokens
    if tokens.size < 2 * 200:
        y = nf.predict(one.net, theta, tokens[:-1, None])[:, 0].astype(np.float64)
        nats = np.logaddexp.reduce(y, axis=1) - y[np.arange(tokens.size - 1), tokens[1:]]
        assert row["bits"]["test"] == near(nats.mean() / math.log(2), "float32", tokens.size, 12)
    else:
        pytest.fail("the text is too long to be read in one stream")


def test_a_folder_is_read_as_one_text(script: Any, text: Path, tmp_path: Path) -> None:
    folder, characters = tmp_path / "folder", text.read_text()
    folder.mkdir()
    for k, part in enumerate((characters[:500], characters[500:])):
        (folder / f"part{k}.txt").write_text(part)
    one, other = script.read(script.Options(text)), script.read(script.Options(folder))
    assert [part.tokens.tolist() for part in one] == [part.tokens.tolist() for part in other]


def test_only_one_method_has_omega_and_all_are_clipped(script: Any, text: Path) -> None:
    options = script.Options(text, hidden=12)
    parts = script.read(options)
    methods = ("sgd", "clip", "clip+omega", "lstm")
    recipes = {method: script.experiment(options, parts, method, 0.01).recipe for method in methods}
    assert {method: recipe.flow is not None for method, recipe in recipes.items()} == {
        "sgd": False, "clip": False, "clip+omega": True, "lstm": False}  # fmt: skip
    assert recipes.pop("sgd").clip is None
    assert {recipe.clip for recipe in recipes.values()} == {nf.Clip("norm", 1.0)}
    assert len({recipe.max_updates for recipe in recipes.values()}) == 1


def test_the_learning_rate_of_the_lowest_mean_on_validation_is_chosen(script: Any) -> None:
    def row(method: str, lr: float, validation: float) -> dict[str, Any]:
        return {"method": method, "lr": lr, "bits": {"train": 0.0, "validation": validation, "test": -validation}}

    rows = [row("clip", 0.1, 1.0), row("clip", 0.1, 4.0), row("clip", 0.2, 2.0), row("clip", 0.2, 2.5),
            row("clip", 0.3, math.nan), row("lstm", 0.1, 3.0), row("lstm", 0.4, 2.9)]  # fmt: skip
    assert script.choose(rows) == {"clip": 0.2, "lstm": 0.4}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"value": 0.10, "low": 0.05, "high": 0.15, "alike": False}, "worse"),
        ({"value": -0.1, "low": -0.15, "high": -0.05, "alike": False}, "better"),
        ({"value": 0.1, "low": -0.1, "high": 0.3, "alike": False}, "can't tell"),
        ({"value": 0.0, "low": -0.01, "high": 0.01, "alike": True}, "alike within 0.02"),
    ],
)
def test_a_difference_is_called_what_its_interval_shows(script: Any, text: Path, values: Any, words: str) -> None:
    assert script.sentence(script.Options(text), "a less b", values).endswith(words)


@pytest.mark.parametrize("method", ["clip+omega", "lstm"])
def test_a_training_that_was_cut_off_ends_in_the_same_bits(
    script: Any, text: Path, tmp_path: Path, method: str
) -> None:
    found = []
    for cuts in ((), (10, 25)):
        out = tmp_path / f"cuts{len(cuts)}"
        options = script.Options(text, hidden=12, length=8, batch_size=3, budget=0.0016, out=out)
        (out / "language.jsonl.runs").mkdir(parents=True)
        (job,) = script.jobs(options, script.read(options), [0], {method: [0.01]})
        for cut in cuts:
            assert script.learn(job, Cut(cut)) is None
        row = script.learn(job, Cut(10**9))
        found.append({name: row[name] for name in ("theta_sha256", "bits", "evaluations", "updates")})
    assert found[0] == found[1]


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_ctrl_c_keeps_what_was_done_and_the_same_command_goes_on(text: Path, tmp_path: Path) -> None:
    command = [sys.executable, SCRIPTS / "language.py", "--text", text, *TINY, "--budget", "0.004",
               "--out", tmp_path / "out"]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        store, deadline = tmp_path / "out" / "language.jsonl", time.monotonic() + 300
        while not store.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.001)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=300)
    assert_stopped(process.returncode, said, f"what was done is kept in {store}", "The same command goes on.")
    before = rows_of(tmp_path / "out")
    assert 1 <= len(before) < 12
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    after = rows_of(tmp_path / "out")
    assert after[: len(before)] == before
    assert len(after) == 12


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        (["--seeds", "0"], "seeds is 0; expected"),
        (["--budget", "nan"], "budget is nan; expected"),
        (["--batch-size", "0"], "batch_size is 0; expected"),
        (["--parts", "0.9", "0.2", "0.1"], "add up to 1"),
        (["--text", "nowhere.txt"], "nowhere.txt"),
        (["--length", "100000"], "length is 100000"),
    ],
)
def test_a_wrong_option_is_one_clear_error(
    script: Any, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: list[str], found: str
) -> None:
    assert_refused(script, ["--text", str(text), *TINY, *wrong, "--out", str(tmp_path / "new")], found, capsys)


def test_with_carry_windows_follow_each_other_and_runs_are_others(script: Any, text: Path, tmp_path: Path) -> None:
    options = script.Options(text, hidden=12, length=8, batch_size=3, budget=0.0016)
    parts = script.read(options)
    plain, carried = (
        script.experiment(dataclasses.replace(options, carry=carry), parts, "lstm", 0.01) for carry in (False, True)
    )
    assert (plain.recipe.carry, carried.recipe.carry) == (False, True)
    assert dataclasses.replace(carried.recipe, carry=False) == plain.recipe
    assert key_of(plain, 0, "code") != key_of(carried, 0, "code")
    run = nf.train(carried.net, carried.theta(0), carried.task, carried.recipe)
    assert run.evaluations["score"][-1] < carried.task.trivial().score


PENN = ["--methods", "sgd", "clip", "clip+omega", "--cell", "sigmoid", "--init", "sigmoid", "--no-biases",
        "--optimizer", "sgd", "--lrs", "0.05", "--cost", "sum", "--threshold", "45", "--alpha", "1", "--alpha-decay",
        "--carry", "--halve-after", "1"]  # fmt: skip


def test_the_setting_of_the_penn_treebank_is_a_matter_of_options(
    script: Any, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(script, text, *PENN, "--out", str(tmp_path)) == 0
    said = " ".join(capsys.readouterr().out.split())
    for words in ("sigmoid + clipping + Omega", "the clip acted on", "clip less sgd"):
        assert words in said
    assert "LSTM" not in said
    assert "Learning rates" not in said, "there is nothing to choose"
    rows = rows_of(tmp_path)
    assert collections.Counter(row["method"] for row in rows) == dict.fromkeys(("sgd", "clip", "clip+omega"), 2)
    for row in rows:
        assert row["n_hidden"] == 12
        assert row["parameters"] == 12 * 12 + 2 * 12 * len(set(text.read_text())), "without biases"
        assert (row["init"], row["recipe.carry"]) == ("sigmoid", True)


def test_without_biases_none_is_trained_or_counted(script: Any, text: Path) -> None:
    options = script.Options(text, hidden=12, length=8, batch_size=3, budget=0.0016, biases=False, carry=True)
    one = script.experiment(options, script.read(options), "clip", 0.01)
    run = nf.train(one.net, one.theta(0), one.task, one.recipe)
    before, after = (nf.unpack(one.net, theta) for theta in (one.theta(0), run.theta))
    assert not after.bias.any()
    assert not after.b_out.any()
    assert (before.w_rec != after.w_rec).any()
    assert script.parameters(one) == one.net.size - after.bias.size - after.bias_rec.size - after.b_out.size


def test_a_summed_cost_is_the_mean_times_the_steps(script: Any, text: Path) -> None:
    options = script.Options(text, hidden=12, length=8, batch_size=3, carry=True)
    parts = script.read(options)
    mean, summed = (
        script.experiment(dataclasses.replace(options, cost=cost), parts, "clip", 0.01) for cost in ("mean", "sum")
    )
    theta = mean.theta(0)
    for kind in ("drawn", "streams"):
        batches = []
        for one in (mean, summed):
            if kind == "drawn":
                batches.append(one.task.sample(seed=0, index=3, batch_size=3, length=8))
            else:
                room = one.task.empty(1, 8, 3, "float32")
                batch = nf.Batch(*(part[0] for part in room))
                one.task.streams(3).write(batch, np.arange(3), np.full(3, 16), np.full(3, 8))
                batches.append(batch)
        first, other = (nf.gradient(mean.net, theta, batch) for batch in batches)
        assert other.loss == near(8 * first.loss, "float32", 24)
        assert np.allclose(other.d_theta, 8 * first.d_theta, rtol=within("float32", 24, 8), atol=within("float32", 24))
    assert nf.evaluate(mean.net, theta, summed.task) == nf.evaluate(mean.net, theta, mean.task), "in bits all the same"
    assert key_of(mean, 0, "code") != key_of(summed, 0, "code")


def test_alpha_falls_and_rates_are_halved_by_evaluations(script: Any, text: Path) -> None:
    options = script.Options(text, hidden=12, budget=0.04, evaluations=5, alpha=2.0, alpha_decay=True, halve_after=2)
    recipe = script.experiment(options, script.read(options), "clip+omega", 0.01).recipe
    assert [recipe.flow.alpha(update) for update in (0, 199, 200, 400, 999)] == [2.0, 2.0, 1.0, 2.0 / 3, 2.0 / 5]
    assert (recipe.lr, recipe.evaluate_every) == (nf.HalvingRate(0.01, patience=2), 200)


def test_methods_are_given_once(script: Any, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for wrong, found in ((["--methods", "clip", "clip"], "methods is clip clip"), (["--methods"], "methods is empty")):
        assert_refused(script, ["--text", str(text), *TINY, *wrong, "--out", str(tmp_path / "new")], found, capsys)
