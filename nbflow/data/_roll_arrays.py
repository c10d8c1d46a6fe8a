"""Piano rolls in NumPy's files, .npy and .npz, every length checked before it is used; no pickle is opened."""

from __future__ import annotations

import io
import math
import re
import zipfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nbflow.data._files import FormatError
from nbflow.data._folders import natural
from nbflow.data._roll import NOTES, PICKLED, SPLITS, Pieces, Roll

_DAMAGED = "expected a whole file as numpy.save or numpy.savez writes it. Fetch it again, or save it again."
# The member of a part, "train.npy", or one of several, "train/3.npy" or "train_3.npy".
_OF_PART = re.compile(f"({'|'.join(SPLITS)})(?:[/_].*)?", re.DOTALL)


def is_npy(data: bytes) -> bool:
    """Say whether the bytes begin as an .npy file does."""
    return data.startswith(b"\x93NUMPY")


def is_zip(data: bytes) -> bool:
    """Say whether the bytes begin as a zip archive does, which .npz is."""
    return data.startswith(b"PK\x03\x04")


def read_npy(data: bytes) -> Pieces:
    """Read a piece (T, 88), or n of them of one length (n, T, 88)."""
    return _pieces(data, "the array")


def read_npz(data: bytes, max_bytes: int) -> dict[str, Pieces]:
    """Read arrays named for the parts, or where none is, pieces; they may unpack to no more than `max_bytes`."""
    members = _unpacked(data, max_bytes)
    parts: dict[str, list[Roll]] = {}
    for name in sorted(members, key=natural):
        if found := _OF_PART.fullmatch(name):
            parts.setdefault(found[1], []).extend(_pieces(members[name], name))
    if not parts:
        every = [_pieces(members[name], name) for name in sorted(members, key=natural)]
        return {"": tuple(roll for pieces in every for roll in pieces)}
    if len(parts) < len(SPLITS):
        raise FormatError(
            f"holds arrays for {', '.join(parts)}; expected some for {', '.join(SPLITS)}. Name them train/0, train/1, "
            f"..., valid/0, ..., or none of them so."
        )
    return {name: tuple(parts[name]) for name in SPLITS}


def _unpacked(data: bytes, max_bytes: int) -> dict[str, bytes]:
    """Return the bytes of each array of an archive, by its name."""
    left, found = max_bytes, dict[str, bytes]()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                if name == member.filename:
                    continue
                if name in found:
                    raise FormatError(f"holds two arrays named {name:.80}; {_DAMAGED}")
                with archive.open(member) as file:
                    found[name] = file.read(left + 1)
                left -= len(found[name])
                if left < 0:
                    raise FormatError(
                        f"unpacks to more than {max_bytes} bytes; expected at most max_bytes. If it is the right file, "
                        "give a larger max_bytes."
                    )
    except FormatError:
        raise
    except Exception as error:  # zipfile has many words for an archive that is damaged, encrypted, or of another kind
        raise FormatError(
            f"is a zip archive that does not open ({type(error).__name__}); {_DAMAGED} If it is no .npz, unpack it "
            f"first: unzip."
        ) from error
    if not found:
        raise FormatError(
            "is a zip archive without .npy files; expected an .npz of piano rolls. If it is no .npz, unpack it first: "
            "unzip."
        )
    return found


def _pieces(data: bytes, where: str) -> Pieces:
    where = f"{where:.80}"
    array = _array(data, where)
    wanted = f"expected ones of 0 and 1, (T, {NOTES}) or (n, T, {NOTES})"
    sounds = array == 1
    if not ((array == 0) | sounds).all():
        place = tuple(np.argwhere(~((array == 0) | sounds))[0].tolist())
        raise FormatError(
            f"holds {array[place]} at {place} of {where}; {wanted}. Write (roll > 0).astype(np.uint8), and save it."
        )
    rolls = np.ascontiguousarray(sounds).view(np.uint8)
    return (rolls,) if rolls.ndim == 2 else tuple(rolls)


def _array(data: bytes, where: str) -> NDArray[Any]:
    """Return an array of numbers in the shape of rolls, a view of the bytes."""
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(stream)
    except Exception as error:  # NumPy's are of several kinds
        raise FormatError(f"has no header that can be read at {where} ({type(error).__name__}); {_DAMAGED}") from error
    if dtype.hasobject:
        raise FormatError(f"holds a pickle in {where}, an array of objects; expected numbers. {PICKLED}")
    if dtype.kind not in "buif":
        raise FormatError(f"holds {where} of dtype {dtype!s:.40}; expected numbers. Save rolls of np.uint8.")
    if len(shape) not in (2, 3) or shape[-1] != NOTES or min(shape) < 1:
        raise FormatError(
            f"holds {where} of shape {shape!s:.60}; expected (T, {NOTES}) or (n, T, {NOTES}), no size 0. Put frames "
            f"first and notes second; pieces of unlike length are arrays of their own: np.savez(path, *rolls)."
        )
    size = dtype.itemsize * math.prod(shape)
    if size != len(data) - stream.tell():
        raise FormatError(
            f"holds {len(data) - stream.tell()} bytes of numbers as {where}, where its header says {size}; {_DAMAGED}"
        )
    return np.frombuffer(data, dtype, offset=stream.tell()).reshape(shape, order="F" if fortran else "C")
