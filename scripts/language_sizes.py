"""Characters where data are abundant: what tanh, tanh with Omega, LSTM and GRU reach at three sizes, in one pass.

Each text is read once, in a few streams side by side with the state carried over (docs/truncated_bptt.md), so that no
character is seen twice; data are abundant where there are at least 20 of them for each parameter. For every text and
size each method tries learning rates, with a seed of its own, and tries on beyond an end of them until the best on
validation stands between others; fresh seeds of that rate are reported. The optimizer is Adam, clipped by norm; the
rate stays as it is for four fifths of a run and then falls to 0. Omega's weight is alpha / t, t counting twentieths of
a run (design: docs/methods.md).

Texts and sizes come one after the other, the smallest size first, and within them seed by seed, so that an early end
leaves whole cells. Every run is kept in the store as soon as it is done. Ctrl-C and the same command go on where it
was, also with later code: a line says which code and which processor made it.

Usage: python scripts/language_sizes.py --texts kingjames.txt tinyshakespeare.txt
       python scripts/language_sizes.py --texts kingjames.txt tinyshakespeare.txt --report-only
"""

from __future__ import annotations

import functools
import hashlib
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import language_sizes_report as reporting
import numba
import tuning
import tyro
from generalization import hashed, text_of, theta_of
from language_training import GATED, PARTS, Parts, hidden_of, read_parts
from rich.console import Console
from schedules import Descent, InverseTime

import nbflow as nf
from nbflow.experiments import machine
from nbflow.experiments.code_version import code_version
from nbflow.experiments.console import Found as Something, begin, check_numbers, compiling, document, keep, tell
from nbflow.experiments.jobs import Job, Watch, done, job, run_all
from nbflow.experiments.methods import cures, omega
from nbflow.storage.compact import acted, unpacked
from nbflow.storage.store import Row, Store

Method = Literal["clip", "clip+omega", "lstm", "gru"]
# How often a run is measured on validation; twentieths of a run are also what alpha / t counts.
EVALUATIONS, STRETCHES = 10, 20
# Seeds from here on choose the learning rate; those below are reported.
TUNING = 1_000
# Parameters are kept of networks up to this size, of the first seed.
KEPT = 30_000


@dataclass(frozen=True)
class Options:
    """What is trained, on what, and where the results go."""

    texts: tuple[Path, ...]
    """Texts in UTF-8, each a file or a folder of them (*.txt), read as one."""
    sizes: tuple[int, ...] = (20_000, 100_000, 400_000)
    """Numbers of parameters."""
    methods: tuple[Method, ...] = ("clip", "clip+omega", "lstm", "gru")
    """What is compared: tanh with clipping, with clipping and Omega; LSTM, GRU with clipping."""
    seeds: int = 3
    """Runs of each method that are reported; 2 or more for an interval."""
    tuning_seeds: int = 1
    """Runs of each method at each learning rate, to choose one."""
    lrs: tuple[float, ...] = (0.001, 0.002, 0.004)
    """Learning rates to begin with; beyond an end of them others follow, each twice or half of the last. A single one
    is taken as it is."""
    part: float = 1.0
    """The part of the text to train on that a run reads; 1 is all of it, once."""
    batch_size: int = 8
    """B, streams of a text that are read side by side."""
    length: int = 100
    """Steps of a window."""
    threshold: float = 1.0
    """What the norm of a gradient is clipped to, in nats per character."""
    alpha: float = 0.5
    """The weight of Omega beside the loss, at first; its penalty is (r^2 - 1)^2, the mean over steps and sequences."""
    parts: tuple[float, float, float] = (0.94, 0.03, 0.03)
    """The shares of a text: trained on, validation, test."""
    workers: int | None = None
    """Local processes, by default one for each core; 1 is this process alone."""
    report_only: bool = False
    """Make tables and pictures from what is in the store, and train nothing."""
    out: Path = Path("results")
    """The folder for store, picture and JSON."""
    name: str = "language_sizes"
    """How these files are called."""

    @property
    def store(self) -> Store:
        return Store(unpacked(self.out / f"{self.name}.jsonl"))


class Cell(NamedTuple):
    """A text and a size: what is compared stands in one cell of the table."""

    text: Path
    size: int


def cells(options: Options) -> list[Cell]:
    """Return all cells, in the order in which they are done."""
    return [Cell(text, size) for size in sorted(options.sizes) for text in options.texts]


@functools.lru_cache(maxsize=2)
def read(text: Path, shares: tuple[float, float, float]) -> Parts:
    return read_parts(text, shares)


