"""Batches of a training run, each in the workspace that computes its gradient."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from nbflow import _check, counter
from nbflow.data.sampler import Sampler
from nbflow.gradients._choices import check_groups, check_hidden, derivative_of, refuse_combinations
from nbflow.gradients.gradient import program_for
from nbflow.model.network import Network
from nbflow.records import Batch, Floats
from nbflow.training.evaluation import draw_length
from nbflow.training.recipe import Recipe

Source = Callable[[int], Batch]


class Spaces:
    """Workspaces for the gradients of a recipe, one for each batch size and kind of inputs."""

    def __init__(self, net: Network, recipe: Recipe, replicas: int, penalty: Any, alpha: Any) -> None:
        self.net, self.recipe, self.penalty, self.alpha = net, recipe, penalty, alpha
        self.hidden = check_hidden(recipe.clip_hidden, replicas, net.dtype)
        self.found: dict[Any, Any] = {}

    def of(self, lead: tuple[int, ...], tokens: bool, longest: int = 0) -> Any:
        """Return a workspace with room for a batch of this shape (R, T, B), and for `longest` steps."""
        _, steps, batch_size = lead
        found = self.found.get((batch_size, tokens))
        if found is None or found.shape.steps < steps:
            found = self.found[(batch_size, tokens)] = self._cut(lead, tokens, max(steps, longest))
        if found.steps != steps:
            found.fit(steps)
        return found

    def _cut(self, lead: tuple[int, ...], tokens: bool, most: int) -> Any:
        from nbflow.cpu.program import set_program
        from nbflow.cpu.workspace import Purpose, Shape, Workspace

        replicas, _, batch_size = lead
        recipe = self.recipe
        groups = check_groups((replicas, batch_size), self.net.dtype, recipe.clip_example, recipe.clip_microbatch)
        derivative = derivative_of(recipe.flow, self.penalty)
        refuse_combinations(derivative, None, groups, 0, self.hidden, recipe.h_detach)
        purpose = Purpose(derivative=derivative, group_rows=groups[0] if groups else 0)
        space = Workspace(self.net, Shape(replicas, most, batch_size, tokens), purpose)
        set_program(space, program_for(purpose), penalty=self.penalty)
        space.set_hidden_clip(*self.hidden)
        if groups:
            space.set_group_threshold(groups[1])
        if recipe.flow is not None:
            space.set_flow(self.alpha.at(0), recipe.flow)
        return space


class TaskBatches:
    """Batches of a task, in the same memory every time: as long as the longest, shorter ones use the front of it."""

    def __init__(
        self, task: Sampler, recipe: Recipe, seed: int, replicas: Any, theta: Floats, d_theta: Floats, spaces: Spaces
    ) -> None:
        self.task, self.seed, self.replicas = task, seed, replicas
        self.theta, self.d_theta, self.spaces = theta, d_theta, spaces
        self.lengths = _check.length_range("lengths", recipe.lengths, task.shortest)
        self.longest = task.steps(self.lengths[1])
        self.whole = task.empty(theta.shape[0], self.longest, recipe.batch_size, spaces.net.dtype)
        self.length = 0

    def next(self, update: int) -> Any:
        """Return the workspace of this update's batch, pointing at it."""
        length = draw_length(self.lengths, self.seed, counter.TRAIN, update)
        if length != self.length:
            self.length, self.batch = length, self._front(self.task.steps(length))
            self.space = self.spaces.of(self.batch.weights.shape, self.task.tokens, self.longest)
            self.space.point_to(self.theta, *self.batch, self.d_theta)
        self.task.fill(self.batch, self.seed, counter.TRAIN, self.replicas, update, length)
        return self.space

    @property
    def arrays(self) -> Batch:
        """The batch that the workspace points at, with R in front."""
        return self.batch

    def _front(self, steps: int) -> Batch:
        """Return C-ordered arrays for so many steps."""
        shapes = [(part.shape[0], steps, *part.shape[2:]) for part in self.whole]
        return Batch(
            *(part.ravel()[: math.prod(shape)].reshape(shape) for part, shape in zip(self.whole, shapes, strict=True))
        )


class SourceBatches:
    """Batches of a function of the update, checked each time."""

    def __init__(self, source: Source, theta: Floats, single: bool, d_theta: Floats, spaces: Spaces) -> None:
        self.source, self.theta, self.d_theta, self.spaces = source, theta, d_theta, spaces
        self.given = theta[0] if single else theta
        self.length = 0

    def next(self, update: int) -> Any:
        """Return the workspace of this update's batch, pointing at it."""
        checked = _check.computation(self.spaces.net, self.given, self.source(update))
        space = self.spaces.of(checked.weights.shape, checked.inputs.dtype.kind == "i")
        self._kept = checked  # alive until the run is over
        space.point_to(self.theta, checked.inputs, checked.targets, checked.weights, self.d_theta)
        self.length = checked.weights.shape[1]
        return space

    @property
    def arrays(self) -> Batch:
        """The batch that the workspace points at, with R in front."""
        return Batch(self._kept.inputs, self._kept.targets, self._kept.weights)
