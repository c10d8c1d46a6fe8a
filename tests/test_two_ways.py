"""Claims about stacks of two directions: each sequence is read from both of its ends, and the gradient is of it all."""

from __future__ import annotations

import dataclasses
import pickle
from typing import NamedTuple

import naive
import numpy as np
import pytest
from cases import FLOWS, KINDS, WHENS, make_theta, make_weights
from tolerance import assert_close, differenced, error, same_bits, within

import nbflow as nf

PAIRS = [("tanh",), ("lstm", "gru")]
TORCHS = ("tanh", "relu", "lstm", "gru")


class Both(NamedTuple):
    """A stack of two directions, its parameters, a batch, and first states."""

    net: nf.Stack
    theta: np.ndarray
    batch: nf.Batch
    states: tuple[np.ndarray, ...]

    @property
    def cells(self):
        return [layer.cell for layer in self.net.layers]

    @property
    def plain(self):
        return tuple(a if a.dtype.kind in "iu" else a.astype(np.float64) for a in self.batch)

    @property
    def lengths(self):
        """Up to the last weight of each sequence."""
        return np.array([np.flatnonzero(w)[-1] + 1 if w.any() else 0 for w in self.batch.weights.T])

    def params(self, theta=None):
        """Return the parameters of every direction as the reference wants them, cut from theta by hand."""
        theta, found, at = self.theta if theta is None else theta, [], 0
        for k, layer in enumerate(self.net.layers):
            for way in (0, 1):
                outputs = self.net.n_out if way and k == len(self.net.layers) - 1 else 0
                shapes = naive.sizes(layer.cell, layer.n_in, layer.n_hidden, outputs)
                shapes = shapes | {"w_out": (2 * layer.n_hidden if outputs else layer.n_hidden, outputs)}
                parts = {}
                for name, shape in shapes.items():
                    size = int(np.prod(shape))
                    parts[name] = theta[at : at + size].reshape(shape)
                    at += size
                found.append(parts)
        assert at == theta.size
        return found

    def within(self, condition=1.0):
        T, B = self.batch.weights.shape
        return within(self.net.dtype, 2 * T * len(self.net.layers), T * B + 2 * sum(self.net.n_hidden), condition)

    def wanted(self, batch=None, lengths=None, starts=None, **how):
        """Return loss, gradient (P,), dL/dx and each sequence's records, by the reference."""
        loss, d, d_inputs, records = naive.two_way_backward(
            self.params(), self.cells, self.net.loss, self.plain if batch is None else batch,
            self.lengths if lengths is None else lengths, starts, **how,
        )  # fmt: skip
        return loss, np.concatenate([naive.pack(part) for part in d]), d_inputs, records


def make_both(
    cells, loss="square", kind="dense", when="ragged", T=5, B=4, N=2, H=(3, 4), M=2, dtype="float64", seed=0
):  # fmt: skip
    sizes, n_in, layers = H[: len(cells)], N, []
    for cell, size in zip(cells, sizes, strict=True):
        layers.append(nf.Network(cell, n_in, size, M, loss, dtype))
        n_in = 2 * size
    net = nf.Stack(layers, bidirectional=True)
    rng = np.random.default_rng([seed, T, B, N, *sizes, M])
    # Beside the w_out of a layer alone there is that of the other direction.
    parts = [make_theta(one, rng) for one in net.directions]
    outputs = [rng.normal(size=2 * sizes[-1] * M) / np.sqrt(2 * sizes[-1]), 0.3 * rng.normal(size=M)]
    theta = np.concatenate([*parts, *outputs]).astype(dtype)
    inputs = rng.normal(size=(T, B, N)).astype(dtype) if kind == "dense" else rng.integers(0, N, (T, B))
    targets = rng.integers(0, M, (T, B)) if loss == "softmax" else rng.normal(size=(T, B, M)).astype(dtype)
    weights = make_weights(rng, when, T, B).astype(dtype)
    states = tuple(
        rng.uniform(-0.5, 0.5, (B, naive.CELLS[one.cell].states, one.n_hidden)).astype(dtype) for one in net.directions
    )
    return Both(net, theta, nf.Batch(inputs, targets, weights), states)


