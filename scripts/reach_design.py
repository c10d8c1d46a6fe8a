"""The designs of scripts/reach.py: arms, settings, stages in their order, tests. docs/methods.md says why.

All that decides an outcome is named here, before any run.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import nbflow as nf
from nbflow.experiments.methods import omega

TASK = "temporal_order"
HIDDEN, BATCH, ALPHA, SOLVED = 50, 20, 2.0, 0.01
# A first passage has this grain. Once a run has ended, so many other fresh sequences say how good it is.
EVALUATE_EVERY, EVALUATE_SIZE, FINAL_SIZE = 1_000, 2_000, 10_000
# What the norm is clipped to where lr times it is tuned, and these products: the length of a clipped step.
THRESHOLD, PRODUCTS = 0.15, (0.01, 0.03, 0.1)
# Learning rates without a clip.
OMEGA_RATES, SGD_RATES = (0.0003, 0.001, 0.003, 0.01), (0.003, 0.01, 0.03, 0.1)
# Beyond an end of these, where the best is one: the learning rates' ratio, and how many are tried at most.
STEP, MOST_SETTINGS = 10**0.5, 7
# Of Pascanu, Mikolov, Bengio (2013).
PAPER_LR, PAPER_THRESHOLD = 0.01, 1.0
# Tuning: its seeds, which are never reported, and its budgets, one after another until a median is known.
TUNING_SEEDS, TUNING = range(1_000_000, 1_000_003), (2_000, 4_000, 8_000, 30_000)
# And one more for arms whose runs are longer, where nothing has learnt anything within these.
FAR_TUNING = 100_000
# One of four classes is guessed wrongly three times in four; the best of 30 evaluations of a guess has 0.72 or more.
GUESSING = 0.7
# Of so many seeds the parameters are kept in the store.
KEPT_SEEDS = 1
LENGTHS = (50, 100, 150, 200)


@dataclass(frozen=True)
class Setting:
    """A learning rate, and what the norm of a gradient is clipped to; None for no clip."""

    lr: float
    threshold: float | None

    def __str__(self) -> str:
        """Return it in words."""
        clip = "" if self.threshold is None else f", v {self.threshold:g}, lr v {self.lr * self.threshold:.2g}"
        return f"lr {self.lr:.3g}{clip}"


TUNED = tuple(Setting(float(f"{product / THRESHOLD:.3g}"), THRESHOLD) for product in PRODUCTS)
PAPER = (Setting(PAPER_LR, PAPER_THRESHOLD),)


def beyond(settings: tuple[Setting, ...], best: Setting) -> tuple[Setting, ...]:
    """Return settings with one more beyond the end at which the best stands; none where there is nothing more to try.

    Examples
    --------
    >>> [str(setting) for setting in beyond((Setting(0.1, None), Setting(0.3, None)), Setting(0.3, None))]
    ['lr 0.1', 'lr 0.3', 'lr 0.949']
    """
    if len(settings) < MOST_SETTINGS and best == settings[0]:
        return replace(best, lr=float(f"{best.lr / STEP:.3g}")), *settings
    if len(settings) < MOST_SETTINGS and best == settings[-1]:
        return *settings, replace(best, lr=float(f"{best.lr * STEP:.3g}"))
    return ()


@dataclass(frozen=True)
class Arm:
    """A kind of network and a cure.

    Attributes
    ----------
    flow : str
        The derivative of Omega, "immediate" or "exact"; "" for no Omega.
    settings : tuple of Setting
        What is tried for each length at first, ascending; where there is one, it is not tuned.
    far : bool
        Whether tuning goes on where nothing that was tried has learnt anything.
    """

    name: str
    title: str
    cell: str
    init: str
    flow: str
    settings: tuple[Setting, ...]
    far: bool = False

    def experiment(self, length: int, setting: Setting, updates: int, hidden: int = HIDDEN) -> nf.Experiment:
        """Return what is trained. A gradient that is not finite is left out, with a clip and without."""
        threshold = float("inf") if setting.threshold is None else setting.threshold
        flow = replace(omega("squared", ALPHA), derivative=self.flow) if self.flow else None
        recipe = nf.Recipe(
            lr=setting.lr, batch_size=BATCH, lengths=length, clip=nf.Clip("norm", threshold, nonfinite="skip"),
            flow=flow, max_updates=updates, record_every=EVALUATE_EVERY, evaluate_every=EVALUATE_EVERY,
            evaluate_size=EVALUATE_SIZE, solved_below=SOLVED, stop_when_solved=True,
        )  # fmt: skip
        return nf.Experiment(TASK, recipe, self.cell, hidden, self.init)


@dataclass(frozen=True)
class Stage:
    """Runs that are made before the next stage begins: seed by seed, lengths ascending, arms side by side.

    Attributes
    ----------
    family : str
        Whose arms are reported with the same seeds.
    updates : int
        Most updates of a run; one that has had fewer, in an earlier stage, goes on.
    """

    family: str
    arms: tuple[str, ...]
    lengths: tuple[int, ...]
    seeds: range
    updates: int

    def cells(self, arms: dict[str, Arm]) -> Iterator[tuple[Arm, int]]:
        """Yield its arms and lengths in their order."""
        for length, name in itertools.product(self.lengths, self.arms):
            yield arms[name], length


@dataclass(frozen=True)
class Test:
    """Two arms that are held against each other, at each length at which both were run; Holm is over a question."""

    question: str
    one: str
    other: str


@dataclass(frozen=True)
class Design:
    """A question.

    Attributes
    ----------
    first : int
        How many of the stages make the first part.
    rows : dict
        Arms that are drawn together, by title.
    """

    title: str
    arms: dict[str, Arm]
    stages: tuple[Stage, ...]
    first: int
    tests: tuple[Test, ...]
    rows: dict[str, tuple[str, ...]]

    def families(self) -> dict[str, list[Stage]]:
        """Return the stages by what is reported together."""
        found: dict[str, list[Stage]] = {}
        for stage in self.stages:
            found.setdefault(stage.family, []).append(stage)
        return found


# The span: claim 8 of the book.

CORE, KINDS, GATED = ("clip", "clip+omega", "omega"), ("exact", "orthogonal"), ("gru", "lstm")


def _of(*arms: Arm) -> dict[str, Arm]:
    return {arm.name: arm for arm in arms}


SPAN = Design(
    "How long may sequences be?",
    _of(
        Arm("clip", "clipping", "tanh", "smart_tanh", "", TUNED, far=True),
        Arm("clip+omega", "clipping + Omega", "tanh", "smart_tanh", "immediate", TUNED, far=True),
        Arm(
            "omega",
            "Omega, no clipping",
            "tanh",
            "smart_tanh",
            "immediate",
            tuple(Setting(lr, None) for lr in OMEGA_RATES),
            far=True,
        ),
        Arm("exact", "clipping + exact Omega", "tanh", "smart_tanh", "exact", TUNED),
        Arm("orthogonal", "clipping, orthogonal", "tanh", "orthogonal", "", TUNED),
        Arm("gru", "clipping, GRU", "gru", "glorot", "", TUNED),
        Arm("lstm", "clipping, LSTM", "lstm", "glorot", "", TUNED),
    ),
    (
        Stage("core", CORE, LENGTHS, range(10), 30_000),
        Stage("kinds", KINDS, LENGTHS, range(5), 30_000),
        Stage("gated", GATED, LENGTHS[:2], range(5), 30_000),
        Stage("core", CORE, LENGTHS, range(10, 20), 30_000),
        Stage("kinds", KINDS, LENGTHS, range(5, 20), 30_000),
        Stage("far", ("clip+omega", "omega", "exact"), (250,), range(20), 30_000),
        Stage("core", CORE, LENGTHS, range(20), 100_000),
        Stage("gated", GATED, LENGTHS, range(20), 30_000),
        Stage("core", CORE, LENGTHS, range(20), 300_000),
        Stage("kinds", KINDS, LENGTHS, range(20), 300_000),
        Stage("far", ("clip+omega", "omega", "exact"), (250,), range(20), 300_000),
        Stage("gated", GATED, LENGTHS, range(20), 300_000),
    ),
    3,
    (
        Test("8a: with and without Omega", "clip+omega", "clip"),
        Test("8b: with and without clipping", "clip+omega", "omega"),
        Test("beside", "exact", "clip+omega"),
        Test("beside", "orthogonal", "clip"),
        Test("beside", "clip+omega", "orthogonal"),
        Test("beside", "clip+omega", "gru"),
        Test("beside", "clip+omega", "lstm"),
    ),
    {"tanh, smart_tanh": CORE, "other kinds": ("exact", "clip+omega", "orthogonal", *GATED)},
)

# Figure 7 of Pascanu, Mikolov, Bengio (2013).

CURES = {"sgd": "plain SGD", "clip": "clipping", "clip+omega": "clipping + Omega"}
RATES = {"paper": "the paper's rate", "tuned": "tuned"}


def _figure_arms() -> Iterator[Arm]:
    for init, cure, rate in itertools.product(("basic_tanh", "smart_tanh", "sigmoid"), CURES, RATES):
        plain = tuple(Setting(lr, None) for lr in (SGD_RATES if rate == "tuned" else (PAPER_LR,)))
        settings = plain if cure == "sgd" else TUNED if rate == "tuned" else PAPER
        cell, flow = ("sigmoid" if init == "sigmoid" else "tanh"), ("immediate" if "omega" in cure else "")
        yield Arm(f"{init} {cure} {rate}", f"{CURES[cure]}, {RATES[rate]}", cell, init, flow, settings)


def _named(inits: tuple[str, ...], cures: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(" ".join(parts) for parts in itertools.product(inits, cures, RATES))


TANH, BOTH = ("basic_tanh", "smart_tanh"), ("clip", "clip+omega")
MAIN, SIGMOID, PLAIN = _named(TANH, BOTH), _named(("sigmoid",), BOTH), _named(TANH, ("sgd",))
FIGURE_7 = Design(
    "Figure 7 of Pascanu, Mikolov, Bengio (2013)",
    _of(*_figure_arms()),
    (
        Stage("main", MAIN, LENGTHS, range(5), 30_000),
        Stage("plain", PLAIN, (50,), range(5), 30_000),
        Stage("sigmoid", SIGMOID, (50, 100), range(5), 30_000),
        Stage("main", MAIN, LENGTHS, range(5, 10), 30_000),
        Stage("plain", PLAIN, (50,), range(5, 10), 30_000),
        Stage("sigmoid", SIGMOID, (50, 100), range(5, 10), 30_000),
        Stage("far", _named(TANH, ("clip+omega",)), (250,), range(10), 30_000),
        Stage("main", MAIN, LENGTHS, range(10), 100_000),
        Stage("main", MAIN, LENGTHS, range(10), 500_000),
        Stage("plain", PLAIN, (50,), range(10), 500_000),
        Stage("sigmoid", SIGMOID, (50, 100), range(10), 500_000),
        Stage("far", _named(TANH, ("clip+omega",)), (250,), range(10), 500_000),
    ),
    4,
    (
        *(Test("Omega", f"{init} clip+omega {rate}", f"{init} clip {rate}") for init in TANH for rate in RATES),
        *(Test("rate", f"{init} {cure} tuned", f"{init} {cure} paper") for init in TANH for cure in BOTH),
    ),
    {init: _named((init,), tuple(CURES)) for init in (*TANH, "sigmoid")},
)
DESIGNS = {"span": SPAN, "figure_7": FIGURE_7}
