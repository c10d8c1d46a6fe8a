"""Claims about the noise of units: which numbers it is, what they are like, and what every derivative makes of them."""

from __future__ import annotations

import dataclasses
import itertools

import autograd
import naive
import numba
import numpy as np
import pytest
from cases import CELLS, DTYPES, KINDS, MORE_CELLS, make_case, make_replicas
from scipy import stats
from test_stack import make_stack
from tolerance import assert_close, by_chance, differenced, near, same_bits, within

import nbflow as nf
from nbflow import counter

ALL = (*CELLS, *MORE_CELLS)
DEVIATION = 0.4
HOW = nf.Noise(DEVIATION, seed=2**40 + 7, index=5)
FALSE_ALARM = 1e-3
BY_DIFFERENCES = differenced(1e-4, 6, 4, 500, condition=4)  # as naive.central_difference takes them


def xi_of(net, T, B, how=HOW, replica=0, purpose=counter.NOISE):
    """Return the reference's standard normals (T, B, G, H)."""
    shape = T, B, len(net.cell_object.gates), net.n_hidden
    return naive.noise(how.seed, purpose, replica, how.index, shape)


def drawn(case, how=HOW, replica=0):
    """Return the noise of a case (T, B, G, H)."""
    return how.deviation * xi_of(case.net, *case.batch.weights.shape, how, replica)


def seen(cell, H, T, B, how, dtype="float64"):
    """Return what a linear or a rotating cell of nothing but its noise shows of it: (T, B, H), of its first gate."""
    still = nf.load_cell(cell, real=0.0, imaginary=0.0) if cell == "rotation" else cell
    net = nf.Network(still, 1, H, 1, "square", dtype)
    _, state = nf.predict(net, np.zeros(net.size, dtype), np.zeros((T, B, 1), dtype), noise=how, return_state=True)
    batch = nf.Batch(np.zeros((T, B, 1), dtype), np.zeros((T, B, 1), dtype), np.ones((T, B), dtype))
    states = nf.trace(net, np.zeros(net.size, dtype), batch, noise=how).states
    assert same_bits(states[-1], state)
    return states[1:, :, 0]


# ------------------------------------------------------------------------------------------------------- which numbers


@pytest.mark.sim
@pytest.mark.parametrize("H", [1, 3, 4, 5, 17])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_numbers_are_the_references(H, dtype):
    """Of a network of which nothing else is left: h is the noise; in more than one shard."""
    for cell, B in (("linear", 9), ("rotation", 2)):
        found = seen(cell, H, 3, B, HOW, dtype)
        wanted = naive.noise(HOW.seed, counter.NOISE, 0, HOW.index, (3, B, 1 + (cell == "rotation"), H))[:, :, 0]
        assert_close(found, DEVIATION * wanted, within(dtype))


def test_they_are_the_same_in_both_dtypes_to_the_rounding_of_the_smaller():
    fine, coarse = (seen("linear", 50, 20, 9, nf.Noise(1.0), dtype) for dtype in DTYPES)
    assert same_bits(fine.astype(np.float32), coarse)


def test_another_seed_index_replica_sequence_step_gate_or_unit_is_another_number():
    """And one that no other has: all of four calls differ."""
    found = [seen("linear", 6, 5, 4, nf.Noise(1.0, *names)) for names in ((0, 0), (1, 0), (0, 1), (2**32, 0))]
    net = nf.Network("linear", 1, 6, 1, "square", "float64")
    many = nf.predict(net, np.zeros((2, net.size)), np.zeros((2, 5, 4, 1)), noise=nf.Noise(1.0), return_state=True)[1]
    assert same_bits(many[0, :, 0], found[0][-1])
    every = np.concatenate([np.ravel(one) for one in (*found, many[1])])
    assert np.unique(every).size == every.size


