"""A user's text and music as tasks: what is drawn, what is held out, and that training takes them like the others."""

from __future__ import annotations

import dataclasses
import importlib
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import naive
import numpy as np
import pytest
from scipy import stats
from tolerance import assert_close, by_chance, near, within

import nbflow as nf
from nbflow.data import (
    PianoRolls,
    PianoRollTask,
    Text,
    TextFiles,
    TextFilesTask,
    TextTask,
    evaluation_batches,
    read_piano_rolls,
    read_text,
)

FOLDER = Path(os.environ.get("NBFLOW_DATA", Path(__file__).parents[2] / "shared" / "data"))
FALSE_ALARM = 1e-6  # of each statistical test; their seeds are fixed, so they pass always or never
RECIPE = nf.Recipe(
    lr=0.5, batch_size=4, lengths=(5, 9), clip=nf.Clip("norm", 1.0), max_updates=6, record_every=2, evaluate_every=3
)


def text_of(size, letters=7, seed=0):
    rng = np.random.default_rng(seed)
    return Text(rng.integers(0, letters, size).astype(np.int32), tuple("abcdefghijklmnop"[:letters]))


def pieces_of(*frames, notes=5, seed=0):
    rng = np.random.default_rng(seed)
    return [(rng.random((count, notes)) < 0.3).astype(np.uint8) for count in frames]


def text_task():
    return text_of(1300).task(held_out=0.5)


def music_task():
    return PianoRollTask(pieces_of(3, 20, 11, 1), pieces_of(4, 13, 2, seed=1))


def files_task():
    sizes = (400, 2, 90, 311, 150, 48)
    return TextFilesTask(*(
        TextFiles(tuple("abcdef"), tuple(text_of(size, seed=seed + size).tokens for size in sizes), tuple("abcdefg"))
        for seed in (0, 1)
    ))  # fmt: skip


TASKS = {"text": text_task, "files": files_task, "music": music_task}
each_task = pytest.mark.parametrize("make", TASKS.values(), ids=TASKS)


def net_of(task, dtype="float32", cell="tanh"):
    return nf.Network(cell, task.n_in, 6, task.n_out, loss=task.loss, dtype=dtype)


def theta_of(net, replicas=None):
    return nf.init(net, "orthogonal", rng=0, replicas=replicas)


# --- What is drawn.


@pytest.mark.sim
@pytest.mark.parametrize(("stream", "purpose"), [("train", 0), ("evaluation", 1)])
def test_a_window_of_text_stands_where_the_counter_says(stream, purpose):
    task = text_task()
    line = (task.train if stream == "train" else task.held_out).tokens
    batch = task.sample(seed=2**40 + 1, index=3, batch_size=4, length=8, replicas=2, stream=stream, dtype="float64")
    assert batch.inputs.shape == batch.targets.shape == batch.weights.shape == (2, 8, 4)
    for r in range(2):
        for b in range(4):
            start = naive.below(naive.draw(2**40 + 1, purpose, r, 3, b, 0)[0], len(line) - 8)
            assert batch.inputs[r, :, b].tolist() == line[start : start + 8].tolist()
            assert batch.targets[r, :, b].tolist() == line[start + 1 : start + 9].tolist()
    assert (batch.weights == 1 / 32).all()


def test_windows_of_text_begin_anywhere_alike():
    """The text counts up, so that the first character of a window tells where it begins."""
    line = np.arange(60, dtype=np.int32)
    text = Text(line, tuple(chr(48 + k) for k in range(60)))
    batch = TextTask(text, text).sample(seed=5, index=0, batch_size=10_000, length=10)
    starts = np.bincount(batch.inputs[0], minlength=60)
    assert starts[50:].sum() == 0  # 49 is the last that leaves a character after its window
    assert stats.chisquare(starts[:50]).pvalue > FALSE_ALARM
    assert batch.targets.max() == 59


