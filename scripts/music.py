"""Train a recurrent network to predict the next frame of polyphonic music, and compare it with published results.

The file of piano rolls (JSON or MATLAB 5, as nbflow.data.read_piano_rolls takes them) holds train, valid and test
pieces. The measure is the negative log-likelihood in nats per frame: binary cross-entropy summed over the 88 notes,
averaged over all frames of a set, each piece whole and from a zero state. Training stops when the validation loss has
not improved for some epochs; the parameters of its best epoch, and no others, are measured on the test set, once. At
the end there are a table, a learning curve, every number and setting as JSON, and the best parameters. Ctrl-C ends
early and reports the best epoch so far.

Two recipes set the defaults, and every option overrides its own. `paper` (the default) is that of Pascanu, Mikolov,
Bengio 2013: 300 sigmoid units (they took 400 for MuseData: --hidden 400), plain SGD on subsequences of 200 frames, lr
1.0 halved when the validation loss rises, norm clipping at 8, and the flow penalty Omega with weight 0.5/t in epoch t.
Differs from it, or chooses where it says nothing: batches of 10 subsequences; the loss a mean over their frames; the
validation loss counts as risen after 5 epochs without a better one, for a single epoch is noisy; when training ends.
`adam` is today's habit: 200 tanh units in batches of 20, clipping at 1, no Omega.

Usage: python scripts/music.py --data jsb-chorales-quarter.json
       python scripts/music.py --data Nottingham.mat --recipe adam --cell relu
       python scripts/music.py --recipe adam --help      (shows the defaults of that recipe)
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import tyro
from numpy.typing import NDArray
from reporting import QUIET_SECONDS, console_here, machine, plain, write
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

import nbflow as nf
from nbflow import plot
from nbflow.data import PianoRolls, evaluation_batches, piano_roll_batches, read_piano_rolls

NOTES = 88
EVALUATION_BATCH = 64
SPLITS = ("train", "valid", "test")


if TYPE_CHECKING:
    Cell: TypeAlias = str
    Init: TypeAlias = str
    Optimizer: TypeAlias = str
    Rule: TypeAlias = str
    Penalty: TypeAlias = str
else:  # the names of the files in each package of nbflow
    Cell, Init, Optimizer = (Literal[nf.names(package)] for package in ("cells", "inits", "optimizers"))
    Rule, Penalty = (Literal[(*nf.names(package), "none")] for package in ("clips", "flows"))


# Penalties of the gain; they are the ones that are reduced over steps.
GAINS = ("norm", "squared", "log")


@dataclass(frozen=True)
class Options:
    """What is trained, how, and where the results go."""

    data: Path
    """The file of piano rolls."""
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


RECIPES: dict[str, dict[str, Any]] = {
    "paper": {},
    "adam": {"cell": "tanh", "hidden": 200, "init": "glorot", "optimizer": "adam", "lr": 0.001, "halve_after": 0,
             "batch_size": 20, "threshold": 1.0, "penalty": "none"},
}  # fmt: skip


@dataclass(frozen=True)
class Published:
    """Other people's results on a set, test nats per frame.

    Attributes
    ----------
    title : str
    goal : float or None
        What this script is to stay under.
    span : tuple of two floats, or None
        Plain RNNs in several papers, from the best to the worst.
    pascanu : tuple of floats
        Pascanu, Mikolov, Bengio 2013, table 1: SGD, with clipping, with clipping and Omega.
    """

    title: str
    goal: float | None = None
    span: tuple[float, float] | None = None
    pascanu: tuple[float, ...] = ()

    def rows(self) -> list[tuple[str, str]]:
        """Return what was trained, and its test loss."""
        found = [("plain RNNs in several papers", "{:.1f} to {:.1f}".format(*self.span))] if self.span else []
        methods = ("SGD", "SGD, clipping", "SGD, clipping, Omega")
        return found + [
            (f"{method} (Pascanu, Mikolov, Bengio 2013)", f"{test:.2f}")
            for method, test in zip(methods, self.pascanu, strict=False)
        ]


# Known by a part of the file's name.
PUBLISHED = {
    "jsb": Published("JSB chorales", goal=8.8, span=(8.7, 9.1)),
    "nottingham": Published("Nottingham", goal=4.0, span=(3.4, 4.5), pascanu=(3.80, 3.48, 3.36)),
    "piano": Published("Piano-midi.de", pascanu=(7.56, 7.53, 7.46)),
    "muse": Published("MuseData", pascanu=(7.11, 7.00, 6.97)),
}


def published(data: Path) -> Published:
    """Return what is known of a set by its file's name."""
    return next((found for part, found in PUBLISHED.items() if part in data.name.lower()), Published(data.stem))


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


