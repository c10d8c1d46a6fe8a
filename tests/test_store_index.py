"""Claims about large stores: one run in memory at a time, each line parsed once, an index that never lies."""

from __future__ import annotations

import copy
import json
import os
import pickle
import tracemalloc
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, strategies as st

from nbflow.storage import _index, _journal, _lines, store as module
from nbflow.storage._index import Index
from nbflow.storage._lines import line, parse
from nbflow.storage._rows import Rows
from nbflow.storage.store import Store

pytestmark = pytest.mark.sim


def row(k, size=200):
    return {"key": f"r{k:06}", "failure": "bad" if k % 3 == 0 else None, "text": chr(97 + k % 26) * (size + k % 7)}


ROWS = [row(k) for k in range(300)]
KEYS = [one["key"] for one in ROWS]


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """An index is worth it for a few KB here."""
    monkeypatch.setattr(_journal, "WORTH_AN_INDEX", 4000)


@pytest.fixture
def path(tmp_path):
    """A store with an index beside it."""
    path = tmp_path / "runs.jsonl"
    Store(path).add(ROWS)
    assert len(Store(path).read()) == 300
    assert path.with_name("runs.jsonl.index").exists()
    return path


@pytest.fixture
def parsed(monkeypatch):
    """The lines that stores parse from now on, but for those of a sample."""
    seen = []
    for one in (module, _journal, _lines):
        monkeypatch.setattr(one, "parse", lambda text: (seen.append(text), parse(text))[1])
    return seen


def truth(path):
    """Return what the lines of a file say, the first of each key."""
    found = {}
    for text in path.read_bytes().splitlines(keepends=True):
        one = parse(text)
        if one is not None:
            found.setdefault(one["key"], one)
    return found


def holds(path):
    """Hold all that a new object says against the lines."""
    wanted, store = truth(path), Store(path)
    asked = [*KEYS, "r999999", "new"]
    assert store.has(list(wanted))
    assert store.absent(asked) == [key for key in asked if key not in wanted]
    assert store.failed(asked) == [key for key in asked if wanted.get(key, {}).get("failure") is not None]
    assert list(store.rows(asked)) == [wanted[key] for key in asked if key in wanted]
    assert store.read() == wanted
    assert list(store) == list(wanted.values())


# --- A stream.


def test_reading_takes_the_memory_of_a_run_and_not_of_the_file(tmp_path):
    path = tmp_path / "runs.jsonl"
    path.write_bytes(b"".join(line(row(k, 10_000)) for k in range(1000)))
    tracemalloc.start()
    try:
        lengths = sum(len(one["text"]) for one in Store(path))
        assert len(Store(path).absent(["r000001", "x"])) == 1
        assert Store(path).rows(["r000007"])[0] == row(7, 10_000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert lengths > 10_000_000
    assert peak < 1_500_000


def test_a_million_lines_take_25_bytes_each():
    found = Index()
    for k in range(10_000):
        found.add(str(k), k, k % 2 == 0)
    found.places()
    arrays = [value for value in vars(found).values() if isinstance(value, np.ndarray)]
    assert sum(one.nbytes for one in arrays) == 25 * 10_000
    assert not found._late


@pytest.mark.parametrize("at_once", [1, 7, 4096])
def test_a_first_reading_parses_no_line_twice_and_a_later_one_the_new_ones_once(path, parsed, monkeypatch, at_once):
    monkeypatch.setattr(_journal, "AT_ONCE", at_once)
    path.with_name("runs.jsonl.index").unlink()
    store, twice = Store(path), {**ROWS[3], "text": "again"}
    with path.open("ab") as file:
        file.write(line(twice) + line(row(300)))
    assert store.read() == truth(path)
    assert len(parsed) == len(set(parsed)) == 302
    store = Store(path)
    store.absent(["r000001"])
    with path.open("ab") as file:
        file.write(line(row(301)) + line(twice) + line(row(302)))
    del parsed[:]
    assert list(store.read().items()) == list(truth(path).items())
    assert len(parsed) == 301 + 3
    holds(path)


@pytest.mark.parametrize("bad", [0, 5, 299])
def test_a_reading_that_meets_a_bad_line_has_all_others(path, bad):
    path.with_name("runs.jsonl.index").unlink()
    texts = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*texts[:bad], b"no line\n", *texts[bad:]]))
    with pytest.warns(RuntimeWarning, match="moved to"):
        assert list(Store(path).read().values()) == ROWS
    holds(path)


def test_each_line_is_parsed_once_however_often_is_asked(path, parsed):
    path.with_name("runs.jsonl.index").unlink()
    store = Store(path)
    for _ in range(3):
        assert store.absent(KEYS) == []
        assert store.has(KEYS)
    assert len(parsed) == 300
    Store(path).add([row(500)])
    assert store.absent(["r000500"]) == []
    assert parsed[300:].count(line(row(500))) == 2, "its writer and this reader"


