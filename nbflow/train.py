"""The training loop: sample, gradient, clip, update; its schedules, evaluations, stopping rules and callbacks."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nbflow import _check, counter
from nbflow._load import load
from nbflow.clipping import Clipper, check_clip
from nbflow.cpu.report import COLUMNS, ENTRIES, FINITE, NORM, SCALE
from nbflow.evaluation import Evaluator, draw_length
from nbflow.gradient import (
    backend_there,
    check_flow,
    check_groups,
    check_hidden,
    program_for,
    refuse_combinations,
)
from nbflow.network import Network
from nbflow.records import Batch, Clip, Floats, Flow, HiddenClip, Optimizer, Penalty, Rule
from nbflow.task import Task

# Rows that a window keeps before it sums them.
KEPT = 256

Schedule = Callable[[int], Any]
Source = Callable[[int], Batch]


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    `lr`, the clip's threshold and the flow's alpha are each a number, one number per replica (R,), or a function of the
    update (counted from 0) that returns either.

    Parameters
    ----------
    optimizer : str or Optimizer
        One of `nbflow.names("optimizers")`.
    lr : float, array of shape (R,) or function
        The learning rate.
    batch_size : int
        B.
    lengths : int or tuple of two ints
        The length of a batch, or the smallest and the largest of lengths drawn for each batch.
    clip : Clip, optional
    flow : Flow, optional
    clip_hidden, clip_example, clip_microbatch : optional
        As in `nbflow.gradient`; the clip then sees what comes out of these.
    max_updates : int
        Where training ends.
    record_every : int
        Updates between two rows of the history; a row holds means over them.
    evaluate_every : int
        Updates between two evaluations, each on `evaluate_size` sequences of a stream that training never sees; 0 for
        none.
    evaluate_size : int
        10,000 as in Hochreiter and Schmidhuber 1997.
    solved_below : float
        The error below which a task counts as solved: 1 %.
    stop_when_solved : bool
        Whether to end once every replica has passed below `solved_below`.
    settings : dict
        Settings of the optimizer that differ from its own, as {"momentum": 0.95}.

    Examples
    --------
    >>> import nbflow as nf
    >>> recipe = nf.Recipe(lr=lambda update: 0.1 / (1 + update), clip=nf.Clip("norm", 1.0), max_updates=100)
    """

    optimizer: str | Optimizer = "sgd"
    lr: float | Floats | Schedule = 0.01
    batch_size: int = 20
    lengths: int | tuple[int, int] = (50, 200)
    clip: Clip | None = None
    flow: Flow | None = None
    clip_hidden: HiddenClip | None = None
    clip_example: float | Floats | None = None
    clip_microbatch: tuple[int, float | Floats] | None = None
    max_updates: int = 1000
    record_every: int = 100
    evaluate_every: int = 1000
    evaluate_size: int = 10_000
    solved_below: float = 0.01
    stop_when_solved: bool = False
    settings: dict[str, float] = field(default_factory=dict)

    @property
    def length_range(self) -> tuple[int, int]:
        """The smallest and the largest length."""
        return _check.length_range("lengths", self.lengths)


@dataclass
class Run:
    """What a training run has done so far; callbacks see it, and `nbflow.train` returns it.

    Attributes
    ----------
    theta : array like the one that training began with
    updates : int
    seconds : float
        Wall time, evaluations included.
    history : dict of lists
        A row every `record_every` updates, means since the row before: "update", "seconds", "length", "lr", and, per
        network, "loss", "omega" (with a flow), "norm" of the finite gradients, "clipped" (the part of updates in which
        the clip changed it) and "nonfinite" (the number of gradients that were not). Plain numbers, or lists of R.
    evaluations : dict of lists
        "update" and "error", the part of sequences that are wrong.
    first_passage : int or None, or a list of R
        The first evaluated update with an error below `solved_below`.
    stays_below : bool, or a list of R
        Whether all evaluations since then were below it.
    interrupted : bool
        Whether Ctrl-C ended it.
    """

    theta: Floats
    updates: int = 0
    seconds: float = 0.0
    history: dict[str, list[Any]] = field(default_factory=dict)
    evaluations: dict[str, list[Any]] = field(default_factory=lambda: {"update": [], "error": []})
    first_passage: Any = None
    stays_below: Any = False
    interrupted: bool = False
    recipe: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return everything but theta, as `json.dumps` takes it."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "theta"}


