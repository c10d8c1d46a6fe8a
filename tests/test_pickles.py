"""Records that were used travel to any process, without what they have kept, and compute there what they do here."""

import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest

import nbflow as nf
from nbflow._compile import JIT
from nbflow._identity import identity
from nbflow._load import load
from nbflow.scalars import HALF, ONE

pytestmark = pytest.mark.skipif(not JIT, reason="nothing is compiled")

RECIPE = nf.Recipe(
    lengths=10, batch_size=4, max_updates=2, evaluate_every=1, evaluate_size=4, clip=nf.Clip("norm", 0.1)
)


@nf.unit
def step(a_in, a_rec, s):
    return (HALF * s[0] + HALF * nf.scalars.tanh(a_in[0] + a_rec[0]),), ()


@nf.unit
def step_vjp(saved, s, s_next, d):
    t = s_next[0] + s_next[0] - s[0]
    e = (HALF * (ONE - t * t) * d[0],)
    return e, e, (HALF * d[0],)


LEAKY = nf.Cell(gates=("a",), states=("h",), step=step, step_vjp=step_vjp, carries=True)


@pytest.fixture(scope="module")
def spawned():
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        yield executor


def used(cell="tanh"):
    """Return a network, a task, a recipe and an experiment after a training, and the bits that it came to."""
    net, task = nf.Network(cell, 6, 5, 4), nf.load_task("temporal_order")
    theta = nf.init(net, "smart_tanh", rng=0)
    experiment = nf.Experiment("temporal_order", RECIPE, cell=cell, n_hidden=5)
    return (net, theta, task, RECIPE, experiment), trained(net, theta, task, RECIPE, experiment)


def trained(net, theta, task, recipe, experiment):
    found = nf.train(net, theta, task, recipe).theta, nf.train(net, theta, task, experiment.recipe).theta
    drawn = task.sample(seed=0, index=0, batch_size=2, length=10).inputs
    return [part.tobytes() for part in (*found, experiment.theta(3), drawn)]


@pytest.mark.parametrize("cell", ["tanh", LEAKY], ids=["tanh", "own"])
def test_what_was_used_here_computes_the_same_bits_in_another_process(spawned, cell):
    things, wanted = used(cell)
    assert spawned.submit(trained, *things).result() == wanted


@pytest.mark.parametrize("thing", [
    RECIPE, RECIPE.clip, nf.Flow("norm", 1.0), LEAKY, nf.load_threshold("zscore"),
    *(load(package, name) for package in ("cells", "losses", "clips", "flows", "optimizers", "tasks")
      for name in nf.names(package)),
], ids=lambda thing: type(thing).__name__)  # fmt: skip
def test_a_pickle_holds_a_record_and_not_what_was_made_of_it(thing):
    copy = pickle.loads(pickle.dumps(thing))
    assert type(copy) is type(thing)
    assert len(pickle.dumps(copy)) < 40_000


def units(cell):
    return identity(cell.step), identity(cell.step_vjp)


@pytest.mark.parametrize("cell", [LEAKY, load("cells", "lstm")], ids=["own", "lstm"])
def test_another_process_knows_a_units_copy_for_what_it_is_here(spawned, cell):
    # So what was compiled here is found on the disk there.
    wanted = units(cell)
    assert None not in wanted
    assert spawned.submit(units, cell).result() == wanted


def test_a_network_of_a_copied_cell_is_the_same_network():
    net = nf.Network(LEAKY, 6, 5, 4)
    theta, batch = (
        nf.init(net, "smart_tanh", rng=0),
        nf.load_task("temporal_order").sample(seed=0, index=0, batch_size=2, length=10),
    )
    copy = pickle.loads(pickle.dumps(net))
    np.testing.assert_array_equal(nf.gradient(copy, theta, batch).d_theta, nf.gradient(net, theta, batch).d_theta)
