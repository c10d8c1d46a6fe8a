"""Claims about notebooks and prompts: what workers cannot import is refused by name, last words are heard."""

from __future__ import annotations

import asyncio
import functools
import importlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
import types
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
    module = importlib.import_module("nbflow.experiments._driver")
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


def test_a_cell_gets_one_bar_that_changes_in_its_place_without_rich_or_widgets(monkeypatch):
    drawn, changed = [], []

    class Handle:
        def update(self, shown):
            changed.append((repr(shown), shown._repr_html_()))

    def display(shown, display_id):
        drawn.append(repr(shown))
        return Handle()

    shell = types.SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "IPython.display", types.SimpleNamespace(display=display))
    monkeypatch.setattr(_progress.importlib.util, "find_spec", lambda name: None)
    with _progress.shown() as show:
        show("", 1, 4, "a < b")
        for done in range(1000):  # no message for each
            show("raking", done, 2000)
    assert drawn == [" 25% a < b"]
    assert len(changed) < 50
    text, html = changed[-1]
    assert text.splitlines()[0] == " 25% a < b"
    assert re.match(r" 50% raking: 999 of 2,000, \d+ s left", text.splitlines()[1])
    assert html.startswith('<div><progress value="1" max="4"></progress> a &lt; b<br><progress value="999" max="2000">')


def test_ipython_in_a_terminal_is_no_notebook(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: None))
    with _progress.shown(seconds=0.0) as show:
        show("", 1, 2)
    assert capsys.readouterr().err.splitlines() == ["1 of 2"]


def test_who_has_no_rich_gets_lines(monkeypatch, capsys):
    monkeypatch.setattr(_progress.importlib.util, "find_spec", lambda name: None)
    with _progress.shown(seconds=0.0) as show:
        show("", 1, 2)
        time.sleep(0.01)
        show("", 2, 2)
    assert capsys.readouterr().err.splitlines()[-1].startswith("2 of 2")


# --- Real kernels.


def executed(*cells, meanwhile=None):
    """Execute cells in a kernel as a notebook does; return for each its outputs."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    client = nbclient.NotebookClient(book, timeout=200, kernel_name="python3", allow_errors=True)
    if meanwhile is not None:
        threading.Thread(target=meanwhile, args=(client,), daemon=True).start()
    # The kernel is told of this checkout, and not to say that kernels are compiled.
    client.execute(env=os.environ | {"PYTHONPATH": str(ROOT), "NBFLOW_QUIET": "1"})
    return [cell.outputs for cell in book.cells]


def texts(outputs):
    return "".join(output.get("text", "") for output in outputs)


@pytest.mark.skipif(not JIT, reason="too slow")
@pytest.mark.filterwarnings("ignore")  # of the libraries that start a kernel
def test_a_notebook_shows_a_bar_and_refuses_its_own_schedule_before_a_worker_starts(tmp_path):
    place = tmp_path / "runs.jsonl"
    train = TRAIN.replace("10**7", "2000").replace(", callbacks=[told]", "")
    count = """
from nbflow.experiments import _pool
_pool._Process.start = lambda self: print("a worker was started")
"""
    trained, one, _, refused = executed(train, SWEEP, count, f"nf.sweep(one, 2, {str(place)!r})")
    assert [output["output_type"] for output in trained] == ["display_data", "stream"]
    assert "<progress" in trained[0]["data"]["text/html"]
    assert re.match(r"100% 2,000 of 2,000 updates, loss [\d.]+$", trained[0]["data"]["text/plain"])
    assert texts(trained) == "kept False True True\n"
    assert one == []
    assert [output["output_type"] for output in refused] == ["error"]
    assert "recipe.lr is halving, defined in a notebook" in refused[0]["evalue"]
    assert not place.exists()


@pytest.mark.skipif(os.name != "posix" or not JIT, reason="no signals, or too slow")
@pytest.mark.filterwarnings("ignore")
def test_interrupt_of_a_kernel_keeps_the_run_and_the_next_cell_goes_on(tmp_path):
    begun = tmp_path / "begun"

    def interrupt(client):
        while not begun.exists():
            time.sleep(0.05)
        asyncio.run(client.km.interrupt_kernel())

    train = TRAIN.replace('print("going", flush=True)', f"open({str(begun)!r}, 'w').close()")
    trained, after = executed(train, "print(run.theta.shape, run.interrupted)", meanwhile=interrupt)
    assert [output["output_type"] for output in trained] == ["display_data", "stream"]
    assert texts(trained) == "kept True True True\n"
    assert texts(after).endswith(" True\n")