Callback = Callable[[Run], Any]


def train(
    net: Network,
    theta: Floats,
    task: str | Task | Source,
    recipe: Recipe,
    *,
    seed: int = 0,
    callbacks: Sequence[Callback] = (),
    backend: str = "cpu",
) -> Run:
    """Train a network, or R of them side by side.

    Parameters
    ----------
    net : Network
    theta : array of shape (P,) or (R, P)
        Where to begin; it is not changed.
    task : str, Task or function of the update that returns a Batch
        A task's sequences come from the counter stream of `seed`; replica r's are the same for every R. A function's
        batches must have R in front if theta has it; such a run is not evaluated.
    recipe : Recipe
    seed : int
        0 to 2**63 - 1.
    callbacks : sequence of functions
        Each is called with the `Run` after every row of the history; one that returns True ends the training.
    backend : str
        "cpu".

    Returns
    -------
    Run
        Ctrl-C ends the training and returns what was done.

    Raises
    ------
    FloatingPointError
        If a gradient is not finite and the clip's policy is "raise".
    TypeError, ValueError
        If an argument makes no sense; before the first update.

    Examples
    --------
    >>> import nbflow as nf
    >>> net = nf.Network(cell="tanh", n_in=6, n_hidden=20, n_out=4)
    >>> theta = nf.init(net, "smart_tanh", rng=0, replicas=2)
    >>> recipe = nf.Recipe(lengths=10, max_updates=50, evaluate_every=50, evaluate_size=100, clip=nf.Clip("norm", 1.0))
    >>> run = nf.train(net, theta, "temporal_order", recipe)
    >>> run.updates, len(run.evaluations["error"][0])
    (50, 2)
    """
    backend_there(backend)
    callbacks = _check.functions("callbacks", callbacks)
    loop = _Loop(net, theta, task, recipe, seed)
    try:
        loop.go(callbacks)
    except KeyboardInterrupt:
        loop.run.interrupted = True
    loop.finish()
    return loop.run


