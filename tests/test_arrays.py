"""Claims about arrays of a user's own as a task: batches, epochs, parts, scores, and what is refused."""

from __future__ import annotations

import pickle

import naive
import numpy as np
import pytest
from tolerance import assert_close, same_bits, within

import nbflow as nf


def make(n=23, T=7, N=2, M=3, seed=0, **choices):
    """Return inputs (T, n, N) whose first number says which sequence it is, and classes (n,)."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(T, n, N)).astype("f4")
    inputs[:, :, 0] = np.arange(n)
    return inputs, rng.integers(0, M, n), choices


def drawn(task, index, B=4, seed=5, **choices):
    """Return which sequences a batch has."""
    return task.sample(seed=seed, index=index, batch_size=B, length=1, **choices).inputs[..., 0, :, 0].astype(int)


def test_an_epoch_has_every_sequence_once_whatever_the_batch_size():
    inputs, classes, _ = make()
    task = nf.arrays(inputs, classes, held_out=0.2)
    held = set(inputs[0, :, 0].astype(int)) - {int(k) for k in task.train.inputs[:, 0]}
    assert len(held) == 5
    assert task.epoch == 18
    seen = np.concatenate([drawn(task, k) for k in range(9)])  # two epochs of 18 in batches of 4
    for epoch in (seen[:18], seen[18:]):
        assert sorted(epoch) == sorted(set(range(23)) - held)
    assert list(seen[:18]) != list(seen[18:])


def test_a_batch_is_a_pure_function_of_seed_replica_and_index():
    inputs, classes, _ = make()
    task = nf.arrays(inputs, classes)
    many = drawn(task, 7, replicas=3)
    assert same_bits(many[0], drawn(task, 7))
    assert not same_bits(many[0], many[1])
    later = pickle.loads(pickle.dumps(task))
    drawn(later, 0)
    assert same_bits(drawn(later, 7, replicas=3), many)
    assert not same_bits(drawn(task, 7, seed=6), many[0])
    assert set(drawn(task, 0, stream="evaluation")) <= {int(k) for k in task.held_out.inputs[:, 0]}


def test_another_seed_holds_out_others_and_the_same_the_same():
    inputs, classes, _ = make()
    tasks = [nf.arrays(inputs, classes, seed=seed) for seed in (0, 0, 1)]
    assert tasks[0].identity() == tasks[1].identity() != tasks[2].identity()


def test_parts_share_no_sequence_and_lose_none():
    inputs, classes, _ = make()
    task = nf.arrays(inputs, classes, held_out=0.2, test=0.3)
    parts = [{int(k) for k in part.inputs[:, 0]} for part in (task.train, task.held_out, task.test.held_out)]
    assert [len(part) for part in parts] == [11, 5, 7]
    assert set.union(*parts) == set(range(23))


FORMS = {
    "time first": lambda x, y: nf.arrays(x, y, held_out=0.2),
    "batch first": lambda x, y: nf.arrays(
        x.swapaxes(0, 1), y if len(y) == 23 else y.swapaxes(0, 1), batch_first=True, held_out=0.2
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["classes at the end", "classes", "values at the end", "values"])
def test_a_batch_holds_what_the_arrays_hold(kind, form):
    rng = np.random.default_rng(1)
    inputs, classes, _ = make()
    targets = {
        "classes at the end": classes, "classes": rng.integers(0, 3, (7, 23)),
        "values at the end": rng.normal(size=(23, 2)).astype("f4"), "values": rng.normal(size=(7, 23, 2)).astype("f4"),
    }[kind]  # fmt: skip
    task = FORMS[form](inputs, targets)
    batch = task.sample(seed=0, index=0, batch_size=6, length=1)
    rows = batch.inputs[0, :, 0].astype(int)
    assert same_bits(batch.inputs, inputs[:, rows])
    at_end = "end" in kind
    if at_end:
        assert (batch.targets == targets[rows][None]).all()
        assert same_bits(batch.weights, np.repeat([[0.0]] * 6 + [[1 / 6]], 6, axis=1).astype("f4"))
    else:
        assert (batch.targets == targets[:, rows]).all()
        assert same_bits(batch.weights, np.full((7, 6), 1 / 42, "f4"))
    assert (task.loss, task.n_in, task.n_out) == (("softmax", 2, 3) if "classes" in kind else ("square", 2, 2))


def test_ragged_sequences_are_padded_with_weight_0_by_lengths_and_by_lists_alike():
    inputs, classes, _ = make()
    lengths = np.random.default_rng(2).integers(1, 8, 23)
    padded = inputs.copy()
    for k, steps in enumerate(lengths):
        padded[steps:, k] = np.nan  # padding is never looked at
    one = nf.arrays(np.nan_to_num(padded), classes, lengths=lengths)
    other = nf.arrays([inputs[:steps, k] for k, steps in enumerate(lengths)], classes)
    assert one.identity() == other.identity()
    batch = other.sample(seed=0, index=0, batch_size=5, length=1)
    rows = batch.inputs[0, :, 0].astype(int)
    assert [np.flatnonzero(column).tolist() for column in batch.weights.T] == [[n - 1] for n in lengths[rows]]
    every = nf.arrays([inputs[:n, k] for k, n in enumerate(lengths)], classes, loss_at="all")
    weights = every.sample(seed=0, index=0, batch_size=5, length=1).weights
    assert same_bits(
        weights, np.where(np.arange(len(weights))[:, None] < lengths[rows], 1 / lengths[rows].sum(), 0).astype("f4")
    )


@pytest.mark.parametrize("score", ["loss", "wrong"])
@pytest.mark.parametrize("loss_at", ["last", "all"])
def test_a_score_is_that_of_the_reference_over_all_that_is_held_out(loss_at, score):
    rng, lengths = np.random.default_rng(3), np.random.default_rng(2).integers(1, 8, 200)
    inputs = [rng.normal(size=(n, 2)) for n in lengths]
    classes = [rng.integers(0, 3, n) for n in lengths]
    task = nf.arrays(inputs, classes, loss_at=loss_at, held_out=0.4, score=score)
    net = nf.Network("tanh", task.n_in, 4, task.n_out, dtype="float64")
    theta = nf.init(net, "orthogonal", rng=0)
    p, part, found, count = naive.unpack(theta, "tanh", 2, 4, 3), task.held_out, 0.0, 0
    for start, stop in zip(part.starts[:-1], part.starts[1:], strict=True):
        x, target = part.inputs[start:stop, None], part.targets[start:stop, None]
        weights = np.zeros(target.shape)
        weights[-1 if loss_at == "last" else slice(None)] = 1
        y = naive.outputs(p, naive.forward(p, "tanh", x))
        wrong = (weights * (y.argmax(-1) != target)).sum()
        found += naive.loss("softmax", y, target, weights) if score == "loss" else wrong
        count += weights.sum()
    assert_close(nf.evaluate(net, theta, task), found / count, within("float64", 8, 400))
    other = task.scored_by("loss" if score == "wrong" else "wrong")
    assert other.unit != task.unit
    assert nf.evaluate(net, theta, other) != nf.evaluate(net, theta, task)


def test_a_network_learns_arrays_and_goes_on_from_its_checkpoint(tmp_path):
    rng = np.random.default_rng(4)
    x = rng.normal(size=(300, 6, 1)).astype("f4")
    y = (x.sum(axis=(1, 2)) > 0).astype(int)
    task = nf.arrays(x, y, batch_first=True, held_out=0.2, test=0.2)
    net = nf.Network("tanh", task.n_in, 10, task.n_out, loss=task.loss)
    recipe = nf.Recipe(lr=0.1, clip=nf.Clip("norm", 1.0), max_updates=400, evaluate_every=200)
    run = nf.train(net, nf.init(net, "orthogonal", rng=0), task, recipe, checkpoint=tmp_path / "run.npz")
    assert run.unit == "part wrong"
    assert run.evaluations["score"][-1] < 0.2 < task.trivial().score
    assert nf.evaluate(net, run.theta, task.test) < 0.25
    again = nf.train(net, nf.init(net, "orthogonal", rng=0), task, recipe, checkpoint=tmp_path / "run.npz")
    assert same_bits(again.theta, run.theta)
    other = nf.arrays(x, 1 - y, batch_first=True, held_out=0.2)
    with pytest.raises(ValueError, match="task"):
        nf.train(net, nf.init(net, "orthogonal", rng=0), other, recipe, checkpoint=tmp_path / "run.npz")
    found = nf.clipping_bias(net, run.theta, task, [nf.Clip("norm", 0.1)], length=6, rng=0, resamples=20)
    assert np.isfinite(found.rules["norm 0.1"].cosine.value)


def test_a_sweep_trains_on_arrays_in_processes_of_its_own(tmp_path):
    inputs, classes, _ = make(n=40)
    tasks = [nf.arrays(inputs, targets, held_out=0.2) for targets in (classes, (classes + 1) % 3)]
    base = nf.Experiment(tasks[0], nf.Recipe(max_updates=20, evaluate_every=20), n_hidden=5)
    swept = nf.sweep(nf.grid(base, {"task": tasks}), 2, tmp_path / "runs.jsonl", workers=1)
    assert not swept.failed
    assert len(swept.runs) == 4
    alone = nf.train(base.net, base.theta(0), tasks[0], base.recipe)
    assert alone.evaluations["score"][-1] == swept.runs[0]["score"]
    assert len({row["task.train"] for row in swept.runs}) == 2


def test_what_knows_no_input_reaches_the_trivial_score():
    inputs, _, _ = make(n=400)
    classes = np.random.default_rng(5).choice(3, 400, p=[0.7, 0.2, 0.1])
    wrong, nats = (nf.arrays(inputs, classes, score=score) for score in ("wrong", "loss"))
    most = np.bincount(wrong.train.targets).argmax()
    assert wrong.trivial().score == (wrong.held_out.targets != most).mean()
    net = nf.Network("tanh", 2, 3, 3, dtype="float64")
    theta = np.zeros(net.size)
    counts = np.bincount(nats.train.targets, minlength=3) + 1
    nf.unpack(net, theta).b_out[:] = np.log(counts / counts.sum())
    assert_close(nf.evaluate(net, theta, nats), nats.trivial().score, within("float64", 1, 400))
    values = nf.arrays(inputs, np.random.default_rng(6).normal(size=(400, 2)))
    square = nf.Network("tanh", 2, 3, 2, loss="square", dtype="float64")
    theta = np.zeros(square.size)
    nf.unpack(square, theta).b_out[:] = values.train.targets.mean(axis=0)
    assert_close(nf.evaluate(square, theta, values), values.trivial().score, within("float64", 1, 400))


def test_the_callers_arrays_can_change_afterwards():
    inputs, classes, _ = make()
    task = nf.arrays(inputs, classes)
    before = task.sample(seed=0, index=0, batch_size=4, length=1)
    inputs[:], classes[:] = 0, 0
    assert same_bits(tuple(task.sample(seed=0, index=0, batch_size=4, length=1)), tuple(before))


X, Y, _ = make()
REFUSED = [
    (lambda: nf.arrays(X.swapaxes(0, 1), Y), "write batch_first=True"),
    (lambda: nf.arrays(X, Y[:5]), "targets has 5 sequences; expected 23"),
    (lambda: nf.arrays(X[..., 0], Y), r"Add it: inputs\[\.\.\., None\]"),
    (lambda: nf.arrays(X.astype(int), Y), r"inputs.astype\(np.float32\)"),
    (lambda: nf.arrays(X, Y - 1), "targets has integers from -1"),
    (lambda: nf.arrays(X, Y.astype(float), loss="softmax"), r"targets.astype\(int\)"),
    (lambda: nf.arrays(X, Y, loss="square"), r"targets.astype\(np.float32\)"),
    (lambda: nf.arrays(X, X, loss="bernoulli"), "expected 0 to 1 for loss 'bernoulli'"),
    (lambda: nf.arrays(X, X, score="wrong"), "score is 'wrong' and targets are floats"),
    (lambda: nf.arrays(np.full_like(X, np.inf), Y), "inputs is inf"),
    (lambda: nf.arrays(X, Y, lengths=np.full(23, 8)), "expected 1 to T = 7"),
    (lambda: nf.arrays(X, Y, lengths=np.full(7, 8)), "write batch_first=True"),
    (lambda: nf.arrays(X, Y, held_out=0.9, test=0.5), "expected less than all of them"),
    (lambda: nf.arrays(X, Y, held_out=0), "held_out is 0"),
    (lambda: nf.arrays(X, Y, loss_at="end"), "loss_at is 'end'"),
    (lambda: nf.arrays(X, Y, loss_at=""), "loss_at is ''"),
    (lambda: nf.arrays(X, Y, score=""), "score is ''"),
    (lambda: nf.arrays(X, Y, test=np.zeros(2)), "test has shape"),
    (lambda: nf.arrays(X, np.zeros((9, 23), int)), "targets has 9 steps; expected 7"),
    (lambda: nf.arrays(X, np.zeros((5, 23), int)), "targets has 5 steps; expected 7"),
    (lambda: nf.arrays([X[:, 0], X[:, 1, :1]], Y[:2]), r"inputs\[1\] has shape"),
    (lambda: nf.arrays([X[:, 0], X[:0, 1]], Y[:2]), "none empty"),
    (lambda: nf.arrays([X[:, 0], X[:, 1]], [Y[:7], Y[:6]]), r"targets\[1\] has shape \(6,\)"),
    (lambda: nf.arrays(list(X), Y, lengths=Y), "Leave lengths out"),
    (lambda: nf.arrays([], []), "inputs is empty"),
    (lambda: nf.arrays(X.tolist(), Y), r"inputs\[0\] is a list"),
    (lambda: nf.arrays(X, Y, batch_first="yes"), "batch_first is 'yes'"),
    (lambda: nf.arrays(X[:, 0, 0], Y), "For one sequence"),
    (lambda: nf.arrays(X.astype(str), Y), "expected real numbers"),
    (lambda: nf.train(nf.Network("tanh", 2, 3, 3), np.zeros(30, "f4"), (X, Y), nf.Recipe()), "nbflow.arrays"),
]


@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_what_makes_no_task_is_refused_with_its_remedy(number):
    call, said = REFUSED[number]
    with pytest.raises((TypeError, ValueError), match=said) as caught:
        call()
    assert len(str(caught.value)) < 400