def test_it_follows_the_normal_law_with_the_deviation_that_was_asked_for():
    """Fixed draws; of others each of these would fail once in a thousand, or in ten thousand."""
    T, B, H = 100, 40, 25
    xi = seen("linear", H, T, B, nf.Noise(0.3, seed=1)) / 0.3
    n = xi.size
    assert abs(xi.mean()) < by_chance(n)
    assert abs((xi**2).mean() - 1) < by_chance(n, spread=np.sqrt(2))
    assert abs((xi**4).mean() - 3) < by_chance(n, spread=np.sqrt(96))
    assert stats.kstest(xi.ravel(), "norm").pvalue > FALSE_ALARM
    for axis in range(3):  # neighbours, and the next but one, two and three: numbers of one block, and of two
        for lag in (1, 2, 3, 4):
            size = xi.shape[axis]
            one, other = (np.take(xi, range(*ends), axis) for ends in ((0, size - lag), (lag, size)))
            for a, b, spread in ((one, other, 1.0), (one**2 - 1, other**2 - 1, 2.0)):
                assert abs((a * b).mean()) < by_chance(a.size, spread, FALSE_ALARM), (axis, lag)
    means = xi.mean(axis=(0, 1))  # no unit has a mean or a variance of its own
    assert stats.chi2.sf((means**2).sum() * T * B, H) > FALSE_ALARM
    excess = (xi**2).mean(axis=(0, 1)) - 1
    assert stats.chi2.sf((excess**2).sum() * T * B / 2, H) > FALSE_ALARM


def test_gates_and_layers_have_numbers_of_their_own():
    net = nf.Network(nf.load_cell("rotation", real=0.0, imaginary=0.0), 1, 6, 1, "square", "float64")
    theta, batch = np.zeros(net.size), nf.Batch(np.zeros((5, 4, 1)), np.zeros((5, 4, 1)), np.ones((5, 4)))
    gates = nf.trace(net, theta, batch, noise=1.0).states[1:]
    assert np.unique(gates).size == gates.size == 2 * 5 * 4 * 6
    sizes = ((1, 6), (6, 7))
    stack = nf.Stack([nf.Network("linear", n_in, n_hidden, 1, "square", "float64") for n_in, n_hidden in sizes])
    layers = nf.trace(stack, np.zeros(stack.size), batch, noise=1.0)
    every = np.concatenate([layer.states[1:].ravel() for layer in layers])
    assert np.unique(every).size == every.size == 5 * 4 * 13


# -------------------------------------------------------------------------------------------------------- derivatives


@pytest.mark.parametrize("cell", ALL)
@pytest.mark.parametrize("kind", KINDS)
def test_the_references_gradient_is_the_slope_of_its_loss_with_the_noise_held_fixed(cell, kind):
    case = make_case(cell, "softmax", kind, "ragged", T=4, B=2, N=2, H=3, M=2, seed=300)
    noise = drawn(case)
    flow = naive.backward(case.params, cell, "softmax", case.plain, case.state, noise=noise)

    def loss_at(theta):
        return naive.loss_of(theta, *case.sizes, "softmax", case.plain, case.state, noise)

    assert_close(naive.pack(flow.d_params), naive.central_difference(loss_at, case.theta), BY_DIFFERENCES)
    assert_close(naive.pack(flow.d_params), naive.complex_step(loss_at, case.theta), within("float64", 4, 20))


@pytest.mark.sim
@pytest.mark.parametrize("cell", CELLS)
def test_the_gradient_of_the_smallest_networks_is_the_references(cell):
    for kind in KINDS:
        case = make_case(cell, "square", kind, "ragged", T=3, B=2, N=2, H=3, M=2, seed=301)
        flow = naive.backward(case.params, cell, "square", case.plain, noise=drawn(case))
        out = nf.gradient(case.net, case.theta, case.batch, noise=HOW)
        assert_close(out.loss, flow.loss, within("float64", 3, 20))
        assert_close(out.d_theta, naive.pack(flow.d_params), within("float64", 3, 20))


