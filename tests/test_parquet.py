"""Claims about stores as Parquet: every run, every value to the bit, typed columns, and few runs in memory."""

from __future__ import annotations

import json
import math
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import pytest

import nbflow as nf
from nbflow.storage import _parquet


def test_without_pyarrow_it_is_refused_by_name_and_nothing_is_written(tmp_path, monkeypatch):
    nf.Store(tmp_path / "runs.jsonl").add([{"key": "a"}])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"to_parquet needs pyarrow.*pip install 'nbflow\[parquet\]'"):
        nf.Store(tmp_path / "runs.jsonl").to_parquet(tmp_path / "runs.parquet")
    assert not (tmp_path / "runs.parquet").exists()


@pytest.mark.parametrize(
    "values, kind",
    [
        ([], ""),
        ([None, None], ""),
        ([True, None], "bool"),
        ([1, None, -3], "int"),
        ([1, 2.5, None], "float"),
        ([math.inf, 1], "float"),
        ([2**53 + 1, 1], "long"),
        ([2**53 + 1, 0.5], "text"),  # which no float64 holds
        ([2**63], "text"),
        ([True, 1], "text"),
        (["a", None], "text"),
        (["a", 0.5], "text"),
        ([[1, 2], [], None], "list of int"),
        ([[1, 2], [0.5, None]], "list of float"),
        ([[2**53 + 1], [1]], "list of long"),
        ([["a"], [None]], "list of text"),
        ([[], []], "list of "),
        ([[1], ["a"]], "text"),
        ([[1, "a"]], "text"),
        ([[True], [1]], "text"),
        ([[1], 1], "text"),
        ([[[1]]], "text"),
        ([[{"a": 1}]], "text"),
    ],
)
def test_a_column_has_the_narrowest_type_that_loses_nothing(values, kind):
    assert _parquet._column({_parquet._kind(value) for value in values}) == kind


def test_two_parts_of_one_name_are_refused(tmp_path):
    pytest.importorskip("pyarrow")
    store = nf.Store(tmp_path / "runs.jsonl")
    store.add([{"key": "a", "loss": {"last": 1.0}, "loss.last": 2.0}])
    with pytest.raises(ValueError, match=r"run a has two parts called loss\.last"):
        store.to_parquet(tmp_path / "runs.parquet")
    assert [place.name for place in tmp_path.iterdir() if "parquet" in place.name] == []
    assert store.to_parquet(tmp_path / "runs.parquet", drop=["loss"]) == 1


@pytest.mark.parametrize("path", [3, None, "", "."])
def test_a_path_that_is_none_is_refused(tmp_path, path):
    with pytest.raises((TypeError, ValueError), match=r"path is .*expected a"):
        nf.Store(tmp_path / "runs.jsonl").to_parquet(path)


def test_the_store_itself_and_a_bare_name_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = nf.Store(tmp_path / "runs.jsonl")
    store.add([{"key": "a"}])
    with pytest.raises(ValueError, match=r"path is 'runs.jsonl', the store itself; expected another file"):
        store.to_parquet("runs.jsonl")
    with pytest.raises(TypeError, match="drop is 'history', a text; expected a collection of names"):
        store.to_parquet("runs.parquet", drop="history")
    assert list(store) == [{"key": "a"}]


# --- With pyarrow.


@pytest.fixture
def parquet():
    return pytest.importorskip("pyarrow.parquet")


ROWS = [
    {"key": "a", "seed": 0, "recipe.lr": 0.1, "recipe.clip": None, "failure": None, "stays_below": True,
     "score": 1 / 3, "evaluations": {"update": [1, 2], "score": [1 / 7, math.inf]}, "history": {"loss": [1, 2.5]}},
    {"key": "b", "seed": 1, "recipe.lr": "halving(by=2)", "recipe.clip": "Clip(rule=norm)", "failure": None,
     "stays_below": False, "score": None, "evaluations": {"update": [], "score": []},
     "history": {"loss": [-0.0, 5e-324]}},
    {"key": "c", "seed": 2, "recipe.lr": 1e-5, "failure": "ValueError: Ω"},
]  # fmt: skip


