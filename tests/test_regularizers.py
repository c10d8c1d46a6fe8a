"""Claims about the regularizers that are no penalty of the gain: of the states, of w_rec, of Lyapunov exponents."""

from __future__ import annotations

import dataclasses
import itertools

import naive
import numpy as np
import pytest
from cases import CELLS, DTYPES, KINDS, REGULARIZERS, STATE_FLOWS, make_case, make_exploding_case, make_replicas
from tolerance import CLAIM, assert_close, differenced, near, same_bits, within

import nbflow as nf
from nbflow.regularizers import flossing, spectral_cap

NAMES = STATE_FLOWS + REGULARIZERS


def assert_regularizer(case, name, tolerance, *, alphas=(0.7, 300.0), carried=False):
    """Assert that value and gradient of loss + alpha * Omega are the reference's; with 300 nearly all is Omega's."""
    s0 = case.state.astype(np.float64) if carried else None
    given = (*case.sizes, case.plain, s0)
    theta = case.theta.astype(np.float64)
    flow = case.flow(carried=carried)
    slope = naive.regularizer_slope(name, theta, *given)
    state = case.state if carried else None
    for alpha in alphas:
        out = nf.gradient(case.net, case.theta, case.batch, flow=nf.Flow(name, alpha), state=state)
        assert out.d_theta.dtype == case.net.dtype
        assert_close(out.loss, flow.loss, tolerance, f"the loss with {name}")
        assert_close(out.omega, naive.REGULARIZERS[name](theta, *given), tolerance, name)
        assert_close(out.d_theta, naive.pack(flow.d_params) + alpha * slope, tolerance, f"the gradient of {name}")
    return out, slope


def test_there_is_a_regularizer_of_every_kind():
    assert STATE_FLOWS == ("norm_stabilizer",)
    assert REGULARIZERS == ("flossing", "orthogonality", "spectral_cap")


