"""Claims about the numbers of replicas: a network is the same alone and in any company."""

from __future__ import annotations

import json

import numpy as np
import pytest
from test_data_tasks import each_task
from tolerance import same_bits

import nbflow as nf

TASK = nf.load_task("temporal_order")
NET = nf.Network("tanh", TASK.n_in, 8, TASK.n_out)
RECIPES = {
    "clip": nf.Recipe(
        lr=0.2, batch_size=3, lengths=(10, 14), max_updates=20, record_every=7, evaluate_every=5, evaluate_size=20,
        clip=nf.Clip("norm", 0.1), flow=nf.Flow("squared", 1.0),
    ),
    # Gradients that overflow, each in whose place stands a random step.
    "nonfinite": nf.Recipe(
        lr=1e6, lengths=10, max_updates=5, evaluate_every=0, batch_size=3, clip=nf.Clip("norm", 1.0)
    ),
    "random": nf.Recipe(lengths=10, max_updates=5, evaluate_every=0, batch_size=3, clip=nf.Clip("random", 1e-3)),
}  # fmt: skip


def train(ids, name):
    net = nf.Network("linear", TASK.n_in, 8, TASK.n_out) if name == "nonfinite" else NET
    theta = nf.init(net, "smart_tanh", rng=5, replicas=len(ids), replica_ids=ids)
    theta *= np.float32(1e9 if name == "nonfinite" else 1)
    return nf.train(net, theta, "temporal_order", RECIPES[name], seed=3, replica_ids=ids)


@pytest.mark.sim
def test_first_weights_go_by_number():
    everyone = nf.init(NET, "smart_tanh", rng=5, replicas=7)
    assert same_bits(nf.init(NET, "smart_tanh", rng=5, replicas=3, replica_ids=[6, 0, 2]), everyone[[6, 0, 2]])
    assert same_bits(nf.init(NET, "smart_tanh", rng=5, replica_ids=[4]), everyone[4])


@pytest.mark.parametrize("name", RECIPES)
def test_a_network_is_the_same_alone_and_in_any_company(name):
    together = train(range(4), name)
    assert sum(map(sum, together.history["nonfinite"])) == (20 if name == "nonfinite" else 0)
    assert len({row.tobytes() for row in together.theta}) == 4, "they differ"
    for ids in ([2], [3, 1], [1, 2**24 - 1, 0]):
        some = train(ids, name)
        for place, r in enumerate(ids):
            if r < 4:
                assert same_bits(some.theta[place], together.theta[r])
                assert column(some, place) == column(together, r)


def column(run, r):
    """Return what a run says of replica r."""
    columns = {**run.history, **run.evaluations, "seconds": []}
    tables = {name: [row[r] if isinstance(row, list) else row for row in rows] for name, rows in columns.items()}
    return json.dumps(tables)


@pytest.mark.sim
@pytest.mark.parametrize("ids", [3, "0", [0.5], [True], [0], [0, 1, 2], [-1, 0], [0, 2**24]])
def test_numbers_that_are_none_are_refused(ids):
    theta = nf.init(NET, "smart_tanh", rng=0, replicas=2)
    with pytest.raises((TypeError, ValueError), match=r"replica_ids is .*expected"):
        nf.train(NET, theta, TASK, RECIPES["clip"], replica_ids=ids)
    with pytest.raises((TypeError, ValueError), match=r"replica_ids is .*expected"):
        nf.init(NET, "smart_tanh", rng=0, replicas=2, replica_ids=ids)


@pytest.mark.sim
def test_first_weights_by_number_need_a_seed():
    with pytest.raises(TypeError, match=r"rng is .*expected an integer"):
        nf.init(NET, "smart_tanh", rng=np.random.default_rng(0), replica_ids=[1])


def test_a_checkpoint_of_other_replicas_is_refused(tmp_path):
    theta = nf.init(NET, "smart_tanh", rng=0, replicas=2)
    nf.train(NET, theta, TASK, RECIPES["random"], checkpoint=tmp_path / "run.npz")
    with pytest.raises(ValueError, match="replica_ids is"):
        nf.train(NET, theta, TASK, RECIPES["random"], checkpoint=tmp_path / "run.npz", replica_ids=[0, 2])


@each_task
def test_pieces_of_data_are_drawn_by_number_too(make):
    task = make()
    net = nf.Network("tanh", task.n_in, 4, task.n_out, task.loss)
    recipe = nf.Recipe(lengths=8, max_updates=4, evaluate_every=0, batch_size=3)

    def theta_after(ids):
        theta = nf.init(net, "glorot", rng=5, replicas=len(ids), replica_ids=ids)
        return nf.train(net, theta, task, recipe, replica_ids=ids).theta

    assert same_bits(theta_after([2, 1]), theta_after([0, 1, 2])[[2, 1]])


@pytest.mark.parametrize("how", [{"h_detach": nf.HDetach(0.5)}, {"noise": 0.5}], ids=lambda how: next(iter(how)))
def test_h_detach_and_noise_draw_by_number_too(how):
    net = nf.Network("lstm", TASK.n_in, 4, TASK.n_out)
    recipe = nf.Recipe(lr=1.0, lengths=10, max_updates=4, evaluate_every=0, batch_size=3, **how)

    def theta_after(ids):
        theta = nf.init(net, "glorot", rng=5, replicas=len(ids), replica_ids=ids)
        return nf.train(net, theta, TASK, recipe, replica_ids=ids).theta

    assert same_bits(theta_after([2, 1]), theta_after([0, 1, 2])[[2, 1]])
