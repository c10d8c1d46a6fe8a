"""The design of scripts/ways_to_clip.py: tasks, variants, what thresholds are quantiles of, what is tuned and how.

All that decides an outcome is named here, before any run.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import nbflow as nf
from nbflow.data import read_piano_rolls
from nbflow.experiments.console import uninterrupted

Row = dict[str, Any]
Place = tuple[int, int]

# The score below which a run is solved: for music of no meaning, but the runs in results/ are known by it.
SOLVED = 0.01
# Evaluations of a run in tuning, evenly spread, and how many sequences each is of.
LOOKS, TUNING_SIZE = 60, 500
# In the comparison the median updates until solved are known to a part of them: of clipping by norm, one in so many.
GRAIN = 10
# Learning rates of the first grid: the least, the greatest, how many, evenly spread in their logarithm. One whose
# threshold does nothing else than multiply the rate, or that has none, has a longer and finer line of rates alone.
LRS, LINE = (0.025, 3.2, 8), (0.0025, 3.2, 16)
# Thresholds of the first grid: from a part of a low quantile, over unclipped updates, of what the variant measures
# (`measures`), to a high one. What explodes need not be what is largest, as with the ratios of units: hence the part.
LOW, LOWER, HIGH, THRESHOLDS = 0.1, 0.1, 0.9, 6
# Unclipped training that is looked at for the quantiles: its learning rate, its updates, and the grain.
LOOK_LR, LOOK_UPDATES, LOOK_EVERY = 0.1, 1_000, 10
# Seeds are numbers of replicas. Fresh ones count from 0; these are never among them.
TUNING_SEEDS, LOOK_SEEDS = range(1_000_000, 1_000_010), range(2_000_000, 2_000_002)
MOST_SEEDS = TUNING_SEEDS[0]
# Sequences in an update, and in a microbatch.
BATCH, MICROBATCH = 20, 5
LEAST_WEIGHT_NORM = 1e-3  # of a unit, as in clipping by unit (Brock et al. 2021)


class Round(NamedTuple):
    """A round of a race: every setting left is run with so many seeds to a part of the budget, and the best stay."""

    seeds: int
    budget: float
    stay: int


# Music differs little from seed to seed.
ROUNDS = (Round(1, 0.25, 8), Round(3, 1.0, 3), Round(10, 1.0, 1))
MUSIC_ROUNDS = (Round(1, 0.25, 8), Round(2, 1.0, 3), Round(5, 1.0, 1))


@dataclass(frozen=True)
class Plan:
    """A task and how it is trained.

    Attributes
    ----------
    tuned_on, tested_on : str or Task
        Differ for music alone: the pieces held out for tuning are not those of the test.
    updates : int
        Most updates of a run, at budget 1.
    """

    name: str
    title: str
    tuned_on: Any
    tested_on: Any
    length: int
    init: str
    updates: int
    is_music: bool = False

    @property
    def rounds(self) -> tuple[Round, ...]:
        return MUSIC_ROUNDS if self.is_music else ROUNDS

    @property
    def trivial(self) -> float:
        """The error of whoever remembers nothing, or nats per frame of whoever knows the frequencies of notes."""
        task = nf.load_task(self.tested_on) if isinstance(self.tested_on, str) else self.tested_on
        return float(task.trivial(self.length).score)


def _synthetic(name: str, title: str, task: str, length: int, init: str, updates: int) -> Plan:
    return Plan(name, title, task, task, length, init, updates)


# Sizes are such that clipping by norm solves each at a good learning rate, in less than a third of the budget.
PLANS = {
    plan.name: plan
    for plan in (
        _synthetic("temporal_order_20", "temporal order, 20 steps", "temporal_order", 20, "smart_tanh", 2_000),
        _synthetic("temporal_order_40", "temporal order, 40 steps", "temporal_order", 40, "smart_tanh", 8_000),
        _synthetic("addition_10", "addition, 10 steps", "addition", 10, "basic_tanh", 10_000),
        _synthetic("memorization_10", "five bits, 10 blanks", "memorization_5bit", 10, "smart_tanh", 6_000),
    )
}
MUSIC = "music"
TASKS = (*PLANS, MUSIC)


def music(path: Path) -> Plan:
    """Return the plan for a file of piano rolls: tuned on its validation pieces, tested on its test pieces."""
    rolls = read_piano_rolls(path)
    return music_of(path.stem, rolls.task("valid"), rolls.task("test"))


def music_of(title: str, valid: Any, test: Any) -> Plan:
    """Return the plan for piano rolls of this name."""
    return Plan(f"{MUSIC}_{title}", f"piano rolls ({title})", valid, test, 50, "smart_tanh", 1_500, is_music=True)


@dataclass(frozen=True)
class Variant:
    """A way of clipping.

    Attributes
    ----------
    measure : str
        Which of `measures` its threshold is a quantile of, or which of `GRIDS` it is within; "" for none.
    fields : function of the threshold
        Returns what stands in the recipe.
    scales : bool
        Whether the threshold only multiplies the learning rate: it stays in the middle, and the rate alone is tuned.
    above : float
        What thresholds are above: the grid is even in the logarithm of what they are more.
    """

    title: str
    measure: str
    fields: Callable[[float], dict[str, Any]]
    scales: bool = False
    above: float = 0.0

    @property
    def has_line(self) -> bool:
        """Whether the learning rate alone is tuned."""
        return self.scales or not self.measure

    @property
    def is_of_gradient(self) -> bool:
        """Whether it clips the gradient itself: of others a history says something else under "clipped"."""
        return set(self.fields(1.5)) == {"clip"}


# A gradient that is not finite is left out by every variant, the one without clipping too: only the clip differs.
BAD = "skip"


def _of_gradient(rule: str) -> Callable[[float], dict[str, Any]]:
    return lambda v: {"clip": nf.Clip(rule, v, nonfinite=BAD)}


def _of_hidden(site: str, by: str) -> Callable[[float], dict[str, Any]]:
    return lambda v: {"clip_hidden": nf.HiddenClip(v, site=site, by=by), "clip": nf.Clip("norm", math.inf, BAD)}


VARIANTS = {
    "norm": Variant("norm", "norm", _of_gradient("norm")),
    "none": Variant("none", "", lambda v: {"clip": nf.Clip("norm", math.inf, BAD)}),
    "value": Variant("value", "entry", _of_gradient("value")),
    "block": Variant("each array", "array", _of_gradient("block")),
    "unit": Variant("each unit", "unit", _of_gradient("unit")),
    "normalize": Variant("normalize", "norm", _of_gradient("normalize"), scales=True),
    "random": Variant("random step", "norm", _of_gradient("random")),
    "hidden_preactivation_value": Variant("inside, preact., value", "preactivation_value",
                                          _of_hidden("preactivation", "value")),
    "hidden_preactivation_norm": Variant("inside, preact., norm", "preactivation_norm",
                                         _of_hidden("preactivation", "norm")),
    "hidden_state_value": Variant("inside, state, value", "state_value", _of_hidden("state", "value")),
    "hidden_state_norm": Variant("inside, state, norm", "state_norm", _of_hidden("state", "norm")),
    "example": Variant("each example", "example",
                       lambda v: {"clip_example": v, "clip": nf.Clip("norm", math.inf, BAD)}),
    "microbatch": Variant(f"groups of {MICROBATCH}", "microbatch",
                          lambda v: {"clip_microbatch": (MICROBATCH, v), "clip": nf.Clip("norm", math.inf, BAD)}),
}  # fmt: skip
REFERENCE = "norm"
# What is tuned of AdaGC and SPAM has no unit, so these grids are no quantiles of anything: around the sources' 1.05 and
# 5,000, and where a network of this size has a spike now and then. Of AdaGC it is what the threshold is above 1.
GRIDS = {"adagc": (0.02, 3.0), "spam": (4.0, 5000.0)}
ADAGC_FIRST = 1.0  # of its warm-up, as in the source


def _of_adagc(v: float) -> dict[str, Any]:
    return {"clip": nf.Clip(nf.load_rule("adagc", relative=v), ADAGC_FIRST, BAD)}


VARIANTS |= {
    "smoothed": Variant("smoothed", "norm", _of_gradient("smoothed")),
    "error_feedback": Variant("error feedback", "norm", _of_gradient("error_feedback")),
    "adagc": Variant("AdaGC", "adagc", _of_adagc, above=1.0),
    "spam": Variant("SPAM's spikes", "spam", _of_gradient("spam")),
}


# What a variant measures.


def measures(net: nf.Network, theta: Any, batch: nf.Batch) -> dict[str, float]:
    """Return what each variant holds against its threshold in one update of a tanh network: a joint norm, or `half`."""
    found = nf.gradient(net, theta, batch, clip_example=math.inf)
    groups = nf.gradient(net, theta, batch, clip_microbatch=(MICROBATCH, math.inf))
    at_state, at_preactivation = hidden(net, theta, batch)
    d = np.float64(found.d_theta)
    arrays = _parts(net, found.d_theta)
    units, ratios = map(np.concatenate, zip(*map(_of_units, arrays, _parts(net, theta)), strict=True))
    return {
        "norm": float(np.linalg.norm(d)),
        "entry": half(d),
        "array": half([np.linalg.norm(part) for part in arrays]),
        "unit": half(ratios, units),
        "state_value": half(at_state),
        "state_norm": half(np.linalg.norm(at_state, axis=-1)),
        "preactivation_value": half(at_preactivation),
        "preactivation_norm": half(np.linalg.norm(at_preactivation, axis=-1)),
        "example": half(found.example_norms),
        "microbatch": half(groups.example_norms),
    }


def half(values: Any, lengths: Any = None) -> float:
    """Return the value above which, and at which, lie half of the squared lengths, by default of the values themselves.

    A variant that looks at groups (entries, arrays, units, vectors, examples) with this threshold clips those that make
    half of the gradient: not only the largest, nor the many that are next to nothing.
    """
    v = np.abs(np.float64(values)).ravel()
    squares = (v if lengths is None else np.float64(lengths).ravel()) ** 2
    order = np.argsort(-v)
    above = np.cumsum(squares[order])
    return float(v[order][np.searchsorted(above, above[-1] / 2)]) if np.isfinite(above[-1]) else math.nan


def hidden(net: nf.Network, theta: Any, batch: nf.Batch) -> tuple[Any, Any]:
    """Return the back-propagated vectors (T, B, H) at the states and at the pre-activations of a tanh network."""
    traced = nf.trace(net, theta, batch)
    at_state = np.float64(traced.delta[1:, :, 0])
    return at_state, at_state * (1 - np.float64(traced.states[1:, :, 0]) ** 2)


def _parts(net: nf.Network, theta: Any) -> list[Any]:
    return [np.float64(part) for part in nf.unpack(net, theta) if part.size]


def _of_units(d: Any, w: Any) -> tuple[Any, Any]:
    """Return norms of the gradients of units' incoming weights, and over those of the weights; biases are one unit."""
    rows = len(d) if d.ndim == 3 or (d.ndim == 2 and len(d) > 1) else d.size
    norms, sizes = (np.linalg.norm(part.reshape(rows, -1), axis=0) for part in (d, w))
    return norms, norms / np.maximum(sizes, LEAST_WEIGHT_NORM)


