"""Claims about the store: a run that was added is there for ever, whole, once, whatever happens to its writers."""

from __future__ import annotations

import errno
import json
import lzma
import math
import multiprocessing
import os
import pathlib
import random
import resource
import signal
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from disks import small_disk
from tolerance import near

from nbflow.storage import _files as files
from nbflow.storage._lines import line, parse
from nbflow.storage.compact import read_copy
from nbflow.storage.store import Store

pytestmark = pytest.mark.sim

ROWS = [{"key": f"r{k:03x}", "loss": k / 7, "text": "größer\n\t\"'\u2028", "none": None} for k in range(5)]


@pytest.fixture
def path(tmp_path):
    """Where five runs have been stored."""
    assert Store(tmp_path / "runs.jsonl").add(ROWS) == 5
    return tmp_path / "runs.jsonl"


def read(path):
    """Return the rows that a new reader finds without a word."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return list(Store(path).read().values())


# Lines as 0.1.0 wrote them before scores had a unit: of a task, and of a text.
FORMER = pathlib.Path(__file__).parent / "former" / "runs.jsonl"


# --- What goes in comes out.


def test_what_is_added_is_read_in_its_order(path):
    assert read(path) == ROWS
    assert path.read_bytes().count(b"\n") == len(ROWS)


def test_a_store_that_is_not_there_is_empty_and_is_not_made_by_reading(tmp_path):
    assert read(tmp_path / "none.jsonl") == []
    assert not list(tmp_path.iterdir())


def test_a_key_stands_once_and_the_first_line_counts(path):
    store = Store(path)
    assert store.add([{"key": "r001", "loss": 99.0}, {"key": "new"}, {"key": "new"}]) == 1
    assert read(path) == [*ROWS, {"key": "new"}]


def test_two_stores_of_one_file_see_what_the_other_adds(path):
    one, two = Store(path), Store(path)
    assert len(one.read()) == len(two.read()) == 5
    one.add([{"key": "x"}])
    assert two.add([{"key": "x"}, {"key": "y"}]) == 1
    assert list(one.read())[5:] == ["x", "y"]
    assert one.has(["x", "r003"])
    assert not one.has(["x", "z"])


def test_a_store_of_an_older_version_has_the_names_of_today_and_the_file_stays_as_it_is(tmp_path):
    place = tmp_path / "old.jsonl"
    place.write_bytes(FORMER.read_bytes())
    new = {"key": "new", "score": 0.25, "unit": "part wrong", "evaluations": {"update": [4], "score": [0.25]}}
    Store(place).add([new])
    task, text, same = read(place)
    assert same == new
    assert (task["score"], task["unit"], task["evaluations"]) == (
        0.8, "part wrong", {"update": [2, 4], "score": [0.65, 0.8]}
    )  # fmt: skip
    assert (text["score"], text["unit"]) == (2.321842490910201, "bits per character")
    assert text["evaluations"] == {"update": [2, 4], "score": [2.321844640693337, 2.321842490910201]}
    for row, line_of_old in zip((task, text), FORMER.read_text().splitlines(), strict=True):
        old = json.loads(line_of_old)
        assert row.keys() == old.keys() - {"error"} | {"score", "unit"}
        assert {name: row[name] for name in old if name not in ("error", "evaluations")} == {
            name: value for name, value in old.items() if name not in ("error", "evaluations")
        }
    assert place.read_bytes().startswith(FORMER.read_bytes())


@pytest.mark.parametrize(
    ("setting", "unit"),
    [
        ({"task": "addition"}, "part wrong"),
        ({"task.n_in": 3, "task.plan": "mine.plan"}, "part wrong"),
        ({"task.task": "PianoRollTask"}, "nats per frame"),
        ({"task.task": "of somebody's own"}, None),
    ],
)
def test_a_line_of_an_older_version_gets_the_unit_of_its_task(tmp_path, setting, unit):
    old = {"key": "a", **setting, "error": None, "evaluations": {"update": [], "error": []}}
    Store(tmp_path / "runs.jsonl").add([old])
    wanted = {"key": "a", **setting, "score": None, "unit": unit, "evaluations": {"update": [], "score": []}}
    assert read(tmp_path / "runs.jsonl") == [wanted]


@pytest.mark.parametrize("row", [{"error": 3}, {"error": 3, "evaluations": [{"error": 3}]}, {"evaluations": None}])
def test_a_line_that_is_no_run_of_a_sweep_keeps_its_names(tmp_path, row):
    Store(tmp_path / "rows.jsonl").add([{"key": "a", **row}])
    assert read(tmp_path / "rows.jsonl") == [{"key": "a", **row}]


def test_the_runs_behind_the_pictures_are_read_with_their_scores(tmp_path):
    place = pathlib.Path(__file__).parents[1] / "results/language.jsonl.xz"
    if not place.parent.is_dir():
        pytest.skip("the source archive has no results")
    (tmp_path / "runs.jsonl").write_bytes(lzma.decompress(place.read_bytes()))
    rows = read(tmp_path / "runs.jsonl")
    assert len(rows) > 10
    for row in rows:
        assert row["unit"] == "bits per character"
        assert "error" not in row
        assert row["evaluations"].keys() >= {"update", "score"}
        assert len(row["evaluations"]["score"]) == len(row["evaluations"]["update"]) > 0


def test_numbers_that_are_not_finite_are_strict_json(path):
    row = {"key": "odd", "inf": math.inf, "rows": [[-math.inf, math.nan, 1e308]]}
    Store(path).add([row])
    text = path.read_text().splitlines()[-1]

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    found = json.loads(text, parse_constant=refuse)
    assert found == {"key": "odd", "inf": math.inf, "rows": [[-math.inf, None, 1e308]]}
    assert read(path)[-1] == found


def test_numbers_come_back_to_the_bit(path):
    chance = random.Random(0)
    values = [chance.uniform(-1, 1) * 10.0 ** chance.randint(-300, 300) for _ in range(1000)]
    Store(path).add([{"key": "numbers", "values": values}])
    assert read(path)[-1]["values"] == values


def test_pandas_reads_it(path):
    pandas = pytest.importorskip("pandas")
    Store(path).add([{"key": "odd", "loss": math.inf, "nan": math.nan, "low": [1.0, -math.inf]}])
    frame = pandas.read_json(path, lines=True)
    assert [str(key) for key in frame["key"]] == [row["key"] for row in ROWS] + ["odd"]
    assert frame["loss"].iloc[-1] == math.inf
    assert frame["loss"][3] == near(3 / 7)  # pandas reads the last digits in its own way
    assert math.isnan(frame["nan"].iloc[-1])


@pytest.mark.parametrize("value", [3, None, ".", ""])
def test_a_path_that_is_none_is_refused(value):
    with pytest.raises((TypeError, ValueError), match=r"store is .*expected a"):
        Store(value)


@pytest.mark.parametrize("row", [3, {}, {"key": 3}, {"loss": 1.0}])
def test_a_row_without_a_key_is_refused(path, row):
    with pytest.raises(TypeError, match=r"row is .*expected a dict with a key"):
        Store(path).add([{"key": "good"}, row])
    assert read(path) == ROWS


@pytest.mark.parametrize(
    "data", [b"# Notes\n\nof mine\n", b'{"a": 1}\n', b"one word", b"\xfd7zXZ\x00\x01\n\x02", b"\n"]
)
def test_a_file_of_another_kind_is_refused_and_left_as_it_is(tmp_path, data):
    file = tmp_path / "notes.md"
    file.write_bytes(data)
    for use in (lambda: Store(file).read(), lambda: Store(file).add(ROWS)):
        with pytest.raises(ValueError, match=r"store .*notes.md is a file of another kind.*Name another file"):
            use()
    assert file.read_bytes() == data
    assert list(tmp_path.iterdir()) == [file]


# --- Damage.


def test_a_last_line_that_was_cut_off_anywhere_is_healed_and_the_others_are_kept(path):
    whole = path.read_bytes()
    start = whole[:-1].rindex(b"\n") + 1
    for size in range(start, len(whole)):
        path.write_bytes(whole[:size])
        (path.parent / "runs.jsonl.garbled").unlink(missing_ok=True)
        lost = start < size < len(whole) - 1
        with pytest.warns(RuntimeWarning, match="line 5, cut off") if lost else warnings.catch_warnings():
            assert Store(path).add([{"key": "after"}]) == 1
        assert read(path) == [*(ROWS[:-1] if size < len(whole) - 1 else ROWS), {"key": "after"}]
        aside = path.parent / "runs.jsonl.garbled"
        assert aside.exists() == lost
        if lost:
            assert aside.read_bytes() == b"line 5: " + whole[start:size] + b"\n"


GARBLED = [b"\0" * 40, b"{", b"[1]", b'{"key":3}', b"\xff\xfe", b"{}", b"", b"[" * 100_000, b'{"key":"a"}{"key":"b"}']


@pytest.mark.parametrize("text", GARBLED)
def test_garbled_lines_are_reported_by_number_kept_aside_and_read_no_more(path, text):
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([lines[0], text, *lines[1:3], text, *lines[3:]]))
    with pytest.warns(
        RuntimeWarning, match=r"line 2, 5, cut off or garbled; moved to runs.jsonl.garbled. The 5 others"
    ):
        assert list(Store(path).read().values()) == ROWS
    assert (path.parent / "runs.jsonl.garbled").read_bytes() == b"line 2: " + text + b"\nline 5: " + text + b"\n"
    assert read(path) == ROWS
    assert path.read_bytes() == b"\n".join(lines)


def test_a_reader_who_knows_the_file_notices_that_it_was_healed(path):
    store = Store(path)
    assert len(store.read()) == 5
    path.write_bytes(b"x\n" + path.read_bytes())
    with pytest.warns(RuntimeWarning, match="line 1"):
        Store(path).add([{"key": "new"}])
    assert list(store.read())[-1] == "new"
    assert len(store.read()) == 6


def test_a_line_that_is_being_written_is_waited_for(path):
    """A reader that meets half a line takes the lock, and then it is a whole one."""
    text = line({"key": "late"})
    with open(path.parent / "runs.jsonl.lock", "ab") as held, open(path, "ab", buffering=0) as file:
        files.lock(held.fileno())
        file.write(text[:5])
        with ThreadPoolExecutor(1) as reader:
            found = reader.submit(Store(path).read)
            time.sleep(0.2)
            assert not found.done()
            file.write(text[5:])
            files.unlock(held.fileno())
            assert found.result(30)["late"] == {"key": "late"}


# --- Disks.


def fails(path, code):
    with pytest.raises(OSError, match=rf"runs.jsonl could not be written: {os.strerror(code)}.*still there") as caught:
        Store(path).add([{"key": f"big {k}", "text": "x" * 3000} for k in range(100)])
    assert caught.value.errno == code


def test_a_full_disk_is_a_clear_error_and_loses_nothing(tmp_path):
    with small_disk(tmp_path) as disk:
        path = disk.folder / "runs.jsonl"
        Store(path).add(ROWS)
        with disk.full():
            fails(path, errno.ENOSPC)
            assert read(path) == ROWS
        assert Store(path).add([{"key": "small"}]) == 1
        disk.make_read_only()
        fails(path, errno.EROFS)
        assert len(read(path)) == 6


def test_a_file_that_may_not_grow_is_a_clear_error_and_loses_nothing(path):
    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        fails(path, errno.EFBIG)
        assert read(path) == ROWS
        Store(path).add([{"key": "small"}])

    in_a_fork(limited)
    assert read(path) == [*ROWS, {"key": "small"}]


@pytest.mark.parametrize("call", ["write", "fsync"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_write_that_fails_half_way_leaves_nothing(path, monkeypatch, call, code):
    usual, calls = getattr(os, call), []

    def fail(handle, *data):
        calls.append(1)
        if call == "write" and len(calls) == 1:
            return usual(handle, data[0][:1000])
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, call, fail)
    fails(path, code)
    monkeypatch.undo()
    assert read(path) == ROWS
    assert not (path.parent / "runs.jsonl.garbled").exists()


def test_a_directory_that_may_not_be_written_is_a_clear_error_and_can_be_read(path):
    def somebody():
        os.chdir(path.parent)
        path.parent.chmod(0o555)
        if os.geteuid() == 0:  # who may write everywhere
            os.setresuid(65534, 65534, 65534)
        here = pathlib.Path("runs.jsonl")
        fails(here, errno.EACCES)
        assert read(here) == ROWS

    in_a_fork(somebody)
    path.parent.chmod(0o755)


def test_ctrl_c_in_the_middle_of_a_write_leaves_nothing(path, monkeypatch):
    usual = os.write

    def interrupt(handle, data):
        usual(handle, data[:10])
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "write", interrupt)
    with pytest.raises(KeyboardInterrupt):
        Store(path).add([{"key": "new"}])
    monkeypatch.undo()
    assert read(path) == ROWS


# --- Many writers.


def in_a_fork(function):
    """Run a function in a child, which must not fail."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            function()
            status = 0
        except BaseException as error:
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def append_many(path, name, count, ready=None):
    store = Store(path)
    if ready:
        ready.wait()
    for k in range(count):
        store.add([{"key": f"{name}-{k}", "text": "x" * (37 * k % 5000)}])
        store.add([{"key": f"both-{k}", "who": name}])


