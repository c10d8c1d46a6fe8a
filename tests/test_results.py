"""Claims about docs/results.md: its tables are what the stores in results/ say, and its networks do what it says."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripted import SCRIPTS, assert_help, fixture_of, load
from tolerance import near, printed

import nbflow as nf

ROOT = SCRIPTS.parent
PAGE = ROOT / "docs/results.md"
STORES = sorted(path.name.removesuffix(".jsonl.xz") for path in (ROOT / "results").glob("*.jsonl.xz"))
# Of 10,000 sequences so many may be told otherwise by another processor, which rounds otherwise.
FEW = 10_000 * printed(3)

script = fixture_of("results")


@pytest.fixture(scope="module")
def stores() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        return load(patch, "results_stores").Stores(ROOT / "results")


def test_every_table_between_marks_is_what_the_stores_say(script: Any, stores: Any) -> None:
    text = PAGE.read_text(encoding="utf-8")
    made = script.tables.made_of(stores)
    assert set(script.named(text)) == set(made)
    now, before = (dict(script.MARKED.findall(one)) for one in (script.written(text, made), text))
    assert [name for name in now if now[name] != before[name]] == [], "run make results"


def test_a_number_that_was_changed_by_hand_is_found(script: Any, stores: Any) -> None:
    text = PAGE.read_text(encoding="utf-8")
    made = {name: lambda: "| 1 |" for name in script.named(text)}
    assert script.written(text, made) != text


def test_marks_of_no_table_are_refused(script: Any) -> None:
    with pytest.raises(ValueError, match=r"marks of nonsense; expected some of span"):
        script.written("<!-- nonsense -->\n\n<!-- /nonsense -->", {"span": str})


def test_every_picture_of_a_store_stands_in_the_page_and_is_drawn(script: Any, stores: Any, tmp_path: Path) -> None:
    drawn = script.pictures.drawn_of(stores)
    text = PAGE.read_text(encoding="utf-8")
    assert {name for name in drawn if f"](images/{name}.png)" not in text} == set()
    for name in ("reach_span", "reach_figure_7", "generalization", "language", "overflow", "lengths", "clip_bias",
                 "clip_bias_who", "language_sizes", "table_1", "random_steps"):  # fmt: skip
        if name in drawn:
            assert script.save(drawn[name](), tmp_path / f"{name}.png").stat().st_size > 10_000


def test_every_store_is_named_where_stores_are_explained() -> None:
    text = (ROOT / "results/README.md").read_text(encoding="utf-8")
    assert [name for name in STORES if not re.search(rf"\b{name.partition('.')[0]}\b", text)] == []


NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")
# Sections whose sentences are held against their tables, and the designs that fix what else is a number in them.
# The first table of the page, of all claims, counts too.
HELD = {"1, 7. Are the ways to clip equivalent?": "Design: the ways to clip beside each other (claims 1 and 7)"}


def sections(path: Path) -> dict[str, str]:
    """Return what stands under each heading of the second order."""
    parts = re.split(r"^## (.*)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def sentences(script: Any, text: str) -> str:
    """Return a section without its tables, commands, pictures, code and places of links."""
    for what in (script.MARKED, r"(?s)```.*?```", r"!\[.*?\]\(.*?\)", r"\]\(.*?\)", r"`.*?`"):
        text = re.sub(what, "", text)
    return text


@pytest.mark.parametrize("title", HELD)
def test_what_a_sentence_says_of_a_number_stands_in_a_table_or_in_the_design(script: Any, title: str) -> None:
    section, design = sections(PAGE)[title], sections(ROOT / "docs/methods.md")[HELD[title]]
    tables = [*script.MARKED.findall(section), script.MARKED.search(PAGE.read_text(encoding="utf-8")).groups()]
    known = set(NUMBER.findall(" ".join([*(table for _, table in tables), design, title])))
    said = NUMBER.findall(sentences(script, section))
    assert len(said) > 10
    assert [number for number in said if number not in known] == []


def test_nothing_in_the_page_is_left_to_be_filled_in() -> None:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    assert [k for k, line in enumerate(lines, 1) if "TODO" in line] == []


def networks(stores: Any, monkeypatch: Any) -> list[tuple[Any, Any]]:
    """Return the trained networks of scripts/lengths.py with their measurements at the paper's positions."""
    if "lengths" not in stores:
        pytest.skip("there is no such store yet")
    measured = [row for row in stores.of("lengths", "measurement") if row["measured"] == "paper"]
    return [(row, {one["length"]: one["wrong"] for one in measured
                   if all(one[name] == row[name] for name in ("place", "method", "seed"))})
            for row in stores.of("lengths", "training")]  # fmt: skip


def test_a_network_without_an_error_at_any_length_reloads_and_makes_none(stores: Any, monkeypatch: Any) -> None:
    lengths = load(monkeypatch, "lengths")
    clean = [row for row, wrong in networks(stores, monkeypatch) if len(wrong) == 11 and not any(wrong.values())]
    assert clean, "one at least stands in the store"
    theta = lengths.theta_of(clean[0]["theta"])
    for length in (50, 200, 1000):
        wrong = lengths.wrong_at(clean[0]["n_hidden"], theta, "temporal_order", length, 2_000, clean[0]["seed"])
        assert wrong <= FEW / 5


