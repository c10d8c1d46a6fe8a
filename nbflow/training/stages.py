"""Training in stages: one recipe after the other, each from where the one before has ended."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from nbflow import _check
from nbflow._legible import legible
from nbflow.data.sampler import Sampler
from nbflow.model.stack import Model
from nbflow.records import Floats
from nbflow.storage._files import path_of
from nbflow.training._batches import Source
from nbflow.training.best import Best
from nbflow.training.early_stopping import EarlyStopping
from nbflow.training.recipe import Recipe, check_recipe
from nbflow.training.run import Callback, Run
from nbflow.training.train import train


@legible
@dataclass(frozen=True)
class Staged:
    """What a training in stages has done.

    Attributes
    ----------
    runs : list of Run
        Those of the stages that were begun, in their order; updates are counted from 0 in each, and `run.before` has
        those of the stages before it.
    passed : int
        How many stages are over, and let the next one follow.
    complete : bool
        Whether all was done that there was to do; False where Ctrl-C or a callback has cut it off.
    """

    runs: list[Run]
    passed: int
    complete: bool

    @property
    def theta(self) -> Floats:
        """The parameters now, (P,) or (R, P)."""
        return self.runs[-1].theta

    @property
    def updates(self) -> int:
        """How many updates were done in all stages together."""
        return sum(run.updates for run in self.runs)

    @property
    def best(self) -> Best | None:
        """The best evaluation of the last stage that was begun: scores of other stages are of other tasks."""
        return self.runs[-1].best


def train_stages(
    net: Model,
    theta: Floats,
    task: str | Sampler | Source,
    recipes: Sequence[Recipe],
    *,
    max_updates: int | None = None,
    seed: int = 0,
    replica_ids: Sequence[int] | None = None,
    callbacks: Sequence[Callback] = (),
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_seconds: float = 60.0,
    backend: str = "cpu",
    progress: bool = False,
    score: Callable[[Floats], Any] | None = None,
) -> Staged:
    """Train in stages, by one recipe after the other: on sequences of growing length, say.

    Each stage is a training of its own, `nbflow.train`, from the parameters where the one before has ended: updates are
    counted from 0, the optimizer begins anew, and stage k has `seed` + k, so that no sequences come again. A stage is
    over after its `max_updates`, when it is solved (`stop_when_solved`), or when an `EarlyStopping` ends it. The next
    one follows, unless this one should have been solved and was not.

    Parameters
    ----------
    net : Network or Stack
    theta : array of shape (P,) or (R, P)
        Where to begin; it is not changed.
    task : str, Task, task of a user's data, or function of the update
        As in `nbflow.train`; the same in all stages.
    recipes : sequence of Recipe
        One a stage.
    max_updates : int, optional
        The most updates of all stages together. A second call with more goes on, where there are checkpoints.
    seed : int
    replica_ids, checkpoint_seconds, backend, progress, score : optional
        As in `nbflow.train`, of every stage.
    callbacks : sequence of functions
        As in `nbflow.train`, of every stage; `run.before` has the updates of the stages before. A true answer ends the
        training; that of an `EarlyStopping` ends the stage.
    checkpoint : path, optional
        "run.npz" for checkpoints "run.0.npz", "run.1.npz", ..., one a stage: the same call goes on where it was cut
        off, to the same bits.

    Returns
    -------
    Staged

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense, and whatever `nbflow.train` raises.

    Examples
    --------
    >>> import dataclasses, nbflow as nf
    >>> net = nf.Network(cell="tanh", n_in=6, n_hidden=20, n_out=4)
    >>> recipe = nf.Recipe(lr=0.05, max_updates=2000, evaluate_every=100, evaluate_size=200, stop_when_solved=True)
    >>> recipes = [dataclasses.replace(recipe, lengths=(10, top)) for top in (10, 12)]
    >>> staged = nf.train_stages(net, nf.init(net, "smart_tanh", rng=0), "temporal_order", recipes)
    >>> len(staged.runs) == min(staged.passed + 1, 2), staged.complete
    (True, True)
    """
    if not isinstance(recipes, list | tuple) or not recipes:
        raise TypeError(f"recipes is {_check.said(recipes)}; expected a list of Recipe, one a stage. Write [recipe].")
    stages = [check_recipe(recipe) for recipe in recipes]
    callbacks = _check.functions("callbacks", callbacks)
    budget = sum(recipe.max_updates for recipe in stages)
    budget = budget if max_updates is None else _check.count("max_updates", max_updates)
    seed = _check.count("seed", seed, 0)
    path = None if checkpoint is None else path_of("checkpoint", checkpoint, "run.npz")
    runs: list[Run] = []
    passed, done = 0, 0
    for k, recipe in enumerate(stages):
        recipe = dataclasses.replace(recipe, max_updates=min(recipe.max_updates, budget - done))
        run = train(
            net, theta, task, recipe, seed=seed + k, replica_ids=replica_ids,
            callbacks=[_told(callback, done) for callback in callbacks], checkpoint=path and _of_stage(path, k),
            checkpoint_seconds=checkpoint_seconds, backend=backend, progress=progress, score=score,
        )  # fmt: skip
        run.before = done
        runs.append(run)
        theta, done = run.theta, done + run.updates
        is_solved = recipe.stop_when_solved and _solved(run)
        is_over = is_solved or run.updates == recipe.max_updates or _out_of_patience(run, callbacks)
        passed += is_solved or (is_over and not recipe.stop_when_solved)
        if not is_over or run.interrupted:
            return Staged(runs, passed, complete=False)
        if passed <= k or done >= budget:
            break
    return Staged(runs, passed, complete=True)


def _told(callback: Callback, done: int) -> Callback:
    """Return a callback that is told of the updates of the stages before."""
    if isinstance(callback, EarlyStopping):
        return callback

    def told(run: Run) -> Any:
        return callback(dataclasses.replace(run, before=done))

    told.keeps_nothing = getattr(callback, "keeps_nothing", False)  # type: ignore[attr-defined]
    return told


def _of_stage(path: pathlib.Path, k: int) -> pathlib.Path:
    return path.with_name(f"{path.stem}.{k}{path.suffix}")


def _solved(run: Run) -> bool:
    """Tell whether every replica has been below what counts as solved."""
    found = run.first_passage
    return all(at is not None for at in (found if isinstance(found, list) else [found]))


def _out_of_patience(run: Run, callbacks: Sequence[Callback]) -> bool:
    return any(isinstance(callback, EarlyStopping) and callback(run) for callback in callbacks)
