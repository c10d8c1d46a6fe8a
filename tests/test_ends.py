"""Claims about the gradients at the inputs and at the first state, and about states that are handed on."""

from __future__ import annotations

import autograd
import naive
import numpy as np
import pytest
from cases import CELLS, DTYPES, KINDS, WHENS, make_case, make_replicas
from tolerance import assert_close, differenced, near, same_bits, within

import nbflow as nf

ENDS = ("inputs", "state")


def at_inputs(case, flow):
    """Return dL/dx (T,B,N) from the reference's record of a batch: what comes back to a_in, through w_in."""
    return np.einsum("tbgh,ngh->tbn", flow.e_in, case.params["w_in"])


def tolerance_of(case):
    return within(case.net.dtype, len(case.batch.weights), case.terms)


@pytest.mark.sim
@pytest.mark.parametrize("when", WHENS)
@pytest.mark.parametrize("cell", CELLS)
def test_the_gradients_at_both_ends_are_the_references(cell, when):
    case = make_case(cell, "softmax", "dense", when, T=5, B=3, N=2, H=3, M=2, seed=70)
    for carried in (False, True):
        flow = case.flow(carried=carried)
        out = nf.gradient(case.net, case.theta, case.batch, wrt=ENDS, state=case.state if carried else None)
        assert_close(out.d_inputs, at_inputs(case, flow), tolerance_of(case), "d_inputs")
        assert_close(out.d_state, flow.delta[0], tolerance_of(case), "d_state")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(70, 20, 6, 50, 4), (9, 1, 1, 1, 1), (5, 33, 130, 17, 3), (4, 2, 64, 16, 2)])
@pytest.mark.parametrize("cell", ["tanh", "gru", "lstm"])
def test_the_gradients_at_both_ends_are_the_references_at_any_size(cell, shape, dtype):
    case = make_case(cell, "square", "dense", "ragged", *shape, dtype, seed=71)
    flow = case.flow()
    out = nf.gradient(case.net, case.theta, case.batch, wrt=ENDS)
    assert_close(out.d_inputs, at_inputs(case, flow), tolerance_of(case), "d_inputs")
    assert_close(out.d_state, flow.delta[0], tolerance_of(case), "d_state")


@pytest.mark.sim
@pytest.mark.parametrize("cell", CELLS)
def test_the_gradients_at_both_ends_are_central_differences(cell):
    case = make_case(cell, "square", "dense", "ragged", T=4, B=3, N=2, H=3, M=2, seed=72)
    inputs, targets, weights = case.plain

    def loss_at(x, s):
        states = naive.forward(case.params, cell, x, s)
        return naive.loss(case.net.loss, naive.outputs(case.params, states), targets, weights)

    out = nf.gradient(case.net, case.theta, case.batch, wrt=ENDS, state=case.state)
    at_x = naive.central_difference(lambda x: loss_at(x, case.state), inputs)
    at_s = naive.central_difference(lambda s: loss_at(inputs, s), case.state)
    for got, wanted in ((out.d_inputs, at_x), (out.d_state, at_s)):
        assert_close(got, wanted, differenced(1e-4, 4, 4, case.terms, condition=10), "an end")


@pytest.mark.parametrize("cell", CELLS)
def test_the_gradients_at_both_ends_are_autograds(cell):
    torch = pytest.importorskip("torch")
    case = make_case(cell, "softmax", "dense", "ragged", T=6, B=4, N=3, H=5, M=3, seed=73)
    found = autograd.ends(torch, case)
    out = nf.gradient(case.net, case.theta, case.batch, wrt=ENDS, state=case.state)
    for got, wanted in zip((out.d_inputs, out.d_state), found, strict=True):
        assert_close(got, wanted, tolerance_of(case), "an end")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", ["tanh", "lstm"])
