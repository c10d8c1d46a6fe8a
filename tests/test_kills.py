"""The claim that a sweep outlives SIGKILL wherever it lands: nothing is lost, and the results are those of no kill.

Whole sweeps, with their workers, are killed at random moments in three places: in training, while a checkpoint is
written, and while lines are appended to the store. Each process says in a byte of shared memory where it is; what
stands there when it is dead is where the kill has landed. For many kills, with the counts at the end:

    NBFLOW_KILLS=200 NBFLOW_KILLS_SEED=1 python -m pytest -s -o faulthandler_timeout=0 tests/test_kills.py
"""

from __future__ import annotations

import collections
import contextlib
import hashlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import nbflow as nf
from nbflow.storage import _checkpoint as checkpoint
from nbflow.storage._lines import parse
from nbflow.storage.store import Store

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")

SETTING = """
import nbflow as nf

recipe = nf.Recipe(lr=0.1, batch_size=3, lengths=(10, 14), max_updates=1500, record_every=20, evaluate_every=50,
                   evaluate_size=20, clip=nf.Clip("norm", nf.load_threshold("percentile", window=30)))
base = nf.Experiment("temporal_order", recipe, n_hidden=6)
grid = nf.grid(base, {"init": ["sigmoid", "smart_tanh"], "recipe.lr": [0.05, 0.1]})
SEEDS = 6
"""

MARKED = """
import mmap, os, pathlib, sys
from nbflow.storage import _checkpoint as checkpoint
from nbflow.experiments import _group as group
from nbflow.storage import _journal

place = pathlib.Path(os.environ["NBFLOW_MARKS"], str(os.getpid()))
place.write_bytes(b"-")
with open(place, "r+b") as file:
    mark = mmap.mmap(file.fileno(), 1)

def marked(home, name, letter):
    usual = getattr(home, name)
    def inside(*arguments, **options):
        before, mark[0] = mark[0], ord(letter)
        try:
            return usual(*arguments, **options)
        finally:
            mark[0] = before
    setattr(home, name, inside)

# Workers import this file too.
marked(group, "_train", "t")
marked(checkpoint, "save", "c")
marked(_journal.Journal, "append", "a")

if __name__ == "__main__":
    done = nf.sweep(grid, SEEDS, sys.argv[1], workers=2, group_size=3, checkpoint_seconds=0.01, progress=False)
    print("interrupted" if done.interrupted else "done", len(done.runs))
"""
PLACES = {"t": "training", "c": "checkpoint writes", "a": "store appends"}
RUNS = 24


@pytest.fixture(scope="module")
def expected():
    """What comes out of each run when nobody kills it, trained here with `nf.train` and nothing else."""
    names: dict[str, object] = {}
    exec(SETTING, names)
    found = {}
    for one in names["grid"]:
        seeds = list(range(names["SEEDS"]))
        theta = nf.init(one.net, one.init, rng=0, replicas=len(seeds))
        run = nf.train(one.net, theta, one.task, one.recipe)
        for seed in seeds:
            found[one.init, one.recipe.lr, seed] = {
                "updates": run.updates, "theta_sha256": hashlib.sha256(run.theta[seed].tobytes()).hexdigest(),
                "first_passage": run.first_passage[seed], "stays_below": run.stays_below[seed], "failure": None,
                "evaluations": of_replica(run.evaluations, seed), "history": of_replica(run.history, seed),
            }  # fmt: skip
    assert len(found) == RUNS
    assert len({row["theta_sha256"] for row in found.values()}) == RUNS
    return found


def of_replica(columns, r):
    found = {name: [row[r] if isinstance(row, list) else row for row in column] for name, column in columns.items()}
    found.pop("seconds", None)
    return json.loads(json.dumps(found))


