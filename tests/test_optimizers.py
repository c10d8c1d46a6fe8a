"""Claims about optimizers, as the training loop applies them: update by update, against the reference."""

from __future__ import annotations

import naive
import numpy as np
import pytest
from cases import DTYPES, OPTIMIZERS, make_case, make_replicas
from tolerance import assert_close, same_bits, within

import nbflow as nf

UPDATES = 20
CASES = [make_case("tanh", "square", "dense", "ragged", T=4, B=3, N=2, H=3, M=2, seed=40 + k) for k in range(UPDATES)]


def rate(update):
    return 0.05 / (1 + 0.1 * update)


def train(optimizer, lr, updates=UPDATES, cases=CASES, **choices):
    """Return theta after every update of a run over the batches of `cases`."""
    path, dtype = [], cases[0].net.dtype
    recipe = nf.Recipe(optimizer=optimizer, lr=lr, max_updates=updates, record_every=1, batch_size=3, **choices)
    run = nf.train(
        cases[0].net, cases[0].theta, lambda update: cases[update].batch, recipe,
        callbacks=[lambda run: path.append(run.theta.copy())],
    )  # fmt: skip
    assert run.updates == updates
    assert np.array_equal(run.theta, path[-1])
    assert run.theta.dtype == dtype
    return path


def naive_path(optimizer, lr, cases=CASES, updates=UPDATES):
    theta, state, path = cases[0].theta.astype(np.float64), None, []
    for update in range(updates):
        _, d = naive.gradient(theta, *cases[0].sizes, cases[0].net.loss, cases[update].plain)
        theta, state = naive.OPTIMIZERS[optimizer](theta, d, state, lr(update), update + 1)
        path.append(theta)
    return path


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_twenty_updates_are_the_references(optimizer):
    """Compared as the way that theta has gone, with a learning rate that changes at every update."""
    start = CASES[0].theta
    for update, (got, wanted) in enumerate(
        zip(train(optimizer, rate), naive_path(optimizer, rate), strict=True), start=1
    ):
        # rmsprop and adam divide by the root of a mean square, which may be as small as epsilon at an early update.
        assert_close(got - start, wanted - start, 100 * within("float64", update, 30), f"update {update}")
        assert np.linalg.norm(wanted - start) > 1e-3


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_twenty_updates_in_float32_are_the_references(optimizer):
    cases = [
        make_case("tanh", "square", "dense", "ragged", 4, 3, 2, 3, 2, "float32", seed=40 + k) for k in range(UPDATES)
    ]
    got, wanted = train(optimizer, rate, cases=cases)[-1], naive_path(optimizer, rate, cases)[-1]
    assert_close(got, wanted, 1e-4)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_learning_rate_is_each_replicas_own(optimizer, dtype):
    """To the bit what each of them does alone; with 0 nothing moves."""
    rates = np.array([0.0, 0.03, 0.2])
    net, theta, batch, _, cases = make_replicas("tanh", R=3, T=4, B=3, H=3, dtype=dtype)
    before = theta.copy()
    recipe = nf.Recipe(optimizer=optimizer, lr=rates, max_updates=10)
    run = nf.train(net, theta, lambda update: batch, recipe)
    assert same_bits(theta, before)
    assert np.array_equal(run.theta[0], before[0])
    for r in (1, 2):
        alone = nf.train(
            net, cases[r].theta, lambda update, r=r: cases[r].batch,
            nf.Recipe(optimizer=optimizer, lr=rates[r], max_updates=10),
        )  # fmt: skip
        assert same_bits(run.theta[r], alone.theta)
        assert not np.array_equal(alone.theta, cases[r].theta)


def test_momentum_0_is_gradient_descent():
    for one, two in zip(train("momentum", rate, settings={"momentum": 0.0}), train("sgd", rate), strict=True):
        assert np.array_equal(one, two)


def test_settings_change_what_they_name():
    """One update from rest: velocity is d whatever the momentum is, and rmsprop's step is lr / sqrt(1 - decay)."""
    start, sgd = CASES[0].theta, train("sgd", 0.1, updates=1)[0]
    assert np.array_equal(train("momentum", 0.1, updates=1, settings={"momentum": 0.5})[0], sgd)
    moved = np.abs(train("rmsprop", 0.1, updates=1, settings={"decay": 0.75, "epsilon": 1e-300})[0] - start)
    assert np.allclose(moved[sgd != start], 0.2, rtol=1e-12)
    first = np.abs(train("adam", 0.1, updates=1, settings={"epsilon": 1e-300})[0] - start)
    assert np.allclose(first[sgd != start], 0.1, rtol=1e-12)  # Kingma & Ba 2015: a first step of lr in every direction
