"""Claims about optimizers, as the training loop applies them: update by update, against the reference."""

from __future__ import annotations

import itertools
import types

import naive
import numba
import numpy as np
import pytest
from cases import DTYPES, OPTIMIZERS, make_case, make_replicas
from tolerance import assert_close, near, same_bits, within

import nbflow as nf
from nbflow import scalars
from nbflow._compile import JIT
from nbflow._load import load
from nbflow.cpu.update import build_update

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
    assert_close(got, wanted, within("float32", UPDATES, 30, 100))


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
    assert np.allclose(moved[sgd != start], 0.2, rtol=within("float64", 20, 500), atol=0)
    first = np.abs(train("adam", 0.1, updates=1, settings={"epsilon": 1e-300})[0] - start)
    # Kingma & Ba 2015: a first step of lr in every direction
    assert np.allclose(first[sgd != start], 0.1, rtol=within("float64", 20, 500), atol=0)


# From the least to the greatest number --------------------------------------------------------------------------------


def spread(dtype):
    """Return numbers of both signs from the least to the greatest."""
    limits = np.finfo(dtype)
    root = np.sqrt(limits.max)  # whose square is the last one
    sizes = [limits.smallest_subnormal, limits.tiny, limits.tiny**0.5, 1, root, 4 * root, limits.max / 2, limits.max]
    return np.array([0, *sizes, *np.negative(sizes)], dtype)


def run_updates(optimizer, ds, lr):
    """Return what each of some gradients of one dtype makes of a theta of 0.5, and the slots after it."""
    dtype = ds[0].dtype
    slots = np.zeros((1, len(optimizer.slots), ds[0].size), dtype)
    settings = np.array(list(optimizer.settings.values()), dtype).reshape(1, -1, 1)
    update = build_update(optimizer.update, slots.shape[1], settings.shape[1])
    counts, stands = np.zeros(1, np.int64), np.zeros(1, np.bool_)
    for d in ds:
        theta = np.full((1, d.size), 0.5, dtype)
        update(theta, d[None], slots, np.array([lr], dtype), settings, counts, stands)
        yield theta[0], slots[0].copy()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("of_lr", ["least", "tiny", "usual", "1", "greatest"])
def test_gradients_from_the_least_to_the_greatest_number_are_followed_as_defined_and_never_make_nan(
    optimizer, dtype, of_lr
):
    """All triples of gradients one after the other; at learning rates of up to 1 theta stays finite."""
    limits = np.finfo(dtype)
    lr = {"least": limits.smallest_subnormal, "tiny": limits.tiny, "usual": 1e-3, "1": 1, "greatest": limits.max}
    lr = np.dtype(dtype).type(lr[of_lr])
    ds = np.array(list(itertools.product(spread(dtype), repeat=3)), dtype).T.copy()
    tolerance, state = within(dtype, 1, 1, 100), None
    with np.errstate(all="ignore"):
        for n, (theta, slots) in enumerate(run_updates(load("optimizers", optimizer), list(ds), lr), start=1):
            start = np.full_like(theta, 0.5)
            wanted, state = naive.OPTIMIZERS[optimizer](start, ds[n - 1], state, lr, n)
            assert wanted.dtype == dtype
            assert np.isfinite(slots).all()
            assert not np.isnan(theta).any()
            assert np.isfinite(theta).all() or of_lr == "greatest"
            for got, right in zip((theta, *slots), (wanted, *state), strict=True):
                # A number beside the end of the range may round beyond it on one side alone.
                end = limits.max * (1 - tolerance)
                alike = (got == right) | ((abs(got) >= end) & (abs(right) >= end) & (np.sign(got) == np.sign(right)))
                alike |= abs(got - right) <= tolerance * abs(right) + 4 * limits.smallest_subnormal
                # What was cancelled on the way: rounding of the slot before, or of the gradient.
                alike |= abs(got - right) <= tolerance * abs(right - got.dtype.type(0.5)) + 4 * limits.eps
                assert alike.all(), (ds[:n, ~alike][:, :3], got[~alike][:3], right[~alike][:3])


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_moment_that_would_overflow_is_the_greatest_number_and_comes_back(dtype):
    greatest, zero = np.finfo(dtype).max, np.zeros(1, dtype)
    huge = np.full(1, greatest, dtype)
    for name, slot, decay in (("rmsprop", 0, 0.99), ("adam", 1, 0.999)):
        (_, first), (_, second), _ = run_updates(load("optimizers", name), [huge, zero, zero], 0.1)
        assert first[slot] == greatest
        assert second[slot] == near(decay * greatest, dtype)
    *_, (_, slots) = run_updates(load("optimizers", "momentum"), [huge, huge, zero], 0.1)
    assert slots[0] == near(0.9 * greatest, dtype)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_gradient_that_is_not_finite_is_not_made_so(optimizer, bad):
    """Policy "keep" keeps it: theta shows what came."""
    ((theta, _),) = run_updates(load("optimizers", optimizer), [np.full(1, bad)], 0.1)
    assert not np.isfinite(theta).any()


