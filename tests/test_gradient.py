"""Claims about losses, gradients and outputs: against the reference, against differences, against PyTorch."""

from __future__ import annotations

import itertools

import autograd
import naive
import numpy as np
import pytest
from cases import CELLS, DTYPES, KINDS, LOSSES, WHENS, Case, make_case, make_exploding_case, make_replicas
from tolerance import assert_close, differenced, within

import nbflow as nf
from nbflow.cpu.shards import shard_rows
from nbflow.cpu.sizes import PIECE
from nbflow.cpu.weights import COPIED_FOR, colliding

# (T, B, N, H, M): 1 everywhere; below, at and above the lengths of vectors and the sizes of shards (they split at 8).
SIZES = (
    (1, 1, 1, 1, 1), (1, 3, 2, 4, 2), (4, 1, 3, 5, 2), (6, 2, 1, 1, 3), (3, 4, 2, 2, 1), (5, 7, 3, 7, 4),
    (5, 8, 4, 16, 9), (4, 9, 2, 17, 2), (3, 20, 5, 33, 16), (3, 25, 17, 50, 17), (140, 2, 3, 6, 2),
)  # fmt: skip


def assert_gradient(case, tolerance, *, carried=False, **choices):
    """Assert that loss and gradient of a case are the reference's."""
    flow = case.flow(carried=carried)
    out = nf.gradient(case.net, case.theta, case.batch, state=case.state if carried else None, **choices)
    assert out.d_theta.dtype == case.net.dtype
    assert_close(out.loss, flow.loss, tolerance, "the loss")
    assert_close(out.d_theta, naive.pack(flow.d_params), tolerance, "the gradient")
    return out, flow


@pytest.mark.parametrize(
    "package, known",
    [
        ("cells", naive.CELLS),
        ("losses", naive.LOSSES),
        ("flows", ("norm", "squared", "log", *naive.REGULARIZERS)),
        ("clips", ("norm", "layer", "value", "block", "unit", "normalize", "random", "smoothed", *naive.STATEFUL)),
        ("optimizers", naive.OPTIMIZERS),
        ("tasks", naive.TASKS),
    ],
)
def test_the_reference_knows_every_name(package, known):
    assert nf.names(package)
    assert set(nf.names(package)) <= set(known)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_gradient_is_the_references_for_every_loss_input_and_weighting(cell, dtype):
    for loss, kind, when in itertools.product(LOSSES, KINDS, WHENS):
        case = make_case(cell, loss, kind, when, T=5, B=3, N=3, H=5, M=3, dtype=dtype)
        out, flow = assert_gradient(case, within(dtype, 5, case.terms))
        assert np.linalg.norm(out.d_theta) > 1e-3, (loss, kind, when)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("T, B, N, H, M", SIZES)
def test_gradient_is_the_references_for_every_size(cell, T, B, N, H, M):
    for k, dtype in enumerate(DTYPES):
        loss = "square" if M == 1 else LOSSES[(B + H + k) % len(LOSSES)]
        for kind in KINDS:
            case = make_case(cell, loss, kind, "ragged", T, B, N, H, M, dtype)
            assert_gradient(case, within(dtype, T, case.terms), carried=(B + k) % 2 == 0)


@pytest.mark.parametrize("cell, H", [("tanh", 512), ("lstm", 128), ("gru", 512), ("tanh", 390)])
def test_gradient_is_the_references_where_rows_of_the_tape_collide_in_a_cache(cell, H):
    """They are copied; N is enough for that too, and one chunk of T * B is not. 390 is so for narrow panels alone."""
    case = make_case(cell, "softmax", "dense", "all", T=37, B=4, N=COPIED_FOR + 1, H=H, M=3, dtype="float64")
    assert H == 390 or colliding(len(case.net.cell_object.gates) * H * 8)
    assert_gradient(case, within("float64", 37, case.terms))
    groups = [nf.gradient(case.net, case.theta, case.batch, clip_microbatch=(size, 1e9)) for size in (1, 2, 4)]
    for found in groups:
        assert_close(found.d_theta, groups[-1].d_theta, within("float64", 37, case.terms))


