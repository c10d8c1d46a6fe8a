"""Every kind of process and thread: a child computes what its parent would, to the bit, and nothing hangs or aborts."""

import contextlib
import ctypes
import importlib
import multiprocessing
import os
import subprocess
import sys
import textwrap

import pytest

from nbflow._compile import JIT

pytestmark = [
    pytest.mark.skipif(not JIT, reason="nothing is compiled"),
    pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no process forks here"),
]

# What every script can do: a gradient on shards enough for a team, as text that shows every bit.
HEAD = """
import multiprocessing, os, sys, threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
import numpy as np, nbflow as nf
from nbflow.cpu import team
net = nf.Network("tanh", 6, 30, 4)
theta = nf.init(net, "smart_tanh", rng=0)
task = nf.load_task("temporal_order")
def work(k):
    batch = task.sample(seed=0, index=k, batch_size=40, length=20)
    return nf.gradient(net, theta, batch, flow=nf.Flow("norm", 1.0)).d_theta.tobytes().hex()
def sampled(k):
    return task.sample(seed=0, index=k, batch_size=40, length=20).inputs.tobytes().hex()
"""


def run(script, *, threads=2, layer=None, folder=None, cache=None):
    """Run a script in a process of its own, from a file or with a disk cache where one is wanted; return its prints."""
    own = {"NUMBA_NUM_THREADS": str(threads)} | ({"NUMBA_THREADING_LAYER": layer} if layer else {})
    own |= {"NUMBA_CACHE_DIR": str(cache), "NBFLOW_QUIET": "1"} if cache else {}
    text = HEAD + textwrap.dedent(script)
    where = ["-c", text]
    if folder is not None:
        (folder / "script.py").write_text(text)
        where = [str(folder / "script.py")]
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", *where],
        env=os.environ | own, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if "resource_tracker" not in line and "warnings.warn" not in line]
    assert said == []  # but for a semaphore of numba's, which it has where processes are forked
    return done.stdout.split()


def offered():
    """Return numba's threading layers that work here."""
    found = ["workqueue"]
    with contextlib.suppress(ImportError):
        importlib.import_module("numba.np.ufunc.omppool")
        found.append("omp")
    with contextlib.suppress(OSError):
        ctypes.CDLL({"darwin": "libtbb.12.dylib", "win32": "tbb12.dll"}.get(sys.platform, "libtbb.so.12"))
        found.append("tbb")
    return found


LAYERS = offered()


@pytest.fixture(
    params=[(layer, threads) for layer in LAYERS for threads in (1, 2)], ids=lambda pair: f"{pair[0]}-{pair[1]}"
)
def kind(request):
    """Give a layer and a number of threads."""
    return dict(zip(("layer", "threads"), request.param, strict=True))


# --- A fork after the parent has computed.

AS_PARENT = """
if __name__ == "__main__":
    wanted = [work(k) for k in range(4)]
    {}
    print("as the parent")
"""


@pytest.mark.parametrize("pool", [
    "with multiprocessing.get_context('fork').Pool(2) as pool: assert pool.map(work, range(4)) == wanted",
    "with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context('fork')) as pool:"
    " assert list(pool.map(work, range(4))) == wanted",
])  # fmt: skip
def test_children_that_were_forked_after_a_call_compute_the_same_bits(kind, pool):
    assert run(AS_PARENT.format(pool), **kind) == ["as", "the", "parent"]


def test_the_child_of_a_child_computes_and_the_parent_goes_on(kind):
    script = """
    if __name__ == "__main__":
        wanted = work(0)
        def compare(depth):
            assert work(0) == wanted
            if depth and (child := os.fork()) == 0:
                compare(depth - 1)
                os._exit(0)
            assert not depth or os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            assert work(0) == wanted
        compare(2)
        print("same")
    """
    assert run(script, **kind) == ["same"]


def test_a_child_forked_before_any_call_has_a_team_of_its_own():
    script = """
    if __name__ == "__main__":
        with multiprocessing.get_context("fork").Pool(1) as pool:
            found = pool.map(work, range(2))
            print(pool.apply(team._has_team), team._has_team())
        assert found == [work(k) for k in range(2)]
    """
    assert run(script) == ["True", "False"]


