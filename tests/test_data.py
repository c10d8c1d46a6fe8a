"""The readers of users' files and the batches made of them."""

from __future__ import annotations

import itertools
import json
import os
import re
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from hypothesis import HealthCheck, given, settings, strategies as st
from numpy.typing import NDArray
from tolerance import near

from nbflow.data import (
    PianoRolls,
    Text,
    evaluation_batches,
    piano_roll_batches,
    read_piano_rolls,
    read_text,
    text_batches,
)
from nbflow.records import Batch

SPLITS = ("train", "valid", "test")
WHOLE = '{"train": [[[60, 64], []]], "valid": [[[60]]], "test": [[[21, 108, 21]]]}'
FOLDER = Path(os.environ.get("NBFLOW_DATA", Path(__file__).parents[2] / "shared" / "data"))

# The folder of one test serves all its examples: each overwrites the file.
same_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def real(name: str) -> Path:
    path = FOLDER / name
    if not path.exists():
        pytest.skip(f"{name} is not there; NBFLOW_DATA names the folder with the real data")
    return path


def written(folder: Path, content: bytes | str) -> Path:
    path = folder / "file.data"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refusal(read: Callable[..., Any], path: Path, *args: Any) -> str:
    """Read a file that is to be refused; return the message after the file's name."""
    with pytest.raises(ValueError, match="expected") as caught:
        read(path, *args)
    assert type(caught.value) is ValueError
    name, _, message = str(caught.value).partition(": ")
    assert name == str(path)
    return message


# ---- MATLAB 5 by hand, in both byte orders ----


def element(kind: int, payload: bytes, order: str = "<") -> bytes:
    return struct.pack(order + "II", kind, len(payload)) + payload + bytes(-len(payload) % 8)


def matrix(
    payload: bytes = b"",
    shape: tuple[int, ...] = (1, 1),
    name: str = "",
    kind: int = 9,
    order: str = "<",
    bits: int = 0,
) -> bytes:
    head = element(6, struct.pack(order + "II", kind | bits, 0), order)
    head += element(5, struct.pack(f"{order}{len(shape)}i", *shape), order) + element(1, name.encode(), order)
    return element(14, head + payload, order)


def numbers(values: NDArray[Any], kind: int = 9, order: str = "<", bits: int = 0) -> bytes:
    stored = {"uint8": 2, "float64": 9, "int16": 3}[values.dtype.name]
    data = values.astype(np.dtype(order + values.dtype.str[1:])).tobytes(order="F")
    return matrix(element(stored, data, order), values.shape, "", kind, order, bits)


def cell(name: str, *items: bytes, order: str = "<", shape: tuple[int, ...] | None = None) -> bytes:
    return matrix(b"".join(items), shape or (1, len(items)), name, 1, order)


def matlab(*variables: bytes, order: str = "<") -> bytes:
    return b"MATLAB 5.0 MAT-file, by hand".ljust(124) + (b"\0\1IM" if order == "<" else b"\1\0MI") + b"".join(variables)


ROLL = (np.arange(3 * 88).reshape(3, 88) % 5 == 0).astype(np.uint8)
OTHERS = (cell("validdata", numbers(ROLL)), cell("testdata", numbers(ROLL)))


def saved(folder: Path, parts: dict[str, list[NDArray[Any]]], compress: bool) -> Path:
    cells = {}
    for name, pieces in parts.items():
        cells[f"{name}data"] = np.empty((1, len(pieces)), object)
        cells[f"{name}data"][0, :] = [*pieces, None][:-1]
    path = folder / "file.data"
    scipy.io.savemat(path, cells, do_compression=compress, appendmat=False)
    return path


# ---- piano rolls: reading ----

notes = st.lists(st.lists(st.integers(21, 108), max_size=5), min_size=1, max_size=6)
sets = st.fixed_dictionaries({name: st.lists(notes, min_size=1, max_size=4) for name in SPLITS})


