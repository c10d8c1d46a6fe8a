"""Piano rolls: pieces of music as (T, 88) arrays of 0 and 1, and their batches for next-frame prediction."""

from __future__ import annotations

import json
import os
import reprlib
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from nbflow.data import matlab
from nbflow.data.text import FormatError, check_count, decode_utf8, float_dtype, read_bytes
from nbflow.records import Batch

if TYPE_CHECKING:
    from nbflow.data.tasks import PianoRollTask

MAX_ROLL_BYTES = 128 * 2**20
LOWEST, HIGHEST = 21, 108
NOTES = HIGHEST - LOWEST + 1
SPLITS = ("train", "valid", "test")
BUCKET = 8

Roll = NDArray[np.uint8]


class PianoRolls(NamedTuple):
    """The three parts of a set of music.

    Attributes
    ----------
    train, valid, test : tuple of (T, 88) uint8
        One array a piece: ``piece[t, note - 21]`` is 1 where the MIDI note sounds in frame t, else 0. Every piece has
        at least one frame; a frame without a note is a rest.

    Examples
    --------
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
        >>> scale = np.eye(88, dtype=np.uint8)[39:47]
        >>> PianoRolls(train=(scale, scale), valid=(scale,), test=(scale,)).task()
        PianoRollTask(2 pieces, 1 held out)
        """
        from nbflow.data.tasks import PianoRollTask

        if held_out not in ("valid", "test"):
            raise ValueError(f'held_out is {held_out!r}; expected "valid" or "test". Give one of them.')
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
    try:
        pieces = _read_matlab(data, max_bytes) if matlab.is_matlab(data) else _read_json(data)
    except FormatError as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from error
    return PianoRolls(*pieces)


def piano_roll_batches(
    pieces: Sequence[NDArray[Any]],
    batch_size: int,
    length: int | None = 200,
    *,
    dtype: DTypeLike = "float32",
    rng: int | np.random.Generator | None = None,
    reduction: Literal["mean", "sum"] = "mean",
    bucket: int | None = None,
) -> Iterator[Batch]:
    """Make batches for next-frame prediction: one pass over the pieces, every frame a target exactly once.

    Pieces are cut into subsequences of at most `length` frames. The input of a step is the true frame before its
    target, also for the first step of a later subsequence; the first frame of a piece is predicted from zeros.
    Subsequences of different length share a batch: the short ones are zeros at the end, with weight 0.

    Parameters
    ----------
    pieces : sequence of (T, N) arrays
        As in ``PianoRolls.train``: numbers from 0 to 1, all with the same N.
    batch_size : int
        B, the number of subsequences in a batch; the last batch may have fewer.
    length : int or None
        The most frames in a subsequence; None leaves pieces whole.
    dtype : float32 or float64
        The dtype of all three arrays: the network's.
    rng : None, int or numpy.random.Generator
        Shuffles the subsequences and the batches; None keeps the order of the pieces. It is drawn from at the call.
    reduction : "mean" or "sum"
        What the loss of a batch is: nats per frame (each weight is one over the frames in the batch), or nats in all
        (each weight is 1).
    bucket : int or None
        Sorts every `bucket` batches' worth of subsequences by length before it is cut into batches, so that like
        meets like. 1 sorts nothing. If not given: 8 with `rng`, 1 without. See Notes.

    Returns
    -------
    iterator of Batch
        inputs (T,B,N), targets (T,B,N), weights (T,B), T the longest subsequence of the batch.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range. At the call, not at the first batch.

    Notes
    -----
    Share of padding in the training sets at length 200 and batch size 20, shuffled: Nottingham 0.24 without sorting,
    0.07 with ``bucket=8``, 0.01 with everything sorted; JSB chorales by quarter notes 0.44, 0.11, 0.06. Sorting
    everything makes the same batches in every pass, hence the 8.

    With "mean" every batch weighs the same in a pass, so a frame of a batch of short subsequences weighs more.

    Examples
    --------
    >>> piece = np.array([[1, 0], [0, 1], [1, 1]], np.uint8)
    >>> batch = next(piano_roll_batches([piece, piece[:1]], batch_size=2))
    >>> batch.inputs[:, 0].tolist(), batch.targets[:, 0].tolist()
    ([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> batch.weights.T.tolist()
    [[0.25, 0.25, 0.25], [0.25, 0.0, 0.0]]
    """
    rolls = checked_pieces(pieces)
    check_count("batch_size", batch_size)
    if length is not None:
        check_count("length", length, " or None")
    found_dtype = float_dtype(dtype)
    if reduction not in ("mean", "sum"):
        raise ValueError(f'reduction is {reduction!r}; expected "mean" or "sum". Give one of them.')
    generator = _generator(rng)
    if bucket is None:
        bucket = 1 if generator is None else BUCKET
    check_count("bucket", bucket, " or None")
    spans = spans_of(rolls, length)
    plan = _plan(spans, batch_size, bucket, generator)
    return _assemble(rolls, spans, plan, found_dtype, None if reduction == "mean" else 1.0)


