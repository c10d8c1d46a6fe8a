"""What training draws batches from, and what whoever remembers nothing reaches there."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nbflow import _check, counter
from nbflow._compile import exact_unit
from nbflow._legible import legible
from nbflow._load import load
from nbflow.data.streams import Streams
from nbflow.records import Batch, Unit

if TYPE_CHECKING:
    pass

STREAMS = {"train": counter.TRAIN, "evaluation": counter.EVALUATION}


@legible
class Trivial(NamedTuple):
    """What whoever remembers nothing reaches, each number by the guess that is best for it.

    Attributes
    ----------
    score : float
        In the task's `unit`: the part of sequences that are wrong, 0 to 1; of a user's data, bits or nats of what is
        held out.
    loss : float
        Of a batch: nats (softmax, bernoulli) or squared units (square).

    Examples
    --------
    >>> import nbflow as nf
    >>> nf.load_task("addition").trivial(100)
    Trivial(score=0.36, loss=0.041666666666666664)
    """

    score: float
    loss: float

    @classmethod
    def guessing(cls, values: int, symbols: int = 1, steps: int = 1) -> Trivial:
        """Return it for so many symbols, of so many equally likely values each, among `steps` steps that count.

        Examples
        --------
        >>> Trivial.guessing(4).score, Trivial.guessing(2, symbols=5).score
        (0.75, 0.96875)
        """
        values, symbols, steps = map(int, (values, symbols, steps))
        return cls(1 - 1 / values**symbols, symbols * math.log(values) / steps)


@exact_unit
def once(length: int) -> int:
    """Return how many steps count where only one does."""
    return 1


def _as_long(length: int) -> int:
    return length


def _unknown(length: int) -> Trivial:
    return Trivial(math.nan, math.nan)


class Sampler:
    """What training draws batches from, as pure functions of (seed, replica, index): a `Task`, or a user's data.

    A network's score at it, as `nbflow.evaluate` returns it, is in `unit`; the lower, the better. `worst` is the
    largest number that `solved_below` of a recipe may be, and `solved_below` what it is where the recipe has none.
    """

    n_in: int
    n_out: int
    loss: str
    tokens: bool
    shortest: int
    steps: Unit
    unit: str
    worst: float = math.inf
    solved_below: float | None = None

    @property
    def classes(self) -> bool:
        """Whether a target is a class."""
        return bool(load("losses", self.loss).classes)

    def sample(
        self,
        *,
        seed: int,
        index: int,
        batch_size: int,
        length: int,
        replicas: int | None = None,
        stream: str = "train",
        dtype: str = "float32",
    ) -> Batch:
        """Draw a batch; the same arguments give the same batch, on every machine.

        Parameters
        ----------
        seed : int
            0 to 2**63 - 1.
        index : int
            Which batch, 0 to 2**32 - 1.
        batch_size : int
            B.
        length : int
            L, at least `shortest`.
        replicas : int, optional
            R; replica r is the same for every R, and without R it is replica 0.
        stream : str
            "train", or "evaluation" for sequences that no training has seen.
        dtype : str
            "float32" or "float64".

        Returns
        -------
        Batch
            Weights are equal where a sequence has its loss, and add up to 1: the loss of a batch is a mean over
            sequences, and over their steps where more than one counts.

        Raises
        ------
        TypeError, ValueError
            If an argument makes no sense, or the length is too short.

        Examples
        --------
        >>> import nbflow as nf
        >>> batch = nf.load_task("temporal_order").sample(seed=0, index=0, batch_size=20, length=100)
        >>> batch.inputs.shape, batch.targets[-1, :3], batch.weights.sum().round(3)
        ((100, 20), array([3, 0, 3], dtype=int32), np.float32(1.0))
        """
        seed, index = _check.count("seed", seed, 0), _check.index("index", index)
        batch_size = _check.count("batch_size", batch_size)
        length = _check.count("length", length, self.shortest)
        dtype = _check.float_dtype("dtype", dtype)
        purpose = STREAMS[_check.choice("stream", stream, tuple(STREAMS))]
        count = 1 if replicas is None else _check.count("replicas", replicas)
        self.check(dtype)
        batch = self.empty(count, self.taken(length), batch_size, dtype)
        self.draw(batch, seed, purpose, np.arange(count), index, length)
        return batch if replicas is not None else Batch(*(part[0] for part in batch))

    def empty(self, replicas: int, steps: int, batch_size: int, dtype: str) -> Batch:
        """Return room for a batch, with R in front."""
        lead = (replicas, steps, batch_size)
        inputs = np.empty(lead, np.int32) if self.tokens else np.empty((*lead, self.n_in), dtype)
        targets = np.empty(lead, np.int32) if self.classes else np.empty((*lead, self.n_out), dtype)
        return Batch(inputs, targets, np.empty(lead, dtype))

    def fill(self, batch: Batch, seed: int, purpose: int, replicas: Any, index: int, length: int) -> None:
        """Draw a batch into the room that `empty` made; `replicas` (R,) are the numbers under which each draws."""
        raise NotImplementedError

    @property
    def own(self) -> bool:
        """Whether somebody else than nbflow says what is drawn: then nothing of it is believed."""
        return True

    def check(self, dtype: str) -> None:
        """Refuse a task of which something is not what it says."""
        if self.own:
            from nbflow.data._own import check_fields

            check_fields(self)

    def draw(self, batch: Batch, seed: int, purpose: int, replicas: Any, index: int, length: int) -> None:
        """Fill a batch, and hold what is not nbflow's own to what `nbflow.gradient` asks of a batch."""
        if not self.own:
            return self.fill(batch, seed, purpose, replicas, index, length)
        from nbflow.data._own import check_drawn

        try:
            self.fill(batch, seed, purpose, replicas, index, length)
        except IndexError as error:
            raise ValueError(
                f"{type(self).__name__} looks beyond a tuple or an array as it draws ({error}); expected one that "
                f"stays inside. Look at the places that it looks for."
            ) from error
        check_drawn(self, batch, length)

    def taken(self, length: int) -> int:
        """Return T, the steps that sequences of this length take."""
        return _check.count(f"{type(self).__name__}.steps({length})", self.steps(length))

    def most(self, lengths: tuple[int, int]) -> int:
        """Return the largest T of lengths between two."""
        low, high = lengths
        return self.taken(high) if not self.own else max(self.taken(length) for length in range(low, high + 1))


