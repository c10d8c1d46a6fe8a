"""Piano rolls: pieces of music as (T, 88) arrays of 0 and 1."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from nbflow import _check
from nbflow._legible import legible
from nbflow.data import _matlab as matlab
from nbflow.data._files import FormatError, read_bytes
from nbflow.data._roll_formats import Roll, read_json, read_matlab

if TYPE_CHECKING:
    from nbflow.data.tasks import PianoRollTask

MAX_ROLL_BYTES = 128 * 2**20


@legible
class PianoRolls(NamedTuple):
    """The three parts of a set of music.

    Attributes
    ----------
    train, valid, test : tuple of uint8 arrays of shape (T, 88)
        One array a piece: ``piece[t, note - 21]`` is 1 where the MIDI note sounds in frame t, else 0. Every piece has
        at least one frame; a frame without a note is a rest.

    Examples
    --------
    >>> import numpy as np
    >>> chord = np.zeros((1, 88), np.uint8)
    >>> chord[0, [39, 43, 46]] = 1
    >>> len(PianoRolls(train=(chord, chord), valid=(chord,), test=(chord,)).train)
    2
    """

    train: tuple[Roll, ...]
    valid: tuple[Roll, ...]
    test: tuple[Roll, ...]

    def task(self, held_out: str = "valid") -> PianoRollTask:
        """Make a task that trains on one part and is measured on another.

        Parameters
        ----------
        held_out : "valid" or "test"

        Returns
        -------
        PianoRollTask

        Raises
        ------
        ValueError
            If `held_out` is another.

        Examples
        --------
        >>> import numpy as np
        >>> scale = np.eye(88, dtype=np.uint8)[39:47]
        >>> PianoRolls(train=(scale, scale), valid=(scale,), test=(scale,)).task()
        PianoRollTask(2 pieces, 1 held out)
        """
        from nbflow.data.tasks import PianoRollTask

        if held_out not in ("valid", "test"):
            raise ValueError(f'held_out is {_check.said(held_out)}; expected "valid" or "test". Give one of them.')
        return PianoRollTask(self.train, getattr(self, held_out))


def read_piano_rolls(path: str | os.PathLike[str], max_bytes: int = MAX_ROLL_BYTES) -> PianoRolls:
    """Read a file of piano rolls, JSON or MATLAB 5; what is in the file tells which, its name does not matter.

    JSON: ``{"train": [[[midi, ...] per frame] per piece], "valid": ..., "test": ...}``, MIDI notes as integers from 21
    to 108 in any order, a note given twice counting once. MATLAB 5: variables ``traindata``, ``validdata``,
    ``testdata``, each a (1, n) cell of (T, 88) arrays of 0 and 1 in any real number type. Further keys and variables
    are left alone. A part without pieces and a piece without frames are refused, not dropped: no published set holds
    one, so it is a sign of a file gone wrong.

    Nothing in the file is run, and a compressed file may unpack to no more than `max_bytes`. While it is read, JSON
    takes up to about fifty times the file's size in memory.

    Parameters
    ----------
    path : str or os.PathLike
        The file.
    max_bytes : int
        The most bytes to read or to unpack; 128 MiB if not given. Nottingham, a large set, unpacks to 24 MB.

    Returns
    -------
    PianoRolls
        train, valid and test, each a tuple of (T, 88) uint8 arrays of 0 and 1.

    Raises
    ------
    TypeError
        If `path` is no path or `max_bytes` no integer.
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file cannot be used: the message names it, what was found, what is wanted and the remedy.

    Notes
    -----
    The MATLAB reader here is a small one of its own, for real arrays in cells, with every length checked before it is
    used. ``scipy.io.loadmat`` reads far more kinds of file, but is not hardened against damaged ones: a single changed
    byte can make it crash the interpreter.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "tunes.json")
    ...     _ = path.write_text('{"train": [[[60, 64], []]], "valid": [[[60]]], "test": [[[21]]]}')
    ...     rolls = read_piano_rolls(path)
    >>> rolls.train[0].shape, rolls.train[0].nonzero()[1] + 21
    ((2, 88), array([60, 64]))
    """
    data = read_bytes(path, max_bytes)
    max_bytes = int(max_bytes)
    try:
        pieces = read_matlab(data, max_bytes) if matlab.is_matlab(data) else read_json(data)
    except FormatError as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from error
    return PianoRolls(*pieces)