def test_processes_that_append_at_once_lose_nothing(path):
    context = multiprocessing.get_context("fork")
    ready = context.Barrier(3)
    writers = [context.Process(target=append_many, args=(path, name, 60, ready)) for name in "abc"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    rows = read(path)
    keys = [row["key"] for row in rows]
    assert len(set(keys)) == len(keys) == path.read_bytes().count(b"\n")
    assert set(keys) == {row["key"] for row in ROWS} | {
        f"{name}-{k}" for name in ("a", "b", "c", "both") for k in range(60)
    }


def test_threads_that_append_at_once_lose_nothing(path):
    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(append_many, path, name, 20) for name in "abcd"]:
            done.result()
    assert len(read(path)) == len(ROWS) + 100


def killed_writers(path, kills, chance):
    """Kill writers at moments that nobody chose; return the keys of which `add` had come back."""
    kept = []
    for n in range(kills):
        out, into = os.pipe()
        child = os.fork()
        if child == 0:
            warnings.simplefilter("ignore")
            store, k = Store(path), 0
            while True:
                rows = [{"key": f"{n}-{k}-{j}", "text": "x" * chance.choice([10, 1000, 20_000])} for j in range(3)]
                store.add(rows)
                os.write(into, "".join(f"{row['key']}\n" for row in rows).encode())
                k += 1
        os.close(into)
        first = os.read(out, 1000)
        time.sleep(0.02 * chance.random())
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with open(out, "rb") as rest:
            kept += (first + rest.read()).decode().split()
        if n % 4 == 0:  # sometimes what is left must be healed by hand: a writer that a power cut took
            with open(path, "ab") as file:
                file.write(b'{"key":"torn')
    return kept


