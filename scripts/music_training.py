"""The training of scripts/music.py: passes through all pieces, epoch by epoch, and what is seen of it on the way."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import InitVar, dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from schedules import InverseTime

import nbflow as nf
from nbflow.data import PianoRolls, piano_roll_batches
from nbflow.experiments.console import Show
from nbflow.experiments.methods import omega

NOTES = 88


if TYPE_CHECKING:
    Cell: TypeAlias = str
    Init: TypeAlias = str
    Optimizer: TypeAlias = str
    Rule: TypeAlias = str
    Penalty: TypeAlias = str
else:  # the names of the files in each package of nbflow
    Cell, Init, Optimizer = (Literal[nf.names(package)] for package in ("cells", "inits", "optimizers"))
    Rule, Penalty = (Literal[(*nf.names(package), "none")] for package in ("clips", "flows"))


@dataclass(frozen=True)
class Options:
    """What is trained, how, and where the results go."""

    data: Path
    """Piano rolls: a file, or a folder of them."""
    step: str = ""
    """Of MIDI files: quarter, eighth (the usual one), sixteenth."""
    recipe: Literal["paper", "adam"] = "paper"
    """Which defaults the other options have."""
    cell: Cell = "sigmoid"
    """The recurrent cell."""
    hidden: int = 300
    """H, hidden units."""
    init: Init = "sigmoid"
    """How first weights are drawn."""
    optimizer: Optimizer = "sgd"
    """How a gradient becomes a step."""
    lr: float = 1.0
    """The learning rate, at first."""
    halve_after: int = 5
    """Epochs without a better validation loss after which the learning rate is halved; 0 for never."""
    min_gain: float = 0.002
    """By how many nats per frame the validation loss must fall to count as better, for halving and for patience."""
    batch_size: int = 10
    """B, subsequences in an update."""
    length: int = 200
    """The most frames in a subsequence."""
    rule: Rule = "norm"
    """How a gradient is clipped: norm (scaled as a whole), value (entry by entry) or another file in nbflow/clips."""
    threshold: float = 8.0
    """What a gradient, or the part of it that the rule measures, is clipped to."""
    nonfinite: str = "random"
    """What the clip does with a gradient that has NaN or Inf in it: random, skip, zero, shrink, raise or keep."""
    penalty: Penalty = "squared"
    """How Omega counts a gain r that is not 1: norm (r-1)^2, squared (r^2-1)^2, log (log r)^2; none for no Omega.
    Or another regularizer in nbflow/flows."""
    alpha: float = 0.5
    """The weight of Omega beside the loss, in the first epoch."""
    decay: bool = True
    """Divide alpha by the number of the epoch."""
    reduction: Literal["mean", "sum"] = "mean"
    """Whether Omega is the mean over steps and sequences, or the sum over steps; of norm, squared and log alone."""
    patience: int = 20
    """Epochs without a better validation loss after which training ends; the best of all epochs is kept."""
    max_epochs: int = 1000
    """Epochs after which training ends in any case."""
    max_minutes: float = math.inf
    """Minutes after which training ends in any case, at the end of an epoch."""
    dtype: Literal["float32", "float64"] = "float32"
    """The precision of every number."""
    seed: int = 0
    """Decides first weights and the order of subsequences."""
    out: Path = Path("results")
    """The folder for the picture, the JSON and the parameters."""
    name: str = ""
    """How these files are called; by default music-FILE-RECIPE."""

    @property
    def stem(self) -> str:
        return self.name or f"music-{self.data.stem}-{self.recipe}"


@dataclass
class Result:
    """What training has done so far."""

    theta: Any = None
    best_epoch: int = 0
    best_valid: float = math.inf
    test: float = math.nan
    accuracy: dict[str, float] = field(default_factory=dict)
    by_frequency: dict[str, float] = field(default_factory=dict)
    frames: dict[str, list[int]] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    updates: int = 0
    ended: str = "stopped by Ctrl-C"
    history: dict[str, list[Any]] = field(default_factory=lambda: {"epoch": [], "valid": []})

    def __bool__(self) -> bool:
        """Whether there is an epoch with a finite validation loss."""
        return math.isfinite(self.best_valid)

    @property
    def epochs(self) -> int:
        return len(self.history["epoch"])

    @property
    def rate(self) -> float:
        """Updates a second, the measurements between epochs included."""
        return self.updates / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, eq=False)
class Passes:
    """Batches of passes through all pieces, in which every subsequence comes once, as in the paper.

    The batch of an update follows from its number alone, so that a run that was killed goes on where it was.
    """

    pieces: InitVar[Sequence[NDArray[Any]]]
    data: str
    """What the pieces are known by."""
    batch_size: int
    length: int
    dtype: str
    seed: int

    def __post_init__(self, pieces: Sequence[NDArray[Any]]) -> None:
        """Keep beside the fields what is no part of what it is."""
        spans = sum(math.ceil(len(piece) / self.length) for piece in pieces)
        object.__setattr__(self, "in_a_pass", math.ceil(spans / self.batch_size))
        object.__setattr__(self, "_of", pieces)
        object.__setattr__(self, "_next", (-1, iter(())))

    def __call__(self, update: int) -> nf.Batch:
        """Return the batch of an update, counted from 0."""
        at, batches = self._next  # type: ignore[attr-defined]
        if at != update or update % self.in_a_pass == 0:  # type: ignore[attr-defined]
            epoch, place = divmod(update, self.in_a_pass)  # type: ignore[attr-defined]
            batches = islice(self.shuffled(epoch), place, None)
        object.__setattr__(self, "_next", (update + 1, batches))
        return next(batches)  # type: ignore[no-any-return]

    def shuffled(self, epoch: int) -> Iterator[nf.Batch]:
        """Return the batches of a pass, in an order of its own."""
        rng = np.random.default_rng([self.seed, 1, epoch])
        return piano_roll_batches(self._of, self.batch_size, self.length, dtype=self.dtype, rng=rng)  # type: ignore[attr-defined]


def network(options: Options) -> nf.Network:
    """Return what is trained."""
    return nf.Network(options.cell, n_in=NOTES, n_hidden=options.hidden, n_out=NOTES, loss="bernoulli",
                      dtype=options.dtype)  # fmt: skip


def recipe_of(options: Options, in_a_pass: int) -> nf.Recipe:
    """Return how it is trained, in passes of so many updates."""
    lr: Any = options.lr
    if options.halve_after:
        lr = nf.HalvingRate(lr, patience=options.halve_after, min_delta=options.min_gain)
    # Without clipping the threshold is infinite: such a clip changes nothing, and reports the norm.
    clip = nf.Clip("norm", math.inf, nonfinite="keep")
    if options.rule != "none":
        clip = nf.Clip(options.rule, options.threshold, nonfinite=options.nonfinite)
    alpha: Any = InverseTime(options.alpha, in_a_pass) if options.decay else options.alpha
    flow = None if options.penalty == "none" else omega(options.penalty, alpha, options.reduction)
    return nf.Recipe(
        optimizer=options.optimizer, lr=lr, clip=clip, flow=flow, batch_size=options.batch_size,
        max_updates=options.max_epochs * in_a_pass, record_every=in_a_pass, evaluate_every=in_a_pass,
    )  # fmt: skip


class Training:
    """A run of scripts/music.py: its batches, and what happens after every epoch.

    An epoch is a pass in which every subsequence comes once, as in the paper; the task of the pieces, whose batches are
    drawn with replacement, is what is measured on.
    """

    def __init__(self, options: Options, rolls: PianoRolls, show: Show, result: Result) -> None:
        self.options, self.show, self.result = options, show, result
        self.net = network(options)
        self.theta = nf.init(self.net, options.init, rng=options.seed)
        self.passes = Passes(rolls.train, "", options.batch_size, options.length, options.dtype, options.seed)
        self.updates_an_epoch: int = self.passes.in_a_pass  # type: ignore[attr-defined]
        self.recipe = recipe_of(options, self.updates_an_epoch)
        self.stop = nf.EarlyStopping(options.patience, options.min_gain)
        self.held_out = rolls.task("valid")
        self.started = time.perf_counter()

    def source(self, update: int) -> nf.Batch:
        """Return the batch of an update, counted from 0."""
        self.result.updates, self.result.seconds = update, time.perf_counter() - self.started
        self.show("updates", update % self.updates_an_epoch, self.updates_an_epoch, state(self.result))
        return self.passes(update)

    def valid(self, theta: NDArray[Any]) -> float:
        """Return the validation loss in nats per frame."""
        return float(nf.evaluate(self.net, theta, self.held_out))

    def after_epoch(self, run: nf.Run) -> bool:
        """Note what was measured, and what is best; return whether to end."""
        result = self.result
        rows = result.history
        for name, values in run.history.items():
            rows.setdefault(name, []).append(values[-1])
        rows["epoch"].append(result.epochs + 1)
        rows["valid"].append(run.evaluations["score"][-1])
        if run.best is not None:
            result.theta, result.best_valid = run.best.theta, run.best.score
            result.best_epoch = run.best.update // self.updates_an_epoch
        result.updates, result.seconds = run.updates, time.perf_counter() - self.started
        return self.over(run)

    def over(self, run: nf.Run) -> bool:
        """Say whether to end, and why."""
        options, result = self.options, self.result
        ends = {
            f"no better validation loss for {options.patience} epochs": self.stop(run),
            f"{options.max_minutes:g} minutes are over": result.seconds >= 60 * options.max_minutes,
            f"all {options.max_epochs} epochs are done": result.epochs >= options.max_epochs,
        }
        why = [reason for reason, true in ends.items() if true]
        result.ended = why[0] if why else result.ended
        return bool(why)

    def go(self) -> nf.Run:
        """Train until it is over or Ctrl-C comes; what was done stands in the result."""
        run = nf.train(self.net, self.theta, self.source, self.recipe, seed=self.options.seed, score=self.valid,
                       callbacks=[self.after_epoch])  # fmt: skip
        self.result.updates, self.result.seconds = run.updates, time.perf_counter() - self.started
        return run


def state(result: Result) -> str:
    """Say in few words how training is doing."""
    if not result.epochs:
        return f"first epoch  {result.rate:,.0f} updates/s" if result.updates else "first epoch"
    last = {name: values[-1] for name, values in result.history.items()}
    return (
        f"epoch {last['epoch']}  train {last['loss']:.3f}  valid {last['valid']:.3f}  best {result.best_valid:.3f} "
        f"({result.best_epoch})  lr {last['lr']:.3g}  {result.rate:,.0f} updates/s"
    )
