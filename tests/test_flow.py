"""Claims about Omega, its immediate gradient and its count: against the reference, and where the answer is known."""

from __future__ import annotations

import itertools

import naive
import numpy as np
import pytest
from cases import CELLS, DTYPES, FLOWS, KINDS, LOSSES, REDUCTIONS, make_case, make_exploding_case, make_replicas
from tolerance import CLAIM, assert_close, same_bits, within

import nbflow as nf


def assert_flow(case, tolerance, penalty, reduction, *, alpha=0.7, bound=1e-20, carried=False, what=""):
    """Assert that Omega, its count and the gradient of loss + alpha * Omega are the reference's."""
    flow = case.flow(carried=carried)
    wanted = naive.omega(penalty, reduction, flow, bound)
    d_omega = naive.omega_immediate(penalty, reduction, flow, case.params, case.net.cell, bound)
    d = dict(flow.d_params)
    d["w_rec"] = d["w_rec"] + alpha * d_omega
    if penalty == "log" and (flow.gain < 2 * naive.FLOOR**0.5).any():  # held at a floor that is rounded to float32
        tolerance = max(tolerance, CLAIM["float64"])
    how = nf.Flow(penalty, alpha=alpha, reduction=reduction, bound=bound)
    out = nf.gradient(case.net, case.theta, case.batch, flow=how, state=case.state if carried else None)
    assert out.d_theta.dtype == case.net.dtype
    assert out.counted == naive.counted(flow.delta, bound).sum(), what
    assert_close(out.loss, flow.loss, tolerance, f"the loss {what}")
    assert_close(out.omega, wanted, tolerance, f"Omega {what}")
    assert_close(out.d_theta, naive.pack(d), tolerance, f"the gradient {what}")
    return out, flow, d_omega


def measure(case, how, **choices):
    """Return Omega's own gradient at w_rec: what alpha = 1 adds to the gradient of a loss made small by its weights."""
    with_flow = nf.gradient(case.net, case.theta, case.batch, flow=how, **choices)
    without = nf.gradient(case.net, case.theta, case.batch, **choices)
    return nf.unpack(case.net, with_flow.d_theta - without.d_theta).w_rec


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_omega_and_its_gradient_are_the_references(cell, dtype):
    for penalty, reduction, kind, when in itertools.product(FLOWS, REDUCTIONS, KINDS, ("last", "ragged")):
        loss = LOSSES[(len(penalty) + len(when)) % len(LOSSES)]
        case = make_case(cell, loss, kind, when, T=5, B=9, N=3, H=5, M=2, dtype=dtype, seed=10)
        what = f"{penalty} {reduction} {kind} {when}"
        for alpha in (0.7, 300.0):  # with 300 nearly all of the gradient is Omega's
            _, _, d_omega = assert_flow(
                case, within(dtype, 5, 4 * case.terms), penalty, reduction, alpha=alpha, what=what, carried=alpha > 1
            )
            assert np.linalg.norm(d_omega) > 1e-3, what


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(
    "T, B, N, H, M",
    [(1, 1, 1, 1, 2), (1, 8, 2, 3, 2), (6, 1, 2, 2, 2), (4, 8, 2, 16, 3), (7, 25, 3, 17, 2), (3, 20, 2, 50, 2)],
)
def test_omega_is_the_references_for_every_size(cell, T, B, N, H, M):
    for k, (penalty, dtype) in enumerate(itertools.product(FLOWS, DTYPES)):
        case = make_case(cell, LOSSES[k % len(LOSSES)], KINDS[k % 2], "ragged", T, B, N, H, M, dtype, seed=11)
        assert_flow(case, within(dtype, T, 16 * case.terms), penalty, REDUCTIONS[k % 2], carried=k > 2)


@pytest.mark.sim
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("kind", KINDS)
def test_omega_is_the_references_for_the_smallest_networks(cell, kind):
    case = make_case(cell, "square", kind, "ragged", T=3, B=2, N=2, H=3, M=2, seed=12)
    assert_flow(case, within("float64", 3, 16 * case.terms), "norm", "mean")


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("penalty", FLOWS)
def test_the_immediate_gradient_is_the_slope_of_omega_with_all_else_frozen(cell, penalty):
    """By complex step through the explicit w_rec of J_t, delta, states and e being constant."""
    case = make_case(cell, "square", "dense", "all", T=4, B=3, N=2, H=4, M=2, seed=13)
    for reduction in REDUCTIONS:
        flow = case.flow()
        slope = naive.complex_step(
            lambda w_rec, flow=flow, reduction=reduction: naive.omega_frozen(w_rec, penalty, reduction, flow),
            case.params["w_rec"],
        )
        got = measure(case, nf.Flow(penalty, alpha=1.0, reduction=reduction))
        assert_close(got, slope, within("float64", 4, 100 * case.terms))