def test_asking_for_the_ends_changes_no_bit_of_the_gradient(cell, dtype):
    case = make_case(cell, "softmax", "dense", "ragged", T=70, B=9, N=3, H=17, M=2, dtype=dtype, seed=74)
    plain, both = (nf.gradient(case.net, case.theta, case.batch, wrt=wrt) for wrt in ((), ENDS))
    assert same_bits((plain.loss, plain.d_theta), (both.loss, both.d_theta))
    assert plain.d_inputs is plain.d_state is None
    one = nf.gradient(case.net, case.theta, case.batch, wrt="state")
    assert one.d_inputs is None
    assert same_bits(one.d_state, both.d_state)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_ends_of_replicas_have_the_bits_of_networks_alone(dtype):
    net, theta, batch, state, cases = make_replicas("gru", when="ragged", T=9, B=9, N=3, H=5, M=2, dtype=dtype)
    space = nf.workspace(net, batch)
    out = nf.gradient(net, theta, batch, state=state, wrt=ENDS, workspace=space)
    for r, case in enumerate(cases):
        alone = nf.gradient(net, case.theta, case.batch, state=case.state, wrt=ENDS)
        assert same_bits((out.d_inputs[r], out.d_state[r]), (alone.d_inputs, alone.d_state))
    # The same memory for a shorter batch, and for a gradient without the ends between two with them.
    nf.gradient(net, theta, batch, workspace=space)
    short = nf.Batch(*(np.ascontiguousarray(part[:, :4]) for part in batch))
    assert same_bits(
        nf.gradient(net, theta, short, wrt=ENDS, workspace=space), nf.gradient(net, theta, short, wrt=ENDS)
    )


def test_the_gradient_at_a_first_state_of_tokens_is_the_references():
    case = make_case("lstm", "softmax", "tokens", "ragged", T=6, B=3, N=4, H=3, M=2, seed=75)
    out = nf.gradient(case.net, case.theta, case.batch, wrt=["state"])
    assert_close(out.d_state, case.flow().delta[0], tolerance_of(case), "d_state")
    with pytest.raises(ValueError, match=r"wrt has 'inputs' and the inputs are tokens.*w_in"):
        nf.gradient(case.net, case.theta, case.batch, wrt=ENDS)


def test_what_changes_the_way_back_changes_the_ends():
    case = make_case("lstm", "square", "dense", "all", T=6, B=3, N=2, H=3, M=2, seed=76)
    plain = nf.gradient(case.net, case.theta, case.batch, wrt=ENDS)
    for how in ({"clip_hidden": nf.HiddenClip(1e-3)}, {"h_detach": nf.HDetach(1.0)},
                {"flow": nf.Flow("norm_stabilizer", alpha=1.0)}):  # fmt: skip
        changed = nf.gradient(case.net, case.theta, case.batch, wrt=ENDS, **how)
        assert not same_bits(changed.d_inputs, plain.d_inputs)
        assert not same_bits(changed.d_state, plain.d_state)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"wrt": "outputs"}, "wrt is 'outputs'"),
        ({"wrt": 3}, "wrt is 3"),
        ({"wrt": ENDS, "flow": nf.Flow("norm", alpha=1.0)}, "flow and wrt"),
        ({"wrt": ENDS, "flow": nf.Flow("orthogonality", alpha=1.0)}, "flow and wrt"),
        ({"wrt": ENDS, "clip_example": 1.0}, "wrt and a clip by example"),
        ({"wrt": ENDS, "recompute_every": 64}, "wrt and recompute_every"),
    ],
)
def test_what_has_no_ends_is_refused_by_name(how, said):
    case = make_case("tanh", "square", "dense", "all")
    with pytest.raises((TypeError, ValueError), match=said):
        nf.gradient(case.net, case.theta, case.batch, **how)


# ------------------------------------------------------------------------- products


def dot(a, b):
    return float((a.astype(np.float64) * b).sum())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cell", CELLS)
