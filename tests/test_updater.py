"""Claims about updates one at a time: they are those of `nf.train`, whoever holds the loop."""

import dataclasses

import numpy as np
import pytest

import nbflow as nf

NET = nf.Network("tanh", n_in=6, n_hidden=3, n_out=4)
RECIPE = nf.Recipe("adam", lr=lambda k: 0.01 / (1 + k), batch_size=2, lengths=(10, 12), clip=nf.Clip("norm", 0.5),
                   flow=nf.Flow("squared", 1.0), max_updates=7, record_every=3, evaluate_every=0)  # fmt: skip


def thetas(replicas=None):
    return nf.init(NET, "smart_tanh", rng=0, replicas=replicas)


def batch_of(update, size=2):
    return nf.load_task("temporal_order").sample(seed=3, index=update, batch_size=size, length=10 + update)


SMALL = dataclasses.replace(RECIPE, optimizer="sgd", flow=None, batch_size=1, lengths=10, max_updates=2, record_every=2)


@pytest.mark.sim
@pytest.mark.parametrize(
    ("backend", "replicas", "recipe"),
    [("cpu", None, RECIPE), ("cpu", 2, RECIPE), pytest.param("cuda", None, SMALL, marks=pytest.mark.gpu)],
)
def test_updates_of_a_task_are_those_of_train(backend, replicas, recipe):
    run = nf.train(NET, thetas(replicas), "temporal_order", recipe, seed=5, backend=backend)
    update = nf.updater(NET, thetas(replicas), "temporal_order", recipe, seed=5, backend=backend)
    for _ in range(recipe.max_updates):
        update()
    assert np.array_equal(update.theta, run.theta)
    assert update.updates == recipe.max_updates
    rows = recipe.max_updates // recipe.record_every  # `nf.train` makes one of what is left at the end
    for name in set(run.history) - {"seconds"}:
        assert update.history[name] == run.history[name][:rows]


def test_updates_of_given_batches_are_those_of_train():
    run = nf.train(NET, thetas(), batch_of, RECIPE)
    update = nf.updater(NET, thetas(), None, RECIPE)
    for k in range(7):
        update(batch_of(k))
    assert np.array_equal(update.theta, run.theta)


@pytest.mark.sim
def test_the_last_update_is_told():
    plain = nf.Recipe(lr=0.0, clip=nf.Clip("norm", 1e-3), record_every=2)
    update = nf.updater(NET, thetas(), None, plain)
    assert np.isnan([update.loss, update.omega, update.norm, update.clipped_norm]).all()
    for k in range(3):
        batch = batch_of(k)
        update(batch)
        found = nf.gradient(NET, thetas(), batch)
        clipped = nf.clip(NET, found.d_theta, nf.Clip("norm", 1e-3))
        assert (update.loss, update.omega) == (found.loss, 0.0)
        assert (update.norm, update.clipped_norm) == (clipped.norm, clipped.clipped_norm)


def test_theta_is_seen_and_may_be_replaced_but_not_written():
    update = nf.updater(NET, thetas(), "temporal_order", RECIPE)
    update()
    with pytest.raises(ValueError, match="read-only"):
        update.theta[0] = 1.0
    mine = thetas() / 2
    update.theta = mine
    assert np.array_equal(update.theta, mine)
    assert update.theta is not mine
    with pytest.raises(ValueError, match="theta has shape"):
        update.theta = thetas(2)
    with pytest.raises(TypeError, match="theta"):
        update.theta = "none"


def test_what_is_wrong_is_refused_and_changes_nothing():
    with pytest.raises(TypeError, match="a function; expected a task"):
        nf.updater(NET, thetas(), batch_of, RECIPE)
    with pytest.raises(ValueError, match="follows evaluations"):
        nf.updater(NET, thetas(), None, dataclasses.replace(RECIPE, lr=nf.HalvingRate(0.1)))
    update = nf.updater(NET, thetas(), None, RECIPE)
    update(batch_of(0))
    before = update.theta.copy()
    with pytest.raises(TypeError, match="Give one at every call"):
        update()
    with pytest.raises((TypeError, ValueError), match="weights"):
        update(batch_of(1)._replace(weights=np.zeros(3)))
    assert np.array_equal(update.theta, before)
    assert update.updates == 1
    with pytest.raises(TypeError, match="beside a task"):
        nf.updater(NET, thetas(), "temporal_order", RECIPE)(batch_of(0))