@pytest.mark.parametrize("cell", ALL)
@pytest.mark.parametrize("dtype", DTYPES)
def test_gradient_trace_and_outputs_are_the_references(cell, dtype):
    for when, kind, carried in (("ragged", "tokens", False), ("all", "dense", True)):
        case = make_case(cell, "softmax", kind, when, T=4, B=9, N=3, H=7, M=3, dtype=dtype, seed=302)
        state, tolerance = case.state if carried else None, within(dtype, 4, 4 * case.terms)
        s0 = case.state.astype(float) if carried else None
        flow = naive.backward(case.params, cell, "softmax", case.plain, s0, noise=drawn(case))
        out = nf.gradient(case.net, case.theta, case.batch, state=state, noise=HOW)
        assert out.d_theta.dtype == case.net.dtype
        assert_close(out.loss, flow.loss, tolerance, "the loss")
        assert_close(out.d_theta, naive.pack(flow.d_params), tolerance, "the gradient")
        traced = nf.trace(case.net, case.theta, case.batch, state=state, noise=HOW)
        assert_close(traced.states, flow.states, tolerance, "states")
        assert_close(traced.delta, flow.delta, tolerance, "delta")
        y = nf.predict(case.net, case.theta, case.batch.inputs, state=state, noise=HOW)
        assert_close(y, naive.outputs(case.params, flow.states), tolerance, "outputs")
        plain = nf.gradient(case.net, case.theta, case.batch, state=state)
        assert np.linalg.norm(out.d_theta - plain.d_theta) > 1e-3 * np.linalg.norm(plain.d_theta)


@pytest.mark.parametrize("cell", ALL)
def test_the_gradient_is_autograds(torch, cell):
    for when, loss, kind in (("ragged", "softmax", "tokens"), ("all", "square", "dense")):
        case = make_case(cell, loss, kind, when, T=6, B=9, N=3, H=17, M=3, seed=303)
        p, shares = autograd.losses_of_sequences(torch, case, kind, drawn(case))
        out = nf.gradient(case.net, case.theta, case.batch, state=case.state, noise=HOW)
        tolerance = within("float64", 6, case.terms)  # about 1e-14
        assert_close(out.loss, shares.sum().item(), tolerance)
        assert_close(out.d_theta, autograd.gradient(torch, p, shares.sum()), tolerance)


def test_replicas_have_draws_and_deviations_of_their_own(torch):
    net, theta, batch, state, cases = make_replicas("lstm", R=3, T=6, B=9, H=5, loss="square", when="ragged")
    deviation = np.array([0.0, 0.5, 1.0])
    out = nf.gradient(net, theta, batch, state=state, noise=nf.Noise(deviation, seed=8))
    for r, case in enumerate(cases):
        noise = drawn(case, nf.Noise(deviation[r], seed=8), replica=r)
        p, shares = autograd.losses_of_sequences(torch, case, "dense", noise)
        assert_close(out.d_theta[r], autograd.gradient(torch, p, shares.sum()), within("float64", 6, case.terms))


@pytest.mark.parametrize("cell", ["tanh", "gru", "lstm"])
def test_omega_and_its_derivatives_see_the_same_states(cell):
    case = make_case(cell, "square", "dense", "all", T=4, B=3, N=2, H=3, M=2, seed=304)
    noise = drawn(case)
    flow = naive.backward(case.params, cell, "square", case.plain, noise=noise)
    plain = nf.gradient(case.net, case.theta, case.batch, noise=HOW).d_theta
    slopes = {
        "exact": lambda theta: naive.omega_of(theta, *case.sizes, "square", case.plain, "squared", "sum", noise=noise),
        "detached": lambda theta: naive.omega_detached(
            theta, *case.sizes, case.plain[0], "squared", "sum", flow.delta, noise=noise
        ),
    }
    for name, omega in slopes.items():
        out = nf.gradient(case.net, case.theta, case.batch, flow=nf.Flow("squared", 1.0, name), noise=HOW)
        assert_close(out.omega, naive.omega("squared", "sum", flow), within("float64", 4, 500))
        assert_close(out.d_theta - plain, naive.central_difference(omega, case.theta), 10 * BY_DIFFERENCES, name)
    out = nf.gradient(case.net, case.theta, case.batch, flow=nf.Flow("squared", 1.0), noise=HOW)
    found = nf.unpack(case.net, out.d_theta - plain).w_rec
    wanted = naive.omega_immediate("squared", "sum", flow, case.params, cell)
    assert_close(found, wanted, within("float64", 4, 500, condition=10))