def unclipped(plan: Plan, hidden: int) -> nf.Experiment:
    """Return the training whose gradients are looked at."""
    recipe = nf.Recipe(lr=LOOK_LR, batch_size=BATCH, lengths=plan.length, max_updates=LOOK_UPDATES,
                       record_every=LOOK_EVERY, evaluate_every=0, clip=nf.Clip("norm", math.inf, BAD),
                       solved_below=SOLVED)  # fmt: skip
    return nf.Experiment(plan.tuned_on, recipe, n_hidden=hidden, init=plan.init)


def look(one: nf.Experiment, seed: int) -> dict[str, list[float]]:
    """Train without a clip, and return every measure at every look, on a fresh batch."""
    found: dict[str, list[float]] = {}
    task = nf.load_task(one.task) if isinstance(one.task, str) else one.task

    def watch(run: nf.Run) -> None:
        batch = task.sample(seed=seed, index=run.updates, batch_size=BATCH, length=one.recipe.length_range[1])
        for name, value in measures(one.net, run.theta[0], batch).items():
            found.setdefault(name, []).append(value)

    theta = one.theta(seed)[None]
    uninterrupted(nf.train(one.net, theta, one.task, one.recipe, replica_ids=[seed], callbacks=[watch]))
    return found


def ranges(looks: Iterable[dict[str, list[float]]]) -> dict[str, tuple[float, float]]:
    """Return the least and greatest threshold of the first grid for every measure; what is not finite is left out."""
    joined: dict[str, list[float]] = {}
    for seen in looks:
        for name, values in seen.items():
            joined.setdefault(name, []).extend(v for v in values if v is not None and math.isfinite(v))
    found = {name: np.quantile(values, (LOW, HIGH)) for name, values in joined.items()}
    return GRIDS | {name: (float(LOWER * low), float(high)) for name, (low, high) in found.items()}


