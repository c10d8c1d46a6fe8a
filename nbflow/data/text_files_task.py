"""Texts in several files as a task: no window and no state goes over a file's end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nbflow import counter
from nbflow.data._next_character import NextCharacter, hash_of
from nbflow.data.streams import Streams
from nbflow.data.text_streams import token_line
from nbflow.records import Batch

# Of files that are held out: how many are read side by side at most, and steps times files between two looks at the
# state. None of those side by side is longer than twice the shortest, so that half of what is computed counts at least.
TOGETHER, STRETCH = 64, 6400


class Files(Protocol):
    """What texts in files are here, as `nbflow.data.TextFiles`."""

    @property
    def names(self) -> tuple[str, ...]:
        """What each is called."""

    @property
    def tokens(self) -> tuple[NDArray[np.int32], ...]:
        """Integers (n_i,) of each, the numbers of characters."""

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The characters."""


class Lines:
    """The tokens of files, one behind the other: `sizes` of each, and where it begins."""

    def __init__(self, name: str, files: Files) -> None:
        if not isinstance(getattr(files, "names", None), tuple):
            raise TypeError(
                f"{name} is a {type(files).__name__}; expected TextFiles. Read some with read_text_files; of one text "
                f"the task is text.task()."
            )
        if not files.tokens:
            raise ValueError(f"{name} has no files; expected at least 1. Check which part it is.")
        for file, tokens in zip(files.names, files.tokens, strict=True):
            token_line(tokens, len(files.vocabulary))
            if len(tokens) < 2:
                raise ValueError(
                    f"{name} has {len(tokens)} characters of {file:.200}; expected at least 2, to predict one. Leave "
                    f"the file out, or make parts by='file'."
                )
        self.tokens = np.concatenate(files.tokens)
        self.sizes = np.array([len(tokens) for tokens in files.tokens])
        self.starts = np.cumsum(self.sizes) - self.sizes

    @property
    def targets(self) -> NDArray[np.int32]:
        """All characters that are predicted: all but the first of each file."""
        return np.delete(self.tokens, self.starts)

    def windows(self, length: int, draw: Any) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return files, first steps and steps of windows, by a function that draws below how many there are."""
        places = np.maximum(self.sizes - length, 1)
        ends = np.cumsum(places)
        drawn = draw(int(ends[-1]))
        files = np.searchsorted(ends, drawn, side="right")
        return files, drawn - (ends - places)[files], np.minimum(length, self.sizes[files] - 1)

    def write(
        self, batch: Batch, files: NDArray[np.int64], firsts: NDArray[np.int64], steps: NDArray[np.int64], weight: float
    ) -> None:
        """Write a window of each of B files into a batch (T, B) with room for the longest."""
        time = np.arange(batch.weights.shape[0])[:, None]
        inside = time < steps
        places = np.where(inside, self.starts[files] + firsts + time, 0)
        batch.inputs[...] = np.where(inside, self.tokens[places], 0)
        batch.targets[...] = np.where(inside, self.tokens[np.where(inside, places + 1, 0)], 0)
        batch.weights[...] = np.where(inside, weight, 0)


class TextFilesTask(NextCharacter):
    """Predict the next character of texts in several files, made by `TextFiles.task`.

    A sequence is a window of L characters of one file and the one after each, all places of all files being equally
    likely; its state begins at zero. A file with no more than L characters is one such window, shorter, and padded. The
    loss of a batch is a mean over its characters, in nats. T is L, or the longest file less one where that is shorter.

    With `Recipe(carry=True)` B files are read side by side, L characters at a time, the state carried over; where one
    ends, the next of an epoch begins from zeros. An epoch has every file once, in an order of its own.

    Measured is every file that is held out, whole and from a state of zeros, in bits per character.

    Parameters
    ----------
    train, held_out : TextFiles
        Two parts with one vocabulary, as from `TextFiles.select`.

    Raises
    ------
    TypeError, ValueError
        If they are no such files, or one of them is too short to predict a character.

    Examples
    --------
    >>> import nbflow as nf
    >>> words = [np.arange(k + 2, dtype=np.int32) % 3 for k in range(9)]
    >>> files = nf.data.TextFiles(tuple(map(str, range(9))), tuple(words), tuple("abc"))
    >>> task = TextFilesTask(train=files.select("[0-6]"), held_out=files.select("[78]"))
    >>> task.sample(seed=0, index=0, batch_size=3, length=5).inputs.shape
    (5, 3)
    """

    train: Files
    held_out: Files

    def __init__(self, train: Files, held_out: Files) -> None:
        self._train, self._held_out = Lines("train", train), Lines("held_out", held_out)
        super().__init__(train, held_out, "Read all files at once, and select.")
        self._firsts = [first for _, first in self._stretches()]
        self.longest = int(max(self._train.sizes.max(), self._held_out.sizes.max())) - 1

    def __repr__(self) -> str:
        train, held_out = self._train, self._held_out
        return (
            f"TextFilesTask({train.sizes.size} files of {train.tokens.size} characters, {held_out.sizes.size} held "
            f"out of {held_out.tokens.size})"
        )

    def steps(self, length: int) -> int:
        """Return T: the length, or what the longest file has."""
        return min(length, self.longest)

    def fill(self, batch: Batch, seed: int, purpose: int, replicas: Any, index: int, length: int) -> None:
        """Draw windows into the room that `empty` made."""
        lines = self._train if purpose == counter.TRAIN else self._held_out
        found = lines.windows(length, lambda count: self._draws(count, batch, seed, purpose, replicas, index))
        for r, (files, firsts, steps) in enumerate(zip(*found, strict=True)):
            lines.write(Batch(*(part[r] for part in batch)), files, firsts, steps, 1 / int(steps.sum()))

    def streams(self, batch_size: int) -> Streams:
        """Return the files to train on."""

        def write(batch: Batch, streams: Any, starts: Any, window: Any) -> None:
            self._train.write(batch, streams, starts, window, 1 / int(window.sum()))

        return Streams(self._train.sizes - 1, shuffled=True, write=write)

    def held_out_batches(self, dtype: str) -> Iterator[Batch]:
        """Yield the held-out files side by side, those of like length together, a stretch of each at a time."""
        lines, weight = self._held_out, 1 / self._held_out.targets.size
        for files, firsts in self._stretches():
            steps = np.clip(lines.sizes[files] - 1 - firsts, 0, self._stretch(files))
            batch = self.empty(1, int(steps.max()), files.size, dtype)
            batch = Batch(*(field[0] for field in batch))
            lines.write(batch, files, np.full(files.size, firsts), steps, weight)
            yield batch

    def goes_on(self, batch: int) -> bool:
        """Say whether a batch of `held_out_batches` goes on in the files of the one before."""
        return batch < len(self._firsts) and self._firsts[batch] > 0

    def _stretches(self) -> Iterator[tuple[NDArray[np.int64], int]]:
        """Yield the files of each held-out batch, and their step where it begins."""
        predictions = self._held_out.sizes - 1
        left = np.argsort(predictions, kind="stable")
        while left.size:
            alike = int(np.searchsorted(predictions[left], 2 * predictions[left[0]], side="right"))
            files, left = np.split(left, [min(alike, TOGETHER)])
            for first in range(0, int(predictions[files].max()), self._stretch(files)):
                yield files, first

    def _stretch(self, files: NDArray[np.int64]) -> int:
        return STRETCH // files.size

    def _characters(self) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        return self._train.tokens, self._train.targets, self._held_out.targets

    def identity(self) -> dict[str, Any]:
        """Return what tells it from others, as `json.dumps` takes it: no names, and nothing of where files lie."""
        return {
            "task": "TextFilesTask", "vocabulary": "".join(self.train.vocabulary),
            "train": hash_of(self.train.tokens), "held_out": hash_of(self.held_out.tokens),
        }  # fmt: skip