@pytest.mark.parametrize("cell", [cell for cell in CELLS if cell != "relu"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_value_and_gradient_are_the_references(name, cell, dtype):
    """A relu that is off loses a direction, and flossing has no exponents there: see below."""
    for kind, when in (("dense", "ragged"), ("tokens", "last")):
        case = make_case(cell, "square", kind, when, T=4, B=3, N=2, H=3, M=2, dtype=dtype, seed=50, gain=1.5)
        # Rounding of the network's own gradient in float32; of central differences else.
        tolerance = within(dtype, 4, 100 * case.terms) if name in naive.COMPLEX_SAFE else CLAIM[dtype]
        _, slope = assert_regularizer(case, name, tolerance)
        assert np.linalg.norm(slope) > 1e-3


@pytest.mark.parametrize("name", [name for name in NAMES if name != "flossing"])
def test_value_and_gradient_are_the_references_for_relu(name):
    case = make_case("relu", "square", "dense", "ragged", T=4, B=9, N=2, H=5, M=2, seed=51, gain=1.5)
    assert_regularizer(case, name, CLAIM["float64"])


@pytest.mark.parametrize("name", STATE_FLOWS)
@pytest.mark.parametrize("T, B, N, H, M", [(1, 1, 1, 1, 2), (6, 1, 2, 2, 2), (2, 9, 1, 9, 2), (9, 9, 2, 3, 2)])
def test_a_state_penalty_is_the_references_for_every_size_and_first_state(name, T, B, N, H, M):
    for k, (cell, dtype) in enumerate(itertools.product(CELLS, DTYPES)):
        case = make_case(cell, "softmax", KINDS[k % 2], "ragged", T, B, N, H, M, dtype, seed=52)
        out, _ = assert_regularizer(case, name, within(dtype, T, 100 * case.terms), carried=k % 3 > 0)
        assert out.counted == naive.last_step(case.batch.weights).sum()


@pytest.mark.sim
@pytest.mark.parametrize("name", NAMES)
def test_they_are_the_references_for_the_smallest_networks(name):
    case = make_case("lstm", "square", "tokens", "ragged", T=3, B=2, N=2, H=2, M=2, seed=53, gain=1.5)
    assert_regularizer(case, name, CLAIM["float64"])


# Central differences of the whole, which check_gradient takes with a step of 1e-4; penalties cancel more than losses.
CENTRAL = differenced(1e-4, 4, 20, 500, condition=10)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("name", NAMES)
def test_check_gradient_covers_every_regularizer(name, cell):
    if (name, cell) == ("flossing", "relu"):
        cell = "gru"
    case = make_case(cell, "square", "dense", "ragged", T=4, B=3, N=2, H=3, M=2, seed=54, gain=1.5)
    for alpha in (0.7, 300.0):
        seen = nf.check_gradient(case.net, case.theta, case.batch, flow=nf.Flow(name, alpha))
        assert seen.error_central < CENTRAL
        assert seen.error_complex < (CENTRAL if name in REGULARIZERS else within("float64", 20, 500))


def test_check_gradient_sees_a_wrong_slope_of_every_kind():
    case = make_case("tanh", "square", "dense", "all", T=4, B=3, N=2, H=3, M=2, seed=54)

    def wrong(net, theta, batch):
        return float((theta**2).sum()), 2.1 * theta

    @nf.unit
    def slope(n, before):
        return n, before

    flow = nf.Flow(nf.Regularizer(wrong), 1.0)
    seen = nf.check_gradient(case.net, case.theta, case.batch, flow=flow)
    assert min(seen.error_central, seen.error_complex) > 1e-3
    # That of a unit is found out before anything is computed.
    penalty = nf.StatePenalty(nf.flows.norm_stabilizer.value, slope)
    with pytest.raises(ValueError, match=r"StatePenalty\.slope gives .* where differences of value give"):
        nf.check_gradient(case.net, case.theta, case.batch, flow=nf.Flow(penalty, 1.0))


# ---------------------------------------------------------------------------------------------------- one Flow for all


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_alpha_0_is_bit_identical_to_no_flow(name, cell, dtype):
    case = make_case(cell, "softmax", "tokens", "ragged", T=6, B=9, N=3, H=17, M=3, dtype=dtype, seed=55, gain=1.5)
    plain = nf.gradient(case.net, case.theta, case.batch)
    out = nf.gradient(case.net, case.theta, case.batch, flow=nf.Flow(name, 0.0))
    assert same_bits(out.d_theta, plain.d_theta)
    assert out.loss == plain.loss
    assert out.omega > 0
    assert (out.counted is None) == (name in REGULARIZERS)


@pytest.mark.parametrize("name", NAMES)
def test_alpha_is_each_replicas_own(name):
    """A replica is, to the bit, what it is alone with its own alpha; with 0 it is what it is without a flow."""
    alphas = np.array([0.0, 0.5, 8.0])
    net, theta, batch, _, cases = make_replicas("lstm", R=3, kind="tokens", T=5, B=9, N=3, H=5, gain=1.5)
    out = nf.gradient(net, theta, batch, flow=nf.Flow(name, alphas))
    for r, case in enumerate(cases):
        alone = nf.gradient(net, case.theta, case.batch, flow=nf.Flow(name, alphas[r]))
        assert same_bits(out.d_theta[r], alone.d_theta)
        assert (out.omega[r], out.loss[r]) == (alone.omega, alone.loss)
    assert same_bits(out.d_theta[0], nf.gradient(net, cases[0].theta, cases[0].batch).d_theta)


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_is_linear_in_alpha(name):
    case = make_case("tanh", "softmax", T=6, B=9, H=5, M=3, seed=56, gain=1.5)
    at = {
        alpha: nf.gradient(case.net, case.theta, case.batch, flow=nf.Flow(name, alpha)).d_theta
        for alpha in (0.0, 1.0, 4.0)
    }
    assert_close(at[4.0] - at[0.0], 4 * (at[1.0] - at[0.0]), within("float64", 6, 10 * case.terms))


@pytest.mark.parametrize("name", NAMES)
def test_choices_that_only_the_gain_has_are_refused(name):
    case = make_case("tanh")
    for choice, value in (("derivative", "exact"), ("reduction", "mean"), ("bound", 1e-10)):
        flow = nf.Flow(name, 1.0, **{choice: value})
        with pytest.raises(ValueError, match=f"{choice} is .*Leave {choice} out"):
            nf.gradient(case.net, case.theta, case.batch, flow=flow)
        with pytest.raises(ValueError, match=f"{choice} is .*Leave {choice} out"):
            nf.check_gradient(case.net, case.theta, case.batch, flow=flow)
        with pytest.raises(ValueError, match=f"{choice} is .*Leave {choice} out"):
            nf.train(case.net, case.theta, lambda update: case.batch, nf.Recipe(flow=flow, evaluate_every=0))


@pytest.mark.parametrize("name", NAMES)
def test_a_workspace_serves_every_kind_in_any_order(name):
    case = make_case("gru", "softmax", "tokens", "ragged", T=6, B=9, N=3, H=5, M=3, seed=57, gain=1.5)
    space = nf.workspace(case.net, case.batch)
    flows = (nf.Flow(name, 2.0), None, nf.Flow("norm", 1.0), nf.Flow(name, 2.0), nf.Flow("norm_stabilizer", 3.0), None)
    for flow in flows:
        out = nf.gradient(case.net, case.theta, case.batch, flow=flow, workspace=space)
        fresh = nf.gradient(case.net, case.theta, case.batch, flow=flow)
        assert same_bits(tuple(out), tuple(fresh))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("single", [True, False])
def test_training_follows_the_gradient_of_the_sum(name, single):
    net, theta, batch, _, _ = make_replicas("tanh", R=2, kind="dense", T=4, B=9, N=2, H=5, gain=1.5)
    alpha = np.array([0.3, 0.0])
    if single:
        theta, batch, alpha = theta[0], nf.Batch(*(part[0] for part in batch)), 0.3
    recipe = nf.Recipe(
        lr=0.01,
        flow=nf.Flow(name, lambda update: alpha / (1 + update)),
        max_updates=5,
        evaluate_every=0,
        record_every=1,
    )
    run = nf.train(net, theta, lambda update: batch, recipe)
    point = theta.copy()
    for update in range(5):
        out = nf.gradient(net, point, batch, flow=nf.Flow(name, alpha / (1 + update)))
        assert_close(run.history["omega"][update], out.omega, within("float64", 20, 500))
        point -= 0.01 * out.d_theta
    assert_close(run.theta, point, within("float64", 20, 500))


def test_training_on_a_task_makes_the_matrix_orthogonal():
    net = nf.Network("tanh", 6, 10, 4)
    theta = nf.init(net, "basic_tanh", rng=0)
    recipe = nf.Recipe(lr=0.01, lengths=(10, 20), flow=nf.Flow("orthogonality", 1.0), max_updates=400, evaluate_every=0)
    run = nf.train(net, theta, "temporal_order", recipe)
    assert run.history["omega"][-1] < 0.1 < 1 < run.history["omega"][0]
    values = np.linalg.svd(nf.unpack(net, run.theta).w_rec[:, 0], compute_uv=False)
    assert np.abs(values - 1).max() < 0.2


# ------------------------------------------------------------------------------------------------------- exact answers


def with_matrix(cell, matrix, **choices):
    case = make_case(cell, "square", "dense", H=len(matrix), **choices)
    nf.unpack(case.net, case.theta).w_rec[:] = matrix[:, None]
    return case


def orthogonal(H, seed=58):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(H, H)))[0]