def only(case, sequences):
    """Return the batch of a case with the weights of some sequences alone, as the reference wants it."""
    own = np.zeros_like(case.plain[2])
    own[:, sequences] = case.plain[2][:, sequences]
    return (*case.plain[:2], own)


# ------------------------------------------------------------------------- the reference, and gradients


@pytest.mark.parametrize("cells", PAIRS)
def test_the_reference_agrees_with_complex_steps_in_both_directions(cells):
    case = make_both(cells, "softmax", T=4, seed=1)

    def loss_at(theta):
        return naive.two_way_loss(case.params(theta), case.cells, "softmax", case.plain, case.lengths, case.states)

    loss, d, _, _ = case.wanted(starts=case.states)
    assert_close(loss, loss_at(case.theta), case.within(), "the loss")
    assert_close(d, naive.complex_step(loss_at, case.theta), case.within(), "the reference")


@pytest.mark.sim
@pytest.mark.parametrize("when", WHENS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cells", PAIRS)
def test_a_gradient_is_the_references_within_each_sequences_own_length(cells, kind, when):
    case = make_both(cells, "softmax", kind, when, seed=2)
    for starts in (None, case.states):
        loss, d, d_inputs, records = case.wanted(starts=starts)
        wrt = ("inputs", "state") if kind == "dense" else "state"
        out = nf.gradient(case.net, case.theta, case.batch, state=starts, wrt=wrt)
        assert_close(out.loss, loss, case.within(), "the loss")
        assert_close(out.d_theta, d, case.within(), "d_theta")
        if kind == "dense":
            assert_close(out.d_inputs, d_inputs, case.within(), "d_inputs")
        for k, found in enumerate(out.d_state):
            wanted = [flows[k].delta[0, 0] if flows else np.zeros(found.shape[1:]) for flows in records]
            assert_close(found, np.array(wanted), case.within(), "d_state")
        if starts is not None:
            for k, found in enumerate(out.state):
                wanted = [flows[k].states[-1, 0] if flows else starts[k][b] for b, flows in enumerate(records)]
                assert_close(found, np.array(wanted), case.within(), "the states at the ends")


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_layers_of_other_sizes_and_shards_hand_on_what_they_should(dtype):
    case = make_both(("tanh", "lstm"), "square", "dense", "ragged", 9, 33, 3, (5, 17), 2, dtype, seed=3)
    _, d, _, _ = case.wanted()
    assert_close(nf.gradient(case.net, case.theta, case.batch).d_theta, d, case.within(), "d_theta")


def test_lengths_say_where_a_sequence_is_turned_if_its_loss_ends_before():
    case = make_both(("lstm", "gru"), T=7, B=5, seed=4)
    lengths = np.maximum(case.lengths, [7, 0, 5, 6, 7])
    loss, d, d_inputs, records = case.wanted(lengths=lengths)
    out = nf.gradient(case.net, case.theta, case.batch, lengths=lengths, wrt="inputs")
    assert_close(out.loss, loss, case.within(), "the loss")
    assert_close(out.d_theta, d, case.within(), "d_theta")
    assert_close(out.d_inputs, d_inputs, case.within(), "d_inputs")
    assert error(d, case.wanted()[1]) > case.within(), "a reverse direction reads what comes after the last weight"
    for k, found in enumerate(out.state):
        wanted = [flows[k].states[-1, 0] if flows else np.zeros(found.shape[1:]) for flows in records]
        assert_close(found, np.array(wanted), case.within(), "the states at the ends")
    with pytest.raises(ValueError, match="weights count steps after the lengths"):
        nf.gradient(case.net, case.theta, case.batch, lengths=np.minimum(lengths, 2))


def test_replicas_have_the_bits_of_each_alone_and_a_workspace_those_without():
    cases = [make_both(("gru", "tanh"), "softmax", "tokens", T=9, B=9, seed=s) for s in (5, 6)]
    net, theta = cases[0].net, np.stack([case.theta for case in cases])
    batch = nf.Batch(*(np.stack(parts) for parts in zip(*(case.batch for case in cases), strict=True)))
    space = nf.workspace(net, batch)
    nf.predict(net, theta, batch.inputs, workspace=space)
    out = nf.gradient(net, theta, batch, workspace=space)
    short = nf.Batch(*(part[:, :4] for part in batch))
    less = nf.gradient(net, theta, short, workspace=space)
    for r, case in enumerate(cases):
        assert same_bits(out.d_theta[r], nf.gradient(net, case.theta, case.batch).d_theta)
        alone = nf.gradient(net, case.theta, nf.Batch(*(part[:4] for part in case.batch)))
        assert same_bits(less.d_theta[r], alone.d_theta)


# ------------------------------------------------------------------------- PyTorch's


def torch_module(torch, kind, case):
    """Return nn.RNN, nn.LSTM or nn.GRU of two directions and an nn.Linear with the weights of a case."""
    bottom = case.net.layers[0]
    how = {"nonlinearity": "relu"} if kind == "relu" else {}
    name = {"tanh": "RNN", "relu": "RNN", "lstm": "LSTM", "gru": "GRU"}[kind]
    module = getattr(torch.nn, name)(
        bottom.n_in, bottom.n_hidden, num_layers=len(case.net.layers), bidirectional=True, **how
    ).double()
    linear = torch.nn.Linear(2 * bottom.n_hidden, case.net.n_out).double()
    weights = {key: torch.from_numpy(value) for key, value in nf.to_torch(case.net, case.theta).items()}
    linear.load_state_dict({key: weights.pop(key) for key in ("weight", "bias")})
    assert list(weights) == list(module.state_dict())
    module.load_state_dict(weights)
    return module, linear


def ragged(case, seed):
    """Return lengths of at least 1, and the batch with weights up to there, of which the last may be 0."""
    rng = np.random.default_rng(seed)
    T, B = case.batch.weights.shape
    lengths = rng.integers(1, T + 1, B)
    lengths[0] = T
    weights = rng.uniform(0.1, 1.5, (T, B)) * (rng.random((T, B)) < 0.7) * (np.arange(T)[:, None] < lengths)
    return lengths, case.batch._replace(weights=weights)


def of_torch(torch, case, module, linear, lengths, inputs):
    """Return outputs (T, B, M) with padding of 0 before them, and the inputs that ask for a gradient."""
    x = torch.from_numpy(np.asarray(case.batch.inputs))
    if inputs == "tokens":
        x = torch.nn.functional.one_hot(x, case.net.n_in).double()
    x.requires_grad_()
    rnn = torch.nn.utils.rnn
    h, last = module(rnn.pack_padded_sequence(x, torch.from_numpy(lengths), enforce_sorted=False))
    return linear(rnn.pad_packed_sequence(h, total_length=len(x))[0]), x, last


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("kind", TORCHS)
@pytest.mark.parametrize("inputs", KINDS)
def test_a_gradient_is_that_of_torchs_module_of_two_directions(torch, kind, inputs, layers):
    case = make_both((kind,) * layers, "softmax", inputs, "all", 9, 5, 3, (5,) * layers, 4, seed=7)
    lengths, batch = ragged(case, 8)
    module, linear = torch_module(torch, kind, case)
    y, x, last = of_torch(torch, case, module, linear, lengths, inputs)
    lost = torch.nn.functional.cross_entropy(
        y.flatten(0, 1), torch.from_numpy(batch.targets).flatten(), reduction="none"
    )
    loss = (torch.from_numpy(batch.weights).flatten() * lost).sum()
    named = {**dict(module.named_parameters()), **dict(linear.named_parameters())}
    found = torch.autograd.grad(loss, [x, *named.values()])
    out = nf.gradient(case.net, case.theta, batch, lengths=lengths, wrt="inputs" if inputs == "dense" else ())
    ours = nf.to_torch(case.net, out.d_theta)
    assert_close(out.loss, loss.item(), within("float64", 18, 60), "the loss")
    for name, wanted in zip(named, found[1:], strict=True):
        if "bias_hh" not in name or kind == "gru":
            assert_close(ours[name], wanted.numpy(), within("float64", 36, 60), name)
    if inputs == "dense":
        assert_close(out.d_inputs, found[0].numpy(), within("float64", 36, 60), "d_inputs")
    outputs, states = nf.predict(case.net, case.theta, batch.inputs, lengths=lengths, return_state=True)
    assert_close(outputs, y.detach().numpy(), within("float64", 18, 60), "outputs")
    for line, wanted in enumerate(last if kind == "lstm" else [last]):
        got = np.stack([state[:, line] for state in states])
        assert_close(got, wanted.detach().numpy(), within("float64", 18, 60), "the last states")


@pytest.mark.parametrize("kind", ["tanh", "lstm", "gru"])
def test_clipped_examples_are_those_of_torchs_module_one_by_one(torch, kind):
    case = make_both((kind,) * 2, "softmax", "dense", "all", 7, 5, 3, (4, 4), 3, seed=9)
    lengths, batch = ragged(case, 10)
    module, linear = torch_module(torch, kind, case)
    y, _, _ = of_torch(torch, case, module, linear, lengths, "dense")
    lost = torch.nn.functional.cross_entropy(
        y.flatten(0, 1), torch.from_numpy(batch.targets).flatten(), reduction="none"
    ).reshape(batch.weights.shape)  # fmt: skip
    named = {**dict(module.named_parameters()), **dict(linear.named_parameters())}
    wanted = {name: part for name, part in named.items() if kind == "gru" or "bias_hh" not in name}
    gradients = np.array([
        torch.cat([d.ravel() for d in torch.autograd.grad(5 * share, wanted.values(), retain_graph=True)]).numpy()
        for share in (torch.from_numpy(batch.weights) * lost).sum(0)
    ])  # fmt: skip
    norms = np.linalg.norm(gradients, axis=1)
    threshold = float(np.median(norms[norms > 0]))
    out = nf.gradient(case.net, case.theta, batch, lengths=lengths, clip_example=threshold)
    ours = nf.to_torch(case.net, out.d_theta)
    mean = (gradients * np.minimum(1.0, threshold / np.maximum(norms, 1e-300))[:, None]).mean(axis=0)
    assert_close(np.concatenate([ours[name].ravel() for name in wanted]), mean, within("float64", 36, 60), "d_theta")
    assert_close(out.example_norms, norms, within("float64", 36, 60), "the norms")


@pytest.mark.parametrize("kind", ["tanh", "lstm", "gru"])
@pytest.mark.parametrize("replicas", [None, 2])
def test_weights_go_to_torch_and_come_back(kind, replicas):
    net = make_both((kind,) * 2, "softmax", H=(4, 4), seed=11).net
    theta = nf.init(net, "glorot", rng=0, replicas=replicas)
    weights = nf.to_torch(net, theta, rnn="rnn.", linear="head.")
    assert [key for key in weights if "weight_ih" in key] == [
        f"rnn.weight_ih_l{k}{way}" for k in (0, 1) for way in ("", "_reverse")
    ]
    assert weights["head.weight"].shape[-2:] == (2, 8)
    again, same = nf.from_torch(weights)
    assert again == net
    assert same_bits(same, theta)
    for lost in ("rnn.weight_hh_l1_reverse", "rnn.weight_ih_l0"):
        with pytest.raises(ValueError, match=lost.removeprefix("rnn.")):
            nf.from_torch({key: value for key, value in weights.items() if key != lost})
    with pytest.raises(ValueError, match=r"weight has shape .*expected .*2, 8\) beside two directions of 4 units"):
        nf.from_torch(weights | {"head.weight": weights["head.weight"][..., :4]})


def test_a_module_of_torchs_own_comes_over(torch):
    module, linear = torch.nn.GRU(3, 5, num_layers=2, bidirectional=True).double(), torch.nn.Linear(10, 2).double()
    net, theta = nf.from_torch({**module.state_dict(prefix="rnn."), **linear.state_dict(prefix="head.")})
    assert (net.bidirectional, net.n_in, net.n_hidden, net.n_out) == (True, 3, (5, 5), 2)
    x = np.random.default_rng(0).normal(size=(6, 4, 3))
    wanted = linear(module(torch.from_numpy(x))[0]).detach().numpy()
    assert_close(nf.predict(net, theta, x), wanted, within("float64", 12, 40), "outputs")


# ------------------------------------------------------------------------- what a stack of two directions is


def test_reversed_sequences_give_reversed_outputs_where_directions_change_places():
    case = make_both(("gru",), seed=12)
    forward, reverse = nf.unpack(case.net, case.theta)
    low, high = reverse.w_out[:3], reverse.w_out[3:]
    swapped = nf.pack(case.net, (
        reverse._replace(w_out=forward.w_out, b_out=forward.b_out),
        forward._replace(w_out=np.concatenate([high, low]), b_out=reverse.b_out),
    ))  # fmt: skip
    whole = nf.predict(case.net, case.theta, case.batch.inputs)
    assert_close(nf.predict(case.net, swapped, case.batch.inputs[::-1])[::-1], whole, case.within(), "outputs")


def test_it_names_its_parts_and_is_pickled_saved_and_told_from_one_direction(tmp_path):
    case = make_both(("lstm", "gru"), "softmax")
    net, theta = case.net, case.theta
    assert [params.w_out.shape for params in nf.unpack(net, theta)] == [(3, 0), (3, 0), (4, 0), (8, 2)]
    assert same_bits(nf.pack(net, nf.unpack(net, theta)), theta)
    assert pickle.loads(pickle.dumps(net)) == net == dataclasses.replace(net)
    layers = [nf.Network("lstm", 2, 8, 2, dtype="float64"), nf.Network("gru", 8, 4, 2, dtype="float64")]
    assert nf.Stack(layers) != net
    nf.save(tmp_path / "net.safetensors", net, theta)
    again, same = nf.load(tmp_path / "net.safetensors")
    assert again == net
    assert same_bits(same, theta)
    bad = np.zeros_like(theta)
    bad[net.firsts[1]] = np.nan
    with pytest.raises(FloatingPointError, match="1 of w_in of layer 0 reverse"):
        nf.clip(net, bad, nf.Clip("norm", 1.0, nonfinite="raise"))
    done = nf.clip(net, np.ones_like(theta), nf.Clip("layer", 0.1))
    for part in net.split(done.d_theta):
        assert_close(np.linalg.norm(part), 0.1, case.within(), "the norm of a direction")
    with pytest.raises(ValueError, match=r"layers\[1\] has n_in=8; expected 16, twice n_hidden"):
        nf.Stack(layers, bidirectional=True)
    with pytest.raises(TypeError, match="expected 4 arrays"):
        nf.predict(net, theta, case.batch.inputs, state=case.states[:2])


@pytest.mark.parametrize("cells", PAIRS)
def test_a_trace_has_a_record_of_each_direction_in_its_own_time(cells):
    case = make_both(cells, "square", seed=13)
    _, _, _, records = case.wanted(starts=case.states)
    seen = nf.trace(case.net, case.theta, case.batch, state=case.states)
    assert len(seen) == 2 * len(cells)
    for k, found in enumerate(seen):
        for b, (T, flows) in enumerate(zip(case.lengths, records, strict=True)):
            if T:
                for name, steps in (("states", T + 1), ("delta", T + 1), ("gain", T)):
                    got = getattr(found, name)[:steps, b]
                    assert_close(got, getattr(flows[k], name)[:, 0], case.within(), name)
            assert not found.delta[T + 1 :, b].any()


@pytest.mark.parametrize("by", ["norm", "value"])
@pytest.mark.parametrize("cells", PAIRS)
def test_a_clip_inside_clips_delta_of_every_direction_by_itself(cells, by):
    case = make_both(cells, T=6, seed=14)
    threshold = 0.3

    def clip(delta):
        if by == "value":
            return np.clip(delta, -threshold, threshold)
        return delta * min(1.0, threshold / np.linalg.norm(delta))

    _, d, d_inputs, _ = case.wanted(clip=clip)
    how = nf.HiddenClip(threshold, site="state", by=by)
    out = nf.gradient(case.net, case.theta, case.batch, clip_hidden=how, wrt="inputs")
    assert_close(out.d_theta, d, case.within(), "d_theta")
    assert_close(out.d_inputs, d_inputs, case.within(), "d_inputs")


@pytest.mark.sim
@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_the_norm_of_an_example_is_that_of_both_directions(kind, size):
    case = make_both(("tanh", "gru"), "softmax", kind, seed=15)
    gradients = np.array([4 / size * case.wanted(only(case, [*range(k, k + size)]))[1] for k in range(0, 4, size)])
    norms = np.linalg.norm(gradients, axis=1)
    threshold = float(np.median(norms[norms > 0]))
    how = {"clip_example": threshold} if size == 1 else {"clip_microbatch": (size, threshold)}
    out = nf.gradient(case.net, case.theta, case.batch, **how)
    wanted = (gradients * np.minimum(1.0, threshold / np.maximum(norms, 1e-300))[:, None]).mean(axis=0)
    assert_close(out.d_theta, wanted, case.within(), "d_theta")
    assert_close(out.example_norms, norms, case.within(), "the norms")


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("penalty", FLOWS)
def test_omega_is_the_sum_over_directions_and_its_immediate_derivative_the_references(penalty, reduction):
    case = make_both(("tanh", "lstm"), "square", "dense", "all", seed=16)
    _, d, _, records = case.wanted()
    omega, d_omega = 0.0, []
    for k, p in enumerate(case.params()):
        each, cell = [flows[k] for flows in records], case.cells[k // 2]
        arrays = (np.concatenate(parts, axis=1) for parts in zip(*(flow[1:8] for flow in each), strict=True))
        flow = naive.Flow(0.0, *arrays, d_params={})
        omega += naive.omega(penalty, reduction, flow)
        zeros = {name: np.zeros(block.shape) for name, block in p.items()}
        d_omega.append(naive.pack({**zeros, "w_rec": naive.omega_immediate(penalty, reduction, flow, p, cell)}))
    out = nf.gradient(case.net, case.theta, case.batch, flow=nf.Flow(penalty, 0.7, "immediate", reduction=reduction))
    assert_close(out.omega, omega, case.within(100), "omega")
    assert_close(out.d_theta, d + 0.7 * np.concatenate(d_omega), case.within(100), "d_theta")


def test_a_penalty_of_the_states_is_the_sum_over_directions_with_the_exact_derivative():
    case = make_both(("tanh", "lstm"), T=4, seed=17)
    flow = nf.Flow("norm_stabilizer", 0.7)
    plain = nf.gradient(case.net, case.theta, case.batch)
    out = nf.gradient(case.net, case.theta, case.batch, flow=flow)
    wanted = naive.central_difference(
        lambda theta: nf.gradient(case.net, theta, case.batch, flow=flow).omega, case.theta
    )  # fmt: skip
    rough = differenced(1e-4, 4, 8, 30, condition=100, curvature=100)
    assert_close((out.d_theta - plain.d_theta) / 0.7, wanted, rough, "the slope")


# ------------------------------------------------------------------------- training


def recipe(**more):
    return nf.Recipe(**{
        "lr": 0.1, "lengths": (10, 14), "batch_size": 8, "max_updates": 12, "record_every": 6, "evaluate_every": 6,
        "evaluate_size": 50, "clip": nf.Clip("norm", 0.5), **more,
    })  # fmt: skip


def task_stack(dtype="float64"):
    task = nf.load_task("temporal_order")
    layers = [nf.Network("tanh", task.n_in, 5, task.n_out, task.loss, dtype),
              nf.Network("lstm", 10, 4, task.n_out, task.loss, dtype)]  # fmt: skip
    return task, nf.Stack(layers, bidirectional=True)


@pytest.mark.parametrize("how", [{}, {"clip_example": 0.3}])
def test_training_is_gradient_clip_and_step_of_both_directions(how):
    task, net = task_stack()
    theta = nf.init(net, "glorot", rng=0, replicas=2)
    run = nf.train(net, theta, task, recipe(lengths=10, **how))
    for r in range(2):
        by_hand = theta[r]
        for update in range(12):
            drawn = task.sample(seed=0, index=update, batch_size=8, length=10, dtype="float64", replicas=2)
            out = nf.gradient(net, by_hand, nf.Batch(*(part[r] for part in drawn)), **how)
            by_hand = by_hand - 0.1 * nf.clip(net, out.d_theta, nf.Clip("norm", 0.5)).d_theta
        assert_close(run.theta[r], by_hand, within("float64", 240, 20), "theta")
        assert same_bits(nf.train(net, theta[r], task, recipe(lengths=10, **how), replica_ids=[r]).theta, run.theta[r])
    assert 0 <= nf.evaluate(net, run.theta[0], task, length=10, size=50) <= 1


def test_a_training_goes_on_to_the_same_bits_and_holds_what_it_should(tmp_path):
    task, net = task_stack("float32")
    theta, path = nf.init(net, "glorot", rng=0), tmp_path / "run.npz"
    held = recipe(optimizer="adam", trainable=[{"w_rec": False}, {}, {}, {"w_out": False}], clip_example=0.3)
    whole = nf.train(net, theta, task, held)
    nf.train(net, theta, task, dataclasses.replace(held, max_updates=6), checkpoint=path)
    assert same_bits(nf.train(net, theta, task, held, checkpoint=path).theta, whole.theta)
    before, after = nf.unpack(net, theta), nf.unpack(net, whole.theta)
    assert same_bits(before[0].w_rec, after[0].w_rec)
    assert same_bits(before[3].w_out, after[3].w_out)
    assert (before[1].w_rec != after[1].w_rec).all()


# ------------------------------------------------------------------------- what it has not


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"flow": nf.Flow("norm", 0.1, "exact")}, "derivative is 'exact'; expected 'immediate' for a Stack of two"),
        ({"flow": nf.Flow("norm", 0.1, "detached")}, "derivative is 'detached'"),
        ({"h_detach": nf.HDetach(0.5)}, "h_detach is given; expected None for a Stack of two directions"),
        ({"flow": nf.Flow("orthogonality", 0.1)}, "orthogonality"),
        ({"backend": "cuda"}, "net is a Stack; .*'cuda'"),
    ],
)
def test_what_it_has_not_is_refused_by_name(how, said):
    case = make_both(("lstm", "lstm"))
    with pytest.raises(NotImplementedError, match=said):
        nf.gradient(case.net, case.theta, case.batch, **how)


def test_no_state_is_carried_and_what_looks_at_one_network_says_so(tmp_path):
    case = make_both(("lstm",))
    with pytest.raises(TypeError, match="net is a Stack of two directions; expected a Network"):
        nf.diagnose(case.net, case.theta, case.batch)
    (tmp_path / "book.txt").write_text("to be or not to be, that is the question. " * 60)
    task = nf.data.read_text(tmp_path / "book.txt").task()
    net = nf.Stack([nf.Network("gru", task.n_in, 4, task.n_out)], bidirectional=True)
    for call in (
        lambda: nf.evaluate(net, nf.init(net, "glorot", rng=0), task),
        lambda: nf.train(net, nf.init(net, "glorot", rng=0), task, nf.Recipe(lengths=10, carry=True, evaluate_every=0)),
    ):
        with pytest.raises(NotImplementedError, match="one direction where the state is carried"):
            call()
