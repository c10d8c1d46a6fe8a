"""Texts in several files: which are read, what is cut where, what is measured, and what they are known by."""

from __future__ import annotations

import importlib
import re
import shutil
from concurrent.futures import ThreadPoolExecutor

import naive
import numpy as np
import pytest
from tolerance import assert_close, within

import nbflow as nf
from nbflow.data import Text, TextFiles, TextFilesTask, read_text, read_text_files
from nbflow.experiments.experiment import key_of

TEXTS = {"part1.txt": "abc", "part2.txt": "cab \n", "part10.txt": "ü€a"}


def written(folder, texts):
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def many(folder, count=10, size=60):
    rng = np.random.default_rng(0)
    letters = np.array(list("abcd"))
    return written(folder, {f"{k}.txt": "".join(letters[rng.integers(0, 4, size + k)]) for k in range(count)})


def decoded(files):
    return [Text(tokens, files.vocabulary).decode(tokens) for tokens in files.tokens]


# --- What is read.


def test_files_of_a_folder_come_in_natural_order_and_share_a_vocabulary(tmp_path):
    written(tmp_path, TEXTS | {"notes.md": "no", ".part3.txt": "hidden", ".git/part4.txt": "hidden"})
    files = read_text_files(tmp_path)
    assert files.names == ("part1.txt", "part2.txt", "part10.txt")
    assert decoded(files) == [*TEXTS.values()]
    assert files.vocabulary == tuple(sorted(set("".join(TEXTS.values()))))
    assert all(tokens.dtype == np.int32 for tokens in files.tokens)
    assert read_text_files(tmp_path, "*.md").names == ("notes.md",)


def test_a_pattern_looks_into_folders_and_a_hidden_one_stays_closed(tmp_path):
    written(tmp_path, {"b/2.txt": "x", "b/10.txt": "y", "a.txt": "z", "b/.c/1.txt": "hidden", ".d/1.txt": "hidden"})
    assert read_text_files(tmp_path, "**/*.txt").names == ("a.txt", "b/2.txt", "b/10.txt")
    assert read_text_files(tmp_path).names == ("a.txt",)
    assert read_text_files(tmp_path, "b/*").names == ("b/2.txt", "b/10.txt")


def test_a_list_keeps_its_order_and_one_file_is_a_list_of_it(tmp_path):
    written(tmp_path, TEXTS)
    paths = [tmp_path / "part2.txt", str(tmp_path / "part1.txt")]
    assert decoded(read_text_files(paths)) == ["cab \n", "abc"]
    assert decoded(read_text_files(tuple(paths))) == ["cab \n", "abc"]
    assert read_text_files(paths[1]).names == ("part1.txt",)
    assert decoded(read_text_files(paths[1])) == ["abc"]


def test_joined_files_are_the_text_of_one_file_that_holds_them_all(tmp_path):
    files = read_text_files(written(tmp_path, TEXTS))
    for between in ("", "\n\n", "|", "a"):
        whole = tmp_path / "whole"
        whole.write_text(between.join(TEXTS.values()), encoding="utf-8")
        one, other = files.joined(between), read_text(whole)
        assert one.tokens.tolist() == other.tokens.tolist()
        assert one.vocabulary == other.vocabulary


def test_a_byte_order_mark_of_any_file_is_no_character_of_it(tmp_path):
    files = read_text_files(written(tmp_path, {"1.txt": b"\xef\xbb\xbfab", "2.txt": b"b\xef\xbb\xbf"}))
    assert decoded(files) == ["ab", "b\ufeff"]