def test_jvp_and_vjp_are_adjoint_at_every_end(cell, kind):
    case = make_case(cell, "softmax", kind, "all", T=7, B=9, N=3, H=17, M=2, seed=77)
    rng = np.random.default_rng(77)
    dense = kind == "dense"
    inputs_dot = rng.normal(size=case.batch.inputs.shape) if dense else None
    theta_dot, state_dot = rng.normal(size=case.net.size), rng.normal(size=case.state.shape)
    d_outputs, d_state = rng.normal(size=(7, 9, 2)), rng.normal(size=case.state.shape)
    moved = nf.jvp(
        case.net, case.theta, case.batch.inputs, theta_dot=theta_dot, state_dot=state_dot, inputs_dot=inputs_dot,
        state=case.state,
    )  # fmt: skip
    pulled = nf.vjp(
        case.net, case.theta, case.batch.inputs, d_outputs=d_outputs, d_state=d_state, state=case.state
    )  # fmt: skip
    one = dot(moved.outputs, d_outputs) + dot(moved.state, d_state)
    parts = [dot(pulled.d_theta, theta_dot), dot(pulled.d_state, state_dot)]
    parts += [dot(pulled.d_inputs, inputs_dot)] if dense else []
    assert (pulled.d_inputs is None) == (not dense)
    condition = sum(map(abs, parts)) / abs(one)
    assert sum(parts) == near(one, "float64", 7, case.terms, condition)


@pytest.mark.sim
@pytest.mark.parametrize("cell", CELLS)
def test_inputs_alone_move_the_outputs_as_the_references_do(cell):
    case = make_case(cell, "square", "dense", "all", T=3, B=2, N=2, H=3, M=2, seed=78)
    inputs_dot = np.random.default_rng(78).normal(size=case.batch.inputs.shape)

    def run(far):
        states = naive.forward(case.params, cell, case.batch.inputs + far * inputs_dot, case.state)
        return np.concatenate([naive.outputs(case.params, states).ravel(), states[-1].ravel()])

    step = 1e-3
    wanted = (run(-2 * step) - 8 * run(-step) + 8 * run(step) - run(2 * step)) / (12 * step)
    moved = nf.jvp(case.net, case.theta, case.batch.inputs, inputs_dot=inputs_dot, state=case.state)
    tolerance = differenced(step, 4, 3, case.terms, curvature=np.linalg.norm(inputs_dot) ** 4)
    assert_close(np.concatenate([moved.outputs.ravel(), moved.state.ravel()]), wanted, tolerance)


@pytest.mark.sim
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cell", CELLS)
def test_states_of_all_steps_can_count(cell, kind):
    """<d_states, states> by complex steps of the reference, and the last of them as `d_state`."""
    case = make_case(cell, "square", kind, "all", T=4, B=2, N=2, H=3, M=2, seed=79)
    d_states = np.random.default_rng(79).normal(size=(4, *case.state.shape))
    d_states[2] = 0

    def value(theta, first):
        states = naive.forward(naive.unpack(theta, *case.sizes), cell, case.batch.inputs, first)
        return (d_states * states[1:]).sum()

    pulled = nf.vjp(case.net, case.theta, case.batch.inputs, d_states=d_states, state=case.state)
    rough = 1e-3 * within("float32")
    assert_close(pulled.d_theta, naive.central_difference(lambda v: value(v, case.state), case.theta), rough)
    wanted = naive.central_difference(lambda v: value(case.theta, v.reshape(case.state.shape)), case.state.ravel())
    assert_close(pulled.d_state.ravel(), wanted, rough)
    last = np.zeros_like(d_states)
    last[-1] = d_states[-1]
    one, other = (nf.vjp(case.net, case.theta, case.batch.inputs, **how)
                  for how in ({"d_states": last}, {"d_state": last[-1]}))  # fmt: skip
    assert same_bits(tuple(one), tuple(other))


def test_products_refuse_what_does_not_fit():
    case = make_case("lstm", "square", "tokens", "all", T=4, B=2, N=2, H=3, M=2)
    with pytest.raises(ValueError, match="inputs_dot is given and the inputs are tokens"):
        nf.jvp(case.net, case.theta, case.batch.inputs, inputs_dot=np.zeros((4, 2, 2)))
    with pytest.raises(ValueError, match=r"d_states has shape .*expected \(4, 2, 2, 3\)"):
        nf.vjp(case.net, case.theta, case.batch.inputs, d_states=np.zeros((4, 2, 1, 3)))
    with pytest.raises(ValueError, match="d_outputs, d_state and d_states are None"):
        nf.vjp(case.net, case.theta, case.batch.inputs)