@pytest.mark.sim
@pytest.mark.parametrize(("stream", "purpose"), [("train", 0), ("evaluation", 1)])
def test_a_subsequence_of_music_is_the_one_that_the_counter_says(stream, purpose):
    task = music_task()
    pieces = task.train if stream == "train" else task.held_out
    spans = [(piece, k, min(k + 8, len(piece))) for piece in pieces for k in range(0, len(piece), 8)]
    batch = task.sample(seed=7, index=1, batch_size=5, length=8, replicas=2, stream=stream, dtype="float64")
    assert batch.inputs.shape == batch.targets.shape == (2, 8, 5, 5)
    for r in range(2):
        chosen = [spans[naive.below(naive.draw(7, purpose, r, 1, b, 0)[0], len(spans))] for b in range(5)]
        frames = sum(stop - start for _, start, stop in chosen)
        for b, (piece, start, stop) in enumerate(chosen):
            n = stop - start
            before = np.vstack([np.zeros((1, 5)), piece])  # frame t is predicted from the one before
            assert np.array_equal(batch.targets[r, :n, b], piece[start:stop])
            assert np.array_equal(batch.inputs[r, :n, b], before[start:stop])
            assert (batch.weights[r, :n, b] == 1 / frames).all()
            for part in batch:
                assert not part[r, n:, b].any()


def test_subsequences_of_music_are_drawn_alike():
    """Every piece is of one note of its own, so that a target tells where it comes from."""
    pieces = [np.eye(6, dtype=np.uint8)[[k] * 4] for k in range(6)]
    batch = PianoRollTask(pieces, pieces).sample(seed=3, index=0, batch_size=6000, length=4)
    assert stats.chisquare(batch.targets[0].sum(axis=0)).pvalue > FALSE_ALARM


@each_task
def test_a_replica_is_the_same_among_any_number_and_every_argument_matters(make):
    task = make()
    many = task.sample(seed=1, index=2, batch_size=5, length=9, replicas=4)
    for count in (1, 3):
        for few, whole in zip(task.sample(seed=1, index=2, batch_size=5, length=9, replicas=count), many, strict=True):
            assert np.array_equal(few, whole[:count])
    for part, whole in zip(task.sample(seed=1, index=2, batch_size=5, length=9), many, strict=True):
        assert np.array_equal(part, whole[0])
    where = ((1, 2, "train"), (2, 2, "train"), (1, 3, "train"), (1, 2, "evaluation"))
    others = [task.sample(seed=s, index=k, batch_size=5, length=9, stream=stream).targets for s, k, stream in where]
    others.append(many.targets[1])
    for i, one in enumerate(others):
        assert not any(np.array_equal(one, other) for other in others[:i])


@each_task
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_weights_of_a_batch_add_up_to_1_in_the_dtype_asked_for(make, dtype):
    batch = make().sample(seed=1, index=0, batch_size=7, length=9, replicas=3, dtype=dtype)
    assert batch.weights.dtype == dtype
    assert np.allclose(batch.weights.sum(axis=(1, 2)), 1, rtol=100 * np.finfo(dtype).eps)


def test_a_batch_of_music_is_no_longer_than_the_longest_piece():
    assert music_task().sample(seed=0, index=0, batch_size=2, length=500).weights.shape == (20, 2)


# --- What is held out.


