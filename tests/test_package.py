"""The public names: loaded when they are first used, documented, and what they are whatever is imported when."""

import ast
import importlib
import inspect
import json
import pickle
import pkgutil
import re
import subprocess
import sys

import pytest

import nbflow as nf
from nbflow._load import DECLARED, load

pytestmark = pytest.mark.sim

FUNCTIONS = sorted(name for name in nf.__all__ if inspect.isfunction(inspect.unwrap(getattr(nf, name))))
CLASSES = sorted(name for name in nf.__all__ if inspect.isclass(getattr(nf, name)))
# Public classes that users make by calling them with arguments of their own choice.
MADE_BY_USERS = ("Network", "Flow", "Clip", "HiddenClip", "HDetach", "Recipe")
METHODS = [("Task", "sample"), ("Task", "wrong")]


def fresh(script):
    """Run a script in a process of its own; return what it prints, as JSON."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", nf.__all__)
def test_every_public_name_is_there_and_listed(name):
    assert getattr(nf, name) is not None
    assert not inspect.ismodule(getattr(nf, name))
    assert name in dir(nf)


def test_the_names_that_others_rely_on_are_there():
    needed = (
        "Network init unpack pack load_task Batch gradient Flow Clip clip trace predict train Recipe workspace names"
    )
    assert set(needed.split()) | {"check_gradient", "evaluate", "Cell", "Loss"} <= set(nf.__all__)


def test_every_function_and_class_is_one_or_the_other():
    assert sorted(FUNCTIONS + CLASSES) == sorted(nf.__all__)


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        nf.nope  # noqa: B018
    assert not hasattr(nf, "nope")


def test_a_star_import_brings_the_public_names_and_no_others():
    script = """
import json
before = set(globals())
from nbflow import *
print(json.dumps(sorted(set(globals()) - before - {"before"})))
"""
    assert fresh(script) == sorted(nf.__all__)


def test_importing_loads_no_other_file_of_ours_and_no_library():
    script = """
import sys, json, nbflow
print(json.dumps([name for name in sys.modules if name.split(".")[0] in ("nbflow", "numba", "scipy", "numpy")]))
"""
    assert fresh(script) == ["nbflow"]


def test_no_public_name_brings_in_cuda():
    script = """
import sys, json, nbflow
[getattr(nbflow, name) for name in nbflow.__all__]
print(json.dumps([n for n in sys.modules if n.startswith(("nbflow.cuda", "numba.cuda", "numba_cuda"))]))
"""
    assert fresh(script) == []


def test_importing_and_loading_every_name_and_unit_compiles_nothing():
    script = """
import json, nbflow as nf
from numba.core import event
seen = event.RecordingListener()
event.register("numba:run_pass", seen)
[getattr(nf, name) for name in nf.__all__]
from nbflow._load import DECLARED, load
[load(package, name) for package in DECLARED for name in nf.names(package)]
print(json.dumps(len(seen.buffer)))
"""
    assert fresh(script) == 0


def test_what_a_type_checker_reads_is_what_python_does():
    block = next(node for node in ast.parse(inspect.getsource(nf)).body if isinstance(node, ast.If))
    read = {(node.module, alias.name, alias.asname) for node in block.body for alias in node.names}
    done = {(f"nbflow.{home}", name, name) for name, home in nf._HOME_OF.items()}
    assert read == done | {("nbflow", name, name) for name in nf._MODULES}


def test_public_modules_are_there_after_nothing_but_an_import():
    script = """
import json, nbflow
wanted = ["cells.lstm", "flows.flossing", "regularizers.flossing", "data.read_text", "data.TextTask",
          "statistics.passages", "scalars.ONE", "counter.draw", "trace.lyapunov_exponents", "trace.saturation"]
def found(name):
    here = nbflow
    for part in name.split("."):
        here = getattr(here, part)
    return here
