"""Claims about `Recipe(carry=True)`: truncated back-propagation through time, the state carried through streams."""

from __future__ import annotations

import dataclasses
import hashlib
from concurrent.futures import ThreadPoolExecutor

import naive
import numpy as np
import pytest
from test_resume import assert_same, stopper
from tolerance import assert_close, same_bits, within

import nbflow as nf
from nbflow.data import PianoRollTask, Text, TextFiles, TextFilesTask, TextTask, text_batches
from nbflow.data.array_task import ArrayTask
from nbflow.data.sampler import DataTask
from nbflow.data.streams import Streams
from nbflow.storage import _checkpoint as checkpoint

B, L = 3, 5
RECIPE = nf.Recipe(
    lr=0.3, batch_size=B, lengths=L, clip=nf.Clip("norm", 1.0), max_updates=14, record_every=4, evaluate_every=5,
    carry=True,
)  # fmt: skip


def recipe(**changes):
    return dataclasses.replace(RECIPE, **changes)


class Seen:
    """A task that writes down which windows are read: streams, starts and steps (B,) of each."""

    def streams(self, batch_size):
        found = super().streams(batch_size)
        self.windows = []

        def write(batch, streams, starts, steps):
            found.write(batch, streams, starts, steps)
            self.windows.append((streams.copy(), starts.copy(), steps.copy(), nf.Batch(*map(np.copy, batch))))

        return found._replace(write=write)


class SeenText(Seen, TextTask):
    pass


class SeenFiles(Seen, TextFilesTask):
    pass


class SeenMusic(Seen, PianoRollTask):
    pass


class SeenArrays(Seen, ArrayTask):
    pass


def text(kind=TextTask, size=130):
    whole = Text(np.random.default_rng(0).integers(0, 4, size).astype(np.int32), tuple("abcd"))
    train, held_out = whole.split((0.6, 0.4))  # 78 characters: 25 predictions in each of 3 streams
    return kind(train, held_out)


def music(kind=PianoRollTask):
    rng = np.random.default_rng(1)
    pieces = [(rng.random((frames, 4)) < 0.4).astype(np.uint8) for frames in (3, 17, 10, 1, 8, 5)]
    return kind(pieces, pieces[1:3])


def files(kind=TextFilesTask):
    rng = np.random.default_rng(4)
    tokens = tuple(rng.integers(0, 4, size).astype(np.int32) for size in (4, 18, 11, 2, 9, 6))
    whole = TextFiles(tuple("abcdef"), tokens, tuple("wxyz"))
    return kind(whole, whole.select("[bc]"))


def arrays(kind=ArrayTask):
    rng = np.random.default_rng(2)
    lengths = (4, 23, 10, 6, 5, 12, 7)
    inputs = [rng.normal(size=(steps, 2)) for steps in lengths]
    made = nf.arrays(inputs, [x.cumsum(axis=0).cumsum(axis=1) for x in inputs], held_out=0.2)
    return kind(made.train, made.held_out, None, made.loss, False, "loss")


MAKES = {"text": text, "files": files, "music": music, "arrays": arrays}
SEEN = {"text": SeenText, "files": SeenFiles, "music": SeenMusic, "arrays": SeenArrays}
each = pytest.mark.parametrize("name", MAKES)


def net_of(task, cell="tanh", dtype="float32"):
    return nf.Network(cell, task.n_in, 6, task.n_out, task.loss, dtype)


def theta_of(net, replicas=None):
    return nf.init(net, "orthogonal", rng=0, replicas=replicas)


def trained(task, cell="tanh", dtype="float32", replicas=None, ids=None, seed=0, **changes):
    net = net_of(task, cell, dtype)
    return nf.train(net, theta_of(net, replicas), task, recipe(**changes), seed=seed, replica_ids=ids)


# --- What is computed.


def by_hand(task, net, theta, windows, step, gradient):
    """Return theta after a loop over windows that carries the state of each place of the batch, by what began anew."""
    state = np.zeros((B, len(net.cell_object.states), net.n_hidden), net.dtype)
    for update, (_, starts, steps, batch) in enumerate(windows):
        state[starts == 0] = 0
        d_theta, whole = gradient(theta, batch, state)
        theta = step(update, theta, d_theta)
        state = np.where((steps == len(batch.weights))[:, None, None], whole, state)
    return theta


