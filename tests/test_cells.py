"""Claims about the cells beside the six that every test takes, and about settings: each is its equations, exactly."""

from __future__ import annotations

import dataclasses
import pickle
import subprocess
import sys

import autograd
import naive
import numpy as np
import pytest
from cases import CELLS, KINDS, LOSSES, MORE_CELLS, make_case
from conftest import INTERPRETED
from test_second import along, directions, omega_by_naive
from tolerance import assert_close, differenced, near, same_bits, within

import nbflow as nf
from nbflow._compile import unit
from nbflow._load import load
from nbflow.scalars import ONE

RATES = np.array([0.05, 1.0, 0.4])
ANGLES = np.array([0.1, 2.0, -0.7])
REAL, IMAGINARY = np.array([1.0, 0.95, 0.5]) * (np.cos(ANGLES), np.sin(ANGLES))
# Each cell with the settings of its file, and each that has some with one for each of H = 3 units.
WAYS = [
    *((cell, {}) for cell in MORE_CELLS),
    ("leaky_tanh", {"rate": RATES}),
    ("rotation", {"real": REAL, "imaginary": IMAGINARY}),
]
each_way = pytest.mark.parametrize("way", WAYS, ids=[f"{cell}{' by unit' if more else ''}" for cell, more in WAYS])
EXACT = ("detached", "exact")


def case_of(way, monkeypatch, loss="square", kind="dense", when="ragged", dtype="float64", **sizes):
    """Return a case of H = 3 units, of which the references know the settings."""
    cell, settings = way
    if settings:
        written = getattr(autograd, cell)
        monkeypatch.setitem(naive.CELLS, cell, getattr(naive, cell)(**settings))
        monkeypatch.setitem(autograd.STEPS, cell, lambda *given: written(*given, **settings))
    case = make_case(cell, loss, kind, when, **{"T": 5, "B": 3, "N": 2, "M": 2, "seed": 90, **sizes}, dtype=dtype)
    return case._replace(net=dataclasses.replace(case.net, cell=nf.load_cell(cell, **settings))) if settings else case


def tolerance_of(case, condition=1.0):
    return within(case.net.dtype, len(case.batch.weights), 16 * case.terms, condition)


@pytest.mark.sim
def test_the_reference_and_autograd_know_every_cell():
    assert set(naive.CELLS) == set(autograd.STEPS) == {*CELLS, *MORE_CELLS}


@pytest.mark.sim
@each_way
def test_gradients_at_parameters_inputs_and_state_are_the_references(way, monkeypatch):
    for k, kind in enumerate(KINDS):
        case = case_of(way, monkeypatch, LOSSES[k], kind)
        flow = case.flow(carried=True)
        wrt = ("inputs", "state") if kind == "dense" else ("state",)
        out = nf.gradient(case.net, case.theta, case.batch, state=case.state, wrt=wrt)
        assert_close(out.loss, flow.loss, tolerance_of(case), "the loss")
        assert_close(out.d_theta, naive.pack(flow.d_params), tolerance_of(case), "the gradient")
        assert_close(out.d_state, flow.delta[0], tolerance_of(case), "d_state")
        if kind == "dense":
            d_inputs = np.einsum("tbgh,ngh->tbn", flow.e_in, case.params["w_in"])
            assert_close(out.d_inputs, d_inputs, tolerance_of(case), "d_inputs")


@each_way
def test_the_reference_is_its_central_difference(way, monkeypatch):
    case = case_of(way, monkeypatch)
    wanted = naive.central_difference(
        lambda theta: naive.loss_of(theta, *case.sizes, case.net.loss, case.plain), case.theta
    )
    assert_close(naive.pack(case.flow().d_params), wanted, differenced(1e-4, 4, 5, case.terms, condition=10))