def test_writers_that_are_killed_at_any_moment_lose_nothing_that_was_added(path):
    kills = 61  # the last one leaves a torn line
    kept = killed_writers(path, kills, random.Random(int(os.environ.get("NBFLOW_KILLS_SEED", "0"))))
    with pytest.warns(RuntimeWarning, match="cut off"):
        Store(path).add([{"key": "after"}, {"key": "torn"}])
    rows = Store(path).read()
    assert len(kept) >= 3 * kills
    assert set(kept) <= rows.keys()
    # One `add` of each writer may have been written of which it had not yet said so, and it is whole or not there.
    extra = rows.keys() - set(kept) - {row["key"] for row in ROWS} - {"after", "torn"}
    assert len(extra) <= 3 * kills
    assert all(len(row["text"]) in (10, 1000, 20_000) for key, row in rows.items() if "-" in key)


def test_a_lock_ends_with_its_process(path):
    with open(path.parent / "other.lock", "ab") as file:
        out, into = os.pipe()
        child = os.fork()
        if child == 0:
            with open(path.parent / "other.lock", "ab") as own:
                files.lock(own.fileno())
                os.write(into, b"locked")
                time.sleep(60)
        os.read(out, 6)
        assert not files.lock(file.fileno(), wait=False)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert files.lock(file.fileno(), wait=False)


