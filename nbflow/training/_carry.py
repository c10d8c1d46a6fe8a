"""Truncated back-propagation through time: windows of streams, and the state that goes on from one to the next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nbflow import _check, counter
from nbflow.data.streams import Streams
from nbflow.gradients._engine import Training
from nbflow.model._arguments import zero_state
from nbflow.model._shape import front
from nbflow.model.stack import Model
from nbflow.records import Batch
from nbflow.training._identity import describe
from nbflow.training.evaluation import draw_length

if TYPE_CHECKING:
    from nbflow.data.sampler import DataTask

PLACES = ("stream", "place", "taken")


def streams_of(task: Any, batch_size: int) -> Streams:
    """Return the streams of a task, which must have some."""
    if task is None:
        raise ValueError(
            "carry is True and there is no task, so that nobody says where a stream ends; expected one with streams. "
            "For batches of your own write the loop: nbflow.gradient(..., state=state) and nbflow.apply_update."
        )
    found = task.streams(batch_size) if hasattr(task, "streams") else None
    if found is None:
        said = "a synthetic one" if isinstance(task, type) or not hasattr(task, "streams") else _check.said(task)
        raise ValueError(
            f"carry is True and the task is {said}, whose sequences have nothing to do with each other; "
            "expected one with streams: a text, piano rolls, or nbflow.arrays with a loss at every step. Leave carry "
            "out."
        )
    return _checked(found, type(task).__name__)


def _checked(found: Any, kind: str) -> Streams:
    """Return the streams that a task gave; refuse what is no `Streams` of at least one sequence."""
    steps = getattr(found, "steps", None)
    if not isinstance(found, Streams) or not isinstance(steps, np.ndarray) or steps.dtype.kind not in "iu":
        raise TypeError(
            f"{kind}.streams returns {_check.said(found)}; expected Streams, with integer steps. Return one, or None."
        )
    if steps.ndim != 1 or not steps.size or steps.min() < 1:
        raise ValueError(
            f"{kind}.streams has steps of shape {steps.shape}, from {steps.min(initial=0)}; expected (n,), each 1 or "
            f"more. Leave empty ones out."
        )
    return found


class StreamBatches:
    """Windows of the streams of a task, side by side, and the state before each."""

    def __init__(
        self, task: DataTask, batch_size: int, lengths: Any, net: Model, ids: Any, seed: int, training: Training
    ) -> None:
        self.task, self.ids, self.seed, self.training = task, ids, seed, training
        self.streams, replicas = streams_of(task, batch_size), len(ids)
        self.lengths = _check.length_range("lengths", lengths, task.shortest)
        self.longest = min(self.lengths[1], int(self.streams.steps.max()))
        self.whole = task.empty(replicas, self.longest, batch_size, net.dtype)
        self.states = zero_state(net, replicas, batch_size)
        self.orders: list[tuple[int, Any]] = [(-1, None)] * replicas
        # Which stream each place of a batch reads, at which step it is, and how many were begun by each replica.
        self.stream, self.place = np.zeros((2, replicas, batch_size), np.int64)
        self.taken = np.zeros(replicas, np.int64)
        for r in range(replicas):
            self._begin(r, np.arange(batch_size))
        self.length, self.window = 0, self.place
        self.batch, self.of_replicas = self.whole, [self.whole]  # the front that the last windows took, and its parts

    def next(self, update: int) -> None:
        """Give the windows of an update; nothing is behind us before `done`."""
        length = draw_length(self.lengths, self.seed, counter.TRAIN, update)
        self.window = np.minimum(self.streams.steps[self.stream] - self.place, length)
        self._make_front(int(self.window.max()))
        for r, batch in enumerate(self.of_replicas):
            self.streams.write(batch, self.stream[r], self.place[r], self.window[r])
        if self.task.own:
            from nbflow.data._own import check_drawn

            check_drawn(self.task, self.batch, self.length)
        self.training.carry(self.batch, self.states, self.longest)

    def _make_front(self, steps: int) -> None:
        """Use so many steps of the memory."""
        if steps != self.length:
            self.length, self.batch = steps, front(self.whole, steps)
            self.of_replicas = [Batch(*(part[r] for part in self.batch)) for r in range(len(self.ids))]

    def done(self) -> None:
        """Go on behind the windows, whose update is done: with their last states, or from 0 where a stream ended."""
        self.place += self.window
        ended = anew = self.place == self.streams.steps[self.stream]
        self.states = self.training.state()
        for layer in self._layers():  # a state that is not finite would never be so again, in any layer
            anew = anew | ~np.isfinite(layer).all(axis=(2, 3))
        for layer in self._layers():
            layer[anew] = 0
        for r in np.flatnonzero(ended.any(axis=1)).tolist():
            self._begin(r, np.flatnonzero(ended[r]))

    def _begin(self, r: int, places: Any) -> None:
        """Let places of a replica's batch read the next streams, from their beginnings."""
        for b in places:
            epoch, number = divmod(int(self.taken[r]), len(self.streams.steps))
            self.stream[r, b], self.place[r, b] = self._order(r, epoch)[number], 0
            self.taken[r] += 1

    def _order(self, r: int, epoch: int) -> Any:
        """Return the order of the streams in an epoch of a replica, (n,)."""
        if self.orders[r][0] != epoch:
            self.orders[r] = epoch, self._draw_order(r, epoch)
        return self.orders[r][1]

    def _draw_order(self, r: int, epoch: int) -> Any:
        count = len(self.streams.steps)
        if not self.streams.shuffled:
            return np.arange(count)
        from nbflow.cpu.sample import build_draws_below

        drawn = np.empty((1, count), np.int64)
        build_draws_below()(drawn, 2**31, self.seed, counter.TRAIN, self.ids[r : r + 1], epoch)
        return np.argsort(drawn[0], kind="stable")

    def saved(self) -> dict[str, Any]:
        """Return where it is, by name: views, into which a saved place may be copied."""
        states = {f"carry/state/{k}": layer for k, layer in enumerate(self._layers())}
        return states | {f"carry/{name}": getattr(self, name) for name in PLACES}

    def _layers(self) -> tuple[Any, ...]:
        """Return the state of each layer (R, B, S, H)."""
        return self.states if isinstance(self.states, tuple) else (self.states,)

    def check(self) -> None:
        """Refuse places, as read from a checkpoint, that are outside the streams."""
        count = len(self.streams.steps)
        known = (self.stream >= 0).all() and (self.stream < count).all() and (self.taken >= 0).all()
        if not known or (self.place < 0).any() or (self.place >= self.streams.steps[self.stream]).any():
            raise ValueError("checkpoint: carry/stream and carry/place are no place in the streams. Delete it.")

    def reads(self, setting: dict[str, Any]) -> bool:
        """Tell whether a run of this setting reads the same streams side by side: then its place is one here."""
        recipe = setting["recipe"]
        alike = recipe["batch_size"] == self.stream.shape[1] and setting["task"] == describe(self.task)
        return bool(alike and recipe["carry"])
