"""Claims about stacks: layers one above the other are one network, and its gradient is that of the whole."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import pickle
from typing import NamedTuple

import autograd
import naive
import numpy as np
import pytest
from cases import CELLS, DTYPES, FLOWS, KINDS, WHENS, make_theta, make_weights
from tolerance import assert_close, differenced, near, same_bits, within

import nbflow as nf
from nbflow.cpu import rules

ENDS = ("inputs", "state")
PAIRS = [("tanh", "tanh"), ("lstm", "gru"), ("gru", "tanh", "lstm")]


class Stacked(NamedTuple):
    """A stack, its parameters, a batch, and first states."""

    net: nf.Stack
    theta: np.ndarray
    batch: nf.Batch
    states: tuple[np.ndarray, ...]

    @property
    def cells(self):
        return [layer.cell for layer in self.net.layers]

    @property
    def plain(self):
        """The batch as the reference wants it, in float64."""
        return tuple(a if a.dtype.kind in "iu" else a.astype(np.float64) for a in self.batch)

    def params(self, theta=None):
        """Return the parameters of every layer as the reference wants them."""
        parts = self.net.split(self.theta if theta is None else theta)
        return [
            naive.unpack(part, layer.cell, layer.n_in, layer.n_hidden, layer.n_out)
            for layer, part in zip(self.net.layers, parts, strict=True)
        ]

    @property
    def tolerance(self):
        return self.within()

    def within(self, condition=1.0):
        T, B = self.batch.weights.shape
        terms = T * B + sum(self.net.n_hidden) + self.net.n_in
        return within(self.net.dtype, T * len(self.net.layers), terms, condition)

    def flows(self, starts=None, **how):
        return naive.stacked_backward(self.params(), self.cells, self.net.loss, self.plain, starts, **how)


def make_stack(
    cells, loss="square", kind="dense", when="ragged", T=5, B=3, N=2, H=(3, 4, 2), M=2, dtype="float64", seed=0
):
    """Return a random stack of these cells; the same arguments in another dtype are the same numbers, rounded."""
    sizes = H[: len(cells)]
    net = nf.Stack([
        nf.Network(cell, n_in, n_hidden, M, loss, dtype)
        for cell, n_in, n_hidden in zip(cells, (N, *sizes), sizes, strict=False)
    ])  # fmt: skip
    rng = np.random.default_rng([seed, T, B, N, *sizes, M])
    theta = np.concatenate([make_theta(layer, rng) for layer in net.layers]).astype(dtype)
    inputs = rng.normal(size=(T, B, N)).astype(dtype) if kind == "dense" else rng.integers(0, N, (T, B))
    targets = rng.integers(0, M, (T, B)) if loss == "softmax" else rng.normal(size=(T, B, M)).astype(dtype)
    weights = make_weights(rng, when, T, B).astype(dtype)
    states = tuple(
        rng.uniform(-0.5, 0.5, (B, naive.CELLS[layer.cell].states, layer.n_hidden)).astype(dtype)
        for layer in net.layers
    )
    return Stacked(net, theta, nf.Batch(inputs, targets, weights), states)


def packed(flows):
    return np.concatenate([naive.pack(flow.d_params) for flow in flows])


# ------------------------------------------------------------------------- the reference


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cells", PAIRS)
def test_the_reference_agrees_with_complex_steps_through_all_layers(cells, kind):
    case = make_stack(cells, "softmax", kind, T=3, seed=1)

    def loss_at(theta):
        return naive.stacked_loss(case.params(theta), case.cells, "softmax", case.plain, case.states)

    flows, _ = case.flows(case.states)
    assert_close(packed(flows), naive.complex_step(loss_at, case.theta), within("float64", 3, 20), "the reference")


# ------------------------------------------------------------------------- gradients


@pytest.mark.sim
@pytest.mark.parametrize("when", WHENS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cells", PAIRS)
def test_a_gradient_is_the_references(cells, kind, when):
    case = make_stack(cells, "softmax", kind, when, seed=2)
    for starts in (None, case.states):
        flows, d_inputs = case.flows(starts)
        wrt = ENDS if kind == "dense" else "state"
        out = nf.gradient(case.net, case.theta, case.batch, state=starts, wrt=wrt)
        assert_close(out.loss, flows[0].loss, case.tolerance, "the loss")
        assert_close(out.d_theta, packed(flows), case.tolerance, "d_theta")
        for found, flow in zip(out.d_state, flows, strict=True):
            assert_close(found, flow.delta[0], case.tolerance, "d_state")
        if kind == "dense":
            assert_close(out.d_inputs, d_inputs, case.tolerance, "d_inputs")


@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_stands_above_and_below_every_size(cell):
    for other in ("tanh", "lstm"):
        case = make_stack((cell, other, cell), "square", "dense", "ragged", 70, 9, 6, (33, 17, 5), 3, "float32", 3)
        flows, _ = case.flows()
        out = nf.gradient(case.net, case.theta, case.batch)
        assert_close(out.d_theta, packed(flows), case.tolerance, "d_theta")


def test_a_gradient_is_that_of_central_differences():
    case = make_stack(("gru", "lstm"), T=4, seed=4)

    def loss_at(theta):
        return naive.stacked_loss(case.params(theta), case.cells, "square", case.plain)

    wanted = naive.central_difference(loss_at, case.theta)
    out = nf.gradient(case.net, case.theta, case.batch)
    assert_close(out.d_theta, wanted, differenced(1e-4, 4, 8, 30, condition=10), "d_theta")


def test_layers_of_unlike_shards_hand_on_what_they_should():
    """A wide layer is cut into fewer shards than a narrow one: their ragged ends are not the same."""
    case = make_stack(("tanh", "lstm"), "square", "dense", "ragged", 9, 33, 3, (5, 370), 2, "float32", seed=5)
    flows, _ = case.flows()
    out = nf.gradient(case.net, case.theta, case.batch)
    assert_close(out.d_theta, packed(flows), case.tolerance, "d_theta")


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_stack_of_one_layer_is_that_network_bit_for_bit(dtype):
    case = make_stack(("lstm",), "softmax", "dense", "ragged", 70, 9, 3, (17,), 2, dtype, seed=6)
    (net,) = case.net.layers
    stacked, alone = (nf.gradient(one, case.theta, case.batch, wrt=ENDS) for one in (case.net, net))
    assert same_bits(stacked.d_state[0], alone.d_state)
    assert same_bits(tuple(stacked)[:-1], tuple(alone)[:-1])
    stacked, alone = (nf.predict(one, case.theta, case.batch.inputs) for one in (case.net, net))
    assert same_bits(stacked, alone)
    assert same_bits(nf.init(case.net, "glorot", rng=3), nf.init(net, "glorot", rng=3))


def test_replicas_have_the_bits_of_each_alone_and_a_workspace_those_without():
    cases = [make_stack(("gru", "tanh"), "softmax", "tokens", "ragged", 9, 9, seed=s) for s in (7, 8)]
    net, theta = cases[0].net, np.stack([case.theta for case in cases])
    batch = nf.Batch(*(np.stack(parts) for parts in zip(*(case.batch for case in cases), strict=True)))
    states = tuple(np.stack(parts) for parts in zip(*(case.states for case in cases), strict=True))
    space = nf.workspace(net, batch)
    out = nf.gradient(net, theta, batch, state=states, wrt="state")
    again = nf.gradient(net, theta, batch, state=states, wrt="state", workspace=space)
    assert same_bits(out.d_theta, again.d_theta)
    short = nf.Batch(*(part[:, :4] for part in batch))
    nf.gradient(net, theta, short, workspace=space)
    for r, case in enumerate(cases):
        alone = nf.gradient(net, case.theta, case.batch, state=case.states, wrt="state")
        assert same_bits(out.d_theta[r], alone.d_theta)
        for found, wanted in zip(out.state + out.d_state, alone.state + alone.d_state, strict=True):
            assert same_bits(found[r], wanted)
        plain = nf.gradient(net, theta, short, workspace=space)
        assert same_bits(plain.d_theta[r], nf.gradient(net, case.theta, nf.Batch(*(p[r] for p in short))).d_theta)


# ------------------------------------------------------------------------- PyTorch's


def torch_module(torch, kind, case):
    """Return nn.RNN, nn.LSTM or nn.GRU and an nn.Linear with the weights of a case."""
    bottom = case.net.layers[0]
    how = {"nonlinearity": "relu"} if kind == "relu" else {}
    name = {"tanh": "RNN", "relu": "RNN", "lstm": "LSTM", "gru": "GRU"}[kind]
    module = getattr(torch.nn, name)(bottom.n_in, bottom.n_hidden, num_layers=len(case.net.layers), **how).double()
    linear = torch.nn.Linear(bottom.n_hidden, case.net.n_out).double()
    weights = {key: torch.from_numpy(value) for key, value in nf.to_torch(case.net, case.theta).items()}
    linear.load_state_dict({key: weights.pop(key) for key in ("weight", "bias")})
    module.load_state_dict(weights)
    return module, linear


@pytest.mark.parametrize("kind", ["tanh", "relu", "lstm", "gru"])
@pytest.mark.parametrize("inputs", KINDS)
def test_a_gradient_is_that_of_torchs_module_of_several_layers(kind, inputs):
    torch = pytest.importorskip("torch")
    case = make_stack((kind,) * 3, "softmax", inputs, "ragged", 9, 4, 3, (5, 5, 5), 4, seed=9)
    module, linear = torch_module(torch, kind, case)
    x, targets, weights = (torch.from_numpy(np.asarray(part)) for part in case.batch)
    if inputs == "tokens":
        x = torch.nn.functional.one_hot(x, 3).double()
    x.requires_grad_()
    y = linear(module(x)[0])
    lost = torch.nn.functional.cross_entropy(y.flatten(0, 1), targets.flatten(), reduction="none")
    loss = (weights.flatten() * lost).sum()
    parameters = {**dict(module.named_parameters()), **dict(linear.named_parameters())}
    found = torch.autograd.grad(loss, [x, *parameters.values()])
    out = nf.gradient(case.net, case.theta, case.batch, wrt="inputs" if inputs == "dense" else ())
    ours = nf.to_torch(case.net, out.d_theta)
    assert_close(out.loss, loss.item(), within("float64", 9, 40), "the loss")
    for name, wanted in zip(parameters, found[1:], strict=True):
        if not name.startswith("bias_hh") or kind == "gru":
            assert_close(ours[name], wanted.numpy(), within("float64", 27, 60), name)
    if inputs == "dense":
        assert_close(out.d_inputs, found[0].numpy(), within("float64", 27, 60), "d_inputs")


@pytest.mark.parametrize("kind", ["tanh", "lstm", "gru"])
def test_weights_go_to_torch_and_come_back(kind):
    case = make_stack((kind,) * 2, H=(4, 4), seed=10)
    weights = nf.to_torch(case.net, case.theta, rnn="rnn.", linear="head.")
    assert [key for key in weights if "ih" in key and "weight" in key] == ["rnn.weight_ih_l0", "rnn.weight_ih_l1"]
    net, theta = nf.from_torch(weights, loss="square")
    assert net == case.net
    assert same_bits(theta, case.theta)
    assert same_bits(nf.from_torch(weights, loss="square", num_layers=2)[1], theta)
    with pytest.raises(ValueError, match="num_layers is 3; expected 2"):
        nf.from_torch(weights, num_layers=3)
    with pytest.raises(ValueError, match="weight_hh_l1"):
        nf.from_torch({key: value for key, value in weights.items() if key != "rnn.weight_hh_l1"})


# ------------------------------------------------------------------------- what a stack is


def test_a_stack_holds_no_outputs_of_lower_layers_and_names_its_parts():
    stack = nf.Stack([nf.Network("gru", 3, 5, 9, "softmax"), nf.Network("tanh", 5, 4, 2, "square")])
    assert [layer.n_out for layer in stack.layers] == [0, 2]
    assert stack.size == sum(layer.size for layer in stack.layers)
    theta = nf.init(stack, "smart_tanh", rng=0, replicas=2)
    low, high = nf.unpack(stack, theta)
    assert low.w_out.size == 0
    assert high.w_out.shape == (2, 4, 2)
    assert same_bits(nf.pack(stack, (low, high)), theta)
    assert pickle.loads(pickle.dumps(stack)) == stack == nf.Stack(stack.layers)
    assert hash(stack) == hash(dataclasses.replace(stack))
    with pytest.raises(ValueError, match="n_out is 0"):
        nf.Network("tanh", 3, 5, 0)


def test_layers_that_do_not_fit_are_refused():
    net = nf.Network("tanh", 3, 5, 2)
    for wrong, said in (
        (net, "expected a list of Networks"), ([], "expected a list of Networks"), ([net, 3], r"layers\[1\] is 3"),
        ([net, net], r"layers\[1\] has n_in=3; expected 5"),
        ([net, nf.Network("tanh", 5, 5, 2, dtype="float64")], r"layers\[1\] has dtype float64; expected float32"),
        (nf.Stack([net, nf.Network("tanh", 5, 4, 2)]).layers[:1], r"layers\[0\] has no outputs"),
    ):  # fmt: skip
        with pytest.raises((TypeError, ValueError), match=said):
            nf.Stack(wrong)


def test_a_state_of_a_stack_is_one_of_each_layer():
    case = make_stack(("tanh", "lstm"))
    for wrong in (case.states[0], case.states[:1], None):
        if wrong is not None:
            with pytest.raises(TypeError, match=r"state is .*expected 2 arrays \(B, S, H\)"):
                nf.predict(case.net, case.theta, case.batch.inputs, state=wrong)
    with pytest.raises(ValueError, match=r"state\[1\] has shape"):
        nf.predict(case.net, case.theta, case.batch.inputs, state=case.states[:1] * 2)


def test_outputs_in_two_parts_have_the_bits_of_the_whole_and_ends_are_each_sequences_own():
    case = make_stack(("gru", "lstm"), T=8, B=9, seed=11)
    inputs = case.batch.inputs
    whole, end = nf.predict(case.net, case.theta, inputs, state=case.states, return_state=True)
    first, states = nf.predict(case.net, case.theta, inputs[:3], state=case.states, return_state=True)
    second, last = nf.predict(case.net, case.theta, inputs[3:], state=states, return_state=True)
    assert same_bits(np.concatenate([first, second]), whole)
    assert same_bits(last, end)
    lengths = np.arange(9) % 9
    _, ends = nf.predict(case.net, case.theta, inputs, state=case.states, lengths=lengths, return_state=True)
    wanted = naive.stacked_states(case.params(), case.cells, inputs, case.states)
    for found, states in zip(ends, wanted, strict=True):
        assert_close(found, states[lengths, np.arange(9)], case.tolerance, "ends")


# ------------------------------------------------------------------------- what comes back, and how it is clipped


@pytest.mark.sim
@pytest.mark.parametrize("when", WHENS)
@pytest.mark.parametrize("cells", PAIRS)
def test_a_trace_has_a_record_of_every_layer(cells, when):
    case = make_stack(cells, "square", "dense", when, seed=12)
    flows, _ = case.flows(case.states)
    seen = nf.trace(case.net, case.theta, case.batch, state=case.states)
    assert len(seen) == len(cells)
    for found, flow in zip(seen, flows, strict=True):
        for name in ("loss", "states", "delta", "gain"):
            assert_close(getattr(found, name), getattr(flow, name), case.tolerance, name)
        assert_close(found.delta_norm, np.linalg.norm(flow.delta, axis=(2, 3)), case.tolerance, "delta_norm")


@pytest.mark.parametrize("by", ["norm", "value"])
@pytest.mark.parametrize("cells", PAIRS)
def test_a_clip_inside_clips_delta_of_every_layer_by_itself(cells, by):
    case = make_stack(cells, "square", "dense", "ragged", T=6, seed=13)
    threshold = 0.3

    def clip(delta):
        if by == "value":
            return np.clip(delta, -threshold, threshold)
        return delta * min(1.0, threshold / np.linalg.norm(delta))

    flows, d_inputs = case.flows(clip=clip)
    out = nf.gradient(
        case.net, case.theta, case.batch, clip_hidden=nf.HiddenClip(threshold, site="state", by=by), wrt="inputs"
    )
    assert_close(out.d_theta, packed(flows), case.tolerance, "d_theta")
    assert_close(out.d_inputs, d_inputs, case.tolerance, "d_inputs")
    assert not same_bits(out.d_theta, nf.gradient(case.net, case.theta, case.batch).d_theta)


def test_the_norm_of_a_clip_is_that_of_all_layers_together():
    case = make_stack(("tanh", "lstm"), seed=14)
    out = nf.gradient(case.net, case.theta, case.batch)
    done = nf.clip(case.net, out.d_theta, nf.Clip("norm", 0.01))
    assert_close(done.norm, np.linalg.norm(out.d_theta), case.tolerance, "the norm")
    assert_close(done.d_theta, 0.01 * out.d_theta / np.linalg.norm(out.d_theta), case.tolerance, "the direction")


@pytest.mark.parametrize("rule", ["layer", "block", "unit", "value"])
def test_a_clip_of_parts_is_that_of_each_layer(rule):
    case = make_stack(("tanh", "gru", "lstm"), seed=15)
    d_theta = nf.gradient(case.net, case.theta, case.batch).d_theta
    threshold = 1e-3
    done = nf.clip(case.net, d_theta, nf.Clip(rule, threshold), theta=case.theta)
    wanted, parts = [], zip(case.net.layers, case.net.split(d_theta), case.net.split(case.theta), strict=True)
    for layer, d, theta in parts:
        shapes = naive.sizes(layer.cell, layer.n_in, layer.n_hidden, layer.n_out)
        clipped = naive.clip(rule, d, threshold, theta=theta, blocks=shapes)
        wanted.append(clipped.d_theta)
        if rule == "layer":
            assert_close(clipped.clipped_norm, threshold, case.tolerance, "the norm of a layer")
    assert_close(done.d_theta, np.concatenate(wanted), case.tolerance, "d_theta")


def test_each_layer_is_named_where_a_gradient_is_not_finite_and_shrinks_where_it_should():
    case = make_stack(("tanh", "lstm"), seed=16)
    bad = np.zeros_like(case.theta)
    bad[case.net.firsts[1]] = np.nan
    with pytest.raises(FloatingPointError, match="1 of w_in of layer 1"):
        nf.clip(case.net, bad, nf.Clip("norm", 1.0, nonfinite="raise"))
    done = nf.clip(case.net, bad, nf.Clip("norm", 1.0, nonfinite="shrink"), theta=case.theta)
    for found, weights in zip(nf.unpack(case.net, done.d_theta), nf.unpack(case.net, case.theta), strict=True):
        assert_close(found.w_rec, 0.02 * weights.w_rec, case.tolerance, "w_rec")
        assert not found.w_in.any()


# ------------------------------------------------------------------------- clips by example


def gradients_of_groups(case, size):
    """Return the reference's gradient of B / size times the loss of each group of neighbouring examples."""
    inputs, targets, weights = case.plain
    B, found = weights.shape[1], []
    for first in range(0, B, size):
        own = np.zeros_like(weights)
        own[:, first : first + size] = weights[:, first : first + size]
        flows, _ = case._replace(batch=nf.Batch(inputs, targets, own)).flows()
        found.append(B / size * packed(flows))
    return np.array(found)