@pytest.mark.sim
@each
def test_theta_is_that_of_a_loop_of_ones_own_to_the_bit(name):
    the_loop_is_training(name, "tanh", "float32", max_updates=7)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("cell", ["gru", "lstm"])
@each
def test_theta_is_that_of_a_loop_of_ones_own_to_the_bit_in_other_cells_and_dtypes(name, cell, dtype):
    the_loop_is_training(name, cell, dtype, optimizer="adam", lengths=(2, 9), max_updates=12)


@pytest.mark.parametrize(
    "how",
    [
        {"flow": nf.Flow("squared", 0.5)},
        {"flow": nf.Flow("norm", 0.5, derivative="exact")},
        {"clip_hidden": nf.HiddenClip(0.01)},
        {"clip_example": 0.05},
        {"flow": nf.Flow("norm_stabilizer", 0.5)},
    ],
    ids=["omega", "exact", "hidden", "example", "stabilizer"],
)
@each
def test_what_else_a_recipe_asks_for_sees_the_carried_state(name, how):
    the_loop_is_training(name, "tanh", "float64", how=how, max_updates=9)


def the_loop_is_training(name, cell, dtype, how=None, optimizer="sgd", **changes):
    task, how = MAKES[name](SEEN[name]), how or {}
    net = net_of(task, cell, dtype)
    run = nf.train(net, theta_of(net), task, recipe(optimizer=optimizer, **how, **changes))
    slots = None

    def gradient(theta, batch, state):
        out = nf.gradient(net, theta, batch, state=state, **how)
        return out.d_theta, out.state

    def step(update, theta, d_theta):
        nonlocal slots
        theta, slots = nf.apply_update(optimizer, theta, nf.clip(net, d_theta, RECIPE.clip).d_theta, 0.3, slots)
        return theta

    assert len(task.windows) == run.updates
    assert same_bits(run.theta, by_hand(task, net, theta_of(net), task.windows, step, gradient))


@pytest.mark.parametrize("cell", ["tanh", "lstm"])
@each
def test_theta_is_the_references(name, cell):
    task = MAKES[name](SEEN[name])
    net = net_of(task, cell, "float64")
    run = nf.train(net, theta_of(net), task, recipe(clip=None, lr=0.1))

    def gradient(theta, batch, state):
        p = naive.unpack(theta, net.cell, net.n_in, net.n_hidden, net.n_out)
        flow = naive.backward(p, net.cell, net.loss, tuple(batch), state)
        return naive.pack(flow.d_params), flow.states[-1]

    wanted = by_hand(task, net, theta_of(net), task.windows, lambda _, theta, d: theta - 0.1 * d, gradient)
    assert_close(run.theta - theta_of(net), wanted - theta_of(net), 10 * within("float64", 14 * L, 30))


def test_without_a_carried_state_or_with_a_gradient_through_the_border_theta_is_another():
    """The tests above could tell: states matter here, and so does where the gradient ends."""
    task = text(SeenText)
    net = net_of(task, dtype="float64")
    run = nf.train(net, theta_of(net), task, recipe(clip=None, max_updates=2))
    first, second = (batch for *_, batch in task.windows)
    at_zero, once = theta_of(net), nf.gradient(net, theta_of(net), first)
    at_zero = at_zero - 0.3 * once.d_theta
    at_zero = at_zero - 0.3 * nf.gradient(net, at_zero, second).d_theta
    both = nf.Batch(*map(np.concatenate, zip(first, second, strict=True)))
    whole = theta_of(net) - 0.3 * nf.gradient(net, theta_of(net), both).d_theta
    size = np.linalg.norm(run.theta - theta_of(net))
    for other in (at_zero, whole):
        assert np.linalg.norm(run.theta - other) > size / 1000