@nf.unit
def average(kept, before, now):
    return kept * before + (scalars.ONE - kept) * now


OWN = types.ModuleType("own")
OWN.average = average


@nf.unit
def own_inline(theta, d, slots, lr, settings, n):
    square = settings[0] * slots[0] + (scalars.ONE - settings[0]) * d * d
    return theta - lr * d / (scalars.sqrt(square) + settings[1]), (square,)


@nf.unit
def own_with_helper(theta, d, slots, lr, settings, n):
    square = average(settings[0], slots[0], d * d)
    return theta - lr * d / (scalars.sqrt(square) + settings[1]), (square,)


@nf.exact_unit
def own_with_module(theta, d, slots, lr, settings, n):
    square = OWN.average(settings[0], slots[0], d * d)
    return theta - lr * d / (scalars.sqrt(square) + settings[1]), (square,)


def own_with_closure():
    mean = average

    @nf.exact_unit
    def update(theta, d, slots, lr, settings, n):
        square = mean(settings[0], slots[0], d * d)
        return theta - lr * d / (scalars.sqrt(square) + settings[1]), (square,)

    return update


OWN_UPDATES = {
    "inline": own_inline, "helper": own_with_helper, "module": own_with_module, "closure": own_with_closure(),
}  # fmt: skip


@pytest.mark.parametrize("of", OWN_UPDATES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_an_optimizer_of_ones_own_stays_as_written_however_its_parts_were_compiled(of, dtype):
    """A square of Inf, and so a step of 0, as NumPy has it; regrouped, it was NaN."""
    own = nf.Optimizer(("square",), OWN_UPDATES[of], {"decay": 0.9, "epsilon": 1e-8})
    huge, one = np.full(40, np.finfo(dtype).max, dtype), np.ones(40, dtype)
    (_, _), (theta, slots), (again, _) = run_updates(own, [one, huge, one], 0.1)
    assert np.isinf(slots).all()
    assert np.array_equal(theta, np.full_like(theta, 0.5))
    assert np.array_equal(again, theta)


def leave_of(update, slots, settings):
    """Return the words of leave to regroup in the code of a loop, compiled here and not taken from the disk."""
    options = {name: value for name, value in update.targetoptions.items() if name != "nopython"}
    anew = numba.njit(**options)(update.py_func)
    rows = np.ones((1, 8))
    counts, stands = np.zeros(1, np.int64), np.zeros(1, np.bool_)
    anew(rows, rows.copy(), np.ones((1, slots, 8)), np.ones(1), np.full((1, settings, 1), 0.5), counts, stands)
    (llvm,) = anew.inspect_llvm().values()
    assert "fmul" in llvm
    return {"reassoc", "contract", "arcp", "afn", "fast"} & set(llvm.split())


@pytest.mark.skipif(not JIT, reason="nothing is compiled")
@pytest.mark.parametrize("of", [*OPTIMIZERS, *OWN_UPDATES])
def test_no_operation_of_an_update_may_be_regrouped(of):
    slots, settings = 1, 2
    if of in OPTIMIZERS:
        optimizer = load("optimizers", of)
        slots, settings = len(optimizer.slots), len(optimizer.settings)
    unit = optimizer.update if of in OPTIMIZERS else OWN_UPDATES[of]
    assert not leave_of(build_update(unit, slots, settings), slots, settings)


@pytest.mark.skipif(not JIT, reason="nothing is compiled")
def test_the_test_above_would_see_a_unit_as_it_was_compiled(monkeypatch):
    monkeypatch.setattr("nbflow.cpu.update.exactly", lambda update: update)
    for unit in OWN_UPDATES.values():
        assert "reassoc" in leave_of(build_update.__wrapped__(unit, 1, 2), 1, 2)


def test_training_goes_on_after_a_gradient_whose_square_overflows():
    """The policy for gradients that are not finite does not see it, and theta and what follows are finite."""
    net = nf.Network("relu", 1, 8, 1, loss="square")
    theta = nf.init(net, "identity", rng=0)
    nf.unpack(net, theta).w_rec[...] *= 1.6

    def sample(update):
        steps = 85 if update == 3 else 20
        weights = np.zeros((steps, 4), "f4")
        weights[-1] = 0.25
        inputs = np.random.default_rng(update).uniform(0, 1, (steps, 4, 1)).astype("f4")
        return nf.Batch(inputs, np.zeros((steps, 4, 1), "f4"), weights)

    for optimizer in ("adam", "rmsprop"):
        recipe = nf.Recipe(
            optimizer=optimizer, lr=1e-3, clip=nf.Clip("norm", np.inf, "skip"), max_updates=8, record_every=1
        )
        run = nf.train(net, theta, sample, recipe)
        assert 1e19 < run.history["norm"][3] < np.inf
        assert np.isfinite(run.theta).all()


@pytest.mark.parametrize("name", ["adam", "rmsprop"])
def test_where_torchs_moment_is_infinite_for_good_ours_comes_back(name):
    """After a gradient of 1e25 in float32 torch's steps are 0, by rmsprop and by adam, at every later update."""
    torch = pytest.importorskip("torch")
    ds = [np.full(1, value, np.float32) for value in (1.0, 1e25, *[1.0] * 3)]
    x = torch.tensor([0.5], requires_grad=True)
    build = {"rmsprop": torch.optim.RMSprop, "adam": torch.optim.Adam}
    theirs = build[name]([x], lr=0.1)
    path = []
    for d in ds:
        x.grad = torch.from_numpy(d)
        theirs.step()
        path.append(x.item())
    assert path[1:] == path[:1] * 4
    slot = theirs.state[x]["square_avg" if name == "rmsprop" else "exp_avg_sq"]
    assert torch.isinf(slot).all()
    *_, (_, slots) = run_updates(load("optimizers", name), ds, 0.1)
    assert np.isfinite(slots).all()


@pytest.mark.parametrize("name", ["adam", "rmsprop"])
def test_where_optaxs_moment_is_infinite_for_good_ours_comes_back(name):
    optax, jax = pytest.importorskip("optax"), pytest.importorskip("jax")
    ds = [np.full(1, value, np.float32) for value in (1.0, 1e25, *[1.0] * 3)]
    theirs = {"rmsprop": optax.rmsprop, "adam": optax.adam}[name](0.1)
    state, steps = theirs.init(jax.numpy.zeros(1)), []
    for d in ds:
        step, state = theirs.update(jax.numpy.asarray(d), state)
        steps.append(float(step[0]))
    assert steps[0] != 0
    assert not np.abs(steps[1:]).any()
    *_, (_, slots) = run_updates(load("optimizers", name), ds, 0.1)
    assert np.isfinite(slots).all()


def test_where_torchs_and_optaxs_velocity_is_infinite_for_good_ours_is_the_largest_number(torch):
    """Two gradients of 3e38 in float32: theirs takes theta to -Inf and leaves it there, ours comes back."""
    optax, jax = pytest.importorskip("optax"), pytest.importorskip("jax")
    ds = [np.full(1, value, np.float32) for value in (3e38, 3e38, *[1.0] * 3)]
    x = torch.tensor([0.5], requires_grad=True)
    theirs, transformation = torch.optim.SGD([x], lr=1e-40, momentum=0.9), optax.sgd(1e-40, momentum=0.9)
    state = transformation.init(jax.numpy.zeros(1))
    for d in ds:
        x.grad = torch.from_numpy(d)
        theirs.step()
        _, state = transformation.update(jax.numpy.asarray(d), state)
    assert torch.isinf(theirs.state[x]["momentum_buffer"]).all()
    assert np.isinf(jax.tree.leaves(state)).any()
    *_, (theta, slots) = run_updates(load("optimizers", "momentum"), ds, 1e-40)
    assert np.isfinite(theta).all()
    assert 0 < slots[0, 0, 0] < np.finfo(np.float32).max


def train_once(case, optimizer, settings):
    """What has no meaning in any dtype is refused as the recipe is made, the rest as it is used."""
    recipe = nf.Recipe(optimizer=optimizer, settings=settings, max_updates=1)
    return nf.train(case.net, case.theta, lambda update: case.batch, recipe)


@pytest.mark.parametrize(
    "optimizer, settings, dtype, said",
    [
        ("adam", {"beta_1": 1}, "float64", r"settings\['beta_1'\] is 1.0, in float64 1; .* at least 0 and below 1\."),
        ("adam", {"beta_2": 1 - 1e-9}, "float32", r"in float32 1; expected a number at least 0 and below 1"),
        ("adam", {"beta_1": -0.1}, "float64", "expected a number at least 0 and below 1"),
        ("adam", {"epsilon": 0}, "float64", r"expected a number above 0\. The usual one is 1e-08"),
        ("adam", {"epsilon": 1e-60}, "float32", r"in float32 0; expected a number above 0"),
        ("rmsprop", {"decay": 1.5}, "float64", "expected a number at least 0 and below 1"),
        ("rmsprop", {"epsilon": 0.0}, "float32", "expected a number above 0"),
    ],
)
def test_settings_under_which_an_optimizer_has_no_meaning_are_refused(optimizer, settings, dtype, said):
    case = make_case("tanh", "square", "dense", "all", T=3, B=2, H=3, dtype=dtype)
    with pytest.raises(ValueError, match=said):
        train_once(case, optimizer, settings)


@pytest.mark.parametrize("optimizer, settings", [("adam", {"beta_1": 0, "beta_2": 0}), ("rmsprop", {"decay": 0})])
@pytest.mark.parametrize("dtype", DTYPES)
def test_settings_at_the_ends_of_what_is_allowed_leave_theta_finite(optimizer, settings, dtype):
    for least in (float(np.finfo(dtype).tiny), 1e-8):
        found = load("optimizers", optimizer)
        one = nf.Optimizer(found.slots, found.update, {**found.settings, **settings, "epsilon": least})
        ds = [np.array([0, 1e-30, 1, 1e30, -1], dtype) for _ in range(3)]
        for theta, slots in run_updates(one, ds, 0.1):
            assert np.isfinite(theta).all()
            assert np.isfinite(slots).all()