class _Loop:
    """The state of a training run: everything is checked and allocated before the first update."""

    def __init__(self, net: Network, theta: Floats, task: Any, recipe: Recipe, seed: int) -> None:
        rows, self.single = _check.parameters(net, theta)
        self.net, self.recipe, self.seed = net, check_recipe(recipe), _check.count("seed", seed, 0)
        self.theta, self.replicas = rows.copy(), rows.shape[0]
        self.dtype = net.scalar
        self.source = task if callable(task) and not isinstance(task, Task) else None
        self.task = None if self.source else check_task(net, task)
        self._prepare_optimizer()
        self._prepare_gradient()
        self._prepare_evaluation()
        self.window = _Window(self.replicas, recipe.record_every, recipe.flow is not None)
        self.run = Run(theta=self._stripped(self.theta), recipe=describe(recipe))
        self.run.first_passage = self._plain([None] * self.replicas)
        self.run.stays_below = self._plain([False] * self.replicas)
        self.solved_at: list[int | None] = [None] * self.replicas
        self.stays = [False] * self.replicas
        self.started = time.perf_counter()

    def _prepare_optimizer(self) -> None:
        from nbflow.cpu.update import build_update

        optimizer: Optimizer = load("optimizers", self.recipe.optimizer, "optimizer")
        settings = _check.settings(optimizer.settings, self.recipe.settings)
        self.slots = np.zeros((self.replicas, len(optimizer.slots), self.net.size), self.dtype)
        self.settings = np.array(list(settings.values()), self.dtype).reshape(1, -1, 1)
        self.update = build_update(optimizer.update, len(optimizer.slots), len(settings))
        self.lr = _Setting("lr", self.recipe.lr, self.replicas, self.dtype, least=0.0, finite=True)

    def _prepare_gradient(self) -> None:
        recipe = self.recipe
        self.d_theta = np.empty_like(self.theta)
        self.spaces: dict[Any, Any] = {}
        self.penalty = None
        if recipe.flow is not None:
            flow = recipe.flow
            if not isinstance(flow, Flow):
                check_flow(flow, self.replicas, self.net.dtype)
            first = dataclasses.replace(flow, alpha=_at_zero(flow.alpha))
            self.penalty, _ = check_flow(first, self.replicas, self.net.dtype)
            self.alpha = _Setting("alpha", flow.alpha, self.replicas, self.dtype, least=0.0, finite=True)
        # Without a clip the same code measures the norm, and changes nothing.
        clip = Clip("norm", math.inf, nonfinite="keep") if recipe.clip is None else recipe.clip
        if not isinstance(clip, Clip):
            check_clip(clip, self.replicas, self.net.dtype)
        check_clip(dataclasses.replace(clip, threshold=_at_zero(clip.threshold)), self.replicas, self.net.dtype)
        self.clipper = Clipper(self.net, clip, self.replicas)
        self.threshold = _Setting("threshold", clip.threshold, self.replicas, self.dtype, least=0.0, above=True)
        self.hidden = check_hidden(recipe.clip_hidden, self.replicas, self.net.dtype)
        self.length = 0
        self.room = None
        if self.task is not None:
            _, longest = _check.length_range("lengths", recipe.lengths, self.task.shortest)
            self.room = _Room(self.task, self.replicas, recipe.batch_size, longest, self.net.dtype)

    def _prepare_evaluation(self) -> None:
        recipe = self.recipe
        self.evaluator = None
        if self.task is not None and recipe.evaluate_every:
            self.evaluator = Evaluator(self.net, self.task, recipe.length_range, self.replicas, recipe.evaluate_size)

    def go(self, callbacks: Sequence[Callback]) -> None:
        """Update until the end, a stopping rule, or an exception."""
        recipe, run = self.recipe, self.run
        while run.updates < recipe.max_updates:
            self._one_update(run.updates)
            run.updates += 1
            if run.updates % recipe.record_every == 0 or run.updates == recipe.max_updates:
                stop = self._pause(callbacks)
                if stop:
                    return
            elif self.evaluator is not None and run.updates % recipe.evaluate_every == 0:
                self._evaluate()
                if self._solved():
                    self._pause(callbacks)
                    return

    def _pause(self, callbacks: Sequence[Callback]) -> bool:
        """Write a row of the history, evaluate if it is time, call back; return whether to end."""
        recipe, run = self.recipe, self.run
        self._record()
        evaluated = run.evaluations["update"][-1:] == [run.updates]
        due = run.updates % max(recipe.evaluate_every, 1) == 0 or run.updates == recipe.max_updates
        if self.evaluator is not None and due and not evaluated:
            self._evaluate()
        run.seconds = time.perf_counter() - self.started
        answers = [callback(run) for callback in callbacks]
        return self._solved() or any(answer is True for answer in answers)

    def _one_update(self, update: int) -> None:
        space = self._next_batch(update)
        if self.penalty is not None:
            space.pool["alpha"] = self.alpha.at(update)
        self._execute(space)
        threshold = self.threshold.at(update)
        self.clipper.apply(self.d_theta, self.d_theta, threshold, self.theta)
        if self.clipper.needs_mending():
            self.clipper.mend(self.d_theta, self.d_theta, threshold, self.theta, self.seed, update)
        self.update(self.theta, self.d_theta, self.slots, self.lr.at(update), self.settings, self.dtype(update + 1))
        self.window.add(space.report, self.clipper.report)

    def _next_batch(self, update: int) -> Any:
        """Return the workspace of this update's batch, pointing at it."""
        if self.source is not None:
            checked = _check.computation(self.net, self._stripped(self.theta), self.source(update))
            space = self._space(checked.weights.shape, checked.inputs.dtype.kind == "i")
            self._kept = checked
            space.point_to(self.theta, checked.inputs, checked.targets, checked.weights, self.d_theta)
            self.length = checked.weights.shape[1]
            return space
        assert self.task is not None
        assert self.room is not None
        length = draw_length(self.recipe.length_range, self.seed, counter.TRAIN, update)
        if length != self.length:
            self.length, self.batch = length, self.room.front(self.task.steps(length))
            self.space = self._space(self.batch.weights.shape, self.task.tokens)
            self.space.point_to(self.theta, *self.batch, self.d_theta)
        self.task.fill(self.batch, self.seed, counter.TRAIN, update, length)
        return self.space

    def _space(self, lead: tuple[int, ...], tokens: bool) -> Any:
        """Return a workspace with room for a batch of this shape."""
        from nbflow.cpu.program import execute, set_program
        from nbflow.cpu.workspace import Purpose, Shape, Workspace

        replicas, steps, batch_size = lead
        found = self.spaces.get((batch_size, tokens))
        if found is None or found.shape.steps < steps:
            most = max(steps, self.task.steps(self.recipe.length_range[1]) if self.task else 0)
            groups = check_groups(
                (replicas, batch_size), self.net.dtype, self.recipe.clip_example, self.recipe.clip_microbatch
            )
            refuse_combinations(self.recipe.flow, None, groups, 0, self.hidden)
            purpose = Purpose(
                derivative=self.recipe.flow.derivative if self.recipe.flow else "",
                group_rows=groups[0] if groups else 0,
            )
            found = Workspace(self.net, Shape(replicas, most, batch_size, tokens), purpose)
            set_program(found, program_for(purpose), penalty=self.penalty)
            found.set_hidden_clip(*self.hidden)
            if groups:
                found.set_group_threshold(groups[1])
            if self.recipe.flow is not None:
                found.set_flow(self.alpha.at(0), self.recipe.flow)
            self.spaces[(batch_size, tokens)] = found
            self._execute = execute
        if found.steps != steps:
            found.fit(steps)
        return found

    def _record(self) -> None:
        run = self.run
        row = {"update": run.updates, "seconds": time.perf_counter() - self.started, "length": self.length,
               "lr": self._plain(self.lr.at(run.updates - 1).tolist())}  # fmt: skip
        row |= {name: self._plain(values) for name, values in self.window.means().items()}
        for name, value in row.items():
            run.history.setdefault(name, []).append(value)

    def _evaluate(self) -> None:
        assert self.evaluator is not None
        error = self.evaluator.error(self.theta, self.seed, self.run.updates)
        self.run.evaluations["update"].append(self.run.updates)
        self.run.evaluations["error"].append(self._plain(error.tolist()))
        for r in range(self.replicas):
            below = bool(error[r] < self.recipe.solved_below)
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
        if self.window.count:
            self._record()
        self.run.seconds = time.perf_counter() - self.started

    def _plain(self, values: Any) -> Any:
        return values[0] if self.single else values

    def _stripped(self, rows: Floats) -> Floats:
        return rows[0] if self.single else rows


