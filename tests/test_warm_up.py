"""Claims about compiling ahead, and about what is said while kernels are compiled."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import nbflow as nf
from nbflow._compile import JIT, unit

pytestmark = pytest.mark.skipif(not JIT, reason="nothing is compiled")
ROOT = Path(nf.__file__).parent.parent

HEAD = """
from numba.core import event
import nbflow as nf, numpy as np
passes = event.RecordingListener()
event.register("numba:run_pass", passes)
net = nf.Network("tanh", 3, 5, 2)
one = nf.Experiment("temporal_order", nf.Recipe(lengths=10, max_updates=2, evaluate_size=10, clip=nf.Clip("norm", 1.0)))
"""
GRADIENT = """
batch = nf.Batch(np.ones((4, 2, 3), "f4"), np.zeros((4, 2), "i4"), np.ones((4, 2), "f4"))
nf.clip(net, nf.gradient(net, nf.init(net, "glorot", rng=0), batch).d_theta, nf.Clip("norm", 0.1))
"""


def run(script: str, cache: Path, **own: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a process of its own with a cache of its own."""
    given = {k: v for k, v in os.environ.items() if k not in ("NBFLOW_QUIET", "PYTEST_CURRENT_TEST")}
    given |= {"PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": str(cache), "NUMBA_NUM_THREADS": "1", **own}
    done = subprocess.run([sys.executable, "-W", "error", "-c", textwrap.dedent(script)], env=given, text=True,
                          capture_output=True, timeout=300)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done


def test_a_first_compilation_says_once_where_kernels_are_kept_and_a_second_process_says_nothing(tmp_path):
    script = "from nbflow.cpu.product import build_product as b\nimport numpy as np\nb(np.float32)\nb(np.float64)"
    first = run(script, tmp_path).stderr.splitlines()
    assert len(first) == 1
    assert str(tmp_path) in first[0]
    assert "NBFLOW_QUIET" in first[0]
    assert run(script, tmp_path).stderr == ""


@pytest.mark.parametrize("how", ["told to be quiet", "in a pool"])
def test_who_is_told_to_be_quiet_and_workers_of_a_pool_say_nothing(tmp_path, how):
    script = "from nbflow.cpu.product import build_product as b\nimport numpy as np\nb(np.float32)"
    if how == "in a pool":
        script = f"import multiprocessing as m\nm.parent_process = lambda: m.current_process()\n{script}"
    done = run(script, tmp_path, **({"NBFLOW_QUIET": "1"} if how != "in a pool" else {}))
    assert done.stderr == ""
    assert any(tmp_path.rglob("*.nbc"))


def test_a_network_that_was_warmed_up_compiles_nothing_for_its_gradient_and_its_clip(tmp_path):
    done = run(
        f"{HEAD}nf.warm_up(net)\nbefore = len(passes.buffer){GRADIENT}\nprint(before, len(passes.buffer))", tmp_path
    )
    before, after = map(int, done.stdout.split())
    assert before == after > 0


def test_an_experiment_that_was_warmed_up_is_trained_elsewhere_without_compiling(tmp_path):
    run(f"{HEAD}nf.warm_up(one)", tmp_path)
    script = (
        f"{HEAD}run = nf.train(one.net, one.theta(0), one.task, one.recipe)\nprint(run.updates, len(passes.buffer))"
    )
    assert run(script, tmp_path).stdout.split() == ["2", "0"]


def test_kinds_are_warmed_up_once_each_in_the_order_in_which_they_came():
    from nbflow.experiments.warm_up import kinds_of

    base = nf.Experiment("temporal_order", nf.Recipe(lengths=10))
    grid = nf.grid(base, {"cell": ["tanh", "gru"], "recipe.lr": [0.1, 0.2], "init": ["sigmoid", "glorot"]})
    assert [one.cell for one in kinds_of(grid)] == ["tanh", "gru"]


def test_what_is_no_network_and_no_experiment_is_refused():
    with pytest.raises(TypeError, match="experiments"):
        nf.warm_up(3)
    with pytest.raises((TypeError, ValueError), match="workers"):
        nf.warm_up(nf.Network("tanh", 3, 5, 2), workers=0)


def test_pieces_have_no_machine_code_of_their_own_until_python_calls_them():
    @unit
    def twice(x):
        return x + x

    assert twice(1.5) == 3.0
    assert twice(x=2) == 4
    assert not twice.overloads  # what Python calls is compiled beside it

    @unit
    def four_times(x):
        return twice(twice(x))

    assert four_times(1.25) == 5.0
    (found,) = twice.overloads.values()
    assert found.library._finalized
    assert found.library._compiled_object is None