class Victim:
    """A sweep in processes of its own, and where each of them is."""

    def __init__(self, script, path):
        self.path, self.marks = path, Path(path.parent, f"marks-{time.monotonic_ns()}")
        self.marks.mkdir()
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
            "NBFLOW_MARKS": str(self.marks),
        }
        self.process = subprocess.Popen(
            [sys.executable, script, path], env=environment, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def ended(self):
        return self.process.poll() is not None

    def where(self):
        """Return where each process is, by its number."""
        return {int(place.name): place.read_text() for place in self.marks.iterdir()}

    def kill(self, chance, wanted):
        """Kill it some time after it has come to a place; return the places where its processes ended."""
        while not set(self.where().values()) & set(PLACES) and not self.ended():
            time.sleep(0.01)
        time.sleep(0.3 * chance.random() if wanted != "a" else 0.0)
        while wanted not in self.where().values() and not self.ended():
            time.sleep(0.0001)
        time.sleep({"t": 0.003, "c": 0.003, "a": 0.002}[wanted] * chance.random())
        if self.ended():
            return []
        # All at once, as when the machine is switched off; or the parent alone, whose workers then end by themselves.
        pids = [*self.where()] if wanted != "a" or chance.random() < 0.5 else [self.process.pid]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        ended = self.process.wait() == -signal.SIGKILL
        for pid in pids:
            wait_for_the_end_of(pid)
        found = [letter for pid, letter in self.where().items() if pid in pids and letter in PLACES]
        for pid in self.where():
            wait_for_the_end_of(pid)
        self.process.communicate()
        return found if ended else []


def wait_for_the_end_of(pid):
    def alive():
        try:
            return " Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][:3]
        except (FileNotFoundError, ProcessLookupError):
            return False

    while alive():
        time.sleep(0.002)


def kept(path):
    """Return what a killed sweep has on the disk: the keys of whole lines, and the updates of each checkpoint."""
    lines = list(io.BytesIO(path.read_bytes())) if path.exists() else []
    updates = {}
    for place in path.parent.glob("runs.jsonl.runs/*.lock"):
        saved = place.with_suffix(".npz")
        if checkpoint.exists(saved):
            updates[saved] = nf.load_run(saved).updates
    return {row["key"] for row in map(parse, lines) if row}, updates


def test_a_sweep_that_is_killed_again_and_again_loses_nothing(tmp_path, expected):
    script = tmp_path / "sweep.py"
    script.write_text(SETTING + MARKED)
    chance = random.Random(int(os.environ.get("NBFLOW_KILLS_SEED", "0")))
    most = int(os.environ.get("NBFLOW_KILLS", "3"))
    landed, kills, sweeps = collections.Counter(dict.fromkeys(PLACES, 0)), 0, 0
    while kills < most or not all(landed.values()):
        path = tmp_path / str(sweeps) / "runs.jsonl"
        path.parent.mkdir()
        sweeps += 1
        keys, updates = set(), {}
        for _ in range(min(8, max(1, most - kills))):
            wanted = min(PLACES, key=lambda letter: (landed[letter], chance.random()))
            victim = Victim(script, path)
            found = victim.kill(chance, wanted)
            if not found:
                victim.process.communicate()
                break
            # The parent's place, where it was in one: workers train meanwhile.
            landed["a" if "a" in found else wanted if wanted in found else found[0]] += 1
            kills += 1
            now, there = kept(path)
            assert keys <= now, "a line that stood there is gone"
            for place, count in updates.items():
                assert place not in there or there[place] >= count, "what a checkpoint had is lost"
            gone = updates.keys() - there.keys()
            assert len(gone) <= len(now) // 3, "a checkpoint is gone whose runs are not in the store"
            keys, updates = now, there
        victim = Victim(script, path)
        out, err = victim.process.communicate(timeout=600)
        assert out == f"done {RUNS}\n", err
        assert_all_there(path, expected)
        assert keys <= Store(path).read().keys()
    said = ", ".join(f"{landed[letter]} in {words}" for letter, words in PLACES.items())
    print(f"\n{kills} kills of {sweeps} sweeps: {said}")
    assert min(landed.values()) >= most // 5, said


def assert_all_there(path, expected):
    assert path.read_bytes().count(b"\n") == RUNS
    for row in Store(path).read().values():
        one = expected[row["init"], row["recipe.lr"], row["seed"]]
        assert {name: row[name] for name in one} == one
    assert not path.with_name("runs.jsonl.runs").exists()
