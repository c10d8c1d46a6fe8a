"""Claims about products with Jacobians, and about what is found by them: singular values and Lyapunov exponents."""

from __future__ import annotations

import naive
import numpy as np
import pytest
from cases import CELLS, DTYPES, KINDS, make_case
from tolerance import assert_close, differenced, near, same_bits, within

import nbflow as nf

LINES = {"lstm": 2}


def draw(case, *shape, seed=50):
    return np.random.default_rng(seed).normal(size=shape).astype(case.net.dtype)


def shape_of_state(case):
    return (case.batch.weights.shape[1], LINES.get(case.net.cell, 1), case.net.n_hidden)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cell", CELLS)
def test_jvp_and_vjp_are_adjoint(cell, kind):
    case = make_case(cell, "softmax", kind, "ragged", T=7, B=9, N=3, H=17, M=2, seed=50)
    steps, batch = case.batch.weights.shape
    theta_dot, d_outputs = draw(case, case.net.size), draw(case, steps, batch, 2, seed=51)
    state_dot, d_state = draw(case, *shape_of_state(case), seed=52), draw(case, *shape_of_state(case), seed=53)
    how = {"state": case.state}
    moved = nf.jvp(case.net, case.theta, case.batch.inputs, theta_dot=theta_dot, state_dot=state_dot, **how)
    pulled = nf.vjp(case.net, case.theta, case.batch.inputs, d_outputs=d_outputs, d_state=d_state, **how)
    one = (moved.outputs * d_outputs).sum() + (moved.state * d_state).sum()
    other = pulled.d_theta @ theta_dot + (pulled.d_state * state_dot).sum()
    size = np.abs(moved.outputs * d_outputs).sum() + np.abs(moved.state * d_state).sum()
    assert one == near(other, "float64", 7, case.terms, size=size)


@pytest.mark.sim
@pytest.mark.parametrize("cell", CELLS)
def test_a_jvp_is_the_slope_of_the_references_outputs_and_states(cell):
    case = make_case(cell, "square", "dense", "all", T=3, B=2, N=2, H=3, M=2, seed=54)
    theta_dot, state_dot = draw(case, case.net.size), draw(case, *shape_of_state(case), seed=55)

    def run(far):
        p = naive.unpack(case.theta + far * theta_dot, cell, 2, 3, 2)
        states = naive.forward(p, cell, case.batch.inputs, case.state + far * state_dot)
        return np.concatenate([naive.outputs(p, states).ravel(), states[-1].ravel()])

    step = 1e-3
    wanted = (run(-2 * step) - 8 * run(-step) + 8 * run(step) - run(2 * step)) / (12 * step)
    moved = nf.jvp(case.net, case.theta, case.batch.inputs, theta_dot=theta_dot, state_dot=state_dot, state=case.state)
    got = np.concatenate([moved.outputs.ravel(), moved.state.ravel()])
    far = np.linalg.norm(theta_dot) + np.linalg.norm(state_dot)
    tolerance = differenced(step, 4, 3, case.terms, curvature=far**4)
    assert np.abs(got - wanted).max() < tolerance * max(1, np.abs(wanted).max())


@pytest.mark.parametrize("dtype", DTYPES)
def test_products_of_replicas_have_the_bits_of_networks_alone(dtype):
    cases = [make_case("lstm", "square", "dense", "all", 4, 9, 2, 5, 2, dtype, seed=56 + r) for r in range(2)]
    theta, inputs = np.stack([c.theta for c in cases]), np.stack([c.batch.inputs for c in cases])
    theta_dot = np.stack([draw(c, c.net.size, seed=57 + r) for r, c in enumerate(cases)])
    d_outputs = np.stack([draw(c, 4, 9, 2, seed=58 + r) for r, c in enumerate(cases)])
    moved = nf.jvp(cases[0].net, theta, inputs, theta_dot=theta_dot)
    pulled = nf.vjp(cases[0].net, theta, inputs, d_outputs=d_outputs)
    for r, case in enumerate(cases):
        alone = nf.jvp(case.net, case.theta, case.batch.inputs, theta_dot=theta_dot[r])
        assert same_bits(moved.outputs[r], alone.outputs)
        assert same_bits(moved.state[r], alone.state)
        back = nf.vjp(case.net, case.theta, case.batch.inputs, d_outputs=d_outputs[r])
        assert same_bits(pulled.d_theta[r], back.d_theta)
        assert same_bits(pulled.d_state[r], back.d_state)


