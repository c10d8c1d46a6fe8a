"""The design of scripts/random_steps.py: tasks, settings, how the best is found, and what was found of a task.

All that decides an outcome is named here or, margins and tests, in random_steps_report.py, before any run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ways_to_clip_design import PLANS as PLANS

import nbflow as nf
from nbflow.storage.store import Row

# Learning rates: the four in the middle for every variant, those beyond where the best of a method is at an end.
RATES = (0.0013, 0.0044, 0.015, 0.05, 0.17, 0.6, 2.0, 7.0)
FIRST = RATES[2:6]
# Evaluations of a run: the grain of its first passage.
LOOKS = 50
BATCH = 20
# Seeds are numbers of replicas. Fresh ones count from 0; these are never among them.
TUNING_SEEDS, LOOK_SEEDS = range(1_000_000, 1_000_003), (2_000_000, 2_000_001)
# Unclipped training that is looked at: its sequences are of another seed of the task.
LOOK_LR, LOOK_UPDATES, LOOK_SEED = 0.1, 1_000, 1

PERCENTS = (90, 99)
TRIGGERS = {**{f"{p} % percentile": p for p in PERCENTS}, "the greatest": "greatest", "ten means": "ten_means"}
STEPS = ("the trigger", "the median", "a tenth of it")
METHODS = {"norm": "clipping by norm", "random": "random step", "none": "no clip"}
REFERENCE = "norm"
# A gradient that is not finite is left out by all.
BAD = "skip"


@dataclass
class Setting:
    """A variant of a method at a learning rate, and the tuning runs that it has had.

    Attributes
    ----------
    name : str
        Of the variant.
    """

    name: str
    method: str
    lr: float
    experiment: nf.Experiment
    rows: list[Row] = field(default_factory=list)


@dataclass
class Study:
    """One task.

    Attributes
    ----------
    seen : dict of float
        Norms of unclipped training: median, greatest, ten_means.
    settings : list of Setting
        All that were tuned.
    fresh : dict of list of rows
        By method.
    """

    plan: Any
    updates: int
    seen: dict[str, float] = field(default_factory=dict)
    settings: list[Setting] = field(default_factory=list)
    fresh: dict[str, list[Row]] = field(default_factory=dict)

    def costs(self, rows: Sequence[Row]) -> list[float]:
        """Return updates until solved, the whole budget where unsolved."""
        return [float(self.updates if row.get("first_passage") is None else row["first_passage"]) for row in rows]

    def best(self, **fields: str) -> Setting:
        """Return the best setting of a method, `method=`, or of a variant, `name=`."""
        mine = [one for one in self.settings if all(getattr(one, key) == value for key, value in fields.items())]
        return min(mine, key=lambda one: self.score(one.rows))

    def chosen(self, method: str) -> Setting:
        """Return the setting of a method that fresh seeds are trained at."""
        return self.best(method=method)

    def rates(self, name: str) -> list[float]:
        """Return the learning rates that a variant was tried at, ascending."""
        return sorted(one.lr for one in self.settings if one.name == name)

    def at_an_end(self, setting: Setting) -> bool:
        """Tell whether a better rate may lie beyond those that were tried."""
        tried = self.rates(setting.name)
        return setting.lr in (tried[0], tried[-1])

    def score(self, rows: Sequence[Row]) -> tuple[float, ...]:
        """Return what the best setting has least of: unsolved runs, mean updates, mean last error."""
        errors = [row.get("score") for row in rows]
        last = float(np.mean([math.inf if e is None or not math.isfinite(e) else e for e in errors]))
        return -float(solved_of(rows)), float(np.mean(self.costs(rows))), last


def solved_of(rows: Sequence[Row]) -> int:
    return sum(row.get("first_passage") is not None for row in rows)


def variants(seen: dict[str, float]) -> dict[str, tuple[str, nf.Clip]]:
    """Return method and clip of every variant by its name."""
    parts = {"the median": seen["median"], "a tenth of it": rounded(seen["median"] / 10)}
    found = {}
    for trigger, what in TRIGGERS.items():
        threshold: Any = seen[what] if isinstance(what, str) else nf.load_threshold("percentile", percent=what)
        for step in STEPS:
            found[f"{trigger}, {step}"] = "random", nf.Clip("random", threshold, BAD, length=parts.get(step))
    for step, value in parts.items():
        found[f"norm, {step}"] = "norm", nf.Clip("norm", value, BAD)
    return {**found, "none": ("none", nf.Clip("norm", math.inf, BAD))}


def rounded(value: float) -> float:
    return float(f"{value:.4g}")


def beyond(study: Study) -> list[tuple[str, float]]:
    """Return the variants, each with a learning rate, to try next: the best of a method at an end of its rates."""
    found = []
    for method in METHODS:
        best = study.chosen(method)
        tried, k = study.rates(best.name), RATES.index(best.lr)
        step = (best.lr == tried[-1]) - (best.lr == tried[0])
        if step and 0 <= k + step < len(RATES):
            found.append((best.name, RATES[k + step]))
    return found


def next_seed(settings: Sequence[Setting]) -> tuple[list[Setting], int]:
    """Return the settings that are trained next, and with which seed; none if nothing is open.

    A setting is open as long as it can be its method's best. Those go first that may yet solve most seeds, of these
    those that have had fewest. So the best is the one that all runs of all settings would show.
    """
    best = {method: max((solved_of(one.rows) for one in settings if one.method == method), default=0)
            for method in METHODS}  # fmt: skip
    left = [(solved_of(one.rows) + len(TUNING_SEEDS) - len(one.rows), -len(one.rows), one) for one in settings]
    left = [some for some in left if -some[1] < len(TUNING_SEEDS) and some[0] >= best[some[2].method]]
    if not left:
        return [], 0
    first = max(some[:2] for some in left)
    return [some[2] for some in left if some[:2] == first], TUNING_SEEDS[-first[1]]