def clipped(gradients, threshold):
    """Return each gradient scaled to this norm if its own is larger."""
    norms = np.linalg.norm(gradients, axis=1)
    return gradients * np.minimum(1.0, threshold / np.maximum(norms, 1e-300))[:, None]


def clips_of(size, threshold):
    return {"clip_example": threshold} if size == 1 else {"clip_microbatch": (size, threshold)}


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cells", PAIRS)
def test_the_norm_of_an_example_is_that_of_all_layers_together(cells, kind, size):
    case = make_stack(cells, "softmax", kind, "ragged", B=9, seed=31)
    gradients = gradients_of_groups(case, size)
    norms = np.linalg.norm(gradients, axis=1)
    threshold = float(np.median(norms[norms > 0]))
    out = nf.gradient(case.net, case.theta, case.batch, **clips_of(size, threshold))
    assert_close(out.d_theta, clipped(gradients, threshold).mean(axis=0), case.tolerance, "d_theta")
    assert_close(out.example_norms, norms, case.tolerance, "the norms")
    assert out.left_out == 0
    loose = nf.gradient(case.net, case.theta, case.batch, **clips_of(size, np.inf))
    assert_close(loose.d_theta, nf.gradient(case.net, case.theta, case.batch).d_theta, case.tolerance, "none clipped")


