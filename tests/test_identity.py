"""What tells compiled functions apart: what they do and reach, no name and no place; the unknown is said to be."""

import pickle
import sys
import textwrap
import types

import numpy as np
import pytest
from numba import extending

import nbflow as nf
from nbflow._compile import JIT, exactly, loop
from nbflow._identity import identity
from nbflow._load import load

pytestmark = pytest.mark.skipif(not JIT, reason="nothing is compiled")

HEAD = """
import numba
import math
import numpy as np
import nbflow as nf
from nbflow import scalars
from nbflow.scalars import ONE
"""
UNIT = """
K = 2.0
TABLE = np.array([1.0, 2.0])
PAIR = (1.0, 2)
@numba.njit
def helper(x):
    return K * x
def build(closed):
    @nf.unit
    def unit(x):
        return helper(scalars.tanh(x)) * TABLE[0] * PAIR[1] + closed * math.pi + ONE
    return unit
unit = build(3.0)
"""


class User:
    """A user's module, run from a text."""

    def __init__(self, text, name="a_users_module"):
        self.module = types.ModuleType(name)
        sys.modules[name] = self.module
        exec(compile(textwrap.dedent(HEAD) + text, f"<{name}>", "exec"), vars(self.module))

    def __call__(self, name="unit"):
        return identity(vars(self.module)[name])


@pytest.fixture(autouse=True)
def forget():
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("a_users"):
            del sys.modules[name]


def test_the_same_code_is_the_same_wherever_it_stands_and_however_often_it_is_asked_for():
    user = User(UNIT)
    assert user() is not None
    assert user() == user() == User("\n\n# A comment.\n" + UNIT)() == User(UNIT, "a_users_other_module")()


@pytest.mark.parametrize(("old", "new"), [
    ("K = 2.0", "K = 2"), ("K = 2.0", "K = np.float32(2)"), ("K * x", "x * K"), ("[1.0, 2.0]", "[1.0, 3.0]"),
    ("(1.0, 2)", "(1.0, 3)"), ("build(3.0)", "build(-3.0)"), ("tanh", "sigmoid"), ("nf.unit", "nf.exact_unit"),
    ("numba.njit", "numba.njit(fastmath=True)"), ("numba.njit", "numba.njit(error_model='numpy')"),
    ("+ closed", "- closed"), ("math.pi", "math.e"), ("+ ONE", "+ 1.0"), ("import ONE", "import TWO as ONE"),
])  # fmt: skip
def test_whatever_it_reaches_tells_it_apart(old, new):
    assert old in HEAD + UNIT
    other = User("from nbflow.scalars import TWO as ONE\n" + UNIT) if "import" in old else User(UNIT.replace(old, new))
    assert other() is not None
    assert other() != User(UNIT)()


def test_a_helper_of_a_helper_in_another_module_tells_it_apart():
    found = set()
    for k in (1, 2):
        User(f"@nf.unit\ndef deep(x): return {k} * x\n@nf.unit\ndef helper(x): return deep(x)", "a_users_helpers")
        found.add(User("import a_users_helpers\n@nf.unit\ndef unit(x): return a_users_helpers.helper(x)")())
    assert len(found - {None}) == 2


@pytest.mark.parametrize("text", [
    "def plain(x): return x\n@nf.unit\ndef unit(x): return plain(x)",  # somebody may have told numba what it is
    "class Thing: pass\nthing = Thing()\n@nf.unit\ndef unit(x): return thing.x",
    "@nf.unit\ndef unit(x): return later(x)",
    "import ctypes\nsqrt = ctypes.CDLL(None).sqrt\n@nf.unit\ndef unit(x): return sqrt(x)",
])  # fmt: skip
def test_what_reaches_what_cannot_be_looked_into_is_unknown(text):
    assert User(text)() is None


def test_a_function_of_a_library_that_a_user_has_overloaded_is_unknown():
    text = "@nf.unit\ndef unit(x): return np.nanprod(x) + np.trim_zeros(x)"
    assert User(text)() is not None

    @extending.overload(np.trim_zeros)
    def overloaded(x):
        return lambda x: x

    assert User(text)() is None


def test_a_global_that_changes_makes_a_unit_unknown_for_good():
    # What was compiled before stays in what is compiled later.
    user = User(UNIT)
    assert user() is not None
    user.module.K = 5.0
    assert user() is None
    user.module.K = 2.0
    assert user() is None


def test_a_helper_that_is_defined_anew_makes_a_unit_unknown():
    user = User(UNIT)
    exec("@numba.njit\ndef helper(x): return 7.0 * x", vars(user.module))
    assert user() is None


def test_what_was_compiled_before_it_was_first_seen_is_unknown():
    user = User("@numba.njit\ndef unit(x): return x")
    user.module.unit(1.0)
    assert user() is None


def test_a_unit_that_was_called_before_it_is_asked_for_is_known_since_it_was_made():
    user, other = User(UNIT), User(UNIT)
    user.module.unit(1.0)
    assert user() == other() is not None


def test_a_function_that_calls_itself_is_known():
    text = "@nf.unit\ndef unit(n):\n    if n < 2: return 1\n    return {} * unit(n - 1)"
    assert None not in {User(text.format("n"))(), User(text.format("2"))()}
    assert User(text.format("n"))() != User(text.format("2"))()


def test_a_copy_from_a_pickle_is_what_it_does_and_not_what_its_name_says():
    today = load("tasks", "addition").inputs
    copy = pickle.loads(pickle.dumps(today))
    assert identity(copy) == identity(today) is not None

    class Old:
        """The same name, from a version of which another number stood there."""

        @staticmethod
        def function():
            from nbflow.tasks import addition

            text = "def inputs(word, plan, t):\n    return (5.0, 1.0)"
            namespace = dict(vars(addition))
            exec(text, namespace)
            return namespace["inputs"]

    old = nf.unit(Old.function())
    assert (old.py_func.__module__, old.py_func.__qualname__) == (today.py_func.__module__, today.py_func.__qualname__)
    assert identity(old) not in (identity(today), None)
    assert identity(pickle.loads(pickle.dumps(old))) == identity(old)


def test_a_unit_that_is_compiled_anew_as_it_was_written_is_another_one():
    unit = User(UNIT).module.unit
    assert identity(exactly(unit)) not in (identity(unit), None)
    for name in nf.names("optimizers"):
        assert identity(exactly(load("optimizers", name).update)) is not None


def test_a_loop_is_known_by_what_its_closure_holds_even_if_nobody_says_so():
    def build(factor):
        @loop("the same")
        def times(a):
            a *= factor

        return times

    keys = {build(factor)._cache._index_key((), FakeCode)[-1] for factor in (1.0, 1, 2.0)}
    assert len(keys) == 3
    assert build(1.0)._cache._index_key((), FakeCode)[-1] in keys


class FakeCode:
    @staticmethod
    def magic_tuple():
        return ("a processor",)