@each_way
def test_gradients_are_autograds(way, monkeypatch):
    torch = pytest.importorskip("torch")
    case = case_of(way, monkeypatch, "softmax")
    p, losses = autograd.losses_of_sequences(torch, case, "dense")
    out = nf.gradient(case.net, case.theta, case.batch, state=case.state, wrt=("inputs", "state"))
    assert_close(out.d_theta, autograd.gradient(torch, p, losses.sum()), within("float64"), "the gradient")
    for got, wanted in zip((out.d_inputs, out.d_state), autograd.ends(torch, case), strict=True):
        assert_close(got, wanted, within("float64"), "an end")


@each_way
def test_float32_agrees_with_float64_at_a_size_with_padding_and_several_shards(way, monkeypatch):
    cell, settings = way
    if settings:
        settings = {name: np.resize(value, 17) for name, value in settings.items()}
    sizes = {"T": 70, "B": 40, "N": 3, "H": 17}
    double, single = (case_of((cell, settings), monkeypatch, dtype=d, **sizes) for d in ("float64", "float32"))
    flow = double.flow()
    for case in (double, single):
        out = nf.gradient(case.net, case.theta, case.batch)
        assert out.d_theta.dtype == case.net.dtype
        assert_close(out.d_theta, naive.pack(flow.d_params), tolerance_of(case, 4), case.net.dtype)


@pytest.mark.parametrize("derivative", EXACT)
@each_way
def test_the_gradient_of_omega_is_the_slope_of_the_reference(way, derivative, monkeypatch):
    for k, (penalty, reduction) in enumerate((("norm", "sum"), ("squared", "mean"), ("log", "sum"))):
        case = case_of(way, monkeypatch, LOSSES[k], KINDS[k % 2], seed=91 + k)
        omega = omega_by_naive(case, penalty, reduction, derivative)
        plain = nf.gradient(case.net, case.theta, case.batch).d_theta
        out = nf.gradient(case.net, case.theta, case.batch, flow=nf.Flow(penalty, 1.0, derivative, reduction))
        got = out.d_theta - plain
        assert out.omega == near(naive.omega(penalty, reduction, case.flow()), "float64", 5, 500, 10)
        for u in directions(got.size):
            wanted = along(omega, case.theta, u)
            scale = max(np.linalg.norm(got), 1)
            assert abs(got @ u - wanted) < 10 * differenced(1e-4, 6, 4, 500, condition=4) * scale, (penalty, k)


@pytest.mark.sim
@each_way
def test_the_immediate_gradient_of_omega_is_the_references(way, monkeypatch):
    case = case_of(way, monkeypatch)
    flow = case.flow()
    d = dict(flow.d_params)
    d["w_rec"] = d["w_rec"] + 0.7 * naive.omega_immediate("norm", "sum", flow, case.params, case.cell)
    out = nf.gradient(case.net, case.theta, case.batch, flow=nf.Flow("norm", 0.7))
    assert_close(out.d_theta, naive.pack(d), tolerance_of(case, 10))


@pytest.mark.sim
@each_way
def test_the_trace_and_the_jacobians_are_the_references(way, monkeypatch):
    case = case_of(way, monkeypatch, when="all")
    flow, seen = case.flow(), nf.trace(case.net, case.theta, case.batch)
    for name in ("states", "delta", "gain"):
        assert_close(getattr(seen, name), getattr(flow, name), tolerance_of(case, 10), name)
    found = nf.step_jacobians(case.net, case.theta, case.batch.inputs)
    for t in range(len(found)):
        for b in range(found.shape[1]):
            wanted = naive.jacobian(case.params, case.cell, case.batch.inputs[t, b], flow.states[t, b])
            assert_close(found[t, b], wanted, tolerance_of(case))


