"""Claims about fixed points: they stay where they are, their eigenvalues are the reference's, and none is made up."""

from __future__ import annotations

import naive
import numpy as np
import pytest
from cases import CELLS, DTYPES, make_case
from scipy.optimize import brentq
from tolerance import near, within

import nbflow as nf


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("kind", ["dense", "tokens"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_fixed_point_stays_and_has_the_references_eigenvalues(cell, kind, dtype):
    case = make_case(cell, "square", kind, T=2, B=1, N=3, H=5, dtype=dtype, seed=77)
    x = case.batch.inputs[0, 0]
    tolerance = 1e3 * within("float64")
    found = nf.fixed_points(case.net, case.theta, x, starts=8, tolerance=tolerance)
    assert len(found.states)
    assert found.reached.sum() + found.lost == 8
    assert (np.diff(found.reached) <= 0).all()
    plain = case.plain[0][:1]
    for s, eigenvalues, moved in zip(found.states, found.eigenvalues, found.moved, strict=True):
        after = naive.forward(case.params, cell, plain, s[None])[-1, 0]
        size = max(1.0, np.abs(s).max())
        assert np.abs(after - s).max() == near(moved, "float64", 1, 20, 1e3, size=size)
        assert moved <= tolerance * size
        J = naive.jacobian(case.params, cell, plain[0, 0], s)
        wanted = np.linalg.eigvals(J)
        assert np.abs(eigenvalues) == near(np.sort(np.abs(wanted))[::-1], "float64", 1, 20, 1e3, size=np.abs(J).max())
        # Coefficients of the characteristic polynomial: pairs may come in either order.
        assert np.poly(eigenvalues) == near(np.poly(wanted), "float64", 1, 100, 1e3, size=np.abs(np.poly(wanted)).max())


def two_wells(gain=2.0):
    """Return one tanh unit with h' = tanh(gain h): 0 and, above a gain of 1, two more."""
    net = nf.Network("tanh", 1, 1, 1, loss="square", dtype="float64")
    return net, np.array([0.0, gain, 0.0, 1.0, 0.0])  # w_in, w_rec, bias, w_out, b_out


def test_all_three_points_of_two_wells_are_found_and_told_apart():
    net, theta = two_wells()
    found = nf.fixed_points(net, theta, np.zeros(1), starts=50)
    well = brentq(lambda h: np.tanh(2 * h) - h, 0.5, 1, xtol=within("float64"))
    order = np.argsort(found.states.ravel())
    assert found.states.ravel()[order] == near([-well, 0.0, well], size=1.0)
    slopes = [2 * (1 - well**2), 2.0, 2 * (1 - well**2)]
    assert found.eigenvalues.ravel()[order].real == near(slopes, condition=10)
    assert not found.eigenvalues.imag.any()
    assert found.attracting[order].tolist() == [True, False, True]


def test_steps_lead_to_those_that_attract_alone():
    net, theta = two_wells()
    starts = np.random.default_rng(0).uniform(-1, 1, (20, 1, 1))
    found = nf.fixed_points(net, theta, np.zeros(1), starts=starts, steps=200)
    assert len(found.states) == 2
    assert found.attracting.all()
    assert sorted(found.reached) == sorted([(starts > 0).sum(), (starts < 0).sum()])


def test_where_there_is_none_none_is_made_up():
    """relu with h' = max(h + 1, 0) grows for ever."""
    net = nf.Network("relu", 1, 1, 1, loss="square", dtype="float64")
    found = nf.fixed_points(net, np.array([0.0, 1.0, 1.0, 1.0, 0.0]), np.zeros(1), starts=5)
    assert found.states.shape == (0, 1, 1)
    assert found.eigenvalues.shape == (0, 1)
    assert found.lost == 5
    assert found.attracting.shape == (0,)


def test_the_same_call_finds_the_same_and_changes_nothing():
    case = make_case("lstm", "square", "tokens", T=2, B=1, N=3, H=5, seed=77)
    theta, starts = case.theta.copy(), np.random.default_rng(0).normal(size=(4, 2, 5))
    given = starts.copy()
    one, other = (nf.fixed_points(case.net, theta, 1, starts=starts) for _ in range(2))
    assert np.array_equal(one.states, other.states)
    assert np.array_equal(theta, case.theta)
    assert np.array_equal(given, starts)
    assert nf.trace.fixed_points is nf.fixed_points


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"inputs": np.zeros(3)}, r"inputs has shape \(3,\); expected \(1,\)"),
        ({"inputs": [0.0]}, "inputs is .*; expected an array of the N inputs"),
        ({"inputs": 1}, "inputs has tokens from 1 to 1; expected"),
        ({"inputs": np.array([np.nan])}, "inputs"),
        ({"starts": 0}, "starts is 0; expected"),
        ({"starts": np.zeros((2, 1))}, r"starts has shape \(2, 1\)"),
        ({"starts": np.full((1, 1, 1), np.nan)}, "starts"),
        ({"steps": -1}, "steps is -1"),
        ({"tolerance": 0.0}, "tolerance is 0"),
        ({"apart": -1.0}, "apart is -1"),
        ({"rng": "x"}, "rng is 'x'"),
        ({"theta": np.full(5, np.nan)}, "theta"),
        ({"theta": np.zeros((1, 5))}, r"theta has shape \(1, 5\)"),
    ],
    ids=lambda one: next(iter(one)) if isinstance(one, dict) else None,
)  # fmt: skip
def test_what_makes_no_sense_is_refused_by_name(how, said):
    net, theta = two_wells()
    arguments = {"net": net, "theta": theta, "inputs": np.zeros(1), **how}
    with pytest.raises((TypeError, ValueError), match=said):
        nf.fixed_points(**arguments)
