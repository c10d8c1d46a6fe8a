"""The training of scripts/music.py: passes through all pieces, epoch by epoch, and what is seen of it on the way."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from reporting import QUIET_SECONDS
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

import nbflow as nf
from nbflow.data import PianoRolls, piano_roll_batches

if TYPE_CHECKING:
    from music import Options

NOTES = 88
# Penalties of the gain; they are the ones that are reduced over steps.
GAINS = ("norm", "squared", "log")


@dataclass
class Result:
    """What training has done so far."""

    theta: NDArray[Any]
    best_epoch: int = 0
    best_valid: float = math.inf
    test: float = math.nan
    by_frequency: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    updates: int = 0
    interrupted: bool = False
    ended: str = "stopped by Ctrl-C"
    history: dict[str, list[Any]] = field(default_factory=lambda: {"epoch": [], "valid": []})

    @property
    def epochs(self) -> int:
        return len(self.history["epoch"])

    @property
    def rate(self) -> float:
        """Updates a second, the measurements between epochs included."""
        return self.updates / self.seconds if self.seconds else 0.0


class Training:
    """Batches, schedules, and what happens after every epoch.

    An epoch is a pass in which every subsequence comes once, as in the paper; the task of the pieces, whose batches are
    drawn with replacement, is what is measured on.
    """

    def __init__(self, options: Options, rolls: PianoRolls, show: Callable[[Result, int, int], None]) -> None:
        self.options, self.pieces, self.show = options, rolls.train, show
        self.net = nf.Network(options.cell, n_in=NOTES, n_hidden=options.hidden, n_out=NOTES, loss="bernoulli",
                              dtype=options.dtype)  # fmt: skip
        self.theta = nf.init(self.net, options.init, rng=options.seed)
        self.rng = np.random.default_rng([options.seed, 1])
        self.batches = self.shuffled()
        pieces = sum(math.ceil(len(piece) / options.length) for piece in rolls.train)
        self.updates_an_epoch = math.ceil(pieces / options.batch_size)
        self.lr = options.lr
        # The last validation loss that counted as better, and the epochs since then.
        self.mark, self.waited = math.inf, 0
        self.held_out = rolls.task("valid")
        self.result = Result(self.theta)
        self.started = time.perf_counter()

    def shuffled(self) -> Iterator[nf.Batch]:
        """Return the batches of an epoch, in an order of its own."""
        options = self.options
        return piano_roll_batches(self.pieces, options.batch_size, options.length, dtype=options.dtype, rng=self.rng)

    def source(self, update: int) -> nf.Batch:
        """Return the batch of an update, counted from 0."""
        if update and update % self.updates_an_epoch == 0:
            self.batches = self.shuffled()
        self.result.updates, self.result.seconds = update, time.perf_counter() - self.started
        self.show(self.result, update % self.updates_an_epoch, self.updates_an_epoch)
        return next(self.batches)

    def valid(self, theta: NDArray[Any]) -> float:
        """Return the validation loss in nats per frame."""
        return float(nf.evaluate(self.net, theta, self.held_out))

    def alpha(self, update: int) -> float:
        """Return the weight of Omega at an update."""
        return self.options.alpha / (1 + update // self.updates_an_epoch if self.options.decay else 1)

    def recipe(self) -> nf.Recipe:
        options = self.options
        # Without clipping the threshold is infinite: such a clip changes nothing, and reports the norm.
        clip = nf.Clip("norm", math.inf, nonfinite="keep")
        if options.rule != "none":
            clip = nf.Clip(options.rule, options.threshold, nonfinite=options.nonfinite)
        flow = None
        if options.penalty != "none":
            reduced: dict[str, Any] = {"reduction": options.reduction} if options.penalty in GAINS else {}
            flow = nf.Flow(options.penalty, alpha=self.alpha, **reduced)
        return nf.Recipe(
            optimizer=options.optimizer, lr=lambda update: self.lr, clip=clip, flow=flow,
            batch_size=options.batch_size, max_updates=options.max_epochs * self.updates_an_epoch,
            record_every=self.updates_an_epoch,
        )  # fmt: skip

    def after_epoch(self, run: nf.Run) -> bool:
        """Measure, keep what is best, halve the learning rate; return whether to end."""
        valid, result = self.valid(run.theta), self.result
        rows = result.history
        for name, values in run.history.items():
            rows.setdefault(name, []).append(values[-1])
        rows["epoch"].append(result.epochs + 1)
        rows["valid"].append(valid)
        if valid < result.best_valid:
            result.best_valid, result.best_epoch, result.theta = valid, result.epochs, run.theta.copy()
        self.waited += 1
        if valid < self.mark - self.options.min_gain:
            self.mark, self.waited = valid, 0
        if self.options.halve_after and self.waited and self.waited % self.options.halve_after == 0:
            self.lr /= 2
        result.updates, result.seconds = run.updates, time.perf_counter() - self.started
        return self.over()

    def over(self) -> bool:
        """Say whether to end, and why."""
        options, result = self.options, self.result
        ends = {
            f"no better validation loss for {options.patience} epochs": self.waited >= options.patience,
            f"{options.max_minutes:g} minutes are over": result.seconds >= 60 * options.max_minutes,
            f"all {options.max_epochs} epochs are done": result.epochs >= options.max_epochs,
        }
        why = [reason for reason, true in ends.items() if true]
        result.ended = why[0] if why else result.ended
        return bool(why)

    def go(self) -> Result:
        run = nf.train(self.net, self.theta, self.source, self.recipe(), seed=self.options.seed,
                       callbacks=[self.after_epoch])  # fmt: skip
        self.result.interrupted = run.interrupted
        self.result.updates, self.result.seconds = run.updates, time.perf_counter() - self.started
        return self.result


# What is seen while it trains.


def state(result: Result) -> str:
    """Say in few words how training is doing."""
    if not result.epochs:
        return f"first epoch  {result.rate:,.0f} updates/s"
    last = {name: values[-1] for name, values in result.history.items()}
    return (
        f"epoch {last['epoch']}  train {last['loss']:.3f}  valid {last['valid']:.3f}  best {result.best_valid:.3f} "
        f"({result.best_epoch})  lr {last['lr']:.3g}  {result.rate:,.0f} updates/s"
    )


@contextmanager
def display(options: Options, console: Console) -> Iterator[Callable[[Result, int, int], None]]:
    """Give a function that shows how far training is: a bar in a terminal, else a line now and then."""
    if not console.is_terminal:
        yield Lines(console)
        return
    columns = (TextColumn("updates"), MofNCompleteColumn(), BarColumn(16), TextColumn("{task.description}"))
    with Progress(*columns, console=console, refresh_per_second=5) as bars:
        task = bars.add_task("compiling kernels; they are kept on disk for the next time", total=None)
        latest = 0.0

        def show(result: Result, done: int, total: int) -> None:
            nonlocal latest
            if time.perf_counter() - latest > 0.1:
                latest = time.perf_counter()
                words = state(result) if result.updates else bars.tasks[task].description
                bars.update(task, completed=done, total=total, description=words)

        yield show


class Lines:
    """A line every some seconds."""

    def __init__(self, console: Console) -> None:
        self.console, self.last = console, time.perf_counter()

    def __call__(self, result: Result, done: int, total: int) -> None:
        if time.perf_counter() - self.last >= QUIET_SECONDS and result.epochs:
            self.last = time.perf_counter()
            self.console.print(f"{result.seconds:.0f} s  {state(result)}", highlight=False, soft_wrap=True)
