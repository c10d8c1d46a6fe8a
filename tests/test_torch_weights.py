"""Claims about `from_torch` and `to_torch`: PyTorch's own modules are the reference where it is installed."""

from __future__ import annotations

import functools
import itertools
import re

import numpy as np
import pytest
from tolerance import assert_close, same_bits, within

import nbflow as nf

SIZES = ((3, 5, 2), (1, 1, 1), (4, 17, 3))  # (N, H, M)
CELLS = {"tanh": 1, "relu": 1, "lstm": 4, "gru": 3}  # and their numbers of gates
ONE_BIAS = [cell for cell in CELLS if cell != "gru"]


def make_weights(cell, n=3, h=5, m=2, dtype="float64", rnn="", linear="", seed=0):
    """Return random weights as PyTorch would name them."""
    rng, rows = np.random.default_rng([seed, n, h, m]), CELLS[cell] * h
    shapes = {f"{rnn}weight_ih_l0": (rows, n), f"{rnn}weight_hh_l0": (rows, h), f"{rnn}bias_ih_l0": (rows,),
              f"{rnn}bias_hh_l0": (rows,), f"{linear}weight": (m, h), f"{linear}bias": (m,)}  # fmt: skip
    return {name: (0.5 * rng.normal(size=shape)).astype(dtype) for name, shape in shapes.items()}


def from_weights(cell, weights, **choices):
    return nf.from_torch(weights, cell="relu" if cell == "relu" else None, **choices)


