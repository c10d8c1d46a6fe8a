"""scripts/clip_bias.py: what it keeps, says and refuses, on tiny networks."""

from __future__ import annotations

import base64
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import CLIPS
from scripted import assert_help, assert_refused, assert_stopped, fixture_of, load, read, write_tunes
from tolerance import near, within

import nbflow as nf

TINY = ["--networks", "2", "--moments", "5", "15", "--length", "10", "--hidden", "6", "--batch-size", "4",
        "--group", "2", "--minibatches", "10", "--resamples", "20", "--part", "0.9", "--roll-hidden", "5",
        "--roll-updates", "3", "--roll-batch-size", "2"]  # fmt: skip

script = fixture_of("clip_bias")


@pytest.fixture
def tunes(tmp_path: Path) -> Path:
    return write_tunes(tmp_path / "short.json")


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "clip_bias.jsonl").read_text().splitlines()]


def test_help_teaches_every_option() -> None:
    assert_help("clip_bias.py", "Usage:", "--data", "--minibatches", "Intervals are over networks")


def test_a_run_keeps_networks_and_writes_numbers_and_two_pictures_and_goes_on_where_it_was(
    script: Any, tunes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert script.main([*TINY, "--data", str(tunes), "--out", str(out)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for words in ("each example", "The parts of the claim", "Whose gradient counts for less", "piano rolls, 3 updates"):
        assert words in said
    assert "left out" not in said
    for name in ("clip_bias.png", "clip_bias_who.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    assert read(out / "clip_bias.json")["options"]["data"] == "short.json"
    rows = rows_of(out)
    assert [(row["on"], row["seed"]) for row in rows] == [
        (on, seed) for on in ("temporal order", "piano rolls") for seed in (0, 1)]  # fmt: skip
    assert [[moment["updates"] for moment in row["moments"]] for row in rows] == [[5, 15], [5, 15], [3], [3]]
    kept = [[moment["theta"] is not None for moment in row["moments"]] for row in rows]
    assert kept == [[True, True], [True, True], [True], [False]], "of piano rolls those of the first network"
    for row in rows:
        for moment in row["moments"]:
            assert_measured(moment)
    assert script.main([*TINY, "--data", str(tunes), "--out", str(out)]) == 0
    assert rows_of(out) == rows, "nothing is run twice"


def assert_measured(moment: dict[str, Any]) -> None:
    assert sum(moment["examples"]) == 10 * moment["batch_size"]
    assert sum(part or 0 for part in moment["share"]) == near(1, "float32")
    assert {"norm", "value", "each unit", "each example", "groups of 2"} <= set(moment["ways"])
    # All ways shorten gradients alike: that is what makes them comparable.
    search = 4 * 1e-4  # where the search for thresholds ends, in log2 of them
    assert all(way["strength"] == pytest.approx(0.9, abs=search) for way in moment["ways"].values())
    averages = moment["averages"]
    assert np.shape(averages["cosine"]) == (len(averages["sizes"]), len(averages["thresholds"]))
    assert averages["norm_ratio"][0][-1] == near(1, "float32", 1, 200)


def test_what_is_measured_is_the_network_in_the_store(script: Any, tmp_path: Path) -> None:
    """Its parameters give the numbers again, by arithmetic that does not know of the script's."""
    assert script.main([*TINY, "--out", str(tmp_path)]) == 0
    moment = rows_of(tmp_path)[1]["moments"][1]
    task = nf.load_task("temporal_order")
    net, theta = nf.Network("tanh", 6, 6, 4), theta_of(moment["theta"])
    batches = [task.sample(seed=1, index=k, batch_size=4, length=10, stream="evaluation") for k in range(10)]
    rows = np.array([nf.gradient(net, theta, batch).d_theta for batch in batches], float)
    true = rows.mean(axis=0)
    assert moment["true_norm"] == near(float(np.linalg.norm(true)), "float32", 10, 100)
    # The average of clipped gradients against the clipped average, at the norm of the true gradient.
    limit = np.linalg.norm(true)
    average = (rows * np.minimum(1, limit / np.linalg.norm(rows, axis=1))[:, None]).mean(axis=0)
    setting = script.reporting.Setting("temporal order", 15, [moment])
    wanted = np.linalg.norm(average - true) / limit
    assert script.reporting.apart(setting)[0] == pytest.approx(wanted, abs=within("float32", 10, 1000))
    # What is kept of whom, by a clip of the whole minibatch: one factor for each.
    factors = np.minimum(1, moment["ways"]["norm"]["threshold"] / np.linalg.norm(rows, axis=1))
    norms = np.array([
        [np.linalg.norm(nf.gradient(net, theta, alone(batch, b)).d_theta) for b in range(4)] for batch in batches
    ])  # fmt: skip
    large = norms >= np.sort(norms.ravel())[-2]
    beside = large.any(axis=1)[:, None] & ~large
    for kind, those in enumerate((large, beside, ~(large | beside))):
        part = np.broadcast_to(factors[:, None], those.shape)[those].mean()
        assert moment["ways"]["norm"]["kept"][kind] == near(float(part), "float32", 10, 1000)


def theta_of(text: str) -> Any:
    return np.frombuffer(base64.b64decode(text), "<f4")


def alone(batch: Any, b: int) -> Any:
    """Return an example of a minibatch as a minibatch of its own, whose loss is a mean over one."""
    inputs, targets, weights = (np.ascontiguousarray(part[:, b : b + 1]) for part in batch)
    return nf.Batch(inputs, targets, weights * batch.weights.shape[1])


def test_networks_are_those_of_descent(script: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert script.main([*TINY, "--out", str(tmp_path)]) == 0
    descent = load(monkeypatch, "descent")
    small = ["--networks", "2", "--moments", "15", "--length", "10", "--hidden", "6", "--batch-size", "4",
             "--minibatches", "4", "--of-true", "1", "--true-size", "10"]  # fmt: skip
    assert descent.main([*small, "--out", str(tmp_path)]) == 0
    others = [json.loads(line) for line in (tmp_path / "descent.jsonl").read_text().splitlines()]
    assert [row["moments"][-1]["theta"] for row in rows_of(tmp_path)] == [row["theta"] for row in others]


def seen(distance: float, large: float, beside: float) -> dict[str, Any]:
    """Return what would be seen of a network with these parts of the claim; the other examples keep .8."""
    way = {"kept": [0.8 * large, 0.8 * beside, 0.8], "cosine": [0.999, 0.99, 1.0]}
    averages = {"sizes": [1, 4], "thresholds": [0.1, 1.0, 10.0], "cosine": [[1.0] * 3] * 2,
                "norm_ratio": [[1.0] * 3, [1.0, 1 - distance, 1.0]]}  # fmt: skip
    return {"updates": 5, "batch_size": 4, "ways": {"norm": way, "value": {**way, "cosine": [None] * 3}},
            "averages": averages}  # fmt: skip


def rows(*networks: tuple[float, float, float]) -> list[dict[str, Any]]:
    return [{"on": "temporal order", "seed": seed, "moments": [seen(*one)]} for seed, one in enumerate(networks)]


@pytest.mark.parametrize(
    ("networks", "said"),
    [
        ([(0.3, 0.6, 0.7), (0.32, 0.62, 0.72), (0.31, 0.61, 0.71)], "holds"),
        ([(0.3, 0.6, 1.0), (0.32, 0.62, 1.01), (0.31, 0.61, 1.0)], "doesn't hold"),
        ([(0.01, 0.6, 0.7), (0.02, 0.62, 0.72), (0.01, 0.61, 0.71)], "doesn't hold"),
        ([(0.3, 0.5, 0.7), (0.32, 1.1, 0.72), (0.31, 0.9, 0.71)], "can't tell: its parts hold in 2 of 3"),
    ],
)
def test_the_verdict_is_that_of_the_design(script: Any, networks: Any, said: str) -> None:
    reporting = script.reporting
    every = reporting.settings(rows(*networks))
    assert reporting.verdict(every) == said
    assert reporting.judged(reporting.PARTS[0], every[0])[0].value == near(
        np.mean([one[0] for one in networks]), size=1
    )
    geometric = math.exp(np.mean([math.log(one[1]) for one in networks]))
    assert reporting.judged(reporting.PARTS[1], every[0])[0].value == near(geometric)
    assert reporting.judged(reporting.PARTS[3], every[0])[1] == "holds"
    assert reporting.told(every[0], "value", "cosine", 3) == "noise"


def test_the_distance_is_that_of_the_two_vectors(script: Any) -> None:
    a, b = np.array([0.5, 0.2, -0.1]), np.array([1.0, -0.3, 0.4])
    cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    averages = {"cosine": [[cosine]], "norm_ratio": [[np.linalg.norm(a) / np.linalg.norm(b)]]}
    assert script.reporting.distances(averages)[0, 0] == near(np.linalg.norm(a - b) / np.linalg.norm(b))


def test_without_a_file_of_piano_rolls_that_part_is_left_out_and_said_to_be(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main([*TINY, "--out", str(tmp_path)]) == 0
    assert "Piano rolls are left out: no --data." in capsys.readouterr().out
    assert {row["on"] for row in rows_of(tmp_path)} == {"temporal order"}


def test_a_way_that_cannot_shorten_so_far_is_left_out_and_said_to_be(script: Any, tmp_path: Path) -> None:
    assert script.main([*TINY, "--part", "0.01", "--out", str(tmp_path)]) == 0
    found = rows_of(tmp_path)
    assert "inside, state norm" not in found[0]["moments"][1]["ways"]
    early, late = script.reporting.settings(found[:1])
    assert script.reporting.told(late, "inside, state norm", "cosine", 3) == "cannot shorten so far"
    assert len(script.reporting.numbers(early, "norm", "cosine")) == 1


def test_a_new_rule_is_measured_as_soon_as_its_file_is_there(script: Any) -> None:
    """Under its own name, unless it remembers: the bias is that of minibatches that know nothing of each other."""
    ways = script.ways(script.Options())
    assert ways["smoothed"].rule == "smoothed"
    assert {how.rule for how in ways.values() if isinstance(how, script.nf.Clip)} == set(CLIPS)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--moments", "10", "5"], "moments is (10, 5); expected rising"),
        (["--moments"], "moments is empty"),
        (["--networks", "1"], "networks is 1; expected at least 2"),
        (["--group", "3"], "group is 3; expected a divisor of batch_size, 4"),
        (["--part", "1.5"], "part is 1.5"),
        (["--large", "0"], "large is 0"),
        (["--data", "nowhere.json"], "nowhere.json"),
    ],
)
def test_a_setting_that_makes_no_sense_is_one_clear_line(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert_refused(script, [*TINY, *arguments, "--out", str(tmp_path / "new")], words, capsys)


def test_more_pieces_in_a_minibatch_than_there_are_is_refused(
    script: Any, tunes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--roll-batch-size", "6", "--data", str(tunes), "--out", str(tmp_path / "new")]
    assert_refused(script, [*TINY, *arguments], "roll_batch_size is 6; expected at most 5", capsys)


def test_ctrl_c_keeps_the_networks_that_were_done(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = script.measure

    def interrupt(options: Any, stage: Any, network: int, show: Any) -> Any:
        if network == 1:
            raise KeyboardInterrupt
        return measure(options, stage, network, show)

    monkeypatch.setattr(script, "measure", interrupt)
    code = script.main([*TINY, "--out", str(tmp_path)])
    assert_stopped(code, capsys.readouterr().out, "clip_bias.json", "clip_bias_who.png", "clip_bias.jsonl")
    assert [row["seed"] for row in rows_of(tmp_path)] == [0]
    monkeypatch.setattr(script, "temporal_order", interrupt_at_once)
    assert script.main([*TINY, "--out", str(tmp_path / "new")]) == 130
    assert not (tmp_path / "new").exists()


def interrupt_at_once(*arguments: Any) -> Any:
    raise KeyboardInterrupt