@pytest.mark.parametrize("cell", ["linear", "lstm", "gru"])
def test_an_orthogonal_matrix_is_where_orthogonality_and_the_cap_are_0(cell):
    gates = naive.CELLS[cell].gates
    for scale in (0.5, 1.0, 2.0):
        case = with_matrix(cell, scale * orthogonal(7))
        plain = nf.gradient(case.net, case.theta, case.batch)
        wanted = {"orthogonality": 7 * (scale**2 - 1) ** 2, "spectral_cap": 7 * max(scale - 1, 0) ** 2}
        for name, value in wanted.items():
            out = nf.gradient(case.net, case.theta, case.batch, flow=nf.Flow(name, 1.0))
            assert out.omega == near(gates * value, "float64", 20, 500, size=1.0)
            if value == 0:
                assert_close(out.d_theta, plain.d_theta, within("float64", 20, 500))


def test_below_the_cap_no_bit_is_changed_and_another_cap_is_another_penalty():
    case = with_matrix("tanh", 0.9 * orthogonal(7))
    plain = nf.gradient(case.net, case.theta, case.batch)
    out = nf.gradient(case.net, case.theta, case.batch, flow=nf.Flow("spectral_cap", 1.0))
    assert out.omega == 0
    assert np.array_equal(out.d_theta, plain.d_theta)
    flow = nf.Flow(spectral_cap.capped(0.5), 1.0)
    assert abs(nf.gradient(case.net, case.theta, case.batch, flow=flow).omega - 7 * 0.4**2) < within("float64", 20, 500)
    assert nf.check_gradient(case.net, case.theta, case.batch, flow=flow).error_central < CENTRAL


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("target", [0.0, -0.3])
def test_a_scaled_orthogonal_linear_network_has_exponents_of_the_logarithm_of_its_scale(scale, target):
    case = with_matrix("linear", scale * orthogonal(7), T=6, when="all")
    flow = nf.Flow(flossing.flossing(k=4, target=target), 1.0)
    out = nf.gradient(case.net, case.theta, case.batch, flow=flow)
    assert abs(out.omega - (np.log(scale) - target) ** 2) < within("float64", 20, 500)
    assert nf.check_gradient(case.net, case.theta, case.batch, flow=flow).error_central < CENTRAL