@pytest.mark.parametrize(
    ("texts", "path", "arguments", "said"),
    [
        ({}, ".", {}, r"folder: is an empty folder; expected"),
        ({"a.md": "x", "b/c.txt": "y"}, ".", {}, r"holds no file that fits '\*\.txt', but 1 others and 1 folders;"),
        ({"a.txt": ""}, ".", {}, r"a\.txt: is empty; expected"),
        ({"a.txt": b"\xef\xbb\xbf"}, ".", {}, r"a\.txt: holds a byte order mark and no characters"),
        ({"1.txt": "ok", "2.txt": b"abc\xe9t\xe9"}, ".", {}, r"2\.txt: byte 0xe9 at offset 3 is not UTF-8"),
        ({"a.txt": "abc", "b.txt": "defg"}, ".", {"max_bytes": 6}, r"b\.txt: has 4 bytes, and the files before it 3; "),
        ({"a.txt": "abcdefg"}, ".", {"max_bytes": 6}, r"a\.txt: has 7 bytes; expected at most max_bytes = 6"),
        ({"a.txt": "x"}, ".", {"pattern": "../*.txt"}, r"pattern is '\.\./\*\.txt'; expected one for names inside"),
        ({"a.txt": "x"}, ".", {"pattern": "/etc/*"}, r"pattern is '/etc/\*'; expected"),
        ({"a.txt": "x"}, ".", {"pattern": ""}, r"pattern is ''; expected"),
        ({"a.txt": "x"}, ["a.txt", "a.txt"], {}, r"a\.txt: is given twice, as path\[0\] and path\[1\]"),
        ({"b/a.txt": "x"}, ["b"], {}, r"b: is a folder; expected a file"),
        ({}, [], {}, "path is an empty list; expected at least 1 file"),
    ],
    ids=lambda value: None,
)  # fmt: skip
def test_what_cannot_be_read_is_refused_by_name(tmp_path, texts, path, arguments, said):
    folder = tmp_path / "folder"
    folder.mkdir()
    written(folder, texts)
    where = [folder / one for one in path] if isinstance(path, list) else folder / path
    with pytest.raises(ValueError, match=said) as caught:
        read_text_files(where, **arguments)
    assert len(str(caught.value)) < 400


def test_what_is_no_path_or_pattern_is_refused(tmp_path):
    with pytest.raises(TypeError, match=r"path is int; expected a str or an os\.PathLike"):
        read_text_files(3)
    with pytest.raises(TypeError, match=r"path\[1\] is int; expected"):
        read_text_files([tmp_path / "a", 3])
    with pytest.raises(TypeError, match="pattern is 3; expected a str"):
        read_text_files(tmp_path, 3)
    with pytest.raises(FileNotFoundError, match=r"missing: no such file; expected"):
        read_text_files(tmp_path / "missing")


# --- Parts.


def test_whole_files_are_held_out_drawn_from_what_is_in_them(tmp_path):
    task = read_text_files(many(tmp_path / "one")).task(held_out=0.3, seed=1)
    assert isinstance(task, TextFilesTask)
    assert (len(task.train.names), len(task.held_out.names)) == (7, 3)
    assert not set(task.train.names) & set(task.held_out.names)
    assert task.train.names == tuple(sorted(task.train.names, key=lambda name: int(name[:-4])))
    seeds = {read_text_files(tmp_path / "one").task(held_out=0.3, seed=seed).held_out.names for seed in range(6)}
    assert len(seeds) > 2
    # Under other names, in another order, the same texts are held out.
    others = written(tmp_path / "two", {f"{90 - int(path.stem)}.txt": path.read_bytes()
                                        for path in (tmp_path / "one").iterdir()})  # fmt: skip
    again = read_text_files(others).task(held_out=0.3, seed=1)
    assert {*decoded(again.held_out)} == {*decoded(task.held_out)}


def test_the_end_of_every_file_may_be_held_out(tmp_path):
    files = read_text_files(many(tmp_path))
    task = files.task(held_out=0.25, by="within")
    assert task.train.names == task.held_out.names == files.names
    for whole, train, rest in zip(files.tokens, task.train.tokens, task.held_out.tokens, strict=True):
        assert np.concatenate([train, rest]).tolist() == whole.tolist()
        assert len(train) == round(len(whole) * 0.75)


def test_some_files_are_chosen_by_name_with_the_vocabulary_of_all(tmp_path):
    files = read_text_files(written(tmp_path, {"train/1.txt": "ab", "train/2.txt": "abc", "test/1.txt": "xy"}), "*/*")
    train, test = files.select("train/*"), files.select("test/*")
    assert (train.names, test.names) == (("train/1.txt", "train/2.txt"), ("test/1.txt",))
    assert train.vocabulary == test.vocabulary == tuple("abcxy")
    assert repr(TextFilesTask(train, test)) == "TextFilesTask(2 files of 5 characters, 1 held out of 2)"


