"""Loop: one training run, update by update."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nbflow import _check
from nbflow._load import is_declared, load
from nbflow.data.sampler import Sampler
from nbflow.data.synthetic import Task, check_task
from nbflow.gradients._choices import check_asked, check_flow
from nbflow.gradients._engine import Engine, refuse_lacking
from nbflow.gradients.clipping import check_clip
from nbflow.model import _arguments
from nbflow.model._asked import Asked, ClipMemory, Plan
from nbflow.model.stack import Model
from nbflow.records import RATES, THRESHOLDS, Clip, Floats, Flow, Optimizer, StatefulRule
from nbflow.storage import _checkpoint as checkpoint
from nbflow.training import best
from nbflow.training._batches import SourceBatches, TaskBatches
from nbflow.training._block_thresholds import BlockThresholds
from nbflow.training._carry import StreamBatches
from nbflow.training._identity import describe
from nbflow.training._interrupt import Guard
from nbflow.training._limits import RunLimits, at_first
from nbflow.training._projection import Projection
from nbflow.training._setting import Setting, at_zero
from nbflow.training._trainable import held_of
from nbflow.training._window import Window
from nbflow.training.early_stopping import EarlyStopping, Stopper
from nbflow.training.evaluation import Evaluator, HeldOut, OwnScore, refuse_carried
from nbflow.training.halving_rate import Halving, HalvingRate
from nbflow.training.recipe import Recipe, check_recipe, completed
from nbflow.training.run import Callback, Run
from nbflow.training.threshold import Follower, follows


class Loop:
    """The state of a training run: everything is checked and allocated before the first update."""

    def __init__(
        self, engine: Engine, net: Model, theta: Floats, task: Any, recipe: Recipe, seed: int,
        replica_ids: Any = None, score: Callable[[Floats], Any] | None = None,
    ) -> None:  # fmt: skip
        self.engine = engine
        rows, self.single = _arguments.parameters(net, theta, takes=_arguments.model)
        self.net, recipe, self.seed = net, check_recipe(recipe), _check.count("seed", seed, 0)
        self.theta, self.replicas = rows.copy(), rows.shape[0]
        self.replica_ids = _check.replica_ids(replica_ids, self.replicas)
        self.d_theta = np.empty_like(self.theta)
        self.dtype = net.scalar
        source = task if callable(task) and not isinstance(task, Sampler) else None
        self.task = None if source else check_task(net, task)
        self.own_score = score
        self.recipe = completed(recipe, self.task, score is not None)
        refuse_carried(net, self.recipe.carry)
        self.held = held_of(self.recipe.trainable, net, self.replicas)
        self._prepare_optimizer()
        self._prepare_flow()
        self._prepare_clip()
        self.limits = RunLimits(recipe, self.replicas, self.dtype)
        self.window = Window(self.replicas, recipe)
        self._prepare_training(source)
        self.run = Run(theta=self._stripped(self.theta), recipe=describe(self.recipe))
        self.run.unit = None if self.task is None or score is not None else self.task.unit
        self._prepare_evaluation()
        self._prepare_rate()
        self.stoppers: list[Stopper] = []
        self.keeps_best = True
        self.run.first_passage = self._plain([None] * self.replicas)
        self.run.stays_below = self._plain([False] * self.replicas)
        self.solved_at: list[int | None] = [None] * self.replicas
        self.stays = [False] * self.replicas
        self.length = 0
        self.guard = Guard()
        self.started = time.perf_counter()

    def _prepare_optimizer(self) -> None:
        self.optimizer: Optimizer = load("optimizers", self.recipe.optimizer, "optimizer")
        if not is_declared(self.optimizer):
            from nbflow import _probe

            _probe.check_optimizer(self.optimizer, self.net.dtype)
        self.slots = np.zeros((self.replicas, len(self.optimizer.slots), self.net.size), self.dtype)
        self.counts = np.zeros(self.replicas, np.int64)
        self.settings = _check.settings(
            self.optimizer.settings, self.recipe.settings, self.optimizer.limits, self.net.dtype
        )

    def _prepare_rate(self) -> None:
        lr, every = self.recipe.lr, self.recipe.evaluate_every
        self.lr: Setting
        if isinstance(lr, HalvingRate):
            self._refuse_no_evaluations("lr is a HalvingRate")
            self.lr = Halving(lr, self.replicas, self.dtype, self.run, every)
        else:
            self.lr = Setting("lr", lr, self.replicas, self.dtype, **RATES)

    def _refuse_no_evaluations(self, what: str) -> None:
        """Refuse what waits for scores where there are none."""
        if self.evaluator is None:
            why = "evaluate_every is 0" if self.task or self.own_score else "batches of a function are not evaluated"
            raise ValueError(
                f"{what}, which follows scores, and {why}; expected a run that is evaluated. Give evaluate_every, and "
                f"for batches of a function score=function of theta."
            )

    def _prepare_flow(self) -> None:
        self.first_flow = flow = self.recipe.flow
        self.alpha = None
        if flow is not None:
            if not isinstance(flow, Flow):
                check_flow(flow, self.replicas, self.net.dtype)
            self.first_flow = dataclasses.replace(flow, alpha=at_zero(flow.alpha))
            self.alpha = Setting("alpha", flow.alpha, self.replicas, self.dtype, **RATES)
        asked = self._asked(None if self.task is None else self.recipe.batch_size)
        by_example = self.recipe.clip_example is not None or self.recipe.clip_microbatch is not None
        held = self.recipe.trainable if by_example and self.held is not None else None
        refuse_lacking(self.engine, asked, project=self.recipe.project, held_by_example=held)

    def _asked(self, batch_size: int | None) -> Asked:
        """Return what the gradient of a batch is asked for; without a batch, all but a clip by groups."""
        recipe = self.recipe
        example, groups = (None, None) if batch_size is None else (recipe.clip_example, recipe.clip_microbatch)
        state = _arguments.zero_state(self.net, self.replicas, batch_size or 1) if recipe.carry else None
        asked = check_asked(self.net, (self.replicas, batch_size or 1), flow=self.first_flow, state=state,
                            clip_example=at_first(example), clip_microbatch=at_first(groups),
                            clip_hidden=at_first(recipe.clip_hidden), h_detach=recipe.h_detach,
                            noise=at_zero(recipe.noise))  # fmt: skip
        return asked if asked.groups is None else asked._replace(groups=asked.groups._replace(held=self.held))

    def _prepare_clip(self) -> None:
        # Without a clip the same code measures the norm, and changes nothing.
        clip = Clip("norm", math.inf, nonfinite="keep") if self.recipe.clip is None else self.recipe.clip
        if not isinstance(clip, Clip):
            check_clip(clip, self.replicas, self.net)
        first = 1.0 if follows(clip.threshold) else at_zero(clip.threshold)
        if isinstance(first, dict):
            first = {name: at_zero(value) for name, value in first.items()}
        check_clip(dataclasses.replace(clip, threshold=first), self.replicas, self.net)
        self.clip, rule = clip, load("clips", clip.rule)
        self.clip_memory: ClipMemory | None = None
        if isinstance(rule, StatefulRule):
            _check.settings(rule.settings, {}, rule.limits, self.net.dtype)
            room = np.zeros((self.replicas, len(rule.slots), self.net.size), self.dtype)
            self.clip_memory = ClipMemory(room, np.zeros(self.replicas, np.int64))
        self.threshold: Setting | Follower | BlockThresholds
        if follows(clip.threshold):
            self.threshold = Follower(clip.threshold, self.d_theta)
        elif isinstance(clip.threshold, dict):
            self.threshold = BlockThresholds(clip.threshold, self.net, self.replicas)
        else:
            self.threshold = Setting("threshold", clip.threshold, self.replicas, self.dtype, **THRESHOLDS)

    def _prepare_training(self, source: Any) -> None:
        follower = self.threshold if isinstance(self.threshold, Follower) else None
        self.training = self.engine.train(Plan(
            self.net, self.theta, self.slots, self.counts, self.d_theta, self.replica_ids, self.seed, self._asked,
            self.clip, load("clips", self.clip.rule), follower, self.optimizer, self.settings,
            self.held, self._prepare_projection(), self.window, self.limits.follower,
            self.clip_memory,
        ))  # fmt: skip
        self.batches: TaskBatches | SourceBatches | StreamBatches
        if self.task is None:
            self.batches = SourceBatches(source, self.net, self._stripped(self.theta), self.training)
        elif self.recipe.carry:
            assert not isinstance(self.task, Task)  # `completed` has looked
            self.batches = StreamBatches(self.task, self.recipe.batch_size, self.recipe.lengths, self.net,
                                         self.replica_ids, self.seed, self.training)  # fmt: skip
        else:
            self.batches = TaskBatches(self.task, self.recipe, self.seed, self.training)

    def _prepare_projection(self) -> Projection | None:
        if self.recipe.project is None:
            return None
        return Projection(self.recipe, self.net, self.theta, self.slots, self.counts)

    def _prepare_evaluation(self) -> None:
        recipe = self.recipe
        self.evaluator: Evaluator | HeldOut | OwnScore | None = None
        if not recipe.evaluate_every:
            return
        if self.own_score is not None:
            self.evaluator = OwnScore(self.own_score, self.single)
        elif self.task is None:
            return
        elif not isinstance(self.task, Task):
            self.evaluator = HeldOut(self.engine, self.net, self.task)
        else:
            self.evaluator = Evaluator(
                self.engine, self.net, self.task, recipe.length_range, self.replica_ids, recipe.evaluate_size
            )

    def go(self, callbacks: Sequence[Callback], keep: Callable[[], None]) -> None:
        """Update until the end, a stopping rule, or an exception; `keep` is called where all is settled."""
        if not self.keeps_best:
            self.run.best = None
        while not self._pause(callbacks) and self.run.updates < self.recipe.max_updates:
            keep()
            self.one_update(self.run.updates)

    def stop_by(self, callbacks: Sequence[Callback]) -> Sequence[Callback]:
        """Take those of the callbacks that look at evaluations alone; return the others."""
        rules = [callback for callback in callbacks if isinstance(callback, EarlyStopping)]
        if rules:
            self._refuse_no_evaluations("callbacks has an EarlyStopping")
        self.stoppers = [Stopper(rule, self.replicas) for rule in rules]
        self.keeps_best = all(rule.keep == "best" for rule in rules)
        return [callback for callback in callbacks if not isinstance(callback, EarlyStopping)]

    def _pause(self, callbacks: Sequence[Callback]) -> bool:
        """Do what is due after so many updates and has not been done; return whether to end."""
        recipe, run = self.recipe, self.run
        update, last = run.updates, run.updates == recipe.max_updates
        evaluated = run.evaluations["update"][-1:] == [update] or not update
        due = self.evaluator is not None and not evaluated and (last or update % recipe.evaluate_every == 0)
        row = last or update % recipe.record_every == 0
        if due or row:
            with self.guard:
                # Parameters are brought where somebody looks at them.
                (self.training.bring if due or callbacks else self.training.report)()
        if self.evaluator is not None and due:
            self._evaluate(self.evaluator)
        ends = self._solved() or any(stopper.out(run) for stopper in self.stoppers)
        if self.window.count and (row or ends):
            self.record()
            run.seconds = self.elapsed()
            return self._asked_to_stop(callbacks) or ends
        return ends

    def _asked_to_stop(self, callbacks: Sequence[Callback]) -> bool:
        """Call each of the callbacks; return whether any answered with something true."""
        if callbacks:
            # A copy: what a callback keeps stays what it was, and nobody writes what training goes on with.
            self.run.theta = self._stripped(self.theta).copy()
            self.run.theta.flags.writeable = False
        answers = [callback(self.run) for callback in callbacks]
        return any(map(bool, answers))

    def one_update(self, update: int) -> None:
        """Do the update of this number."""
        self.batches.next(update)
        alpha = None if self.alpha is None else self.alpha.at(update)
        self.training.gradient(update, alpha, self.limits.at(update))
        lr = self.lr.at(update)
        threshold = None if isinstance(self.threshold, Follower) else self.threshold.at(update)
        with self.guard:
            refusal = self.training.step(update, lr, threshold)
            if refusal is None:
                self.run.updates += 1
                self.length, self.lr.last = self.batches.length, lr
                self.batches.done()
                self.limits.settle()
                if threshold is not None:
                    self.threshold.last = threshold
        if refusal is not None:
            raise refusal

    def state(self) -> dict[str, Any]:
        """Return all that an update depends on or changes, by name: views, into which a saved state may be copied."""
        with self.guard:
            self.training.bring()
        memory: dict[str, Any] = {}
        if isinstance(self.threshold, Follower):
            memory["memory"] = self.threshold.memory
        if self.limits.follower is not None:
            memory["memory_of_groups"] = self.limits.follower.memory
        if self.clip_memory is not None:
            memory |= {"clip/slots": self.clip_memory.slots, "clip/counts": self.clip_memory.counts}
        return {"theta": self.theta, "slots": self.slots, "counts": self.counts, **memory, **self.batches.saved(),
                **self.window.state()}  # fmt: skip

    def restore(self, arrays: dict[str, Any], facts: dict[str, Any]) -> None:
        """Go back to where a saved run was."""
        self.window.resize(facts["count"], len(arrays["window/reports"]))
        checkpoint.fill(self.state(), arrays)
        self.training.take()
        if isinstance(self.batches, StreamBatches):
            self.batches.check()
        self.solved_at, self.stays = (
            [facts[name]] if self.single else list(facts[name]) for name in ("first_passage", "stays_below")
        )
        self.lr.last = self._of_replicas(facts["last"]["lr"])
        self.threshold.last = self._of_replicas(facts["last"]["threshold"], self.threshold.last.shape)
        self.limits.last |= {
            name: self._of_replicas(facts["last"][name]) for name in self.limits.last if name in facts["last"]
        }
        self.length = facts["last"]["length"]
        self.started -= facts["seconds"]

    def last(self) -> dict[str, Any]:
        """Return what the next row of the history says of the last update alone."""
        limits = {name: values.tolist() for name, values in self.limits.last.items()}
        return {"length": self.length, "lr": self.lr.last.tolist(), "threshold": self.threshold.last.tolist(), **limits}

    def _of_replicas(self, values: Any, shape: tuple[int, ...] = ()) -> Floats:
        found = np.array(values, self.dtype)
        if found.shape != (shape or (self.replicas,)):
            raise ValueError(
                f"checkpoint: {values} are not one number for each of {self.replicas} replicas. Delete it."
            )
        return found

    def elapsed(self) -> float:
        """Return the seconds that the run has taken, in this process and in those before."""
        return time.perf_counter() - self.started

    def record(self) -> None:
        """Make a row of the history of the updates since the last one."""
        run, last = self.run, self.last()
        row = {"update": run.updates, "seconds": self.elapsed(), "length": last["length"],
               "lr": self._plain(last["lr"])}  # fmt: skip
        if self.recipe.clip is not None:
            columns = {"threshold": last["threshold"]}
            if isinstance(self.threshold, BlockThresholds):
                columns = self.threshold.columns(last["threshold"])
            row |= {name: self._plain(values) for name, values in columns.items()}
        row |= {name: self._plain(last[name]) for name in self.limits.last}
        with self.guard:
            row |= {name: self._plain(values) for name, values in self.window.means().items()}
            for name, value in row.items():
                run.history.setdefault(name, []).append(value)

    def _evaluate(self, evaluator: Evaluator | HeldOut | OwnScore) -> None:
        score = evaluator.score(self.theta, self.seed, self.run.updates)
        with self.guard:
            self.run.evaluations["update"].append(self.run.updates)
            self.run.evaluations["score"].append(self._plain(score.tolist()))
            if self.keeps_best:
                before = best.as_rows(self.run.best, self.single)
                now = best.better(before, self.theta, self.run.updates, score)
                self.run.best = best.first(now) if self.single else now
            bound = self.recipe.solved_below
            for r in range(self.replicas):
                below = bound is not None and bool(score[r] < bound)
                if below and self.solved_at[r] is None:
                    self.solved_at[r], self.stays[r] = self.run.updates, True
                elif not below:
                    self.stays[r] = False
            self.run.first_passage = self._plain(list(self.solved_at))
            self.run.stays_below = self._plain(list(self.stays))

    def _solved(self) -> bool:
        return self.recipe.stop_when_solved and all(at is not None for at in self.solved_at)

    def finish(self) -> None:
        """Write what is left: the last rows, the time, the parameters."""
        with self.guard:
            self.training.bring()
        self.run.theta = self._stripped(self.theta)
        if self.window.count:
            self.record()
        self.run.seconds, self.run.shown = self.elapsed(), 0

    def _plain(self, values: Any) -> Any:
        return values[0] if self.single else values

    def _stripped(self, rows: Floats) -> Floats:
        return rows[0] if self.single else rows
