"""A training run on the CPU: batches, gradient, clip and step, in memory that is cut before the first update."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nbflow import counter
from nbflow.cpu.clipping import Clipper
from nbflow.cpu.held import holder, updater
from nbflow.cpu.program import execute
from nbflow.cpu.regularize import regularize
from nbflow.cpu.report import LEFT_OUT, at_update, where_groups
from nbflow.cpu.setup import kind_of, purpose_of, set_gradient, set_limits
from nbflow.cpu.stateful import StatefulClipper
from nbflow.cpu.update import build_update
from nbflow.model._asked import Limits, Plan
from nbflow.model._shape import Shape, front
from nbflow.records import Batch, Floats, Regularizer


class Training:
    """What changes from update to update, and the verbs that change it (`nbflow.gradients._engine.Training`)."""

    def __init__(self, plan: Plan) -> None:
        self.plan, dtype = plan, plan.net.scalar
        # Another array than d_theta, so that the report of a clip can compare the two.
        self.applied = np.empty_like(plan.theta)
        whose = plan.net, plan.clip, len(plan.theta), plan.ids, plan.held
        self.clipper = Clipper(*whose) if plan.memory is None else StatefulClipper(*whose, plan.memory)
        self.settings = np.array(list(plan.settings.values()), dtype).reshape(1, -1, 1)
        self.update = self._build_update()
        self.hold = None if plan.held is None else holder(plan.held, dtype)
        self.spaces: dict[tuple[int, bool], Any] = {}
        self.batch: Any = None
        self.length = 0

    def _build_update(self) -> Callable[..., None]:
        """Return the step of the optimizer: another loop where parameters are held, so that others take no longer."""
        plan = self.plan
        sizes = plan.optimizer.update, len(plan.optimizer.slots), len(plan.settings)
        if plan.held is None:
            return build_update(*sizes)
        return updater(plan.held, plan.net.scalar, *sizes)

    def make_room(self, task: Any, batch_size: int, steps: int) -> None:
        """Make room for the batches of a task: as long as the longest, shorter ones use the front of it."""
        self.whole = task.empty(len(self.plan.theta), steps, batch_size, self.plan.net.dtype)

    def draw(self, task: Any, update: int, length: int) -> None:
        """Draw the batch of an update of a task."""
        if length != self.length:
            self.length = length
            self._point_to(front(self.whole, task.taken(length)), self.whole.weights.shape[1])
        task.draw(self.batch, self.plan.seed, counter.TRAIN, self.plan.ids, update, length)

    def give(self, batch: Batch) -> None:
        """Take a batch, with R in front of checked arrays."""
        self._point_to(batch)

    def carry(self, batch: Batch, state: Any, longest: int) -> None:
        """Take a batch as `give` does, and the state before its first step; none is of more steps.

        A state is an array (R, B, S, H), of a stack a tuple of such.
        """
        if batch is not self.batch:  # the same arrays, with other numbers in them
            self._point_to(batch, longest)
        self.space.set_state(state)

    def state(self) -> Any:
        """Return the state after the last step of the batch."""
        return self.space.gather_state("end")

    def _point_to(self, batch: Batch, longest: int = 0) -> None:
        """Point a workspace to a batch, which must stay alive; there is one for each B and kind of inputs."""
        replicas, steps, batch_size = batch.weights.shape
        tokens = batch.inputs.dtype.kind == "i"
        space = self.spaces.get((batch_size, tokens))
        if space is None or space.shape.steps < steps:
            asked = self.plan.asked(batch_size)
            shape = Shape(replicas, max(steps, longest), batch_size, tokens)
            space = self.spaces[batch_size, tokens] = kind_of(self.plan.net)(self.plan.net, shape, purpose_of(asked))
            set_gradient(space, asked)
            self.asked = asked
        if space.steps != steps:
            space.fit(steps)
        self.space, self.batch = space, batch
        space.point_to(self.plan.theta, *batch, self.plan.d_theta)

    def gradient(self, update: int, alpha: Floats | None, limits: Limits | None) -> None:
        """Compute the gradient of the batch; `alpha` (R,) is the flow's weight, `limits` are those of this update."""
        space, plan, asked = self.space, self.plan, self.asked
        if limits is not None:
            set_limits(space, asked.limited(limits))
        if alpha is not None:
            space.set_alpha(alpha)
        if asked.detach.probability is not None:
            space.set_detach(asked.detach.probability, plan.seed, update, plan.ids)
        if asked.noise is not None:
            now = asked if limits is None else asked.limited(limits)
            space.set_noise(now.drawn(plan.seed, update, plan.ids).noise)
        execute(space)
        if asked.groups is not None and asked.groups.nonfinite == "raise" and space.report[:, LEFT_OUT].any():
            raise FloatingPointError(at_update(where_groups(space.group_norms(), asked.groups.rows), update))
        if isinstance(asked.penalty, Regularizer) and alpha is not None:
            regularize(asked.penalty, plan.net, plan.theta, self.batch, alpha, plan.d_theta, space.report)
        if self.hold is not None:
            self.hold(plan.d_theta)

    def step(self, update: int, lr: Floats, threshold: Floats | None) -> Exception | None:
        """Clip the gradient and take a step; a `threshold` (R,) of None is asked of the one that follows the norms.

        Return what a threshold or a policy refuses the step with: then nothing has changed.
        """
        plan = self.plan
        try:
            self._clip(update, threshold)
            stands = self._stands()
            if plan.group_follower is not None:
                plan.group_follower.learn(self.space.group_norms(), stands, update)
        except (ValueError, FloatingPointError) as refusal:
            self._take_back()
            return refusal
        failed = self._move(update, lr, stands)
        if failed is None:
            self.clipper.settle(stands)
            plan.window.add(self.space.report, self.clipper.report, self._groups())
        else:
            self._take_back()
        return failed

    def _take_back(self) -> None:
        """Let the thresholds forget the norms of this update."""
        for follower in (self.plan.follower, self.plan.group_follower):
            if follower is not None:
                follower.take_back()

    def _move(self, update: int, lr: Floats, stands: Any) -> Exception | None:
        """Take the step, and project what it comes to; return what the projection fails with, all undone."""
        plan = self.plan
        if plan.projection is not None:
            plan.projection.keep()
        self.update(plan.theta, self.applied, plan.slots, lr, self.settings, plan.counts, stands)
        return None if plan.projection is None else plan.projection.apply(update, stands)

    def _clip(self, update: int, threshold: Floats | None) -> None:
        """Put the clipped gradient into `applied`."""
        plan, clipper = self.plan, self.clipper
        if threshold is None:
            threshold = self._follow(update)
        clipper.apply(plan.d_theta, self.applied, threshold, plan.theta)
        if clipper.needs_mending():
            try:
                clipper.mend(plan.d_theta, self.applied, threshold, plan.theta, plan.seed, update)
            except FloatingPointError as error:
                raise FloatingPointError(at_update(error, update)) from None

    def _follow(self, update: int) -> Floats:
        """Ask the threshold that follows the norms; it learns nothing of a gradient of which nothing is left."""
        d_theta, none = self.plan.d_theta, self._none_left()
        if none is None or not none.any():
            return self.plan.follower.at(update)
        kept = d_theta[none, 0]
        d_theta[none, 0] = np.nan
        threshold: Floats = self.plan.follower.at(update)
        d_theta[none, 0] = kept
        return threshold

    def _none_left(self) -> Any:
        """Return of which replicas all groups were left out (R,), or None without groups."""
        return None if self.asked.groups is None else self.space.report[:, LEFT_OUT] == self._groups()

    def _groups(self) -> int:
        """Return how many groups of a batch are clipped by themselves, 1 for the whole batch."""
        groups = self.asked.groups
        return 1 if groups is None else self.space.shape.batch // groups.rows

    def _stands(self) -> Any:
        """Return which replicas take no step (R,): 0 took the place of their gradient, or of those of all groups."""
        none = self._none_left()
        return self.clipper.stands if none is None else self.clipper.stands | none

    def report(self) -> None:
        """Bring the reports of all updates to the window: they are there."""

    def bring(self) -> None:
        """Bring parameters, slots, memory and reports to the arrays of the plan: they are there."""

    def take(self) -> None:
        """Take parameters, slots and memory from the arrays of the plan: they are used there."""
