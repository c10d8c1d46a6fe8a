"""The training loop: sample, gradient, clip, update; its schedules, evaluations, stopping rules and callbacks."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from nbflow import _check
from nbflow._progress import BAR_SECONDS, Show, shown
from nbflow.data.sampler import Sampler
from nbflow.gradients._engine import engine_of
from nbflow.model.stack import Model
from nbflow.records import Floats
from nbflow.training._batches import Source
from nbflow.training._loop import Loop
from nbflow.training._start import Start
from nbflow.training.recipe import Recipe
from nbflow.training.resume import Keeper
from nbflow.training.run import Callback, Run


def train(
    net: Model,
    theta: Floats,
    task: str | Sampler | Source,
    recipe: Recipe,
    *,
    seed: int = 0,
    replica_ids: Sequence[int] | None = None,
    callbacks: Sequence[Callback] = (),
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_seconds: float = 60.0,
    start_from: str | os.PathLike[str] | None = None,
    backend: str = "cpu",
    progress: bool = False,
    score: Callable[[Floats], Any] | None = None,
) -> Run:
    """Train a network, or R of them side by side.

    Parameters
    ----------
    net : Network or Stack
    theta : array of shape (P,) or (R, P)
        Where to begin; it is not changed.
    task : str, Task, task of a user's data (see `nbflow.data`), or function of the update that returns a Batch
        A task's sequences come from the counter stream of `seed`; replica r's are the same for every R. A function's
        batches must have R in front if theta has it; such a run is not evaluated.
    recipe : Recipe
    seed : int
        0 to 2**63 - 1.
    replica_ids : sequence of R ints, optional
        The numbers under which replicas draw sequences and random steps, each below 2**24; by default 0 to R - 1. A
        network trained alone under number r is bit for bit replica r of a training of many.
    callbacks : sequence of functions
        Each is called with the `Run` after every row of the history, and after the evaluation that is due then; an
        answer that is true ends the training, once all were called. `run.theta`, (P,) or (R, P) on either backend, is a
        copy which may be kept and not be written: nothing that a callback does changes what training goes on with. A
        run that goes on from a checkpoint shows no rows that are in it, and those after it once more, to the same bits;
        `run.shown` is the last update that callbacks have seen before (see docs/callbacks.md). A `nbflow.EarlyStopping`
        ends the training at an evaluation.
    checkpoint : path, optional
        A file in which the run is kept: parameters, slots of the optimizer, memory of the threshold, history and
        evaluations. If it is there, training goes on from it, to the same bits as if it had never been interrupted (by
        the same backend; by the other, to rounding). A run of another net, task, seed, theta or recipe is refused;
        `max_updates` may be larger than it was, and `record_every`, `evaluate_every` and `evaluate_size` others.
        Functions are known by module and name, by what a partial or an object holds, and those of your own by what they
        say: bytecode, constants, defaults, the numbers and functions that they use. Lists, arrays and other objects
        around them are not looked at. A run that a callback ended goes on.
        The checkpoint before the last is kept beside it (".before"), and taken where the last is damaged. What is there
        can be read with `nbflow.load_run`.
    checkpoint_seconds : float
        Seconds between two checkpoints; 0 for one after every update. There is one at the end too, at Ctrl-C, and when
        a callback raises. One that cannot be written is a RuntimeWarning, and training goes on; only the first one,
        before the first update, is an error.
    start_from : path, optional
        The checkpoint of another run, to branch from: training goes on from its parameters, with the optimizer's slots
        and the count of updates, by this recipe. The network, R and the optimizer are the same; rate, threshold (whose
        memory comes along if it is the same), policy, flow, task, seed and length may be others; with `carry`, it goes
        on in the same place of the same streams, and begins others at their beginnings. `theta` is that of the other
        run, where it began or where it is. History and evaluations are of the branch alone, and begin at the update of
        the checkpoint; `max_updates` counts from 0. With a `checkpoint` of its own a branch goes on as any run, though
        the other run went on too or is gone.
    backend : str
        "cpu", or "cuda" for a GPU, where parameters, data and optimizer stay on the card: many replicas fill it.
        Schedules, a user's data, a carried state, and policy "raise" wait for the card at every update. A threshold
        that is none, or an infinite one with policy "random", is noticed there only when the history needs a row.
    progress : bool
        Whether to show updates, the last loss and score, and the time left: as a bar of rich, where that is installed,
        in a terminal or a notebook, else as a line on the error stream every half minute.
    score : function, optional
        What evaluations measure in place of the task's score; batches of a function have none without it. It is given
        theta, (P,) or (R, P), which it may keep and not write, and returns a number or R of them, the lower the better,
        NaN for none. `solved_below` has no default then, and `run.unit` is None.

    Returns
    -------
    Run
        Ctrl-C, or a notebook's Interrupt, ends the training and returns what was done.

    Raises
    ------
    Exception
        What ends a training in its midst, a schedule, a source or a callback that fails, has the `Run` so far as its
        attribute `run`; a checkpoint is written.
    FloatingPointError
        If a gradient is not finite and the clip's policy is "raise".
    TypeError, ValueError
        If an argument makes no sense, or the checkpoint is of another training, or damaged; before the first update.
    OSError
        If the checkpoint cannot be read, or none can be written; before the first update.
    NotImplementedError
        If backend "cuda" lacks what is asked for.
    RuntimeError, MemoryError
        If there is no GPU, or no room on it.

    Examples
    --------
    >>> import dataclasses, nbflow as nf
    >>> net = nf.Network(cell="tanh", n_in=6, n_hidden=20, n_out=4)
    >>> theta = nf.init(net, "smart_tanh", rng=0, replicas=2)
    >>> recipe = nf.Recipe(lengths=10, max_updates=50, evaluate_every=50, evaluate_size=100, clip=nf.Clip("norm", 1.0))
    >>> run = nf.train(net, theta, "temporal_order", recipe)
    >>> run.updates, len(run.evaluations["score"][0]), run.unit
    (50, 2, 'part wrong')

    A callback that keeps the parameters (R, P) of every row, and ends the training where both losses are small:

    >>> kept = {}
    >>> def look(run):
    ...     kept[run.updates] = run.theta
    ...     return max(run.history["loss"][-1]) < 0.1
    >>> run = nf.train(net, theta, "temporal_order", dataclasses.replace(recipe, record_every=25), callbacks=[look])
    >>> list(kept), kept[25].shape == theta.shape, bool((kept[50] == run.theta).all())
    ([25, 50], True, True)
    """
    engine = engine_of(backend, net)
    callbacks = _check.functions("callbacks", callbacks)
    seconds = float(_check.per_replica("checkpoint_seconds", checkpoint_seconds, 1, least=0.0)[0])
    if score is not None and not callable(score):
        raise TypeError(f"score is {_check.said(score)}; expected a function of theta, or None. Write score=function.")
    loop = Loop(engine, net, theta, task, recipe, seed, replica_ids, score)
    callbacks = loop.stop_by(callbacks)
    start = None if start_from is None else Start(start_from, loop)
    keeper = None if checkpoint is None else Keeper(checkpoint, seconds, loop, task, start)
    if start is not None and keeper is None:
        start.go(loop)
    if keeper is not None and not all(getattr(callback, "keeps_nothing", False) for callback in callbacks):
        callbacks = (*callbacks, keeper.note)
    try:
        with shown(wanted=bool(progress)) as show, loop.guard.installed():
            seen = Seen(loop.run, loop.recipe.max_updates, show) if progress else _nothing
            loop.go(callbacks, _both(keeper.keep, seen) if keeper else seen)
            seen()
    except KeyboardInterrupt:
        loop.run.interrupted = True
    except BaseException as error:
        _save(keeper, loop)
        _hand_over(loop, error, checkpoint)
        raise
    _save(keeper, loop)
    loop.finish()
    return loop.run


def _save(keeper: Keeper | None, loop: Loop) -> None:
    """Save the end, before a last row is made of updates that go on into the next one."""
    if keeper and not loop.guard.torn:
        keeper.keep(now=True)


def _hand_over(loop: Loop, error: BaseException, path: Any) -> None:
    """Let an exception carry what was done before it."""
    done = loop.run.updates
    if not loop.guard.torn:
        with contextlib.suppress(Exception):  # a card that failed fails again: `error` says what happened first
            loop.finish()
    error.run = loop.run  # type: ignore[attr-defined]
    if hasattr(error, "add_note"):  # Python 3.11
        error.add_note(f"It ended a training after {done} updates; what they did is in `run` of this exception.")
        if path is not None:
            error.add_note(f"To go on from there with another recipe: start_from={str(path)!r} and another checkpoint.")


def _nothing() -> None:
    """Keep no checkpoints, and show nothing."""


def _both(first: Callable[[], None], second: Callable[[], None]) -> Callable[[], None]:
    def both() -> None:
        first()
        second()

    return both


class Seen:
    """Shows how far a run is, now and then: called before every update, of which there may be thousands a second."""

    def __init__(self, run: Run, total: int, show: Show) -> None:
        self.run, self.total, self.show, self.last = run, total, show, -BAR_SECONDS

    def __call__(self) -> None:
        """Show it, if it is long enough since the last time, or the end."""
        now = time.perf_counter()
        if now - self.last < BAR_SECONDS and self.run.updates < self.total:
            return
        self.last = now
        self.show("", self.run.updates, self.total, self._words())

    def _words(self) -> str:
        words = [f"{self.run.updates:,} of {self.total:,} updates"]
        losses, scores = self.run.history.get("loss"), self.run.evaluations["score"]
        words += [f"loss {_mean(losses[-1]):.3g}"] if losses else []
        words += [f"score {_mean(scores[-1]):.3g}"] if scores else []
        return ", ".join(words)


def _mean(row: float | list[float]) -> float:
    """Return a number of a row, or the mean of its replicas'."""
    return sum(row) / len(row) if isinstance(row, list) else row
