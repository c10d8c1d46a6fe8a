"""Claims about `Recipe(project=...)`: what is done to parameters after every update, and who sees them when."""

import dataclasses
import functools

import naive
import numpy as np
import pytest
from cases import OPTIMIZERS, make_case, make_replicas
from tolerance import assert_close, same_bits, within

import nbflow as nf
from nbflow.scalars import ZERO

UPDATES = 5
CASES = [make_case("gru", "square", "dense", "ragged", T=4, B=3, N=2, H=4, M=2, seed=60 + k) for k in range(UPDATES)]
NET, START = CASES[0].net, CASES[0].theta
SIGNS = np.array([1.0, 1.0, -1.0, -1.0])[:, None, None]


def dale(params):
    """Units 0 and 1 excite, 2 and 3 inhibit."""
    params.w_rec[SIGNS[:, 0, 0] > 0] = np.maximum(params.w_rec[SIGNS[:, 0, 0] > 0], 0)
    params.w_rec[SIGNS[:, 0, 0] < 0] = np.minimum(params.w_rec[SIGNS[:, 0, 0] < 0], 0)


@nf.unit
def dale_unit(w, i, g, j):
    return max(w, ZERO) if i < 2 else min(w, ZERO)


def bounded(params, most=0.5):
    """Shrink w_out to a Frobenius norm."""
    norm = np.linalg.norm(params.w_out)
    if norm > most:
        params.w_out[...] *= most / norm


def trained(project, cases=CASES, **choices):
    called = {name: choices.pop(name) for name in ("callbacks", "checkpoint", "backend") if name in choices}
    recipe = nf.Recipe(project=project, **{"lr": 0.1, "max_updates": len(cases), "record_every": 1, **choices})
    return nf.train(cases[0].net, cases[0].theta, lambda update: cases[update].batch, recipe, **called)


def by_hand(project, optimizer):
    theta, state = START.astype(np.float64), None
    for update, case in enumerate(CASES):
        _, d = naive.gradient(theta, *case.sizes, NET.loss, case.plain)
        theta, state = naive.OPTIMIZERS[optimizer](theta, d, state, 0.1, update + 1)
        project(nf.unpack(NET, theta))
    return theta


@pytest.mark.sim
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("project", [dale, bounded, functools.partial(bounded, most=0.1)], ids=["dale", "bound", "own"])
def test_five_updates_are_those_of_naive_training_that_projects_after_each(project, optimizer):
    run = trained(project, optimizer=optimizer)
    assert_close(run.theta, by_hand(project, optimizer), 100 * within("float64", UPDATES, 30))
    assert not same_bits(run.theta, trained(None, optimizer=optimizer).theta)


@pytest.mark.sim
def test_a_unit_a_function_and_what_a_function_returns_are_one_projection():
    def returned(params):
        found = nf.Params(*(part.copy() for part in params))
        dale(found)
        return found

    def flat(params):
        theta = nf.pack(NET, params)
        dale(nf.unpack(NET, theta))
        return theta

    whole = trained(dale).theta
    for project in ({"w_rec": dale_unit}, returned, flat):
        assert same_bits(trained(project).theta, whole)


@nf.unit
def place(w, i, g, j):
    return 100 * i + 10 * g + j + 0 * w


@pytest.mark.sim
@pytest.mark.parametrize("cell", ["gru", "tanh"])
def test_a_unit_is_given_the_place_of_each_entry_as_params_have_it(cell):
    case = make_case(cell, "square", "dense", T=2, B=2, N=2, H=3, M=2)
    run = trained(dict.fromkeys(nf.Params._fields, place), [case])
    for name, block in zip(nf.Params._fields, nf.unpack(case.net, run.theta), strict=True):
        shape = case.net.shapes[name]
        if name in ("w_in", "w_rec"):
            wanted = np.fromfunction(lambda i, g, j: 100 * i + 10 * g + j, shape)
        elif name == "w_out":
            wanted = np.fromfunction(lambda i, j: 100 * i + j, shape)
        else:
            wanted = np.fromfunction(lambda *at: 10 * at[0] + at[1] if len(at) == 2 else at[0], shape)
        assert np.array_equal(block, wanted), name


@pytest.mark.sim
def test_a_unit_of_one_number_is_of_the_blocks_it_is_named_for():
    @nf.unit
    def positive(w):
        return max(w, ZERO)

    params = nf.unpack(NET, trained({"w_in": positive, "b_out": positive}).theta)
    assert min(params.w_in.min(), params.b_out.min()) >= 0
    assert min(params.w_rec.min(), params.w_out.min()) < 0


