"""Files of piano rolls, whatever their format: from bytes to pieces, by the part of a set that they belong to."""

from __future__ import annotations

import json
import reprlib
from fractions import Fraction
from itertools import chain
from typing import Any

import numpy as np

from nbflow.data import _matlab as matlab
from nbflow.data._files import FormatError, decode_utf8
from nbflow.data._midi import is_midi, read_midi
from nbflow.data._roll import HIGHEST, LOWEST, NOTES, PICKLED, SPLITS, Pieces, Roll
from nbflow.data._roll_arrays import is_npy, is_zip, read_npy, read_npz

_MIDI = frozenset(range(LOWEST, HIGHEST + 1))
_JSON_WANTED = '{"train": [[[midi, ...] per frame] per piece], "valid": ..., "test": ...}'
_STRANGERS = (
    (b"MATLAB 7.3", "a MATLAB 7.3 file", "Save it again in MATLAB with '-v7'."),
    (b"\x89HDF", "an HDF5 file", "If it is MATLAB's, save it again with '-v7'."),
    (b"MATLAB 5.0", "the start of a MATLAB 5 file, cut off or damaged in its header", "Fetch the file again."),
    (b"\x80", "a Python pickle or other binary data", PICKLED),
    *((start, "a Python pickle", PICKLED) for start in (b"(dp", b"(lp", b"}q", b"]q")),
    (b"\x1f\x8b", "a gzip archive", "Unpack it first: gunzip."),
    (b"RIFF", "a RIFF file", "If there is MIDI in it, save it again as a standard MIDI file."),
)


