"""Claims about derivatives that a cell leaves out: complex steps find them, for our cells and for a user's."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from cases import CELLS, make_case
from tolerance import assert_close, differenced, within

import nbflow as nf
from nbflow import scalars
from nbflow._compile import ONE, unit
from nbflow._load import load

SECOND = ("step_jvp", "step_vjp_jvp")
ALL = ("step_vjp", *SECOND)


@unit
def squashed(a_in, a_rec, s):
    """A cell that is like none of ours: a leaky unit with a gate that multiplies the recurrence."""
    gate = scalars.sigmoid(a_in[0] - a_rec[0])
    return (gate * s[0] + (ONE - gate) * scalars.tanh(a_in[1] * a_rec[1]), s[1] + s[0] * gate), ()


OWN = nf.Cell(gates=("g", "a"), states=("h", "m"), step=squashed, additive=False, carries=True)


@unit
def absolute(a_in, a_rec, s):
    return (abs(a_in[0] + a_rec[0]),), ()


def without(cell, names):
    return dataclasses.replace(load("cells", cell), **dict.fromkeys(names))


@pytest.mark.parametrize("cell", CELLS)
def test_step_vjp_by_complex_step_is_the_one_written_by_hand(cell):
    case = make_case(cell, "square", "dense", "ragged", T=5, B=9, N=2, H=5, M=2, seed=70)
    bare = dataclasses.replace(case.net, cell=without(cell, ALL))
    by_hand = nf.gradient(case.net, case.theta, case.batch).d_theta
    assert_close(nf.gradient(bare, case.theta, case.batch).d_theta, by_hand, within("float64", 20, 500))


# Of slopes by complex steps, by steps of derive.DIFFERENCE; the fifth slope of a tanh is 16, over a few units.
BY_DIFFERENCES = differenced(1e-3, 4, 5, 100, curvature=100)


@pytest.mark.parametrize(
    "cell, names, tolerance",
    [*((cell, SECOND, within("float64", 20, 500)) for cell in CELLS), ("tanh", ALL, BY_DIFFERENCES)],
)
def test_second_derivatives_by_complex_step_are_those_written_by_hand(cell, names, tolerance):
    case = make_case(cell, "square", "dense", "ragged", T=5, B=9, N=2, H=5, M=2, seed=70)
    bare = dataclasses.replace(case.net, cell=without(cell, names))
    for flow in (nf.Flow("squared", 1.0, "exact"), nf.Flow("norm", 1.0, "detached", "mean")):
        by_hand = nf.gradient(case.net, case.theta, case.batch, flow=flow).d_theta
        assert_close(nf.gradient(bare, case.theta, case.batch, flow=flow).d_theta, by_hand, tolerance)
    direction = np.random.default_rng(70).normal(size=case.net.size)
    by_hand = nf.hvp(case.net, case.theta, case.batch, direction)
    assert_close(nf.hvp(bare, case.theta, case.batch, direction), by_hand, tolerance)
    moved = nf.jvp(case.net, case.theta, case.batch.inputs, theta_dot=direction)
    found = nf.jvp(bare, case.theta, case.batch.inputs, theta_dot=direction)
    assert_close(found.outputs, moved.outputs, within("float64", 20, 500))


@pytest.mark.sim
def test_a_cell_that_has_only_a_step_works_everywhere():
    net = nf.Network(OWN, 1, 2, 1, loss="square", dtype="float64")
    rng = np.random.default_rng(71)
    theta = rng.normal(size=net.size)
    batch = nf.Batch(rng.normal(size=(3, 2, 1)), rng.normal(size=(3, 2, 1)), np.ones((3, 2)))
    assert nf.check_gradient(net, theta, batch).error_complex < within("float64", 20, 500)
    for derivative in ("immediate", "detached", "exact"):
        seen = nf.check_gradient(net, theta, batch, flow=nf.Flow("squared", 0.5, derivative, "mean"))
        assert seen.error_central < differenced(1e-4, 4, 20, 500, condition=10), derivative
    assert np.isfinite(nf.trace(net, theta, batch).gain).all()
    assert np.isfinite(nf.lyapunov_exponents(net, theta, batch.inputs, k=2).values).all()


def test_a_cell_that_has_only_a_step_works_in_float32():
    case = make_case("tanh", "square", "dense", "ragged", T=5, B=9, N=2, H=5, M=2, dtype="float32", seed=72)
    bare = dataclasses.replace(case.net, cell=without("tanh", ALL))
    got = nf.gradient(bare, case.theta, case.batch).d_theta
    assert got.dtype == np.float32
    assert_close(got, nf.gradient(case.net, case.theta, case.batch).d_theta, within("float32", 5, 100))


def test_a_step_that_complex_numbers_do_not_differentiate_is_refused():
    cell = nf.Cell(gates=("a",), states=("h",), step=absolute)
    net = nf.Network(cell, 2, 3, 2, loss="square", dtype="float64")
    batch = nf.Batch(np.zeros((4, 2, 2)), np.zeros((4, 2, 2)), np.ones((4, 2)))
    with pytest.raises(ValueError, match=r"without abs or comparisons\. Write step_vjp"):
        nf.gradient(net, np.zeros(net.size), batch)


def test_a_loss_that_has_only_a_slope_has_hessian_vector_products():
    for name in nf.names("losses"):
        case = make_case("tanh", name, "dense", "ragged", T=4, B=9, N=2, H=5, M=3, seed=73)
        bare = dataclasses.replace(load("losses", name), share=None, slope_jvp=None)
        net = dataclasses.replace(case.net, loss=bare)
        direction = np.random.default_rng(73).normal(size=net.size)
        by_hand = nf.hvp(case.net, case.theta, case.batch, direction)
        assert_close(nf.hvp(net, case.theta, case.batch, direction), by_hand, within("float64", 20, 500))
