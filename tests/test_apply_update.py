"""Claims about `nbflow.apply_update`: the optimizer's step of a training, for a loop of one's own."""

from __future__ import annotations

import naive
import numpy as np
import pytest
from cases import DTYPES, OPTIMIZERS, make_case
from tolerance import assert_close, same_bits, within

import nbflow as nf
from nbflow import scalars

UPDATES = 6
CASES = [make_case("tanh", "square", "dense", "ragged", T=4, B=3, N=2, H=3, M=2, seed=90 + k) for k in range(UPDATES)]
NET, THETA = CASES[0].net, CASES[0].theta


@nf.exact_unit
def _lion(theta, d, slots, lr, settings, n):
    """Sign of an average (Chen et al. 2023), with a rate that falls with the count."""
    average = settings[0] * slots[0] + (scalars.ONE - settings[0]) * d
    sign = average / (scalars.larger(average, -average) + settings[1])
    return theta - lr / n * sign, (average,)


LION = nf.Optimizer(slots=("average",), update=_lion, settings={"beta": 0.9, "least": 1e-12})


def gradients(dtype="float64", replicas=None, seed=0):
    lead = () if replicas is None else (replicas,)
    return np.random.default_rng(seed).normal(size=(UPDATES, *lead, NET.size)).astype(dtype)


def rate(update):
    return 0.05 / (1 + 0.1 * update)


def steps(optimizer, theta, ds, **choices):
    """Return theta after every step, and the slots after the last."""
    slots, path = None, []
    for update, d in enumerate(ds):
        theta, slots = nf.apply_update(optimizer, theta, d, rate(update), slots, **choices)
        path.append(theta)
    return path, slots


@pytest.mark.sim
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_loop_of_ones_own_is_training_to_the_bit(optimizer):
    the_loop_is_training(optimizer, THETA, CASES)


@pytest.mark.parametrize("replicas", [None, 3])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("optimizer", [*OPTIMIZERS, LION], ids=lambda one: one if isinstance(one, str) else "own")
def test_a_loop_of_ones_own_is_training_to_the_bit_in_both_dtypes_and_with_replicas(optimizer, dtype, replicas):
    task = nf.load_task("addition")
    net = nf.Network("gru", task.n_in, 5, task.n_out, task.loss, dtype)
    theta = nf.init(net, "orthogonal", rng=1, replicas=replicas)
    batches = [task.sample(seed=0, index=k, batch_size=4, length=10, replicas=replicas, dtype=dtype) for k in range(4)]
    the_loop_is_training(optimizer, theta, batches, net)


def the_loop_is_training(optimizer, theta, batches, net=NET):
    batches = [getattr(batch, "batch", batch) for batch in batches]
    clip = nf.Clip("norm", 0.05)
    recipe = nf.Recipe(optimizer=optimizer, lr=rate, clip=clip, max_updates=len(batches), record_every=1)
    path = []
    nf.train(net, theta, lambda update: batches[update], recipe, callbacks=[lambda run: path.append(run.theta)])
    slots = None
    for update, batch in enumerate(batches):
        d = nf.clip(net, nf.gradient(net, theta, batch).d_theta, clip).d_theta
        theta, slots = nf.apply_update(optimizer, theta, d, rate(update), slots)
        assert same_bits(theta, path[update]), f"update {update}"


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_six_steps_are_the_references(optimizer):
    got, _ = steps(optimizer, THETA, gradients())
    theta, state = THETA, None
    for update, d in enumerate(gradients()):
        theta, state = naive.OPTIMIZERS[optimizer](theta, d, state, rate(update), update + 1)
        assert_close(got[update] - THETA, theta - THETA, 100 * within("float64", update + 1), f"update {update}")


TORCHS = {
    "sgd": ("SGD", {}, {}),
    "momentum": ("SGD", {"momentum": 0.8}, {"momentum": 0.8}),
    "rmsprop": ("RMSprop", {"alpha": 0.9, "eps": 1e-6}, {"decay": 0.9, "epsilon": 1e-6}),
    "adam": ("Adam", {"betas": (0.8, 0.95), "eps": 1e-6}, {"beta_1": 0.8, "beta_2": 0.95, "epsilon": 1e-6}),
}


def test_every_optimizer_has_its_peer():
    assert set(TORCHS) == set(OPTAXS) == set(OPTIMIZERS)


@pytest.mark.parametrize("optimizer", TORCHS)
def test_six_steps_are_torchs(torch, optimizer):
    name, theirs, settings = TORCHS[optimizer]
    parameter = torch.tensor(THETA, dtype=torch.float64, requires_grad=True)
    peer = getattr(torch.optim, name)([parameter], lr=1.0, **theirs)
    got, _ = steps(optimizer, THETA, gradients(), settings=settings)
    for update, d in enumerate(gradients()):
        peer.param_groups[0]["lr"] = rate(update)
        parameter.grad = torch.tensor(d)
        peer.step()
        assert_close(got[update] - THETA, parameter.detach().numpy() - THETA, 100 * within("float64", update + 1))


OPTAXS = {
    "sgd": ("sgd", {}),
    "momentum": ("sgd", {"momentum": 0.9}),
    "rmsprop": ("rmsprop", {"decay": 0.99, "eps": 1e-8, "eps_in_sqrt": False}),
    "adam": ("adam", {}),
}


