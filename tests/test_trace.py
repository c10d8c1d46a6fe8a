"""Claims about what `trace` shows: states, delta, its norm, and the gain of every step."""

from __future__ import annotations

import itertools

import naive
import numpy as np
import pytest
from cases import CELLS, DTYPES, KINDS, LOSSES, make_case, make_exploding_case, make_replicas
from tolerance import assert_close, differenced, within

import nbflow as nf

SIZES = ((1, 1, 1, 1, 1), (6, 1, 2, 1, 2), (5, 7, 2, 7, 3), (4, 8, 3, 16, 2), (5, 25, 2, 33, 2))  # (T, B, N, H, M)


def assert_trace(case, tolerance, seen=None):
    """Assert that all that `trace` returns is the reference's: whole, and step by step."""
    seen, flow = seen or nf.trace(case.net, case.theta, case.batch), case.flow()
    norms = np.array([[naive.length(d) for d in row] for row in flow.delta])
    assert_close(seen.loss, flow.loss, tolerance, "the loss")
    for t in range(len(flow.states)):
        assert_close(seen.states[t], flow.states[t], tolerance, f"the state after step {t}")
        assert_close(seen.delta[t], flow.delta[t], tolerance, f"delta at {t}")
        assert_close(seen.delta_norm[t], norms[t], tolerance, f"delta_norm at {t}")
    for t in range(len(flow.gain)):
        # A gain is measured against ||delta||: what cancels in v leaves roundings of 1, however small v is.
        assert np.allclose(seen.gain[t], flow.gain[t], rtol=tolerance, atol=tolerance, equal_nan=True), f"step {t}"
    return seen, flow


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_states_deltas_and_gains_are_the_references(cell, dtype):
    for (T, B, N, H, M), kind, when in itertools.product(SIZES, KINDS, ("last", "ragged")):
        loss = LOSSES[(T + B) % len(LOSSES)] if M > 1 else "square"
        case = make_case(cell, loss, kind, when, T, B, N, H, M, dtype, seed=30)
        seen, flow = assert_trace(case, within(dtype, T, 16 * case.terms))
        S = naive.CELLS[cell].states
        assert seen.states.shape == seen.delta.shape == (T + 1, B, S, H)
        assert seen.delta_norm.shape == (T + 1, B)
        assert seen.gain.shape == (T, B)
        assert {part.dtype for part in seen[1:]} == {np.dtype(dtype)}
        assert not seen.states[0].any()


@pytest.mark.sim
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_trace_is_the_references_for_the_smallest_networks(cell, kind):
    case = make_case(cell, "square", kind, "ragged", T=3, B=2, N=2, H=3, M=2, seed=31)
    assert_trace(case, within("float64", 3, 16 * case.terms))


@pytest.mark.parametrize("cell", CELLS)
def test_replicas_are_traced_each_by_itself(cell):
    net, theta, batch, _, cases = make_replicas(cell, R=3, kind="tokens", T=4, B=9, N=3, H=5)
    seen = nf.trace(net, theta, batch)
    for r, case in enumerate(cases):
        assert_trace(case, within("float64", 4, 16 * case.terms), nf.Trace(*(part[r] for part in seen)))


def test_the_gain_is_nan_where_delta_is_0_and_nowhere_else():
    case = make_case("tanh", "softmax", "tokens", "ragged", T=6, B=9, N=3, H=5, M=3, seed=32)
    seen = nf.trace(case.net, case.theta, case.batch)
    assert np.array_equal(np.isnan(seen.gain), seen.delta_norm[1:] == 0)
    assert np.isnan(seen.gain[:, 0]).all()
    assert not np.isnan(seen.gain[:, -1]).any()