@same_folder
@given(content=sets, encoding=st.sampled_from(["utf-8", "utf-8-sig"]))
def test_json_gives_back_the_notes_that_were_written(tmp_path: Path, content: Any, encoding: str) -> None:
    rolls = read_piano_rolls(written(tmp_path, json.dumps(content).encode(encoding)))
    for name, pieces in zip(SPLITS, rolls, strict=True):
        assert len(pieces) == len(content[name])
        for roll, piece in zip(pieces, content[name], strict=True):
            assert roll.shape == (len(piece), 88)
            assert roll.dtype == np.uint8
            assert [(np.flatnonzero(row) + 21).tolist() for row in roll] == [sorted(set(frame)) for frame in piece]


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "bool", "int16", "float32", "float64"])
def test_matlab_gives_back_the_arrays_that_scipy_saved(tmp_path: Path, dtype: str, compress: bool) -> None:
    rng = np.random.default_rng(0)
    parts = {name: [rng.integers(0, 2, (t, 88)).astype(dtype) for t in (1, 7, 30)] for name in SPLITS}
    rolls = read_piano_rolls(saved(tmp_path, parts, compress))
    for name, pieces in zip(SPLITS, rolls, strict=True):
        for roll, piece in zip(pieces, parts[name], strict=True):
            np.testing.assert_array_equal(roll, piece)
            assert roll.dtype == np.uint8
            assert roll.flags.c_contiguous


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float64"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_matlab_reads_alike_in_both_byte_orders(tmp_path: Path, order: str, dtype: str) -> None:
    names = ("testdata", "traindata", "validdata")
    roll = numbers(ROLL.astype(dtype), order=order)
    cells = [cell(name, roll, roll, order=order, shape=(2, 1)) for name in names]
    rolls = read_piano_rolls(written(tmp_path, matlab(*cells, order=order)))
    for pieces in rolls:
        assert len(pieces) == 2
        np.testing.assert_array_equal(pieces[1], ROLL)


def test_further_keys_and_variables_are_left_alone(tmp_path: Path) -> None:
    read_piano_rolls(written(tmp_path, WHOLE[:-1] + ', "title": {"en": 1}}'))
    stranger = matrix(element(99, b"?"), (-1, 2**30), "stranger", 17)
    read_piano_rolls(written(tmp_path, matlab(stranger, cell("traindata", numbers(ROLL)), *OTHERS)))


def test_the_name_of_the_file_does_not_tell_its_format(tmp_path: Path) -> None:
    (tmp_path / "a.mat").write_text(WHOLE)
    (tmp_path / "b.json").write_bytes(matlab(cell("traindata", numbers(ROLL)), *OTHERS))
    assert read_piano_rolls(str(tmp_path / "a.mat")).test[0].sum() == 2
    assert read_piano_rolls(tmp_path / "b.json").train[0].sum() == ROLL.sum()


@pytest.mark.parametrize(
    "content, found",
    [
        ("", "is empty"),
        ("\ufeff", "no JSON from character 0"),
        (WHOLE[:40], r"no JSON from character 40 \(line 1\)"),
        ("not music", "neither MATLAB 5 nor JSON"),
        (b'{"train": "\xff"}', "byte 0xff at offset 11 is not UTF-8"),
        ("[" * 100_000, "lists too deep"),
        (WHOLE.replace("108", "9" * 5000), "a number too long"),
        ("[]", "holds a list"),
        ("null", "holds null"),
        ("{}", r"holds \[\]; expected train, valid, test, each once"),
        (WHOLE.replace("valid", "val"), r"'val'.*expected train, valid, test"),
        (WHOLE[:-1] + ', "train": [[[60]]]}', r"holds \['train', 'valid', 'test', 'train'\]; expected .* each once"),
        (WHOLE.replace("[[[60]]]", "[]"), "holds no pieces as valid"),
        (WHOLE.replace("[[[60]]]", "7"), "holds 7 as valid"),
        (WHOLE.replace("[[[60]]]", "{}"), "holds an object as valid"),
        (WHOLE.replace("[[[60]]]", "[[[60]], []]"), r"holds no frames as valid\[1\]"),
        (WHOLE.replace("[[[60]]]", '["abc"]'), r"holds 'abc' as valid\[0\]"),
        (WHOLE.replace("[[[60]]]", "[[[60], 60]]"), r"holds 60 as valid\[0\]\[1\]"),
        (WHOLE.replace("[[[60]]]", "[[[60], null]]"), r"holds null as valid\[0\]\[1\]"),
        (WHOLE.replace("108", "109"), r"holds 109 as test\[0\]\[0\]\[1\]; expected a MIDI note.*21 to 108"),
        (WHOLE.replace("108", "20"), r"holds 20 as test"),
        (WHOLE.replace("108", "-1"), r"holds -1 as test"),
        (WHOLE.replace("108", "1" * 4000), r"holds 1+\.\.\.1+ as test"),
        (WHOLE.replace("108", "60.0"), r"holds 60.0 as test"),
        (WHOLE.replace("108", "NaN"), r"holds NaN as test"),
        (WHOLE.replace("108", "1e999"), r"holds Infinity as test"),
        (WHOLE.replace("108", "true"), r"holds true as test"),
        (WHOLE.replace("108", '"C4"'), r"holds 'C4' as test"),
        (WHOLE.replace("108", "[60]"), r"holds a list as test\[0\]\[0\]\[1\]"),
        (b"\x80\x04K\x01.", "pickle.*not read: convert it to JSON"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"MATLAB 7.3 MAT-file", "Save it again in MATLAB"),
        (b"MATLAB 5.0 MAT-file", "cut off"),
        (b"\x1f\x8b\x08", "gunzip"),
        (b"PK\x03\x04", "unzip"),
    ],
)
def test_a_file_without_piano_rolls_in_json_is_refused(tmp_path: Path, content: bytes | str, found: str) -> None:
    message = refusal(read_piano_rolls, written(tmp_path, content))
    assert re.search(found, message), message
    assert len(message) < 400