# ------------------------------------------------------------------------- a first state, everywhere


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cell", CELLS)
def test_outputs_in_two_parts_have_the_bits_of_the_whole(cell, kind, dtype):
    case = make_case(cell, "softmax", kind, "all", T=8, B=9, N=3, H=5, M=2, dtype=dtype, seed=80)
    inputs = case.batch.inputs
    whole, end = nf.predict(case.net, case.theta, inputs, state=case.state, return_state=True)
    first, state = nf.predict(case.net, case.theta, inputs[:3], state=case.state, return_state=True)
    second, last = nf.predict(case.net, case.theta, inputs[3:], state=state, return_state=True)
    assert same_bits(np.concatenate([first, second]), whole)
    assert same_bits(last, end)
    assert not same_bits(nf.predict(case.net, case.theta, inputs), whole)


@pytest.mark.sim
def test_the_state_of_ragged_sequences_is_that_at_their_own_end():
    case = make_case("lstm", "square", "dense", "all", T=5, B=3, N=2, H=3, M=2, seed=81)
    lengths = np.array([5, 0, 2])
    states = naive.forward(case.params, "lstm", case.batch.inputs, case.state)
    how = {"state": case.state, "lengths": lengths, "return_state": True}
    _, found = nf.predict(case.net, case.theta, case.batch.inputs, **how)
    assert_close(found, states[lengths, np.arange(3)], tolerance_of(case))
    for wrong, said in ((lengths[:2], "shape"), (lengths / 2, "dtype float64"), (lengths + 1, "0 to T = 5")):
        with pytest.raises(ValueError, match=said):
            nf.predict(case.net, case.theta, case.batch.inputs, lengths=wrong, return_state=True)
    with pytest.raises(ValueError, match="lengths is given without return_state"):
        nf.predict(case.net, case.theta, case.batch.inputs, lengths=lengths)


@pytest.mark.sim
@pytest.mark.parametrize("cell", CELLS)
def test_a_trace_begins_with_the_state_that_it_is_given(cell):
    case = make_case(cell, "square", "dense", "ragged", T=5, B=3, N=2, H=3, M=2, seed=82)
    flow = case.flow(carried=True)
    seen = nf.trace(case.net, case.theta, case.batch, state=case.state)
    for name, wanted in (("loss", flow.loss), ("states", flow.states), ("delta", flow.delta), ("gain", flow.gain)):
        assert_close(getattr(seen, name), wanted, tolerance_of(case), name)
    profile = nf.gains_by_lag(case.net, case.theta, case.batch, state=case.state)
    ends = [int(np.flatnonzero(column)[-1]) + 1 if column.any() else 0 for column in case.batch.weights.T]
    wanted = [np.linalg.norm(flow.delta[end, b]) for b, end in enumerate(ends) if end]
    assert_close(profile.norms[0][np.array(ends) > 0], wanted, tolerance_of(case), "norms at lag 0")


def test_jacobians_and_saturation_begin_with_the_state_that_they_are_given():
    case = make_case("lstm", "square", "dense", "all", T=4, B=3, N=2, H=3, M=2, seed=83)
    inputs = case.batch.inputs
    _, state = nf.predict(case.net, case.theta, inputs[:2], return_state=True)
    later = nf.step_jacobians(case.net, case.theta, inputs[2:], state=state)
    assert same_bits(later, nf.step_jacobians(case.net, case.theta, inputs, at=[3, 4]))
    whole, rest = case.batch, nf.Batch(*(part[2:] for part in case.batch))
    by_step = nf.saturation(case.net, case.theta, whole, margin=0.4).by_step
    assert same_bits(nf.saturation(case.net, case.theta, rest, margin=0.4, state=state).by_step, by_step[2:])


# ------------------------------------------------------------------------- the state at each sequence's own end

WAYS = {
    "plain": {},
    "omega": {"flow": nf.Flow("norm", alpha=1.0)},
    "exact": {"flow": nf.Flow("norm", alpha=1.0, derivative="exact")},
    "stabilizer": {"flow": nf.Flow("norm_stabilizer", alpha=1.0)},
    "hidden": {"clip_hidden": nf.HiddenClip(1e-3)},
    "example": {"clip_example": 0.1},
    "ends": {"wrt": ENDS},
}