@each_way
def test_products_with_vectors_are_differences_of_the_reference(way, monkeypatch):
    """jvp of parameters, inputs and states at once, vjp as its transpose, hvp along a direction."""
    case = case_of(way, monkeypatch, when="all")
    rng = np.random.default_rng(92)
    theta_dot, inputs_dot, state_dot = (rng.normal(size=x.shape) for x in (case.theta, case.batch.inputs, case.state))

    def outputs(h):
        p = naive.unpack(case.theta + h * theta_dot, *case.sizes)
        states = naive.forward(p, case.cell, case.batch.inputs + h * inputs_dot, case.state + h * state_dot)
        return naive.outputs(p, states)

    moved = nf.jvp(
        case.net, case.theta, case.batch.inputs, state=case.state,
        theta_dot=theta_dot, inputs_dot=inputs_dot, state_dot=state_dot,
    )  # fmt: skip
    wanted = np.imag(outputs(1e-20j)) / 1e-20
    assert_close(moved.outputs, wanted, tolerance_of(case, 10), "jvp")
    direction = theta_dot / np.linalg.norm(theta_dot)

    def slope(h):
        return naive.gradient(case.theta + h * direction, *case.sizes, case.net.loss, case.plain)[1]

    h = 1e-4
    curved = (slope(-2 * h) - 8 * slope(-h) + 8 * slope(h) - slope(2 * h)) / (12 * h)
    got = nf.hvp(case.net, case.theta, case.batch, direction)
    assert_close(got, curved, differenced(h, 4, 5, 500, condition=10), "hvp")


@pytest.mark.parametrize("cell", MORE_CELLS)
def test_derivatives_by_complex_steps_are_those_written_by_hand(cell, monkeypatch):
    """Of a cell with settings too: what it leaves out is found with them."""
    case = case_of(next(way for way in WAYS[::-1] if way[0] == cell), monkeypatch, H=3, seed=93)
    bare, half = (
        dataclasses.replace(case.net, cell=dataclasses.replace(case.net.cell_object, **dict.fromkeys(names)))
        for names in (("step_vjp", "step_jvp", "step_vjp_jvp"), ("step_jvp", "step_vjp_jvp"))
    )
    by_hand = nf.gradient(case.net, case.theta, case.batch).d_theta
    assert_close(nf.gradient(bare, case.theta, case.batch).d_theta, by_hand, tolerance_of(case))
    flow = nf.Flow("squared", 1.0, "exact")
    by_hand = nf.gradient(case.net, case.theta, case.batch, flow=flow).d_theta
    for net, tolerance in ((half, tolerance_of(case, 4)), (bare, differenced(1e-3, 4, 5, 100, curvature=100))):
        assert_close(nf.gradient(net, case.theta, case.batch, flow=flow).d_theta, by_hand, tolerance)


@pytest.mark.parametrize("cell", [cell for cell in MORE_CELLS if load("cells", cell).ranges])
def test_saturation_is_the_references(cell, monkeypatch):
    case = case_of((cell, {}), monkeypatch, T=9, B=5)
    seen = nf.saturation(case.net, case.theta, case.batch, margin=0.2)
    low, high = naive.saturation(case.params, case.cell, case.batch.inputs, case.batch.weights, 0.2)
    wanted = np.nanmean(low, axis=(0, 1)), np.nanmean(high, axis=(0, 1))
    for got, part in zip((seen.low, seen.high), wanted, strict=True):
        assert_close(got, part, within("float64"))


@each_way
def test_exponents_and_singular_values_are_those_of_the_references_jacobians(way, monkeypatch):
    case = case_of(way, monkeypatch, when="all", T=6, B=2)
    states, size = naive.forward(case.params, case.cell, case.batch.inputs), case.state[0].size
    found = nf.lyapunov_exponents(case.net, case.theta, case.batch.inputs, k=size)
    values = nf.jacobian_singular_values(case.net, case.theta, case.batch.inputs, k=size).values
    for b in range(2):
        q, grown, product = np.eye(size), 0.0, np.eye(size)
        for t in range(6):
            J = naive.jacobian(case.params, case.cell, case.batch.inputs[t, b], states[t, b])
            q, r = np.linalg.qr(J @ q)
            grown, product = grown + np.log(np.abs(np.diagonal(r))), J @ product
        assert_close(found.values[b], -np.sort(-grown / 6), within("float64", 6, 500, 100))
        wanted = np.linalg.svd(product, compute_uv=False)
        assert np.abs(values[b] - wanted).max() <= within("float64", 6, 100) ** 0.5 * wanted[0]


