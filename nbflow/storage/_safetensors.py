"""The safetensors format: eight bytes with the length of a header, the header as JSON, and plain numbers behind it.

It is read without pickle, by its own library and by most others; https://huggingface.co/docs/safetensors describes it.
Of its kinds of numbers nbflow writes and reads two. Nothing is believed of a file: every array must lie inside it, have
as many bytes as its shape says, and begin where the one before ends.
"""

from __future__ import annotations

import json
import math
import os
import pathlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nbflow.storage._files import explained, flush_directory, open_regular, whole

ABOUT = "__metadata__"
DTYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F64": np.dtype("<f8")}
# The library reads no longer ones either.
LONGEST_HEADER = 100_000_000

Arrays = dict[str, NDArray[Any]]


def write(path: pathlib.Path, arrays: Arrays, about: dict[str, str]) -> None:
    """Write float32 and float64 arrays by name, and some words about them; the file is whole or not there."""
    if path.exists() and not path.is_file():
        raise OSError(f"path {path} is no regular file; expected one, or none yet. Name another.")
    header: dict[str, Any] = {ABOUT: about}
    end = 0
    data = {name: np.ascontiguousarray(array, array.dtype.newbyteorder("<")) for name, array in arrays.items()}
    kinds = {dtype: name for name, dtype in DTYPES.items()}
    for name, array in data.items():
        begin, end = end, end + array.nbytes
        header[name] = {"dtype": kinds[array.dtype], "shape": [*array.shape], "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # so that numbers are aligned for whoever maps the file
    with explained(f"path {path} could not be written"):
        with whole(path) as beside, open(beside, "wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for array in data.values():
                file.write(array.tobytes())
            file.flush()
            os.fsync(file.fileno())
        flush_directory(path.parent)


def read(path: pathlib.Path) -> tuple[Arrays, dict[str, str]]:
    """Return the arrays of a file, in the byte order of this machine, and the words about them.

    Raises
    ------
    FileNotFoundError, OSError
        If it is not there, or no regular file.
    ValueError
        If it is anything else than what `write` writes.
    """
    try:
        with open_regular(path, f"path {path}") as file:
            data = file.read()
    except FileNotFoundError:
        raise FileNotFoundError(f"path {path} is not there. Look at the path.") from None
    try:
        return _parsed(memoryview(data))
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
        raise ValueError(
            f"path {path} is no safetensors file, or damaged: {error!s:.150}; expected one that nbflow.save wrote. "
            f"Name another."
        ) from error


def _parsed(data: memoryview) -> tuple[Arrays, dict[str, str]]:
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(len(data) - 8, LONGEST_HEADER):
        raise ValueError(f"it says that its header has {length} bytes, and has {len(data)} in all")
    header = json.loads(bytes(data[8 : 8 + length]).decode(), object_pairs_hook=_once)
    if not isinstance(header, dict):
        raise ValueError("its header is no table")
    about = header.pop(ABOUT, {})
    if not isinstance(about, dict) or not all(isinstance(words, str) for words in about.values()):
        raise ValueError(f"its {ABOUT} is no table of texts")
    body, arrays, reached = data[8 + length :], Arrays(), 0
    for name, place in sorted(header.items(), key=lambda item: _offsets(*item)):
        begin, end = _offsets(name, place)
        if begin != reached or end > len(body):
            raise ValueError(f"{name:.40} lies at {begin} to {end} of {len(body)} bytes, where {reached} were taken")
        arrays[name], reached = _array(name, place, body[begin:end]), end
    if reached != len(body):
        raise ValueError(f"{len(body) - reached} of its bytes are of no array")
    return {name: arrays[name] for name in header}, about


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a table in which no name stands twice, for readers differ in which one counts."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in its header")
    return found


def _counts(name: str, value: Any) -> list[int]:
    if not isinstance(value, list) or not all(type(n) is int and 0 <= n < 2**63 for n in value):
        raise ValueError(f"{name:.40} has {value!r:.40} for a place or a shape")
    found: list[int] = value
    return found


def _offsets(name: str, place: Any) -> tuple[int, int]:
    if not isinstance(place, dict) or place.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{name:.40} has not dtype, shape and data_offsets")
    begin, end = _counts(name, place["data_offsets"])
    return begin, end


def _array(name: str, place: dict[str, Any], data: memoryview) -> NDArray[Any]:
    kind, shape = place["dtype"], _counts(name, place["shape"])
    if kind not in DTYPES:
        raise ValueError(f"{name:.40} has dtype {kind!r:.20}, and nbflow reads {' and '.join(DTYPES)}")
    dtype = DTYPES[kind]
    if math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError(f"{name:.40} of shape {shape!s:.60} and dtype {kind} has {len(data)} bytes")
    found: NDArray[Any] = np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="))
    return found
