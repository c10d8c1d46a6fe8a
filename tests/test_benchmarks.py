"""Benchmarks: each runs for a moment on tiny networks, so that none is left behind when what it calls is renamed.

No time is looked at. Sides that have processes of their own are asked in this one.
"""

from __future__ import annotations

import functools
import importlib
import json
import multiprocessing.pool
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numba
import pytest
from scripted import load

import nbflow as nf
from nbflow._compile import JIT

pytestmark = pytest.mark.skipif(not JIT, reason="measures compiled code")
ROOT = Path(__file__).parents[1]
SHAPE, TEXT = (12, 10, 3, 5), "12,10,3,5"  # two shards


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what imports a benchmark, with numba's number of threads as it was when it is over."""
    threads = numba.get_num_threads()
    yield functools.partial(load, monkeypatch)
    numba.set_num_threads(threads)


def assert_tables(said: str, count: int) -> None:
    """Assert that so many tables were printed, all with rows."""
    lines = said.splitlines()
    rules = [k for k, line in enumerate(lines) if line.startswith("| -")]
    assert len(rules) == count, said
    assert all(lines[k + 1].startswith("| ") for k in rules), said


# --- scripts/bench/


def test_parts(script, monkeypatch, capsys):
    parts = script("bench_parts")
    for name, value in {"SHAPES": (SHAPE, SHAPE), "CORES_AT": (SHAPE,), "SECONDS": 0.0, "BURSTS": 1, "FEW": 1}.items():
        monkeypatch.setattr(parts, name, value)
    sections = ["phases", "products", *(["cores"] if numba.config.NUMBA_NUM_THREADS > 1 else [])]
    assert parts.main(["--sections", *sections]) == 0
    assert_tables(capsys.readouterr().out, len(sections))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux for the peak of its memory")
@pytest.mark.parametrize("every", [0, 4])
def test_memory_of_a_long_sequence(script, monkeypatch, capsys, every):
    monkeypatch.setattr(sys, "argv", ["", *map(str, SHAPE), str(every)])
    exec(script("bench_parts").LONG_ONE, {})
    assert int(capsys.readouterr().out) >= 0


class Inside:
    """A worker of bench_peers.py in this process."""

    def __init__(self, processes: Any, threads: int = 0) -> None:
        self.processes, self.made, self.count = processes, {}, 0

    def ask(self, **request: Any) -> Any:
        try:
            return json.loads(json.dumps(self.processes.respond(self.made, **json.loads(json.dumps(request)))))
        except ModuleNotFoundError as error:
            raise self.processes.MissingError(error.name) from None

    def make(self, side: str, shape: Any, **how: Any) -> Any:
        self.count += 1
        self.ask(do="make", program=self.count, side=side, shape=shape, **how)
        return self.processes.Program(self, self.count, how)

    def forget(self) -> None:
        self.ask(do="forget")

    def close(self) -> None:
        self.forget()

    def __enter__(self) -> Inside:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@pytest.fixture
def peers(script, monkeypatch):
    """Return bench_peers.py for tiny networks, whose workers are in this process."""
    found, processes, sides = script("bench_peers"), script("peers_processes"), script("peers_sides")
    monkeypatch.setattr(found, "Worker", functools.partial(Inside, processes))
    monkeypatch.setattr(processes, "PAUSE", 0.0)
    monkeypatch.setattr(processes.Program, "estimate", 1.0)  # so that every burst is of one update
    for module in (found, sides):
        monkeypatch.setattr(module, "SQUARE", 8)
    monkeypatch.setattr(found, "cores", lambda: numba.config.NUMBA_NUM_THREADS)
    for name in ("CURES_AT", "REPLICAS_AT", "REPLICAS_SMALL"):
        monkeypatch.setattr(found, name, SHAPE)
    for name in ("CELLS_AT", "REGIMES_AT"):
        monkeypatch.setattr(found, name, [SHAPE])
    return found