@pytest.mark.parametrize("kind", ["tanh", "relu", "lstm", "gru"])
@pytest.mark.parametrize("inputs", KINDS)
def test_clipped_examples_are_those_of_torchs_module_one_by_one(kind, inputs):
    torch = pytest.importorskip("torch")
    case = make_stack((kind,) * 3, "softmax", inputs, "ragged", 9, 5, 3, (5, 5, 5), 4, seed=32)
    module, linear = torch_module(torch, kind, case)
    x, targets, weights = (torch.from_numpy(np.asarray(part)) for part in case.batch)
    x = torch.nn.functional.one_hot(x, 3).double() if inputs == "tokens" else x
    lost = torch.nn.functional.cross_entropy(
        linear(module(x)[0]).flatten(0, 1), targets.flatten(), reduction="none"
    ).reshape(weights.shape)  # fmt: skip
    # Of two biases that are added, nbflow has one.
    named = {**dict(module.named_parameters()), **dict(linear.named_parameters())}
    parts = [part for name, part in named.items() if kind == "gru" or not name.startswith("bias_hh")]
    gradients = np.array([
        torch.cat([d.ravel() for d in torch.autograd.grad(5 * share, parts, retain_graph=True)]).numpy()
        for share in (weights * lost).sum(0)
    ])  # fmt: skip
    norms = np.linalg.norm(gradients, axis=1)
    threshold = float(np.median(norms[norms > 0]))
    out = nf.gradient(case.net, case.theta, case.batch, clip_example=threshold)
    ours = nf.to_torch(case.net, out.d_theta)
    found = np.concatenate([ours[n].ravel() for n in named if kind == "gru" or not n.startswith("bias_hh")])
    assert_close(found, clipped(gradients, threshold).mean(axis=0), within("float64", 27, 60), "d_theta")
    assert_close(out.example_norms, norms, within("float64", 27, 60), "the norms")


