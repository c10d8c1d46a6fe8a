"""Claims about callbacks: what they may keep, what they cannot write, and which rows they see again."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from tolerance import same_bits

import nbflow as nf

NET = nf.Network("tanh", 6, 3, 4)
THETA = nf.init(NET, "smart_tanh", rng=0)
HOW = nf.Recipe(lr=0.1, lengths=10, batch_size=2, max_updates=4, record_every=1, evaluate_every=0)
BACKENDS = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.mark.sim
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("replicas", [None, 2])
def test_what_a_callback_keeps_stays_what_it_was(backend, replicas):
    theta, kept = nf.init(NET, "smart_tanh", rng=0, replicas=replicas), []
    shape, how = [] if replicas is None else [replicas], dataclasses.replace(HOW, max_updates=3)
    keep = [lambda run: kept.append(run.theta)]

    def two_steps(update):
        inputs = np.random.default_rng(update).normal(size=(*shape, 2, 2, 6)).astype("f4")
        return nf.Batch(inputs, np.ones((*shape, 2, 2), "i4"), np.ones((*shape, 2, 2), "f4"))

    whole = nf.train(NET, theta, two_steps, how, callbacks=keep, backend=backend)
    assert [one.shape for one in kept] == [theta.shape] * 3
    for updates, one in enumerate(kept[:2], 1):
        short = dataclasses.replace(how, max_updates=updates)
        assert same_bits(one, nf.train(NET, theta, two_steps, short, backend=backend).theta)
    assert same_bits(kept[2], whole.theta)


@pytest.mark.sim
@pytest.mark.parametrize("backend", BACKENDS)
def test_writing_theta_is_refused_and_changes_nothing(backend):
    def project(run):
        run.theta[...] = 0

    with pytest.raises(ValueError, match="read-only") as caught:
        nf.train(NET, THETA, "temporal_order", HOW, callbacks=[project], backend=backend)
    assert caught.value.run.updates == 1
    assert np.abs(caught.value.run.theta).max() > 0


PROGRAM = """
import os, sys
import nbflow as nf

def look(run):
    print(run.updates, run.shown, flush=True)
    if run.updates == int(sys.argv[1]):
        os._exit(1)

net = nf.Network("tanh", 6, 3, 4)
how = nf.Recipe(lr=0.1, lengths=10, batch_size=2, max_updates=10, record_every=2, evaluate_every=0)
nf.train(net, nf.init(net, "smart_tanh", rng=0), "temporal_order", how, callbacks=[look], checkpoint="run.npz")
"""


def test_a_run_that_goes_on_says_which_rows_come_again(tmp_path):
    """Killed in the row of update 6, when the only checkpoint was that of update 0."""

    def rows(die_at):
        command = [sys.executable, "-c", PROGRAM, str(die_at)]
        found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        return [tuple(map(int, line.split())) for line in found.stdout.splitlines()]

    assert rows(6) == [(2, 0), (4, 0), (6, 0)]
    assert rows(-1) == [(2, 4), (4, 4), (6, 4), (8, 4), (10, 4)]
    assert nf.load_run(tmp_path / "run.npz").shown == 0
    assert rows(-1) == []
    for path in tmp_path.glob("run.npz*"):
        if not path.name.endswith(".shown"):
            path.unlink()
    assert rows(2) == [(2, 0)], "a new run has shown nothing"