@functools.lru_cache(maxsize=4)
def known_by(text: Path, shares: tuple[float, float, float]) -> dict[str, str]:
    """Return hashes of the parts of a text."""
    parts = read(text, shares)
    return {part: hashlib.sha256(getattr(parts, part).tokens.astype("<i4").tobytes()).hexdigest() for part in PARTS}


def updates_of(options: Options, parts: Parts) -> int:
    """Return how many updates read a text once, or a part of it; so that evaluations come at equal distances."""
    windows = (parts.train.tokens.size - 1) // options.batch_size // options.length
    found = int(windows * options.part) // EVALUATIONS * EVALUATIONS
    if found < STRETCHES:
        raise ValueError(
            f"length is {options.length} and batch_size {options.batch_size}, of which a text of "
            f"{parts.train.tokens.size:,} characters has {windows} windows side by side, and part is {options.part:g}; "
            f"expected {STRETCHES} at least. Give shorter ones, or fewer."
        )
    return found


def experiment(options: Options, cell: Cell, method: str, lr: float) -> nf.Experiment:
    """Return how a method trains at a learning rate."""
    parts = read(cell.text, options.parts)
    task, updates = parts.task("validation"), updates_of(options, parts)
    kind = method if method in GATED else "tanh"
    alpha = InverseTime(options.alpha, max(updates // STRETCHES, 1))
    recipe = nf.Recipe(
        optimizer="adam", lr=Descent(lr, updates), batch_size=options.batch_size, lengths=options.length, carry=True,
        **cures(f"clip+{method}", clip=nf.Clip("norm", options.threshold), flow=omega("squared", alpha)),
        max_updates=updates, record_every=updates // EVALUATIONS, evaluate_every=updates // EVALUATIONS,
    )  # fmt: skip
    return nf.Experiment(task, recipe, kind, hidden_of(kind, task.n_in, cell.size), "glorot")


# What is run.


def training(options: Options, cell: Cell, method: str, lr: float, seed: int) -> Job:
    """Return a run; it is known by what it is, and not by the code that makes it."""
    updates = updates_of(options, read(cell.text, options.parts))
    omegas = [options.alpha, STRETCHES] if "omega" in method else []
    key = hashed([
        known_by(cell.text, options.parts), cell.size, method, lr, Descent.part, options.batch_size, options.length,
        options.threshold, omegas, updates, EVALUATIONS, seed,
    ])  # fmt: skip
    return job(options.store, key, f"{cell.text.name}, {cell.size:,}", updates, (options, cell, method, lr, seed))


def learn(job: Job, watch: Watch) -> Row | None:
    """Train a network, or go on with it, and measure it on every part; called in a worker."""
    options, cell, method, lr, seed = job.what
    one, parts = experiment(options, cell, method, lr), read(cell.text, options.parts)
    before = _updates_of(job.path)
    began, threads = time.process_time(), numba.get_num_threads()
    run = nf.train(one.net, one.theta(seed), one.task, one.recipe, replica_ids=[seed], callbacks=[watch],
                   checkpoint=job.path)  # fmt: skip
    # Seconds of a core, whoever else used it: of a run that went on those of the last stretch, for all updates.
    spent = (time.process_time() - began) * run.updates / max(run.updates - before, 1)
    if run.updates < one.recipe.max_updates:
        return None
    bits = {part: nf.evaluate(one.net, run.theta, parts.task(part)) for part in PARTS}
    characters = run.updates * options.batch_size * options.length
    return {
        "kind": "run", "text": cell.text.name, "text_sha256": known_by(cell.text, options.parts), "size": cell.size,
        "method": method, "lr": lr, "seed": seed, "alpha": options.alpha if "omega" in method else None,
        "code": code_version(), "processor": machine.processor(), "threads": threads,
        "cell": one.cell, "n_hidden": one.n_hidden, "init": one.init, "n_in": one.net.n_in,
        "parameters": one.net.size, "updates": run.updates, "characters": characters,
        "per_parameter": characters / one.net.size, "bits": bits, "by_frequency": parts.trivial(),
        "clipped": acted(run.history), "seconds": run.seconds, "core_seconds": spent,
        "evaluations": run.evaluations,
        "theta": text_of(run.theta) if seed == 0 and one.net.size <= KEPT else None,
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


def again(options: Options, cell: Cell, rows: Sequence[Row]) -> list[str]:
    """Say what the networks that are kept reach when they are measured once more."""
    found = []
    for row in (row for row in rows if row["theta"]):
        one = experiment(options, cell, row["method"], row["lr"])
        bits = nf.evaluate(one.net, theta_of(row["theta"]), read(cell.text, options.parts).task("test"))
        found.append(f"{row['text']}, {row['size']:,}, {row['method']}, seed {row['seed']}, from the store again: "
                     f"{bits:.4f} bits on test, {row['bits']['test']:.4f} when it was trained.")  # fmt: skip
    return found


class Machinery(NamedTuple):
    """How jobs are done: in workers, or looked up in the store alone."""

    options: Options
    console: Console
    executor: Executor | None

    def do(self, jobs: Sequence[Job]) -> list[Row]:
        store = self.options.store
        if self.options.report_only:
            return done(store, jobs)
        return run_all(learn, jobs, store, self.console, self.executor)


def tune(machinery: Machinery, cell: Cell, found: Found) -> dict[str, float]:
    """Return the learning rate of each method: the best on validation, which stands between others that were tried."""
    options = machinery.options
    tried: dict[str, list[float]] = {method: sorted(options.lrs) for method in options.methods}
    if len(options.lrs) == 1:
        return {method: lrs[0] for method, lrs in tried.items()}
    seeds = range(TUNING, TUNING + options.tuning_seeds)
    while True:
        jobs = [training(options, cell, method, lr, seed) for seed in seeds for method in tried for lr in tried[method]]
        rows = machinery.do(jobs)
        if len(rows) < len(jobs):  # of what is in the store alone
            return {}
        chosen = {
            method: tuning.best((row["lr"], row["bits"]["validation"]) for row in rows if row["method"] == method)
            for method in tried
        }
        more = {method: tuning.beyond(tried[method], lr) for method, lr in chosen.items()}
        if not any(more.values()):
            found.tuned += rows
            return chosen
        tried = {method: sorted([*tried[method], *more[method]]) for method in tried}


def fresh(options: Options, cell: Cell, chosen: dict[str, float]) -> list[Job]:
    """Return the runs that are reported, seed by seed."""
    return [training(options, cell, method, lr, seed) for seed in range(options.seeds) for method, lr in chosen.items()]


def check(options: Options) -> None:
    """Refuse what would end in nonsense; the rest is refused by nbflow."""
    check_numbers(options, positive="threshold lrs parts", least_0="alpha",
                  least_1="seeds tuning_seeds batch_size length sizes")  # fmt: skip
    for name in ("texts", "sizes", "methods", "lrs"):
        given = getattr(options, name)
        if len(set(given)) < max(len(given), 1):
            said = " ".join(map(str, given))
            raise ValueError(f"{name} is {said or 'empty'}; expected one at least, each once. Leave it out.")
    if not 0 < options.part <= 1:
        raise ValueError(f"part is {options.part:g}; expected above 0 and at most 1, all of the text. Give another.")
    if options.workers is not None and options.workers < 1:
        raise ValueError(f"workers is {options.workers}; expected at least 1. Leave it out.")
    if options.report_only and not options.store.path.exists():
        raise ValueError(f"report_only asks for {options.store.path}, which is not there. Leave it out to train.")
    for text in options.texts:
        updates_of(options, read(text, options.parts))


def work(options: Options, console: Console, found: Found, executor: Executor | None = None) -> None:
    """Choose learning rates and train with fresh seeds cell by cell, or go on with it."""
    check(options)
    with compiling(console):
        for cell in cells(options)[: len(options.texts)]:
            experiment(options, cell, options.methods[0], options.lrs[0])
    own = ThreadPoolExecutor(1) if executor is None and options.workers == 1 else executor
    machinery = Machinery(options, console, own)
    for cell in cells(options):
        if not options.report_only:
            tell(console, f"{cell.text.name}, {cell.size:,} parameters")
        chosen = tune(machinery, cell, found)
        jobs = fresh(options, cell, chosen)
        try:
            machinery.do(jobs)
        finally:
            there = done(options.store, jobs)
            found.final += there
        found.again += again(options, cell, there) if options.report_only else []


def report(options: Options, found: Found, console: Console) -> list[Path]:
    """Print the tables, write the JSON and draw the picture; the networks themselves are in the store."""
    for table in reporting.tables(found.final, found.tuned):
        console.print(table)
    for words in [reporting.verdict(found.final), *found.again]:
        tell(console, words)
    runs = [{name: value for name, value in row.items() if name != "theta"} for row in found.final]
    tuned = [{name: row[name] for name in ("text", "size", "method", "lr", "seed", "bits")} for row in found.tuned]
    numbers = document(options, runs=runs, tuned=tuned, verdict=reporting.verdict(found.final))
    numbers["options"]["texts"] = [text.name for text in options.texts]
    return keep(console, options.out / options.name, numbers, {"": reporting.picture(found.final)})


def main(arguments: Sequence[str] | None = None, executor: Executor | None = None) -> int:
    options = tyro.cli(Options, args=arguments, description=__doc__)
    return begin(functools.partial(work, executor=executor), report, options, Found(),
                 store=options.out / f"{options.name}.jsonl")  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
