"""Checkpoints: arrays and facts in one file that is whole or not there.

The file is what `numpy.load` reads: a zip archive, not compressed, of plain arrays, and `manifest.json` with the
format, the facts and, of every array, shape, dtype and sha256. It is written beside, flushed and renamed; the one
before is kept under the same name with ".before". It is read without pickle and without decompression, so no more
memory is taken than it has bytes, and nothing is believed of an array that the manifest does not say too.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import pathlib
import warnings
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nbflow._legible import legible
from nbflow.storage._files import dumped, explained, flush_directory, open_regular, open_to_write

FORMAT = 1
MANIFEST = "manifest.json"
KINDS = "fiub"  # of numbers: no objects, no strings, no records


class DamagedError(ValueError):
    """A file that is no checkpoint, or not a whole one."""


class Facts(dict[str, Any]):
    """What was saved beside the arrays: of what is missing it says so."""

    def __missing__(self, name: str) -> Any:
        raise DamagedError(
            f"checkpoint has no '{name}' among its facts; expected what nbflow.train saves. Name another file, or "
            f"delete it to begin anew."
        )


@legible
class Saved(NamedTuple):
    """What was saved.

    Attributes
    ----------
    arrays : dict of str to array
        Of numbers, each with the shape and dtype that it was saved with.
    facts : dict
        Plain data, as `json.loads` gives it.
    """

    arrays: dict[str, NDArray[Any]]
    facts: Facts


@contextlib.contextmanager
def believed(path: pathlib.Path) -> Iterator[None]:
    """Have facts that are not what they should be end in one error, wherever that is noticed."""
    try:
        yield
    except (KeyError, TypeError, IndexError, AttributeError, OverflowError) as error:
        raise DamagedError(
            f"checkpoint {path} is damaged: {error!s:.120} ({type(error).__name__}). Name another file, or "
            f"delete it to begin anew."
        ) from error


def before(path: pathlib.Path) -> pathlib.Path:
    """Return where the checkpoint before the last is kept."""
    return path.with_name(path.name + ".before")


def beside(path: pathlib.Path) -> pathlib.Path:
    """Return where a checkpoint is written before it is renamed."""
    return path.with_name(path.name + ".new")


def shown(path: pathlib.Path) -> pathlib.Path:
    """Return where it is written down which row of a run was last shown to callbacks."""
    return path.with_name(path.name + ".shown")


def save(path: pathlib.Path, arrays: dict[str, NDArray[Any]], facts: dict[str, Any]) -> None:
    """Write a checkpoint, and keep the one before.

    Parameters
    ----------
    path : pathlib.Path
    arrays : dict of arrays of numbers
    facts : dict
        What `json.dumps` takes.

    Raises
    ------
    OSError
        If it cannot be written, and why; what was there before stays there, and nothing else.
    TypeError, ValueError
        If the facts are not plain data, with the name of the first that is not.
    """
    with explained(f"checkpoint {path} could not be written"):
        try:
            with open_to_write(beside(path), "wb") as file:
                _write(file, arrays, facts, f"checkpoint {path}")
                file.flush()
                os.fsync(file.fileno())
            if path.exists():
                os.replace(path, before(path))
            os.replace(beside(path), path)
        except BaseException:
            _take_back(path)
            raise
        flush_directory(path.parent)


def _take_back(path: pathlib.Path) -> None:
    """Leave what there was before a checkpoint that could not be written, as far as the disk allows."""
    with contextlib.suppress(OSError):
        os.unlink(beside(path))
    with contextlib.suppress(OSError):
        if not path.exists():
            os.replace(before(path), path)


def _write(file: Any, arrays: dict[str, NDArray[Any]], facts: dict[str, Any], what: str) -> None:
    about = {}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            array = np.ascontiguousarray(array)
            about[name] = {"shape": array.shape, "dtype": array.dtype.str, "sha256": _hash(array.tobytes())}
            with archive.open(_member(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, version=(1, 0), allow_pickle=False)
        manifest = {"format": FORMAT, "arrays": about, "facts": facts}
        archive.writestr(_member(MANIFEST), dumped(what, manifest))


def _member(name: str) -> zipfile.ZipInfo:
    """Return a member without a date: the same contents give the same file."""
    return zipfile.ZipInfo(name)


def _hash(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()


def exists(path: pathlib.Path) -> bool:
    """Tell whether there is a checkpoint: a first one that was cut off while it was written is none."""
    return path.exists() or before(path).exists() or _whole(beside(path))


def _whole(path: pathlib.Path) -> bool:
    try:
        read(path)
    except (FileNotFoundError, DamagedError):
        return False
    return True


def load(path: pathlib.Path) -> Saved:
    """Read a checkpoint, or the one before where the last is damaged: a RuntimeWarning says so.

    Raises
    ------
    FileNotFoundError
        If there is none.
    DamagedError
        If there is no whole one.
    """
    said = []
    # What was cut off between two renames has its last checkpoint under the third name, as whole as any.
    for place in (path, before(path), beside(path)):
        try:
            found = read(place)
        except FileNotFoundError:
            continue
        except DamagedError as error:
            if place != beside(path):  # what was never whole is no loss
                said.append(str(error))
            continue
        if said:
            warnings.warn(f"{' '.join(said)} Going on from {place}.", RuntimeWarning, stacklevel=2)
        return found
    if said:
        raise DamagedError(
            f"{' '.join(said)} There is no other. Name another file, or, if it was a checkpoint, delete it to begin "
            f"anew."
        )
    raise FileNotFoundError(f"checkpoint {path} is not there. Look at the path.")


def read(path: pathlib.Path) -> Saved:
    """Read one file, which must be whole."""
    with open_regular(path, f"checkpoint {path}") as file:
        return _read(path, file)


def _read(path: pathlib.Path, file: BinaryIO) -> Saved:
    try:
        with zipfile.ZipFile(file) as archive:
            return _parse(archive, os.fstat(file.fileno()).st_size)
    except Exception as error:  # whatever a file can be: truncated, another zip, hostile
        raise DamagedError(f"checkpoint {path} is damaged: {str(error) or type(error).__name__}.") from error


def _parse(archive: zipfile.ZipFile, size: int) -> Saved:
    members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise ValueError("it is compressed, and no checkpoint is")
    if sum(member.file_size for member in members) > size:
        raise ValueError(f"it says that it holds more than its {size} bytes")
    manifest = json.loads(archive.read(MANIFEST))
    if not isinstance(manifest, dict) or "format" not in manifest:
        raise ValueError("its manifest has no format")
    if manifest["format"] != FORMAT:
        raise ValueError(f"it has format {manifest['format']!r:.40}, and this nbflow reads format {FORMAT}")
    about, facts = manifest.get("arrays"), manifest.get("facts")
    if not isinstance(facts, dict) or not isinstance(about, dict):
        raise ValueError("its manifest has no arrays or no facts")
    wanted = sorted([MANIFEST, *(f"{name}.npy" for name in about)])
    if sorted(member.filename for member in members) != wanted:
        raise ValueError("its members are not those of its manifest")
    arrays = {name: _array(name, archive.read(f"{name}.npy"), about[name]) for name in about}
    return Saved(arrays, Facts(facts))


def _array(name: str, data: bytes, about: dict[str, Any]) -> NDArray[Any]:
    """Return the array of a .npy member, checked before anything is allocated."""
    file = io.BytesIO(data)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError(f"{name} has another format of arrays")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype.kind not in KINDS or fortran:
        raise ValueError(f"{name} has dtype {dtype}, and a checkpoint holds plain numbers")
    if not isinstance(about, dict) or [*shape] != about.get("shape") or dtype.str != about.get("dtype"):
        raise ValueError(f"{name} has shape {shape} and dtype {dtype}, and the manifest says otherwise")
    body = memoryview(data)[file.tell() :]
    count = 1
    for n in shape:
        count *= n
    if count * dtype.itemsize != len(body) or min(shape, default=0) < 0:
        raise ValueError(f"{name} of shape {shape} has {len(body)} bytes")
    if _hash(body) != about.get("sha256"):
        raise ValueError(f"the sha256 of {name} is another")
    return np.frombuffer(body, dtype).reshape(shape).copy()


def fill(rooms: dict[str, NDArray[Any]], arrays: dict[str, NDArray[Any]]) -> None:
    """Copy saved arrays into those that stand in their places; all must fit."""
    for name, room in rooms.items():
        found = arrays.get(name)
        if found is None or found.shape != room.shape or found.dtype != room.dtype:
            said = "is missing" if found is None else f"has shape {found.shape} and dtype {found.dtype}"
            raise ValueError(
                f"checkpoint: {name} {said}; expected {room.shape}, {room.dtype}. Delete it to begin anew."
            )
        room[...] = found