def last_weights(batch):
    """Return after which step each sequence has no weight any more (B,) or (R, B)."""
    steps = np.arange(1, batch.weights.shape[-2] + 1)[:, None]
    return np.where(batch.weights != 0, steps, 0).max(axis=-2)


@pytest.mark.sim
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cell", CELLS)
def test_a_gradient_returns_the_state_at_each_sequences_own_end(cell, kind):
    case = make_case(cell, "square", kind, "all", T=5, B=4, N=2, H=3, M=2, seed=84)
    ends = np.array([3, 0, 5, 2])
    case = case._replace(batch=case.batch._replace(weights=(np.arange(5)[:, None] < ends) * case.batch.weights))
    assert last_weights(case.batch).tolist() == ends.tolist()
    for lengths in (ends, np.maximum(ends - 1, 0), np.array([5, 0, 3, 4]), np.array([4, 4, 4, 4])):
        out = nf.gradient(case.net, case.theta, case.batch, state=case.state, lengths=lengths)
        states = naive.forward(case.params, cell, case.batch.inputs, case.state)
        assert_close(out.state, states[lengths, np.arange(4)], tolerance_of(case))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", ["tanh", "lstm"])
def test_asking_for_ends_changes_no_bit_and_they_are_those_of_predict(cell, dtype, way):
    case = make_case(cell, "softmax", "dense", "ragged", T=70, B=19, N=3, H=17, M=2, dtype=dtype, seed=85)
    ends, rng = last_weights(case.batch), np.random.default_rng(85)
    plain = nf.gradient(case.net, case.theta, case.batch, state=case.state, **WAYS[way])
    space = nf.workspace(case.net, case.batch)
    for lengths in (ends, rng.integers(0, 71, 19), np.full(19, 70), np.minimum(ends + 1, 70)):
        _, wanted = nf.predict(
            case.net, case.theta, case.batch.inputs, state=case.state, lengths=lengths, return_state=True
        )
        how = {"state": case.state, "lengths": lengths, **WAYS[way]}
        for out in (
            nf.gradient(case.net, case.theta, case.batch, **how),
            nf.gradient(case.net, case.theta, case.batch, workspace=space, **how),
        ):
            assert same_bits(out.state, wanted)
            assert same_bits(tuple(out._replace(state=None)), tuple(plain._replace(state=None)))


def test_ends_of_replicas_and_of_shorter_batches_have_the_bits_of_networks_alone():
    net, theta, batch, state, cases = make_replicas("gru", when="ragged", T=9, B=9, N=3, H=5, M=2)
    space, ends = nf.workspace(net, batch), last_weights(batch)
    out = nf.gradient(net, theta, batch, state=state, lengths=ends, workspace=space)
    for r, case in enumerate(cases):
        alone = nf.gradient(net, case.theta, case.batch, state=case.state, lengths=ends[r])
        assert same_bits(out.state[r], alone.state)
    short = nf.Batch(*(np.ascontiguousarray(part[:, :4]) for part in batch))
    lengths = np.minimum(ends, 4)
    found = nf.gradient(net, theta, short, lengths=lengths, workspace=space)
    assert same_bits(found.state, nf.predict(net, theta, short.inputs, lengths=lengths, return_state=True)[1])


def test_a_gradient_that_is_asked_for_ends_begins_with_zeros_where_no_state_is_given():
    case = make_case("lstm", "square", "dense", "ragged", T=5, B=3, N=2, H=3, M=2, seed=86)
    how = {"lengths": last_weights(case.batch)}
    zeros = nf.gradient(case.net, case.theta, case.batch, state=np.zeros_like(case.state), **how)
    assert same_bits(tuple(nf.gradient(case.net, case.theta, case.batch, **how)), tuple(zeros))


