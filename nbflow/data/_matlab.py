"""MATLAB 5 files: real arrays, in cells or by themselves, with every length checked before it is used.

A file is a line of elements (type, bytes); some of them are matrices, and some of these are cells of matrices. scipy
reads far more kinds of file, but is not hardened against damaged ones.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nbflow._legible import legible
from nbflow.data._files import FormatError

DAMAGED = "expected a whole MATLAB 5 file. It was cut or damaged: fetch it again."

_MATRIX, _COMPRESSED = 14, 15
_CELL, _NUMBERS = 1, range(6, 16)
_CLASSES = {
    1: "a cell",
    2: "a struct",
    3: "an object",
    4: "text",
    5: "a sparse array",
    16: "a function",
    17: "an object",
}
_DTYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_COMPLEX = 0x800


@legible
class Matrix(NamedTuple):
    """A MATLAB value: its header, and what follows it, not yet read.

    Attributes
    ----------
    kind : int
        MATLAB's number of its class.
    is_complex : bool
        Whether its numbers have imaginary parts.
    shape : tuple of int
        Rows and columns, at least.
    name : str
        Of the variable; empty inside a cell.
    order : str
        "<" or ">", the order of bytes.
    rest : iterator of (int, memoryview)
        The elements after the header.
    """

    kind: int
    is_complex: bool
    shape: tuple[int, ...]
    name: str
    order: str
    rest: Iterator[tuple[int, memoryview]]

    @property
    def is_cell(self) -> bool:
        """Whether it holds matrices."""
        return self.kind == _CELL

    @property
    def is_real(self) -> bool:
        """Whether it is a full array of real numbers."""
        return self.kind in _NUMBERS and not self.is_complex

    @property
    def said(self) -> str:
        """What it is, in words."""
        kind = _CLASSES.get(self.kind, "an array" if self.kind in _NUMBERS else f"class {self.kind}")
        return f"{kind}{' of complex numbers' * self.is_complex} of shape {self.shape}"

    def items(self) -> Iterator[Matrix]:
        """Yield what a cell holds; once, for it is read as it goes."""
        for index, (kind, payload) in enumerate(self.rest):
            if kind != _MATRIX:
                raise FormatError(f"holds an element of type {kind} as {self.name}{{{index + 1}}}; {DAMAGED}")
            yield _matrix(payload, self.order)

    def array(self, where: str) -> NDArray[Any]:
        """Return the numbers, of any real type; once, for they are read as it goes."""
        kind, payload = next(self.rest, (0, memoryview(b"")))
        dtype = np.dtype(self.order + _DTYPES.get(kind, "V1"))
        if kind not in _DTYPES or len(payload) != dtype.itemsize * math.prod(self.shape):
            raise FormatError(f"holds {len(payload)} bytes of type {kind} for shape {self.shape} as {where}; {DAMAGED}")
        return np.frombuffer(payload, dtype).reshape(self.shape, order="F")


def is_matlab(data: bytes) -> bool:
    """Say whether the bytes begin as a MATLAB 5 file does."""
    return len(data) >= 128 and data[124:128] in (b"\x00\x01IM", b"\x01\x00MI")


def variables(data: bytes, max_bytes: int) -> Iterator[Matrix]:
    """Yield the variables of a file, which may unpack to no more than `max_bytes`."""
    order = "<" if data[126:128] == b"IM" else ">"
    left = max_bytes
    for kind, payload in _elements(memoryview(data)[128:], order):
        if kind == _COMPRESSED:
            unpacked = _inflate(payload, left, max_bytes)
            left -= len(unpacked)
            kind, payload = next(_elements(memoryview(unpacked), order), (0, payload))
        if kind != _MATRIX:
            raise FormatError(f"holds an element of type {kind} where a variable should begin; {DAMAGED}")
        yield _matrix(payload, order)


def _inflate(payload: memoryview, left: int, max_bytes: int) -> bytes:
    engine = zlib.decompressobj()
    try:
        unpacked = engine.decompress(payload, left + 1)
    except zlib.error as error:
        raise FormatError(f"holds compressed data that do not unpack; {DAMAGED}") from error
    if len(unpacked) > left:
        raise FormatError(
            f"unpacks to more than {max_bytes} bytes; expected at most max_bytes. "
            "If it is the right file, give a larger max_bytes."
        )
    if not engine.eof:
        raise FormatError(f"holds compressed data that stop short; {DAMAGED}")
    return unpacked


def _elements(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """Yield each element's type and bytes; one of up to 4 bytes is packed into its own tag."""
    at = 0
    while at < len(data):
        if at + 8 > len(data):
            raise FormatError(f"ends within an element's tag; {DAMAGED}")
        kind, size = struct.unpack_from(order + "II", data, at)
        start = at + 8
        if kind >> 16:
            kind, size, start = kind & 0xFFFF, kind >> 16, at + 4
        stop = start + size
        if stop > len(data) or (start == at + 4 and size > 4):
            raise FormatError(f"holds an element of {size} bytes that does not fit; {DAMAGED}")
        yield kind, data[start:stop]
        at = stop if kind == _COMPRESSED else at + 8 * -(-(stop - at) // 8)


def _matrix(payload: memoryview, order: str) -> Matrix:
    rest = _elements(payload, order)
    if not payload:
        return Matrix(_NUMBERS[0], False, (0, 0), "", order, rest)
    flags, shape, name = (next(rest, (0, memoryview(b""))) for _ in range(3))
    if flags[0] != 6 or len(flags[1]) != 8 or shape[0] != 5 or len(shape[1]) < 8 or len(shape[1]) % 4 or name[0] != 1:
        raise FormatError(f"holds a variable without a proper header; {DAMAGED}")
    bits = struct.unpack_from(order + "I", flags[1])[0]
    sizes = struct.unpack(f"{order}{len(shape[1]) // 4}i", shape[1])
    return Matrix(bits & 0xFF, bool(bits & _COMPLEX), sizes, bytes(name[1]).decode("latin-1"), order, rest)
