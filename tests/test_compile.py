"""The disk cache: a second process finds what the first compiled, and nothing that has changed since."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from cases import CELLS, make_case
from numba.core import config, event
from tolerance import within

import nbflow as nf
from nbflow import _disk_cache, _sources
from nbflow._compile import JIT, loop, unit
from nbflow._disk_cache import fingerprint
from nbflow._identity import identity
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
lr, counts, stands = np.ones(1, np.float32), np.zeros(1, np.int64), np.zeros(1, np.bool_)
build_update(optimizer.update, slots.shape[1], settings.shape[1])(theta, d, slots, lr, settings, counts, stands)
"""

# A kernel that has bound a cell, called by its address for one vector of numbers.
STEP = """
import ctypes
from nbflow._load import load
from nbflow.cpu.forward import build_step
from nbflow.cpu.record import shard_dtype
dtype = np.float32
kernel = build_step(load("cells", "tanh"), dtype)
shard, a, states = np.zeros(1, shard_dtype(dtype)), np.linspace(-3, 3, 32, dtype=dtype), np.zeros((2, 32), dtype)
for name, value in {"rows": 1, "gates": 1, "lines": 1, "width": 32, "pre": a.ctypes.data, "rec": a.ctypes.data,
                    "states": states.ctypes.data}.items():
    shard[name] = value
ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64)(kernel.address)(shard.ctypes.data, 0)
"""

SMALL = HEAD + UPDATE + STEP + "report(theta=theta.tolist(), states=states[1].tolist())"
ONE_KERNEL = HEAD + STEP + "report(states=states[1].tolist())"

# A first day's work, in one function, so that this process can do it as well.
WORK = """
def work():
    import nbflow as nf
    net = nf.Network("tanh", 6, 5, 4)
    theta = nf.init(net, "smart_tanh", rng=0)
    batch = nf.load_task("temporal_order").sample(seed=0, index=0, batch_size=2, length=10)
    out = nf.gradient(net, theta, batch, flow=nf.Flow("norm", 1.0))
    done = nf.clip(net, out.d_theta, nf.Clip("norm", 0.01))
    how = nf.Recipe(clip=nf.Clip("norm", 0.01), lengths=(10, 12), max_updates=2, evaluate_every=2, evaluate_size=10)
    run = nf.train(net, theta, "temporal_order", how)
    return dict(loss=out.loss, d_theta=out.d_theta.tolist(), norm=done.norm, theta=run.theta.tolist())
"""

# The products of some dtypes against those of numpy. Names of compiled code hold a count and the order of a set, which
# is the same in all processes when PYTHONHASHSEED is given, and now and then by chance.
PRODUCTS = """
import ctypes
from nbflow.cpu.product import build_product, lanes
def error(dtype):
    rng, columns = np.random.default_rng(0), 2 * lanes(dtype)
    a, b = rng.normal(size=(4, 5)).astype(dtype), rng.normal(size=(5, columns)).astype(dtype)
    c, call = np.zeros((4, columns), dtype), ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 12)
    where = c.ctypes.data, columns, a.ctypes.data, 5, 1, b.ctypes.data, columns, columns
    call(build_product(dtype).address)(*where, 4, 5, columns, 0)
    return float(abs(c - a @ b).max())
report(errors=[error(np.dtype(name).type) for name in sys.argv[1:]])
"""

# Second derivatives; kernels whose names are given are compiled here, whatever lies on the disk.
SECOND = """
import nbflow as nf
from nbflow._disk_cache import DiskCache
kept = DiskCache.load_overload
def load_overload(self, *arguments):
    anew = any(name in self._name for name in sys.argv[1:])
    return None if anew else kept(self, *arguments)
DiskCache.load_overload = load_overload
net = nf.Network("tanh", 3, 13, 4, dtype="float64")
theta, rng = nf.init(net, "smart_tanh", rng=0), np.random.default_rng(0)
batch = nf.Batch(rng.normal(size=(9, 7, 3)), rng.integers(0, 4, (9, 7), np.int32), np.full((9, 7), 1 / 7))
flow = nf.Flow("squared", 0.5, derivative="exact")
found = nf.hvp(net, theta, batch, rng.normal(size=theta.shape)), nf.gradient(net, theta, batch, flow=flow).d_theta
report(found=[[number.hex() for number in numbers.tolist()] for numbers in found])
"""