@each_way
def test_replicas_recomputed_tapes_and_groups_are_as_one_alone(way, monkeypatch):
    cases = [case_of(way, monkeypatch, seed=94 + r, T=130, gain=0.2) for r in range(2)]
    net = cases[0].net
    batch = nf.Batch(*(np.stack(parts) for parts in zip(*(case.batch for case in cases), strict=True)))
    theta = np.stack([case.theta for case in cases])
    both = nf.gradient(net, theta, batch)
    for r, case in enumerate(cases):
        alone = nf.gradient(case.net, case.theta, case.batch)
        assert same_bits(both.d_theta[r], alone.d_theta)
        again = nf.gradient(case.net, case.theta, case.batch, recompute_every=64)
        assert same_bits(again.d_theta, alone.d_theta)
        grouped = nf.gradient(case.net, case.theta, case.batch, clip_example=1e30)
        assert_close(grouped.d_theta, alone.d_theta, tolerance_of(case, 10))


@pytest.mark.gpu
@pytest.mark.sim
@each_way
def test_the_card_computes_the_references_gradient_trace_and_omega(way, monkeypatch):
    case = case_of(way, monkeypatch, T=3, B=2)
    flow = case.flow(carried=True)
    out = nf.gradient(case.net, case.theta, case.batch, state=case.state, backend="cuda")
    assert_close(out.d_theta, naive.pack(flow.d_params), tolerance_of(case), "the gradient")
    seen = nf.trace(case.net, case.theta, case.batch, backend="cuda")
    assert_close(seen.delta, case.flow().delta, tolerance_of(case), "delta")
    y = nf.predict(case.net, case.theta, case.batch.inputs, backend="cuda")
    assert_close(y, naive.outputs(case.params, naive.forward(case.params, case.cell, case.batch.inputs)),
                 tolerance_of(case), "outputs")  # fmt: skip
    how = nf.Flow("norm", 0.5)
    omega = nf.gradient(case.net, case.theta, case.batch, flow=how, backend="cuda")
    assert_close(omega.d_theta, nf.gradient(case.net, case.theta, case.batch, flow=how).d_theta, tolerance_of(case, 10))
    exact = nf.Flow("norm", 0.5, "exact")
    omega = nf.gradient(case.net, case.theta, case.batch, flow=exact, backend="cuda")
    wanted = nf.gradient(case.net, case.theta, case.batch, flow=exact)
    assert_close(omega.d_theta, wanted.d_theta, tolerance_of(case, 10))


@pytest.mark.gpu
@pytest.mark.sim
def test_training_on_the_card_uses_the_settings():
    recipe = nf.Recipe(lr=0.1, lengths=10, batch_size=2, max_updates=2, evaluate_size=1, clip=nf.Clip("norm", 1.0))
    task = nf.load_task("addition")
    net = nf.Network(nf.load_cell("leaky_tanh", rate=RATES), task.n_in, 3, task.n_out, task.loss, "float64")
    theta = nf.init(net, "glorot", rng=0)
    here, there = (nf.train(net, theta, task, recipe, backend=backend) for backend in ("cpu", "cuda"))
    assert_close(there.theta, here.theta, within("float64", 8, 50))


# ------------------------------------------------------------------------------------------------------------ equations


def test_leaky_units_of_rate_1_are_tanh_units_and_of_rate_0_keep_what_they_have():
    case = make_case("tanh", T=6, B=4, H=5)
    leaky = dataclasses.replace(case.net, cell=nf.load_cell("leaky_tanh", rate=1.0))
    assert_close(
        nf.gradient(leaky, case.theta, case.batch).d_theta,
        nf.gradient(case.net, case.theta, case.batch).d_theta,
        within("float64", 6, 50),
    )
    kept = dataclasses.replace(case.net, cell=nf.load_cell("leaky_tanh", rate=0.0))
    _, state = nf.predict(kept, case.theta, case.batch.inputs), case.state
    seen = nf.trace(kept, case.theta, case.batch, state=state)
    assert same_bits(seen.states[-1], state)


