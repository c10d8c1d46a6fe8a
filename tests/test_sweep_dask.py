"""Claims about sweeps on a Dask cluster: workers that die, leave, join, come and go, or have a disk of their own."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from test_sweep import BASE, RECIPE, results

import nbflow as nf

distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")

ROOT = Path(__file__).parent.parent
RECIPE = dataclasses.replace(RECIPE, max_updates=1500, record_every=20, evaluate_every=500)
GRID = nf.grid(dataclasses.replace(BASE, recipe=RECIPE), {"init": ["sigmoid", "smart_tanh"], "recipe.lr": [0.05, 0.1]})


class Cluster:
    """A scheduler and workers, each a process of its own, as the command line starts them."""

    def __init__(self, folder, workers):
        self.folder = folder
        self.file = folder / "scheduler.json"
        self.scheduler = self.start("scheduler", "--port", "0", "--no-dashboard")
        self.workers = []
        for _ in range(workers):
            self.add()

    def add(self, *prefix):
        """Start a worker, by a command if one is given."""
        arguments = ("worker", "--nthreads", "1", "--no-nanny", "--no-dashboard")
        self.workers.append(self.start(*arguments, prefix=prefix))

    def start(self, program, *arguments, prefix=()):
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]), "NUMBA_NUM_THREADS": "1",
            "DASK_TEMPORARY_DIRECTORY": str(self.folder),
        }  # fmt: skip
        command = [*prefix, sys.executable, "-m", f"distributed.cli.dask_{program}", *arguments]
        return subprocess.Popen([*command, "--scheduler-file", str(self.file)], env=environment, cwd=self.folder,
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip

    def end(self):
        for process in [*self.workers, self.scheduler]:
            process.kill()
            process.wait()


@pytest.fixture
def cluster(tmp_path, request):
    """Give a cluster of two workers, or of as many as the test says."""
    found = Cluster(tmp_path, getattr(request, "param", 2))
    yield found
    found.end()


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    """What comes out in one thread of this process."""
    with ThreadPoolExecutor(1) as executor:
        path = tmp_path_factory.mktemp("usual") / "runs.jsonl"
        return results(nf.sweep(GRID, 2, path, executor=executor, group_size=1, progress=False))


@contextlib.contextmanager
def client_of(cluster, workers):
    with distributed.Client(scheduler_file=str(cluster.file), timeout=60) as client:
        client.wait_for_workers(workers, timeout=60)
        yield client


@contextlib.contextmanager
def meanwhile(path, act):
    """Act once a group of the sweep has said how far it is; its end is waited for."""
    failed = []

    def watch():
        try:
            while not list(path.parent.glob("runs.jsonl.runs/*.progress")):
                time.sleep(0.05)
            act()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=watch)
    thread.start()
    yield
    thread.join()
    assert not failed


def sweep(client, path, **options):
    with client.get_executor() as executor:
        return nf.sweep(GRID, 2, path, executor=executor, checkpoint_seconds=0.2, progress=False, **options)


def holds(swept, usual, path):
    assert (swept.missing, swept.failed, swept.interrupted) == (0, [], False)
    assert results(swept) == usual
    assert not path.with_name("runs.jsonl.runs").exists()


def test_a_sweep_survives_a_worker_that_is_killed(cluster, usual, tmp_path):
    path = tmp_path / "runs.jsonl"
    with client_of(cluster, 2) as client:
        with meanwhile(path, lambda: os.kill(cluster.workers[0].pid, signal.SIGKILL)):
            swept = sweep(client, path, group_size=2)
        assert len(client.scheduler_info()["workers"]) == 1
    holds(swept, usual, path)


def test_a_worker_that_is_retired_in_mid_run_leaves_its_group_to_another(cluster, usual, tmp_path):
    path = tmp_path / "runs.jsonl"
    with client_of(cluster, 2) as client:
        leaves = next(iter(client.scheduler_info()["workers"]))
        with meanwhile(path, lambda: client.retire_workers([leaves])):
            swept = sweep(client, path, group_size=2)
        assert leaves not in client.scheduler_info()["workers"]
    holds(swept, usual, path)


@pytest.mark.parametrize("cluster", [1], indirect=True)
def test_a_worker_that_joins_in_mid_sweep_trains_groups(cluster, usual, tmp_path):
    path = tmp_path / "runs.jsonl"

    def worked():  # sent to the workers as code, for they do not have this file
        from nbflow.experiments import _group

        return _group._store.cache_info().misses > 0

    def join():
        first = cluster.workers[0].pid
        os.kill(first, signal.SIGSTOP)  # as long as it takes
        try:
            cluster.add()
            while nf.Store(path).size() == 0:
                time.sleep(0.05)
        finally:
            os.kill(first, signal.SIGCONT)

    with client_of(cluster, 1) as client:
        with meanwhile(path, join):
            swept = sweep(client, path, group_size=1)
        assert list(client.run(worked).values()) == [True, True]
    holds(swept, usual, path)


def test_a_cluster_that_grows_from_nothing_and_shrinks_again_serves_two_sweeps(usual, tmp_path, monkeypatch):
    path = tmp_path / "runs.jsonl"
    monkeypatch.setenv("NUMBA_NUM_THREADS", os.environ.get("NUMBA_NUM_THREADS", "1"))
    options = {"processes": True, "threads_per_worker": 1, "dashboard_address": None, "local_directory": tmp_path}
    with distributed.LocalCluster(n_workers=0, **options) as cluster, distributed.Client(cluster) as client:
        cluster.adapt(minimum=0, maximum=2, interval="100ms", wait_count=2)
        for _ in range(2):
            assert not client.scheduler_info()["workers"]
            swept = sweep(client, path, group_size=2)
            holds(swept, usual, path)
            path.unlink()
            while client.scheduler_info()["workers"]:
                time.sleep(0.1)


@pytest.mark.parametrize("cluster", [0], indirect=True)
def test_a_store_on_a_disk_that_only_the_driver_has_is_refused_by_its_place(cluster, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    other_disk = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(disk))
    if not shutil.which("unshare") or subprocess.run([*other_disk, "true"], capture_output=True).returncode:
        pytest.skip("no process can be given a disk of its own here")
    cluster.add(*other_disk)
    with (
        client_of(cluster, 1) as client,
        pytest.raises(OSError, match=r"a worker does not see .*disk/runs\.jsonl\.runs, .*a disk that workers share"),
    ):
        sweep(client, disk / "runs.jsonl")
    assert list(disk.iterdir()) == []
