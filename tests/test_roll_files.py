"""Piano rolls from NumPy's files, MIDI, several files and folders: what is read, into which parts, what is refused."""

from __future__ import annotations

import importlib
import io
import json
import os
import pickle
import re
import shutil
import struct
import sys
import tracemalloc
import zipfile
from fractions import Fraction

import numpy as np
import pytest
from test_data import refusal, wounds

import nbflow as nf
from nbflow.data import PianoRollTask, read_piano_rolls, read_pieces
from nbflow.experiments.experiment import key_of

SPLITS = ("train", "valid", "test")


@pytest.fixture
def mido():
    """Give what parses MIDI; tests that ask for it skip where it is not installed."""
    return pytest.importorskip("mido")


def rolls_of(*frames, seed=0):
    rng = np.random.default_rng(seed)
    return [(rng.random((count, 88)) < 0.1).astype(np.uint8) for count in frames]


def same(found, wanted):
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == np.uint8
        assert one.tolist() == other.tolist()


def read_or_refused(path):
    """Say whether pieces are read, or the file is refused in one way."""
    refused = ""
    try:
        pieces = read_pieces(path, 100_000)
    except ValueError as error:
        refused = str(error)
    if refused:
        assert refused.startswith(f"{path}: ")
        assert "expected" in refused
        return "refused"
    assert all(piece.shape[1] == 88 and piece.max() <= 1 for piece in pieces)
    return "read"


def as_json(roll):
    return [(np.flatnonzero(row) + 21).tolist() for row in roll]


def put(folder, name, content):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


# --- MIDI by hand: bytes of the standard, written without any library.


def number(value):
    """Write a number in groups of seven bits, the last one first marked."""
    groups = [value & 0x7F]
    while value := value >> 7:
        groups.insert(0, value & 0x7F | 0x80)
    return bytes(groups)


def event(delta, *message):
    return number(delta) + bytes(message)


END = event(0, 0xFF, 0x2F, 0)


def midi(*tracks, kind=1, division=4, count=None):
    head = struct.pack(">4sIHHH", b"MThd", 6, kind, len(tracks) if count is None else count, division)
    return head + b"".join(struct.pack(">4sI", b"MTrk", len(track)) + track for track in tracks)


def note(begin, end, key=60, channel=0):
    return event(begin, 0x90 | channel, key, 64) + event(end - begin, 0x80 | channel, key, 0)


TINY = midi(
    event(0, 0xFF, 0x03, 4, *b"name") + event(0, 0xFF, 0x51, 3, 7, 161, 32) + END,  # a name, a tempo
    # C for 4 ticks of 4 a beat; E for 2 after a rest of 2: status bytes left out, and a velocity of 0 for "let go".
    event(0, 0x90, 60, 64) + event(4, 60, 0) + event(2, 64, 64) + event(2, 64, 0) + END,
    event(0, 0xB1, 64, 127) + note(1, 9, 72, channel=1) + note(0, 8, 35, channel=9) + END,  # a pedal, and a drum
)


@pytest.mark.parametrize(
    ("step", "wanted"),
    [
        ("quarter", [[60], [72], [72]]),
        ("eighth", [[60], [60, 72], [72], [64, 72], [72]]),
        (0.25, [[60], [60, 72], [60, 72], [60, 72], [72], [72], [64, 72], [64, 72], [72]]),
        ("half", [[60], [72]]),
    ],
)
def test_a_tiny_file_that_is_written_by_hand_is_sampled_at_steps_of_a_beat(mido, tmp_path, step, wanted):
    (piece,) = read_pieces(put(tmp_path, "tiny", TINY), step=step)
    assert as_json(piece) == wanted
    if step == "eighth":
        same(read_pieces(tmp_path), [piece])


@pytest.mark.parametrize(
    ("track", "wanted"),
    [
        (note(0, 4) + note(0, 4), [[60]] * 4),  # one note behind the other
        (
            event(0, 0x90, 60, 1) + event(2, 0x90, 60, 1) + event(2, 0x80, 60, 0),
            [[60]] * 2 + [[60]] * 2,
        ),  # struck again
        (
            event(0, 0x90, 60, 1) + event(3, 0x90, 62, 1) + event(1, 0x80, 62, 0),
            [[60]] * 3 + [[60, 62]],
        ),  # never let go
        (event(0, 0x80, 60, 0) + note(1, 2) + event(5, 0x80, 60, 0), [[], [60]]),  # let go without being down
        (note(0, 1) + event(0, 0xF0, 2, 1, 0xF7) + note(0, 1, 61), [[60], [61]]),  # a message of a maker's own between
    ],
    ids=["twice", "again", "held", "loose", "system"],
)
def test_a_key_is_down_from_where_it_is_struck_to_where_it_is_let_go(mido, tmp_path, track, wanted):
    (piece,) = read_pieces(put(tmp_path, "one.mid", midi(track + END, division=1)), step="quarter")
    assert as_json(piece)[: len(wanted)] == wanted


