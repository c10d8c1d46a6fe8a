"""MIDI files: the keys that are down at each step of a beat.

Parsing is mido's, loaded here: it says of every event what it is, and of a file that is cut that it is.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Iterator
from fractions import Fraction
from numbers import Real
from typing import Any

import numpy as np

from nbflow import _check
from nbflow.data._files import FormatError
from nbflow.data._roll import HIGHEST, LOWEST, NOTES, Roll

# By their names, in beats: a beat of MIDI is a quarter note.
STEPS = {
    "whole": Fraction(4), "half": Fraction(2), "quarter": Fraction(1), "eighth": Fraction(1, 2),
    "sixteenth": Fraction(1, 4),
}  # fmt: skip
USUAL = "eighth"
# No step is smaller than a part of a beat that is one of so many.
FINEST = 960
# The channel of percussion, whose notes are no pitches.
DRUMS = 9


def is_midi(data: bytes) -> bool:
    """Say whether the bytes begin as a MIDI file does."""
    return data.startswith(b"MThd")


def step_of(value: Any) -> Fraction:
    """Return a step in beats, of its name or a number."""
    if isinstance(value, str):
        return STEPS[_check.choice("step", value, tuple(STEPS))]
    wanted = f"expected one of {', '.join(STEPS)}, or a number of beats, 1/{FINEST} to {FINEST}"
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"step is {_check.said(value)}; {wanted}. Give 'eighth', say.")
    least: Any = 1 / FINEST  # Real has no comparison that a checker knows
    if not least <= value <= FINEST:
        raise ValueError(f"step is {_check.said(value)}; {wanted}. A quarter note is 1, an eighth 1/2.")
    return Fraction(float(value)).limit_denominator(FINEST)


def read_midi(data: bytes, step: Fraction, max_bytes: int) -> Roll:
    """Read a piece: frame k has the keys that are down at k steps, for a roll of no more than `max_bytes`."""
    try:
        library = importlib.import_module("mido")
    except ImportError:
        raise ImportError(
            "reading MIDI needs mido, which is not installed; expected it, for it parses the files. "
            "pip install 'nbflow[music]'."
        ) from None
    try:
        file = library.MidiFile(file=io.BytesIO(data))
    except Exception as error:  # mido's are of many kinds
        raise FormatError(
            f"is a MIDI file that is cut or damaged ({type(error).__name__}: {error!s:.80}); expected a whole one. "
            f"Fetch it again, or save it again with a program that opens it."
        ) from error
    ticks = file.ticks_per_beat
    if file.type not in (0, 1) or ticks < 1:
        found = f"is MIDI of type {file.type}" if ticks > 0 else "counts time in seconds and frames (SMPTE)"
        raise FormatError(
            f"{found}; expected type 0 or 1, in ticks per beat, so that its tracks sound together at beats. Save it so."
        )
    return _roll(list(_notes(file.tracks)), ticks, step, max_bytes)


def _roll(notes: list[tuple[int, int, int]], ticks: int, step: Fraction, max_bytes: int) -> Roll:
    """Return the keys that are down at each step, of notes from a tick to another."""
    if not notes:
        raise FormatError("holds no notes; expected some that are no percussion. Leave the file out.")
    for begin, _, note in notes:
        if not LOWEST <= note <= HIGHEST:
            raise FormatError(
                f"holds the note {note} at beat {begin / ticks:g}; expected {LOWEST} to {HIGHEST}, the keys of a "
                f"piano. Transpose the piece, or leave the note out."
            )
    each = step * ticks
    frames = max(_first_step(end, each) for _, end, _ in notes)
    if frames * NOTES > max_bytes:
        raise FormatError(
            f"lasts {frames} steps, {frames * NOTES} bytes as a piano roll; expected at most max_bytes = {max_bytes}. "
            f"If it is the right file, give a larger step or a larger max_bytes."
        )
    roll = np.zeros((frames, NOTES), np.uint8)
    for begin, end, note in notes:
        roll[_first_step(begin, each) : _first_step(end, each), note - LOWEST] = 1
    if not roll.any():
        raise FormatError(
            f"holds {len(notes)} notes, none of which sounds at a multiple of {step} beats; expected some. Give a "
            f"smaller step."
        )
    return roll


def _first_step(tick: int, each: Fraction) -> int:
    """Return the first step at this tick or later."""
    return -(-tick * each.denominator // each.numerator)


def _notes(tracks: Any) -> Iterator[tuple[int, int, int]]:
    """Yield from which tick to which a key is down, of each track by itself."""
    for track in tracks:
        now, down = 0, dict[tuple[int, int], int]()
        for message in track:
            now += message.time
            if message.type not in ("note_on", "note_off") or message.channel == DRUMS:
                continue
            key = message.channel, message.note
            if key in down:  # let go, or struck again
                yield down.pop(key), now, message.note
            if message.type == "note_on" and message.velocity:
                down[key] = now
        for (_, note), begin in down.items():  # never let go: to the end of the track
            yield begin, now, note
