"""A text as parallel streams: its batches for truncated back-propagation through time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from nbflow.data._files import check_count, float_dtype
from nbflow.records import Batch


class Tokens(Protocol):
    """What is a text here: tokens, and the characters that they stand for, as in `nbflow.data.Text`."""

    @property
    def tokens(self) -> NDArray[np.int32]:
        """Integers (n,), each the number of a character."""

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The characters."""


def text_batches(
    tokens: NDArray[np.integer[Any]], batch_size: int, length: int, *, dtype: DTypeLike = "float32"
) -> Iterator[Batch]:
    """Cut a text into contiguous batches for truncated back-propagation through time.

    The text is laid out as `batch_size` parallel streams. In every row, batch k + 1 begins where batch k ended, so the
    state after batch k is the state before batch k + 1. Each stream makes ``S = (n - 1) // batch_size`` predictions;
    the last ``(n - 1) % batch_size`` characters of the text, less than one a stream, are left out.

    Parameters
    ----------
    tokens : (n,) integers
        ``Text.tokens``, or any line of integers from 0 up.
    batch_size : int
        B, the number of streams.
    length : int
        T, the steps of a batch. The last batch is shorter where S is no multiple of it.
    dtype : float32 or float64
        The dtype of the weights: the network's.

    Returns
    -------
    iterator of Batch
        inputs (T,B) and targets (T,B) in the integer type of `tokens`, each target the token after its input;
        weights (T,B), all ``1/(T*B)``: with the softmax loss, mean nats per character of the batch.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, or the text is shorter than ``batch_size + 1``. At the call, not later.

    Examples
    --------
    >>> for batch in text_batches(np.arange(8), batch_size=2, length=2):
    ...     print(batch.inputs.T.tolist(), batch.targets.T.tolist(), batch.weights[0, 0])
    [[0, 1], [3, 4]] [[1, 2], [4, 5]] 0.25
    [[2], [5]] [[3], [6]] 0.5
    """
    tokens = token_line(tokens)
    batch_size, length = check_count("batch_size", batch_size), check_count("length", length)
    weight_dtype = float_dtype(dtype)
    steps = (tokens.size - 1) // batch_size
    if steps < 1:
        raise ValueError(
            f"tokens has {tokens.size} characters; expected at least batch_size + 1 = {batch_size + 1}. "
            "Give a longer text or a smaller batch_size."
        )
    inputs = tokens[: steps * batch_size].reshape(batch_size, steps).T
    targets = tokens[1 : steps * batch_size + 1].reshape(batch_size, steps).T
    return _cut(inputs, targets, length, weight_dtype)


def _cut(inputs: NDArray[Any], targets: NDArray[Any], length: int, dtype: np.dtype[Any]) -> Iterator[Batch]:
    for start in range(0, inputs.shape[0], length):
        now = np.ascontiguousarray(inputs[start : start + length])
        after = np.ascontiguousarray(targets[start : start + length])
        yield Batch(now, after, np.full(now.shape, 1.0 / now.size, dtype))


def token_line(tokens: NDArray[np.integer[Any]], size: int | None = None) -> NDArray[np.integer[Any]]:
    """Return the tokens as an array (n,) of integers from 0 up, below `size` where it is given."""
    if hasattr(tokens, "vocabulary"):
        raise TypeError("tokens is a Text; expected its tokens. Write text.tokens.")
    line = np.asarray(tokens)
    if line.ndim != 1:
        raise ValueError(f"tokens has shape {line.shape}; expected (n,). Flatten it: tokens.ravel().")
    if line.size == 0:
        return line.astype(np.int32)
    if line.dtype.kind not in "iu":
        raise TypeError(f"tokens has dtype {line.dtype}; expected integers. Cast it: tokens.astype(np.int32).")
    low, high = int(line.min()), int(line.max())
    if low < 0 or (size is not None and high >= size):
        wanted = "0 or more" if size is None else f"0 to {size - 1}, the vocabulary's"
        raise ValueError(f"tokens holds {low if low < 0 else high}; expected {wanted}. Encode with the same Text.")
    return line