def test_products_refuse_what_makes_no_sense():
    case = make_case("tanh", "square", "dense", "all", T=4, B=3, N=2, H=5, M=2, seed=59)
    net, theta, inputs = case.net, case.theta, case.batch.inputs
    with pytest.raises(ValueError, match="theta_dot, state_dot and inputs_dot are None"):
        nf.jvp(net, theta, inputs)
    with pytest.raises(ValueError, match="d_outputs, d_state and d_states are None"):
        nf.vjp(net, theta, inputs)
    with pytest.raises(ValueError, match=r"theta_dot has shape \(3,\)"):
        nf.jvp(net, theta, inputs, theta_dot=theta[:3])
    with pytest.raises(ValueError, match=r"state_dot has shape \(5,\); expected \(3, 1, 5\)"):
        nf.jvp(net, theta, inputs, state_dot=theta[:5])
    with pytest.raises(ValueError, match=r"d_outputs has shape \(4, 3\)"):
        nf.vjp(net, theta, inputs, d_outputs=np.zeros((4, 3)))
    with pytest.raises(TypeError, match=r"d_state has dtype float32; expected float64"):
        nf.vjp(net, theta, inputs, d_state=np.zeros((3, 1, 5), np.float32))
    with pytest.raises(ValueError, match="direction is nan"):
        nf.hvp(net, theta, case.batch, np.full_like(theta, np.nan))
    with pytest.raises(ValueError, match=r"k is 6; expected 1 to S \* H = 5"):
        nf.jacobian_singular_values(net, theta, inputs, k=6)
    with pytest.raises(ValueError, match="discard is 4; expected less than T = 4"):
        nf.lyapunov_exponents(net, theta, inputs, k=1, discard=4)
    with pytest.raises(ValueError, match="Take one replica"):
        nf.lyapunov_exponents(net, theta[None], inputs[None], k=1)


# -------------------------------------------------------------------------------------------------- long Jacobians


def long_jacobian(case, b):
    """Return ds_T/ds_0 of one sequence by the reference, a product of the Jacobians of its steps."""
    net = case.net
    p = naive.unpack(case.theta, net.cell, net.n_in, net.n_hidden, net.n_out)
    states = naive.forward(p, net.cell, case.batch.inputs)
    size = states[0, 0].size
    product = np.eye(size)
    for t, x in enumerate(case.batch.inputs):
        product = naive.jacobian(p, net.cell, x[b], states[t, b]) @ product
    return product


@pytest.mark.parametrize("cell", CELLS)
def test_singular_values_are_those_of_the_references_product_of_jacobians(cell):
    case = make_case(cell, "square", "dense", "all", T=6, B=2, N=2, H=5, M=1, seed=60)
    for b in range(2):
        wanted = np.linalg.svd(long_jacobian(case, b), compute_uv=False)
        for k in (1, 4, wanted.size):
            found = nf.jacobian_singular_values(case.net, case.theta, case.batch.inputs, k=k).values[b]
            # Squares are found to roundings of the largest.
            assert np.abs(found - wanted[:k]).max() <= within("float64", 6, 100) ** 0.5 * wanted[0]


def test_lanczos_iterations_find_the_singular_values_of_a_larger_network():
    case = make_case("tanh", "square", "dense", "all", T=8, B=2, N=2, H=70, M=1, seed=61)
    theta = nf.init(case.net, "orthogonal", rng=61)
    inputs = case.batch.inputs[:, :1]
    rows = np.eye(70).reshape(70, 1, 1, 70)
    jacobian = np.stack([nf.jvp(case.net, theta, inputs, state_dot=row).state.ravel() for row in rows])
    wanted = np.linalg.svd(jacobian, compute_uv=False)[:3]
    seen = nf.jacobian_singular_values(case.net, theta, case.batch.inputs, k=3)
    assert_close(seen.values[0], wanted, within("float64", 8, 100) ** 0.5)
    assert (seen.low <= seen.mean).all()
    assert (seen.mean <= seen.high).all()
    again = nf.jacobian_singular_values(case.net, theta, case.batch.inputs, k=3)
    assert same_bits(seen.values, again.values)