def read_rolls(data: bytes, step: Fraction, max_bytes: int) -> dict[str, Pieces]:
    """Return the pieces of a file by part, or under "" where it has no parts; a step, in beats, is for MIDI."""
    if matlab.is_matlab(data):
        return read_matlab(data, max_bytes)
    if is_midi(data):
        return {"": (read_midi(data, step, max_bytes),)}
    if is_npy(data):
        return {"": read_npy(data)}
    return read_npz(data, max_bytes) if is_zip(data) else read_json(data)


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as its (key, value) pairs, so that a key given twice is seen."""


def read_json(data: bytes) -> dict[str, Pieces]:
    """Read the parts from JSON, or pieces without parts, each checked down to its notes."""
    for start, found, remedy in _STRANGERS:
        if data.startswith(start):
            raise FormatError(f"is {found}; expected JSON, MATLAB 5, .npy, .npz or MIDI. {remedy}")
    try:
        content = json.loads(decode_utf8(data), object_pairs_hook=_Pairs)
    except json.JSONDecodeError as error:
        raise FormatError(
            f"is neither MATLAB 5 nor JSON: no JSON from character {error.pos} (line {error.lineno}) on; expected "
            f"{_JSON_WANTED}. If the file was cut or damaged, fetch it again."
        ) from error
    except FormatError as error:
        raise FormatError(f"is neither MATLAB 5 nor JSON: {error}") from error
    except (ValueError, RecursionError) as error:
        found = "lists too deep" if isinstance(error, RecursionError) else "a number too long"
        raise FormatError(
            f"holds {found} to be read; expected {_JSON_WANTED}. Fetch or make the file again."
        ) from error
    if type(content) is list:
        return {"": _json_pieces(content)}
    if not isinstance(content, _Pairs):
        raise FormatError(f"holds {_found(content)}; expected {_JSON_WANTED}. Put the three parts under their keys.")
    keys = [key for key, _ in content]
    parts = dict(content)
    _check_keys(keys, SPLITS)
    return {name: _json_part(parts[name], name) for name in SPLITS}


def _check_keys(keys: list[str], wanted: tuple[str, ...]) -> None:
    if any(keys.count(name) != 1 for name in wanted):
        raise FormatError(
            f"holds {reprlib.repr(keys)}; expected {', '.join(wanted)}, each once. Rename, add or remove keys."
        )


def _found(value: object) -> str:
    """Say what a JSON value is, briefly."""
    if isinstance(value, list):
        return "an object" if isinstance(value, _Pairs) else "a list"
    return json.dumps(value) if value is None or isinstance(value, bool | float) else reprlib.repr(value)


def _json_pieces(content: list[Any]) -> Pieces:
    """Read pieces, or one piece by itself: then no frame holds a list."""
    if not content:
        raise FormatError(f"holds a list without pieces; expected {_JSON_WANTED}, or at least 1 piece. Put one there.")
    frames = [frame for frame in content if type(frame) is list]
    if len(frames) == len(content) and not any(isinstance(note, list) for frame in frames for note in frame):
        return (_json_roll(content, "piece"),)
    return tuple(_json_roll(piece, f"[{index}]") for index, piece in enumerate(content))


def _json_part(part: object, name: str) -> Pieces:
    pieces = _json_list(part, name, "piece", "Put one piece there at least.")
    return tuple(_json_roll(piece, f"{name}[{index}]") for index, piece in enumerate(pieces))


def _json_list(value: object, where: str, of: str, remedy: str) -> list[Any]:
    if type(value) is not list or not value:
        found = f"no {of}s" if type(value) is list else _found(value)
        raise FormatError(f"holds {found} as {where}; expected a list of at least 1 {of}. {remedy}")
    return value


def _json_roll(content: object, where: str) -> Roll:
    piece = _json_list(content, where, "frame", "Take the piece out or mend it.")
    if set(map(type, piece)) != {list}:
        t = next(t for t, frame in enumerate(piece) if type(frame) is not list)
        raise FormatError(
            f"holds {_found(piece[t])} as {where}[{t}]; expected a frame, a list of MIDI notes. "
            "Write [60] for one note, [] for a rest."
        )
    notes = list(chain.from_iterable(piece))
    if not (set(map(type, notes)) <= {int} and _MIDI.issuperset(notes)):
        places = ((t, k) for t, frame in enumerate(piece) for k in range(len(frame)))
        t, k = next((t, k) for t, k in places if type(piece[t][k]) is not int or piece[t][k] not in _MIDI)
        raise FormatError(
            f"holds {_found(piece[t][k])} as {where}[{t}][{k}]; expected a MIDI note, an integer from {LOWEST} to "
            f"{HIGHEST}. Leave the note out, or transpose the piece."
        )
    roll = np.zeros((len(piece), NOTES), np.uint8)
    frames = np.repeat(np.arange(len(piece)), np.fromiter(map(len, piece), np.int64, len(piece)))
    roll[frames, np.frombuffer(bytes(notes), np.uint8) - LOWEST] = 1
    return roll


# ---- MATLAB 5 ----


def read_matlab(data: bytes, max_bytes: int) -> dict[str, Pieces]:
    """Read the parts from a MATLAB 5 file, each checked down to its numbers."""
    found = list(matlab.variables(data, max_bytes))
    wanted = tuple(f"{name}data" for name in SPLITS)
    _check_keys([matrix.name for matrix in found], wanted)
    cells = {matrix.name: matrix for matrix in found}
    return {part: _matlab_part(cells[name], name) for part, name in zip(SPLITS, wanted, strict=True)}


def _matlab_part(cell: matlab.Matrix, name: str) -> Pieces:
    if not cell.is_cell or len(cell.shape) != 2 or 1 not in cell.shape or min(cell.shape) < 1:
        raise FormatError(
            f"holds {cell.said} as {name}; expected a (1, n) cell of (T, {NOTES}) arrays, one a piece. "
            f"Write {name} = {{piece1, piece2, ...}} in MATLAB."
        )
    pieces = tuple(_matlab_roll(matrix, f"{name}{{{index + 1}}}") for index, matrix in enumerate(cell.items()))
    if len(pieces) != max(cell.shape):
        raise FormatError(f"holds {len(pieces)} pieces in {name}, declared as {max(cell.shape)}; {matlab.DAMAGED}")
    return pieces


def _matlab_roll(matrix: matlab.Matrix, where: str) -> Roll:
    wanted = f"expected a (T, {NOTES}) array of 0 and 1"
    if not matrix.is_real:
        raise FormatError(f"holds {matrix.said} as {where}; {wanted}. Write uint8(full(piece)) in MATLAB.")
    if len(matrix.shape) != 2 or matrix.shape[1] != NOTES or matrix.shape[0] < 1:
        raise FormatError(
            f"holds an array of shape {matrix.shape} as {where}; {wanted}, T at least 1. Put frames first and notes "
            "second, and take empty pieces out."
        )
    values = matrix.array(where)
    sounds = values == 1
    if not ((values == 0) | sounds).all():
        t, k = np.argwhere(~((values == 0) | sounds))[0].tolist()
        raise FormatError(
            f"holds {values[t, k]} as {where}({t + 1}, {k + 1}); {wanted}. Write uint8(piece > 0) in MATLAB."
        )
    return np.ascontiguousarray(sounds).view(np.uint8)
