"""Streams: sequences that a training reads window by window, with the state carried from each to the next."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from numpy.typing import NDArray

from nbflow._legible import legible
from nbflow.records import Batch


@legible
class Streams(NamedTuple):
    """What a training with `carry` reads, as `DataTask.streams` returns it.

    B streams are read side by side. Where one ends, its state is 0 again and the next one of the epoch begins, which
    has every stream once.

    Attributes
    ----------
    steps : int64 array of shape (n,)
        How many steps each stream has, 1 or more.
    shuffled : bool
        Whether an epoch has them in an order that is drawn for it and for each replica; otherwise as they are numbered.
    write : function
        `(batch, streams, starts, steps) -> None` fills a batch of one network, (T, B) and so on, with a window of each
        of B streams: `steps[b]` steps of stream `streams[b]`, from its step `starts[b]` on; T is the most of them.
        Steps after a window's end have weight 0, the others weights that add up to 1.
    """

    steps: NDArray[Any]
    shuffled: bool
    write: Callable[[Batch, NDArray[Any], NDArray[Any], NDArray[Any]], None]