def test_every_value_comes_back_to_the_bit_under_its_dotted_name(tmp_path, parquet):
    store = nf.Store(tmp_path / "runs.jsonl")
    store.add(ROWS)
    assert store.to_parquet(tmp_path / "runs.parquet") == 3
    found = parquet.read_table(tmp_path / "runs.parquet").to_pylist()
    assert [list(row) for row in found[:1]] == [
        ["key", "seed", "recipe.lr", "recipe.clip", "failure", "stays_below", "score", "evaluations.update",
         "evaluations.score", "history.loss"],
    ]  # fmt: skip
    assert [row["recipe.lr"] for row in found] == ["0.1", "halving(by=2)", "1e-05"]
    assert [row["recipe.clip"] for row in found] == [None, "Clip(rule=norm)", None]
    assert [row["failure"] for row in found] == [None, None, "ValueError: Ω"]
    assert [row["stays_below"] for row in found] == [True, False, None]
    assert [row["score"] for row in found] == [1 / 3, None, None]
    assert [row["evaluations.score"] for row in found] == [[1 / 7, math.inf], [], None]
    assert [row["evaluations.update"] for row in found] == [[1, 2], [], None]
    assert [row["history.loss"] for row in found] == [[1.0, 2.5], [-0.0, 5e-324], None]
    assert math.copysign(1, found[1]["history.loss"][0]) == -1


def test_pieces_are_written_one_by_one_and_hold_what_one_would(tmp_path, parquet, monkeypatch):
    store = nf.Store(tmp_path / "runs.jsonl")
    store.add({"key": f"{k}", "value": k, "list": [k] * (k % 5), "odd": k if k % 7 else "seven"} for k in range(200))
    store.to_parquet(tmp_path / "one.parquet")
    monkeypatch.setattr(_parquet, "AT_A_TIME", 20)
    store.to_parquet(tmp_path / "many.parquet")
    assert parquet.ParquetFile(tmp_path / "many.parquet").num_row_groups > 20
    one, many = (parquet.read_table(tmp_path / f"{name}.parquet") for name in ("one", "many"))
    assert one.equals(many)
    assert many.column("key").to_pylist() == [f"{k}" for k in range(200)]
    assert many.column("odd").to_pylist()[:2] == ["seven", "1"]


def test_memory_does_not_grow_with_the_store(tmp_path, parquet, monkeypatch):
    monkeypatch.setattr(_parquet, "AT_A_TIME", 2**14)
    store = nf.Store(tmp_path / "runs.jsonl")
    most = []
    for part in range(2):
        store.add(
            {"key": f"{part}-{k}", "history": {"loss": [k + j / 3 for j in range(1000)]}}
            for k in range(300 + 900 * part)
        )
        tracemalloc.start()
        store.to_parquet(tmp_path / "runs.parquet")
        most.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert most[1] < 1.3 * most[0]


def test_an_empty_store_is_an_empty_table(tmp_path, parquet):
    assert nf.Store(tmp_path / "runs.jsonl").to_parquet(tmp_path / "runs.parquet") == 0
    assert parquet.read_table(tmp_path / "runs.parquet").num_rows == 0


def test_a_file_that_cannot_be_written_leaves_the_one_before(tmp_path, parquet, monkeypatch):
    store = nf.Store(tmp_path / "runs.jsonl")
    store.add(ROWS)
    store.to_parquet(tmp_path / "runs.parquet")
    before = (tmp_path / "runs.parquet").read_bytes()
    monkeypatch.setattr(_parquet, "_as", lambda kind, value: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        store.to_parquet(tmp_path / "runs.parquet")
    assert (tmp_path / "runs.parquet").read_bytes() == before
    assert sorted(place.name for place in tmp_path.iterdir()) == ["runs.jsonl", "runs.jsonl.lock", "runs.parquet"]


def test_pandas_reads_a_sweep_with_types_and_groups_it(tmp_path, parquet):
    pandas = pytest.importorskip("pandas")
    recipe = nf.Recipe(
        lr=0.1, batch_size=3, lengths=10, max_updates=4, record_every=2, evaluate_every=2, evaluate_size=5
    )
    grid = nf.grid(nf.Experiment("temporal_order", recipe, n_hidden=4), {
        "recipe.lr": [0.01, 0.1], "recipe.clip": [None, nf.Clip("norm", 1.0), nf.Clip("value", 0.1)],
    })  # fmt: skip
    with ThreadPoolExecutor(1) as executor:
        swept = nf.sweep(grid, 2, tmp_path / "runs.jsonl", executor=executor, progress=False)
    nf.Store(tmp_path / "runs.jsonl").to_parquet(tmp_path / "runs.parquet")
    frame = pandas.read_parquet(tmp_path / "runs.parquet").set_index("key")
    assert len(frame) == len(swept.runs) == 12
    for row in swept.runs:
        found = frame.loc[row["key"]]
        for name in ("seed", "recipe.lr", "score", "loss", "seconds", "updates", "theta_sha256", "stays_below"):
            assert found[name] == row[name], name
        for name, values in row["history"].items():
            assert json.dumps(found[f"history.{name}"].tolist()) == json.dumps(values), name
    assert frame["score"].dtype == frame["recipe.lr"].dtype == "float64"
    assert frame["seed"].dtype == frame["updates"].dtype == "int64"
    assert frame["stays_below"].dtype == bool
    assert frame.groupby("recipe.clip", dropna=False).size().tolist() == [4, 4, 4]
