"""What readers of users' files share: a whole file as bytes or characters, and checks of what batches ask for."""

from __future__ import annotations

import os
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from nbflow import _check


class FormatError(ValueError):
    """What is wrong inside a file; the reader that catches it puts the file's name in front."""


def read_bytes(
    path: str | os.PathLike[str], max_bytes: int, folder: str = "Give the path of the file itself."
) -> bytes:
    """Read a whole regular file of 1 to `max_bytes` bytes, or say what is wrong with it; `folder`: what to do then."""
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path is {type(path).__name__}; expected a str or an os.PathLike. Give the file's name.")
    max_bytes = check_count("max_bytes", max_bytes)
    file = Path(path)
    if not file.exists():
        raise FileNotFoundError(f"{file}: no such file; expected a file of data. Check the path.")
    if not file.is_file():
        found, remedy = ("a folder", folder) if file.is_dir() else ("not a regular file", "Give the path of one.")
        raise ValueError(f"{file}: is {found}; expected a file of data. {remedy}")
    size = file.stat().st_size
    if size > max_bytes:
        raise ValueError(
            f"{file}: has {size} bytes; expected at most max_bytes = {max_bytes}. "
            "If it is the right file, give a larger max_bytes."
        )
    data = file.read_bytes()
    if not data:
        raise ValueError(f"{file}: is empty; expected a file of data. Check how it was saved or downloaded.")
    return data


def decode_utf8(data: bytes) -> str:
    """Decode UTF-8 and drop a leading byte order mark; refuse anything else, with the byte's offset in the file."""
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise FormatError(
            f"byte 0x{data[error.start]:02x} at offset {error.start} is not UTF-8; expected UTF-8 throughout. Convert "
            "the file (iconv -f LATIN1 -t UTF-8, or from whatever it is in), or mend it if it was cut or damaged."
        ) from error


def check_count(name: str, value: object, instead: str = "") -> int:
    """Return an integer of at least 1; refuse anything else."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, Integral):
        raise TypeError(f"{name} is {_check.said(value)}; expected a positive integer{instead}. Give at least 1.")
    if value < 1:
        raise ValueError(f"{name} is {value}; expected a positive integer{instead}. Give at least 1.")
    return int(value)


def float_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """Return float32 or float64 as a dtype, and refuse every other."""
    try:
        found = np.dtype(dtype)
    except TypeError as error:
        raise TypeError(
            f"dtype is {_check.said(dtype)}; expected float32 or float64. Give the network's dtype."
        ) from error
    if dtype is None or found not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise ValueError(f"dtype is {_check.said(dtype)}; expected float32 or float64. Give the network's dtype.")
    return found
