"""Claims about units of one's own: what they say of themselves is held to what they do, on both backends."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from tolerance import near, within

import nbflow as nf
from nbflow import _probe, scalars
from nbflow._compile import JIT
from nbflow._load import load
from nbflow.records import Regularizer
from nbflow.scalars import HALF, ONE

NET = nf.Network("tanh", 6, 3, 4, dtype="float64")
TASK = nf.load_task("temporal_order")
RECIPE = nf.Recipe(lengths=10, max_updates=4, record_every=1, evaluate_every=0, batch_size=2)


def theta_of(net=NET):
    return nf.init(net, "glorot", rng=0)


@nf.unit
def leaky(a_in, a_rec, s):
    a = scalars.tanh(a_in[0] + a_rec[0])
    return (HALF * s[0] + HALF * a,), (a,)


@nf.unit
def straight(saved, s, s_next, d):
    return (d[0],), (d[0],), ()


@nf.unit
def sign(a_in, a_rec, s):
    return (ONE if a_in[0] + a_rec[0] > 0 else -ONE,), ()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nbflows_own_units_pass_what_those_of_others_are_held_to(dtype):
    checks = {"cells": _probe.check_cell, "losses": _probe.check_loss, "flows": _probe.check_penalty,
              "clips": _probe.check_rule, "optimizers": _probe.check_optimizer}  # fmt: skip
    for package, check in checks.items():
        for name in nf.names(package):
            unit = load(package, name)
            if isinstance(unit, nf.StatefulRule):
                _probe.check_stateful_rule(unit, dtype)
            elif not isinstance(unit, Regularizer):
                check(unit, dtype)
    for name in nf.names("thresholds"):
        _probe.check_threshold(load("thresholds", name))


@pytest.mark.sim
def test_a_cell_that_looks_at_its_state_has_to_say_so():
    cell = nf.Cell(gates=("a",), states=("h",), step=leaky, saved=("a",))
    with pytest.raises(ValueError, match=r"Cell\.carries is False, and step looks at s.*Write carries=True"):
        nf.Network(cell, 6, 3, 4)


@pytest.mark.sim
def test_saturation_reads_the_gate_and_no_mixture_of_it_and_the_state():
    cell = nf.Cell(gates=("a",), states=("h",), step=leaky, saved=("a",), carries=True, ranges=((-1.0, 1.0),))
    with pytest.raises(ValueError, match=r"Cell\.ranges is given, and saved has no a"):
        nf.Network(dataclasses.replace(cell, saved=("b",)), 6, 3, 4)
    net = nf.Network(cell, 6, 3, 4)
    theta = theta_of(net)
    nf.unpack(net, theta).bias[:] = 5
    part = nf.saturation(net, theta, TASK.sample(seed=0, index=0, batch_size=3, length=10)).part.mean
    assert part == near([1.0])


@pytest.mark.sim
def test_a_derivative_that_is_meant_to_be_another_one_is_believed_where_the_cell_says_so():
    cell = nf.Cell(gates=("a",), states=("h",), step=sign, step_vjp=straight)
    with pytest.raises(ValueError, match=r"Cell\.step_vjp gives .* where differences of step give 0.*surrogate=True"):
        nf.Network(cell, 6, 3, 4)
    net = nf.Network(dataclasses.replace(cell, surrogate=True), 6, 3, 4, dtype="float64")
    batch = TASK.sample(seed=0, index=0, batch_size=2, length=10, dtype="float64")
    wanted = nf.gradient(dataclasses.replace(net, cell="linear"), theta_of(net), batch).d_theta
    got = nf.gradient(net, theta_of(net), batch).d_theta
    assert got.shape == wanted.shape
    assert np.abs(nf.unpack(net, got).w_in).max() > 0


@nf.unit
def late(norm, memory, settings, update):
    if update == 2:
        raise RuntimeError("the user's own")
    return 1.0


@nf.unit
def far(norm, memory, settings, update):
    return memory[0 if update < 2 else 10**7] + 1.0


@nf.unit
def at_two(norm, memory, settings, update):
    return memory[2] + settings[0]


@nf.unit
def count(norm, memory, settings):
    memory[1] += 1.0


@pytest.mark.sim
def test_what_a_threshold_raises_reaches_the_caller_with_what_was_done():
    clip = nf.Clip("norm", nf.Threshold(value=late))
    with pytest.raises(RuntimeError, match="the user's own") as raised:
        nf.train(NET, theta_of(), TASK, dataclasses.replace(RECIPE, clip=clip))
    assert raised.value.run.updates == 2


@pytest.mark.sim
def test_a_threshold_that_looks_beyond_its_memory_says_so_at_that_update():
    clip = nf.Clip("norm", nf.Threshold(value=far, memory=1))
    with pytest.raises(ValueError, match="memory 1 and 0 settings, and its units look for more") as raised:
        nf.train(NET, theta_of(), TASK, dataclasses.replace(RECIPE, clip=clip))
    assert raised.value.run.updates == 2


@pytest.mark.skipif(not JIT, reason="nothing is compiled")
def test_the_card_takes_thresholds_whose_places_are_known():
    def how(**fields):
        return nf.Threshold(**{"value": at_two, "learn": count, "settings": {"first": 1.0}, **fields})

    assert _probe.stays_inside(how(), 3)
    assert not _probe.stays_inside(how(), 2)
    assert not _probe.stays_inside(how(value=far), 3)
    assert not _probe.stays_inside(how(value=late), 3)


@nf.exact_unit
def own_inputs(word, plan, t):
    return (t + plan[2]) % 6


@pytest.mark.sim
def test_a_task_of_ones_own_is_the_same_on_the_card_where_the_host_draws_it():
    task = dataclasses.replace(TASK, inputs=own_inputs)
    recipe = dataclasses.replace(RECIPE, max_updates=2, evaluate_every=2, evaluate_size=4)
    runs = [nf.train(NET, theta_of(), task, recipe, backend=backend) for backend in backends()]
    for run in runs:
        np.testing.assert_allclose(run.theta, runs[0].theta, rtol=within("float64", 10, 30, condition=100))
        assert run.evaluations["score"] == runs[0].evaluations["score"]


def backends():
    """Return the card too where there is one or its simulator."""
    return ("cpu",) if JIT else ("cpu", "cuda")


@nf.exact_unit
def beyond(word, plan, t):
    return 6 if t == 3 else 0


@pytest.mark.sim
def test_symbols_beyond_the_inputs_never_reach_a_kernel():
    task = dataclasses.replace(TASK, inputs=beyond)
    for backend in backends():
        with pytest.raises(ValueError, match=r"Task drew what is no batch for it: inputs has tokens from 0 to 6"):
            nf.train(NET, theta_of(), task, RECIPE, backend=backend)
    for use in (nf.evaluate, lambda *a, **k: task.sample(seed=0, index=0, batch_size=1, length=10)):
        with pytest.raises(ValueError, match="inputs has tokens from 0 to 6"):
            use(NET, theta_of(), task, length=10, size=2)


def test_a_text_that_was_changed_is_looked_at_again():
    tokens = np.zeros(300, np.int32)
    text = nf.data.Text(tokens, ("a", "b"))
    task = nf.data.TextTask(text, text)
    net = nf.Network("tanh", 2, 3, 2)
    tokens[:] = 9
    with pytest.raises(ValueError, match="TextTask drew what is no batch for it: inputs has tokens from 9 to 9"):
        nf.train(net, theta_of(net), task, RECIPE)


def test_a_probe_is_made_once(monkeypatch):
    cell = nf.Cell(gates=("a",), states=("h",), step=leaky, saved=("a",), carries=True)
    nf.Network(cell, 2, 3, 2)

    def again(*arguments):
        raise AssertionError("tried again")

    monkeypatch.setattr(_probe.cells, "_try_step", again)
    nf.Network(cell, 4, 5, 6)


def test_the_largest_numbers_of_a_gate_may_be_endless():
    cell = dataclasses.replace(load("cells", "relu"), ranges=((0.0, math.inf),))
    assert nf.Network(cell, 2, 3, 2).size > 0