def test_the_network_of_the_authors_protocol_reloads_and_makes_no_error(stores: Any, monkeypatch: Any) -> None:
    lengths = load(monkeypatch, "lengths")
    measured = stores.of("generalization_200", "measurement")
    clean = [row for row in stores.of("generalization_200", "training")
             if not any(one["wrong"] for one in measured if one["seed"] == row["seed"])]  # fmt: skip
    assert [row["seed"] for row in clean] == [0]
    theta = lengths.theta_of(clean[0]["theta"])
    assert lengths.wrong_at(50, theta, "temporal_order", 1000, 2_000, 7) <= FEW / 5


def test_networks_that_learnt_long_sequences_reload_and_make_their_documented_errors(
    stores: Any, monkeypatch: Any
) -> None:
    runs, theta_of = load(monkeypatch, "reach_runs"), load(monkeypatch, "generalization").theta_of
    rows = [row for row in stores.of("reach", "run") if "theta" in row and row["first_passage"] is not None]
    kept = {(row["cell"], row["init"], row["flow"], row["length"]): row for row in rows if row["threshold"] == 0.15}
    assert {length for cell, *_, length in kept if cell == "tanh"} >= {50, 100, 150, 200}
    task = nf.load_task("temporal_order")
    for (cell, _, _, length), row in kept.items():
        net = nf.Network(cell, task.n_in, row["n_hidden"], task.n_out, loss=task.loss)
        score = nf.evaluate(net, theta_of(row["theta"]), task, length=length, size=row["of"],
                            seed=runs.FINAL_SEED + row["seed"])  # fmt: skip
        assert abs(round(score * row["of"]) - row["wrong"]) <= FEW
        assert row["wrong"] < 0.02 * row["of"]


def test_networks_of_every_arm_reload_and_make_their_documented_errors(stores: Any, monkeypatch: Any) -> None:
    lengths = load(monkeypatch, "lengths")
    for row, wrong in networks(stores, monkeypatch):
        if row["seed"] == 0:
            theta = lengths.theta_of(row["theta"])
            found = lengths.wrong_at(row["n_hidden"], theta, "temporal_order", 100, 10_000, 0)
            assert abs(found - wrong[100]) <= FEW


def test_what_is_in_the_store_of_lengths_is_found_by_todays_code(stores: Any, monkeypatch: Any, tmp_path: Path) -> None:
    """Else the same command would train all of it once more beside it."""
    lengths = load(monkeypatch, "lengths")
    options = lengths.Options(out=tmp_path)
    trained = [row for row, _ in networks(stores, monkeypatch)]
    assert len({(row["place"], row["method"], row["seed"]) for row in trained}) == len(trained)
    for row in trained:
        assert lengths.training(options, row["place"], row["method"], row["seed"]).key == row["key"]
    wanted = {job.key for row in trained for job in lengths.measurements(options, row)}
    rows = [row for kind in ("measurement", "stretched", "points") for row in stores.of("lengths", kind)]
    assert wanted == {row["key"] for row in rows}


def test_networks_in_overflow_reload_and_overflow(stores: Any, monkeypatch: Any) -> None:
    if "overflow" not in stores:
        pytest.skip("there is no such store yet")
    overflow = load(monkeypatch, "overflow")
    net, task = overflow.Options().net, nf.load_task(overflow.TASK)
    rows = [row for row in stores.of("overflow", "training") if row["ended"] is not None]
    finite = 0
    for row in rows[::20]:
        theta = overflow.theta_of(row["theta"])
        batch = task.sample(seed=row["seed"], index=row["ended"], batch_size=20, length=row["length"])
        finite += bool(np.isfinite(nf.gradient(net, theta, batch).d_theta).all())
    # One at the very brink may be finite where sums are taken in another order.
    assert finite <= len(rows[::20]) // 4


def test_networks_of_clip_bias_reload_and_have_their_documented_errors_and_gradients(
    stores: Any, monkeypatch: Any
) -> None:
    theta_of, task = load(monkeypatch, "generalization").theta_of, nf.load_task("temporal_order")
    rows = stores.of("clip_bias", "network")
    for row in [row for row in rows if row["on"] == "temporal order"][:2]:
        net = nf.Network("tanh", task.n_in, 50, task.n_out)
        for moment in row["moments"]:
            theta, how = theta_of(moment["theta"]), {"seed": row["seed"], "length": 50}
            assert hashlib.sha256(theta.astype("<f4").tobytes()).hexdigest() == moment["sha256"]
            wrong = nf.evaluate(net, theta, task, size=2000, **how)
            assert abs(wrong - moment["reached"]) * 2000 <= FEW
            batches = [task.sample(index=k, batch_size=20, stream="evaluation", **how) for k in range(300)]
            space = nf.workspace(net, batches[0])
            true = sum(nf.gradient(net, theta, one, workspace=space).d_theta.astype(float) for one in batches) / 300
            assert moment["true_norm"] == near(float(np.linalg.norm(true)), "float32", 50, 6000)
    first = next(row for row in rows if row["on"] == "piano rolls" and row["seed"] == 0)["moments"][0]
    net = nf.Network("tanh", 88, 100, 88, loss="bernoulli")
    assert theta_of(first["theta"]).size == net.size


def test_help_teaches() -> None:
    assert_help("results.py", "docs/results.md", "--check")


def test_sections_of_stores_that_are_not_there_yet_say_nothing(stores: Any, monkeypatch: Any) -> None:
    tables = load(monkeypatch, "results_tables")
    for name in ("language_sizes", "table_1", "random_steps"):
        if name not in stores:
            assert tables.made_of(stores)[name]() == ""
            assert name not in load(monkeypatch, "results_pictures").drawn_of(stores)
