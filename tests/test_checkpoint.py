"""Claims about the files of checkpoints: whole or refused, and never lost."""

from __future__ import annotations

import errno
import io
import json
import os
import pathlib
import pickle
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from tolerance import same_bits

import nbflow as nf
from nbflow.storage import _checkpoint as checkpoint
from nbflow.storage._files import memory

pytestmark = pytest.mark.sim

ARRAYS = {
    "theta": np.random.default_rng(0).normal(size=(2, 5)).astype("float32"), "history/loss": np.array([0.1, np.nan]),
    "empty": np.zeros((2, 0, 3)), "counts": np.arange(3), "flags": np.array([True, False]),
    "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
}  # fmt: skip
FACTS = {"updates": 7, "nested": {"name": "größer", "none": None}, "list": [1, 2.5, "inf"]}


def assert_saved(saved, arrays=ARRAYS, facts=FACTS):
    assert saved.facts == facts
    assert saved.arrays.keys() == arrays.keys()
    for name, array in arrays.items():
        assert same_bits(saved.arrays[name], array), name
        assert saved.arrays[name].flags.writeable


@pytest.fixture
def path(tmp_path):
    """Where two checkpoints have been saved, the facts of the first being {"updates": 1}."""
    path = tmp_path / "run.npz"
    checkpoint.save(path, ARRAYS, {"updates": 1})
    checkpoint.save(path, ARRAYS, FACTS)
    return path


def test_what_is_saved_is_loaded_to_the_bit_and_the_one_before_is_kept(path):
    assert_saved(checkpoint.load(path))
    assert_saved(checkpoint.read(checkpoint.before(path)), facts={"updates": 1})
    assert sorted(os.listdir(path.parent)) == ["run.npz", "run.npz.before"]


def test_whoever_reads_while_another_writes_finds_a_whole_one(path):
    ended = threading.Event()

    def write():
        while not ended.is_set():
            checkpoint.save(path, ARRAYS, FACTS)

    with ThreadPoolExecutor(1) as writers:
        try:
            writing = writers.submit(write)
            for _ in range(1500):
                assert_saved(checkpoint.load(path))
        finally:
            ended.set()
        writing.result()


def test_numpy_reads_it_too_without_pickle(path):
    with np.load(path, allow_pickle=False) as found:
        assert same_bits(found["theta"], ARRAYS["theta"])
        assert json.loads(found["manifest.json"])["facts"] == FACTS


def test_the_same_contents_give_the_same_file(path, tmp_path):
    checkpoint.save(tmp_path / "other.npz", ARRAYS, FACTS)
    assert (tmp_path / "other.npz").read_bytes() == path.read_bytes()


# --- Damage.


def test_every_truncation_is_refused_and_the_one_before_taken(path):
    whole = path.read_bytes()
    for size in {0, 1, 100, len(whole) // 2, len(whole) - 1, *range(3, len(whole), 37)}:
        path.write_bytes(whole[:size])
        with pytest.warns(RuntimeWarning, match=r"damaged.*Going on from .*before"):
            assert checkpoint.load(path).facts == {"updates": 1}


def test_every_changed_byte_is_refused_or_changes_nothing_that_is_read(path):
    whole = path.read_bytes()
    refused = 0
    for at in range(0, len(whole), 11):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :])
        try:
            assert_saved(checkpoint.read(path))
        except checkpoint.DamagedError:
            refused += 1
    assert refused > len(whole) / 11 / 2


