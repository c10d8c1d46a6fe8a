"""CudaLoop: a training run whose parameters, data and optimizer stay on the card."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nbflow import _check
from nbflow._load import load
from nbflow.cpu.report import COLUMNS, FINITE
from nbflow.cpu.workspace import Shape
from nbflow.data.sampler import Task
from nbflow.gradients._choices import check_groups, check_hidden, derivative_of, refuse_combinations, refuse_on_card
from nbflow.gradients.clipping import ENDLESS, where_not_finite
from nbflow.records import Floats, Optimizer
from nbflow.training._cuda_batches import DataOnCard, EvaluatorOnCard, HeldOutOnCard, SourceOnCard, TaskOnCard
from nbflow.training._loop import Loop
from nbflow.training._setting import Setting
from nbflow.training._window import KEPT
from nbflow.training.run import Callback
from nbflow.training.threshold import Follower


class CudaLoop(Loop):
    """The state of a training run on the card.

    Updates are queued without waiting, but for settings that change and batches that are given. Reports come back when
    the history needs a row; parameters when a callback looks at them or a checkpoint is written, and at the end.
    """

    def _prepare_optimizer(self) -> None:
        self.optimizer: Optimizer = load("optimizers", self.recipe.optimizer, "optimizer")
        self.constants = _check.settings(self.optimizer.settings, self.recipe.settings)
        self.slots = np.zeros((self.replicas, len(self.optimizer.slots), self.net.size), self.dtype)
        self.lr = Setting("lr", self.recipe.lr, self.replicas, self.dtype, least=0.0, finite=True)

    def _prepare_clip(self) -> None:
        from nbflow.cuda.threshold import Memory

        recipe = self.recipe
        refuse_on_card(self.penalty, recipe.flow, h_detach=recipe.h_detach)
        self.hidden = check_hidden(recipe.clip_hidden, self.replicas, self.net.dtype)
        super()._prepare_clip()
        self.policy = self.clipper.how.nonfinite
        self.memory = Memory(self.threshold) if isinstance(self.threshold, Follower) else None

    def _prepare_batches(self, source: Any) -> None:
        self.space: Any = None
        self.sent: dict[str, Any] = {}
        self.rows = min(self.recipe.record_every, KEPT)
        self.row = 0  # the next row of HISTORY on the card
        self.batches: Any
        if self.task is None:
            self.batches = SourceOnCard(self, source)
        else:
            self.batches = (TaskOnCard if isinstance(self.task, Task) else DataOnCard)(self, self.task)

    def _prepare_evaluation(self) -> None:
        recipe = self.recipe
        self.evaluator = None
        if self.task is None or not recipe.evaluate_every:
            return
        if isinstance(self.task, Task):
            self.evaluator = EvaluatorOnCard(self, self.task, recipe.length_range, recipe.evaluate_size)
        else:
            self.evaluator = HeldOutOnCard(self, self.task)

    def fit(self, shape: Shape) -> Any:
        """Return the workspace, with room for a batch of this shape; what was learnt moves along to a larger one."""
        from nbflow.cuda.workspace import Purpose, Workspace

        if self.space is not None and self.space.holds(shape):
            self.space.fit(shape.steps)
            return self.space
        if self.space is not None:
            self.bring()
            self.space = None  # its memory first
        flowing, recipe = self.penalty is not None, self.recipe
        lead = shape.replicas, shape.batch
        groups = check_groups(lead, self.net.dtype, recipe.clip_example, recipe.clip_microbatch)
        refuse_combinations(derivative_of(recipe.flow, self.penalty), None, groups, 0, self.hidden, None)
        purpose = Purpose(backward=True, keeps_delta=flowing, flowing=flowing, rule=self.clipper.rule, keeps_raw=True,
                          group_rows=groups[0] if groups else 0, optimizer=self.optimizer,
                          history=self.rows)  # fmt: skip
        self.space = Workspace(self.net, shape, purpose)
        self.space.set_ids(self.replica_ids)
        self.space.write("SETTINGS", np.array(list(self.constants.values()), self.dtype))
        self.space.set_hidden_clip(*self.hidden)
        if groups:
            self.space.set_group_threshold(groups[1])
        self.sent.clear()
        self.take()
        return self.space

    def take(self) -> None:
        """Copy parameters, and what the optimizer keeps, to the card."""
        if self.memory is not None:
            self.memory.take()
        if self.space is not None:
            self.space.write("THETA", self.theta)
            self.space.write("SLOTS", self.slots)

    def bring(self) -> None:
        """Bring everything back: reports, parameters, and what the optimizer keeps."""
        with self.guard:
            self._drain()
        if self.space is not None:
            self.theta[...] = self.space.read("THETA", self.net.size)
            self.slots[...] = self.space.read("SLOTS", *self.slots.shape[1:])
        if self.memory is not None:
            self.memory.bring()

    def _drain(self) -> None:
        """Bring the reports of the last updates to the window."""
        if self.row:
            history = self.space.read("HISTORY", self.rows, self.space.history_width)[:, : self.row]
            self._look_at(history[:, :, 3 + FINITE] != 0, history[:, :, -1])
            for k in range(self.row):
                self.window.add(history[:, k, :3], history[:, k, 3 : 3 + len(COLUMNS)])
            self.row = 0

    def _look_at(self, finite: Any, thresholds: Floats) -> None:
        """Refuse what the CPU would have refused at its update (R, updates); nobody waits for that here."""
        if self.memory is not None:
            self.threshold.last = thresholds[:, -1].copy()
            if not (thresholds >= 0).all():
                r, k = np.argwhere(~(thresholds >= 0))[0]
                raise ValueError(
                    f"threshold is {thresholds[:, k].tolist()} at update {self._before(k)}; expected numbers above 0. "
                    f"Look at the `value` of {self.memory.follower.how}."
                )
        endless = ~finite & np.isinf(thresholds)
        if self.policy == "random" and endless.any():
            r, k = np.argwhere(endless)[0]
            raise FloatingPointError(
                f"the gradient of replica {r} is not finite at update {self._before(k)}. {ENDLESS} inf: give a finite "
                f"one."
            )

    def _before(self, k: int) -> int:
        """Return the number of the update whose report is row k of those that are not back yet."""
        return self.run.updates - self.row + int(k)

    def _send(self, name: str, values: Floats) -> None:
        """Copy a setting to the card, unless it is the one that lies there."""
        if self.sent.get(name) is not values:
            self.space.write(name, values.astype(self.dtype))
            self.sent[name] = values

    def _one_update(self, update: int) -> None:
        self.batches.next(update)
        self._send("LR", self.lr.at(update))
        if self.memory is None:
            self._send("THRESHOLD", self.threshold.at(update))
        if self.alpha is not None:
            self._send("ALPHA", self.alpha.at(update))
        with self.guard:
            self._launch(update)
            self.run.updates += 1
            self.length = self.batches.length
            if self.row == self.rows:
                self._drain()

    def _launch(self, update: int) -> None:
        """Queue an update."""
        from nbflow.cuda import program

        space, flow = self.space, self.recipe.flow
        program.forward(space, whole=False)
        program.losses(space)
        program.backward(space)
        if flow is None:
            program.weights(space)
        else:
            program.norms(space)
            program.weights(space, self.penalty, flow.bound, flow.reduction == "mean")
        memory = self.memory
        program.clip(space, self.policy, None if memory is None else lambda: memory.follow(space, update))
        if self.policy == "raise":
            self._raise_if_bad()
        program.mend(space, self.policy, self.seed, update)
        program.update(space, update + 1, self.row)
        self.row += 1

    def _raise_if_bad(self) -> None:
        """Look at the report of every update: what policy "raise" costs on a card."""
        bad = np.flatnonzero(self.space.read_clip_report()[:, FINITE] == 0)
        if bad.size:
            row = self.space.read("D_THETA", self.net.size)[bad[0]]
            raise FloatingPointError(where_not_finite(self.net, row, int(bad[0]), self.replicas))

    def _pause(self, callbacks: Sequence[Callback]) -> bool:
        recipe, update = self.recipe, self.run.updates
        evaluates = self.evaluator is not None and update % recipe.evaluate_every == 0
        if update and (evaluates or update % recipe.record_every == 0 or update == recipe.max_updates):
            if callbacks:
                self.bring()
            else:
                with self.guard:
                    self._drain()
        return super()._pause(callbacks)

    def state(self) -> dict[str, Any]:
        """Return all that an update depends on or changes, by name, as it is now."""
        self.bring()
        return super().state()

    def restore(self, arrays: dict[str, Any], facts: dict[str, Any]) -> None:
        """Go back to where a saved run was."""
        super().restore(arrays, facts)
        self.take()

    def finish(self) -> None:
        """Write what is left: the last rows, the time, the parameters."""
        self.bring()
        super().finish()