@pytest.mark.parametrize("cell", ["RNN", "LSTM"])
@each
def test_theta_is_that_of_torch_with_detach(torch, name, cell):
    """Of modules of torch's own, in its own loop; their second bias stands still, for ours have one."""
    task = MAKES[name](SEEN[name])
    net = net_of(task, {"RNN": "tanh", "LSTM": "lstm"}[cell], "float64")
    run = nf.train(net, theta_of(net), task, recipe(clip=None, lr=0.2, max_updates=11))
    losses = {
        "softmax": lambda y, t: torch.nn.functional.cross_entropy(y.movedim(-1, 1), t.long(), reduction="none"),
        "bernoulli": lambda y, t: torch.nn.functional.binary_cross_entropy_with_logits(y, t, reduction="none").sum(-1),
        "square": lambda y, t: ((y - t) ** 2).sum(-1),
    }
    rnn = getattr(torch.nn, cell)(net.n_in, net.n_hidden, dtype=torch.float64)
    linear = torch.nn.Linear(net.n_hidden, net.n_out, dtype=torch.float64)
    model = torch.nn.ModuleDict({"rnn": rnn, "linear": linear})
    weights = nf.to_torch(net, theta_of(net), rnn="rnn.", linear="linear.")
    model.load_state_dict({key: torch.tensor(value) for key, value in weights.items()})
    rnn.bias_hh_l0.requires_grad_(False)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.2)
    state = [torch.zeros(1, B, net.n_hidden, dtype=torch.float64) for _ in net.cell_object.states]
    for _, starts, steps, batch in task.windows:
        state = [part.detach().clone() for part in state]
        for part in state:
            part[:, starts == 0] = 0
        inputs, targets, counted = map(torch.tensor, batch)
        if task.tokens:
            inputs = torch.nn.functional.one_hot(inputs.long(), net.n_in).double()
        states, found = rnn(inputs, state[0] if cell == "RNN" else tuple(state))
        optimizer.zero_grad()
        (losses[task.loss](linear(states), targets) * counted).sum().backward()
        optimizer.step()
        state = [found] if cell == "RNN" else list(found)
        assert (starts + steps > 0).all()
    _, theta = nf.from_torch(model.state_dict())
    assert len(task.windows) == 11
    first = theta_of(net)
    assert_close(run.theta - first, theta - first, 10 * within("float64", 11 * L, 30))
    assert_close(run.theta, theta, within("float64", 11 * L, 30))


# --- What is read.


def test_a_text_is_read_as_text_batches_lay_it_out_and_begins_again():
    task = text(SeenText)
    run = trained(task, max_updates=11)
    wanted = list(text_batches(task.train.tokens, B, L)) * 3
    assert len(task.train.tokens) == 78
    for (streams, *_, batch), other in zip(task.windows, wanted, strict=False):
        assert streams.tolist() == [0, 1, 2]
        assert same_bits(tuple(batch), tuple(other))
    assert run.updates == len(task.windows) == 11


def test_the_last_window_of_a_text_is_what_is_left_of_it():
    task = text(SeenText)
    run = trained(task, lengths=7, record_every=1, max_updates=9)
    assert run.history["length"] == [7, 7, 7, 4, 7, 7, 7, 4, 7]
    assert [int(starts[0]) for _, starts, *_ in task.windows] == [0, 7, 14, 21, 0, 7, 14, 21, 0]


@pytest.mark.parametrize("lengths", [5, 1, 40, (2, 9)])
@pytest.mark.parametrize("name", ["files", "music", "arrays"])
def test_streams_are_read_from_beginning_to_end_and_once_an_epoch(name, lengths):
    task = MAKES[name](SEEN[name])
    sizes = task.streams(B).steps
    trained(task, lengths=lengths, max_updates=60, evaluate_every=0)
    begun, now = [], [None] * B
    for streams, starts, steps, batch in task.windows:
        assert len(batch.weights) == steps.max()
        for b in range(B):
            if now[b] is None:
                begun.append(int(streams[b]))
                now[b] = streams[b], 0
            assert (streams[b], starts[b]) == now[b]
            assert np.count_nonzero(batch.weights[:, b]) == steps[b] > 0
            end = starts[b] + steps[b]
            now[b] = None if end == sizes[streams[b]] else (streams[b], end)
        assert_close(batch.weights.sum(), 1.0, within("float32", terms=B * 40))
    count, epochs = len(sizes), len(begun) // len(sizes)
    assert epochs >= (1 if lengths == 1 else 3)
    orders = [tuple(begun[k * count : (k + 1) * count]) for k in range(epochs)]
    assert all(sorted(order) == list(range(count)) for order in orders)
    assert len(set(orders)) > 1 or epochs == 1


