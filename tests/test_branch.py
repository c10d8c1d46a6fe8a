"""Claims about what a run is known by, and about runs that branch from another one."""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import scipy.interpolate
import scipy.special
from cases import OPTIMIZERS
from test_resume import NET, RECIPE, TASK, THETA, recipe
from tolerance import near, same_bits

import nbflow as nf
from nbflow.training._identity import codes_of, describe

# --- What a run is known by.


def warm(update, steps):
    return 0.1 * min(1, (update + 1) / steps)


class Holds:
    """A schedule that is an object, with something in it that has no name."""

    def __init__(self, rate):
        self.rate, self.lock, self.table = rate, threading.Lock(), np.arange(3.0)

    def __call__(self, update):
        return self.rate

    def at(self, update):
        return self.rate


class Slotted:
    __slots__ = ("rate",)

    def __init__(self, rate):
        self.rate = rate

    def __call__(self, update):
        return self.rate


def scaled(update, function=None, by=1.0):
    return by * float(function(0.0))


# Each as a function of a number, by which two differ.
SCHEDULES = {
    "partial": lambda x: functools.partial(warm, steps=10 * x),
    "partial of a partial": lambda x: functools.partial(functools.partial(warm), steps=10 * x),
    "object": lambda x: Holds(0.1 * x),
    "object with slots": lambda x: Slotted(0.1 * x),
    "method": lambda x: Holds(0.1 * x).at,
    "list": lambda x: ([0.1 * x] * 30).__getitem__,
    "array": lambda x: np.full(30, 0.1 * x).__getitem__,
    "numpy": lambda x: functools.partial(scaled, function=np.exp, by=0.1 * x),
    "scipy": lambda x: functools.partial(scaled, function=scipy.special.expit, by=0.1 * x),
    "spline": lambda x: scipy.interpolate.CubicSpline([0, 15, 31], [0.1 * x, 0.2, 0.1]),
    "polynomial": lambda x: np.polynomial.Polynomial([0.1 * x]),
    "vectorized": lambda x: functools.partial(np.vectorize(warm), steps=10 * x),
    "closure": lambda x: lambda update: 0.1 * x,
    "default": lambda x: functools.partial(lambda update, rate=0.1 * x: rate),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_run_goes_on_with_whatever_schedule_it_had_and_not_with_another(tmp_path, name):
    make, path = SCHEDULES[name], tmp_path / "run.npz"
    short = recipe(lr=make(1), max_updates=8)
    nf.train(NET, THETA, TASK, short, checkpoint=path)
    on = nf.train(NET, THETA, TASK, recipe(lr=make(1), max_updates=16), checkpoint=path)
    assert same_bits(on.theta, nf.train(NET, THETA, TASK, recipe(lr=make(1), max_updates=16)).theta)
    with pytest.raises(ValueError, match=r"belongs to another training: lr\b"):
        nf.train(NET, THETA, TASK, recipe(lr=make(2), max_updates=16), checkpoint=path)


PROGRAM = """
import functools, sys
import numpy as np, scipy.interpolate, scipy.special
sys.path.insert(0, {tests!r})
from nbflow.training._identity import codes_of, describe
from test_branch import SCHEDULES
print([(describe(make(1)), codes_of({{"lr": make(1)}})) for make in SCHEDULES.values()])
"""


def test_what_a_function_is_known_by_is_the_same_in_every_process():
    program = PROGRAM.format(tests=str(Path(__file__).parent))
    said = [
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert said[0] == said[1]
    assert len(said[0]) > 1000
    assert " at 0x" not in said[0]


def test_functions_are_known_by_module_and_name():
    assert describe(np.exp) == "numpy.exp"
    assert describe(scipy.special.expit).endswith(".expit")
    assert describe(math.sqrt) == "math.sqrt"
    assert describe(warm) == f"{__name__}.warm"
    assert describe(operator.itemgetter(2)) != describe(operator.itemgetter(3))
    large = np.arange(1e5)
    assert describe(large) == describe(large.copy())
    assert describe(large) != describe(large + 1)
    assert len(str(describe(large))) < 200


def code(text, **around):
    """Return the hash of the function `f` that a text defines among these globals."""
    names = {"__name__": "mine", **around}
    exec(text, names)
    return codes_of({"f": names["f"]})["f"]


def test_a_function_is_known_by_what_it_says_and_not_by_comments_or_places():
    plain = code("def f(u):\n    return 0.1 / (1 + u)\n")
    assert plain == code("\n\n# words\ndef f(u):\n    'what it does'\n\n    return 0.1 / (1 + u)  # more\n")
    others = ["return 0.2 / (1 + u)", "return 0.1 / (2 + u)", "return 0.1 * (1 + u)", "return 0.1"]
    assert len({plain, *(code(f"def f(u):\n    {line}\n") for line in others)}) == 5
    constant = [code("def f(u):\n    return RATE\n", RATE=rate) for rate in (0.1, 0.1, 0.2)]
    assert constant[0] == constant[1] != constant[2]
    called = [code("def g(u):\n    return RATE\n\ndef f(u):\n    return g(u)\n", RATE=rate) for rate in (0.1, 0.2)]
    assert called[0] != called[1]
    assert code("def f(u, a=1):\n    return a\n") != code("def f(u, a=2):\n    return a\n")
    memory = [code("def f(u):\n    seen.append(u)\n    return 0.1\n", seen=seen) for seen in ([], [1, 2])]
    assert memory[0] == memory[1], "what it writes into is its memory"
    code("def f(u):\n    return f(u - 1) if u else 1.0\n")  # which ends


def test_what_a_unit_of_ones_own_says_counts_too(tmp_path):
    def value(by):
        @nf.exact_unit
        def threshold(norm, memory, settings, update):
            return by

        return nf.Clip("norm", nf.Threshold(threshold))

    path = tmp_path / "run.npz"
    nf.train(NET, THETA, TASK, recipe(clip=value(0.5), max_updates=3), checkpoint=path)
    nf.train(NET, THETA, TASK, recipe(clip=value(0.5), max_updates=4), checkpoint=path)
    with pytest.raises(ValueError, match=r"another training: clip.threshold.value has other code there"):
        nf.train(NET, THETA, TASK, recipe(clip=value(0.25), max_updates=4), checkpoint=path)


def test_a_sweep_still_refuses_what_has_no_name():
    for rate in (Holds(0.1), lambda update: 0.1, functools.partial(lambda update: 0.1)):
        with pytest.raises(ValueError, match="no name of its own"):
            nf.Experiment("temporal_order", nf.Recipe(lengths=10, lr=rate))
    nf.Experiment("temporal_order", nf.Recipe(lengths=10, lr=functools.partial(warm, steps=10)))


# --- What may change when a run goes on.


@pytest.mark.parametrize("often", [1, 5, 300])
def test_rows_and_evaluations_may_come_at_other_updates_when_a_run_goes_on(tmp_path, often):
    path, change = tmp_path / "run.npz", {"record_every": often, "evaluate_every": 3, "evaluate_size": 7}
    nf.train(NET, THETA, TASK, recipe(max_updates=13, record_every=10), checkpoint=path)
    run = nf.train(NET, THETA, TASK, recipe(**change), checkpoint=path)
    whole = nf.train(NET, THETA, TASK, RECIPE)
    assert same_bits(run.theta, whole.theta)
    assert run.history["update"] == sorted({10, 13, 30, *(k for k in range(14, 30) if k % often == 0)})
    assert run.evaluations["update"] == [5, 10, 13, 15, 18, 21, 24, 27, 30]
    assert run.recipe["record_every"] == nf.load_run(path).recipe["record_every"] == often
    rows = run.history
    counts = np.diff([0, *rows["update"]])
    means = nf.train(NET, THETA, TASK, recipe(record_every=1)).history["loss"]
    for end, count, loss in zip(rows["update"], counts, rows["loss"], strict=True):
        assert loss == near(np.mean(means[end - count : end]))


# --- Branches.


def branch(path, **changes):
    return nf.train(NET, THETA, TASK, recipe(**changes), start_from=path)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("replicas", [None, 3])
def test_a_branch_with_the_same_recipe_is_the_run_itself(tmp_path, optimizer, replicas):
    """Parameters, moments, count, memory of the threshold, draws: all that an update depends on."""
    theta, path = nf.init(NET, "smart_tanh", rng=0, replicas=replicas), tmp_path / "run.npz"
    nf.train(NET, theta, TASK, recipe(optimizer=optimizer, max_updates=13), checkpoint=path)
    on = nf.train(NET, theta, TASK, recipe(optimizer=optimizer), start_from=path)
    whole = nf.train(NET, theta, TASK, recipe(optimizer=optimizer))
    assert same_bits(on.theta, whole.theta)
    assert on.updates == 30
    assert on.history["update"] == [14, 21, 28, 30]
    assert on.history["loss"][1:] == whole.history["loss"][2:]
    assert on.history["threshold"] == whole.history["threshold"][1:]
    assert on.evaluations == {name: column[-4:] for name, column in whole.evaluations.items()}


CHANGES = {
    "rate": {"lr": 0.05},
    "schedule": {"lr": lambda update: 0.2 / update},
    "threshold": {"clip": nf.Clip("norm", 0.01)},
    "policy": {"clip": dataclasses.replace(RECIPE.clip, nonfinite="skip")},
    "no clip": {"clip": None},
    "flow": {"flow": nf.Flow("norm", 0.5)},
    "length": {"max_updates": 40},
    "batches": {"batch_size": 2, "lengths": 11},
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_branch_goes_on_with_another_recipe_as_if_it_had_changed_there(tmp_path, change):
    """The schedule and the source of one whole run, which change at update 13, are the reference."""
    path, new = tmp_path / "run.npz", CHANGES[change]
    plain = {"clip": nf.Clip("norm", 0.5), "optimizer": "adam", "evaluate_every": 0}
    before = nf.train(NET, THETA, TASK, recipe(**plain, max_updates=13), checkpoint=path)
    saved = path.read_bytes()
    run = branch(path, **(plain | new))
    assert path.read_bytes() == saved
    assert run.updates == new.get("max_updates", 30)
    assert run.history["update"][0] == 14
    assert not same_bits(run.theta, before.theta)
    if change in ("rate", "schedule"):
        rate = new["lr"]
        both = lambda update: 0.2 if update < 13 else rate(update) if callable(rate) else rate  # noqa: E731
        whole = nf.train(NET, THETA, TASK, recipe(**(plain | {"lr": both})))
        assert same_bits(run.theta, whole.theta)
    if change == "threshold":
        both = nf.Clip("norm", lambda update: 0.5 if update < 13 else 0.01)
        assert same_bits(run.theta, nf.train(NET, THETA, TASK, recipe(**(plain | {"clip": both}))).theta)


def test_a_branch_has_a_checkpoint_of_its_own_and_goes_on_though_the_other_run_moved_or_is_gone(tmp_path):
    one, two = tmp_path / "one.npz", tmp_path / "two.npz"
    nf.train(NET, THETA, TASK, recipe(max_updates=13), checkpoint=one)
    nf.train(NET, THETA, TASK, recipe(lr=0.05, max_updates=20), start_from=one, checkpoint=two)
    call = {"net": NET, "theta": THETA, "task": TASK, "recipe": recipe(lr=0.05), "checkpoint": two}
    expected, middle = (branch(one, lr=0.05, max_updates=end).theta for end in (30, 25))
    nf.train(NET, THETA, TASK, recipe(max_updates=15), checkpoint=one)  # the other run goes on
    assert same_bits(nf.train(**(call | {"recipe": recipe(lr=0.05, max_updates=25)}), start_from=one).theta, middle)
    one.unlink()
    Path(f"{one}.before").unlink()
    assert same_bits(nf.train(**call, start_from=one).theta, expected)
    with pytest.raises(ValueError, match="another training: start"):
        nf.train(**call)


def test_a_branch_of_another_run_is_refused_where_a_branch_is(tmp_path):
    paths = [tmp_path / f"{name}.npz" for name in "abc"]
    nf.train(NET, THETA, TASK, recipe(max_updates=13), checkpoint=paths[0])
    nf.train(NET, THETA, TASK, recipe(max_updates=13), checkpoint=paths[1], seed=1)
    call = {"net": NET, "theta": THETA, "task": TASK, "recipe": recipe(max_updates=14), "checkpoint": paths[2]}
    nf.train(**call, start_from=paths[0])
    with pytest.raises(ValueError, match=r"another training: start\.of"):
        nf.train(**call, start_from=paths[1])
    with pytest.raises(ValueError, match="another training: start"):
        nf.train(**(call | {"checkpoint": paths[0], "recipe": recipe()}), start_from=paths[1])


def test_theta_of_a_branch_is_that_of_the_other_run(tmp_path):
    path = tmp_path / "run.npz"
    run = nf.train(NET, THETA, TASK, recipe(max_updates=13), checkpoint=path)
    there = nf.train(NET, run.theta, TASK, recipe(), start_from=path)
    assert same_bits(there.theta, branch(path).theta)
    with pytest.raises(ValueError, match="theta is neither where the run of start_from began nor where it is"):
        nf.train(NET, THETA + np.float32(1), TASK, recipe(), start_from=path)


def test_what_cannot_be_branched_from_is_refused(tmp_path):
    path = tmp_path / "run.npz"
    nf.train(NET, THETA, TASK, recipe(max_updates=13), checkpoint=path)
    with pytest.raises(ValueError, match=r"start_from is .* a run of another kind: optimizer"):
        branch(path, optimizer="adam")
    with pytest.raises(ValueError, match=r"max_updates is 12; expected at least 13"):
        branch(path, max_updates=12)
    with pytest.raises(ValueError, match=r"start_from is .* a run of another kind: single"):
        nf.train(NET, THETA[None], TASK, recipe(), start_from=path)
    net = dataclasses.replace(NET, n_hidden=9)
    with pytest.raises(ValueError, match=r"start_from is .* a run of another kind: net.n_hidden"):
        nf.train(net, nf.init(net, "smart_tanh", rng=0), TASK, recipe(), start_from=path)
    with pytest.raises(FileNotFoundError, match="is not there"):
        branch(tmp_path / "none.npz")
    with pytest.raises(TypeError, match="start_from is a int; expected a path"):
        branch(3)


def test_what_an_error_recommends_is_done(tmp_path):
    """A run that policy "raise" ended goes on with another policy from the update before."""
    path = tmp_path / "run.npz"

    def source(update):
        batch = TASK.sample(seed=0, index=update, batch_size=3, length=10)
        if update == 4:
            batch.weights[-1] = np.float32(3e38)
        return batch

    clip = nf.Clip("norm", 0.5, "raise")
    with pytest.raises(FloatingPointError, match="another nonfinite policy"):
        nf.train(NET, 50 * THETA, source, recipe(clip=clip, max_updates=8), checkpoint=path)
    skipping = recipe(clip=dataclasses.replace(clip, nonfinite="skip"), max_updates=8)
    on = nf.train(NET, 50 * THETA, source, skipping, start_from=path)
    assert same_bits(on.theta, nf.train(NET, 50 * THETA, source, skipping).theta)
    assert on.history["nonfinite"] == [1, 0]