@pytest.mark.parametrize("cell", CELLS)
def test_delta_is_the_difference_of_the_loss_at_the_state(cell):
    """delta_0 is the slope of the loss at the first state, as replicas with a nudged one show."""
    case = make_case(cell, "softmax", "tokens", "all", T=5, B=2, N=3, H=3, M=3, seed=33)
    case = case._replace(state=0 * case.state)
    n, h = case.state.size, 1e-5
    nudges = h * np.eye(n).reshape(n, *case.state.shape)
    state = np.concatenate([case.state + nudges, case.state - nudges])
    theta = np.broadcast_to(case.theta, (2 * n, case.theta.size))
    batch = nf.Batch(*(np.broadcast_to(part, (2 * n, *part.shape)) for part in case.batch))
    at = nf.gradient(case.net, theta, batch, state=state).loss
    delta = nf.trace(case.net, case.theta, case.batch).delta[0]
    assert_close((at[:n] - at[n:]) / (2 * h), delta.ravel(), differenced(h, 2, 5, 500))


def total_of_c(case, t):
    """Return dL/dc_t as h_t = o_t tanh(c_t) moves along with it, and with h_t fixed, by complex steps; and dL/dh_t."""
    p, (inputs, targets, weights) = case.params, case.plain
    states = naive.forward(p, "lstm", inputs, case.state)
    h, c = states[t, :, 0], states[t, :, 1]

    def loss(h, c):
        after = naive.forward(p, "lstm", inputs[t:], np.stack([h, c], axis=1))
        return naive.loss(
            case.net.loss, naive.outputs(p, np.stack([0 * after[0], *after])), targets[t - 1 :], weights[t - 1 :]
        )

    return (
        naive.complex_step(lambda moved: loss(h / np.tanh(c) * np.tanh(moved), moved), c),
        naive.complex_step(lambda moved: loss(h, moved), c),
        naive.complex_step(lambda moved: loss(moved, c), h),
    )


def pytorchs_c_grad(states, delta):
    """Return c.grad as the docstring of `Trace.delta` has it: delta_c + delta_h * o * (1 - tanh(c)**2)."""
    squashed = np.tanh(states[:, :, 1])
    o = states[:, :, 0] / squashed
    return delta[:, :, 1] + delta[:, :, 0] * o * (1 - squashed**2)


def test_delta_of_c_holds_h_fixed_and_the_formula_lets_it_move_along():
    case = make_case("lstm", "softmax", "dense", "all", T=4, B=2, N=3, H=3, M=3, seed=38)
    case = case._replace(state=0 * case.state)
    seen = nf.trace(case.net, case.theta, case.batch)
    with np.errstate(invalid="ignore"):  # 0 / 0 at the first state
        moving = pytorchs_c_grad(seen.states, seen.delta)
    for t in range(1, 5):
        wanted_moving, wanted_c, wanted_h = total_of_c(case, t)
        assert_close(seen.delta[t, :, 1], wanted_c, within("float64", 20, 500))
        assert_close(seen.delta[t, :, 0], wanted_h, within("float64", 20, 500))
        assert_close(moving[t], wanted_moving, within("float64", 20, 500))
        assert np.abs(wanted_moving - wanted_c).max() > 1e-3


def test_the_formula_is_the_c_grad_of_pytorchs_own_lstm(torch):
    T, B, H = 5, 3, 4
    case = make_case("lstm", "softmax", "dense", "all", T=T, B=B, N=3, H=H, M=3, seed=39)
    seen = nf.trace(case.net, case.theta, case.batch)
    cell, head = torch.nn.LSTMCell(3, H).double(), torch.nn.Linear(H, 3).double()
    weights = {name: torch.from_numpy(part) for name, part in nf.to_torch(case.net, case.theta).items()}
    cell.load_state_dict({name.removesuffix("_l0"): part for name, part in weights.items() if name.endswith("_l0")})
    head.load_state_dict({name: part for name, part in weights.items() if not name.endswith("_l0")})
    inputs, targets, shares = (torch.from_numpy(part) for part in case.batch)
    h = c = torch.zeros(B, H, dtype=torch.float64)
    total, kept = 0.0, []
    for t in range(T):
        h, c = cell(inputs[t], (h, c))
        h.retain_grad()
        c.retain_grad()
        kept.append((h, c))
        total = total + (shares[t] * torch.nn.functional.cross_entropy(head(h), targets[t], reduction="none")).sum()
    total.backward()
    formula = pytorchs_c_grad(seen.states[1:], seen.delta[1:])
    assert_close(seen.loss, total.item(), within("float64", 20, 500))
    for t, (h, c) in enumerate(kept):
        assert_close(seen.delta[t + 1, :, 0], h.grad.numpy(), within("float64", 20, 500))
        assert_close(formula[t], c.grad.numpy(), within("float64", 20, 500))
        assert np.abs(seen.delta[t + 1, :, 1] - c.grad.numpy()).max() > 1e-4


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_orthogonal_linear_network_has_gain_1(dtype):
    case = make_case("linear", "square", T=20, B=9, H=17, when="last", dtype=dtype, seed=34)
    q = np.linalg.qr(np.random.default_rng(34).normal(size=(17, 17)))[0]
    nf.unpack(case.net, case.theta).w_rec[:] = q.reshape(17, 1, 17)
    seen = nf.trace(case.net, case.theta, case.batch)
    assert np.abs(seen.gain - 1).max() < within(dtype, 1, 17)
    assert np.abs(seen.delta_norm / seen.delta_norm[-1] - 1).max() < within(dtype, 20, 17)