def test_the_same_key_of_two_tracks_is_let_go_by_each_for_itself(mido, tmp_path):
    data = midi(note(0, 6) + END, note(1, 2) + END, division=1)
    assert as_json(read_pieces(put(tmp_path, "two.mid", data), step=1)[0]) == [[60]] * 6


def saved(mido, tracks, ticks, kind=1):
    """Write notes (begin, end, key, channel) of tracks with the library that others write with."""
    file = mido.MidiFile(type=kind, ticks_per_beat=ticks)
    for notes in tracks:
        track = mido.MidiTrack()
        file.tracks.append(track)
        events = [(begin, 1, key, channel) for begin, _, key, channel in notes]
        events += [(end, 0, key, channel) for _, end, key, channel in notes]
        now = 0
        for at, on, key, channel in sorted(events):  # what ends comes before what begins
            kind_of = "note_on" if on else "note_off"
            track.append(mido.Message(kind_of, note=key, velocity=64 * on, channel=channel, time=at - now))
            now = at
    out = io.BytesIO()
    file.save(file=out)
    return out.getvalue()


@pytest.mark.parametrize("ticks", [1, 96, 480, 97])
@pytest.mark.parametrize(("step", "beats"), [("sixteenth", (1, 4)), (1 / 3, (1, 3)), (1, (1, 1)), (0.7, (7, 10))])
def test_a_frame_has_exactly_the_notes_that_sound_at_its_step(mido, tmp_path, ticks, step, beats):
    rng = np.random.default_rng(ticks)
    tracks = []
    for channel in (0, 1, 0):  # a key has one note behind the other in each track
        notes, ends = [], dict.fromkeys(range(21, 109, 7), 0)
        for _ in range(60):
            key = int(rng.choice(list(ends)))
            begin = ends[key] + int(rng.integers(0, 2 * ticks + 1))
            ends[key] = begin + int(rng.integers(1, 3 * ticks + 1))
            notes.append((begin, ends[key], key, channel))
        tracks.append(notes)
    (piece,) = read_pieces(put(tmp_path, "a.mid", saved(mido, tracks, ticks)), step=step)
    every = [one for notes in tracks for one in notes]
    wanted, frame = [], 0
    while (at := frame * Fraction(*beats) * ticks) < max(end for _, end, *_ in every):
        wanted.append(sorted({key for begin, end, key, _ in every if begin <= at < end}))
        frame += 1
    assert as_json(piece) == wanted


@pytest.mark.parametrize(
    ("content", "step", "said"),
    [
        (TINY[:10], None, "MIDI file that is cut or damaged"),
        (TINY[:-3], None, r"cut or damaged \(EOFError"),
        (TINY[:60] + b"\xff" * 8, None, "cut or damaged"),
        (midi(note(0, 4) + END, count=2), None, "cut or damaged"),
        (midi(event(0, 0x90, 188, 64) + END), None, "cut or damaged .*data byte"),
        (midi(note(0, 4) + END, division=0xE728), None, r"in seconds and frames \(SMPTE\); expected type 0 or 1"),
        (midi(note(0, 4) + END, division=0), None, "SMPTE"),
        (midi(note(0, 4) + END, kind=2), None, "is MIDI of type 2; expected type 0 or 1"),
        (midi(END), None, "holds no notes; expected some"),
        (midi(), None, "holds no notes"),
        (midi(note(0, 4, channel=9) + END), None, "holds no notes; expected some that are no percussion"),
        (midi(note(0, 4) + note(6, 8, 109) + END), None, "holds the note 109 at beat 2.5; expected 21 to 108"),
        (midi(note(0, 4, 20) + END), None, "holds the note 20 at beat 0"),
        (midi(note(1, 2) + END), "quarter", "holds 1 notes, none of which sounds at a multiple of 1 beats"),
        (midi(note(0, 2**28 - 1) + END), 0.1, r"lasts 671088638 steps, \d+ bytes .*; expected at most max_bytes"),
        (b"RIFF\x10\0\0\0RMID", None, "a RIFF file; expected JSON.*standard MIDI"),
    ],
    ids=lambda value: None,
)
def test_a_midi_file_that_cannot_be_used_is_refused_by_name(mido, tmp_path, content, step, said):
    message = refusal(lambda path: read_pieces(path, step=step), put(tmp_path, "bad.mid", content))
    assert re.search(said, message), message
    assert len(message) < 400
    put(tmp_path, "fine.mid", TINY)
    with pytest.raises(ValueError, match=r"bad\.mid: "):
        read_pieces(tmp_path, step=step)


