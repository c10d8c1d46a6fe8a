"""Claims about updates that a policy skips: theta, the optimizer's slots and its count stay as they were."""

from __future__ import annotations

import naive
import numpy as np
import pytest
from cases import DTYPES, OPTIMIZERS
from tolerance import assert_close, same_bits, within

import nbflow as nf
from nbflow import exact_unit
from nbflow.storage import _checkpoint as checkpoint

NET = {dtype: nf.Network("tanh", 2, 4, 1, loss="square", dtype=dtype) for dtype in DTYPES}
SKIP = nf.Clip("norm", 1.0, "skip")
UPDATES, BAD = 9, (0, 3, 4, 7)  # also before any step was taken, and two in a row


def theta_of(dtype, replicas=None):
    return nf.init(NET[dtype], "smart_tanh", rng=0, replicas=replicas)


def batch_of(update, dtype, bad=False):
    """Return a batch whose gradient is not finite where it is `bad`: every entry of it."""
    rng = np.random.default_rng(update)
    inputs, targets = (rng.normal(size=(5, 3, size)).astype(dtype) for size in (2, 1))
    weights = np.full((5, 3), 1 / 15, dtype)
    if bad:
        inputs[...], targets[...], weights[...] = 1, np.finfo(dtype).max, np.finfo(dtype).max
    return nf.Batch(inputs, targets, weights)


def both(first, second):
    return nf.Batch(*(np.stack(parts) for parts in zip(first, second, strict=True)))


def train(dtype, source, optimizer, updates, path, clip=SKIP, theta=None):
    """Return a run, and what its checkpoint has of the optimizer: slots and counts."""
    recipe = nf.Recipe(optimizer=optimizer, lr=0.05, clip=clip, max_updates=updates, record_every=2)
    run = nf.train(NET[dtype], theta_of(dtype) if theta is None else theta, source, recipe, checkpoint=path)
    arrays, _ = checkpoint.read(path)
    return run, arrays["slots"], arrays["counts"].tolist()


def as_if_nothing(policy):
    """Return a clip under which gradients of `batch_of(..., bad=True)` become 0, and where to begin."""
    clip = nf.Clip("norm", 1.0, policy)
    if policy == "shrink":  # 0.02 of a w_rec of 0
        theta = theta_of("float64")
        nf.unpack(NET["float64"], theta).w_rec[...] = 0
        return clip, theta
    return clip, theta_of("float64")


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_run_with_skipped_updates_is_to_the_bit_the_run_without_them(optimizer, dtype, tmp_path):
    kept = [update for update in range(UPDATES) if update not in BAD]
    run, slots, counts = train(dtype, lambda k: batch_of(k, dtype, k in BAD), optimizer, UPDATES, tmp_path / "with.npz")
    other, others, wanted = train(
        dtype, lambda k: batch_of(kept[k], dtype), optimizer, len(kept), tmp_path / "without.npz"
    )
    assert counts == wanted == [len(kept)]
    assert same_bits(run.theta, other.theta)
    assert same_bits(slots, others)
    assert sum(run.history["nonfinite"]) == len(BAD)
    assert run.updates == UPDATES, "an update that is skipped is one of the run's"


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
@pytest.mark.parametrize("policy", ["skip", "zero", "shrink"])
def test_any_policy_that_makes_the_gradient_0_skips_the_update(optimizer, policy, tmp_path):
    """Also "zero", where every entry was bad, and "shrink", where w_rec is 0."""
    clip, theta = as_if_nothing(policy)
    seen = []

    def source(update):
        seen.append(update)
        return batch_of(update, "float64", bad=True)

    run, slots, counts = train("float64", source, optimizer, 3, tmp_path / "run.npz", clip, theta)
    assert seen == [0, 1, 2]
    assert not np.isfinite(nf.gradient(NET["float64"], theta, batch_of(0, "float64", bad=True)).d_theta).any()
    assert counts == [0]
    assert same_bits(run.theta, theta)
    assert not slots.any()


@pytest.mark.parametrize("policy", ["random", "shrink", "keep"])
def test_a_policy_that_puts_a_step_in_its_place_takes_one(policy, tmp_path):
    _, slots, counts = train(
        "float64",
        lambda k: batch_of(k, "float64", k == 1),
        "adam",
        3,
        tmp_path / "run.npz",
        nf.Clip("norm", 1.0, policy),
    )
    assert counts == [3]
    assert slots.any()