@pytest.mark.sim
@pytest.mark.parametrize("project", [dale, {"w_rec": dale_unit}], ids=["function", "unit"])
def test_callbacks_and_evaluations_see_what_is_projected(project, monkeypatch):
    seen, task = [], nf.load_task("temporal_order")
    net = nf.Network("tanh", task.n_in, 4, task.n_out)
    theta = nf.init(net, "orthogonal", rng=0)
    keep = lambda run: seen.append(run.theta)  # noqa: E731
    recipe = nf.Recipe(lr=0.5, lengths=10, max_updates=4, record_every=1, evaluate_every=2, evaluate_size=10,
                       project=project)  # fmt: skip
    usual = nf.training._loop.Evaluator.score
    monkeypatch.setattr(
        nf.training._loop.Evaluator,
        "score",
        lambda self, rows, *more: (seen.append(rows[0].copy()), usual(self, rows, *more))[1],
    )
    nf.train(net, theta, task, recipe, callbacks=[keep])
    assert len(seen) == 6
    for one in seen:
        w_rec = nf.unpack(net, one).w_rec
        assert w_rec[:2].min() >= 0 >= w_rec[2:].max()
    assert nf.unpack(net, theta).w_rec[:2].min() < 0, "it began elsewhere"


@pytest.mark.sim
@pytest.mark.parametrize("kind", ["function", "unit"])
def test_each_replica_is_projected_by_itself_as_it_would_be_alone(kind):
    net, theta, batch, _, _ = make_replicas("tanh", R=3, T=3, B=2, H=4)
    project = {"function": lambda params: (dale(params), bounded(params))[0], "unit": {"w_rec": dale_unit}}[kind]
    recipe = nf.Recipe("momentum", lr=0.3, max_updates=4, project=project)
    many = nf.train(net, theta, lambda update: batch, recipe).theta
    for r in range(3):
        one = nf.Batch(*(part[r] for part in batch))
        assert same_bits(many[r], nf.train(net, theta[r], lambda update, one=one: one, recipe).theta)


@pytest.mark.sim
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_replica_that_takes_no_step_is_not_projected():
    net, theta, batch, _, _ = make_replicas("tanh", R=2, T=3, B=2, H=4)
    targets, weights = batch.targets.copy(), batch.weights.copy()
    weights[1] *= 1e300
    if targets.dtype.kind == "f":
        targets[1] = 1e200
    with np.errstate(all="ignore"):
        recipe = nf.Recipe(lr=0.3, max_updates=2, clip=nf.Clip("norm", 1.0, "skip"), project=dale)
        run = nf.train(net, theta, lambda update: batch._replace(targets=targets, weights=weights), recipe)
    assert run.history["nonfinite"][-1] == [0, 2]
    assert same_bits(run.theta[1], theta[1])
    assert not same_bits(run.theta[0], theta[0])


@pytest.mark.sim
def test_a_projection_has_the_last_word_on_what_is_held():
    run = trained(dale, trainable={"w_rec": False})
    wanted = START.copy()
    dale(nf.unpack(NET, wanted))
    assert same_bits(nf.unpack(NET, run.theta).w_rec, nf.unpack(NET, wanted).w_rec)


# ----------------------------------------------------------------------------------------------------- runs that go on


@pytest.mark.sim
@pytest.mark.parametrize(
    "project", [dale, {"w_rec": dale_unit}, functools.partial(bounded, most=0.1)], ids=["function", "unit", "partial"]
)
def test_a_run_goes_on_to_the_same_bits_and_belongs_to_its_projection(project, tmp_path):
    path = tmp_path / "run.npz"
    trained(project, optimizer="adam", checkpoint=path, callbacks=[lambda run: run.updates == 2])
    assert same_bits(
        trained(project, optimizer="adam", checkpoint=path).theta, trained(project, optimizer="adam").theta
    )
    for other in (None, functools.partial(bounded, most=0.2)):
        with pytest.raises(ValueError, match="another training: project"):
            trained(other, optimizer="adam", checkpoint=path)


@pytest.mark.sim
@pytest.mark.parametrize("threshold", [1.0, "percentile"])
def test_what_it_raises_ends_the_training_before_that_update_and_carries_the_run(threshold, tmp_path):
    def fail(params):
        calls.append(1)
        params.w_out[...] = 7.0
        if len(calls) == 3 and broken:
            raise KeyError("mine")

    path, calls, broken, clip = tmp_path / "run.npz", [], [True], nf.Clip("norm", threshold)
    with pytest.raises(KeyError, match="mine") as caught:
        trained(fail, optimizer="adam", clip=clip, checkpoint=path)
    assert caught.value.run.updates == nf.load_run(path).updates == 2
    assert same_bits(caught.value.run.theta, nf.load_run(path).theta)
    broken.clear()
    gone_on = trained(fail, optimizer="adam", clip=clip, checkpoint=path)
    whole = trained(fail, optimizer="adam", clip=clip)
    assert same_bits(gone_on.theta, whole.theta)
    assert gone_on.history["threshold"] == whole.history["threshold"]


# --------------------------------------------------------------------------------------------------------- the boundary


def rooted(params):
    params.w_out[0, 0] = np.nan