BAD = np.where(np.arange(264).reshape(3, 88) == 100, np.nan, 0.0)


@pytest.mark.parametrize(
    "train, found",
    [
        (b"", r"'validdata', 'testdata'\]; expected traindata, validdata, testdata, each once"),
        (cell("traindata", numbers(ROLL)) + OTHERS[0], r"expected traindata, validdata, testdata, each once"),
        (cell("traindata"), r"a cell of shape \(1, 0\)"),
        (cell("traindata", *[numbers(ROLL)] * 4, shape=(2, 2)), r"a cell of shape \(2, 2\)"),
        (cell("traindata", numbers(ROLL), shape=(1, 1, 1)), r"a cell of shape \(1, 1, 1\)"),
        (cell("traindata", numbers(ROLL), shape=(1, 2)), "holds 1 pieces in traindata, declared as 2"),
        (cell("traindata", numbers(ROLL), shape=(1, 2**31 - 1)), "declared as 2147483647"),
        (cell("traindata", numbers(ROLL), shape=(-1, 1)), r"shape \(-1, 1\)"),
        (matrix(element(2, ROLL.tobytes()), (3, 88), "traindata"), r"an array of shape \(3, 88\) as traindata"),
        (matrix(b"", (1, 1), "traindata", 2), "a struct"),
        (matrix(b"", (1, 1), "traindata", 3), "an object"),
        (matrix(b"", (1, 1), "traindata", 17), "an object"),
        (matrix(b"", (1, 1), "traindata", 77), "class 77"),
        (cell("traindata", numbers(ROLL), numbers(ROLL, kind=4)), r"holds text of shape \(3, 88\) as traindata\{2\}"),
        (cell("traindata", numbers(ROLL, kind=5)), "a sparse array"),
        (cell("traindata", cell("", numbers(ROLL))), r"a cell of shape \(1, 1\) as traindata\{1\}"),
        (cell("traindata", numbers(ROLL, bits=0x800)), "complex"),
        (cell("traindata", numbers(ROLL.T.copy())), r"shape \(88, 3\).*Put frames first"),
        (cell("traindata", numbers(ROLL[:, :87].copy())), r"shape \(3, 87\)"),
        (cell("traindata", numbers(ROLL.reshape(3, 88, 1))), r"shape \(3, 88, 1\)"),
        (cell("traindata", numbers(ROLL[:0])), r"shape \(0, 88\).*take empty pieces out"),
        (cell("traindata", element(14, b"")), r"shape \(0, 0\)"),
        (
            cell("traindata", numbers(BAD)),
            r"holds nan as traindata\{1\}\(2, 13\); expected a \(T, 88\) array of 0 and 1",
        ),
        (cell("traindata", numbers(ROLL * np.uint8(90))), r"holds 90 as traindata\{1\}\(1, 1\).*piece > 0"),
        (
            cell("traindata", matrix(element(2, ROLL.tobytes()), (4, 88))),
            r"holds 264 bytes of type 2 for shape \(4, 88\)",
        ),
        (cell("traindata", matrix(element(16, ROLL.tobytes()), (3, 88))), "type 16"),
        (cell("traindata", matrix(b"", (3, 88))), "holds 0 bytes"),
        (cell("traindata", element(2, b"abc")), r"element of type 2 as traindata\{1\}"),
        (element(9, bytes(8)), "element of type 9 where a variable should begin"),
        (element(14, element(6, bytes(8))), "without a proper header"),
        (element(15, b"not zlib"), "do not unpack"),
        (element(15, zlib.compress(bytes(100))[:-6]), "stop short"),
        (element(15, zlib.compress(b"")), "element of type 0"),
        (struct.pack("<II", 14, 2**31), "2147483648 bytes that does not fit"),
        (struct.pack("<HHI", 14, 9, 0), "does not fit"),
    ],
)
def test_a_file_without_piano_rolls_in_matlab_is_refused(tmp_path: Path, train: bytes, found: str) -> None:
    message = refusal(read_piano_rolls, written(tmp_path, matlab(*OTHERS, train)))
    assert re.search(found, message), message
    assert len(message) < 400


def test_a_matlab_file_cut_in_a_tag_is_refused(tmp_path: Path) -> None:
    assert "ends within" in refusal(read_piano_rolls, written(tmp_path, matlab(*OTHERS, b"\x0e\0\0\0")))