def test_a_new_object_parses_what_the_index_does_not_know(path, parsed):
    assert Store(path).has(KEYS)
    assert Store(path).absent(["new"]) == ["new"]
    assert parsed == []
    with open(path, "ab") as file:
        file.write(line({"key": "new"}))
    assert Store(path).absent(["new"]) == []
    assert parsed == [line({"key": "new"})]


def test_a_small_store_has_no_index(tmp_path):
    Store(tmp_path / "a.jsonl").add(ROWS[:3])
    assert len(Store(tmp_path / "a.jsonl").read()) == 3
    assert {place.name for place in tmp_path.iterdir()} == {"a.jsonl", "a.jsonl.lock"}


def test_an_index_is_written_for_an_eighth_more_and_not_for_every_line(path, monkeypatch):
    saved = []
    usual = Index.save
    monkeypatch.setattr(Index, "save", lambda self, *rest: (saved.append(len(self)), usual(self, *rest)))
    store = Store(path)
    for k in range(300, 600):
        store.add([row(k)])
        store.absent([])
    assert 4 <= len(saved) <= 8
    holds(path)


# --- An index that does not fit.


def in_place(path, old, new):
    """Change bytes of a file, as an editor that keeps the file."""
    data = path.read_bytes()
    assert old in data
    with open(path, "r+b") as file:
        file.write(data.replace(old, new))
        file.truncate()


def with_time(path, change):
    """Change a file and give it its former time."""
    about = path.stat()
    change(path)
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))


