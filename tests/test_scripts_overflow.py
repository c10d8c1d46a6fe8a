"""scripts/overflow.py: what it keeps of trainings that came to an end, and what it counts of each policy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripted import assert_help, assert_refused, fixture_of

import nbflow as nf

TINY = ["--networks", "2", "--length", "30", "--hidden", "6", "--batch-size", "3", "--updates", "25",
        "--most-updates", "400", "--cell", "relu"]  # fmt: skip
script = fixture_of("overflow")


@pytest.fixture(autouse=True)
def wild(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "RATES", {"sgd": (1e30, 1e34), "adam": (1e30, 1e34)})


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "overflow.jsonl").read_text().splitlines()]


def test_help_teaches() -> None:
    assert_help("overflow.py", "where the gradient is Inf or NaN", "--networks", "Ctrl-C")


def test_every_policy_goes_on_from_every_training_that_came_to_an_end(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main([*TINY, "--out", str(tmp_path)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for words in ("Networks with finite gradients in the last updates", "Random steps less another policy", "picture:"):
        assert words in said
    rows = rows_of(tmp_path)
    ended = [row for row in rows if row["kind"] == "training" and row["ended"] is not None]
    outcomes = [row for row in rows if row["kind"] == "outcome"]
    assert len(ended) == 4
    assert len(outcomes) == 4 * 2 * len(script.POLICIES)
    for row in ended:  # the parameters before the end are finite, and the next gradient is not
        theta = script.theta_of(row["theta"])
        net = nf.Network("relu", 6, 6, 4)
        batch = nf.load_task("temporal_order").sample(seed=row["seed"], index=row["ended"], batch_size=3, length=30)
        assert not np.isfinite(nf.gradient(net, theta, batch).d_theta).all()
    for row in outcomes:
        if row["policy"] == "raise":
            assert (row["updates"], row["back"]) == (0, False)
        else:
            assert row["updates"] == 25
            assert row["bad"] >= 1
    before = (tmp_path / "overflow.jsonl").read_text()
    assert script.main([*TINY, "--out", str(tmp_path)]) == 0
    assert (tmp_path / "overflow.jsonl").read_text() == before, "nothing is run twice"


def outcome(policy: str, back: bool, seed: int, loss: float = 1.0) -> dict[str, Any]:
    return {"optimizer": "sgd", "lr": 1.0, "with_lr": 1.0, "seed": seed, "policy": policy, "back": back, "loss": loss}


def test_policies_are_compared_over_the_same_networks(script: Any) -> None:
    rows = [outcome("random", seed < 9, seed) for seed in range(10)]
    rows += [outcome("skip", seed == 9, seed) for seed in range(10)]
    rows += [outcome(policy, seed < 9, seed) for policy in ("zero", "shrink", "keep", "raise") for seed in range(10)]
    by_policy = {row["policy"]: row for row in script.reporting.compared(rows)}
    assert (by_policy["skip"]["gained"], by_policy["skip"]["lost"]) == (9, 1)
    assert by_policy["skip"]["p"] == 2 * (1 + 10) / 2**10
    assert by_policy["skip"]["adjusted"] == 5 * by_policy["skip"]["p"]
    assert by_policy["zero"]["p"] == 1
    assert script.reporting.verdict(rows).startswith("can't tell")
    many = [outcome(policy, policy == "random", seed) for policy in script.POLICIES for seed in range(20)]
    assert script.reporting.verdict(many) == "holds in 1 of 1 settings"
    none = [outcome(policy, True, seed) for policy in script.POLICIES for seed in range(20)]
    assert script.reporting.verdict(none).startswith("doesn't hold")
    assert script.reporting.well([outcome("skip", True, 0, 5.0), outcome("skip", True, 1)], ("sgd", "own"), "skip") == 1


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        (["--updates", "3"], "updates is 3; expected at least 10"),
        (["--length", "3"], "length is 3; expected at least 10"),
        (["--optimizers"], "optimizers is empty"),
        (["--networks", "0"], "networks is 0"),
    ],
)
def test_a_wrong_option_is_one_clear_error(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: list[str], found: str
) -> None:
    assert_refused(script, [*TINY, *wrong, "--out", str(tmp_path / "new")], found, capsys)