# What is tuned.


class Line(NamedTuple):
    """Numbers evenly spread in their logarithm, which go on beyond both ends."""

    first: float
    last: float
    number: int
    above: float = 0.0

    def value(self, k: int) -> float:
        """Return the k-th number, to four digits; k may be below 0, or number and more."""
        part = k / (self.number - 1) if self.number > 1 else 0.0
        return float(f"{self.above + self.first * (self.last / self.first) ** part:.4g}")


class Grid(NamedTuple):
    """Learning rates and thresholds; a place is the number of each."""

    lrs: Line
    thresholds: Line

    def places(self) -> list[Place]:
        return list(itertools.product(range(self.lrs.number), range(self.thresholds.number)))

    def setting(self, place: Place) -> tuple[float, float]:
        return self.lrs.value(place[0]), self.thresholds.value(place[1])

    def neighbours(self, place: Place) -> list[Place]:
        """Return the places one step away, diagonals included; where there is one threshold, along the rates."""
        steps = (-1, 0, 1) if self.thresholds.number > 1 else (0,)
        every = itertools.product((-1, 0, 1), steps)
        return [(place[0] + i, place[1] + j) for i, j in every if (i, j) != (0, 0)]

    def is_inside(self, place: Place) -> bool:
        """Tell whether a place is one of the first grid, and not at an end of it."""
        ends = [line.number - 1 for line in self if line.number > 1]
        return all(0 < k < end for k, end in zip(place, ends, strict=False))


