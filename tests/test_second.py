"""Claims about second derivatives: the detached and the exact derivative of Omega, and Hessian-vector products."""

from __future__ import annotations

import itertools

import naive
import numpy as np
import pytest
from cases import CELLS, DTYPES, FLOWS, KINDS, LOSSES, REDUCTIONS, make_case
from tolerance import assert_close, differenced, near, same_bits, within

import nbflow as nf

BEYOND_IMMEDIATE = ("detached", "exact")
# What differences of a function that is itself right to rounding tell.
BY_DIFFERENCES = differenced(1e-4, 6, 4, 500, condition=4)


def along(function, point, direction, step=2e-4):
    """Return the slope of a function along a direction, by four-point differences extrapolated to a step of 0."""

    def slope(h):
        values = [function(point + k * h * direction) for k in (-2, -1, 1, 2)]
        return (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * h)

    return (16 * slope(step / 2) - slope(step)) / 15


def directions(size, count=2):
    """Return random directions of length 1: a vector that is wrong anywhere is wrong along them."""
    drawn = np.random.default_rng(29).normal(size=(count, size))
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def omega_by_naive(case, penalty, reduction, derivative):
    """Return Omega as a function of theta, by the reference."""
    net, delta = case.net, case.flow().delta
    sizes = case.sizes
    if derivative == "exact":
        return lambda theta: naive.omega_of(theta, *sizes, net.loss, case.batch, penalty, reduction)
    return lambda theta: naive.omega_detached(theta, *sizes, case.batch.inputs, penalty, reduction, delta)


def d_omega(case, flow, **choices):
    """Return what alpha = 1 adds to the gradient of the loss."""
    with_flow = nf.gradient(case.net, case.theta, case.batch, flow=flow, **choices).d_theta
    return with_flow - nf.gradient(case.net, case.theta, case.batch, **choices).d_theta


@pytest.mark.parametrize("derivative", BEYOND_IMMEDIATE)
@pytest.mark.parametrize("cell", CELLS)
def test_the_gradient_of_omega_is_the_slope_of_the_reference(cell, derivative):
    """Both reductions, every penalty, dense and token inputs, ragged lengths, losses at every step and at the last."""
    combinations = itertools.product(FLOWS, REDUCTIONS, ("ragged", "all", "last"))
    for k, (penalty, reduction, when) in enumerate(combinations):
        case = make_case(cell, LOSSES[k % len(LOSSES)], KINDS[k % 2], when, T=4, B=9, N=2, H=3, M=2, seed=30 + k)
        omega = omega_by_naive(case, penalty, reduction, derivative)
        got = d_omega(case, nf.Flow(penalty, 1.0, derivative, reduction))
        size = np.linalg.norm(got)
        assert size > 1e-6, (penalty, reduction, when)
        for u in directions(got.size):
            assert abs(got @ u - along(omega, case.theta, u)) < 10 * BY_DIFFERENCES * max(size, 1), (penalty, when)


@pytest.mark.sim
@pytest.mark.parametrize("derivative", BEYOND_IMMEDIATE)
@pytest.mark.parametrize("cell", CELLS)
def test_the_gradient_of_omega_is_the_slope_of_the_reference_for_the_smallest_networks(cell, derivative):
    case = make_case(cell, "square", "dense", "ragged", T=3, B=2, N=1, H=2, M=1, seed=31)
    wanted = naive.central_difference(omega_by_naive(case, "squared", "mean", derivative), case.theta)
    got = d_omega(case, nf.Flow("squared", 1.0, derivative, "mean"))
    assert np.abs(got - wanted).max() < BY_DIFFERENCES * max(np.abs(wanted).max(), 1)


@pytest.mark.parametrize("derivative", BEYOND_IMMEDIATE)
@pytest.mark.parametrize("cell", CELLS)
def test_float32_agrees_with_float64(cell, derivative):
    flow = nf.Flow("norm", 0.7, derivative)
    double = make_case(cell, "softmax", "dense", "ragged", T=20, B=9, N=3, H=17, M=3, seed=32)
    single = make_case(cell, "softmax", "dense", "ragged", T=20, B=9, N=3, H=17, M=3, dtype="float32", seed=32)
    wanted = nf.gradient(double.net, single.theta.astype(np.float64), single_as_double(single), flow=flow)
    got = nf.gradient(single.net, single.theta, single.batch, flow=flow)
    assert got.d_theta.dtype == np.float32
    assert_close(got.d_theta, wanted.d_theta, within("float32", 20, 500, 10))


def single_as_double(case):
    return nf.Batch(*(part.astype(np.float64) if part.dtype.kind == "f" else part for part in case.batch))


@pytest.mark.parametrize("derivative", BEYOND_IMMEDIATE)
def test_long_sequences_are_swept_over_segments_without_a_seam(derivative):
    """Over 64 steps the way back has several segments: against differences in every parameter."""
    case = make_case("tanh", "square", "dense", "ragged", T=150, B=3, N=2, H=6, M=2, seed=33)
    flow = nf.Flow("norm", 1.0, derivative)
    check = nf.check_gradient(case.net, case.theta, case.batch, flow=flow)
    assert check.error_central < differenced(1e-4, 4, 150, 100, condition=10)