@pytest.mark.sim
@pytest.mark.parametrize("cells", PAIRS[:2])
def test_replicas_clip_their_examples_as_each_would_alone_and_in_a_workspace_used_before(cells):
    cases = [make_stack(cells, "softmax", "dense", "ragged", 4, 9, seed=s) for s in (33, 34)]
    net, theta = cases[0].net, np.stack([case.theta for case in cases])
    batch = nf.Batch(*(np.stack(parts) for parts in zip(*(case.batch for case in cases), strict=True)))
    space, thresholds = nf.workspace(net, batch), np.array([0.3, 1.0])
    nf.gradient(net, theta, batch, clip_example=thresholds / 7, workspace=space)
    nf.gradient(net, theta, batch, workspace=space)
    out = nf.gradient(net, theta, batch, clip_example=thresholds, workspace=space)
    short = nf.gradient(net, theta, nf.Batch(*(p[:, :3] for p in batch)), clip_microbatch=(3, 0.2), workspace=space)
    for r, case in enumerate(cases):
        alone = nf.gradient(net, case.theta, case.batch, clip_example=thresholds[r])
        assert same_bits(out.d_theta[r], alone.d_theta)
        assert same_bits(out.example_norms[r], alone.example_norms)
        alone = nf.gradient(net, case.theta, nf.Batch(*(p[:3] for p in case.batch)), clip_microbatch=(3, 0.2))
        assert same_bits(short.d_theta[r], alone.d_theta)