def test_a_window_of_music_and_of_arrays_is_a_piece_of_its_stream():
    for name, kind in (("music", SeenMusic), ("arrays", SeenArrays)):
        task = MAKES[name](kind)
        trained(task, max_updates=20)
        for streams, starts, steps, batch in task.windows:
            for b, (k, start, count) in enumerate(zip(streams, starts, steps, strict=True)):
                if name == "music":
                    piece = task.train[k]
                    before = np.concatenate([np.zeros_like(piece[:1]), piece])
                    inputs, targets = before[start : start + count], piece[start : start + count]
                else:
                    first = task.train.starts[k] + start
                    inputs, targets = (part[first : first + count] for part in (task.train.inputs, task.train.targets))
                assert np.array_equal(batch.inputs[:count, b], inputs.astype("f4"))
                assert np.array_equal(batch.targets[:count, b], targets.astype("f4"))


def test_a_window_of_a_file_is_a_piece_of_it_and_of_no_other():
    task = files(SeenFiles)
    trained(task, max_updates=20)
    for streams, starts, steps, batch in task.windows:
        for b, (k, start, count) in enumerate(zip(streams, starts, steps, strict=True)):
            tokens = task.train.tokens[k]
            assert batch.inputs[:count, b].tolist() == tokens[start : start + count].tolist()
            assert batch.targets[:count, b].tolist() == tokens[start + 1 : start + count + 1].tolist()
            assert start + count < len(tokens)
            assert not any(part[count:, b].any() for part in batch)


def test_one_class_of_a_whole_sequence_may_count_at_every_step():
    rng = np.random.default_rng(3)
    task = nf.arrays(rng.normal(size=(12, 9, 2)), rng.integers(0, 3, 9), loss_at="all")
    run = trained(task)
    assert np.isfinite(run.history["loss"]).all()
    assert run.updates == 14


@pytest.mark.parametrize("name", ["files", "music", "arrays"])
def test_order_depends_on_seed_and_replica_and_on_nothing_else(name):
    def order(seed, replica, **changes):
        task = MAKES[name](SEEN[name])
        trained(task, replicas=1, ids=[replica], seed=seed, max_updates=3, **changes)
        return task.windows[0][0].tolist()

    assert order(0, 0) == order(0, 0, lr=0.1, optimizer="adam")
    assert len({tuple(order(seed, replica)) for seed in range(3) for replica in range(3)}) > 3


# --- Replicas, checkpoints, branches.


@each
def test_a_replica_is_trained_as_it_would_be_alone(name):
    task = MAKES[name]()
    net = net_of(task, "lstm")
    theta = theta_of(net, 3)
    together = nf.train(net, theta, task, recipe(lengths=(3, 8)), replica_ids=[4, 0, 7])
    for r, number in enumerate([4, 0, 7]):
        alone = nf.train(net, theta[r : r + 1], task, recipe(lengths=(3, 8)), replica_ids=[number])
        assert same_bits(together.theta[r], alone.theta[0])
        assert [row[r] for row in together.evaluations["score"]] == [row[0] for row in alone.evaluations["score"]]


@pytest.mark.parametrize("replicas", [None, 2])
@pytest.mark.parametrize("at", [0, 1, 4, 5, 6, 13])
@each
def test_a_run_goes_on_from_a_checkpoint_to_the_same_bits(name, at, replicas, tmp_path):
    path, task = tmp_path / "run.npz", MAKES[name]()
    net = net_of(task)
    theta, how = theta_of(net, replicas), {"lengths": (3, 8), "optimizer": "adam"}
    cut = nf.train(net, theta, task, recipe(lr=stopper(at), **how), checkpoint=path)
    assert cut.interrupted
    assert cut.updates == at
    on = nf.train(net, theta, MAKES[name](), recipe(lr=stopper(-1), **how), checkpoint=path)
    assert_same(on, nf.train(net, theta, task, recipe(lr=stopper(-1), **how)))


