"""Where a run begins that goes on from another one: its parameters, moments and count, with another recipe."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from nbflow.data.synthetic import Task
from nbflow.storage import _checkpoint as checkpoint
from nbflow.training._carry import StreamBatches
from nbflow.training._identity import describe
from nbflow.training.resume import best_of, difference, hash_of, read_run

if TYPE_CHECKING:
    from nbflow.training._loop import Loop


class Start:
    """A checkpoint of another run, checked against the loop that is to go on from it.

    It may be gone, or be further, when the branch goes on from a checkpoint of its own.
    """

    def __init__(self, path: Any, loop: Loop) -> None:
        self.path, self.saved, self.missing = path, None, None
        try:
            self.saved = read_run(path, "start_from")
        except FileNotFoundError as error:
            self.missing = error
            return
        setting, theta = self.saved.facts["setting"], self.saved.arrays["theta"]
        wanted = {"net": describe(loop.net), "single": loop.single, "optimizer": describe(loop.recipe.optimizer)}
        there = {"net": setting["net"], "single": setting["single"], "optimizer": setting["recipe"]["optimizer"]}
        other = difference(there, wanted)
        if not other and theta.shape != loop.theta.shape:
            other = f"theta has shape {theta.shape} there and {loop.theta.shape} here"
        if other:
            raise ValueError(
                f"start_from is {str(path)!r}, a run of another kind: {other}; expected the same network, replicas and "
                f"optimizer. Begin anew from theta=nbflow.load_run(start_from).theta."
            )
        # All that makes the other run what it is, and not how far it has come.
        text = json.dumps({name: value for name, value in setting.items() if name != "code"}, sort_keys=True)
        self.known_by = hashlib.sha256(text.encode()).hexdigest()

    def go(self, loop: Loop) -> dict[str, Any]:
        """Put a loop where the other run is; return what its setting says of that."""
        if self.saved is None:
            raise self.missing or AssertionError
        arrays, facts = self.saved
        updates, recipe = facts["updates"], facts["setting"]["recipe"]
        if loop.recipe.max_updates < updates:
            raise ValueError(
                f"max_updates is {loop.recipe.max_updates}; expected at least {updates}, which start_from has done: "
                f"updates are counted on from there. Give more."
            )
        began, now = facts["setting"]["theta"], hash_of(arrays["theta"])
        self._check_theta(hash_of(loop.theta), began, now)
        # Sums for a row of the history are of the other recipe.
        rooms = {name: room for name, room in loop.state().items() if not name.startswith("window/")}
        if "memory" in rooms and describe(loop.clip.threshold) != (recipe["clip"] or {}).get("threshold"):
            del rooms["memory"]  # which another threshold could not read
        if describe(loop.clip.rule) != (recipe["clip"] or {}).get("rule"):
            rooms = {name: room for name, room in rooms.items() if not name.startswith("clip/")}
        by_groups = ("clip_example", "clip_microbatch")
        if any(describe(getattr(loop.recipe, name)) != recipe.get(name) for name in by_groups):
            rooms.pop("memory_of_groups", None)
        walk = loop.batches if isinstance(loop.batches, StreamBatches) else None
        goes_on = walk is not None and walk.reads(facts["setting"])
        if not goes_on:  # of other streams, or of none: begun from their beginnings
            rooms = {name: room for name, room in rooms.items() if not name.startswith("carry/")}
        checkpoint.fill(rooms, arrays)
        if walk is not None and goes_on:
            walk.check()
        loop.training.take()
        loop.run.updates = updates
        if self._same_scores(loop):
            loop.run.best = best_of(loop.run, arrays, facts)
        return {"theta": began, "start": {"of": self.known_by, "updates": updates, "theta": now}}

    def _same_scores(self, loop: Loop) -> bool:
        """Tell whether the branch measures what the other run did, so that its best may be the branch's too."""
        there = self.saved.facts["setting"] if self.saved else {}
        if loop.own_score is not None or there.get("score") is not None:
            return loop.own_score is not None and there.get("score") == describe(loop.own_score)
        drawn = isinstance(loop.task, Task)  # of the lengths of training; what is held out is what it is
        same_lengths = not drawn or there["recipe"]["lengths"] == describe(loop.recipe.lengths)
        return loop.task is not None and there["task"] == describe(loop.task) and same_lengths

    def again(self, start: Any, theta: str) -> dict[str, Any]:
        """Return what the setting of a branch says that goes on from its own checkpoint, which has this `start`."""
        if not isinstance(start, dict):
            return {"start": "another run"}  # which it did not begin from: `difference` says so
        if self.saved is None:
            return {"start": start}
        began = self.saved.facts["setting"]["theta"]
        self._check_theta(theta, began, hash_of(self.saved.arrays["theta"]), start["theta"])
        return {"start": {**start, "of": self.known_by}, "theta": began}

    def _check_theta(self, theta: str, *wanted: str) -> None:
        if theta not in wanted:
            raise ValueError(
                f"theta is neither where the run of start_from began nor where it is; expected one of the two, for "
                f"training goes on from there. Pass theta=nbflow.load_run({str(self.path)!r}).theta."
            )