@pytest.mark.parametrize("dtype", DTYPES)
def test_clips_by_example_of_a_stack_of_one_layer_have_the_bits_of_that_network(dtype):
    case = make_stack(("lstm",), "softmax", "dense", "ragged", 70, 9, 3, (17,), 2, dtype, seed=35)
    (net,) = case.net.layers
    for how in ({"clip_example": 0.1}, {"clip_microbatch": (3, 0.1)}, {"clip_example": 1e-37}):
        stacked, alone = (nf.gradient(one, case.theta, case.batch, **how) for one in (case.net, net))
        assert same_bits(stacked.d_theta, alone.d_theta)
        assert same_bits(stacked.example_norms, alone.example_norms)


def test_layers_of_unlike_shards_clip_the_same_examples():
    case = make_stack(("tanh", "lstm"), "square", "dense", "ragged", 5, 36, 3, (5, 370), 2, "float64", seed=36)
    parts = []
    for b in range(36):
        own = np.zeros_like(case.batch.weights)
        own[:, b] = case.batch.weights[:, b]
        parts.append(36 * nf.gradient(case.net, case.theta, case.batch._replace(weights=own)).d_theta)
    threshold = float(np.median(np.linalg.norm(parts, axis=1)))
    out = nf.gradient(case.net, case.theta, case.batch, clip_example=threshold)
    assert_close(out.d_theta, clipped(np.array(parts), threshold).mean(axis=0), case.tolerance, "d_theta")


@pytest.mark.parametrize(
    ("dtype", "size"), [("float32", 1e28), ("float32", 1e-28), ("float64", 1e200), ("float64", 1e-200)]
)
def test_norms_beyond_the_squares_of_numbers_are_right(dtype, size):
    case = make_stack(("tanh", "gru"), "square", "dense", "all", B=9, dtype=dtype, seed=37)
    plain = nf.gradient(case.net, case.theta, case.batch, clip_example=np.inf)
    far = case.batch._replace(weights=(case.batch.weights * size).astype(dtype))
    out = nf.gradient(case.net, case.theta, far, clip_example=np.inf)
    assert_close(out.example_norms / size, plain.example_norms, case.tolerance, "the norms")
    tight = nf.gradient(case.net, case.theta, far, clip_example=size * float(np.median(plain.example_norms)))
    wanted = nf.gradient(case.net, case.theta, case.batch, clip_example=float(np.median(plain.example_norms)))
    assert_close(tight.d_theta.astype(np.float64) / size, wanted.d_theta, case.within(10), "d_theta")


@pytest.mark.sim
def test_two_norms_are_joined_whatever_their_scales():
    scales = {"float32": (2.0**-80, 1.0, 2.0**100), "float64": (2.0**-600, 1.0, 2.0**600)}
    for dtype, known in scales.items():
        rng = np.random.default_rng(38)
        for one, two in itertools.product(known, repeat=2):
            a, b = rng.uniform(1e-3, 1e3, 2).astype(dtype)
            root, scale = rules.joined(a, np.dtype(dtype).type(one), b, np.dtype(dtype).type(two))
            wanted = np.hypot(np.longdouble(a) / np.longdouble(one), np.longdouble(b) / np.longdouble(two))
            assert float(np.longdouble(root) / np.longdouble(scale) / wanted) == near(1.0)
            assert scale == min(one, two)


@pytest.mark.parametrize("policy", ["skip", "keep", "raise"])
def test_an_example_whose_gradient_is_not_finite_in_one_layer_is_left_out_of_all(policy):
    case = make_stack(("tanh", "lstm"), "square", "dense", "all", B=9, seed=39)
    weights, targets = case.batch.weights.copy(), case.batch.targets.copy()
    weights[:, 4], targets[:, 4] = 1e308, 1e308
    bad = nf.Batch(case.batch.inputs, targets, weights)
    how = {"clip_example": nf.ExampleClip(0.5, policy)}
    with np.errstate(all="ignore"):
        if policy == "raise":
            with pytest.raises(FloatingPointError, match="the gradient of example 4 is not finite"):
                nf.gradient(case.net, case.theta, bad, **how)
            return
        out = nf.gradient(case.net, case.theta, bad, **how)
    assert np.isnan(out.example_norms).tolist() == [b == 4 for b in range(9)]
    if policy == "keep":
        assert not np.isfinite(out.d_theta).all()
        return
    others = np.delete(gradients_of_groups(case, 1), 4, axis=0)
    assert out.left_out == 1
    assert_close(out.d_theta, clipped(others, 0.5).sum(axis=0) / 9, case.tolerance, "d_theta")