print(json.dumps([name for name in wanted if found(name) is None]))
"""
    assert fresh(script) == []
    assert {"data", "plot", "scalars", "statistics"} <= set(dir(nf))
    for name in ("cells", "data"):
        with pytest.raises(AttributeError, match=f"module 'nbflow.{name}' has no attribute 'nope'"):
            getattr(nf, name).nope  # noqa: B018


def test_a_public_function_is_that_of_its_module_whatever_is_imported_before():
    for name, home in nf._HOME_OF.items():
        assert getattr(importlib.import_module(f"nbflow.{home}"), name) is getattr(nf, name)
        assert not inspect.ismodule(getattr(nf, name))


def test_the_other_ways_to_look_hang_on_trace():
    others = [name for name in dir(nf.trace) if not name.startswith("_")]
    assert len(others) == 11
    assert all(getattr(nf.trace, name) is getattr(nf, name) for name in others)
    assert pickle.loads(pickle.dumps(nf.trace)) is nf.trace
    assert nf.trace.__doc__ == inspect.unwrap(nf.trace).__doc__


@pytest.mark.parametrize("package", sorted(DECLARED))
def test_names_are_the_files_of_a_package_and_each_one_loads(package):
    module = importlib.import_module(f"nbflow.{package}")
    found = nf.names(package)
    assert isinstance(found, tuple)
    paths = [*module.__path__, *(nf.regularizers.__path__ if package == "flows" else ())]
    assert found == tuple(sorted(name for _, name, _ in pkgutil.iter_modules(paths)))
    assert len(found) > 1
    constant, kind = DECLARED[package]
    for name in found:
        declared = load(package, name)
        assert declared is getattr(getattr(module, name), constant)
        assert kind is None or isinstance(declared, kind)
        assert load(package, declared) is declared


@pytest.mark.parametrize("package", sorted(DECLARED))
def test_every_file_of_a_package_says_in_one_line_what_it_is(package):
    for name in nf.names(package):
        said = getattr(getattr(nf, package), name).__doc__
        assert said, name
        first = said.strip().splitlines()[0]
        assert len(first) > 20, name
        assert first.endswith((".", ":")) or said.strip().split("\n\n")[0].endswith("."), name


def documented_parameters(text):
    """Return the names that the Parameters section of a numpydoc docstring describes."""
    section = re.search(r"Parameters\n-+\n(.*?)(?:\n\n?\w[^\n]*\n-+\n|\Z)", text, re.DOTALL)
    if not section:
        return set()
    heads = re.findall(r"^(\*{0,2}\w[\w, *]*?)(?: :.*)?$", section[1], re.MULTILINE)
    return {name.strip().lstrip("*") for head in heads for name in head.split(",")}


def subjects():
    for name in FUNCTIONS:
        yield name, inspect.unwrap(getattr(nf, name))
    for owner, name in METHODS:
        yield f"{owner}.{name}", getattr(getattr(nf, owner), name)


@pytest.mark.parametrize(("name", "function"), list(subjects()), ids=lambda v: v if isinstance(v, str) else "")
def test_every_public_function_says_what_it_takes_and_returns_and_shows_it(name, function):
    text = inspect.getdoc(function)
    assert text
    assert "Returns\n-------" in text
    assert "Examples\n--------" in text
    assert ">>> " in text
    wanted = {p for p in inspect.signature(function).parameters if p != "self"}
    assert documented_parameters(text) == wanted


@pytest.mark.parametrize("name", CLASSES)
def test_every_public_class_says_what_it_is(name):
    text = inspect.getdoc(getattr(nf, name))
    assert text
    # Not the signature that a dataclass or a NamedTuple writes for itself.
    assert not text.startswith(f"{name}(")


@pytest.mark.parametrize("name", MADE_BY_USERS)
def test_every_record_that_users_make_documents_its_fields(name):
    import dataclasses

    record = getattr(nf, name)
    assert documented_parameters(inspect.getdoc(record)) == {f.name for f in dataclasses.fields(record)}
