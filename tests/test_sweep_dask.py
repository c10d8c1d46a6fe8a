"""Claims about sweeps on a Dask cluster: a real scheduler and two workers, one of which is killed in mid-run."""

from __future__ import annotations

import dataclasses
import os
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
    """A scheduler and two workers, each a process of its own, as the command line starts them."""

    def __init__(self, folder):
        self.folder = folder
        self.file = folder / "scheduler.json"
        self.processes = [self.start("scheduler", "--port", "0", "--no-dashboard")]
        self.workers = [self.start("worker", "--nthreads", "1", "--no-nanny", "--no-dashboard") for _ in range(2)]

    def start(self, *arguments):
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]), "NUMBA_NUM_THREADS": "1",
            "DASK_TEMPORARY_DIRECTORY": str(self.folder),
        }  # fmt: skip
        process = subprocess.Popen([sys.executable, "-m", "distributed.cli.dask_" + arguments[0], *arguments[1:],
                                    "--scheduler-file", str(self.file)], env=environment, cwd=self.folder,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        return process

    def end(self):
        for process in [*self.workers, *self.processes]:
            process.kill()
            process.wait()


@pytest.fixture
def cluster(tmp_path):
    found = Cluster(tmp_path)
    yield found
    found.end()


def test_a_sweep_survives_a_worker_that_is_killed(cluster, tmp_path):
    path = tmp_path / "runs.jsonl"
    killed = []

    def kill():
        while not list(path.parent.glob("runs.jsonl.runs/*.progress")):
            time.sleep(0.05)
        os.kill(cluster.workers[0].pid, signal.SIGKILL)
        killed.append(True)

    with distributed.Client(scheduler_file=str(cluster.file), timeout=60) as client:
        client.wait_for_workers(2, timeout=60)
        thread = threading.Thread(target=kill)
        thread.start()
        with client.get_executor() as executor:
            swept = nf.sweep(GRID, 2, path, executor=executor, group_size=2, checkpoint_seconds=0.2, progress=False)
        thread.join()
        assert len(client.scheduler_info()["workers"]) == 1
    assert killed
    assert (swept.missing, swept.failed, swept.interrupted) == (0, [], False)
    with ThreadPoolExecutor(1) as executor:
        usual = nf.sweep(GRID, 2, tmp_path / "usual.jsonl", executor=executor, group_size=1, progress=False)
    assert results(swept) == results(usual)
    assert not (tmp_path / "runs.jsonl.runs").exists()