@pytest.mark.parametrize("kind", KINDS)
def test_products_with_derivatives_see_the_same_states(kind):
    case = make_case("gru", "softmax", kind, "all", T=6, B=9, N=3, H=7, M=2, seed=305)
    rng = np.random.default_rng(305)
    theta_dot, far = rng.normal(size=case.net.size), 1e-3
    d_outputs = rng.normal(size=(6, 9, 2))

    def at(k, function):
        return function(case.theta + k * far * theta_dot)

    def slope(function):
        return (at(-2, function) - 8 * at(-1, function) + 8 * at(1, function) - at(2, function)) / (12 * far)

    moved = nf.jvp(case.net, case.theta, case.batch.inputs, theta_dot=theta_dot, noise=HOW).outputs
    tolerance = differenced(far, 4, 6, case.terms, curvature=np.linalg.norm(theta_dot) ** 4)
    assert_close(moved, slope(lambda theta: nf.predict(case.net, theta, case.batch.inputs, noise=HOW)), tolerance)
    pulled = nf.vjp(case.net, case.theta, case.batch.inputs, d_outputs=d_outputs, noise=HOW).d_theta
    size = np.abs(d_outputs * moved).sum()
    assert pulled @ theta_dot == near((d_outputs * moved).sum(), "float64", 6, case.terms, size=size)
    bent = nf.hvp(case.net, case.theta, case.batch, theta_dot, noise=HOW)
    assert_close(bent, slope(lambda theta: nf.gradient(case.net, theta, case.batch, noise=HOW).d_theta), tolerance)