@pytest.mark.sim
def test_rotations_without_w_rec_have_the_gains_singular_values_and_exponents_of_their_modulus():
    """One modulus for all units: every gain is it, Omega is known, and products are its powers."""
    modulus, angles, T = 0.9, np.linspace(-2, 2, 4), 7
    cell = nf.load_cell("rotation", real=modulus * np.cos(angles), imaginary=modulus * np.sin(angles))
    net = nf.Network(cell, 2, 4, 2, loss="square", dtype="float64")
    theta = np.random.default_rng(95).normal(size=net.size)
    nf.unpack(net, theta).w_rec[:] = 0
    batch = make_case("tanh", when="last", T=T, B=3, N=2, H=4).batch
    seen = nf.trace(net, theta, batch)
    assert seen.gain == near(np.full((T, 3), modulus), "float64", T, 8)
    out = nf.gradient(net, theta, batch, flow=nf.Flow("norm", 0.0))
    assert out.omega == near(T * (modulus - 1) ** 2, "float64", T, 8, 10)
    values = nf.jacobian_singular_values(net, theta, batch.inputs, k=8).values
    assert values == near(np.full((3, 8), modulus**T), "float64", T, 8, 4)
    found = nf.lyapunov_exponents(net, theta, batch.inputs, k=8)
    assert found.values == near(np.full((3, 8), np.log(modulus)), "float64", T, 8, 10)


def test_rotations_are_the_diagonal_recurrence_of_complex_numbers():
    """z_t = sum over k of lambda^k (B x_{t-k} + b), the closed form of a linear recurrent unit."""
    rng = np.random.default_rng(96)
    turn = 0.97 * np.exp(1j * rng.uniform(0, np.pi, 5))
    net = nf.Network(nf.load_cell("rotation", real=turn.real, imaginary=turn.imag), 2, 5, 3, dtype="float64")
    theta, inputs = rng.normal(size=net.size), rng.normal(size=(40, 3, 2))
    p = nf.unpack(net, theta)
    p.w_rec[:] = 0
    drive = inputs @ (p.w_in[:, 0] + 1j * p.w_in[:, 1]) + p.bias[0] + 1j * p.bias[1]
    powers = turn ** np.arange(39, -1, -1)[:, None]
    z = (powers[:, None] * drive).sum(axis=0)
    wanted = z.real @ p.w_out + p.b_out
    assert_close(nf.predict(net, theta, inputs)[-1], wanted, within("float64", 40, 10, 4))


@unit
def two_ticks(a_in, a_rec, s):
    """Take half a step of the GRU that resets before the product; see docs/cells.md."""
    m, h, z, tick = s
    r, z_now = nf.scalars.sigmoid(a_in[0] + a_rec[0]), nf.scalars.sigmoid(a_in[1] + a_rec[1])
    h_new = (ONE - z) * nf.scalars.tanh(a_in[2] + a_rec[2]) + z * h
    first = ONE - tick
    return (first * r * h + tick * h_new, first * h + tick * h_new, first * z_now + tick * z, first), ()


def test_a_gru_that_resets_before_the_product_is_a_cell_of_ones_own_in_two_ticks():
    """Its outputs are those of Cho et al. 2014 in NumPy, its gradient the complex steps of these."""
    cell = nf.Cell(gates=("r", "z", "n"), states=("m", "h", "z", "tick"), step=two_ticks, carries=True)
    net, rng = nf.Network(cell, 2, 4, 2, loss="square", dtype="float64"), np.random.default_rng(99)
    theta, inputs, targets = rng.normal(size=net.size), rng.normal(size=(6, 3, 2)), rng.normal(size=(3, 2))

    def outputs(theta):
        w_in, w_rec, bias, w_out, b_out = np.split(theta, np.cumsum([24, 48, 12, 8]))
        w_in, w_rec, bias, w_out = (
            w_in.reshape(2, 3, 4),
            w_rec.reshape(4, 3, 4),
            bias.reshape(3, 4),
            w_out.reshape(4, 2),
        )
        h = np.zeros((3, 4))
        for x in inputs:
            r, z = (naive.sigmoid(x @ w_in[:, g] + bias[g] + h @ w_rec[:, g]) for g in range(2))
            h = (1 - z) * np.tanh(x @ w_in[:, 2] + bias[2] + (r * h) @ w_rec[:, 2]) + z * h
        return h @ w_out + b_out

    twice = np.repeat(inputs, 2, axis=0)
    weights = np.zeros((12, 3))
    weights[-1] = 1.0
    batch = nf.Batch(twice, np.broadcast_to(targets, (12, 3, 2)).copy(), weights)
    assert_close(nf.predict(net, theta, twice)[-1], outputs(theta), within("float64", 12, 20))
    wanted = naive.complex_step(lambda at: ((outputs(at) - targets) ** 2).sum(), theta)
    assert_close(nf.gradient(net, theta, batch).d_theta, wanted, within("float64", 12, 100, 4))