def test_cells_within_cells_do_not_exhaust_the_stack(tmp_path: Path) -> None:
    heads: list[bytes] = []
    inside = len(numbers(ROLL))
    for depth in range(100_000):
        head = matrix(b"", (1, 1), "" if depth < 99_999 else "traindata", 1)[8:]
        inside += len(head)
        heads.append(struct.pack("<II", 14, inside) + head)
        inside += 8
    deep = matlab(*OTHERS, *reversed(heads), numbers(ROLL))
    assert "a cell of shape (1, 1) as traindata{1}" in refusal(read_piano_rolls, written(tmp_path, deep))


def compressed(variable: bytes) -> bytes:
    packed = zlib.compress(variable)
    return struct.pack("<II", 15, len(packed)) + packed


def test_a_compressed_file_unpacks_to_no_more_than_max_bytes(tmp_path: Path) -> None:
    silence = numbers(np.zeros((50_000, 88), np.uint8))
    path = written(tmp_path, matlab(*[compressed(cell(f"{name}data", silence)) for name in SPLITS]))
    assert path.stat().st_size < 20_000
    assert read_piano_rolls(path).test[0].shape == (50_000, 88)
    for max_bytes in (100_000, 2 * 50_000 * 88, 3 * 50_000 * 88):
        message = refusal(read_piano_rolls, path, max_bytes)
        assert message.startswith(f"unpacks to more than {max_bytes} bytes; expected at most max_bytes")
        assert message.endswith("give a larger max_bytes.")


def test_a_file_that_unpacks_to_too_much_is_left_packed(tmp_path: Path) -> None:
    path = written(tmp_path, matlab(compressed(bytes(20_000_000))))
    tracemalloc.start()
    refusal(read_piano_rolls, path, 100_000)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2_000_000


def test_a_folder_is_refused_where_one_file_is_meant_and_who_reads_folders_is_named(tmp_path: Path) -> None:
    assert re.search("is a folder.*read_text_files", refusal(read_text, tmp_path))


@pytest.mark.parametrize("read", [read_piano_rolls, read_text])
def test_a_path_that_is_no_file_of_fitting_size_is_refused(tmp_path: Path, read: Callable[..., Any]) -> None:
    with pytest.raises(FileNotFoundError, match=r"missing\.json: no such file; expected"):
        read(tmp_path / "missing.json")
    path = written(tmp_path, WHOLE)
    read(path, len(WHOLE))
    assert f"has {len(WHOLE)} bytes; expected at most max_bytes = 10" in refusal(read, path, 10)
    for max_bytes in (True, 1.5, "10", None):
        with pytest.raises(TypeError, match=r"max_bytes is .*; expected a positive integer"):
            read(path, max_bytes)
    with pytest.raises(ValueError, match="max_bytes is 0"):
        read(path, 0)
    for nothing in (3, None, b"file"):
        with pytest.raises(TypeError, match=r"path is .*; expected a str or an os.PathLike"):
            read(nothing)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in refusal(read_piano_rolls, tmp_path / "pipe")


def wounds(content: bytes, seed: int, count: int) -> Iterator[bytes]:
    """Cut the file, change bytes of it, and take bytes out, at random places."""
    rng = np.random.default_rng(seed)
    telling = (0, 1, 3, 5, 14, 15, 17, 34, 44, 91, 93, 127, 255)
    for _ in range(count):
        place = int(rng.integers(len(content)))
        yield content[:place]
        yield content[:place] + content[place + int(rng.integers(1, 9)) :]
        changed = bytearray(content)
        for at in rng.integers(0, len(content) if rng.random() < 0.5 else min(len(content), 400), 3):
            changed[at] = rng.choice(telling) if rng.random() < 0.5 else rng.integers(256)
        yield bytes(changed)


def read_or_refused(path: Path) -> bool:
    refused: ValueError | None = None
    try:
        rolls = read_piano_rolls(path)
    except ValueError as error:
        refused = error
    if refused is None:
        return all(roll.shape[1:] == (88,) and roll.max() <= 1 for part in rolls for roll in part)
    assert type(refused) is ValueError
    assert str(refused).startswith(f"{path}: ")
    assert "expected" in str(refused)
    return False


@pytest.mark.parametrize("form", ["json", "matlab", "matlab compressed"])
def test_a_damaged_file_is_read_or_refused_by_name(tmp_path: Path, form: str) -> None:
    if form == "json":
        content = WHOLE.encode()
    else:
        rng = np.random.default_rng(1)
        parts = {name: [rng.integers(0, 2, (t, 88), np.uint8) for t in (1, 4)] for name in SPLITS}
        content = saved(tmp_path, parts, compress="compressed" in form).read_bytes()
    outcomes = {read_or_refused(written(tmp_path, wounded)) for wounded in wounds(content, 0, 300)}
    assert False in outcomes