# ---------------------------------------------------------------------------------------------------- exact answers


def make_linear_case(scale, when="all", dtype="float64", T=9, B=9, H=7):
    """Return a linear network whose recurrent matrix is an orthogonal one times `scale`."""
    case = make_case("linear", "square", "dense", when, T, B, 2, H, 2, dtype, seed=14)
    q = np.linalg.qr(np.random.default_rng(14).normal(size=(H, H)))[0]
    nf.unpack(case.net, case.theta).w_rec[:] = scale * q.reshape(H, 1, H)
    return case


@pytest.mark.parametrize("penalty", FLOWS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_an_orthogonal_linear_network_has_omega_0(penalty, reduction, dtype):
    case, eps = make_linear_case(1.0, dtype=dtype), np.finfo(dtype).eps
    out = nf.gradient(case.net, case.theta, case.batch, flow=nf.Flow(penalty, 1.0, reduction=reduction))
    assert out.counted == 81
    assert 0 <= out.omega < 9 * (20 * eps) ** 2
    assert np.abs(measure(case, nf.Flow(penalty, 1.0, reduction=reduction))).max() < 9 * 100 * eps


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_a_scaled_orthogonal_network_has_the_penalty_of_its_scale(scale):
    """Every gain is the scale r: Omega is T penalty(r) as a sum, penalty(r) as a mean."""
    case = make_linear_case(scale, when="last", T=6)
    wanted = {"norm": (scale - 1) ** 2, "squared": (scale**2 - 1) ** 2, "log": np.log(scale) ** 2}
    for penalty, value in wanted.items():
        for reduction, times in (("sum", 6), ("mean", 1)):
            out = nf.gradient(case.net, case.theta, case.batch, flow=nf.Flow(penalty, 1.0, reduction=reduction))
            assert_close(out.omega, times * value, within("float64", 6, 100))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("penalty", FLOWS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_alpha_0_is_bit_identical_to_no_flow(cell, penalty, dtype):
    for kind, reduction in itertools.product(KINDS, REDUCTIONS):
        case = make_case(cell, "softmax", kind, "ragged", T=6, B=9, N=3, H=17, M=3, dtype=dtype, seed=15)
        plain = nf.gradient(case.net, case.theta, case.batch)
        out = nf.gradient(case.net, case.theta, case.batch, flow=nf.Flow(penalty, 0.0, reduction=reduction))
        assert same_bits(out.d_theta, plain.d_theta)
        assert out.loss == plain.loss
        assert out.omega > 0
        assert plain.omega is None
        assert plain.counted is None


def make_single_unit(w_rec, delta, T, dtype="float64"):
    """Return (net, theta, batch) of one linear unit at rest, with the given weight and delta_T."""
    net = nf.Network("linear", 1, 1, 1, loss="square", dtype=dtype)
    theta = np.zeros(net.size, dtype)
    p = nf.unpack(net, theta)
    p.w_rec[:], p.w_out[:] = w_rec, 1
    weights = np.zeros((T, 1), dtype)
    weights[-1] = delta / 2
    return net, theta, nf.Batch(np.zeros((T, 1, 1), dtype), np.full((T, 1, 1), -1, dtype), weights)


@pytest.mark.parametrize("penalty", FLOWS)
def test_alpha_0_is_no_flow_even_where_omega_overflows(penalty):
    net, theta, batch = make_single_unit(1e160, 1.0, T=2)
    plain = nf.gradient(net, theta, batch)
    assert np.isfinite(plain.d_theta).all()
    out = nf.gradient(net, theta, batch, flow=nf.Flow(penalty, 0.0))
    assert not np.isfinite(out.omega)
    assert same_bits(out.d_theta, plain.d_theta)


@pytest.mark.parametrize("penalty", FLOWS)
def test_a_step_that_is_not_counted_adds_nothing_even_where_v_overflows(penalty):
    net, theta, batch = make_single_unit(1e308, 20.0, T=1)
    plain = nf.gradient(net, theta, batch)
    out = nf.gradient(net, theta, batch, flow=nf.Flow(penalty, 1.0, bound=1e9))
    assert np.isinf(nf.trace(net, theta, batch).delta[0]).all()
    assert (out.counted, out.omega) == (0, 0)
    assert np.array_equal(out.d_theta, plain.d_theta)
    assert np.isfinite(out.d_theta).all()


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_alpha_is_each_replicas_own(cell, reduction):
    """A replica is, to the bit, what it is alone with its own alpha; with 0 it is what it is without a flow."""
    alphas = np.array([0.0, 0.5, 8.0])
    net, theta, batch, state, cases = make_replicas(cell, R=3, kind="tokens", T=5, B=9, N=3, H=5)
    out = nf.gradient(net, theta, batch, flow=nf.Flow("norm", alphas, reduction=reduction))
    for r, case in enumerate(cases):
        alone = nf.gradient(net, case.theta, case.batch, flow=nf.Flow("norm", alphas[r], reduction=reduction))
        assert same_bits(out.d_theta[r], alone.d_theta)
        assert (out.omega[r], out.counted[r], out.loss[r]) == (alone.omega, alone.counted, alone.loss)
    assert same_bits(out.d_theta[0], nf.gradient(net, cases[0].theta, cases[0].batch).d_theta)


def test_omega_is_linear_in_alpha():
    case = make_case("tanh", "softmax", T=6, B=9, H=5, M=3, seed=16)
    one, four = (measure(case, nf.Flow("squared", alpha)) for alpha in (1.0, 4.0))
    assert_close(four, 4 * one, within("float64", 6, 10 * case.terms))


def test_omega_touches_w_rec_alone():
    case = make_case("tanh", "softmax", T=6, B=9, H=5, M=3, seed=16)
    out, plain = (nf.gradient(case.net, case.theta, case.batch, flow=how) for how in (nf.Flow("norm", 2.0), None))
    for name, with_flow, without in zip(
        nf.Params._fields, nf.unpack(case.net, out.d_theta), nf.unpack(case.net, plain.d_theta), strict=True
    ):
        assert np.array_equal(with_flow, without) == (name != "w_rec" or with_flow.size == 0), name


def test_omega_does_not_see_the_size_of_the_loss():
    """Gains are ratios: weights times 2**-20 leave Omega and its gradient as they are, as long as deltas count."""
    case = make_case("tanh", "softmax", "tokens", "all", T=6, B=9, N=3, H=5, M=3, seed=17)
    small = case._replace(batch=case.batch._replace(weights=case.batch.weights * 2.0**-20))
    for penalty, reduction in itertools.product(FLOWS, REDUCTIONS):
        how = nf.Flow(penalty, 1.0, reduction=reduction)
        one, two = (nf.gradient(c.net, c.theta, c.batch, flow=how) for c in (case, small))
        assert one.counted == two.counted == 54
        assert one.omega == two.omega
        assert_close(measure(small, how), measure(case, how), within("float64", 6, 1000))


# ------------------------------------------------------------------------------------------------------- edge cases


@pytest.mark.parametrize("penalty", FLOWS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_a_delta_under_the_bound_is_not_counted(penalty, reduction):
    """Gains of about 1/10 a step take delta below bounds that lie between its values; the reference agrees on each."""
    case = make_case("tanh", "square", "dense", "last", T=12, B=9, H=4, gain=0.1, seed=18)
    flow, counts = case.flow(), set()
    for bound in (1e-20, 1e-12, 1e-8, 1e-4, 1e-2, 1e9):
        out, _, _ = assert_flow(case, within("float64", 12, 100 * case.terms), penalty, reduction, bound=bound)
        counts.add(out.counted)
    assert len(counts) == 6
    assert min(counts) == 0
    assert naive.counted(flow.delta, 1e9).sum() == 0


def test_a_delta_at_the_bound_is_counted():
    """Delta is exactly 1 at t = 2 and 1/2 at t = 1, its square 1/4."""
    net, theta, batch = make_single_unit(0.5, 1.0, T=2)
    for bound, counted in ((0.25, 2), (np.nextafter(0.25, 1), 1), (1.0, 1), (np.nextafter(1.0, 2), 0)):
        out = nf.gradient(net, theta, batch, flow=nf.Flow("norm", 1.0, bound=bound))
        assert out.counted == counted
        assert out.omega == counted * 0.25


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("penalty", FLOWS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_gain_of_0_is_no_division_by_0(cell, penalty, dtype):
    case = make_case(cell, "square", "dense", "all", T=4, B=9, H=5, dtype=dtype, seed=19)
    nf.unpack(case.net, case.theta).w_rec[:] = 0
    for reduction in REDUCTIONS:
        out, flow, _ = assert_flow(case, within(dtype, 4, 16 * case.terms), penalty, reduction)
        assert np.isfinite(out.omega)
        assert np.isfinite(out.d_theta).all()
        if cell in ("tanh", "sigmoid", "relu", "linear"):
            assert (flow.gain == 0).all()
            wanted = {"norm": 1.0, "squared": 1.0, "log": np.log(1e-10) ** 2}[penalty]
            assert_close(
                out.omega, wanted * (4 if reduction == "sum" else 1), max(within(dtype, 4, 100), CLAIM["float64"])
            )
            assert same_bits(out.d_theta, nf.gradient(case.net, case.theta, case.batch).d_theta)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_saturated_units_give_finite_numbers(cell, dtype):
    """Biases so large that slopes are tiny, subnormal or 0; in float64 the numbers are the reference's too."""
    for size, penalty, reduction in itertools.product((5.0, 10.0, 20.0, 40.0, 90.0, 400.0), FLOWS, REDUCTIONS):
        case = make_case(cell, "softmax", "tokens", "all", T=4, B=9, N=3, H=5, M=3, dtype=dtype, seed=20)
        p = nf.unpack(case.net, case.theta)
        p.bias[:] += np.where(np.arange(5) % 2, -size, size).astype(dtype)
        out = nf.gradient(case.net, case.theta, case.batch, flow=nf.Flow(penalty, 1.0, reduction=reduction))
        assert np.isfinite(out.omega), (size, penalty, reduction)
        assert np.isfinite(out.d_theta).all(), (size, penalty, reduction)
        if size == 5 and dtype == "float64":  # nearer to saturation 1 - h^2 has too few digits left to compare
            assert_flow(case, CLAIM["float64"], penalty, reduction)


@pytest.mark.parametrize("penalty", FLOWS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_omega_is_right_for_every_size_of_delta_and_gain(penalty, dtype):
    """One linear unit over two steps, delta and gain set exactly: from 3e-10 to 1e6, with gains of 1e-12 to 1e6.

    Finite always, and the reference's wherever ||v||^2 is a normal number.
    """
    net = nf.Network("linear", 1, 1, 1, loss="square", dtype=dtype)
    sizes = list(itertools.product((3e-10, 1e-8, 3e-4, 1.0, 1e3, 1e6), (1e-12, 3e-10, 1e-6, 1e-3, 0.6, 1.5, 30.0, 1e6)))
    R = len(sizes)
    theta, weights = np.zeros((R, net.size), dtype), np.zeros((R, 2, 1), dtype)
    p = nf.unpack(net, theta)
    p.w_out[:] = 1
    p.bias[:] = 1
    p.w_rec[:, 0, 0, 0] = [gain for _, gain in sizes]
    y = 1 + p.w_rec[:, 0, 0, 0]  # the output after two steps
    weights[:, 1, 0] = [size for size, _ in sizes] / (2 * y)
    batch = nf.Batch(np.zeros((R, 2, 1, 1), dtype), np.zeros((R, 2, 1, 1), dtype), weights)
    out = nf.gradient(net, theta, batch, flow=nf.Flow(penalty, 1.0))
    for r, (size, gain) in enumerate(sizes):
        what = f"with delta {size:g} and gain {gain:g}"
        assert np.isfinite(out.omega[r]), what
        assert np.isfinite(out.d_theta[r]).all(), what
        one = tuple(part[r].astype(np.float64) for part in batch)
        params = naive.unpack(theta[r], "linear", 1, 1, 1)
        flow = naive.backward(params, "linear", "square", one)
        v = np.abs(flow.v[naive.counted(flow.delta)])
        if v.min() ** 2 < np.finfo(dtype).tiny:
            continue
        wanted = dict(flow.d_params)
        wanted["w_rec"] = wanted["w_rec"] + naive.omega_immediate(penalty, "sum", flow, params, "linear")
        tolerance = CLAIM["float64"] if dtype == "float64" else 10 * within(dtype)
        assert_close(out.omega[r], naive.omega(penalty, "sum", flow), tolerance, f"Omega {what}")
        assert_close(out.d_theta[r], naive.pack(wanted), tolerance, f"the gradient {what}")


@pytest.mark.parametrize("bound, dtype", [(1e-40, "float32"), (1e-40, "float64"), (1e-200, "float64")])
def test_a_bound_near_the_least_number_still_leaves_out_deltas_of_0(bound, dtype):
    case = make_case("tanh", "square", "dense", "ragged", T=6, B=9, H=5, dtype=dtype, seed=21)
    assert not case.batch.weights[:, 0].any()
    for penalty, reduction in itertools.product(FLOWS, REDUCTIONS):
        assert_flow(case, within(dtype, 6, 16 * case.terms), penalty, reduction, bound=bound)


@pytest.mark.parametrize("penalty", FLOWS)
@pytest.mark.parametrize("cell", ["relu", "linear"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("carried", [False, True])
def test_states_that_explode_after_the_end_leave_omega_alone(penalty, cell, kind, carried):
    """Gains are of 1e30 here and penalties of 1e60 and 1e120; alpha makes as little of their slopes."""
    case = make_exploding_case(cell, kind, "float64", "mixed")
    for reduction in REDUCTIONS:
        assert_flow(case, within("float64", 20, case.terms), penalty, reduction, carried=carried, alpha=1e-60)