def test_all_exponents_of_a_linear_network_sum_to_the_logarithm_of_the_determinant():
    case = with_matrix("linear", np.random.default_rng(59).normal(size=(3, 3)), T=7, when="last")
    params = case.params
    found = naive.lyapunov(params, "linear", case.plain[0], case.batch.weights, 9)
    assert_close(found.sum(axis=1), np.full(3, np.linalg.slogdet(params["w_rec"][:, 0])[1]), within("float64", 20, 500))
    out = nf.gradient(case.net, case.theta, case.batch, flow=nf.Flow(flossing.flossing(k=9), 1.0))
    assert_close(out.omega, np.mean(found**2), within("float64", 20, 500))


def test_the_exponents_of_a_long_orbit_are_the_logarithms_of_the_eigenvalues():
    basis = np.random.default_rng(60).normal(size=(5, 5))
    matrix = basis @ np.diag([1.3, 0.9, 0.5, 0.2, 0.1]) @ np.linalg.inv(basis)
    case = with_matrix("linear", 1e-9 * matrix, T=400, B=1, when="last")
    nf.unpack(case.net, case.theta).w_rec[:] = matrix[:, None]
    nf.unpack(case.net, case.theta).w_in[:] = 0
    nf.unpack(case.net, case.theta).bias[:] = 0
    out = nf.gradient(case.net, case.theta, case.batch, flow=nf.Flow(flossing.flossing(k=2), 1.0))
    # Over 400 steps the basis counts once: log(condition) / 400 of each exponent, twice that of the squares.
    wanted = np.log([1.3, 0.9])
    off = np.log(np.linalg.cond(basis)) / 400
    assert_close(out.omega, np.mean(wanted**2), 2 * off * np.abs(wanted).sum() / (wanted**2).sum())


def test_a_state_of_constant_norm_is_stable():
    """A rotation keeps the norm of the first state: only inputs, which there are none of, would change it."""
    case = with_matrix("linear", orthogonal(7), T=9, B=9, when="all")
    p = nf.unpack(case.net, case.theta)
    p.w_in[:], p.bias[:] = 0, 0
    out = nf.gradient(case.net, case.theta, case.batch, flow=nf.Flow("norm_stabilizer", 1.0), state=case.state)
    # Squares of roundings of the norms, over 9 steps.
    size = np.linalg.norm(case.state[:, 0], axis=1).max()
    assert out.omega < 9 * (size * within("float64", 9, 7)) ** 2
    p.w_rec[:] *= 0.5
    out = nf.gradient(case.net, case.theta, case.batch, flow=nf.Flow("norm_stabilizer", 1.0), state=case.state)
    norms = np.linalg.norm(case.state[:, 0], axis=1)
    steps = (0.5 ** np.arange(9) - 0.5 ** np.arange(1, 10)) ** 2
    assert_close(out.omega, np.mean(norms**2) * steps.mean(), within("float64", 20, 500))


# ------------------------------------------------------------------------------------------------ together with others