def grid(variant: Variant, found: Mapping[str, tuple[float, float]]) -> Grid:
    """Return the first grid of a variant."""
    if not variant.measure:
        return Grid(Line(*LINE), Line(math.inf, math.inf, 1))
    low, high = found[variant.measure]
    if variant.scales:
        return Grid(Line(*LINE), Line(math.sqrt(low * high), high, 1))
    return Grid(Line(*LRS), Line(low, high, THRESHOLDS, variant.above))


class Scale(NamedTuple):
    """How long a run may take, how often and on how many sequences it is evaluated, and H."""

    updates: int
    every: int
    evaluate_size: int
    hidden: int


def experiment(plan: Plan, variant: Variant, setting: tuple[float, float], scale: Scale, *,
               tuning: bool) -> nf.Experiment:  # fmt: skip
    """Return what is trained; music is evaluated at the end alone."""
    recipe = nf.Recipe(
        lr=setting[0], batch_size=BATCH, lengths=plan.length, max_updates=scale.updates,
        record_every=max(scale.updates // 5, 1), evaluate_every=scale.updates if plan.is_music else scale.every,
        evaluate_size=scale.evaluate_size, solved_below=SOLVED, stop_when_solved=not plan.is_music,
        **variant.fields(setting[1]),
    )  # fmt: skip
    task = plan.tuned_on if tuning else plan.tested_on
    return nf.Experiment(task, recipe, n_hidden=scale.hidden, init=plan.init)


def score(plan: Plan, rows: Sequence[Row], updates: int) -> tuple[float, ...]:
    """Return what the best setting of a variant has least of.

    The greatest part of runs solved; then the least mean of updates to the first passage, unsolved ones counting as the
    whole budget; then the least last error. For music the mean held-out loss. What diverged or failed is infinite.
    """
    errors = [row.get("score") for row in rows]
    last = float(np.mean([math.inf if e is None or not math.isfinite(e) else e for e in errors]))
    if plan.is_music:
        return (last,)
    passages = [row.get("first_passage") for row in rows]
    return (
        -float(np.mean([at is not None for at in passages])),
        float(np.mean([updates if at is None else at for at in passages])),
        last,
    )


def cheapest(experiments: dict[str, nf.Experiment], *, updates: int, rounds: int) -> dict[str, float]:
    """Return processor seconds of an update by name: the least of several rounds, in which all take turns."""
    found = dict.fromkeys(experiments, math.inf)
    for _, (name, one) in itertools.product(range(rounds), experiments.items()):
        found[name] = min(found[name], _seconds(one, updates))
    return found


def _seconds(one: nf.Experiment, updates: int) -> float:
    """Return the seconds of an update, without the start and the first ones."""
    marks: list[float] = []
    recipe = dataclasses.replace(one.recipe, max_updates=2 * updates, record_every=updates, evaluate_every=0,
                                 stop_when_solved=False)  # fmt: skip
    nf.train(one.net, one.theta(0), one.task, recipe, callbacks=[lambda run: marks.append(time.process_time())])
    return (marks[1] - marks[0]) / updates
