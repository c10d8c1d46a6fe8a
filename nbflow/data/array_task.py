"""Sequences of a user's own as a task: trained on in epochs, and measured on those held out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nbflow import _check, counter
from nbflow._legible import legible
from nbflow.data.sampler import DataTask, Trivial
from nbflow.data.streams import Streams
from nbflow.records import Batch, Floats

# Sequences in one pass over what is held out.
TOGETHER = 64
SCORES = ("loss", "wrong")


@legible
class Sequences(NamedTuple):
    """Sequences of any length, their steps one behind the other.

    Attributes
    ----------
    inputs : float array of shape (steps of all, N), or int32 array of shape (steps of all,)
        Numbers, or tokens.
    targets : float array of shape (steps of all, M) or (n, M), or int32 array of shape (steps of all,) or (n,)
        Numbers, or classes; of each step, or of each sequence.
    starts : int64 array of shape (n+1,)
        Where each sequence begins, in steps, and the end of the last.
    each_step : bool
        Whether every step has a target, not every sequence.
    """

    inputs: NDArray[Any]
    targets: NDArray[Any]
    starts: NDArray[np.int64]
    each_step: bool

    @property
    def lengths(self) -> NDArray[np.int64]:
        """The steps of each sequence (n,)."""
        return np.diff(self.starts)

    def some(self, rows: NDArray[np.int64]) -> Sequences:
        """Return a copy of some of the sequences."""
        lengths = self.lengths[rows]
        starts = np.concatenate([[0], np.cumsum(lengths)])
        steps = np.repeat(self.starts[rows] - starts[:-1], lengths) + np.arange(starts[-1])
        targets = self.targets[steps if self.each_step else rows]
        return Sequences(self.inputs[steps], targets, starts, self.each_step)


class ArrayTask(DataTask):
    """Sequences of one's own as a task, made by `nbflow.arrays`.

    A batch is the next B sequences of an epoch, in which every sequence comes once, in an order that is drawn anew for
    each epoch and replica; the last batch of an epoch goes on into the next. Every sequence is taken whole, from a
    state of zeros: `lengths` of a recipe have no say. The loss of a batch is a mean over its sequences, or over all
    their steps where every step counts.

    With `Recipe(carry=True)` B sequences are read side by side, as many steps at a time as `lengths` say, the state
    carried over; where one ends, the next of the epoch begins from zeros. Every step must count for that.

    Measured is all that is held out. A score is the mean loss, in nats or squared units, or the part that is wrong.

    Attributes
    ----------
    train, held_out : Sequences
        The two parts.
    test : ArrayTask or None
        The same task measured on a third part, which neither training nor its evaluations have seen.
    epoch : int
        Sequences in an epoch: epoch / batch_size updates see each of them once.
    """

    def __init__(
        self, train: Sequences, held_out: Sequences, test: Sequences | None, loss: Any, at_last: bool, score: str
    ) -> None:
        self.train, self.held_out, self.loss, self._at_last, self._score = train, held_out, loss, at_last, score
        parts = [part for part in (train, held_out, test) if part is not None]
        self.tokens = train.inputs.dtype.kind in "iu"
        self.n_in = 1 + max(int(part.inputs.max()) for part in parts) if self.tokens else train.inputs.shape[1]
        self.n_out = 1 + max(int(part.targets.max()) for part in parts) if self.classes else train.targets.shape[-1]
        self.longest = max(int(part.lengths.max()) for part in parts)
        self.epoch = len(train.lengths)
        what = "step" if not at_last else "sequence"
        self.counts_wrong = score == "wrong"
        self.unit = (
            "part wrong" if self.counts_wrong else f"{'squared error' if loss == 'square' else 'nats'} per {what}"
        )
        self.worst = 1.0 if self.counts_wrong else np.inf
        self.test = None if test is None else ArrayTask(train, test, None, loss, at_last, score)
        if self.test is not None:  # classes, tokens and steps that one part alone may lack
            self.test.n_in, self.test.n_out, self.test.longest = self.n_in, self.n_out, self.longest
        self._orders: dict[Any, NDArray[np.int64]] = {}

    def __repr__(self) -> str:
        tested = "" if self.test is None else f", {len(self.test.held_out.lengths)} to test"
        return f"ArrayTask({self.epoch} sequences, {len(self.held_out.lengths)} held out{tested}, score in {self.unit})"

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_orders": {}}

    def scored_by(self, score: str) -> ArrayTask:
        """Return the same task measured by "loss" or, of classes, by what is "wrong"."""
        check_score(score, self.classes)
        found = ArrayTask(
            self.train,
            self.held_out,
            None if self.test is None else self.test.held_out,
            self.loss,
            self._at_last,
            score,
        )
        found.n_in, found.n_out, found.longest = self.n_in, self.n_out, self.longest
        return found

    def steps(self, length: int) -> int:
        """Return T, the steps of the longest sequence, whatever the length."""
        return self.longest

    def fill(self, batch: Batch, seed: int, purpose: int, replicas: Any, index: int, length: int) -> None:
        """Draw the next sequences of an epoch into the room that `empty` made."""
        part, size = self.train if purpose == counter.TRAIN else self.held_out, batch.weights.shape[2]
        first, count = index * size, len(part.lengths)
        epochs, places = divmod(np.arange(first, first + size), count)
        rows = np.empty((replicas.size, size), np.int64)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            rows[:, here] = self._order(count, seed, purpose, replicas, int(epoch))[:, places[here]]
        for r in range(replicas.size):
            self._write(Batch(*(field[r] for field in batch)), part, rows[r], None)

    def _order(self, count: int, seed: int, purpose: int, replicas: Any, epoch: int) -> NDArray[np.int64]:
        """Return the order of an epoch for each replica, (R, count): that of numbers drawn by counter."""
        key = count, seed, purpose, replicas.tobytes(), epoch
        if key not in self._orders:
            from nbflow.cpu.sample import build_draws_below

            drawn = np.empty((replicas.size, count), np.int64)
            build_draws_below()(drawn, 2**31, seed, purpose, replicas, epoch)
            if len(self._orders) > 3:  # a batch needs two epochs at most, of training and of evaluation
                self._orders.clear()
            self._orders[key] = np.argsort(drawn, axis=1, kind="stable")
        return self._orders[key]

    def _write(self, batch: Batch, part: Sequences, rows: NDArray[np.int64], weight: float | None) -> None:
        """Write sequences into a batch with room for the longest; a weight of None makes a mean of all that count."""
        for field in batch:
            field[...] = 0
        lengths = part.lengths[rows]
        if weight is None:
            weight = 1.0 / (rows.size if self._at_last else int(lengths.sum()))
        for b, (row, steps) in enumerate(zip(rows.tolist(), lengths.tolist(), strict=True)):
            start, counting = part.starts[row], slice(steps - 1 if self._at_last else 0, steps)
            batch.inputs[:steps, b] = part.inputs[start : start + steps]
            batch.targets[:steps, b] = part.targets[start : start + steps] if part.each_step else part.targets[row]
            batch.weights[counting, b] = weight

    def streams(self, batch_size: int) -> Streams:
        """Return the sequences to train on."""
        if self._at_last:
            raise ValueError(
                "carry is True and the loss of this task is at the last step of a sequence; expected one at every "
                "step, for a window without a loss teaches nothing. Make it with loss_at='all'."
            )
        return Streams(self.train.lengths, shuffled=True, write=self._write_windows)

    def _write_windows(self, batch: Batch, rows: Any, starts: Any, window: Any) -> None:
        """Write a window of each of these sequences; the weights make a mean over their steps."""
        part = self.train
        for field in batch:
            field[...] = 0
        for b, (row, start, steps) in enumerate(zip(*map(np.ndarray.tolist, (rows, starts, window)), strict=True)):
            here = slice(part.starts[row] + start, part.starts[row] + start + steps)
            batch.inputs[:steps, b] = part.inputs[here]
            batch.targets[:steps, b] = part.targets[here if part.each_step else row]
            batch.weights[:steps, b] = 1.0 / window.sum()

    def held_out_batches(self, dtype: str) -> Iterator[Batch]:
        """Yield the held-out sequences, those of like length together, so that little is padding."""
        part = self.held_out
        counted = len(part.lengths) if self._at_last else int(part.lengths.sum())
        order = np.argsort(part.lengths, kind="stable")
        for first in range(0, order.size, TOGETHER):
            rows = order[first : first + TOGETHER]
            batch = self.empty(1, int(part.lengths[rows].max()), rows.size, dtype)
            batch = Batch(*(field[0] for field in batch))
            self._write(batch, part, rows, 1.0 / counted)
            yield batch

    def trivial(self, length: int = 1) -> Trivial:
        """Return what knowing the targets to train on, and no input, reaches; `length` is not used.

        Returns
        -------
        Trivial
            score of what is held out, in `unit`; loss of what is trained on. Of classes by how often each comes,
            counted once more than it does; of values by their mean.
        """
        seen, unseen = self._counting(self.train), self._counting(self.held_out)
        if self.classes:
            counts = np.bincount(seen, minlength=self.n_out) + 1
            nats = -np.log(counts / counts.sum())
            score = float((unseen != counts.argmax()).mean() if self.counts_wrong else nats[unseen].mean())
            return Trivial(score, float(nats[seen].mean()))
        mean = seen.mean(axis=0, dtype=np.float64)
        if self.loss == "square":
            return Trivial(*(float(((part - mean) ** 2).sum(axis=1).mean()) for part in (unseen, seen)))
        if self.loss != "bernoulli":
            return Trivial(np.nan, np.nan)  # nobody knows the best guess under another loss
        p = np.clip(mean, 0.5 / len(seen), 1 - 0.5 / len(seen))
        return Trivial(*(float(-(np.log(p) * part + np.log1p(-p) * (1 - part)).sum(axis=1).mean())
                         for part in (unseen, seen)))  # fmt: skip

    def _counting(self, part: Sequences) -> NDArray[Any]:
        """Return the targets that count."""
        if not part.each_step:
            return part.targets if self._at_last else np.repeat(part.targets, part.lengths, axis=0)
        return part.targets[part.starts[1:] - 1] if self._at_last else part.targets

    def identity(self) -> dict[str, Any]:
        """Return what tells it from others, as `json.dumps` takes it."""
        parts = {"train": self.train, "held_out": self.held_out}
        hashes = {name: _hash(part) for name, part in parts.items()}
        loss = self.loss if isinstance(self.loss, str) else repr(self.loss)
        return {"task": "ArrayTask", "loss": loss, "at_last": self._at_last, "score": self._score} | hashes


def check_score(score: Any, classes: bool) -> str:
    """Return what a score is; only classes are wrong or not."""
    if _check.choice("score", score, SCORES) == "wrong" and not classes:
        raise ValueError(
            "score is 'wrong' and targets are floats; expected 'loss', as no number is simply wrong. Choose it."
        )
    return str(score)


def _hash(part: Sequences) -> str:
    digest = hashlib.sha256(str(part.each_step).encode())
    for array in (part.inputs, part.targets, part.starts):
        digest.update(f"{array.shape}{array.dtype.str}".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def part_wrong(y: Floats, batch: Batch) -> float:
    """Return the weight of the steps at which the largest of the outputs (T, B, M) is not the class, or one is NaN."""
    right = (y.argmax(axis=-1) == batch.targets) & np.isfinite(y).all(axis=-1)
    return float(batch.weights[~right].sum(dtype=np.float64))
