"""Claims about the norms of gradients that are not clipped."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from tolerance import near, same_bits, within

import nbflow as nf

TASK = nf.load_task("temporal_order")
NET = nf.Network("tanh", TASK.n_in, 8, TASK.n_out, dtype="float64")
RECIPE = nf.Recipe(lr=0.3, batch_size=3, lengths=10, clip=nf.Clip("norm", 1e-3))


def theta_of(replicas=None):
    return nf.init(NET, "smart_tanh", rng=0, replicas=replicas)


def norms_by_hand(theta, updates, lr=0.3, seed=0):
    found = []
    for k in range(updates):
        batch = TASK.sample(seed=seed, index=k, batch_size=3, length=10, dtype="float64")
        d_theta = nf.gradient(NET, theta, batch).d_theta
        found.append(np.linalg.norm(d_theta))
        theta = theta - lr * d_theta
    return np.array(found)


@pytest.mark.sim
def test_the_norms_are_those_of_a_training_that_is_not_clipped():
    seen = nf.calibrate_threshold(NET, theta_of(), TASK, RECIPE, updates=8, seed=4)
    wanted = norms_by_hand(theta_of(), 8, seed=4)
    np.testing.assert_allclose(seen.norms, wanted, rtol=within("float64", 20, 500))
    assert seen.mean == near(wanted.mean())
    assert seen.median == near(np.median(wanted))
    assert seen.quantiles == near(np.quantile(wanted, seen.levels))
    assert (seen.low, seen.high) == (seen.mean / 2, 10 * seen.mean)
    assert seen.nonfinite == 0


def test_each_replica_is_calibrated_as_it_would_be_alone():
    theta = theta_of(2)
    both = nf.calibrate_threshold(NET, theta, TASK, RECIPE, updates=15)
    alone = nf.calibrate_threshold(NET, theta[0], TASK, RECIPE, updates=15)
    assert both.norms.shape == (15, 2)
    assert both.quantiles.shape == (len(both.levels), 2)
    for name in ("norms", "mean", "median", "quantiles", "nonfinite", "low", "high"):
        assert same_bits(np.asarray(getattr(both, name))[..., 0], np.asarray(getattr(alone, name))), name


def spoilt(update):
    """Return a batch whose gradient is not finite from update 7 on."""
    rng = np.random.default_rng(update)
    targets = np.full((4, 2, 1), 3e300 if update >= 7 else 1.0)
    return nf.Batch(rng.normal(size=(4, 2, 2)), targets, np.full((4, 2), 1e10 if update >= 7 else 0.1))


def test_gradients_that_are_not_finite_are_counted_and_not_averaged():
    net = nf.Network("tanh", 2, 3, 1, loss="square", dtype="float64")
    theta = nf.init(net, "orthogonal", rng=0)
    before = theta.copy()
    how = dataclasses.replace(RECIPE, lr=0.01)
    seen, calm = (nf.calibrate_threshold(net, theta, spoilt, how, updates=n) for n in (12, 7))
    assert (seen.nonfinite, calm.nonfinite) == (5, 0)
    assert np.isnan(seen.norms[7:]).all()
    assert (seen.mean, seen.median, seen.high) == (calm.mean, calm.median, calm.high)
    assert same_bits(seen.quantiles, calm.quantiles)
    assert same_bits(theta, before)


def test_without_a_finite_gradient_there_is_no_mean():
    seen = nf.calibrate_threshold(NET, np.full_like(theta_of(), math.nan), TASK, RECIPE, updates=3)
    assert seen.nonfinite == 3
    assert all(math.isnan(value) for value in (seen.mean, seen.median, seen.low, seen.high, *seen.quantiles))


@pytest.mark.sim
@pytest.mark.parametrize("updates", [0, -1, 1.5, None, True])
def test_a_number_of_updates_that_is_none_is_refused(updates):
    with pytest.raises((TypeError, ValueError), match="updates is"):
        nf.calibrate_threshold(NET, theta_of(), TASK, RECIPE, updates=updates)


@pytest.mark.sim
def test_ctrl_c_gives_no_calibration_of_fewer_updates():
    def source(update):
        if update == 2:
            raise KeyboardInterrupt
        return TASK.sample(seed=0, index=update, batch_size=3, length=10, dtype="float64")

    with pytest.raises(KeyboardInterrupt):
        nf.calibrate_threshold(NET, theta_of(), source, RECIPE, updates=4)