@each
def test_a_checkpoint_has_the_state_and_the_place(name, tmp_path):
    path, task = tmp_path / "run.npz", MAKES[name](SEEN[name])
    net = net_of(task)
    nf.train(net, theta_of(net), task, recipe(max_updates=4), checkpoint=path)
    arrays, _ = checkpoint.read(path)
    streams, starts, steps, _ = task.windows[-1]
    ended = starts + steps == task.streams(B).steps[streams]
    assert arrays["carry/state/0"].shape == (1, B, 1, 6)
    assert np.array_equal(arrays["carry/state/0"].any(axis=(0, 2, 3)), ~ended)
    assert np.array_equal(arrays["carry/place"][0], np.where(ended, 0, starts + steps))
    assert np.array_equal(arrays["carry/stream"][0][~ended], streams[~ended])


@pytest.mark.parametrize(("field", "value"), [("stream", 10**6), ("stream", -1), ("place", 10**6), ("taken", -1)])
def test_a_checkpoint_with_a_place_that_is_none_is_refused(field, value, tmp_path):
    path, task = tmp_path / "run.npz", text()
    net = net_of(task)
    nf.train(net, theta_of(net), task, recipe(max_updates=4), checkpoint=path)
    arrays, facts = checkpoint.read(path)
    arrays[f"carry/{field}"][...] = value
    for place in (path, checkpoint.before(path)):
        place.unlink(missing_ok=True)
    checkpoint.save(path, arrays, facts)
    for how in ({"checkpoint": path}, {"start_from": path}):
        with pytest.raises(ValueError, match="no place in the streams"):
            nf.train(net, theta_of(net), task, RECIPE, **how)


def test_a_run_with_and_one_without_carry_do_not_go_on_from_each_other(tmp_path):
    path, task = tmp_path / "run.npz", text()
    net = net_of(task)
    nf.train(net, theta_of(net), task, recipe(max_updates=4), checkpoint=path)
    with pytest.raises(ValueError, match="carry is True there and False here"):
        nf.train(net, theta_of(net), task, recipe(carry=False), checkpoint=path)


@pytest.mark.parametrize("replicas", [None, 2])
@each
def test_a_branch_with_the_same_recipe_is_the_run_itself(name, replicas, tmp_path):
    path, task = tmp_path / "run.npz", MAKES[name]()
    net = net_of(task)
    theta, how = theta_of(net, replicas), {"lengths": (3, 8), "optimizer": "momentum"}
    nf.train(net, theta, task, recipe(max_updates=6, **how), checkpoint=path)
    on = nf.train(net, theta, task, recipe(**how), start_from=path)
    assert same_bits(on.theta, nf.train(net, theta, task, recipe(**how)).theta)


def test_a_branch_with_another_length_goes_on_where_the_other_run_is(tmp_path):
    path, task = tmp_path / "run.npz", text(SeenText)
    net = net_of(task)
    nf.train(net, theta_of(net), task, recipe(max_updates=3), checkpoint=path)
    nf.train(net, theta_of(net), task, recipe(max_updates=6, lengths=4, lr=0.1), start_from=path)
    assert [int(starts[0]) for _, starts, *_ in task.windows] == [15, 19, 23]


@pytest.mark.parametrize("change", ["batch_size", "task", "carry"])
def test_a_branch_of_other_streams_begins_at_their_beginnings_from_zeros(change, tmp_path):
    path, task = tmp_path / "run.npz", text(SeenText)
    net = net_of(task)
    former = {"batch_size": recipe(batch_size=2), "task": RECIPE, "carry": recipe(carry=False)}[change]
    other = text(size=170) if change == "task" else task
    before = nf.train(net, theta_of(net), other, dataclasses.replace(former, max_updates=3), checkpoint=path)
    branch = nf.train(net, theta_of(net), task, recipe(max_updates=4), start_from=path)
    assert [int(starts[0]) for _, starts, *_ in task.windows] == [0]
    out = nf.gradient(net, before.theta, task.windows[0][-1], state=np.zeros((B, 1, 6), "f4"))
    stepped, _ = nf.apply_update("sgd", before.theta, nf.clip(net, out.d_theta, RECIPE.clip).d_theta, 0.3)
    assert same_bits(branch.theta, stepped)