@pytest.mark.parametrize("cell", CELLS)
def test_a_state_penalty_belongs_to_the_sequences(cell):
    """So each example has a gradient of its own: the share of its loss and of its penalty."""
    case = make_case(cell, "square", "dense", "ragged", T=5, B=9, N=2, H=5, M=2, seed=61)
    flow = nf.Flow("norm_stabilizer", 2.0)
    whole = nf.gradient(case.net, case.theta, case.batch, flow=flow)
    loose = nf.gradient(case.net, case.theta, case.batch, flow=flow, clip_example=np.inf)
    assert_close(loose.d_theta, whole.d_theta, within("float64", 5, case.terms))
    assert_close(loose.omega, whole.omega, within("float64", 20, 500))
    tight = nf.gradient(case.net, case.theta, case.batch, flow=flow, clip_example=0.01)
    total = np.zeros(case.theta.size)
    for b in range(9):
        weights = np.where(np.arange(9) == b, case.batch.weights, 0)
        one = nf.Batch(case.batch.inputs, case.batch.targets, weights)
        g = 9 * nf.gradient(case.net, case.theta, one, flow=flow).d_theta
        norm = np.linalg.norm(g)
        assert_close(tight.example_norms[b], norm, within("float64", 5, 100))
        total += g * min(1, 0.01 / norm) / 9 if norm else 0
    assert_close(tight.d_theta, total, within("float64", 5, 100))


def test_a_regularizer_is_added_to_clipped_gradients():
    case = make_case("tanh", "square", "dense", "all", T=5, B=9, N=2, H=5, M=2, seed=62)
    for choices in ({"clip_example": 0.1}, {"clip_microbatch": (3, 0.1)}, {"clip_hidden": nf.HiddenClip(0.01)}):
        plain = nf.gradient(case.net, case.theta, case.batch, **choices).d_theta
        out = nf.gradient(case.net, case.theta, case.batch, flow=nf.Flow("orthogonality", 2.0), **choices)
        slope = naive.regularizer_slope("orthogonality", case.theta, *case.sizes, case.plain)
        assert_close(out.d_theta - plain, 2 * slope, within("float64", 20, 500))


def test_a_clip_inside_sees_the_state_penalty():
    """With a bound of 0 nearly all of the gradient is gone, that of the penalty too."""
    case = make_case("tanh", "square", "dense", "all", T=5, B=9, N=2, H=5, M=2, seed=63)
    flow, clip = nf.Flow("norm_stabilizer", 1e3), nf.HiddenClip(1e-6)
    out = nf.gradient(case.net, case.theta, case.batch, flow=flow, clip_hidden=clip)
    d = nf.unpack(case.net, out.d_theta)
    largest = 45 * clip.threshold * (1 + within("float64", 1, 45))  # of 5 steps of 9 sequences
    assert np.abs(d.bias).max() <= largest
    assert np.abs(d.w_rec).max() <= largest
    assert out.omega > 0


@pytest.mark.parametrize("cell", CELLS)
def test_recomputing_changes_no_bit(cell):
    case = make_case(cell, "square", "tokens", "ragged", T=1300, B=1, N=2, H=5, M=2, seed=64)
    for name in ("norm_stabilizer", "orthogonality"):
        flow = nf.Flow(name, 3.0)
        plain = nf.gradient(case.net, case.theta, case.batch, flow=flow)
        out = nf.gradient(case.net, case.theta, case.batch, flow=flow, recompute_every=64)
        assert same_bits(tuple(out), tuple(plain))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cell", ["relu", "linear"])
def test_states_that_explode_after_the_end_leave_the_stabilizer_alone(cell, kind):
    case = make_exploding_case(cell, kind, "float64", "early")
    plain = nf.gradient(case.net, case.theta, case.batch, flow=nf.Flow("norm_stabilizer", 1.0))
    one = nf.Batch(*(np.ascontiguousarray(part[:1]) for part in case.batch))
    alone = nf.gradient(case.net, case.theta, one, flow=nf.Flow("norm_stabilizer", 1.0))
    assert np.isfinite(plain.omega)
    assert_close(plain.omega, alone.omega, within("float64", 20, 500))
    assert_close(plain.d_theta, alone.d_theta, within("float64", 20, 500))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_state_of_0_has_no_slope_and_tiny_and_huge_ones_are_right(dtype):
    """One linear unit at h = size, 0, ...: omega is the mean of (h_t - h_{t-1})^2, and the slope exact."""
    net = nf.Network("linear", 1, 1, 1, loss="square", dtype=dtype)
    for size in (0.0, 1e-30, 1e-10, 1.0, 1e10):
        theta = np.zeros(net.size, dtype)
        nf.unpack(net, theta).w_in[:] = size
        x = np.array([1, 0, 0], dtype).reshape(3, 1, 1)
        weights = np.zeros((3, 1), dtype)
        weights[2] = 1
        batch = nf.Batch(x, np.zeros_like(x), weights)
        out = nf.gradient(net, theta, batch, flow=nf.Flow("norm_stabilizer", 1.0))
        h = float(np.dtype(dtype).type(size))
        if h**2 > np.finfo(dtype).tiny or h == 0:
            assert_close(out.omega, 2 * h**2 / 3, within(dtype))
        assert np.isfinite(out.d_theta).all()
        assert_close(nf.unpack(net, out.d_theta).w_in[0, 0, 0], 4 * h / 3, within(dtype))