class _Room:
    """Memory for the longest batch of a task; shorter ones use the front of it."""

    def __init__(self, task: Task, replicas: int, batch_size: int, longest: int, dtype: str) -> None:
        self.whole = task.empty(replicas, task.steps(longest), batch_size, dtype)

    def front(self, steps: int) -> Batch:
        """Return C-ordered arrays for so many steps."""
        shapes = [(part.shape[0], steps, *part.shape[2:]) for part in self.whole]
        return Batch(
            *(part.ravel()[: math.prod(shape)].reshape(shape) for part, shape in zip(self.whole, shapes, strict=True))
        )


class _Setting:
    """A number, one per replica, or a function of the update that returns either; checked each time it is asked."""

    def __init__(self, name: str, value: Any, replicas: int, dtype: Any, **limits: Any) -> None:
        self.name, self.value, self.replicas, self.dtype, self.limits = name, value, replicas, dtype, limits
        self.fixed = None if callable(value) else self._checked(value)

    def _checked(self, value: Any) -> Floats:
        found = _check.per_replica(self.name, value, self.replicas, dtype=self.dtype, **self.limits)
        return np.ascontiguousarray(found, self.dtype)

    def at(self, update: int) -> Floats:
        """Return the values (R,) of an update."""
        return self._checked(self.value(update)) if self.fixed is None else self.fixed