@pytest.mark.parametrize("derivative", BEYOND_IMMEDIATE)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
def test_alpha_0_is_bit_identical_to_no_flow(cell, dtype, derivative):
    case = make_case(cell, "softmax", "dense", "ragged", T=70, B=9, N=3, H=17, M=3, dtype=dtype, seed=34)
    plain = nf.gradient(case.net, case.theta, case.batch)
    out = nf.gradient(case.net, case.theta, case.batch, flow=nf.Flow("squared", 0.0, derivative))
    assert same_bits(out.d_theta, plain.d_theta)
    assert out.omega == nf.gradient(case.net, case.theta, case.batch, flow=nf.Flow("squared", 0.0)).omega


@pytest.mark.parametrize("derivative", BEYOND_IMMEDIATE)
def test_replicas_have_the_bits_of_networks_alone(derivative):
    cases = [make_case("gru", "softmax", "dense", "ragged", T=6, B=9, N=3, H=5, M=3, seed=35 + r) for r in range(3)]
    alpha = np.array([0.5, 0.0, 2.0])
    together = nf.gradient(
        cases[0].net,
        np.stack([case.theta for case in cases]),
        nf.Batch(*(np.stack(parts) for parts in zip(*(case.batch for case in cases), strict=True))),
        flow=nf.Flow("norm", alpha, derivative, "mean"),
    )
    for r, case in enumerate(cases):
        alone = nf.gradient(case.net, case.theta, case.batch, flow=nf.Flow("norm", alpha[r], derivative, "mean"))
        assert same_bits(together.d_theta[r], alone.d_theta)


@pytest.mark.parametrize("derivative", BEYOND_IMMEDIATE)
@pytest.mark.parametrize("penalty", FLOWS)
def test_edges_of_omega_are_finite(penalty, derivative):
    """T = 1, delta below the bound, saturated units, r = 0."""
    flow = nf.Flow(penalty, 1.0, derivative)
    for cell, T, size in (("tanh", 1, 1.0), ("tanh", 5, 1e-12), ("tanh", 5, 1.0), ("lstm", 5, 1.0)):
        case = make_case(cell, "square", "dense", "last", T=T, B=2, N=2, H=3, M=1, seed=36)
        batch = case.batch._replace(weights=case.batch.weights * size)
        assert np.isfinite(nf.gradient(case.net, case.theta, batch, flow=flow).d_theta).all()
        saturated = case.theta * 100
        assert np.isfinite(nf.gradient(case.net, saturated, case.batch, flow=flow).d_theta).all()
        still = case.theta.copy()
        nf.unpack(case.net, still).w_rec[:] = 0
        out = nf.gradient(case.net, still, case.batch, flow=flow)
        assert np.isfinite(out.omega)
        assert np.isfinite(out.d_theta).all()


def test_nothing_counted_leaves_the_gradient_of_the_loss():
    case = make_case("tanh", "square", "dense", "last", T=4, B=3, N=2, H=3, M=1, seed=37)
    out = nf.gradient(case.net, case.theta, case.batch, flow=nf.Flow("norm", 1.0, "exact", bound=1e30))
    assert out.counted == 0
    assert_close(out.d_theta, nf.gradient(case.net, case.theta, case.batch).d_theta, within("float64"))


def test_the_exact_derivative_follows_a_first_state():
    case = make_case("lstm", "square", "dense", "all", T=4, B=3, N=2, H=3, M=2, seed=38)
    flow = nf.Flow("squared", 1.0, "exact")

    def omega(theta):
        return nf.gradient(case.net, theta, case.batch, state=case.state, flow=nf.Flow("squared", 0.0)).omega

    got = d_omega(case, flow, state=case.state)
    for u in directions(got.size):
        assert abs(got @ u - along(omega, case.theta, u)) < BY_DIFFERENCES * np.linalg.norm(got)


@pytest.mark.parametrize("derivative", BEYOND_IMMEDIATE)
@pytest.mark.parametrize("penalty", FLOWS)
def test_check_gradient_finds_these_derivatives_right(penalty, derivative):
    case = make_case("gru", "softmax", "dense", "ragged", T=4, B=3, N=2, H=3, M=2, seed=39)
    for reduction in REDUCTIONS:
        seen = nf.check_gradient(case.net, case.theta, case.batch, flow=nf.Flow(penalty, 1.0, derivative, reduction))
        tolerance = differenced(1e-4, 4, 20, 500, condition=10)
        assert seen.error_central < tolerance
        assert seen.error_complex < tolerance


def test_check_gradient_tells_the_derivatives_apart(monkeypatch):
    """One that is checked against another's differences is found wrong."""
    import nbflow.diagnostics.differences as differences

    case = make_case("tanh", "square", "dense", "all", T=4, B=3, N=2, H=3, M=2, seed=40)
    monkeypatch.setattr(differences, "_Omega", differences._DetachedOmega)
    assert nf.check_gradient(case.net, case.theta, case.batch, flow=nf.Flow("norm", 1.0, "exact")).error_central > 1e-4