# ----------------------------------------------------------------------------------------------------- of ones own


def test_a_regularizer_of_ones_own_is_taken():
    def decay(net, theta, batch):
        assert theta.dtype == np.float64
        assert net.dtype == "float64"
        assert batch.inputs.ndim == 2
        assert batch.weights.dtype == np.float64
        return 0.5 * float(theta @ theta), theta

    net, theta, batch, _, _ = make_replicas("tanh", R=2, kind="tokens", dtype="float32")
    out = nf.gradient(net, theta, batch, flow=nf.Flow(nf.Regularizer(decay), np.array([1.0, 3.0])))
    plain = nf.gradient(net, theta, batch)
    assert_close(out.omega, 0.5 * (theta.astype(np.float64) ** 2).sum(axis=1), within("float32"))
    assert_close(out.d_theta, plain.d_theta + np.array([[1], [3]]) * theta, within("float32"))
    assert out.d_theta.dtype == np.float32


def test_a_gradient_of_another_shape_is_refused():
    case = make_case("tanh")
    flow = nf.Flow(nf.Regularizer(lambda net, theta, batch: (0.0, theta[1:])), 1.0)
    with pytest.raises(ValueError, match="value_and_gradient returns a gradient of shape"):
        nf.gradient(case.net, case.theta, case.batch, flow=flow)


def test_something_else_is_refused_by_the_names_of_all_kinds():
    case = make_case("tanh")
    with pytest.raises(TypeError, match="a Penalty or a StatePenalty or a Regularizer"):
        nf.gradient(case.net, case.theta, case.batch, flow=nf.Flow(3, 1.0))


@pytest.mark.parametrize("cell", ["tanh", "gru", "lstm"])
def test_a_cell_with_a_step_alone_is_regularized_as_the_one_with_derivatives(cell):
    case = make_case(cell, "square", "dense", "ragged", T=4, B=3, N=2, H=3, M=2, seed=65, gain=1.5)
    bare = dataclasses.replace(case.net.cell_object, step_vjp=None, step_jvp=None, step_vjp_jvp=None)
    net = dataclasses.replace(case.net, cell=bare)
    for name in NAMES:
        flow = nf.Flow(name, 2.0)
        one, two = (nf.gradient(which, case.theta, case.batch, flow=flow) for which in (net, case.net))
        assert_close(one.omega, two.omega, within("float64", 20, 500))
        assert_close(one.d_theta, two.d_theta, CLAIM["float64"])


def test_a_lost_direction_is_an_omega_of_inf():
    """With w_rec = 0 every Jacobian of tanh is 0, and every exponent -inf."""
    case = make_case("tanh", T=3)
    nf.unpack(case.net, case.theta).w_rec[:] = 0
    out = nf.gradient(case.net, case.theta, case.batch, flow=nf.Flow("flossing", 1.0))
    assert np.isinf(out.omega)
    assert np.isnan(out.d_theta).all()
    out = nf.gradient(case.net, case.theta, case.batch, flow=nf.Flow("flossing", 0.0))
    assert np.isfinite(out.d_theta).all()


@pytest.mark.parametrize("name", NAMES)
def test_weights_that_are_not_finite_raise_nothing(name):
    case = make_case("lstm", T=3)
    for bad in (np.nan, np.inf):
        theta = case.theta.copy()
        nf.unpack(case.net, theta).w_rec[0, 0, 0] = bad
        out = nf.gradient(case.net, theta, case.batch, flow=nf.Flow(name, 1.0))
        assert not np.isfinite(out.d_theta).all()


def test_a_batch_without_weight_has_regularizers_of_the_weights_alone():
    case = make_case("tanh", T=3)
    batch = case.batch._replace(weights=0 * case.batch.weights)
    for name in NAMES:
        out = nf.gradient(case.net, case.theta, batch, flow=nf.Flow(name, 1.0))
        assert (out.omega > 0) == (name in ("orthogonality", "spectral_cap") and out.omega != 0)
        assert np.isfinite(out.d_theta).all()
