"""What the designs of scripts/reach.py take on this machine: updates are timed, and nothing is trained to its end."""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import reach_design as designs
from reach_design import Arm, Design
from rich.table import Table

import nbflow as nf
from nbflow.experiments.console import headed

# Steps of all sequences in a timing of an update.
TIMED_STEPS = 20_000
Cell = tuple[Arm, int]


class Cost(NamedTuple):
    """Core-hours of a stage at most, where no run is solved: of what it tunes first, and of its runs."""

    stage: str
    tuning: float
    runs: float


def cells_of(design: Design) -> tuple[Cell, ...]:
    """Return the arms and lengths of all stages, each once."""
    return tuple(dict.fromkeys(cell for stage in design.stages for cell in stage.cells(design.arms)))


def costs_of(design: Design, seconds: dict[Cell, float], tuning: int) -> list[Cost]:
    """Return what each stage takes, if an update takes these seconds and a run of tuning so many updates."""
    found, tuned = [], set[Cell]()
    for number, stage in enumerate(design.stages, 1):
        mine = list(stage.cells(design.arms))
        new = [cell for cell in mine if len(cell[0].settings) > 1 and cell not in tuned]
        tuned.update(new)
        settings = sum(seconds[cell] * len(cell[0].settings) for cell in new)
        runs = sum(seconds[cell] for cell in mine) * len(stage.seeds) * stage.updates
        seeds = f"seeds {stage.seeds.start}-{stage.seeds.stop - 1}"
        name = f"{number}: {stage.family}, {seeds}, {stage.updates:,} updates"
        found.append(Cost(name, settings * len(designs.TUNING_SEEDS) * tuning / 3600, runs / 3600))
    return found


def tables(seconds: dict[Cell, float], costs: Sequence[Cost]) -> tuple[Table, Table]:
    """Return what was timed, and what stages take."""
    lengths = sorted({length for _, length in seconds})
    arms = headed("Seconds of 1,000 updates, one thread", "arm", *(f"L = {length}" for length in lengths))
    for arm in dict.fromkeys(arm for arm, _ in seconds):
        some = (seconds.get((arm, length)) for length in lengths)
        arms.add_row(arm.name, *("-" if one is None else f"{1000 * one:.2f}" for one in some))
    stages = headed("Core-hours at most, where nothing is solved", "stage", "tuning", "runs")
    for one in costs:
        stages.add_row(one.stage, f"{one.tuning:.2f}", f"{one.runs:.2f}")
    return arms, stages


def timed(cells: Sequence[Cell], hidden: int) -> dict[Cell, float]:
    """Return processor seconds of an update of each arm and length, evaluations included: the least of three."""
    found = {}
    for arm, length in cells:
        updates = max(TIMED_STEPS // length, 1)
        one = arm.experiment(length, arm.settings[0], 4 * updates, hidden)
        marks: list[float] = []
        recipe = replace(one.recipe, record_every=updates, evaluate_every=0, stop_when_solved=False)
        nf.train(one.net, one.theta(0), one.task, recipe, callbacks=[functools.partial(_mark, marks)])
        before = time.process_time()
        nf.evaluate(one.net, one.theta(0), one.task, length=length, size=designs.EVALUATE_SIZE)
        evaluation = (time.process_time() - before) / designs.EVALUATE_EVERY
        found[arm, length] = min(b - a for a, b in itertools.pairwise(marks)) / updates + evaluation
    return found


def _mark(marks: list[float], run: nf.Run) -> None:
    marks.append(time.process_time())
