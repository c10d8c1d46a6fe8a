"""Claims about `nbflow.diagnose`: known networks get the diagnosis that follows from their equations."""

from __future__ import annotations

import dataclasses

import naive
import numpy as np
import pytest
from cases import make_case, make_replicas
from test_stack import make_stack
from tolerance import assert_close, near, same_bits, within

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


# --------------------------------------------------------------------------------------------------------------- stacks


def two_layers(low, high, T=120, B=6, H=4, seed=0):
    """Return a stack of linear layers of which each step multiplies its states by a number, and a batch."""
    case = make_case("linear", "square", "dense", "last", T=T, B=B, N=3, H=H, M=2, seed=seed)
    net = nf.Stack([nf.Network("linear", n, H, 2, loss="square", dtype="float64") for n in (3, H)])
    theta = nf.init(net, "orthogonal", rng=seed)
    for scale, params in zip((low, high), nf.unpack(net, theta), strict=True):
        params.w_rec[:] *= scale
    return net, theta, case.batch


@pytest.mark.parametrize(("low", "high"), [(0.9, 0.5), (0.5, 0.9), (0.8, 0.8)])
def test_each_layer_of_a_stack_is_found_out_and_the_slower_one_keeps_the_gradient(low, high):
    T = 120
    net, theta, batch = two_layers(low, high, T)
    found = nf.diagnose(net, theta, batch, k=3)
    for scale, layer in zip((low, high), found.layers, strict=True):
        assert layer.kept == near(scale, "float64", T, 100, 10)
        assert layer.left == near(scale ** np.arange(T + 1), "float64", T, 100, 10)
        assert layer.exponents.mean == near(np.full(3, np.log(scale)), "float64", T, 10, 10, size=1.0)
        assert layer.singular_values.mean == near(np.full(3, scale**T), "float64", T, 100, 100)
        assert layer.spectrum.radius == near(np.array([scale]), "float64", T, 10, 10)
    assert found.exponents.mean == near(np.full(3, np.log(max(low, high))), "float64", T, 10, 10, size=1.0)
    assert found.verdict == "vanishes"
    slow = max(low, high)
    # Up to the sizes of w_in. Of equal layers what goes down late meets what went down early: T times as much is left.
    assert 0.01 * slow**T < found.left[T] < 100 * T * slow**T
    assert str(found).startswith("The gradient vanishes: a step back leaves")
    assert f"Layer 1 (linear, 4 units): in its own time a step back leaves {high:.3g}," in str(found)
    assert "To try: Omega" in str(found)


def joint_deltas(case):
    """Return the norms (T+1, B) over all layers of what comes back from each sequence's last step, by the reference."""
    inputs, targets, weights = case.plain
    last = np.zeros_like(weights)
    for b, column in enumerate(weights.T):
        if column.any():
            last[np.flatnonzero(column)[-1], b] = column[np.flatnonzero(column)[-1]]
    flows, _ = case._replace(batch=nf.Batch(inputs, targets, last)).flows(case.states)
    return np.sqrt(sum((flow.delta**2).sum(axis=(2, 3)) for flow in flows))


@pytest.mark.parametrize("kind", ["dense", "tokens"])
def test_a_diagnosis_of_a_stack_is_made_of_measures_of_its_layers(kind):
    case = make_stack(("lstm", "tanh"), "softmax", kind, "ragged", T=12, B=7, H=(4, 3), seed=3)
    found = nf.diagnose(case.net, case.theta, case.batch, state=case.states, k=3, sequences=2)
    out = nf.gradient(case.net, case.theta, case.batch, state=case.states)
    assert found.loss == near(float(out.loss))
    assert found.norm == near(float(np.linalg.norm(out.d_theta)))
    for layer, part in zip(found.layers, case.net.split(out.d_theta), strict=True):
        assert layer.norm == near(float(np.linalg.norm(part)))
    # The layer on top is a network which h of the one below drives.
    last = np.array([np.flatnonzero(w)[-1] + 1 if w.any() else 0 for w in case.batch.weights.T])
    h = nf.trace(case.net, case.theta, case.batch, state=case.states)[0].states[1:, :, 0]
    h = np.where((np.arange(12)[:, None] < last)[..., None], h, 0)
    top = nf.diagnose(case.net.layers[1], case.net.split(case.theta)[1], case.batch._replace(inputs=h),
                      state=case.states[1], k=3, sequences=2)  # fmt: skip
    for name in ("exponents", "singular_values", "saturation", "lags", "spectrum"):
        for got, wanted in zip(getattr(found.layers[1], name), getattr(top, name), strict=True):
            if isinstance(wanted, np.ndarray):
                assert_close(got, wanted, within("float64", 12, 20, 10), name)
    # The one below is that network whatever its outputs are.
    low = case.net.layers[0]
    other = nf.Network(low.cell, low.n_in, low.n_hidden, 3, dtype="float64")
    theta = np.concatenate([case.net.split(case.theta)[0], np.ones(other.size - low.size)])
    alone = nf.diagnose(other, theta, case.batch, state=case.states[0], k=3, sequences=2)
    for name in ("exponents", "singular_values", "spectrum"):
        assert all(same_bits(a, b) for a, b in zip(getattr(found.layers[0], name), getattr(alone, name), strict=True))
    assert same_bits(found.layers[0].saturation.part, alone.saturation.part)
    # And all of them together, by the reference.
    norms = joint_deltas(case)
    for b in range(7):
        if last[b]:
            wanted = norms[last[b] :: -1, b]
            assert found.lags.norms[: last[b] + 1, b] == near(wanted, "float64", 12, 30)
            assert found.lags.gains[: last[b], b] == near(wanted[1:] / wanted[:-1], "float64", 12, 30)


