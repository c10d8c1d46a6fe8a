"""Claims about notebooks and prompts: what workers cannot import is refused by name, last words are heard."""

from __future__ import annotations

import functools
import importlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import BrokenExecutor
from pathlib import Path

import pytest

import nbflow as nf
from nbflow import _progress
from nbflow._compile import JIT
from nbflow.experiments import _pool

ROOT = Path(nf.__file__).parent.parent
SWEEP = """
import sys, nbflow as nf
from concurrent.futures import ThreadPoolExecutor
class Halving:
    pass
def halving(update):
    return 0.1 * 0.5**update
one = nf.Experiment("temporal_order", nf.Recipe(lr=halving, lengths=10, max_updates=2, evaluate_every=0), n_hidden=5)
"""
TRAIN = """
import nbflow as nf
net = nf.Network("tanh", 6, 5, 4)
def told(run):
    print("going", flush=True)
recipe = nf.Recipe(lengths=10, max_updates=10**7, record_every=50, evaluate_every=0)
run = nf.train(net, nf.init(net, "smart_tanh", rng=0), "temporal_order", recipe, callbacks=[told], progress=True)
print("kept", run.interrupted, run.updates > 0, len(run.history["loss"]) > 0, flush=True)
"""


def prompt(script: str) -> subprocess.Popen[str]:
    """Start a process whose `__main__` has no file, as a notebook's."""
    own = os.environ | {"PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", script], env=own, **pipes)


def test_a_schedule_of_a_notebook_is_refused_by_name_before_a_worker_starts(tmp_path):
    script = f"""{SWEEP}
from nbflow.experiments import _pool
_pool._Process.start = lambda self: sys.exit("a worker was started")
nf.sweep(one, 2, r"{tmp_path / "runs.jsonl"}", progress=False)
"""
    process = prompt(script)
    _, error = process.communicate(timeout=100)
    assert process.returncode == 1
    assert "ValueError: recipe.lr is halving, defined in a notebook" in error
    assert "file of its own" in error
    assert not (tmp_path / "runs.jsonl").exists()


def test_threads_train_with_a_schedule_of_a_notebook(tmp_path):
    place = tmp_path / "runs.jsonl"
    script = f"""{SWEEP}
with ThreadPoolExecutor(1) as executor:
    print(nf.sweep(one, 2, r"{place}", executor=executor, progress=False).missing)
"""
    process = prompt(script)
    out, error = process.communicate(timeout=300)
    assert (out, process.returncode) == ("0\n", 0), error


def test_a_main_that_has_a_file_or_is_a_module_hides_nothing(monkeypatch):
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "__file__", None, raising=False)
    monkeypatch.setattr(main, "__spec__", None)
    assert _pool.hides_main(None)
    with _pool.local_pool(1) as executor:
        assert _pool.hides_main(executor)
    assert not _pool.hides_main(object())  # as Dask's, which sends code
    monkeypatch.setattr(main, "__file__", "script.py")
    assert not _pool.hides_main(None)


def say_and_die(words: str) -> None:
    """End as a library does that has run out of something."""
    os.write(2, words.encode())
    os._exit(3)


@pytest.mark.skipif(os.name != "posix", reason="no process inherits the number of a file")
def test_a_workers_last_words_are_passed_on_and_kept(capfd):
    with _pool.local_pool(1) as executor, pytest.raises(BrokenExecutor):
        executor.submit(say_and_die, "first line\nout of registers\n").result(timeout=60)
    assert _pool.last_words().splitlines() == ["first line", "    out of registers"]
    assert _pool.last_words() == ""
    assert "out of registers" in capfd.readouterr().err


def die(jobs: object) -> None:
    """Die as a worker of a sweep."""
    say_and_die("terminate called: no room for a stack\n")


@pytest.mark.skipif(os.name != "posix", reason="no process inherits the number of a file")
def test_a_sweep_whose_workers_die_reports_their_last_words(tmp_path, monkeypatch):
    module = importlib.import_module("nbflow.experiments.sweep")
    monkeypatch.setattr(module, "run_group", die)
    one = nf.Experiment("temporal_order", nf.Recipe(lengths=10, max_updates=2, evaluate_every=0), n_hidden=5)
    with pytest.raises(RuntimeError, match="last words:\n    terminate called: no room for a stack"):
        nf.sweep(one, 1, tmp_path / "runs.jsonl", workers=1, progress=False)


@pytest.mark.skipif(os.name != "posix" or not JIT, reason="no signals, or too slow")
def test_interrupt_at_a_prompt_keeps_the_run():
    process = prompt(TRAIN)
    assert process.stdout is not None
    assert process.stdout.readline() == "going\n"
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=100)
    assert process.returncode == 0, error
    assert out.splitlines()[-1] == "kept True True True"


@pytest.mark.sim
def test_an_interrupt_in_another_thread_keeps_the_run():
    net = nf.Network("tanh", 6, 5, 4)
    recipe = nf.Recipe(lengths=10, batch_size=2, max_updates=20, record_every=2, evaluate_every=0)
    runs = []

    def interrupt(run: nf.Run) -> None:
        if run.updates == 4:
            raise KeyboardInterrupt

    def train() -> None:
        theta = nf.init(net, "smart_tanh", rng=0)
        runs.append(nf.train(net, theta, "temporal_order", recipe, callbacks=[interrupt], progress=True))

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    (run,) = runs
    assert run.interrupted
    assert run.updates == 4
    assert len(run.history["loss"]) == 2


@pytest.mark.sim
def test_progress_of_a_training_changes_no_bit_and_says_updates_loss_and_score(monkeypatch, capsys):
    module = importlib.import_module("nbflow.training.train")
    monkeypatch.setattr(module, "shown", functools.partial(_progress.shown, seconds=0.0))
    net = nf.Network("tanh", 6, 5, 4)
    recipe = nf.Recipe(lengths=10, batch_size=2, max_updates=6, record_every=2, evaluate_every=3, evaluate_size=4)
    theta = nf.init(net, "smart_tanh", rng=0)
    quiet = nf.train(net, theta, "temporal_order", recipe)
    assert capsys.readouterr().err == ""
    shown = nf.train(net, theta, "temporal_order", recipe, progress=True)
    assert shown.theta.tobytes() == quiet.theta.tobytes()
    last = capsys.readouterr().err.splitlines()[-1]
    assert re.match(r"6 of 6 updates, loss [\d.]+, score [\d.]+", last)


def test_a_notebook_gets_a_bar(monkeypatch):
    rich = pytest.importorskip("rich.console")
    monkeypatch.setitem(sys.modules, "IPython", object())
    monkeypatch.setattr(rich, "_is_jupyter", lambda: True)
    drawn = []
    monkeypatch.setattr(_progress, "_bars", lambda console: drawn.append(console) or _Bars())
    with _progress.shown() as show:
        show("", 1, 2)
    assert drawn == [None]


class _Bars:
    def __enter__(self):
        return lambda *arguments: None

    def __exit__(self, *error):
        return None


def test_who_has_no_rich_gets_lines(monkeypatch, capsys):
    monkeypatch.setattr(_progress.importlib.util, "find_spec", lambda name: None)
    with _progress.shown(seconds=0.0) as show:
        show("", 1, 2)
        time.sleep(0.01)
        show("", 2, 2)
    assert capsys.readouterr().err.splitlines()[-1].startswith("2 of 2")
