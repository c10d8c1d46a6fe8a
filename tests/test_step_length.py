"""Claims about `Clip(..., length=)`: how long random steps are, apart from the threshold that brings them about."""

from __future__ import annotations

import dataclasses
import math

import naive
import numpy as np
import pytest
from cases import DTYPES
from test_clipping import BLOCKS, NET, P, assert_report, direction_of, draw
from tolerance import assert_close, near, same_bits, within

import nbflow as nf
from nbflow import counter
from nbflow.training._identity import describe

BACKENDS = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.sim])]
TASK = nf.load_task("temporal_order")
SMALL = nf.Network("tanh", TASK.n_in, 3, TASK.n_out, dtype="float64")
ROWS = nf.init(SMALL, "glorot", rng=0, replicas=2)
RECIPE = nf.Recipe(lr=1.0, lengths=10, batch_size=2, max_updates=4, record_every=1, evaluate_every=0)
NINETY = nf.load_threshold("percentile", percent=90)


def unit_vector(seed, replica, update, size):
    """Return the direction of a random step of a training: Box and Muller's normals of its counter stream."""
    normals = []
    for n in range((size + 3) // 4):
        words = naive.draw(seed, counter.DIRECTION, replica, update, 0, n)
        for w0, w1 in (words[:2], words[2:]):
            radius = math.sqrt(-2 * math.log((w0 + 1) / 2**32))
            normals += [radius * math.cos(math.tau * w1 / 2**32), radius * math.sin(math.tau * w1 / 2**32)]
    return np.array(normals[:size]) / naive.length(normals[:size])


def path_of(clip, theta=ROWS, seed=3, **choices):
    """Return theta before each update and after the last one, and the run."""
    path, backend = [theta], choices.pop("backend", "cpu")
    recipe = dataclasses.replace(RECIPE, clip=clip, **choices)
    run = nf.train(SMALL, theta, TASK, recipe, seed=seed, callbacks=[lambda run: path.append(run.theta)],
                   backend=backend)  # fmt: skip
    return np.array(path), run


# ----------------------------------------------------------------------------------------------------------- one clip


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("threshold, length", [(1e-3, 0.3), (0.5, 4.0), (0.5, 1e-8), (100.0, 0.3), (0.0, 2.0)])
def test_a_step_is_the_references_and_what_is_below_the_threshold_stays(threshold, length, backend):
    for seed in range(3):
        d = draw("float64", seed)
        done = nf.clip(NET["float64"], d, nf.Clip("random", threshold, length=length), rng=seed, backend=backend)
        wanted = naive.clip("random", d, max(threshold, 1e-300), direction=direction_of(seed), step=length)
        assert_close(done.d_theta, wanted.d_theta, within("float64", 1, P))
        assert_report(done, d, "float64")
        assert done.fraction == wanted.fraction == (threshold < 100)
        if threshold == 100:
            assert same_bits(done.d_theta, d)


@pytest.mark.parametrize("dtype", DTYPES)
def test_it_goes_where_it_goes_without_a_length(dtype):
    d = draw(dtype)
    plain, own = (nf.clip(NET[dtype], d, nf.Clip("random", 0.5, length=length), rng=4) for length in (None, 0.125))
    assert same_bits(own.d_theta, plain.d_theta / 4), "a quarter of it, to the same bits"
    same = nf.clip(NET[dtype], d, nf.Clip("random", 0.5, length=0.5), rng=4)
    assert same_bits(tuple(same), tuple(plain))
    assert same_bits(tuple(plain), tuple(nf.clip(NET[dtype], d, nf.Clip("random", 0.5), rng=4)))
    assert own.cosine == near(plain.cosine, dtype)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the simulator's arithmetic with NaN
@pytest.mark.parametrize("rule", ["random", "norm", "value"])
def test_a_step_in_the_place_of_what_is_not_finite_has_the_length_too(rule, backend):
    """An infinite threshold is then none of its lengths."""
    d = draw("float64")
    d[3] = np.nan
    for threshold in (0.5, math.inf):
        done = nf.clip(NET["float64"], d, nf.Clip(rule, threshold, length=0.25), rng=2, backend=backend)
        wanted = naive.clip(rule, d, 0.5, direction=direction_of(2), step=0.25, blocks=BLOCKS)
        assert_close(done.d_theta, wanted.d_theta, within("float64", 1, P))
        assert done.clipped_norm == near(0.25, "float64", 1, P)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_is_left_of_a_gradient_without_its_bad_entries_is_stepped_for_as_long(backend):
    d = draw("float64")
    d[[0, 5]] = np.inf, np.nan
    done = nf.clip(NET["float64"], d, nf.Clip("random", 0.5, "zero", length=2.0), rng=2, backend=backend)
    assert_close(done.d_theta, 2.0 * direction_of(2), within("float64", 1, P))


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_replica_has_a_length_of_its_own(backend):
    d, lengths = np.stack([draw("float64", seed) for seed in (1, 2, 3)]), np.array([0.1, 1.0, 10.0])
    done = nf.clip(NET["float64"], d, nf.Clip("random", 0.5, length=lengths), rng=5, backend=backend)
    for r in range(3):
        assert_close(done.d_theta[r], lengths[r] * direction_of(5, r), within("float64", 1, P))


# ----------------------------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_update_of_a_training_steps_so_far_in_its_own_direction(backend):
    path, run = path_of(nf.Clip("random", 1e-3, length=[0.25, 0.5]), backend=backend)
    for update in range(4):
        for r, length in enumerate((0.25, 0.5)):
            step = path[update, r] - path[update + 1, r]
            wanted = length * unit_vector(3, r, update, SMALL.size)
            assert_close(step, wanted, within("float64", 1, SMALL.size, 100))  # of a difference
    assert run.history["clipped_norm"] == [[near(0.25, "float64", 1, P), near(0.5, "float64", 1, P)]] * 4
    assert run.history["threshold"] == [[1e-3, 1e-3]] * 4


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_threshold_that_follows_the_norms_says_when_and_not_how_far(backend):
    """Of the norms that come, those above the 90 % quantile of all so far; the others are steps as they are."""
    path, run = path_of(nf.Clip("random", NINETY, length=0.5), max_updates=8, backend=backend)
    norms, after = np.array(run.history["norm"]), np.array(run.history["clipped_norm"])
    above = norms > np.array([np.percentile(norms[: k + 1], 90, axis=0) for k in range(8)])
    assert 0 < above.sum() < above.size
    assert_close(after, np.where(above, 0.5, norms), within("float64", 1, SMALL.size))
    steps = np.linalg.norm(np.diff(path, axis=0), axis=2)
    assert_close(steps, after, within("float64", 1, SMALL.size, 100))


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_held_does_not_move_and_the_step_is_as_long(backend):
    mask = np.random.default_rng(0).random(SMALL.size) < 0.5
    path, _ = path_of(nf.Clip("random", 1e-3, length=0.5), trainable=mask, max_updates=1, backend=backend)
    moved = path[1] - path[0]
    assert ((moved != 0) == mask).all()
    assert list(np.linalg.norm(moved, axis=1)) == [near(0.5, "float64", 1, SMALL.size, condition=100)] * 2
    direction = np.where(mask, unit_vector(3, 0, 0, SMALL.size), 0.0)
    assert_close(-moved[0], 0.5 * direction / naive.length(direction), within("float64", 1, SMALL.size, 100))


def test_without_a_length_it_is_what_it_was_and_with_the_thresholds_the_same():
    plain, _ = path_of(nf.Clip("random", 0.25))
    for length in (None, 0.25):
        assert same_bits(path_of(nf.Clip("random", 0.25, length=length))[0], plain)


def test_a_run_that_was_interrupted_goes_on_to_the_same_bits(tmp_path):
    recipe = dataclasses.replace(RECIPE, clip=nf.Clip("random", NINETY, length=0.1), max_updates=9)
    whole = nf.train(SMALL, ROWS, TASK, recipe)
    file = tmp_path / "run.npz"
    nf.train(SMALL, ROWS, TASK, dataclasses.replace(recipe, max_updates=4), checkpoint=file)
    assert same_bits(nf.train(SMALL, ROWS, TASK, recipe, checkpoint=file).theta, whole.theta)
    for length in (None, 0.2):
        other = dataclasses.replace(recipe, clip=nf.Clip("random", NINETY, length=length))
        with pytest.raises(ValueError, match="length"):
            nf.train(SMALL, ROWS, TASK, other, checkpoint=file)


def test_a_rule_that_has_no_length_in_its_threshold_takes_random_steps_of_this_one():
    theta, clip = np.full_like(ROWS, np.nan), nf.Clip("spam", 5000.0, length=0.5)
    _, run = path_of(clip, theta, max_updates=1)
    assert run.history["nonfinite"] == [[1, 1]]
    with pytest.raises(ValueError, match=r"threshold is no length; .*or length="):
        path_of(nf.Clip("spam", 5000.0), theta)


# ------------------------------------------------------------------------------------------------- names and refusals


def test_a_clip_without_a_length_is_known_as_before():
    assert describe(nf.Clip("random", 1.0)) == {"rule": "random", "threshold": 1.0, "nonfinite": "random"}
    assert describe(nf.Clip("random", 1.0, length=[0.5, 1.0]))["length"] == [0.5, 1.0]
    assert describe(nf.Clip("random", 1.0, length=np.array([0.5, 1.0])))["length"] == [0.5, 1.0]
    one = nf.Experiment(TASK, dataclasses.replace(RECIPE, clip=nf.Clip("random", 1.0)))
    assert "recipe.clip.length" not in one.flat
    two = nf.grid(one, {"recipe.clip.length": [0.5, 1.0]})
    assert [each.flat["recipe.clip.length"] for each in two] == [0.5, 1.0]
    assert two[0].flat["recipe.clip"] == "Clip(rule=random, threshold=1.0, length=0.5)"


def test_a_sweep_trains_lengths_side_by_side_as_it_would_alone(tmp_path):
    base = nf.Experiment(TASK, dataclasses.replace(RECIPE, clip=nf.Clip("random", 0.1, length=0.5)), n_hidden=3)
    many = nf.grid(base, {"recipe.clip.length": [0.5, 1.0]})
    one, two = ({row["recipe.clip.length"]: row["theta_sha256"] for row in nf.sweep(
        many, 1, tmp_path / f"{size}.jsonl", code="", group_size=size).runs} for size in (1, 8))  # fmt: skip
    assert one == two
    assert len(set(one.values())) == 2


@pytest.mark.parametrize(
    "length, said",
    [(0.0, "above 0"), (-1.0, "above 0"), (np.inf, "finite"), (np.nan, "is NaN"), ("a", "is 'a'"), (True, "is True"),
     (lambda update: 1.0, "the same at every update"), ([], "has shape"), ([[1.0]], "has shape")],
    ids=["zero", "negative", "endless", "nan", "text", "flag", "function", "none", "table"],
)  # fmt: skip
def test_a_length_is_a_number_above_0(length, said):
    with pytest.raises((TypeError, ValueError), match=f"length .*{said}"):
        nf.Clip("random", 1.0, length=length)


def test_what_does_not_fit_the_network_is_refused():
    net, d = nf.Network("linear", 1, 1, 1, loss="square"), np.ones(5, "float32")
    with pytest.raises(ValueError, match=r"length is 1e\+300; expected one from .* float32"):
        nf.clip(net, d, nf.Clip("random", 1.0, length=1e300))
    with pytest.raises(ValueError, match=r"length has shape \(2,\); expected .* each of 1 replicas"):
        nf.clip(net, d, nf.Clip("random", 1.0, length=[1.0, 2.0]))
    with pytest.raises(ValueError, match=r"length has shape \(3,\); expected .* each of 2 replicas"):
        path_of(nf.Clip("random", 1.0, length=[1.0, 2.0, 3.0]))


def test_a_length_of_no_step_is_refused_by_name():
    how = nf.Clip("norm", 1.0, "skip", length=0.5)
    said = r"length is 0\.5 with rule 'norm' and nonfinite 'skip', which take no random steps; expected none"
    with pytest.raises(ValueError, match=said):
        nf.clip(NET["float64"], draw("float64"), how)
    with pytest.raises(ValueError, match=said):
        path_of(how)
    with pytest.raises(ValueError, match=r"length is 0\.5 and threshold is by block; expected no length there"):
        nf.Clip("block", {"w_rec": 1.0}, length=0.5)


def test_ways_of_clipping_are_told_apart_by_it():
    batches = [TASK.sample(seed=0, index=k, batch_size=2, length=10, dtype="float64") for k in range(3)]
    clips = [nf.Clip("random", 1e-3), nf.Clip("random", 1e-3, length=0.5)]
    found = nf.clipping_bias(SMALL, ROWS[0], batches, clips, resamples=9, rng=0)
    assert list(found.rules) == ["random 0.001", "random 0.001 length 0.5"]
