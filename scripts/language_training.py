"""What the scripts of characters train on, and networks of the same size for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import nbflow as nf
from nbflow.data.streams import Streams
from nbflow.data.tasks import TextTask
from nbflow.data.text import Text, read_text
from nbflow.data.text_files import read_text_files
from nbflow.records import Batch

PARTS = ("train", "validation", "test")
# Cells with gates, which are methods of their own; how far apart two numbers of parameters may be.
GATED = ("lstm", "gru")
ALIKE = 0.01


class SummedTask(TextTask):
    """Characters of which the loss of a batch is summed over the steps of a window, and not their mean."""

    def fill(self, batch: Batch, seed: int, purpose: int, replicas: Any, index: int, length: int) -> None:
        """Draw windows into the room that `empty` made."""
        super().fill(batch, seed, purpose, replicas, index, length)
        batch.weights[...] = 1 / batch.weights.shape[-1]

    def streams(self, batch_size: int) -> Streams:
        """Return the text to train on in so many streams."""
        found = super().streams(batch_size)

        def write(batch: Batch, streams: Any, starts: Any, window: Any) -> None:
            found.write(batch, streams, starts, window)
            batch.weights[...] = 1 / batch_size

        return found._replace(write=write)

    def identity(self) -> dict[str, Any]:
        """Return what tells it from others."""
        return {**super().identity(), "task": "SummedTask"}


class Parts(NamedTuple):
    """A text in three."""

    train: Text
    validation: Text
    test: Text

    def task(self, held_out: str, kind: type[TextTask] = TextTask) -> TextTask:
        """Return the task that is measured on a part; on a piece of the first one as long as the second."""
        if held_out != "train":
            return kind(self.train, getattr(self, held_out))
        piece = Text(self.train.tokens[-self.validation.tokens.size :], self.train.vocabulary)
        return kind(self.train, piece)

    def trivial(self) -> dict[str, float]:
        """Return the bits per character of knowing how often each character stands in the text to train on."""
        return {part: self.task(part).trivial().score for part in PARTS}


def read_parts(path: Path, shares: tuple[float, float, float]) -> Parts:
    """Return a text, or a folder of texts, in three parts."""
    text = read_text_files(path).joined() if path.is_dir() else read_text(path)
    return Parts(*text.split(shares))


def size_of(cell: str, characters: int, hidden: int) -> int:
    """Return P."""
    return int(nf.Network(cell, characters, hidden, characters).size)


def hidden_of(cell: str, characters: int, parameters: int) -> int:
    """Return H of the network whose number of parameters is nearest.

    Examples
    --------
    >>> [hidden_of(cell, 65, 20_000) for cell in ("tanh", "lstm", "gru")]
    [90, 41, 48]
    """
    least, most = 1, max(int(np.sqrt(parameters)), 2)
    while least < most:  # the first one that is not smaller
        middle = (least + most) // 2
        least, most = (middle + 1, most) if size_of(cell, characters, middle) < parameters else (least, middle)
    return min(max(least - 1, 1), least, key=lambda h: abs(size_of(cell, characters, h) - parameters))


def alike(characters: int, hidden: int, cells: Sequence[str] = ("lstm",)) -> dict[str, int]:
    """Return H of each cell so that their numbers of parameters are within 1 %, with that of tanh as near as can be.

    Examples
    --------
    >>> alike(65, 100)
    {'tanh': 100, 'lstm': 45}
    """
    for tanh in sorted(range(max(hidden // 2, 1), 2 * hidden + 50), key=lambda h: (abs(h - hidden), h)):
        wanted = size_of("tanh", characters, tanh)
        others = {cell: hidden_of(cell, characters, wanted) for cell in cells}
        if all(abs(size_of(cell, characters, h) / wanted - 1) <= ALIKE for cell, h in others.items()):
            return {"tanh": tanh, **others}
    raise ValueError(
        f"hidden is {hidden}; expected a number near which tanh and {', '.join(cells)} can be alike. Give a larger one."
    )