@pytest.mark.parametrize("name", ["jsb-chorales-quarter.json", "Nottingham.mat"])
def test_a_damaged_real_file_is_read_or_refused_by_name(tmp_path: Path, name: str) -> None:
    content = real(name).read_bytes()
    outcomes = [read_or_refused(written(tmp_path, wounded)) for wounded in wounds(content, 2, 12)]
    assert not any(outcomes[::3])


@pytest.mark.parametrize(
    "name, pieces, frames, longest",
    [
        ("jsb-chorales-quarter.json", [229, 76, 77], [13807, 4602, 4725], 160),
        ("Nottingham.mat", [694, 173, 170], [176561, 45513, 44463], 1793),
    ],
)
def test_the_published_sets_have_their_published_sizes(
    name: str, pieces: list[int], frames: list[int], longest: int
) -> None:
    rolls = read_piano_rolls(real(name))
    assert [len(part) for part in rolls] == pieces
    assert [sum(map(len, part)) for part in rolls] == frames
    assert max(len(roll) for part in rolls for roll in part) == longest


def test_the_real_matlab_file_reads_as_scipy_reads_it() -> None:
    path = real("Nottingham.mat")
    oracle = scipy.io.loadmat(path)
    for name, part in zip(SPLITS, read_piano_rolls(path), strict=True):
        for roll, piece in zip(part, oracle[f"{name}data"].ravel(), strict=True):
            np.testing.assert_array_equal(roll, piece)


# ---- piano rolls: batches ----


def numbered(lengths: list[int]) -> list[NDArray[np.float64]]:
    """Give pieces whose every frame can be told from every other."""
    frames = np.arange(1, sum(lengths) + 1)[:, None] / (sum(lengths) + 1) * [1.0, 0.5]
    return np.split(frames, np.cumsum(lengths)[:-1])


def seen(batches: Iterator[Batch]) -> list[tuple[float, float]]:
    """List (input, target) of every step that counts, first column, batch by batch, row by row."""
    pairs = []
    for batch in batches:
        for b in range(batch.weights.shape[1]):
            steps = batch.weights[:, b] > 0
            pairs += list(zip(batch.inputs[steps, b, 0].tolist(), batch.targets[steps, b, 0].tolist(), strict=True))
    return pairs


def all_pairs(pieces: list[NDArray[np.float64]]) -> list[tuple[float, float]]:
    return [pair for piece in pieces for pair in itertools.pairwise([0.0, *piece[:, 0].tolist()])]


@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=9),
    batch_size=st.integers(1, 5),
    length=st.none() | st.integers(1, 6),
    rng=st.none() | st.integers(0, 9),
    reduction=st.sampled_from(["mean", "sum"]),
    bucket=st.none() | st.integers(1, 4),
)
def test_every_frame_is_a_target_once_after_the_true_frame_before_it(
    lengths: list[int], batch_size: int, length: int | None, rng: int | None, reduction: Any, bucket: int | None
) -> None:
    pieces = numbered(lengths)

    def batches() -> Iterator[Batch]:
        return piano_roll_batches(
            pieces, batch_size, length, dtype="float64", rng=rng, reduction=reduction, bucket=bucket
        )

    assert sorted(seen(batches())) == sorted(all_pairs(pieces))
    for batch in batches():
        steps, rows = batch.weights.shape
        assert batch.inputs.shape == batch.targets.shape == (steps, rows, 2)
        assert 1 <= rows <= batch_size
        assert steps <= (length or max(lengths))
        counts = batch.weights > 0
        assert counts.any(axis=1).all()
        assert (np.diff(counts.astype(int), axis=0) <= 0).all()
        assert not batch.inputs[~counts].any()
        assert not batch.targets[~counts].any()
        np.testing.assert_array_equal(batch.weights[counts], 1 / counts.sum() if reduction == "mean" else 1)


@pytest.mark.parametrize("length", [None, 1, 4, 200])
def test_without_rng_the_frames_come_in_order(length: int | None) -> None:
    pieces = numbered([7, 3, 9, 4, 1])
    assert seen(piano_roll_batches(pieces, 2, length, dtype="float64")) == all_pairs(pieces)


def test_a_seed_and_its_generator_give_the_same_batches_and_another_seed_others() -> None:
    pieces = numbered([7, 3, 9, 4, 1, 8, 5, 5, 2])
    seeds: list[Any] = [3, 3, np.int64(3), 4]
    by_seed = [seen(piano_roll_batches(pieces, 2, 4, rng=seed)) for seed in seeds]
    assert by_seed[0] == by_seed[1] == by_seed[2] != by_seed[3]
    generator = np.random.default_rng(3)
    passes = [seen(piano_roll_batches(pieces, 2, 4, rng=generator)) for _ in range(2)]
    assert passes[0] == by_seed[0] != passes[1]