def test_the_exponents_of_a_stack_are_those_of_its_jacobian():
    """Of all layers' states together, the upper ones first, by QR of every step's Jacobian from differences."""
    case = make_stack(("tanh", "gru"), "square", "dense", "all", T=8, B=3, H=(3, 2), seed=4)
    found = nf.diagnose(case.net, case.theta, case.batch, k=5, sequences=3)
    low, high = case.params()
    size = 5
    for b in range(3):
        s, basis, grown = [np.zeros((1, 3)), np.zeros((1, 2))], np.eye(size), np.zeros(size)
        for x in case.batch.inputs[:, b]:

            def step(flat, x=x):
                below, above = flat[None, 2:], flat[None, :2]
                h = naive.CELLS["tanh"].step(*naive.preactivations(low, "tanh", x, below), below)
                return np.concatenate([
                    naive.CELLS["gru"].step(*naive.preactivations(high, "gru", h[0], above), above)[0], h[0]
                ])  # fmt: skip

            flat = np.concatenate([s[1][0], s[0][0]])
            J = np.column_stack([np.imag(step(flat + 1e-30j * e)) / 1e-30 for e in np.eye(size)])
            basis, r = np.linalg.qr(J @ basis)
            grown += np.log(np.abs(np.diag(r)))
            new = np.real(step(flat.astype(complex)))
            s = [new[None, 2:], new[None, :2]]
        wanted = -np.sort(-grown / 8)
        assert found.exponents.values[b] == near(wanted, "float64", 8, 20, 10, size=1.0)


def test_a_stack_of_one_layer_has_the_diagnosis_of_that_network():
    case = make_stack(("gru",), "softmax", "dense", "last", T=20, B=5, H=(4,), seed=5)
    found, alone = (nf.diagnose(net, case.theta, case.batch, k=2) for net in (case.net, case.net.layers[0]))
    assert (found.verdict, found.half, found.hundredth) == (alone.verdict, alone.half, alone.hundredth)
    assert found.left == near(alone.left, "float64", 20, 20)
    assert same_bits(found.exponents.values, alone.exponents.values)
    assert found.layers[0].words == alone.words
    assert str(found).splitlines()[0] == str(alone).splitlines()[0]


def test_what_cannot_be_diagnosed_of_a_stack_is_refused():
    net, theta, batch = two_layers(1e200, 0.5, T=9)
    with (
        np.errstate(all="ignore"),
        pytest.raises(ValueError, match="batch drives layer 0 to states that are not finite"),
    ):
        nf.diagnose(net, theta, batch)
    net, theta, batch = two_layers(0.5, 0.5, T=9)
    with pytest.raises(ValueError, match=r"Take one replica: theta\[0\]"):
        nf.diagnose(net, theta[None], nf.Batch(*(part[None] for part in batch)))
    with pytest.raises(ValueError, match="weights are all 0"):
        nf.diagnose(net, theta, batch._replace(weights=0 * batch.weights))


@pytest.mark.parametrize("cells", [("tanh", "lstm"), ("rotation", "rotation"), ("rotation", "tanh")])
def test_the_picture_of_a_stack_has_a_line_for_each_layer(cells):
    pytest.importorskip("matplotlib")
    batch = make_case("tanh", "square", "dense", "last", T=20, B=5, N=3, H=5, M=2).batch
    net = nf.Stack([nf.Network(cell, n, 4, 2, "square", "float64") for cell, n in zip(cells, (3, 4), strict=True)])
    found = nf.diagnose(net, nf.init(net, "orthogonal", rng=0), batch)
    figure = nf.plot.diagnosis(found)
    assert len(figure.axes) == 4
    by_lag, gain, exponents, last = figure.axes
    assert by_lag.get_legend_handles_labels()[1] == ["layer 0", "layer 1", "all layers"]
    assert gain.get_legend_handles_labels()[1] == exponents.get_legend_handles_labels()[1] == ["layer 0", "layer 1"]
    gates = [word.get_text() for word in last.texts]
    assert gates == {"lstm": ["a", "i", "f", "g", "o"], "tanh": ["a"]}.get(cells[1], []) or cells[0] == "rotation"
    said = " ".join(" ".join(text.get_text().split()) for text in figure.texts)
    assert f"Layer 1 ({cells[1]}, 4 units)" in said


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
