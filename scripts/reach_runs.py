"""The runs of scripts/reach.py: where one stands, what a store knows of it, and how it is trained or goes on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import reach_design as designs
from generalization import hashed, text_of
from reach_design import Arm, Setting

import nbflow as nf
from nbflow.experiments import machine
from nbflow.experiments.code_version import code_version
from nbflow.experiments.jobs import Job, Watch, job
from nbflow.storage.compact import acted
from nbflow.storage.store import Row, Store

# The fresh sequences that a network is measured on in the end are of other seeds than those of its evaluations.
FINAL_SEED = 2**32


class Place(NamedTuple):
    """Where a run stands: all that it is but its budget."""

    arm: Arm
    length: int
    setting: Setting
    seed: int

    def way(self, hidden: int) -> str:
        """Return a name for it; of facts alone, so that arms of two designs that are the same share their runs."""
        arm, setting = self.arm, self.setting
        evaluated = [designs.EVALUATE_EVERY, designs.EVALUATE_SIZE, designs.SOLVED]
        return hashed([designs.TASK, arm.cell, arm.init, arm.flow, designs.ALPHA, setting.lr, setting.threshold,
                       self.length, hidden, designs.BATCH, *evaluated, self.seed])  # fmt: skip


class Known:
    """The runs of a store, by what they are."""

    def __init__(self, rows: Iterable[Row], hidden: int) -> None:
        self.hidden = hidden
        self.rows: dict[str, list[Row]] = {}
        for row in rows:
            if row.get("kind") == "run":
                self.rows.setdefault(row["way"], []).append(row)

    def of(self, place: Place, updates: int) -> Row | None:
        """Return the run of a place within a budget, None if it is not there; "passage" is None for unsolved then."""
        found = self.rows.get(place.way(self.hidden), [])
        solved = [row for row in found if row["first_passage"] is not None]
        whole = solved or [row for row in found if row["most"] >= updates]
        if not whole:
            return None
        row = min(whole, key=lambda row: row["most"])
        passage = row["first_passage"]
        return {**row, "passage": passage if passage is not None and passage <= updates else None}


def training(store: Store, hidden: int, stage: str, place: Place, updates: int) -> Job:
    """Return the training of a place; what is known by its way goes on with what an earlier budget has left."""
    way = place.way(hidden)
    return job(store, hashed([way, updates]), stage, updates, (place, updates, hidden), way)


def learn(job: Job, watch: Watch) -> Row | None:
    """Train until solved or until the budget ends, or go on with it; called in a worker."""
    place, updates, hidden = job.what
    arm, length, setting, seed = place
    one = arm.experiment(length, setting, updates, hidden)
    left = job.path.with_suffix(".left")
    if not job.path.exists() and left.exists():
        copied(left, job.path)
    run = nf.train(one.net, one.theta(seed), one.task, one.recipe, replica_ids=[seed], callbacks=[watch],
                   checkpoint=job.path)  # fmt: skip
    solved = run.first_passage is not None
    if run.interrupted or (run.updates < updates and not solved):
        return None
    if solved:
        left.unlink(missing_ok=True)
    else:
        copied(job.path, left)
    scores = [score for score in run.evaluations["score"] if score is not None]
    score = nf.evaluate(one.net, run.theta, one.task, length=length, size=designs.FINAL_SIZE, seed=FINAL_SEED + seed)
    return {
        "kind": "run", "way": place.way(hidden), "cell": arm.cell, "init": arm.init, "flow": arm.flow,
        "length": length, "lr": setting.lr, "threshold": setting.threshold, "n_hidden": hidden, "seed": seed,
        "code": code_version(), "processor": machine.processor(), "most": updates, "updates": run.updates,
        "seconds": run.seconds, "first_passage": run.first_passage, "best_score": min(scores, default=None),
        "wrong": round(score * designs.FINAL_SIZE), "of": designs.FINAL_SIZE, "clipped": acted(run.history),
        **({"theta": text_of(run.theta)} if seed < designs.KEPT_SEEDS else {}),
    }  # fmt: skip


def copied(path: Path, to: Path) -> None:
    """Copy a checkpoint, whole or not at all."""
    beside = to.with_name(f"{to.name}.copy")
    shutil.copyfile(path, beside)
    os.replace(beside, to)
