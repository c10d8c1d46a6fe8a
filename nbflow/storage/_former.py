"""What older versions wrote, in the names of today: all that is read of a store or of a checkpoint comes through here.

Files are left as they are. A score was called an error, whatever its unit, and stood without one; and what a task
counts as solved stood at 0.01, in bits or nats too. An optimizer's count was that of the updates, and nothing was left
out of a gradient, or counted that was clipped inside it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Units, by the names under which tasks of a user's data describe themselves.
UNITS = {"TextTask": "bits per character", "PianoRollTask": "nats per frame"}
# Fields of a recipe that came later, and what was done without them.
LATER: dict[str, Any] = {"carry": False, "trainable": None, "project": None, "noise": None}
# Where functions stood that a setting is known by.
MOVED = {
    "nbflow.task.": "nbflow.data.sampler.",
    "nbflow.flows.flossing.": "nbflow.regularizers.flossing.",
    "nbflow.flows.orthogonality.": "nbflow.regularizers.orthogonality.",
    "nbflow.flows.spectral_cap.": "nbflow.regularizers.spectral_cap.",
}


def row_of_today(row: dict[str, Any]) -> dict[str, Any]:
    """Return a line of a store; one that says nothing of an error is returned as it is."""
    evaluations = row.get("evaluations")
    if not isinstance(evaluations, dict) or "error" not in evaluations or "score" in row:
        return row
    kind = row.get("task.task")
    unit = "part wrong" if kind is None else UNITS.get(kind)
    return {**_renamed(row), "unit": unit, "evaluations": _renamed(evaluations)}


def run_of_today(
    arrays: dict[str, NDArray[Any]], facts: dict[str, Any]
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Return the arrays and the facts of a checkpoint of a training run."""
    if "counts" not in arrays and "theta" in arrays:
        arrays = {**arrays, "counts": np.full(len(arrays["theta"]), facts["updates"], np.int64)}
    for name, axis, columns, most in (("window/reports", 2, 3, 6), ("window/sums", 0, 8, 11)):
        found = arrays.get(name)
        if found is not None and found.ndim > axis and columns <= found.shape[axis] < most:
            missing = np.zeros_like(found.take([0] * (most - found.shape[axis]), axis))
            arrays = {**arrays, name: np.append(found, missing, axis)}
    if isinstance(facts.get("setting"), dict) and isinstance(facts["setting"].get("recipe"), dict):
        setting = facts["setting"]
        facts = {**facts, "setting": {**setting, "recipe": {**LATER, **setting["recipe"]}}}
    if "unit" in facts:
        return arrays, facts
    setting = _moved(facts["setting"])
    task, recipe = setting["task"], dict(setting["recipe"])
    synthetic = isinstance(task, dict) and "plan" in task
    facts = {
        **facts, "setting": {**setting, "recipe": recipe}, "evaluations": _renamed(facts["evaluations"]),
        "unit": "part wrong" if synthetic else UNITS.get(task["task"]) if _is_named(task) else None,
    }  # fmt: skip
    if not synthetic and recipe["solved_below"] == 0.01:
        # Nobody had asked for it, and a network that was below it by chance had solved nothing.
        several = not facts["single"]
        recipe["solved_below"] = None
        facts["first_passage"] = [None] * len(facts["first_passage"]) if several else None
        facts["stays_below"] = [False] * len(facts["stays_below"]) if several else False
    return {name.replace("evaluations/error", "evaluations/score"): array for name, array in arrays.items()}, facts


def _is_named(task: Any) -> bool:
    return isinstance(task, dict) and "task" in task


def _renamed(table: dict[str, Any]) -> dict[str, Any]:
    return {"score" if name == "error" else name: value for name, value in table.items()}


def _moved(thing: Any) -> Any:
    """Return what a setting says, with functions where they stand now."""
    if isinstance(thing, dict):
        return {name: _moved(value) for name, value in thing.items()}
    if isinstance(thing, list):
        return [_moved(value) for value in thing]
    if isinstance(thing, str):
        for old, new in MOVED.items():
            if thing.startswith(old):
                return new + thing.removeprefix(old)
    return thing