def start(script, *arguments, cache, root, seed=None, threads=1, quiet=1):
    """Start a process that sees one package and one cache, and to which warnings are errors."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("NUMBA_", "PYTHON")) or "_CPU_" in k}
    own = {"PYTHONPATH": str(root), "NUMBA_NUM_THREADS": str(threads), "NBFLOW_QUIET": str(quiet)}
    own |= {"NUMBA_CACHE_DIR": str(cache)} if cache else {}
    own |= {"PYTHONHASHSEED": str(seed)} if seed is not None else {}
    command = [sys.executable, "-W", "error", "-c", script, *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=kept | own, cwd=root, **pipes)


def finish(process):
    """Return the report of a process that ends well and says nothing else."""
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    assert error == ""
    return json.loads(out)


class Place:
    """A copy of the package and a cache of its own."""

    def __init__(self, root):
        self.root, self.cache = root, root / "cache"
        shutil.copytree(PACKAGE, root / "nbflow", ignore=shutil.ignore_patterns("__pycache__"))
        self.first = self.run(SMALL, "sgd")

    def run(self, script, *arguments, cache=None, seed=None):
        return finish(start(script, *arguments, cache=cache or self.cache, root=self.root, seed=seed))

    def files(self):
        return {path.name for path in self.cache.rglob("*") if path.suffix == ".nbc"}

    @contextlib.contextmanager
    def edited(self, *edits):
        """Change files of the package for a while."""
        before = {}
        for file, old, new in edits:
            path = self.root / "nbflow" / file
            before[path] = path.read_text()
            assert old in before[path]
            path.write_text(before[path].replace(old, new))
        yield
        for path, text in before.items():
            path.write_text(text)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return Place(tmp_path_factory.mktemp("place"))


def same(one, two):
    """Tell whether two reports agree in all but the number of passes."""
    return {k: v for k, v in one.items() if k != "passes"} == {k: v for k, v in two.items() if k != "passes"}


def test_a_second_process_compiles_nothing_and_gets_the_same_bits(place):
    assert place.first["passes"] > 0
    files = place.files()
    assert files
    second = place.run(SMALL, "sgd")
    assert second["passes"] == 0
    assert same(place.first, second)
    assert place.files() == files


def test_what_this_process_has_compiled_for_a_days_work_another_one_finds():
    here = {}
    exec(WORK, here)
    wanted = json.loads(json.dumps(here["work"]()))
    cache = os.environ.get("NUMBA_CACHE_DIR")
    threads = config.NUMBA_NUM_THREADS  # one thread has a loop of its own
    found = finish(start(HEAD + WORK + "report(**work())", cache=cache, root=PACKAGE.parent, threads=threads))
    assert same(found, wanted)
    assert found["passes"] == 0


def test_a_kernel_that_is_compiled_gives_the_bits_of_one_that_comes_from_the_disk():
    cache = os.environ.get("NUMBA_CACHE_DIR")
    fill, loaded, compiled = (
        finish(start(HEAD + SECOND, *names, cache=cache, root=PACKAGE.parent)) for names in ([], [], ["loss_jvp_rows"])
    )
    assert loaded["passes"] == 0
    assert compiled["passes"] > 0
    assert same(loaded, compiled)
    assert same(loaded, fill)


def test_kernels_that_two_processes_compiled_under_the_same_names_call_their_own_parts(place):
    cache = place.root / "names"
    for name in ("float64", "float32"):
        assert place.run(HEAD + PRODUCTS, name, cache=cache, seed=0)["passes"] > 0
    for names in (("float64", "float32"), ("float32", "float64")):
        found = place.run(HEAD + PRODUCTS, *names, cache=cache, seed=0)
        assert found["passes"] == 0
        np.testing.assert_allclose(found["errors"], 0, atol=within("float32", 1, 100))


def test_an_edited_helper_in_another_file_is_compiled_anew_and_believed(place):
    # None of these files holds the function whose machine code lies on the disk.
    minus = ("optimizers/sgd.py", "theta - lr", "theta + lr")
    relu = ("cells/tanh.py", "scalars.tanh(", "scalars.relu(")
    with place.edited(minus, relu):
        second = place.run(SMALL, "sgd")
    assert second["passes"] > 0
    np.testing.assert_array_equal(place.first["theta"], 1 - np.arange(5.0)[None])
    np.testing.assert_array_equal(second["theta"], 1 + np.arange(5.0)[None])
    np.testing.assert_allclose(place.first["states"], np.tanh(np.linspace(-3, 3, 32)), atol=within("float32"))
    np.testing.assert_allclose(second["states"], np.maximum(np.linspace(-3, 3, 32), 0), atol=within("float32"))
    back = place.run(SMALL, "sgd")
    assert back["passes"] == 0
    assert same(back, place.first)


def test_what_a_factory_has_bound_is_told_apart(place):
    other = place.run(SMALL, "rmsprop")
    assert other["passes"] > 0
    assert other["theta"] != place.first["theta"]
    assert other["states"] == place.first["states"]
    back = place.run(SMALL, "sgd")
    assert back["passes"] == 0
    assert same(back, place.first)


def test_eight_processes_at_once_on_a_cold_cache_agree(place):
    cache = place.root / "crowded"
    processes = [start(ONE_KERNEL, cache=cache, root=place.root) for _ in range(8)]
    found = [finish(process) for process in processes]
    assert found[0]["passes"] > 0
    assert all(other["states"] == place.first["states"] for other in found)
    assert place.run(ONE_KERNEL, cache=cache)["passes"] == 0


# What a process that may not write anywhere finds, and one with bytecode alone.
NOWHERE = """
from nbflow import _disk_cache
def nowhere(function):
    raise RuntimeError("no locator")
