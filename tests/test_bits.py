"""Claims about bits: what a result must not depend on is threads, reruns, workspaces, replicas and strides.

Bits are compared within a process alone: they do depend on the target that numba compiles for, on numba and on LLVM.
"""

from __future__ import annotations

import itertools

import numba
import numpy as np
import pytest
from cases import CELLS, DTYPES, KINDS, LOSSES, Case, make_case, make_replicas
from tolerance import same_bits

import nbflow as nf
from nbflow.cpu.shards import shard_rows

FLOW = nf.Flow("norm", alpha=0.5, reduction="mean")
BATCHES = (1, 7, 8, 9, 25)  # one shard, one, two, two and four


def everything(net, theta, batch, state=None, workspace=None):
    """Return all that the three computations say of a batch."""
    given = {"workspace": workspace}
    return (
        nf.gradient(net, theta, batch, **given),
        nf.gradient(net, theta, batch, flow=FLOW, state=state, **given),
        nf.trace(net, theta, batch, **given),
        nf.predict(net, theta, batch.inputs, **given),
    )


def assert_same(one, two):
    """Assert that two answers of `everything` agree in every bit, and say where they do not."""
    for name, a, b in zip(("gradient", "flow", "trace", "predict"), one, two, strict=True):
        if isinstance(a, tuple):
            for field, x, y in zip(a._fields, a, b, strict=True):
                assert same_bits(x, y), f"{name}.{field}"
        else:
            assert same_bits(a, b), name


@pytest.fixture
def with_threads():
    """Give a function that runs another with a number of threads."""
    before = numba.get_num_threads()
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("NUMBA_NUM_THREADS is 1; `make test` sets it to 2")

    def run(threads, function):
        numba.set_num_threads(threads)
        try:
            return function()
        finally:
            numba.set_num_threads(before)

    return run


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_one_thread_and_two_give_the_same_bits(cell, dtype, with_threads):
    for B, kind in itertools.product(BATCHES, KINDS):
        case = make_case(cell, LOSSES[B % len(LOSSES)], kind, "ragged", 6, B, 3, 17, 3, dtype, seed=50)
        one, two = (with_threads(n, lambda: everything(*case)) for n in (1, 2))  # noqa: B023
        assert_same(one, two)
    net, theta, batch, state, _ = make_replicas(cell, R=5, kind="tokens", T=5, B=9, N=3, H=7, dtype=dtype)
    one, two = (with_threads(n, lambda: everything(net, theta, batch, state)) for n in (1, 2))
    assert_same(one, two)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("R", [1, 3])
def test_pieces_of_packing_and_summing_give_the_bits_of_the_whole(cell, dtype, R, monkeypatch, with_threads):
    """In more pieces than a block has rows, too; with a flow, a direction and a clip by example."""
    flows = [nf.Flow("norm", 0.5, derivative=name) for name in ("immediate", "detached", "exact")]

    def find(net, theta, batch, state):
        direction = np.random.default_rng(60).normal(size=theta.shape).astype(theta.dtype)
        return (
            *everything(net, theta, batch, state),
            *(nf.gradient(net, theta, batch, flow=flow) for flow in flows),
            nf.gradient(net, theta, batch, clip_example=0.1),
            nf.hvp(net, theta, batch, direction),
        )

    for kind in KINDS:
        case = make_replicas(cell, R=R, kind=kind, T=5, B=9, N=3, H=7, dtype=dtype)[:4]
        whole = find(*case)
        for size in (40, 3, 1):
            with monkeypatch.context() as patch:
                patch.setattr("nbflow.cpu.sizes.PIECE", size)
                pieces = with_threads(2, lambda: find(*case))  # noqa: B023
            for one, other in zip(whole, pieces, strict=True):
                assert same_bits(one, other), (kind, size)