# What is trained.


class Measure:
    """Nats per frame of a set of pieces."""

    def __init__(self, net: nf.Network, pieces: Sequence[NDArray[Any]]) -> None:
        self.net = net
        # Sorted by length, so that little of a batch is padding.
        bucket = -(-len(pieces) // EVALUATION_BATCH)
        self.batches = list(evaluation_batches(pieces, EVALUATION_BATCH, dtype=net.dtype, bucket=bucket))
        longest: dict[int, nf.Batch] = {}
        for batch in self.batches:
            steps, size = batch.weights.shape
            if size not in longest or longest[size].weights.shape[0] < steps:
                longest[size] = batch
        self.spaces = {size: nf.workspace(net, batch) for size, batch in longest.items()}

    def __call__(self, theta: NDArray[Any]) -> float:
        losses = (
            nf.gradient(self.net, theta, batch, workspace=self.spaces[batch.weights.shape[1]]).loss
            for batch in self.batches
        )
        return float(sum(losses))


class Training:
    """Batches, schedules, and what happens after every epoch."""

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
        self.valid = Measure(self.net, rolls.valid)
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
            reduced = {"reduction": options.reduction} if options.penalty in GAINS else {}
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


def check(options: Options) -> None:
    """Refuse what would end in nonsense; the rest is refused by nbflow."""
    for name in ("length", "batch_size", "patience", "max_epochs"):
        if getattr(options, name) < 1:
            raise ValueError(f"{name} is {getattr(options, name)}; expected at least 1. Give a larger one.")
    if not options.max_minutes > 0:
        raise ValueError(f"max_minutes is {options.max_minutes:g}; expected a number above 0. Give a larger one.")


def experiment(options: Options, rolls: PianoRolls, console: Console) -> Result:
    """Train, then measure the best epoch on the test set."""
    with display(options, console) as show:
        training = Training(options, rolls, show)
        result = training.go()
    # What knowing how often each note sounds in the training set reaches, and nothing of what came before.
    result.by_frequency = {part: rolls.task(part).trivial().error for part in SPLITS[1:]}
    if result.epochs and math.isfinite(result.best_valid):
        result.test = Measure(training.net, rolls.test)(result.theta)
    return result


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


def about(options: Options) -> str:
    """Say in a line what is trained."""
    clip = "no clipping" if options.rule == "none" else f"clipped to {options.threshold:g} ({options.rule})"
    omega = "no Omega"
    if options.penalty != "none":
        omega = f"Omega ({options.penalty}) times {options.alpha:g}{'/epoch' * options.decay}"
    return (
        f"{options.hidden} {options.cell} units ({options.init}), {options.optimizer}, lr {options.lr:g}"
        f"{' halved' * bool(options.halve_after)}, batches of {options.batch_size} x {options.length}, {clip}, {omega}"
    )


# What is seen at the end.


def table(options: Options, result: Result) -> Table:
    """Return this result and the published ones."""
    known = published(options.data)
    found = Table(title=f"{known.title}: nats per frame, lower is better", title_justify="left")
    found.add_column("network")
    found.add_column("valid", justify="right")
    found.add_column("test", justify="right")
    found.add_row(f"this run: {options.hidden} {options.cell} units, best epoch {result.best_epoch}",
                  f"{result.best_valid:.3f}", f"{result.test:.3f}", style="bold", end_section=True)  # fmt: skip
    if result.by_frequency:
        found.add_row("every note by its frequency alone", *(f"{result.by_frequency[part]:.3f}" for part in SPLITS[1:]))
    for network, test in known.rows():
        found.add_row(f"other people's: {network}", "", test)
    return found


def verdict(options: Options, result: Result) -> str:
    """Say what was reached, and how long it took."""
    goal = published(options.data).goal
    words = (
        f"Test loss {result.test:.3f} nats per frame at the best validation epoch, {result.best_epoch} of "
        f"{result.epochs}, in {result.seconds:.0f} s ({result.updates:,} updates, {result.rate:.0f} a second)."
    )
    if goal is None:
        return words
    return f"{words} The goal for this set, under {goal:g}, is {'reached' if result.test < goal else 'NOT reached'}."


def picture(options: Options, result: Result) -> Any:
    """Draw losses, gradient norm and learning rate over epochs."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    rows, known = result.history, published(options.data)
    with rc_context(plot.STYLE):
        found = Figure(figsize=(8.5, 8), dpi=130, layout="constrained")
        losses, norm, lr = found.subplots(3, 1, sharex=True, height_ratios=(3, 1, 1))
        found.suptitle(f"{known.title}: predicting the next frame\n", x=0.01, ha="left", fontsize=14, fontweight="bold")
        found.text(0.01, 0.957, about(options), fontsize=8.5, color=plot.FAINT, va="top")
        _draw_losses(losses, known, result)
        _draw(norm, rows["epoch"], rows["norm"], "gradient norm,\nmean of the epoch", plot.COLOURS[2])
        if options.rule == "norm":
            norm.axhline(options.threshold, color=plot.INK, linewidth=0.9, linestyle=(0, (4, 3)))
            norm.text(1, options.threshold, f"clipped to {options.threshold:g}", fontsize=8.5, ha="right",
                      va="bottom", transform=norm.get_yaxis_transform())  # fmt: skip
        _draw(lr, rows["epoch"], rows["lr"], "learning rate", plot.COLOURS[3], drawstyle="steps-mid")
        lr.set_xlabel("epoch")
        for axes in (losses, norm, lr):
            axes.margins(x=0.02)
            axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
            axes.set_axisbelow(True)
    return found


def _draw(axes: Any, epochs: Sequence[int], values: Sequence[float], label: str, colour: str, **more: Any) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    # A mark for an epoch that has no neighbours.
    axes.plot(epochs, values, color=colour, linewidth=1.6, marker="o" if len(epochs) == 1 else "", **more)
    axes.set_yscale("log")
    axes.set_ylabel(label)
    axes.margins(y=0.2)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def _draw_losses(axes: Any, known: Published, result: Result) -> None:
    rows, marker = result.history, "o" if result.epochs == 1 else ""
    axes.plot(rows["epoch"], rows["loss"], color=plot.COLOURS[1], label="train, while it learns", marker=marker)
    axes.plot(rows["epoch"], rows["valid"], color=plot.COLOURS[0], linewidth=2, label="valid", marker=marker)
    axes.axvline(result.best_epoch, color=plot.FAINT, linewidth=0.9, linestyle=(0, (4, 3)))
    axes.plot(result.best_epoch, result.test, "*", color=plot.INK, markersize=12, zorder=5,
              label=f"test at the best valid epoch: {result.test:.3f}")  # fmt: skip
    if known.span:
        label = "{:.1f} to {:.1f}: test loss of plain RNNs in several papers".format(*known.span)
        axes.axhspan(*known.span, color=plot.FAINT, alpha=0.15, linewidth=0, label=label, zorder=0)
    low = min(*rows["loss"], *rows["valid"], result.test)
    # The first epochs, from 61 nats down, would flatten all that follows.
    axes.set_ylim(low - 0.15, max(result.test + 0.3, low + 2.5))
    axes.set_ylabel("loss (nats per frame)")
    axes.legend(loc="upper right", framealpha=0.9, edgecolor="white")


def document(options: Options, rolls: PianoRolls, result: Result) -> dict[str, Any]:
    """Return every setting and every number as JSON takes it."""
    sizes = {name: {"pieces": len(part), "frames": sum(map(len, part))}
             for name, part in zip(SPLITS, rolls, strict=True)}  # fmt: skip
    found = {
        "options": asdict(options) | {"data": options.data.name},
        "data": {"sha256": hashlib.sha256(options.data.read_bytes()).hexdigest(), **sizes},
        "machine": machine(),
        "result": {
            "unit": "nats per frame", "best_epoch": result.best_epoch, "valid": result.best_valid, "test": result.test,
            "by_frequency": result.by_frequency,
            "epochs": result.epochs, "updates": result.updates, "seconds": result.seconds, "ended": result.ended,
        },
        "history": result.history,
    }  # fmt: skip
    return {key: plain(value) for key, value in found.items()}


def write_parameters(path: Path, options: Options, result: Result) -> Path:
    """Write the best parameters and what is needed to use them, beside `path`, and rename the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.stem}.{os.getpid()}.npz")
    try:
        np.savez(beside, theta=result.theta, cell=options.cell, n_in=NOTES, n_hidden=options.hidden, n_out=NOTES,
                 loss="bernoulli", dtype=options.dtype, best_epoch=result.best_epoch)  # fmt: skip
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return path


