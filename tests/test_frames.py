"""Claims about tables for pandas: tidy, all there, and refused by name where pandas is not."""

from __future__ import annotations

import doctest
import math
import re
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import nbflow as nf

NET = nf.Network("tanh", 6, 8, 4)
RECIPE = nf.Recipe(lengths=10, max_updates=20, record_every=5, evaluate_every=10, evaluate_size=40, batch_size=3)


@pytest.fixture(scope="module")
def pandas():
    return pytest.importorskip("pandas")


def trained(replicas=None, **named):
    theta = nf.init(NET, "smart_tanh", rng=0, replicas=replicas)
    return nf.train(NET, theta, "temporal_order", RECIPE, **named)


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    grid = nf.grid(nf.Experiment("temporal_order", RECIPE, n_hidden=8), {"recipe.lr": [0.01, 0.1]})
    store = tmp_path_factory.mktemp("sweep") / "runs.jsonl"
    with ThreadPoolExecutor(1) as executor:
        return nf.sweep(grid, 3, store, executor=executor, progress=False)


@pytest.mark.parametrize("table", ["history", "evaluations"])
def test_a_run_is_a_row_an_update(pandas, table):
    run = trained()
    frame = run.frame(table)
    assert isinstance(frame, pandas.DataFrame)
    assert {name: frame[name].tolist() for name in frame} == getattr(run, table)


@pytest.mark.parametrize("table", ["history", "evaluations"])
def test_a_run_of_replicas_is_a_row_an_update_and_replica(pandas, table):
    run = trained(3)
    frame, wanted = run.frame(table), getattr(run, table)
    assert list(frame) == ["replica", *wanted]
    for r in range(3):
        mine = frame[frame["replica"] == r]
        for name, column in wanted.items():
            assert mine[name].tolist() == [value[r] if isinstance(value, list) else value for value in column]
    assert frame["loss" if table == "history" else "score"].dtype == np.float64


def test_a_column_of_ones_own_is_a_column_and_one_that_does_not_fit_is_refused(pandas):
    def own(run):
        run.history.setdefault("largest", []).append(float(np.abs(run.theta).max()))
        run.history.setdefault("each", []).append(np.abs(run.theta).max(-1).tolist())

    assert trained(2, callbacks=[own]).frame()["largest"].notna().all()
    assert trained(2, callbacks=[own]).frame().groupby("replica")["each"].nunique().min() > 1
    run = trained()
    run.history["short"] = [1.0]
    with pytest.raises(ValueError, match="column 'short' has 1 rows; expected 4"):
        run.frame()


def test_a_run_without_evaluations_has_an_empty_table(pandas):
    run = nf.Run(np.zeros(3))
    assert list(run.frame("evaluations")) == ["update", "score"]
    assert len(run.frame("evaluations")) == len(run.frame()) == 0


def test_a_sweep_is_a_row_a_run(pandas, swept):
    frame = swept.frame()
    assert len(frame) == 6
    assert frame["score"].tolist() == [row["score"] for row in swept.runs]
    assert frame.groupby("recipe.lr")["seed"].nunique().tolist() == [3, 3]
    assert not {"history", "evaluations"} & set(frame)


@pytest.mark.parametrize("table", ["history", "evaluations"])
def test_of_a_sweep_each_update_is_a_row_with_what_tells_its_run_from_others(pandas, swept, table):
    frame = swept.frame(table)
    first = swept.runs[0][table]
    assert list(frame) == ["run", "seed", "recipe.lr", *first]
    for k, row in enumerate(swept.runs):
        mine = frame[frame["run"] == k]
        assert {name: mine[name].tolist() for name in first} == row[table]
        assert set(mine["seed"]) == {row["seed"]}
        assert set(mine["recipe.lr"]) == {row["recipe.lr"]}


def test_runs_that_failed_or_have_other_settings_have_rows_where_they_have_any(pandas, swept):
    failed = {"seed": 9, "task": "temporal_order", "failure": "ValueError: it"}
    frame = nf.Swept([*swept.runs, failed]).frame("evaluations")
    assert 6 not in set(frame["run"])
    assert "recipe.batch_size" in frame  # one run has none
    whole = nf.Swept([*swept.runs, failed]).frame()
    assert math.isnan(whole["score"].iloc[6])


def test_no_other_table_is_known(swept):
    for thing in (nf.Run(np.zeros(3)), swept):
        with pytest.raises(ValueError, match="table is 'losses'; expected one of history, evaluations"):
            thing.frame("losses")


def test_without_pandas_it_is_refused_by_name(monkeypatch, swept):
    monkeypatch.setitem(sys.modules, "pandas", None)
    for table in ((nf.Run(np.zeros(3)),), (swept,), (swept, "history")):
        with pytest.raises(ImportError, match=r"frame needs pandas, .* pip install 'nbflow\[frame\]'\."):
            table[0].frame(*table[1:])


@pytest.mark.parametrize("method", [nf.Run.frame, nf.Swept.frame])
def test_the_example_of_the_docstring_is_true(pandas, method):
    """It is skipped where pandas may not be there; here it is run, but for tables, which each version prints anew."""
    source = re.sub(r"^( *)(>>> [^\n]*(?:min|median)\(\)).*$", r"\1\2 is None\n\1False", method.__doc__, flags=re.M)
    source = source.replace("  # doctest: +SKIP", "")
    example = doctest.DocTestParser().get_doctest(source, {}, method.__qualname__, None, 0)
    assert doctest.DocTestRunner().run(example).failed == 0
    assert len(example.examples) > 5