@pytest.mark.parametrize(
    ("call", "kind", "said"),
    [
        (lambda f: f.task(held_out=0.9999), ValueError, "held_out is 0.9999 of 4 files, 4 of them; .*by='within'"),
        (lambda f: f.select("1.txt").task(), ValueError, "of 1 files, 1 of them; expected some to train on"),
        (lambda f: f.task(held_out=1.5), ValueError, "held_out is 1.5; expected a part"),
        (lambda f: f.task(by="word"), ValueError, "by is 'word'; expected one of file, within"),
        (lambda f: f.task(held_out=0.1, by="within"), ValueError, r"held_out has \d characters of 1\.txt"),
        (lambda f: f.task(seed=-1), ValueError, "seed is -1"),
        (lambda f: f.select("z*"), ValueError, r"pattern is 'z\*' and fits none of 4 names; .*'1\.txt'"),
        (lambda f: f.select(3), TypeError, "pattern is 3; expected a str"),
        (lambda f: f.joined(3), TypeError, "between is 3; expected a str"),
        (lambda f: TextFilesTask(f.joined(), f), TypeError, r"train is a Text; expected TextFiles.*text\.task\(\)"),
        (lambda f: TextFilesTask(f, f._replace(vocabulary=(*f.vocabulary, "z"))), ValueError, "has a vocabulary of 4"),
        (lambda f: TextFilesTask(f, TextFiles((), (), f.vocabulary)), ValueError, "held_out has no files"),
    ],
    ids=lambda value: None,
)  # fmt: skip
def test_what_makes_no_parts_is_refused(tmp_path, call, kind, said):
    files = read_text_files(written(tmp_path, {f"{k}.txt": "abc" * k for k in (1, 2, 3, 4)}))
    with pytest.raises(kind, match=said):
        call(files)


# --- What is drawn.


def ragged(*sizes, seed=0):
    rng = np.random.default_rng(seed)
    tokens = tuple(rng.integers(0, 5, size).astype(np.int32) for size in sizes)
    return TextFiles(tuple(map(str, range(len(sizes)))), tokens, tuple("abcde"))


@pytest.mark.sim
@pytest.mark.parametrize(("stream", "purpose"), [("train", 0), ("evaluation", 1)])
def test_a_window_stands_where_the_counter_says_in_one_file(stream, purpose):
    task = TextFilesTask(ragged(30, 2, 9, 11, 5), ragged(40, 7, seed=1))
    files = (task.train if stream == "train" else task.held_out).tokens
    length = 8
    # Every place of every file, by a list: a file that is too short for a window has one.
    places = [(k, start) for k, line in enumerate(files) for start in range(max(len(line) - length, 1))]
    batch = task.sample(seed=2**40 + 1, index=3, batch_size=9, length=length, replicas=2, stream=stream)
    short = 0
    for r in range(2):
        windows = [places[naive.below(naive.draw(2**40 + 1, purpose, r, 3, b, 0)[0], len(places))] for b in range(9)]
        lines = [files[k][start : start + length + 1].tolist() for k, start in windows]
        for b, line in enumerate(lines):
            steps = len(line) - 1
            short += steps < length
            assert batch.inputs[r, :steps, b].tolist() == line[:-1]
            assert batch.targets[r, :steps, b].tolist() == line[1:]
            assert not any(part[r, steps:, b].any() for part in batch)
        counted = sum(len(line) - 1 for line in lines)
        assert_close(batch.weights[r].sum(dtype=float), 1.0, within("float32", terms=counted))
        assert len(set(batch.weights[r][batch.weights[r] > 0].tolist())) == 1
    assert short


def test_a_batch_is_no_longer_than_the_longest_file():
    task = TextFilesTask(ragged(5, 12), ragged(7))
    assert task.sample(seed=0, index=0, batch_size=2, length=500).weights.shape == (11, 2)


# --- What is measured.


@pytest.mark.parametrize("cell", ["tanh", "lstm"])
@pytest.mark.parametrize("stretch", [12, 6400])
@pytest.mark.parametrize("sizes", [(9,), (31, 2, 8, 15, 17, 3, 3, 40)], ids=["one", "ragged"])
def test_every_file_held_out_is_measured_whole_and_from_zeros(sizes, stretch, cell, monkeypatch):
    module = importlib.import_module("nbflow.data.text_files_task")
    monkeypatch.setattr(module, "STRETCH", stretch)
    monkeypatch.setattr(module, "TOGETHER", 3)
    task = TextFilesTask(ragged(20), ragged(*sizes, seed=1))
    net = nf.Network(cell, 5, 6, 5, dtype="float64")
    theta = nf.init(net, "orthogonal", rng=0)
    nats, count = 0.0, sum(size - 1 for size in sizes)
    for line in task.held_out.tokens:
        batch = nf.Batch(line[:-1, None], line[1:, None], np.full((len(line) - 1, 1), 1 / count))
        nats += naive.loss_of(theta, cell, 5, 6, 5, "softmax", batch)
    assert_close(nf.evaluate(net, theta, task), nats / np.log(2), within("float64", terms=count))
    together = nf.evaluate(net, np.stack([theta, 2 * theta]), task)
    assert together.tolist() == [nf.evaluate(net, row, task) for row in (theta, 2 * theta)]
    batches = list(task.held_out_batches("float64"))
    assert any(task.goes_on(k) for k in range(len(batches))) == (stretch == 12 and len(sizes) > 1)
    assert not task.goes_on(len(batches))