@pytest.mark.parametrize("cells", [("tanh", "tanh"), ("lstm", "gru")])
def test_every_layer_of_a_stack_has_its_noise(cells):
    case = make_stack(cells, "softmax", T=4, B=3, seed=306)
    shapes = [(4, 3, naive.CELLS[layer.cell].gates, layer.n_hidden) for layer in case.net.layers]
    blocks = [G * -(-H // 4) for *_, G, H in shapes]
    noises = [
        DEVIATION * naive.noise(HOW.seed, counter.NOISE, 0, HOW.index, shape, sum(blocks[:k]), sum(blocks[k + 1 :]))
        for k, shape in enumerate(shapes)
    ]

    def loss_at(theta):
        return naive.stacked_loss(case.params(theta), case.cells, "softmax", case.plain, case.states, noises)

    out = nf.gradient(case.net, case.theta, case.batch, state=case.states, noise=HOW)
    assert_close(out.loss, loss_at(case.theta), case.tolerance, "the loss")
    assert_close(out.d_theta, naive.complex_step(loss_at, case.theta), case.tolerance, "d_theta")
    traced = nf.trace(case.net, case.theta, case.batch, state=case.states, noise=HOW)
    wanted = naive.stacked_states(case.params(), case.cells, case.plain[0], case.states, noises)
    for layer, states in zip(traced, wanted, strict=True):
        assert_close(layer.states, states, case.tolerance, "states")


# --------------------------------------------------------------------------------------------------------------- bits


@pytest.mark.parametrize("cell", ["tanh", "lstm"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_one_thread_and_two_give_the_same_bits(cell, dtype):
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("NUMBA_NUM_THREADS is 1; `make test` sets it to 2")
    before, found = numba.get_num_threads(), []
    case = make_case(cell, "softmax", "tokens", "ragged", T=30, B=25, N=3, H=17, M=3, dtype=dtype, seed=307)
    for threads in (1, 2):
        numba.set_num_threads(threads)
        try:
            out = nf.gradient(case.net, case.theta, case.batch, noise=HOW)
            found.append((out.loss, out.d_theta, nf.trace(case.net, case.theta, case.batch, noise=HOW).delta))
        finally:
            numba.set_num_threads(before)
    assert same_bits(*found)


@pytest.mark.parametrize("cell", ["tanh", "gru", "lstm"])
def test_steps_that_are_computed_twice_change_no_bit_and_a_workspace_forgets(cell):
    case = make_case(cell, "square", "tokens", "ragged", T=1300, B=3, N=2, H=5, M=2, seed=308)
    space = nf.workspace(case.net, case.batch)
    plain = nf.gradient(case.net, case.theta, case.batch, noise=HOW, workspace=space)
    for every in (64, 320):
        out = nf.gradient(case.net, case.theta, case.batch, noise=HOW, recompute_every=every)
        assert out.loss == plain.loss
        assert same_bits(out.d_theta, plain.d_theta)
    without = nf.gradient(case.net, case.theta, case.batch, workspace=space)
    assert same_bits(without.d_theta, nf.gradient(case.net, case.theta, case.batch).d_theta)
    assert same_bits(nf.gradient(case.net, case.theta, case.batch, noise=0.0).d_theta, without.d_theta)
    assert not np.array_equal(without.d_theta, plain.d_theta)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_sequence_has_its_noise_in_whatever_batch_it_stands_and_however_that_is_cut(dtype):
    """The first of few, in one shard, and of many, in several; clipped by example, which cuts shards otherwise."""
    case = make_case("tanh", "square", "dense", "all", T=9, B=25, N=2, H=17, M=2, dtype=dtype, seed=309)
    whole = nf.trace(case.net, case.theta, case.batch, noise=HOW).states
    for first in (1, 7, 13):
        few = nf.Batch(*(np.ascontiguousarray(part[:, :first]) for part in case.batch))
        assert_close(nf.trace(case.net, case.theta, few, noise=HOW).states, whole[:, :first], within(dtype, 9, 20))
    one = nf.gradient(case.net, case.theta, case.batch, noise=HOW)
    clipped = nf.gradient(case.net, case.theta, case.batch, noise=HOW, clip_example=np.inf)
    assert_close(clipped.d_theta, one.d_theta, within(dtype, 9, 300))


def test_a_network_alone_has_the_bits_of_the_first_of_replicas():
    net, theta, batch, state, cases = make_replicas("lstm", R=3, T=6, B=9, H=17, dtype="float32")
    many = nf.gradient(net, theta, batch, state=state, noise=HOW)
    alone = nf.gradient(net, theta[0], cases[0].batch, state=state[0], noise=HOW)
    assert same_bits(many.d_theta[0], alone.d_theta)
    assert same_bits(many.state[0], alone.state)


def test_a_gradient_with_lengths_ends_where_the_trace_does():
    case = make_case("tanh", "square", "dense", "last", T=7, B=4, N=2, H=5, M=2, seed=310)
    lengths = np.array([7, 3, 0, 5])
    weights = np.zeros_like(case.batch.weights)
    weights[1] = 1
    out = nf.gradient(case.net, case.theta, case.batch._replace(weights=weights), lengths=lengths, noise=HOW)
    states = nf.trace(case.net, case.theta, case.batch, noise=HOW).states
    assert_close(out.state, states[lengths, np.arange(4)], within("float64", 7, 20))


# ----------------------------------------------------------------------------------------------------------- training

TASK = nf.load_task("temporal_order")
NET = nf.Network("tanh", TASK.n_in, 8, TASK.n_out)
THETA = nf.init(NET, "smart_tanh", rng=0)
RECIPE = nf.Recipe(lr=0.2, batch_size=9, lengths=(10, 14), max_updates=12, record_every=5, evaluate_every=6,
                   evaluate_size=50, clip=nf.Clip("norm", 0.5), noise=0.3)  # fmt: skip


def falling(update):
    return 0.3 / (1 + update)


@pytest.mark.parametrize("noise", [0.3, falling], ids=["number", "schedule"])
def test_update_k_of_a_run_has_the_draws_of_its_seed_and_index_k(noise):
    case = make_case("lstm", "square", "dense", "all", T=10, B=9, N=2, H=5, M=2, seed=311)
    recipe = nf.Recipe(lr=0.01, noise=noise, max_updates=4, record_every=1, evaluate_every=0)
    run = nf.train(case.net, case.theta, lambda update: case.batch, recipe, seed=7)
    theta, deviations = case.theta.copy(), []
    for update in range(4):
        deviations.append(noise(update) if callable(noise) else noise)
        how = nf.Noise(deviations[-1], seed=7, index=update)
        theta -= 0.01 * nf.gradient(case.net, theta, case.batch, noise=how).d_theta
    assert_close(run.theta, theta, within("float64", 20, 500))
    assert run.history["noise"] == deviations


def test_a_run_goes_on_to_the_same_bits_and_another_noise_is_another_run(tmp_path):
    for noise in (0.3, falling):
        path, recipe = tmp_path / f"{callable(noise)}.npz", dataclasses.replace(RECIPE, noise=noise)
        whole = nf.train(NET, THETA, TASK, recipe)
        nf.train(NET, THETA, TASK, dataclasses.replace(recipe, max_updates=7), checkpoint=path)
        run = nf.train(NET, THETA, TASK, recipe, checkpoint=path)
        assert same_bits(run.theta, whole.theta)
        assert run.history["noise"][-1] == whole.history["noise"][-1]
        with pytest.raises(ValueError, match="noise"):
            nf.train(NET, THETA, TASK, dataclasses.replace(RECIPE, noise=0.2), checkpoint=path)


def test_the_bits_of_a_run_are_those_of_one_among_replicas_and_of_any_threads():
    found = {}
    for replicas, threads in ((None, 1), (3, 2), (3, 1)):
        theta, before = nf.init(NET, "smart_tanh", rng=0, replicas=replicas), numba.get_num_threads()
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
        try:
            found[replicas, threads] = nf.train(NET, theta, TASK, RECIPE).theta
        finally:
            numba.set_num_threads(before)
    assert same_bits(found[3, 1], found[3, 2])
    assert same_bits(found[3, 1][0], found[None, 1])


def test_evaluations_are_without_noise_unless_it_is_asked_for():
    """A network that answers by its bias alone is never disturbed, one that sums its noise up always is."""
    run = nf.train(NET, THETA, TASK, RECIPE)
    plain = [nf.evaluate(NET, run.theta, TASK, length=(10, 14), size=50, index=12)]
    assert run.evaluations["score"][-1] == plain[0]
    scores = [nf.evaluate(NET, run.theta, TASK, length=10, size=500, noise=noise) for noise in (None, 0.0, 30.0)]
    assert scores[0] == scores[1] != scores[2]
    again = nf.evaluate(NET, run.theta, TASK, length=10, size=500, noise=30.0)
    assert again == scores[2]
    asked = nf.train(NET, THETA, TASK, RECIPE, score=lambda theta: nf.evaluate(NET, theta, TASK, length=10, noise=30.0))
    assert asked.evaluations["score"][-1] == nf.evaluate(NET, run.theta, TASK, length=10, noise=30.0)
    assert same_bits(asked.theta, run.theta)


def test_an_evaluation_has_draws_that_no_training_has():
    """The states of a network of noise alone, through its outputs: part wrong of an addition by chance."""
    task = nf.load_task("addition")
    net = nf.Network("linear", task.n_in, 1, task.n_out, task.loss, "float64")
    theta = np.zeros((2, net.size))
    for r in range(2):
        nf.unpack(net, theta[r]).w_out[:] = 1
    found = nf.evaluate(net, theta, task, length=10, size=200, seed=3, noise=0.5)
    batch = task.sample(seed=3, index=0, batch_size=200, length=10, replicas=2, dtype="float64")
    assert batch.weights.shape[2] == 200
    for purpose, same in ((counter.EVALUATION_NOISE, True), (counter.NOISE, False)):
        counted = []
        for r in range(2):
            given = task.empty(2, 11, 200, "float64")
            task.draw(given, 3, counter.EVALUATION, np.arange(2), 0, 10)
            xi = naive.noise(3, purpose, r, 0, (given.weights.shape[1], 200, 1, 1))[..., 0]
            wrong = task.wrong(0.5 * xi[None], nf.Batch(*(part[r : r + 1] for part in given)))
            counted.append(float(np.mean(wrong)))
        assert (found.tolist() == counted) == same


@pytest.mark.parametrize("counts_wrong", [False, True])
def test_what_is_held_out_is_measured_with_noise_too(counts_wrong):
    rng = np.random.default_rng(0)
    task = nf.arrays(rng.normal(size=(40, 6, 2)), rng.integers(0, 3, 40), batch_first=True, held_out=0.5, seed=0,
                     **({"score": "wrong"} if counts_wrong else {}))  # fmt: skip
    net = nf.Network("tanh", task.n_in, 5, task.n_out, task.loss, "float64")
    theta = nf.init(net, "orthogonal", rng=0, replicas=2)
    plain, some, again, other = (
        nf.evaluate(net, theta, task, noise=noise, index=index)
        for noise, index in ((None, 0), (np.array([0.0, 2.0]), 0), (np.array([0.0, 2.0]), 0), (np.array([0.0, 2.0]), 1))
    )
    assert some[0] == plain[0]
    assert same_bits(some, again)
    if not counts_wrong:
        assert some[1] != plain[1]
        assert other[1] != some[1]
        assert nf.evaluate(net, theta[0], task, noise=2.0) != some[1]


def test_updaters_and_stacks_and_carried_states_train_with_it():
    update = nf.updater(NET, THETA, TASK, RECIPE)
    for _ in range(RECIPE.max_updates):
        update()
    assert same_bits(update.theta, nf.train(NET, THETA, TASK, RECIPE).theta)
    stack = nf.Stack([nf.Network("tanh", TASK.n_in, 5, TASK.n_out), nf.Network("tanh", 5, 4, TASK.n_out)])
    theta = nf.init(stack, "orthogonal", rng=0)
    some, none = (nf.train(stack, theta, TASK, dataclasses.replace(RECIPE, noise=noise)).theta for noise in (0.3, None))
    assert np.isfinite(some).all()
    assert not np.array_equal(some, none)


def test_a_sweep_over_deviations_compiles_once():
    from nbflow.cpu.noise import build_noise

    build_noise.cache_clear()
    for noise, dtype in itertools.product((0.1, 0.2, np.array([0.3])), ("float32",)):
        theta = nf.init(NET, "smart_tanh", rng=0, replicas=1)
        nf.train(NET, theta, TASK, dataclasses.replace(RECIPE, noise=noise, max_updates=2))
        assert NET.dtype == dtype
    assert build_noise.cache_info().misses == 1


# ------------------------------------------------------------------------------------------------------------ refusals


def test_what_makes_no_sense_is_refused():
    case = make_case("tanh")
    given = case.net, case.theta, case.batch
    for noise, said in ((-0.1, "noise is -0.1"), (np.nan, "noise is NaN"), (np.ones(2), "noise has shape"),
                        ("x", "noise is 'x'"), (lambda update: 0.1, "noise is .*knows no update")):  # fmt: skip
        for call in (nf.gradient, nf.trace):
            with pytest.raises((TypeError, ValueError), match=said):
                call(*given, noise=noise)
    for fields, said in (({"seed": -1}, "seed is -1"), ({"index": 2**32}, "index is 4294967296"),
                         ({"deviation": "x"}, "deviation is 'x'"), ({"seed": 1.0}, "seed is 1.0")):  # fmt: skip
        with pytest.raises((TypeError, ValueError), match=said):
            nf.Noise(**{"deviation": 0.5, **fields})
    with pytest.raises(TypeError, match=r"noise is Noise.*Write noise=0\.1"):
        nf.Recipe(noise=nf.Noise(0.1))
    with pytest.raises(TypeError, match=r"noise is Noise.*Write noise=0\.1"):
        nf.evaluate(NET, THETA, TASK, length=10, noise=nf.Noise(0.1))
    with pytest.raises(ValueError, match=r"noise is -1.*at update 2"):
        nf.train(NET, THETA, TASK, dataclasses.replace(RECIPE, noise=lambda update: 1 - update))
    with pytest.raises(ValueError, match="'flossing' and noise are both given"):
        nf.gradient(*given, flow=nf.Flow("flossing", 1.0), noise=0.1)


def test_more_steps_than_there_are_draws_for_are_refused():
    from nbflow.cpu.noise import check_draws

    check_draws(2, 2**31)
    with pytest.raises(ValueError, match=r"noise is given for 2147483649 steps of 8 numbers.*at most 2147483648"):
        check_draws(2, 2**31 + 1)


@pytest.mark.sim
def test_the_card_refuses_it_by_name():
    from nbflow.cuda import engine
    from nbflow.gradients._choices import check_asked
    from nbflow.gradients._engine import refuse_lacking

    asked = check_asked(NET, (1, 3), noise=0.1)
    with pytest.raises(NotImplementedError, match=r"noise is .*backend 'cuda' does not have it"):
        refuse_lacking(engine, asked)
