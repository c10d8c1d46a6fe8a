"""The disk cache: a second process finds what the first compiled, and nothing that has changed since."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
from cases import CELLS, make_case
from numba.core import event

import nbflow as nf
from nbflow import _compile
from nbflow._compile import JIT, _names_of, fingerprint, loop, unit
from nbflow._load import load

pytestmark = pytest.mark.skipif(not JIT, reason="nothing is compiled")

PACKAGE = pathlib.Path(nf.__file__).parent

# What every script can do: count compiler passes, and print a report as JSON.
HEAD = """
import json, sys
import numpy as np
from numba.core import event
passes = event.RecordingListener()
event.register("numba:run_pass", passes)
def report(**found):
    print(json.dumps({**found, "passes": len(passes.buffer)}))
"""

# A loop that has bound a unit (which calls helpers of other files), run on numbers.
UPDATE = """
from nbflow._load import load
from nbflow.cpu.update import build_update
optimizer = load("optimizers", sys.argv[1])
theta, d = np.ones((1, 5), np.float32), np.arange(5, dtype=np.float32).reshape(1, 5)
slots = np.zeros((1, len(optimizer.slots), 5), np.float32)
settings = np.array(list(optimizer.settings.values()), np.float32).reshape(1, -1, 1)
build_update(optimizer.update, slots.shape[1], settings.shape[1])(theta, d, slots, np.ones(1, np.float32), settings, np.float32(1))
"""

# A kernel that has bound a cell, called by its address for one vector of numbers.
STEP = """
import ctypes
from nbflow._load import load
from nbflow.cpu.forward import build_step
from nbflow.cpu.job import job_dtype
dtype = np.float32
kernel = build_step(load("cells", "tanh"), dtype)
job, a, states = np.zeros(1, job_dtype(dtype)), np.linspace(-3, 3, 32, dtype=dtype), np.zeros((2, 32), dtype)
for name, value in {"rows": 1, "gates": 1, "lines": 1, "width": 32, "pre": a.ctypes.data, "rec": a.ctypes.data,
                    "states": states.ctypes.data}.items():
    job[name] = value
ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64)(kernel.address)(job.ctypes.data, 0)
"""

SMALL = HEAD + UPDATE + STEP + "report(theta=theta.tolist(), states=states[1].tolist())"

WHOLE = (
    HEAD
    + """