_disk_cache.CompileResultCacheImpl = nowhere
"""
SOURCELESS = """
from nbflow import _disk_cache
_disk_cache.read = lambda names: None
"""


@pytest.mark.parametrize(("where", "words"), [(NOWHERE, "set NUMBA_CACHE_DIR"), (SOURCELESS, "source files")])
def test_where_nothing_can_be_kept_one_line_says_what_to_do(place, where, words):
    cache = place.root / "kept"
    process = start(HEAD + where + STEP + "report(states=states[1].tolist())", cache=cache, root=place.root, quiet=0)
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    assert json.loads(out)["states"] == place.first["states"]
    assert error.count("\n") == 1
    assert words in error
    assert "NBFLOW_QUIET=1" in error
    assert not list(cache.rglob("*.nbc"))


def test_a_place_where_nothing_can_be_written_costs_time_and_nothing_else(place):
    file = place.root / "file"
    file.write_text("no folder")
    found = place.run(SMALL, "sgd", cache=file / "cache")
    assert same(found, place.first)
    assert file.read_text() == "no folder"


def test_a_truncated_file_in_the_cache_costs_time_and_nothing_else(place):
    cache = place.root / "truncated"
    shutil.copytree(place.cache, cache)
    for path in cache.rglob("*.nbc"):
        path.write_bytes(path.read_bytes()[:-7])
    assert same(place.run(SMALL, "sgd", cache=cache), place.first)
    assert place.run(SMALL, "sgd", cache=cache)["passes"] == 0


# --- The files.


class Doubling:
    """What two keys of one function keep, in a folder of its own, as numba would call it."""

    def __init__(self, folder):
        @loop("test")
        def double(a):
            a[:] = 2 * a

        self.files = double._cache._cache_file
        self.files.folder = folder


def test_a_save_that_another_one_interrupts_keeps_both(tmp_path, monkeypatch):
    # A disk so slow that the second process begins and ends while the first one writes.
    files, inside = Doubling(tmp_path).files, []
    replace = os.replace

    def slow(source, target):
        if not inside:
            inside.append(True)
            files.save(("key", 2), "the second")
        replace(source, target)

    monkeypatch.setattr(_disk_cache.os, "replace", slow)
    files.save(("key", 1), "the first")
    assert inside
    assert (files.load(("key", 1)), files.load(("key", 2))) == ("the first", "the second")
    assert files.load(("key", 3)) is None
    assert len(list(tmp_path.iterdir())) == 2


def test_code_under_the_name_of_another_key_is_not_believed(tmp_path):
    files = Doubling(tmp_path).files
    files.save(("key", 1), "the first")
    os.replace(files.path(("key", 1)), files.path(("key", 2)))
    assert files.load(("key", 2)) is None


@pytest.mark.parametrize("place", [-1, -3])
def test_code_of_which_one_bit_is_wrong_is_not_believed(tmp_path, place):
    files = Doubling(tmp_path).files
    files.save("key", "the code")
    found = bytearray(files.path("key").read_bytes())
    found[place] ^= 1
    files.path("key").write_bytes(found)
    assert files.load("key") is None


def test_what_could_not_be_written_whole_leaves_no_file(tmp_path, monkeypatch):
    def full(source, target):
        raise OSError("No space left on device")

    files = Doubling(tmp_path).files
    monkeypatch.setattr(_disk_cache.os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        files.save("key", "the code")
    assert not list(tmp_path.iterdir())


# --- The key.


def test_all_units_that_are_bound_are_known_and_told_apart():
    units = []
    for package, fields in {"cells": ("step", "step_vjp"), "losses": ("fold", "value", "slope"),
                            "flows": ("value", "slope"), "clips": ("clip",), "optimizers": ("update",),
                            "tasks": ("plan", "inputs", "target", "counts")}.items():  # fmt: skip
        declared = [load(package, name) for name in nf.names(package)]
        units += [getattr(one, field) for one in declared for field in fields if not isinstance(one, nf.Regularizer)]
    named = [identity(one) for one in units]
    assert None not in named
    assert len(set(named)) == len(set(units)) > 20


def sources(root):
    """Return every file in which something is compiled for the CPU; grids are not kept on disk."""
    use = re.compile(r"^from nbflow(?:\._compile)? import .*\b(?:unit|exact_unit|part|loop|kernel)\b", re.MULTILINE)
    files = [path for path in sorted(root.rglob("*.py")) if path.parent != root / "cuda"]
    return [
        path
        for path in files
        if use.search(path.read_text()) or path.name in ("_compile.py", "_machine_code.py", "_disk_cache.py")
    ]


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A copy of the package, which `fingerprint` reads."""
    root = tmp_path / "nbflow"
    shutil.copytree(PACKAGE, root, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(_disk_cache, "read", lambda names: _sources.read(names, root))
    assert fingerprint.__wrapped__() == fingerprint()
    return root


def test_an_edit_of_any_file_with_compiled_code_has_another_fingerprint(copied):
    seen = {fingerprint()}
    assert len(sources(copied)) > 20
    for path in sources(copied):
        path.write_bytes(path.read_bytes() + b"\nmore = 1\n")
        assert fingerprint.__wrapped__() not in seen, path.name
        seen.add(fingerprint.__wrapped__())


def test_comments_docstrings_and_line_breaks_cost_nobody_their_compiled_code(copied):
    for path in sources(copied):
        path.write_text("# A comment.\n\n" + path.read_text().replace('"""', '"""In other words: ', 1))
    assert fingerprint.__wrapped__() == fingerprint()


def test_without_sources_nothing_is_kept_and_in_a_zip_an_edit_is_seen(copied, monkeypatch):
    def zipped():
        place = shutil.make_archive(str(copied.parent / "packed"), "zip", copied)
        monkeypatch.setattr(_disk_cache, "read", lambda names: _sources.read(names, zipfile.Path(place)))
        return fingerprint.__wrapped__()

    now = zipped()
    assert now == fingerprint()
    (copied / "cells" / "tanh.py").write_text("1")
    assert zipped() not in (now, None)
    (copied / "cells" / "tanh.py").rename(copied / "cells" / "tanh.pyc")
    assert zipped() is None
    monkeypatch.setattr(_disk_cache, "read", lambda names: _sources.read(names, copied / "nothing"))
    assert fingerprint.__wrapped__() is None


@pytest.mark.parametrize(("of", "name"), [
    (_disk_cache.numba, "__version__"), (_disk_cache.llvmlite, "__version__"), (_disk_cache.np, "__version__"),
    *((_disk_cache.config, name) for name in _disk_cache.SETTINGS),
])  # fmt: skip
def test_another_compiler_or_told_otherwise_is_another_key(monkeypatch, of, name):
    now = _disk_cache.settings()
    monkeypatch.setattr(of, name, "another", raising=False)
    assert _disk_cache.settings() != now


def test_a_loop_lets_nobody_call_what_it_calls():
    @loop(lambda: None)  # not kept on the disk, from where numba cannot show its code
    def total(n):
        return np.zeros(n).sum()

    assert total(3) == 0
    assert "define internal" in total.inspect_llvm(total.signatures[0])
    assert "define linkonce_odr" not in total.inspect_llvm(total.signatures[0])


# --- Cells of one's own.


@unit
def doubled(a_in, a_rec, s):
    return (a_in[0] + a_rec[0],), ()


@unit
def doubled_vjp(saved, s, s_next, d):
    return (d[0],), (d[0],), ()


OWN = nf.Cell(gates=("a",), states=("h",), step=doubled, step_vjp=doubled_vjp)


def test_a_cell_of_ones_own_is_as_good_as_ours():
    case = make_case("linear", "square", "dense", "all", H=7)
    own = nf.Network(OWN, case.net.n_in, case.net.n_hidden, case.net.n_out, loss="square", dtype="float64")
    found, wanted = nf.gradient(own, case.theta, case.batch), nf.gradient(case.net, case.theta, case.batch)
    assert found.loss == wanted.loss
    np.testing.assert_array_equal(found.d_theta, wanted.d_theta)
    np.testing.assert_array_equal(
        nf.trace(own, case.theta, case.batch).gain, nf.trace(case.net, case.theta, case.batch).gain
    )


def test_a_cell_of_ones_own_in_a_script_is_compiled_once_and_believed_after_it_was_edited(place):
    cell = """
import nbflow as nf
from nbflow._compile import unit
@unit
def step(a_in, a_rec, s):
    return (FACTOR * a_in[0],), ()
own = nf.Cell(gates=("a",), states=("h",), step=step)
"""
    script = HEAD + cell + STEP.replace('load("cells", "tanh")', "own") + "report(states=states[1].tolist())"
    one, two, again = (place.run(script.replace("FACTOR", f"np.float32({k})")) for k in (1.0, 2.0, 1.0))
    assert min(one["passes"], two["passes"]) > again["passes"] == 0
    assert same(one, again)
    np.testing.assert_allclose(one["states"], np.linspace(-3, 3, 32), atol=within("float32"))
    np.testing.assert_allclose(two["states"], np.linspace(-6, 6, 32), atol=within("float32"))


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
        nf.evaluate(net, theta, task, length=(10, 11), size=3)
        found.sample(seed=0, index=0, batch_size=1, length=10)
        passes = event.RecordingListener()
        event.register("numba:run_pass", passes)
        try:
            nf.evaluate(net, np.stack([theta] * 2), task, length=(20, 30), size=7, seed=2**40, index=5)
            found.sample(seed=2**62, index=2**31, batch_size=4, length=33, replicas=2, stream="evaluation")
        finally:
            event.unregister("numba:run_pass", passes)
        assert len(passes.buffer) == 0