@pytest.mark.parametrize("cell, B", [("tanh", 32), ("gru", 30)])
def test_gradient_is_the_references_for_wide_networks(cell, B):
    """Whose shards are larger, and whose packing and summing are cut into pieces."""
    case = make_case(cell, "softmax", "dense", "last", T=3, B=B, N=5, H=520, M=3, dtype="float64")
    assert shard_rows(case.net, B) == [B // 2] * 2
    assert len(shard_rows(nf.Network(cell, 5, 200, 3, dtype="float64"), B)) == 4
    assert case.net.size > 2 * PIECE
    assert_gradient(case, within("float64", 3, case.terms))


@pytest.mark.sim
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("kind", KINDS)
def test_gradient_is_the_references_for_the_smallest_networks(cell, kind):
    for loss in LOSSES:
        case = make_case(cell, loss, kind, "ragged", T=3, B=2, N=2, H=3, M=2)
        assert_gradient(case, within("float64", 3, case.terms))
        assert_gradient(case, within("float64", 3, case.terms), carried=True)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_are_the_references(cell, kind):
    for dtype, (T, B, N, H, M) in itertools.product(DTYPES, SIZES[:7]):
        case = make_case(cell, "square", kind, "all", T, B, N, H, M, dtype)
        y = nf.predict(case.net, case.theta, case.batch.inputs)
        assert y.dtype == dtype
        wanted = naive.outputs(case.params, naive.forward(case.params, cell, case.plain[0]))
        assert_close(y, wanted, within(dtype, T, case.terms))


def test_softmax_over_one_class_costs_nothing_and_teaches_nothing():
    case = make_case("tanh", "softmax", M=1)
    out = nf.gradient(case.net, case.theta, case.batch)
    assert out.loss == 0
    assert not out.d_theta.any()


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("kind", KINDS)
def test_gradient_is_the_difference_of_the_loss(cell, loss, kind):
    """All perturbed networks are replicas of one call; four points, so that eps/h and h^4 are both about 1e-12."""
    case = make_case(cell, loss, kind, "ragged", T=4, B=2, N=2, H=3, M=2, seed=1)
    P, h, shifts = case.theta.size, 2e-4, (-2, -1, 1, 2)
    theta = np.stack([case.theta + shift * h * row for shift in shifts for row in np.eye(P)])
    batch = nf.Batch(*(np.broadcast_to(part, (4 * P, *part.shape)) for part in case.batch))
    at = nf.gradient(case.net, theta, batch).loss.reshape(4, P)
    slope = (at[0] - 8 * at[1] + 8 * at[2] - at[3]) / (12 * h)
    assert_close(nf.gradient(case.net, case.theta, case.batch).d_theta, slope, differenced(h, 4, 4, 500))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_gradient_is_that_of_autograd(torch, cell, kind, dtype):
    for loss in LOSSES:
        case = make_case(cell, loss, kind, "ragged", T=6, B=9, N=3, H=17, M=3, dtype=dtype, seed=2)
        p, shares = autograd.losses_of_sequences(torch, case, kind)
        total = shares.sum()
        out = nf.gradient(case.net, case.theta, case.batch, state=case.state)
        assert_close(out.loss, total.item(), within(dtype, 6, case.terms))
        assert_close(out.d_theta, autograd.gradient(torch, p, total), within(dtype, 6, case.terms))


@pytest.mark.parametrize("cell", ["tanh", "relu"])
def test_gradient_is_that_of_torch_rnn(torch, cell):
    case = make_case(cell, "softmax", "dense", "all", T=7, B=5, N=4, H=11, M=3, seed=3)
    p, (inputs, targets, weights) = case.params, (torch.tensor(part) for part in case.plain)
    rnn = torch.nn.RNN(4, 11, nonlinearity=cell, dtype=torch.float64)
    out = torch.nn.Linear(11, 3, dtype=torch.float64)
    given = {"weight_ih_l0": p["w_in"][:, 0].T, "weight_hh_l0": p["w_rec"][:, 0].T, "bias_ih_l0": p["bias"][0]}
    with torch.no_grad():
        for name, value in given.items():
            getattr(rnn, name).copy_(torch.tensor(value))
        rnn.bias_hh_l0.zero_()
        out.weight.copy_(torch.tensor(p["w_out"].T))
        out.bias.copy_(torch.tensor(p["b_out"]))
    y = out(rnn(inputs)[0])
    per_step = torch.nn.functional.cross_entropy(y.flatten(0, 1), targets.flatten(), reduction="none")
    (weights.flatten() * per_step).sum().backward()
    d = nf.unpack(case.net, nf.gradient(case.net, case.theta, case.batch).d_theta)
    for got, wanted in (
        (d.w_in[:, 0].T, rnn.weight_ih_l0), (d.w_rec[:, 0].T, rnn.weight_hh_l0), (d.bias[0], rnn.bias_ih_l0),
        (d.w_out.T, out.weight), (d.b_out, out.bias),
    ):  # fmt: skip
        assert_close(got, wanted.grad.numpy(), within("float64", 7, case.terms))


# ------------------------------------------------------------------------------------------------ weights and lengths


@pytest.mark.sim
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_without_weight_has_no_loss_and_no_gradient(cell, kind):
    case = make_case(cell, "softmax", kind, T=3, B=2)
    batch = case.batch._replace(weights=np.zeros((3, 2)), targets=np.full((3, 2), -1))
    out = nf.gradient(case.net, case.theta, batch, flow=nf.Flow("norm", 1.0))
    assert (out.loss, out.omega, out.counted) == (0, 0, 0)
    assert not out.d_theta.any()
    carried = nf.gradient(case.net, case.theta, batch, flow=nf.Flow("norm", 1.0, reduction="mean"), state=case.state)
    assert (carried.loss, carried.omega, carried.counted) == (0, 0, 0)
    assert not carried.d_theta.any()
    assert np.isfinite(carried.state).all()


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_sequence_without_weight_adds_nothing(cell, kind):
    """The gradient of a batch is the sum over its sequences, of which an empty one has none, wherever it stands."""
    case = make_case(cell, "bernoulli", kind, "all", T=4, B=9, H=5, seed=4)
    whole = nf.gradient(case.net, case.theta, case.batch)
    for b in (0, 4, 8):
        weights = case.batch.weights.copy()
        weights[:, b] = 0
        rest = nf.gradient(case.net, case.theta, case.batch._replace(weights=weights))
        alone = nf.gradient(case.net, case.theta, nf.Batch(*(part[:, b : b + 1] for part in case.batch)))
        assert_close(rest.loss + alone.loss, whole.loss, within("float64", 4, case.terms))
        assert_close(rest.d_theta + alone.d_theta, whole.d_theta, within("float64", 4, case.terms))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("loss", LOSSES)
def test_what_stands_after_the_end_of_a_sequence_does_not_matter(cell, kind, loss):
    """Neither inputs nor targets there change a bit, with a first state or without."""
    rng = np.random.default_rng(5)
    case = make_case(cell, loss, kind, "ragged", T=8, B=9, N=3, H=5, M=3, seed=5)
    after = np.cumsum(case.batch.weights[::-1] != 0, axis=0)[::-1] == 0
    assert after.any()
    inputs, targets = case.batch.inputs.copy(), case.batch.targets.copy()
    inputs[after] = rng.integers(0, 3, after.sum()) if kind == "tokens" else rng.normal(size=(after.sum(), 3))
    targets[after] = -7 if loss == "softmax" else 1 - targets[after]
    other = case.batch._replace(inputs=inputs, targets=targets)
    for state in (None, case.state):
        one = nf.gradient(case.net, case.theta, case.batch, state=state)
        two = nf.gradient(case.net, case.theta, other, state=state)
        assert one.loss == two.loss
        assert np.array_equal(one.d_theta, two.d_theta)


@pytest.mark.parametrize("cell", ["relu", "linear"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("when", ["early", "mixed"])
@pytest.mark.parametrize("carried", [False, True])
def test_states_that_explode_after_the_end_leave_the_gradient_alone(cell, kind, dtype, when, carried):
    case = make_exploding_case(cell, kind, dtype, when)
    flow = case.flow(carried=True)
    assert np.isfinite(naive.pack(flow.d_params)).all()
    state = case.state if carried else None
    out = nf.gradient(case.net, case.theta, case.batch, state=state)
    assert_close(out.loss, flow.loss, within(dtype, 4, case.terms))
    assert_close(out.d_theta, naive.pack(flow.d_params), within(dtype, 4, case.terms))


@pytest.mark.parametrize("kind", KINDS)
def test_a_gradient_that_explodes_before_the_end_is_not_hidden(kind):
    """NaN and Inf within a sequence reach the loss and the gradient; finding them is what the package is for."""
    case = make_exploding_case("linear", kind, "float64", "early")
    weights = case.batch.weights.copy()
    weights[-1, 3] = 1.0
    out = nf.gradient(case.net, case.theta, case.batch._replace(weights=weights))
    assert not np.isfinite(out.loss)
    assert not np.isfinite(out.d_theta).all()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_losses_do_not_overflow_for_any_finite_output(loss, dtype):
    """Outputs of +-1e4 and +-1e30 (1e15 where they are squared), of which the reference says what they cost."""
    for size in (1e4, 1e15 if loss == "square" else 1e30):
        for signs in itertools.product((-1.0, 0.0, 1.0), repeat=3):
            case = make_case("linear", loss, T=1, B=1, N=1, H=1, M=3, when="all", dtype=dtype)
            p = nf.unpack(case.net, case.theta)
            p.w_out[:] = 0
            p.b_out[:] = size * np.array(signs)
            out = nf.gradient(case.net, case.theta, case.batch)
            flow = case.flow()
            assert np.isfinite(out.loss)
            assert_close(out.loss, flow.loss, within(dtype, 4), f"{signs}")
            got = nf.unpack(case.net, out.d_theta).b_out
            assert np.allclose(got, flow.d_params["b_out"], rtol=within(dtype, 4), atol=within(dtype, 4))


# ----------------------------------------------------------------------------------------------------- truncated BPTT


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_two_halves_with_the_state_carried_are_the_whole_run(cell, kind, dtype):
    """States to the bit, the loss to rounding; the gradient of each half is the reference's of that half."""
    case = make_case(cell, "square", kind, "ragged", T=8, B=9, H=7, dtype=dtype, seed=7)
    whole = nf.gradient(case.net, case.theta, case.batch, state=case.state)
    state, losses = case.state, []
    for part in (slice(0, 3), slice(3, 8)):
        half = Case(case.net, case.theta, nf.Batch(*(array[part] for array in case.batch)), state)
        out, flow = assert_gradient(half, within(dtype, 8, case.terms), carried=True)
        assert_close(out.state, flow.states[-1], within(dtype, 8, case.terms), "the state")
        state = out.state
        losses.append(out.loss)
    assert np.array_equal(state, whole.state)
    assert_close(sum(losses), whole.loss, within(dtype, 8, case.terms))


@pytest.mark.parametrize("cell", CELLS)
def test_a_first_state_of_zeros_is_no_first_state(cell):
    case = make_case(cell, "softmax", "tokens", "ragged", T=6, B=9, N=3, H=5)
    one = nf.gradient(case.net, case.theta, case.batch)
    two = nf.gradient(case.net, case.theta, case.batch, state=np.zeros_like(case.state))
    assert one.state is None
    assert np.array_equal(one.d_theta, two.d_theta)
    assert one.loss == two.loss


@pytest.mark.parametrize("cell", CELLS)
def test_replicas_have_their_own_networks_data_and_states(cell):
    for dtype, B in (("float64", 3), ("float32", 9)):
        net, theta, batch, state, cases = make_replicas(cell, R=3, loss="bernoulli", T=4, B=B, H=5, dtype=dtype)
        out = nf.gradient(net, theta, batch, state=state)
        for r, case in enumerate(cases):
            flow = case.flow(carried=True)
            assert_close(out.loss[r], flow.loss, within(dtype, 4, case.terms))
            assert_close(out.d_theta[r], naive.pack(flow.d_params), within(dtype, 4, case.terms))
            assert_close(out.state[r], flow.states[-1], within(dtype, 4, case.terms))


def test_weights_are_linear_in_the_gradient():
    """Twice the weights is twice the gradient, to the bit, and negative weights are as good as others."""
    case = make_case("tanh", "softmax", "tokens", "all", T=5, B=9, N=3, H=5)
    one = nf.gradient(case.net, case.theta, case.batch)
    two = nf.gradient(case.net, case.theta, case.batch._replace(weights=-2 * case.batch.weights))
    assert two.loss == -2 * one.loss
    assert np.array_equal(two.d_theta, -2 * one.d_theta)


def test_tokens_are_one_hot_inputs():
    case = make_case("tanh", "softmax", "tokens", "all", T=6, B=9, N=5, H=7)
    dense = case.batch._replace(inputs=np.eye(5)[case.batch.inputs])
    one, two = nf.gradient(case.net, case.theta, case.batch), nf.gradient(case.net, case.theta, dense)
    assert_close(two.loss, one.loss, within("float64", 6, case.terms))
    assert_close(two.d_theta, one.d_theta, within("float64", 6, case.terms))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint16, np.int64, np.uint64])
def test_tokens_and_classes_come_in_any_integer_type(dtype):
    case = make_case("tanh", "softmax", "tokens", "ragged", T=4, B=3, N=5, H=4, M=3)
    other = case.batch._replace(inputs=case.batch.inputs.astype(dtype), targets=case.batch.targets.astype(dtype))
    one, two = nf.gradient(case.net, case.theta, case.batch), nf.gradient(case.net, case.theta, other)
    assert np.array_equal(one.d_theta, two.d_theta)