def test_files_from_a_first_state_are_measured_each_from_it():
    task = TextFilesTask(ragged(20), ragged(30, 4, 9, seed=1))
    net = nf.Network("tanh", 5, 6, 5, dtype="float64")
    theta, state = nf.init(net, "orthogonal", rng=0), np.random.default_rng(0).normal(size=(1, 1, 6))
    nats = 0.0
    for line in task.held_out.tokens:
        batch = nf.Batch(line[:-1, None], line[1:, None], np.full((len(line) - 1, 1), 1 / 40))
        nats += nf.gradient(net, theta, batch, state=state).loss
    assert_close(nf.evaluate(net, theta, task, state=state), nats / np.log(2), within("float64", terms=40))


def test_little_of_what_is_computed_for_files_of_unlike_length_is_padding():
    task = TextFilesTask(ragged(20), ragged(*(2 ** (k % 12) + 2 for k in range(300)), seed=1))
    counted, computed = task._held_out.targets.size, sum(b.weights.size for b in task.held_out_batches("float32"))
    assert counted <= computed < 2 * counted


# --- What it is known by.


def test_files_that_moved_are_the_same_data_and_other_characters_are_not(tmp_path):
    here = many(tmp_path / "here")
    recipe = nf.Recipe(max_updates=4, lengths=8, batch_size=2, evaluate_every=2)

    def key(folder):
        return key_of(nf.Experiment(read_text_files(folder).task(), recipe, n_hidden=3), 0, "code")

    before = key(here)
    moved = tmp_path / "there" / "deep"
    moved.parent.mkdir()
    shutil.move(here, moved)
    assert key(moved) == before
    for path in moved.iterdir():
        path.rename(path.with_name(f"book {path.name}"))
    assert key(moved) == before
    path = moved / "book 3.txt"
    path.write_text(re.sub("a", "b", path.read_text(), count=1))
    assert key(moved) != before
    assert str(tmp_path) not in str(before)


def test_a_sweep_finds_its_runs_again_when_the_folder_has_moved(tmp_path):
    here = many(tmp_path / "here")
    recipe = nf.Recipe(max_updates=4, lengths=8, batch_size=2, evaluate_every=2, carry=True)
    one = nf.Experiment(read_text_files(here).task(), recipe, n_hidden=3)
    with ThreadPoolExecutor(1) as threads:
        (row,) = nf.sweep(one, 1, tmp_path / "runs.jsonl", executor=threads, progress=False).runs
        shutil.move(here, tmp_path / "there")
        two = nf.Experiment(read_text_files(tmp_path / "there").task(), recipe, n_hidden=3)
        size = (tmp_path / "runs.jsonl").stat().st_size
        (again,) = nf.sweep(two, 1, tmp_path / "runs.jsonl", executor=threads, progress=False).runs
    assert (again["key"], again["score"]) == (row["key"], row["score"])
    assert (tmp_path / "runs.jsonl").stat().st_size == size


def test_a_network_learns_what_files_have_in_common_and_is_measured_on_those_it_has_not_seen(tmp_path):
    written(tmp_path, {f"{k}.txt": "abcde" * (10 + k) for k in range(8)})
    task = read_text_files(tmp_path).task(held_out=0.25)
    net = nf.Network("tanh", task.n_in, 8, task.n_out, loss=task.loss)
    how = nf.Recipe(lr=0.5, lengths=20, clip=nf.Clip("norm", 1.0), max_updates=300, evaluate_every=300)
    for carry in (False, True):
        run = nf.train(net, nf.init(net, "orthogonal", rng=0), task, nf.Recipe(**{**how.__dict__, "carry": carry}))
        assert run.evaluations["score"][-1] < 0.2 < 2 < task.trivial().score
