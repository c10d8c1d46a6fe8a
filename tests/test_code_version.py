"""Claims about what runs are known by: other code, another version; the same code in other words, the same one."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import nbflow as nf
from nbflow import _sources
from nbflow.experiments import code_version

PACKAGE = Path(nf.__file__).parent
REACHED = sorted(code_version.reached(_sources.read()))


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A copy of the package, which `version` reads."""
    shutil.copytree(PACKAGE, tmp_path / "nbflow", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code_version, "read", lambda: _sources.read(root=tmp_path / "nbflow"))
    return tmp_path / "nbflow"


def version():
    return code_version.code_version.__wrapped__()


def test_the_version_is_that_of_the_code_wherever_it_stands(root):
    assert version() == code_version.code_version()
    assert version().startswith(f"{nf.__version__}+")


def test_an_edit_of_any_file_that_a_training_can_reach_is_another_version(root):
    seen = {version()}
    for name in REACHED:
        with open(root / name, "a") as file:
            file.write("\nmore = 1\n")
        assert version() not in seen, name
        seen.add(version())


def test_a_number_a_name_or_an_order_that_changes_is_another_version(root):
    place, seen = root / "training" / "_window.py", {version()}
    for text in ("a = 1", "a = 1.0", "a = 2", "b = 2", "a = 1; b = 2", "b = 2; a = 1", "def f(): pass", "f = None",
                 "a = [[], 1]", "a = [1, []]", "a = 'x'", "a = b'x'", "'x'\na = b'x'\n'y'"):  # fmt: skip
        place.write_text(text)
        assert version() not in seen, text
        seen.add(version())


def test_a_new_file_of_a_package_that_is_loaded_by_name_is_another_version(root):
    now = version()
    (root / "cells" / "new.py").write_text("CELL = 3")
    assert version() != now


def test_another_numba_is_another_version(root, monkeypatch):
    now = version()
    monkeypatch.setattr(code_version.numba, "__version__", "0.0.0")
    assert version() != now


def test_comments_docstrings_and_line_breaks_cost_nobody_their_runs(root):
    now = version()
    for name in REACHED:
        text = (root / name).read_text()
        tree = ast.parse(text)
        for node in ast.walk(tree):
            if isinstance(node, _sources._DOCUMENTED) and ast.get_docstring(node) is not None:
                node.body[0].value.value = "In other words."
        text = "\r\n".join(["# A comment.", *ast.unparse(tree).splitlines(), ""])
        (root / name).write_bytes(text.encode())
    assert version() == now


def test_what_no_training_reaches_costs_nobody_their_runs(root):
    now = version()
    for name in ("plot.py", "_progress.py", "experiments/sweep.py", "storage/store.py", "storage/_journal.py",
                 "cuda/training.py", "cuda/clip.py", "diagnostics/lags.py"):  # fmt: skip
        (root / name).write_text("1")
    assert version() == now


def test_a_package_without_sources_has_no_version_and_a_sweep_asks_for_a_name(root):
    (root / "cells" / "tanh.py").rename(root / "cells" / "tanh.pyc")
    with pytest.raises(RuntimeError, match=r"no source files here; .* code='...'"):
        version()
    (root / "cells" / "tanh.pyc").unlink()
    assert version()
    for file in root.rglob("*.py"):
        file.unlink()
    with pytest.raises(RuntimeError, match="no source files here"):
        version()


def test_an_edit_in_a_zip_is_another_version(root, monkeypatch, tmp_path):
    def zipped():
        place = shutil.make_archive(str(tmp_path / "packed"), "zip", root)
        monkeypatch.setattr(code_version, "read", lambda: _sources.read(root=zipfile.Path(place)))
        return version()

    now = version()
    assert zipped() == now
    (root / "cells" / "tanh.py").write_text("1")
    assert zipped() != now


TRAININGS = """
import json, math, pathlib, sys, tempfile, numpy as np, nbflow as nf
from concurrent.futures import ThreadPoolExecutor
from nbflow import data
recipe = nf.Recipe(lengths=10, max_updates=2, evaluate_every=1, evaluate_size=2, clip=nf.Clip("norm", 0.1))
base = nf.Experiment("temporal_order", recipe, n_hidden=3)
text = data.Text(np.arange(400, dtype=np.int32) % 5, tuple("abcde"))
rolls = data.PianoRolls(*[[np.eye(88, dtype=np.uint8)[39:51]]] * 3)
several = [
    *nf.grid(base, {"task": [text.task(held_out=0.2), rolls.task(), "addition"], "init": ["orthogonal"]}),
    *nf.grid(base, {"recipe.flow": [None, *(nf.Flow(name, 1.0) for name in nf.names("flows"))]}),
    *nf.grid(base, {"recipe.clip": [None, nf.Clip("value", nf.load_threshold("zscore"))]}),
    *nf.grid(base, {"recipe.clip_example": [0.1]}),
    *nf.grid(base, {"recipe.clip_hidden": [nf.HiddenClip(0.1)]}),
    *nf.grid(base, {"recipe.clip_microbatch": [(5, 0.1)]}),
    *nf.grid(base, {"cell": ["lstm"], "recipe.h_detach": [nf.HDetach(0.5)], "recipe.optimizer": ["momentum"]}),
    *nf.grid(base, {"recipe.lr": [math.exp]}),
]
with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as executor:
    done = nf.sweep(several, 1, pathlib.Path(folder, "runs.jsonl"), executor=executor, progress=False)
files = [module.__file__ for name, module in sorted(sys.modules.items()) if name.startswith("nbflow.")]
print(json.dumps([files, len(done.runs), [row["failure"] for row in done.failed]]))
"""
# What the sweep around the runs needs, and whoever looks at them.
SWEEP = {
    *(f"{name}.py" for name in ("_legible", "_progress", "_disk_cache", "_identity", "_sources")),
    *(f"experiments/{name}.py" for name in ("code_version", "machine", "_driver", "_pool", "sweep", "warm_up")),
    *(f"storage/{name}.py" for name in ("_files", "_index", "_journal", "_lines", "_parquet", "_rows", "store")),
    "gradients/gradient.py",  # of which a sweep compiles what it needs, and a training uses a helper
}


def test_every_file_that_trainings_load_is_one_of_those(tmp_path):
    (tmp_path / "trainings.py").write_text(TRAININGS)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")])}
    said = subprocess.run([sys.executable, tmp_path / "trainings.py"], env=environment, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    files, runs, failures = json.loads(said.stdout.splitlines()[-1])
    loaded = {Path(file).relative_to(PACKAGE).as_posix() for file in files}
    assert len(loaded) > 80, f"{runs} runs, failures: {failures}"
    assert not failures
    assert {name for name in loaded if not name.endswith("__init__.py")} - SWEEP <= set(REACHED)
