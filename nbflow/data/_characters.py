"""From the bytes of texts to characters, and from characters to tokens of one vocabulary."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nbflow.data._files import FormatError, decode_utf8


def decoded(data: bytes, path: str | os.PathLike[str]) -> str:
    """Return the characters of a file, at least one."""
    try:
        characters = decode_utf8(data)
        if not characters:
            raise FormatError("holds a byte order mark and no characters; expected a text. Check how it was saved.")
    except FormatError as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from error
    return characters


def code_points(characters: str) -> NDArray[np.uint32]:
    """Return the code point of each character (n,)."""
    return np.frombuffer(characters.encode("utf-32-le", "surrogatepass"), "<u4")


def numbered(texts: Sequence[str]) -> tuple[list[NDArray[np.int32]], tuple[str, ...]]:
    """Return the tokens of each text (n,), and their vocabulary: all characters there are, sorted by code point."""
    seen = np.zeros(0x110000, np.bool_)
    for text in texts:
        seen[code_points(text)] = True
    alphabet = np.flatnonzero(seen)
    token_of = np.zeros(alphabet[-1] + 1, np.int32)
    token_of[alphabet] = np.arange(alphabet.size, dtype=np.int32)
    return [token_of[code_points(text)] for text in texts], tuple(map(chr, alphabet.tolist()))