@pytest.mark.parametrize("optimizer", OPTAXS)
def test_six_steps_are_optaxs(optimizer):
    optax, jax = pytest.importorskip("optax"), pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)
    name, theirs = OPTAXS[optimizer]
    got, _ = steps(optimizer, THETA, gradients())
    theta, state = jax.numpy.asarray(THETA), None
    for update, d in enumerate(gradients()):
        peer = getattr(optax, name)(rate(update), **theirs)
        moves, state = peer.update(jax.numpy.asarray(d), peer.init(theta) if state is None else state, theta)
        theta = optax.apply_updates(theta, moves)
        assert_close(got[update] - THETA, np.asarray(theta) - THETA, 100 * within("float64", update + 1))


@pytest.mark.parametrize("optimizer", [*OPTIMIZERS, LION], ids=lambda one: one if isinstance(one, str) else "own")
def test_a_replica_goes_as_it_would_alone_and_rates_are_its_own(optimizer):
    theta, ds, rates = np.stack([THETA, 2 * THETA]), gradients(replicas=2), np.array([0.1, 0.02])
    slots, alone = None, [None, None]
    each = [THETA, 2 * THETA]
    for d in ds:
        theta, slots = nf.apply_update(optimizer, theta, d, rates, slots)
        for r in range(2):
            each[r], alone[r] = nf.apply_update(optimizer, each[r], d[r], rates[r], alone[r])
    for r in range(2):
        assert same_bits(theta[r], each[r])
        assert same_bits(slots.values[r], alone[r].values)
        assert slots.count[r] == alone[r].count == UPDATES


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_what_goes_in_is_not_changed_and_what_comes_out_is_new(optimizer):
    theta, d = THETA.copy(), gradients()[0]
    first, slots = nf.apply_update(optimizer, theta, d, 0.1)
    kept = slots.values.copy()
    second, after = nf.apply_update(optimizer, first, d, 0.1, slots)
    assert same_bits(theta, THETA)
    assert same_bits(d, gradients()[0])
    assert same_bits(slots.values, kept)
    assert (slots.count, after.count) == (1, 2)
    for one in (first, second, after.values):
        assert not any(np.shares_memory(one, other) for other in (theta, d, slots.values) if one is not other)
    again, _ = nf.apply_update(optimizer, first, d, 0.1, slots)
    assert same_bits(again, second)


def test_a_network_that_is_skipped_keeps_theta_slots_and_count_as_in_training():
    theta, d = np.stack([THETA, THETA]), gradients(replicas=2)[0]
    before, slots = nf.apply_update("adam", theta, d, 0.1)
    d[1] = np.nan
    clipped = nf.clip(NET, d, nf.Clip("norm", 1.0, "skip"))
    after, then = nf.apply_update("adam", before, clipped.d_theta, 0.1, slots, skip=~clipped.finite)
    assert same_bits(after[1], before[1])
    assert same_bits(then.values[1], slots.values[1])
    assert then.count.tolist() == [2, 1]
    assert not same_bits(after[0], before[0])
    alone, still = nf.apply_update("adam", THETA, d[1], 0.1, skip=True)
    assert same_bits(alone, THETA)
    assert still.count == 0


def test_a_gradient_that_is_not_finite_is_not_made_so():
    d = gradients()[0]
    d[3] = np.inf
    theta, _ = nf.apply_update("sgd", THETA, d, 0.1)
    assert np.flatnonzero(~np.isfinite(theta)).tolist() == [3]


SLOTS = nf.OptimizerSlots(np.zeros((1, NET.size)), 0)


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        ({"optimizer": "adan"}, ValueError, "adam"),
        ({"theta": list(THETA)}, TypeError, "theta is"),
        ({"theta": THETA.astype(int)}, TypeError, "float32 or float64"),
        ({"theta": THETA[None, None]}, ValueError, "theta has shape"),
        ({"theta": THETA[:0], "d_theta": THETA[:0]}, ValueError, "theta has shape"),
        ({"d_theta": THETA[:-1]}, ValueError, "d_theta has shape"),
        ({"d_theta": THETA.astype("f4")}, ValueError, "dtype float32"),
        ({"lr": -0.1}, ValueError, "lr is -0.1"),
        ({"lr": [0.1, 0.2]}, ValueError, "lr has shape"),
        ({"settings": {"momentun": 0.5}}, ValueError, "Write momentum"),
        ({"slots": np.zeros((1, NET.size))}, TypeError, "slots is"),
        ({"slots": nf.OptimizerSlots(np.zeros((2, NET.size)), 0)}, ValueError, "slots has values of shape"),
        ({"slots": SLOTS._replace(values=SLOTS.values.astype("f4"))}, ValueError, "float32"),
        ({"slots": SLOTS._replace(count=-1)}, ValueError, "count -1"),
        ({"slots": SLOTS._replace(count=np.zeros(2, int))}, ValueError, "count"),
        ({"skip": [True, False]}, TypeError, "skip is"),
        ({"skip": 1}, TypeError, "skip is 1"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(change, kind, said):
    arguments = {"optimizer": "momentum", "theta": THETA, "d_theta": THETA, "lr": 0.1, **change}
    with pytest.raises(kind, match=said):
        nf.apply_update(**arguments)


def test_an_optimizer_of_ones_own_that_is_wrong_is_refused_at_the_first_step():
    @nf.exact_unit
    def update(theta, d, slots, lr, settings, n):
        return theta - lr * d

    with pytest.raises(TypeError, match=r"Optimizer\.update"):
        nf.apply_update(nf.Optimizer(slots=(), update=update), THETA, THETA, 0.1)