def test_wide_networks_have_larger_shards_and_one_thread_gives_the_bits_of_two(with_threads):
    wide = nf.Network("lstm", n_in=2, n_hidden=363, n_out=2)  # 4 x 363 x 363 weights of 4 bytes are just above WIDE
    narrow = nf.Network("lstm", n_in=2, n_hidden=362, n_out=2)
    for batch, few, many in ((128, 8, 16), (32, 8, 16), (25, 7, 13), (20, 5, 10), (7, 7, 7), (1, 1, 1)):
        for net, most in ((narrow, few), (wide, many)):
            shards = shard_rows(net, batch)
            assert sum(shards) == batch
            assert max(shards) == most
            assert len(shards) % 2 == 0 or batch < 8
    case = make_case("lstm", "softmax", "dense", "last", 3, 32, 2, 363, 2, "float32")
    assert_same(*(with_threads(n, lambda: everything(*case)) for n in (1, 2)))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_rerun_gives_the_same_bits(cell, dtype):
    case = make_case(cell, "softmax", "tokens", "ragged", 6, 9, 3, 17, 3, dtype, seed=51)
    first = everything(*case)
    for _ in range(3):
        assert_same(everything(*case), first)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("B", [3, 9])
@pytest.mark.parametrize("R", [1, 2])
def test_a_used_workspace_gives_the_bits_of_a_new_one(cell, B, R):
    """In any order of computations and lengths, after other data, after a first state, after Inf and NaN."""
    choices = {"loss": "square", "N": 2, "H": 5, "M": 2, "B": B}
    replicas = [
        make_replicas(cell, R=R, T=T, when=when, **choices) for T, when in ((9, "all"), (4, "ragged"), (7, "last"))
    ]
    cases = [Case(*found[:4]) for found in replicas]
    space = nf.workspace(cases[0].net, cases[0].batch)
    wild = cases[0].theta * 1e200
    calls = {
        "gradient": lambda case, space: nf.gradient(case.net, case.theta, case.batch, workspace=space),
        "flow": lambda case, space: nf.gradient(case.net, case.theta, case.batch, flow=FLOW, workspace=space),
        "alpha": lambda case, space: nf.gradient(
            case.net, case.theta, case.batch, flow=nf.Flow("log", 3.0), state=case.state, workspace=space
        ),
        "state": lambda case, space: nf.gradient(
            case.net, case.theta, case.batch, state=case.state, workspace=space
        ),
        "hidden": lambda case, space: nf.gradient(
            case.net, case.theta, case.batch, clip_hidden=nf.HiddenClip(1e-3), workspace=space
        ),
        "recomputed": lambda case, space: nf.gradient(
            case.net, case.theta, case.batch, recompute_every=1, workspace=space
        ),
        "trace": lambda case, space: nf.trace(case.net, case.theta, case.batch, workspace=space),
        "predict": lambda case, space: nf.predict(case.net, case.theta, case.batch.inputs, workspace=space),
    }  # fmt: skip
    fresh = {(name, k): call(case, None) for name, call in calls.items() for k, case in enumerate(cases)}
    for seed in range(3):
        for i, j in np.random.default_rng(seed).permutation(list(itertools.product(range(len(calls)), range(3)))):
            name = list(calls)[i]
            if (i + j + seed) % 4 == 0:
                nf.gradient(cases[0].net, wild, cases[0].batch, flow=FLOW, workspace=space)
                nf.trace(cases[0].net, wild, cases[0].batch, workspace=space)
            assert same_bits(calls[name](cases[j], space), fresh[name, j]), (name, j)


def test_results_are_not_views_of_the_workspace():
    one, two = (Case(*make_replicas("tanh", R=3, T=5, B=9, H=5, when=when)[:4]) for when in ("all", "last"))
    pairs = [(one, two), tuple(make_case("tanh", T=5, B=9, H=5, seed=seed) for seed in (53, 54))]
    for case, other in pairs:
        space = nf.workspace(case.net, case.batch)
        first = everything(*case, workspace=space)
        kept = everything(*case)
        everything(*other, workspace=space)
        assert_same(first, kept)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("B", [2, 9])
def test_a_network_alone_has_the_bits_of_one_among_replicas(cell, dtype, B):
    for kind in KINDS:
        net, theta, batch, state, cases = make_replicas(
            cell, R=4, loss="softmax", kind=kind, T=6, B=B, N=3, H=17, M=3, dtype=dtype
        )
        together = everything(net, theta, batch, state)
        for r, case in enumerate(cases):
            alone = everything(*case)
            for one, many in zip(alone[:3], together[:3], strict=True):
                for field, x, y in zip(one._fields, one, many, strict=True):
                    assert (x is None and y is None) or np.array_equal(x, y[r], equal_nan=True), (r, field)
            assert same_bits(alone[3], together[3][r])


