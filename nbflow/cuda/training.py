"""A training run on the card, where parameters, data and optimizer stay.

Updates are queued without waiting, but for settings that change and batches that are given.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nbflow import counter
from nbflow.cpu.report import COLUMNS, ENDLESS, FINITE, GRADIENT, LEFT_OUT, at_update, where_groups, where_not_finite
from nbflow.cuda import program
from nbflow.cuda.clip import MENDED_NORM
from nbflow.cuda.clipping import refuse_by_block
from nbflow.cuda.threshold import Memory
from nbflow.cuda.workspace import Workspace, purpose_of
from nbflow.data.synthetic import Task
from nbflow.model._asked import Limits, Plan
from nbflow.model._shape import Shape
from nbflow.records import Batch, Floats, StatefulRule


class Training:
    """What changes from update to update, and the verbs that change it (`nbflow.gradients._engine.Training`)."""

    def __init__(self, plan: Plan) -> None:
        refuse_by_block(plan.clip)
        self.plan, self.policy = plan, plan.clip.nonfinite
        self.memory = None if plan.follower is None else Memory(plan.follower)
        self.space: Any = None
        self.sent: dict[str, Any] = {}
        self.rows = plan.window.room
        self.row = 0  # the next row of HISTORY on the card
        self.carried = False  # whether a batch begins with a state that was given
        self.first = 0  # the update whose report is row 0

    def make_room(self, task: Any, batch_size: int, steps: int) -> None:
        """Make room for the batches of a task."""
        self._fit(Shape(len(self.plan.theta), steps, batch_size, task.tokens))

    def draw(self, task: Any, update: int, length: int) -> None:
        """Draw the batch of an update of a task: on the card, but for what is a user's own, which the host draws."""
        plan = self.plan
        if isinstance(task, Task) and not task.own:
            program.sample(self.space, task, plan.seed, counter.TRAIN, update, length)
            return
        batch = task.empty(len(plan.theta), task.taken(length), self.space.shape.batch, plan.net.dtype)
        task.draw(batch, plan.seed, counter.TRAIN, plan.ids, update, length)
        self.space.send(batch)

    def give(self, batch: Batch) -> None:
        """Take a batch, with R in front of checked arrays."""
        replicas, steps, batch_size = batch.weights.shape
        self._fit(Shape(replicas, steps, batch_size, batch.inputs.dtype.kind == "i"))
        self.space.send(batch)

    def carry(self, batch: Batch, state: Any, longest: int) -> None:
        """Take a batch as `give` does, and the state before its first step (R, B, S, H); none is of more steps."""
        replicas, _, batch_size = batch.weights.shape
        self._fit(Shape(replicas, longest, batch_size, batch.inputs.dtype.kind == "i"))
        self.give(batch)
        self.space.write("START", state)
        self.carried = True

    def state(self) -> Any:
        """Return the state after the last step of the batch (R, B, S, H)."""
        space, lines = self.space, len(self.plan.net.cell_object.states)
        return space.read("STATES", space.steps + 1, space.shape.batch, lines, self.plan.net.n_hidden)[:, -1].copy()

    def _fit(self, shape: Shape) -> None:
        """Make room for a batch of this shape; what was learnt moves along to a larger workspace."""
        if self.space is not None and self.space.holds(shape):
            return
        if self.space is not None:
            self.bring()
            self.space = None  # its memory first
        plan, asked = self.plan, self.plan.asked(shape.batch)
        purpose = purpose_of(asked)._replace(
            rule=plan.rule, keeps_raw=True, optimizer=plan.optimizer, history=self.rows, holds=plan.held is not None,
            sized=plan.clip.length is not None,
        )  # fmt: skip
        self.asked, self.space = asked, Workspace(plan.net, shape, purpose)
        self.space.set_ids(plan.ids)
        self.space.write("SETTINGS", np.array(list(plan.settings.values()), plan.net.scalar))
        if isinstance(plan.rule, StatefulRule):
            self.space.write("RULE_SETTINGS", np.array(list(plan.rule.settings.values()), plan.net.scalar))
        self.space.set_asked(asked)
        self.space.set_length(plan.clip)
        if plan.held is not None:
            self.space.write("HELD", plan.held.astype(plan.net.scalar))
        self.sent.clear()
        self.take()

    def take(self) -> None:
        """Take parameters, slots and memory from the arrays of the plan."""
        if self.memory is not None:
            self.memory.take()
        if self.space is not None:
            self.space.write("THETA", self.plan.theta)
            self.space.write("SLOTS", self.plan.slots)
            self.space.write("STEPS_TAKEN", self.plan.counts.astype(np.int32))
            if self.plan.memory is not None:
                self.space.write("RULE_SLOTS", self.plan.memory.slots)
                self.space.write("LEARNT", self.plan.memory.counts.astype(np.int32))

    def bring(self) -> None:
        """Bring parameters, slots, memory and reports to the arrays of the plan."""
        self.report()
        if self.space is not None:
            self.plan.theta[...] = self.space.read("THETA", self.plan.net.size)
            self.plan.slots[...] = self.space.read("SLOTS", *self.plan.slots.shape[1:])
            self.plan.counts[...] = self.space.read("STEPS_TAKEN", 1)[:, 0]
            if self.plan.memory is not None:
                self.plan.memory.slots[...] = self.space.read("RULE_SLOTS", *self.plan.memory.slots.shape[1:])
                self.plan.memory.counts[...] = self.space.read("LEARNT", 1)[:, 0]
        if self.memory is not None:
            self.memory.bring()

    def report(self) -> None:
        """Bring the reports of all updates to the window."""
        if self.row:
            history = self.space.read("HISTORY", self.rows, self.space.history_width)[:, : self.row]
            of_gradients, of_clips = np.split(history[:, :, : len(GRADIENT) + len(COLUMNS)], [len(GRADIENT)], axis=2)
            self._look_at(of_clips[:, :, FINITE] != 0, history[:, :, -1])
            rows = self.space.purpose.group_rows
            groups = self.space.shape.batch // rows if rows else 1
            for k in range(self.row):
                self.plan.window.add(of_gradients[:, k], of_clips[:, k], groups)
            self.row = 0

    def _look_at(self, finite: Any, thresholds: Floats) -> None:
        """Refuse what the CPU would have refused at its update (R, updates), for the host sees it only now."""
        if self.memory is not None:
            self.plan.follower.last = thresholds[:, -1].copy()
            if not (thresholds >= 0).all():
                r, k = np.argwhere(~(thresholds >= 0))[0]
                raise ValueError(
                    f"threshold is {thresholds[:, k].tolist()} at update {self.first + k}; expected numbers of at "
                    f"least 0. Look at the `value` of {self.plan.follower.how}."
                )
        endless = ~finite & np.isinf(thresholds)
        if self.policy == "random" and self.plan.clip.length is None and endless.any():
            r, k = np.argwhere(endless)[0]
            raise FloatingPointError(
                f"the gradient of replica {r} is not finite at update {self.first + k}. {ENDLESS} inf: give a finite "
                f"one."
            )

    def _send(self, name: str, values: Floats | None) -> None:
        """Copy a setting to the card, unless it is the one that lies there."""
        if values is not None and self.sent.get(name) is not values:
            self.space.write(name, values.astype(self.plan.net.scalar))
            self.sent[name] = values

    def gradient(self, update: int, alpha: Floats | None, limits: Limits | None) -> None:
        """Queue the gradient of the batch; `alpha` (R,) is the flow's weight, `limits` are those of this update."""
        self._send("ALPHA", alpha)
        if limits is not None:
            self._send("GROUP_THRESHOLD", limits.groups)
            self._send("HIDDEN_THRESHOLD", limits.hidden)
        self.space.detach_draws = self.plan.seed, update
        program.forward(self.space, whole=self.carried, carried=self.carried)
        program.gradient(self.space, self.asked)
        if self.plan.held is not None:
            program.hold(self.space)
        groups = self.asked.groups
        if groups is not None and groups.nonfinite == "raise":
            self._raise_if_left_out(groups.rows, update)

    def step(self, update: int, lr: Floats, threshold: Floats | None) -> Exception | None:
        """Queue the clip and a step; a `threshold` (R,) of None is asked of the one that follows the norms.

        Return what policy "raise" refuses the step with: then nothing has changed.
        """
        space, memory = self.space, self.memory
        self._send("LR", lr)
        self._send("THRESHOLD", threshold)
        told = self.plan.group_follower
        if memory is not None and (self.policy == "raise" or told is not None):
            memory.keep()
        program.clip(space, self.policy, None if memory is None else lambda: memory.follow(space, update))
        refusal: Exception | None = self._refusal(update) if self.policy == "raise" else None
        if refusal is None:
            program.mend(space, self.policy, self.plan.seed, update)
            refusal = None if told is None else self._tell(told, update)
        if refusal is not None:
            if memory is not None:
                memory.take_back()
            return refusal
        program.update(space, self.row)
        self.first = update - self.row
        self.row += 1
        if self.row == self.rows:
            self.report()
        return None

    def _tell(self, follower: Any, update: int) -> Exception | None:
        """Tell a threshold the norms of the groups of this update: what one that follows them costs on a card."""
        report, norms = self.space.read_clip_report(), self.space.group_norms()
        none_left = self.space.read("REPORT", len(GRADIENT))[:, LEFT_OUT] == norms.shape[1]
        stands = none_left | ((report[:, FINITE] == 0) & (report[:, MENDED_NORM] == 0))
        try:
            follower.learn(norms, stands, update)
        except ValueError as refusal:
            follower.take_back()
            return refusal
        return None

    def _raise_if_left_out(self, group_rows: int, update: int) -> None:
        """Look at the report of every update: what policy "raise" of a clip by groups costs on a card."""
        if self.space.read("REPORT", len(GRADIENT))[:, LEFT_OUT].any():
            raise FloatingPointError(at_update(where_groups(self.space.group_norms(), group_rows), update))

    def _refusal(self, update: int) -> FloatingPointError | None:
        """Look at the report of every update: what policy "raise" costs on a card."""
        bad = np.flatnonzero(self.space.read_clip_report()[:, FINITE] == 0)
        if not bad.size:
            return None
        row = self.space.read("D_THETA", self.plan.net.size)[bad[0]]
        where = where_not_finite(self.plan.net, row, int(bad[0]), len(self.plan.theta))
        return FloatingPointError(at_update(where, update))