def evaluation_batches(
    pieces: Sequence[NDArray[Any]],
    batch_size: int,
    *,
    dtype: DTypeLike = "float32",
    bucket: int = 1,
) -> Iterator[Batch]:
    """Make batches of whole pieces whose losses add up to the published metric, nats per frame of the set.

    Every piece is whole, begins from a zero state and from zeros as its first input, and comes once. Each weight is one
    over the frames of the whole set, so the metric is the plain sum of the batches' Bernoulli losses: the negative
    log-likelihood summed over the notes, averaged over all frames of the set.

    Parameters
    ----------
    pieces : sequence of (T, N) arrays
        As in ``PianoRolls.test``: numbers from 0 to 1, all with the same N.
    batch_size : int
        B, the number of pieces in a batch; the last batch may have fewer.
    dtype : float32 or float64
        The dtype of all three arrays: the network's.
    bucket : int
        As in `piano_roll_batches`. 1 keeps the order of the pieces; more cuts the padding and leaves the sum as it is:
        of the Nottingham test set, at batch size 20, from 0.62 of the steps to 0.25 with everything sorted.

    Returns
    -------
    iterator of Batch
        inputs (T,B,N), targets (T,B,N), weights (T,B), T the longest piece of the batch.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range. At the call, not at the first batch.

    Examples
    --------
    >>> pieces = [np.ones((frames, 88), np.uint8) for frames in (3, 5, 2)]
    >>> [batch.inputs.shape for batch in evaluation_batches(pieces, batch_size=2)]
    [(5, 2, 88), (2, 1, 88)]
    >>> round(float(sum(batch.weights.sum() for batch in evaluation_batches(pieces, batch_size=2))), 6)
    1.0
    """
    rolls = checked_pieces(pieces)
    check_count("batch_size", batch_size)
    check_count("bucket", bucket)
    spans = spans_of(rolls, None)
    frames = sum(roll.shape[0] for roll in rolls)
    return _assemble(rolls, spans, _plan(spans, batch_size, bucket, None), float_dtype(dtype), 1.0 / frames)


# ---- batches: a span is a row (piece, start, stop), a plan the rows of each batch ----


def spans_of(rolls: Sequence[NDArray[Any]], length: int | None) -> NDArray[np.int64]:
    """Cut pieces into spans of at most `length` frames."""
    rows = []
    for index, roll in enumerate(rolls):
        frames = roll.shape[0]
        step = frames if length is None else length
        rows += [(index, start, min(start + step, frames)) for start in range(0, frames, step)]
    return np.array(rows, np.int64)


def _plan(
    spans: NDArray[np.int64], batch_size: int, bucket: int, generator: np.random.Generator | None
) -> list[NDArray[np.int64]]:
    rows = np.arange(len(spans)) if generator is None else generator.permutation(len(spans))
    frames = spans[:, 2] - spans[:, 1]
    plan = []
    for first in range(0, rows.size, bucket * batch_size):
        pool = rows[first : first + bucket * batch_size]
        if bucket > 1:
            pool = pool[np.argsort(frames[pool], kind="stable")]
        plan += [pool[k : k + batch_size] for k in range(0, pool.size, batch_size)]
    if generator is None:
        return plan
    return [plan[k] for k in generator.permutation(len(plan))]


def _assemble(
    rolls: list[NDArray[Any]],
    spans: NDArray[np.int64],
    plan: list[NDArray[np.int64]],
    dtype: np.dtype[Any],
    weight: float | None,
) -> Iterator[Batch]:
    """Yield the batches of a plan; a weight of None is one over the frames of the batch."""
    for rows in plan:
        frames = spans[rows, 2] - spans[rows, 1]
        shape = (int(frames.max()), rows.size)
        inputs, targets = np.empty((2, *shape, rolls[0].shape[1]), dtype)
        batch = Batch(inputs, targets, np.empty(shape, dtype))
        write_spans(batch, rolls, spans[rows], weight)
        yield batch


def write_spans(batch: Batch, rolls: Sequence[NDArray[Any]], spans: NDArray[np.int64], weight: float | None) -> None:
    """Write B spans into a batch with room for the longest; a weight of None is one over the frames of them all."""
    inputs, targets, weights = batch
    if weight is None:
        weight = 1.0 / int((spans[:, 2] - spans[:, 1]).sum())
    for part in batch:
        part[...] = 0
    for b, (piece, start, stop) in enumerate(spans.tolist()):
        roll = rolls[piece]
        targets[: stop - start, b] = roll[start:stop]
        before = max(start - 1, 0)
        inputs[before + 1 - start : stop - start, b] = roll[before : stop - 1]
        weights[: stop - start, b] = weight