def test_generators_are_drawn_from_at_the_call_and_not_while_batches_are_taken() -> None:
    generator = np.random.default_rng(0)
    batches = piano_roll_batches(numbered([3, 4, 5]), 1, rng=generator)
    state = generator.bit_generator.state
    list(batches)
    assert generator.bit_generator.state == state


def test_shuffled_batches_of_like_length_come_in_no_order_of_length() -> None:
    batches = piano_roll_batches(numbered(list(range(1, 41))), 2, rng=0, bucket=20)
    lengths = [len(batch.weights) for batch in batches]
    assert sorted(lengths) == list(range(2, 41, 2))
    assert lengths != sorted(lengths)


@pytest.mark.parametrize("dtype", ["float32", "float64", np.float32, np.dtype("float64")])
def test_arrays_come_in_the_dtype_asked_for(dtype: Any) -> None:
    for batches in (piano_roll_batches([ROLL], 1, dtype=dtype), evaluation_batches([ROLL], 1, dtype=dtype)):
        assert {array.dtype for array in next(batches)} == {np.dtype(dtype)}
    assert next(text_batches(np.arange(9), 1, 3, dtype=dtype)).weights.dtype == dtype


def padding(batches: Iterator[Batch]) -> float:
    counts = np.concatenate([batch.weights.ravel() > 0 for batch in batches])
    return 1 - float(counts.mean())


@pytest.mark.parametrize(
    "name, unsorted, default", [("Nottingham.mat", 0.20, 0.09), ("jsb-chorales-quarter.json", 0.35, 0.15)]
)
def test_sorting_by_length_cuts_the_padding_of_real_music(name: str, unsorted: float, default: float) -> None:
    pieces = read_piano_rolls(real(name)).train
    assert padding(piano_roll_batches(pieces, 20, rng=0, bucket=1)) > unsorted
    assert padding(piano_roll_batches(pieces, 20, rng=0)) < default


@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=9), batch_size=st.integers(1, 5), bucket=st.integers(1, 3)
)
def test_evaluation_sees_whole_pieces_and_its_losses_add_up_to_nats_per_frame(
    lengths: list[int], batch_size: int, bucket: int
) -> None:
    pieces = numbered(lengths)
    assert seen(evaluation_batches(pieces, batch_size, dtype="float64")) == all_pairs(pieces)
    batches = list(evaluation_batches(pieces, batch_size, dtype="float64", bucket=bucket))
    assert sorted(seen(iter(batches))) == sorted(all_pairs(pieces))
    assert sum(batch.weights.shape[1] for batch in batches) == len(pieces)
    loss = sum(float((batch.weights * np.square(batch.targets - 0.3).sum(axis=2)).sum()) for batch in batches)
    mean = np.square(np.concatenate(pieces) - 0.3).sum(axis=1).mean()
    assert loss == near(float(mean), "float64", 20, 500)


PIECES = [ROLL, ROLL[:2]]


@pytest.mark.parametrize(
    "change, error, found",
    [
        ({"pieces": []}, ValueError, "pieces is empty; expected at least 1 piece"),
        ({"pieces": PianoRolls((ROLL,), (ROLL,), (ROLL,))}, TypeError, r"pieces is a PianoRolls.*rolls\.train"),
        ({"pieces": ROLL}, TypeError, r"pieces is ndarray; expected a sequence.*\[piece\]"),
        ({"pieces": [[[0, 1]]]}, TypeError, r"pieces\[0\] is list"),
        ({"pieces": [ROLL.astype(str)]}, TypeError, r"pieces\[0\] has dtype <U"),
        ({"pieces": [ROLL, ROLL[0]]}, ValueError, r"pieces\[1\] has shape \(88,\); expected \(T, 88\)"),
        ({"pieces": [ROLL, ROLL[:0]]}, ValueError, r"pieces\[1\] has shape \(0, 88\)"),
        ({"pieces": [ROLL, ROLL[:, :5]]}, ValueError, r"pieces\[1\] has shape \(3, 5\); expected \(T, 88\)"),
        ({"pieces": [ROLL * np.uint8(90)]}, ValueError, r"pieces\[0\] spans 0 to 90; expected numbers from 0 to 1"),
        ({"pieces": [BAD]}, ValueError, r"pieces\[0\] spans nan to nan"),
        ({"batch_size": 0}, ValueError, r"batch_size is 0; expected a positive integer\. Give at least 1\."),
        ({"batch_size": 2.0}, TypeError, "batch_size is 2.0; expected a positive integer"),
        ({"batch_size": True}, TypeError, "batch_size is True"),
        ({"length": 0}, ValueError, r"length is 0; expected a positive integer or None\. Give at least 1\."),
        ({"length": "all"}, TypeError, "length is 'all'"),
        ({"bucket": 0}, ValueError, "bucket is 0; expected a positive integer or None"),
        ({"dtype": "float16"}, ValueError, "dtype is 'float16'; expected float32 or float64"),
        ({"dtype": None}, ValueError, "dtype is None"),
        ({"dtype": "floaty"}, TypeError, "dtype is 'floaty'"),
        ({"reduction": "none"}, ValueError, 'reduction is \'none\'; expected "mean" or "sum"'),
        ({"rng": -1}, ValueError, "rng is -1; expected 0 or more"),
        ({"rng": 1.5}, TypeError, "rng is float; expected None, an integer or a numpy.random.Generator"),
        ({"rng": True}, TypeError, "rng is bool"),
    ],
)
def test_a_wrong_argument_is_refused_at_the_call(change: dict[str, Any], error: type[Exception], found: str) -> None:
    arguments: dict[str, Any] = {"pieces": PIECES, "batch_size": 2, **change}
    with pytest.raises(error, match=found):
        piano_roll_batches(**arguments)
    if not {"length", "reduction", "rng"} & change.keys():
        with pytest.raises(error, match=found.replace(" or None", "")):
            evaluation_batches(**arguments)


