"""Characters of a text: does a tanh network with Omega and clipping match an LSTM? Bits per character on held-out text.

Methods with the same number of parameters, within 1 %, and of updates: tanh with clipping, tanh with clipping and
Omega, LSTM with clipping; by --methods also tanh without either (sgd), and GRU with clipping. The text is cut into
three parts, in its order: trained on, validation, test. Each method first tries each learning rate of a grid, with
seeds of its own; the best on validation at the end is then trained with fresh seeds, and those are reported; with one
rate there is nothing to choose. Nothing is chosen on the test part, and no network is taken from the middle of its
training.

The optimizer is Adam unless another is named: it gives every parameter a step of its own, so that one grid of learning
rates serves cells as unlike as these. Batches are windows from anywhere in the text, each from a state of zeros (see
nbflow.data.TextTask); with --carry they are read one behind the other, the state carried over
(docs/truncated_bptt.md). Measured is all of a part, with the state carried through: of the part trained on, a piece at
its end.

Every run is kept in the store as soon as it is done. Ctrl-C and the same command go on where it was.

Usage: python scripts/language.py --text input.txt
       python scripts/language.py --text input.txt --methods sgd clip clip+omega --cell sigmoid --init sigmoid
           --hidden 500 --no-biases --optimizer sgd --lrs 0.001 0.01 0.05 --cost sum --threshold 45 --alpha 1
           --alpha-decay --carry --length 50 --batch-size 10 --halve-after 1
       (as Pascanu, Mikolov, Bengio 2013 trained on the characters of the Penn Treebank)
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import math
import sys
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import tyro
from language_training import GATED, PARTS, Parts, SummedTask, alike, read_parts, size_of
from rich.console import Console
from rich.table import Table
from schedules import InverseTime

import nbflow as nf
from nbflow import plot, statistics
from nbflow.data.tasks import TextTask
from nbflow.experiments import machine
from nbflow.experiments.code_version import code_version
from nbflow.experiments.console import Found as Something, begin, check_numbers, compiling, document, headed, keep, tell
from nbflow.experiments.experiment import key_of
from nbflow.experiments.jobs import Job, Watch, done, job, run_all
from nbflow.experiments.methods import cures, omega
from nbflow.records import Interval
from nbflow.storage.compact import clipped_of
from nbflow.storage.store import Row, Store

TITLES = {"sgd": "tanh", "clip": "tanh + clipping", "clip+omega": "tanh + clipping + Omega", "lstm": "LSTM + clipping",
          "gru": "GRU + clipping"}  # fmt: skip
MARKS = ("o", "s", "^", "D", "v")
# Pairs whose difference answers something: the first less the second.
PAIRS = (("clip+omega", "clip"), ("clip", "lstm"), ("clip+omega", "lstm"), ("clip", "sgd"), ("clip+omega", "gru"))
# Updates of a run at budget 1, and the parts of them after which it is measured.
UPDATES, EVALUATIONS = 25_000, 20
BIASES = ("bias", "bias_rec", "b_out")
# Seeds from here on choose the learning rate; those below are reported.
TUNING = 1_000

Method = Literal["sgd", "clip", "clip+omega", "lstm", "gru"]
if TYPE_CHECKING:
    Init: TypeAlias = str
    Optimizer: TypeAlias = str
else:  # the names of the files in each package of nbflow
    Init, Optimizer = (Literal[nf.names(package)] for package in ("inits", "optimizers"))


@dataclass(frozen=True)
class Options:
    """What is trained, on what, how long, and where the results go."""

    text: Path
    """A text in UTF-8, or a folder of them (*.txt), read as one."""
    methods: tuple[Method, ...] = ("clip", "clip+omega", "lstm")
    """What is compared: a plain cell without a cure (sgd), with clipping, with clipping and Omega; LSTM or GRU with
    clipping."""
    seeds: int = 3
    """Runs of each method that are reported; 2 or more for an interval."""
    budget: float = 1.0
    """How long a run is, in units of 25,000 updates."""
    evaluations: int = EVALUATIONS
    """How often a run is measured on validation, at equal distances; what --halve-after and --alpha-decay count."""
    lrs: tuple[float, ...] = (0.001, 0.002, 0.004, 0.008, 0.016)
    """Learning rates that each method tries; where it is one, it is taken."""
    halve_after: int = 0
    """Evaluations without a better validation score after which the learning rate is halved; 0 for never."""
    optimizer: Optimizer = "adam"
    """How a gradient becomes a step."""
    tuning_seeds: int = 1
    """Runs of each method at each learning rate, to choose one."""
    hidden: int = 100
    """H, hidden units of the tanh networks, or a number near it; LSTM and GRU get as many as make them as large."""
    cell: Literal["tanh", "sigmoid", "relu"] = "tanh"
    """The cell without gates."""
    init: Init = "glorot"
    """How first weights are drawn."""
    biases: bool = True
    """Whether biases are trained; otherwise they stay as they begin, 0 (and 1 of an LSTM's forget gate)."""
    length: int = 100
    """Steps of a sequence in training."""
    batch_size: int = 32
    """B, sequences in an update."""
    carry: bool = False
    """Whether windows follow each other in the text, the state carried from each to the next."""
    threshold: float = 1.0
    """What the norm of a gradient is clipped to, in nats per character (with --cost sum per window)."""
    cost: Literal["mean", "sum"] = "mean"
    """Whether the loss of a window is the mean or the sum over its steps; either is a mean over windows."""
    alpha: float = 0.1
    """The weight of Omega beside the loss; its penalty is (r^2 - 1)^2, the mean over steps and sequences."""
    alpha_decay: bool = False
    """Divide alpha by t, the number of the stretch between two evaluations, from 1."""
    parts: tuple[float, float, float] = (0.9, 0.05, 0.05)
    """The shares of the text: trained on, validation, test."""
    margin: float = 0.02
    """Bits per character; two methods whose difference lies within it, with its interval, count as alike."""
    confidence: float = 0.95
    """Of the intervals, which are Student's, over seeds."""
    out: Path = Path("results")
    """The folder for store, picture and JSON."""
    name: str = "language"
    """How these files are called."""

    @property
    def updates(self) -> int:
        """Updates of a run."""
        return max(round(UPDATES * self.budget), self.evaluations)

    @property
    def store(self) -> Store:
        return Store(self.out / f"{self.name}.jsonl")


# What is compared.


def read(options: Options) -> Parts:
    return read_parts(options.text, options.parts)


def sizes(options: Options, parts: Parts) -> dict[str, int]:
    """Return H of each cell that is trained; that of a single kind is what was asked for."""
    gated = [cell for cell in GATED if cell in options.methods]
    found = alike(len(parts.train.vocabulary), options.hidden, gated)
    return {options.cell: found.pop("tanh"), **found}


def title(options: Options, method: str) -> str:
    return TITLES[method].replace("tanh", options.cell)


def experiment(options: Options, parts: Parts, method: str, lr: float) -> nf.Experiment:
    """Return how a method trains at a learning rate."""
    gated, every = method in GATED, options.updates // options.evaluations
    task = parts.task("validation", SummedTask if options.cost == "sum" else TextTask)
    alpha: Any = InverseTime(options.alpha, every) if options.alpha_decay else options.alpha
    cure = cures("clip" if gated else method, clip=nf.Clip("norm", options.threshold), flow=omega("squared", alpha))
    recipe = nf.Recipe(
        optimizer=options.optimizer, batch_size=options.batch_size, lengths=options.length, carry=options.carry, **cure,
        lr=nf.HalvingRate(lr, patience=options.halve_after) if options.halve_after else lr,
        trainable=None if options.biases else dict.fromkeys(BIASES, False),
        max_updates=options.updates, record_every=max(every // 5, 1), evaluate_every=every,
    )  # fmt: skip
    cell = method if gated else options.cell
    return nf.Experiment(task, recipe, cell, sizes(options, parts)[cell], options.init)


def parameters(one: nf.Experiment) -> int:
    """Return how many are trained."""
    blocks = nf.unpack(one.net, one.theta(0))._asdict()
    return sum(block.size for name, block in blocks.items() if name not in (one.recipe.trainable or ()))


# What is run.


def jobs(options: Options, parts: Parts, seeds: Sequence[int], lrs: dict[str, Sequence[float]]) -> list[Job]:
    """Return a run for each method, learning rate and seed; seed by seed, so that an early end leaves few gaps."""
    found = []
    made = {(method, lr): experiment(options, parts, method, lr) for method in lrs for lr in lrs[method]}
    for seed, (method, lr) in itertools.product(seeds, made):
        key = key_of(made[method, lr], seed, code_version())
        found.append(job(options.store, key, title(options, method), options.updates, (options, method, lr, seed)))
    return found


def learn(job: Job, watch: Watch) -> Row | None:
    """Train a network, or go on with it, and measure it on every part; called in a worker."""
    options, method, lr, seed = job.what
    parts = read(options)
    one = experiment(options, parts, method, lr)
    run = nf.train(one.net, one.theta(seed), one.task, one.recipe, replica_ids=[seed], callbacks=[watch],
                   checkpoint=job.path)  # fmt: skip
    if run.updates < one.recipe.max_updates:
        return None
    bits = {part: nf.evaluate(one.net, run.theta, parts.task(part)) for part in PARTS}
    return {
        "method": method, "lr": lr, "seed": seed, **one.flat, "code": code_version(),
        "processor": machine.processor(), "parameters": parameters(one), "updates": run.updates,
        "seconds": run.seconds, "bits": bits, "evaluations": run.evaluations, "history": run.history,
        "theta_sha256": hashlib.sha256(run.theta.tobytes()).hexdigest(),
    }  # fmt: skip


def choose(rows: Sequence[Row]) -> dict[str, float]:
    """Return the learning rate of each method with the lowest mean bits per character on validation."""
    found: dict[str, dict[float, list[float]]] = {}
    for row in rows:
        bits = row["bits"]["validation"]
        found.setdefault(row["method"], {}).setdefault(row["lr"], []).append(bits if math.isfinite(bits) else math.inf)
    return {method: min(of, key=lambda lr: sum(of[lr]) / len(of[lr])) for method, of in found.items()}


@dataclass
class Found(Something):
    """What there is: runs that chose, what they chose, and runs that are reported."""

    final: list[Row] = field(default_factory=list)
    tuned: list[Row] = field(default_factory=list)
    chosen: dict[str, float] = field(default_factory=dict)

    def of(self, method: str) -> list[Row]:
        return [row for row in self.final if row["method"] == method]

    def bits(self, method: str, part: str) -> list[float]:
        return [row["bits"][part] for row in self.of(method)]


def work(options: Options, console: Console, found: Found, executor: Executor | None = None) -> None:
    """Choose learning rates and train with fresh seeds, or go on with it."""
    with compiling(console):
        parts = check(options)
    tell(console, ", ".join(f"{cell}: {h} units, {size_of(cell, len(parts.train.vocabulary), h):,} parameters"
                            for cell, h in sizes(options, parts).items()))  # fmt: skip
    store = options.store
    if len(options.lrs) > 1:
        tuning = jobs(options, parts, range(TUNING, TUNING + options.tuning_seeds),
                      dict.fromkeys(options.methods, options.lrs))  # fmt: skip
        tell(console, f"Learning rates: {len(tuning)} runs of {options.updates:,} updates")
        found.tuned = run_all(learn, tuning, store, console, executor)
        found.chosen = choose(found.tuned)
    else:
        found.chosen = dict.fromkeys(options.methods, options.lrs[0])
    final = jobs(options, parts, range(options.seeds), {method: [found.chosen[method]] for method in options.methods})
    tell(console, f"Fresh seeds: {len(final)} runs")
    try:
        run_all(learn, final, store, console, executor)
    finally:
        found.final = done(store, final)


# What is seen at the end.


def mean_of(options: Options, values: Sequence[float]) -> Interval:
    """Return the mean over seeds with Student's interval."""
    found = statistics.mean_interval(values, confidence=options.confidence)
    return Interval(float(found.mean), float(found.low), float(found.high))


def table(options: Options, parts: Parts, found: Found) -> Table:
    """Return the table of bits per character."""
    heading = (f"Bits per character after {options.updates:,} updates: means over seeds, "
               f"{100 * options.confidence:g} % intervals")  # fmt: skip
    shown = headed(heading, "", "H", "parameters", "learning rate", "seeds", *PARTS)
    for method in TITLES:
        rows = found.of(method)
        if rows:
            cells = [words(mean_of(options, found.bits(method, part))) for part in PARTS]
            shown.add_row(title(options, method), str(rows[0]["n_hidden"]), f"{rows[0]['parameters']:,}",
                          rate(options, found.chosen[method]), str(len(rows)), *cells)  # fmt: skip
    guess = [f"{bits:.3f}" for bits in parts.trivial().values()]
    shown.add_row("each by its frequency", "", "", "", "", *guess)
    return shown


def rate(options: Options, lr: float) -> str:
    """Name a learning rate, and say where the grid ended with it."""
    edge = len(options.lrs) > 1 and lr in (min(options.lrs), max(options.lrs))
    return f"{lr:g}, the grid's end" if edge else f"{lr:g}"


def words(mean: Interval) -> str:
    width = f" ±{mean.high - mean.value:.3f}" if math.isfinite(mean.high) else ""
    return f"{mean.value:.3f}{width}"


def clipped(found: Found) -> dict[str, float]:
    """Return in which part of the updates the clip of each method acted, a mean over the runs whose lines say it."""
    parts = {method: [clipped_of(row) for row in found.of(method)] for method in TITLES}
    known = {method: [part for part in mine if part is not None] for method, mine in parts.items()}
    return {method: sum(mine) / len(mine) for method, mine in known.items() if mine}


def differences(options: Options, found: Found) -> dict[str, dict[str, Any]]:
    """Return how far apart two methods are on the test part, where each has two seeds."""
    shown = {}
    for one, two in PAIRS:
        values = found.bits(one, "test"), found.bits(two, "test")
        if min(map(len, values)) >= 2 and all(map(math.isfinite, itertools.chain(*values))):
            # At alpha = (1 - confidence) / 2 its interval has this confidence.
            tested = statistics.equivalence(*values, options.margin, alpha=(1 - options.confidence) / 2)
            shown[f"{one} less {two}"] = {**tested.difference._asdict(), "alike": tested.equivalent}
    return shown


def sentence(options: Options, name: str, found: dict[str, Any]) -> str:
    """Say what a difference shows."""
    if found["alike"]:
        verdict = f"alike within {options.margin:g}"
    elif found["low"] > 0 or found["high"] < 0:
        verdict = "more bits: worse" if found["low"] > 0 else "fewer bits: better"
    else:
        verdict = "can't tell"
    return f"{name}: {found['value']:+.3f} ({found['low']:+.3f} to {found['high']:+.3f}) bits on test: {verdict}"


def picture(options: Options, parts: Parts, found: Found) -> Any:
    """Draw validation over updates with bands, and every part at the end with intervals and a dot for each seed."""
    head = "Characters of a text, with as many parameters and updates"
    with plot.page(head, about(options, parts, found), (10.4, 4.2), dpi=150, wspace=0.06) as shown:
        left, right = shown.subplots(1, 2, width_ratios=(3, 2))
        for k, method in enumerate(drawn := [method for method in TITLES if found.of(method)]):
            plot.learning_curve(found.of(method), "score", interval=options.confidence, marker=MARKS[k],
                                colour=plot.COLOURS[k], label=title(options, method), ax=left)  # fmt: skip
            draw_ends(right, options, found, method, (k, len(drawn)))
        left.set_ylabel("validation (bits per character)")
        left.set_xlim(left=0)
        right.set_xticks(range(len(PARTS)), PARTS)
        right.set_xlim(-0.5, len(PARTS) - 0.5)
        right.set_ylabel("at the end (bits per character)")
        plot.grid(right, "y")
        plot.legend_below(left)
    return shown


def draw_ends(axes: Any, options: Options, found: Found, method: str, place: tuple[int, int]) -> None:
    """Draw the mean of a method, the k-th of so many, on each part, and beside it its seeds."""
    k, of = place
    seeds = [found.bits(method, part) for part in PARTS]
    places = [at + 0.72 / of * (k - (of - 1) / 2) for at in range(len(PARTS))]
    plot.intervals(places, [mean_of(options, values) for values in seeds], of=seeds, beside=0.08, linewidth=0,
                   colour=plot.COLOURS[k], marker=MARKS[k], ax=axes)  # fmt: skip


def about(options: Options, parts: Parts, found: Found) -> str:
    """Say in two lines what was trained, and what whoever remembers nothing reaches."""
    sizes = {row["parameters"] for row in found.final}
    optimizer = {"adam": "Adam", "sgd": "SGD"}.get(options.optimizer, options.optimizer)
    return (
        f"{min(sizes):,} to {max(sizes):,} parameters, {options.updates:,} updates ({optimizer}) of "
        f"{options.batch_size} windows of {options.length} characters; learning rates chosen on validation.\n"
        f"Each character by its frequency alone: {parts.trivial()['test']:.2f} bits on test. Bands and bars: "
        f"{100 * options.confidence:g} % intervals (Student's, {options.seeds} seeds)."
    )


def numbers(options: Options, parts: Parts, found: Found) -> dict[str, Any]:
    """Return every setting and every number; the runs themselves are in the store."""
    methods = {
        method: {
            "lr": found.chosen[method], "n_hidden": rows[0]["n_hidden"], "parameters": rows[0]["parameters"],
            "bits": {part: mean_of(options, found.bits(method, part))._asdict() for part in PARTS},
            "seeds": {part: found.bits(method, part) for part in PARTS},
        }
        for method in TITLES if (rows := found.of(method))
    }  # fmt: skip
    return document(
        options, updates=options.updates, characters={part: len(getattr(parts, part).tokens) for part in PARTS},
        by_frequency=parts.trivial(), methods=methods, clipped=clipped(found), differences=differences(options, found),
        tuning=[{name: row[name] for name in ("method", "lr", "seed", "bits")} for row in found.tuned],
    )  # fmt: skip


def report(options: Options, found: Found, console: Console) -> list[Path]:
    """Print the table and the differences, write the JSON and draw the picture."""
    parts = read(options)
    console.print(table(options, parts, found))
    for method, part in clipped(found).items():
        tell(console, f"{title(options, method)}: the clip acted on {100 * part:.1f} % of the updates")
    for name, difference in differences(options, found).items():
        tell(console, sentence(options, name, difference))
    drawn = {"": picture(options, parts, found)}
    return keep(console, options.out / options.name, numbers(options, parts, found), drawn)


def check(options: Options) -> Parts:
    """Read the text, and refuse what makes no sense before a worker finds it."""
    check_numbers(options, positive="budget threshold margin lrs", part="confidence", least_0="alpha",
                  least_1="seeds tuning_seeds hidden length batch_size evaluations")  # fmt: skip
    for name in ("methods", "lrs"):
        given = getattr(options, name)
        if len(set(given)) < max(len(given), 1):
            said = " ".join(map(str, given))
            raise ValueError(f"{name} is {said or 'empty'}; expected one at least, each once. Leave it out.")
    parts = read(options)
    for method in options.methods:
        one = experiment(options, parts, method, options.lrs[0])
        short = dataclasses.replace(one.recipe, max_updates=1, evaluate_every=0, lr=options.lrs[0])
        nf.train(one.net, one.theta(0), one.task, short)
    return parts


def main(arguments: Sequence[str] | None = None, executor: Executor | None = None) -> int:
    options = tyro.cli(Options, args=arguments, description=__doc__)
    return begin(functools.partial(work, executor=executor), report, options, Found(), store=options.store.path)


if __name__ == "__main__":
    sys.exit(main())