class DataTask(Sampler):
    """A user's data as a task: `nbflow.arrays`, or `TextTask`, `TextFilesTask` and `PianoRollTask` of `nbflow.data`.

    It goes where a task goes, in `nbflow.train`, `nbflow.evaluate` and `nbflow.clipping_bias`. A batch is a pure
    function of (seed, replica, index), as a synthetic task's: stream "train" draws windows of the part to train on,
    "evaluation" of the part held out. A score, in `Run.evaluations["score"]`, is the mean loss of all that is held out,
    in `unit`. No score is that of a solved task, unless a recipe's `solved_below` says so.

    Attributes
    ----------
    unit : str
        Of a score.
    units_per_nat : float
        How many of them a nat is.
    counts_wrong : bool
        Whether a score is the part of the steps with weight whose class is not the largest output, not a loss.
    carries : bool
        Whether each of `held_out_batches` goes on from the state where the one before ended.
    """

    shortest = 1
    unit: str
    units_per_nat = 1.0
    carries = False
    counts_wrong = False

    def streams(self, batch_size: int) -> Streams | None:
        """Return what a training with `Recipe(carry=True)` reads in so many streams side by side, None for nothing."""
        return None

    def held_out_batches(self, dtype: str) -> Iterator[Batch]:
        """Yield all that is held out; the weights of all batches add up to 1."""
        raise NotImplementedError

    def goes_on(self, batch: int) -> bool:
        """Say whether a batch of `held_out_batches`, counted from 0, goes on from the state where the one before ended.

        Where it does, both have the same sequences. One behind the last is asked for too.
        """
        return batch > 0 and self.carries

    def identity(self) -> dict[str, Any]:
        """Return what tells it from others, as `json.dumps` takes it."""
        raise NotImplementedError

    def _draws(self, count: int, batch: Batch, seed: int, purpose: int, replicas: Any, index: int) -> NDArray[np.int64]:
        """Draw a number below `count` for every replica and sequence, (R, B)."""
        from nbflow.cpu.sample import build_draws_below

        found = np.empty((replicas.size, batch.weights.shape[2]), np.int64)
        build_draws_below()(found, count, seed, purpose, replicas, index)
        return found
