"""A user's text or music as a task: `nbflow.train` draws windows of one part of it and is measured on another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nbflow import counter
from nbflow.data._next_character import NextCharacter, hash_of
from nbflow.data.roll_batches import checked_pieces, evaluation_batches, spans_of, write_spans
from nbflow.data.sampler import DataTask, Trivial
from nbflow.data.streams import Streams
from nbflow.data.text_streams import Tokens, text_batches, token_line
from nbflow.records import Batch

# Streams in which a held-out text is read side by side, fewer if each would be shorter than some steps; and the steps
# between two looks at the state, which is carried over.
STREAMS, SHORTEST_STREAM, STRETCH = 64, 200, 100
# Pieces of music in one pass.
PIECES = 64


class TextTask(NextCharacter):
    """Predict the next character: the characters of any text as a task.

    A sequence is a window of L characters and the one after each, from anywhere in the text, all places being equally
    likely (but for a relative L/n at both ends, and a part in 2**32/n of rounding), and its state begins at zero:
    truncated BPTT through random windows. The loss of a batch is a mean over its characters, in nats.

    With `Recipe(carry=True)` it is a walk through the text with the state carried over: B streams side by side, as
    `text_batches` lays them out, the same for every seed and replica. An epoch ends where they do, and the next one
    begins there from states of zeros; the last (n - 1) % B characters are left out.

    Measured is all that is held out, in bits per character: read in at most 64 streams side by side, each from a state
    of zeros and then without a break. The last (n - 1) % streams characters are left out.

    Parameters
    ----------
    train, held_out : Text
        Two parts with one vocabulary, as from `Text.split`. `text.task()` makes it of one text.

    Raises
    ------
    TypeError, ValueError
        If they are no such texts, or too short to predict a character.

    Examples
    --------
    >>> import numpy as np, nbflow as nf
    >>> text = nf.data.Text(np.arange(1000, dtype=np.int32) % 5, tuple("abcde"))
    >>> task = text.task(held_out=0.2)
    >>> net = nf.Network("tanh", task.n_in, 10, task.n_out, loss=task.loss)
    >>> theta = nf.init(net, "orthogonal", rng=0)
    >>> recipe = nf.Recipe(lr=0.5, lengths=20, max_updates=100, evaluate_every=100)
    >>> run = nf.train(net, theta, task, recipe)
    >>> len(run.evaluations["score"]), run.evaluations["score"][-1] < task.trivial().score, run.unit
    (1, True, 'bits per character')
    """

    carries = True
    train: Tokens
    held_out: Tokens

    def __init__(self, train: Tokens, held_out: Tokens) -> None:
        for name, text in (("train", train), ("held_out", held_out)):
            if not isinstance(getattr(text, "vocabulary", None), tuple):
                raise TypeError(f"{name} is a {type(text).__name__}; expected a Text. Read one with read_text.")
            token_line(text.tokens, len(text.vocabulary))
            if text.tokens.size < 2:
                raise ValueError(f"{name} has {text.tokens.size} characters; expected at least 2. Give a longer text.")
        super().__init__(train, held_out, "Split one text.")

    def __repr__(self) -> str:
        return f"TextTask({self.train.tokens.size} characters, {self.held_out.tokens.size} held out)"

    def steps(self, length: int) -> int:
        """Return T, the length; one that the text to train on does not have is refused."""
        return _in_text("train", self.train, length)

    def fill(self, batch: Batch, seed: int, purpose: int, replicas: Any, index: int, length: int) -> None:
        """Draw windows into the room that `empty` made."""
        training = purpose == counter.TRAIN
        text, name = (self.train, "train") if training else (self.held_out, "held_out")
        _in_text(name, text, length)
        tokens = text.tokens
        starts = self._draws(tokens.size - length, batch, seed, purpose, replicas, index)
        places = starts[:, None, :] + np.arange(length)[:, None]
        batch.inputs[...] = tokens[places]
        batch.targets[...] = tokens[places + 1]
        batch.weights[...] = 1 / (length * starts.shape[1])

    def streams(self, batch_size: int) -> Streams:
        """Return the text to train on in so many streams, one behind the other."""
        tokens = self.train.tokens
        steps = (tokens.size - 1) // batch_size
        if steps < 1:
            raise ValueError(
                f"batch_size is {batch_size}, and train has {tokens.size} characters; expected at least one more than "
                f"there are streams. Give a smaller batch_size, or a longer text."
            )

        def write(batch: Batch, streams: Any, starts: Any, window: Any) -> None:
            places = streams * steps + starts + np.arange(window[0])[:, None]  # all streams are of one length
            batch.inputs[...], batch.targets[...] = tokens[places], tokens[places + 1]
            batch.weights[...] = 1 / places.size

        return Streams(np.full(batch_size, steps), shuffled=False, write=write)

    def held_out_batches(self, dtype: str) -> Iterator[Batch]:
        """Yield the held-out text in streams, a stretch of each at a time; the state goes on from one to the next."""
        tokens = self.held_out.tokens
        streams = min(max((tokens.size - 1) // SHORTEST_STREAM, 1), STREAMS)
        predictions = (tokens.size - 1) // streams * streams
        for batch in text_batches(tokens, streams, STRETCH, dtype=dtype):
            yield batch._replace(weights=np.full_like(batch.weights, 1 / predictions))

    def _characters(self) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        return self.train.tokens, self.train.tokens, self.held_out.tokens

    def identity(self) -> dict[str, Any]:
        """Return what tells it from others, as `json.dumps` takes it."""
        return {
            "task": "TextTask", "vocabulary": "".join(self.train.vocabulary),
            "train": hash_of([self.train.tokens]), "held_out": hash_of([self.held_out.tokens]),
        }  # fmt: skip


class PianoRollTask(DataTask):
    """Predict the next frame of music: piano rolls as a task.

    Pieces are cut into subsequences of at most L frames, as by `piano_roll_batches`; a batch draws B of them, all
    equally likely, with replacement. The state begins at zero in each (truncated BPTT), the first input is the true
    frame before, or zeros at the start of a piece. The loss of a batch is a mean over its frames, in nats. T is L, or
    the longest piece where that is shorter.

    With `Recipe(carry=True)` B pieces are read side by side, L frames at a time, the state carried over; where one
    ends, the next of an epoch begins from zeros. An epoch has every piece once, in an order of its own.

    Measured is every piece that is held out, whole, in nats per frame: as `evaluation_batches`.

    Parameters
    ----------
    train, held_out : sequence of (T, N) arrays
        Pieces, as in `PianoRolls`. `rolls.task()` makes it of a set.

    Raises
    ------
    TypeError, ValueError
        If they are no such pieces.

    Examples
    --------
    >>> import nbflow as nf
    >>> scale = np.eye(88, dtype=np.uint8)[39:47]
    >>> task = PianoRollTask(train=[scale, scale[:5]], held_out=[scale[2:]])
    >>> task.sample(seed=0, index=0, batch_size=3, length=5).inputs.shape
    (5, 3, 88)
    """

    loss = "bernoulli"
    tokens = False
    unit = "nats per frame"

    def __init__(self, train: Sequence[NDArray[Any]], held_out: Sequence[NDArray[Any]]) -> None:
        self.train, self.held_out = checked_pieces(train, "train"), checked_pieces(held_out, "held_out")
        self.n_in = self.n_out = self.train[0].shape[1]
        if self.held_out[0].shape[1] != self.n_in:
            raise ValueError(
                f"held_out has pieces of {self.held_out[0].shape[1]} notes; expected {self.n_in}, as train has. Take "
                f"both from one set."
            )
        self.longest = max(len(piece) for piece in (*self.train, *self.held_out))
        self._spans: dict[tuple[bool, int], NDArray[np.int64]] = {}

    def __repr__(self) -> str:
        return f"PianoRollTask({len(self.train)} pieces, {len(self.held_out)} held out)"

    def steps(self, length: int) -> int:
        """Return T: the length, or the longest piece."""
        return min(length, self.longest)

    def fill(self, batch: Batch, seed: int, purpose: int, replicas: Any, index: int, length: int) -> None:
        """Draw subsequences into the room that `empty` made."""
        training = purpose == counter.TRAIN
        pieces = self.train if training else self.held_out
        if (training, length) not in self._spans:
            self._spans[training, length] = spans_of(pieces, length)
        spans = self._spans[training, length]
        for r, rows in enumerate(self._draws(len(spans), batch, seed, purpose, replicas, index)):
            write_spans(Batch(*(part[r] for part in batch)), pieces, spans[rows], None)

    def streams(self, batch_size: int) -> Streams:
        """Return the pieces to train on."""

        def write(batch: Batch, streams: Any, starts: Any, window: Any) -> None:
            write_spans(batch, self.train, np.stack([streams, starts, starts + window], axis=1), None)

        return Streams(np.array([len(piece) for piece in self.train]), shuffled=True, write=write)

    def held_out_batches(self, dtype: str) -> Iterator[Batch]:
        """Yield the held-out pieces, whole; the longest together, so that little is padding."""
        return evaluation_batches(self.held_out, PIECES, dtype=dtype, bucket=-(-len(self.held_out) // PIECES))

    def trivial(self, length: int = 1) -> Trivial:
        """Return what knowing how often each note sounds in the pieces to train on reaches; `length` is not used.

        Returns
        -------
        Trivial
            Nats per frame; score of what is held out, loss of what is trained on. A note is counted half a frame more
            than it sounds, and than it is silent, so that none is impossible.
        """
        train, held_out = np.concatenate(self.train), np.concatenate(self.held_out)
        p = (train.sum(axis=0, dtype=np.float64) + 0.5) / (len(train) + 1)

        def nats(frames: NDArray[Any]) -> float:
            sounding = frames.mean(axis=0, dtype=np.float64)
            return float(-(sounding * np.log(p) + (1 - sounding) * np.log1p(-p)).sum())

        return Trivial(nats(held_out), nats(train))

    def identity(self) -> dict[str, Any]:
        """Return what tells it from others, as `json.dumps` takes it."""
        return {"task": "PianoRollTask", "train": hash_of(self.train), "held_out": hash_of(self.held_out)}


def _in_text(name: str, text: Tokens, length: int) -> int:
    """Return a length for which the text has a window, and a character after it."""
    if length >= text.tokens.size:
        raise ValueError(
            f"length is {length}, and {name} has {text.tokens.size} characters; expected fewer than that. Give a "
            f"shorter length, or a longer text."
        )
    return length