import nbflow as nf
net = nf.Network("tanh", 6, 5, 4)
theta = nf.init(net, "smart_tanh", rng=0)
batch = nf.load_task("temporal_order").sample(seed=0, index=0, batch_size=2, length=10)
out = nf.gradient(net, theta, batch)
done = nf.clip(net, out.d_theta, nf.Clip("norm", 0.01))
report(loss=out.loss, d_theta=out.d_theta.tolist(), norm=done.norm)
"""
)


class Place:
    """A copy of the package and a cache of its own, and processes that see nothing else."""

    def __init__(self, root):
        self.root, self.cache = root, root / "cache"
        shutil.copytree(PACKAGE, root / "nbflow", ignore=shutil.ignore_patterns("__pycache__"))

    def start(self, script, *arguments, cache=None):
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("NUMBA_", "PYTHON"))}
        cached = {"NUMBA_CACHE_DIR": str(cache or self.cache), "PYTHONPATH": str(self.root), "NUMBA_NUM_THREADS": "1"}
        # Not warnings about where the cache is: there is nothing that anybody should do about them.
        command = [sys.executable, "-W", "error", "-c", script, *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, env=kept | cached, cwd=self.root, **pipes)

    def finish(self, process):
        out, error = process.communicate(timeout=300)
        assert process.returncode == 0, error
        assert error == ""
        return json.loads(out)

    def run(self, script, *arguments, **choices):
        return self.finish(self.start(script, *arguments, **choices))

    def files(self):
        return {path.name for path in self.cache.rglob("*") if path.suffix in (".nbi", ".nbc")}

    def edit(self, file, old, new):
        path = self.root / "nbflow" / file
        text = path.read_text()
        assert text.count(old) >= 1
        path.write_text(text.replace(old, new))


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def same(one, two):
    """Tell whether two reports agree in all but the number of passes."""
    return {k: v for k, v in one.items() if k != "passes"} == {k: v for k, v in two.items() if k != "passes"}


def test_a_second_process_compiles_nothing_and_gets_the_same_bits(place):
    first = place.run(WHOLE)
    files = place.files()
    assert first["passes"] > 0
    assert files
    second = place.run(WHOLE)
    assert second["passes"] == 0
    assert same(first, second)
    assert place.files() == files


def test_an_edited_helper_in_another_file_is_compiled_anew_and_believed(place):
    first = place.run(SMALL, "rmsprop")
    assert place.run(SMALL, "rmsprop")["passes"] == 0
    # Neither file holds the function whose machine code lies on the disk.
    place.edit("optimizers/rmsprop.py", "return theta - lr", "return theta + lr")
    place.edit("cells/tanh.py", "scalars.tanh(a_in[0] + a_rec[0])", "scalars.tanh(-a_in[0])")
    second = place.run(SMALL, "rmsprop")
    assert second["passes"] > 0
    np.testing.assert_allclose(np.array(second["theta"]) - 1, 1 - np.array(first["theta"]), atol=1e-5)
    assert np.abs(np.subtract(second["theta"], first["theta"])).max() > 0.1
    np.testing.assert_allclose(second["states"], np.negative(first["states"]), atol=1e-6)
    assert place.run(SMALL, "rmsprop")["passes"] == 0


def test_an_edited_helper_of_a_helper_is_compiled_anew_and_believed(place):
    first = place.run(SMALL, "sgd")
    place.edit("cells/tanh.py", "scalars.tanh(", "scalars.relu(")
    second = place.run(SMALL, "sgd")
    place.edit("scalars.py", "import math", "import math  # another text, the same function")
    third = place.run(SMALL, "sgd")
    np.testing.assert_allclose(second["states"], np.maximum(np.linspace(-3, 3, 32), 0), atol=1e-6)
    assert not same(first, second)
    assert third["passes"] > 0, "a change of any source is a change of every key"
    assert same(second, third)


def test_what_a_factory_has_bound_is_told_apart(place):
    found = [place.run(SMALL, name) for name in ("sgd", "momentum", "sgd", "momentum")]
    assert found[0]["passes"] > 0
    assert found[1]["passes"] > 0
    assert found[2]["passes"] == found[3]["passes"] == 0
    assert same(found[0], found[2])
    assert same(found[1], found[3])


def test_eight_processes_at_once_on_a_cold_cache_agree(place):
    processes = [place.start(SMALL, "sgd") for _ in range(8)]
    found = [place.finish(process) for process in processes]
    assert all(same(found[0], other) for other in found)
    assert place.run(SMALL, "sgd")["passes"] == 0


def test_a_place_where_nothing_can_be_written_costs_time_and_nothing_else(place):
    file = place.root / "file"
    file.write_text("no folder")
    first = place.run(SMALL, "sgd", cache=file / "cache")
    assert first["passes"] > 0
    assert file.read_text() == "no folder"
    assert same(first, place.run(SMALL, "sgd"))


def test_a_damaged_cache_is_no_error(place):
    first = place.run(SMALL, "sgd")
    for path in place.cache.rglob("*.nb?"):
        path.write_bytes(path.read_bytes()[:-7])
    second = place.run(SMALL, "sgd")
    assert same(first, second)


# --- The key.


def test_units_of_ones_own_have_no_name_that_a_cache_could_trust():
    @unit
    def own(x):
        return x

    theirs, bound = load("cells", "tanh").step, ("text", 3, True, np.float32, None)
    assert _names_of((theirs, *bound)) is not None
    assert _names_of((theirs, own)) is None
    assert _names_of((theirs, (own, 1))) is None
    assert _names_of((lambda x: x,)) is None


def test_all_units_that_are_bound_have_names_of_their_own():
    units = []
    for package, fields in {"cells": ("step", "step_vjp"), "losses": ("fold", "value", "slope"),
                            "flows": ("value", "slope"), "clips": ("clip",), "optimizers": ("update",),
                            "tasks": ("plan", "inputs", "target", "counts")}.items():  # fmt: skip
        units += [getattr(load(package, name), field) for name in nf.names(package) for field in fields]
    named = [_names_of((one,)) for one in units]
    assert None not in named
    assert len(set(named)) == len(units)


def test_the_fingerprint_is_one_of_sources_and_the_compilers_version(monkeypatch):
    now = fingerprint.__wrapped__()
    assert now == fingerprint()
    monkeypatch.setattr(_compile.numba, "__version__", "0.0.0")
    assert fingerprint.__wrapped__() != now


def test_a_unit_of_ones_own_bound_to_a_loop_is_not_kept_on_the_disk():
    @unit
    def own(x):
        return x + 1

    @loop(own)
    def add(a):
        for i in range(a.size):
            a[i] = own(a[i])

    @loop("test")
    def also(a):
        a[:] = 1

    assert type(add._cache).__name__ == "NullCache"
    assert type(also._cache).__name__ == "_SoundCache"


# --- Cells of one's own.


@unit
def doubled(a_in, a_rec, s):
    return (a_in[0] + a_rec[0],), ()


@unit
def doubled_vjp(saved, s, s_next, d):
    return (d[0],), (d[0],), ()


OWN = nf.Cell(gates=("a",), states=("h",), step=doubled, step_vjp=doubled_vjp)


def test_a_cell_of_ones_own_is_as_good_as_ours_and_leaves_nothing_on_the_disk(monkeypatch):
    kept = []
    monkeypatch.setattr(_compile, "_keep_on_disk", lambda compiled, function, key: kept.append(key))
    case = make_case("linear", "square", "dense", "all", H=7)
    own = nf.Network(OWN, case.net.n_in, case.net.n_hidden, case.net.n_out, loss="square", dtype="float64")
    found, wanted = nf.gradient(own, case.theta, case.batch), nf.gradient(case.net, case.theta, case.batch)
    assert found.loss == wanted.loss
    np.testing.assert_array_equal(found.d_theta, wanted.d_theta)
    np.testing.assert_array_equal(
        nf.trace(own, case.theta, case.batch).gain, nf.trace(case.net, case.theta, case.batch).gain
    )
    assert not any("doubled" in str(key) for key in kept)


def test_a_cell_of_ones_own_in_a_script_is_believed_after_it_was_edited(place):
    script = HEAD + """
