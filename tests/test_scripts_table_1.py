"""scripts/table_1.py: what it trains, keeps, measures and says, on networks of a few units."""

from __future__ import annotations

import itertools
import json
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripted import Cut, assert_help, assert_legible, assert_refused, fixture_of, load, write_tunes
from tolerance import by_chance, near

import nbflow as nf
from nbflow.data import read_piano_rolls
from nbflow.storage.compact import compact

PIECES = {"train": (7, 5, 4), "valid": (6, 3), "test": (3, 8, 4)}
TINY = ["--hidden", "6", "--length", "5", "--max-epochs", "3", "--tuning-epochs", "2", "--seeds", "2", "--lrs", "0.1",
        "0.2", "0.4"]  # fmt: skip

script = fixture_of("table_1")


@pytest.fixture
def tunes(tmp_path: Path) -> Path:
    return write_tunes(tmp_path / "museum.json", PIECES)


@pytest.fixture(autouse=True)
def few(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script.tuning, "MOST", 3)


def run(script: Any, tunes: Path, *arguments: str) -> int:
    with ThreadPoolExecutor(1) as executor:
        return int(script.main(["--data", str(tunes), *TINY, *arguments], executor))


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "table_1.jsonl").read_text().splitlines()]


def test_help_teaches() -> None:
    assert_help("table_1.py", "Table 1 of Pascanu", "--hidden 400", "MuseData", "--report-only", "Ctrl-C")


