"""Piano rolls: pieces of music as (T, 88) arrays of 0 and 1."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from nbflow import _check
from nbflow._legible import legible
from nbflow.data._files import FormatError, check_count
from nbflow.data._folders import files_of, read_all
from nbflow.data._midi import USUAL, is_midi, step_of
from nbflow.data._parts import cut, drawn, shares
from nbflow.data._roll import SPLITS, Pieces, Roll
from nbflow.data._roll_formats import read_rolls

if TYPE_CHECKING:
    from nbflow.data.tasks import PianoRollTask

MAX_ROLL_BYTES = 128 * 2**20
# Of pieces that come without parts.
SHARES = (0.8, 0.1, 0.1)

Where: TypeAlias = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


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


def read_piano_rolls(
    path: Where,
    max_bytes: int = MAX_ROLL_BYTES,
    *,
    pattern: str = "*",
    step: str | float | None = None,
    parts: Sequence[float] | None = None,
    seed: int = 0,
) -> PianoRolls:
    """Read a set of piano rolls: a file, several, or a folder of them; what is in a file tells its format.

    JSON
        ``{"train": [[[midi, ...] per frame] per piece], "valid": ..., "test": ...}``, a list of pieces, or one piece.
        MIDI notes are integers from 21 to 108 in any order, a note given twice counting once.
    MATLAB 5
        Variables ``traindata``, ``validdata``, ``testdata``, each a (1, n) cell of (T, 88) arrays of 0 and 1 in any
        real number type.
    .npy
        A piece (T, 88) of 0 and 1 in any real number type, or n of one length, (n, T, 88).
    .npz
        Such arrays: pieces, as ``np.savez(path, *rolls)`` writes them, or with the parts in their names,
        ``np.savez(path, **{"train/0": roll, ...})``.
    MIDI
        One piece, given ``pip install 'nbflow[music]'``. Frame k has the keys that are down k steps after the
        beginning, in beats, as Boulanger-Lewandowski et al. sampled theirs [1]_; it ends with the last note. A note
        that lies between two steps is not seen, and one that is struck again looks as if it were held. Percussion
        (channel 10) and pedals are left out, nothing is transposed; a key that is never let go is down to the end of
        its track.

    Parts are those of the files, or of a folder with folders train, valid and test. Where there are none, pieces are
    drawn into three parts from what is in them and `seed` alone, wherever files lie and whatever they are called.
    Within a part they keep their order: that of a list, and in a folder the natural one, piece2 before piece10.
    Files that are hidden (".name") are left out, and further keys and variables left alone. A part without pieces and a
    piece without frames are refused, not dropped: no published set holds one, so it is a sign of a file gone wrong.

    Nothing in a file is run, no pickle is opened, and a compressed file may unpack to no more than `max_bytes`. While
    it is read, JSON takes up to about fifty times the file's size in memory.

    Parameters
    ----------
    path : str, os.PathLike, or a list of them
        A file, a folder, or files.
    max_bytes : int
        The most bytes to read, of all files together, and the most that one may unpack to; 128 MiB if not given.
        Nottingham, a large set, unpacks to 24 MB.
    pattern : str
        Which files of a folder: ``"*.mid"``, or ``"**/*.mid"`` to look into its folders too.
    step : str or float, optional
        Of MIDI: "whole", "half", "quarter", "eighth" (as in [1]_, but for the chorales, "quarter"), "sixteenth", or a
        number of beats, which are quarter notes.
    parts : three floats, optional
        The shares of train, valid and test where the set has no parts: of the number of pieces, at least one each;
        (0.8, 0.1, 0.1) if not given.
    seed : int
        Which pieces are drawn into which part.

    Returns
    -------
    PianoRolls
        train, valid and test, each a tuple of (T, 88) uint8 arrays of 0 and 1.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    FileNotFoundError
        If there is no such file.
    ImportError
        If a file is MIDI and mido is not installed.
    ValueError
        If a file cannot be used: the message names it, what was found, what is wanted and the remedy. Or if a step is
        given and no file is MIDI, parts are and the set has its own, or there are fewer pieces than parts.

    Notes
    -----
    The readers of MATLAB and of NumPy's files here are small ones of their own, for real arrays, with every length
    checked before it is used. ``scipy.io.loadmat`` reads far more kinds of file, but is not hardened against damaged
    ones: a single changed byte can make it crash the interpreter.

    References
    ----------
    .. [1] N. Boulanger-Lewandowski, Y. Bengio, P. Vincent, Modeling temporal dependencies in high-dimensional
       sequences, ICML 2012.

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
    seed = _check.count("seed", seed, 0)
    wanted = _three(SHARES if parts is None else parts)
    found = _read(path, pattern, step, max_bytes)
    if "" not in found:
        if parts is not None:
            raise ValueError(
                f"parts is {_check.said(parts)}, and the set has parts of its own; expected None. Leave parts out."
            )
        return PianoRolls(*(tuple(found[name]) for name in SPLITS))
    pieces = found[""]
    sizes = [max(1, round(share * len(pieces))) for share in wanted[1:]]
    if sum(sizes) >= len(pieces):
        raise ValueError(
            f"{_named(path)}: holds {len(pieces)} pieces; expected at least 1 for each part, {', '.join(SPLITS)}, of "
            f"shares {', '.join(f'{share:g}' for share in wanted)}. Add pieces, or take these by read_pieces."
        )
    valid, test, train = cut(drawn((str(len(roll)).encode() + roll.tobytes() for roll in pieces), seed), *sizes)
    return PianoRolls(*(tuple(pieces[k] for k in rows) for rows in (train, valid, test)))