def test_a_penalty_of_the_states_is_part_of_each_examples_gradient():
    case = make_stack(("tanh", "gru"), B=9, seed=40)
    flow = nf.Flow("norm_stabilizer", 0.7)
    plain = nf.gradient(case.net, case.theta, case.batch, flow=flow)
    loose = nf.gradient(case.net, case.theta, case.batch, flow=flow, clip_example=np.inf)
    assert_close(loose.d_theta, plain.d_theta, case.tolerance, "none clipped")
    assert_close(loose.omega, plain.omega, case.tolerance, "omega")


@pytest.mark.parametrize("how", [{"clip_example": 0.3}, {"clip_microbatch": nf.MicrobatchClip(4, 0.3, "skip")}])
def test_a_training_clips_the_examples_of_all_layers(how):
    task, net = task_stack()
    theta = nf.init(net, "glorot", rng=0, replicas=2)
    run = nf.train(net, theta, task, short_recipe(**how))
    for r in range(2):
        by_hand = follow(net, theta[r], short_recipe(), 12, task, r, **how)
        assert_close(run.theta[r], by_hand, within("float64", 120, 20), "theta")
        assert same_bits(nf.train(net, theta[r], task, short_recipe(**how), replica_ids=[r]).theta, run.theta[r])


# ------------------------------------------------------------------------- tapes that are computed twice


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("T", "B"), [(700, 1), (150, 9), (10, 3)])
@pytest.mark.parametrize("flow", [None, nf.Flow("norm", 1.0, "immediate"), nf.Flow("norm_stabilizer", 0.5)])
@pytest.mark.parametrize("both", [False, True])
def test_tapes_of_layers_that_are_computed_twice_give_the_same_bits(both, flow, T, B, dtype):
    case = make_stack(("tanh", "gru", "lstm"), "softmax", "dense", "ragged", T, B, dtype=dtype, seed=41)
    net, theta = case.net, case.theta
    if both:
        sizes = ((2, 3), (6, 4))
        layers = [nf.Network("gru", n, h, 2, "softmax", dtype) for n, h in sizes]
        net = nf.Stack(layers, bidirectional=True)
        theta = nf.init(net, "glorot", rng=0)
    plain = nf.gradient(net, theta, case.batch, flow=flow)
    for every in (1, 64, 200, 10_000):
        out = nf.gradient(net, theta, case.batch, flow=flow, recompute_every=every)
        assert same_bits(out.d_theta, plain.d_theta)
        assert (out.loss, out.omega, out.counted) == (plain.loss, plain.omega, plain.counted)


@pytest.mark.sim
@pytest.mark.parametrize("kind", KINDS)
def test_the_smallest_stack_computed_twice(kind):
    case = make_stack(("tanh", "gru"), "softmax", kind, T=4, seed=42)
    plain = nf.gradient(case.net, case.theta, case.batch, clip_hidden=nf.HiddenClip(0.1))
    twice = nf.gradient(case.net, case.theta, case.batch, clip_hidden=nf.HiddenClip(0.1), recompute_every=1)
    assert same_bits(twice.d_theta, plain.d_theta)


def test_tapes_that_are_computed_twice_leave_what_lies_between_layers():
    case = make_stack(("lstm", "lstm"), "softmax", "tokens", "last", T=5000, B=1, H=(32, 32), dtype="float32", seed=43)
    sizes = []
    for every in (None, 640):
        space = nf.workspace(case.net, case.batch)
        nf.gradient(case.net, case.theta, case.batch, recompute_every=every, workspace=space)
        (layers,) = space._cut.values()
        sizes.append(sum(one._memory.nbytes for one in layers.spaces))
        assert sum(array.nbytes for pair in layers.between for array in pair) == 2 * 5000 * 32 * 4
    assert sizes[1] < sizes[0] / 4, sizes


# ------------------------------------------------------------------------- training


def follow(net, theta, recipe, updates, task, replica, **how):
    """Train by hand: gradient, clip, a step of sgd."""
    for update in range(updates):
        drawn = task.sample(seed=0, index=update, batch_size=8, length=10, dtype=net.dtype, replicas=2)
        batch = nf.Batch(*(part[replica] for part in drawn))
        out = nf.gradient(net, theta, batch, **how)
        theta = theta - np.asarray(0.1, net.dtype) * nf.clip(net, out.d_theta, recipe.clip).d_theta
    return theta


def short_recipe(**more):
    return nf.Recipe(**{
        "lr": 0.1, "lengths": 10, "batch_size": 8, "max_updates": 12, "record_every": 6, "evaluate_every": 6,
        "evaluate_size": 50, "clip": nf.Clip("norm", 0.5), **more,
    })  # fmt: skip


def task_stack(dtype="float64"):
    task = nf.load_task("temporal_order")
    layers = [nf.Network("tanh", task.n_in, 5, task.n_out, task.loss, dtype),
              nf.Network("lstm", 5, 4, task.n_out, task.loss, dtype)]  # fmt: skip
    return task, nf.Stack(layers)


def test_training_is_gradient_clip_and_step_of_all_layers_together():
    task, net = task_stack()
    theta = nf.init(net, "glorot", rng=0, replicas=2)
    run = nf.train(net, theta, task, short_recipe())
    for r in range(2):
        by_hand = follow(net, theta[r], short_recipe(), 12, task, r)
        assert_close(run.theta[r], by_hand, within("float64", 120, 20), "theta")
        alone = nf.train(net, theta[r], task, short_recipe(), replica_ids=[r])
        assert same_bits(run.theta[r], alone.theta)
        assert alone.evaluations["score"] == [row[r] for row in run.evaluations["score"]]
        length = {"length": 10, "size": 50, "index": 12}
        assert 0 <= nf.evaluate(net, run.theta[r], task, **length) <= 1


