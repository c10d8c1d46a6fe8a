"""The design of scripts/compare_clipping.py: tasks, variants, what thresholds are quantiles of, what is tuned and how.

All that decides an outcome is named here, before any run.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ways_to_clip_design import Plan, measures

import nbflow as nf
from nbflow.data import read_piano_rolls
from nbflow.experiments.console import uninterrupted

Row = dict[str, Any]

# Evaluations of a run, evenly spread: the grain of a first passage is a fiftieth of the budget.
LOOKS = 50
# The score below which a run is solved: for music of no meaning, but the runs in results/ are known by it.
SOLVED = 0.01
# The learning rates of a variant with a threshold. One without gets as many settings from its learning rate alone, and
# smaller ones, since nothing else makes its steps shorter.
LRS, LEAST_LR = (0.05, 0.17, 0.6, 2.0), 0.01
# Of one whose threshold shortens next to nothing: a step lower.
LOW_LRS = (0.015, *LRS[:-1])
# Thresholds are these quantiles, over unclipped updates, of what the variant measures (`measures`), and a part of the
# lowest: what explodes need not be what is largest, as with the ratios of units, and must be within reach as well.
LEVELS, LOWER = (0.1, 0.5, 0.9), 0.1
# The same for thresholds that few gradients exceed, or none: higher quantiles, and a multiple of the greatest.
RARE_LEVELS, UPPER = (0.95, 0.99, 1.0), 10.0
# Unclipped training that is looked at for the quantiles: its learning rate, its updates, and the grain.
LOOK_LR, LOOK_UPDATES, LOOK_EVERY = 0.1, 1_000, 10
# Seeds are numbers of replicas. Fresh ones count from 0; these are never among them.
TUNING_SEEDS, LOOK_SEEDS = range(1_000_000, 1_000_003), range(2_000_000, 2_000_002)
MOST_SEEDS = TUNING_SEEDS[0]
# Sequences in an update, and in a microbatch.
BATCH, MICROBATCH = 20, 5
LEAST_WEIGHT_NORM = 1e-3  # of a unit, as in clipping by unit (Brock et al. 2021)


def _synthetic(name: str, title: str, task: str, length: int, init: str, updates: int) -> Plan:
    return Plan(name, title, task, task, length, init, updates)


# Sizes are such that clipping by norm solves each within the budget at a good learning rate.
PLANS = {
    plan.name: plan
    for plan in (
        _synthetic("temporal_order_20", "temporal order, 20 steps", "temporal_order", 20, "smart_tanh", 4_000),
        _synthetic("temporal_order_40", "temporal order, 40 steps", "temporal_order", 40, "smart_tanh", 12_000),
        _synthetic("addition_10", "addition, 10 steps", "addition", 10, "basic_tanh", 15_000),
        _synthetic("memorization_10", "five bits, 10 blanks", "memorization_5bit", 10, "smart_tanh", 8_000),
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
    return Plan(MUSIC, f"piano rolls ({title})", valid, test, 50, "smart_tanh", 1_500, is_music=True)


@dataclass(frozen=True)
class Variant:
    """A way of clipping.

    Attributes
    ----------
    measure : str
        Which of `measures` its threshold is a quantile of, or which of `GRIDS` it is one of; "" for none.
    fields : function of the threshold
        Returns what stands in the recipe.
    scales : bool
        Whether the threshold only multiplies the learning rate: then it is the median, and the rate is tuned finely.
    lrs : tuple of float
        The learning rates to try, for a variant with a threshold.
    """

    title: str
    measure: str
    fields: Callable[[float], dict[str, Any]]
    scales: bool = False
    lrs: tuple[float, ...] = LRS


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
# The thirteen that are compared unless others are named. After them came one that replaces few gradients or none, and
# rules since 2023.
DEFAULT = tuple(VARIANTS)
VARIANTS["random_rare"] = Variant("random step, rarely", "norm_rare", _of_gradient("random"), lrs=LOW_LRS)
# Rules since 2023. What is tuned of AdaGC and SPAM has no unit, so these are no quantiles of anything: around the
# sources' 1.05 and 5,000, and where a network of this size has a spike now and then.
GRIDS = {"adagc": (1.02, 1.05, 1.5, 4.0), "spam": (4.0, 25.0, 400.0, 5000.0)}
ADAGC_FIRST = 1.0  # of its warm-up, as in the source


def _of_adagc(v: float) -> dict[str, Any]:
    return {"clip": nf.Clip(nf.load_rule("adagc", relative=v), ADAGC_FIRST, BAD)}


VARIANTS |= {
    "smoothed": Variant("smoothed", "norm", _of_gradient("smoothed")),
    "error_feedback": Variant("error feedback", "norm", _of_gradient("error_feedback")),
    "adagc": Variant("AdaGC", "adagc", _of_adagc),
    "spam": Variant("SPAM's spikes", "spam", _of_gradient("spam")),
}


# What a variant measures.


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


def thresholds(looks: Iterable[dict[str, list[float]]]) -> dict[str, list[float]]:
    """Return what to try for every measure, to four digits, ascending; what is not finite in the looks is out."""
    joined: dict[str, list[float]] = {}
    for seen in looks:
        for name, values in seen.items():
            joined.setdefault(name, []).extend(v for v in values if v is not None and math.isfinite(v))
    quantiles = {name: np.quantile(values, LEVELS) for name, values in joined.items()}
    found = {name: [LOWER * q[0], *q] for name, q in quantiles.items()}
    rare = np.quantile(joined["norm"], RARE_LEVELS)
    found["norm_rare"] = [*rare, UPPER * rare[-1]]
    found |= {name: list(grid) for name, grid in GRIDS.items()}
    return {name: [float(f"{v:.4g}") for v in values] for name, values in found.items()}


# What is tuned.


def settings(variant: Variant, found: dict[str, list[float]]) -> list[tuple[float, float]]:
    """Return learning rates and thresholds to try: as many for every variant."""
    if variant.measure and not variant.scales:
        return list(itertools.product(variant.lrs, found[variant.measure]))
    fine = np.geomspace(LEAST_LR, LRS[-1], len(LRS) * (len(LEVELS) + 1))
    threshold = found[variant.measure][1 + len(LEVELS) // 2] if variant.measure else math.inf
    return [(float(f"{lr:.3g}"), threshold) for lr in fine]


def at_an_end(variant: Variant, lr: float) -> bool:
    """Tell whether a learning rate is the smallest or the largest that was tried."""
    fine = not variant.measure or variant.scales
    return lr in ((LEAST_LR, LRS[-1]) if fine else (variant.lrs[0], variant.lrs[-1]))


def experiment(plan: Plan, variant: Variant, lr: float, threshold: float, *, budget: float, hidden: int,
               evaluate_size: int, tuning: bool) -> nf.Experiment:  # fmt: skip
    """Return what is trained."""
    updates = max(round(plan.updates * budget), LOOKS)
    recipe = nf.Recipe(
        lr=lr, batch_size=BATCH, lengths=plan.length, max_updates=updates, record_every=max(updates // 5, 1),
        evaluate_every=updates if plan.is_music else updates // LOOKS, evaluate_size=evaluate_size,
        solved_below=SOLVED, stop_when_solved=not plan.is_music, **variant.fields(threshold),
    )  # fmt: skip
    task = plan.tuned_on if tuning else plan.tested_on
    return nf.Experiment(task, recipe, n_hidden=hidden, init=plan.init)