def test_an_update_that_is_refused_leaves_the_place_where_it_was(tmp_path):
    path, task = tmp_path / "run.npz", text(SeenText)
    net = nf.Network("linear", task.n_in, 6, task.n_out, dtype="float32")
    theta = theta_of(net) * np.float32(1e30)
    with pytest.raises(FloatingPointError):
        nf.train(net, theta, task, recipe(clip=nf.Clip("norm", 1.0, "raise")), checkpoint=path)
    arrays, _ = checkpoint.read(path)
    assert not arrays["carry/place"].any()
    assert not arrays["carry/state/0"].any()


def test_a_state_that_is_not_finite_begins_anew_and_the_others_do_not(tmp_path):
    """With NaN carried on, no gradient would be finite until the streams end."""
    tokens = np.zeros(60, np.int32)
    tokens[2:4] = 1  # in the first stream alone
    whole = Text(tokens, ("a", "b"))
    task = SeenText(whole, whole)
    net = nf.Network("linear", 2, 4, 2, dtype="float32")
    theta = theta_of(net)
    p = nf.unpack(net, theta)
    p.w_in[...] = 0
    p.w_in[1] = 3e38
    p.w_rec[:, 0] = 10 * np.eye(4)
    path = tmp_path / "run.npz"
    how = recipe(clip=nf.Clip("norm", 0.001, "skip"), max_updates=1, lr=0.001)
    run = nf.train(net, theta, task, how, checkpoint=path)
    assert run.history["nonfinite"] == [1]
    state = checkpoint.read(path)[0]["carry/state/0"]
    assert np.isfinite(state).all()
    again = nf.train(net, theta, task, dataclasses.replace(how, max_updates=2), checkpoint=path)
    assert again.history["nonfinite"] == [1, 0]


# --- Where it goes.


@pytest.mark.gpu
@pytest.mark.sim
@pytest.mark.parametrize(("name", "replicas"), [("text", None), ("music", 2)])
def test_the_card_carries_the_state_to_the_same_theta_and_goes_on_from_a_checkpoint(name, replicas, tmp_path):
    task = MAKES[name]()
    net = nf.Network("lstm", task.n_in, 3, task.n_out, task.loss, "float64")
    theta, path = theta_of(net, replicas), tmp_path / "run.npz"
    how = recipe(batch_size=2, lengths=(2, 3), max_updates=4, evaluate_every=0)
    run = nf.train(net, theta, task, how, backend="cuda")
    assert_close(run.theta - theta, nf.train(net, theta, task, how).theta - theta, 10 * within("float64", 12, 30))
    nf.train(net, theta, task, dataclasses.replace(how, max_updates=2), backend="cuda", checkpoint=path)
    assert same_bits(nf.train(net, theta, task, how, backend="cuda", checkpoint=path).theta, run.theta)


def test_evaluations_are_those_of_the_task_with_the_state_carried_through_a_held_out_text():
    task = text()
    run = trained(task, max_updates=10)
    assert run.evaluations["update"] == [5, 10]
    assert run.evaluations["score"][-1] == nf.evaluate(net_of(task), run.theta, task)
    assert task.carries


def test_a_sweep_trains_each_seed_as_alone(tmp_path):
    task = music()
    one = nf.Experiment(task, recipe(max_updates=6, evaluate_every=3), n_hidden=6, init="orthogonal")
    with ThreadPoolExecutor(1) as executor:
        runs = nf.sweep(one, 2, tmp_path / "runs.jsonl", executor=executor, progress=False).runs
    assert len(runs) == 2
    for row in runs:
        alone = nf.train(one.net, one.theta(row["seed"]), task, one.recipe, replica_ids=[row["seed"]])
        assert row["evaluations"]["score"] == alone.evaluations["score"]
        assert row["theta_sha256"] == hashlib.sha256(alone.theta.tobytes()).hexdigest()
        assert row["recipe.carry"] is True


@each
def test_an_updater_does_the_same_updates(name):
    task = MAKES[name]()
    net = net_of(task)
    update = nf.updater(net, theta_of(net), task, RECIPE)
    for _ in range(6):
        update()
    assert same_bits(update.theta, trained(task, max_updates=6).theta)


def test_a_calibration_looks_at_the_gradients_of_the_walk():
    task = text(SeenText)
    net = net_of(task)
    seen = nf.calibrate_threshold(net, theta_of(net), task, RECIPE, updates=3)
    assert len(task.windows) == len(seen.norms) == 3
    assert [int(starts[0]) for _, starts, *_ in task.windows] == [0, 5, 10]