def checked_pieces(pieces: Sequence[NDArray[Any]], name: str = "pieces") -> list[NDArray[Any]]:
    """Return pieces as a list; arrays of numbers from 0 to 1, with at least one frame, and notes alike."""
    if isinstance(pieces, PianoRolls):
        raise TypeError(f"{name} is a PianoRolls; expected one of its parts. Write rolls.train.")
    if not isinstance(pieces, Sequence):
        raise TypeError(f"{name} is {type(pieces).__name__}; expected a sequence of (T, N) arrays. Write [piece].")
    if not pieces:
        raise ValueError(f"{name} is empty; expected at least 1 piece. Check which part of the set it is.")
    width = None
    for index, piece in enumerate(pieces):
        if not isinstance(piece, np.ndarray):
            raise TypeError(f"{name}[{index}] is {type(piece).__name__}; expected a (T, N) array. Use np.asarray.")
        if piece.dtype.kind not in "buif":
            raise TypeError(f"{name}[{index}] has dtype {piece.dtype}; expected numbers. Cast it: .astype(np.uint8).")
        wanted = "N" if width is None else str(width)
        if piece.ndim != 2 or not piece.size or piece.shape[1] != (width or piece.shape[1]):
            raise ValueError(
                f"{name}[{index}] has shape {piece.shape}; expected (T, {wanted}), no size 0. "
                "Frames come first, notes second, as many in every piece."
            )
        width = piece.shape[1]
        if not (piece.min() >= 0 and piece.max() <= 1):
            raise ValueError(
                f"{name}[{index}] spans {piece.min()} to {piece.max()}; expected numbers from 0 to 1. "
                "Make velocities 0 and 1: piece > 0."
            )
    return list(pieces)


def _generator(rng: int | np.random.Generator | None) -> np.random.Generator | None:
    if rng is None or isinstance(rng, np.random.Generator):
        return rng
    if isinstance(rng, bool | np.bool_) or not isinstance(rng, int | np.integer):
        raise TypeError(
            f"rng is {type(rng).__name__}; expected None, an integer or a numpy.random.Generator. Give a seed."
        )
    if rng < 0:
        raise ValueError(f"rng is {rng}; expected 0 or more, None or a numpy.random.Generator. Give another seed.")
    return np.random.default_rng(rng)


# ---- JSON ----

_MIDI = frozenset(range(LOWEST, HIGHEST + 1))
_JSON_WANTED = '{"train": [[[midi, ...] per frame] per piece], "valid": ..., "test": ...}'
_STRANGERS = (
    (b"MATLAB 7.3", "a MATLAB 7.3 file", "Save it again in MATLAB with '-v7'."),
    (b"\x89HDF", "an HDF5 file", "If it is MATLAB's, save it again with '-v7'."),
    (b"MATLAB 5.0", "the start of a MATLAB 5 file, cut off or damaged in its header", "Fetch the file again."),
    (b"\x80", "a Python pickle or other binary data", "Pickles can run code and are not read: convert it to JSON."),
    (b"\x1f\x8b", "a gzip archive", "Unpack it first: gunzip."),
    (b"PK\x03\x04", "a zip archive", "Unpack it first: unzip."),
)


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as its (key, value) pairs, so that a key given twice is seen."""


def _read_json(data: bytes) -> list[tuple[Roll, ...]]:
    for start, found, remedy in _STRANGERS:
        if data.startswith(start):
            raise FormatError(f"is {found}; expected JSON or MATLAB 5. {remedy}")
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
    if not isinstance(content, _Pairs):
        raise FormatError(f"holds {_found(content)}; expected {_JSON_WANTED}. Put the three parts under their keys.")
    keys = [key for key, _ in content]
    parts = dict(content)
    _check_keys(keys, SPLITS)
    return [_json_part(parts[name], name) for name in SPLITS]


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


def _json_part(part: object, name: str) -> tuple[Roll, ...]:
    if type(part) is not list or not part:
        found = "no pieces" if type(part) is list else _found(part)
        raise FormatError(
            f"holds {found} as {name}; expected a list of at least 1 piece. Put one piece there at least."
        )
    return tuple(_json_roll(piece, f"{name}[{index}]") for index, piece in enumerate(part))


def _json_roll(piece: object, where: str) -> Roll:
    if type(piece) is not list or not piece:
        found = "no frames" if type(piece) is list else _found(piece)
        raise FormatError(
            f"holds {found} as {where}; expected a list of at least 1 frame. Take the piece out or mend it."
        )
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


def _read_matlab(data: bytes, max_bytes: int) -> list[tuple[Roll, ...]]:
    found = list(matlab.variables(data, max_bytes))
    wanted = tuple(f"{name}data" for name in SPLITS)
    _check_keys([matrix.name for matrix in found], wanted)
    cells = {matrix.name: matrix for matrix in found}
    return [_matlab_part(cells[name], name) for name in wanted]


def _matlab_part(cell: matlab.Matrix, name: str) -> tuple[Roll, ...]:
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