@pytest.mark.parametrize("cell", ["tanh", "relu"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_training_alone_has_the_bits_of_training_as_the_first_of_replicas(cell, dtype, with_threads):
    """With everything on: lengths drawn, clip, flow, an optimizer with a memory, evaluations."""
    net = nf.Network(cell, n_in=6, n_hidden=9, n_out=4, dtype=dtype)
    recipe = nf.Recipe(
        optimizer="adam", lr=0.01, batch_size=9, lengths=(10, 17), clip=nf.Clip("norm", 0.3),
        flow=nf.Flow("squared", 1.0), max_updates=25, record_every=5, evaluate_every=10, evaluate_size=50,
    )  # fmt: skip

    def train(replicas):
        theta = nf.init(net, "orthogonal", rng=3, replicas=replicas)
        return nf.train(net, theta, "temporal_order", recipe, seed=2**35)

    runs = {R: with_threads(threads, lambda: train(R)) for R, threads in ((None, 1), (1, 2), (3, 2), (4, 1))}  # noqa: B023
    alone = runs[None]
    for R in (1, 3, 4):
        assert same_bits(runs[R].theta[0], alone.theta)
        for name, rows in alone.history.items():
            if name != "seconds":
                assert [row[0] if isinstance(row, list) else row for row in runs[R].history[name]] == rows, name
        assert [scores[0] for scores in runs[R].evaluations["score"]] == alone.evaluations["score"]
    assert same_bits(runs[3].theta, runs[4].theta[:3])
    assert not np.array_equal(runs[4].theta[0], runs[4].theta[1])
    rerun = train(None)
    assert same_bits(rerun.theta, alone.theta)
    assert rerun.history["loss"] == alone.history["loss"]


def test_the_start_of_a_training_is_not_changed():
    net = nf.Network("tanh", n_in=6, n_hidden=5, n_out=4)
    theta = nf.init(net, "orthogonal", rng=0, replicas=2)
    before = theta.copy()
    theta.flags.writeable = False
    run = nf.train(net, theta, "temporal_order", nf.Recipe(lengths=10, max_updates=5, evaluate_every=0))
    assert same_bits(theta, before)
    assert not np.array_equal(run.theta, before)


def strided(array):
    """Return the same numbers in every second place of every axis of a larger array."""
    wide = np.zeros([2 * n for n in array.shape], array.dtype)
    wide[...] = 3
    view = wide[(slice(None, None, 2),) * array.ndim]
    view[...] = array
    return view


def reversed_(array):
    """Return the same numbers with negative strides on every axis."""
    back = (slice(None, None, -1),) * array.ndim
    return array[back].copy()[back]


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def unaligned(array):
    """Return the same numbers one byte off."""
    memory = np.zeros(array.nbytes + 1, np.uint8)
    view = memory[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


@pytest.mark.parametrize("form", [strided, reversed_, read_only, np.asfortranarray, unaligned])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("kind", KINDS)
def test_how_arrays_lie_in_memory_does_not_matter_and_they_are_not_changed(form, cell, kind):
    net, theta, batch, state, cases = make_replicas(
        cell, R=2, loss="softmax", kind=kind, T=5, B=9, N=3, H=5, M=3, dtype="float32"
    )
    for arrays in ((theta, *batch, state), (cases[0].theta, *cases[0].batch, cases[0].state)):
        other = [form(array) for array in arrays]
        kept = [array.copy() for array in other]
        results = [everything(net, a[0], nf.Batch(*a[1:4]), a[4]) for a in (arrays, other)]
        assert_same(*results)
        for array, before in zip(other, kept, strict=True):
            assert same_bits(array, before)
    batch64 = make_case(cell, "square", kind, T=5, B=9, seed=55)
    one, two = (everything(batch64.net, f(batch64.theta), nf.Batch(*map(f, batch64.batch))) for f in (np.array, form))
    assert_same(one, two)


def test_broadcast_batches_are_as_good_as_copies():
    case = make_case("tanh", "bernoulli", T=5, B=9, seed=56)
    theta = np.stack([case.theta, 2 * case.theta])
    shared = nf.Batch(*(np.broadcast_to(part, (2, *part.shape)) for part in case.batch))
    copied = nf.Batch(*(part.copy() for part in shared))
    assert_same(everything(case.net, theta, shared), everything(case.net, theta, copied))