import nbflow as nf
from nbflow._compile import unit
from nbflow.cpu.forward import build_step
@unit
def step(a_in, a_rec, s):
    return (FACTOR * a_in[0],), ()
@unit
def step_vjp(saved, s, s_next, d):
    return (FACTOR * d[0],), (d[0],), ()
own = nf.Cell(gates=("a",), states=("h",), step=step, step_vjp=step_vjp)
""" + STEP.replace('load("cells", "tanh")', "own") + "report(states=states[1].tolist())"  # fmt: skip
    one, two = (place.run(script.replace("FACTOR", f"np.float32({k})")) for k in (1.0, 2.0))
    assert one["states"] != two["states"]
    np.testing.assert_allclose(two["states"], np.multiply(2, one["states"]))


# --- Once compiled, always compiled.


@pytest.mark.parametrize("cell", CELLS)
def test_other_shapes_of_the_same_dtype_are_not_compiled_again(cell):
    def everything(T, B, N, H, M, kind, replicas):
        case = make_case(cell, "square", kind, "all", T=T, B=B, N=N, H=H, M=M, dtype="float32")
        theta, batch = case.theta, case.batch
        if replicas:
            theta = np.stack([theta] * replicas)
            batch = nf.Batch(*(np.broadcast_to(a, (replicas, *a.shape)) for a in batch))
        out = nf.gradient(case.net, theta, batch, flow=nf.Flow("norm", 0.5))
        nf.trace(case.net, theta, batch)
        nf.predict(case.net, theta, batch.inputs)
        nf.clip(case.net, out.d_theta, nf.Clip("value", 0.1))
        nf.clip(case.net, np.full_like(theta, np.nan), nf.Clip("norm", 0.1), rng=0)
        how = nf.Recipe("adam", batch_size=B, max_updates=2, lengths=T, clip=nf.Clip("norm", 1.0), evaluate_every=0)
        nf.train(case.net, theta, lambda update: batch, how)

    everything(T=2, B=3, N=2, H=3, M=2, kind="dense", replicas=None)
    passes = event.RecordingListener()
    event.register("numba:run_pass", passes)
    try:
        everything(T=5, B=9, N=1, H=20, M=1, kind="dense", replicas=None)
        everything(T=1, B=1, N=7, H=1, M=6, kind="tokens", replicas=3)
    finally:
        event.unregister("numba:run_pass", passes)
    assert len(passes.buffer) == 0


def test_sampling_and_evaluating_other_lengths_and_sizes_is_not_compiled_again():
    for task in nf.names("tasks"):
        found = nf.load_task(task)
        net = nf.Network("tanh", found.n_in, 3, found.n_out, loss=found.loss)
        theta = nf.init(net, "smart_tanh", rng=0)
        nf.evaluate(net, theta, task, length=10, size=3)
        found.sample(seed=0, index=0, batch_size=1, length=10)
        passes = event.RecordingListener()
        event.register("numba:run_pass", passes)
        try:
            nf.evaluate(net, np.stack([theta] * 2), task, length=(20, 30), size=7, seed=2**40, index=5)
            found.sample(seed=2**62, index=2**31, batch_size=4, length=33, replicas=2, stream="evaluation")
        finally:
            event.unregister("numba:run_pass", passes)
        assert len(passes.buffer) == 0