# --- What is refused.


class Own(DataTask):
    """A task of a user's own with streams that are none."""

    n_in, n_out, loss, tokens, unit = 2, 2, "softmax", True, "nats"

    def __init__(self, answer):
        self.answer = answer

    def streams(self, batch_size):
        return self.answer


@pytest.mark.parametrize(
    ("task", "kind", "said"),
    [
        ("temporal_order", ValueError, "nothing to do with each other"),
        (lambda update: None, ValueError, "there is no task"),
        (nf.arrays(np.zeros((4, 9, 2)), np.zeros(9, int)), ValueError, "loss_at='all'"),
        (Own(None), ValueError, "nothing to do with each other"),
        (Own([3, 4]), TypeError, "expected Streams"),
        (Own(Streams(np.zeros(2), True, print)), TypeError, "integer steps"),
        (Own(Streams(np.array([3, 0]), True, print)), ValueError, "each 1 or more"),
    ],
)
def test_what_has_no_streams_is_refused_before_the_first_update(task, kind, said):
    net = nf.Network("tanh", 6, 5, 4) if task == "temporal_order" else nf.Network("tanh", 2, 5, 2)
    if isinstance(task, nf.data.array_task.ArrayTask):
        net = net_of(task)
    with pytest.raises(kind, match=said):
        nf.train(net, theta_of(net), task, RECIPE)


def test_an_experiment_on_a_task_without_streams_is_refused_as_it_is_made():
    with pytest.raises(ValueError, match="the task is a synthetic one"):
        nf.Experiment("temporal_order", RECIPE)


def test_more_streams_than_a_text_has_characters_are_refused():
    with pytest.raises(ValueError, match="batch_size is 100"):
        trained(text(), batch_size=100)


@pytest.mark.parametrize("value", [1, "yes", None])
def test_carry_is_true_or_false(value):
    with pytest.raises(TypeError, match="carry is"):
        nf.Recipe(carry=value)


@each
def test_held_and_projected_parameters_go_with_it_and_on_from_a_checkpoint(name, tmp_path):
    task, path = MAKES[name](), tmp_path / "run.npz"
    net = net_of(task)
    how = recipe(trainable={"w_rec": False}, project=halved)
    run = nf.train(net, theta_of(net), task, how)
    before, after = (nf.unpack(net, theta) for theta in (theta_of(net), run.theta))
    assert same_bits(before.w_rec, after.w_rec)
    assert not same_bits(before.w_in, after.w_in)
    assert np.abs(after.w_in).max() <= np.float32(0.5)
    nf.train(net, theta_of(net), task, dataclasses.replace(how, max_updates=5), checkpoint=path)
    assert same_bits(nf.train(net, theta_of(net), task, how, checkpoint=path).theta, run.theta)


def halved(p):
    """Keep w_in between -1/2 and 1/2."""
    p.w_in[...] = np.clip(p.w_in, -0.5, 0.5)


# --- Stacks.


@each
def test_a_stack_carries_the_state_of_every_layer_and_goes_on_from_a_checkpoint(name, tmp_path):
    task, path = MAKES[name](SEEN[name]), tmp_path / "run.npz"
    net = nf.Stack([nf.Network("lstm", task.n_in, 5, 2), nf.Network("gru", 5, 4, task.n_out, task.loss)])
    theta = nf.init(net, "glorot", rng=0)
    run = nf.train(net, theta, task, RECIPE)
    step, states = theta, None
    for _, starts, _, batch in task.windows:
        if states is None:
            states = [np.zeros((B, len(layer.cell_object.states), layer.n_hidden), "f4") for layer in net.layers]
        for layer in states:
            layer[starts == 0] = 0
        out = nf.gradient(net, step, batch, state=tuple(states))
        step, _ = nf.apply_update("sgd", step, nf.clip(net, out.d_theta, RECIPE.clip).d_theta, 0.3)
        states = list(out.state)
    assert same_bits(run.theta, step)
    nf.train(net, theta, task, recipe(max_updates=6), checkpoint=path)
    assert same_bits(nf.train(net, theta, task, RECIPE, checkpoint=path).theta, run.theta)