@nf.unit
def rooted_unit(w):
    return (w - w) / (w - w)


@pytest.mark.sim
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(
    ("project", "said"),
    [
        (
            lambda params: params.w_rec,
            r"project returns an array of shape \(4, 3, 4\) and dtype float64; expected \(\d+",
        ),
        (lambda params: params._replace(w_rec=params.w_rec[0]), r"project returns w_rec of shape \(3, 4\)"),
        (lambda params: params._replace(b_out=params.b_out.astype("f4")), r"b_out of shape .* dtype float32; expected"),
        (lambda params: nf.pack(NET, params)[:-1], r"project returns an array of shape"),
        (lambda params: 3, "project returns 3; expected an array, Params or None"),
        (lambda params: params._replace(bias=[1.0]), r"project returns bias \[1.0\]; expected an array"),
        (rooted, "project makes NaN or Inf of finite numbers in w_out"),
        ({"w_rec": rooted_unit}, "project makes NaN or Inf of finite numbers in w_rec"),
    ],
)
def test_what_it_returns_is_held_to_shape_dtype_and_finiteness_and_all_is_undone(project, said):
    with pytest.raises((TypeError, ValueError), match=f"(?s){said}.*projection of update 0") as caught:
        trained(project, optimizer="momentum")
    assert caught.value.run.updates == 0
    assert same_bits(caught.value.run.theta, START)


@pytest.mark.sim
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("dale", "project is 'dale'; expected a function of Params, or units by block"),
        (3, "project is 3"), ({"w_rc": dale_unit}, "project has 'w_rc'; expected some of: w_in.*Write w_rec"),
        ({"w_rec": 3}, r"project\['w_rec'\] is 3; expected a unit"),
        ({"w_rec": nf.unit(lambda w, i: w)}, r"project\['w_rec'\] has 2 arguments; expected a unit, project\(w\)"),
    ],
)  # fmt: skip
def test_what_is_no_projection_is_refused_as_the_recipe_is_made(given, said):
    with pytest.raises((TypeError, ValueError), match=said):
        nf.Recipe(project=given)


def test_a_bare_unit_and_a_plain_function_for_a_unit_are_refused_with_what_to_write():
    with pytest.raises(TypeError, match=r"project is a unit; .*Write project=\{'w_rec': dale_unit\}"):
        nf.Recipe(project=dale_unit)
    with pytest.raises(TypeError, match=r"project\['w_rec'\] is .*Write @nbflow.unit above"):
        nf.Recipe(project={"w_rec": dale})


TABLE = np.ones(3)
TABLE.flags.writeable = False


def test_a_unit_that_reads_an_array_may_raise_or_returns_no_number_is_refused():
    @nf.unit
    def read(w, i, g, j):
        return w * TABLE[i]

    @nf.unit
    def fails(w):
        if w > 0:
            raise ValueError
        return w

    @nf.unit
    def two(w):
        return w, w

    with pytest.raises(TypeError, match="reads the array TABLE"):
        nf.Recipe(project={"w_rec": read})
    for unit, said in ((fails, "Recipe.project may raise"), (two, r"Recipe.project returns \(float64, float64\)")):
        with pytest.raises(TypeError, match=said):
            trained({"w_rec": unit})


@pytest.mark.sim
@pytest.mark.gpu
def test_the_card_refuses_it_by_name():
    with pytest.raises(NotImplementedError, match=r"project is .*backend 'cuda' does not have it yet"):
        trained(dale, backend="cuda")


@pytest.mark.sim
def test_updates_of_a_loop_of_ones_own_project_the_same():
    update = nf.updater(NET, START, None, dataclasses.replace(nf.Recipe(lr=0.1), project=dale))
    for case in CASES:
        update(case.batch)
    assert same_bits(update.theta, trained(dale).theta)


@nf.unit
def upwards(w):
    return max(w, ZERO)


def test_of_a_stack_a_unit_is_of_every_layer_and_a_function_is_given_one_record_a_layer():
    layers = [
        nf.Network(cell, n, h, 2, loss="square", dtype="float64") for cell, n, h in (("gru", 2, 3), ("tanh", 3, 4))
    ]
    net, rng = nf.Stack(layers), np.random.default_rng(4)
    theta = rng.normal(size=net.size) / 2

    def write(records):
        for params in records:
            params.w_rec[...] = np.maximum(params.w_rec, 0)

    def returned(records):
        return tuple(params._replace(w_rec=np.maximum(params.w_rec, 0)) for params in records)

    ends = []
    for project in ({"w_rec": upwards}, write, returned):
        recipe = nf.Recipe(lr=0.1, max_updates=3, project=project)
        ends.append(nf.train(net, theta, lambda update: CASES[update].batch, recipe).theta)
        assert all(params.w_rec.min() == 0 for params in nf.unpack(net, ends[-1]))
        assert same_bits(ends[-1], ends[0])