def rewritten(path, change, compression=zipfile.ZIP_STORED):
    """Write a checkpoint's members anew, as `change(members)` has them."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def edit(members, change):
    manifest = json.loads(members["manifest.json"])
    change(manifest)
    members["manifest.json"] = json.dumps(manifest).encode()


def npy(array, **options):
    file = io.BytesIO()
    np.lib.format.write_array(file, array, **options)
    return file.getvalue()


def header(shape, dtype="<f8"):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
    return file.getvalue()


def put(name, data):
    return lambda members: members.update({name: data})


def huge(members):
    """An array of 2**60 numbers, of which the manifest says the same."""
    members["theta.npy"] = header((2**60,))
    edit(members, lambda manifest: manifest["arrays"]["theta"].update(shape=[2**60], dtype="<f8"))


class Bomb:
    def __reduce__(self):
        return os.abort, ()


HOSTILE = {
    "objects": (put("theta.npy", npy(np.array([Bomb()], object))), "plain numbers"),
    "a pickle": (put("theta.npy", pickle.dumps(Bomb())), "damaged"),
    "strings": (put("theta.npy", npy(np.array(["a"]))), "plain numbers"),
    "records": (put("theta.npy", npy(np.zeros(2, [("a", "<f8")]))), "plain numbers"),
    "fortran order": (put("theta.npy", npy(np.asfortranarray(np.zeros((2, 5), "float32")))), "plain numbers"),
    "another shape": (put("theta.npy", npy(ARRAYS["theta"].T.copy())), "manifest says otherwise"),
    "another dtype": (put("theta.npy", npy(ARRAYS["theta"].view("int32"))), "manifest says otherwise"),
    "other numbers": (put("theta.npy", npy(ARRAYS["theta"] + 1)), "sha256 of theta"),
    "a version of its own": (put("theta.npy", npy(ARRAYS["theta"], version=(3, 0))), "another format of arrays"),
    "more than there is": (huge, "bytes"),
    "a member more": (put("more.npy", npy(np.zeros(2))), "members are not those"),
    "a member less": (lambda members: members.pop("theta.npy"), "members are not those"),
    "no manifest": (lambda members: members.pop("manifest.json"), "manifest.json"),
    "no JSON": (put("manifest.json", b"{"), "damaged"),
    "deep JSON": (put("manifest.json", b"[" * 100_000), "damaged"),
    "another format": (
        lambda members: edit(members, lambda manifest: manifest.update(format=2)),
        "format 2, and this nbflow reads format 1",
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_is_hostile_is_refused(kind, path):
    change, said = HOSTILE[kind]
    rewritten(path, change)
    with pytest.raises(checkpoint.DamagedError, match=said):
        checkpoint.read(path)
    with pytest.warns(RuntimeWarning, match="Going on from"):
        assert checkpoint.load(path).facts == {"updates": 1}


def test_a_bomb_is_refused_before_it_is_unpacked(path):
    rewritten(path, put("theta.npy", npy(np.zeros(10**7))), zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 10**6
    with pytest.raises(checkpoint.DamagedError, match="compressed"):
        checkpoint.read(path)


def test_members_that_overlap_are_refused_before_they_are_read(path):
    """One whose directory says that it reaches over all that follow: enough of these, and a file is its own bomb."""
    whole = bytearray(path.read_bytes())
    entry = whole.index(b"PK\x01\x02")
    assert int.from_bytes(whole[entry + 20 : entry + 24], "little") < len(whole)
    for field in (20, 24):  # the sizes in the archive's directory
        whole[entry + field : entry + field + 4] = len(whole).to_bytes(4, "little")
    path.write_bytes(whole)
    with pytest.raises(checkpoint.DamagedError, match=f"holds more than its {len(whole)} bytes"):
        checkpoint.read(path)


@pytest.mark.parametrize("contents", [b"", b"no zip at all", b"PK\x05\x06" + bytes(18)])
def test_a_file_that_is_none_is_refused(path, contents):
    path.write_bytes(contents)
    with pytest.raises(checkpoint.DamagedError, match="damaged"):
        checkpoint.read(path)


def test_without_a_whole_one_it_says_of_each_what_is_wrong(path):
    path.write_bytes(b"x")
    checkpoint.before(path).write_bytes(b"y")
    with pytest.raises(checkpoint.DamagedError, match=r"run.npz is damaged.*run.npz.before is damaged.*delete it"):
        checkpoint.load(path)
    with pytest.raises(FileNotFoundError, match=r"other.npz is not there"):
        checkpoint.load(path.with_name("other.npz"))


# --- Interruption.


class CutOffError(BaseException):
    """The end of the process, as far as the file system can tell."""


STEPS = [("fsync", 1), ("replace", 1), ("replace", 2), ("fsync", 2)]


@pytest.mark.parametrize(("call", "nth"), STEPS)
@pytest.mark.parametrize("after", [False, True])
def test_a_save_that_is_cut_off_anywhere_loses_nothing(path, monkeypatch, call, nth, after):
    calls = []

    def in_a_process_that_ends(name):
        usual = getattr(os, name)

        def run(*arguments):
            if calls.count(call) >= nth:  # it has ended, and does nothing any more
                raise CutOffError
            calls.append(name)
            if name == call and calls.count(call) == nth:
                if after:
                    usual(*arguments)
                raise CutOffError
            return usual(*arguments)

        return run

    for name in ("fsync", "replace", "unlink"):
        monkeypatch.setattr(os, name, in_a_process_that_ends(name))
    new = {"updates": 8}
    with pytest.raises(CutOffError):
        checkpoint.save(path, ARRAYS, new)
    monkeypatch.undo()
    assert checkpoint.exists(path)
    assert checkpoint.load(path).facts in (FACTS, new)
    checkpoint.save(path, ARRAYS, {"updates": 9})
    assert checkpoint.load(path).facts == {"updates": 9}


@pytest.mark.parametrize(("call", "nth"), STEPS[:3])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_full_or_read_only_disk_is_a_clear_error_and_loses_nothing(path, monkeypatch, call, nth, code):
    usual, calls = getattr(os, call), []

    def fail(*arguments):
        calls.append(1)
        if len(calls) == nth:
            raise OSError(code, os.strerror(code))
        return usual(*arguments)

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match=rf"run.npz could not be written: {os.strerror(code)}.*still there") as caught:
        checkpoint.save(path, ARRAYS, {"updates": 8})
    assert caught.value.errno == code
    monkeypatch.undo()
    assert not checkpoint.beside(path).exists()
    assert path.exists()
    assert checkpoint.load(path).facts in (FACTS, {"updates": 8})


def test_a_place_that_is_not_there_is_a_clear_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="could not be written: No such file or directory"):
        checkpoint.save(tmp_path / "nowhere" / "run.npz", ARRAYS, FACTS)


def test_a_first_checkpoint_that_was_cut_off_is_none(tmp_path):
    path = tmp_path / "run.npz"
    checkpoint.beside(path).write_bytes(b"PK")
    assert not checkpoint.exists(path)
    with pytest.raises(FileNotFoundError):
        checkpoint.load(path)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, TypeError])
def test_whatever_ends_a_save_no_half_file_is_left(path, monkeypatch, error):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(np.lib.format, "write_array", fail)
    with pytest.raises(error):
        checkpoint.save(path, ARRAYS, {"updates": 8})
    assert sorted(os.listdir(path.parent)) == ["run.npz", "run.npz.before"]
    assert checkpoint.load(path).facts == FACTS


def test_a_device_is_no_checkpoint():
    with pytest.raises(OSError, match=r"is no regular file; expected one. Name another"):
        checkpoint.load(pathlib.Path(os.devnull))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_no_checkpoint_and_nobody_waits_for_it(tmp_path):
    path = tmp_path / "run.npz"
    os.mkfifo(path)
    with pytest.raises(OSError, match=r"is no regular file; expected one. Name another\.$"):
        checkpoint.load(path)
    os.mkfifo(tmp_path / "other.npz.new")
    with pytest.raises(OSError, match=r"other.npz could not be written"):
        checkpoint.save(tmp_path / "other.npz", ARRAYS, FACTS)


def test_a_file_larger_than_the_memory_is_refused_before_it_is_read(path):
    os.truncate(path, memory() + 1)
    with pytest.raises(ValueError, match=r"run.npz has \d+ bytes; expected at most \d+, the memory of this machine"):
        checkpoint.load(path)


FORGED = {
    "a list for a manifest": (put("manifest.json", b"[]"), "no format"),
    "a number for a manifest": (put("manifest.json", b"7"), "no format"),
    "no facts": (lambda members: edit(members, lambda manifest: manifest.pop("facts")), "no arrays or no facts"),
    "a list of facts": (
        lambda members: edit(members, lambda manifest: manifest.update(facts=[1])), "no arrays or no facts",
    ),
    "no arrays": (lambda members: edit(members, lambda manifest: manifest.pop("arrays")), "no arrays or no facts"),
    "a number for an array": (
        lambda members: edit(members, lambda manifest: manifest["arrays"].update(theta=7)), "manifest says otherwise",
    ),
    "no shape": (
        lambda members: edit(members, lambda manifest: manifest["arrays"]["theta"].pop("shape")),
        "manifest says otherwise",
    ),
    "no sha256": (
        lambda members: edit(members, lambda manifest: manifest["arrays"]["theta"].pop("sha256")), "sha256 of theta",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", FORGED)
def test_a_forged_manifest_is_refused_by_name(kind, path):
    change, said = FORGED[kind]
    rewritten(path, change)
    with pytest.raises(checkpoint.DamagedError, match=rf"run.npz is damaged: .*{said}"):
        checkpoint.read(path)


def test_a_fact_that_is_missing_is_named(path):
    with pytest.raises(ValueError, match=r"checkpoint has no 'setting' among its facts; expected.*Name another file"):
        checkpoint.load(path).facts["setting"]


@pytest.mark.parametrize(
    "facts, said",
    [
        ({"setting": {"momentum": np.longdouble(0.9)}}, "facts.setting.momentum is a longdouble"),
        ({"list": [1, np.float32(2)]}, r"facts.list\[1\] is a float32; expected a number.*float"),
        ({"array": np.zeros(2)}, "facts.array is a ndarray.*tolist"),
        ({"named": {(1, 2): 3}}, "facts.named, a key, is a tuple"),
        ({"set": {1}}, "facts.set is a set"),
    ],
)  # fmt: skip
def test_facts_that_are_no_plain_data_are_named_and_nothing_is_left(path, facts, said):
    with pytest.raises(TypeError, match=rf"run.npz: {said}"):
        checkpoint.save(path, ARRAYS, facts)
    assert sorted(os.listdir(path.parent)) == ["run.npz", "run.npz.before"]
    assert checkpoint.load(path).facts == FACTS


def test_facts_that_hold_themselves_are_refused(path):
    facts = {"updates": 8}
    facts["itself"] = facts
    with pytest.raises(ValueError, match="nested too deep"):
        checkpoint.save(path, ARRAYS, facts)


def test_a_file_that_is_renamed_while_it_is_looked_at_is_no_device(tmp_path, monkeypatch):
    """A writer renames the last checkpoint to the one before at any time: between two questions it is gone."""
    path = tmp_path / "run.npz"
    checkpoint.save(checkpoint.before(path), ARRAYS, FACTS)
    monkeypatch.setattr(pathlib.Path, "exists", lambda path: True)
    assert checkpoint.load(path).facts == FACTS


FORGED_FACTS = {
    "updates": "8", "seconds": None, "single": 1, "setting": [], "history": 3, "evaluations": "none", "unit": 7,
    "max_updates": True, "count": -1, "first_passage": {}, "stays_below": 3.5, "last": None,
}  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return the checkpoint of a run of a few updates, and what began it."""
    net = nf.Network("tanh", n_in=6, n_hidden=4, n_out=4)
    theta, recipe = nf.init(net, "smart_tanh", rng=0), nf.Recipe(lengths=10, max_updates=4, evaluate_every=0)
    path = tmp_path_factory.mktemp("finished") / "run.npz"
    nf.train(net, theta, "temporal_order", recipe, checkpoint=path)
    return path, (net, theta, "temporal_order", recipe)


@pytest.mark.parametrize("name", FORGED_FACTS)
def test_a_fact_of_another_type_is_one_named_error(finished, tmp_path, name):
    path, call = finished
    saved = checkpoint.read(path)
    forged = tmp_path / "forged.npz"
    checkpoint.save(forged, saved.arrays, {**saved.facts, name: FORGED_FACTS[name]})
    for read in (nf.load_run, lambda path: nf.train(*call, checkpoint=path)):
        with pytest.raises(checkpoint.DamagedError, match=rf"forged.npz is damaged: its fact '{name}' is ") as caught:
            read(forged)
        assert len(str(caught.value)) < 500