def test_a_damaged_midi_file_is_read_or_refused_by_name(mido, tmp_path):
    outcomes = set()
    for content in (TINY, saved(mido, [[(k, k + 5, 30 + k, 0) for k in range(60)]], 8)):
        damaged = [one for one in wounds(content, 0, 150) if one.startswith(b"MThd")]
        outcomes |= {read_or_refused(put(tmp_path, "damaged.mid", one)) for one in damaged}
    assert outcomes == {"read", "refused"}


def test_a_roll_that_would_fill_the_memory_is_not_made(mido, tmp_path):
    track = b"".join(event(2**28 - 1, 0x90, 60, 1) + event(2**28 - 1, 0x80, 60, 0) for _ in range(50))
    path = put(tmp_path, "long.mid", midi(track + END, division=1))
    tracemalloc.start()
    assert "expected at most max_bytes" in refusal(lambda path: read_pieces(path, step="sixteenth"), path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2_000_000


@pytest.mark.parametrize(
    ("step", "kind", "said"),
    [
        ("beat", ValueError, "step is 'beat'; expected one of whole, half, quarter, eighth, sixteenth"),
        (0, ValueError, r"step is 0; expected .* or a number of beats"),
        (float("nan"), ValueError, "step is nan"),
        (1e-9, ValueError, "step is 1e-09"),
        (True, TypeError, "step is True"),
        ([1], TypeError, r"step is \[1\]"),
    ],
)
def test_what_is_no_step_is_refused(tmp_path, step, kind, said):
    with pytest.raises(kind, match=said):
        read_pieces(put(tmp_path, "tiny.mid", TINY), step=step)


def test_without_mido_everything_else_is_read_and_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mido", None)
    path = put(tmp_path, "tiny.mid", TINY)
    with pytest.raises(ImportError, match=r"MIDI needs mido, .*pip install 'nbflow\[music\]'"):
        read_pieces(path)
    assert len(read_pieces(put(tmp_path, "a.json", [[[60]]]))) == 1


def test_reading_loads_mido_with_the_first_midi_file_and_not_before():
    assert importlib.import_module("nbflow.data") is nf.data
    done = "import sys, nbflow as nf; nf.data.read_pieces; print('mido' in sys.modules, 'numba' in sys.modules)"
    import subprocess

    found = subprocess.run([sys.executable, "-c", done], capture_output=True, text=True, check=True, timeout=120)
    assert found.stdout.split() == ["False", "False"]


# --- NumPy's files.


@pytest.mark.parametrize("dtype", ["uint8", "bool", "int64", "float32", ">i2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_is_a_piece_or_several_of_one_length(tmp_path, dtype, order):
    (roll,) = rolls_of(9)
    np.save(tmp_path / "one.npy", np.asarray(roll.astype(dtype), order=order))
    same(read_pieces(tmp_path / "one.npy"), [roll])
    np.save(tmp_path / "two.npy", np.asarray(np.stack([roll, 1 - roll]).astype(dtype), order=order))
    same(read_pieces(tmp_path / "two.npy"), [roll, 1 - roll])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_is_pieces_of_any_length_in_the_order_of_their_numbers(tmp_path, save):
    rolls = rolls_of(*range(1, 13))
    save(tmp_path / "rolls.npz", *rolls)
    same(read_pieces(tmp_path / "rolls.npz"), rolls)
    parts = {f"train/{k}": roll for k, roll in enumerate(rolls[:11])} | {
        "valid": np.stack(rolls_of(4, 4)),
        "test_0": rolls[2],
    }
    save(tmp_path / "set.npz", lengths=np.arange(3), **parts)
    found = read_piano_rolls(tmp_path / "set.npz")
    same(found.train, rolls[:11])
    same(found.valid, rolls_of(4, 4))
    same(found.test, rolls[2:3])


def npz(**members):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in members.items():
            archive.writestr(name.replace("__", "."), data)
    return out.getvalue()


def npy(array, **how):
    out = io.BytesIO()
    np.save(out, array, **how)
    return out.getvalue()


(ROLL,) = rolls_of(6)
GOOD = npy(ROLL)


class Marker:
    """A trap: whoever unpickles it makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_no_pickle_is_opened_wherever_it_is_and_how_to_convert_it_is_said(tmp_path, protocol):
    trap, marker = Marker(tmp_path / "sprung"), tmp_path / "sprung"
    boxed = np.empty(2, object)
    boxed[:] = [trap, trap]
    inside = npy(boxed, allow_pickle=True)
    for content in (
        pickle.dumps({"train": trap}, protocol),
        pickle.dumps([trap], protocol),
        inside,
        npz(arr_0__npy=inside),
    ):
        message = refusal(read_piano_rolls, put(tmp_path, "a.data", content))
        assert "pickle" in message
        assert "convert it to JSON" in message
        assert len(message) < 400
    assert not marker.exists()
    pickle.loads(pickle.dumps(trap, protocol))
    assert marker.exists()  # it is a trap


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (GOOD[:5], "JSON"),
        (GOOD[:20], "has no header that can be read"),
        (GOOD[:-1], "holds 527 bytes of numbers as the array, where its header says 528"),
        (GOOD + b"\0", "holds 529 bytes"),
        (GOOD.replace(b"(6, 88)", b"(9999999999, 88)"[:7]), "bytes of numbers|shape|header"),
        (npy(ROLL.T.copy()), r"of shape \(88, 6\); expected \(T, 88\).*frames first"),
        (npy(ROLL[:0]), r"of shape \(0, 88\)"),
        (npy(ROLL[0]), r"of shape \(88,\)"),
        (npy(ROLL[None, None]), r"of shape \(1, 1, 6, 88\)"),
        (npy(np.array(["a"])), "dtype <U1; expected numbers"),
        (npy(ROLL * 1j), "dtype complex128"),
        (npy(ROLL * np.uint8(90)), r"holds 90 at \(\d, \d+\) of the array; .*roll > 0"),
        (npy(np.where(ROLL, np.nan, 0)), "holds nan at"),
        (npz(arr_0__npy=GOOD, arr_1__npy=GOOD[:-1]), "527 bytes of numbers as arr_1"),
        (npz(train__npy=GOOD, test__npy=GOOD), "holds arrays for test, train; expected some for train, valid, test"),
        (npz(a__txt=b"x"), "zip archive without .npy files.*unzip"),
        (npz(a__npy=GOOD)[:-40], r"zip archive that does not open \(BadZipFile\).*unzip"),
    ],
    ids=lambda value: None,
)  # fmt: skip
def test_a_file_of_numpys_that_cannot_be_used_is_refused_by_name(tmp_path, content, said):
    message = refusal(read_pieces, put(tmp_path, "bad", content))
    assert re.search(said, message), message
    assert len(message) < 400


def test_an_archive_unpacks_to_no_more_than_max_bytes(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", np.zeros((200_000, 88), np.uint8))
    assert (tmp_path / "a.npz").stat().st_size < 100_000
    tracemalloc.start()
    message = refusal(read_pieces, tmp_path / "a.npz", 1_000_000)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert message.startswith("unpacks to more than 1000000 bytes; expected at most max_bytes")
    assert most < 5_000_000


def test_a_header_that_promises_too_much_takes_no_memory(tmp_path):
    head = b"{'descr': '|u1', 'fortran_order': False, 'shape': (99999999999, 88), }\n"
    path = put(tmp_path, "a.npy", b"\x93NUMPY\1\0" + struct.pack("<H", len(head)) + head + b"\0" * 88)
    tracemalloc.start()
    assert "holds 88 bytes of numbers" in refusal(read_pieces, path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 1_000_000


@pytest.mark.parametrize("form", ["npy", "npz"])
def test_a_damaged_file_of_numpys_is_read_or_refused_by_name(tmp_path, form):
    content = GOOD if form == "npy" else npz(arr_0__npy=GOOD, arr_1__npy=npy(ROLL[:2]))
    assert "refused" in {read_or_refused(put(tmp_path, "damaged", one)) for one in wounds(content, 3, 200)}


# --- JSON without parts.


def test_json_may_hold_pieces_or_one_piece(tmp_path):
    pieces = [[[60], [], [62, 64]], [[21]]]
    found = read_pieces(put(tmp_path, "a.json", pieces))
    assert [as_json(piece) for piece in found] == pieces
    for piece in (*pieces, [[], []]):
        assert [as_json(one) for one in read_pieces(put(tmp_path, "b.json", piece))] == [piece]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([], "holds a list without pieces"),
        ([[[60]], []], r"holds no frames as \[1\]"),
        ([[[60]], [[109]]], r"holds 109 as \[1\]\[0\]\[0\]"),
        ([[60], 60], r"holds 60 as \[0\]\[0\]"),
        ([[60, 20]], r"holds 20 as piece\[0\]\[1\]"),
        ([60], r"holds 60 as \[0\]"),
    ],
)
def test_json_without_parts_that_cannot_be_used_is_refused(tmp_path, content, said):
    message = refusal(read_pieces, put(tmp_path, "bad.json", content))
    assert re.search(said, message), message


# --- Several files, folders, parts.


def a_folder(folder, *frames):
    """Write pieces one a file, piece9 before piece10."""
    rolls = rolls_of(*frames)
    for k, roll in enumerate(rolls):
        if k % 2:
            put(folder, f"piece{k}", npy(roll))
        else:
            put(folder, f"piece{k}", as_json(roll))
    return rolls


def test_files_of_a_folder_come_in_natural_order_whatever_their_formats(tmp_path):
    rolls = a_folder(tmp_path, *range(1, 13))
    put(tmp_path, ".DS_Store", b"\0\1")
    same(read_pieces(tmp_path), rolls)
    same(read_pieces(tmp_path, pattern="piece1*"), [rolls[1], *rolls[10:]])
    same(read_pieces([tmp_path / "piece10", tmp_path / "piece2"]), [rolls[10], rolls[2]])


def test_folders_of_parts_are_the_parts(tmp_path):
    for k, name in enumerate(SPLITS):
        a_folder(tmp_path / name, *range(1, 4 + k))
    put(tmp_path, "README", b"left alone")
    found = read_piano_rolls(tmp_path)
    for k, part in enumerate(found):
        same(part, rolls_of(*range(1, 4 + k)))
    assert repr(found.task("test")) == "PianoRollTask(3 pieces, 5 held out)"


def test_sets_with_parts_add_up(tmp_path):
    for k, name in enumerate(("a.json", "b.json")):
        put(tmp_path, name, {part: [as_json(roll) for roll in rolls_of(2, 3, seed=k)] for part in SPLITS})
    for part in read_piano_rolls(tmp_path):
        same(part, rolls_of(2, 3) + rolls_of(2, 3, seed=1))


def test_pieces_without_parts_are_drawn_into_three_from_what_is_in_them(tmp_path):
    rolls = a_folder(tmp_path / "one", *range(5, 25))
    found = read_piano_rolls(tmp_path / "one")
    assert [len(part) for part in found] == [16, 2, 2]
    key = lambda roll: (len(roll), roll.tobytes())  # noqa: E731
    assert sorted(key(roll) for part in found for roll in part) == sorted(map(key, rolls))
    assert [len(roll) for roll in found.train] == sorted(len(roll) for roll in found.train)  # as they were
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    for path in (tmp_path / "two").iterdir():
        path.rename(path.with_name(f"{99 - int(path.name[5:])}"))
    for part, other in zip(found, read_piano_rolls(tmp_path / "two"), strict=True):
        assert sorted(map(key, part)) == sorted(map(key, other))
    assert len({tuple(map(len, read_piano_rolls(tmp_path / "one", seed=seed).test)) for seed in range(5)}) > 2
    assert [len(part) for part in read_piano_rolls(tmp_path / "one", parts=(0.5, 0.3, 0.2))] == [10, 6, 4]
    assert [len(part) for part in read_piano_rolls(tmp_path / "one", pattern="piece[0-2]")] == [1, 1, 1]


@pytest.mark.parametrize(
    ("files", "arguments", "said"),
    [
        ({"a": [[60]], "b": [[60]]}, {}, r"folder: holds 2 pieces; expected at least 1 for each part"),
        ({"a": [[60]], "b": {name: [[[60]]] for name in SPLITS}}, {}, r"a: has no parts, and .*b has; expected"),
        ({"train/a": [[60]]}, {}, "has a folder train, but not all of train, valid, test; expected each, or none"),
        ({f"{name}/a": [[60]] for name in SPLITS}, {"pattern": "*.mid"}, r"train: holds no file that fits '\*\.mid'"),
        (
            {f"{name}/a": {p: [[[60]]] for p in SPLITS} for name in SPLITS},
            {},
            "a: lies in a folder train and has parts",
        ),
        ({"a": {name: [[[60]]] for name in SPLITS}}, {"parts": (0.6, 0.2, 0.2)}, "the set has parts of its own"),
        ({"a": [[60]]}, {"parts": (0.5, 0.5)}, "parts has 2 shares; expected 3"),
        ({"a": [[60]]}, {"parts": (0.5, 0.5, 0.5)}, "parts is .*; expected numbers above 0 that add up to 1"),
        ({"a": [[[60]]] * 5}, {"step": "quarter"}, "step is 'quarter' and .*folder has no MIDI"),
        ({"a": [[60]], "b.txt": b"Tunes, by Anon."}, {}, r"b\.txt: is neither MATLAB 5 nor JSON"),
        ({"a": [[60]], "b": b""}, {}, "b: is empty; expected"),
        ({"a": [[60]] * 9, "b": [[60]] * 9}, {"max_bytes": 70}, "b: has 54 bytes, and the files before it 54"),
        ({}, {}, "folder: is an empty folder"),
    ],
    ids=lambda value: None,
)
def test_a_folder_that_cannot_be_used_is_refused_by_name(tmp_path, files, arguments, said):
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, content in files.items():
        put(folder, name, content)
    with pytest.raises(ValueError, match=said) as caught:
        read_piano_rolls(folder, **arguments)
    assert len(str(caught.value)) < 500


def test_parts_are_not_read_as_pieces(tmp_path):
    path = put(tmp_path, "a.json", {name: [[[60]]] for name in SPLITS})
    assert "read_piano_rolls" in refusal(read_pieces, path)


def test_the_same_music_is_the_same_data_wherever_it_lies_and_whatever_its_format(mido, tmp_path):
    rolls = [roll[:, :] for roll in rolls_of(7, 9, 4, 11)]
    for k, roll in enumerate(rolls):
        roll[-1, 0] = 1  # MIDI ends with its last note
        notes = [(int(t), int(t) + 1, int(n) + 21, 0) for t, n in np.argwhere(roll)]
        put(tmp_path / "midi", f"piece {k}.mid", saved(mido, [notes], 1))
        put(tmp_path / "json", f"{k}", as_json(roll))
    np.savez(tmp_path / "rolls.npz", *rolls)
    places = (
        {"path": tmp_path / "midi", "step": "quarter"},
        {"path": tmp_path / "json"},
        {"path": tmp_path / "rolls.npz"},
    )
    recipe = nf.Recipe(max_updates=2, lengths=4, batch_size=2)
    keys = {key_of(nf.Experiment(read_piano_rolls(**place).task(), recipe, n_hidden=3), 0, "code") for place in places}
    assert len(keys) == 1
    assert str(tmp_path) not in keys.pop()
    other = read_piano_rolls(tmp_path / "midi", step="eighth").task()
    assert other.identity() != read_piano_rolls(**places[0]).task().identity()


def test_two_folders_of_pieces_make_a_task_that_trains(tmp_path):
    a_folder(tmp_path / "mine", 20, 7, 15)
    a_folder(tmp_path / "yours", 9, 12)
    task = PianoRollTask(read_pieces(tmp_path / "mine"), read_pieces(tmp_path / "yours"))
    net = nf.Network("tanh", task.n_in, 5, task.n_out, loss=task.loss)
    recipe = nf.Recipe(lr=0.1, lengths=6, batch_size=2, max_updates=4, evaluate_every=4, carry=True)
    run = nf.train(net, nf.init(net, "glorot", rng=0), task, recipe)
    assert run.evaluations["score"][-1] == nf.evaluate(net, run.theta, task)


WRONG_NUMBERS = (float("nan"), float("inf"), -1, -0.5, True, "much", 10**400, 1 + 2j, np.float32("nan"), [1], object())


@pytest.mark.parametrize("name", ["seed", "parts", "step", "max_bytes"])
def test_numbers_that_a_reader_takes_are_looked_at(tmp_path, name):
    pytest.importorskip("mido")
    folder = put(tmp_path, "set/a.mid", TINY).parent
    put(tmp_path, "set/b.mid", TINY), put(tmp_path, "set/c.mid", TINY)
    for value in WRONG_NUMBERS:
        if name == "max_bytes" and isinstance(value, int) and value > 1:
            continue  # files of any size
        asked = {"step": 1, name: (value, 0.1, 0.1) if name == "parts" else value}
        with pytest.raises((TypeError, ValueError), match=rf"^{name}.*; expected "):
            read_piano_rolls(folder, **asked)