def test_workers_that_only_sample_do_so_while_the_parent_computes():
    # A DataLoader's way: workers are forked anew for each epoch, beside a parent that computes.
    script = """
    def serve(k, into):
        into.send(sampled(k))
    if __name__ == "__main__":
        context = multiprocessing.get_context("fork")
        for epoch in range(2):
            gradient = work(0)
            pipes = [context.Pipe() for _ in range(3)]
            workers = [context.Process(target=serve, args=(k, pipes[k][1]), daemon=True) for k in range(3)]
            for worker in workers: worker.start()
            assert work(0) == gradient
            for k, worker in enumerate(workers):
                assert pipes[k][0].recv() == sampled(k)
                worker.join()
                assert worker.exitcode == 0
        print("same")
    """
    assert run(script) == ["same"]


def test_a_child_that_was_forked_while_other_threads_computed_and_compiled_computes():
    script = """
    if __name__ == "__main__":
        wanted, over = work(0), threading.Event()
        def compute():
            while not over.is_set(): work(1)
        def compile_much():
            from nbflow._compile import loop
            while not over.is_set():
                @loop(lambda: None)
                def add(a): a += 1
                add(np.zeros(3))
        threads = [threading.Thread(target=target) for target in (compute, compile_much)]
        for thread in threads: thread.start()
        for _ in range(5):
            child = os.fork()
            if child == 0: os._exit(0 if work(0) == wanted else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        over.set()
        for thread in threads: thread.join()
        print("same")
    """
    for layer in LAYERS:
        assert run(script, layer=layer)[-1] == "same"  # numba's layer for TBB says on stdout what it cannot shut down


# --- Other ways to start a process.


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_processes_of_other_kinds_compute_the_same_bits(tmp_path, method):
    pool = f"with multiprocessing.get_context({method!r}).Pool(2) as pool: assert pool.map(work, range(4)) == wanted"
    assert run(AS_PARENT.format(pool), folder=tmp_path) == ["as", "the", "parent"]


def test_workers_of_loky_compute_the_same_bits(tmp_path):
    pytest.importorskip("loky")
    pool = "import loky; assert list(loky.get_reusable_executor(2).map(work, range(4))) == wanted"
    assert run(AS_PARENT.format(pool), folder=tmp_path) == ["as", "the", "parent"]


# --- Threads.


def test_eight_threads_at_once_in_a_fresh_process_get_the_same_bits(kind):
    script = """
    if __name__ == "__main__":
        together = threading.Barrier(8)
        def begin(k):
            together.wait()
            return [work(j % 8) for j in range(k, k + 8)]
        with ThreadPoolExecutor(8) as pool: found = list(pool.map(begin, range(8)))
        wanted = [work(k) for k in range(8)]
        assert all(found[k][j] == wanted[(k + j) % 8] for k in range(8) for j in range(8))
        print("same")
    """
    assert run(script, **kind) == ["same"]


@pytest.mark.parametrize("layer", [None, "workqueue"])
def test_eight_threads_at_once_on_an_empty_cache_get_the_same_bits_and_compile_nothing_twice(tmp_path, layer):
    script = """
    from numba.core import event  # outputs take a third of the kernels of a gradient
    seen = event.RecordingListener()
    event.register("numba:compile", seen)
    def work(k):
        batch = task.sample(seed=0, index=k, batch_size=40, length=20)
        return nf.predict(net, theta, batch.inputs).tobytes().hex()
    if __name__ == "__main__":
        together = threading.Barrier(8)
        def begin(k):
            together.wait()
            return [work(k), work((k + 1) % 8)]
        with ThreadPoolExecutor(8) as pool: found = list(pool.map(begin, range(8)))
        wanted = [work(k) for k in range(8)]
        assert found == [[wanted[k], wanted[(k + 1) % 8]] for k in range(8)]
        begun = [(id(one.data["dispatcher"]), one.data["args"]) for _, one in seen.buffer if one.is_start]
        print(len(begun) > 10, len(begun) == len(set(begun)))
    """
    assert run(script, layer=layer, cache=tmp_path) == ["True", "True"]
    assert len(list(tmp_path.rglob("*.nbc"))) > 2