def test_a_finite_gradient_of_0_is_a_step_like_any_other(tmp_path):
    """Momentum goes on, Adam's moments decay: only a policy skips."""

    def source(update):
        batch = batch_of(update, "float64")
        return batch if update == 0 else batch._replace(weights=np.zeros((5, 3)))

    run, _, counts = train("float64", source, "momentum", 2, tmp_path / "run.npz")
    once, *_ = train("float64", source, "momentum", 1, tmp_path / "once.npz")
    assert counts == [2]
    assert not same_bits(run.theta, once.theta)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_each_replica_has_a_count_of_its_own_and_is_to_the_bit_what_it_is_alone(optimizer, tmp_path):
    bad = ((1, 2), (2, 5))
    theta = theta_of("float32", 2)

    def source(update):
        return both(*(batch_of(update + 50 * r, "float32", update in bad[r]) for r in range(2)))

    run, slots, counts = train("float32", source, optimizer, 7, tmp_path / "run.npz", theta=theta)
    assert counts == [5, 5]
    for r in range(2):
        alone, own, count = train(
            "float32", lambda k, r=r: batch_of(k + 50 * r, "float32", k in bad[r]), optimizer, 7,
            tmp_path / f"{r}.npz", theta=theta[r],
        )  # fmt: skip
        assert same_bits(run.theta[r], alone.theta)
        assert same_bits(slots[r], own[0])
        assert count == [5]


def test_an_optimizer_of_ones_own_that_moves_at_a_gradient_of_0_does_not_at_a_skipped_update(tmp_path):
    """Decay of weights, and the count that it is given."""

    @exact_unit
    def update(theta, d, slots, lr, settings, n):
        return theta - lr * (d + settings[0] * theta), (n,)

    own = nf.Optimizer(slots=("count",), update=update, settings={"decay": 0.5})
    run, slots, _ = train("float64", lambda k: batch_of(k, "float64", k > 1), own, 4, tmp_path / "run.npz")
    twice, *_ = train("float64", lambda k: batch_of(k, "float64"), own, 2, tmp_path / "twice.npz")
    assert same_bits(run.theta, twice.theta)
    assert (slots == 2).all()


def test_adams_corrections_are_those_of_the_steps_taken():
    """By the reference, which is told nothing of the skipped updates; the first step of Adam has length lr."""
    net, theta = NET["float64"], theta_of("float64")
    recipe = nf.Recipe(optimizer="adam", lr=0.05, clip=nf.Clip("norm", np.inf, "skip"), max_updates=UPDATES)
    run = nf.train(net, theta, lambda k: batch_of(k, "float64", k in BAD), recipe)
    wanted, state, n = theta.copy(), None, 0
    for update in range(UPDATES):
        if update not in BAD:
            n += 1
            d = nf.gradient(net, wanted, batch_of(update, "float64")).d_theta
            wanted, state = naive.OPTIMIZERS["adam"](wanted, d, state, 0.05, n)
    assert_close(run.theta - theta, wanted - theta, 100 * within("float64", UPDATES, 30))
    one = nf.train(net, theta, lambda k: batch_of(k, "float64", k == 0),
                   nf.Recipe(optimizer="adam", lr=0.05, clip=SKIP, max_updates=2))  # fmt: skip
    least = abs(nf.gradient(net, theta, batch_of(1, "float64")).d_theta).min()
    epsilon = 1e-8  # beside |d| in Adam's quotient
    assert_close(abs(one.theta - theta), np.full(net.size, 0.05), epsilon / least)


def test_a_run_goes_on_from_between_two_skipped_updates_to_the_same_bits(tmp_path):
    def source(update):
        return batch_of(update, "float32", update in BAD)

    whole, slots, counts = train("float32", source, "adam", UPDATES, tmp_path / "whole.npz")
    for stop in (1, 4, 5):
        path = tmp_path / f"{stop}.npz"
        train("float32", source, "adam", stop, path)
        run, resumed, count = train("float32", source, "adam", UPDATES, path)
        assert same_bits(run.theta, whole.theta)
        assert same_bits(resumed, slots)
        assert count == counts