@pytest.mark.parametrize("dtype", DTYPES)
def test_scaling_w_rec_of_a_linear_network_scales_the_gains(dtype):
    """With one output the direction of delta_T is that of w_out, whatever the loss is."""
    case = make_case("linear", "square", T=7, B=9, H=7, M=1, when="last", dtype=dtype, seed=35)
    before = nf.trace(case.net, case.theta, case.batch).gain.astype(np.float64)
    for c in (0.25, 2.0, 3.0):
        theta = case.theta.copy()
        nf.unpack(case.net, theta).w_rec[:] *= c
        assert_close(nf.trace(case.net, theta, case.batch).gain, c * before, within(dtype, 7, 7))


@pytest.mark.parametrize("gain", [0.5, 2.0])
@pytest.mark.parametrize("dtype", DTYPES)
def test_gains_are_right_however_small_or_large_delta_has_become(gain, dtype):
    """Down to 1e-30 and up to 1e30 in float32, where squares of such numbers are no numbers any more."""
    steps = {"float32": 100, "float64": 900}[dtype]
    net = nf.Network("linear", 1, 1, 1, loss="square", dtype=dtype)
    theta = np.zeros(net.size, dtype)
    p = nf.unpack(net, theta)
    p.w_rec[:], p.w_out[:] = gain, 1
    weights = np.zeros((steps, 1), dtype)
    weights[-1] = 0.5
    batch = nf.Batch(np.zeros((steps, 1, 1), dtype), np.full((steps, 1, 1), -1, dtype), weights)
    seen = nf.trace(net, theta, batch)
    wanted = np.float64(gain) ** np.arange(steps, -1, -1)
    assert np.array_equal(seen.delta[:, 0, 0, 0], wanted)
    assert_close(seen.delta_norm[:, 0] / wanted, np.ones(steps + 1), within(dtype))
    assert_close(seen.gain[:, 0], np.full(steps, gain), within(dtype))


@pytest.mark.parametrize("cell", ["relu", "linear"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_states_that_explode_after_the_end_are_shown_and_leave_delta_alone(cell, kind, dtype):
    """To Inf and on to NaN in `linear`: delta is 0 there, and what it is without them before."""
    case = make_exploding_case(cell, kind, dtype, "early")
    seen, flow = nf.trace(case.net, case.theta, case.batch), case.flow()
    assert not np.isfinite(seen.states).all()
    assert_close(seen.loss, flow.loss, within(dtype, 2, 100))
    assert_close(seen.delta, flow.delta, within(dtype, 2, 100))
    assert_close(seen.delta_norm, [[naive.length(d) for d in row] for row in flow.delta], within(dtype, 2, 100))
    assert_close(seen.gain, flow.gain, within(dtype, 2, 100))
    assert seen.delta[1].any()
    assert not seen.delta[2:].any()


def test_the_trace_and_the_gradient_tell_of_the_same_loss():
    for cell in CELLS:
        case = make_case(cell, "softmax", "tokens", "ragged", T=6, B=9, N=3, H=17, M=3, dtype="float32", seed=37)
        assert nf.trace(case.net, case.theta, case.batch).loss == nf.gradient(case.net, case.theta, case.batch).loss