@pytest.mark.parametrize("optimizer", ["adam", "momentum"])
def test_a_training_goes_on_to_the_same_bits_and_knows_another_stack(optimizer, tmp_path):
    task, net = task_stack("float32")
    theta, path = nf.init(net, "glorot", rng=0), tmp_path / "run.npz"
    recipe = short_recipe(optimizer=optimizer, clip=nf.Clip("layer", 0.5), flow=nf.Flow("norm", 0.1, "immediate"))
    whole = nf.train(net, theta, task, recipe)
    nf.train(net, theta, task, dataclasses.replace(recipe, max_updates=6), checkpoint=path)
    again = nf.train(net, theta, task, recipe, checkpoint=path)
    assert same_bits(again.theta, whole.theta)
    assert again.history["omega"] == whole.history["omega"]
    other = nf.Stack([nf.Network("relu", task.n_in, 5, 4, task.loss), net.layers[1]])
    with pytest.raises(ValueError, match="belongs to another training: net"):
        nf.train(other, nf.init(other, "glorot", rng=0), task, recipe, checkpoint=path)


def test_a_text_that_is_held_out_is_measured_with_the_states_of_all_layers_carried_over(tmp_path):
    (tmp_path / "book.txt").write_text("to be or not to be, that is the question. " * 60)
    task = nf.data.read_text(tmp_path / "book.txt").task()
    layers = [nf.Network("tanh", task.n_in, 5, task.n_out, task.loss, "float64"),
              nf.Network("gru", 5, 4, task.n_out, task.loss, "float64")]  # fmt: skip
    net = nf.Stack(layers)
    theta = nf.init(net, "glorot", rng=0)
    nats, count, state = 0.0, 0.0, None
    for batch in task.held_out_batches("float64"):
        y, state = nf.predict(net, theta, batch.inputs, state=state, return_state=True)
        lost = np.logaddexp.reduce(y, axis=-1) - np.take_along_axis(y, batch.targets[..., None], axis=-1)[..., 0]
        nats, count = nats + (batch.weights * lost).sum(), count + 1
    assert count >= 1
    assert_close(nf.evaluate(net, theta, task), nats * task.units_per_nat, within("float64", 500, 20), "bits")


# ------------------------------------------------------------------------- what a stack has not

# What looks at one network, and so takes no stack; everything else that takes a network takes both.
TAKES_STACKS = {"init", "unpack", "pack", "predict", "gradient", "clip", "trace", "train", "train_stages", "updater",
                "evaluate", "calibrate_threshold", "workspace", "to_torch", "diagnose"}  # fmt: skip


def functions_of_networks():
    for name in nf.__all__:
        function = getattr(nf, name)
        if not inspect.isclass(function) and callable(function) and name not in TAKES_STACKS:
            parameters = [*inspect.signature(function).parameters.values()]
            if parameters and parameters[0].name == "net":
                yield name, sum(p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters)


@pytest.mark.parametrize(("name", "arguments"), list(functions_of_networks()))
def test_what_looks_at_one_network_refuses_a_stack_by_name(name, arguments):
    case = make_stack(("tanh", "lstm"))
    given = [case.net, case.theta, case.batch.inputs if name in INPUTS_ONLY else case.batch, case.theta, case.theta]
    more = {"jvp": {"theta_dot": case.theta}, "average_of_clipped": {"sizes": [1], "thresholds": [1.0]}}.get(name, {})
    with pytest.raises(TypeError, match="net is a Stack; expected a Network"):
        getattr(nf, name)(*given[:arguments], **more)


INPUTS_ONLY = {"jvp", "vjp", "step_jacobians", "jacobian_singular_values", "lyapunov_exponents"}


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"flow": nf.Flow("orthogonality", 0.1)}, "orthogonality"),
        ({"backend": "cuda"}, "net is a Stack; .*'cuda'"),
    ],
)
def test_what_a_stack_has_not_is_refused_by_name(how, said):
    case = make_stack(("lstm", "lstm"))
    with pytest.raises(NotImplementedError, match=said):
        nf.gradient(case.net, case.theta, case.batch, **how)


def test_a_layer_without_outputs_is_no_network_to_compute_with():
    case = make_stack(("tanh", "tanh"))
    low, theta = case.net.layers[0], case.net.split(case.theta)[0]
    for call in (lambda: nf.predict(low, theta, case.batch.inputs), lambda: nf.gradient(low, theta, case.batch)):
        with pytest.raises(ValueError, match=r"net has n_out 0.*Pass the Stack"):
            call()
    assert nf.recurrent_spectrum(low, theta).gates == ("a",)


# ------------------------------------------------------------------------- Omega, of all layers


def immediate(case, flows, penalty, reduction):
    """Return the sum of the layers' Omega, and its immediate derivative as a vector like theta."""
    omega, d = 0.0, []
    for flow, p, cell in zip(flows, case.params(), case.cells, strict=True):
        omega += naive.omega(penalty, reduction, flow)
        zeros = {name: np.zeros(block.shape) for name, block in p.items()}
        d.append(naive.pack({**zeros, "w_rec": naive.omega_immediate(penalty, reduction, flow, p, cell)}))
    return omega, np.concatenate(d)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("penalty", FLOWS)
@pytest.mark.parametrize("cells", PAIRS)
def test_omega_is_the_sum_over_layers_and_its_immediate_derivative_is_the_references(cells, penalty, reduction):
    case = make_stack(cells, "square", "dense", "ragged", T=6, seed=17)
    flows, _ = case.flows()
    omega, d_omega = immediate(case, flows, penalty, reduction)
    flow = nf.Flow(penalty, 0.7, "immediate", reduction=reduction)
    out = nf.gradient(case.net, case.theta, case.batch, flow=flow)
    tolerance = case.within(100)  # (r - 1)^2 near r = 1
    assert_close(out.omega, omega, tolerance, "omega")
    assert_close(out.d_theta, packed(flows) + 0.7 * d_omega, tolerance, "d_theta")
    assert out.counted == sum(int(naive.counted(flow.delta).sum()) for flow in flows)