@pytest.mark.parametrize("cell", ["tanh", "lstm"])
@pytest.mark.parametrize("size", [2, 60, 650, 20_000])
def test_held_out_text_is_measured_in_bits_per_character_of_streams_read_without_a_break(size, cell):
    task = TextTask(text_of(50), text_of(size, seed=1))
    net = net_of(task, "float64", cell)
    theta = theta_of(net)
    streams = min(max((size - 1) // 200, 1), 64)
    steps = (size - 1) // streams
    tokens = task.held_out.tokens
    inputs = np.stack([tokens[k * steps : (k + 1) * steps] for k in range(streams)], axis=1)
    targets = np.stack([tokens[k * steps + 1 : (k + 1) * steps + 1] for k in range(streams)], axis=1)
    whole = nf.Batch(inputs, targets, np.full(inputs.shape, 1 / inputs.size))
    wanted = naive.loss_of(theta, cell, net.n_in, 6, net.n_out, "softmax", whole) / np.log(2)
    assert_close(nf.evaluate(net, theta, task), wanted, within("float64", terms=size))


@pytest.mark.parametrize("count", [3, 70])
def test_held_out_music_is_measured_in_nats_per_frame_of_whole_pieces(count):
    pieces = pieces_of(*(1 + k % 9 for k in range(count)), seed=2)
    task = PianoRollTask(pieces_of(5), pieces)
    net = net_of(task, "float64")
    theta = theta_of(net)
    wanted = 0.0
    for batch in evaluation_batches(pieces, 1, dtype="float64"):
        wanted += naive.loss_of(theta, "tanh", 5, 6, 5, "bernoulli", batch)
    assert_close(nf.evaluate(net, theta, task), wanted, within("float64", terms=count * 9))


@each_task
def test_who_says_nothing_has_the_measure_of_chance(make):
    """Parameters of zero: every character alike, and every note with probability 1/2."""
    task = make()
    net = net_of(task, "float64")
    wanted = np.log2(task.n_out) if task.tokens else task.n_out * np.log(2)
    assert nf.evaluate(net, np.zeros(net.size), task) == near(wanted, "float64", 20, 500)


@each_task
def test_the_trivial_score_is_that_of_a_network_that_knows_frequencies_alone(make):
    """Its output biases are log frequencies, or log odds, and all else is 0."""
    task = make()
    net = net_of(task, "float64")
    theta = np.zeros(net.size)
    if task.tokens:
        tokens = np.concatenate(task.train.tokens) if isinstance(task, TextFilesTask) else task.train.tokens
        counts = np.bincount(tokens, minlength=task.n_in) + 1
        biases = np.log(counts / counts.sum())
    else:
        frames = np.concatenate(task.train)
        p = (frames.sum(axis=0) + 0.5) / (len(frames) + 1)
        biases = np.log(p / (1 - p))
    nf.unpack(net, theta).b_out[...] = biases
    measured = nf.evaluate(net, theta, task)
    unread = 1 / 200 if task.tokens else within("float64", 1, 1000)  # the few characters that no stream holds
    assert task.trivial().score == pytest.approx(measured, rel=unread)
    flipped = type(task)(task.held_out, task.train)
    assert abs(flipped.trivial().score / task.trivial().score - 1) > 1e-6
    batch = task.sample(seed=0, index=0, batch_size=3000, length=1, dtype="float64")
    assert task.trivial().loss == pytest.approx(nf.gradient(net, theta, batch).loss, rel=by_chance(3000))


@each_task
def test_replicas_are_measured_each_like_the_network_alone(make):
    task = make()
    net = net_of(task)
    theta = theta_of(net, 3)
    together = nf.evaluate(net, theta, task)
    assert together.tolist() == [nf.evaluate(net, row, task) for row in theta]
    assert len(set(together.tolist())) == 3


# --- Training.


@pytest.mark.sim
@each_task
def test_data_train_and_are_measured_like_a_task(make):
    task = make()
    net = net_of(task)
    how = dataclasses.replace(RECIPE, lengths=5)
    run = nf.train(net, theta_of(net), task, how, seed=4)
    source = lambda update: task.sample(seed=4, index=update, batch_size=4, length=5)  # noqa: E731
    again = nf.train(net, theta_of(net), source, how, seed=4)
    assert np.array_equal(run.theta, again.theta)
    assert run.history["loss"] == again.history["loss"]
    assert run.evaluations["update"] == [3, 6]
    assert run.evaluations["score"][-1] == nf.evaluate(net, run.theta, task)
    assert again.evaluations["score"] == []


@each_task
def test_data_train_with_replicas_lengths_and_omega_to_the_bits_of_each_alone(make):
    task = make()
    net = net_of(task)
    theta = theta_of(net, 2)
    how = dataclasses.replace(RECIPE, flow=nf.Flow("squared", 0.5))
    together, alone = nf.train(net, theta, task, how), nf.train(net, theta[0], task, how)
    assert np.array_equal(together.theta[0], alone.theta)
    assert [row[0] for row in together.evaluations["score"]] == alone.evaluations["score"]
    assert set(alone.history["length"]) <= set(range(5, 10))


def test_a_network_learns_a_text_that_repeats_and_not_one_of_chance():
    line = np.tile(np.arange(5, dtype=np.int32), 200)
    task = Text(line, tuple("abcde")).task(held_out=0.2)
    net = net_of(task)
    how = nf.Recipe(lr=0.5, lengths=20, clip=nf.Clip("norm", 1.0), max_updates=300, evaluate_every=300)
    assert nf.train(net, theta_of(net), task, how).evaluations["score"][-1] < 0.05 < task.trivial().score
    chance = text_of(1000, 5).task(held_out=0.2)
    assert nf.train(net, theta_of(net), chance, how).evaluations["score"][-1] > 2


def changed(task):
    """Return the same task but for one character or note."""
    if isinstance(task, PianoRollTask):
        parts = [np.array(part) for part in task.train]
        parts[0].flat[0] ^= 1
        return PianoRollTask(parts, task.held_out)
    if isinstance(task, TextTask):
        return TextTask(Text(task.train.tokens ^ (np.arange(task.train.tokens.size) == 0), task.train.vocabulary),
                        task.held_out)  # fmt: skip
    tokens = [part.copy() for part in task.train.tokens]
    tokens[3][5] ^= 1
    return TextFilesTask(task.train._replace(tokens=tuple(tokens)), task.held_out)


@each_task
def test_a_run_on_data_goes_on_from_a_checkpoint_to_the_same_bits_and_not_with_other_data(make, tmp_path):
    task = make()
    net = net_of(task)
    path = tmp_path / "run.npz"
    nf.train(net, theta_of(net), task, dataclasses.replace(RECIPE, max_updates=3), checkpoint=path)
    run = nf.train(net, theta_of(net), make(), RECIPE, checkpoint=path)
    whole = nf.train(net, theta_of(net), task, RECIPE)
    assert np.array_equal(run.theta, whole.theta)
    assert run.evaluations == whole.evaluations
    other = changed(task)
    with pytest.raises(ValueError, match=re.escape("task.train is")):
        nf.train(net, theta_of(net), other, RECIPE, checkpoint=path)


def test_the_bias_of_clipping_is_measured_on_data_held_out():
    task = text_task()
    net = net_of(task)
    found = nf.clipping_bias(net, theta_of(net), task, {"none": nf.Clip("norm", np.inf)}, length=6, count=5, rng=0)
    assert found.rules["none"].in_set.bias == 0


# --- Scores, their units, and what counts as solved.


class Perfect:
    """In place of what is held out: all of it is foreseen."""

    def __init__(self, engine, net, task):
        pass

    def score(self, theta, seed, index):
        return np.full(len(theta), 1e-4)


@pytest.mark.sim
@each_task
def test_no_score_of_data_is_solved_unless_it_is_said_and_then_any_number_may_be_the_bound(make, monkeypatch):
    monkeypatch.setattr(importlib.import_module("nbflow.training._loop"), "HeldOut", Perfect)
    task = make()
    net = net_of(task)
    run = nf.train(net, theta_of(net), task, RECIPE)
    assert run.evaluations["score"] == [1e-4, 1e-4]
    assert (run.first_passage, run.stays_below, run.recipe["solved_below"]) == (None, False, None)
    for bound, passed in ((1e-4, None), (1.001e-4, 3), (2.5, 3), (1e30, 3)):
        run = nf.train(net, theta_of(net), task, dataclasses.replace(RECIPE, solved_below=bound))
        assert (run.first_passage, run.stays_below, run.updates) == (passed, passed is not None, 6)
    run = nf.train(net, theta_of(net), task, dataclasses.replace(RECIPE, solved_below=2.5, stop_when_solved=True))
    assert run.updates == 3


@pytest.mark.sim
@each_task
def test_a_stop_that_would_never_come_is_refused_and_the_unit_asked_for(make):
    task = make()
    net = net_of(task)
    how = dataclasses.replace(RECIPE, stop_when_solved=True)
    said = f"solved_below is None and stop_when_solved True; expected a number of {task.unit}, .+ Give solved_below"
    with pytest.raises(ValueError, match=said):
        nf.train(net, theta_of(net), task, how)
    with pytest.raises(ValueError, match=said):
        nf.Experiment(task, how)


@pytest.mark.sim
@each_task
def test_a_run_says_what_its_scores_are_in(make, tmp_path):
    task = make()
    net = net_of(task)
    run = nf.train(net, theta_of(net), task, RECIPE, checkpoint=tmp_path / "run.npz")
    wanted = "bits per character" if task.tokens else "nats per frame"
    assert run.unit == task.unit == wanted == run.as_dict()["unit"] == nf.load_run(tmp_path / "run.npz").unit
    with ThreadPoolExecutor(1) as threads:
        one = nf.Experiment(task, RECIPE, n_hidden=6)
        (row,) = nf.sweep(one, 1, tmp_path / "runs.jsonl", executor=threads, progress=False).runs
    assert (row["unit"], row["score"]) == (wanted, row["evaluations"]["score"][-1])
    assert (row["recipe.solved_below"], row["first_passage"]) == (None, None)


# --- What is refused.


def test_windows_that_a_text_does_not_have_are_refused_before_the_first_update():
    task = TextTask(text_of(20), text_of(9))
    net = net_of(task)
    assert task.sample(seed=0, index=0, batch_size=1, length=19).inputs.shape == (19, 1)
    with pytest.raises(ValueError, match=r"length is 20, and train has 20 characters; expected .+\. Give"):
        task.sample(seed=0, index=0, batch_size=1, length=20)
    with pytest.raises(ValueError, match="held_out has 9 characters; expected"):
        task.sample(seed=0, index=0, batch_size=1, length=9, stream="evaluation")
    with pytest.raises(ValueError, match=r"length is 2[05], and train"):
        nf.train(net, theta_of(net), task, dataclasses.replace(RECIPE, lengths=(5, 25)))


@each_task
def test_data_without_a_unit_are_refused(make):
    task = make()
    task.unit = None
    with pytest.raises(TypeError, match=r"task is .+ has no unit; expected .+ Write unit"):
        nf.train(net_of(task), theta_of(net_of(task)), task, RECIPE)


@each_task
def test_data_have_no_length_to_be_measured_at_and_fit_their_own_network_alone(make):
    task = make()
    net = net_of(task)
    with pytest.raises(ValueError, match=r"length is 10; expected None for .+ Leave it out"):
        nf.evaluate(net, theta_of(net), task, length=10)
    other = nf.Network("tanh", task.n_in + 1, 6, task.n_out, loss=task.loss)
    with pytest.raises(ValueError, match=r"net has n_in=\d, .+; expected"):
        nf.train(other, theta_of(other), task, RECIPE)


@pytest.mark.parametrize(
    ("call", "kind", "said"),
    [
        (lambda: TextTask(np.arange(5), text_of(5)), TypeError, "train is a ndarray; expected a Text"),
        (lambda: TextTask(text_of(5), text_of(1)), ValueError, "held_out has 1 characters; expected at least 2"),
        (lambda: TextTask(text_of(50), text_of(50, 6)), ValueError, "vocabulary of 6 characters, .+ expected one"),
        (lambda: text_of(50).task(held_out=0), ValueError, r"held_out is 0.0; expected a number in \(0, 1\)"),
        (lambda: text_of(50).task(held_out="a"), TypeError, r"held_out is 'a'; expected a number in \(0, 1\)"),
        (lambda: PianoRollTask([], pieces_of(3)), ValueError, "train is empty; expected at least 1 piece"),
        (lambda: PianoRollTask(pieces_of(3), [3]), TypeError, r"held_out\[0\] is int; expected a \(T, N\) array"),
        (lambda: PianoRollTask(pieces_of(3), pieces_of(3, notes=4)), ValueError, "pieces of 4 notes; expected 5"),
        (lambda: PianoRolls((), (), ()).task("train"), ValueError, "held_out is 'train'; expected \"valid\" or"),
    ],
)  # fmt: skip
def test_what_makes_no_task_is_refused(call, kind, said):
    with pytest.raises(kind, match=said):
        call()


# --- Real data.


def real(name):
    path = FOLDER / name
    if not path.exists():
        pytest.skip(f"{name} is not there; NBFLOW_DATA names the folder with the real data")
    return path


def test_a_few_updates_on_shakespeare_beat_the_frequencies_of_characters():
    task = read_text(real("tinyshakespeare.txt")).task(held_out=0.02)
    net = nf.Network("tanh", task.n_in, 50, task.n_out)
    how = nf.Recipe("adam", lr=0.005, batch_size=32, lengths=40, clip=nf.Clip("norm", 1.0), max_updates=200,
                    evaluate_every=200)  # fmt: skip
    assert 4 < task.trivial().score < 5
    run = nf.train(net, nf.init(net, "orthogonal", rng=0), task, how)
    assert 2 < run.evaluations["score"][-1] < task.trivial().score - 0.5


def test_a_few_updates_on_chorales_beat_the_frequencies_of_notes():
    task = read_piano_rolls(real("jsb-chorales-quarter.json")).task()
    net = nf.Network("tanh", task.n_in, 50, task.n_out, loss=task.loss)
    how = nf.Recipe("adam", lr=0.01, lengths=50, clip=nf.Clip("norm", 1.0), max_updates=100, evaluate_every=100)
    run = nf.train(net, nf.init(net, "orthogonal", rng=0), task, how)
    assert 8 < run.evaluations["score"][-1] < task.trivial().score
    assert importlib.import_module("nbflow.data.tasks").PIECES < len(task.held_out) < 100
