"""Updates one at a time, for a loop of one's own: all is checked and made once, before the first."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from nbflow import _check
from nbflow.data.sampler import Sampler
from nbflow.gradients._engine import engine_of
from nbflow.model.network import Network
from nbflow.records import Batch, Floats
from nbflow.training._loop import Loop
from nbflow.training.halving_rate import HalvingRate
from nbflow.training.recipe import Recipe, check_recipe


def updater(
    net: Network,
    theta: Floats,
    task: str | Sampler | None,
    recipe: Recipe,
    *,
    seed: int = 0,
    replica_ids: Sequence[int] | None = None,
    backend: str = "cpu",
) -> Updater:
    """Return what does one update of a recipe at each call, in a loop of one's own.

    Each is the update of `nbflow.train`, to the same bits and at its speed: network, recipe and memory are checked and
    made once, where `nbflow.gradient`, `nbflow.clip` and a step do so at every call.

    Parameters
    ----------
    net : Network
    theta : array of shape (P,) or (R, P)
        Where to begin; it is not changed.
    task : str, Task, task of a user's data, or None
        What batches are drawn of, as in `nbflow.train`; None where each call is given its batch.
    recipe : Recipe
        Of which `max_updates` and what concerns evaluations have no say: the loop is yours, and so is
        `nbflow.evaluate`. A row of the history is made every `record_every` updates.
    seed, replica_ids, backend : optional
        As in `nbflow.train`.

    Returns
    -------
    Updater

    Raises
    ------
    TypeError, ValueError, NotImplementedError
        As `nbflow.train`, before the first update.

    Examples
    --------
    >>> import nbflow as nf
    >>> net = nf.Network("tanh", n_in=6, n_hidden=20, n_out=4)
    >>> theta = nf.init(net, "smart_tanh", rng=0)
    >>> recipe = nf.Recipe(lr=0.1, lengths=10, clip=nf.Clip("norm", 1.0))
    >>> update = nf.updater(net, theta, "temporal_order", recipe)
    >>> for _ in range(3):
    ...     update()
    >>> update.updates, update.theta.shape == theta.shape, update.norm > 0
    (3, True, True)

    With batches of one's own, which may have other sizes every time:

    >>> update = nf.updater(net, theta, None, recipe)
    >>> for length in (10, 20, 15):
    ...     update(nf.load_task("temporal_order").sample(seed=0, index=length, batch_size=8, length=length))
    >>> update.updates
    3
    """
    if isinstance(check_recipe(recipe).lr, HalvingRate):
        raise ValueError(
            "lr is a HalvingRate, which follows evaluations; expected a number or a function of the update, for an "
            "updater evaluates nothing. Pass lr=lambda update: rate, and lower `rate` where your loop evaluates."
        )
    recipe = dataclasses.replace(check_recipe(recipe), evaluate_every=0, stop_when_solved=False, max_updates=2**62)
    return Updater(net, theta, task, recipe, seed, replica_ids, backend)


class Updater:
    """One update of a recipe at each call; made by `nbflow.updater`.

    Attributes
    ----------
    updates : int
        How many were done.
    theta : net.dtype array of shape (P,) or (R, P)
        The parameters now: a view that is not to be written, and that the next update changes. Assign to go on from
        others, `update.theta = projected`; they are copied.
    loss, omega, norm, clipped_norm : float, or array of shape (R,)
        Of the last update: its loss, Omega (0 without a flow), the norm of its gradient, and that after the clip. NaN
        before the first.
    history : dict of lists
        Rows as those of `Run.history`, means over `record_every` updates each.
    """

    def __init__(
        self, net: Network, theta: Floats, task: Any, recipe: Recipe, seed: int, replica_ids: Any, backend: str
    ) -> None:
        self._given: Any = None
        self._alone = task is None
        source = (lambda _: self._given) if task is None else task
        if callable(source) and task is not None and not isinstance(task, Sampler):
            raise TypeError(
                f"task is {_check.said(task)}, a function; expected a task, or None. Give each call its batch instead."
            )
        self._loop = Loop(engine_of(backend), net, theta, source, recipe, seed, replica_ids)

    def __call__(self, batch: Batch | None = None) -> None:
        """Do one update, of this batch or of the task's next one.

        Raises
        ------
        TypeError, ValueError
            If the batch does not fit, or there is one beside a task; nothing is changed then.
        FloatingPointError
            If a gradient is not finite and the clip's policy is "raise".
        """
        if (batch is None) == self._alone:
            had = "None and so is the task; expected a Batch. Give one at every call, or a task to `nbflow.updater`."
            has = "given beside a task; expected none, for the task draws them. Call nbflow.updater with task=None."
            raise TypeError(f"batch is {had if batch is None else has}")
        self._given = batch
        loop = self._loop
        loop.one_update(loop.run.updates)
        if loop.run.updates % loop.recipe.record_every == 0:
            loop.training.report()
            loop.record()

    def __repr__(self) -> str:
        """Say how far it is."""
        return f"Updater({self.updates:,} updates, loss {self.loss}, norm {self.norm})"

    @property
    def updates(self) -> int:
        """How many were done."""
        return self._loop.run.updates

    @property
    def history(self) -> dict[str, list[Any]]:
        """Rows of means over `record_every` updates."""
        return self._loop.run.history

    @property
    def theta(self) -> Floats:
        """The parameters now."""
        self._loop.training.bring()
        seen = self._loop.theta.view()
        seen.flags.writeable = False
        return seen[0] if self._loop.single else seen

    @theta.setter
    def theta(self, theta: Floats) -> None:
        from nbflow.model._arguments import parameters

        rows, _ = parameters(self._loop.net, theta)
        if rows.shape != self._loop.theta.shape:
            raise ValueError(
                f"theta has shape {np.shape(theta)}; expected {self.theta.shape}, as at the first. Give as many."
            )
        self._loop.training.bring()
        self._loop.theta[...] = rows
        self._loop.training.take()

    @property
    def loss(self) -> Any:
        """The loss of the last update."""
        return self._last("loss")

    @property
    def omega(self) -> Any:
        """Omega of the last update."""
        return self._last("omega")

    @property
    def norm(self) -> Any:
        """The norm of the last gradient."""
        return self._last("norm")

    @property
    def clipped_norm(self) -> Any:
        """The norm of the last gradient after the clip."""
        return self._last("clipped_norm")

    def _last(self, name: str) -> Any:
        if self.updates:
            self._loop.training.report()
        found = self._loop.window.last(name)
        return float(found[0]) if self._loop.single else found