@pytest.mark.parametrize(("kind", "reduction"), [("dense", "sum"), ("tokens", "mean")])  # each once: it takes 10 s
@pytest.mark.parametrize("cells", PAIRS)
def test_the_detached_and_the_exact_derivative_go_through_all_layers(cells, kind, reduction):
    """By differences of the reference: with every layer's delta frozen, and with all of it moving."""
    case = make_stack(cells, "square", kind, "all", T=4, B=2, seed=19)
    flows, _ = case.flows()
    deltas = [flow.delta for flow in flows]

    def detached(theta):
        return naive.stacked_omega_detached(
            case.params(theta), case.cells, case.batch.inputs, "squared", reduction, deltas
        )  # fmt: skip

    def exact(theta):
        moved, _ = naive.stacked_backward(case.params(theta), case.cells, "square", case.plain)
        return sum(naive.omega("squared", reduction, flow) for flow in moved)

    rough = differenced(1e-4, 4, 8, 30, condition=10, curvature=10)
    for name, omega in (("detached", detached), ("exact", exact)):
        out = nf.gradient(case.net, case.theta, case.batch, flow=nf.Flow("squared", 0.7, name, reduction=reduction))
        assert_close(out.omega, omega(case.theta), case.within(100), "omega")
        wanted = naive.central_difference(omega, case.theta)
        assert_close((out.d_theta - packed(flows)) / 0.7, wanted, rough, name)
        nothing = nf.gradient(case.net, case.theta, case.batch, flow=nf.Flow("squared", 0.0, name, reduction=reduction))
        assert same_bits(nothing.d_theta, nf.gradient(case.net, case.theta, case.batch).d_theta)


def torch_omega(torch, case, p, exact):
    """Return loss and Omega "squared", the sum of all layers, of tensors `p` by layer, by PyTorch's derivatives."""
    inputs, targets, weights = (torch.tensor(part) for part in case.plain)
    below, layers = list(inputs), []
    for q, cell, layer in zip(p, case.cells, case.net.layers, strict=True):
        lines = naive.CELLS[cell].states
        # Copies: what moves one line of a state is not what the other line is made of.
        copies, made = (
            [[torch.zeros(inputs.shape[1], layer.n_hidden).double().requires_grad_() for _ in range(lines)]],
            [],
        )
        for x in below:
            a_in = q["bias"] + torch.einsum("bn,ngh->bgh", x, q["w_in"])
            a_rec = torch.einsum("bk,kgh->bgh", copies[-1][0], q["w_rec"])
            a_rec = a_rec + q["bias_rec"] if naive.CELLS[cell].has_bias_rec else a_rec
            made.append(autograd.STEPS[cell](torch, a_in.unbind(1), a_rec.unbind(1), copies[-1]))
            copies.append([line.clone() for line in made[-1]])
        below = [copy[0] for copy in copies[1:]]
        layers.append((copies, made))
    y = torch.stack(below) @ p[-1]["w_out"] + p[-1]["b_out"]
    loss = (weights * ((y - targets) ** 2).sum(-1)).sum()
    omega = 0
    for copies, made in layers:
        for before, after, copied in zip(copies, made, copies[1:], strict=False):
            delta = torch.autograd.grad(loss, copied, create_graph=exact, retain_graph=True, materialize_grads=True)
            v = torch.autograd.grad(after, before, delta, create_graph=True, materialize_grads=True)
            q = sum((one**2).sum(-1) for one in v) / sum((one**2).sum(-1) for one in delta)
            omega = omega + ((q - 1) ** 2).sum() / inputs.shape[1]
    return loss, omega


@pytest.mark.parametrize("derivative", ["detached", "exact"])
@pytest.mark.parametrize("cells", PAIRS)
def test_the_derivatives_of_omega_are_autograds(cells, derivative):
    torch = pytest.importorskip("torch")
    case = make_stack(cells, "square", "dense", "all", T=5, B=3, seed=20)
    p = [{name: torch.tensor(part, requires_grad=True) for name, part in q.items()} for q in case.params()]
    loss, omega = torch_omega(torch, case, p, derivative == "exact")
    parts = [part for q in p for part in q.values()]
    found = torch.autograd.grad(loss + 0.7 * omega, parts, materialize_grads=True)
    out = nf.gradient(case.net, case.theta, case.batch, flow=nf.Flow("squared", 0.7, derivative))
    assert_close(out.omega, omega.item(), case.within(100), "omega")
    assert_close(out.d_theta, torch.cat([d.ravel() for d in found]).numpy(), case.within(1000), "d_theta")


@pytest.mark.parametrize("cells", PAIRS)
def test_a_penalty_of_the_states_is_the_sum_over_layers_with_the_exact_derivative(cells):
    case = make_stack(cells, "square", "dense", "ragged", T=4, seed=18)
    flow = nf.Flow("norm_stabilizer", 0.7)
    out = nf.gradient(case.net, case.theta, case.batch, flow=flow)
    each = [nf.gradient(case.net, case.theta, case.batch, flow=dataclasses.replace(flow, alpha=a)) for a in (0.0, 1.4)]
    assert_close(each[0].d_theta, nf.gradient(case.net, case.theta, case.batch).d_theta, case.tolerance, "alpha 0")
    # It is linear in alpha, and alone the slope of what it reports.
    assert_close(each[1].d_theta - out.d_theta, out.d_theta - each[0].d_theta, case.within(1000), "linear")

    def omega_at(theta):
        return nf.gradient(case.net, theta, case.batch, flow=flow).omega

    wanted = naive.central_difference(omega_at, case.theta)
    rough = differenced(1e-4, 4, 8, 30, condition=100, curvature=100)
    assert_close((out.d_theta - each[0].d_theta) / 0.7, wanted, rough, "the slope")