CHANGES = {
    "another key of the same length": lambda p: in_place(p, b'"r000100"', b'"x000100"'),
    "a line less": lambda p: in_place(p, line(row(5)), b""),
    "a line less and others more": lambda p: in_place(p, line(row(5)), line(row(900)) + line(row(901, 5000))),
    "lines turned round": lambda p: p.write_bytes(b"".join(map(line, ROWS[::-1]))),
    "another file": lambda p: p.write_bytes(b"".join(line(row(k)) for k in range(1000, 2000))),
    "nothing": lambda p: p.write_bytes(b""),
    "lines more": lambda p: p.write_bytes(p.read_bytes() + line(row(700)) + line(row(3, 9))),
    "lines more at the beginning": lambda p: p.write_bytes(line(row(700)) + p.read_bytes()),
    "lines turned round, at the same time": lambda p: with_time(
        p, lambda p: p.write_bytes(b"".join(map(line, ROWS[::-1])))
    ),
    "a line less, at the same time": lambda p: with_time(p, lambda p: in_place(p, line(row(5)), b"")),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_an_index_of_what_the_file_was_is_not_believed(path, change):
    known = Store(path)
    known.read()
    change(path)
    holds(path)
    assert known.read() == truth(path), "nor what an object remembers"


@pytest.mark.parametrize("end", [".jsonl", ".jsonl.index"])
def test_an_index_of_another_file_is_not_believed(path, tmp_path, end):
    other = tmp_path / "other.jsonl"
    Store(other).add([row(k, 201) for k in range(200, 600)])
    Store(other).read()
    os.replace(tmp_path / f"other{end}", tmp_path / f"runs{end}")
    holds(path)


def test_a_damaged_index_is_not_believed(path):
    place = path.with_name("runs.jsonl.index")
    whole = place.read_bytes()
    chance = np.random.default_rng(0)
    damaged = [b"", whole[:-1], whole[: len(whole) // 2], b"\0" * len(whole), b'{"version": 1}']
    for k in chance.integers(0, len(whole), 40):
        damaged.append(whole[:k] + bytes([whole[k] ^ 1 << int(chance.integers(8))]) + whole[k + 1 :])
    for data in damaged:
        place.write_bytes(data)
        assert Store(path).absent([*KEYS, "new"]) == ["new"]
    with open(place, "wb") as file:
        np.savez(file, facts=np.zeros(3, np.uint8))
    holds(path)


def test_an_index_of_a_later_version_is_not_believed(path, monkeypatch, parsed):
    monkeypatch.setattr(_index, "VERSION", 2)
    assert Store(path).has(KEYS)
    assert len(parsed) == 300


@pytest.mark.parametrize("make", ["mkdir", "mkfifo"])
def test_what_lies_in_the_place_of_an_index_does_no_harm(path, make):
    place = path.with_name("runs.jsonl.index")
    place.unlink()
    getattr(os, make)(place)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        holds(path)


def test_where_no_index_can_be_written_the_store_is_read_all_the_same(path, monkeypatch):
    path.with_name("runs.jsonl.index").unlink()

    def refuse(*arguments):
        raise OSError(30, "read-only")

    monkeypatch.setattr(Index, "save", refuse)
    holds(path)


def test_a_store_that_cannot_be_healed_answers_for_what_is_whole(path, monkeypatch):
    data = path.read_bytes()
    path.write_bytes(data[:1000] + b"\n{garbled" + data[1000:] + b'{"key":"torn')

    def refuse(*arguments):
        raise OSError(30, "read-only")

    monkeypatch.setattr(_journal, "open_to_write", refuse)
    wanted = truth(path)
    store = Store(path)
    assert store.has(list(wanted))
    assert not store.has(["torn"])
    for ask, said in [(store.absent, [k for k in KEYS if k not in wanted]), (store.rows, list(wanted.values()))]:
        with pytest.warns(RuntimeWarning, match="left there") as warned:
            assert list(ask(KEYS)) == said
        assert warned[0].filename == __file__
    monkeypatch.undo()
    with pytest.warns(RuntimeWarning, match="moved to"):
        assert store.read() == wanted
    holds(path)


# --- Indexes as dicts.


@given(st.lists(st.tuples(st.text(max_size=3), st.booleans())), st.integers(1, 5), st.lists(st.integers(0, 4)))
def test_an_index_is_a_dict_of_what_came_first(added, late, together):
    found, wanted = Index(), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_index, "LATE", late)
        told = [(key, at, failed) for at, (key, failed) in enumerate(added)]
        for key, at, failed in told:
            wanted.setdefault(key, (at, failed))
        for many in together:  # some at a time, none for one line
            if many and told:
                found.take(told[:many])
            else:
                for one in told[:1]:
                    found.add(*one)
            told = told[many or 1 :]
        for one in told:
            found.add(*one)
        other = found.copy()
        other.add("a key of four or more", 10**6, False)
    assert len(found) == len(wanted)
    assert {key: found.find(key) for key, _ in added} == wanted
    assert found.find("a key of four or more") is None
    assert found.places().tolist() == [at for at, _ in wanted.values()]


def test_digests_that_begin_alike_are_told_apart(monkeypatch):
    monkeypatch.setattr(_index, "LATE", 2)
    usual = _index._digest
    monkeypatch.setattr(_index, "_digest", lambda key: b"\7" * 8 + usual(key)[8:])
    found = Index()
    for k in range(50):
        found.add(str(k), k, False)
    assert [found.find(str(k)).at for k in range(50)] == list(range(50))
    assert found.find("50") is None


# --- Rows.


def test_rows_are_a_sequence_that_is_read_when_it_is_asked_for(path, parsed):
    rows = Store(path).rows(["r000007", "new", "r000003", "r000007"])
    assert isinstance(rows, Rows)
    assert parsed == []
    assert len(rows) == 3
    assert rows[-2] == ROWS[3]
    assert rows[1:] == [ROWS[3], ROWS[7]]
    assert rows == [ROWS[7], ROWS[3], ROWS[7]] == rows
    assert rows != [ROWS[7]]
    assert rows != "abc"
    assert [*reversed(rows)] == [ROWS[7], ROWS[3], ROWS[7]]
    with pytest.raises(IndexError):
        rows[3]
    assert Store(path.with_name("none")).rows(KEYS) == []


def test_rows_outlive_their_file_and_travel_as_a_list(path):
    rows = Store(path).rows(KEYS[:3])
    in_place(path.rename(path.with_name("moved")), b'"r', b'"r')
    path.with_name("moved").unlink()
    for again in (rows, pickle.loads(pickle.dumps(rows)), copy.deepcopy(rows), copy.copy(rows)):
        assert again == ROWS[:3]
    assert type(pickle.loads(pickle.dumps(rows))) is list


def test_rows_close_their_file(path):
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    rows = [Store(path).rows(KEYS) for _ in range(20)]
    assert all(len(one) == 300 for one in rows)
    del rows
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) == before


def test_rows_of_an_older_version_have_the_names_of_today(tmp_path):
    old = {"key": "a", "task": "addition", "error": None, "evaluations": {"update": [], "error": []}}
    Store(tmp_path / "runs.jsonl").add([old])
    (found,) = Store(tmp_path / "runs.jsonl").rows(["a"])
    assert (found["unit"], list(found["evaluations"])) == ("part wrong", ["update", "score"])


def test_pandas_makes_a_table_of_rows(path):
    pandas = pytest.importorskip("pandas")
    assert list(pandas.DataFrame(Store(path).rows(KEYS))["key"]) == KEYS


# --- One object in many hands.


def test_threads_may_share_a_store(path):
    store = Store(path)

    def work(name):
        for k in range(20):
            store.add([{"key": f"{name}-{k}"}])
            assert store.absent([f"{name}-{j}" for j in range(k + 1)]) == []
            assert sum(1 for _ in store) >= 300 + k

    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(work, name) for name in "abcd"]:
            done.result()
    assert len(truth(path)) == 380
    holds(path)


def test_a_store_travels_as_its_path(path):
    store = Store(path)
    store.read()
    assert len(pickle.dumps(store)) < 500
    assert pickle.loads(pickle.dumps(store)).read() == store.read()


def test_an_iteration_is_of_what_was_there_when_it_began(path):
    store = Store(path)
    seen = iter(store)
    first = next(seen)
    store.add([{"key": "later"}])
    in_place(path, b"zz", b"zz")
    assert [first, *seen] == ROWS
    assert json.loads(path.read_bytes().splitlines()[-1]) == {"key": "later"}
