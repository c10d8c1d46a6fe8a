"""What a training run on the card is fed with and measured on: batches, and sequences for its evaluation.

`loop` is the `nbflow.cuda_loop.CudaLoop` that they belong to, whose workspace may be cut anew at any batch.
"""

from __future__ import annotations

from typing import Any

from nbflow import _check, counter
from nbflow.cpu.workspace import Shape
from nbflow.data.sampler import Task
from nbflow.records import Batch, Floats
from nbflow.training._batches import Source
from nbflow.training.evaluation import Evaluator, HeldOut, draw_length


class TaskOnCard:
    """Batches of a task, drawn on the card."""

    def __init__(self, loop: Any, task: Any) -> None:
        self.loop, self.task, recipe = loop, task, loop.recipe
        self.lengths = _check.length_range("lengths", recipe.lengths, self.task.shortest)
        self.length = 0
        longest = self.task.steps(self.lengths[1])
        loop.fit(Shape(loop.replicas, longest, recipe.batch_size, self.task.tokens))

    def next(self, update: int) -> None:
        """Draw the batch of an update."""
        self.length = draw_length(self.lengths, self.loop.seed, counter.TRAIN, update)
        self._draw(update)

    def _draw(self, update: int) -> None:
        from nbflow.cuda import program

        program.sample(self.loop.space, self.task, self.loop.seed, counter.TRAIN, update, self.length)


class DataOnCard(TaskOnCard):
    """Batches of a user's data, which stay with the host: drawn there, and copied to the card each time."""

    def _draw(self, update: int) -> None:
        from nbflow.cuda.gradient import send_data

        loop, steps = self.loop, self.task.steps(self.length)
        batch = self.task.empty(loop.replicas, steps, loop.recipe.batch_size, loop.net.dtype)
        self.task.fill(batch, loop.seed, counter.TRAIN, loop.replica_ids, update, self.length)
        send_data(loop.space, batch)


class SourceOnCard:
    """Batches of a function of the update, checked and copied to the card each time."""

    def __init__(self, loop: Any, source: Source) -> None:
        self.loop, self.source, self.length = loop, source, 0

    def next(self, update: int) -> None:
        """Send the batch of an update."""
        from nbflow.cuda.gradient import send_data
        from nbflow.gradients.workspace import shape_of

        loop = self.loop
        given = loop.theta[0] if loop.single else loop.theta
        checked = _check.computation(loop.net, given, self.source(update))
        send_data(loop.fit(shape_of(checked)), checked)
        self.length = checked.weights.shape[1]


class EvaluatorOnCard(Evaluator):
    """Evaluation on sequences that are drawn on the card; it looks at the parameters that lie there."""

    def __init__(self, loop: Any, task: Task, lengths: tuple[int, int], size: int) -> None:
        self.loop = loop
        super().__init__(loop.net, task, lengths, loop.replica_ids, size)

    def _prepare(self, replicas: int, most: int) -> None:
        from nbflow.cuda.workspace import Purpose, Workspace

        self.space = Workspace(self.net, Shape(replicas, most, self.batch_size, self.task.tokens), Purpose())
        self.space.set_ids(self.replicas)

    def score(self, theta: Floats, seed: int, index: int) -> Floats:
        """Return the part of wrong sequences (R,); another `index` gives other sequences."""
        self.space.copy("THETA", self.loop.space)
        return super().score(theta, seed, index)

    def _pass(self, theta: Floats, seed: int, index: int) -> Any:
        from nbflow.cuda import program

        length = draw_length(self.lengths, seed, counter.EVALUATION, index)
        program.sample(self.space, self.task, seed, counter.EVALUATION, index, length)
        program.forward(self.space, whole=False)
        program.predictions(self.space)
        program.wrong(self.space, self.task)
        return self.space.read("WRONG", self.batch_size)


class HeldOutOnCard(HeldOut):
    """What a task of a user's data holds out, measured on the card, a network at a time."""

    def __init__(self, loop: Any, task: Any) -> None:
        super().__init__(loop.net, task)
        self.loop = loop

    def score(self, theta: Floats, seed: int, index: int) -> Floats:
        """Return the score of each network (R,)."""
        self.loop.bring()
        return super().score(theta, seed, index)

    def _make(self, size: int, most: int) -> Any:
        from nbflow.cuda.workspace import Purpose, Workspace

        return Workspace(self.net, Shape(1, most, size, self.task.tokens), Purpose(backward=True))

    def _loss(self, space: Any, theta: Floats, batch: Batch, state: Floats | None) -> tuple[float, Floats | None]:
        from nbflow.cuda.gradient import last_state, run_score

        loss = run_score(space, theta, batch, state, whole=self.task.carries)
        return loss, last_state(space) if self.task.carries else None