def test_training_with_the_exact_derivative_is_training_with_its_gradient():
    task = nf.load_task("temporal_order")
    net = nf.Network("tanh", task.n_in, 7, task.n_out, dtype="float64")
    theta = nf.init(net, "smart_tanh", rng=0)
    flow = nf.Flow("norm", 0.5, "exact")
    recipe = nf.Recipe(lengths=12, batch_size=9, max_updates=1, evaluate_every=0, flow=flow, lr=0.1)
    batch = task.sample(seed=0, index=0, batch_size=9, length=12, dtype="float64")
    wanted = theta - 0.1 * nf.gradient(net, theta, batch, flow=flow).d_theta
    assert_close(nf.train(net, theta, task, recipe).theta, wanted, within("float64"))


# ------------------------------------------------------------------------------------------ Hessian-vector products


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("cell", CELLS)
def test_a_hessian_vector_product_is_the_slope_of_the_gradient(cell, loss):
    """Along one direction, by central differences of the reference's gradient."""
    for kind, when in itertools.product(KINDS, ("ragged", "all")):
        case = make_case(cell, loss, kind, when, T=4, B=9, N=3, H=4, M=2, seed=41)
        direction = directions(case.net.size, 1)[0]

        def slopes(theta, case=case):
            sizes = (case.net.cell, case.net.n_in, case.net.n_hidden, case.net.n_out)
            return naive.gradient(theta, *sizes, case.net.loss, case.batch)[1]

        wanted = along(slopes, case.theta, direction)
        got = nf.hvp(case.net, case.theta, case.batch, direction)
        assert np.abs(got - wanted).max() < 10 * BY_DIFFERENCES * max(1, np.abs(wanted).max()), (kind, when)


@pytest.mark.parametrize("cell", CELLS)
def test_the_hessian_is_symmetric(cell):
    case = make_case(cell, "softmax", "dense", "ragged", T=70, B=9, N=3, H=9, M=3, seed=42)
    for a, b in np.random.default_rng(42).normal(size=(3, 2, case.net.size)):
        of_a, of_b = (nf.hvp(case.net, case.theta, case.batch, v) for v in (a, b))
        size = np.linalg.norm(of_a) * np.linalg.norm(b) + np.linalg.norm(of_b) * np.linalg.norm(a)
        assert of_a @ b == near(of_b @ a, "float64", 70, 500, size=size)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_hessian_vector_product_is_linear_and_leaves_its_arguments_alone(dtype):
    case = make_case("gru", "softmax", "tokens", "ragged", T=6, B=9, N=3, H=5, M=3, dtype=dtype, seed=43)
    a, b = np.random.default_rng(43).normal(size=(2, case.net.size)).astype(dtype)
    kept = case.theta.copy(), a.copy()
    space = nf.workspace(case.net, case.batch)
    both = nf.hvp(case.net, case.theta, case.batch, a + 2 * b, workspace=space)
    one, other = (nf.hvp(case.net, case.theta, case.batch, v, workspace=space) for v in (a, b))
    assert both.dtype == np.dtype(dtype)
    assert_close(both, one + 2 * other, within(dtype, 6, 1000))
    assert same_bits(case.theta, kept[0])
    assert same_bits(a, kept[1])


def test_scipy_minimises_an_objective_with_and_without_its_hessian():
    from scipy.optimize import minimize

    case = make_case("tanh", "square", "dense", "all", T=4, B=6, N=2, H=3, M=1, seed=44)
    loss = nf.objective(case.net, case.batch)
    start = loss(case.theta)[0]
    found = minimize(loss, case.theta, jac=True, method="L-BFGS-B", options={"maxiter": 400})
    assert found.fun < 0.5 * start
    newton = minimize(loss, case.theta, jac=True, hessp=loss.hessp, method="trust-ncg", options={"maxiter": 400})
    assert newton.fun < 0.5 * start
    assert np.linalg.norm(newton.jac) < 1e-2 * np.linalg.norm(loss(case.theta)[1])


def test_an_objective_with_exact_omega_is_a_function_and_its_gradient():
    from scipy.optimize import check_grad

    case = make_case("tanh", "square", "dense", "all", T=4, B=3, N=2, H=3, M=1, seed=45)
    whole = nf.objective(case.net, case.batch, nf.Flow("squared", 0.3, "exact"))
    step = np.finfo(float).eps ** 0.5  # of scipy, in each parameter, on one side
    tolerance = differenced(step, 1, 4, 100) * case.theta.size**0.5 * max(1, whole(case.theta)[0])
    assert check_grad(lambda x: whole(x)[0], lambda x: whole(x)[1], case.theta) < tolerance
    with pytest.raises(ValueError, match="flow is given"):
        whole.hessp(case.theta, case.theta)