def read_pieces(
    path: Where, max_bytes: int = MAX_ROLL_BYTES, *, pattern: str = "*", step: str | float | None = None
) -> tuple[Roll, ...]:
    """Read pieces of music without parts: piano rolls of a file, of several, or of a folder.

    Formats and arguments are those of `read_piano_rolls`. For a task take two sets of pieces,
    ``PianoRollTask(train=..., held_out=...)``.

    Parameters
    ----------
    path : str, os.PathLike, or a list of them
        A file, a folder, or files.
    max_bytes : int
        The most bytes to read, of all files together, and the most that one may unpack to; 128 MiB if not given.
    pattern : str
        Which files of a folder: ``"*.mid"``, or ``"**/*.mid"`` to look into its folders too.
    step : str or float, optional
        Of MIDI: "whole", "half", "quarter", "eighth" (the usual one), "sixteenth", or a number of beats.

    Returns
    -------
    tuple of uint8 arrays of shape (T, 88)
        In the order of a list, and of a folder in natural order.

    Raises
    ------
    TypeError, FileNotFoundError, ImportError, ValueError
        As `read_piano_rolls`; and if a file has parts.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> scale = np.eye(88, dtype=np.uint8)[39:47]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(pathlib.Path(folder, "scales.npz"), scale, scale[:3])
    ...     pieces = read_pieces(folder)
    >>> [piece.shape for piece in pieces]
    [(8, 88), (3, 88)]
    """
    found = _read(path, pattern, step, max_bytes)
    if "" not in found:
        raise ValueError(
            f"{_named(path)}: has parts, {', '.join(SPLITS)}; expected pieces without. Read it by read_piano_rolls."
        )
    return tuple(found[""])


def _read(path: Where, pattern: str, step: Any, max_bytes: int) -> dict[str, list[Roll]]:
    """Return all pieces by part, or under "" if none has one."""
    max_bytes, beats = check_count("max_bytes", max_bytes), step_of(USUAL if step is None else step)
    files = list(_files(path, pattern))
    found: dict[str, list[Roll]] = {}
    midi, first = False, dict[bool, Path]()
    for (part, file), data in zip(files, read_all((file for _, file in files), max_bytes), strict=True):
        try:
            pieces: dict[str, Pieces] = read_rolls(data, beats, max_bytes)
            if part and "" not in pieces:
                raise FormatError(f"lies in a folder {part} and has parts of its own; expected one or the other.")
        except FormatError as error:
            raise ValueError(f"{file}: {error}") from error
        midi |= is_midi(data)
        first.setdefault(bool(part) or "" not in pieces, file)
        for name, rolls in pieces.items():
            found.setdefault(name or part, []).extend(rolls)
    if len(first) > 1:
        raise ValueError(
            f"{first[False]}: has no parts, and {first[True]} has; expected parts in every file or in none. Read them "
            f"one by one."
        )
    if step is not None and not midi:
        raise ValueError(
            f"step is {_check.said(step)} and {_named(path)} has no MIDI, but piano rolls with a step of their own; "
            f"expected None. Leave step out."
        )
    return found


def _files(path: Where, pattern: str) -> Iterator[tuple[str, Path]]:
    """Yield each file, and the part whose folder it lies in, "" for none."""
    folders: list[tuple[str, Any]] = [*_part_folders(path)]
    for name, folder in folders or [("", path)]:
        for _, file in files_of(folder, pattern):
            yield name, file


def _part_folders(path: Any) -> list[tuple[str, Path]]:
    """Return the folders of the three parts, or none of them."""
    if not isinstance(path, str | os.PathLike):
        return []
    found = [(name, Path(path, name)) for name in SPLITS if Path(path, name).is_dir()]
    if found and len(found) < len(SPLITS):
        raise ValueError(
            f"{Path(path)}: has a folder {found[0][0]}, but not all of {', '.join(SPLITS)}; expected each, or none. "
            f"Add what is missing, or read each folder by read_pieces."
        )
    return found


def _three(parts: Any) -> list[float]:
    found = shares("parts", parts, "(0.8, 0.1, 0.1)")
    if len(found) != len(SPLITS):
        raise ValueError(f"parts has {len(found)} shares; expected 3, of {', '.join(SPLITS)}. Give them as {SHARES}.")
    return found


def _named(path: Where) -> str:
    return f"a list of {len(path)} files" if isinstance(path, list | tuple) else str(path)
