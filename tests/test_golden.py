"""Ten updates of a small run, as numbers: losses and norms that no change of the code may move.

They were computed by the reference (`naive_run` below does it again), with every random number from the counter, and
hold to roundings, on any machine. Their last bits hold nowhere else: those depend on the target that numba compiles for
(the length of its vectors), on the releases of numba and LLVM, and for the reference on numpy's BLAS. Numbers of
threads and replicas, and the cache, change no bit (tests/test_bits.py).
"""

from __future__ import annotations

import naive
import numpy as np
from targets import compiled_for
from tolerance import assert_close, within

import nbflow as nf

SEED, B, L, THRESHOLD, ALPHA, RATE = 2**34 + 7, 4, 12, 1.2, 0.8, 0.3
NET = nf.Network("tanh", n_in=6, n_hidden=4, n_out=4, dtype="float64")
LOSSES = (
    2.150866712846641,
    1.7864012585765738,
    1.594681546668344,
    1.915170391675851,
    1.5000397395646852,
    1.6554062762425445,
    1.5484700136595109,
    1.0780879531140182,
    1.4417586618379414,
    1.184073152504107,
)
NORMS = (
    1.8461725116626522,
    1.1611427770702036,
    0.8542109279587422,
    1.6200480738383407,
    1.048296624496192,
    1.0447475072264638,
    1.4421968332546145,
    0.8496976103039746,
    1.1467969118253953,
    1.0782702597521232,
)
OMEGAS = (
    0.4076727644357721,
    0.29454429393405557,
    0.24513161480589707,
    0.22042690135726983,
    0.21370320888892483,
    0.21910217372560117,
    0.21727054264849793,
    0.2407308176674841,
    0.20397048732376571,
    0.21263796722185138,
)
THETA = (
    -1.0064955146504495,
    0.30174632592565476,
    -0.07649444733668348,
    -0.3857239498459863,
    -0.22030721543989848,
    -0.31891726435805245,
    -0.010625143613126848,
    0.6324681069808673,
    -0.29706282974403775,
    0.5654445007964644,
)


def start():
    """Return parameters that anyone can write down: multiples of 1/64 between -1 and 1."""
    return ((37 * np.arange(NET.size) ** 2 + 11 * np.arange(NET.size)) % 129 - 64) / 64.0


def naive_run():
    """Return losses, Omegas and norms before clipping of ten updates, and theta after the last."""
    theta, losses, omegas, norms = start(), [], [], []
    for update in range(10):
        tokens, targets, weights = naive.temporal_order(SEED, 0, 0, update, B, L)
        p = naive.unpack(theta, "tanh", 6, 4, 4)
        flow = naive.backward(p, "tanh", "softmax", (tokens, targets, weights))
        d = dict(flow.d_params)
        d["w_rec"] = d["w_rec"] + ALPHA * naive.omega_immediate("squared", "mean", flow, p, "tanh")
        clipped = naive.clip("norm", naive.pack(d), THRESHOLD)
        losses.append(flow.loss)
        omegas.append(naive.omega("squared", "mean", flow))
        norms.append(clipped.norm)
        theta, _ = naive.sgd(theta, clipped.d_theta, None, RATE, update + 1)
    return losses, omegas, norms, theta


def compiled_run():
    recipe = nf.Recipe(
        lr=RATE, batch_size=B, lengths=L, clip=nf.Clip("norm", THRESHOLD), max_updates=10, record_every=1,
        evaluate_every=0, flow=nf.Flow("squared", ALPHA, reduction="mean"),
    )  # fmt: skip
    run = nf.train(NET, start(), "temporal_order", recipe, seed=SEED)
    return run.history["loss"], run.history["omega"], run.history["norm"], run.theta


def assert_golden(losses, omegas, norms, theta):
    on = f"Compiled for {compiled_for()},"
    for update in range(10):
        tolerance = within("float64", 12 * (update + 1), 100)
        assert_close(losses[update], LOSSES[update], tolerance, f"{on} the loss of update {update}")
        assert_close(omegas[update], OMEGAS[update], tolerance, f"{on} Omega of update {update}")
        assert_close(norms[update], NORMS[update], tolerance, f"{on} the norm of update {update}")
    assert_close(theta[::7], THETA, within("float64", 120, 100), f"{on} theta")


def test_the_golden_numbers_are_the_references():
    assert_golden(*naive_run())


def test_ten_updates_give_the_golden_numbers():
    assert_golden(*compiled_run())