# ------------------------------------------------------------------------------------------------------------- settings


@pytest.mark.sim
@pytest.mark.parametrize(
    ("make", "kind", "said"),
    [
        (lambda: nf.load_cell("leaky", rate=0.1), ValueError, r"expected one of .*leaky_tanh"),
        (lambda: nf.load_cell("tanh", rate=0.1), ValueError, "Cells with settings: leaky_tanh"),
        (lambda: nf.load_cell("leaky_tanh", tau=0.1), ValueError, r"expected some of: rate\. Leave the others out"),
        (lambda: nf.load_cell("leaky_tanh", rate=1.5), ValueError, r"rate.* is 1\.5; expected a number from 0 to 1"),
        (lambda: nf.load_cell("leaky_tanh", rate=[0.1, -0.5]), ValueError, r"is -0\.5; expected a number from 0 to 1"),
        (lambda: nf.load_cell("leaky_tanh", rate=np.nan), ValueError, "finite"),
        (lambda: nf.load_cell("leaky_tanh", rate="0.1"), TypeError, "one for each unit"),
        (lambda: nf.load_cell("leaky_tanh", rate=np.ones((2, 2))), ValueError, r"shape \(2, 2\)"),
        (lambda: nf.load_cell("leaky_tanh", rate=[]), ValueError, r"shape \(0,\)"),
        (lambda: nf.Network(nf.load_cell("leaky_tanh", rate=[0.1, 0.2]), 1, 3, 1), ValueError, r"n_hidden = 3 units"),
        (lambda: nf.Network(nf.load_cell("leaky_tanh", rate=None), 1, 3, 1), ValueError, r"rate is None"),
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(make, kind, said):
    with pytest.raises(kind, match=said):
        make()


@pytest.mark.sim
def test_settings_are_seen_compared_pickled_and_described():
    from nbflow.training._identity import describe

    slow, fast = (nf.Network(nf.load_cell("leaky_tanh", rate=rate), 2, 3, 1) for rate in (0.1, 0.5))
    assert "leaky_tanh(rate=0.1)" in repr(slow)
    assert "leaky_tanh(rate=0.5)" in repr(fast)
    assert slow != fast
    assert hash(slow) == hash(dataclasses.replace(slow))
    assert slow == nf.Network(nf.load_cell("leaky_tanh"), 2, 3, 1)
    assert describe(slow) != describe(fast)
    for net in (slow, fast):
        assert pickle.loads(pickle.dumps(net)).cell.settings == net.cell.settings
    by_unit = nf.load_cell("leaky_tanh", rate=RATES)
    assert by_unit.settings["rate"] == tuple(RATES)
    RATES_AFTER = RATES.copy()
    assert np.array_equal(nf.Network(by_unit, 2, 3, 1).cell_settings, RATES_AFTER[None])


@pytest.mark.sim
def test_another_workspace_is_asked_for_with_other_settings():
    case = make_case("tanh", H=3)
    slow, fast = (dataclasses.replace(case.net, cell=nf.load_cell("leaky_tanh", rate=rate)) for rate in (0.1, 0.5))
    space = nf.workspace(slow, case.batch)
    nf.gradient(slow, case.theta, case.batch, workspace=space)
    with pytest.raises(ValueError, match="workspace was made for"):
        nf.gradient(fast, case.theta, case.batch, workspace=space)


@pytest.mark.skipif(INTERPRETED, reason="nothing is compiled")
def test_other_settings_compile_nothing():
    """Nor does any other number of units with settings of their own."""
    from nbflow.cpu.program import _kernels, _second_kernels

    case = make_case("tanh", H=3)
    first = None
    for rate in (0.1, 0.5, RATES):
        net = dataclasses.replace(case.net, cell=nf.load_cell("leaky_tanh", rate=rate))
        nf.gradient(net, case.theta, case.batch, flow=nf.Flow("norm", 1.0, "exact"))
        counts = [kernels.cache_info().misses for kernels in (_kernels, _second_kernels)]
        first = first or counts
        assert counts == first


SWEEP = """
import nbflow as nf

def main():
    recipe = nf.Recipe(lr=0.01, lengths=10, batch_size=4, max_updates=3, evaluate_every=3, evaluate_size=8)
    base = nf.Experiment("addition", recipe, cell=nf.load_cell("leaky_tanh"), n_hidden=5)
    rates = [0.1, 0.5, (0.1, 0.2, 0.3, 0.4, 0.5)]
    swept = nf.sweep(nf.grid(base, {"cell.settings.rate": rates}), 2, "runs.jsonl", workers=2)
    for row in swept.runs:
        print(row["failure"], row["cell"], row["cell.settings.rate"], row["loss"], sep=" | ")

if __name__ == "__main__":
    main()
"""


@pytest.mark.skipif(INTERPRETED, reason="for compiled code")
def test_settings_stand_in_a_grid_and_in_columns(tmp_path):
    (tmp_path / "sweep.py").write_text(SWEEP)
    done = subprocess.run([sys.executable, "sweep.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = [line.split(" | ") for line in done.stdout.splitlines()]
    assert len(found) == 6
    assert {failure for failure, *_ in found} == {"None"}, found
    names = {cell for _, cell, *_ in found}
    assert names == {"leaky_tanh(rate=0.1)", "leaky_tanh(rate=0.5)", "leaky_tanh(rate=(0.1, 0.2, 0.3, 0.4, 0.5))"}
    assert len({rate for _, _, rate, _ in found}) == 3
    assert len({loss for *_, loss in found}) == 6, "each run has a rate and a seed of its own"


def test_a_checkpoint_of_other_settings_is_refused(tmp_path):
    task, recipe = nf.load_task("addition"), nf.Recipe(lr=0.1, lengths=10, batch_size=3, max_updates=4, evaluate_size=3)
    slow, fast = (
        nf.Network(nf.load_cell("leaky_tanh", rate=rate), task.n_in, 4, task.n_out, task.loss) for rate in (0.1, 0.5)
    )
    theta, path = nf.init(slow, "glorot", rng=0), tmp_path / "run.npz"
    whole = nf.train(slow, theta, task, recipe)
    nf.train(slow, theta, task, dataclasses.replace(recipe, max_updates=2), checkpoint=path)
    with pytest.raises(ValueError, match=r"rate"):
        nf.train(fast, theta, task, recipe, checkpoint=path)
    assert nf.load_run(path).updates == 2
    assert whole.updates == 4


@pytest.mark.sim
def test_a_file_of_a_network_holds_its_settings(tmp_path):
    path = tmp_path / "net.safetensors"
    own = nf.load_cell(nf.Cell(step=sharp_step, **SHARP), sharp=2.0, keep=[0.1, 0.5, 0.9])
    for cell in (nf.load_cell("leaky_tanh", rate=RATES), nf.load_cell("leaky_tanh", rate=0.3), own):
        net = nf.Network(cell, 2, 3, 1, loss="square")
        theta = nf.init(net, "glorot", rng=0)
        nf.save(path, net, theta)
        found, again = nf.load(path, cell=own if cell is own else None)
        assert found == net
        assert same_bits(theta, again)
    with pytest.raises(ValueError, match="sharp"):
        nf.load(path, cell=nf.load_cell(own, sharp=3.0))
    nf.save(path, nf.Network(nf.load_cell("leaky_tanh", rate=0.3), 2, 3, 1), theta)
    with pytest.raises(ValueError, match=r"has leaky_tanh\(rate=0\.3\); expected None, or the same"):
        nf.load(path, cell=nf.load_cell("leaky_tanh", rate=0.5))


@pytest.mark.sim
def test_layers_of_a_stack_have_settings_of_their_own():
    lower, upper = (nf.Network(nf.load_cell("leaky_tanh", rate=r), 3, 3, 2, "square", "float64") for r in (0.2, 0.7))
    stack, rng = nf.Stack([lower, upper]), np.random.default_rng(98)
    theta = rng.normal(size=stack.size)
    batch = nf.Batch(rng.normal(size=(5, 2, 3)), rng.normal(size=(5, 2, 2)), np.full((5, 2), 0.1))
    h = batch.inputs
    for layer, part, rate in zip(stack.layers, stack.split(theta), (0.2, 0.7), strict=True):
        p = naive.unpack(part, "tanh", 3, 3, layer.n_out)
        states, before = [], np.zeros((2, 3))
        for x in h:
            a = x @ p["w_in"][:, 0] + p["bias"][0] + before @ p["w_rec"][:, 0]
            before = (1 - rate) * before + rate * np.tanh(a)
            states.append(before)
        h = np.array(states)
    assert_close(nf.predict(stack, theta, batch.inputs), h @ p["w_out"] + p["b_out"], within("float64", 5, 100))


@unit
def sharp_step(a_in, a_rec, s, settings):
    sharp, keep = settings
    return (keep * s[0] + (ONE - keep) * nf.scalars.tanh(sharp * (a_in[0] + a_rec[0])),), ()


@unit
def wrong_vjp(saved, s, s_next, d, settings):
    e = (d[0] * settings[0],)
    return e, e, (d[0] * settings[1],)


@unit
def plain_step(a_in, a_rec, s):
    return (a_in[0] + a_rec[0],), ()


SHARP = {"gates": ("a",), "states": ("h",), "carries": True, "settings": {"sharp": None, "keep": 0.5}}


@pytest.mark.sim
def test_a_cell_of_ones_own_has_settings():
    cell = nf.Cell(step=sharp_step, **SHARP)
    net = nf.Network(nf.load_cell(cell, sharp=2.0, keep=[0.1, 0.9]), 1, 2, 1, loss="square", dtype="float64")
    case = make_case("tanh", T=3, B=2, N=1, H=2, M=1)
    assert nf.check_gradient(net, case.theta, case.batch).error_complex < within("float64", 4, 100, 10)
    for derivative in ("immediate", *EXACT):
        flow = nf.Flow("squared", 0.5, derivative, "mean")
        seen = nf.check_gradient(net, case.theta, case.batch, flow=flow)
        assert seen.error_central < differenced(1e-4, 4, 20, 500, condition=10), derivative


@pytest.mark.sim
def test_a_cell_of_ones_own_with_settings_is_tried():
    with pytest.raises(ValueError, match="sharp is None"):
        nf.Network(nf.Cell(step=sharp_step, **SHARP), 1, 3, 1)
    with pytest.raises(ValueError, match=r"Cell\.step_vjp gives .* differences of step"):
        nf.Network(nf.load_cell(nf.Cell(step=sharp_step, step_vjp=wrong_vjp, **SHARP), sharp=2.0), 1, 3, 1)
    with pytest.raises(TypeError, match=r"expected a unit, step\(a_in, a_rec, s, settings\)"):
        nf.Cell(step=plain_step, gates=("a",), states=("h",), settings={"rate": 0.1})
    with pytest.raises(TypeError, match=r"Cell\.limits"):
        nf.Cell(step=sharp_step, **SHARP, limits={"other": (0.0, 1.0)})