# ---- text ----

encodable = st.text(st.characters(codec="utf-8"), min_size=1, max_size=50)


@same_folder
@given(characters=encodable.filter(lambda characters: not characters.startswith("\ufeff")), mark=st.booleans())
def test_text_gives_back_every_character(tmp_path: Path, characters: str, mark: bool) -> None:
    text = read_text(written(tmp_path, characters.encode("utf-8-sig" if mark else "utf-8")))
    assert text.tokens.dtype == np.int32
    assert text.vocabulary == tuple(sorted(set(characters)))
    assert text.decode(text.tokens) == characters
    np.testing.assert_array_equal(text.encode(characters), text.tokens)
    assert "".join(text.vocabulary[token] for token in text.tokens) == characters


def test_line_ends_stay_as_they_are(tmp_path: Path) -> None:
    text = read_text(written(tmp_path, "a\r\nb\rc\n\u2028"))
    assert text.vocabulary == ("\n", "\r", "a", "b", "c", "\u2028")
    assert text.decode(text.tokens) == "a\r\nb\rc\n\u2028"


@pytest.mark.parametrize(
    "content, found",
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf", "no characters"),
        (b"abc\xe9 de", "byte 0xe9 at offset 3 is not UTF-8"),
        (b"\xef\xbb\xbfab\xff", "byte 0xff at offset 5 is"),
        ("caf\u00e9".encode()[:-1], "byte 0xc3 at offset 3 is"),
        ("text".encode("utf-16"), "byte 0x[ef][ef] at offset 0 is"),
        (b"\xed\xa0\x80", "byte 0xed at offset 0 is"),
    ],
)
def test_a_file_that_is_no_utf8_text_is_refused(tmp_path: Path, content: bytes, found: str) -> None:
    message = refusal(read_text, written(tmp_path, content))
    assert re.search(found, message), message


TEXT = Text(np.array([1, 0, 1, 2], np.int32), ("a", "b", "\U0001f3b5"))


def test_characters_and_tokens_outside_the_vocabulary_are_refused() -> None:
    for stranger in ("c", "A", "\U0001f3b6", "\ud800"):
        with pytest.raises(ValueError, match=r"characters\[2\] is '.*'; expected one of the 3 characters"):
            TEXT.encode("ab" + stranger)
    with pytest.raises(TypeError, match="characters is bytes; expected a str"):
        TEXT.encode(b"ab")  # type: ignore[arg-type]
    for token in (-1, 3):
        with pytest.raises(ValueError, match=rf"tokens holds {token}; expected 0 to 2"):
            TEXT.decode(np.array([0, token]))
    with pytest.raises(ValueError, match=r"tokens has shape \(2, 2\); expected \(n,\)"):
        TEXT.decode(np.zeros((2, 2), int))
    with pytest.raises(TypeError, match="tokens has dtype float64; expected integers"):
        TEXT.decode(np.zeros(2))  # type: ignore[arg-type]


def test_nothing_encodes_to_nothing_and_back() -> None:
    assert TEXT.encode("").shape == (0,)
    assert TEXT.decode(TEXT.encode("")) == ""
    assert TEXT.decode([2, 0]) == "\U0001f3b5a"  # type: ignore[arg-type]