def test_a_network_that_forgets_everything_has_singular_values_0():
    case = make_case("relu", "square", "dense", "all", T=5, B=1, N=2, H=70, M=1, seed=62)
    nf.unpack(case.net, case.theta).bias[:] = -1e3
    assert (nf.jacobian_singular_values(case.net, case.theta, case.batch.inputs, k=2).values == 0).all()


# --------------------------------------------------------------------------------------------- Lyapunov exponents


def plain_exponents(case, b, k):
    """Return exponents by a QR decomposition at every step, in plain NumPy."""
    net = case.net
    p = naive.unpack(case.theta, net.cell, net.n_in, net.n_hidden, net.n_out)
    states = naive.forward(p, net.cell, case.batch.inputs)
    q, total = np.eye(states[0, 0].size, k), np.zeros(k)
    for t, x in enumerate(case.batch.inputs):
        q, r = np.linalg.qr(naive.jacobian(p, net.cell, x[b], states[t, b]) @ q)
        total += np.log(np.abs(np.diag(r)))
    return np.sort(total / len(case.batch.inputs))[::-1]


@pytest.mark.parametrize("cell", ["tanh", "lstm", "gru"])
def test_exponents_are_those_of_a_plain_qr_at_every_step(cell):
    case = make_case(cell, "square", "dense", "all", T=40, B=2, N=2, H=4, M=1, seed=63)
    for every in (1, 3, 7):
        seen = nf.lyapunov_exponents(case.net, case.theta, case.batch.inputs, k=3, every=every)
        for b in range(2):
            wanted = plain_exponents(case, b, 3)
            # Between two decompositions the columns turn into the first: what tells them apart cancels.
            condition = np.exp(every * np.ptp(wanted)) / np.abs(wanted).max()
            assert_close(seen.values[b], wanted, within("float64", 40, 100, condition))


def test_exponents_of_a_random_tanh_network_are_those_of_a_plain_qr_over_400_steps():
    case = make_case("tanh", "square", "dense", "all", T=400, B=1, N=2, H=8, M=1, seed=64)
    nf.unpack(case.net, case.theta).w_rec[:] = np.random.default_rng(64).normal(0, 1.5 / 8**0.5, (8, 1, 8))
    seen = nf.lyapunov_exponents(case.net, case.theta, case.batch.inputs, k=8, every=2)
    assert np.abs(seen.values[0] - plain_exponents(case, 0, 8)).max() < 1e-2


@pytest.mark.parametrize("every", [1, 5])
def test_exponents_of_a_linear_network_are_the_logarithms_of_its_eigenvalues(every):
    case = make_case("linear", "square", "dense", "all", T=600, B=1, N=2, H=4, M=1, dtype="float32", seed=65)
    rng = np.random.default_rng(65)
    eigenvalues, basis = np.array([1.1, 0.9, 0.6, 0.3]), rng.normal(size=(4, 4))
    w_rec = np.linalg.inv(basis) @ np.diag(eigenvalues) @ basis
    nf.unpack(case.net, case.theta).w_rec[:] = w_rec[:, None, :]
    seen = nf.lyapunov_exponents(case.net, case.theta, case.batch.inputs, k=4, every=every, discard=100)
    assert np.abs(seen.values[0] - np.log(eigenvalues)).max() < within("float32", 1, 4, np.linalg.cond(basis))


@pytest.mark.parametrize("H", [5, 80])
def test_a_jacobian_that_is_not_finite_has_singular_values_that_are_nan(H):
    net = nf.Network("relu", n_in=2, n_hidden=H, n_out=2, dtype="float64")
    theta = nf.init(net, "identity", rng=0)
    inputs = np.ones((9, 2, 2))
    whole = nf.jacobian_singular_values(net, theta, inputs, k=2).values
    assert np.isfinite(whole).all()
    for wrong in (np.nan, 1e200):
        bad = theta.copy()
        nf.unpack(net, bad).w_rec[...] = wrong
        assert np.isnan(nf.jacobian_singular_values(net, bad, inputs, k=2).values).all()