def test_peers(peers, capsys):
    sections = [name for name in peers.SECTIONS if name != "starts"]
    assert peers.main(["--quick", "--shapes", TEXT, "--sections", *sections]) == 0
    assert_tables(capsys.readouterr().out, len(sections))


def test_a_first_gradient(script, capsys):
    exec(script("peers_starts").START, {})
    assert len(capsys.readouterr().out.split()) == 2


def test_executors(script, monkeypatch, tmp_path, capsys):
    executors = script("bench_executors")
    monkeypatch.setattr(executors, "TRAININGS", 2)
    asked = ["--runs", "2", "--workers", "1", "--ways", "thread", "--out", str(tmp_path)]
    assert executors.main(asked) == 0
    assert "ms a run" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_writers(script, monkeypatch, tmp_path, capsys):
    writers = script("bench_writers")
    threads = types.SimpleNamespace(Pool=multiprocessing.pool.ThreadPool)
    monkeypatch.setattr(writers.multiprocessing, "get_context", lambda method: threads)
    monkeypatch.setattr(writers.time, "sleep", lambda seconds: None)
    assert writers.main(["--writers", "2", "--lines", "2", "--out", str(tmp_path)]) == 0
    assert "merged: 4 runs" in capsys.readouterr().out


def test_stages_of_a_device(script, monkeypatch, capsys):
    """What they compute on the card, computed here: names and arguments are the same."""
    stages = script("device_stages")
    for name, value in {"T": 10, "B": 2, "H": 3, "ROUNDS": 1, "CELLS": ("tanh",)}.items():
        monkeypatch.setattr(stages, name, value)
    for name in ("gradient", "clip", "train"):
        plain = getattr(nf, name)
        monkeypatch.setattr(nf, name, lambda *given, plain=plain, backend, **asked: plain(*given, **asked))
    stages.hashes()
    assert len(capsys.readouterr().out.splitlines()) == 5


# --- asv_benchmarks/

METHODS = ("time_", "track_", "peakmem_")
FILES = sorted(path.stem for path in (ROOT / "asv_benchmarks" / "benchmarks").glob("[a-z]*.py"))


@pytest.fixture
def suite(script, peers, monkeypatch):
    """Return what imports a file of asv's benchmarks, for tiny networks."""
    monkeypatch.syspath_prepend(str(ROOT / "asv_benchmarks"))

    def of(name: str) -> Any:
        module = importlib.import_module(f"benchmarks.{name}")
        if hasattr(module, "USUAL"):
            monkeypatch.setattr(module, "USUAL", TEXT)
        if hasattr(module, "SECONDS"):
            monkeypatch.setattr(module, "SECONDS", 0.01)
        return module

    return of


def smallest(values: Any) -> Any:
    """Return the first value of a parameter; of shapes a tiny one."""
    return TEXT if isinstance(values[0], str) and values[0].count(",") == 3 else values[0]


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_asv(suite, monkeypatch, name):
    module = suite(name)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: None)  # a process that warms the cache for others
    kinds = [kind for kind in vars(module).values() if isinstance(kind, type) and kind.__module__ == module.__name__
             and any(method.startswith((*METHODS, "timeraw_")) for method in dir(kind))]  # fmt: skip
    for kind in kinds:
        one, given = kind(), [smallest(values) for values in getattr(kind, "params", [])]
        if hasattr(kind, "shape"):
            monkeypatch.setattr(kind, "shape", TEXT)
        try:
            getattr(one, "setup", lambda *_: None)(*given)
        except NotImplementedError:  # as asv skips what is not there: a card, PyTorch
            continue
        for method in (method for method in dir(kind) if method.startswith(METHODS)):
            found = getattr(one, method)(*given)
            assert not method.startswith("track_") or found > 0, (kind, method)
        for method in (method for method in dir(kind) if method.startswith("timeraw_")):
            exec(getattr(one, method)(), {})
    assert kinds or name == "common"