def report(options: Options, rolls: PianoRolls, result: Result, console: Console) -> None:
    """Print the table, write the JSON and the parameters, draw the picture."""
    if result.interrupted:
        console.print("Stopped early; this is the best epoch so far.", style="bold yellow")
    else:
        console.print(f"Ended: {result.ended}.", highlight=False)
    console.print(table(options, result))
    console.print(verdict(options, result), highlight=False, soft_wrap=True)
    path = options.out / options.stem
    text = json.dumps(document(options, rolls, result), allow_nan=False)
    files = {
        "numbers": write(path.with_name(f"{path.name}.json"), text),
        "parameters": write_parameters(path.with_name(f"{path.name}.npz"), options, result),
        "picture": plot.save(picture(options, result), path.with_name(f"{path.name}.png")),
    }
    for what, file in files.items():
        console.print(f"{what}: {file}", soft_wrap=True, highlight=False)


def parse(arguments: Sequence[str] | None) -> Options:
    """Read the command line; the recipe named in it decides the defaults of everything else."""
    scout = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    scout.add_argument("--recipe", default="paper")
    recipe = RECIPES.get(scout.parse_known_args(arguments)[0].recipe, {})
    default = replace(Options(data=tyro.MISSING), **recipe)
    return tyro.cli(Options, args=arguments, default=default, description=__doc__)


def run(options: Options, console: Console) -> int:
    """Train and report; return the exit code."""
    try:
        check(options)
        rolls = read_piano_rolls(options.data)
        console.print(f"{options.data.name}: {about(options)}", highlight=False, soft_wrap=True)
        result = experiment(options, rolls, console)
    except (OSError, TypeError, ValueError, NotImplementedError, FloatingPointError) as error:
        console.print(f"error: {error}", style="bold red", soft_wrap=True, highlight=False, markup=False)
        return 2
    if not math.isfinite(result.test):
        reason = "before the first epoch was done" if result.interrupted else "no epoch had a finite validation loss"
        console.print(f"Stopped: {reason}. Nothing is written.", style="bold yellow")
        return 1
    report(options, rolls, result, console)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    try:
        return run(options, console_here())
    except KeyboardInterrupt:  # before or after training
        return 130


if __name__ == "__main__":
    sys.exit(main())