@pytest.mark.gpu
@pytest.mark.sim
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_on_the_card_it_is_the_same(optimizer, tmp_path):
    """Of two replicas each is skipped once, one of them as it resumes."""
    net = nf.Network("tanh", 1, 2, 1, loss="square", dtype="float64")
    theta = nf.init(net, "basic_tanh", rng=0, replicas=2)
    rng = np.random.default_rng(3)
    inputs, targets = rng.normal(size=(2, 4, 2, 2, 1, 1))
    targets[1, 0], targets[2, 1] = 1e308, 1e308

    def source(update):
        return nf.Batch(inputs[update], targets[update], np.ones((2, 2, 1)))

    found = []
    for backend, updates in (("cpu", (4,)), ("cuda", (2, 4))):
        path = tmp_path / f"{backend}.npz"
        for most in updates:
            recipe = nf.Recipe(optimizer=optimizer, lr=0.1, clip=SKIP, max_updates=most)
            run = nf.train(net, theta, source, recipe, checkpoint=path, backend=backend)
        found.append((run.theta, checkpoint.read(path).arrays))
    (wanted, of_cpu), (got, of_card) = found
    assert_close(got - theta, wanted - theta, 100 * within("float64", 4, 10))
    assert of_card["counts"].tolist() == of_cpu["counts"].tolist() == [3, 3]
    assert_close(of_card["slots"], of_cpu["slots"], 100 * within("float64", 4, 10))


# ------------------------------------------------------------------------------------------------------- torch, optax


def followed(dtype, optimizer, step):
    """Train ours with bad gradients among good ones, give `step` each gradient; return where both are, by update."""
    net, theta = NET[dtype], theta_of(dtype)
    at = [theta]
    recipe = nf.Recipe(optimizer=optimizer, lr=0.05, max_updates=UPDATES, record_every=1,
                       clip=nf.Clip("norm", np.inf, "skip"))  # fmt: skip
    nf.train(net, theta, lambda k: batch_of(k, dtype, k in BAD), recipe, callbacks=[lambda run: at.append(run.theta)])
    theirs = [theta.copy()]
    for update in range(UPDATES):
        d = nf.gradient(net, at[update], batch_of(update, dtype, update in BAD)).d_theta
        assert np.isfinite(d).all() == (update not in BAD)
        theirs.append(theirs[-1] + step(theirs[-1], d))
    return np.array(at), np.array(theirs)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_skip_is_optaxs_apply_if_finite(optimizer):
    optax, jax = pytest.importorskip("optax"), pytest.importorskip("jax")
    inner = {"sgd": lambda lr: optax.sgd(lr), "momentum": lambda lr: optax.sgd(lr, momentum=0.9),
             "rmsprop": lambda lr: optax.rmsprop(lr, decay=0.99, eps=1e-8, eps_in_sqrt=False),
             "adam": lambda lr: optax.adam(lr)}[optimizer](0.05)  # fmt: skip
    guarded = optax.apply_if_finite(inner, max_consecutive_errors=10)
    state = guarded.init(jax.numpy.zeros(NET["float32"].size))

    def step(theta, d):
        nonlocal state
        moved, state = guarded.update(jax.numpy.asarray(d), state, jax.numpy.asarray(theta))
        return np.asarray(moved)

    ours, theirs = followed("float32", optimizer, step)
    assert int(state.total_notfinite) == len(BAD)
    for update in BAD:
        assert same_bits(ours[update + 1], ours[update])
        assert same_bits(theirs[update + 1], theirs[update])
    assert_close(ours[-1] - ours[0], theirs[-1] - theirs[0], within("float32", UPDATES, 30))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_skip_is_torchs_step_that_is_not_called(torch, optimizer):
    """As its GradScaler does where it finds Inf or NaN."""
    x = torch.tensor(theta_of("float64"), requires_grad=True)
    build = {
        "sgd": lambda p: torch.optim.SGD(p, lr=0.05),
        "momentum": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9),
        "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.05),
        "adam": lambda p: torch.optim.Adam(p, lr=0.05),
    }
    theirs = build[optimizer]([x])

    def step(theta, d):
        x.data[...] = torch.from_numpy(theta)
        if np.isfinite(d).all():
            x.grad = torch.from_numpy(d)
            theirs.step()
        return x.detach().numpy() - theta

    ours, others = followed("float64", optimizer, step)
    for update in BAD:
        assert same_bits(ours[update + 1], ours[update])
    assert_close(ours[-1] - ours[0], others[-1] - others[0], 100 * within("float64", UPDATES, 30))
