"""Claims about `nbflow.diagnose`: known networks get the diagnosis that follows from their equations."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from cases import make_case, make_replicas
from tolerance import near, same_bits

import nbflow as nf


def orthogonal(scale, T=120, B=6, H=5, when="last", seed=0):
    """Return a linear network whose steps multiply everything by `scale`, and a batch."""
    case = make_case("linear", "square", "dense", when, T=T, B=B, N=3, H=H, M=2, seed=seed)
    theta = nf.init(case.net, "orthogonal", rng=seed)
    nf.unpack(case.net, theta).w_rec[:] *= scale
    return case.net, theta, case.batch


@pytest.mark.parametrize(
    ("scale", "verdict", "half", "hundredth"),
    [
        (0.9, "vanishes", 7, 44),
        (1.0, "stays", None, None),
        (0.97, "fades", 23, None),
        (1.02, "grows", None, None),
        (1.1, "explodes", None, None),
    ],
)
def test_a_network_that_multiplies_by_a_number_is_found_out(scale, verdict, half, hundredth):
    T = 120 if scale != 0.97 else 100
    found = nf.diagnose(*orthogonal(scale, T), k=3)
    assert (found.verdict, found.half, found.hundredth) == (verdict, half, hundredth)
    assert found.kept == near(scale, "float64", T, 10, 10)
    assert found.left == near(scale ** np.arange(T + 1), "float64", T, 10, 10)
    assert found.exponents.mean == near(np.full(3, np.log(scale)), "float64", T, 10, 10, size=1.0)
    assert found.singular_values.mean == near(np.full(3, scale**T), "float64", T, 100, 100)
    assert found.spectrum.radius == near(np.array([scale]), "float64", T, 10, 10)
    assert found.saturation.part.mean.tolist() == [0.0]
    assert found.steps == T
    assert found.clipped is None
    assert str(found).startswith(f"The gradient {verdict}: a step back leaves {scale:.3g} of its length, ")
    assert f"at lag {T}." in str(found)
    assert ("To try: " in str(found)) == (verdict != "stays")


def test_it_is_made_of_the_public_measures():
    case = make_case("lstm", "softmax", "tokens", "ragged", T=30, B=9, N=3, H=5, M=3, seed=1)
    found = nf.diagnose(case.net, case.theta, case.batch, state=case.state, k=4, sequences=3)
    for got, wanted in (
        (found.lags, nf.gains_by_lag(case.net, case.theta, case.batch, state=case.state)),
        (found.saturation, nf.saturation(case.net, case.theta, case.batch, state=case.state)),
        (found.spectrum, nf.recurrent_spectrum(case.net, case.theta)),
    ):
        flat = [part for part in (*got[:1], *got[1:]) if isinstance(part, np.ndarray)]
        assert all(same_bits(a, b) for a, b in zip(flat, [p for p in wanted if isinstance(p, np.ndarray)], strict=True))
    out = nf.gradient(case.net, case.theta, case.batch, state=case.state)
    assert found.loss == near(float(out.loss))
    assert found.norm == near(float(np.linalg.norm(out.d_theta)))
    last = np.array([np.flatnonzero(w)[-1] + 1 if w.any() else 0 for w in case.batch.weights.T])
    longest = np.sort(np.argsort(-last, kind="stable")[:3])
    assert found.steps == last[longest].min()
    inputs, state = np.ascontiguousarray(case.batch.inputs[: found.steps, longest]), case.state[longest]
    assert same_bits(found.exponents, nf.lyapunov_exponents(case.net, case.theta, inputs, k=4, state=state))
    assert same_bits(found.singular_values, nf.jacobian_singular_values(case.net, case.theta, inputs, k=4, state=state))


def test_units_that_are_dead_are_said_to_hand_nothing_back():
    case = make_case("relu", "square", "dense", "last", T=12, B=4, N=2, H=4, M=2, seed=2)
    p = nf.unpack(case.net, case.theta)
    p.bias[:] = -50
    p.w_rec[:] = 0.1
    p.w_in[:] = 0
    found = nf.diagnose(case.net, case.theta, case.batch)
    assert found.verdict == "vanishes"
    assert found.left[1:].tolist() == [0.0] * 12
    assert (found.half, found.hundredth, found.kept) == (1, 1, 0.0)
    assert "exactly 0 in half of the sequences from lag 1 on" in str(found)
    assert "Saturated: a 100%" in str(found)
    assert "smaller weights or inputs" in str(found)


def test_a_cell_that_declares_no_ranges_has_no_saturation():
    net = nf.Network("rotation", 2, 3, 2, loss="square", dtype="float64")
    case = make_case("tanh", "square", "dense", "last", T=9, B=4, N=2, H=3, M=2)
    found = nf.diagnose(net, nf.init(net, "orthogonal", rng=0), case.batch)
    assert found.saturation is None
    assert "Saturated" not in str(found)
    assert "lstm" not in str(found), "it has a way past w_rec"


def test_a_run_says_how_much_was_clipped():
    task = nf.load_task("addition")
    net = nf.Network("tanh", task.n_in, 6, task.n_out, task.loss)
    recipe = nf.Recipe(lr=0.01, lengths=20, clip=nf.Clip("norm", 1e-9), max_updates=5, record_every=2, evaluate_size=9)
    theta = nf.init(net, "orthogonal", rng=0)
    batch = task.sample(seed=1, index=0, batch_size=8, length=20)
    run = nf.train(net, theta, task, recipe)
    found = nf.diagnose(net, run.theta, batch, run=run)
    assert found.clipped == 1.0
    assert "The clip changed 100% of the updates." in str(found)
    loose = nf.train(net, theta, task, dataclasses.replace(recipe, clip=nf.Clip("norm", 1e9)))
    assert nf.diagnose(net, loose.theta, batch, run=loose).clipped == 0.0
    unclipped = nf.train(net, theta, task, dataclasses.replace(recipe, clip=None))
    assert nf.diagnose(net, theta, batch, run=unclipped).clipped is None
    both = nf.train(net, np.stack([theta, theta]), task, recipe)
    with pytest.raises(ValueError, match="run is of 2 replicas; expected that of one network"):
        nf.diagnose(net, theta, batch, run=both)
    with pytest.raises(TypeError, match=r"expected what nbflow\.train returned"):
        nf.diagnose(net, theta, batch, run={"clipped": [1.0]})


def test_what_cannot_be_diagnosed_is_refused():
    net, theta, batch, *_ = make_replicas("tanh", R=2)
    with pytest.raises(ValueError, match=r"Take one replica: theta\[0\]"):
        nf.diagnose(net, theta, batch)
    case = make_case("tanh")
    silent = case.batch._replace(weights=0 * case.batch.weights)
    with pytest.raises(ValueError, match="weights are all 0"):
        nf.diagnose(case.net, case.theta, silent)
    with pytest.raises(ValueError, match="sequences is 0"):
        nf.diagnose(case.net, case.theta, case.batch, sequences=0)


def test_states_that_are_not_finite_are_said_to_be():
    net, theta, batch = orthogonal(1e30, T=40)
    found = nf.diagnose(net, theta, batch)
    assert found.verdict == "is not finite"
    assert str(found).startswith("The gradient is not finite")


@pytest.mark.parametrize("cell", ["lstm", "rotation"])
def test_the_picture_has_four_parts_and_the_summary(cell):
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    net = nf.Network(cell, 3, 5, 2, loss="square", dtype="float64")
    batch = make_case("tanh", "square", "dense", "last", T=20, B=5, N=3, H=5, M=2).batch
    found = nf.diagnose(net, nf.init(net, "orthogonal", rng=0), batch)
    figure = nf.plot.diagnosis(found)
    assert len(figure.axes) == 4
    said = " ".join(" ".join(text.get_text().split()) for text in figure.texts)
    assert "Spectral radius of w_rec" in said
    own = Figure()
    assert nf.plot.diagnosis(found, figure=own) is own
    with pytest.raises(TypeError, match=r"nbflow\.diagnose"):
        nf.plot.diagnosis("found")