def test_a_line_without_its_end_is_none():
    assert parse(b'{"key":"a"}\n') == {"key": "a"}
    assert parse(b'{"key":"a"}') is None


# --- Where nothing can be written, and what is no file to read.


def refuse_writing(monkeypatch, code):
    def refuse(path, mode):
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr("nbflow.storage._journal.open_to_write", refuse)


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.ENOSPC])
@pytest.mark.parametrize("torn", [b'{"key":"r0', b"", b'{"key":"last"}'])
def test_a_store_with_a_torn_line_is_read_where_it_cannot_be_written(path, monkeypatch, code, torn):
    """All that is whole, with a word of what is not; and the file is as it was until somebody can write."""
    middle = b"{garbled\n" + line({"key": "after"})
    whole = path.read_bytes() + middle + torn
    path.write_bytes(whole)
    refuse_writing(monkeypatch, code)
    store = Store(path)
    keys = [*(row["key"] for row in ROWS), "after", *(["last"] if torn.endswith(b"}") else [])]
    lines = "6, 8" if torn == b'{"key":"r0' else "6"
    for _ in range(2):
        with pytest.warns(RuntimeWarning, match=rf"line {lines}, cut off.*left there.*{os.strerror(code)}") as said:
            assert list(store.read()) == keys
        assert len(said) == 1
        assert said[0].filename == __file__
    assert path.read_bytes() == whole
    with pytest.raises(OSError, match=r"could not be written: .*still there"):
        store.add([{"key": "more"}])
    assert path.read_bytes() == whole
    monkeypatch.undo()
    with pytest.warns(RuntimeWarning, match="moved to"):
        assert list(store.read()) == keys
    assert read(path) == list(store.read().values())


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_healing_that_fails_leaves_no_half_file(path, monkeypatch, call):
    path.write_bytes(path.read_bytes() + b"{garbled\n")

    def fail(*arguments):
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, call, fail)
    with pytest.warns(RuntimeWarning, match="left there"):
        assert len(Store(path).read()) == 5
    assert not path.with_name("runs.jsonl.new").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink("/dev/zero", path)])