def test_two_windows_of_ragged_sequences_are_one_of_those_that_go_on():
    """Of unlike lengths in the first window too: each goes on from its own end, as if it had stood there alone."""
    case = make_case("gru", "square", "dense", "all", T=8, B=3, N=2, H=4, M=2, seed=87)
    lengths = np.array([4, 2, 3])
    weights = np.where(np.arange(4)[:, None] < lengths, 0.1, 0.0)
    first = nf.Batch(case.batch.inputs[:4], case.batch.targets[:4], weights)
    second = nf.Batch(*(part[4:] for part in case.batch))
    before = nf.gradient(case.net, case.theta, first, state=case.state, lengths=lengths)
    after = nf.gradient(case.net, case.theta, second, state=before.state)
    for b, length in enumerate(lengths):
        whole = np.concatenate([case.batch.inputs[:length, b], case.batch.inputs[4:, b]])[:, None]
        _, end = nf.predict(case.net, case.theta, whole, state=case.state[b : b + 1], return_state=True)
        assert_close(after.state[b], end[0], tolerance_of(case))


def test_ends_of_a_stack_are_those_of_each_layer():
    net = nf.Stack([nf.Network("lstm", 3, 5, 2), nf.Network("gru", 5, 4, 2)])
    theta, rng = nf.init(net, "glorot", rng=0), np.random.default_rng(88)
    weights = np.zeros((9, 6), np.float32)
    weights[:5] = 0.1
    batch = nf.Batch(rng.normal(size=(9, 6, 3)).astype("f4"), rng.integers(0, 2, (9, 6)), weights)
    for lengths in (np.array([5, 3, 0, 5, 1, 9]), np.array([5, 7, 0, 5, 1, 9])):
        found = nf.gradient(net, theta, batch, lengths=lengths).state
        wanted = nf.predict(net, theta, batch.inputs, lengths=lengths, return_state=True)[1]
        assert len(found) == 2
        assert same_bits(found, wanted)


def test_lengths_that_do_not_fit_are_refused_by_name():
    case = make_case("tanh", "square", "dense", "all", T=5, B=3, N=2, H=3, M=2)
    lengths = np.array([5, 0, 2])
    for wrong, said in ((lengths[:2], "shape"), (lengths / 2, "dtype float64"), (lengths + 1, "0 to T = 5")):
        with pytest.raises(ValueError, match=said):
            nf.gradient(case.net, case.theta, case.batch, lengths=wrong)
    with pytest.raises(ValueError, match="recompute_every and a state, or lengths"):
        nf.gradient(case.net, case.theta, case.batch, lengths=lengths, recompute_every=64)


@pytest.mark.gpu
@pytest.mark.sim
@pytest.mark.parametrize("cell", ["tanh", "lstm"])
def test_the_card_returns_the_state_at_each_sequences_own_end(cell):
    case = make_case(cell, "square", "dense", "ragged", T=4, B=3, N=2, H=3, M=2, seed=89)
    for lengths in (last_weights(case.batch), np.array([4, 0, 3])):
        one, two = (nf.gradient(case.net, case.theta, case.batch, state=case.state, lengths=lengths, backend=backend)
                    for backend in ("cpu", "cuda"))  # fmt: skip
        assert_close(two.state, one.state, tolerance_of(case))


# ------------------------------------------------------------------------- scores from a first state


def stated(net, replicas=None, seed=90):
    """Return a first state for all sequences, (1, S, H) or (R, 1, S, H), far from zeros."""
    lead = (1,) if replicas is None else (replicas, 1)
    shape = (*lead, len(net.cell_object.states), net.n_hidden)
    return (3 * np.random.default_rng(seed).normal(size=shape)).astype(net.dtype)


@pytest.mark.sim
@pytest.mark.parametrize("cell", ["linear", "lstm"])
def test_sequences_are_measured_from_the_first_state_that_is_given(cell):
    task = nf.load_task("temporal_order")
    net = nf.Network(cell, task.n_in, 5, task.n_out, task.loss)
    theta, first = nf.init(net, "orthogonal", rng=0), stated(net)
    batch = task.sample(seed=1, index=2, batch_size=40, length=10, stream="evaluation")
    y = nf.predict(net, theta, batch.inputs, state=np.repeat(first, 40, axis=0))
    how = {"length": 10, "size": 40, "seed": 1, "index": 2}
    assert nf.evaluate(net, theta, task, state=first, **how) == near(task.wrong(y, batch).mean())
    assert nf.evaluate(net, theta, task, state=np.zeros_like(first), **how) == nf.evaluate(net, theta, task, **how)
    assert nf.evaluate(net, theta, task, state=first, **how) != nf.evaluate(net, theta, task, **how)


