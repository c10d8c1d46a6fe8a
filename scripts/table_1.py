"""Table 1 of Pascanu, Mikolov, Bengio (2013), the piano rolls: plain SGD, with clipping, with clipping and Omega.

Each set of piano rolls, a file or a folder as nbflow.data.read_piano_rolls takes them, is trained on in the three
columns of the table: sigmoid units, SGD on subsequences of at most 200 frames, one at a time, the learning rate halved
when the validation loss rises, the norm clipped at 8, Omega with the weight alpha / t in epoch t. The learning rate at
first is chosen for each set and column on the validation pieces, by the best of a few epochs with a seed of its own;
the best epoch of each fresh seed is measured: nats per frame, and the expected accuracy, of train, valid and test. The
test pieces choose nothing (design: docs/methods.md).

Sets come one after the other, and seeds of all columns side by side, so that an early end leaves whole columns. Every
run is kept in the store as soon as it is done. Ctrl-C and the same command go on where it was, also after a kill, and
with later code: a line says which code and which processor made it.

Usage: python scripts/table_1.py --data Piano_midi.mat Nottingham.mat
       python scripts/table_1.py --data MuseData.mat --hidden 400     (the units that they took for it)
       python scripts/table_1.py --data Piano_midi.mat Nottingham.mat --report-only
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import table_1_report as reporting
import tuning
import tyro
from generalization import hashed, text_of, theta_of
from music_accuracy import expected_accuracy
from music_published import published
from music_training import Init, Options as Music, Passes, network, recipe_of
from rich.console import Console

import nbflow as nf
from nbflow.data import PianoRolls, read_piano_rolls
from nbflow.data.tasks import PianoRollTask
from nbflow.experiments import machine
from nbflow.experiments.code_version import code_version
from nbflow.experiments.console import Found as Something, begin, check_numbers, compiling, document, keep, tell
from nbflow.experiments.jobs import Job, Watch, done, job, run_all
from nbflow.storage.compact import acted, unpacked
from nbflow.storage.store import Row, Store

SPLITS = ("train", "valid", "test")
# What the columns leave out.
COLUMNS: dict[str, dict[str, Any]] = {
    "plain": {"rule": "none", "penalty": "none"}, "clip": {"penalty": "none"}, "clip+omega": {},
}  # fmt: skip
Column = Literal["plain", "clip", "clip+omega"]
# Seeds from here on choose the learning rate; those below are reported.
TUNING = 1_000
# Of the first seed of this column parameters are kept.
KEPT = "clip+omega"


@dataclass(frozen=True)
class Options:
    """What is trained, on what, and where the results go."""

    data: tuple[Path, ...]
    """Sets of piano rolls, each a file or a folder."""
    columns: tuple[Column, ...] = ("plain", "clip", "clip+omega")
    """Which columns of the table."""
    seeds: int = 3
    """Runs of each column that are reported; 2 or more for an interval."""
    hidden: int = 300
    """H, hidden sigmoid units; 400 were taken for MuseData."""
    init: Init = "glorot"
    """How first weights are drawn; those of the paper are sigmoid, with which validation was worse."""
    lrs: tuple[float, ...] = (0.5, 1.0)
    """Learning rates to begin with; beyond an end of them others follow, each twice or half of the last. A single one
    is taken as it is."""
    tuning_epochs: int = 12
    """Epochs in which learning rates are tried."""
    batch_size: int = 1
    """B, subsequences in an update."""
    length: int = 200
    """The most frames in a subsequence."""
    threshold: float = 8.0
    """What the norm of a gradient is clipped to."""
    alpha: float = 0.5
    """The weight of Omega beside the loss, in the first epoch; in epoch t it is alpha / t."""
    halve_after: int = 3
    """Epochs without a better validation loss after which the learning rate is halved; 0 for never."""
    patience: int = 10
    """Epochs without a better validation loss after which training ends; the best of all epochs is kept."""
    max_epochs: int = 100
    """Epochs after which training ends in any case."""
    workers: int | None = None
    """Local processes, by default one for each core; 1 is this process alone."""
    report_only: bool = False
    """Make tables and pictures from what is in the store, and train nothing."""
    out: Path = Path("results")
    """The folder for store, picture and JSON."""
    name: str = "table_1"
    """How these files are called."""

    @property
    def store(self) -> Store:
        return Store(unpacked(self.out / f"{self.name}.jsonl"))

    def music(self, column: str, lr: float, seed: int) -> Music:
        """Return what a column means to scripts/music.py."""
        return Music(
            Path(), cell="sigmoid", hidden=self.hidden, init=self.init, lr=lr, halve_after=self.halve_after,
            min_gain=0.0, batch_size=self.batch_size, length=self.length, threshold=self.threshold, alpha=self.alpha,
            seed=seed, patience=self.patience, max_epochs=self.tuning_epochs if seed >= TUNING else self.max_epochs,
            **COLUMNS[column],
        )  # fmt: skip


@functools.lru_cache(maxsize=2)
def read(path: Path) -> PianoRolls:
    return read_piano_rolls(path)


@functools.lru_cache(maxsize=8)
def known_by(path: Path) -> str:
    """Return a hash of the pieces of a set."""
    rolls = read(path)
    parts = rolls.task("valid").identity() | {"test": rolls.task("test").identity()["held_out"]}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def title(path: Path) -> str:
    """Return the name of a set, by what is in it."""
    return published(frames(path), path.stem).title


def frames(path: Path) -> dict[str, list[int]]:
    return {name: [len(piece) for piece in part] for name, part in zip(SPLITS, read(path), strict=True)}


# What is run.

# What of a setting makes a run what it is.
SETTING = ("cell", "hidden", "init", "optimizer", "lr", "halve_after", "min_gain", "batch_size", "length", "patience",
           "max_epochs", "dtype", "seed")  # fmt: skip


def setting(options: Options, column: str, lr: float, seed: int) -> dict[str, Any]:
    """Return all that a run is, but its data."""
    music = options.music(column, lr, seed)
    names = list(SETTING)
    names += [] if music.rule == "none" else ["rule", "threshold", "nonfinite"]
    names += [] if music.penalty == "none" else ["penalty", "alpha", "decay", "reduction"]
    return {name: getattr(music, name) for name in names}


def training(options: Options, path: Path, column: str, lr: float, seed: int) -> Job:
    """Return a run; it is known by what it is, and not by the code that makes it."""
    key = hashed([known_by(path), column, setting(options, column, lr, seed)])
    music = options.music(column, lr, seed)
    pieces = sum(math.ceil(len(piece) / music.length) for piece in read(path).train)
    total = music.max_epochs * math.ceil(pieces / music.batch_size)
    return job(options.store, key, f"{title(path)}, {column}", total, (options, path, column, lr, seed))


def learn(job: Job, watch: Watch) -> Row | None:
    """Train a network, or go on with it, and measure its best epoch on every part; called in a worker."""
    options, path, column, lr, seed = job.what
    music, rolls = options.music(column, lr, seed), read(path)
    net = network(music)
    passes = Passes(rolls.train, known_by(path), music.batch_size, music.length, music.dtype, seed)
    every: int = passes.in_a_pass  # type: ignore[attr-defined]
    stop = nf.EarlyStopping(music.patience)
    before, began = _updates_of(job.path), time.process_time()
    recipe = recipe_of(music, every)
    run = nf.train(
        net, nf.init(net, music.init, rng=seed), passes, recipe, seed=seed, callbacks=[watch, stop],
        score=functools.partial(nf.evaluate, net, task=rolls.task("valid")), checkpoint=job.path,
    )  # fmt: skip
    # Seconds of a core, whoever else used it: of a run that went on those of the last stretch, for all updates.
    spent = (time.process_time() - began) * run.updates / max(run.updates - before, 1)
    if run.interrupted or not (run.updates == recipe.max_updates or stop(run)):
        return None
    seen = {"train": PianoRollTask(rolls.train, rolls.train), "valid": rolls.task("valid"), "test": rolls.task("test")}
    best, nats, accuracy, frequency = run.best, {}, {}, {}
    if best is not None and seed < TUNING:
        nats = {part: nf.evaluate(net, best.theta, task) for part, task in seen.items()}
        accuracy = {part: expected_accuracy(net, best.theta, getattr(rolls, part)) for part in SPLITS}
        frequency = {part: task.trivial().score for part, task in seen.items()}
    acts = acted(run.history)
    return {
        "kind": "run", "data": title(path), "file": path.name, "data_sha256": known_by(path), "column": column,
        "seed": seed, "setting": setting(options, column, lr, seed), "lr": lr,
        "code": code_version(), "processor": machine.processor(),
        "parameters": net.size, "frames": {name: sum(part) for name, part in frames(path).items()},
        "updates": run.updates, "epochs": run.updates // every,
        "best_epoch": None if best is None else best.update // every,
        "valid": math.nan if best is None else best.score,
        "nats": nats, "accuracy": accuracy, "by_frequency": frequency,
        "clipped": acts, "clipped_updates": None if acts is None else round(acts * run.updates),
        "seconds": run.seconds, "core_seconds": spent, "history": run.history,
        "evaluations": {"epoch": [update // every for update in run.evaluations["update"]],
                        "valid": list(run.evaluations["score"]), "train": list(run.history["loss"])},
        "theta": text_of(best.theta) if best is not None and seed == 0 and column == KEPT else None,
    }  # fmt: skip


def _updates_of(path: Path) -> int:
    """Return how many updates the checkpoint of a run has, 0 where there is none."""
    try:
        return nf.load_run(path).updates
    except (OSError, ValueError):
        return 0


@dataclass
class Found(Something):
    """The runs that are reported, and those that chose their learning rates."""

    final: list[Row] = field(default_factory=list)
    tuned: list[Row] = field(default_factory=list)
    again: list[str] = field(default_factory=list)


def again(options: Options, path: Path, rows: Sequence[Row]) -> list[str]:
    """Say what the networks that are kept reach when they are measured once more."""
    found = []
    for row in (row for row in rows if row["theta"]):
        net = network(options.music(row["column"], row["lr"], row["seed"]))
        nats = nf.evaluate(net, theta_of(row["theta"]), read(path).task("test"))
        found.append(f"{row['data']}, {row['column']}, seed {row['seed']}, from the store again: {nats:.4f} nats on "
                     f"test, {row['nats']['test']:.4f} when it was trained.")  # fmt: skip
    return found


def do(options: Options, jobs: Sequence[Job], console: Console, executor: Executor | None) -> list[Row]:
    """Do jobs in workers, or look them up in the store alone."""
    if options.report_only:
        return done(options.store, jobs)
    return run_all(learn, jobs, options.store, console, executor)


def tune(options: Options, path: Path, console: Console, executor: Executor | None, found: Found) -> dict[str, float]:
    """Return the learning rate of each column: the best on validation, which stands between others that were tried."""
    tried: dict[str, list[float]] = {column: sorted(options.lrs) for column in options.columns}
    if len(options.lrs) == 1:
        return {column: lrs[0] for column, lrs in tried.items()}
    while True:
        jobs = [training(options, path, column, lr, TUNING) for column in tried for lr in tried[column]]
        rows = do(options, jobs, console, executor)
        if len(rows) < len(jobs):  # of what is in the store alone
            return {}
        chosen = {column: tuning.best((row["lr"], _number(row["valid"])) for row in rows if row["column"] == column)
                  for column in tried}  # fmt: skip
        more = {column: tuning.beyond(tried[column], lr) for column, lr in chosen.items()}
        if not any(more.values()):
            found.tuned += rows
            return chosen
        tried = {column: sorted([*tried[column], *more[column]]) for column in tried}


def _number(value: float | None) -> float:
    return math.inf if value is None else value


def check(options: Options) -> None:
    """Refuse what would end in nonsense; the rest is refused by nbflow."""
    check_numbers(options, positive="lrs threshold", least_0="alpha",
                  least_1="seeds hidden tuning_epochs batch_size length patience max_epochs")  # fmt: skip
    for name in ("data", "columns", "lrs"):
        given = getattr(options, name)
        if len(set(given)) < max(len(given), 1):
            said = " ".join(map(str, given))
            raise ValueError(f"{name} is {said or 'empty'}; expected one at least, each once. Leave it out.")
    if options.workers is not None and options.workers < 1:
        raise ValueError(f"workers is {options.workers}; expected at least 1. Leave it out.")
    if options.report_only and not options.store.path.exists():
        raise ValueError(f"report_only asks for {options.store.path}, which is not there. Leave it out to train.")


def work(options: Options, console: Console, found: Found, executor: Executor | None = None) -> None:
    """Choose learning rates and train with fresh seeds set by set, or go on with it."""
    check(options)
    with compiling(console):
        for path in options.data:
            known_by(path)
    own = ThreadPoolExecutor(1) if executor is None and options.workers == 1 else executor
    for path in options.data:
        if not options.report_only:
            tell(console, f"{title(path)} ({path.name})")
        chosen = tune(options, path, console, own, found)
        jobs = [training(options, path, column, lr, seed)
                for seed in range(options.seeds) for column, lr in chosen.items()]  # fmt: skip
        try:
            do(options, jobs, console, own)
        finally:
            there = done(options.store, jobs)
            found.final += there
        found.again += again(options, path, there) if options.report_only else []


def report(options: Options, found: Found, console: Console) -> list[Path]:
    """Print the tables, write the JSON and draw the picture; the networks themselves are in the store."""
    for table in reporting.tables(found.final):
        console.print(table)
    for words in [*reporting.verdicts(found.final), *found.again]:
        tell(console, words)
    runs = [{name: value for name, value in row.items() if name not in ("theta", "history")} for row in found.final]
    tuned = [{name: row[name] for name in ("data", "column", "lr", "seed", "valid")} for row in found.tuned]
    numbers = document(options, runs=runs, tuned=tuned, verdicts=reporting.verdicts(found.final))
    numbers["options"]["data"] = [path.name for path in options.data]
    return keep(console, options.out / options.name, numbers, {"": reporting.picture(found.final)})


def main(arguments: Sequence[str] | None = None, executor: Executor | None = None) -> int:
    options = tyro.cli(Options, args=arguments, description=__doc__)
    return begin(functools.partial(work, executor=executor), report, options, Found(),
                 store=options.out / f"{options.name}.jsonl")  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