def test_pipes_and_devices_are_no_stores_and_nobody_waits_for_them(tmp_path, make):
    path = tmp_path / "runs.jsonl"
    make(path)
    for use in (lambda s: s.read(), lambda s: s.add(ROWS), lambda s: s.has(["a"]), lambda s: read_copy(s.path)):
        with pytest.raises(OSError, match=r"runs.jsonl is no regular file; expected one. Name another\.$"):
            use(Store(path))
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_in_the_place_of_the_lock_is_an_error_and_nobody_waits_for_it(path):
    path.with_name("runs.jsonl.lock").unlink()
    os.mkfifo(path.with_name("runs.jsonl.lock"))
    with pytest.raises(OSError, match=r"runs.jsonl could not be written"):
        Store(path).add([{"key": "more"}])


def test_a_file_without_line_ends_does_not_fill_the_memory(path, monkeypatch):
    monkeypatch.setattr("nbflow.storage._lines.LONGEST", 10**6)
    os.truncate(path, files.memory() + 1)
    for use in (lambda s: s.read(), lambda s: s.add([{"key": "more"}]), lambda s: s.has(["a"])):
        with pytest.raises(ValueError, match=r"store .*runs.jsonl has a line of more than 1000000 bytes"):
            use(Store(path))
    assert path.stat().st_size == files.memory() + 1


