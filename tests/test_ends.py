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
        ({"wrt": ENDS, "checkpoint_every": 64}, "wrt and checkpoint_every"),
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