def test_a_run_writes_store_tables_and_picture_and_goes_on_where_it_was(
    script: Any, tunes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = load(monkeypatch, "music_published")
    monkeypatch.setitem(module.PUBLISHED, tuple(map(len, PIECES.values())), module.PUBLISHED[87, 12, 25])
    out = tmp_path / "out"
    assert run(script, tunes, "--out", str(out)) == 0
    said = " ".join(capsys.readouterr().out.split())
    for words in ("Piano-midi.de (museum.json)", "Nats per frame", "Expected accuracy", "7.46", "6.87", "NOT met",
                  "updates"):  # fmt: skip
        assert words in said
    rows = rows_of(out)
    final = [row for row in rows if row["seed"] < script.TUNING]
    assert [(row["seed"], row["column"]) for row in final] == [*itertools.product((0, 1), script.COLUMNS)]
    assert len(rows) == 3 * 3 + len(final)
    assert all(row["data"] == "Piano-midi.de" and row["processor"] and row["code"] for row in rows)
    for column in script.COLUMNS:
        valid = {row["lr"]: row["valid"] for row in rows if row["column"] == column and row["seed"] == script.TUNING}
        assert len(valid) == 3
        assert {row["lr"] for row in final if row["column"] == column} == {min(valid, key=lambda lr: valid[lr])}
    assert [row["seed"] for row in rows if row["theta"]] == [0]
    (kept,) = [row for row in rows if row["theta"]]
    net = nf.Network("sigmoid", 88, 6, 88, loss="bernoulli")
    rolls, theta = read_piano_rolls(tunes), script.theta_of(kept["theta"])
    assert kept["nats"]["test"] == nf.evaluate(net, theta, rolls.task("test"))
    assert kept["accuracy"]["test"] == near(slow_accuracy(net, theta, rolls.test), "float32", 10, 88)
    assert all(0 <= row["clipped_updates"] <= row["updates"] for row in final)
    assert (out / "table_1.png").read_bytes().startswith(b"\x89PNG")
    assert run(script, tunes, "--out", str(out), "--report-only") == 0
    assert "from the store again" in capsys.readouterr().out
    compact(out / "table_1.jsonl")
    stores = load(monkeypatch, "results_stores").Stores(out)
    section = load(monkeypatch, "results_tables").made_of(stores)["table_1"]()
    for words in ("### Table 1", "| Piano-midi.de | SGD, clipping, Omega |", "is NOT met", "images/table_1.png"):
        assert words in section
    assert "table_1" in load(monkeypatch, "results_pictures").drawn_of(stores)
    assert run(script, tunes, "--out", str(out), "--seeds", "3") == 0
    more = rows_of(out)
    assert more[: len(rows)] == rows, "nothing is run twice"
    assert [row["seed"] for row in more[len(rows) :]] == [2, 2, 2]


def slow_accuracy(net: nf.Network, theta: Any, pieces: Any) -> float:
    """Return the expected accuracy, note by note."""
    both, either = 0.0, 0.0
    for piece in pieces:
        before = np.concatenate([np.zeros((1, 88)), piece[:-1]])[:, None].astype(np.float32)
        y = nf.predict(net, theta, before)[:, 0].astype(np.float64)
        for logit, v in zip(y.ravel(), piece.ravel(), strict=True):
            p = 1 / (1 + math.exp(-logit))
            both += p * v
            either += p + v - p * v
    return both / either


def test_the_expected_accuracy_is_the_mean_over_frames_drawn_from_the_model(
    monkeypatch: pytest.MonkeyPatch, tunes: Path
) -> None:
    expected_accuracy = load(monkeypatch, "music_accuracy").expected_accuracy
    net = nf.Network("sigmoid", 88, 6, 88, loss="bernoulli")
    theta, pieces = nf.init(net, "glorot", rng=3) * 3, read_piano_rolls(tunes).train
    rng, draws, seen = np.random.default_rng(0), 400, []
    chances = [nf.predict(net, theta, np.concatenate([np.zeros((1, 88)), piece[:-1]])[:, None].astype(np.float32))[:, 0]
               for piece in pieces]  # fmt: skip
    truth = np.concatenate(pieces).astype(bool)
    p = 1 / (1 + np.exp(-np.concatenate(chances).astype(np.float64)))
    for _ in range(draws):
        drawn = rng.random(p.shape) < p
        seen.append((drawn & truth).sum() / (drawn | truth).sum())
    assert abs(np.mean(seen) - expected_accuracy(net, theta, pieces)) < by_chance(draws, float(np.std(seen)))
    assert expected_accuracy(net, theta, pieces) == near(slow_accuracy(net, theta, pieces), "float32", 10, 88)


def test_where_nothing_sounds_there_is_no_accuracy(monkeypatch: pytest.MonkeyPatch) -> None:
    net = nf.Network("sigmoid", 88, 3, 88, loss="bernoulli")
    theta = nf.init(net, "sigmoid", rng=0)
    nf.unpack(net, theta).b_out[...] = -1e9
    assert math.isnan(load(monkeypatch, "music_accuracy").expected_accuracy(net, theta, [np.zeros((3, 88))]))


def options_of(script: Any, tunes: Path, **more: Any) -> Any:
    small = {"hidden": 6, "length": 5, "max_epochs": 5, "lrs": (0.3,), "out": Path("nowhere"), **more}
    return script.Options((tunes,), **small)


@pytest.mark.parametrize("column", ["plain", "clip+omega"])
def test_a_training_that_was_cut_off_ends_in_the_same_bits(
    script: Any, tunes: Path, tmp_path: Path, column: str
) -> None:
    found = []
    for cuts in ((), (5, 9)):
        options = options_of(script, tunes, out=tmp_path / f"cuts{len(cuts)}", threshold=0.5)
        (options.out / "table_1.jsonl.runs").mkdir(parents=True)
        job = script.training(options, tunes, column, 0.3, 0)
        for cut in cuts:
            assert script.learn(job, Cut(cut)) is None
        row = script.learn(job, Cut(10**9))
        found.append({name: row[name] for name in ("nats", "accuracy", "evaluations", "updates", "theta", "clipped")})
    assert found[0] == found[1]
    assert found[0]["updates"] == 5 * 4


def test_a_pass_has_every_subsequence_once_and_each_batch_follows_from_its_number(script: Any, tunes: Path) -> None:
    pieces = read_piano_rolls(tunes).train
    passes = [script.Passes(pieces, "x", 1, 5, "float32", 3) for _ in range(2)]
    assert passes[0].in_a_pass == 4
    in_order = [passes[0](update) for update in range(8)]
    for epoch in (in_order[:4], in_order[4:]):
        seen = sorted(batch.targets[:, 0].astype(np.uint8).tobytes() for batch in epoch)
        assert seen == sorted(cut.tobytes() for piece in pieces for cut in (piece[:5], piece[5:]) if len(cut))
    for update in (6, 1, 7, 4, 5, 0):
        for one, other in zip(passes[1](update), in_order[update], strict=True):
            assert np.array_equal(one, other)


def test_columns_leave_out_what_they_say_and_nothing_else(script: Any, tunes: Path) -> None:
    options = options_of(script, tunes)
    recipes = {column: script.recipe_of(options.music(column, 0.3, 0), 4) for column in script.COLUMNS}
    clips = {column: recipe.clip.threshold for column, recipe in recipes.items()}
    assert clips == {"plain": math.inf, "clip": 8.0, "clip+omega": 8.0}
    assert [recipe.flow is None for recipe in recipes.values()] == [True, True, False]
    flow = recipes["clip+omega"].flow
    assert [flow.alpha(update) for update in (0, 3, 4, 8)] == [0.5, 0.5, 0.25, 0.5 / 3]
    assert {recipe.lr for recipe in recipes.values()} == {nf.HalvingRate(0.3, patience=3)}
    keys = {script.training(options, tunes, column, 0.3, seed).key for column in script.COLUMNS for seed in (0, 1)}
    assert len(keys) == 6


def test_what_a_column_has_not_does_not_change_what_its_runs_are_known_by(script: Any, tunes: Path) -> None:
    one, other = options_of(script, tunes), options_of(script, tunes, alpha=1.0, threshold=4.0)
    keys = [[script.training(options, tunes, column, 0.3, 0).key for column in script.COLUMNS]
            for options in (one, other)]  # fmt: skip
    assert [a == b for a, b in zip(*keys, strict=True)] == [True, False, False]


def test_a_single_learning_rate_is_taken_as_it_is(script: Any, tunes: Path, tmp_path: Path) -> None:
    assert run(script, tunes, "--out", str(tmp_path), "--lrs", "0.3", "--columns", "clip", "--seeds", "1") == 0
    assert [(row["lr"], row["seed"]) for row in rows_of(tmp_path)] == [(0.3, 0)]


def test_rates_beyond_an_end_are_tried_until_the_best_stands_between_others(
    script: Any, tunes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script.tuning, "MOST", 9)

    def trained(job: Any, watch: Any) -> dict[str, Any]:
        _, _, column, lr, seed = job.what
        return {"kind": "run", "column": column, "lr": lr, "seed": seed, "valid": abs(math.log2(lr / 0.05))}

    monkeypatch.setattr(script, "learn", trained)
    options = options_of(script, tunes, lrs=(0.2, 0.4), columns=("clip",), out=tmp_path)
    found = script.Found()
    with ThreadPoolExecutor(1) as executor:
        chosen = script.tune(options, tunes, script.Console(quiet=True), executor, found)
    assert chosen == {"clip": 0.05}
    assert sorted(row["lr"] for row in found.tuned) == [0.025, 0.05, 0.1, 0.2, 0.4]


def row(column: str, seed: int, test: float | None, **more: Any) -> dict[str, Any]:
    nats = {} if test is None else {"train": test - 1, "valid": test, "test": test}
    return {"data": "Nottingham", "column": column, "seed": seed, "nats": nats, "accuracy": {}, "lr": 1.0, "epochs": 9,
            "best_epoch": 3, "core_seconds": 60.0, "updates": 100, "clipped_updates": 7, "setting": {"rule": "norm"},
            "evaluations": {"epoch": [1, 2], "valid": [5.0, 4.0], "train": [5.0, 4.0]}, **more}  # fmt: skip


@pytest.mark.parametrize(("test", "words"), [(3.36, "met or beaten"), (3.364, "met or beaten"), (3.37, "is NOT met")])
def test_the_published_value_is_met_or_not(script: Any, test: float, words: str) -> None:
    (said,) = script.reporting.verdicts([row("clip+omega", seed, test) for seed in range(3)])
    assert words in said
    assert "3.36" in said


def test_a_run_that_diverged_is_said_and_drawn_as_such(script: Any, tmp_path: Path) -> None:
    rows = [row("plain", 0, 3.9), row("plain", 1, None), row("clip", 0, 3.5), row("clip", 1, 3.6)]
    table = script.reporting.of_nats(rows)
    cells = [cell for column in table.columns for cell in column.cells]
    assert "1 of 2 diverged" in cells
    assert "14 of 200 updates" in cells
    assert script.reporting.differences(rows) == []
    assert_legible(script.reporting.picture(rows))


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        (["--seeds", "0"], "seeds is 0"),
        (["--hidden", "0"], "hidden is 0"),
        (["--columns"], "columns is empty"),
        (["--columns", "clip", "clip"], "columns is clip clip"),
        (["--lrs", "-1"], "lrs is -1"),
        (["--threshold", "nan"], "threshold is nan"),
        (["--workers", "0"], "workers is 0"),
        (["--report-only"], "report_only asks for"),
        (["--data", "nowhere.mat"], "nowhere.mat"),
    ],
)
def test_a_wrong_option_is_one_clear_error(
    script: Any, tunes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: list[str], found: str
) -> None:
    arguments = ["--data", str(tunes), *TINY, *wrong, "--out", str(tmp_path / "new")]
    assert_refused(script, arguments, found, capsys)