@given(size=st.integers(20, 300), cuts=st.lists(st.integers(1, 20), min_size=1, max_size=6))
def test_the_parts_of_a_split_make_up_the_text(size: int, cuts: list[int]) -> None:
    text = Text(np.arange(size, dtype=np.int32), tuple(map(chr, range(size))))
    fractions = [cut / sum(cuts) for cut in cuts]
    if min(fractions) * size < 1:
        return
    parts = text.split(fractions)
    np.testing.assert_array_equal(np.concatenate([part.tokens for part in parts]), text.tokens)
    for part, fraction in zip(parts, fractions, strict=True):
        assert abs(part.tokens.size - fraction * size) <= 1
        assert part.vocabulary is text.vocabulary


@pytest.mark.parametrize("fractions", [(), (0.5,), (0.5, 0.6), (1.0, 0.0), (1.5, -0.5), (float("nan"), 1.0)])
def test_fractions_that_do_not_add_up_are_refused(fractions: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"fractions is .*; expected numbers above 0 that add up to 1"):
        TEXT.split(fractions)


def test_a_split_with_an_empty_part_is_refused() -> None:
    with pytest.raises(ValueError, match=r"fractions\[1\] is 0.05 of 4 characters, an empty part"):
        TEXT.split((0.95, 0.05))
    for fractions in (0.5, None, ("half", "half")):
        with pytest.raises(TypeError, match=r"fractions is .*; expected a sequence of numbers"):
            TEXT.split(fractions)  # type: ignore[arg-type]


@given(size=st.integers(2, 200), batch_size=st.integers(1, 12), length=st.integers(1, 30))
def test_text_batches_are_contiguous_streams(size: int, batch_size: int, length: int) -> None:
    tokens = np.arange(size)
    if size <= batch_size:
        with pytest.raises(ValueError, match=rf"tokens has {size} characters; expected at least batch_size \+ 1"):
            text_batches(tokens, batch_size, length)
        return
    batches = list(text_batches(tokens, batch_size, length))
    steps = (size - 1) // batch_size
    assert [len(batch.inputs) for batch in batches[:-1]] == [length] * (len(batches) - 1)
    assert 1 <= len(batches[-1].inputs) <= length
    inputs = np.concatenate([batch.inputs for batch in batches])
    np.testing.assert_array_equal(inputs, np.arange(steps)[:, None] + steps * np.arange(batch_size))
    for batch in batches:
        np.testing.assert_array_equal(batch.targets, batch.inputs + 1)
        np.testing.assert_array_equal(batch.weights, np.float32(1 / batch.inputs.size))
        assert batch.weights.shape == batch.inputs.shape


def test_text_batches_keep_the_integer_type_and_leave_the_tokens_alone() -> None:
    tokens = np.arange(10, dtype=np.uint16)
    for batch in text_batches(tokens, 3, 2):
        assert batch.inputs.dtype == batch.targets.dtype == np.uint16
        batch.inputs[:] = 0
        batch.targets[:] = 0
    np.testing.assert_array_equal(tokens, np.arange(10))


@pytest.mark.parametrize(
    "change, error, found",
    [
        ({"tokens": TEXT}, TypeError, r"tokens is a Text; expected its tokens\. Write text\.tokens"),
        ({"tokens": np.zeros((3, 3), int)}, ValueError, r"tokens has shape \(3, 3\); expected \(n,\)"),
        ({"tokens": np.zeros(9)}, TypeError, "tokens has dtype float64; expected integers"),
        ({"tokens": np.array([0, -1, 2])}, ValueError, "tokens holds -1; expected 0 or more"),
        ({"tokens": []}, ValueError, "tokens has 0 characters; expected at least batch_size"),
        ({"batch_size": 0}, ValueError, "batch_size is 0"),
        ({"length": None}, TypeError, r"length is None; expected a positive integer\. Give at least 1"),
        ({"length": -1}, ValueError, "length is -1"),
        ({"dtype": int}, ValueError, "dtype is <class 'int'>; expected float32 or float64"),
    ],
)
def test_a_wrong_argument_for_text_is_refused_at_the_call(
    change: dict[str, Any], error: type[Exception], found: str
) -> None:
    arguments: dict[str, Any] = {"tokens": np.arange(9), "batch_size": 2, "length": 3, **change}
    with pytest.raises(error, match=found):
        text_batches(**arguments)


def test_tiny_shakespeare_has_65_characters() -> None:
    path = real("tinyshakespeare.txt")
    text = read_text(path)
    assert text.tokens.shape == (1_115_394,)
    assert len(text.vocabulary) == 65
    assert text.decode(text.tokens).encode() == path.read_bytes()
    assert [part.tokens.size for part in text.split((0.9, 0.05, 0.05))] == [1_003_855, 55_769, 55_770]