class Model:
    """PyTorch's own modules, a recurrent one and a linear one, with the given weights."""

    def __init__(self, torch, cell, weights, dtype):
        rows, n = weights["weight_ih_l0"].shape
        m, h = weights["weight"].shape
        kind = {"tanh": torch.nn.RNN, "relu": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[cell]
        self.rnn = kind(n, h, **({"nonlinearity": "relu"} if cell == "relu" else {}))
        self.linear = torch.nn.Linear(h, m)
        for module in (self.rnn, self.linear):
            module.to(getattr(torch, dtype))
            module.load_state_dict({k: torch.from_numpy(weights[k]) for k in module.state_dict()})

    def state_dict(self):
        return {**self.rnn.state_dict(), **self.linear.state_dict()}

    def grads(self):
        named = itertools.chain(self.rnn.named_parameters(), self.linear.named_parameters())
        return {name: p.grad.numpy() for name, p in named}

    def __call__(self, x):
        return self.linear(self.rnn(x)[0])


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("n, h, m", SIZES)
def test_outputs_and_gradients_are_those_of_pytorch(torch, cell, dtype, n, h, m):
    T, B = 7, 9
    model = Model(torch, cell, make_weights(cell, n, h, m, dtype), dtype)
    net, theta = from_weights(cell, model.state_dict(), loss="square")
    assert (net.cell, net.n_in, net.n_hidden, net.n_out, net.dtype) == (cell, n, h, m, dtype)
    rng = np.random.default_rng(1)
    x, target = (rng.normal(size=(T, B, k)).astype(dtype) for k in (n, m))
    weights = rng.uniform(0.1, 1, (T, B)).astype(dtype)
    y = model(torch.from_numpy(x))
    tolerance = within(dtype, T, T * B + n + h)
    assert_close(nf.predict(net, theta, x), y.detach().numpy(), tolerance, "the output")

    loss = (torch.from_numpy(weights)[..., None] * (y - torch.from_numpy(target)) ** 2).sum()
    loss.backward()
    out = nf.gradient(net, theta, nf.Batch(x, target, weights))
    got, wanted = nf.to_torch(net, out.d_theta), model.grads()
    assert_close(out.loss, loss.item(), tolerance, "the loss")
    if net.cell in ONE_BIAS:  # one bias has one gradient, and so have torch's two
        assert not got.pop("bias_hh_l0").any()
        assert_close(got["bias_ih_l0"], wanted.pop("bias_hh_l0"), tolerance, "the gradient at bias_hh_l0")
    assert list(got) == list(wanted)
    for name, gradient in wanted.items():
        assert_close(got[name], gradient, tolerance, f"the gradient at {name}")


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("n, h, m", SIZES)
def test_modules_load_what_to_torch_returns_and_say_the_same(torch, cell, n, h, m):
    net = nf.Network(cell, n, h, m, loss="square", dtype="float64")
    theta = nf.init(net, "glorot", rng=0)
    rng = np.random.default_rng(2)
    theta += 0.1 * rng.normal(size=theta.size)
    x = rng.normal(size=(6, 4, n))
    weights = nf.to_torch(net, theta)
    y = Model(torch, cell, weights, "float64")(torch.from_numpy(x)).detach().numpy()
    assert_close(nf.predict(net, theta, x), y, within("float64", 6, n + h))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("replicas", [None, 3])
def test_there_and_back_from_theta_has_the_same_bits(cell, dtype, replicas):
    net = nf.Network(cell, 3, 5, 2, loss="bernoulli", dtype=dtype)
    theta = nf.init(net, "smart_tanh", rng=0, replicas=replicas)
    theta[..., ::3] = -0.0
    theta[..., 1::7] = np.finfo(dtype).smallest_subnormal
    before = theta.copy()
    again, found = from_weights(cell, nf.to_torch(net, theta, rnn="a.b.rnn.", linear="head."), loss="bernoulli")
    assert again == net
    assert same_bits(found, theta)
    assert same_bits(theta, before)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_there_and_back_from_pytorch_has_the_same_bits_but_for_two_biases_that_are_one(cell, dtype):
    weights = make_weights(cell, dtype=dtype, rnn="rnn.", linear="linear.")
    before = {name: array.copy() for name, array in weights.items()}
    again = nf.to_torch(*from_weights(cell, weights), rnn="rnn.", linear="linear.")
    if cell in ONE_BIAS:
        weights["rnn.bias_ih_l0"] = weights["rnn.bias_ih_l0"] + weights["rnn.bias_hh_l0"]
        weights["rnn.bias_hh_l0"] = np.zeros_like(weights["rnn.bias_hh_l0"])
    assert list(again) == list(weights)
    for name, array in weights.items():
        assert same_bits(again[name], array), name
        assert again[name].flags.c_contiguous
        assert again[name].flags.owndata
    third = nf.to_torch(*from_weights(cell, again))
    assert all(same_bits(a, b) for a, b in zip(third.values(), again.values(), strict=True))
    for name, array in make_weights(cell, dtype=dtype, rnn="rnn.", linear="linear.").items():
        assert same_bits(before[name], array)


@pytest.mark.parametrize("cell", CELLS)
def test_every_weight_finds_its_place_by_hand(cell):
    """Row g * H + j of torch's matrices is gate g of unit j."""
    n, h = 3, 5
    weights = make_weights(cell, n, h)
    net, theta = from_weights(cell, weights)
    p = nf.unpack(net, theta)
    for g, j in itertools.product(range(CELLS[cell]), range(h)):
        row = g * h + j
        assert all(p.w_in[i, g, j] == weights["weight_ih_l0"][row, i] for i in range(n))
        assert all(p.w_rec[k, g, j] == weights["weight_hh_l0"][row, k] for k in range(h))
        ih, hh = weights["bias_ih_l0"][row], weights["bias_hh_l0"][row]
        assert p.bias[g, j] == (ih if cell == "gru" else ih + hh)
        assert cell != "gru" or p.bias_rec[g, j] == hh
    assert np.array_equal(p.w_out, weights["weight"].T)
    assert np.array_equal(p.b_out, weights["bias"])


@pytest.mark.parametrize("cell", CELLS)
def test_missing_biases_are_0(cell):
    weights = make_weights(cell)
    bare = {name: array for name, array in weights.items() if "bias" not in name}
    zeros = {name: np.zeros_like(array) if "bias" in name else array for name, array in weights.items()}
    assert same_bits(from_weights(cell, bare)[1], from_weights(cell, zeros)[1])


@pytest.mark.parametrize("cell", CELLS)
def test_replicas_are_each_what_they_are_alone(cell):
    alone = [make_weights(cell, seed=r) for r in range(3)]
    stacked = {name: np.stack([weights[name] for weights in alone]) for name in alone[0]}
    net, theta = from_weights(cell, stacked)
    assert theta.shape == (3, net.size)
    back = nf.to_torch(net, theta)
    for r, weights in enumerate(alone):
        one = from_weights(cell, weights)
        assert one[0] == net
        assert same_bits(theta[r], one[1])
        assert all(same_bits(back[name][r], array) for name, array in nf.to_torch(*one).items())


def test_a_cell_given_as_an_object_is_the_one_of_its_name():
    net = nf.Network(nf.Network("gru", 3, 5, 2).cell_object, 3, 5, 2)
    assert nf.to_torch(net, nf.init(net, "glorot", rng=0))["weight_hh_l0"].shape == (15, 5)


def drop(weights, name):
    return {key: array for key, array in weights.items() if key != name}


BAD = {
    "half a direction": (lambda w: w | {"weight_ih_l0_reverse": w["weight_ih_l0"]}, "no 'weight_hh_l0_reverse'"),
    "half a layer": (lambda w: w | {"weight_ih_l1": w["weight_ih_l0"]}, "no 'weight_hh_l1'"),
    "a projection": (lambda w: w | {"rnn.weight_hr_l0": w["weight"]}, "proj_size=0"),
    "something else": (lambda w: w | {"norm.running_mean": w["bias"]}, "'norm.running_mean'.*Leave it out"),
    "two linear layers": (lambda w: w | {"other.weight": w["weight"]}, "'weight' and 'other.weight'.*one of them"),
    "no recurrent weights": (lambda w: drop(w, "weight_hh_l0"), "no 'weight_hh_l0'.*It has: weight_ih_l0"),
    "no linear layer": (lambda w: drop(drop(w, "weight"), "bias"), "no 'weight'"),
    "nothing": (lambda w: {}, "It has: nothing"),
    "another size": (lambda w: w | {"weight_ih_l0": w["weight_ih_l0"][:-1]}, r"weight_ih_l0 has shape \(19, 3\)"),
    "a bias too short": (lambda w: w | {"bias_hh_l0": w["bias_hh_l0"][:-1]}, r"expected \(20,\)"),
    "a linear layer of another width": (lambda w: w | {"weight": w["weight"][:, :-1]}, r"weight has shape \(2, 4\)"),
    "five gates": (lambda w: {n: np.concatenate([a, a[:5]]) if "_l0" in n else a for n, a in w.items()}, "5 times"),
    "no square": (lambda w: w | {"weight_hh_l0": w["weight_hh_l0"][:-1]}, r"expected \(G \* H, H\)"),
    "no matrix": (lambda w: w | {"weight_hh_l0": w["bias"]}, r"expected \(G \* H, H\)"),
    "two cells": (lambda w: {f"{k}.weight_ih": w["weight_ih_l0"] for k in "ab"}, "'a.weight_ih' and 'b.weight_ih'"),
    "a quantized one": (lambda w: w | {"rnn._all_weight_values.0.param": w["bias"]}, "before it was quantized"),
    "an empty one": (lambda w: w | {"weight_hh_l0": w["weight_hh_l0"][:0]}, r"expected \(G \* H, H\)"),
    "numbers": (lambda w: w | {"weight_ih_l0": np.float64(1.0)}, "weight_ih_l0 has shape"),
}


def parametrized(torch, how):
    """Return a module with parts in place of a weight, and the remedy that is right for it."""
    utils, module = torch.nn.utils, torch.nn.GRU(3, 5)
    made = {
        "orthogonal": (utils.parametrizations.orthogonal, "parametrize.remove_parametrizations"),
        "weight norm": (utils.parametrizations.weight_norm, "parametrize.remove_parametrizations"),
        "spectral norm": (utils.parametrizations.spectral_norm, "parametrize.remove_parametrizations"),
        "old weight norm": (utils.weight_norm, "remove_weight_norm"),
        "old spectral norm": (utils.spectral_norm, "remove_spectral_norm"),
        "pruned": (lambda m, name: utils.prune.l1_unstructured(m, name, 3), "prune.remove"),
    }
    make, remedy = made[how]
    make(module, "weight_hh_l0")
    return module, remedy


@pytest.mark.filterwarnings("ignore")  # that the old ways are old
@pytest.mark.parametrize(
    "how", ["orthogonal", "weight norm", "spectral norm", "old weight norm", "old spectral norm", "pruned"]
)
def test_a_weight_that_is_made_of_parts_is_refused_with_the_call_that_joins_them(torch, how):
    """And after that very call it is taken."""
    import torch.nn.utils.prune

    module, remedy = parametrized(torch, how)
    linear = {f"head.{name}": p for name, p in torch.nn.Linear(5, 2).state_dict().items()}
    call = f"torch.nn.utils.{remedy}(module, 'weight_hh_l0')"
    with pytest.raises(ValueError, match=f"of which weight_hh_l0 is made; expected.*Call {re.escape(call)}"):
        nf.from_torch({**module.state_dict(prefix="rnn."), **linear})
    functools.reduce(getattr, remedy.split("."), torch.nn.utils)(module, "weight_hh_l0")
    net, _ = nf.from_torch({**module.state_dict(prefix="rnn."), **linear})
    assert net.cell == "gru"


@pytest.mark.parametrize("cell", CELLS)
def test_the_keys_of_modules_of_one_step_are_known(torch, cell):
    kinds = {"tanh": torch.nn.RNNCell, "relu": torch.nn.RNNCell, "lstm": torch.nn.LSTMCell, "gru": torch.nn.GRUCell}
    module = kinds[cell](3, 5, **({"nonlinearity": "relu"} if cell == "relu" else {}))
    linear = torch.nn.Linear(5, 2)
    net, theta = from_weights(cell, {**module.state_dict(prefix="cell."), **linear.state_dict(prefix="head.")})
    assert (net.cell, net.n_in, net.n_hidden, net.n_out) == (cell, 3, 5, 2)
    x, state, y = torch.randn(6, 4, 3), None, []
    for step in x:
        state = module(step) if state is None else module(step, state)
        y.append(linear(state[0] if cell == "lstm" else state))
    wanted = torch.stack(y).detach().numpy()
    assert_close(nf.predict(net, theta, x.numpy()), wanted, within("float32", 6, 8))


@pytest.mark.parametrize("before", ["module.", "model.", "_orig_mod.", "module.model.net."])
def test_what_wrappers_put_before_the_keys_is_no_matter(before):
    """DataParallel, Lightning, torch.compile, and several of them."""
    weights = make_weights("lstm", rnn="rnn.", linear="head.")
    wrapped = {f"{before}{name}": array for name, array in weights.items()}
    assert same_bits(nf.from_torch(wrapped)[1], nf.from_torch(weights)[1])


@pytest.mark.parametrize("path", [("state_dict",), ("model",), ("checkpoint", "model")])
def test_a_checkpoint_with_the_weights_inside_is_refused_with_what_to_write(path):
    weights = make_weights("gru", rnn="rnn.", linear="head.")
    checkpoint = functools.reduce(lambda inside, key: {"epoch": 3, "optimizer": {"state": {}}, key: inside},
                                  reversed(path), weights)  # fmt: skip
    call = "".join(f"[{key!r}]" for key in path)
    with pytest.raises(ValueError, match=rf"inside '{path[0]}'.*Write from_torch\(state_dict{re.escape(call)}\)\."):
        nf.from_torch(checkpoint)


def test_an_optimizers_state_and_a_path_are_refused_with_what_to_write():
    with pytest.raises(ValueError, match=r"'param_groups', as an optimizer's has.*Write module.state_dict\(\)"):
        nf.from_torch({"state": {}, "param_groups": []})
    with pytest.raises(TypeError, match=r"state_dict is a str; expected a dict of arrays. Write torch.load\(path"):
        nf.from_torch("model.pt")


@pytest.mark.parametrize("cell", CELLS)
def test_an_embedding_is_refused_with_the_way_to_fold_it_and_that_way_is_right(torch, cell):
    """What the message says is done, and tokens give what PyTorch's modules give."""
    embedding, model = torch.nn.Embedding(7, 3), Model(torch, cell, make_weights(cell, dtype="float32"), "float32")
    w = {**embedding.state_dict(prefix="emb."), **model.rnn.state_dict(prefix="rnn."),
         **model.linear.state_dict(prefix="head.")}  # fmt: skip
    with pytest.raises(ValueError, match=r"'emb.weight' of shape \(7, 3\), as of an nn.Embedding; expected") as caught:
        from_weights(cell, w)
    said = "w['rnn.weight_ih_l0'] = w['rnn.weight_ih_l0'] @ w.pop('emb.weight').mT"
    assert str(caught.value).endswith(f"w = module.state_dict(); {said}.")
    exec(said, {"w": w})
    net, theta = from_weights(cell, w)
    tokens = torch.randint(0, 7, (6, 4))
    wanted = model(embedding(tokens)).detach().numpy()
    assert_close(nf.predict(net, theta, tokens.numpy()), wanted, within("float32", 6, 8))


def test_tensors_without_numbers_are_refused_by_name(torch):
    weights = make_weights("gru", dtype="float32")
    with torch.device("meta"):
        nothing = torch.ones(2, 5)
    with pytest.raises(
        TypeError, match=r"state_dict\['weight'\] is on the meta device, where no numbers are; expected"
    ):
        nf.from_torch(weights | {"weight": nothing})
    with pytest.raises(TypeError, match=r"state_dict\['weight'\] is a Tensor that gives no array.*to_dense"):
        nf.from_torch(weights | {"weight": torch.ones(2, 5).to_sparse()})


def test_no_message_prints_a_page_however_many_keys_there_are():
    many = {f"layers.{k}." + "x" * 500: np.zeros(2) for k in range(1000)}
    deep = {"weight_ih_l0": np.zeros((5, 3)), "bias_ih_l0": np.zeros(5)}
    for given in (many, deep | {f"{k}.{'x' * 500}.weight": np.zeros((2, 5)) for k in range(9)}):
        with pytest.raises(ValueError, match="state_dict has") as caught:
            nf.from_torch(given)
        assert len(str(caught.value)) < 600


@pytest.mark.parametrize("what", BAD)
def test_weights_of_something_else_are_refused_with_a_remedy(what):
    change, said = BAD[what]
    with pytest.raises(ValueError, match=said):
        nf.from_torch(change(make_weights("lstm")))


def test_other_dtypes_are_refused_with_the_cast_to_write(torch):
    weights = make_weights("tanh")
    half = weights | {"weight": torch.ones(2, 5, dtype=torch.bfloat16)}
    for given, said in (
        (weights | {"weight": weights["weight"].astype(np.float16)}, "has dtype float16"),
        (weights | {"weight": [[1.0] * 5] * 2}, "has dtype list"),
        (half, "has dtype bfloat16"),
        (weights | {"weight": weights["weight"].astype(np.float32)}, "dtypes float32, float64"),
    ):
        with pytest.raises(TypeError, match=said):
            nf.from_torch(given)
    with pytest.raises(TypeError, match="state_dict is a list"):
        nf.from_torch(list(weights))


def test_cells_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"cell is 'relu'; expected one of lstm\."):
        nf.from_torch(make_weights("lstm"), cell="relu")
    net = nf.Network("sigmoid", 3, 5, 2)
    with pytest.raises(ValueError, match="cell is 'sigmoid'; expected one of tanh, relu, gru, lstm"):
        nf.to_torch(net, nf.init(net, "sigmoid", rng=0))
    net = nf.Network("tanh", 3, 5, 2)
    with pytest.raises(TypeError, match="rnn is 1"):
        nf.to_torch(net, nf.init(net, "sigmoid", rng=0), rnn=1)
    with pytest.raises(ValueError, match="theta has shape"):
        nf.to_torch(net, np.zeros(3, np.float32))
