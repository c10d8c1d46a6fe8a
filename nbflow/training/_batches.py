"""Batches of a training run, drawn or given where its engine computes their gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nbflow import _check, counter
from nbflow.data.sampler import Sampler
from nbflow.gradients._engine import Training
from nbflow.model import _arguments
from nbflow.model.stack import Model
from nbflow.records import Batch, Floats
from nbflow.training.evaluation import draw_length
from nbflow.training.recipe import Recipe

Source = Callable[[int], Batch]


class TaskBatches:
    """Batches of a task, in the same memory every time."""

    def __init__(self, task: Sampler, recipe: Recipe, seed: int, training: Training) -> None:
        self.task, self.seed, self.training = task, seed, training
        self.lengths = _check.length_range("lengths", recipe.lengths, task.shortest)
        training.make_room(task, recipe.batch_size, task.most(self.lengths))
        self.length = 0

    def next(self, update: int) -> None:
        """Draw the batch of an update."""
        self.length = draw_length(self.lengths, self.seed, counter.TRAIN, update)
        self.training.draw(self.task, update, self.length)

    def done(self) -> None:
        """Go on: the next batch depends on no other."""

    def saved(self) -> dict[str, Any]:
        """Return what the next batch depends on: nothing."""
        return {}


class SourceBatches:
    """Batches of a function of the update, checked each time."""

    def __init__(self, source: Source, net: Model, theta: Floats, training: Training) -> None:
        self.source, self.net, self.theta, self.training = source, net, theta, training
        self.length = 0

    def next(self, update: int) -> None:
        """Give the batch of an update."""
        checked = _arguments.computation(self.net, self.theta, self.source(update), takes=_arguments.model)
        self.training.give(Batch(checked.inputs, checked.targets, checked.weights))
        self.length = checked.weights.shape[1]

    def done(self) -> None:
        """Go on: what the next batch depends on is the function's."""

    def saved(self) -> dict[str, Any]:
        """Return what the next batch depends on, as far as it is known here: nothing."""
        return {}
