"""scripts/language_sizes.py: what it trains, keeps and says, on networks of a few units."""

from __future__ import annotations

import itertools
import json
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripted import Cut, assert_help, assert_legible, assert_refused, fixture_of, load
from tolerance import near

import nbflow as nf
from nbflow.storage.compact import compact

TINY = ["--sizes", "800", "400", "--batch-size", "2", "--length", "10", "--lrs", "0.002", "0.01", "0.05",
        "--seeds", "2", "--parts", "0.8", "0.1", "0.1"]  # fmt: skip

script = fixture_of("language_sizes")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    words = np.random.default_rng(0).choice(["to be ", "or not ", "that is\n", "the question: "], size=400)
    path = tmp_path / "input.txt"
    path.write_text("".join(words))
    return path


@pytest.fixture(autouse=True)
def few(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script.tuning, "MOST", 3)


def run(script: Any, text: Path, *arguments: str) -> int:
    with ThreadPoolExecutor(1) as executor:
        return int(script.main(["--texts", str(text), *TINY, *arguments], executor))


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "language_sizes.jsonl").read_text().splitlines()]


def test_help_teaches() -> None:
    assert_help("language_sizes.py", "no character is seen twice", "--report-only", "Ctrl-C", "twentieths")


def test_a_run_writes_store_tables_and_picture_and_goes_on_where_it_was(
    script: Any, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert run(script, text, "--out", str(out)) == 0
    said = " ".join(capsys.readouterr().out.split())
    for words in ("Bits per character after one pass", "tanh + Omega less LSTM", "Learning rates", "can't tell"):
        assert words in said
    rows = rows_of(out)
    assert len(rows) == 2 * 4 * (3 + 2)
    assert [row["size"] for row in rows] == [400] * 20 + [800] * 20, "the smallest size first"
    final = [row for row in rows if row["seed"] < script.TUNING]
    assert [row["seed"] for row in final] == [0] * 4 + [1] * 4 + [0] * 4 + [1] * 4, "seed by seed"
    train = len(text.read_text()) * 0.8
    for row in rows:
        assert abs(row["parameters"] / row["size"] - 1) < 0.1
        assert row["characters"] <= train, "no character is seen twice"
        assert row["per_parameter"] == row["characters"] / row["parameters"]
        assert len(row["evaluations"]["score"]) == script.EVALUATIONS
        assert row["bits"]["validation"] == row["evaluations"]["score"][-1]
        assert row["seed"] or row["bits"]["validation"] < row["evaluations"]["score"][0], "of the rate that was chosen"
        assert 0 <= row["clipped"] <= 1
    for method in ("clip", "lstm"):
        tried = {row["lr"]: row["bits"]["validation"] for row in rows if row["size"] == 400
                 and row["method"] == method and row["seed"] == script.TUNING}  # fmt: skip
        mine = {row["lr"] for row in final if row["size"] == 400 and row["method"] == method}
        assert mine == {min(tried, key=lambda lr: tried[lr])}
    assert (out / "language_sizes.png").read_bytes().startswith(b"\x89PNG")
    assert run(script, text, "--out", str(out), "--report-only") == 0
    again = [line for line in capsys.readouterr().out.splitlines() if "from the store again" in line]
    assert len(again) == 8
    for line in again:
        now, before = line.split(": ")[1].split(" bits on test, ")
        assert now == before.split()[0]
    compact(out / "language_sizes.jsonl")
    stores = load(monkeypatch, "results_stores").Stores(out)
    section = load(monkeypatch, "results_tables").made_of(stores)["language_sizes"]()
    for words in ("### What size", "| input.txt |", "tanh + Omega less LSTM", "images/language_sizes.png"):
        assert words in section
    assert "language_sizes" in load(monkeypatch, "results_pictures").drawn_of(stores)
    assert run(script, text, "--out", str(out), "--seeds", "3") == 0
    more = rows_of(out)
    assert more[: len(rows)] == rows, "nothing is run twice"
    assert {row["seed"] for row in more[len(rows) :]} == {2}


def options_of(script: Any, text: Path, **more: Any) -> Any:
    small = {"batch_size": 2, "length": 10, "sizes": (400,), "parts": (0.8, 0.1, 0.1), "out": Path("nowhere"), **more}
    return script.Options((text,), **small)


@pytest.mark.parametrize("method", ["clip+omega", "gru"])
def test_a_training_that_was_cut_off_ends_in_the_same_bits(
    script: Any, text: Path, tmp_path: Path, method: str
) -> None:
    found = []
    for cuts in ((), (20, 65)):
        options = options_of(script, text, out=tmp_path / f"cuts{len(cuts)}")
        (options.out / "language_sizes.jsonl.runs").mkdir(parents=True)
        job = script.training(options, script.Cell(text, 400), method, 0.01, 0)
        for cut in cuts:
            assert script.learn(job, Cut(cut)) is None
        row = script.learn(job, Cut(10**9))
        found.append({name: row[name] for name in ("bits", "evaluations", "updates", "theta", "clipped")})
    assert found[0] == found[1]


def test_rates_fall_at_the_end_and_alpha_by_twentieths(script: Any, text: Path) -> None:
    options = options_of(script, text, alpha=1.0)
    one = script.experiment(options, script.Cell(text, 400), "clip+omega", 0.01)
    updates = one.recipe.max_updates
    assert updates % script.EVALUATIONS == 0
    assert [one.recipe.lr(update) for update in (0, updates // 2)] == [0.01, 0.01]
    assert one.recipe.lr(updates - updates // 10) == near(0.005, condition=10)
    assert 0 < one.recipe.lr(updates - 1) < 0.01 / (0.2 * updates) * 1.5
    every = updates // 20
    assert [one.recipe.flow.alpha(k * every) for k in range(3)] == [1.0, 0.5, 1 / 3]
    plain = script.experiment(options, script.Cell(text, 400), "clip", 0.01)
    assert plain.recipe.flow is None
    assert plain.recipe.clip == one.recipe.clip == nf.Clip("norm", 1.0)
    assert plain.recipe.carry


def test_sizes_are_as_near_as_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    training = load(monkeypatch, "language_training")
    for cell in ("tanh", "lstm", "gru"):
        for wanted in (300, 20_000, 400_000):
            h = training.hidden_of(cell, 63, wanted)
            sizes = [abs(training.size_of(cell, 63, one) - wanted) for one in (max(h - 1, 1), h, h + 1)]
            assert min(sizes) == sizes[1]


def row(text: str, size: int, method: str, seed: int, test: float, per: float = 50.0) -> dict[str, Any]:
    return {"text": text, "size": size, "method": method, "seed": seed, "per_parameter": per, "parameters": size,
            "bits": {"train": test, "validation": test, "test": test}}  # fmt: skip


@pytest.mark.parametrize(
    ("lead", "per", "words"),
    [(0.3, 50.0, "abundant: holds"), (-0.3, 50.0, "abundant: doesn't hold"), (0.0, 50.0, "abundant: doesn't hold"),
     (0.3, 5.0, "can't tell")],
)  # fmt: skip
def test_the_verdict_is_that_of_the_design(script: Any, lead: float, per: float, words: str) -> None:
    rows = [row("a.txt", size, method, seed, 2.0 + 0.001 * seed + (lead if method == "clip+omega" else 0), per)
            for size in (100, 200) for method in ("clip+omega", "lstm") for seed in range(3)]  # fmt: skip
    assert words in script.reporting.verdict(rows)


@pytest.mark.parametrize("sizes", [(20_000,), (20_000, 100_000, 400_000)], ids=len)
def test_the_picture_of_any_sizes_is_legible(script: Any, sizes: tuple[int, ...]) -> None:
    rows = []
    for text, size, method, seed in itertools.product("ab", sizes, ("clip", "clip+omega", "lstm", "gru"), range(2)):
        scores = [3 + 2 / k + seed / 10 - size / 1e6 for k in range(1, 11)]
        rows.append({"text": text, "size": size, "method": method, "seed": seed, "parameters": size + 100 * len(method),
                     "bits": {"test": scores[-1]}, "updates": 4860, "core_seconds": size / 2000,
                     "evaluations": {"update": list(range(486, 4861, 486)), "score": scores}})  # fmt: skip
    assert_legible(script.reporting.picture(rows))


def test_p_values_are_adjusted_by_holm_over_cells(script: Any) -> None:
    rng = np.random.default_rng(0)
    rows = [row("a.txt", size, method, seed, 2.0 + rng.normal(0, 0.01), 50.0)
            for size in (100, 200, 300) for method in ("clip+omega", "lstm") for seed in range(3)]  # fmt: skip
    from scipy.stats import ttest_ind

    seen = script.reporting.differences(rows)
    raw = []
    for size in (100, 200, 300):
        bits = [[one["bits"]["test"] for one in rows if (one["size"], one["method"]) == (size, method)]
                for method in ("clip+omega", "lstm")]  # fmt: skip
        raw.append(float(ttest_ind(*bits, equal_var=False).pvalue))
    order = np.argsort(raw)
    wanted = np.empty(3)
    wanted[order] = np.maximum.accumulate(np.minimum(np.array([3, 2, 1]) * np.array(raw)[order], 1))
    assert [one.p for one in seen] == near(list(wanted), condition=100)


def test_the_best_rate_ignores_what_is_not_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    tuning = load(monkeypatch, "tuning")
    monkeypatch.setattr(tuning, "MOST", 4)
    assert tuning.beyond([0.1, 0.2, 0.4, 0.8], 0.1) == [], "so many are enough"
    assert tuning.best([(0.1, math.nan), (0.2, 5.0)]) == 0.2
    assert tuning.beyond([0.1, 0.2, 0.4], 0.1) == [0.05]


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        (["--seeds", "0"], "seeds is 0"),
        (["--sizes"], "sizes is empty"),
        (["--sizes", "400", "400"], "sizes is 400 400"),
        (["--part", "1.5"], "part is 1.5; expected above 0 and at most 1"),
        (["--length", "3000"], "length is 3000"),
        (["--methods", "lstm", "lstm"], "methods is lstm lstm"),
        (["--alpha", "nan"], "alpha is nan"),
        (["--workers", "0"], "workers is 0"),
        (["--report-only"], "report_only asks for"),
        (["--texts", "nowhere.txt"], "nowhere.txt"),
    ],
)
def test_a_wrong_option_is_one_clear_error(
    script: Any, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: list[str], found: str
) -> None:
    arguments = ["--texts", str(text), *TINY, *wrong, "--out", str(tmp_path / "new")]
    assert_refused(script, arguments, found, capsys)
