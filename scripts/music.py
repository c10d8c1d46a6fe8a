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
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import tyro
from music_pictures import about, picture
from music_published import published
from music_training import NOTES, Result, Training, display
from reporting import begin, machine, plain, refused, write
from rich.console import Console
from rich.table import Table

import nbflow as nf
from nbflow import plot
from nbflow.data import PianoRolls, read_piano_rolls

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
    tasks = {part: rolls.task(part) for part in SPLITS[1:]}
    # What knowing how often each note sounds in the training set reaches, and nothing of what came before.
    result.by_frequency = {part: task.trivial().score for part, task in tasks.items()}
    if result.epochs and math.isfinite(result.best_valid):
        result.test = nf.evaluate(training.net, result.theta, tasks["test"])
    return result


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
        return refused(console, error)
    if not math.isfinite(result.test):
        reason = "before the first epoch was done" if result.interrupted else "no epoch had a finite validation loss"
        console.print(f"Stopped: {reason}. Nothing is written.", style="bold yellow")
        return 1
    report(options, rolls, result, console)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    return begin(run, parse(arguments))


if __name__ == "__main__":
    sys.exit(main())