def held_out(score):
    rng = np.random.default_rng(91)
    if score == "text":
        return nf.data.Text(rng.integers(0, 3, 2000).astype(np.int32), tuple("abc")).task(held_out=0.5)
    if score == "music":
        pieces = [(rng.random((frames, 4)) < 0.4).astype(np.uint8) for frames in (3, 9, 7)]
        return nf.data.PianoRollTask(pieces, pieces)
    return nf.arrays(rng.normal(size=(9, 80, 2)), rng.integers(0, 3, (9, 80)), held_out=0.9, score=score)


@pytest.mark.parametrize("replicas", [None, 2])
@pytest.mark.parametrize("score", ["text", "music", "loss", "wrong"])
def test_what_is_held_out_is_measured_from_the_first_state_that_is_given(score, replicas):
    """Every batch begins with it, but for those of a text, which go on."""
    task = held_out(score)
    net = nf.Network("lstm", task.n_in, 5, task.n_out, task.loss, "float64")
    theta, first = nf.init(net, "orthogonal", rng=0, replicas=replicas), stated(net, replicas)
    found = nf.evaluate(net, theta, task, state=first)
    for r in range(replicas or 1):
        row, start = (theta, first) if replicas is None else (theta[r], first[r])
        total, state = 0.0, None
        for batch in task.held_out_batches("float64"):
            if state is None or not task.carries:
                state = np.repeat(start, batch.weights.shape[1], axis=0)
            out = nf.gradient(net, row, batch, state=state)
            y = nf.predict(net, row, batch.inputs, state=state)
            total += batch.weights[y.argmax(axis=-1) != batch.targets].sum() if score == "wrong" else out.loss
            state = out.state
        wanted = total * task.units_per_nat
        assert (found if replicas is None else found[r]) == near(wanted, "float64", 100, 2000)
    assert not np.array_equal(found, nf.evaluate(net, theta, task))
    assert np.array_equal(nf.evaluate(net, theta, task, state=0 * first), nf.evaluate(net, theta, task))


def test_a_stack_is_measured_from_a_state_of_each_layer():
    task = held_out("text")
    net = nf.Stack([nf.Network("lstm", task.n_in, 5, 2), nf.Network("tanh", 5, 4, task.n_out)])
    theta, first = nf.init(net, "glorot", rng=0), tuple(map(stated, net.layers))
    found = nf.evaluate(net, theta, task, state=first)
    batches, state, total = task.held_out_batches("float32"), None, 0.0
    for batch in batches:
        state = tuple(np.repeat(one, batch.weights.shape[1], axis=0) for one in first) if state is None else state
        out = nf.gradient(net, theta, batch, state=state)
        total, state = total + out.loss, out.state
    assert found == near(total * task.units_per_nat, "float32", 100, 1000)
    assert found != nf.evaluate(net, theta, task)


def test_a_first_state_that_does_not_fit_is_refused():
    task = held_out("text")
    net = nf.Network("lstm", task.n_in, 5, task.n_out)
    theta = nf.init(net, "glorot", rng=0)
    for wrong in (np.zeros((2, 5), "f4"), np.zeros((20, 2, 5), "f4"), np.zeros((1, 1, 5), "f4")):
        with pytest.raises(ValueError, match=r"state has shape .*expected \(1, 2, 5\).*same one"):
            nf.evaluate(net, theta, task, state=wrong)
    with pytest.raises(TypeError, match="state has dtype float64"):
        nf.evaluate(net, theta, task, state=np.zeros((1, 2, 5)))
    with pytest.raises(ValueError, match=r"expected \(3, 1, 2, 5\)"):
        nf.evaluate(net, nf.init(net, "glorot", rng=0, replicas=3), task, state=np.zeros((1, 2, 5), "f4"))