class _Window:
    """Sums since the last row of the history."""

    def __init__(self, replicas: int, size: int, flowing: bool) -> None:
        self.flowing = flowing
        # Kept as they come and summed now and then: sums at every update would be overhead of the loop.
        self.reports = np.zeros((min(size, KEPT), replicas, 3))
        self.clips = np.zeros((min(size, KEPT), replicas, len(COLUMNS)))
        self.sums = np.zeros((6, replicas))
        self.count = self.summed = 0

    def add(self, report: Floats, clip: Floats) -> None:
        place = self.count - self.summed
        self.reports[place] = report
        self.clips[place] = clip
        self.count += 1
        if place + 1 == len(self.reports):
            self._sum()

    def _sum(self) -> None:
        """Add what was kept to the sums: loss, omega, norms, how many were finite, clipped, updates."""
        kept = self.count - self.summed
        reports, clips = self.reports[:kept], self.clips[:kept]
        finite = clips[:, :, FINITE] != 0
        norms = np.divide(clips[:, :, NORM], clips[:, :, SCALE], out=np.zeros(finite.shape), where=finite)
        changed = np.where(finite, clips[:, :, ENTRIES] > 0, True)
        parts = (reports[:, :, 0], reports[:, :, 1], norms, finite, changed, np.ones(finite.shape))
        self.sums += [part.sum(axis=0) for part in parts]
        self.summed = self.count

    def means(self) -> dict[str, list[float]]:
        """Return the means, and begin anew."""
        self._sum()
        loss, omega, norm, finite, clipped, count = self.sums
        found = {"loss": loss / count}
        if self.flowing:
            found["omega"] = omega / count
        found["norm"] = norm / np.maximum(finite, 1)
        found["clipped"] = clipped / count
        found["nonfinite"] = (count - finite).astype(int)
        self.sums = np.zeros_like(self.sums)
        self.count = self.summed = 0
        return {name: values.tolist() for name, values in found.items()}


def _at_zero(value: Any) -> Any:
    return value(0) if callable(value) else value


def check_recipe(recipe: Any) -> Recipe:
    """Check every field that needs no network."""
    if not isinstance(recipe, Recipe):
        raise TypeError(f"recipe is a {type(recipe).__name__}; expected a Recipe. Write nbflow.Recipe(...).")
    for name in ("batch_size", "max_updates", "record_every", "evaluate_size"):
        _check.count(name, getattr(recipe, name))
    _check.count("evaluate_every", recipe.evaluate_every, 0)
    _check.length_range("lengths", recipe.lengths)
    if not 0 < _check.per_replica("solved_below", recipe.solved_below, 1, least=0.0, above=True)[0] <= 1:
        raise ValueError(f"solved_below is {recipe.solved_below}; expected an error in (0, 1]. The usual one is 0.01.")
    return recipe


def check_task(net: Network, task: Any) -> Task:
    """Return the task, which must fit the network."""
    found: Task = load("tasks", task, "task")
    if not isinstance(found, Task):
        raise TypeError(f"task is a {type(task).__name__}; expected a name, a Task or a function. Name one.")
    got = (net.n_in, net.n_out, net.loss_object)
    wanted = (found.n_in, found.n_out, load("losses", found.loss))
    if got != wanted:
        raise ValueError(
            f"net has n_in={net.n_in}, n_out={net.n_out}, loss={net.loss!r}; expected {found.n_in}, {found.n_out}, "
            f"{found.loss!r} for this task. Make the network with task.n_in, task.n_out and task.loss."
        )
    return found


def describe(thing: Any) -> Any:
    """Return a recipe, or a part of one, as `json.dumps` takes it: functions and units by name."""
    if isinstance(thing, Rule | Penalty | Optimizer | Task):
        return type(thing).__name__
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        return {f.name: describe(getattr(thing, f.name)) for f in dataclasses.fields(thing)}
    if isinstance(thing, np.ndarray | np.generic):
        return thing.tolist()
    if isinstance(thing, dict):
        return {str(key): describe(value) for key, value in thing.items()}
    if isinstance(thing, list | tuple):
        return [describe(value) for value in thing]
    if callable(thing):
        return getattr(thing, "__qualname__", repr(thing))
    if isinstance(thing, float) and not math.isfinite(thing):
        return str(thing)
    return thing
