"""Train a recurrent network to predict the next frame of polyphonic music, and compare it with published results.

The piano rolls, a file or a folder as nbflow.data.read_piano_rolls takes them, have train, valid and test pieces, or
are drawn into three parts. The measure is the negative log-likelihood in nats per frame: binary cross-entropy summed
over the 88 notes, averaged over all frames of a set, each piece whole and from a zero state. Training stops when the
validation loss has not improved for some epochs; the parameters of its best epoch, and no others, are measured on the
test set, once. At the end there are a table, a learning curve, every number and setting as JSON, and the best
parameters. Ctrl-C ends early and reports the best epoch so far.

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
import io
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from music_accuracy import expected_accuracy
from music_pictures import about, picture
from music_published import published
from music_training import NOTES, Options, Result, Training
from rich.console import Console
from rich.table import Table

import nbflow as nf
from nbflow.data import read_piano_rolls
from nbflow.experiments.console import begin, check_numbers, document, headed, keep, progress, tell, uninterrupted
from nbflow.storage.compact import acted

SPLITS = ("train", "valid", "test")

RECIPES: dict[str, dict[str, Any]] = {
    "paper": {},
    "adam": {"cell": "tanh", "hidden": 200, "init": "glorot", "optimizer": "adam", "lr": 0.001, "halve_after": 0,
             "batch_size": 20, "threshold": 1.0, "penalty": "none"},
}  # fmt: skip


def check(options: Options) -> None:
    """Refuse what would end in nonsense; the rest is refused by nbflow."""
    check_numbers(options, least_1="length batch_size patience max_epochs")
    if not options.max_minutes > 0:
        raise ValueError(f"max_minutes is {options.max_minutes:g}; expected a number above 0. Give a larger one.")


def work(options: Options, console: Console, found: Result) -> None:
    """Train, then measure the best epoch on the test set, also after a Ctrl-C."""
    check(options)
    rolls = read_piano_rolls(options.data, step=options.step or None)
    tell(console, f"{options.data.name}: {about(options)}")
    found.frames = {name: [len(piece) for piece in part] for name, part in zip(SPLITS, rolls, strict=True)}
    tasks = {part: rolls.task(part) for part in SPLITS[1:]}
    # What knowing how often each note sounds in the training set reaches, and nothing of what came before.
    found.data = tasks["valid"].identity() | {"test": tasks["test"].identity()["held_out"]}
    found.by_frequency = {part: task.trivial().score for part, task in tasks.items()}
    with progress(console) as show:
        training = Training(options, rolls, show, found)
        run = training.go()
    if found:
        found.test = nf.evaluate(training.net, found.theta, tasks["test"])
        found.accuracy = {part: expected_accuracy(training.net, found.theta, getattr(rolls, part))
                          for part in SPLITS[1:]}  # fmt: skip
    uninterrupted(run)


# What is seen at the end.


def table(options: Options, result: Result) -> Table:
    """Return this result and the published ones."""
    known = published(result.frames, options.data.stem)
    found = headed(f"{known.title}: nats per frame, lower is better", "network", "valid", "test")
    found.add_row(f"this run: {options.hidden} {options.cell} units, best epoch {result.best_epoch}",
                  f"{result.best_valid:.3f}", f"{result.test:.3f}", style="bold", end_section=True)  # fmt: skip
    if result.by_frequency:
        found.add_row("every note by its frequency alone", *(f"{result.by_frequency[part]:.3f}" for part in SPLITS[1:]))
    for network, test in known.rows():
        found.add_row(f"other people's: {network}", "", test)
    return found


def verdict(options: Options, result: Result) -> str:
    """Say what was reached, and how long it took."""
    goal = published(result.frames, options.data.stem).goal
    part = acted({**result.history, "update": result.history.get("update", [])})
    clipped = f" The clip acted on {part * result.updates:,.0f} of them." if part is not None else ""
    seen = result.accuracy.get("test")
    accuracy = "" if seen is None else f" Expected accuracy {100 * seen:.1f} %."
    words = (
        f"Test loss {result.test:.3f} nats per frame at the best validation epoch, {result.best_epoch} of "
        f"{result.epochs}, in {result.seconds:.0f} s ({result.updates:,} updates, {result.rate:.0f} a second)."
        f"{clipped}{accuracy}"
    )
    if goal is None:
        return words
    return f"{words} The goal for this set, under {goal:g}, is {'reached' if result.test < goal else 'NOT reached'}."


def numbers(options: Options, result: Result) -> dict[str, Any]:
    """Return every setting and every number."""
    sizes = {name: {"pieces": len(part), "frames": sum(part)} for name, part in result.frames.items()}
    found = {
        "unit": "nats per frame", "best_epoch": result.best_epoch, "valid": result.best_valid, "test": result.test,
        "accuracy": result.accuracy, "by_frequency": result.by_frequency, "epochs": result.epochs,
        "updates": result.updates, "seconds": result.seconds, "ended": result.ended, "clipped": acted(result.history),
    }  # fmt: skip
    data = {"sha256": digest(options, result), **sizes}
    return document(options, data=data, result=found, history=result.history)


def digest(options: Options, result: Result) -> str:
    """Return the sum of the file, or of what is in all files of a folder."""
    data = json.dumps(result.data).encode() if options.data.is_dir() else options.data.read_bytes()
    return hashlib.sha256(data).hexdigest()


def parameters(options: Options, result: Result) -> bytes:
    """Return the best parameters, and what is needed to use them, as `numpy.load` reads them."""
    file = io.BytesIO()
    np.savez(file, theta=result.theta, cell=options.cell, n_in=NOTES, n_hidden=options.hidden, n_out=NOTES,
             loss="bernoulli", dtype=options.dtype, best_epoch=result.best_epoch)  # fmt: skip
    return file.getvalue()


def report(options: Options, result: Result, console: Console) -> list[Path]:
    """Print the table, write the JSON and the parameters, draw the picture."""
    tell(console, f"Ended: {result.ended}.")
    console.print(table(options, result))
    tell(console, verdict(options, result))
    stem, drawn = options.out / options.stem, {"": picture(options, result)}
    return keep(console, stem, numbers(options, result), drawn, npz=parameters(options, result))


def parse(arguments: Sequence[str] | None) -> Options:
    """Read the command line; the recipe named in it decides the defaults of everything else."""
    scout = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    scout.add_argument("--recipe", default="paper")
    recipe = RECIPES.get(scout.parse_known_args(arguments)[0].recipe, {})
    default = replace(Options(data=tyro.MISSING), **recipe)
    return tyro.cli(Options, args=arguments, default=default, description=__doc__)


def main(arguments: Sequence[str] | None = None) -> int:
    return begin(work, report, parse(arguments), Result())


if __name__ == "__main__":
    sys.exit(main())