def test_a_row_that_could_not_be_read_again_is_refused(path, monkeypatch):
    monkeypatch.setattr("nbflow.storage._lines.LONGEST", 1000)
    with pytest.raises(ValueError, match=r"row 'big' has 1\d\d\d bytes; expected at most 1000\. Record fewer"):
        Store(path).add([{"key": "good"}, {"key": "big", "text": "x" * 1000}])
    assert read(path) == ROWS


@pytest.mark.parametrize(
    "value, said",
    [
        ({"momentum": np.longdouble(0.9)}, "settings.momentum is a longdouble"),
        ([1.0, np.int64(3)], r"settings\[1\] is a int64; expected a number.*int"),
        (np.zeros(2), "settings is a ndarray.*tolist"),
    ],
)
def test_a_row_that_is_no_plain_data_is_refused_by_name(path, value, said):
    with pytest.raises(TypeError, match=rf"row 'odd': {said}"):
        Store(path).add([{"key": "good"}, {"key": "odd", "settings": value}])
    assert read(path) == ROWS


def test_a_row_that_holds_itself_is_refused(path):
    row = {"key": "odd"}
    row["itself"] = row
    with pytest.raises(ValueError, match="row 'odd' is nested too deep"):
        Store(path).add([row])
    assert read(path) == ROWS


# --- Compressed copies.


def test_a_copy_is_read_as_what_it_is_a_copy_of(path):
    copy = path.with_name("runs.jsonl.xz")
    copy.write_bytes(lzma.compress(path.read_bytes()))
    assert read_copy(copy) == ROWS


def test_a_damaged_copy_is_one_plain_line(path, monkeypatch):
    copy = path.with_name("runs.jsonl.xz")
    whole = lzma.compress(b"".join(line({"key": f"{k:04}", "loss": k / 7}) for k in range(300)))
    broken = bytearray(whole)
    broken[len(whole) // 2] ^= 0x41
    damaged = [b"", b"no xz at all", whole[:-1], whole[: len(whole) // 2], bytes(broken), whole + b"more",
               lzma.compress(b"{garbled\n"), lzma.compress(path.read_bytes()[:-5])]  # fmt: skip
    for data in damaged:
        copy.write_bytes(data)
        with pytest.raises(ValueError, match=r"^copy .*runs.jsonl.xz is damaged: .*\. Fetch it again") as caught:
            read_copy(copy)
        assert "\n" not in str(caught.value)
    copy.write_bytes(whole)
    monkeypatch.setattr("nbflow.storage.compact.memory", lambda: 4000)
    with pytest.raises(ValueError, match="unpacks to more than 1000 bytes"):
        read_copy(copy)


def test_a_store_of_which_any_bytes_were_changed_or_cut_is_read_or_refused_in_one_line(tmp_path):
    """By chance, seeded: so many files as NBFLOW_FILES says. What is read of a line that was not touched is right."""
    # No three changed bytes make one key of another.
    rows = [{"key": 4 * "abcdefghijkl"[k], "loss": k / 7, "history": {"loss": [0.5, math.inf, k]}} for k in range(12)]
    whole = b"".join(map(line, rows))
    rng = np.random.default_rng(0)
    for trial in range(int(os.environ.get("NBFLOW_FILES", "200"))):
        data, place = bytearray(whole), tmp_path / f"{trial}.jsonl"
        for at in rng.integers(len(data), size=rng.integers(1, 4)):
            data[at] ^= int(rng.integers(1, 256))
        if trial % 3 == 0:
            del data[int(rng.integers(len(data))) :]
        place.write_bytes(data)
        there = bytes(data).split(b"\n")[:-1]
        touched = {number for number, text in enumerate(whole.split(b"\n")[:-1]) if text not in there}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            try:
                found = Store(place).read()
            except (ValueError, OSError) as error:
                refused = str(error)
                assert str(place) in refused
                assert "\n" not in refused
                assert len(refused) < 400
                continue
        assert not list(tmp_path.glob("*.new"))
        for number, row in enumerate(rows):
            assert number in touched or found[row["key"]] == row
